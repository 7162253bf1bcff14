//! Names of the base's blobs in the gitdirs in use ([`gitdir::Names`]): made when a workspace is mounted, moved on with its
//! generations, and shown to the Git commands that write trees.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::ObjectId;
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::Daemon;
use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use crate::git::gitdir;
use crate::index::{diff, walk};
use crate::store::{Repository, RepositoryId};

/// Longest wait of a command for names that are being made.
const MAKING_LIMIT: Duration = Duration::from_secs(5);

/// After this long an object that was sent has arrived, or its command is gone.
const ARRIVED: Duration = Duration::from_mins(1);

/// The names of all repositories in use.
#[derive(Default)]
pub(super) struct AllNames {
    // Guards the map alone.
    known: Mutex<HashMap<RepositoryId, Arc<RepositoryNames>>>,
}

/// Those of one repository.
struct RepositoryNames {
    names: gitdir::Names,
    state: Mutex<State>,
    made: Condvar,
}

#[derive(Default)]
struct State {
    /// Passes over trees that are under way.
    making: usize,
    /// Commands that see the names.
    seeing: usize,
    /// Objects whose names went because they were sent, and when.
    sent: HashMap<ObjectId, Instant>,
}

impl Daemon {
    fn names_of(&self, repository: &Repository) -> Result<Option<Arc<RepositoryNames>>, Failure> {
        if repository.external_gitdir {
            return Ok(None);
        }
        let mut known = self.names.known.lock();
        if let Some(names) = known.get(&repository.id) {
            return Ok(Some(Arc::clone(names)));
        }
        let names = gitdir::Names::open(&repository.gitdir)?;
        let names = Arc::new(RepositoryNames { names, state: Mutex::default(), made: Condvar::new() });
        known.insert(repository.id, Arc::clone(&names));
        Ok(Some(names))
    }

    /// Gives every blob that `live` shows a name, in the background.
    pub(super) fn name_blobs(self: &Arc<Self>, live: &Arc<Live>) {
        let Some(shown) = live.shown() else { return };
        let tree = shown.view.generation().tree.0;
        let names = match self.repository_of(live).and_then(|repository| self.names_of(&repository)) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(failure) => return tracing::warn!("names of blobs: {failure}"),
        };
        names.state.lock().making += 1;
        let store = self.store.clone();
        self.runtime.spawn_blocking(move || {
            let made = walk::distinct(&store, tree, |listing| {
                let blobs = listing.iter().filter(|entry| entry.kind.is_blob());
                let ids: Vec<ObjectId> = blobs.map(|entry| entry.id).collect();
                names.names.add(&ids).map_err(Failure::from)
            });
            if let Err(failure) = made {
                tracing::warn!("names of blobs: {failure}");
            }
            names.state.lock().making -= 1;
            names.made.notify_all();
        });
    }

    /// Moves the names on from the tree `old` to `new`.
    pub(super) fn rename_blobs(&self, live: &Live, old: ObjectId, new: ObjectId) -> Result<(), Failure> {
        let Some(names) = self.names_of(&self.repository_of(live)?)? else { return Ok(()) };
        let changed = diff::leaves(&self.store, old, new)?;
        let added: HashSet<ObjectId> = changed.values().filter_map(|sides| sides.new.map(|leaf| leaf.id)).collect();
        let gone = changed.values().filter_map(|sides| sides.old.map(|leaf| leaf.id)).filter(|id| !added.contains(id));
        for id in gone {
            // Another path may have the same blob; Git then fetches one too many.
            names.names.remove(&id);
        }
        Ok(names.names.add(&added)?)
    }

    /// Shows the names to the process `pid`, and whoever else looks meanwhile, until it ends.
    pub(super) fn show_names(self: &Arc<Self>, live: &Live, pid: u32) -> Result<(), Failure> {
        let Some(names) = self.names_of(&self.repository_of(live)?)? else { return Ok(()) };
        let (fs, number) = (Arc::clone(live.fs()), pid);
        let failed =
            |error: std::io::Error| Failure::new(FailureClass::Other, format!("watching process {pid}: {error}"));
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        let process = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let _runtime = self.runtime.enter();
        #[expect(deprecated, reason = "its successor is unsafe; the descriptor lives as long as what watches it")]
        let process = AsyncFd::new(process).map_err(failed)?;
        let begun = Instant::now();
        let mut state = names.state.lock();
        while state.making > 0 && begun.elapsed() < MAKING_LIMIT {
            names.made.wait_for(&mut state, MAKING_LIMIT);
        }
        state.seeing += 1;
        if state.seeing == 1 {
            names.names.show(true)?;
        }
        drop(state);
        fs.writer_began(number);
        self.runtime.spawn(async move {
            let _ = process.readable().await;
            fs.writer_ended(number);
            let mut state = names.state.lock();
            state.seeing -= 1;
            if state.seeing == 0
                && let Err(error) = names.names.show(false)
            {
                tracing::warn!("{error}");
            }
        });
        Ok(())
    }

    /// These objects are about to be sent to Git: their names go.
    pub(super) fn objects_sent(&self, repository: &Repository, ids: &[ObjectId]) {
        let Ok(Some(names)) = self.names_of(repository) else { return };
        let now = Instant::now();
        let gone: Vec<ObjectId> = ids.iter().filter(|id| names.names.remove(id)).copied().collect();
        names.state.lock().sent.extend(gone.into_iter().map(|id| (id, now)));
    }

    /// Packs were removed that had what was sent: it is missing again, and gets its names back.
    pub(super) fn objects_pruned(&self, repository: &Repository) {
        let Ok(Some(names)) = self.names_of(repository) else { return };
        let mut back = Vec::new();
        names.state.lock().sent.retain(|id, at| {
            let old = at.elapsed() > ARRIVED;
            if old {
                back.push(*id);
            }
            !old
        });
        if let Err(error) = names.names.add(&back) {
            tracing::warn!("names of blobs: {error}");
        }
    }
}
