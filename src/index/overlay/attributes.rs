//! Modes, owners, times (chmod(2), chown(2), utimensat(2)) and extended attributes (xattr(7)).

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Timespec, Timestamps, futimens};

use super::draft::Draft;
use super::{Ground, Outcome, Overlay, OverlayError, now};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::{Content, Node, Stamp};

/// Bytes of names and values that one file's extended attributes may have; ext4 has a block.
const XATTR_BYTES: usize = 64 << 10;

/// Attributes of Larder's own, which nobody sets.
pub const OWN_XATTRS: &[u8] = b"user.larder.";

/// What is to be changed; `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Set {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Stamp>,
    /// Last change of content.
    pub mtime: Option<Stamp>,
}

impl Set {
    /// Whether everything stays.
    pub fn is_empty(&self) -> bool {
        let Self { mode, uid, gid, atime, mtime } = self;
        mode.is_none() && uid.is_none() && gid.is_none() && atime.is_none() && mtime.is_none()
    }
}

/// Whether an extended attribute has to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does not matter.
    Any,
    /// It must not (`XATTR_CREATE`).
    Absent,
    /// It must (`XATTR_REPLACE`).
    Present,
}

impl Overlay {
    /// Changes attributes of `ino` that are not its size.
    pub fn set(&self, view: &View, ground: &dyn Ground, ino: Ino, set: &Set) -> Outcome<Arc<Node>> {
        let mut state = self.state.write();
        if let Some(orphan) = state.orphans.get(&ino) {
            let mut node = Node::clone(orphan);
            change(&mut node, set);
            self.stamp_file(&node, set)?;
            let node = Arc::new(node);
            state.orphans.insert(ino, Arc::clone(&node));
            return Ok(node);
        }
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let node = draft.node(ino)?;
        change(node, set);
        let node = node.clone();
        self.stamp_file(&node, set)?;
        // Git looks at times and at the executable bit of files; of directories at nothing.
        if !node.is_directory() && (set.mode.is_some() || set.mtime.is_some()) {
            draft.report_links(ino)?;
        }
        draft.apply()?;
        Ok(Arc::new(node))
    }

    /// The times of a file with bytes are the file's own.
    fn stamp_file(&self, node: &Node, set: &Set) -> Outcome<()> {
        let Content::File(number) = node.content else { return Ok(()) };
        if set.atime.is_none() && set.mtime.is_none() {
            return Ok(());
        }
        // What has no file yet gets these with it.
        if let Some(file) = self.files.get(number)? {
            let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
            let time = |stamp: Option<Stamp>| {
                stamp.map_or(omit, |stamp| Timespec { tv_sec: stamp.seconds, tv_nsec: stamp.nanos.into() })
            };
            let times = Timestamps { last_access: time(set.atime), last_modification: time(set.mtime) };
            futimens(file.as_fd(), &times).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    /// Sets the extended attribute `name`.
    pub fn set_xattr(
        &self,
        view: &View,
        ground: &dyn Ground,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        presence: Presence,
    ) -> Outcome<()> {
        if name.starts_with(OWN_XATTRS) {
            return Err(OverlayError::NotPermitted);
        }
        if !name.starts_with(b"user.") {
            return Err(OverlayError::Unsupported);
        }
        if name == b"user." {
            return Err(OverlayError::Invalid);
        }
        self.change_xattrs(view, ground, ino, |node| {
            let place = node.xattrs.binary_search_by(|(known, _)| (**known).cmp(name));
            match (place, presence) {
                (Ok(_), Presence::Absent) => return Err(OverlayError::Exists),
                (Err(_), Presence::Present) => return Err(OverlayError::NoData),
                (Ok(at), _) => node.xattrs[at].1 = Box::from(value),
                (Err(at), _) => node.xattrs.insert(at, (Box::from(name), Box::from(value))),
            }
            let bytes: usize = node.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            if bytes > XATTR_BYTES { Err(OverlayError::TooMuch) } else { Ok(()) }
        })
    }

    /// Removes the extended attribute `name`.
    pub fn remove_xattr(&self, view: &View, ground: &dyn Ground, ino: Ino, name: &[u8]) -> Outcome<()> {
        if name.starts_with(OWN_XATTRS) {
            return Err(OverlayError::NotPermitted);
        }
        self.change_xattrs(view, ground, ino, |node| {
            let place = node.xattrs.binary_search_by(|(known, _)| (**known).cmp(name));
            node.xattrs.remove(place.map_err(|_| OverlayError::NoData)?);
            Ok(())
        })
    }

    fn change_xattrs(
        &self,
        view: &View,
        ground: &dyn Ground,
        ino: Ino,
        change: impl FnOnce(&mut Node) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut state = self.state.write();
        if let Some(orphan) = state.orphans.get(&ino) {
            let mut node = Node::clone(orphan);
            change(&mut node)?;
            state.orphans.insert(ino, Arc::new(node));
            return Ok(());
        }
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let node = draft.node(ino)?;
        change(node)?;
        node.ctime = now();
        draft.apply()
    }
}

fn change(node: &mut Node, set: &Set) {
    if let Some(mode) = set.mode {
        node.mode = (node.mode & Node::TYPE) | (mode & !Node::TYPE);
    }
    node.uid = set.uid.unwrap_or(node.uid);
    node.gid = set.gid.unwrap_or(node.gid);
    node.atime = set.atime.unwrap_or(node.atime);
    node.mtime = set.mtime.unwrap_or(node.mtime);
    node.ctime = now();
}
