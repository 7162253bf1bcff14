//! The disk ends after any number of writes: the store opens again, and holds what was durable, or what came after it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::fault::Faults;
use super::*;

const CACHE: usize = 256 << 10;

/// Ids of the blobs of one generation.
fn blobs(generation: u64) -> Vec<Vec<u8>> {
    (0..30).map(|seed| text(seed + 20 * generation, 3000 + 700 * usize::try_from(seed).expect("small"))).collect()
}

fn workspace(current: u64) -> Workspace {
    let row = serde_json::json!({
        "id": 1, "name": "w", "path": "/w", "repository": 1, "rev": null, "require_commit": null, "depth": "full",
        "state": "ready", "current": current, "last_error": null, "uid": 0, "gid": 0, "allow_full": false, "mounted": false
    });
    serde_json::from_value(row).expect("a row")
}

fn record(generation: u64) -> GenerationRecord {
    GenerationRecord {
        workspace: WorkspaceId(1),
        generation: Generation(generation),
        commit: ObjectIdText(id_of(&generation.to_le_bytes())),
        tree: ObjectIdText(id_of(b"tree")),
        commit_time: 0,
        files: 0,
        created: 0,
        origin: "switch".to_owned(),
    }
}

fn publish(store: &Store, generation: u64) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for raw in blobs(generation) {
        batch.blob(id_of(&raw), &raw);
    }
    store.commit(batch)?;
    store.publish(&record(generation), &workspace(generation))
}

/// Everything this issue does to a store, one after the other. Returns how many steps were acknowledged.
fn work(store: &Store) -> usize {
    let steps: [&dyn Fn() -> Result<(), StoreError>; 7] = [
        &|| publish(store, 2),
        &|| publish(store, 3),
        &|| store.put_pin(&pin()),
        &|| store.remove_generations(WorkspaceId(1), &[Generation(1), Generation(2), Generation(3)]).map(drop),
        &|| {
            let kept: BTreeSet<ObjectId> = blobs(3).iter().map(|raw| id_of(raw)).collect();
            let gone = store.blobs_where(|blob| !kept.contains(&blob.id))?;
            store.remove_blobs(gone.into_iter().map(|blob| (blob, KeepSize::No)).collect(), &mut || true)?;
            store.sync()
        },
        &|| store.compact().map(drop),
        &|| store.remove_pins(&[1]),
    ];
    steps.iter().take_while(|step| step().is_ok()).count()
}

fn pin() -> Pin {
    Pin {
        id: 1,
        workspace: WorkspaceId(1),
        commit: ObjectIdText(id_of(b"commit")),
        tree: ObjectIdText(id_of(b"tree")),
        pathspecs: Vec::new(),
        created: 0,
    }
}

/// What must be so after `done` steps were acknowledged and perhaps the next one happened.
fn check(store: &Store, done: usize, cut: i64) {
    let generations: Vec<u64> =
        store.generations(WorkspaceId(1)).expect("readable").iter().map(|row| row.generation.0).collect();
    let possible: &[&[u64]] = match done {
        0 => &[&[1], &[1, 2]],
        1 => &[&[1, 2], &[1, 2, 3]],
        2 => &[&[1, 2, 3]],
        3 => &[&[1, 2, 3], &[3]],
        _ => &[&[3]],
    };
    assert!(possible.contains(&&generations[..]), "{generations:?} after {done} steps, cut at {cut}");
    let current = store.workspaces().expect("readable")[0].current.expect("published").0;
    assert_eq!(Some(&current), generations.last(), "cut at {cut}");
    // What the current generation has was durable with it, and nothing took it out.
    for raw in blobs(current) {
        assert!(store.read(&id_of(&raw)).expect("readable").as_ref() == Some(&raw), "cut at {cut}");
    }
    let all = store.blobs_where(|_| true).expect("readable");
    for blob in &all {
        assert!(store.read(&blob.id).expect("readable").is_some(), "{} is named and not here, cut at {cut}", blob.id);
    }
    let stats = store.stats().expect("readable");
    assert_eq!(stats.blobs, all.len() as u64, "cut at {cut}");
    assert_eq!(stats.stored_bytes, all.iter().map(|blob| blob.stored_size).sum::<u64>(), "cut at {cut}");
    assert_eq!(store.damaged(), 0, "cut at {cut}");
}

#[test]
fn a_store_that_is_cut_at_any_write_opens_and_holds_what_was_durable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let begin = directory.path().join("begin");
    {
        let store = Faults::default().open(&begin, CACHE).expect("opens");
        publish(&store, 1).expect("published");
    }
    let (mut cuts, mut cut) = (0, 0);
    loop {
        let path = directory.path().join("cut");
        std::fs::copy(&begin, &path).expect("copied");
        let faults = Faults::default();
        let store = faults.open(&path, CACHE).expect("opens");
        faults.left.store(cut, Ordering::SeqCst);
        let done = work(&store);
        drop(store);
        let store = Store::open(&path, &StoreOptions::default()).expect("opens after a cut");
        check(&store, done, cut);
        if done == 7 {
            break;
        }
        cuts += 1;
        // Every write at first, then every other: the last steps are long.
        cut += if cut < 60 { 1 } else { 3 };
    }
    assert!(cuts > 60, "only {cuts} cuts: does the disk end at all?");
}
