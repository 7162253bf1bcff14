//! Where the bytes of a path come from, and what the cache knows of an object.
//!
//! Answers from a few rows; the searches for who names an object and for who fetched it are bounded unless all is asked
//! for. Nothing is fetched, dropped or touched by it.

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::names::{self, NamedBy};
use super::place::{self, Place, Subject, What};
use super::{PathText, Sources};
use crate::daemon::protocol::{Failure, FailureClass, rfc3339};
use crate::index::overlay::settle::is_base;
use crate::store::overlay::{Content, Node};
use crate::store::{EntryKind, FetchClass, Glance, Look, ObjectKind, Operation, Store};

/// Records of fetches looked at unless all are asked for: some ten milliseconds.
const RECORDS_QUICK: usize = 20_000;

/// Blobs up to so many raw bytes are checked unless all is asked for: some ten milliseconds.
const CHECKED_QUICK: u64 = 16 << 20;

/// Seconds within which a fetch of many may have brought an object that was stored in a certain hour.
const NEAR_SECONDS: i64 = 3600;

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InspectRequest {
    /// A path or an object.
    pub subject: Subject,
    /// Look at this generation instead of what is shown now.
    pub generation: Option<u64>,
    /// Search all that is searched, however long it takes.
    pub all: bool,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The commit that is shown.
    Base,
    /// Local changes.
    Overlay,
    /// A commit of another repository, shown as an empty directory.
    Gitlink,
}

/// Whether the stored bytes are what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// All of them: checked now.
    Ok,
    /// Not all of them: checked now.
    Damaged,
    /// It was not checked, being too large for a quick look.
    Unchecked,
    /// Nothing is stored.
    NotStored,
}

/// What is answered: the fields of `larder inspect --json` (CLI.md), and more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InspectReport {
    /// The path in the workspace, lossy; `None` where an object was asked for.
    pub path: Option<String>,
    /// The same as bytes, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
    /// Its workspace.
    pub workspace: Option<String>,
    /// Where that is fetched from.
    pub repository: Option<String>,
    /// Where the bytes come from.
    pub source: Option<Source>,
    /// The object that has them; `None`: a file of the local changes does.
    pub oid: Option<String>,
    /// `blob`, `tree`, `commit`; or of local changes `file`, `symlink`, `directory`, `special`.
    pub kind: Option<String>,
    /// Its mode in octal digits, as Git has it; that of local changes as `stat(2)` has it.
    pub mode: Option<String>,
    /// Bytes of its content.
    pub size: Option<u64>,
    /// The generation that was looked at.
    pub generation: Option<u64>,
    /// The commit of that.
    pub commit: Option<String>,
    /// What that has at the path, where local changes have something else.
    pub base_oid: Option<String>,
    /// Whether its bytes are on this machine.
    pub hydrated: bool,
    /// Bytes it takes in the store.
    pub stored_bytes: Option<u64>,
    /// Raw bytes for each stored one.
    pub ratio: Option<f64>,
    /// `zstd`, `raw`, or `listing` for trees.
    pub codec: Option<String>,
    /// Parts that can be read one by one.
    pub frames: Option<u64>,
    /// The chunk that it begins in.
    pub chunk: Option<u64>,
    /// BLAKE3 of the stored bytes.
    pub blake3: Option<String>,
    /// What a check of the stored bytes found.
    pub checksum: Option<Checksum>,
    /// Entries of a tree.
    pub entries: Option<u64>,
    /// The blob it was made of, if it is what a checkout conversion made.
    pub converted_from: Option<String>,
    /// When it was stored, RFC 3339, to the hour.
    pub stored: Option<String>,
    /// When it was last used, RFC 3339, to the hour.
    pub last_used: Option<String>,
    /// Who names it.
    pub named_by: Option<NamedBy>,
    /// Who fetched it.
    pub fetched: Option<Fetched>,
}

/// What caused the fetch that brought an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// Whether the record is of this very object; if not, it is of many, at the hour when this one was stored.
    pub certain: bool,
    /// When it had arrived, RFC 3339.
    pub at: String,
    /// The process; empty where it is not known.
    pub process: String,
    /// Its id; 0 where there is none.
    pub pid: u32,
    /// What it did.
    pub operation: Operation,
    /// How urgent it was.
    pub class: FetchClass,
    /// Path whose use caused it, or the pathspecs of a warm; lossy.
    pub path: String,
    /// Objects that came.
    pub objects: u64,
    /// Microseconds somebody waited.
    pub wait_us: u64,
}

pub(super) fn answer(sources: &Sources<'_>, request: &InspectRequest) -> Result<InspectReport, Failure> {
    let mut report = InspectReport::default();
    let found = match &request.subject {
        Subject::Path(path) => {
            let place = place::look_up(sources, path, request.generation)?;
            of_place(sources.store, &place, &mut report)?;
            Some(place)
        }
        Subject::Object(text) => {
            report.oid = Some(place::object(sources.store, text)?.to_string());
            None
        }
    };
    let id = report.oid.as_ref().and_then(|oid| ObjectId::from_hex(oid.as_bytes()).ok());
    let Some(id) = id else { return Ok(report) };
    let glance = sources.store.glance(&id)?;
    of_object(sources.store, &id, glance.as_ref(), request.all, &mut report)?;
    let known = found.as_ref().filter(|place| matches!(place.what, What::Base { .. }));
    let known = known.map(|place| (&place.workspace, &place.record, &place.path[..]));
    let named = names::search(sources.store, &id, known, request.all)?;
    if found.is_none() && glance.is_none() && report.size.is_none() && named.rows.is_empty() {
        let text = format!("object {id} is not in the cache, and no generation that was searched names it");
        let hint = if named.complete { "`larder cache ls` lists what is here" } else { "--names searches all of them" };
        return Err(Failure::new(FailureClass::NotFound, text).hint(hint));
    }
    report.named_by = Some(named);
    if let Some(stored_at) = glance.filter(|glance| glance.kind == ObjectKind::Blob).and_then(|glance| glance.stored_at)
    {
        let path = found.as_ref().map(|place| &place.path[..]);
        report.fetched = fetched(sources.store, &id, stored_at, path, request.all)?;
    }
    Ok(report)
}

fn of_place(store: &Store, place: &Place, report: &mut InspectReport) -> Result<(), Failure> {
    let repositories = store.repositories()?;
    let repository = repositories.into_iter().find(|repository| repository.id == place.workspace.repository);
    let PathText { path, path_bytes } = PathText::from(&place.path[..]);
    (report.path, report.path_bytes) = (Some(path), path_bytes);
    report.workspace = Some(place.workspace.name.clone());
    report.repository = repository.map(|repository| repository.url);
    report.generation = Some(place.record.generation.0);
    report.commit = Some(place.record.commit.0.to_string());
    report.oid = place.what.id().map(|id| id.to_string());
    match &place.what {
        What::Base { mode, kind, .. } => {
            report.source = Some(if *kind == EntryKind::Gitlink { Source::Gitlink } else { Source::Base });
            report.kind = Some(if *kind == EntryKind::Gitlink { "commit" } else { kind_name(*kind) }.to_owned());
            report.mode = Some(format!("{mode:06o}"));
        }
        What::Changed { node, size, base } => {
            let unchanged = is_base(node, *base);
            report.source = Some(if unchanged { Source::Base } else { Source::Overlay });
            report.base_oid = base.map(|(_, id)| id.to_string()).filter(|id| report.oid.as_ref() != Some(id));
            report.mode = Some(format!("{:06o}", node.mode));
            report.kind = Some(node_name(node).to_owned());
            report.size = match &node.content {
                Content::Target(target) => Some(target.len() as u64),
                _ => *size,
            };
            // Their bytes are nowhere else.
            report.hydrated = report.oid.is_none();
        }
    }
    Ok(())
}

const fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Directory => "tree",
        _ => "blob",
    }
}

fn node_name(node: &Node) -> &'static str {
    match node.content {
        Content::Blob(_) => "blob",
        _ if node.is_directory() => "directory",
        _ if node.is_symlink() => "symlink",
        _ if node.is_regular() => "file",
        _ => "special",
    }
}

fn of_object(
    store: &Store,
    id: &ObjectId,
    glance: Option<&Glance>,
    all: bool,
    report: &mut InspectReport,
) -> Result<(), Failure> {
    if let Some(Some(converted)) = store.converted(&[*id])?.first() {
        report.converted_from = Some(converted.source.to_string());
    }
    let Some(glance) = glance else {
        report.size = store.sizes(&[*id])?.into_iter().next().flatten();
        report.checksum = Some(Checksum::NotStored);
        return Ok(());
    };
    let name = if glance.kind == ObjectKind::Tree { "tree" } else { "blob" };
    report.kind.get_or_insert_with(|| name.to_owned());
    report.hydrated = true;
    if glance.damaged {
        report.checksum = Some(Checksum::Damaged);
        return Ok(());
    }
    report.size = Some(glance.raw_size);
    report.stored_bytes = Some(glance.stored_size);
    report.codec = Some(glance.codec.to_owned());
    report.frames = Some(glance.frames);
    report.chunk = glance.chunk;
    report.blake3 = glance.blake3.map(|hash| blake3::Hash::from_bytes(hash).to_hex().to_string());
    report.entries = glance.entries;
    report.stored = glance.stored_at.map(time);
    report.last_used = glance.last_used.map(time);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = (glance.stored_size > 0).then(|| glance.raw_size as f64 / glance.stored_size as f64);
    report.ratio = ratio.map(|ratio| (ratio * 100.0).round() / 100.0);
    report.checksum = Some(match glance.kind {
        // Its row was checked when it was read.
        ObjectKind::Tree => Checksum::Ok,
        ObjectKind::Blob if !all && glance.raw_size > CHECKED_QUICK => Checksum::Unchecked,
        ObjectKind::Blob => match store.check(id)? {
            Look::Good(()) => Checksum::Ok,
            Look::Damaged => Checksum::Damaged,
            Look::Absent => Checksum::NotStored,
        },
    });
    Ok(())
}

fn time(seconds: u64) -> String {
    rfc3339(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The newest record of the object; else the one of many that most likely brought it.
fn fetched(
    store: &Store,
    id: &ObjectId,
    stored_at: u64,
    path: Option<&[u8]>,
    all: bool,
) -> Result<Option<Fetched>, Failure> {
    let directory = path.map(parent);
    let hour = i64::try_from(stored_at).unwrap_or(i64::MAX);
    let (mut exact, mut likely, mut looked) = (None, None, 0);
    store.fetches(&mut |fetch| {
        looked += 1;
        if fetch.id.is_some_and(|of| of.0 == *id) && fetch.class != FetchClass::Sizes {
            exact = Some(fetch.clone());
            return false;
        }
        let at = fetch.at_ms / 1000;
        let near = at >= hour && at < hour.saturating_add(2 * NEAR_SECONDS);
        if fetch.id.is_none() && fetch.class != FetchClass::Sizes && near {
            let beside = fetch.class == FetchClass::Sibling && directory.is_some_and(|at| at == parent(&fetch.path));
            let rank = if beside { 2 } else { u8::from(fetch.class == FetchClass::Warm) };
            if likely.as_ref().is_none_or(|(known, _)| rank > *known) {
                likely = Some((rank, fetch.clone()));
            }
        }
        // Those before it was stored did not bring it.
        at >= hour.saturating_sub(NEAR_SECONDS) && (all || looked < RECORDS_QUICK)
    })?;
    let certain = exact.is_some();
    Ok(exact.or(likely.map(|(_, fetch)| fetch)).map(|fetch| Fetched {
        certain,
        at: rfc3339(fetch.at_ms.div_euclid(1000)),
        process: fetch.process.to_string(),
        pid: fetch.pid,
        operation: fetch.operation,
        class: fetch.class,
        path: String::from_utf8_lossy(&fetch.path).into_owned(),
        objects: fetch.objects,
        wait_us: fetch.wait_us,
    }))
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Fetch, ObjectIdText, StoreOptions, WorkspaceId};

    #[test]
    fn its_own_record_counts_else_the_likeliest_of_many() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("s"), &StoreOptions::default()).expect("new store");
        store.keep_fetches(100).expect("on");
        let ids = [1, 2].map(|byte| ObjectId::from_bytes_or_panic(&[byte; 20]));
        let note = |at: i64, id: Option<ObjectId>, class: FetchClass, path: &str, pid: u32| {
            store.note_fetch(Fetch {
                at_ms: at * 1000,
                workspace: Some(WorkspaceId(1)),
                id: id.map(ObjectIdText),
                path: path.as_bytes().into(),
                process: "cat".into(),
                pid,
                operation: Operation::Read,
                class,
                objects: 7,
                bytes: 70,
                wait_us: 1500,
            });
        };
        let hour = 100 * 3600;
        note(hour - 9000, None, FetchClass::Warm, "", 1);
        note(hour + 10, None, FetchClass::Warm, "", 2);
        note(hour + 20, None, FetchClass::Sibling, "d/x", 3);
        note(hour + 30, None, FetchClass::Sibling, "other/x", 4);
        note(hour + 40, Some(ids[0]), FetchClass::Read, "d/a", 5);
        note(hour + 50, Some(ids[1]), FetchClass::Sizes, "d/b", 6);
        note(hour + 9000, None, FetchClass::Warm, "", 7);
        let found = |id: &ObjectId, path: Option<&[u8]>, at: u64| {
            let found = fetched(&store, id, at, path, false).expect("read");
            found.map(|found| (found.certain, found.pid))
        };
        let at = u64::try_from(hour).expect("positive");
        assert_eq!(found(&ids[0], Some(b"d/a"), at), Some((true, 5)));
        assert_eq!(found(&ids[1], Some(b"d/b"), at), Some((false, 3)), "one beside it");
        assert_eq!(found(&ids[1], Some(b"e/b"), at), Some((false, 2)), "a warm");
        assert_eq!(found(&ids[1], None, at), Some((false, 2)));
        assert_eq!(found(&ids[1], None, at + 360_000), None, "stored later than all of them");
    }
}
