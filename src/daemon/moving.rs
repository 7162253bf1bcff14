//! HEAD moves: Git moved it and the workspace follows, or `larder switch` moves both.
//!
//! Owns the turn a workspace's moves take (one at a time, whoever starts them), and the task that hears
//! when Git moved HEAD. It looks once when it starts, so a HEAD that moved
//! while no daemon ran is noticed too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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
use crate::store::{Repository, WorkspaceId, WorkspaceState};

/// Quiet time after an event: `git commit` touches several files in a row, a rebase moves HEAD at every step.
const QUIET: Duration = Duration::from_millis(20);

/// A HEAD that never rests is looked at this often.
const LONGEST_UNREST: Duration = Duration::from_millis(200);

/// Pause after a failed look; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A remote that is away for hours is asked this often.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Seconds and nanoseconds since 1970 UTC, in the width the index has room for.
pub type Stamp = (u32, u32);

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
        let _trees_stay = self.collecting.read_recursive();
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
        let generation = record.generation.0;
        let _following =
            tracing::error_span!("following HEAD", workspace = row.name, generation, commit = %commit).entered();
        let job = self.job_of(live)?;
        let open = || prepare::remote(self, &job).open();
        let commit = bring_changed::commit(self, &repository, &record, commit, &mut Lazy::new(&open))?;
        self.head_moved(live, &commit)?;
        tracing::info!(published = live.row().current.map(|now| now.0), "followed HEAD");
        Ok(())
    }

    pub(super) fn repository_of(&self, live: &Live) -> Result<Repository, Failure> {
        let row = live.row();
        let found = self.store.repositories()?.into_iter().find(|repository| repository.id == row.repository);
        found.ok_or_else(|| {
            Failure::new(FailureClass::Corrupt, format!("workspace {} names an unknown repository", row.name))
        })
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
