//! One question: what does collecting cost on a store that is large?
//!
//! Blobs of 300 bytes that do not compress, in directories of 50; a hundred generations, each of which replaces a hundredth
//! of the directories. `LARDER_BENCH_OBJECTS` (1,000,000) is the number of blobs. Prints one figure a line; peak memory is
//! that of the plan alone, asked of the kernel (`VmHWM`, reset before).
//!
//! | figure | limit |
//! |---|---|
//! | publishing a generation that differs in 700 of 78,000 files | 60 ms, 1 MiB |
//! | plan, dry run | 2 s, 256 MiB |
//! | sweep of half | 20 s; a reader's worst delay 20 ms |
//! | file after compaction | 1.15 x live bytes |

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;
use larder::index::gc::{Plan, Roots, Rules, mark, unreached_trees};
use larder::store::{
    Batch, Entry, EntryKind, Generation, GenerationRecord, KeepSize, Listing, ObjectIdText, Store, StoreOptions,
    Workspace, WorkspaceId,
};

/// Blobs of a directory.
const FILES: u64 = 50;

/// Directories of a directory of directories.
const FANOUT: u64 = 250;

const GENERATIONS: u64 = 100;

fn main() {
    let objects = std::env::var("LARDER_BENCH_OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    publishing();
    collecting(objects);
}

fn id(kind: u8, number: u64) -> ObjectId {
    let hash = blake3::hash(&[&[kind][..], &number.to_le_bytes()].concat());
    ObjectId::try_from(&hash.as_bytes()[..20]).expect("20 bytes")
}

/// Adds a directory of files whose blobs count from `first`, with or without these.
fn directory(batch: &mut Batch, first: u64, blobs: bool) -> ObjectId {
    let names: Vec<String> = (0..FILES).map(|file| format!("file{file:02}.c")).collect();
    let entries = (0..FILES).zip(&names).map(|(file, name)| Entry {
        name: name.as_bytes(),
        kind: EntryKind::File,
        mode: 0o100_644,
        id: id(b'b', first + file),
    });
    let tree = id(b't', first);
    batch.tree(tree, &Listing::pack(20, entries.collect()).expect("a listing"));
    if blobs {
        for file in 0..FILES {
            let mut raw = [0; 300];
            blake3::Hasher::new().update(&(first + file).to_le_bytes()).finalize_xof().fill(&mut raw);
            batch.blob(id(b'b', first + file), &raw);
        }
    }
    tree
}

/// Adds the tree above `directories`, and the trees between.
fn root(batch: &mut Batch, generation: u64, directories: &[ObjectId]) -> ObjectId {
    let pack = |batch: &mut Batch, ids: &[ObjectId], name: u64| {
        let names: Vec<String> = (0..ids.len()).map(|number| format!("dir{number:04}")).collect();
        let entries = ids.iter().zip(&names).map(|(id, name)| Entry {
            name: name.as_bytes(),
            kind: EntryKind::Directory,
            mode: 0o40_000,
            id: *id,
        });
        let tree = id(b'd', name);
        batch.tree(tree, &Listing::pack(20, entries.collect()).expect("a listing"));
        tree
    };
    let some = usize::try_from(FANOUT).expect("small");
    let middle: Vec<ObjectId> = (0_u64..)
        .zip(directories.chunks(some))
        .map(|(number, ids)| {
            // The same directories are the same tree.
            let name = blake3::hash(&ids.iter().flat_map(|id| id.as_bytes().to_vec()).collect::<Vec<u8>>());
            let name = u64::from_le_bytes(*name.as_bytes().first_chunk().expect("32 bytes"));
            pack(batch, ids, name ^ number)
        })
        .collect();
    pack(batch, &middle, u64::MAX - generation)
}

fn workspace(current: u64) -> Workspace {
    let row = serde_json::json!({
        "id": 1, "name": "w", "path": "/w", "repository": 1, "rev": null, "require_commit": null, "depth": "full",
        "state": "ready", "current": current, "last_error": null, "uid": 0, "gid": 0, "allow_full": false, "mounted": false
    });
    serde_json::from_value(row).expect("a row")
}

fn publish(store: &Store, generation: u64, tree: ObjectId, files: u64) {
    let record = GenerationRecord {
        workspace: WorkspaceId(1),
        generation: Generation(generation),
        commit: ObjectIdText(id(b'c', generation)),
        tree: ObjectIdText(tree),
        commit_time: 0,
        files,
        created: 0,
        origin: "bench".to_owned(),
    };
    store.publish(&record, &workspace(generation)).expect("published");
}

/// 700 of 78,000 files differ: one in each of 700 directories of 50 that are spread over the tree.
fn publishing() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let store = Store::open(&scratch.path().join("store.redb"), &StoreOptions::default()).expect("opens");
    let count = 78_000 / FILES;
    let mut batch = Batch::default();
    let mut directories: Vec<ObjectId> =
        (0..count).map(|number| directory(&mut batch, number * FILES, false)).collect();
    let tree = root(&mut batch, 1, &directories);
    store.commit(batch).expect("stored");
    publish(&store, 1, tree, 78_000);
    store.sync().expect("synced");
    let mut times = Vec::new();
    let before = store.stats().expect("readable").file_bytes;
    let rounds = 5;
    for round in 0..rounds {
        let mut batch = Batch::default();
        let begun = Instant::now();
        for number in 0..700 {
            let place = usize::try_from(number * 2 % count).expect("small");
            directories[place] = directory(&mut batch, 1_000_000 * (round + 1) + number * FILES, false);
        }
        let tree = root(&mut batch, round + 2, &directories);
        store.commit(batch).expect("stored");
        publish(&store, round + 2, tree, 78_000);
        times.push(begun.elapsed());
    }
    times.sort();
    let grown = store.stats().expect("readable").file_bytes - before;
    println!("publish 700 of 78,000 files: {:?}", times[times.len() / 2]);
    println!("growth of the file for one: {:.2} MiB", grown as f64 / rounds as f64 / f64::from(1 << 20));
}

fn collecting(objects: u64) {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let store = Store::open(&scratch.path().join("store.redb"), &StoreOptions::default()).expect("opens");
    // The first generation has half of the blobs, each later one replaces as many directories as make up the rest.
    let first = objects / 2 / FILES;
    let replaced = (objects / 2 / FILES).div_ceil(GENERATIONS - 1);
    let mut trees = Vec::new();
    let mut directories = Vec::new();
    let mut next = 0;
    for generation in 0..GENERATIONS {
        let mut batch = Batch::default();
        let made = if generation == 0 { first } else { replaced };
        for number in 0..made {
            let tree = directory(&mut batch, next, true);
            next += FILES;
            if generation == 0 {
                directories.push(tree);
            } else {
                let place = (generation * replaced + number) % first;
                directories[usize::try_from(place).expect("small")] = tree;
            }
            if batch.len() > 20_000 {
                store.commit(std::mem::take(&mut batch)).expect("stored");
            }
        }
        trees.push(root(&mut batch, generation, &directories));
        store.commit(batch).expect("stored");
        publish(&store, generation + 1, *trees.last().expect("one"), first * FILES);
    }
    store.sync().expect("synced");
    let stats = store.stats().expect("readable");
    println!("store: {} blobs, {} trees, {} MiB", stats.blobs, stats.trees, stats.file_bytes >> 20);

    // Every generation is kept: nothing goes, everything is looked at.
    let (all, _, memory, took) = planned(&store, &trees);
    println!(
        "plan with {GENERATIONS} generations: {took:?}, {} MiB of memory, {} blobs would go",
        memory >> 20,
        all.blobs.len()
    );
    // The last is kept: half goes.
    let (plan, gone, memory, took) = planned(&store, &trees[trees.len() - 1..]);
    println!("plan with the last one: {took:?}, {} MiB of memory, {} blobs would go", memory >> 20, plan.blobs.len());

    let kept: Vec<ObjectId> = (0..FILES * 64).map(|file| id(b'b', next - 1 - file)).collect();
    let done = AtomicBool::new(false);
    let (swept, took, worst) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut worst = Duration::ZERO;
            for id in kept.iter().cycle() {
                let begun = Instant::now();
                assert!(store.read(id).expect("readable").is_some());
                worst = worst.max(begun.elapsed());
                if done.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            worst
        });
        let begun = Instant::now();
        let victims = plan.blobs.iter().map(|(blob, _)| (blob.clone(), KeepSize::No)).collect();
        let swept = store.remove_blobs(victims, &mut || true).expect("swept");
        store.remove_trees(&gone, &mut || true).expect("swept");
        store.sync().expect("synced");
        let took = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        (swept, took, reader.join().expect("reads"))
    });
    println!("sweep of {} blobs: {took:?}; a reader's worst delay {worst:?}", swept.objects);

    let begun = Instant::now();
    while store.compact().expect("compacts") {}
    let stats = store.stats().expect("readable");
    let trees: u64 = store
        .trees_where(|_| true)
        .expect("readable")
        .iter()
        .map(|id| store.tree(id).expect("readable").map_or(0, |tree| tree.as_bytes().len() as u64))
        .sum();
    // A blob's row has 77 bytes and its key 20.
    let live = stats.stored_bytes + trees + 97 * stats.blobs;
    println!(
        "compaction: {:?}; the file has {} MiB for {} MiB of live bytes: {:.3} x",
        begun.elapsed(),
        stats.file_bytes >> 20,
        live >> 20,
        stats.file_bytes as f64 / live as f64
    );
}

/// A plan and the trees that would go, the memory it took beyond what was there, and its time.
fn planned(store: &Store, trees: &[ObjectId]) -> (Plan, Vec<ObjectId>, u64, Duration) {
    let before = reset_peak();
    let begun = Instant::now();
    let roots = Roots { named: trees.to_vec(), ..Roots::default() };
    let marks = mark(store, roots).expect("marked");
    let plan = Plan::new(store, &marks, &Rules::default(), 0).expect("planned");
    let gone = unreached_trees(store, &marks).expect("planned");
    let took = begun.elapsed();
    (plan, gone, peak().saturating_sub(before), took)
}

/// `VmHWM` in bytes (proc(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// Makes the peak what is in use now, and returns that.
fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("our own");
    peak()
}
