//! Making, linking and removing names (mkdir(2), mknod(2), symlink(2), link(2), unlink(2), rmdir(2)).
//!
//! None of these needs a byte of the base: removing or replacing a file that was never fetched fetches nothing.

use std::sync::Arc;

use super::draft::Draft;
use super::{Found, Ground, Outcome, Overlay, OverlayError, now};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::{Binding, Content, Node};

/// Longest name of a file, in bytes.
pub const NAME_MAX: usize = 255;

/// Hard links of one file, as NTFS has them. All are in its node, which each change writes: tens of thousands of links took
/// hours and gigabytes to make. `pathconf(3)` promises 127 of any file system it does not know.
const LINK_MAX: usize = 1023;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct New {
    /// Type and permissions, the umask taken off.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory passes on its own.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Target of a symlink.
    pub target: Option<Box<[u8]>>,
}

impl Overlay {
    /// Makes `name` in `parent`.
    pub fn make(
        &self,
        view: &View,
        ground: &dyn Ground,
        parent: Ino,
        name: &[u8],
        new: New,
    ) -> Outcome<(Ino, Arc<Node>)> {
        check_name(parent, name)?;
        let mut state = self.state.write();
        let ino = Ino::local(state.log.take_number());
        let number = state.log.take_number();
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        if !matches!(draft.find(parent, name)?, Found::Nothing) {
            return Err(OverlayError::Exists);
        }
        let now = now();
        let content = match (new.mode & Node::TYPE, new.target) {
            (libc::S_IFREG, _) => Content::File(number),
            (libc::S_IFLNK, Some(target)) => Content::Target(target),
            (libc::S_IFLNK, None) => return Err(OverlayError::Invalid),
            _ => Content::Empty,
        };
        let mut node = Node { uid: new.uid, gid: new.gid, rdev: new.rdev, ..draft.fresh(new.mode, content) };
        (node.atime, node.mtime, node.ctime) = (now, now, now);
        node.links = vec![(parent.0, Box::from(name))];
        let above = draft.directory(parent)?;
        if above.mode & libc::S_ISGID != 0 {
            node.gid = above.gid;
            if node.is_directory() {
                node.mode |= libc::S_ISGID;
            }
        }
        let directory = node.is_directory();
        draft.bind(parent, name, ino, node.kind());
        draft.put(ino, node.clone());
        draft.touch_directory(parent, now, i32::from(directory))?;
        draft.report(parent, name, directory)?;
        draft.apply()?;
        // A number that was given out now was told to nobody before: writes that follow are covered by this report only
        // if no token is handed out in between, which clears the set.
        if let Content::File(number) = node.content {
            state.reported.insert(ino);
            state.held.made(number);
        }
        Ok((ino, Arc::new(node)))
    }

    /// Gives `ino` another name.
    pub fn link(&self, view: &View, ground: &dyn Ground, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<Arc<Node>> {
        check_name(parent, name)?;
        let mut state = self.state.write();
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        if !matches!(draft.find(parent, name)?, Found::Nothing) {
            return Err(OverlayError::Exists);
        }
        let now = now();
        let node = draft.node(ino)?;
        if node.is_directory() {
            return Err(OverlayError::NotPermitted);
        }
        if node.links.is_empty() {
            return Err(OverlayError::NotFound);
        }
        if node.links.len() >= LINK_MAX {
            return Err(OverlayError::TooManyLinks);
        }
        node.links.push((parent.0, Box::from(name)));
        node.ctime = now;
        let linked = node.clone();
        draft.bind(parent, name, ino, linked.kind());
        draft.touch_directory(parent, now, 0)?;
        draft.report(parent, name, false)?;
        draft.apply()?;
        Ok(Arc::new(linked))
    }

    /// Removes the name of something that is no directory. Its inode stays as long as the kernel knows it.
    pub fn unlink(&self, view: &View, ground: &dyn Ground, parent: Ino, name: &[u8]) -> Outcome<()> {
        check_name(parent, name)?;
        let mut state = self.state.write();
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let found = draft.find(parent, name)?;
        if found.is_directory() {
            return Err(OverlayError::IsDirectory);
        }
        let now = now();
        let orphan = draft.detach(parent, name, &found, now)?;
        draft.unbind(parent, name)?;
        draft.touch_directory(parent, now, 0)?;
        draft.report(parent, name, false)?;
        draft.apply()?;
        state.adopt(orphan);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, view: &View, ground: &dyn Ground, parent: Ino, name: &[u8]) -> Outcome<()> {
        check_name(parent, name)?;
        let mut state = self.state.write();
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let found = draft.find(parent, name)?;
        let now = now();
        let orphan = draft.detach_directory(&found, now)?;
        draft.unbind(parent, name)?;
        draft.touch_directory(parent, now, -1)?;
        draft.report(parent, name, true)?;
        draft.apply()?;
        state.adopt(Some(orphan));
        Ok(())
    }
}

/// Whether Larder lets that name be made, removed or moved.
pub(super) fn check_name(parent: Ino, name: &[u8]) -> Outcome<()> {
    if name.len() > NAME_MAX {
        return Err(OverlayError::NameTooLong);
    }
    // The root's `.git` is what makes it a working tree.
    if parent == Ino::ROOT && name == b".git" {
        return Err(OverlayError::NotPermitted);
    }
    Ok(())
}

impl super::State {
    /// Keeps an inode without names as long as the kernel knows it.
    pub(super) fn adopt(&mut self, orphan: Option<(Ino, Node)>) {
        if let Some((ino, node)) = orphan {
            self.unsettled.remove(&ino);
            self.listings.remove(ino);
            self.orphans.insert(ino, Arc::new(node));
        }
    }
}

impl Draft<'_> {
    /// Takes `name` from what was found; answers the inode when that was its last name.
    pub(super) fn detach(
        &mut self,
        parent: Ino,
        name: &[u8],
        found: &Found,
        now: crate::store::overlay::Stamp,
    ) -> Outcome<Option<(Ino, Node)>> {
        let (ino, node) = self.found(parent, name, found)?;
        let before = node.links.len();
        node.links.retain(|(at, called)| (*at, &**called) != (parent.0, name));
        node.ctime = now;
        if before == node.links.len() {
            return Err(OverlayError::Stale);
        }
        if !node.links.is_empty() {
            // What the kernel found under the removed name is found under another one from now on.
            let (at, called) = node.links[0].clone();
            self.ground.moved(ino, Ino(at), &called);
            return Ok(None);
        }
        Ok(self.drop_node(ino).map(|node| (ino, node)))
    }

    /// Takes an empty directory out; refuses one that has entries.
    pub(super) fn detach_directory(
        &mut self,
        found: &Found,
        now: crate::store::overlay::Stamp,
    ) -> Outcome<(Ino, Node)> {
        let ino = found.ino().ok_or(OverlayError::NotFound)?;
        if !found.is_directory() {
            return Err(OverlayError::NotDirectory);
        }
        let bindings = self.state.log.bindings(ino.0)?;
        if bindings.values().any(|binding| *binding != Binding::Whiteout) {
            return Err(OverlayError::NotEmpty);
        }
        let tree = match found {
            Found::Base { kind: crate::store::EntryKind::Directory, id, .. } => Some(*id),
            Found::Base { .. } | Found::Nothing => None,
            Found::Bound { .. } => self.state.tree(self.view, self.ground, ino)?,
        };
        if let Some(tree) = tree {
            let directory = self.view.directory(&tree)?;
            if directory.listing().iter().any(|entry| !bindings.contains_key(entry.name)) {
                return Err(OverlayError::NotEmpty);
            }
        }
        for name in bindings.keys() {
            self.clear(ino, name);
        }
        let mut node = match found {
            Found::Bound { node, .. } => Node::clone(node),
            _ => self.fresh(libc::S_IFDIR | 0o755, Content::Empty),
        };
        node.content = Content::Empty;
        node.links.clear();
        node.ctime = now;
        self.drop_node(ino);
        Ok((ino, node))
    }
}
