//! Bytes of regular files that were changed: reading, writing, cutting, and taking over what the base has (copy-up).
//!
//! A file of the base is taken over when its bytes are first needed for a change. Its inode stays what it is, so whoever
//! has it open sees the new bytes, as on any file system.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLockWriteGuard;
use rustix::fs::{FallocateFlags, SeekFrom, Timespec, Timestamps, fallocate, futimens, seek};

use super::draft::Draft;
use super::{Ground, Outcome, Overlay, OverlayError, State, now};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::{Change, Content, Node, Stamp};

/// Size and times of a file as its bytes have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Stamp,
    /// Last change of content.
    pub mtime: Stamp,
    /// Last change of anything.
    pub ctime: Stamp,
}

/// A node, with its size and times unless those are a blob's.
pub type Weighed = (Arc<Node>, Option<Measured>);

impl Overlay {
    /// The node of `ino` with its size and times.
    pub fn weigh(&self, ino: Ino) -> Outcome<Option<Weighed>> {
        // Under one lock: a file may be given up for a blob in between.
        let state = self.state.read();
        match state.node(ino)? {
            Some(node) => self.measure(&state, &node).map(|measured| Some((node, measured))),
            None => Ok(None),
        }
    }

    /// Size and times of a node; `None` where its bytes are a blob's.
    pub(super) fn measure(&self, state: &State, node: &Node) -> Outcome<Option<Measured>> {
        if let Content::File(number) = &node.content
            && let Some(bytes) = state.held.get(*number)
        {
            return Ok(Some(Self::measure_held(node, bytes)));
        }
        let plain = |size: u64| Measured {
            size,
            blocks: size.div_ceil(512),
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        };
        Ok(match &node.content {
            Content::Blob(_) => None,
            Content::Target(target) => Some(plain(target.len() as u64)),
            Content::File(number) => Some(match self.files.get(*number)? {
                None => plain(0),
                Some(file) => {
                    let found = file.metadata()?;
                    let stamp = |seconds, nanos| Stamp { seconds, nanos: u32::try_from(nanos).unwrap_or_default() };
                    Measured {
                        size: found.size(),
                        blocks: found.blocks(),
                        atime: stamp(found.atime(), found.atime_nsec()),
                        mtime: stamp(found.mtime(), found.mtime_nsec()),
                        ctime: node.ctime.max(stamp(found.ctime(), found.ctime_nsec())),
                    }
                }
            }),
            Content::Base | Content::Tree(_) => Some(plain(4096)),
            Content::Empty => Some(plain(if node.is_directory() { 4096 } else { 0 })),
        })
    }

    /// Up to `length` bytes of `ino` from `offset`; `None`: its bytes are not its own.
    pub fn read(&self, ino: Ino, offset: u64, length: usize) -> Outcome<Option<Vec<u8>>> {
        let state = self.state.read();
        match state.node(ino)?.map(|node| node.content.clone()) {
            Some(Content::File(number)) => match state.held.get(number) {
                Some(bytes) => {
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                    Ok(Some(bytes[start..bytes.len().min(start.saturating_add(length))].to_vec()))
                }
                None => self.read_file(number, offset, length).map(Some),
            },
            _ => Ok(None),
        }
    }

    fn read_file(&self, number: u64, offset: u64, length: usize) -> Outcome<Vec<u8>> {
        let Some(file) = self.files.get(number)? else { return Ok(Vec::new()) };
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(some) => filled += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Writes `bytes` at `offset` of `ino`; false: its bytes are not its own, and have to be taken over first.
    pub fn write(&self, ground: &dyn Ground, ino: Ino, offset: u64, bytes: &[u8]) -> Outcome<bool> {
        // The kernel tells a moment after the last name went that a file is forgotten; then its room is free.
        const LOOKS: u32 = 10;
        const PAUSE: Duration = Duration::from_millis(20);
        for _ in 0..LOOKS {
            match self.write_once(ground, ino, offset, bytes) {
                Err(OverlayError::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
                    self.files.wait_for_removals();
                    std::thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
        self.write_once(ground, ino, offset, bytes)
    }

    fn write_once(&self, ground: &dyn Ground, ino: Ino, offset: u64, bytes: &[u8]) -> Outcome<bool> {
        if self.hold(ground, ino, offset, bytes)? {
            return Ok(true);
        }
        self.with_file(ground, ino, |file| Ok(file.write_all_at(bytes, offset)?))
    }

    /// fallocate(2) on `ino`; false as for [`Self::write`].
    pub fn allocate(&self, ground: &dyn Ground, ino: Ino, offset: u64, length: u64, mode: u32) -> Outcome<bool> {
        let flags = FallocateFlags::from_bits(mode).ok_or(OverlayError::Unsupported)?;
        self.with_file(ground, ino, |file| Ok(fallocate(file.as_fd(), flags, offset, length).map_err(io::Error::from)?))
    }

    /// Sets the length of `ino`; false as for [`Self::write`].
    pub fn truncate(&self, ground: &dyn Ground, ino: Ino, size: u64) -> Outcome<bool> {
        self.with_file(ground, ino, |file| Ok(file.set_len(size)?))
    }

    /// Where data or a hole begins at or after `offset` of `ino` (lseek(2), `SEEK_DATA` and `SEEK_HOLE`); `None`: its bytes
    /// are not its own.
    pub fn seek(&self, ino: Ino, offset: u64, data: bool) -> Outcome<Option<u64>> {
        let mut state = self.state.write();
        let Some(Content::File(number)) = state.node(ino)?.map(|node| node.content.clone()) else { return Ok(None) };
        self.release(&mut state, number)?;
        let _state = RwLockWriteGuard::downgrade(state);
        // A handle of its own: the shared one's position is everybody's.
        let file = match File::open(self.files.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(io::Error::from_raw_os_error(libc::ENXIO).into());
            }
            other => other?,
        };
        let whence = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        Ok(Some(seek(file.as_fd(), whence).map_err(io::Error::from)?))
    }

    /// Changes the bytes of `ino` by `act`, in the journal before and covered by it after: a token is handed out either
    /// before the report, or after the bytes are there.
    fn with_file(&self, ground: &dyn Ground, ino: Ino, act: impl FnOnce(&File) -> Outcome<()>) -> Outcome<bool> {
        let number = |state: &State| -> Outcome<Option<u64>> {
            Ok(match state.node(ino)?.map(|node| node.content.clone()) {
                Some(Content::File(number)) => Some(number),
                _ => None,
            })
        };
        let mut state = self.state.read();
        let reported = state.reported.contains(&ino) || state.orphans.contains_key(&ino);
        if !reported || number(&state)?.is_some_and(|number| state.held.may_have(number)) {
            drop(state);
            let mut exclusive = self.state.write();
            exclusive.report_write(ground, ino)?;
            if let Some(number) = number(&exclusive)? {
                self.release(&mut exclusive, number)?;
            }
            state = RwLockWriteGuard::downgrade(exclusive);
        }
        let Some(number) = number(&state)? else { return Ok(false) };
        let file = self.files.create(number)?;
        act(&file).map(|()| true)
    }

    /// Takes over a file whose bytes were copied into `number` ([`Self::prepare`]). Answers false when somebody else did so
    /// first; the copy is removed then.
    pub fn take_over(&self, view: &View, ground: &dyn Ground, ino: Ino, number: u64) -> Outcome<bool> {
        let mut state = self.state.write();
        let content = state.node(ino)?.map(|node| node.content.clone());
        if !matches!(content, None | Some(Content::Blob(_))) {
            drop(state);
            self.files.remove(number);
            return Ok(false);
        }
        if let Some(orphan) = state.orphans.get(&ino) {
            let node = Node { content: Content::File(number), ..Node::clone(orphan) };
            state.orphans.insert(ino, Arc::new(node));
            return Ok(true);
        }
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let node = draft.node(ino)?;
        if !node.is_regular() {
            return Err(OverlayError::Invalid);
        }
        node.content = Content::File(number);
        draft.report_links(ino)?;
        draft.apply()?;
        Ok(true)
    }

    /// A new file for the bytes of an inode that is to be taken over.
    pub fn prepare(&self) -> Outcome<(u64, Arc<File>)> {
        let number = self.state.write().log.take_number();
        Ok((number, self.files.create(number)?))
    }

    /// Gives up a copy that did not succeed.
    pub fn abandon(&self, number: u64) {
        self.files.remove(number);
    }

    /// Stamps a file with the times that its inode had until now.
    pub fn stamp(file: &File, atime: Stamp, mtime: Stamp) -> Outcome<()> {
        let time = |stamp: Stamp| Timespec { tv_sec: stamp.seconds, tv_nsec: stamp.nanos.into() };
        let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
        Ok(futimens(file.as_fd(), &times).map_err(io::Error::from)?)
    }

    /// Replaces the bytes of `ino` by none: nothing of the base is needed for that.
    pub fn empty(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<()> {
        let mut state = self.state.write();
        let now = now();
        let number = state.log.take_number();
        if let Some(orphan) = state.orphans.get(&ino) {
            let mut node = Node { content: Content::File(number), ..Node::clone(orphan) };
            (node.mtime, node.ctime) = (now, now);
            state.orphans.insert(ino, Arc::new(node));
            return Ok(());
        }
        let mut draft = Draft::new(&mut state, view, ground, &self.defaults);
        let node = draft.node(ino)?;
        if !node.is_regular() {
            return Err(OverlayError::Invalid);
        }
        if let Content::File(mine) = node.content {
            // Somebody took it over meanwhile.
            draft.report_links(ino)?;
            draft.apply()?;
            self.release(&mut state, mine)?;
            return Ok(self.files.create(mine)?.set_len(0)?);
        }
        node.content = Content::File(number);
        (node.mtime, node.ctime) = (now, now);
        draft.report_links(ino)?;
        draft.apply()
    }

    /// Makes `ino` durable: its bytes, unless only names changed, and every operation acknowledged so far.
    pub fn sync(&self, ino: Ino, data_only: bool) -> Outcome<()> {
        let (number, logs) = {
            let mut state = self.state.write();
            let number = match state.node(ino)?.map(|node| node.content.clone()) {
                Some(Content::File(number)) => Some(number),
                _ => None,
            };
            if let Some(number) = number {
                self.release(&mut state, number)?;
            }
            (number, state.log.syncers())
        };
        if let Some(number) = number
            && let Some(file) = self.files.get(number)?
        {
            if data_only { file.sync_data() } else { file.sync_all() }?;
        }
        for log in logs {
            log.sync_data()?;
        }
        Ok(())
    }
}

impl State {
    /// Notes in the journal that the bytes of `ino` are about to change, once for each token handed out.
    pub(super) fn report_write(&mut self, ground: &dyn Ground, ino: Ino) -> Outcome<()> {
        if self.reported.contains(&ino) || self.orphans.contains_key(&ino) {
            return Ok(());
        }
        let Some(node) = self.log.node(ino.0)? else { return Ok(()) };
        let mut paths = Vec::with_capacity(node.links.len());
        for (parent, name) in &node.links {
            paths.push(self.path(ground, Ino(*parent), name)?.into_boxed_slice());
        }
        self.log.apply(Change { paths, ..Change::default() })?;
        self.reported.insert(ino);
        self.unsettled.insert(ino);
        Ok(())
    }
}
