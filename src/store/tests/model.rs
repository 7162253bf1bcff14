//! Random operations against a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Batch(Vec<(u8, usize, bool)>),
    Large {
        seed: u8,
        len: usize,
        finish: bool,
    },
    ReadAt {
        pick: prop::sample::Index,
        offset: usize,
        len: usize,
    },
    /// Takes out those whose first byte has one of these bits.
    Remove {
        bits: u8,
        keep: bool,
    },
    Flush,
    Compact,
    Reopen,
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..20_000_usize,
        2 => (FRAME_BYTES - 2)..(FRAME_BYTES + 3),
        1 => 0..5 * FRAME_BYTES,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec((0..40_u8, length(), any::<bool>()), 0..12).prop_map(Op::Batch),
        1 => (any::<u8>(), 0..20 * FRAME_BYTES, any::<bool>())
            .prop_map(|(seed, len, finish)| Op::Large { seed, len, finish }),
        6 => (any::<prop::sample::Index>(), 0..3 * FRAME_BYTES, 0..2 * FRAME_BYTES)
            .prop_map(|(pick, offset, len)| Op::ReadAt { pick, offset, len }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(bits, keep)| Op::Remove { bits, keep }),
        1 => Just(Op::Flush),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
    ]
}

fn content(seed: u8, len: usize, noisy: bool) -> Vec<u8> {
    if noisy { noise(seed.into(), len) } else { text(seed.into(), len) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map(ops in prop::collection::vec(op(), 1..30)) {
        let mut scratch = Scratch::new();
        let mut model: BTreeMap<ObjectId, Vec<u8>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Batch(blobs) => {
                    let mut batch = Batch::default();
                    for (seed, len, noisy) in blobs {
                        let raw = content(seed, len, noisy);
                        batch.blob(id_of(&raw), &raw);
                        model.insert(id_of(&raw), raw);
                    }
                    scratch.store().commit(batch).expect("stored");
                }
                Op::Large { seed, len, finish } => {
                    let raw = content(seed, len, len % 2 == 0);
                    let mut large = scratch.store().large_blob(len as u64).expect("started");
                    large.write_all(&raw).expect("written");
                    if finish {
                        large.finish(id_of(&raw)).expect("finished");
                        model.insert(id_of(&raw), raw);
                    }
                }
                Op::ReadAt { pick, offset, len } => {
                    if model.is_empty() {
                        continue;
                    }
                    let (id, raw) = model.iter().nth(pick.index(model.len())).expect("within");
                    let expected = &raw[offset.min(raw.len())..(offset + len).min(raw.len())];
                    let read = scratch.store().read_at(id, offset as u64, len).expect("readable").expect("here");
                    prop_assert!(read == expected, "{} at {} of {}", len, offset, raw.len());
                }
                Op::Remove { bits, keep } => {
                    let goes = |id: &ObjectId| id.as_bytes()[0] & bits != 0;
                    let keep = if keep { KeepSize::Yes } else { KeepSize::No };
                    let found = scratch.store().blobs_where(|blob| goes(&blob.id)).expect("readable");
                    let count = found.len() as u64;
                    prop_assert_eq!(count, model.keys().filter(|id| goes(id)).count() as u64);
                    let victims = found.into_iter().map(|blob| (blob, keep)).collect();
                    let swept = scratch.store().remove_blobs(victims, &mut || true).expect("taken out");
                    prop_assert_eq!((swept.objects, swept.complete), (count, true));
                    model.retain(|id, raw| {
                        let size = scratch.store().sizes(&[*id]).expect("readable")[0];
                        let known = (!goes(id) || keep == KeepSize::Yes).then_some(raw.len() as u64);
                        assert_eq!(size, known, "{id}");
                        !goes(id)
                    });
                }
                Op::Flush => scratch.store().flush().expect("flushed"),
                Op::Compact => drop(scratch.store().compact().expect("compacted")),
                Op::Reopen => scratch.reopen(),
            }
        }
        if model.is_empty() {
            prop_assert_eq!(scratch.chunks(), 0);
        }
        let store = scratch.store();
        for (id, raw) in &model {
            prop_assert!(store.read(id).expect("readable").as_ref() == Some(raw));
        }
        let stats = store.stats().expect("readable");
        prop_assert_eq!(stats.blobs, model.len() as u64);
        prop_assert_eq!(stats.raw_bytes, model.values().map(|raw| raw.len() as u64).sum::<u64>());
        prop_assert_eq!(store.damaged(), 0);
    }
}
