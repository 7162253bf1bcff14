//! Whose the cache's objects are, and how old: what a report shows beside the map.
//!
//! Walks every tree that is kept and every row of a blob. Invariant: in both
//! lists each object is counted once, so each adds up to the whole cache.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::Failure;
use crate::index::IndexError;
use crate::index::gc::{Marks, Roots, mark};
use crate::store::{Repository, Store};

/// Repositories told by name; the objects of those beyond count as other ones.
const REPOSITORIES_MAX: usize = 200;

/// Ages: hours since the last use, and what that is called.
const AGES: [(u32, &str); 6] = [
    (1, "the last hour"),
    (24, "the last day"),
    (7 * 24, "the last week"),
    (30 * 24, "the last 30 days"),
    (365 * 24, "the last year"),
    (u32::MAX, "longer ago"),
];

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SharesRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SharesReport {
    /// By the repository whose generations and pins name them.
    pub by_repository: Vec<ShareRow>,
    /// By when they were last used.
    pub by_age: Vec<ShareRow>,
    /// Bytes of the store's file on the disk.
    pub file_bytes: u64,
}

/// A part of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRow {
    /// Which.
    pub key: String,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// What they take as stored.
    pub stored_bytes: u64,
}

impl ShareRow {
    fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    fn add(&mut self, raw_bytes: u64, stored_bytes: u64) {
        self.objects += 1;
        self.raw_bytes += raw_bytes;
        self.stored_bytes += stored_bytes;
    }
}

pub(super) fn answer(sources: &Sources<'_>, _request: &SharesRequest) -> Result<SharesReport, Failure> {
    let store = sources.store;
    let mut repositories = store.repositories()?;
    repositories.truncate(REPOSITORIES_MAX);
    let marks = repositories.iter().map(|repository| marks_of(store, repository)).collect::<Result<Vec<_>, _>>()?;
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
    let hour = u32::try_from(hour).unwrap_or(u32::MAX);
    let sums = std::cell::RefCell::new(Sums::new(&repositories));
    // Nothing is kept of a row but its sums.
    store.blobs_where(|blob| {
        let mut of = marks.iter().enumerate().filter(|(_, marks)| marks.reaches(&blob.id)).map(|(at, _)| at);
        let owner = match (of.next(), of.next()) {
            (Some(one), None) => one,
            (Some(_), Some(_)) => repositories.len(),
            _ => repositories.len() + 1,
        };
        let mut sums = sums.borrow_mut();
        sums.by_repository[owner].add(blob.raw_size, blob.stored_size);
        let age = hour.saturating_sub(blob.last_used);
        let age = AGES.iter().position(|(most, _)| age <= *most).unwrap_or(AGES.len() - 1);
        sums.by_age[age].add(blob.raw_size, blob.stored_size);
        false
    })?;
    let Sums { mut by_repository, mut by_age } = sums.into_inner();
    by_repository.retain(|row| row.objects > 0);
    by_repository.sort_by_key(|row| std::cmp::Reverse(row.stored_bytes));
    by_age.retain(|row| row.objects > 0);
    Ok(SharesReport { by_repository, by_age, file_bytes: store.stats()?.file_bytes })
}

struct Sums {
    by_repository: Vec<ShareRow>,
    by_age: Vec<ShareRow>,
}

impl Sums {
    fn new(repositories: &[Repository]) -> Self {
        let mut by_repository: Vec<ShareRow> = repositories.iter().map(|row| ShareRow::new(&row.url)).collect();
        by_repository.push(ShareRow::new("several repositories"));
        by_repository.push(ShareRow::new("no generation that is kept"));
        Self { by_repository, by_age: AGES.map(|(_, key)| ShareRow::new(key)).into() }
    }
}

/// What the generations and pins of a repository's workspaces name.
fn marks_of(store: &Store, repository: &Repository) -> Result<Marks, IndexError> {
    let workspaces = store.workspaces()?;
    let of: Vec<_> = workspaces.iter().filter(|row| row.repository == repository.id).map(|row| row.id).collect();
    let mut named = Vec::new();
    for id in &of {
        named.extend(store.generations(*id)?.into_iter().map(|row| row.tree.0));
    }
    named.extend(store.pins()?.into_iter().filter(|pin| of.contains(&pin.workspace)).map(|pin| pin.tree.0));
    mark(store, Roots { named, ..Roots::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::{Batch, StoreOptions};

    #[test]
    fn both_lists_add_up_to_the_whole() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("store"), &StoreOptions::default()).expect("opened");
        let mut batch = Batch::default();
        for number in 1..=9 {
            batch.blob(gix::ObjectId::from_bytes_or_panic(&[number; 20]), &vec![number; usize::from(number)]);
        }
        store.commit(batch).expect("stored");
        let config = Config::load().expect("the defaults");
        let report =
            answer(&Sources { store: &store, config: &config, daemon: None }, &SharesRequest {}).expect("read");
        let wanted = |key: &str| (key.to_owned(), 9, 45);
        let told = |rows: &[ShareRow]| -> Vec<_> {
            rows.iter().map(|row| (row.key.clone(), row.objects, row.raw_bytes)).collect()
        };
        assert_eq!(told(&report.by_repository), [wanted("no generation that is kept")]);
        assert_eq!(told(&report.by_age), [wanted("the last hour")]);
    }
}
