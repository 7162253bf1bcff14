//! Sizes of a whole directory in one row.
//!
//! Copied from what `blobs` and `sizes` say, once all of a directory is known:
//! an object's size never changes, so a row is never out of date. Noted in
//! memory and written by [`Store::flush`], so that listing never writes.

use std::collections::HashMap;

use gix::ObjectId;
use redb::WriteTransaction;

use super::Store;
use super::error::{Failure, StoreError};
use super::row::{seal, unseal};
use super::schema::TREE_SIZES;

/// Sizes noted at most between two flushes: 8 MB. What is beyond is noted when it is listed again.
const NOTED_MAX: usize = 1 << 20;

/// What a directory counts for beside its sizes, in sizes: its key and place in the map.
const TREE_OVERHEAD: usize = 12;

/// Directories whose sizes are not written yet.
#[derive(Default)]
pub(super) struct Noted {
    trees: HashMap<ObjectId, Vec<u64>>,
    entries: usize,
}

impl Noted {
    pub(super) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// Bytes of the rows, about.
    pub(super) fn bytes(&self) -> u64 {
        8 * self.entries as u64
    }
}

impl Store {
    /// Raw sizes of the `count` entries of the tree `id`, in the order of its listing, when all are noted.
    pub fn tree_sizes(&self, id: &ObjectId, count: usize) -> Result<Option<Vec<u64>>, StoreError> {
        self.inner.read("looking up a directory's sizes", |txn| {
            let row = txn.open_table(TREE_SIZES)?.get(id.as_bytes())?;
            let row = row.as_ref().and_then(|row| unseal(id.as_bytes(), row.value()));
            let Some((sizes, [])) = row.map(<[u8]>::as_chunks::<8>) else { return Ok(None) };
            Ok((sizes.len() == count).then(|| sizes.iter().map(|size| u64::from_le_bytes(*size)).collect()))
        })
    }

    /// Notes the raw sizes of all entries of the tree `id`, in the order of its listing.
    pub fn note_tree_sizes(&self, id: &ObjectId, sizes: Vec<u64>) {
        let mut noted = self.inner.tree_sizes.lock();
        let entries = sizes.len() + TREE_OVERHEAD;
        if noted.entries + entries <= NOTED_MAX && noted.trees.insert(*id, sizes).is_none() {
            noted.entries += entries;
        }
    }
}

pub(super) fn write(txn: &WriteTransaction, noted: &Noted) -> Result<(), Failure> {
    let mut table = txn.open_table(TREE_SIZES)?;
    for (id, sizes) in &noted.trees {
        let mut row: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        seal(id.as_bytes(), &mut row);
        table.insert(id.as_bytes(), row.as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::store::{Store, StoreOptions};
    use gix::ObjectId;

    #[test]
    fn a_directory_is_noted_whole_and_outlives_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("store.redb");
        let id = ObjectId::from_bytes_or_panic(&[7; 20]);
        {
            let store = Store::open(&path, &StoreOptions::default()).expect("new store");
            assert_eq!(store.tree_sizes(&id, 3).expect("readable"), None);
            store.note_tree_sizes(&id, vec![1, 0, u64::MAX - 1]);
            store.flush().expect("written");
        }
        let store = Store::open(&path, &StoreOptions::default()).expect("old store");
        assert_eq!(store.tree_sizes(&id, 3).expect("readable"), Some(vec![1, 0, u64::MAX - 1]));
        assert_eq!(store.tree_sizes(&id, 2).expect("readable"), None, "another number of entries is another listing");
    }
}
