//! What caused fetches: the records of the store, filtered and grouped.
//!
//! Groups are bounded like everything else: what is beyond is summed in one
//! row, so that the sums are always those of all records.

mod ranked;
mod timeline;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::place;
use super::{LIST_BYTES, PathText, Sources, within, within_a_line};
use crate::daemon::protocol::{Failure, rfc3339_ms};
use crate::store::{Fetch, FetchClass, Operation, WorkspaceId};
use ranked::Ranked;
pub use timeline::{Bucket, Timeline, TimelineClass};

/// Groups told of each kind at most.
const GROUPS_MAX: usize = 200;
/// Records told at most.
const ROWS_MAX: usize = 2_000;
/// Records told of those that brought most, and of those that took longest, at most.
pub const RANKED_MAX: usize = 50;
/// Groups kept while records are read; those beyond share the last row.
const GROUPS_COUNTED: usize = 65_536;
/// A directory stands for a process when it has this share of its bytes: two thirds.
const MOST: (u64, u64) = (2, 3);

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhyRequest {
    /// A workspace, or a path in one; `None`: everything.
    pub target: Option<String>,
    /// Only what arrived since, in milliseconds since 1970 UTC.
    pub since_ms: Option<i64>,
    /// Records to tell one by one, newest first.
    pub rows: usize,
    /// Components of a path by which directories are grouped.
    pub depth: usize,
    /// Records to tell of those that brought most, and as many of those that took longest; at most [`RANKED_MAX`].
    #[serde(default)]
    pub ranked: usize,
    /// Whether to tell what arrived when.
    #[serde(default)]
    pub timeline: bool,
}

/// What caused fetches: the fields of `larder why --json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhyReport {
    /// Whether fetches are recorded (setting `why.records`).
    pub recording: bool,
    /// When the oldest record was made, RFC 3339; `None`: there is none.
    pub oldest: Option<String>,
    /// Records that were not kept because too many came at once, since the daemon started.
    pub lost: u64,
    /// All that was asked about.
    pub total: Sums,
    /// By process, the most bytes first.
    pub processes: Vec<ProcessRow>,
    /// By directory, the most bytes first.
    pub directories: Vec<DirectoryRow>,
    /// By what was done.
    pub operations: Vec<OperationRow>,
    /// The newest records.
    pub rows: Vec<FetchRow>,
    /// Processes and directories that are not among them.
    pub groups_left_out: u64,
    /// The records that brought most bytes, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub biggest: Vec<FetchRow>,
    /// Those that took longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowest: Vec<FetchRow>,
    /// What arrived when, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// Sums over records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Records.
    pub fetches: u64,
    /// Objects they brought.
    pub objects: u64,
    /// Their raw bytes.
    pub bytes: u64,
    /// Of those objects, the ones somebody waited for.
    pub waited_for: u64,
    /// Microseconds that was, added up over readers.
    pub waited_us: u64,
}

impl Sums {
    pub(super) fn add(&mut self, fetch: &Fetch) {
        self.fetches += 1;
        self.objects += fetch.objects;
        self.bytes += fetch.bytes;
        if matches!(fetch.class, FetchClass::Read | FetchClass::Sizes) {
            self.waited_for += fetch.objects;
            self.waited_us = self.waited_us.saturating_add(fetch.wait_us);
        }
    }
}

/// A process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its name; empty: not known.
    pub process: String,
    /// How many processes of that name there were.
    pub pids: u64,
    /// What it brought.
    #[serde(flatten)]
    pub sums: Sums,
    /// The workspace in which most of it was; empty: in none that is known.
    pub workspace: String,
    /// The innermost directory below which at least two thirds of its bytes are.
    pub mostly_in: PathText,
}

/// A directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectoryRow {
    /// Its workspace; empty: none that is known.
    pub workspace: String,
    /// The directory; empty: the root, or everything.
    #[serde(flatten)]
    pub directory: PathText,
    /// What was brought below it.
    #[serde(flatten)]
    pub sums: Sums,
    /// The process that brought most of it.
    pub process: String,
}

/// What was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationRow {
    /// What.
    pub operation: Operation,
    /// How urgent it was.
    pub class: FetchClass,
    /// What it brought.
    #[serde(flatten)]
    pub sums: Sums,
}

/// One fetch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FetchRow {
    /// When it had arrived, RFC 3339.
    pub time: String,
    /// Its workspace; empty: none that is known.
    pub workspace: String,
    /// The path whose use caused it; the pathspecs of a warm.
    #[serde(flatten)]
    pub path: PathText,
    /// The object; `None` where it was many at once.
    pub oid: Option<String>,
    /// Who.
    pub process: String,
    /// Its process id; 0 where there is none.
    pub pid: u32,
    /// What it did.
    pub operation: Operation,
    /// How urgent it was.
    pub class: FetchClass,
    /// Objects brought.
    pub objects: u64,
    /// Their raw bytes.
    pub bytes: u64,
    /// Microseconds somebody waited; of a warm, how long its batch took.
    pub waited_us: u64,
}

impl FetchRow {
    /// A record in words.
    pub(super) fn new(fetch: &Fetch, names: &HashMap<WorkspaceId, String>) -> Self {
        Self {
            time: rfc3339_ms(fetch.at_ms),
            workspace: fetch.workspace.and_then(|id| names.get(&id).cloned()).unwrap_or_default(),
            path: PathText::from(&*fetch.path),
            oid: fetch.id.map(|id| id.0.to_string()),
            process: fetch.process.to_string(),
            pid: fetch.pid,
            operation: fetch.operation,
            class: fetch.class,
            objects: fetch.objects,
            bytes: fetch.bytes,
            waited_us: fetch.wait_us,
        }
    }
}

pub(super) fn answer(sources: &Sources<'_>, request: &WhyRequest) -> Result<WhyReport, Failure> {
    let place = request.target.as_deref().map(|target| place::within(sources.store, target)).transpose()?;
    let names = place::names(sources.store)?;
    let mut groups = Groups::by_directories(request.depth);
    let (mut rows, mut oldest) = (Vec::new(), None);
    let ranked = request.ranked.min(RANKED_MAX);
    let (mut biggest, mut slowest) = (Ranked::new(ranked), Ranked::new(ranked));
    let mut timeline = request.timeline.then(Timeline::default);
    let wanted = request.rows.min(ROWS_MAX);
    sources.store.fetches(&mut |fetch| {
        if request.since_ms.is_some_and(|since| fetch.at_ms < since) {
            // They are in the order of their arrival, or nearly so.
            return false;
        }
        if place.as_ref().is_none_or(|(row, path)| fetch.workspace == Some(row.id) && below(&fetch.path, path)) {
            oldest = Some(fetch.at_ms);
            groups.add(fetch);
            biggest.add(fetch.bytes, fetch);
            slowest.add(fetch.wait_us, fetch);
            if let Some(timeline) = &mut timeline {
                timeline.add(fetch);
            }
            if rows.len() < wanted {
                rows.push(FetchRow::new(fetch, &names));
            }
        }
        true
    })?;
    let recording = sources.daemon.is_none_or(|_| sources.store.keeps_fetches());
    let mut report = groups.report(&names);
    report.recording = recording;
    report.oldest = oldest.map(rfc3339_ms);
    report.lost = sources.store.fetches_lost();
    // The three lists of records share the room of one.
    report.biggest = within(LIST_BYTES / 3, biggest.rows(&names));
    report.slowest = within(LIST_BYTES / 3, slowest.rows(&names));
    report.rows = within(if ranked == 0 { LIST_BYTES } else { LIST_BYTES / 3 }, rows);
    report.timeline = timeline;
    Ok(report)
}

/// Whether `path` is `directory` or below it.
fn below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The directories by which a fetch is grouped: a warm names some, everything else a file in one.
fn place_of(fetch: &Fetch, depth: usize) -> &[u8] {
    let path = &fetch.path;
    if fetch.operation == Operation::Warm && !path.iter().any(|byte| b" *?[:".contains(byte)) {
        let end = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').nth(depth.saturating_sub(1));
        return end.map_or(path, |(end, _)| &path[..end]);
    }
    directory(path, depth)
}

/// The first `depth` directories of `path`, without its last component.
fn directory(path: &[u8], depth: usize) -> &[u8] {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let end = slashes.take(depth).last();
    end.map_or(&[], |end| &path[..end])
}

type Where = (Option<WorkspaceId>, Box<[u8]>);

#[derive(Default)]
struct OfProcess {
    sums: Sums,
    pids: std::collections::HashSet<u32>,
    /// Bytes by directory, whole paths.
    directories: HashMap<Where, u64>,
}

#[derive(Default)]
struct OfDirectory {
    sums: Sums,
    processes: HashMap<Box<str>, u64>,
}

/// Records, grouped.
#[derive(Default)]
pub(super) struct Groups {
    /// Components of a path by which directories are grouped.
    depth: usize,
    total: Sums,
    processes: HashMap<Box<str>, OfProcess>,
    directories: HashMap<Where, OfDirectory>,
    operations: HashMap<(Operation, FetchClass), Sums>,
    left_out: u64,
}

impl Groups {
    /// None yet; directories will be grouped by `depth` components of their path.
    pub(super) fn by_directories(depth: usize) -> Self {
        Self { depth: depth.clamp(1, 64), ..Self::default() }
    }

    pub(super) fn add(&mut self, fetch: &Fetch) {
        self.total.add(fetch);
        self.operations.entry((fetch.operation, fetch.class)).or_default().add(fetch);
        // Where nothing came but sizes, objects tell more than no bytes do.
        let weight = fetch.bytes.max(fetch.objects);
        let full = self.processes.len() >= GROUPS_COUNTED && !self.processes.contains_key(&fetch.process);
        if full {
            self.left_out += 1;
        } else {
            let process = self.processes.entry(fetch.process.clone()).or_default();
            process.sums.add(fetch);
            if process.pids.len() < GROUPS_COUNTED {
                process.pids.insert(fetch.pid);
            }
            let whole = (fetch.workspace, Box::from(place_of(fetch, usize::MAX)));
            *process.directories.entry(whole).or_default() += weight;
        }
        let key = (fetch.workspace, Box::from(place_of(fetch, self.depth)));
        if self.directories.len() >= GROUPS_COUNTED && !self.directories.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let group = self.directories.entry(key).or_default();
        group.sums.add(fetch);
        *group.processes.entry(fetch.process.clone()).or_default() += weight;
    }

    pub(super) fn report(self, names: &HashMap<WorkspaceId, String>) -> WhyReport {
        let name = |id: Option<WorkspaceId>| id.and_then(|id| names.get(&id).cloned()).unwrap_or_default();
        let mut processes: Vec<ProcessRow> = self
            .processes
            .into_iter()
            .map(|(process, group)| {
                let (workspace, directory) = mostly_in(&group.directories);
                ProcessRow {
                    process: process.into(),
                    pids: group.pids.len() as u64,
                    sums: group.sums,
                    workspace: name(workspace),
                    mostly_in: PathText::from(&*directory),
                }
            })
            .collect();
        processes.sort_by(|a, b| heavier(&a.sums, &b.sums).then_with(|| a.process.cmp(&b.process)));
        let mut directories: Vec<DirectoryRow> = self
            .directories
            .into_iter()
            .map(|((workspace, directory), group)| DirectoryRow {
                workspace: name(workspace),
                directory: PathText::from(&*directory),
                sums: group.sums,
                process: most(group.processes),
            })
            .collect();
        directories.sort_by(|a, b| heavier(&a.sums, &b.sums).then_with(|| a.directory.path.cmp(&b.directory.path)));
        let mut operations: Vec<OperationRow> = self
            .operations
            .into_iter()
            .map(|((operation, class), sums)| OperationRow { operation, class, sums })
            .collect();
        operations.sort_by(|a, b| {
            heavier(&a.sums, &b.sums).then_with(|| (a.operation, a.class).cmp(&(b.operation, b.class)))
        });
        let beyond = |len: usize| len.saturating_sub(GROUPS_MAX) as u64;
        let groups_left_out = self.left_out + beyond(processes.len()) + beyond(directories.len());
        processes.truncate(GROUPS_MAX);
        directories.truncate(GROUPS_MAX);
        WhyReport {
            total: self.total,
            processes: within_a_line(processes),
            directories: within_a_line(directories),
            operations,
            groups_left_out,
            ..WhyReport::default()
        }
    }
}

fn heavier(a: &Sums, b: &Sums) -> std::cmp::Ordering {
    (b.bytes, b.objects, b.fetches).cmp(&(a.bytes, a.objects, a.fetches))
}

fn most(weights: HashMap<Box<str>, u64>) -> String {
    let heaviest = weights.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)));
    heaviest.map(|(name, _)| name.into()).unwrap_or_default()
}

/// The innermost directory that has most of the weight.
fn mostly_in(weights: &HashMap<Where, u64>) -> (Option<WorkspaceId>, Vec<u8>) {
    let mut workspaces: HashMap<Option<WorkspaceId>, u64> = HashMap::new();
    for ((workspace, _), weight) in weights {
        *workspaces.entry(*workspace).or_default() += weight;
    }
    let total: u64 = workspaces.values().sum();
    let Some((workspace, _)) = workspaces.into_iter().max_by_key(|(_, weight)| *weight) else {
        return (None, Vec::new());
    };
    let mut found: Vec<u8> = Vec::new();
    loop {
        let mut below_it: HashMap<&[u8], u64> = HashMap::new();
        for ((of, path), weight) in weights {
            if *of != workspace || !below(path, &found) {
                continue;
            }
            let from = if found.is_empty() { 0 } else { found.len() + 1 };
            let Some(rest) = path.get(from..).filter(|rest| !rest.is_empty()) else { continue };
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
            *below_it.entry(name).or_default() += weight;
        }
        match below_it.into_iter().max_by_key(|(_, weight)| *weight) {
            Some((name, weight)) if weight.saturating_mul(MOST.1) >= total.saturating_mul(MOST.0) && weight > 0 => {
                if !found.is_empty() {
                    found.push(b'/');
                }
                found.extend_from_slice(name);
            }
            _ => return (workspace, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn fetch(process: &str, path: &str, bytes: u64) -> Fetch {
        Fetch {
            at_ms: 0,
            workspace: Some(WorkspaceId(1)),
            id: None,
            path: Box::from(path.as_bytes()),
            process: process.into(),
            pid: 1,
            operation: Operation::Read,
            class: FetchClass::Read,
            objects: 1,
            bytes,
            wait_us: 10,
        }
    }

    #[test]
    fn a_process_is_told_with_the_directory_it_read_most_of() {
        let mut groups = Groups { depth: 1, ..Groups::default() };
        for number in 0..9 {
            groups.add(&fetch("indexer", &format!("third_party/lib/{number}.c"), 100));
        }
        groups.add(&fetch("indexer", "src/a.c", 100));
        groups.add(&fetch("cat", "README", 5));
        let report = groups.report(&HashMap::from([(WorkspaceId(1), "w".to_owned())]));
        assert_eq!(report.total.bytes, 1_005);
        let first = &report.processes[0];
        assert_eq!((first.process.as_str(), first.mostly_in.path.as_str()), ("indexer", "third_party/lib"));
        assert_eq!((first.sums.bytes, first.workspace.as_str()), (1_000, "w"));
        let told: Vec<_> = report.directories.iter().map(|row| (row.directory.path.as_str(), row.sums.bytes)).collect();
        assert_eq!(told, [("third_party", 900), ("src", 100), ("", 5)]);
        assert_eq!(report.directories[0].process, "indexer");
    }

    #[test]
    fn a_warm_is_grouped_by_what_it_names() {
        let warm = |path: &str| Fetch { operation: Operation::Warm, ..fetch("larder warm", path, 1) };
        for (path, depth, place) in
            [("drivers/net", 1, "drivers"), ("drivers/net", 2, "drivers/net"), ("a b", 2, ""), ("", 2, "")]
        {
            assert_eq!(place_of(&warm(path), depth), place.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_directory_contains_itself_and_no_namesake() {
        assert!(below(b"a/b", b"a") && below(b"a", b"a") && below(b"a", b""));
        assert!(!below(b"ab", b"a") && !below(b"b/a", b"a"));
        assert_eq!(directory(b"a/b/c.txt", 1), b"a");
        assert_eq!(directory(b"a/b/c.txt", 9), b"a/b");
        assert_eq!(directory(b"c.txt", 2), b"");
    }
}
