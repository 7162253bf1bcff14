//! One redb file: objects, trees, sizes, generations.
//!
//! Objects are addressed by Git object id, verified before they come here,
//! and shared by every repository and workspace of the machine. This layer
//! keeps them small (compressed, packed into chunks), checks every byte it
//! gives back, and forgets what it finds damaged. It knows no network and no
//! policy. redb is named nowhere else.
//!
//! Reading order: `schema` (tables, versions), `row` (byte formats), `blob`
//! (frames), `pack` (which bytes go into which chunk), `db` (transactions,
//! durability, failures), then one file a verb.

mod access;
mod batch;
mod blob;
mod converted;
mod db;
mod error;
mod fetches;
pub mod git_tree;
mod id_set;
mod large;
mod look;
pub mod overlay;
mod pack;
mod read;
pub mod record;
mod room;
mod row;
mod rows;
mod schema;
mod stats;
mod sweep;
mod touched;
pub mod tree;
mod tree_sizes;
pub mod verify;
mod warmed;
mod watch;

#[cfg(test)]
mod fault;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use batch::Batch;
pub use converted::{Converted, converted_id};
pub use error::{StoreError, StoreErrorKind};
pub use fetches::{Fetch, FetchClass, Operation};
pub use git_tree::{TreeError, listing_from_git, tree_bytes};
pub use id_set::{IdSet, id_key};
pub use large::LargeBlob;
pub use look::{Glance, IdPrefix, Look, ObjectKind, TableSize};
pub use read::BlobInfo;
pub use record::{
    Depth, Generation, GenerationRecord, ObjectIdText, PendingWarm, Pin, Repository, RepositoryId, Switching,
    Workspace, WorkspaceId, WorkspaceState,
};
pub use room::{MakeRoom, Room, Space};
pub use row::FRAME_BYTES;
pub use schema::current as schema_version;
pub use stats::StoreStats;
pub use sweep::{KeepSize, StoredBlob, Swept};
pub use touched::Touched;
pub use tree::{Entry, EntryKind, Listing, ListingError};
pub use warmed::{Losses, Warmed, WarmedKey};
pub use watch::Watch;

/// redb's page cache by default: the rows of a 78k workspace and the chunks in use; the operating system's page cache
/// holds the rest.
const CACHE_BYTES: usize = 32 << 20;

/// Longest wait for a process that just died to let go of the store: the kernel closes its files a moment after it stopped
/// answering.
const LET_GO_LIMIT: Duration = Duration::from_secs(2);

/// Runs `open` until it meets no process that holds the store, or that does not let go of it.
pub fn patiently<T>(mut open: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(error) if error.kind == StoreErrorKind::Busy && begun.elapsed() < LET_GO_LIMIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

/// Open options.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// redb's page cache, in bytes.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES }
    }
}

/// The store; cheap to clone. The last clone's end makes everything durable.
#[derive(Clone)]
pub struct Store {
    inner: Arc<db::Inner>,
}

impl Store {
    /// Opens or creates the store for reading and writing. Its directory is made when it is missing.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        db::Inner::open(path, db::opener(options.cache_bytes)).map(Self::from)
    }

    /// Opens an existing store for reading only.
    ///
    /// Should its last writer have been killed, it is opened once for writing, to return to the last durable commit.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        db::Inner::open_read_only(path, db::opener(CACHE_BYTES)).map(Self::from)
    }

    /// Gives the file's unused end back to the disk. `false`: nothing to gain.
    ///
    /// redb doubles its file as it grows and leaves pages at the new end, so a file is up to twice as long as what it
    /// occupies: a hole, which costs nothing but looks bad. Every other operation waits meanwhile: 0.2 s for a file of
    /// 296 MiB, more where much was deleted.
    pub fn compact(&self) -> Result<bool, StoreError> {
        self.inner.compact()
    }
}

impl From<db::Inner> for Store {
    fn from(inner: db::Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }
}
