//! Disks that fail: reads go on, nothing acknowledged as durable is lost.

use std::sync::atomic::Ordering;

use super::fault::Faults;
use super::*;

/// Small enough that reads have to go to the file.
const CACHE: usize = 64 << 10;

fn batch_of(raw: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.blob(id_of(raw), raw);
    batch
}

#[test]
fn after_a_failed_write_reads_go_on_and_writes_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (faults, path) = (Faults::default(), directory.path().join("store"));
    let store = faults.open(&path, CACHE).expect("opens");
    let kept: Vec<Vec<u8>> = (0..50).map(|seed| noise(seed, 20_000)).collect();
    for raw in &kept {
        store.commit(batch_of(raw)).expect("stored");
    }
    store.flush().expect("flushed");
    faults.writes.store(libc::EIO, Ordering::SeqCst);
    let error = store.commit_durably(batch_of(&noise(99, 20_000))).expect_err("the disk fails");
    assert_eq!(error.kind, StoreErrorKind::Io);
    faults.writes.store(0, Ordering::SeqCst);
    let error = store.commit(batch_of(b"more")).expect_err("poisoned");
    assert_eq!(error.kind, StoreErrorKind::Poisoned);
    assert_eq!(store.flush().map_err(|error| error.kind), Ok(()), "nothing is left to flush");
    for raw in &kept {
        assert!(store.read(&id_of(raw)).expect("readable").as_ref() == Some(raw));
    }
    assert_eq!(store.read(&id_of(&noise(99, 20_000))).expect("readable"), None);
    drop(store);
    let store = faults.open(&path, CACHE).expect("opens");
    store.commit(batch_of(b"more")).expect("a new process writes again");
}

#[test]
fn a_full_disk_refuses_writes_only_while_it_is_full() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (faults, path) = (Faults::default(), directory.path().join("store"));
    let store = faults.open(&path, CACHE).expect("opens");
    let kept: Vec<Vec<u8>> = (0..50).map(|seed| noise(seed, 20_000)).collect();
    for raw in &kept {
        store.commit(batch_of(raw)).expect("stored");
    }
    store.flush().expect("flushed");
    let mut large = store.large_blob(8 << 20).expect("started");
    large.write_all(&noise(5, 4 << 20)).expect("written");
    faults.writes.store(libc::ENOSPC, Ordering::SeqCst);
    for seed in 100..103 {
        let error = store.commit_durably(batch_of(&noise(seed, 20_000))).expect_err("the disk is full");
        assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
        for raw in &kept {
            assert!(store.read(&id_of(raw)).expect("readable").as_ref() == Some(raw));
        }
    }
    faults.writes.store(0, Ordering::SeqCst);
    store.commit_durably(batch_of(&noise(100, 20_000))).expect("there is room again");
    assert!(large.write_all(&noise(6, 4 << 20)).is_err(), "its first half was not durable");
    drop(large);
    drop(store);
    let store = faults.open(&path, CACHE).expect("opens");
    assert!(store.read(&id_of(&noise(100, 20_000))).expect("readable").is_some());
    assert_eq!(store.stats().expect("readable").blobs, 51);
}

#[test]
fn a_failed_read_fails_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (faults, path) = (Faults::default(), directory.path().join("store"));
    let store = faults.open(&path, 0).expect("opens");
    let raw = noise(1, 20_000);
    store.commit_durably(batch_of(&raw)).expect("stored");
    faults.reads.store(libc::EIO, Ordering::SeqCst);
    assert!(store.read(&id_of(&raw)).is_err());
    faults.reads.store(0, Ordering::SeqCst);
    assert!(store.read(&id_of(&raw)).expect("readable").as_ref() == Some(&raw));
    store.commit_durably(batch_of(b"more")).expect("a failed read poisons nothing");
}

/// `mount -t tmpfs -o size=24m tmpfs DIR; LARDER_TEST_SMALL_DISK=DIR cargo test -- --ignored small_disk`
#[test]
#[ignore = "needs a small file system of its own"]
fn a_small_disk_fills_up_and_drains() {
    let disk = std::env::var_os("LARDER_TEST_SMALL_DISK").expect("a directory on a small disk");
    let directory = tempfile::tempdir_in(&disk).expect("a temporary directory");
    let (path, filler) = (directory.path().join("store"), directory.path().join("filler"));
    std::fs::write(&filler, vec![1; 8 << 20]).expect("the disk holds more");
    let store = Store::open(&path, &StoreOptions::default()).expect("opens");
    let raws: Vec<Vec<u8>> = (0..400).map(|seed| noise(seed, 100_000)).collect();
    let stored = raws.iter().take_while(|raw| store.commit(batch_of(raw)).is_ok()).count();
    assert!((1..400).contains(&stored), "{stored}");
    let error = store.commit_durably(batch_of(&raws[stored])).expect_err("the disk is full");
    assert_eq!(error.kind, StoreErrorKind::Full);
    let all_here = |store: &Store, count: usize| {
        raws[..count].iter().all(|raw| store.read(&id_of(raw)).expect("readable").as_ref() == Some(raw))
    };
    assert!(all_here(&store, stored));
    std::fs::remove_file(&filler).expect("removed");
    store.commit_durably(batch_of(&raws[stored])).expect("there is room again");
    drop(store);
    let store = Store::open(&path, &StoreOptions::default()).expect("opens");
    assert!(all_here(&store, stored + 1));
}
