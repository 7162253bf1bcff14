//! The records that are greatest in something.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::FetchRow;
use crate::store::{Fetch, WorkspaceId};

/// The greatest records seen so far, a fixed number of them.
pub(super) struct Ranked {
    limit: usize,
    /// By value, and of those that are equal the one seen first.
    found: BTreeMap<(u64, Reverse<u64>), Fetch>,
    seen: u64,
}

impl Ranked {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, found: BTreeMap::new(), seen: 0 }
    }

    /// Takes a record in; one of which there is nothing is not among the greatest.
    pub(super) fn add(&mut self, value: u64, fetch: &Fetch) {
        let least = self.found.first_key_value().map_or(0, |((least, _), _)| *least);
        if value == 0 || self.limit == 0 || (self.found.len() >= self.limit && value <= least) {
            return;
        }
        self.seen += 1;
        self.found.insert((value, Reverse(self.seen)), fetch.clone());
        if self.found.len() > self.limit {
            self.found.pop_first();
        }
    }

    /// The greatest first.
    pub(super) fn rows(self, names: &HashMap<WorkspaceId, String>) -> Vec<FetchRow> {
        self.found.into_values().rev().map(|fetch| FetchRow::new(&fetch, names)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fetch;
    use super::*;

    #[test]
    fn the_greatest_are_kept_and_of_equals_the_first() {
        let mut ranked = Ranked::new(3);
        for (path, bytes) in [("a", 5), ("b", 9), ("none", 0), ("c", 5), ("d", 1), ("e", 5), ("f", 7)] {
            ranked.add(bytes, &fetch("cat", path, bytes));
        }
        let told: Vec<_> = ranked.rows(&HashMap::new()).into_iter().map(|row| (row.path.path, row.bytes)).collect();
        assert_eq!(told, [("b".to_owned(), 9), ("f".to_owned(), 7), ("a".to_owned(), 5)]);
        let mut none = Ranked::new(0);
        none.add(1, &fetch("cat", "a", 1));
        assert!(none.rows(&HashMap::new()).is_empty());
    }
}
