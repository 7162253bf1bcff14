//! Room for objects: who is asked for it, and how much there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Store;
use super::db::Wait;
use super::error::{Failure, StoreError};
use super::schema::{COUNTERS, counter};

/// Counter: bytes of pages that were given back inside the file and not taken again, about.
pub(super) const FREE: &str = "free_bytes";

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Plenty,
    /// The file is near its limit.
    Tight,
}

/// Sees to it that there is room for objects.
pub trait MakeRoom: Send + Sync {
    /// Called before `bytes` are stored, on the thread that stores them; it may take out others for them. An error of kind
    /// [`super::StoreErrorKind::Full`]: nothing can go.
    fn make_room(&self, bytes: u64) -> Result<Room, StoreError>;
}

/// The file and its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes the file occupies.
    pub file_bytes: u64,
    /// Of these, free inside: an estimate.
    pub free_inside: u64,
    /// Bytes free on its disk.
    pub disk_free: u64,
}

impl Store {
    /// Whom to ask for room from now on. Only the first call counts.
    pub fn set_room(&self, room: Arc<dyn MakeRoom>) {
        let _ = self.inner.room.set(room);
    }

    /// How large the file is and may become.
    pub fn space(&self) -> Result<Space, StoreError> {
        let (file_bytes, disk_free) = (self.inner.file_bytes()?, self.inner.disk_free());
        let free_inside =
            self.inner.read("reading the store's totals", |txn| counter(&txn.open_table(COUNTERS)?, FREE))?;
        Ok(Space { file_bytes, free_inside: free_inside.min(file_bytes), disk_free })
    }

    /// Counts changes of what keeps objects: publications, pins, warms that are pending, and [`Self::roots_changed`].
    pub fn roots_version(&self) -> u64 {
        self.inner.roots.load(Ordering::Acquire)
    }

    /// Notes that something else keeps objects now.
    pub fn roots_changed(&self) {
        self.inner.roots.fetch_add(1, Ordering::AcqRel);
    }

    /// Commits durably, whether there is something to commit or not: pages freed before are used again after two of these.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.inner.write("syncing the store", Wait::Durable, 0, |txn| {
            // A transaction without changes would not be written.
            let mut counters = txn.open_table(COUNTERS)?;
            let free = counter(&counters, FREE)?;
            counters.insert(FREE, free)?;
            Ok::<_, Failure>(())
        })
    }
}
