//! What is known of many objects at once, for a map of a workspace: size, whether it is here, whether it was read.

use std::collections::HashMap;

use gix::ObjectId;

use super::Store;
use super::error::{Failure, StoreError};
use super::row::{BlobRow, unseal};
use super::schema::{ACCESS, BLOBS, SIZES};

/// What is known of one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Its raw size; `None`: nobody asked for it yet.
    pub raw_size: Option<u64>,
    /// Whether it is here.
    pub here: bool,
    /// Whether somebody read it in a mount since it came here.
    pub read: bool,
}

impl Store {
    /// What is known of each of `ids`; one read transaction.
    ///
    /// A row of `access` is made by a use and goes with its blob, so that there is one says that it was used, whenever that
    /// was.
    pub fn touched(&self, ids: &[ObjectId]) -> Result<Vec<Touched>, StoreError> {
        let noted: HashMap<ObjectId, u32> = {
            let access = self.inner.access.lock();
            ids.iter().filter_map(|id| Some((*id, *access.get(id)?))).collect()
        };
        self.inner.read("looking at objects", |txn| {
            let (blobs, sizes, access) = (txn.open_table(BLOBS)?, txn.open_table(SIZES)?, txn.open_table(ACCESS)?);
            let look_at = |id: &ObjectId| -> Result<Touched, Failure> {
                if let Some(row) = blobs.get(id.as_bytes())?.and_then(|row| BlobRow::decode(id, row.value())) {
                    let read = noted.contains_key(id) || access.get(id.as_bytes())?.is_some();
                    return Ok(Touched { raw_size: Some(row.raw_size), here: true, read });
                }
                let row = sizes.get(id.as_bytes())?;
                let size =
                    row.and_then(|row| Some(u64::from_le_bytes(unseal(id.as_bytes(), row.value())?.try_into().ok()?)));
                Ok(Touched { raw_size: size, ..Touched::default() })
            };
            ids.iter().map(look_at).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, StoreOptions};
    use super::*;

    #[test]
    fn a_blob_was_read_once_it_was_touched_also_after_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("store.redb");
        let id = |byte: u8| ObjectId::from_bytes_or_panic(&[byte; 20]);
        let store = Store::open(&path, &StoreOptions::default()).expect("opened");
        let mut batch = Batch::default();
        batch.blob(id(1), b"one");
        batch.blob(id(2), b"two!");
        batch.size(id(3), 7);
        store.commit(batch).expect("stored");
        store.touch(&id(1));
        // What is not here was not read, whatever was noted.
        store.touch(&id(3));
        let wanted = [
            Touched { raw_size: Some(3), here: true, read: true },
            Touched { raw_size: Some(4), here: true, read: false },
            Touched { raw_size: Some(7), here: false, read: false },
            Touched::default(),
        ];
        let ids = [id(1), id(2), id(3), id(4)];
        assert_eq!(store.touched(&ids).expect("read"), wanted);
        store.flush().expect("written");
        drop(store);
        assert_eq!(Store::open_read_only(&path).expect("opened").touched(&ids).expect("read"), wanted);
    }
}
