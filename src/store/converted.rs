//! Files as a checkout shows them, where that differs from the Git object.
//!
//! A converted file is kept like a blob, under an id of its own: a BLAKE3 hash
//! with a domain of its own, cut to the length of an object id, so it can't
//! be taken for a Git object. Frames, checks and eviction apply as to blobs.
//! Its row in `converted` says what it was made of and how large it is, and
//! outlives its bytes: a size that was told stays known.
//!
//! Rows are sealed ([`super::row::seal`]); integers are little-endian:
//!
//! ```text
//! u8   1
//! u8   whether the conversion changed anything: 0 (read the source instead) or 1
//! u64  size
//! id   of the blob it was made of
//! ```

use gix::ObjectId;
use redb::WriteTransaction;

use super::Store;
use super::error::{Failure, StoreError};
use super::row::{seal, unseal};
use super::schema::CONVERTED;

const LAYOUT: u8 = 1;

/// Separates the ids from every other use of BLAKE3.
const DOMAIN: &str = "larder 2025 converted file, version 1";

/// What a conversion of one blob gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The blob it was made of.
    pub source: ObjectId,
    /// Size in bytes of the file.
    pub size: u64,
    /// Whether it differs from its source. If not, no bytes are stored for it.
    pub changed: bool,
}

/// The id of what a conversion makes of `source`; `rule` names the conversion and whatever its result depends on.
#[expect(clippy::missing_panics_doc, reason = "object ids are 20 or 32 bytes")]
pub fn converted_id(source: &ObjectId, rule: &[u8]) -> ObjectId {
    let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
    hasher.update(source.as_bytes());
    hasher.update(rule);
    let hash = hasher.finalize();
    ObjectId::try_from(&hash.as_bytes()[..source.as_bytes().len()]).expect("as long as an object id")
}

impl Store {
    /// What is known of converted files, whether their bytes are here or not; one read transaction.
    pub fn converted(&self, ids: &[ObjectId]) -> Result<Vec<Option<Converted>>, StoreError> {
        self.inner.read("looking up converted files", |txn| {
            let table = txn.open_table(CONVERTED)?;
            let look = |id: &ObjectId| -> Result<Option<Converted>, Failure> {
                let row = table.get(id.as_bytes())?;
                Ok(row.and_then(|row| decode(unseal(id.as_bytes(), row.value())?)))
            };
            ids.iter().map(look).collect()
        })
    }
}

pub(super) fn write(txn: &WriteTransaction, rows: &[(ObjectId, Converted)]) -> Result<(), Failure> {
    let mut table = txn.open_table(CONVERTED)?;
    for (id, converted) in rows {
        let mut row = vec![LAYOUT, u8::from(converted.changed)];
        row.extend_from_slice(&converted.size.to_le_bytes());
        row.extend_from_slice(converted.source.as_bytes());
        seal(id.as_bytes(), &mut row);
        table.insert(id.as_bytes(), row.as_slice())?;
    }
    Ok(())
}

/// The blob that the row's file was made of.
pub(super) fn source(row: &[u8]) -> Option<ObjectId> {
    decode(row).map(|converted| converted.source)
}

pub(super) fn decode(row: &[u8]) -> Option<Converted> {
    let ([LAYOUT, changed], rest) = row.split_first_chunk::<2>()? else { return None };
    let (size, source) = rest.split_first_chunk::<8>()?;
    let source = ObjectId::try_from(source).ok()?;
    Some(Converted { source, size: u64::from_le_bytes(*size), changed: *changed != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, StoreOptions};

    #[test]
    fn a_converted_file_is_kept_like_a_blob_and_its_size_outlives_a_restart() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("store.redb");
        let source = ObjectId::from_bytes_or_panic(&[7; 20]);
        let (one, two) = (converted_id(&source, b"crlf"), converted_id(&source, b"ident"));
        assert_ne!(one, two);
        assert_ne!(one, converted_id(&ObjectId::from_bytes_or_panic(&[8; 20]), b"crlf"));
        assert_eq!(converted_id(&ObjectId::from_bytes_or_panic(&[7; 32]), b"crlf").as_bytes().len(), 32);
        let rows =
            [(one, Converted { source, size: 4, changed: true }), (two, Converted { source, size: 3, changed: false })];
        {
            let store = Store::open(&path, &StoreOptions::default()).expect("new store");
            let mut batch = Batch::default();
            batch.blob(one, b"a\r\nb");
            batch.converted(rows[0].0, rows[0].1);
            batch.converted(rows[1].0, rows[1].1);
            store.commit_durably(batch).expect("written");
        }
        let store = Store::open(&path, &StoreOptions::default()).expect("old store");
        let found = store.converted(&[one, two, source]).expect("readable");
        assert_eq!(found, [Some(rows[0].1), Some(rows[1].1), None]);
        assert_eq!(store.read(&one).expect("readable").as_deref(), Some(&b"a\r\nb"[..]));
        assert!(!store.contains(&two).expect("readable"), "what did not change is not stored twice");
    }

    #[test]
    fn a_damaged_row_is_not_believed() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        let row = [&[1, 1][..], &9_u64.to_le_bytes(), &[7; 20]].concat();
        assert_eq!(decode(&row).map(|row| row.size), Some(9));
        for cut in 0..row.len() {
            assert_eq!(decode(&row[..cut]), None, "cut at {cut}");
        }
    }
}
