//! Chunks that no blob has: bytes that nobody can reach.
//!
//! A chunk gets no members but those it was written with, in the same transaction or, for a large blob that is being
//! written, while its number is in `pending`. So one that was there, was not pending, and had no member at some moment
//! after that never has one again.

use gix::ObjectId;
use redb::{ReadableTable, ReadableTableMetadata};

use super::super::batch::NEXT_CHUNK;
use super::super::error::StoreError;
use super::super::row::{BlobRow, Place};
use super::super::schema::{BLOBS, CHUNKS, COUNTERS, PENDING, counter};
use super::super::{Store, pack};
use super::{PAGE_ROWS, Watch};

/// Chunks read in one transaction: redb reads their bytes with their numbers.
const CHUNKS_PER_PAGE: usize = 32;

/// Orphans told at most; a further look finds the rest.
const ORPHANS_MAX: usize = 1 << 20;

/// Chunks that no blob has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Their numbers.
    pub chunks: Vec<u64>,
    /// Their bytes.
    pub bytes: u64,
}

/// Numbers as ranges, which is what chunks in use mostly are.
#[derive(Default)]
struct Ranges {
    /// First number and the one behind the last. Sorted and disjoint up to `merged`.
    all: Vec<(u64, u64)>,
    merged: usize,
}

impl Ranges {
    fn add(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.all.push((first, first.saturating_add(count)));
        if self.all.len() > 2 * self.merged.max(PAGE_ROWS) {
            self.merge();
        }
    }

    fn merge(&mut self) {
        self.all.sort_unstable();
        self.all.dedup_by(|next, before| {
            let touches = next.0 <= before.1;
            if touches {
                before.1 = before.1.max(next.1);
            }
            touches
        });
        self.merged = self.all.len();
    }

    /// Whether it has `number`, once merged.
    fn has(&self, number: u64) -> bool {
        let place = self.all.partition_point(|(first, _)| *first <= number);
        place.checked_sub(1).and_then(|place| self.all.get(place)).is_some_and(|(_, end)| number < *end)
    }

    fn count(&self) -> u64 {
        self.all.iter().map(|(first, end)| end - first).sum()
    }
}

impl Store {
    /// Looks for chunks that no blob has. With `certain` every blob is known to have its chunks, so that counting both is
    /// enough where there is none.
    pub fn orphan_chunks(&self, certain: bool, watch: &dyn Watch) -> Result<Orphans, StoreError> {
        let (upto, chunks, mut used) = self.inner.read("looking at chunks", |txn| {
            let mut used = Ranges::default();
            for row in txn.open_table(PENDING)?.iter()? {
                let (first, count) = row?;
                used.add(first.value(), count.value());
            }
            let upto = counter(&txn.open_table(COUNTERS)?, NEXT_CHUNK)?;
            Ok((upto, txn.open_table(CHUNKS)?.len()?, used))
        })?;
        let pending = !used.all.is_empty();
        let mut from: Vec<u8> = Vec::new();
        loop {
            let (page, last) = self.inner.read("looking through all blobs", |txn| {
                let (mut page, mut last) = (Vec::new(), None);
                for row in txn.open_table(BLOBS)?.range(&from[..]..)?.take(PAGE_ROWS) {
                    let (key, row) = row?;
                    last = Some(key.value().to_vec());
                    let Ok(id) = ObjectId::try_from(key.value()) else { continue };
                    page.extend(BlobRow::decode(&id, row.value()));
                }
                Ok((page, last))
            })?;
            for head in page.iter().filter(|head| head.stored_size > 0) {
                match head.place {
                    Place::Packed { chunk, .. } => used.add(chunk, 1),
                    Place::Run { first_chunk, unit } => {
                        used.add(first_chunk, pack::cut(head.stored_size, unit).count() as u64);
                    }
                }
            }
            let Some(mut last) = last else { break };
            if !watch.go_on(0) {
                return Ok(Orphans::default());
            }
            last.push(0);
            from = last;
        }
        used.merge();
        if certain && !pending && used.count() == chunks {
            return Ok(Orphans::default());
        }
        self.outside_of(&used, upto, watch)
    }

    /// Chunks below `upto` that are not in `used`.
    fn outside_of(&self, used: &Ranges, upto: u64, watch: &dyn Watch) -> Result<Orphans, StoreError> {
        let mut orphans = Orphans::default();
        let mut from = 0;
        while from < upto && orphans.chunks.len() < ORPHANS_MAX {
            let (page, read, last) = self.inner.read("looking through all chunks", |txn| {
                let (mut page, mut read, mut last) = (Vec::new(), 0, None);
                for row in txn.open_table(CHUNKS)?.range(from..upto)?.take(CHUNKS_PER_PAGE) {
                    let (number, value) = row?;
                    let length = value.value().len() as u64;
                    last = Some(number.value());
                    read += length;
                    if !used.has(number.value()) {
                        page.push((number.value(), length));
                    }
                }
                Ok((page, read, last))
            })?;
            orphans.bytes += page.iter().map(|(_, length)| length).sum::<u64>();
            orphans.chunks.extend(page.iter().map(|(number, _)| *number));
            let Some(last) = last.filter(|_| watch.go_on(read)) else { break };
            from = last + 1;
        }
        Ok(orphans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_what_was_added() {
        let mut ranges = Ranges::default();
        for number in (0..10_000).rev().filter(|number| number % 7 != 3) {
            ranges.add(number, 1);
        }
        ranges.add(20_000, 5);
        ranges.add(1, 0);
        ranges.merge();
        for number in 0..21_000 {
            let expected = (number < 10_000 && number % 7 != 3) || (20_000..20_005).contains(&number);
            assert_eq!(ranges.has(number), expected, "{number}");
        }
        assert_eq!(ranges.count(), (0..10_000).filter(|number| number % 7 != 3).count() as u64 + 5);
    }
}
