//! What Git is told: which paths changed since a token, and all that differ from the base.

use std::collections::BTreeSet;

use super::settle::Seen;
use super::{Ground, Outcome, Overlay, State};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::EntryKind;
use crate::store::overlay::{Binding, Content, Name};

/// A point in a workspace's history of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which history.
    pub epoch: u64,
    /// The first change that is not known at that point; 0: that of an index that says what the base of a generation
    /// says.
    pub sequence: u64,
}

/// What changed since a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It can't be told.
    Everything,
    /// These paths; a directory's ends in `/` and stands for all beneath.
    Paths(BTreeSet<Name>),
}

impl Overlay {
    /// The present point, and what changed since `since`, when the base was the one of `view` if `same_base`. Whoever has
    /// the point is told of all later changes, if asked again.
    pub fn changed_since(
        &self,
        view: &View,
        ground: &dyn Ground,
        since: Option<Point>,
        same_base: bool,
    ) -> Outcome<(Point, Changed)> {
        let mut state = self.state.write();
        // Writes that come now are told to whoever asks next.
        state.reported.clear();
        let point = Point { epoch: state.log.epoch(), sequence: state.log.sequence() };
        let Some(since) = since.filter(|since| since.epoch == point.epoch && since.sequence <= point.sequence) else {
            return Ok((point, Changed::Everything));
        };
        if since.sequence > 0
            && let Some(paths) = state.log.changed_since(since.sequence)?
        {
            return Ok((point, Changed::Paths(paths)));
        }
        let mut paths = BTreeSet::new();
        if since.sequence == 0 && same_base {
            state.changed(view, ground, false, &mut |path, base, seen| {
                let was_directory = matches!(base, Some((EntryKind::Directory, _)));
                let directory = match seen {
                    Seen::Node(node) => node.is_directory(),
                    Seen::Moved(kind, _) => kind == EntryKind::Directory,
                    Seen::Nothing => was_directory,
                };
                for (is, end) in [(directory, &b"/"[..]), (!directory || was_directory != directory, b"")] {
                    if is {
                        paths.insert([path, end].concat().into());
                    }
                }
                Ok(())
            })?;
            return Ok((point, Changed::Paths(paths)));
        }
        state.visit(&mut |path, _, _| {
            paths.insert(path.into());
        })?;
        Ok((point, Changed::Paths(paths)))
    }

    /// The sequence of the next change. From here on every write is a change, also to a file that was written to before.
    pub fn mark(&self) -> u64 {
        let mut state = self.state.write();
        state.reported.clear();
        state.log.sequence()
    }

    /// The present point, without asking for changes.
    pub fn point(&self) -> Point {
        let state = self.state.read();
        Point { epoch: state.log.epoch(), sequence: state.log.sequence() }
    }
}

impl State {
    /// Calls `see` with path, directory and binding of every name that is or was not as the base has it.
    pub(super) fn visit(&self, see: &mut dyn FnMut(Vec<u8>, Ino, &Binding)) -> Outcome<()> {
        let mut open: Vec<(Ino, Vec<u8>)> = vec![(Ino::ROOT, Vec::new())];
        while let Some((parent, prefix)) = open.pop() {
            for (name, binding) in self.log.bindings(parent.0)? {
                let mut path = [&prefix[..], &name].concat();
                if let Binding::Inode { ino, kind, .. } = binding
                    && u32::from(kind) << 12 == libc::S_IFDIR
                {
                    path.push(b'/');
                    open.push((Ino(ino), path.clone()));
                    // A directory that stands where the base has it is no change by itself.
                    if self.node(Ino(ino))?.is_some_and(|node| node.content == Content::Base) {
                        continue;
                    }
                }
                see(path, parent, &binding);
            }
        }
        Ok(())
    }
}
