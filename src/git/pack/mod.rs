//! Pack streams: objects out of a pack while it arrives.
//!
//! Owns the decoding of version 2 packs in one pass: each object is inflated,
//! its delta applied, its id computed with collision detection, and handed on
//! before the next one is read. It refuses sizes that do not hold, bases
//! outside the pack, duplicates where an index is written, bytes after the end
//! and a checksum that does not fit. Memory is bounded: decoded bases are kept
//! up to a limit and decoded again from a spooled copy beyond it; what is
//! large lives in files without names.

mod base;
mod buffer;
mod decode;
mod delta;
mod header;
mod index;
mod inflate;
mod input;
mod spool;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use gix::ObjectId;

pub use decode::decode;
pub use spool::Spool;

use crate::hydrate::remote::RemoteError;

pub(crate) use index::{IndexRow, write_index};
pub(crate) use input::Checksum;
pub(crate) use write::{Written, write};

/// The largest blob taken from a pack when it is no delta: it is streamed, so this bounds disk, not memory.
pub const MAX_BLOB_BYTES: u64 = 64 << 30;

/// The largest result of a delta: twice `core.bigFileThreshold`, above which Git makes no deltas.
pub const MAX_DELTA_RESULT_BYTES: u64 = 1 << 30;

/// The largest tree, commit or tag: a directory of more than a million entries fits.
pub const MAX_STRUCTURE_BYTES: u64 = 64 << 20;

/// Decoded objects kept as bases for the deltas to come.
pub const BASE_CACHE_BYTES: usize = 32 << 20;

/// Where the bytes of a pack come from; 0 is their end.
pub trait ByteSource {
    /// Reads up to `out.len()` bytes.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, RemoteError>;
}

impl ByteSource for &[u8] {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, RemoteError> {
        let length = out.len().min(self.len());
        let (now, later) = self.split_at(length);
        out[..length].copy_from_slice(now);
        *self = later;
        Ok(length)
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects decoded.
    pub objects: u64,
    /// Objects in the pack.
    pub total: u64,
    /// Bytes of the pack read.
    pub bytes: u64,
}

/// How a pack is read.
pub struct Options<'a> {
    /// The object format.
    pub hash: gix::hash::Kind,
    /// Keeps the pack's bytes, for bases needed again.
    pub spool: Spool,
    /// The pack may be this long; beyond it the transfer is ended.
    pub max_bytes: Option<u64>,
    /// Whether each object is to be remembered for an index.
    pub index: bool,
    /// Told now and then how far it is.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl Options<'_> {
    /// For a pack that is only passed through.
    pub fn new(hash: gix::hash::Kind) -> Self {
        Self { hash, spool: Spool::new(None), max_bytes: None, index: false, progress: None }
    }
}

/// A pack that was read to its end.
pub struct Decoded {
    /// Objects in it.
    pub objects: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its trailing checksum.
    pub checksum: ObjectId,
    /// Its bytes.
    pub spool: Spool,
    /// Its objects sorted by id, when asked for.
    pub(crate) rows: Vec<IndexRow>,
}
