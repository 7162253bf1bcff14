//! Publishing: a commit's tree becomes what a workspace shows.

use gix::ObjectId;

use super::IndexError;
use crate::store::{Generation, GenerationRecord, ObjectIdText, Store, Workspace, WorkspaceState};

/// A commit that is ready to be shown: all its trees are in the store.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Its id.
    pub id: ObjectId,
    /// Its root tree.
    pub tree: ObjectId,
    /// Committer time, seconds since 1970 UTC.
    pub time: i64,
    /// Files, symlinks and gitlinks in it.
    pub files: u64,
}

/// Publishes `commit` in `workspace`: one row and the workspace's state, in one transaction.
/// The same commit again is the generation it already is.
pub fn publish(
    store: &Store,
    workspace: &mut Workspace,
    commit: &Commit,
    origin: &str,
    now: i64,
) -> Result<GenerationRecord, IndexError> {
    let current = match workspace.current {
        Some(current) => store.generation(workspace.id, current)?,
        None => None,
    };
    workspace.state = WorkspaceState::Ready;
    workspace.last_error = None;
    if let Some(current) = current.filter(|current| current.commit.0 == commit.id) {
        store.put_workspace(workspace)?;
        return Ok(current);
    }
    let record = next(store, workspace, commit, origin, now)?;
    store.publish(&record, workspace)?;
    Ok(record)
}

/// The generation after the last one of `workspace`, which says so then; nothing is written.
pub fn next(
    store: &Store,
    workspace: &mut Workspace,
    commit: &Commit,
    origin: &str,
    now: i64,
) -> Result<GenerationRecord, IndexError> {
    let last = store.generations(workspace.id)?.last().map_or(0, |row| row.generation.0);
    let record = GenerationRecord {
        workspace: workspace.id,
        generation: Generation(last + 1),
        commit: ObjectIdText(commit.id),
        tree: ObjectIdText(commit.tree),
        commit_time: commit.time,
        files: commit.files,
        created: now,
        origin: origin.to_owned(),
    };
    workspace.current = Some(record.generation);
    workspace.base_time.get_or_insert(commit.time);
    Ok(record)
}
