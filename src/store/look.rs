//! Looking without touching: rows and bytes as they are, for whoever inspects the cache.
//!
//! Owns reads that drop nothing and note no use, lists of objects in the order
//! of their ids that go on page by page, and finding objects by the first
//! digits of an id. Invariant: no transaction is open longer than a page is
//! read, but in [`Store::survey`], whose counts are those of one moment.

use std::ops::Bound;

use bytes::Bytes;
use gix::ObjectId;
use redb::{ReadTransaction, ReadableTableMetadata, TableHandle};

use super::access::SECONDS_PER_HOUR;
use super::error::{Failure, StoreError};
use super::read::read_range;
use super::row::{BlobRow, FRAME_BYTES, Place, unseal};
use super::schema::{ACCESS, BLOBS, CHUNKS, COUNTERS, SIZES, TREES};
use super::stats::totals;
use super::sweep::each_blob;
use super::tree::Listing;
use super::{Store, StoreStats, StoredBlob};

/// Raw bytes checked in one transaction.
const CHECKED_BYTES: usize = 32 * FRAME_BYTES;

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// It, whole.
    Good(T),
    /// Nothing.
    Absent,
    /// Something that fails its check.
    Damaged,
}

impl<T> Look<T> {
    fn of(found: Option<T>) -> Self {
        found.map_or(Self::Damaged, Self::Good)
    }

    /// What was found, if it is whole.
    pub fn good(self) -> Option<T> {
        if let Self::Good(found) = self { Some(found) } else { None }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A file's or symlink's content.
    Blob,
    /// A directory.
    Tree,
}

/// The first digits of an object id; none of them fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdPrefix {
    low: Vec<u8>,
    high: Vec<u8>,
    digits: usize,
}

/// Bytes of the longest object id.
const ID_BYTES_MAX: usize = 32;

impl IdPrefix {
    /// Reads hexadecimal digits. `None`: they are none, or too many.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits.filter(|digits| digits.len() <= 2 * ID_BYTES_MAX)?;
        let join = |fill: u8| -> Vec<u8> {
            digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(fill)).collect()
        };
        let (low, mut high) = (join(0), join(15));
        // Not less than any id that begins so, of either length.
        high.resize(ID_BYTES_MAX + 1, u8::MAX);
        Some(Self { low, high, digits: digits.len() })
    }

    /// How many digits there are.
    pub fn digits(&self) -> usize {
        self.digits
    }

    /// The keys that begin so and come after `after`.
    fn range<'a>(&'a self, after: Option<&'a ObjectId>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        let low = match after.map(|id| id.as_bytes()) {
            Some(after) if after >= &self.low[..] => Bound::Excluded(after),
            _ => Bound::Included(&self.low[..]),
        };
        let high = if self.high.is_empty() { Bound::Unbounded } else { Bound::Included(&self.high[..]) };
        (low, high)
    }
}

/// An object as its row says it is; of one whose row is damaged only the id is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its id.
    pub id: ObjectId,
    /// What it is.
    pub kind: ObjectKind,
    /// Its row fails its check.
    pub damaged: bool,
    /// Bytes of its content, as Git has it.
    pub raw_size: u64,
    /// Bytes it takes in the store.
    pub stored_size: u64,
    /// `zstd`, `raw`, or `listing` for trees.
    pub codec: &'static str,
    /// Parts that can be read one by one.
    pub frames: u64,
    /// The chunk that a blob begins in.
    pub chunk: Option<u64>,
    /// BLAKE3 of a blob's stored bytes.
    pub blake3: Option<[u8; 32]>,
    /// When a blob was stored, seconds since 1970 UTC, at most an hour early.
    pub stored_at: Option<u64>,
    /// When a blob was last used, likewise.
    pub last_used: Option<u64>,
    /// Entries of a tree.
    pub entries: Option<u64>,
}

impl Glance {
    fn damaged(id: ObjectId, kind: ObjectKind) -> Self {
        Self {
            id,
            kind,
            damaged: true,
            raw_size: 0,
            stored_size: 0,
            codec: "",
            frames: 0,
            chunk: None,
            blake3: None,
            stored_at: None,
            last_used: None,
            entries: None,
        }
    }

    fn of_blob(id: ObjectId, row: &[u8], used: u32) -> Self {
        let Some(head) = BlobRow::decode(&id, row) else { return Self::damaged(id, ObjectKind::Blob) };
        let seconds = |hour: u32| Some(u64::from(hour) * SECONDS_PER_HOUR);
        let (Place::Packed { chunk, .. } | Place::Run { first_chunk: chunk, .. }) = head.place;
        Self {
            damaged: false,
            raw_size: head.raw_size,
            stored_size: head.stored_size,
            codec: head.codec(),
            frames: head.frames(),
            chunk: Some(chunk),
            blake3: Some(head.hash),
            stored_at: seconds(head.stored_hour),
            last_used: seconds(head.stored_hour.max(used)),
            ..Self::damaged(id, ObjectKind::Blob)
        }
    }

    fn of_tree(id: ObjectId, row: &[u8]) -> Self {
        let Some(listing) = listing(&id, row) else { return Self::damaged(id, ObjectKind::Tree) };
        // Octal mode, space, name, NUL, id.
        let digits = |mode: u16| if mode < 0o100_000 { 5 } else { 6 };
        let raw = |entry: super::Entry<'_>| digits(entry.mode) + entry.name.len() + 2 + listing.id_len();
        Self {
            damaged: false,
            raw_size: listing.iter().map(raw).sum::<usize>() as u64,
            stored_size: row.len() as u64,
            codec: "listing",
            frames: 1,
            entries: Some(listing.len() as u64),
            ..Self::damaged(id, ObjectKind::Tree)
        }
    }
}

/// What a table takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its pages.
    pub bytes: u64,
}

impl Store {
    /// The object `id`, if the store has it; damaged or not.
    pub fn glance(&self, id: &ObjectId) -> Result<Option<Glance>, StoreError> {
        let noted = self.inner.access.lock().get(id).copied();
        self.inner.read("looking at an object", |txn| {
            if let Some(row) = txn.open_table(BLOBS)?.get(id.as_bytes())? {
                let written = txn.open_table(ACCESS)?.get(id.as_bytes())?.map_or(0, |hour| hour.value());
                return Ok(Some(Glance::of_blob(*id, row.value(), written.max(noted.unwrap_or(0)))));
            }
            let row = txn.open_table(TREES)?.get(id.as_bytes())?;
            Ok(row.map(|row| Glance::of_tree(*id, row.value())))
        })
    }

    /// Up to `limit` objects of one kind, or of both, whose ids begin with `prefix` and come after `after`, in the order
    /// of their ids.
    pub fn glances(
        &self,
        kind: Option<ObjectKind>,
        prefix: &IdPrefix,
        after: Option<&ObjectId>,
        limit: usize,
    ) -> Result<Vec<Glance>, StoreError> {
        self.inner.read("listing objects", |txn| {
            let mut found = Vec::new();
            if kind != Some(ObjectKind::Tree) {
                let access = txn.open_table(ACCESS)?;
                for row in txn.open_table(BLOBS)?.range::<&[u8]>(prefix.range(after))?.take(limit) {
                    let (key, row) = row?;
                    let Ok(id) = ObjectId::try_from(key.value()) else { continue };
                    let used = access.get(key.value())?.map_or(0, |hour| hour.value());
                    found.push(Glance::of_blob(id, row.value(), used.max(self.used(&id))));
                }
            }
            if kind != Some(ObjectKind::Blob) {
                // Beyond the last blob of a full page they belong to the next one.
                let end = if found.len() == limit { found.last().map(|last: &Glance| last.id) } else { None };
                for row in txn.open_table(TREES)?.range::<&[u8]>(prefix.range(after))?.take(limit) {
                    let (key, row) = row?;
                    if end.is_some_and(|end| key.value() > end.as_bytes()) {
                        break;
                    }
                    found.extend(ObjectId::try_from(key.value()).ok().map(|id| Glance::of_tree(id, row.value())));
                }
            }
            found.sort_by_key(|glance| glance.id);
            found.truncate(limit);
            Ok(found)
        })
    }

    /// The hour of a use that is not written yet.
    fn used(&self, id: &ObjectId) -> u32 {
        self.inner.access.lock().get(id).copied().unwrap_or(0)
    }

    /// Up to `limit` ids that begin with `prefix`, of objects in the store and of blobs whose size alone is known.
    pub fn ids_like(&self, prefix: &IdPrefix, limit: usize) -> Result<Vec<ObjectId>, StoreError> {
        self.inner.read("looking for an object id", |txn| {
            let mut found = Vec::new();
            for table in [BLOBS, TREES, SIZES] {
                for row in txn.open_table(table)?.range::<&[u8]>(prefix.range(None))?.take(limit) {
                    found.extend(ObjectId::try_from(row?.0.value()).ok());
                }
            }
            found.sort_unstable();
            found.dedup();
            found.truncate(limit);
            Ok(found)
        })
    }

    /// Like [`Store::read_at`], but what is damaged stays and is told.
    pub fn look_at(&self, id: &ObjectId, offset: u64, len: usize) -> Result<Look<Vec<u8>>, StoreError> {
        self.inner.read("looking into a blob", |txn| {
            let Some(row) = txn.open_table(BLOBS)?.get(id.as_bytes())? else { return Ok(Look::Absent) };
            let Some(head) = BlobRow::decode(id, row.value()) else { return Ok(Look::Damaged) };
            Ok(Look::of(read_range(txn, &head, row.value(), offset, len)?))
        })
    }

    /// Checks every stored byte of a blob; what is damaged stays.
    pub fn check(&self, id: &ObjectId) -> Result<Look<()>, StoreError> {
        let mut offset = 0;
        loop {
            match self.look_at(id, offset, CHECKED_BYTES)? {
                Look::Good(bytes) if bytes.len() < CHECKED_BYTES => return Ok(Look::Good(())),
                Look::Good(bytes) => offset += bytes.len() as u64,
                Look::Absent => return Ok(Look::Absent),
                Look::Damaged => return Ok(Look::Damaged),
            }
        }
    }

    /// Like [`Store::tree`], but what is damaged stays and is told.
    pub fn look_at_tree(&self, id: &ObjectId) -> Result<Look<Listing>, StoreError> {
        self.inner.read("looking at a tree", |txn| {
            let Some(row) = txn.open_table(TREES)?.get(id.as_bytes())? else { return Ok(Look::Absent) };
            Ok(Look::of(listing(id, row.value())))
        })
    }

    /// Every blob and the totals, of one moment: `begin` makes what `see` then counts in; `None` is a damaged row.
    pub fn survey<T>(
        &self,
        begin: impl Fn(&StoreStats) -> T,
        see: impl Fn(&mut T, Option<&StoredBlob>),
    ) -> Result<(T, StoreStats), StoreError> {
        let noted = self.inner.access.lock().clone();
        let file_bytes = self.inner.file_bytes()?;
        self.inner.read("looking through all blobs", |txn| {
            let stats = totals(&txn.open_table(COUNTERS)?, file_bytes)?;
            let mut counted = begin(&stats);
            each_blob(txn, &noted, &mut |blob| see(&mut counted, blob.as_ref()))?;
            Ok((counted, stats))
        })
    }

    /// What each table takes, by name; without the chunks, looking through which would read everything stored.
    pub fn table_sizes(&self) -> Result<Vec<TableSize>, StoreError> {
        self.inner.read("measuring tables", |txn| {
            let mut sizes = Vec::new();
            for table in txn.list_tables()?.filter(|table| table.name() != CHUNKS.name()) {
                sizes.push(measure(txn, table)?);
            }
            sizes.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(sizes)
        })
    }
}

fn measure(txn: &ReadTransaction, table: impl TableHandle) -> Result<TableSize, Failure> {
    let name = table.name().to_owned();
    let table = txn.open_untyped_table(table)?;
    let stats = table.stats()?;
    let bytes = stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
    Ok(TableSize { name, rows: table.len()?, bytes })
}

fn listing(id: &ObjectId, row: &[u8]) -> Option<Listing> {
    Listing::from_row(Bytes::copy_from_slice(unseal(id.as_bytes(), row)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Entry, EntryKind, StoreOptions};
    use super::*;

    fn id(first: u8, rest: u8) -> ObjectId {
        let mut bytes = [rest; 20];
        bytes[0] = first;
        ObjectId::from_bytes_or_panic(&bytes)
    }

    fn filled() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("store.redb"), &StoreOptions::default()).expect("new store");
        let mut batch = Batch::default();
        for number in 0..10 {
            batch.blob(id(0xa0 + number, 1), &vec![number; 100 * usize::from(number)]);
        }
        batch.blob(ObjectId::from_bytes_or_panic(&[0xab; 32]), &vec![7; 3 * FRAME_BYTES]);
        let entry = Entry { name: b"x", kind: EntryKind::File, mode: 0o100_644, id: id(1, 1) };
        batch.tree(id(0xa3, 0), &Listing::pack(20, vec![entry]).expect("one entry"));
        batch.size(id(0xff, 1), 5);
        store.commit(batch).expect("stored");
        (directory, store)
    }

    #[test]
    fn pages_follow_each_other_and_leave_nothing_out() {
        let (_directory, store) = filled();
        let all = store.glances(None, &IdPrefix::default(), None, 100).expect("read");
        assert_eq!(all.len(), 12);
        assert!(all.is_sorted_by_key(|glance| glance.id));
        for limit in 1..5 {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = store.glances(None, &IdPrefix::default(), after.as_ref(), limit).expect("read");
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                paged.extend(page);
            }
            assert_eq!(paged, all, "{limit} a page");
        }
        let tree = store.glances(Some(ObjectKind::Tree), &IdPrefix::default(), None, 9).expect("read");
        assert_eq!((tree.len(), tree[0].raw_size, tree[0].entries), (1, 6 + 1 + 1 + 1 + 20, Some(1)));
        assert_eq!(store.glance(&tree[0].id).expect("read").as_ref(), Some(&tree[0]));
    }

    #[test]
    fn an_id_is_found_by_any_number_of_its_digits() {
        let (_directory, store) = filled();
        let like = |text: &str| store.ids_like(&IdPrefix::parse(text).expect("digits"), 50).expect("read");
        assert_eq!(like("a3"), [id(0xa3, 0), id(0xa3, 1)]);
        assert_eq!(like("a30"), [id(0xa3, 0), id(0xa3, 1)]);
        assert_eq!(like("A301"), [id(0xa3, 1)]);
        assert_eq!(like("abababa").len(), 1, "SHA-256");
        assert_eq!(like(&"ab".repeat(32)).len(), 1);
        assert_eq!(like("ff01"), [id(0xff, 1)], "a size alone");
        assert_eq!(like("").len(), 13);
        assert!(like("b").is_empty() && like(&"ab".repeat(20)).len() == 1);
        for wrong in ["g", "a3 ", "-", &"a".repeat(65)] {
            assert_eq!(IdPrefix::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn looking_and_counting_see_what_is_there() {
        let (_directory, store) = filled();
        let large = ObjectId::from_bytes_or_panic(&[0xab; 32]);
        assert_eq!(store.check(&large).expect("read"), Look::Good(()));
        assert_eq!(store.check(&id(0, 0)).expect("read"), Look::Absent);
        assert_eq!(store.look_at(&id(0xa1, 1), 98, 9).expect("read"), Look::Good(vec![1, 1]));
        let (counted, stats) = store
            .survey(
                |_| (0, 0, 0),
                |sum, blob| {
                    let blob = blob.expect("undamaged");
                    *sum = (sum.0 + 1, sum.1 + blob.raw_size, sum.2 + blob.stored_size);
                },
            )
            .expect("read");
        assert_eq!(counted, (stats.blobs, stats.raw_bytes, stats.stored_bytes));
        let tables = store.table_sizes().expect("measured");
        assert!(tables.iter().any(|table| table.name == "blobs" && table.rows == 11 && table.bytes > 0));
        assert!(!tables.iter().any(|table| table.name == "chunks"));
    }
}
