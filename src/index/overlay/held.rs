//! Small new files whose bytes are in the write-ahead file and in memory, and not yet in a file of their own.
//!
//! Most new files are small and written once: by a checkout, an unpacked archive, a compiler. Making a file costs as much as
//! all the rest of such an operation, so it is left to the fold, and to whoever does more with the file than append to it
//! and read it. A file that is gone by then was never made.
//!
//! Invariant: bytes are held, or all of them are in the file; the change from one to the other is in the write-ahead file
//! before anything else happens to the file. So replaying never puts old bytes over new ones.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;

use super::content::Measured;
use super::{Ground, Outcome, Overlay, State};
use crate::index::ino::Ino;
use crate::store::overlay::{Change, Content, Node, Written};

/// Longest file that is held: some appends of an archiver's buffer.
const FILE_BYTES: usize = 64 << 10;

/// Bytes held at most; files written beyond it are made at once.
const HELD_BYTES: usize = 64 << 20;

/// Files held at most.
const HELD_FILES: usize = 32 << 10;

/// The held bytes of one workspace.
#[derive(Default)]
pub(super) struct Held {
    files: HashMap<u64, (Ino, Vec<u8>)>,
    bytes: usize,
    /// Files that were made a moment ago and have no byte yet.
    fresh: HashSet<u64>,
}

impl Held {
    /// A file was made under a new number.
    pub(super) fn made(&mut self, number: u64) {
        if self.fresh.len() < HELD_FILES {
            self.fresh.insert(number);
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&[u8]> {
        self.files.get(&number).map(|(_, bytes)| &bytes[..])
    }

    /// Whether bytes of the file are held, or the first to come would be.
    pub(super) fn may_have(&self, number: u64) -> bool {
        self.files.contains_key(&number) || self.fresh.contains(&number)
    }

    /// Whether `length` bytes at `offset` can be held; they are the first, or go on where those before ended.
    fn takes(&self, number: u64, offset: u64, length: usize) -> bool {
        let end = match self.files.get(&number) {
            Some((_, bytes)) => bytes.len(),
            None if self.fresh.contains(&number) && self.files.len() < HELD_FILES => 0,
            None => return false,
        };
        offset == end as u64 && end + length <= FILE_BYTES && self.bytes + length <= HELD_BYTES
    }

    fn append(&mut self, number: u64, ino: Ino, bytes: &[u8]) {
        self.fresh.remove(&number);
        self.bytes += bytes.len();
        self.files.entry(number).or_insert_with(|| (ino, Vec::new())).1.extend_from_slice(bytes);
    }

    /// The file is gone; true when it never was one.
    pub(super) fn forget(&mut self, number: u64) -> bool {
        let fresh = self.fresh.remove(&number);
        match self.files.remove(&number) {
            Some((_, bytes)) => {
                self.bytes -= bytes.len();
                true
            }
            None => fresh,
        }
    }
}

impl Overlay {
    /// Holds `bytes`, written to `ino` at `offset`; false: they have to be written to its file.
    pub(super) fn hold(&self, ground: &dyn Ground, ino: Ino, offset: u64, bytes: &[u8]) -> Outcome<bool> {
        let holdable = |state: &State| -> Outcome<Option<u64>> {
            if state.orphans.contains_key(&ino) {
                return Ok(None);
            }
            Ok(match state.log.node(ino.0)?.map(|node| node.content.clone()) {
                Some(Content::File(number)) if state.held.takes(number, offset, bytes.len()) => Some(number),
                _ => None,
            })
        };
        // Most writes go to files; they need not wait for each other.
        if bytes.len() > FILE_BYTES || holdable(&self.state.read())?.is_none() {
            return Ok(false);
        }
        let mut state = self.state.write();
        let (Some(number), Some(node)) = (holdable(&state)?, state.log.node(ino.0)?) else { return Ok(false) };
        state.report_write(ground, ino)?;
        let now = super::now();
        let node = Node { mtime: now, ctime: now, ..Node::clone(&node) };
        let written = Written { number, ino: ino.0, offset, bytes: Box::from(bytes) };
        state.log.apply(Change { nodes: vec![(ino.0, Some(node))], bytes: vec![written], ..Change::default() })?;
        state.held.append(number, ino, bytes);
        Ok(true)
    }

    /// Makes the file of held bytes, if they are held: what follows may do anything with it.
    pub(super) fn release(&self, state: &mut State, number: u64) -> Outcome<()> {
        state.held.fresh.remove(&number);
        let Some((ino, bytes)) = state.held.files.get(&number) else { return Ok(()) };
        let file = self.files.create(number)?;
        file.write_all_at(bytes, 0)?;
        if let Some(node) = state.node(*ino)? {
            Self::stamp(&file, node.atime, node.mtime)?;
        }
        state.log.apply(Change { released: vec![number], ..Change::default() })?;
        state.held.forget(number);
        Ok(())
    }

    /// Makes all files of held bytes, one at a time: others get in between.
    pub(super) fn release_all(&self) -> Outcome<()> {
        let numbers: Vec<u64> = self.state.read().held.files.keys().copied().collect();
        for number in numbers {
            let mut state = self.state.write();
            self.release(&mut state, number)?;
        }
        Ok(())
    }

    /// Makes those that were held since, for who lets nobody in between.
    pub(super) fn release_rest(&self, state: &mut State) -> Outcome<()> {
        let numbers: Vec<u64> = state.held.files.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| self.release(state, number))
    }

    /// Takes up again what a killed process held.
    pub(super) fn restore_held(&self) {
        let mut state = self.state.write();
        for written in state.log.take_replayed() {
            state.held.append(written.number, Ino(written.ino), &written.bytes);
        }
    }

    /// Size and times of a held file.
    pub(super) fn measure_held(node: &Node, bytes: &[u8]) -> Measured {
        let size = bytes.len() as u64;
        Measured { size, blocks: size.div_ceil(512), atime: node.atime, mtime: node.mtime, ctime: node.ctime }
    }
}
