//! Brings a commit and its trees into the store, from wherever they are:
//! the store itself, the gitdir, or the remote.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::Daemon;
use super::prepare::{Attempt, advance, check_cancelled, retried};
use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use crate::git::fetch_commit::{CommitRequest, FetchedCommit};
use crate::git::gitdir::{self, Objects};
use crate::git::pack;
use crate::git::remote::GitConnection;
use crate::hydrate::remote::{FailureKind, LargeSink, RemoteError, Sink};
use crate::index::generation::Commit;
use crate::index::walk;
use crate::store::{Batch, Depth, EntryKind, LargeBlob, Listing, Repository, Store, StoreError, listing_from_git};

/// Trees committed together: one transaction for all but the largest repositories, a few megabytes at most.
const TREES_PER_COMMIT: usize = 16_384;

/// Time between two reports of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Blobs committed together.
const BLOBS_PER_COMMIT: usize = 1024;

/// Bytes of blobs committed together, from a server that can't leave them out.
const BLOB_BYTES_PER_COMMIT: u64 = 8 << 20;

/// Brings in `id` with all its trees; fetches only what neither store nor gitdir has.
pub fn commit(
    daemon: &Daemon,
    live: &Live,
    repository: &Repository,
    id: ObjectId,
    connection: &mut GitConnection,
) -> Result<Commit, Failure> {
    if let Some(commit) = known(daemon, live, repository, id)? {
        return Ok(commit);
    }
    fetched(daemon, live, repository, id, connection)
}

/// Fetches `id` with all its trees, for who knows that it is not here.
pub fn fetched(
    daemon: &Daemon,
    live: &Live,
    repository: &Repository,
    id: ObjectId,
    connection: &mut GitConnection,
) -> Result<Commit, Failure> {
    let fetched = retried(daemon, live, || fetch(daemon, live, repository, id, connection))?;
    if !straight(live) {
        // The pack had the trees of all its commits; the store takes those of this one.
        trees_from_gitdir(daemon, &Objects::open(&repository.gitdir, id.kind())?, id)?;
    }
    counted(&daemon.store, id, fetched.tree, fetched.commit_time).map_err(|mut failure| {
        if failure.class == FailureClass::NotFound {
            // The server promised the whole commit.
            failure.class = FailureClass::Corrupt;
        }
        failure
    })
}

/// The commit from the store and the gitdir, when both together have all of it.
pub fn known(daemon: &Daemon, live: &Live, repository: &Repository, id: ObjectId) -> Result<Option<Commit>, Failure> {
    let objects = Objects::open(&repository.gitdir, id.kind())?;
    let deep_enough = || match live.row().depth {
        Depth::Commits(commits) => objects.has_history(&id, commits, &gitdir::shallow(&repository.gitdir)?),
        // Without a shallow boundary nothing is missing, and a million commits need not be read.
        Depth::Full => Ok(gitdir::shallow(&repository.gitdir)?.is_empty()),
    };
    if !objects.has_commit(&id)? || !deep_enough()? {
        return Ok(None);
    }
    let info = objects.commit_info(&id)?;
    match counted(&daemon.store, id, info.tree, info.time) {
        Ok(commit) => return Ok(Some(commit)),
        Err(failure) if failure.class != FailureClass::NotFound => return Err(failure),
        Err(_) => {}
    }
    let complete = trees_from_gitdir(daemon, &objects, id)?;
    if complete { counted(&daemon.store, id, info.tree, info.time).map(Some) } else { Ok(None) }
}

/// How much of a commit is on this machine.
pub enum Here {
    /// The commit and all its trees, which are in the store now.
    Whole(Commit),
    /// Not the commit itself.
    NoCommit,
    /// At least so many of its trees are missing.
    TreesMissing(u64),
}

/// Brings in `id` from store and gitdir alone, whatever of its history is here.
pub fn here(daemon: &Daemon, repository: &Repository, id: ObjectId) -> Result<Here, Failure> {
    let objects = Objects::open(&repository.gitdir, id.kind())?;
    if !objects.has_commit(&id)? {
        return Ok(Here::NoCommit);
    }
    let info = objects.commit_info(&id)?;
    let store = &daemon.store;
    let (mut seen, mut level, mut missing) = (HashSet::from([info.tree]), vec![info.tree], 0);
    while !level.is_empty() {
        let mut batch = Batch::default();
        let mut next = Vec::new();
        for id in level {
            let mut listing = store.tree(&id)?;
            if listing.is_none() {
                listing = objects.read_tree(&id)?;
                if let Some(listing) = &listing {
                    batch.tree(id, listing);
                }
            }
            let Some(listing) = listing else {
                missing += 1;
                continue;
            };
            if batch.len() >= TREES_PER_COMMIT {
                store.commit(std::mem::take(&mut batch))?;
            }
            let children = listing.iter().filter(|entry| entry.kind == EntryKind::Directory);
            next.extend(children.map(|entry| entry.id).filter(|id| seen.insert(*id)));
        }
        // What is published next makes it durable.
        store.commit(batch)?;
        level = next;
    }
    if missing > 0 {
        return Ok(Here::TreesMissing(missing));
    }
    counted(store, id, info.tree, info.time).map(Here::Whole)
}

/// Copies the trees of `id` from the gitdir into the store. False: some are not there.
fn trees_from_gitdir(daemon: &Daemon, objects: &Objects, id: ObjectId) -> Result<bool, Failure> {
    let mut batch = Batch::default();
    let read = objects.read_trees(&id, |id, listing: Listing| -> Result<(), StoreError> {
        batch.tree(id, &listing);
        if batch.len() >= TREES_PER_COMMIT {
            daemon.store.commit(std::mem::take(&mut batch))?;
        }
        Ok(())
    })?;
    // What is published next makes it durable.
    daemon.store.commit(batch)?;
    Ok(read.missing.is_empty())
}

/// Whether every tree the pack brings is one of the commit's: then they go straight into the store.
fn straight(live: &Live) -> bool {
    live.row().depth == Depth::Commits(1)
}

fn counted(store: &Store, id: ObjectId, tree: ObjectId, time: i64) -> Result<Commit, Failure> {
    let counts = walk::count(store, tree)?;
    Ok(Commit { id, tree, time, files: counts.files })
}

fn fetch(
    daemon: &Daemon,
    live: &Live,
    repository: &Repository,
    id: ObjectId,
    connection: &mut GitConnection,
) -> Result<FetchedCommit, Attempt> {
    advance(live, "fetching trees", 0, 0);
    let row = live.row();
    let shallow = gitdir::shallow(&repository.gitdir).map_err(Failure::from)?;
    let here = Objects::open(&repository.gitdir, id.kind()).and_then(|objects| objects.has_commit(&id));
    let inside: Vec<ObjectId> = if here.map_err(Failure::from)? { vec![id] } else { Vec::new() };
    let request = CommitRequest {
        commit: id,
        depth: row.depth,
        filter: true,
        haves: Vec::new(),
        shallow: shallow.clone(),
        pack_dir: repository.gitdir.join("objects/pack"),
        max_unfiltered_bytes: Some(if row.allow_full {
            u64::MAX
        } else {
            daemon.config.settings.git.max_unfiltered_bytes
        }),
    };
    let mut arriving = Arriving { store: &daemon.store, trees: straight(live), batch: Batch::default(), pending: 0 };
    let told = Cell::new(Instant::now());
    let mut progress = |progress: pack::Progress| {
        if told.get().elapsed() >= PROGRESS_PERIOD {
            told.set(Instant::now());
            advance(live, "fetching trees", progress.objects, progress.bytes);
        }
    };
    let fetched = connection.fetch_commit(&request, &mut arriving, &mut progress)?;
    // The gitdir has the pack, and what is published next makes the trees durable.
    daemon.store.commit(arriving.batch).map_err(Failure::from)?;
    check_cancelled(live)?;
    // A commit of the history that is here is not its end because it was fetched again with its trees.
    let ends = fetched.shallow.iter().filter(|id| shallow.contains(id) || !inside.contains(id));
    let ends: Vec<ObjectId> = ends.copied().collect();
    gitdir::update_shallow(&repository.gitdir, &fetched.unshallow, &ends).map_err(Failure::from)?;
    tracing::info!(commit = %id, trees = fetched.trees, bytes = fetched.bytes, "fetched");
    Ok(fetched)
}

/// Puts trees, and blobs where the server sends them along, into the store as they are decoded.
struct Arriving<'a> {
    store: &'a Store,
    /// Whether trees are stored.
    trees: bool,
    batch: Batch,
    /// Objects in the batch that are not trees.
    pending: usize,
}

impl Sink for Arriving<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        match kind {
            Kind::Tree if self.trees => {
                let listing = listing_from_git(&id, &data).map_err(|error| {
                    RemoteError::new(FailureKind::Corrupt, format!("tree {id} is refused: {error}")).about(id)
                })?;
                self.batch.tree(id, &listing);
            }
            Kind::Blob => {
                self.batch.blob(id, &data);
                self.pending += 1;
            }
            Kind::Tree | Kind::Commit | Kind::Tag => {}
        }
        let full = self.pending >= BLOBS_PER_COMMIT || self.batch.raw_bytes() >= BLOB_BYTES_PER_COMMIT;
        if full || self.batch.len() >= TREES_PER_COMMIT {
            self.pending = 0;
            self.store.commit(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Ok(Box::new(LargeArriving(self.store.large_blob(raw_size)?)))
    }
}

struct LargeArriving(LargeBlob);

impl Write for LargeArriving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl LargeSink for LargeArriving {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        Ok(self.0.finish(id)?)
    }
}
