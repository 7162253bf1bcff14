//! The gitdir that makes stock Git work in a mount, written as plain files.
//!
//! Owns: one common gitdir a repository ([`create`]), one worktree entry a
//! workspace ([`add_worktree`], [`remove_worktree`]), the refs a preparation
//! fetched ([`record_branch`], [`set_ref`], [`set_shallow`]), and reading of
//! gitdirs prepared elsewhere ([`probe`], [`Objects`]).
//!
//! Refuses: to overwrite a gitdir, to move a local branch that holds commits of
//! its own, to check one branch out twice, ref names and values Git would refuse.
//!
//! Invariant: every file appears by rename, so that a crash at any instant
//! leaves the old state or the new one. No `git` process is started: each
//! costs milliseconds.

mod config;
mod create;
mod door;
mod files;
mod head;
mod history;
mod names;
mod packs;
mod probe;
mod read;
mod reflog;
mod refs;
mod revision;
mod unpushed;
mod watch;
mod worktree;

use std::io;
use std::path::{Path, PathBuf};

use gix::ObjectId;

pub use config::{UserSettings, enable_worktree_config, user_settings};
pub use create::{GitdirSpec, create, refspecs};
pub use door::{DOOR_REMOTE, ensure_door};
pub use head::{Head, HeadMove, Operation, move_head, operation, read_head};
pub use history::{History, Step, finish_step, history, incoming, set_history, take_step};
pub use names::Names;
pub use packs::{Pruned, prune_packs};
pub use probe::{ExternalGitdir, probe};
pub use read::{CommitInfo, Objects, TreesRead, commit_info, has_commit, read_commit_and_trees};
pub use reflog::{Committer, previous_checkout};
pub use refs::{
    BranchRecorded, is_ref_name, read_ref, record_branch, set_ref, set_remote_head, set_shallow, shallow,
    update_shallow,
};
pub use revision::{
    LastKnown, Meant, Refspec, create_tracking_branch, fetch_refspecs, follow_branch, last_known, resolve_revision,
};
pub use unpushed::{Loss, Unpushed, unpushed};
pub use watch::HeadWatch;
pub use worktree::{
    AddedWorktree, DetachedBecause, HeadSpec, HeadState, WorktreeSpec, add_worktree, branch_in_use, find_worktree,
    gitfile, keep_offline, remove_worktree,
};

/// The remote's name in every gitdir Larder creates.
pub const REMOTE: &str = "origin";

/// Why a gitdir can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum GitdirError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A gitdir is there already; it is never overwritten.
    #[error("{}: exists already", .0.display())]
    Exists(PathBuf),
    /// Git or someone else holds a lock file.
    #[error("{}: locked by another process (remove it if that process is gone)", .0.display())]
    Locked(PathBuf),
    /// HEAD is not where it was when its move was decided; it is at this now.
    #[error("HEAD was moved meanwhile, to {0}")]
    Moved(String),
    /// The directory is not a gitdir, or a damaged one.
    #[error("{}: {reason}", path.display())]
    NotAGitdir {
        /// The directory.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A name or value Git's files can't hold.
    #[error("{what} {value:?} is not valid")]
    Invalid {
        /// What it was to be.
        what: &'static str,
        /// The value, lossy.
        value: String,
    },
    /// The gitdir uses a feature Larder can't write.
    #[error("{}: {feature} is not supported", path.display())]
    Unsupported {
        /// The gitdir.
        path: PathBuf,
        /// The feature.
        feature: String,
    },
    /// An object is absent.
    #[error("object {0} is not in the gitdir")]
    Missing(ObjectId),
    /// An object is there and can't be used.
    #[error("object {id}: {reason}")]
    Object {
        /// The object.
        id: ObjectId,
        /// What is wrong with it.
        reason: String,
    },
    /// Whoever took the trees failed.
    #[error("{0}")]
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl GitdirError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn invalid(what: &'static str, value: &[u8]) -> Self {
        Self::Invalid { what, value: String::from_utf8_lossy(value).into_owned() }
    }

    pub(super) fn not_a_gitdir(path: &Path, reason: impl Into<String>) -> Self {
        Self::NotAGitdir { path: path.to_owned(), reason: reason.into() }
    }
}
