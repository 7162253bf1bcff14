//! What goes on now.
//!
//! Counts that only grow, so that whoever asks twice knows what happened in
//! between, and what is queued and waited for at this moment. Everything told
//! is counted as it happens or bounded by a constant, so asking costs a
//! millisecond or two, whatever is under way. Refuses to answer without a
//! daemon: then nothing goes on.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::why::{DirectoryRow, Groups, ProcessRow, Sums};
use super::{Sources, within_a_line};
use crate::daemon::Daemon;
use crate::daemon::protocol::{Failure, FailureClass, Wait, rfc3339_ms};
use crate::hydrate::{Class, Hydrator, Load};
use crate::metrics::Latency;
use crate::store::{WorkspaceId, WorkspaceState};

/// Records of fetches looked at: what a fast link brings in some seconds. With more the window is shorter, and told so.
const RECORDS_MAX: usize = 4_096;
/// Waiters, processes and directories told of: as many as a screen shows, and all three fit a line of the socket with
/// paths of any bytes.
const ROWS_MAX: usize = 32;
/// Bytes of a path told of waiters and warms; pathspecs may be as long as a request.
const PATH_MAX: usize = 1_024;
/// Workspaces told of.
const WORKSPACES_MAX: usize = 256;
/// Longest time to look back for who is busy.
const WINDOW_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopRequest {
    /// The name of a workspace: of waiters, warms, processes and directories, only those in it.
    pub workspace: Option<String>,
    /// How far to look back for who is busy, in milliseconds.
    pub window_ms: u64,
    /// Components of a path by which directories are grouped.
    pub depth: usize,
}

/// What is answered: the fields of `larder top --json`, which adds `rates`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopReport {
    /// When, RFC 3339.
    pub time: String,
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its home.
    pub home: String,
    /// Milliseconds since it started: by this clock two answers are compared.
    pub uptime_ms: u64,
    /// What happened since then.
    pub counters: Counters,
    /// How long reads took, since then.
    pub reads: Vec<Bucket>,
    /// How long readers waited for an object, since then.
    pub hydrations: Vec<Bucket>,
    /// What is queued and on its way.
    pub queue: QueueLengths,
    /// How many wait.
    pub waiters: u64,
    /// Those who have waited longest.
    pub waits: Vec<Wait>,
    /// Warms under way, the oldest first.
    pub warms: Vec<WarmRow>,
    /// The workspaces that are mounted, by name.
    pub workspaces: Vec<WorkspaceRow>,
    /// Milliseconds that processes, directories and what workspaces fetched are about.
    pub window_ms: u64,
    /// Whether fetches are recorded (setting `why.records`); else nothing is known of those.
    pub recording: bool,
    /// What was fetched in the window.
    pub fetched: Sums,
    /// By process, the most bytes first.
    pub processes: Vec<ProcessRow>,
    /// By directory, the most bytes first.
    pub directories: Vec<DirectoryRow>,
}

/// What happened since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Reads answered from the cache.
    pub hits: u64,
    /// Reads that waited for a remote.
    pub misses: u64,
    /// Requests sent to remotes.
    pub remote_requests: u64,
    /// Objects received and verified.
    pub remote_objects: u64,
    /// Their raw bytes.
    pub remote_bytes: u64,
    /// Requests that failed, retried ones included.
    pub remote_failures: u64,
    /// Objects taken out to make room.
    pub evicted_objects: u64,
    /// Bytes they took as stored.
    pub evicted_bytes: u64,
    /// Cached objects dropped because their checksum was wrong.
    pub damaged: u64,
}

/// How many took less than a time, and no less than the bucket before says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// All took less than so many microseconds; `None`: longer than any bound.
    pub below_us: Option<u64>,
    /// How many.
    pub count: u64,
}

/// What is queued, by class, and what is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLengths {
    /// Wants that somebody waits for.
    pub read: u64,
    /// What lies beside them.
    pub sibling: u64,
    /// Prefetch of manifests.
    pub manifest: u64,
    /// Prefetch of source code.
    pub source: u64,
    /// Prefetch of other text.
    pub text: u64,
    /// Prefetch of what is large or binary.
    pub last: u64,
    /// Objects of warms.
    pub bulk: u64,
    /// Objects on connections, those of warms apart.
    pub inflight: u64,
    /// Objects of warms on connections.
    pub bulk_inflight: u64,
    /// Raw bytes that arrived and are not stored yet.
    pub unsaved_bytes: u64,
}

impl QueueLengths {
    /// What is queued, by the name of its class.
    pub fn queued(&self) -> [(&'static str, u64); 7] {
        [
            ("read", self.read),
            ("sibling", self.sibling),
            ("manifest", self.manifest),
            ("source", self.source),
            ("text", self.text),
            ("last", self.last),
            ("bulk", self.bulk),
        ]
    }

    fn add(&mut self, load: &Load) {
        for class in Class::ALL {
            let length = match class {
                Class::Read => &mut self.read,
                Class::Sibling => &mut self.sibling,
                Class::Manifest => &mut self.manifest,
                Class::Source => &mut self.source,
                Class::Text => &mut self.text,
                Class::Last => &mut self.last,
            };
            *length += load.queued[class as usize] as u64;
        }
        self.bulk += load.bulk_queued as u64;
        self.inflight += load.sent as u64;
        self.bulk_inflight += load.bulk_sent as u64;
        self.unsaved_bytes += load.unsaved_bytes;
    }
}

/// A warm under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmRow {
    /// Its workspace; empty: one that was just unmounted.
    pub workspace: String,
    /// Its mount path and what it selects, lossy.
    pub path: String,
    /// Milliseconds it has run.
    pub running_ms: u64,
    /// Objects it selects that are here.
    pub objects: u64,
    /// Raw bytes it fetched.
    pub bytes: u64,
    /// Objects it selects, once that is known.
    pub total_objects: Option<u64>,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceRow {
    /// Its name.
    pub workspace: String,
    /// Its state.
    pub state: WorkspaceState,
    /// Whether its remote is out of reach, or is not to be asked.
    pub offline: bool,
    /// Reads answered from the cache, since it was mounted.
    pub hits: u64,
    /// Reads that waited for a remote, since it was mounted.
    pub misses: u64,
    /// What was fetched for it in the window.
    pub fetched: Sums,
}

pub(super) fn answer(sources: &Sources<'_>, request: &TopRequest) -> Result<TopReport, Failure> {
    let Some(daemon) = sources.daemon else {
        return Err(Failure::new(FailureClass::NotFound, "cannot watch what goes on: no daemon is running")
            .hint("start it with `larder daemon`"));
    };
    let mut report = now(daemon);
    let live = daemon.all();
    let names: HashMap<WorkspaceId, String> = live
        .iter()
        .map(|live| {
            let row = live.row();
            (row.id, row.name)
        })
        .collect();
    let only = request.workspace.as_deref();
    let is_meant = |name: &str| only.is_none_or(|only| only == name);

    let mut waits = daemon.waits();
    waits.retain(|wait| is_meant(&wait.workspace));
    report.waiters = waits.len() as u64;
    waits.truncate(ROWS_MAX);
    for wait in &mut waits {
        cut(&mut wait.path);
    }
    report.waits = within_a_line(waits);
    for (workspace, mut path, running, progress) in daemon.warms.under_way() {
        let workspace = names.get(&workspace).cloned().unwrap_or_default();
        if is_meant(&workspace) {
            cut(&mut path);
            let running_ms = milliseconds(running);
            let (objects, bytes, total_objects) = (progress.objects, progress.bytes, progress.total_objects);
            report.warms.push(WarmRow { workspace, path, running_ms, objects, bytes, total_objects });
        }
    }

    let fetched = busy(sources, request, &names, &mut report)?;
    for live in live {
        let row = live.row();
        let (hits, misses) = live.fs().hits_and_misses();
        report.workspaces.push(WorkspaceRow {
            fetched: fetched.get(&row.id).copied().unwrap_or_default(),
            workspace: row.name,
            state: live.state(),
            offline: row.offline || live.shown().is_some_and(|shown| shown.hydrator.offline()),
            hits,
            misses,
        });
    }
    report.workspaces.sort_by(|a, b| a.workspace.cmp(&b.workspace));
    report.workspaces.truncate(WORKSPACES_MAX);
    Ok(report)
}

/// What the daemon counts anyway.
fn now(daemon: &Daemon) -> TopReport {
    let metrics = &daemon.metrics;
    let mut queue = QueueLengths::default();
    let loads: Vec<Load> = daemon.hydrators.lock().values().map(Hydrator::load).collect();
    for load in &loads {
        queue.add(load);
    }
    TopReport {
        time: rfc3339_ms(now_ms()),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        home: daemon.config.home.display().to_string(),
        uptime_ms: milliseconds(daemon.started.elapsed()),
        counters: Counters {
            hits: metrics.hits.get(),
            misses: metrics.misses.get(),
            remote_requests: metrics.remote_requests.get(),
            remote_objects: metrics.remote_objects.get(),
            remote_bytes: metrics.remote_bytes.get(),
            remote_failures: metrics.remote_failures.get(),
            evicted_objects: metrics.evicted_objects.get(),
            evicted_bytes: metrics.evicted_bytes.get(),
            damaged: daemon.store.damaged(),
        },
        reads: buckets(&metrics.read_seconds),
        hydrations: buckets(&metrics.hydration_seconds),
        queue,
        ..TopReport::default()
    }
}

/// Who fetched in the window: fills in processes and directories, and says what was fetched for each workspace.
fn busy(
    sources: &Sources<'_>,
    request: &TopRequest,
    names: &HashMap<WorkspaceId, String>,
    report: &mut TopReport,
) -> Result<HashMap<WorkspaceId, Sums>, Failure> {
    let window = request.window_ms.min(WINDOW_MAX_MS);
    let now = now_ms();
    let since = now.saturating_sub(i64::try_from(window).unwrap_or(i64::MAX));
    let only = request.workspace.as_deref();
    let mut groups = Groups::by_directories(request.depth);
    let mut fetched: HashMap<WorkspaceId, Sums> = HashMap::new();
    report.window_ms = window;
    let mut records = 0;
    sources.store.fetches(&mut |fetch| {
        if fetch.at_ms < since {
            return false;
        }
        records += 1;
        if records > RECORDS_MAX {
            report.window_ms = u64::try_from(now - fetch.at_ms).unwrap_or(0);
            return false;
        }
        if let Some(id) = fetch.workspace {
            fetched.entry(id).or_default().add(fetch);
        }
        let of = fetch.workspace.and_then(|id| names.get(&id));
        if only.is_none() || only == of.map(String::as_str) {
            groups.add(fetch);
        }
        true
    })?;
    let mut told = groups.report(names);
    told.processes.truncate(ROWS_MAX);
    told.directories.truncate(ROWS_MAX);
    report.recording = sources.store.keeps_fetches();
    (report.fetched, report.processes, report.directories) = (told.total, told.processes, told.directories);
    Ok(fetched)
}

/// Cuts a path that is too long to be told.
fn cut(path: &mut String) {
    path.truncate(path.floor_char_boundary(PATH_MAX));
}

fn buckets(latency: &Latency) -> Vec<Bucket> {
    latency.counts().map(|(below_us, count)| Bucket { below_us, count }).collect()
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_add_up_by_class() {
        let mut queue = QueueLengths::default();
        let load = Load { queued: [1, 2, 3, 4, 5, 6], bulk_queued: 7, sent: 8, bulk_sent: 9, unsaved_bytes: 10 };
        queue.add(&load);
        queue.add(&load);
        let told = [queue.read, queue.sibling, queue.manifest, queue.source, queue.text, queue.last, queue.bulk];
        assert_eq!(told, [2, 4, 6, 8, 10, 12, 14]);
        assert_eq!((queue.inflight, queue.bulk_inflight, queue.unsaved_bytes), (16, 18, 20));
    }
}
