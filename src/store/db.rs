//! The open file: transactions, durability, and what happens after a failure.
//!
//! Invariants:
//!
//! * One process holds the file; in it, redb orders the writers.
//! * Cached objects are committed without waiting for the disk; every
//!   [`SYNC_EVERY`]th of these commits, and every commit of other rows, makes
//!   all before it durable. Durable commits record redb's allocator state
//!   (`set_quick_repair`), so that opening after a crash takes milliseconds.
//! * redb refuses everything, reads too, after one failed access to the file.
//!   So the file is then opened again, which returns to the last durable
//!   commit: reads go on. Writes go on after a full disk; after any other
//!   failed write they are refused until the process ends.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use gix::ObjectId;
use parking_lot::{Mutex, RwLock};
use redb::{
    Database, DatabaseError, Durability, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, WriteTransaction,
};

use super::error::{Failure, StoreError, StoreErrorKind};
use super::fetches::Fetches;
use super::room::{MakeRoom, Room};
use super::tree_sizes::Noted;
use super::watch::Watch;
use super::{large, schema};

/// Commits until one is made durable: a crash loses at most that many batches of objects, which can be fetched again.
/// `benches/store_corpus.rs`: 60 thousand inserts a second, instead of 40 with every commit durable.
const SYNC_EVERY: u32 = 16;

/// Free space that must remain after a write, for redb's own pages and the other files beside the store.
const RESERVE_BYTES: u64 = 4 << 20;

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing, except every [`SYNC_EVERY`]th time.
    Relaxed,
    /// The disk.
    Durable,
}

/// Opens the file for reading and writing; tests put a failing disk under it.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

enum Handle {
    Write(Database),
    Read(ReadOnlyDatabase),
}

impl Handle {
    fn begin_read(&self) -> Result<ReadTransaction, Failure> {
        Ok(match self {
            Self::Write(db) => db.begin_read()?,
            Self::Read(db) => db.begin_read()?,
        })
    }
}

struct Slot {
    /// `None` when opening again failed; the next operation tries once more.
    handle: Option<Handle>,
    /// How often the file was opened again: what was not durable before is gone.
    epoch: u64,
}

/// What all clones of a store share.
pub(super) struct Inner {
    path: PathBuf,
    opener: Opener,
    read_only: bool,
    /// The open database. Held shared during each operation, exclusively only to open again. First in the lock order;
    /// redb's writer comes second, `access` last.
    slot: RwLock<Slot>,
    /// Set by a failed write that was not for want of space.
    poisoned: AtomicBool,
    /// Commits that may not be durable yet.
    unsynced: AtomicU32,
    /// Objects found damaged since opening.
    pub(super) damaged: AtomicU64,
    /// Last uses not yet written, in hours since 1970.
    pub(super) access: Mutex<HashMap<ObjectId, u32>>,
    /// Sizes of whole directories, not written yet. Never held together with `access`.
    pub(super) tree_sizes: Mutex<Noted>,
    /// Records of fetches, not written yet. Never held together with `access`.
    pub(super) fetches: Mutex<Fetches>,
    /// Counts changes of what keeps objects.
    pub(super) roots: AtomicU64,
    /// Who is told which blobs come and go. Never held together with another lock.
    pub(super) watchers: Mutex<Vec<Weak<dyn Watch>>>,
    /// Who is asked before objects are stored.
    pub(super) room: OnceLock<Arc<dyn MakeRoom>>,
}

impl Inner {
    pub(super) fn open(path: &Path, opener: Opener) -> Result<Self, StoreError> {
        create_file(path)?;
        let open = || {
            let db = open_and_prepare(path, &opener)?;
            large::reclaim_abandoned(&db)?;
            Ok(db)
        };
        let db = guarded(open).map_err(|failure| opening_error(failure, path))?;
        Ok(Self::new(path, opener, Handle::Write(db)))
    }

    pub(super) fn open_read_only(path: &Path, opener: Opener) -> Result<Self, StoreError> {
        let open = || {
            let db = match ReadOnlyDatabase::open(path) {
                // Its last writer was killed: only a writer can return to the last durable commit.
                Err(DatabaseError::RepairAborted) => {
                    drop(opener(path)?);
                    ReadOnlyDatabase::open(path)?
                }
                other => other?,
            };
            schema::check(&db, schema::STEPS)?;
            Ok(db)
        };
        let db = guarded(open).map_err(|failure| opening_error(failure, path))?;
        Ok(Self::new(path, opener, Handle::Read(db)))
    }

    fn new(path: &Path, opener: Opener, handle: Handle) -> Self {
        Self {
            path: path.to_path_buf(),
            opener,
            read_only: matches!(handle, Handle::Read(_)),
            slot: RwLock::new(Slot { handle: Some(handle), epoch: 0 }),
            poisoned: AtomicBool::new(false),
            unsynced: AtomicU32::new(0),
            damaged: AtomicU64::new(0),
            access: Mutex::default(),
            tree_sizes: Mutex::default(),
            fetches: Mutex::default(),
            watchers: Mutex::default(),
            roots: AtomicU64::new(0),
            room: OnceLock::new(),
        }
    }

    /// Whether a write has a chance.
    pub(super) fn writable(&self) -> bool {
        !self.read_only && !self.poisoned.load(Ordering::Acquire)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.slot.read().epoch
    }

    /// Runs `body` in a read transaction.
    pub(super) fn read<T>(
        &self,
        doing: &str,
        body: impl Fn(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let run = || {
            let slot = self.slot.read();
            let Some(handle) = slot.handle.as_ref() else {
                return (slot.epoch, Err(Failure::Redb(redb::Error::DatabaseClosed)));
            };
            (slot.epoch, guarded(|| body(&handle.begin_read()?)))
        };
        let (epoch, result) = run();
        match result {
            // Perhaps only another operation's failure, which this one need not share.
            Err(failure) if failure.breaks_reads() && !self.read_only => {
                self.reopen(epoch)?;
                run().1.map_err(|failure| failure.into_store_error(doing))
            }
            other => other.map_err(|failure| failure.into_store_error(doing)),
        }
    }

    /// Runs `body` in a write transaction and commits it. `bytes`: about how much it adds to the file.
    pub(super) fn write<T>(
        &self,
        doing: &str,
        wait: Wait,
        bytes: u64,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.write_in(None, doing, wait, bytes, body)
    }

    /// The same, refused unless the file was not opened again since `since`: for writes that build on earlier ones.
    pub(super) fn write_in<T>(
        &self,
        since: Option<u64>,
        doing: &str,
        wait: Wait,
        bytes: u64,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.may_write(doing, bytes)?;
        let closed = {
            let slot = self.slot.read();
            slot.handle.is_none().then_some(slot.epoch)
        };
        if let Some(epoch) = closed {
            self.reopen(epoch)?;
        }
        let (epoch, result) = {
            let slot = self.slot.read();
            let result = match slot.handle.as_ref() {
                _ if since.is_some_and(|since| since != slot.epoch) => {
                    let message = format!("{doing}: what it builds on was lost with an earlier failed write");
                    Err(StoreError::new(StoreErrorKind::Io, message).into())
                }
                Some(Handle::Write(db)) => guarded(|| self.transact(db, wait, body)),
                Some(Handle::Read(_)) | None => Err(Failure::Redb(redb::Error::DatabaseClosed)),
            };
            (slot.epoch, result)
        };
        result.map_err(|failure| {
            let (broken, aftermath) = (failure.breaks_writes(), failure.is_aftermath());
            let error = failure.into_store_error(doing);
            if broken {
                // The one that met the error itself decides; others only met its traces.
                if !aftermath && error.kind != StoreErrorKind::Full {
                    self.poisoned.store(true, Ordering::Release);
                }
                if let Err(error) = self.reopen(epoch) {
                    tracing::error!(%error, "the store could not be opened again after a failed write");
                }
            }
            error
        })
    }

    fn transact<T>(
        &self,
        db: &Database,
        wait: Wait,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut txn = db.begin_write()?;
        let durable = wait == Wait::Durable || self.unsynced.load(Ordering::Acquire) + 1 >= SYNC_EVERY;
        if durable {
            txn.set_quick_repair(true);
        } else {
            txn.set_durability(Durability::None)?;
        }
        let value = body(&txn)?;
        // Counted before the commit and taken back after it, so that `flush` never believes too early that all is
        // durable; taken back by what it was, because other writers count on meanwhile.
        let before = self.unsynced.fetch_add(1, Ordering::AcqRel);
        txn.commit()?;
        if durable {
            let taken = |now: u32| Some(now.saturating_sub(before + 1));
            let _ = self.unsynced.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken);
        }
        Ok(value)
    }

    /// Whether commits are waiting to be made durable.
    pub(super) fn has_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Acquire) > 0
    }

    /// Asks for room for `bytes` of objects, and says how their commit is to wait: at the limit for the disk, because only
    /// then the pages it frees are used again.
    pub(super) fn make_room(&self, wait: Wait, bytes: u64) -> Result<Wait, StoreError> {
        let Some(room) = self.room.get() else { return Ok(wait) };
        Ok(match room.make_room(bytes)? {
            Room::Plenty => wait,
            Room::Tight => Wait::Durable,
        })
    }

    pub(super) fn may_write(&self, doing: &str, bytes: u64) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::new(StoreErrorKind::Io, format!("{doing}: the store is open for reading only")));
        }
        if self.poisoned.load(Ordering::Acquire) {
            let message = format!("{doing}: refused, since an earlier write to {} failed", self.path.display());
            return Err(StoreError::new(StoreErrorKind::Poisoned, message));
        }
        // Asked beforehand, because a write that fails half-way costs the commits that are not durable yet.
        let free = self.disk_free();
        if free < RESERVE_BYTES.saturating_add(bytes) {
            let message = format!("{doing}: {} bytes are free on the disk of {}", free, self.path.display());
            return Err(StoreError::new(StoreErrorKind::Full, message));
        }
        Ok(())
    }

    /// Opens the file again, unless somebody did since `epoch`.
    fn reopen(&self, epoch: u64) -> Result<(), StoreError> {
        let mut slot = self.slot.write();
        if slot.epoch != epoch && slot.handle.is_some() {
            return Ok(());
        }
        // Closed first: redb locks the file.
        close(slot.handle.take());
        slot.epoch += 1;
        self.unsynced.store(0, Ordering::Release);
        let open = || open_and_prepare(&self.path, &self.opener);
        let db = guarded(open).map_err(|failure| opening_error(failure, &self.path))?;
        tracing::warn!(path = %self.path.display(), "store opened again after a failed access");
        slot.handle = Some(Handle::Write(db));
        Ok(())
    }

    /// Moves the last pages forward and cuts the file. `false`: nothing to gain.
    pub(super) fn compact(&self) -> Result<bool, StoreError> {
        let doing = "compacting the store";
        self.may_write(doing, 0)?;
        let (epoch, result) = {
            let mut slot = self.slot.write();
            let result = match slot.handle.as_mut() {
                Some(Handle::Write(db)) => guarded(|| Ok(db.compact()?)),
                Some(Handle::Read(_)) | None => Err(Failure::Redb(redb::Error::DatabaseClosed)),
            };
            // It ends with a durable commit.
            self.unsynced.store(0, Ordering::Release);
            (slot.epoch, result)
        };
        result.map_err(|failure| {
            let broken = failure.breaks_writes();
            let error = failure.into_store_error(doing);
            if broken && let Err(error) = self.reopen(epoch) {
                tracing::error!(%error, "the store could not be opened again after a failed compaction");
            }
            error
        })
    }

    /// Bytes free on the file's disk for who is not root.
    pub(super) fn disk_free(&self) -> u64 {
        rustix::fs::statvfs(&self.path).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    /// Bytes the file occupies on its disk; holes don't count.
    pub(super) fn file_bytes(&self) -> Result<u64, StoreError> {
        let metadata = std::fs::metadata(&self.path)
            .map_err(|error| StoreError::from_io(&format!("reading the size of {}", self.path.display()), &error))?;
        Ok(metadata.blocks() * 512)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.writable()
            && let Err(error) = self.flush()
        {
            tracing::warn!(%error, "the store's last commits are lost");
        }
        close(self.slot.get_mut().handle.take());
    }
}

/// Runs what enters redb. It trusts the structure of its pages and panics on some that are damaged; to us that is one
/// more kind of damaged bytes. It is built to be unwound through: what a panic leaves behind it refuses until reopened.
fn guarded<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(Failure::Redb(redb::Error::Corrupted("damaged pages in the file".to_owned()))))
}

fn close(handle: Option<Handle>) {
    let closed = guarded(|| {
        drop(handle);
        Ok(())
    });
    if closed.is_err() {
        tracing::warn!("the store's file has damaged pages; closed without a last commit");
    }
}

/// The opener of a real disk.
pub(super) fn opener(cache_bytes: usize) -> Opener {
    Box::new(move |path| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Database::builder().set_cache_size(cache_bytes).create_file(file)
    })
}

fn open_and_prepare(path: &Path, opener: &Opener) -> Result<Database, Failure> {
    let db = opener(path)?;
    schema::prepare(&db, schema::STEPS)?;
    Ok(db)
}

fn opening(path: &Path) -> String {
    format!("opening the store {}", path.display())
}

fn opening_error(failure: Failure, path: &Path) -> StoreError {
    let error = failure.into_store_error(&opening(path));
    if error.kind != StoreErrorKind::Busy {
        return error;
    }
    let message = format!("the store {} is in use by another process (a running larder daemon?)", path.display());
    StoreError::new(StoreErrorKind::Busy, message)
}

/// Makes the file and its directory, both for this user alone, where they are missing.
fn create_file(path: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::from_io(&opening(path), &error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        // A new name is there after a power cut only once its directory is synced.
        Ok(_) => File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
