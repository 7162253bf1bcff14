//! Housekeeping of the packs that Git made of what the object door gave it.
//!
//! Looks only where something changed: a gitdir whose pack directory is as it
//! was when nothing could be removed is passed over with one `stat`.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use gix::ObjectId;
use parking_lot::Mutex;

use super::Daemon;
use crate::git::door::tree_of;
use crate::git::gitdir::{self, GitdirError, Pruned};
use crate::store::{Repository, Store, StoreError};

/// Younger packs are left: the command that fetched them may still run.
const AGE: Duration = Duration::from_secs(10);

/// A pack is looked at again after this long even if nothing changed there: the store may have got what it lacked.
const AGAIN: Duration = Duration::from_mins(10);

/// When pack directories were looked at, and how they were.
#[derive(Default)]
pub struct Prunings {
    // Guards the map alone.
    seen: Mutex<HashMap<PathBuf, Seen>>,
    // Held while packs are removed.
    pruning: Mutex<()>,
}

struct Seen {
    changed: (i64, i64),
    at: std::time::Instant,
}

impl Daemon {
    /// Removes packs that only repeat the store from the gitdirs in use. Blocks.
    pub(super) fn prune_packs(&self) {
        let used: Vec<_> = self.all().iter().map(|live| live.row().repository).collect();
        let repositories = self.store.repositories().unwrap_or_default();
        for repository in repositories.iter().filter(|repository| used.contains(&repository.id)) {
            if repository.external_gitdir {
                continue;
            }
            let directory = repository.gitdir.join("objects/pack");
            let Ok(metadata) = directory.metadata() else { continue };
            let changed = (metadata.mtime(), metadata.mtime_nsec());
            let known = self.prunings.seen.lock();
            if known.get(&directory).is_some_and(|seen| seen.changed == changed && seen.at.elapsed() < AGAIN) {
                continue;
            }
            drop(known);
            match self.prune_one(repository, true) {
                Ok(pruned) if pruned.packs > 0 => {}
                // What is too young now is to be looked at again.
                Ok(pruned) if pruned.young > 0 => {}
                Ok(_) => {
                    let seen = Seen { changed, at: std::time::Instant::now() };
                    self.prunings.seen.lock().insert(directory, seen);
                }
                Err(error) => {
                    tracing::warn!("packs: {error}");
                    let seen = Seen { changed, at: std::time::Instant::now() };
                    self.prunings.seen.lock().insert(directory, seen);
                }
            }
        }
    }

    /// Removes packs that only repeat the store from one gitdir, or only tells what would be.
    pub(super) fn prune_one(&self, repository: &Repository, remove: bool) -> Result<Pruned, GitdirError> {
        // Two at a time would both write names of what they remove.
        let _alone = self.prunings.pruning.lock();
        let found = gitdir::probe(&repository.gitdir)?;
        let pruned =
            gitdir::prune_packs(&repository.gitdir, found.object_format, AGE, remove, |ids| kinds(&self.store, ids))?;
        if remove && pruned.packs > 0 {
            self.objects_pruned(repository);
            tracing::info!(packs = pruned.packs, objects = pruned.objects, "packs that repeat the store removed");
        }
        Ok(pruned)
    }
}

/// Which of `ids` are trees of the store; `None` when one is neither a tree nor a blob of it.
fn kinds(store: &Store, ids: &[ObjectId]) -> Result<Option<Vec<bool>>, StoreError> {
    let no_blobs = store.missing_blobs(ids)?;
    if !store.missing_trees(&no_blobs)?.is_empty() {
        return Ok(None);
    }
    // A tree whose listing gives another object would not be given by the door.
    for id in &no_blobs {
        if store.tree(id)?.and_then(|listing| tree_of(id, &listing)).is_none() {
            return Ok(None);
        }
    }
    let trees: HashSet<&ObjectId> = no_blobs.iter().collect();
    Ok(Some(ids.iter().map(|id| trees.contains(id)).collect()))
}
