//! What `larder doctor` has to know of a cache before it looks at the machine: rows and counts, never a walk.

use std::path::PathBuf;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::Failure;
use crate::store::{
    EntryKind, GenerationRecord, ObjectIdText, Repository, Store, StoreError, Workspace, WorkspaceState, schema_version,
};
use crate::vfs::abilities;

/// Text of rows in one answer, so that it fits a line of the socket however long paths are.
const ROW_BYTES: usize = 256 << 10;

/// Entries of a root directory looked at for a file to ask the remote for.
const PROBE_ENTRIES: usize = 1_000;
/// A larger file is not worth asking for.
const PROBE_BYTES: u64 = 64 << 10;

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HealthRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The store's schema.
    pub schema: u64,
    /// Blobs in it.
    pub blobs: u64,
    /// Trees in it.
    pub trees: u64,
    /// Bytes its file occupies.
    pub file_bytes: u64,
    /// Time of the newest generation, seconds since 1970 UTC.
    pub newest: Option<i64>,
    /// Version of the FUSE protocol that the kernel speaks; `None`: nothing was mounted yet.
    pub fuse: Option<(u32, u32)>,
    /// What the kernel said it can't do of what is asked for.
    pub fuse_lacks: Vec<String>,
    /// The repositories.
    pub repositories: Vec<HealthRepository>,
    /// The workspaces, by name.
    pub workspaces: Vec<HealthWorkspace>,
    /// Repositories and workspaces that did not fit.
    pub left_out: u64,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRepository {
    /// Its number.
    pub id: u64,
    /// Where it is fetched from.
    pub url: String,
    /// Its gitdir.
    pub gitdir: PathBuf,
    /// Whether Larder did not make that.
    pub external_gitdir: bool,
    /// A small file of it, to ask the remote for.
    pub probe: Option<ObjectIdText>,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthWorkspace {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Its repository.
    pub repository: u64,
    /// How it is.
    pub state: WorkspaceState,
    /// Whether the last exchange with the remote failed for want of a network.
    pub offline: bool,
    /// Whether its remote is not to be asked.
    pub stays_offline: bool,
    /// Why its preparation, or its last fetch, failed.
    pub last_error: Option<String>,
    /// Its entry in the gitdir.
    pub admin: Option<PathBuf>,
}

pub(super) fn answer(sources: &Sources<'_>, _request: &HealthRequest) -> Result<HealthReport, Failure> {
    let store = sources.store;
    let stats = store.stats()?;
    let (repositories, rows) = (store.repositories()?, store.workspaces()?);
    let mut report = HealthReport {
        schema: schema_version(),
        blobs: stats.blobs,
        trees: stats.trees,
        file_bytes: stats.file_bytes,
        ..HealthReport::default()
    };
    if let Some(negotiated) = abilities::negotiated() {
        report.fuse = Some(negotiated.version);
        report.fuse_lacks = negotiated.lacking.iter().map(|ability| ability.flag.to_owned()).collect();
    }
    let mut shown: Vec<(u64, GenerationRecord)> = Vec::new();
    for row in &rows {
        if let Some(current) = row.current
            && let Some(record) = store.generation(row.id, current)?
        {
            report.newest = report.newest.max(Some(record.created));
            shown.push((row.repository.0, record));
        }
    }
    let mut room = ROW_BYTES;
    for repository in repositories {
        let probe = shown.iter().find(|(of, _)| *of == repository.id.0);
        let probe = probe.and_then(|(_, record)| probe_of(store, record.tree.0).ok().flatten());
        let row = describe_repository(repository, probe);
        let bytes = row.url.len() + row.gitdir.as_os_str().len();
        take(&mut room, bytes, &mut report.left_out, || report.repositories.push(row));
    }
    for row in rows {
        let row = describe_workspace(sources, row);
        let bytes = row.path.as_os_str().len()
            + row.name.len()
            + row.last_error.as_ref().map_or(0, String::len)
            + row.admin.as_ref().map_or(0, |admin| admin.as_os_str().len());
        take(&mut room, bytes, &mut report.left_out, || report.workspaces.push(row));
    }
    report.workspaces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(report)
}

/// Lets a row in whose text has `bytes`, if there is room.
fn take(room: &mut usize, bytes: usize, left_out: &mut u64, push: impl FnOnce()) {
    // Names of fields and numbers.
    const FRAME: usize = 256;
    match room.checked_sub(bytes + FRAME) {
        Some(left) => {
            *room = left;
            push();
        }
        None => *left_out += 1,
    }
}

fn describe_repository(repository: Repository, probe: Option<ObjectId>) -> HealthRepository {
    HealthRepository {
        id: repository.id.0,
        url: repository.url,
        gitdir: repository.gitdir,
        external_gitdir: repository.external_gitdir,
        probe: probe.map(ObjectIdText),
    }
}

fn describe_workspace(sources: &Sources<'_>, row: Workspace) -> HealthWorkspace {
    let live = sources.daemon.and_then(|daemon| daemon.by_id(row.id.0));
    let row = live.as_ref().map_or(row, |live| live.row());
    let state = match &live {
        Some(live) => live.state(),
        None if row.state == WorkspaceState::Failed => row.state,
        None => WorkspaceState::Unmounted,
    };
    let mut described = HealthWorkspace {
        id: row.id.0,
        name: row.name,
        path: row.path,
        repository: row.repository.0,
        state,
        offline: row.offline,
        stays_offline: row.offline,
        last_error: row.last_error,
        admin: row.admin,
    };
    if let Some(shown) = live.and_then(|live| live.shown()) {
        described.offline |= shown.hydrator.offline();
        let last = described.last_error.take();
        described.last_error = last.or_else(|| shown.hydrator.last_error().map(|error| error.message));
    }
    described
}

/// A small file in the root directory: one of known size, where there is one.
fn probe_of(store: &Store, tree: ObjectId) -> Result<Option<ObjectId>, StoreError> {
    let Some(listing) = store.tree(&tree)? else { return Ok(None) };
    let blobs = listing.iter().filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Executable));
    let ids: Vec<ObjectId> = blobs.map(|entry| entry.id).take(PROBE_ENTRIES).collect();
    let sizes = store.sizes(&ids)?;
    let known = ids.iter().zip(sizes).filter_map(|(id, size)| Some((size?, *id)));
    Ok(known.filter(|(size, _)| *size <= PROBE_BYTES).min().map(|(_, id)| id).or_else(|| {
        // An unknown size is a risk; a name that never belongs to a large file is none.
        listing.iter().find(|entry| entry.name.starts_with(b".git") && entry.kind.is_blob()).map(|entry| entry.id)
    }))
}
