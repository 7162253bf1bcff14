//! One question: how long until a commit that is in the gitdir can be shown?
//!
//! The workload is artifact-fs's `BuildTreeIndexSynthetic`: 4,096 files in 16 directories, 4,113 nodes with the root.
//! Published 84.17 ms; 35 ms on two cores of ours. What it ends with in memory we put into the store, durably, and
//! publish: a mount that survives a power cut.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gix::ObjectId;
use larder::git::gitdir::Objects;
use larder::index::generation::{self, Commit};
use larder::index::walk;
use larder::store::{
    Batch, Depth, RepositoryId, Store, StoreError, StoreOptions, Workspace, WorkspaceId, WorkspaceState,
};
use tempfile::TempDir;

const FILES: usize = 4096;
const DIRECTORIES: usize = 16;

fn home() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of target")
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(directory).output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ids and nothing else")
}

fn repository(home: &Path) -> ObjectId {
    for number in 0..FILES {
        let directory = home.join(format!("dir-{:02}", number % DIRECTORIES));
        std::fs::create_dir_all(&directory).expect("room on the disk");
        let file = directory.join(format!("file-{number:04}.txt"));
        std::fs::write(file, format!("blob payload {number:04}\n")).expect("room on the disk");
    }
    git(home, &["init", "--quiet"]);
    git(home, &["add", "."]);
    git(home, &["-c", "user.name=Bench", "-c", "user.email=bench@example.com", "commit", "-qm", "files"]);
    ObjectId::from_hex(git(home, &["rev-parse", "HEAD"]).trim().as_bytes()).expect("an id")
}

fn workspace() -> Workspace {
    Workspace {
        id: WorkspaceId(1),
        name: "bench".to_owned(),
        path: "/bench".into(),
        repository: RepositoryId(1),
        rev: None,
        reference: None,
        require_commit: None,
        depth: Depth::Commits(1),
        state: WorkspaceState::Preparing,
        current: None,
        last_error: None,
        uid: 0,
        gid: 0,
        allow_full: false,
        admin: None,
        mounted: false,
        switching: None,
        refresh_seconds: None,
        offline: false,
        base_time: None,
        read_only: false,
    }
}

/// What `daemon::bring` does with a commit that the gitdir has, and publishing it. `durably`: the trees are synced on
/// their own, before the generation that names them, instead of with it.
fn build(store: &Store, gitdir: &Path, head: ObjectId, durably: bool) -> u64 {
    let objects = Objects::open(gitdir, head.kind()).expect("a gitdir");
    let mut batch = Batch::default();
    let read = objects.read_trees(&head, |id, listing| -> Result<(), StoreError> {
        batch.tree(id, &listing);
        Ok(())
    });
    let read = read.expect("a good gitdir");
    assert!(read.missing.is_empty());
    if durably { store.commit_durably(batch) } else { store.commit(batch) }.expect("room on the disk");
    let counts = walk::count(store, read.info.tree).expect("all trees are stored");
    let commit = Commit { id: head, tree: read.info.tree, time: read.info.time, files: counts.files };
    generation::publish(store, &mut workspace(), &commit, "mount", 0).expect("room on the disk");
    counts.files + counts.directories
}

fn tree_index(criterion: &mut Criterion) {
    let home_of_git = home();
    let head = repository(home_of_git.path());
    let gitdir = home_of_git.path().join(".git");
    for (name, durably) in [("build_tree_index", true), ("build_tree_index, one sync", false)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut taken = Duration::ZERO;
                for _ in 0..iterations {
                    let home = home();
                    let store =
                        Store::open(&home.path().join("store.redb"), &StoreOptions::default()).expect("a new store");
                    store.put_workspace(&workspace()).expect("room on the disk");
                    let begun = Instant::now();
                    let nodes = build(&store, &gitdir, head, durably);
                    taken += begun.elapsed();
                    assert_eq!(nodes, 4113);
                }
                taken
            });
        });
    }
    syncs(criterion);
}

/// The floor of a durable commit on this disk: redb writes its pages and syncs, then its header and syncs.
fn syncs(criterion: &mut Criterion) {
    let home = home();
    let file = File::create(home.path().join("file")).expect("room on the disk");
    file.write_all_at(&vec![0; 1 << 20], 0).expect("room on the disk");
    file.sync_all().expect("a disk");
    criterion.bench_function("two writes, each synced", |bencher| {
        bencher.iter(|| {
            for at in [4096, 0] {
                file.write_all_at(&[1; 4096], at).expect("room on the disk");
                file.sync_data().expect("a disk");
            }
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(3));
    targets = tree_index
}
criterion_main!(benches);
