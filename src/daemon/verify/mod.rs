//! `larder verify`: every stored byte against its checksum and object id, and the tables against each other.
//!
//! [`check`] only looks, and is the same with and without a daemon; `mend` fetches again what is damaged and needs one.
//! `watching` counts and bounds the rate, `names` finds who names an object, `locals` looks at local changes. Invariants:
//!
//! * Without `--repair` nothing is changed.
//! * What people made is never repaired by removing it.
//! * A report fits a line of the control socket, however much is broken.

mod locals;
mod mend;
mod names;
mod watching;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gix::ObjectId;
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::Daemon;
use super::facts::Sources;
use super::lifecycle::blocking;
use super::protocol::{Answer, Failure, FailureClass, Progress};
use super::server;
use crate::git::gitdir::Objects;
use crate::store::verify::{Key, Orphans, Problem, Subject, TABLES, Watch as _};
use crate::store::{Listing, Look, RepositoryId, StoreError, StoreErrorKind, WorkspaceId, listing_from_git};
pub use watching::Watching;

/// Rows in a report.
const ROWS_TOLD: usize = 1000;

/// Bytes of them, about: with the rest they fit a line of the protocol.
const ROW_BYTES: usize = 640 << 10;

/// Notes in a report.
const NOTES_TOLD: usize = 50;

/// Bytes of a note or of a problem.
const TEXT_BYTES: usize = 1000;

/// Threads that check at most: beyond it the disk is the limit.
const THREADS_MAX: usize = 16;

/// What is to be checked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Fetch again what is damaged.
    pub repair: bool,
    /// Bytes read a second at most; 0: as many as can be; `None`: as the settings say while something is mounted.
    #[serde(default)]
    pub rate: Option<u64>,
}

/// What was found: the fields of `larder verify --json` (CLI.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Blobs and trees checked.
    pub objects_checked: u64,
    /// Their stored bytes.
    pub bytes_checked: u64,
    /// What was found damaged: objects, rows, files of local changes.
    pub corrupt: u64,
    /// How much of that was put right.
    pub repaired: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Blobs among what was found damaged.
    pub blobs: u64,
    /// Trees among it, those included that are missing.
    pub trees: u64,
    /// Tables checked.
    pub tables_checked: u64,
    /// Whether the file opens for reading alone; `None`: that was not tried, because a daemon holds it.
    pub opens_read_only: Option<bool>,
    /// Chunks of stored bytes that no blob has: a waste of room, no damage.
    pub wasted_chunks: u64,
    /// Their bytes.
    pub wasted_bytes: u64,
    /// What is damaged, as far as it fits.
    pub rows: Vec<VerifyRow>,
    /// How many more rows there are.
    pub rows_left_out: u64,
    /// What harms nobody, and what could not be looked at.
    pub notes: Vec<String>,
}

/// Something that is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRow {
    /// `blob`, `tree`, `counter`, `local` (a plain file of local changes), or the table that the row is of.
    pub kind: String,
    /// Object id, number or key.
    pub id: String,
    /// A workspace that names it.
    pub workspace: Option<String>,
    /// Its path there, lossy.
    pub path: Option<String>,
    /// The path's bytes, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
    /// What is wrong.
    pub problem: String,
    /// Whether it was put right.
    pub repaired: bool,
    /// Why it was not, where that was tried.
    pub failure: Option<String>,
}

/// Somebody who names an object.
#[derive(Clone, Debug)]
struct Name {
    workspace: String,
    repository: RepositoryId,
    offline: bool,
    path: Vec<u8>,
}

/// A problem, who names it, and what became of it.
#[derive(Clone, Debug)]
struct Damage {
    problem: Problem,
    names: Vec<Name>,
    repaired: bool,
    failure: Option<String>,
}

impl Damage {
    fn new(problem: Problem) -> Self {
        Self { problem, names: Vec::new(), repaired: false, failure: None }
    }

    fn blob(&self) -> Option<ObjectId> {
        if let Subject::Blob(id) = self.problem.subject { Some(id) } else { None }
    }

    fn tree(&self) -> Option<ObjectId> {
        if let Subject::Tree(id) = self.problem.subject { Some(id) } else { None }
    }
}

/// What a check found.
pub struct Checked {
    damages: Vec<Damage>,
    /// Problems beyond those that are kept.
    beyond: u64,
    notes: Vec<String>,
    orphans: Orphans,
    /// What workspaces are called.
    workspaces: HashMap<WorkspaceId, String>,
    objects: u64,
    bytes: u64,
    /// Whether every tree that is named could be read.
    certain: bool,
    opens_read_only: Option<bool>,
}

/// Looks at everything; changes nothing.
pub fn check(sources: &Sources<'_>, watching: &Watching<'_>) -> Result<Checked, Failure> {
    let store = sources.store;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    watching.begin("checking objects", store.count_objects()?);
    unless_corrupt(store.check_objects(threads, watching), watching)?;
    let objects = (watching.objects.load(Ordering::Relaxed), watching.bytes.load(Ordering::Relaxed));
    watching.begin("checking tables", 0);
    unless_corrupt(store.check_tables(watching), watching)?;
    watching.begin("checking local changes", 0);
    unless_corrupt(locals::check(sources, watching), watching)?;
    let (problems, beyond, mut notes) = watching.take();
    let mut damages: Vec<Damage> = problems.into_iter().map(Damage::new).collect();
    damages.retain(|damage| !(damage.problem.odd && is_written_oddly(sources, damage)));
    watching.begin("looking for what is named", 0);
    let walked = names::walk(sources, &mut damages, &|| watching.stopped());
    let walked = unless_corrupt(walked, watching)?.unwrap_or_default();
    notes.extend(walked.notes);
    let whole = !damages.iter().any(|damage| damage.blob().is_some());
    watching.begin("looking for chunks that no blob has", 0);
    let orphans = unless_corrupt(store.orphan_chunks(whole, watching), watching)?.unwrap_or_default();
    let (more, further, more_notes) = watching.take();
    damages.extend(more.into_iter().map(Damage::new));
    notes.extend(more_notes);
    if watching.stopped() {
        return Err(cancelled());
    }
    let opens_read_only = sources.daemon.is_none().then_some(true);
    if opens_read_only.is_none() {
        notes.push("whether the file opens for reading alone was not tried: the daemon holds it".to_owned());
    }
    Ok(Checked {
        damages,
        beyond: beyond + further,
        notes,
        orphans,
        workspaces: store.workspaces().unwrap_or_default().into_iter().map(|row| (row.id, row.name)).collect(),
        objects: objects.0,
        bytes: objects.1,
        certain: walked.certain,
        opens_read_only,
    })
}

/// What can't be read for damage is a problem like others, and the rest is looked at all the same.
fn unless_corrupt<T, E: Into<Failure>>(outcome: Result<T, E>, watching: &Watching<'_>) -> Result<Option<T>, Failure> {
    match outcome.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.class == FailureClass::Corrupt => {
            let subject = Subject::Row { table: "file", key: Key::Words("store.redb".to_owned()) };
            watching.found(Problem::new(subject, failure.message));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// Whether a gitdir has the tree as it is stored: then its id does not follow from the listing only because the object was
/// written in a way of its own.
fn is_written_oddly(sources: &Sources<'_>, damage: &Damage) -> bool {
    let Some(id) = damage.tree() else { return false };
    let stored = sources.store.look_at_tree(&id).ok().and_then(Look::good);
    let repositories = sources.store.repositories().unwrap_or_default();
    let mut listings = repositories.iter().filter_map(|repository| from_gitdir(&repository.gitdir, &id));
    stored.is_some_and(|stored| listings.any(|listing| listing.as_bytes() == stored.as_bytes()))
}

/// The tree `id` out of a gitdir, if it is there and what its id stands for.
fn from_gitdir(gitdir: &std::path::Path, id: &ObjectId) -> Option<Listing> {
    let (kind, raw) = Objects::open(gitdir, id.kind()).ok()?.structure(id).ok()??;
    let mut hasher = gix::hash::hasher(id.kind());
    hasher.update(format!("{kind} {}\0", raw.len()).as_bytes());
    hasher.update(&raw);
    let whole = hasher.try_finalize().is_ok_and(|actual| actual == *id);
    whole.then(|| listing_from_git(id, &raw).ok()).flatten()
}

impl Checked {
    /// What is told of it.
    pub fn report(self, begun: Instant) -> VerifyReport {
        let count = |which: fn(&Damage) -> bool| self.damages.iter().filter(|damage| which(damage)).count() as u64;
        let mut report = VerifyReport {
            objects_checked: self.objects,
            bytes_checked: self.bytes,
            corrupt: self.damages.len() as u64 + self.beyond,
            repaired: count(|damage| damage.repaired),
            seconds: begun.elapsed().as_secs_f64(),
            blobs: count(|damage| damage.blob().is_some()),
            trees: count(|damage| damage.tree().is_some()),
            tables_checked: TABLES,
            opens_read_only: self.opens_read_only,
            wasted_chunks: self.orphans.chunks.len() as u64,
            wasted_bytes: self.orphans.bytes,
            ..VerifyReport::default()
        };
        let mut damages = self.damages;
        // What stays broken is what one wants to know.
        damages.sort_by_key(|damage| damage.repaired);
        let mut bytes = 0;
        for damage in damages {
            let row = row(damage, &self.workspaces);
            // Bytes of a path are numbers in JSON, and a control character takes six.
            bytes += 300 + 6 * (row.problem.len() + row.failure.as_ref().map_or(0, String::len));
            bytes += row.path.as_ref().map_or(0, |path| 10 * path.len());
            if report.rows.len() >= ROWS_TOLD || bytes > ROW_BYTES {
                break;
            }
            report.rows.push(row);
        }
        report.rows_left_out = report.corrupt - report.rows.len() as u64;
        report.notes = self.notes.into_iter().take(NOTES_TOLD).map(cut).collect();
        report
    }
}

fn row(damage: Damage, workspaces: &HashMap<WorkspaceId, String>) -> VerifyRow {
    let Damage { problem, names, repaired, failure } = damage;
    let (kind, id) = match problem.subject {
        Subject::Blob(id) => ("blob", id.to_string()),
        Subject::Tree(id) => ("tree", id.to_string()),
        Subject::Counter(name) => ("counter", name.to_owned()),
        Subject::Local(number) => ("local", number.to_string()),
        Subject::Row { table, key: Key::Number(number) } => (table, number.to_string()),
        Subject::Row { table, key: Key::Words(words) } => (table, words),
        Subject::Row { table, key: Key::Bytes(bytes) } => (table, named(&bytes)),
    };
    let name = names.into_iter().next();
    let (workspace, path) = if let Some(name) = name {
        (Some(name.workspace), Some(name.path))
    } else {
        let called = |id| workspaces.get(&id).cloned().unwrap_or_else(|| format!("workspace {}", id.0));
        (problem.workspace.map(called), problem.path)
    };
    let shown = path.as_ref().map(|path| String::from_utf8_lossy(path).into_owned());
    VerifyRow {
        kind: kind.to_owned(),
        id,
        workspace,
        path_bytes: path.filter(|path| std::str::from_utf8(path).is_err()),
        path: shown,
        problem: cut(problem.text),
        repaired,
        failure: failure.map(cut),
    }
}

/// A key for people: a note has a name, everything else is a hash.
fn named(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

fn cancelled() -> Failure {
    Failure::new(FailureClass::Other, "the check was stopped before its end")
}

impl Daemon {
    /// `larder verify`.
    pub(super) async fn verify(
        self: &Arc<Self>,
        request: VerifyRequest,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let _alone = self.verifying.try_lock().map_err(|_| {
            Failure::new(FailureClass::Refused, "cannot check the cache: a check is under way already")
                .hint("try again when it is done")
        })?;
        let (told, progress) = watch::channel(Progress::default());
        let stop = Arc::new(AtomicBool::new(false));
        let cancel = watch::channel(false).0;
        let work = async {
            let mut checked = self.check_all(&request, &stop, told.clone()).await?;
            if request.repair {
                let mut ended = cancel.subscribe();
                let mending = self.mend(&mut checked, &stop, &told);
                tokio::select! {
                    outcome = mending => outcome?,
                    _ = ended.wait_for(|cancelled| *cancelled) => return Err(cancelled()),
                }
            }
            Ok(Answer::Verified(Box::new(checked.report(begun))))
        };
        let end = || {
            stop.store(true, Ordering::Release);
            cancel.send_replace(true);
        };
        server::with_progress(progress, read, write, end, work).await
    }

    /// Looks at everything, at the rate that was asked for, or that the settings have while something is mounted.
    async fn check_all(
        self: &Arc<Self>,
        request: &VerifyRequest,
        stop: &Arc<AtomicBool>,
        told: watch::Sender<Progress>,
    ) -> Result<Checked, Failure> {
        let (daemon, stop, rate) = (Arc::clone(self), Arc::clone(stop), request.rate);
        blocking(move || {
            let mounted = daemon.all().iter().any(|live| live.is_mounted());
            let rate = rate.or_else(|| mounted.then_some(daemon.config.settings.verify.rate));
            daemon.settle_all();
            let stopped = || stop.load(Ordering::Acquire) || daemon.stopping();
            let tell = |progress| drop(told.send_replace(progress));
            check(&daemon.sources(), &Watching::new(rate, &stopped, &tell))
        })
        .await
    }
}

/// Whether a failure is about damage alone.
fn is_damage(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::Corrupt
}
