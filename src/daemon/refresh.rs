//! `larder refresh`: the remote's refs, as `git fetch` would have them, and the trees one will switch to.
//!
//! Only fetches: neither a workspace nor a local branch is moved, clean or
//! not. Trees are brought in for the branches that workspaces are on, so that
//! switching to what was fetched needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::ObjectId;

use super::Daemon;
use super::bring_changed::{self, Lazy};
use super::prepare::{self, Attempt};
use super::protocol::{Answer, Failure, FailureClass, RefreshReport, RefreshRequest, UpdatedRef};
use super::workspace::Live;
use crate::git::gitdir::{self, Objects, REMOTE, Refspec};
use crate::git::remote::GitConnection;
use crate::store::{Repository, RepositoryId, WorkspaceState};

/// Commits asked for in one request.
const WANTS_MAX: usize = 10_000;

/// Pause after a refresh that failed, at least; doubles with each failure up to an hour.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// A remote that is away is asked at least this often.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

impl Daemon {
    /// `larder refresh`.
    pub(super) fn refresh(self: &Arc<Self>, request: &RefreshRequest) -> Result<Answer, Failure> {
        let lives = match &request.target {
            Some(target) => vec![self.find(target)?],
            None => self.all(),
        };
        let mut done: BTreeSet<RepositoryId> = BTreeSet::new();
        let mut reports = Vec::new();
        let (offline, lives): (Vec<_>, Vec<_>) = lives.into_iter().partition(|live| live.row().offline);
        if let (Some(live), true) = (offline.first(), lives.is_empty()) {
            let text = format!("{} is mounted with --offline: nothing was fetched", live.row().name);
            return Err(Failure::new(FailureClass::Refused, text).hint("unmount it, and mount it without --offline"));
        }
        for live in lives.iter().filter(|live| live.row().state == WorkspaceState::Ready) {
            if done.insert(live.row().repository) {
                reports.push(self.refresh_repository(live, &request.environment)?);
                self.start_history(live, request.environment.clone());
            }
        }
        if reports.is_empty() {
            let text = request.target.as_deref().unwrap_or("any workspace").to_owned();
            return Err(Failure::new(FailureClass::Refused, format!("{text} is not ready"))
                .hint("`larder status` shows what is mounted"));
        }
        Ok(Answer::Refreshed(reports))
    }

    #[tracing::instrument(level = "error", name = "refreshing", skip_all, fields(workspace = live.row().name))]
    fn refresh_repository(&self, live: &Live, environment: &[(String, String)]) -> Result<RefreshReport, Failure> {
        let begun = Instant::now();
        let repository = self.repository_of(live)?;
        let mut job = self.job_of(live)?;
        job.environment = environment.to_vec();
        let _turn = self.turn(&job.url);
        let updated = prepare::retried(self, live, || self.fetch_refs(live, &repository, &job))?;
        tracing::info!(repository = repository.url, refs = updated.len(), "refreshed");
        Ok(RefreshReport { repository: repository.url, updated, seconds: begun.elapsed().as_secs_f64() })
    }

    fn fetch_refs(&self, live: &Live, repository: &Repository, job: &prepare::Job) -> Result<Vec<UpdatedRef>, Attempt> {
        let common = &repository.gitdir;
        let specs = gitdir::fetch_refspecs(common).map_err(Failure::from)?;
        let open = || prepare::remote(self, job).open();
        let mut remote = Lazy::new(&open);
        let connection = remote.get()?;
        let mut prefixes: Vec<&str> = specs.iter().map(Refspec::prefix).collect();
        prefixes.push("refs/tags/");
        let listed = connection.list_refs(&prefixes)?;
        let mut moved: BTreeMap<String, (Option<ObjectId>, ObjectId)> = BTreeMap::new();
        for found in &listed {
            let Some(spec) = specs.iter().find(|spec| spec.local(&found.name).is_some()) else { continue };
            let Some(local) = spec.local(&found.name).filter(|local| may_set(local)) else { continue };
            let before = gitdir::read_ref(common, &local).map_err(Failure::from)?;
            if before == Some(found.id) {
                continue;
            }
            if before.is_some() && !spec.force {
                tracing::warn!(
                    name = local,
                    "not moved: its refspec allows only fast-forwards, which are left to `git fetch`"
                );
                continue;
            }
            moved.insert(local, (before, found.id));
        }
        let wants = Self::absent(repository, connection, moved.values().map(|(_, id)| *id))?;
        for some in wants.chunks(WANTS_MAX) {
            self.fetch_commits(live, repository, some.to_vec(), connection)?;
        }
        self.follow_tags(live, repository, &listed, &mut moved, connection)?;
        self.bring_used(repository, &moved, &mut remote)?;
        for (name, (_, id)) in &moved {
            gitdir::set_ref(common, name, *id).map_err(Failure::from)?;
        }
        Ok(moved
            .into_iter()
            .map(|(name, (from, to))| UpdatedRef { name, from: from.map(|id| id.to_string()), to: to.to_string() })
            .collect())
    }

    fn absent(
        repository: &Repository,
        connection: &GitConnection,
        ids: impl Iterator<Item = ObjectId>,
    ) -> Result<Vec<ObjectId>, Failure> {
        let objects = Objects::open(&repository.gitdir, connection.object_hash())?;
        let mut absent = Vec::new();
        for id in ids.collect::<BTreeSet<_>>() {
            if !objects.contains(&id)? {
                absent.push(id);
            }
        }
        Ok(absent)
    }

    /// Trees of the new tips of branches that workspaces of this repository are on.
    fn bring_used(
        &self,
        repository: &Repository,
        moved: &BTreeMap<String, (Option<ObjectId>, ObjectId)>,
        remote: &mut Lazy<'_>,
    ) -> Result<(), Failure> {
        for live in self.all() {
            let row = live.row();
            let (Some(admin), Some(current)) = (&row.admin, row.current) else { continue };
            if row.repository != repository.id {
                continue;
            }
            let head = gitdir::read_head(&repository.gitdir, admin)?;
            let Some(name) = head.branch.as_deref().and_then(|name| name.strip_prefix("refs/heads/")) else { continue };
            let Some((_, tip)) = moved.get(&format!("refs/remotes/{REMOTE}/{name}")) else { continue };
            let Some(record) = self.store.generation(row.id, current)? else { continue };
            bring_changed::commit(self, repository, &record, *tip, remote)?;
        }
        Ok(())
    }

    /// Tags that are not here and whose commits are: `git fetch` takes them along.
    fn follow_tags(
        &self,
        live: &Live,
        repository: &Repository,
        listed: &[crate::git::fetch_tips::RemoteRef],
        moved: &mut BTreeMap<String, (Option<ObjectId>, ObjectId)>,
        connection: &mut GitConnection,
    ) -> Result<(), Attempt> {
        let objects = Objects::open(&repository.gitdir, connection.object_hash()).map_err(Failure::from)?;
        let mut wants = Vec::new();
        for tag in listed.iter().filter(|found| found.name.starts_with("refs/tags/")) {
            let here = objects.contains(&tag.peeled.unwrap_or(tag.id)).map_err(Failure::from)?;
            if !here || gitdir::read_ref(&repository.gitdir, &tag.name).map_err(Failure::from)?.is_some() {
                continue;
            }
            if !objects.contains(&tag.id).map_err(Failure::from)? {
                wants.push(tag.id);
            }
            moved.entry(tag.name.clone()).or_insert((None, tag.id));
        }
        for some in wants.chunks(WANTS_MAX) {
            self.fetch_commits(live, repository, some.to_vec(), connection)?;
        }
        Ok(())
    }

    /// Refreshes the workspace's repository again and again, as its row asks for, until the task is dropped.
    pub(super) async fn refresh_regularly(self: Arc<Self>, live: Arc<Live>) {
        let mut failures = 0_u32;
        loop {
            let row = live.row();
            let Some(seconds) = row.refresh_seconds.filter(|_| !row.offline) else { return };
            let period = Duration::from_secs(seconds.max(1));
            let pause = match failures {
                0 => period,
                _ => period.max(FIRST_PAUSE * 2_u32.saturating_pow(failures - 1)).min(LONGEST_PAUSE.max(period)),
            };
            tokio::time::sleep(with_jitter(pause, live.row().id.0)).await;
            let (daemon, refreshed) = (Arc::clone(&self), Arc::clone(&live));
            let outcome = super::lifecycle::blocking(move || {
                let report = daemon.refresh_repository(&refreshed, &[])?;
                daemon.start_history(&refreshed, Vec::new());
                Ok(report)
            })
            .await;
            failures = match outcome {
                Ok(_) => 0,
                Err(failure) => {
                    tracing::warn!(workspace = live.row().name, "refresh: {failure}");
                    failures.saturating_add(1)
                }
            };
        }
    }
}

/// Refs that belong to the remote; a mirror's refspecs would move the user's own branches.
fn may_set(name: &str) -> bool {
    name.starts_with("refs/remotes/") || name.starts_with("refs/tags/")
}

/// `pause`, up to a tenth longer, so that many workspaces do not ask at once.
fn with_jitter(pause: Duration, seed: u64) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::from(since.subsec_nanos()));
    let parts = (nanos ^ seed.wrapping_mul(0x9e37_79b9)) % 1000;
    pause + pause.mul_f64(f64::from(u32::try_from(parts).unwrap_or(0)) / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth_at_most_and_only_remote_refs_are_set() {
        let pause = Duration::from_secs(100);
        for seed in 0..50 {
            let with = with_jitter(pause, seed);
            assert!(with >= pause && with <= pause.mul_f64(1.1), "{with:?}");
        }
        assert!(may_set("refs/remotes/origin/x") && may_set("refs/tags/x") && !may_set("refs/heads/x"));
    }
}
