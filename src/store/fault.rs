//! A disk that fails on demand, for tests.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

use super::Store;
use super::db::{Inner, Opener};
use super::error::StoreError;

/// What the disk answers: an errno, or 0 for doing its work. Shared by all files opened through it.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub writes: Arc<AtomicI32>,
    pub reads: Arc<AtomicI32>,
    /// Writes, syncs and changes of length that it still carries out; then none any more.
    pub left: Arc<AtomicI64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { writes: Arc::default(), reads: Arc::default(), left: Arc::new(AtomicI64::new(i64::MAX)) }
    }
}

impl Faults {
    /// Counts an operation that changes the file.
    fn change(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
    }

    /// Opens a store on a disk with these faults.
    pub(super) fn open(&self, path: &Path, cache_bytes: usize) -> Result<Store, StoreError> {
        Inner::open(path, self.opener(cache_bytes)).map(Store::from)
    }

    fn opener(&self, cache_bytes: usize) -> Opener {
        let faults = self.clone();
        Box::new(move |path| -> Result<Database, DatabaseError> {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let holes = file.try_clone()?;
            let disk = FaultyDisk { file: FileBackend::new(file)?, holes, faults: faults.clone() };
            Database::builder().set_cache_size(cache_bytes).create_with_backend(disk)
        })
    }
}

#[derive(Debug)]
struct FaultyDisk {
    file: FileBackend,
    /// The same file, to ask for its holes.
    holes: File,
    faults: Faults,
}

impl FaultyDisk {
    fn has_hole(&self, offset: u64, len: u64) -> bool {
        let hole = rustix::fs::seek(&self.holes, rustix::fs::SeekFrom::Hole(offset));
        hole.is_ok_and(|hole| hole < offset + len)
    }
}

fn outcome(fault: &AtomicI32) -> io::Result<()> {
    match fault.load(Ordering::SeqCst) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        outcome(&self.faults.reads)?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.change()?;
        // Holes cost no space.
        if self.faults.writes.load(Ordering::SeqCst) != libc::ENOSPC {
            outcome(&self.faults.writes)?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.change()?;
        if self.faults.writes.load(Ordering::SeqCst) != libc::ENOSPC {
            outcome(&self.faults.writes)?;
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.change()?;
        // A full disk still takes what lands on blocks the file has.
        if self.faults.writes.load(Ordering::SeqCst) != libc::ENOSPC || self.has_hole(offset, data.len() as u64) {
            outcome(&self.faults.writes)?;
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
