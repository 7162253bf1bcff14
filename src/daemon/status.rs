//! What the daemon tells of its workspaces.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::history_at_rest;
use super::protocol::{Answer, Failure, FailureClass, Wait, WaitKind, WorkspaceStatus};
use super::workspace::Live;
use super::{Daemon, worktree};
use crate::git::fsmonitor::Token;
use crate::hydrate::queue::Class;
use crate::hydrate::{Awaited, Hydrator, Place};
use crate::index::census::Census;
use crate::index::overlay::changes::{Changed, Point};
use crate::index::{IndexError, walk};
use crate::metrics::Snapshot;
use crate::store::{Repository, Store, StoreError, Workspace, WorkspaceState};

/// Workspaces of more files are counted when they are mounted, and those of fewer when somebody asks: in a third of a second.
const COUNTED_AHEAD: u64 = 200_000;

/// Longest wait for the count of the latter, on a slow machine.
const COUNTING_LIMIT: Duration = Duration::from_secs(20);

/// Longest wait for the count of the former: whoever asks is told that it goes on.
const BRIEFLY: Duration = Duration::from_millis(50);

impl Daemon {
    /// Every workspace that is known, mounted or not, by name; without counting what is cached.
    pub fn list(&self) -> Result<Vec<WorkspaceStatus>, Failure> {
        let known = self.store.workspaces()?;
        let repositories = self.store.repositories()?;
        let mut rows: Vec<WorkspaceStatus> = Vec::new();
        let live = self.all();
        for row in known {
            if !live.iter().any(|live| live.row().id == row.id) {
                let row = Workspace { state: WorkspaceState::Unmounted, ..row };
                rows.push(describe(&self.store, &row, &repositories)?);
            }
        }
        for live in live {
            let row = Workspace { state: live.state(), ..live.row() };
            rows.push(describe(&self.store, &row, &repositories)?);
        }
        rows.sort_by(|a, b| a.workspace.cmp(&b.workspace));
        Ok(rows)
    }

    /// One workspace with everything, or all of them.
    pub fn status(&self, target: Option<&str>) -> Result<Vec<WorkspaceStatus>, Failure> {
        let Some(target) = target else {
            let mut rows = self.list()?;
            for live in self.all() {
                let full = self.status_of(&live)?;
                if let Some(row) = rows.iter_mut().find(|row| row.workspace == full.workspace) {
                    *row = full;
                }
            }
            return Ok(rows);
        };
        match self.find(target) {
            Ok(live) => Ok(vec![self.status_of(&live)?]),
            Err(failure) => {
                // Known, but not mounted.
                let path = super::mounting::canonical(std::path::Path::new(target));
                let row = self.list()?.into_iter().find(|row| row.workspace == target || row.path == path);
                row.map(|row| vec![row]).ok_or(failure)
            }
        }
    }

    /// Everything about one live workspace.
    pub(super) fn status_of(&self, live: &Live) -> Result<WorkspaceStatus, Failure> {
        let repositories = self.store.repositories()?;
        let row = Workspace { state: live.state(), ..live.row() };
        let mut status = describe(&self.store, &row, &repositories)?;
        if let Some(repository) = repositories.iter().find(|repository| repository.id == row.repository) {
            status.history = self.history_status(repository);
        }
        if let Some(shown) = live.shown() {
            let tree = shown.view.generation().tree.0;
            // What was read a moment ago is to be counted.
            shown.hydrator.settle_for_a_look();
            if let Err(failure) = self.settle(live) {
                // More is counted then than Git would find.
                tracing::warn!(workspace = row.name, "local changes are not compared with the base: {failure}");
            }
            // HEAD may have been followed meanwhile.
            let shown = live.shown().unwrap_or(shown);
            status.overlay_entries = shown.overlay.count(&shown.view, live.fs().inodes())?;
            let limit = if status.files > COUNTED_AHEAD { BRIEFLY } else { COUNTING_LIMIT };
            let here = self.census(live, tree).here(limit);
            (status.hydrated_objects, status.hydrated_bytes) = (here.objects, here.bytes);
            status.counting = !here.whole;
            let (queued, sent) = shown.hydrator.backlog();
            status.queue_depth = queued as u64;
            status.inflight_objects = sent as u64;
            status.offline = row.offline || shown.hydrator.offline();
            status.last_error = status.last_error.or_else(|| shown.hydrator.last_error().map(|error| error.message));
        }
        Ok(status)
    }

    /// What was read a moment ago is in the store then.
    pub(super) fn settle_for_a_look(&self) {
        let hydrators: Vec<_> = self.hydrators.lock().values().cloned().collect();
        hydrators.iter().for_each(Hydrator::settle_for_a_look);
    }

    /// What of `tree`, which `live` shows, is in the cache. Counting begins when it is asked for first.
    pub(super) fn census(&self, live: &Live, tree: gix::ObjectId) -> Arc<Census> {
        let census = live.census(&self.store, tree);
        if census.begin() {
            let (counted, store) = (Arc::clone(&census), self.store.clone());
            self.runtime.spawn_blocking(move || {
                if let Err(error) = counted.count(&store) {
                    tracing::warn!("counting what is cached: {error}");
                }
            });
        }
        census
    }

    /// Begins to count what is cached of a workspace that is too large to be counted while somebody waits.
    pub(super) fn count_ahead(&self, live: &Live) {
        if let Some(generation) = live.shown().map(|shown| shown.view.generation().clone())
            && generation.files > COUNTED_AHEAD
        {
            drop(self.census(live, generation.tree.0));
        }
    }

    /// Everyone who waits for an object.
    pub(super) fn waits(&self) -> Vec<Wait> {
        let now = Instant::now();
        let live = self.all();
        let hydrators: Vec<_> = self.hydrators.lock().values().cloned().collect();
        let mut waits: Vec<Wait> = hydrators
            .iter()
            .flat_map(Hydrator::waiting)
            .map(|waiting| {
                let path = String::from_utf8_lossy(&waiting.path).into_owned();
                let (kind, oid) = match waiting.awaited {
                    Awaited::Object(id) => (WaitKind::Object, id.to_string()),
                    Awaited::Sizes(_) => (WaitKind::Sizes, String::new()),
                    Awaited::Warm(_) => (WaitKind::Warm, String::new()),
                };
                // A warm is called by its path and what it selects.
                let place = if kind == WaitKind::Warm { path.split(": ").next().unwrap_or_default() } else { &path };
                let owner = live.iter().find(|live| std::path::Path::new(place).starts_with(live.path()));
                Wait {
                    kind,
                    workspace: owner.map_or_else(String::new, |live| live.row().name),
                    oid,
                    path,
                    waited_ms: u64::try_from(now.duration_since(waiting.since).as_millis()).unwrap_or(u64::MAX),
                    behind: match waiting.place {
                        Place::Queued => "queued".into(),
                        Place::Sent { batch, connection } => format!("batch {batch} on connection {connection}"),
                    },
                    retries: waiting.retries,
                }
            })
            .collect();
        waits.extend(self.warm_waits(&live));
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.waited_ms));
        waits
    }

    /// All metrics as text, with those that are only counted when somebody asks. Reads the store and asks its disk.
    pub(super) fn rendered_metrics(&self) -> String {
        let hydrators: Vec<Hydrator> = self.hydrators.lock().values().cloned().collect();
        let mut now = Snapshot {
            queue_objects: Class::ALL.iter().map(|class| (class.as_str(), 0)).chain([("warm", 0)]).collect(),
            waiters: self.waits().len(),
            tasks: self.runtime.metrics().num_alive_tasks(),
            mounts: self.all().len(),
            workspaces: self.workspaces_by_state(),
            remotes_offline: hydrators.iter().filter(|hydrator| hydrator.offline()).count(),
            cache_limit_bytes: self.quota.max_size(),
            disk_free_bytes: rustix::fs::statvfs(&self.config.home)
                .map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            damaged: self.store.damaged(),
            fetch_records_lost: self.store.fetches_lost(),
            ..Snapshot::default()
        };
        for hydrator in &hydrators {
            let load = hydrator.load();
            now.inflight_objects += load.sent + load.bulk_sent;
            // Whole windows of warms are queued apart from the classes.
            for (sum, more) in now.queue_objects.iter_mut().zip(load.queued.into_iter().chain([load.bulk_queued])) {
                sum.1 += more;
                now.queue_depth += more;
            }
        }
        match self.store.stats() {
            Ok(stats) => {
                (now.cache_objects, now.cache_trees) = (stats.blobs, stats.trees);
                (now.cache_raw_bytes, now.cache_stored_bytes) = (stats.raw_bytes, stats.stored_bytes);
                now.cache_file_bytes = stats.file_bytes;
            }
            Err(error) => tracing::warn!("metrics: {error}"),
        }
        self.metrics.render(&now)
    }

    fn workspaces_by_state(&self) -> Vec<(&'static str, usize)> {
        const STATES: [(&str, WorkspaceState); 4] = [
            ("preparing", WorkspaceState::Preparing),
            ("ready", WorkspaceState::Ready),
            ("failed", WorkspaceState::Failed),
            ("unmounted", WorkspaceState::Unmounted),
        ];
        let live: Vec<WorkspaceState> = self.all().iter().map(|live| live.state()).collect();
        let known = self.store.workspaces().map_or_else(
            |error| {
                tracing::warn!("metrics: {error}");
                0
            },
            |rows| rows.len(),
        );
        let count = |state| live.iter().filter(|live| **live == state).count();
        let resting = |state| if state == WorkspaceState::Unmounted { known.saturating_sub(live.len()) } else { 0 };
        STATES.iter().map(|(name, state)| (*name, count(*state) + resting(*state))).collect()
    }

    /// What changed in a workspace since `token`.
    pub(super) fn changes(
        self: &Arc<Self>,
        workspace: u64,
        token: &str,
        writer: Option<u32>,
    ) -> Result<Answer, Failure> {
        let unknown =
            || Failure::new(FailureClass::NotFound, format!("no mounted workspace has the number {workspace}"));
        let live: Arc<Live> = self.by_id(workspace).ok_or_else(unknown)?;
        let shown = live.shown().ok_or_else(unknown)?;
        if let Some(pid) = writer
            && let Err(failure) = self.show_names(&live, pid)
        {
            // Git then fetches what it only wants to know about.
            tracing::warn!("names of blobs: {failure}");
        }
        // What was written through mappings reaches us when the kernel writes it back.
        write_back(&live.path());
        let generation = shown.view.generation();
        let known = Token::parse(token.as_bytes()).filter(|token| token.workspace == generation.workspace);
        let same_base = known.is_some_and(|token| token.generation == generation.generation);
        let since = known.map(|token| Point { epoch: token.epoch, sequence: token.sequence });
        let (point, changed) = shown.overlay.changed_since(&shown.view, live.fs().inodes(), since, same_base)?;
        let token = worktree::token(generation, point).to_string();
        Ok(match changed {
            Changed::Everything => Answer::Changes { token, everything: true, paths: Vec::new() },
            Changed::Paths(paths) => {
                Answer::Changes { token, everything: false, paths: paths.into_iter().map(Vec::from).collect() }
            }
        })
    }
}

/// Makes the kernel send what programs wrote through mappings of files (`mmap(2)`) and it still has.
fn write_back(mount: &std::path::Path) {
    if let Ok(root) = std::fs::File::open(mount)
        && let Err(error) = rustix::fs::syncfs(&root)
    {
        tracing::warn!("what was written through mappings may be told to Git late: {error}");
    }
}

/// What the rows alone tell of a workspace; needs no daemon.
pub fn describe(store: &Store, row: &Workspace, repositories: &[Repository]) -> Result<WorkspaceStatus, StoreError> {
    let repository = repositories.iter().find(|repository| repository.id == row.repository);
    let generation = match row.current {
        Some(current) => store.generation(row.id, current)?,
        None => None,
    };
    Ok(WorkspaceStatus {
        workspace: row.name.clone(),
        path: row.path.clone(),
        state: row.state,
        repository: repository.map_or_else(String::new, |repository| repository.url.clone()),
        rev: row.rev.clone().or_else(|| row.reference.as_deref().map(short_name)),
        commit: generation.as_ref().map(|generation| generation.commit.0.to_string()),
        generation: generation.as_ref().map(|generation| generation.generation.0),
        files: generation.as_ref().map_or(0, |generation| generation.files),
        hydrated_objects: 0,
        hydrated_bytes: 0,
        counting: false,
        overlay_entries: 0,
        queue_depth: 0,
        inflight_objects: 0,
        offline: row.offline,
        stays_offline: row.offline,
        last_error: row.last_error.clone(),
        gitdir: row.admin.clone(),
        history: history_at_rest(repository),
        last_gc: store.noted(super::gc::LAST)?,
    })
}

/// A ref as people call it.
fn short_name(reference: &str) -> String {
    let prefixes = ["refs/heads/", "refs/tags/", "refs/"];
    prefixes.iter().find_map(|prefix| reference.strip_prefix(prefix)).unwrap_or(reference).to_owned()
}

/// Distinct blobs below `tree` whose size is not known.
pub fn without_size(store: &Store, tree: gix::ObjectId) -> Result<Vec<gix::ObjectId>, IndexError> {
    let mut unknown: HashSet<gix::ObjectId> = HashSet::new();
    walk::distinct(store, tree, |listing| {
        let blobs: Vec<gix::ObjectId> =
            listing.iter().filter(|entry| entry.kind.is_blob()).map(|entry| entry.id).collect();
        let sizes = store.sizes(&blobs)?;
        unknown.extend(blobs.into_iter().zip(sizes).filter(|(_, size)| size.is_none()).map(|(id, _)| id));
        Ok::<(), IndexError>(())
    })?;
    Ok(unknown.into_iter().collect())
}
