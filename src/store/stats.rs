//! Running totals, kept in the same transactions as what they count.

use gix::ObjectId;
use redb::{ReadableTable, Table};

use super::Store;
use super::error::{Failure, StoreError};
use super::room::FREE;
use super::row::BlobRow;
use super::schema::{COUNTERS, counter};

const BLOBS: &str = "blobs";
const RAW_BYTES: &str = "raw_bytes";
const STORED_BYTES: &str = "stored_bytes";
const TREES: &str = "trees";

/// Counts over the whole store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Blobs in it.
    pub blobs: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// What they take as stored, redb's pages not counted.
    pub stored_bytes: u64,
    /// Trees in it.
    pub trees: u64,
    /// Bytes the file occupies on disk.
    pub file_bytes: u64,
}

impl Store {
    /// Counts over the whole store; costs four look-ups, however much there is.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let file_bytes = self.inner.file_bytes()?;
        self.inner.read("reading the store's totals", |txn| totals(&txn.open_table(COUNTERS)?, file_bytes))
    }
}

/// The totals as they are in a transaction.
pub(super) fn totals(counters: &impl ReadableTable<&'static str, u64>, file_bytes: u64) -> Result<StoreStats, Failure> {
    Ok(StoreStats {
        blobs: counter(counters, BLOBS)?,
        raw_bytes: counter(counters, RAW_BYTES)?,
        stored_bytes: counter(counters, STORED_BYTES)?,
        trees: counter(counters, TREES)?,
        file_bytes,
    })
}

/// What a count of all rows gives for each total that is kept. Where a blob's row is damaged nobody knows its bytes, and
/// their totals are left out.
pub(super) fn count(
    blobs: &impl ReadableTable<&'static [u8], &'static [u8]>,
    trees: u64,
) -> Result<Vec<(&'static str, u64)>, Failure> {
    let mut all = Totals { trees, ..Totals::default() };
    let mut damaged = 0;
    for row in blobs.iter()? {
        let (key, row) = row?;
        let head = ObjectId::try_from(key.value()).ok().and_then(|id| BlobRow::decode(&id, row.value()));
        match head {
            Some(head) => all.add_blob(&head),
            None => damaged += 1,
        }
    }
    let mut counted = vec![(BLOBS, all.blobs + damaged), (TREES, all.trees)];
    if damaged == 0 {
        counted.extend([(RAW_BYTES, all.raw_bytes), (STORED_BYTES, all.stored_bytes)]);
    }
    Ok(counted)
}

/// What one transaction adds or takes away.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub blobs: u64,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    pub trees: u64,
    /// Bytes of the pages of its chunks.
    pub pages: u64,
}

impl Totals {
    /// One blob; `None` is one whose row is unreadable.
    pub(super) fn of_blob(row: Option<&BlobRow>) -> Self {
        let sizes = row.map_or((0, 0), |row| (row.raw_size, row.stored_size));
        Self { blobs: 1, raw_bytes: sizes.0, stored_bytes: sizes.1, ..Self::default() }
    }

    pub(super) fn add_blob(&mut self, row: &BlobRow) {
        self.blobs += 1;
        self.raw_bytes += row.raw_size;
        self.stored_bytes += row.stored_size;
    }

    pub(super) fn add_to(self, counters: &mut Table<&'static str, u64>) -> Result<(), Failure> {
        self.apply(counters, u64::saturating_add)?;
        self.freed(counters, u64::saturating_sub)
    }

    pub(super) fn take_from(self, counters: &mut Table<&'static str, u64>) -> Result<(), Failure> {
        self.apply(counters, u64::saturating_sub)?;
        self.freed(counters, u64::saturating_add)
    }

    /// What was taken out leaves room inside the file, and what is added takes it.
    fn freed(self, counters: &mut Table<&'static str, u64>, by: fn(u64, u64) -> u64) -> Result<(), Failure> {
        if self.pages > 0 {
            let free = by(counter(counters, FREE)?, self.pages);
            counters.insert(FREE, free)?;
        }
        Ok(())
    }

    fn apply(self, counters: &mut Table<&'static str, u64>, by: fn(u64, u64) -> u64) -> Result<(), Failure> {
        let changes =
            [(BLOBS, self.blobs), (RAW_BYTES, self.raw_bytes), (STORED_BYTES, self.stored_bytes), (TREES, self.trees)];
        for (name, change) in changes {
            if change > 0 {
                let value = by(counter(counters, name)?, change);
                counters.insert(name, value)?;
            }
        }
        Ok(())
    }
}
