//! When objects were last used, to the hour: what eviction goes by.
//!
//! Uses are noted in memory and written by [`Store::flush`] in one
//! transaction, so that reading never writes. An object never touched since
//! it was stored counts as used when it was stored.

use std::time::{SystemTime, UNIX_EPOCH};

use gix::ObjectId;

use super::db::{Inner, Wait};
use super::error::{Failure, StoreError};
use super::schema::ACCESS;
use super::{Store, tree_sizes};

/// Uses noted at most between two flushes: about 6 MB. Beyond it a use is forgotten, which costs an object an hour or
/// so of its age.
const NOTED_MAX: usize = 128 << 10;

pub(super) const SECONDS_PER_HOUR: u64 = 3600;

impl Store {
    /// Notes that an object was used now.
    pub fn touch(&self, id: &ObjectId) {
        let hour = hour_now();
        let mut access = self.inner.access.lock();
        if access.len() < NOTED_MAX || access.contains_key(id) {
            access.insert(*id, hour);
        }
    }

    /// When a blob was last used, in seconds since 1970 UTC and at most an hour early. `None`: it is not here.
    pub fn last_used(&self, id: &ObjectId) -> Result<Option<u64>, StoreError> {
        let Some(row) = self.blob_row(id)? else { return Ok(None) };
        let noted = self.inner.access.lock().get(id).copied();
        let written = self.inner.read("looking up a last use", |txn| {
            Ok(txn.open_table(ACCESS)?.get(id.as_bytes())?.map(|hour| hour.value()))
        })?;
        let hour = row.stored_hour.max(noted.unwrap_or(0)).max(written.unwrap_or(0));
        Ok(Some(u64::from(hour) * SECONDS_PER_HOUR))
    }

    /// Makes everything committed durable, with the uses noted since the last time.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}

impl Inner {
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let noted = std::mem::take(&mut *self.access.lock());
        // What a failed flush loses of these is computed again.
        let sizes = std::mem::take(&mut *self.tree_sizes.lock());
        let fetches = self.fetches.lock().take();
        if noted.is_empty() && sizes.is_empty() && fetches.is_empty() && !self.has_unsynced() {
            return Ok(());
        }
        let bytes = 64 * noted.len() as u64 + sizes.bytes() + fetches.bytes();
        let flushed = self.write("flushing the store", Wait::Durable, bytes, |txn| {
            let mut access = txn.open_table(ACCESS)?;
            for (id, hour) in &noted {
                access.insert(id.as_bytes(), hour)?;
            }
            tree_sizes::write(txn, &sizes)?;
            fetches.write(txn)?;
            Ok::<_, Failure>(())
        });
        if flushed.is_err() {
            self.fetches.lock().give_back(fetches);
            let mut access = self.access.lock();
            for (id, hour) in noted {
                access.entry(id).or_insert(hour);
            }
        }
        flushed
    }
}

pub(super) fn hour_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / SECONDS_PER_HOUR).unwrap_or(u32::MAX)
}
