//! Which bytes go into which chunk: decided here, carried out elsewhere.
//!
//! redb allocates values in pages of powers of two. So every chunk planned
//! here is a little under a power of two, and what is left over is split
//! until little is wasted.

/// Largest chunk value: what a read of one small blob loads at most.
///
/// `benches/store_corpus.rs`, linux corpus (78,225 blobs, 266.2 MB stored), 32 MiB cache, by chunk size: random read
/// 26 us at 64 KiB, 38 at 128, 48 at 256, 64 at 1024; the same in tree order 17, 22, 28, 44; file 291, 292, 294,
/// 303 MB. With the whole store cached they don't differ.
pub(super) const CHUNK_BYTES: usize = (64 << 10) - PAGE_OVERHEAD;

/// Size of a run's chunks, all but the last few.
pub(super) const UNIT: u32 = {
    assert!(CHUNK_BYTES <= u32::MAX as usize, "rows count with 32 bits");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let unit = CHUNK_BYTES as u32;
    unit
};

/// What redb adds to a value in a page of its own (16 bytes), with room for more.
const PAGE_OVERHEAD: usize = 64;

/// redb's page: below it splitting saves nothing, since small values share a page.
const PAGE_BYTES: usize = 4096;

/// A chunk may waste one part in this many of what it holds.
const WASTE: usize = 8;

/// Chunks a plan keeps open for objects that fit; more would only scatter neighbours.
const OPEN_CHUNKS: usize = 16;

/// One chunk of a plan: the objects in it, by index, and their size together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkPlan {
    pub members: Vec<usize>,
    pub bytes: usize,
}

/// Packs objects of `sizes`, each at most [`CHUNK_BYTES`], none across two chunks, neighbours together where they fit.
pub(super) fn plan(sizes: &[usize]) -> Vec<ChunkPlan> {
    let mut plans = Vec::new();
    for chunk in first_fit(sizes, (0..sizes.len()).collect(), CHUNK_BYTES) {
        split(sizes, chunk, &mut plans);
    }
    plans
}

fn first_fit(sizes: &[usize], members: Vec<usize>, capacity: usize) -> Vec<ChunkPlan> {
    let mut chunks: Vec<ChunkPlan> = Vec::new();
    for member in members {
        let size = sizes[member];
        let open = chunks.len().saturating_sub(OPEN_CHUNKS);
        let fitting = chunks[open..].iter().position(|chunk| chunk.bytes + size <= capacity);
        let chunk = match fitting {
            Some(position) => &mut chunks[open + position],
            None => chunks.push_mut(ChunkPlan::default()),
        };
        chunk.members.push(member);
        chunk.bytes += size;
    }
    chunks
}

/// Splits a chunk that would waste too much of its page into one that fills half that page, and the rest.
fn split(sizes: &[usize], mut chunk: ChunkPlan, out: &mut Vec<ChunkPlan>) {
    while let Some(capacity) = smaller_page(chunk.bytes) {
        let mut filled = ChunkPlan::default();
        let mut rest = ChunkPlan::default();
        for &member in &chunk.members {
            let size = sizes[member];
            let into = if filled.bytes + size <= capacity { &mut filled } else { &mut rest };
            into.members.push(member);
            into.bytes += size;
        }
        // One large object in the way: better a page that is too large than two that are.
        if page(filled.bytes) + page(rest.bytes) >= page(chunk.bytes) {
            break;
        }
        out.push(filled);
        chunk = rest;
    }
    if !chunk.members.is_empty() {
        out.push(chunk);
    }
}

/// Lengths of the chunks that hold a run of `bytes`: as many of `unit` as it fills, then smaller ones.
///
/// This rule is part of the file format: rows of runs hold unit and size only.
pub(super) fn cut(bytes: u64, unit: u32) -> impl Iterator<Item = u64> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        let length = if left >= u64::from(unit) { u64::from(unit) } else { left.min(cut_tail(left)) };
        left -= length;
        (length > 0).then_some(length)
    })
}

/// Length of the next chunk of a tail of `left` bytes, less than a unit.
fn cut_tail(left: u64) -> u64 {
    usize::try_from(left).ok().and_then(smaller_page).map_or(left, |capacity| capacity as u64)
}

/// How many chunks [`cut`] makes at most of `bytes`: all units, and a tail that halves.
pub(super) fn cut_limit(bytes: u64, unit: u32) -> u64 {
    bytes / u64::from(unit) + 32
}

/// Index of the chunk that holds stored byte `at` of a run of `bytes`, where that chunk starts, and its length.
pub(super) fn locate(bytes: u64, unit: u32, at: u64) -> Option<(u64, u64, u64)> {
    let unit_bytes = u64::from(unit);
    let whole = bytes / unit_bytes;
    if at < whole * unit_bytes {
        return Some((at / unit_bytes, at / unit_bytes * unit_bytes, unit_bytes));
    }
    let mut start = whole * unit_bytes;
    for (index, length) in (whole..).zip(cut(bytes - start, unit)) {
        if at < start + length {
            return Some((index, start, length));
        }
        start += length;
    }
    None
}

/// When `bytes` in one chunk would waste too much: how many bytes fill the next smaller page.
fn smaller_page(bytes: usize) -> Option<usize> {
    let page = page(bytes);
    (page > 2 * PAGE_BYTES && page - bytes > PAGE_OVERHEAD + bytes / WASTE).then(|| page / 2 - PAGE_OVERHEAD)
}

/// Bytes of the page that a chunk of `bytes` has.
pub(super) fn page_bytes(bytes: usize) -> u64 {
    page(bytes) as u64
}

fn page(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + PAGE_OVERHEAD).next_power_of_two().max(PAGE_BYTES) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plans_hold_each_object_once_and_waste_little(
            sizes in prop::collection::vec(prop_oneof![8 => 1..8_000_usize, 1 => 1..=CHUNK_BYTES], 1..300)
        ) {
            let plans = plan(&sizes);
            let mut seen: Vec<usize> = plans.iter().flat_map(|chunk| chunk.members.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
            for chunk in &plans {
                prop_assert_eq!(chunk.bytes, chunk.members.iter().map(|&member| sizes[member]).sum::<usize>());
                prop_assert!(chunk.bytes <= CHUNK_BYTES);
            }
        }

        #[test]
        fn a_cut_covers_every_byte(bytes in 0..u64::from(UNIT) * 3, at in 0..u64::from(UNIT) * 3) {
            let lengths: Vec<u64> = cut(bytes, UNIT).collect();
            prop_assert_eq!(lengths.iter().sum::<u64>(), bytes);
            prop_assert!(lengths.len() as u64 <= cut_limit(bytes, UNIT));
            let mut start = 0;
            let mut expected = None;
            for (index, &length) in lengths.iter().enumerate() {
                if (start..start + length).contains(&at) {
                    expected = Some((index as u64, start, length));
                }
                start += length;
            }
            prop_assert_eq!(locate(bytes, UNIT, at), expected);
        }
    }

    #[test]
    fn sources_fill_their_pages() {
        // Stored sizes as a source tree has them: many small, few large.
        let sizes: Vec<usize> =
            (1..=2000_usize).map(|i| 200 + (i * 7919) % 5000 + if i % 50 == 0 { 30_000 } else { 0 }).collect();
        let plans = plan(&sizes);
        let held: usize = sizes.iter().sum();
        let pages: usize = plans.iter().map(|chunk| page(chunk.bytes)).sum();
        assert!(pages < held + held / 40, "{held} bytes in {pages}");
    }
}
