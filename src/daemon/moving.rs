//! HEAD moves: Git moved it and the workspace follows, or `larder switch` moves both.
//!
//! Owns the seam to the working tree ([`WorkingTree`]), the turn a workspace's
//! moves take (one at a time, whoever starts them), and the task that hears
//! when Git moved HEAD. It looks once when it starts, so a HEAD that moved
//! while no daemon ran is noticed too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gix::ObjectId;
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bring_changed::{self, Lazy};
use super::lifecycle::blocking;
use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use super::{Daemon, prepare};
use crate::git::gitdir::{self, HeadWatch};
use crate::index::diff::Leaf;
use crate::index::generation::{self, Commit};
use crate::index::switching::{Kept, Local};
use crate::store::{EntryKind, Repository, WorkspaceId, WorkspaceState};

/// Quiet time after an event: `git commit` touches several files in a row, a rebase moves HEAD at every step.
const QUIET: Duration = Duration::from_millis(20);

/// A HEAD that never rests is looked at this often.
const LONGEST_UNREST: Duration = Duration::from_millis(200);

/// Pause after a failed look; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A remote that is away for hours is asked this often.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What a path of the working tree has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is not in the base.
    Added,
    /// It has other content or another mode.
    Modified,
    /// It is gone.
    Deleted,
    /// It is of another kind: a directory or what Git can't hold among them.
    TypeChanged,
}

/// A path where the working tree is not what the current generation's base says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Relative to the working tree.
    pub path: Vec<u8>,
    /// What became of it.
    pub kind: ChangeKind,
    /// The blob id of a regular file's or symbolic link's content.
    pub oid: Option<ObjectId>,
    /// Its `st_mode`; 0 when it is gone.
    pub mode: u32,
}

impl Change {
    /// The same as the plan of a switch wants it.
    fn local(&self) -> Local {
        if self.kind == ChangeKind::Deleted {
            return Local::Absent;
        }
        let kind = match self.mode & 0o170_000 {
            0o040_000 => return Local::Directory,
            0o120_000 => EntryKind::Symlink,
            0o100_000 if self.mode & 0o100 != 0 => EntryKind::Executable,
            0o100_000 => EntryKind::File,
            _ => return Local::Other,
        };
        self.oid.map_or(Local::Other, |id| Local::Leaf(Leaf { kind, id }))
    }
}

/// Seconds and nanoseconds since 1970 UTC, in the width the index has room for.
pub type Stamp = (u32, u32);

/// The times a working tree shows after its base moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimesAfter {
    /// Of files that the move changed.
    pub changed: Stamp,
    /// Of all others; `None`: what they showed before.
    pub unchanged: Option<Stamp>,
    /// Of directories.
    pub directories: Stamp,
}

/// What a move needs of the working tree.
pub trait WorkingTree: Send + Sync {
    /// Every path that is not what the base says, directories taken apart. Files are hashed as Git would store them.
    fn local_changes(&self, daemon: &Daemon, live: &Live) -> Result<Vec<Change>, Failure>;

    /// Git moved HEAD to `commit`: it becomes the generation, and what is seen stays as it is.
    /// All of it has happened or nothing, also after a crash.
    fn head_moved(&self, daemon: &Daemon, live: &Arc<Live>, commit: &Commit) -> Result<(), Failure>;

    /// Publishes `commit` and lets the working tree show it, but for the paths in `keep`. Files that change by it
    /// show `at`. All of it has happened or nothing, also after a crash; the current generation tells which.
    fn move_base(
        &self,
        daemon: &Daemon,
        live: &Arc<Live>,
        commit: &Commit,
        keep: &BTreeMap<Vec<u8>, Kept>,
        at: Stamp,
    ) -> Result<(), Failure>;

    /// The times that will be seen after [`Self::move_base`].
    fn times_after(&self, commit: &Commit, at: Stamp) -> TimesAfter;
}

/// The working tree of a read-only mount: it has no changes, and shows nothing but a generation.
pub struct ReadOnlyTree;

impl WorkingTree for ReadOnlyTree {
    fn local_changes(&self, _: &Daemon, _: &Live) -> Result<Vec<Change>, Failure> {
        Ok(Vec::new())
    }

    /// What is seen may not change, and differs from the commit now: so the generation stays.
    fn head_moved(&self, _: &Daemon, live: &Arc<Live>, commit: &Commit) -> Result<(), Failure> {
        let row = live.row();
        tracing::info!(workspace = row.name, commit = %commit.id, "HEAD moved; a read-only mount goes on showing what it showed");
        Ok(())
    }

    /// Mounts anew, which makes the kernel forget everything; refused while files are in use.
    fn move_base(
        &self,
        daemon: &Daemon,
        live: &Arc<Live>,
        commit: &Commit,
        _: &BTreeMap<Vec<u8>, Kept>,
        _: Stamp,
    ) -> Result<(), Failure> {
        let hydrator = live.shown().map(|shown| shown.hydrator.clone());
        let hydrator = hydrator.ok_or_else(|| Failure::new(FailureClass::Refused, "the workspace is not ready"))?;
        daemon.take_down(live, false)?;
        let mut row = live.row();
        let published = generation::publish(&daemon.store, &mut row, commit, "switch", prepare::now())
            .map_err(Failure::from)
            .and_then(|record| prepare::show(daemon, &row, record, hydrator));
        if let Ok(shown) = published {
            live.replace(row);
            live.open(shown);
        } else {
            published.map(drop)?;
        }
        live.mount(&daemon.config.settings, daemon.runtime.clone())
    }

    fn times_after(&self, commit: &Commit, _: Stamp) -> TimesAfter {
        let seconds = u32::try_from(commit.time.max(0)).unwrap_or(u32::MAX);
        let all = (seconds, 0);
        TimesAfter { changed: all, unchanged: Some(all), directories: all }
    }
}

/// Watchers and turns of all workspaces.
#[derive(Default)]
pub(super) struct Moving {
    // Guards the map alone.
    watchers: Mutex<HashMap<WorkspaceId, JoinHandle<()>>>,
    // Guards the map alone. A turn comes before every other lock.
    turns: Mutex<HashMap<WorkspaceId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Daemon {
    /// Waits for the turn to move `workspace`. For threads that may block.
    pub(super) fn turn_to_move(&self, workspace: WorkspaceId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(self.moving.turns.lock().entry(workspace).or_default());
        turn.blocking_lock_owned()
    }

    /// Listens for moves of the workspace's HEAD, and refreshes it regularly if it is to be, until it is unmounted.
    pub(super) fn watch_head(self: &Arc<Self>, live: &Arc<Live>) {
        let (daemon, watched) = (Arc::clone(self), Arc::clone(live));
        let task = self.runtime.spawn(async move {
            let refreshing = Arc::clone(&daemon).refresh_regularly(Arc::clone(&watched));
            let watching = async {
                if let Err(failure) = watch(&daemon, &watched).await {
                    tracing::error!(workspace = watched.row().name, "moves of HEAD are not noticed: {failure}");
                }
            };
            tokio::join!(watching, refreshing);
        });
        if let Some(before) = self.moving.watchers.lock().insert(live.row().id, task) {
            before.abort();
        }
    }

    /// Ends [`Self::watch_head`].
    pub(super) fn unwatch_head(&self, workspace: WorkspaceId) {
        if let Some(task) = self.moving.watchers.lock().remove(&workspace) {
            task.abort();
        }
    }

    /// Lets the workspace follow its HEAD, if Git moved it.
    pub(super) fn follow_head(&self, live: &Arc<Live>) -> Result<(), Failure> {
        let _turn = self.turn_to_move(live.row().id);
        self.follow_head_in_turn(live)
    }

    /// [`Self::follow_head`] for who has the turn.
    pub(super) fn follow_head_in_turn(&self, live: &Arc<Live>) -> Result<(), Failure> {
        let row = live.row();
        let (Some(admin), Some(current)) = (&row.admin, row.current) else { return Ok(()) };
        if row.state != WorkspaceState::Ready || row.switching.is_some() {
            return Ok(());
        }
        let repository = self.repository_of(live)?;
        let head = gitdir::read_head(&repository.gitdir, admin)?;
        let record = self.store.generation(row.id, current)?;
        // A branch without commits has no tree: the base stays until it has one.
        let (Some(commit), Some(record)) = (head.commit, record) else { return Ok(()) };
        if commit == record.commit.0 {
            return Ok(());
        }
        let job = self.job_of(live)?;
        let open = || prepare::remote(self, &job).open();
        let commit = bring_changed::commit(self, &repository, &record, commit, &mut Lazy::new(&open))?;
        self.tree.head_moved(self, live, &commit)
    }

    pub(super) fn repository_of(&self, live: &Live) -> Result<Repository, Failure> {
        let row = live.row();
        let found = self.store.repositories()?.into_iter().find(|repository| repository.id == row.repository);
        found.ok_or_else(|| {
            Failure::new(FailureClass::Corrupt, format!("workspace {} names an unknown repository", row.name))
        })
    }

    /// The user's changes, as the plan of a switch wants them.
    pub(super) fn locally_changed(&self, live: &Live) -> Result<BTreeMap<Vec<u8>, Local>, Failure> {
        let changes = self.tree.local_changes(self, live)?;
        Ok(changes.into_iter().map(|change| (change.path.clone(), change.local())).collect())
    }
}

async fn watch(daemon: &Arc<Daemon>, live: &Arc<Live>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(FailureClass::Other, format!("inotify: {error}"))
            .hint("fs.inotify.max_user_instances and max_user_watches (sysctl) bound what may be watched")
    };
    let repository = daemon.repository_of(live)?;
    let Some(admin) = live.row().admin else { return Ok(()) };
    let watch = HeadWatch::new(&repository.gitdir, &admin).map_err(failed)?;
    #[expect(deprecated, reason = "its successor is unsafe; a HeadWatch keeps one descriptor as long as it lives")]
    let mut watch = AsyncFd::new(watch).map_err(failed)?;
    let mut pause = FIRST_PAUSE;
    loop {
        watch.get_mut().arm().map_err(failed)?;
        let (following, followed) = (Arc::clone(daemon), Arc::clone(live));
        let outcome = blocking(move || following.follow_head(&followed)).await;
        let retry = match outcome {
            Ok(()) => {
                pause = FIRST_PAUSE;
                None
            }
            Err(failure) => {
                tracing::warn!(workspace = live.row().name, "HEAD moved and can't be followed yet: {failure}");
                let at = Instant::now() + pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(at)
            }
        };
        heard(&mut watch, retry).await.map_err(failed)?;
    }
}

/// Waits until HEAD may have moved and came to rest, or until `retry`.
async fn heard(watch: &mut AsyncFd<HeadWatch>, retry: Option<Instant>) -> std::io::Result<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => return Ok(()),
            ready = watch.readable_mut() => {
                let mut ready = ready?;
                let relevant = ready.get_inner_mut().drain()?;
                ready.clear_ready();
                if relevant {
                    break;
                }
            }
        }
    }
    let until = Instant::now() + LONGEST_UNREST;
    loop {
        let quiet = Instant::now() + QUIET;
        match tokio::time::timeout_at(quiet.min(until), watch.readable_mut()).await {
            Err(_) => return Ok(()),
            Ok(ready) => {
                let mut ready = ready?;
                ready.get_inner_mut().drain()?;
                ready.clear_ready();
            }
        }
        if Instant::now() >= until {
            return Ok(());
        }
    }
}
