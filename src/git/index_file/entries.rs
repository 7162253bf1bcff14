//! Index entries, version 4: each path is written as what differs from the one before.
//!
//! ```text
//! "DIRC", u32 version = 4, u32 number of entries            (integers big-endian)
//! n × { u32 ctime s, ns, mtime s, ns, dev, ino, mode, uid, gid, size
//!       object id
//!       u16 flags: assume-valid, extended, stage (0), length of the path, at most 0xFFF
//!       u16 further flags, when extended: intent-to-add
//!       varint bytes to take off the end of the previous path
//!       bytes to add, NUL }
//! ```

use std::fs::File;
use std::io::{self, Write};

use gix::ObjectId;

use super::{IndexWritten, Stat};
use crate::store::EntryKind;

/// Where the number of entries is in the file.
pub(super) const COUNT_OFFSET: u64 = 8;

/// Bytes collected before they are written.
const BUFFER_BYTES: usize = 512 << 10;

/// The largest path length the flags have room for; it stands for "that long or longer".
const FLAGS_PATH_LENGTH: usize = 0xFFF;

/// `git update-index --assume-unchanged`.
const ASSUME_VALID: u16 = 1 << 15;
/// Further flags follow.
const EXTENDED: u16 = 1 << 14;
/// `git add --intent-to-add`, among the further flags.
const INTENT_TO_ADD: u16 = 1 << 13;

/// What the user told Git of an entry, and whether Git must look at the file itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) assume_valid: bool,
    pub(super) intent_to_add: bool,
    pub(super) unknown: bool,
}

/// Streams entries into a file.
pub(super) struct EntryWriter<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    previous: Vec<u8>,
    flushed: u64,
    /// Entries so far.
    pub(super) entries: u64,
    /// Positions of what Git looks at itself, whatever fsmonitor says: gitlinks, and what was marked so.
    pub(super) unknown: Vec<u32>,
}

/// What became of the entries.
pub(super) struct EntriesWritten {
    pub(super) entries: u64,
    pub(super) directories: u64,
    pub(super) omitted: u64,
    pub(super) bytes: u64,
    pub(super) unknown: Vec<u32>,
}

impl From<EntriesWritten> for IndexWritten {
    fn from(written: EntriesWritten) -> Self {
        let EntriesWritten { entries, directories, omitted, bytes, .. } = written;
        Self { entries, directories, omitted, bytes, read_first: Vec::new() }
    }
}

impl<'a> EntryWriter<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + (8 << 10));
        buffer.extend_from_slice(b"DIRC\0\0\0\x04\0\0\0\0");
        Self { file, buffer, previous: Vec::new(), flushed: 0, entries: 0, unknown: Vec::new() }
    }

    /// Adds an entry; paths come in the index's order.
    pub(super) fn entry(
        &mut self,
        path: &[u8],
        kind: EntryKind,
        id: &ObjectId,
        stat: &Stat,
        marks: Marks,
    ) -> io::Result<()> {
        debug_assert!(self.entries == 0 || self.previous.as_slice() < path, "index order");
        if kind == EntryKind::Gitlink || marks.unknown {
            self.unknown.push(u32::try_from(self.entries).map_err(io::Error::other)?);
        }
        let out = &mut self.buffer;
        push_stat(out, stat, Some(kind.mode().into()));
        out.extend_from_slice(id.as_bytes());
        let length = u16::try_from(path.len().min(FLAGS_PATH_LENGTH)).expect("at most 0xFFF");
        let set = |mark, flag| if mark { flag } else { 0 };
        let flags = length | set(marks.assume_valid, ASSUME_VALID) | set(marks.intent_to_add, EXTENDED);
        out.extend_from_slice(&flags.to_be_bytes());
        if marks.intent_to_add {
            out.extend_from_slice(&INTENT_TO_ADD.to_be_bytes());
        }
        let shared = self.previous.iter().zip(path).take_while(|(a, b)| a == b).count();
        varint(out, (self.previous.len() - shared) as u64);
        out.extend_from_slice(&path[shared..]);
        out.push(0);
        self.previous.truncate(shared);
        self.previous.extend_from_slice(&path[shared..]);
        self.entries += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish_entries(mut self) -> io::Result<EntriesWritten> {
        self.flush()?;
        let Self { entries, unknown, flushed: bytes, .. } = self;
        Ok(EntriesWritten { entries, directories: 0, omitted: 0, bytes, unknown })
    }
}

/// Appends stat data as an entry has it (40 bytes, with its mode), or, without a mode, as `UNTR` has it (36 bytes).
pub(super) fn push_stat(out: &mut Vec<u8>, stat: &Stat, mode: Option<u32>) {
    let before = [stat.ctime.0, stat.ctime.1, stat.mtime.0, stat.mtime.1, stat.dev, stat.ino];
    let after = [stat.uid, stat.gid, stat.size];
    for field in before.into_iter().chain(mode).chain(after) {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

/// Git's variable width integer, as in packs for the offsets of delta bases.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    let mut bytes = [0; 10];
    let mut at = bytes.len() - 1;
    bytes[at] = (value & 127) as u8;
    value >>= 7;
    while value != 0 {
        value -= 1;
        at -= 1;
        bytes[at] = 128 | (value & 127) as u8;
        value >>= 7;
    }
    out.extend_from_slice(&bytes[at..]);
}
