//! Who names which blob: each blob in the cache once, whatever number of keys names it.
//!
//! Keys are numbers. All of a key is counted in one go ([`Ledger::count`]), so that it is enough to know a blob's first and
//! last key; where that can't be, pairs are remembered ([`Ledger::count_scattered`]). Objects are told apart by their first
//! eight bytes: two that share those are counted for each other's keys, but in sums each once.

use std::collections::{HashMap, HashSet};

use gix::ObjectId;

use super::du::Amount;
use crate::daemon::protocol::Failure;
use crate::store::{Store, StoreStats};

/// No key.
const NONE: u32 = u32::MAX;
/// Marks a first key that is not the only one.
const MORE: u32 = 1 << 31;

/// All blobs of one moment.
#[derive(Default)]
pub(super) struct Ledger {
    /// Beginnings of ids, sorted.
    ids: Vec<u64>,
    raw: Vec<u64>,
    stored: Vec<u64>,
    first: Vec<u32>,
    last: Vec<u32>,
    /// Keys of blobs that have several, but for the first, where they do not come in one go.
    pairs: HashSet<(u32, u32)>,
    /// Blobs that were made of others by a checkout conversion: they count where those do.
    made_of: HashMap<u64, Vec<usize>>,
    /// All blobs and those only one key names, by key.
    rows: Vec<(Amount, Amount)>,
}

/// What was counted.
pub(super) struct Sums {
    /// Of each key: what it names, and what it alone names.
    pub rows: Vec<(Amount, Amount)>,
    /// What several keys name.
    pub shared: Amount,
    /// What none names.
    pub unnamed: Amount,
    /// All blobs whose rows are whole.
    pub seen: Amount,
}

fn beginning(id: &ObjectId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Ledger {
    /// All blobs, and the totals of the same moment. With `ages` (ends of ages in hours before now) each is counted for the
    /// age of its last use.
    pub(super) fn open<const N: usize>(store: &Store, ages: Option<[u32; N]>) -> Result<(Self, StoreStats), Failure> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let hour = u32::try_from(now.as_secs() / 3600).unwrap_or(u32::MAX);
        let begin = |stats: &StoreStats| {
            let many = usize::try_from(stats.blobs).unwrap_or(0).min(1 << 24);
            Self {
                ids: Vec::with_capacity(many),
                raw: Vec::with_capacity(many),
                stored: Vec::with_capacity(many),
                ..Self::default()
            }
        };
        let (mut ledger, stats) = store.survey(begin, |ledger: &mut Self, blob| {
            let Some(blob) = blob else { return };
            ledger.ids.push(beginning(&blob.id));
            ledger.raw.push(blob.raw_size);
            ledger.stored.push(blob.stored_size);
            ledger.first.push(NONE);
            ledger.last.push(NONE);
            if let Some(ages) = &ages {
                let age = hour.saturating_sub(blob.last_used);
                let key = ages.iter().position(|end| age < *end).unwrap_or(N.saturating_sub(1));
                ledger.enter(u32::try_from(key).unwrap_or(0), ledger.ids.len() - 1);
            }
        })?;
        if ages.is_none() {
            for (id, source) in store.converted_sources()? {
                if let Some(at) = ledger.find(&id) {
                    ledger.made_of.entry(beginning(&source)).or_default().push(at);
                }
            }
        }
        Ok((ledger, stats))
    }

    fn find(&self, id: &ObjectId) -> Option<usize> {
        self.ids.binary_search(&beginning(id)).ok()
    }

    /// Whether the blob, or what was made of it, is in the cache.
    pub(super) fn has(&self, id: &ObjectId) -> bool {
        self.find(id).is_some() || self.made_of.contains_key(&beginning(id))
    }

    /// Counts the blob for `key`, if it is here. No other key may come between two counts for one.
    pub(super) fn count(&mut self, key: u32, id: &ObjectId) {
        self.each(id, |ledger, at| {
            if ledger.last[at] != key {
                ledger.enter(key, at);
            }
        });
    }

    /// The same, in any order of keys.
    pub(super) fn count_scattered(&mut self, key: u32, id: &ObjectId) {
        self.each(id, |ledger, at| {
            let first = ledger.first[at];
            let known = first != NONE && first & !MORE == key;
            let place = u32::try_from(at).unwrap_or(u32::MAX);
            if !known && (first == NONE || ledger.pairs.insert((place, key))) {
                ledger.enter(key, at);
            }
        });
    }

    fn each(&mut self, id: &ObjectId, mut count: impl FnMut(&mut Self, usize)) {
        if let Some(at) = self.find(id) {
            count(self, at);
        }
        if !self.made_of.is_empty()
            && let Some(made) = self.made_of.get(&beginning(id)).cloned()
        {
            for at in made {
                count(self, at);
            }
        }
    }

    fn enter(&mut self, key: u32, at: usize) {
        let row = key as usize;
        if self.rows.len() <= row {
            self.rows.resize(row + 1, (Amount::default(), Amount::default()));
        }
        self.rows[row].0.add(self.raw[at], self.stored[at]);
        self.first[at] = if self.first[at] == NONE { key } else { self.first[at] | MORE };
        self.last[at] = key;
    }

    /// Adds everything up.
    pub(super) fn sums(mut self) -> Sums {
        let (mut shared, mut unnamed, mut seen) = (Amount::default(), Amount::default(), Amount::default());
        for ((first, raw), stored) in self.first.iter().zip(&self.raw).zip(&self.stored) {
            seen.add(*raw, *stored);
            match *first {
                NONE => unnamed.add(*raw, *stored),
                first if first & MORE != 0 => shared.add(*raw, *stored),
                first => self.rows[first as usize].1.add(*raw, *stored),
            }
        }
        Sums { rows: self.rows, shared, unnamed, seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, StoreOptions};

    fn id(number: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[number; 20])
    }

    fn ledger(counts: &[(u32, u8)], scattered: bool) -> Sums {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("s"), &StoreOptions::default()).expect("new store");
        let mut batch = Batch::default();
        (0..10).for_each(|number| batch.blob(id(number), &vec![number; usize::from(number)]));
        store.commit(batch).expect("stored");
        let (mut ledger, stats) = Ledger::open::<0>(&store, None).expect("read");
        for (key, number) in counts {
            if scattered { ledger.count_scattered(*key, &id(*number)) } else { ledger.count(*key, &id(*number)) }
        }
        let sums = ledger.sums();
        assert_eq!((sums.seen.objects, sums.seen.raw_bytes), (stats.blobs, stats.raw_bytes));
        let own: u64 = sums.rows.iter().map(|(_, own)| own.raw_bytes).sum();
        assert_eq!(own + sums.shared.raw_bytes + sums.unnamed.raw_bytes, stats.raw_bytes);
        sums
    }

    #[test]
    fn each_blob_is_counted_once_for_each_key() {
        let sums = ledger(&[(0, 1), (0, 2), (0, 1), (1, 2), (1, 3), (1, 2), (2, 200)], false);
        let raw: Vec<(u64, u64)> = sums.rows.iter().map(|(all, own)| (all.raw_bytes, own.raw_bytes)).collect();
        assert_eq!(raw, [(3, 1), (5, 3)]);
        assert_eq!((sums.shared.objects, sums.shared.raw_bytes, sums.unnamed.objects), (1, 2, 7));
    }

    #[test]
    fn keys_may_come_in_any_order() {
        let sums = ledger(&[(0, 1), (1, 1), (0, 1), (2, 1), (1, 1), (0, 4), (2, 1)], true);
        let all: Vec<u64> = sums.rows.iter().map(|(all, _)| all.objects).collect();
        assert_eq!((all, sums.shared.objects), (vec![2, 1, 1], 1));
    }
}
