//! The worktree entry of a workspace: HEAD, index and hook in the common gitdir.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use gix::ObjectId;

use super::Daemon;
use super::protocol::Failure;
use crate::git::fsmonitor::{HookTarget, Token};
use crate::git::gitdir::{self, HeadSpec, WorktreeSpec};
use crate::git::index_file::{self, BoxError, ExcludeFile, IndexSpec, Stat, StatRequest, UntrackedSpec};
use crate::index::ino::Ino;
use crate::index::overlay::changes::Point;
use crate::store::{EntryKind, GenerationRecord, Listing, Repository, Store, Workspace};
use crate::vfs::attr::commit_stamp;

/// The fsmonitor token of a point in a workspace's history.
pub fn token(record: &GenerationRecord, point: Point) -> Token {
    Token { workspace: record.workspace, epoch: point.epoch, generation: record.generation, sequence: point.sequence }
}

/// The entry of `row`, if it has one: where HEAD and index are.
pub fn find(repository: &Repository, row: &Workspace) -> Result<Option<PathBuf>, Failure> {
    match &row.admin {
        Some(admin) if admin.join("HEAD").exists() => Ok(Some(admin.clone())),
        _ => gitdir::find_worktree(&repository.gitdir, &row.path).map_err(Failure::from),
    }
}

/// Removes the entry of `row`; the repository stays.
pub fn remove(daemon: &Daemon, row: &Workspace) {
    let repositories = daemon.store.repositories().unwrap_or_default();
    let Some(repository) = repositories.iter().find(|repository| repository.id == row.repository) else { return };
    if let Err(error) = remove_entry(repository, row) {
        tracing::warn!(workspace = row.name, "worktree entry: {error}");
    }
}

/// Removes the entry of `row`, if it has one.
pub fn remove_entry(repository: &Repository, row: &Workspace) -> Result<(), Failure> {
    match find(repository, row)? {
        Some(admin) => Ok(gitdir::remove_worktree(&repository.gitdir, &admin)?),
        None => Ok(()),
    }
}

/// Makes the entry of `row` fit `record`. One that is there is kept, with whatever the user did to its HEAD.
pub fn write(
    daemon: &Daemon,
    repository: &Repository,
    row: &mut Workspace,
    record: &GenerationRecord,
    head: &HeadSpec,
) -> Result<(), Failure> {
    let admin = match find(repository, row)? {
        Some(admin) => admin,
        None => add(daemon, repository, row, head)?,
    };
    row.admin = Some(admin.clone());
    daemon.store.put_workspace(row)?;
    // Sequence 0: Git is then told of every path that may differ from the base.
    let point = Point { sequence: 0, ..daemon.overlay_of(row)?.point() };
    write_index(&daemon.store, repository, row, record, point, &admin)
}

fn add(daemon: &Daemon, repository: &Repository, row: &Workspace, head: &HeadSpec) -> Result<PathBuf, Failure> {
    let target = HookTarget { workspace: row.id, socket: daemon.config.socket.clone() };
    let spec = WorktreeSpec { name: &row.name, mount: &row.path, head, hook: Some((&daemon.binary, &target)) };
    let added = gitdir::add_worktree(&repository.gitdir, &spec)?;
    if !added.config_applies {
        tracing::warn!(
            gitdir = %repository.gitdir.display(),
            "extensions.worktreeConfig is off there: git status looks at every file of this workspace"
        );
    }
    tracing::info!(workspace = row.name, head = ?added.head, "worktree added");
    Ok(added.admin)
}

/// Writes the index with the stat data the mount reports, so that Git's first look finds nothing to do.
pub fn write_index(
    store: &Store,
    repository: &Repository,
    row: &Workspace,
    record: &GenerationRecord,
    point: Point,
    admin: &Path,
) -> Result<(), Failure> {
    // Workspaces of older stores have had their first commit's time until now.
    let seconds = commit_stamp(row.base_time.unwrap_or(record.commit_time)).seconds;
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    // Numbers of the directories asked for so far, in order: a file's number follows from its directory's.
    let directories: RefCell<Vec<Ino>> = RefCell::default();
    let stat = |request: &StatRequest<'_>| {
        let ino = number(&mut directories.borrow_mut(), request);
        Stat {
            ctime: (seconds, 0),
            mtime: (seconds, 0),
            ino: low(ino.0),
            uid: row.uid,
            gid: row.gid,
            ..Stat::default()
        }
    };
    let written = with_spec(store, repository, row, (record, point), &stat, |spec| index_file::write(admin, spec))?;
    if written.omitted > 0 {
        tracing::warn!(workspace = row.name, names = written.omitted, "names no working tree can hold were left out");
    }
    Ok(())
}

/// Hands `write` what an index of the generation `record` holds at `point`, with `stat` for its stat data.
pub(super) fn with_spec<T, E>(
    store: &Store,
    repository: &Repository,
    row: &Workspace,
    (record, point): (&GenerationRecord, Point),
    stat: &dyn Fn(&StatRequest<'_>) -> Stat,
    write: impl FnOnce(&IndexSpec<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let user = gitdir::user_settings(&repository.gitdir);
    let token = token(record, point).to_string();
    let trees = trees(store);
    let untracked = UntrackedSpec {
        worktree: &row.path,
        info_exclude: ExcludeFile::read(&repository.gitdir.join("info/exclude"), repository_hash(record)),
        excludes_file: user
            .excludes_file
            .as_deref()
            .map_or_else(ExcludeFile::default, |path| ExcludeFile::read(path, repository_hash(record))),
        show_all: user.show_all_untracked,
        // The hook reports every change, so Git need not read an ignore file before something changes beside it. The root's
        // is told: Git would take it for new when it reads it, and look through the whole tree.
        exclude_id: &|path, id| (path == b".gitignore").then_some(*id),
    };
    write(&IndexSpec {
        object_format: repository_hash(record),
        root: record.tree.0,
        trees: &trees,
        stat,
        fsmonitor_token: Some(&token),
        untracked: Some(untracked),
        max_paths: index_file::DEFAULT_MAX_PATHS,
    })
}

/// Trees from the store, for whoever writes or reads an index.
pub(super) fn trees(store: &Store) -> impl Fn(&ObjectId) -> Result<Listing, BoxError> {
    |id| match store.tree(id) {
        Ok(Some(listing)) => Ok(listing),
        Ok(None) => Err(format!("tree {id} is not in the cache").into()),
        Err(error) => Err(error.into()),
    }
}

/// The inode number of what is asked for.
pub(super) fn number(directories: &mut Vec<Ino>, request: &StatRequest<'_>) -> Ino {
    let parent = directories.get(request.parent as usize).copied().unwrap_or(Ino::ROOT);
    let name = request.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let ino = if request.path.is_empty() { Ino::ROOT } else { Ino::of(parent, name, request.kind, request.id) };
    if request.kind == EntryKind::Directory {
        directories.push(ino);
    }
    ino
}

#[expect(clippy::cast_possible_truncation, reason = "the index keeps the low 32 bits")]
pub(super) const fn low(number: u64) -> u32 {
    number as u32
}

fn repository_hash(record: &GenerationRecord) -> gix::hash::Kind {
    record.tree.0.kind()
}
