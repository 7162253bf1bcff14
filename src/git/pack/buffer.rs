//! Decoded objects: small ones in memory, large ones in a mapped file without
//! a name, so that a delta can reach any byte of its base in bounded memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;

use super::Spool;
use crate::git::error::local;
use crate::hydrate::remote::{LARGE_BLOB_BYTES, RemoteError};

/// Room for an object whose size is known.
pub(super) enum Buffer {
    Memory(Vec<u8>),
    Mapped(MmapMut),
}

/// An object that does not change any more; cheap to clone.
#[derive(Clone)]
pub(super) enum Data {
    Memory(Bytes),
    Mapped(Arc<MmapMut>),
}

impl Buffer {
    /// Zeroed room for `size` bytes.
    pub(super) fn new(size: u64, spool: &Spool) -> Result<Self, RemoteError> {
        let failed = |error| local("no room to decode a large object", &error);
        match usize::try_from(size) {
            Ok(size) if size as u64 <= LARGE_BLOB_BYTES => Ok(Self::Memory(vec![0; size])),
            Ok(_) => {
                let file = spool.scratch_file().map_err(failed)?;
                reserve(&file, size).map_err(failed)?;
                map(&file).map(Self::Mapped).map_err(failed)
            }
            Err(_) => Err(failed(io::ErrorKind::FileTooLarge.into())),
        }
    }

    pub(super) fn freeze(self) -> Data {
        match self {
            Self::Memory(bytes) => Data::Memory(bytes.into()),
            Self::Mapped(map) => Data::Mapped(Arc::new(map)),
        }
    }
}

/// Takes the blocks now: a mapped file without them would end the process when the disk is full.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP) => io::copy(&mut io::Read::take(io::repeat(0), size), &mut &*file).map(drop),
        other => other.map_err(Into::into),
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe where others may change it; this one has no name")]
fn map(file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file was made nameless by us, so nobody else can open, truncate or write it while it is mapped.
    unsafe { MmapMut::map_mut(file) }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl Data {
    /// The bytes in memory: shared when they are there already.
    pub(super) fn to_bytes(&self) -> Bytes {
        match self {
            Self::Memory(bytes) => bytes.clone(),
            Self::Mapped(map) => Bytes::copy_from_slice(map),
        }
    }
}
