//! rename(2) with its flags: references move, bytes and entries stay where they are.

use super::draft::Draft;
use super::names::check_name;
use super::{Found, Ground, Outcome, Overlay, OverlayError, now};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::{Content, Stamp};

/// What may become of a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It is an error (`RENAME_NOREPLACE`).
    Refuse,
    /// Both change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The directory.
    pub parent: Ino,
    /// The name.
    pub name: &'a [u8],
}

impl Overlay {
    /// Renames `from` to `to`.
    pub fn rename(
        &self,
        view: &View,
        ground: &dyn Ground,
        from: At<'_>,
        to: At<'_>,
        existing: Existing,
    ) -> Outcome<()> {
        check_name(from.parent, from.name)?;
        check_name(to.parent, to.name)?;
        let mut state = self.state.write();
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let (source, target) = (draft.find(from.parent, from.name)?, draft.find(to.parent, to.name)?);
        let source_ino = source.ino().ok_or(OverlayError::NotFound)?;
        match (target.ino(), existing) {
            (Some(_), Existing::Refuse) => return Err(OverlayError::Exists),
            (None, Existing::Exchange) => return Err(OverlayError::NotFound),
            // Two names of one file: rename(2) does nothing.
            (Some(target), _) if target == source_ino => return Ok(()),
            _ => {}
        }
        let now = now();
        // Directories first: their nodes are made from what is bound now.
        draft.directory(from.parent)?;
        draft.directory(to.parent)?;
        let mut orphan = None;
        let (source_dir, target_dir) = (source.is_directory(), target.is_directory());
        if existing == Existing::Exchange {
            draft.relink(&target, to, from, now)?;
        } else {
            match (target.ino(), source_dir, target_dir) {
                (None, ..) => {}
                (Some(_), true, false) => return Err(OverlayError::NotDirectory),
                (Some(_), false, true) => return Err(OverlayError::IsDirectory),
                (Some(_), true, true) => orphan = Some(draft.detach_directory(&target, now)?),
                (Some(_), false, false) => orphan = draft.detach(to.parent, to.name, &target, now)?,
            }
            draft.unbind(from.parent, from.name)?;
        }
        draft.relink(&source, from, to, now)?;
        let one = |is: bool| i32::from(is);
        let (leaving, arriving) = match existing {
            Existing::Exchange => (one(target_dir) - one(source_dir), one(source_dir) - one(target_dir)),
            _ => (-one(source_dir), one(source_dir) - one(target_dir)),
        };
        draft.touch_directory(from.parent, now, leaving)?;
        draft.touch_directory(to.parent, now, arriving)?;
        let exchanged_dir = existing == Existing::Exchange && target_dir;
        draft.report(from.parent, from.name, source_dir)?;
        draft.report(to.parent, to.name, source_dir || target_dir)?;
        if exchanged_dir && !source_dir {
            draft.report(from.parent, from.name, true)?;
        }
        draft.apply()?;
        ground.moved(source_ino, to.parent, to.name);
        if let (Existing::Exchange, Some(target)) = (existing, target.ino()) {
            ground.moved(target, from.parent, from.name);
        }
        state.adopt(orphan);
        Ok(())
    }
}

impl Draft<'_> {
    /// Gives what is at `from` the name `to`; a directory of the base takes its tree along.
    fn relink(&mut self, found: &Found, from: At<'_>, to: At<'_>, now: Stamp) -> Outcome<()> {
        let tree = match found.ino() {
            Some(ino) if found.is_directory() => match found {
                Found::Base { kind: crate::store::EntryKind::Directory, id, .. } => Some(*id),
                Found::Base { .. } => None,
                _ => self.state.tree(self.view, self.ground, ino)?,
            },
            _ => None,
        };
        let mut origin = self.state.base_path(self.ground, from.parent)?;
        let (ino, node) = self.found(from.parent, from.name, found)?;
        let shows_base = matches!(node.content, Content::Base | Content::Tree(_) | Content::Blob(_));
        if shows_base && node.origin.is_empty() {
            if !origin.is_empty() {
                origin.push(b'/');
            }
            origin.extend_from_slice(from.name);
            node.origin = origin.into();
        }
        if node.content == Content::Base {
            node.content = tree.map_or(Content::Empty, Content::Tree);
        }
        let place = node.links.iter_mut().find(|(at, called)| (*at, &**called) == (from.parent.0, from.name));
        *place.ok_or(OverlayError::Stale)? = (to.parent.0, Box::from(to.name));
        node.ctime = now;
        let kind = node.kind();
        self.bind(to.parent, to.name, ino, kind);
        Ok(())
    }
}
