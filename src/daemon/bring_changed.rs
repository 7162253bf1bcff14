//! Brings a commit in that is close to what a workspace shows: one that Git
//! just made, or the tip of another branch.
//!
//! Only trees that differ from those shown are looked at, level by level, and
//! of these only the ones the store lacks are read: from the gitdir, else in
//! one request a level from the remote. Invariant: every tree of a published
//! generation is in the store, so what is equal needs no look.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::Daemon;
use super::protocol::{Failure, FailureClass};
use crate::git::fetch_commit::keep_objects;
use crate::git::gitdir::Objects;
use crate::git::remote::GitConnection;
use crate::hydrate::remote::{Connection, Extent, FailureKind, LargeSink, RemoteError, Sink};
use crate::index::diff;
use crate::index::generation::Commit;
use crate::store::{Batch, EntryKind, GenerationRecord, Listing, Repository, Store, listing_from_git};

/// From so many missing trees of one level on, everything beneath them is asked for at once: the round trips of
/// further levels would take longer than trees that are here already.
const WHOLE_FROM: usize = 1024;

/// Bytes of trees kept for the gitdir; Git fetches what is beyond itself.
const RAW_BYTES_MAX: usize = 64 << 20;

/// A connection that is opened when it is first needed.
pub struct Lazy<'a> {
    open: &'a dyn Fn() -> Result<GitConnection, RemoteError>,
    connection: Option<GitConnection>,
}

impl<'a> Lazy<'a> {
    /// Nothing is contacted yet.
    pub fn new(open: &'a dyn Fn() -> Result<GitConnection, RemoteError>) -> Self {
        Self { open, connection: None }
    }

    /// Whether the remote was needed.
    pub fn was_opened(&self) -> bool {
        self.connection.is_some()
    }

    /// The connection.
    pub fn get(&mut self) -> Result<&mut GitConnection, RemoteError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            slot => Ok(slot.insert((self.open)()?)),
        }
    }
}

/// Brings in the trees of `id`, whose commit object the gitdir has, next to those of `shown`.
pub fn commit(
    daemon: &Daemon,
    repository: &Repository,
    shown: &GenerationRecord,
    id: ObjectId,
    remote: &mut Lazy<'_>,
) -> Result<Commit, Failure> {
    let objects = Objects::open(&repository.gitdir, id.kind())?;
    let info = objects.commit_info(&id)?;
    let mut fetched = trees(&daemon.store, &objects, shown.tree.0, info.tree, remote)?;
    fetched.sort_unstable_by_key(|(id, _, _)| *id);
    fetched.dedup_by_key(|(id, _, _)| *id);
    // Git looks at them too, at the root tree in every `git status`.
    keep_objects(&repository.gitdir.join("objects/pack"), &fetched)?;
    let files = diff::files(&daemon.store, shown.tree.0, shown.files, info.tree)?;
    Ok(Commit { id, tree: info.tree, time: info.time, files })
}

/// A tree as Git has it.
type Raw = (ObjectId, Kind, Bytes);

/// Brings in the trees of `root` that are not those of `base`. Hands back those that came from the remote.
fn trees(
    store: &Store,
    objects: &Objects,
    base: ObjectId,
    root: ObjectId,
    remote: &mut Lazy<'_>,
) -> Result<Vec<Raw>, Failure> {
    let (mut fetched, mut raw_bytes) = (Vec::new(), 0);
    let mut seen = HashSet::from([base]);
    let mut level = if seen.insert(root) { vec![(root, Some(base))] } else { Vec::new() };
    while !level.is_empty() {
        let ids: Vec<ObjectId> = level.iter().map(|(id, _)| *id).collect();
        let mut arrived = Arrived::default();
        let mut absent = Vec::new();
        for id in store.missing_trees(&ids)? {
            match objects.read_tree(&id)? {
                Some(listing) => arrived.put(id, listing),
                None => absent.push(id),
            }
        }
        if !absent.is_empty() {
            let connection = remote.get()?;
            if absent.len() >= WHOLE_FROM {
                connection.fetch(&absent, Extent::Trees, &mut arrived)?;
            } else {
                connection.fetch_trees(&absent, &mut arrived)?;
            }
        }
        // What is published next makes it durable.
        store.commit(std::mem::take(&mut arrived.batch))?;
        raw_bytes += arrived.fetched.iter().map(|(_, _, data)| data.len()).sum::<usize>();
        if raw_bytes <= RAW_BYTES_MAX {
            fetched.append(&mut arrived.fetched);
        }
        let mut next = Vec::new();
        for (id, before) in level {
            let listing = arrived.listing(store, id)?;
            let before = before.map(|id| store.tree(&id)).transpose()?.flatten();
            for child in listing.iter().filter(|child| child.kind == EntryKind::Directory) {
                let twin = before.as_ref().and_then(|before| before.find(child.name));
                let twin = twin.filter(|twin| twin.kind == EntryKind::Directory).map(|twin| twin.id);
                if twin != Some(child.id) && seen.insert(child.id) {
                    next.push((child.id, twin));
                }
            }
        }
        level = next;
    }
    Ok(fetched)
}

/// Trees on their way into the store.
#[derive(Default)]
struct Arrived {
    batch: Batch,
    listings: HashMap<ObjectId, Listing>,
    fetched: Vec<Raw>,
}

impl Arrived {
    fn put(&mut self, id: ObjectId, listing: Listing) {
        self.batch.tree(id, &listing);
        self.listings.insert(id, listing);
    }

    fn listing(&mut self, store: &Store, id: ObjectId) -> Result<Listing, Failure> {
        let missing = || Failure::new(FailureClass::NotFound, format!("tree {id} can't be had"));
        match self.listings.remove(&id) {
            Some(listing) => Ok(listing),
            None => store.tree(&id)?.ok_or_else(missing),
        }
    }
}

impl Sink for Arrived {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        if kind == Kind::Tree {
            let listing = listing_from_git(&id, &data).map_err(|error| {
                RemoteError::new(FailureKind::Corrupt, format!("tree {id} is refused: {error}")).about(id)
            })?;
            self.put(id, listing);
            self.fetched.push((id, kind, data));
        }
        Ok(())
    }

    fn large(&mut self, _: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Err(RemoteError::new(FailureKind::Corrupt, "a file was sent where trees were asked for"))
    }
}
