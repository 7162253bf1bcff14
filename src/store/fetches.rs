//! What caused fetches, newest last, in a bounded table.
//!
//! A record says which process did what to which path, and what that brought
//! in. It is for people (`larder why`), so it is written lazily, with the next
//! flush, and a crash may lose the last seconds of it. Invariant: the table
//! never has more rows than [`Store::keep_fetches`] allows, and what waits to
//! be written is bounded too; whatever is beyond is counted, not kept.

use std::collections::VecDeque;

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::{Failure, StoreError};
use super::record::{ObjectIdText, WorkspaceId};
use super::row::{seal, unseal};
use super::schema::FETCHES;

/// Records that wait to be written, at most: some seconds of a fast link.
const PENDING_MAX: usize = 32 << 10;

/// Rows read in one transaction: few at first, for who only wants the newest.
const FIRST_ROWS: usize = 64;
const PAGE_ROWS: usize = 1024;

/// Longest path and process name kept; a path that is longer is kept from its end.
const PATH_MAX: usize = 1024;
const PROCESS_MAX: usize = 64;

/// What a process did that needed an object which was not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Read a file, by `read(2)` or a page of a mapping.
    Read,
    /// Read a symbolic link.
    Readlink,
    /// Wrote into a file, or cut it: its old bytes were needed.
    Write,
    /// Asked for the attributes of a file whose size was not known.
    Stat,
    /// Listed a directory whose files are then prefetched.
    List,
    /// Ran stock Git, which asked for objects of its own.
    Git,
    /// `larder warm`, `pin`, `cache export` or `mount --warm`.
    Warm,
    /// A conversion of a checkout needed it (attribute files, filter drivers).
    Convert,
    /// `larder verify --repair` fetched again what was damaged.
    Repair,
}

/// How urgent it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchClass {
    /// Somebody waited for this very object.
    Read,
    /// It came along because it is beside something that was read.
    Sibling,
    /// Nobody waited: it was fetched ahead of use.
    Prefetch,
    /// It was part of a warm.
    Warm,
    /// Sizes alone; no contents.
    Sizes,
}

/// One fetch and what caused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// When it had arrived: milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// In which workspace it was wanted; `None`: in none that is known.
    pub workspace: Option<WorkspaceId>,
    /// The object; `None` where it was many at once.
    pub id: Option<ObjectIdText>,
    /// Path in the workspace whose use caused it, as bytes; the pathspecs of a warm.
    pub path: Box<[u8]>,
    /// Name of the process (`comm`); empty where it is not known any more.
    pub process: Box<str>,
    /// Its id; 0 where there is none.
    pub pid: u32,
    /// What it did.
    pub operation: Operation,
    /// How urgent it was.
    pub class: FetchClass,
    /// Objects brought in.
    pub objects: u64,
    /// Their raw bytes.
    pub bytes: u64,
    /// Microseconds somebody waited; 0 where nobody did.
    pub wait_us: u64,
}

/// Records on their way into the table.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    /// Rows the table may have; 0: nothing is recorded.
    limit: u64,
    /// The number the next record gets.
    next: u64,
    pending: VecDeque<(u64, Fetch)>,
    /// Records that were not kept because too many came at once.
    lost: u64,
}

impl Store {
    /// Keeps the newest `rows` records of fetches from now on; none with 0.
    pub fn keep_fetches(&self, rows: u64) -> Result<(), StoreError> {
        let last = self.inner.read("reading the records of fetches", |txn| {
            Ok(txn.open_table(FETCHES)?.last()?.map(|(number, _)| number.value()))
        })?;
        let mut fetches = self.inner.fetches.lock();
        fetches.limit = rows;
        fetches.next = fetches.next.max(last.map_or(0, |last| last + 1));
        if rows == 0 {
            fetches.pending.clear();
        }
        Ok(())
    }

    /// Whether fetches are recorded: finding out who caused one is not worth it otherwise.
    pub fn keeps_fetches(&self) -> bool {
        self.inner.fetches.lock().limit > 0
    }

    /// Records that were not kept because too many came at once, since the store was opened.
    pub fn fetches_lost(&self) -> u64 {
        self.inner.fetches.lock().lost
    }

    /// Notes a fetch.
    pub fn note_fetch(&self, mut fetch: Fetch) {
        if let Some(cut) = fetch.path.len().checked_sub(PATH_MAX) {
            fetch.path = Box::from(&fetch.path[cut..]);
        }
        if fetch.process.len() > PROCESS_MAX {
            fetch.process = Box::from(&fetch.process[..fetch.process.floor_char_boundary(PROCESS_MAX)]);
        }
        let mut fetches = self.inner.fetches.lock();
        if fetches.limit == 0 {
            return;
        }
        if fetches.pending.len() >= PENDING_MAX {
            fetches.pending.pop_front();
            fetches.lost += 1;
        }
        let number = fetches.next;
        fetches.next += 1;
        fetches.pending.push_back((number, fetch));
    }

    /// Gives `look` the records, newest first, until it returns false. No transaction is open while it looks.
    pub fn fetches(&self, look: &mut dyn FnMut(&Fetch) -> bool) -> Result<(), StoreError> {
        let mut before = u64::MAX;
        // A page at a time: who only wants the newest holds up nobody who records one.
        loop {
            let pending = self.inner.fetches.lock().newest(before);
            if !pending.iter().all(|(_, fetch)| look(fetch)) {
                return Ok(());
            }
            match pending.last() {
                Some((number, _)) => before = *number,
                None => break,
            }
        }
        let mut rows = FIRST_ROWS;
        loop {
            let page = self.inner.read("reading the records of fetches", |txn| {
                let mut page = Vec::with_capacity(rows);
                for row in txn.open_table(FETCHES)?.range(..before)?.rev().take(rows) {
                    let (number, row) = row?;
                    page.push((number.value(), Box::<[u8]>::from(row.value())));
                }
                Ok(page)
            })?;
            // A damaged record is one that nobody can read; the others can.
            if !page.iter().filter_map(|(number, row)| decode(*number, row)).all(|fetch| look(&fetch)) {
                return Ok(());
            }
            match page.last() {
                Some((number, _)) if page.len() == rows => before = *number,
                _ => return Ok(()),
            }
            rows = (rows * 2).min(PAGE_ROWS);
        }
    }
}

impl Fetches {
    /// A page of what waits to be written and is older than the record `before`, newest first.
    fn newest(&self, before: u64) -> Vec<(u64, Fetch)> {
        let older = self.pending.partition_point(|(number, _)| *number < before);
        self.pending.range(..older).rev().take(PAGE_ROWS).cloned().collect()
    }

    /// Takes what waits to be written.
    pub(super) fn take(&mut self) -> Waiting {
        Waiting { limit: self.limit, records: std::mem::take(&mut self.pending) }
    }

    /// Puts back what could not be written.
    pub(super) fn give_back(&mut self, mut waiting: Waiting) {
        waiting.records.append(&mut self.pending);
        self.pending = waiting.records;
        let beyond = self.pending.len().saturating_sub(PENDING_MAX);
        self.pending.drain(..beyond);
        self.lost += beyond as u64;
    }
}

/// What one transaction writes.
pub(super) struct Waiting {
    limit: u64,
    records: VecDeque<(u64, Fetch)>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|(_, fetch)| 128 + fetch.path.len() as u64).sum()
    }

    /// Appends the records and takes out the oldest rows beyond the limit.
    pub(super) fn write(&self, txn: &WriteTransaction) -> Result<(), Failure> {
        if self.records.is_empty() {
            return Ok(());
        }
        let mut table = txn.open_table(FETCHES)?;
        for (number, fetch) in &self.records {
            let row = postcard::to_extend(fetch, Vec::new())
                .map_err(|error| StoreError::corrupt(format!("a record of a fetch can't be written: {error}")))?;
            table.insert(number, sealed(*number, row).as_slice())?;
        }
        let beyond = table.len()?.saturating_sub(self.limit);
        for _ in 0..beyond {
            table.pop_first()?;
        }
        Ok(())
    }
}

fn sealed(number: u64, mut row: Vec<u8>) -> Vec<u8> {
    seal(&number.to_le_bytes(), &mut row);
    row
}

pub(super) fn decode(number: u64, row: &[u8]) -> Option<Fetch> {
    postcard::from_bytes(unseal(&number.to_le_bytes(), row)?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::StoreOptions;
    use super::*;

    fn fetch(bytes: u64) -> Fetch {
        Fetch {
            at_ms: 1,
            workspace: Some(WorkspaceId(1)),
            id: None,
            path: Box::from(&b"a/b"[..]),
            process: "cat".into(),
            pid: 7,
            operation: Operation::Read,
            class: FetchClass::Read,
            objects: 1,
            bytes,
            wait_us: 9,
        }
    }

    fn all(store: &Store) -> Vec<u64> {
        let mut found = Vec::new();
        let mut look = |fetch: &Fetch| {
            found.push(fetch.bytes);
            true
        };
        store.fetches(&mut look).expect("read");
        found
    }

    #[test]
    fn the_newest_are_kept_and_come_first() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, &StoreOptions::default()).expect("opened");
        store.note_fetch(fetch(1));
        assert!(all(&store).is_empty(), "off until it is wanted");
        store.keep_fetches(5_000).expect("on");
        for number in 0..3_000 {
            store.note_fetch(fetch(number));
        }
        store.flush().expect("written");
        for number in 3_000..6_000 {
            store.note_fetch(fetch(number));
        }
        assert!(all(&store).into_iter().eq((0..6_000).rev()), "written and pending, each once");
        store.flush().expect("written");
        assert!(all(&store).into_iter().eq((1_000..6_000).rev()), "bounded");
        drop(store);
        let store = Store::open_read_only(&path).expect("opened");
        assert_eq!(all(&store).len(), 5_000);
        drop(store);
        let store = Store::open(&path, &StoreOptions::default()).expect("opened");
        store.keep_fetches(5_000).expect("on");
        store.note_fetch(fetch(6_000));
        assert!(all(&store).into_iter().eq((1_000..=6_000).rev()), "numbers go on");
    }

    #[test]
    fn long_paths_keep_their_end_and_bursts_are_counted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("s"), &StoreOptions::default()).expect("opened");
        store.keep_fetches(10).expect("on");
        let long = Fetch { path: vec![b'x'; 5_000].into(), process: "ü".repeat(50).into(), ..fetch(0) };
        store.note_fetch(long);
        let mut lengths = (0, 0);
        store
            .fetches(&mut |fetch| {
                lengths = (fetch.path.len(), fetch.process.len());
                true
            })
            .expect("read");
        assert_eq!(lengths, (PATH_MAX, PROCESS_MAX));
        for _ in 0..=PENDING_MAX {
            store.note_fetch(fetch(1));
        }
        assert_eq!(store.fetches_lost(), 2);
    }
}
