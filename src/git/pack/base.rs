//! Decoded objects kept for the deltas to come, the least recently used given up first.

use std::collections::{HashMap, VecDeque};

use super::BASE_CACHE_BYTES;
use super::buffer::Data;

/// A bounded cache by position in the pack.
#[derive(Default)]
pub(super) struct Bases {
    kept: HashMap<u32, (Data, u64)>,
    /// Uses in their order; only an object's last one counts.
    uses: VecDeque<(u32, u64)>,
    clock: u64,
    bytes: usize,
}

impl Bases {
    pub(super) fn get(&mut self, entry: u32) -> Option<Data> {
        let (data, used) = self.kept.get_mut(&entry)?;
        self.clock += 1;
        *used = self.clock;
        self.uses.push_back((entry, self.clock));
        let data = data.clone();
        self.forget_old_uses();
        Some(data)
    }

    /// Keeps objects in memory; mapped ones are too large to be kept.
    pub(super) fn put(&mut self, entry: u32, data: &Data) {
        let Data::Memory(bytes) = data else { return };
        self.clock += 1;
        // An empty object costs its place in the table.
        self.bytes += bytes.len() + 64;
        if let Some((old, _)) = self.kept.insert(entry, (data.clone(), self.clock)) {
            self.bytes -= old.len() + 64;
        }
        self.uses.push_back((entry, self.clock));
        while self.bytes > BASE_CACHE_BYTES {
            let Some((entry, used)) = self.uses.pop_front() else { break };
            if self.kept.get(&entry).is_some_and(|(_, last)| *last == used) {
                let (data, _) = self.kept.remove(&entry).expect("found above");
                self.bytes -= data.len() + 64;
            }
        }
    }

    /// One base used a million times must not leave a million marks.
    fn forget_old_uses(&mut self) {
        if self.uses.len() > 2 * self.kept.len() + 1024 {
            self.uses.retain(|(entry, used)| self.kept.get(entry).is_some_and(|(_, last)| last == used));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_marks_stay_few() {
        let mut bases = Bases::default();
        let data = Data::Memory(vec![0; BASE_CACHE_BYTES / 4].into());
        for entry in 0..3 {
            bases.put(entry, &data);
        }
        for _ in 0..10_000 {
            assert!(bases.get(0).is_some());
        }
        assert!(bases.uses.len() < 2000);
        bases.put(3, &data);
        bases.put(4, &data);
        assert!(bases.get(0).is_some() && bases.get(1).is_none() && bases.get(4).is_some());
        assert!(bases.bytes <= BASE_CACHE_BYTES);
    }
}
