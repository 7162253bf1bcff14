//! History in the background: what a mount of one commit left out, commits only.
//!
//! One task a repository, as long as a workspace of it is mounted. It asks for
//! some thousand commits at a time, on a connection of its own, and stands
//! back while readers wait. Each step is whole or did not happen
//! (`git/gitdir/history.rs`), so pausing, unmounting and dying are all the
//! same: the next step begins where the last one ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::ObjectId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::protocol::{Answer, Failure, FailureClass, HistoryAction, HistoryState, HistoryStatus};
use super::workspace::Live;
use super::{Daemon, HydratorKey, prepare};
use crate::config::HistoryMode;
use crate::git::fetch_history::{HistoryFetched, HistoryPart};
use crate::git::gitdir::{self, Objects, Step};
use crate::git::remote::{CancelHandle, GitConnection, GitRemote};
use crate::hydrate::{FailureKind, RemoteError};
use crate::store::{ObjectIdText, Repository, RepositoryId};

/// Generations of the first step; with merges these are some thousand commits.
const FIRST_GENERATIONS: u32 = 1000;

/// No step asks for more: a history without merges in steps of a second.
const MOST_GENERATIONS: u32 = 64_000;

/// A step that took longer, or brought more, is followed by a smaller one.
const STEP_TIME: Duration = Duration::from_secs(4);
const STEP_COMMITS: u64 = 40_000;

/// Pause after a failure that may pass; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How long a step waits for readers at most: a warm may take hours.
const YIELD_LIMIT: Duration = Duration::from_secs(10);
const YIELD_PERIOD: Duration = Duration::from_millis(50);

/// The tasks that run.
#[derive(Default)]
pub struct Histories {
    // Guards the map alone.
    running: Mutex<HashMap<RepositoryId, Arc<Backfill>>>,
}

/// One repository's task.
#[derive(Default)]
struct Backfill {
    cancel: CancelHandle,
    /// Told of the end, and of a new wish.
    wake: Notify,
    // Guards the text alone: why the last step failed.
    trouble: Mutex<Option<String>>,
}

impl Backfill {
    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// What a step came to.
enum Stepped {
    /// There is no boundary any more.
    Complete,
    /// More is to come; so many commits came.
    On(u64),
    /// It is not wanted, or not now.
    Rest,
}

/// Why a step failed.
enum Trouble {
    Remote(RemoteError),
    Other(Failure),
}

impl<E: Into<Failure>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Daemon {
    /// Notes that the repository's history is wanted, unless that is switched off or not ours to say.
    pub(super) fn want_history(&self, repository: &Repository) -> Result<(), Failure> {
        if repository.external_gitdir || self.config.settings.git.history == HistoryMode::Off {
            return Ok(());
        }
        if let Some(parent) = repository.gitdir.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Failure::new(FailureClass::Other, format!("{}: {error}", parent.display())))?;
        }
        gitdir::set_history(&repository.gitdir, |state| {
            state.wanted = true;
            state.failed = None;
        })?;
        Ok(())
    }

    /// Starts the task of a mounted workspace's repository, unless it runs.
    pub(super) fn start_history(self: &Arc<Self>, live: &Live, environment: Vec<(String, String)>) {
        let row = live.row();
        if row.offline {
            return;
        }
        let id = row.repository;
        let started = self.start_history_of(id, environment);
        if let Err(failure) = started {
            tracing::warn!(workspace = live.row().name, "history: {failure}");
        }
    }

    fn start_history_of(self: &Arc<Self>, id: RepositoryId, environment: Vec<(String, String)>) -> Result<(), Failure> {
        let repository = prepare::repository_of(self, id)?;
        if repository.external_gitdir || self.config.settings.git.history == HistoryMode::Off {
            return Ok(());
        }
        let remote = Arc::new(prepare::remote_for(self, &repository, environment)?);
        let mut running = self.history.running.lock();
        if let Some(backfill) = running.get(&id) {
            backfill.wake.notify_one();
            return Ok(());
        }
        let backfill = Arc::new(Backfill::default());
        running.insert(id, Arc::clone(&backfill));
        drop(running);
        let daemon = Arc::clone(self);
        self.runtime.spawn(async move { daemon.backfill(repository, remote, backfill).await });
        Ok(())
    }

    /// Ends the task of a repository that no workspace uses any more; all tasks without one.
    pub(super) fn end_history(&self, repository: Option<RepositoryId>) {
        let mut running = self.history.running.lock();
        running.retain(|id, backfill| {
            let ends = repository.is_none_or(|repository| repository == *id);
            if ends {
                backfill.cancel.cancel();
                backfill.wake.notify_one();
            }
            !ends
        });
    }

    async fn backfill(self: Arc<Self>, repository: Repository, remote: Arc<GitRemote>, backfill: Arc<Backfill>) {
        let mut connection: Option<GitConnection> = None;
        let mut generations = FIRST_GENERATIONS;
        let mut pause = FIRST_PAUSE;
        while !backfill.cancelled() {
            self.stand_back(repository.id, &backfill).await;
            let begun = Instant::now();
            let (taken, work) = (connection.take(), repository.clone());
            let (remote, handle) = (Arc::clone(&remote), backfill.cancel.clone());
            let stepped = tokio::task::spawn_blocking(move || {
                let mut connection = taken;
                let outcome = step(&work, &remote, &handle, &mut connection, generations);
                (connection, outcome)
            });
            let Ok((kept, outcome)) = stepped.await else { break };
            connection = kept;
            if backfill.cancelled() {
                break;
            }
            match outcome {
                Ok(Stepped::On(commits)) => {
                    *backfill.trouble.lock() = None;
                    pause = FIRST_PAUSE;
                    let large = begun.elapsed() > STEP_TIME || commits > STEP_COMMITS;
                    generations = if large { (generations / 2).max(1) } else { generations * 2 };
                    generations = generations.min(MOST_GENERATIONS);
                }
                Ok(Stepped::Complete | Stepped::Rest) => {
                    *backfill.trouble.lock() = None;
                    connection = None;
                    // A new commit, or a new wish.
                    backfill.wake.notified().await;
                }
                Err(trouble) => {
                    connection = None;
                    note(&repository, &backfill, trouble);
                    // Whoever mounts or resumes meanwhile wants it tried at once.
                    let _ = tokio::time::timeout(pause, backfill.wake.notified()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits while readers of the repository do.
    async fn stand_back(&self, repository: RepositoryId, backfill: &Backfill) {
        let until = Instant::now() + YIELD_LIMIT;
        while Instant::now() < until && !backfill.cancelled() {
            let key = HydratorKey { repository, offline: false };
            let busy = self.hydrators.lock().get(&key).is_some_and(|hydrator| hydrator.backlog() != (0, 0));
            if !busy {
                return;
            }
            tokio::time::sleep(YIELD_PERIOD).await;
        }
    }

    /// `larder history`.
    pub(super) fn history(self: &Arc<Self>, target: &str, action: Option<HistoryAction>) -> Result<Answer, Failure> {
        let live = self.find(target)?;
        let repository = prepare::repository_of(self, live.row().repository)?;
        if let Some(action) = action {
            let refused = |text: &str| Err(Failure::new(FailureClass::Refused, text));
            if repository.external_gitdir {
                return refused("the gitdir was prepared elsewhere; `git fetch --unshallow` there fetches its history");
            }
            if action == HistoryAction::Resume && self.config.settings.git.history == HistoryMode::Off {
                return refused("git.history is \"off\" in the settings");
            }
            gitdir::set_history(&repository.gitdir, |state| {
                state.paused = action == HistoryAction::Pause;
                if action == HistoryAction::Resume {
                    // Also where a depth was asked for before.
                    state.wanted = true;
                    state.failed = None;
                }
            })?;
            if action == HistoryAction::Resume {
                if live.row().offline {
                    let text = format!("{} is mounted with --offline", live.row().name);
                    return Err(Failure::new(FailureClass::Refused, text)
                        .hint("the history goes on when a workspace of the repository is mounted without it"));
                }
                self.start_history_of(repository.id, Vec::new())?;
            }
        }
        Ok(Answer::Workspaces(vec![self.status_of(&live)?]))
    }

    /// What `status` says of a repository's history, with what only the daemon knows.
    pub(super) fn history_status(&self, repository: &Repository) -> HistoryStatus {
        let mut status = history_at_rest(Some(repository));
        if status.state == HistoryState::Fetching {
            if self.config.settings.git.history == HistoryMode::Off {
                status.state = HistoryState::Off;
                status.reason = Some("git.history is \"off\" in the settings".to_owned());
            } else if let Some(backfill) = self.history.running.lock().get(&repository.id) {
                status.reason.clone_from(&backfill.trouble.lock());
            }
        }
        status
    }
}

/// Says why a step failed, and whether another will not do better.
fn note(repository: &Repository, backfill: &Backfill, trouble: Trouble) {
    let (failure, for_ever) = match trouble {
        Trouble::Remote(error) => {
            let for_ever = matches!(error.kind, FailureKind::Unsupported | FailureKind::Missing);
            (Failure::from(error), for_ever)
        }
        Trouble::Other(failure) => (failure, false),
    };
    tracing::warn!(repository = repository.url, "history: {failure}");
    *backfill.trouble.lock() = Some(failure.message.clone());
    if for_ever
        && let Err(error) = gitdir::set_history(&repository.gitdir, |state| state.failed = Some(failure.message))
    {
        tracing::error!("history: {error}");
    }
}

/// What the gitdir alone tells of its history.
pub fn history_at_rest(repository: Option<&Repository>) -> HistoryStatus {
    let off = |reason: Option<&str>| HistoryStatus {
        state: HistoryState::Off,
        commits: None,
        reason: reason.map(str::to_owned),
    };
    let Some(repository) = repository.filter(|repository| repository.gitdir.join("HEAD").exists()) else {
        return off(None);
    };
    let known =
        gitdir::shallow(&repository.gitdir).and_then(|shallow| Ok((shallow, gitdir::history(&repository.gitdir)?)));
    let (boundary, known) = match known {
        Ok(known) => known,
        Err(error) => {
            return HistoryStatus { state: HistoryState::Failed, commits: None, reason: Some(error.to_string()) };
        }
    };
    let state = match &known {
        _ if boundary.is_empty() => HistoryState::Complete,
        _ if repository.external_gitdir => return off(Some("the gitdir was prepared elsewhere")),
        known if known.failed.is_some() => HistoryState::Failed,
        known if known.paused => HistoryState::Paused,
        known if known.wanted => HistoryState::Fetching,
        _ => HistoryState::Off,
    };
    let reason = known.failed.filter(|_| state == HistoryState::Failed);
    // Commits that were fetched with their trees are not counted by anybody; each boundary began as one.
    let commits = known.wanted.then_some(known.commits);
    HistoryStatus { state, commits, reason }
}

/// One request for a part of history, carried out to its end.
fn step(
    repository: &Repository,
    remote: &GitRemote,
    cancel: &CancelHandle,
    connection: &mut Option<GitConnection>,
    generations: u32,
) -> Result<Stepped, Trouble> {
    let common = &repository.gitdir;
    let state = gitdir::history(common)?;
    if !state.wanted || state.paused || state.failed.is_some() || !common.join("HEAD").exists() {
        return Ok(Stepped::Rest);
    }
    gitdir::finish_step(common)?;
    let boundary = gitdir::shallow(common)?;
    let text = |ids: &[ObjectId]| ids.iter().copied().map(ObjectIdText).collect::<Vec<_>>();
    if boundary.is_empty() {
        gitdir::set_history(common, |state| {
            let tips = std::mem::take(&mut state.tips);
            state.whole.extend(tips);
        })?;
        return Ok(Stepped::Complete);
    }
    if state.tips.is_empty() {
        gitdir::set_history(common, |state| {
            state.commits += boundary.len() as u64;
            state.tips = text(&boundary);
        })?;
    }
    let objects = Objects::open(common, boundary[0].kind())?;
    let part = part(&objects, &state, &boundary, generations)?;
    let fetched = match &part {
        HistoryPart::Between { wants, .. } if wants.is_empty() => {
            HistoryFetched { shallow: Vec::new(), unshallow: Vec::new(), commits: 0, bytes: 0, pack: None }
        }
        part => fetch(common, remote, cancel, connection, part)?,
    };
    let unshallow = match part {
        HistoryPart::Between { .. } => boundary.clone(),
        HistoryPart::Below { .. } => fetched.unshallow,
    };
    if unshallow.is_empty() {
        let text = format!("{} sends no history below {}", repository.url, boundary[0]);
        return Err(Trouble::Remote(RemoteError::new(FailureKind::Missing, text)));
    }
    let step = Step { unshallow: text(&unshallow), shallow: text(&fetched.shallow), commits: fetched.commits };
    gitdir::take_step(common, &step)?;
    tracing::info!(commits = fetched.commits, bytes = fetched.bytes, "history fetched");
    Ok(Stepped::On(fetched.commits))
}

fn fetch(
    common: &std::path::Path,
    remote: &GitRemote,
    cancel: &CancelHandle,
    connection: &mut Option<GitConnection>,
    part: &HistoryPart,
) -> Result<HistoryFetched, Trouble> {
    let directory = gitdir::incoming(common)?;
    let open = match connection.take() {
        Some(open) => open,
        None => remote.open_with(cancel.clone()).map_err(Trouble::Remote)?,
    };
    connection.insert(open).fetch_history(part, &directory).map_err(Trouble::Remote)
}

/// What to ask for: where an earlier history is whole here, only what is new above it.
fn part(
    objects: &Objects,
    state: &gitdir::History,
    boundary: &[ObjectId],
    generations: u32,
) -> Result<HistoryPart, Trouble> {
    let mut haves = Vec::new();
    for id in &state.whole {
        if objects.has_commit(&id.0)? && !boundary.contains(&id.0) {
            haves.push(id.0);
        }
    }
    if haves.is_empty() {
        return Ok(HistoryPart::Below { boundary: boundary.to_vec(), generations: Some(generations) });
    }
    let mut wants = Vec::new();
    for id in boundary {
        for parent in objects.parents(id)? {
            if !haves.contains(&parent) && !wants.contains(&parent) {
                wants.push(parent);
            }
        }
    }
    Ok(HistoryPart::Between { wants, haves })
}
