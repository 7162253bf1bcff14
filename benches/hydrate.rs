//! One question: what does hydration itself cost, beside the network?
//!
//! The workloads are those of artifact-fs (`hydrator_benchmark_test.go`), so that figures can be put side by side. In
//! milliseconds, its published ones and the same on two cores of ours:
//!
//! | workload                    | published | two cores |
//! |-----------------------------|-----------|-----------|
//! | `prefetch_worker_ramp`      | 11.84     | 13.9      |
//! | `queued_cached_prefetch`    | 62.81     | 157       |
//! | `queued_duplicate_prefetch` | 48.95     | 121       |
//! | `duplicate_reads`           | 47.74     | 177       |
//! | `hydrate_4096`              |           | 617       |
//! | `hydrate_git_2048`          |           | 534       |
//!
//! Durability as shipped: a new store on the disk of `target/`, with default options. Making and closing it is not
//! measured. Threads are started within the measurement, and so are connections, unless a workload says otherwise.

#![expect(clippy::print_stderr, reason = "the counts belong beside criterion's figures")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gix::ObjectId;
use larder::git::gitdir::Objects;
use larder::git::remote::{ConnectOptions, GitRemote};
use larder::git::url::RepoUrl;
use larder::hydrate::memory::MemoryRemote;
use larder::hydrate::remote::Remote;
use larder::hydrate::walk::Everything;
use larder::hydrate::{Cause, Class, HydrateSettings, Hydrator, Owner, Want, WarmPlan, WarmProgress};
use larder::metrics::Metrics;
use larder::store::{Batch, EntryKind, Operation, Store, StoreError, StoreOptions};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

fn me() -> Arc<Cause> {
    Arc::new(Cause::new(Owner(1), b"dir/file", Operation::Read))
}

/// Connections of the remote in memory, as artifact-fs has workers.
const WORKERS: usize = 8;

/// Tasks that read, each waiting for one object before it asks for the next.
const CALLERS: usize = 32;

/// What the vfs takes along of a directory.
const SIBLINGS: usize = 255;

/// A small read: the whole of every file here.
const READ_BYTES: usize = 4096;

/// A hydrator over a store of its own.
struct Round {
    hydrator: Hydrator,
    metrics: Arc<Metrics>,
    _home: TempDir,
}

impl Round {
    fn new(remote: Arc<dyn Remote>, settings: HydrateSettings) -> Self {
        let home = home();
        let store = Store::open(&home.path().join("store.redb"), &StoreOptions::default()).expect("a new store");
        let metrics = Arc::new(Metrics::default());
        let hydrator = Hydrator::new(store, remote, settings, Arc::clone(&metrics), None);
        Self { hydrator, metrics, _home: home }
    }

    fn in_memory(remote: &Arc<MemoryRemote>) -> Self {
        let settings = HydrateSettings { connections: WORKERS, ..HydrateSettings::default() };
        Self::new(Arc::new(Arc::clone(remote)), settings)
    }
}

fn home() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of target")
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}

/// Measures `work` on a new round each time, and tells what it fetched.
#[expect(clippy::needless_pass_by_value, reason = "of an async closure's reference the compiler infers too little")]
fn measure(
    criterion: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    setup: impl Fn() -> Round,
    work: impl AsyncFn(&Round),
) {
    let (mut rounds, mut objects, mut requests) = (0_u64, 0_u64, 0_u64);
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            for _ in 0..iterations {
                let round = setup();
                let begun = Instant::now();
                runtime.block_on(work(&round));
                taken += begun.elapsed();
                // Counted by the workers, which may still be about it.
                round.hydrator.close(Duration::from_secs(10));
                rounds += 1;
                objects += round.metrics.remote_objects.get();
                requests += round.metrics.remote_requests.get();
            }
            taken
        });
    });
    if let Some(each) = objects.checked_div(rounds) {
        #[expect(clippy::cast_precision_loss, reason = "a few requests")]
        let requests = requests as f64 / rounds as f64;
        eprintln!("{name}: {each} objects fetched in {requests:.1} requests an iteration");
    }
}

/// Blobs of 19 bytes.
fn fill(remote: &MemoryRemote, objects: usize) -> Vec<Want> {
    (0..objects).map(|number| want(remote.insert(format!("small blob {number:07}\n")))).collect()
}

fn want(id: ObjectId) -> Want {
    Want { id, size: None }
}

/// Reads `wants` as the vfs does, caller `c` the wants `c`, `c + CALLERS`, …
async fn read(round: &Round, wants: &Arc<Vec<Vec<Want>>>) {
    let tasks: Vec<_> = (0..wants.len())
        .map(|caller| {
            let (hydrator, wants) = (round.hydrator.clone(), Arc::clone(wants));
            tokio::spawn(async move {
                for want in &wants[caller] {
                    if !is_stored(&hydrator, &want.id).expect("a good store") {
                        hydrator.hydrate(*want, &me(), &[]).wait().await.expect("the remote has it");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

fn is_stored(hydrator: &Hydrator, id: &ObjectId) -> Result<bool, StoreError> {
    Ok(hydrator.store().read_at(id, 0, READ_BYTES)?.is_some())
}

/// Caller `c` gets items `c`, `c + CALLERS`, …
fn dealt<T: Copy>(items: &[T]) -> Arc<Vec<Vec<T>>> {
    Arc::new((0..CALLERS).map(|caller| items.iter().skip(caller).step_by(CALLERS).copied().collect()).collect())
}

fn prefetch(criterion: &mut Criterion) {
    let runtime = runtime();
    let slow = Arc::new(MemoryRemote { delay: Duration::from_millis(10), ..MemoryRemote::default() });
    let eight = fill(&slow, WORKERS);
    measure(
        criterion,
        &runtime,
        "prefetch_worker_ramp",
        || Round::in_memory(&slow),
        async |round| {
            for want in &eight {
                round.hydrator.prefetch(&me(), &[(*want, Class::Text)]).expect("a good store");
            }
            round.hydrator.idle().await;
        },
    );

    let remote = Arc::new(MemoryRemote::default());
    let wants: Vec<(Want, Class)> = fill(&remote, 512).into_iter().map(|want| (want, Class::Text)).collect();
    let cached = || {
        let round = Round::in_memory(&remote);
        let mut batch = Batch::default();
        for (number, (want, _)) in wants.iter().enumerate() {
            batch.blob(want.id, format!("small blob {number:07}\n").as_bytes());
        }
        round.hydrator.store().commit_durably(batch).expect("room on the disk");
        round
    };
    measure(criterion, &runtime, "queued_cached_prefetch", cached, async |round| {
        round.hydrator.prefetch(&me(), &wants).expect("a good store");
        round.hydrator.idle().await;
    });

    // Queued in one call, before the first worker starts.
    let often: Vec<(Want, Class)> = wants.iter().flat_map(|want| std::iter::repeat_n(*want, 8)).collect();
    measure(
        criterion,
        &runtime,
        "queued_duplicate_prefetch",
        || Round::in_memory(&remote),
        async |round| {
            round.hydrator.prefetch(&me(), &often).expect("a good store");
            round.hydrator.idle().await;
        },
    );
}

fn reads(criterion: &mut Criterion) {
    let runtime = runtime();
    let remote = Arc::new(MemoryRemote { delay: Duration::from_micros(100), ..MemoryRemote::default() });
    let wants = fill(&remote, 512);
    // The order decides. Here all objects come once, then all again: a caller waits for 16 requests, and finds what it
    // wants later in memory or in the store.
    let in_turn: Vec<Want> = std::iter::repeat_n(&wants, 8).flatten().copied().collect();
    let in_turn = dealt(&in_turn);
    measure(
        criterion,
        &runtime,
        "duplicate_reads",
        || Round::in_memory(&remote),
        async |round| {
            read(round, &in_turn).await;
        },
    );
    // artifact-fs's own order: an object eight times in a row, so eight callers wait for each request and a caller for
    // 128 of them, one after the other. Delays alone make that 12.8 ms, or 20 as the kernel sleeps: no engine is faster.
    let in_a_row: Vec<Want> = wants.iter().flat_map(|want| std::iter::repeat_n(*want, 8)).collect();
    let in_a_row = dealt(&in_a_row);
    measure(
        criterion,
        &runtime,
        "duplicate_reads_in_a_row",
        || Round::in_memory(&remote),
        async |round| {
            read(round, &in_a_row).await;
        },
    );

    let remote = Arc::new(MemoryRemote::default());
    let distinct = dealt(&fill(&remote, 4096));
    measure(
        criterion,
        &runtime,
        "hydrate_4096",
        || Round::in_memory(&remote),
        async |round| {
            read(round, &distinct).await;
            round.hydrator.idle().await;
        },
    );
}

/// A repository of small files, packed.
struct Repository {
    home: TempDir,
    root: ObjectId,
    /// The files of each directory, in the order of the tree.
    directories: Vec<Vec<ObjectId>>,
}

impl Repository {
    fn new(files: usize, directories: usize) -> Self {
        let home = home();
        for number in 0..files {
            let directory = home.path().join(format!("dir-{:02}", number % directories));
            std::fs::create_dir_all(&directory).expect("room on the disk");
            let file = directory.join(format!("file-{number:04}.txt"));
            std::fs::write(file, format!("blob payload {number:04}\n")).expect("room on the disk");
        }
        git(home.path(), &["init", "--quiet"]);
        git(home.path(), &["add", "."]);
        git(home.path(), &["-c", "user.name=Bench", "-c", "user.email=bench@example.com", "commit", "-qm", "files"]);
        git(home.path(), &["repack", "-adq"]);
        let head = git(home.path(), &["rev-parse", "HEAD"]);
        let head = ObjectId::from_hex(head.trim().as_bytes()).expect("an id");
        let objects = Objects::open(&home.path().join(".git"), head.kind()).expect("a gitdir");
        let mut directories = Vec::new();
        let read = objects.read_trees(&head, |_, listing| -> Result<(), StoreError> {
            let files = listing.iter().filter(|entry| entry.kind == EntryKind::File).map(|entry| entry.id);
            directories.push(files.collect());
            Ok(())
        });
        let root = read.expect("whole").info.tree;
        directories.retain(|files: &Vec<ObjectId>| !files.is_empty());
        Self { home, root, directories }
    }

    fn remote(&self) -> GitRemote {
        let url = RepoUrl::parse(self.home.path().to_str().expect("plain")).expect("a path");
        GitRemote::new(url, ConnectOptions::default())
    }

    /// Trees are in the store and connections open, as in a mounted workspace: two processes started, none of which
    /// has served yet.
    fn mounted(&self, remote: &Arc<dyn Remote>) -> Round {
        let round = Round::new(Arc::clone(remote), HydrateSettings::default());
        for _ in 0..round.hydrator.settings().connections {
            round.hydrator.donate(remote.connect().expect("git runs"));
        }
        let head = git(self.home.path(), &["rev-parse", "HEAD"]);
        let head = ObjectId::from_hex(head.trim().as_bytes()).expect("an id");
        let objects = Objects::open(&self.home.path().join(".git"), head.kind()).expect("a gitdir");
        let mut batch = Batch::default();
        let read = objects.read_trees(&head, |id, listing| -> Result<(), StoreError> {
            batch.tree(id, &listing);
            Ok(())
        });
        read.expect("whole");
        round.hydrator.store().commit_durably(batch).expect("room on the disk");
        round
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(directory).output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ids and nothing else")
}

/// Reads one file with its siblings, as `vfs::ops` does.
async fn read_beside(hydrator: &Hydrator, directory: &[ObjectId], position: usize) {
    let id = directory[position];
    if is_stored(hydrator, &id).expect("a good store") {
        return;
    }
    let (before, from) = directory.split_at(position);
    let near: Vec<ObjectId> = from.iter().chain(before).skip(1).copied().collect();
    let missing = hydrator.store().missing_blobs(&near).expect("a good store");
    let companions: Vec<Want> = missing.into_iter().take(SIBLINGS).map(want).collect();
    hydrator.hydrate(want(id), &me(), &companions).wait().await.expect("the remote has it");
}

async fn read_all(round: &Round, repository: &Arc<Repository>, places: &Arc<Vec<Vec<(usize, usize)>>>) {
    let tasks: Vec<_> = (0..places.len())
        .map(|caller| {
            let (hydrator, repository, places) = (round.hydrator.clone(), Arc::clone(repository), Arc::clone(places));
            tokio::spawn(async move {
                for &(directory, position) in &places[caller] {
                    read_beside(&hydrator, &repository.directories[directory], position).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

fn from_git(criterion: &mut Criterion) {
    let runtime = runtime();
    let repository = Arc::new(Repository::new(2048, 16));
    let remote: Arc<dyn Remote> = Arc::new(repository.remote());
    let places: Vec<(usize, usize)> = repository
        .directories
        .iter()
        .enumerate()
        .flat_map(|(directory, files)| (0..files.len()).map(move |position| (directory, position)))
        .collect();
    assert_eq!(places.len(), 2048);
    // Each caller half a directory, as a search with many threads reads.
    let apart: Arc<Vec<Vec<(usize, usize)>>> =
        Arc::new(places.chunks(places.len() / CALLERS).map(<[_]>::to_vec).collect());
    measure(
        criterion,
        &runtime,
        "hydrate_git_2048",
        || repository.mounted(&remote),
        async |round| {
            read_all(round, &repository, &apart).await;
        },
    );
    // All callers in the same directory, as one that lists the tree in order and hands out files: a directory is asked
    // for only when the one before it is here, so 16 requests follow each other.
    let abreast = dealt(&places);
    measure(
        criterion,
        &runtime,
        "hydrate_git_2048_in_order",
        || repository.mounted(&remote),
        async |round| {
            read_all(round, &repository, &abreast).await;
        },
    );
    let plan = WarmPlan {
        root: repository.root,
        select: Arc::new(|| Box::new(Everything)),
        max_blob_bytes: None,
        cause: me(),
    };
    let fetched = AtomicU64::new(0);
    measure(
        criterion,
        &runtime,
        "warm_git_2048",
        || repository.mounted(&remote),
        async |round| {
            let progress = Arc::new(WarmProgress::default());
            round.hydrator.warm(&plan, &progress).await.expect("the remote has all of it");
            fetched.store(WarmProgress::get(&progress.fetched), Ordering::Relaxed);
        },
    );
    assert!(matches!(fetched.into_inner(), 0 | 2048), "0: left out by a filter");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = prefetch, reads, from_git
}
criterion_main!(benches);
