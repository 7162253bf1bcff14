//! Bit rot: no wrong byte is ever given out, and nothing panics.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use redb::ReadableTable;

use super::*;

fn filled(scratch: &Scratch) -> BTreeMap<ObjectId, Vec<u8>> {
    let mut raws: Vec<Vec<u8>> =
        (0..60).map(|seed| text(seed, 300 + 97 * usize::try_from(seed).expect("small"))).collect();
    raws.push(noise(1, 3 * FRAME_BYTES));
    raws.push(text(2, 2 * FRAME_BYTES + 5));
    let mut batch = Batch::default();
    for raw in &raws {
        batch.blob(id_of(raw), raw);
    }
    scratch.store().commit(batch).expect("stored");
    raws.into_iter().map(|raw| (id_of(&raw), raw)).collect()
}

#[test]
fn a_damaged_chunk_costs_its_blobs_alone_and_they_can_come_back() {
    let mut scratch = Scratch::new();
    let blobs = filled(&scratch);
    let (key, warmed) = (WarmedKey([1; 32]), Warmed { selected: blobs.len() as u64, left_out: 3 });
    let before_warm = scratch.store().losses();
    scratch.store().note_warmed(&key, warmed, before_warm).expect("noted");
    scratch.close();
    let db = scratch.database();
    let txn = db.begin_write().expect("write");
    {
        let mut chunks = txn.open_table(schema::CHUNKS).expect("table");
        let (number, mut bytes) = {
            let (number, value) = chunks.last().expect("readable").expect("chunks");
            (number.value(), value.value().to_vec())
        };
        bytes[10] ^= 1;
        chunks.insert(number, bytes.as_slice()).expect("inserted");
    }
    txn.commit().expect("committed");
    drop(db);
    scratch.open();
    let store = scratch.store();
    let (before, before_loss) = (store.stats().expect("readable"), store.losses());
    assert_eq!(store.warmed(&key).expect("readable"), Some(warmed), "it outlives a restart");
    let lost: Vec<&ObjectId> = blobs
        .iter()
        .filter(|(id, raw)| match store.read(id).expect("readable") {
            Some(read) => {
                assert!(&read == *raw);
                false
            }
            None => true,
        })
        .map(|(id, _)| id)
        .collect();
    assert_eq!(lost.len(), 1, "one flipped bit lies in one blob");
    assert_eq!(store.warmed(&key).expect("readable"), None, "not all of it is here any more");
    store.note_warmed(&key, warmed, before_loss).expect("passed over");
    assert_eq!(store.warmed(&key).expect("readable"), None, "what was lost while it ran is not vouched for");
    assert_eq!(store.damaged(), 1);
    let after = store.stats().expect("readable");
    assert_eq!(after.blobs, before.blobs - 1);
    assert_eq!(after.raw_bytes, before.raw_bytes - blobs[lost[0]].len() as u64);
    assert!(!store.contains(lost[0]).expect("readable"));
    put(store, &blobs[lost[0]]);
    assert!(store.read(lost[0]).expect("readable").as_ref() == Some(&blobs[lost[0]]));
    assert_eq!(store.damaged(), 1);
}

#[test]
fn a_damaged_run_is_dropped_whole_and_other_frames_are_served_until_then() {
    let mut scratch = Scratch::new();
    let raw = noise(1, 8 * FRAME_BYTES);
    let id = put_large(scratch.store(), &raw);
    scratch.close();
    let db = scratch.database();
    let txn = db.begin_write().expect("write");
    {
        let mut chunks = txn.open_table(schema::CHUNKS).expect("table");
        let first = chunks.first().expect("readable").expect("chunks").0.value();
        chunks.remove(first).expect("removed");
    }
    txn.commit().expect("committed");
    drop(db);
    scratch.open();
    let tail = scratch.store().read_at(&id, 5 * FRAME_BYTES as u64, 100).expect("readable");
    assert!(tail.as_deref() == Some(&raw[5 * FRAME_BYTES..5 * FRAME_BYTES + 100]));
    assert_eq!(scratch.store().read(&id).expect("readable"), None);
    assert_eq!(scratch.store().damaged(), 1);
    assert_eq!(scratch.chunks(), 0);
}

#[test]
fn damaged_rows_are_not_there() {
    let mut scratch = Scratch::new();
    let (blob, size, tree) = (id_of(b"blob"), id_of(b"size"), id_of(b"tree"));
    let mut batch = Batch::default();
    batch.blob(blob, b"blob");
    batch.size(size, 5);
    let entry = Entry { name: b"a", kind: EntryKind::File, mode: 0o100_644, id: blob };
    batch.tree(tree, &Listing::pack(20, vec![entry]).expect("valid"));
    scratch.store().commit(batch).expect("stored");
    scratch.close();
    let db = scratch.database();
    let txn = db.begin_write().expect("write");
    for (table, id) in [(schema::BLOBS, blob), (schema::SIZES, size), (schema::TREES, tree)] {
        let mut table = txn.open_table(table).expect("table");
        let mut row = table.get(id.as_bytes()).expect("readable").expect("row").value().to_vec();
        *row.last_mut().expect("not empty") ^= 4;
        table.insert(id.as_bytes(), row.as_slice()).expect("inserted");
    }
    txn.commit().expect("committed");
    drop(db);
    let read_only = Store::open_read_only(&scratch.path()).expect("opens");
    assert_eq!(read_only.read(&blob).expect("readable"), None);
    assert_eq!(read_only.damaged(), 1);
    drop(read_only);
    scratch.open();
    let store = scratch.store();
    assert_eq!(store.sizes(&[blob, size]).expect("readable"), [None, None]);
    assert_eq!(store.blob_info(&blob).expect("readable"), None);
    assert!(store.contains(&blob).expect("readable"), "reading alone dropped nothing");
    assert_eq!(store.read(&blob).expect("readable"), None);
    assert_eq!(store.tree(&tree).expect("readable"), None);
    assert_eq!(store.damaged(), 2);
    assert!(!store.contains(&blob).expect("readable"));
    assert_eq!(store.missing_trees(&[tree]).expect("readable"), [tree]);
    assert_eq!(store.stats().expect("readable").trees, 0);
}

/// Files tried; 5,000 passed once.
const FLIPS: usize = 200;

/// Flips bytes anywhere in the file, redb's own pages included.
#[test]
fn no_flipped_byte_in_the_file_is_served_or_panics() {
    let mut scratch = Scratch::new();
    let blobs = filled(&scratch);
    scratch.close();
    let good = std::fs::read(scratch.path()).expect("readable");
    let used: Vec<usize> =
        (0..good.len() / 4096).filter(|page| good[page * 4096..][..4096].iter().any(|&byte| byte != 0)).collect();
    let positions = noise(3, 8 * FLIPS);
    let mut noticed = 0;
    for position in positions.as_chunks::<8>().0 {
        let value = u64::from_le_bytes(*position);
        let at = usize::try_from(value >> 8).expect("64 bits") % (used.len() * 4096);
        let at = used[at / 4096] * 4096 + at % 4096;
        std::fs::write(scratch.path(), &good).expect("written");
        let file = std::fs::OpenOptions::new().write(true).open(scratch.path()).expect("opens");
        let flipped = good[at] ^ u8::try_from(value & 0xff).expect("a byte").max(1);
        file.write_all_at(&[flipped], at as u64).expect("written");
        let Ok(store) = Store::open(&scratch.path(), &StoreOptions::default()) else {
            noticed += 1;
            continue;
        };
        for (id, raw) in &blobs {
            match store.read(id) {
                Ok(Some(read)) => assert!(&read == raw, "a wrong byte of {id} was served, byte {at} flipped"),
                Ok(None) | Err(_) => noticed += 1,
            }
        }
    }
    assert!(noticed > 0, "the flips hit something");
}
