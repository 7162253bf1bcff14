//! Every row of the other tables: its seal, its form, and whether other tables agree with it.
//!
//! Rows are compared in the transaction that read them. Local changes have their own part
//! ([`crate::store::overlay`], `check`).

use std::ops::Bound;

use gix::ObjectId;
use redb::{Key as RedbKey, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle};
use serde::de::DeserializeOwned;

use super::super::batch::NEXT_CHUNK;
use super::super::error::{Failure, StoreError};
use super::super::record::{GenerationRecord, PendingWarm, Pin, Repository, Workspace, WorkspaceId, WorkspaceState};
use super::super::row::{BlobRow, unseal};
use super::super::rows::{NEXT_PIN, NEXT_REPOSITORY, NEXT_WARM, NEXT_WORKSPACE, parse};
use super::super::schema::{
    ACCESS, BLOBS, CHUNKS, CONVERTED, COUNTERS, FETCHES, GENERATIONS, NOTES, PENDING, PINS, REPOSITORIES, SIZES,
    TREE_SIZES, TREES, WANTS, WARMED, WORKSPACES, counter,
};
use super::super::{Store, converted, fetches, stats};
use super::objects::ROW;
use super::trees::listing_of;
use super::{Key, PAGE_BYTES, PAGE_ROWS, Problem, Subject, Watch};

/// How many tables a check looks at: all of the store's.
pub const TABLES: u64 = 22;

/// A table of sealed rows.
type Sealed<K> = TableDefinition<'static, K, &'static [u8]>;

/// What one row is found to be.
enum Row {
    Good,
    Bad(Problem),
    /// Nobody's, and harmless.
    Idle,
}

impl Store {
    /// Checks all tables but those of objects and of local changes. Ends early when `watch` says so.
    pub fn check_tables(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        self.check_sizes(watch)?;
        self.check_small(watch)?;
        self.check_people_s(watch)?;
        let idle = self.each_row(ACCESS, watch, |txn, key, _: u32| {
            let known = txn.open_table(BLOBS)?.get(key)?.is_some() || txn.open_table(TREES)?.get(key)?.is_some();
            Ok(if known { Row::Good } else { Row::Idle })
        })?;
        if idle > 0 {
            watch.note(format!("{idle} last uses are noted of objects that are not here; that harms nobody"));
        }
        self.check_numbers(watch)?;
        for text in self.wrong_totals()? {
            watch.found(Problem::new(Subject::Counter(text.0), text.1));
        }
        Ok(())
    }

    /// Sizes against the blobs, and those of whole directories against both.
    fn check_sizes(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        self.each_row(SIZES, watch, |txn, key, row: &[u8]| {
            let bad = |text: String| Ok(Row::Bad(Problem::row("sizes", Key::Bytes(key.to_vec()), text)));
            let (Ok(id), Some(size)) = (ObjectId::try_from(key), size_of(key, row)) else { return bad(ROW.into()) };
            match blob_size(txn, &id)? {
                Some(raw) if raw != size => bad(format!("it says {size} bytes, and the blob has {raw}")),
                _ => Ok(Row::Good),
            }
        })?;
        self.each_row(TREE_SIZES, watch, |txn, key, row: &[u8]| {
            let bad = |text: String| Ok(Row::Bad(Problem::row("tree_sizes", Key::Bytes(key.to_vec()), text)));
            let Ok(id) = ObjectId::try_from(key) else { return bad(ROW.into()) };
            let Some((sizes, [])) = unseal(key, row).map(<[u8]>::as_chunks::<8>) else { return bad(ROW.into()) };
            let tree = txn.open_table(TREES)?.get(key)?;
            let Some(listing) = tree.and_then(|row| listing_of(&id, row.value())) else { return Ok(Row::Good) };
            if listing.len() != sizes.len() {
                return bad(format!("it has {} sizes, and the tree {} entries", sizes.len(), listing.len()));
            }
            let table = txn.open_table(SIZES)?;
            for (entry, said) in listing.iter().zip(sizes).filter(|(entry, _)| entry.kind.is_blob()) {
                let noted = table.get(entry.id.as_bytes())?;
                let noted = noted.and_then(|row| size_of(entry.id.as_bytes(), row.value()));
                let said = u64::from_le_bytes(*said);
                if let Some(known) = blob_size(txn, &entry.id)?.or(noted).filter(|known| *known != said) {
                    let name = String::from_utf8_lossy(entry.name);
                    return bad(format!("it says {said} bytes for {name:?}, which has {known}"));
                }
            }
            Ok(Row::Good)
        })?;
        Ok(())
    }

    /// Rows that can be done without.
    fn check_small(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        self.each_row(CONVERTED, watch, |txn, key, row: &[u8]| {
            let bad = |text: String| Ok(Row::Bad(Problem::row("converted", Key::Bytes(key.to_vec()), text)));
            let (Ok(id), Some(known)) = (ObjectId::try_from(key), unseal(key, row).and_then(converted::decode)) else {
                return bad(ROW.into());
            };
            match blob_size(txn, &id)? {
                Some(raw) if raw != known.size => bad(format!("it says {} bytes, and the file has {raw}", known.size)),
                _ => Ok(Row::Good),
            }
        })?;
        self.each_row(WARMED, watch, |_, key, row: &[u8]| {
            let good = key.len() == 32 && unseal(key, row).is_some_and(|row| row.len() == 16);
            Ok(whole(good, "warmed", || Key::Bytes(key.to_vec())))
        })?;
        self.each_row(NOTES, watch, |_, key, row: &[u8]| {
            let good = unseal(key, row).is_some_and(|json| serde_json::from_slice::<serde_json::Value>(json).is_ok());
            Ok(whole(good, "notes", || Key::Bytes(key.to_vec())))
        })?;
        self.each_row(FETCHES, watch, |_, number, row: &[u8]| {
            Ok(whole(fetches::decode(number, row).is_some(), "fetches", || Key::Number(number)))
        })?;
        Ok(())
    }

    /// The rows that people would recognise.
    fn check_people_s(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        self.each_row(REPOSITORIES, watch, |_, number, row: &[u8]| {
            let good = json::<u64, Repository>(&number, row).is_some_and(|row| row.id.0 == number);
            Ok(whole(good, "repositories", || Key::Number(number)))
        })?;
        self.each_row(WANTS, watch, |_, number, row: &[u8]| {
            let good = json::<u64, PendingWarm>(&number, row).is_some_and(|row| row.id == number);
            Ok(whole(good, "wants", || Key::Number(number)))
        })?;
        self.each_row(PINS, watch, |txn, number, row: &[u8]| {
            let pin = json::<u64, Pin>(&number, row).filter(|row| row.id == number);
            let Some(pin) = pin else { return Ok(whole(false, "pins", || Key::Number(number))) };
            if txn.open_table(WORKSPACES)?.get(pin.workspace.0)?.is_some() {
                return Ok(Row::Good);
            }
            let text = format!("pin {number} is of a workspace that is not known; `larder unpin {number}` removes it");
            Ok(Row::Bad(Problem::row("pins", Key::Words(number.to_string()), text)))
        })?;
        self.each_row(WORKSPACES, watch, |txn, number, row: &[u8]| {
            let row = json::<u64, Workspace>(&number, row).filter(|row| row.id.0 == number);
            let Some(row) = row else { return Ok(whole(false, "workspaces", || Key::Words(number.to_string()))) };
            let bad = |text: String| {
                let problem = Problem::row("workspaces", Key::Words(number.to_string()), text);
                Ok(Row::Bad(problem.at(WorkspaceId(number), None)))
            };
            if let Some(current) = row.current
                && txn.open_table(GENERATIONS)?.get((number, current.0))?.is_none()
            {
                return bad(format!("it shows generation {}, which is not there", current.0));
            }
            // One that was never prepared has none yet.
            let unprepared = matches!(row.state, WorkspaceState::Preparing | WorkspaceState::Failed);
            if txn.open_table(REPOSITORIES)?.get(row.repository.0)?.is_none() && (row.current.is_some() || !unprepared)
            {
                return bad(format!("it is of repository {}, which is not there", row.repository.0));
            }
            Ok(Row::Good)
        })?;
        self.each_row(GENERATIONS, watch, |txn, key, row: &[u8]| {
            let words = || Key::Words(format!("{} of workspace {}", key.1, key.0));
            let good = json::<(u64, u64), GenerationRecord>(&key, row)
                .is_some_and(|row| (row.workspace.0, row.generation.0) == key);
            if good && txn.open_table(WORKSPACES)?.get(key.0)?.is_none() {
                let text = "it is of a workspace that is not known";
                return Ok(Row::Bad(Problem::row("generations", words(), text)));
            }
            Ok(match whole(good, "generations", words) {
                Row::Bad(problem) => Row::Bad(problem.at(WorkspaceId(key.0), None)),
                row => row,
            })
        })?;
        Ok(())
    }

    /// Next free numbers: what is numbered already is never numbered again.
    fn check_numbers(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        for (name, text) in self.wrong_numbers()? {
            watch.found(Problem::new(Subject::Counter(name), text));
        }
        let set_aside = self.inner.read("looking at large blobs being written", |txn| {
            let next = counter(&txn.open_table(COUNTERS)?, NEXT_CHUNK)?;
            let mut beyond = 0_u64;
            for row in txn.open_table(PENDING)?.iter()? {
                let (first, count) = row?;
                beyond += u64::from(first.value().checked_add(count.value()).is_none_or(|end| end > next));
            }
            Ok((txn.open_table(PENDING)?.len()?, beyond))
        })?;
        if set_aside.0 > 0 {
            watch.note(format!("{} large blobs are being written, or were when their process ended", set_aside.0));
        }
        if set_aside.1 > 0 {
            let text = "chunks are set aside beyond the next free number";
            watch.found(Problem::new(Subject::Counter(NEXT_CHUNK), text));
        }
        Ok(())
    }

    /// Counters of next free numbers that are too low, and how.
    pub(super) fn wrong_numbers(&self) -> Result<Vec<(&'static str, String)>, StoreError> {
        self.inner.read("looking at the next free numbers", |txn| {
            let counters = txn.open_table(COUNTERS)?;
            let mut wrong = Vec::new();
            for (name, least) in least_numbers(|table| Ok(txn.open_table(table)?))? {
                let next = counter(&counters, name)?;
                if next < least {
                    wrong.push((name, format!("it is {next}, and numbers below {least} are in use")));
                }
            }
            Ok(wrong)
        })
    }

    /// Running totals that are not what a count gives: their names, and what is wrong. One transaction, some seconds for
    /// ten million objects: a total and a count of different moments cannot be compared.
    fn wrong_totals(&self) -> Result<Vec<(&'static str, String)>, StoreError> {
        self.inner.read("counting the store's totals", |txn| {
            let counters = txn.open_table(COUNTERS)?;
            let mut wrong = Vec::new();
            for (name, counted) in stats::count(&txn.open_table(BLOBS)?, txn.open_table(TREES)?.len()?)? {
                let said = counter(&counters, name)?;
                if said != counted {
                    wrong.push((name, format!("the running total is {said}, a count gives {counted}")));
                }
            }
            Ok(wrong)
        })
    }

    /// Gives `look` every row, a page a transaction. Returns how many are idle.
    pub(in crate::store) fn each<K: RedbKey + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        watch: &dyn Watch,
        look: impl for<'a> Fn(&ReadTransaction, K::SelfType<'a>, V::SelfType<'a>) -> Result<Option<Problem>, Failure>,
    ) -> Result<(), StoreError> {
        self.each_row(table, watch, |txn, key, row| Ok(look(txn, key, row)?.map_or(Row::Good, Row::Bad))).map(drop)
    }

    fn each_row<K: RedbKey + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        watch: &dyn Watch,
        look: impl for<'a> Fn(&ReadTransaction, K::SelfType<'a>, V::SelfType<'a>) -> Result<Row, Failure>,
    ) -> Result<u64, StoreError> {
        let doing = format!("checking the table {}", table.name());
        let mut after: Option<Vec<u8>> = None;
        let mut idle = 0;
        loop {
            let page = self.inner.read(&doing, |txn| {
                let mut page = Page::default();
                let rows = txn.open_table(table)?;
                let from = after.as_deref().map_or(Bound::Unbounded, |key| Bound::Excluded(K::from_bytes(key)));
                for row in rows.range((from, Bound::Unbounded))?.take(PAGE_ROWS) {
                    let (key, row) = row?;
                    page.last = Some(K::as_bytes(&key.value()).as_ref().to_vec());
                    page.bytes += V::as_bytes(&row.value()).as_ref().len();
                    match look(txn, key.value(), row.value())? {
                        Row::Good => {}
                        Row::Idle => page.idle += 1,
                        Row::Bad(problem) => page.bad.push(problem),
                    }
                    if page.bytes >= PAGE_BYTES {
                        break;
                    }
                }
                Ok(page)
            })?;
            idle += page.idle;
            page.bad.into_iter().for_each(|problem| watch.found(problem));
            if page.last.is_none() || !watch.go_on(page.bytes as u64) {
                return Ok(idle);
            }
            after = page.last;
        }
    }
}

/// What one transaction saw.
#[derive(Default)]
struct Page {
    last: Option<Vec<u8>>,
    bytes: usize,
    bad: Vec<Problem>,
    idle: u64,
}

/// What each counter of next free numbers has to be at least, by what is in use in its table.
pub(super) fn least_numbers<T: ReadableTable<u64, &'static [u8]>>(
    open: impl Fn(Sealed<u64>) -> Result<T, Failure>,
) -> Result<Vec<(&'static str, u64)>, Failure> {
    let mut all = Vec::new();
    for (name, table) in [
        (NEXT_CHUNK, CHUNKS),
        (NEXT_WORKSPACE, WORKSPACES),
        (NEXT_REPOSITORY, REPOSITORIES),
        (NEXT_WARM, WANTS),
        (NEXT_PIN, PINS),
    ] {
        let last = open(table)?.last()?.map(|(number, _)| number.value());
        // Chunks are numbered from what the counter says, all others from one above it.
        all.push((name, if name == NEXT_CHUNK { last.map_or(0, |last| last + 1) } else { last.unwrap_or(0) }));
    }
    Ok(all)
}

fn whole(good: bool, table: &'static str, key: impl FnOnce() -> Key) -> Row {
    if good { Row::Good } else { Row::Bad(Problem::row(table, key(), ROW)) }
}

fn json<K: RedbKey + 'static, T: DeserializeOwned>(key: &K::SelfType<'_>, row: &[u8]) -> Option<T> {
    parse::<K, T>(key, row).ok()
}

fn size_of(key: &[u8], row: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(unseal(key, row)?.try_into().ok()?))
}

/// The raw size of a blob that is here and whose row is whole.
fn blob_size(txn: &ReadTransaction, id: &ObjectId) -> Result<Option<u64>, Failure> {
    let row = txn.open_table(BLOBS)?.get(id.as_bytes())?;
    Ok(row.and_then(|row| BlobRow::decode(id, row.value())).map(|head| head.raw_size))
}
