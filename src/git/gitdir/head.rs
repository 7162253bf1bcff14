//! HEAD of a worktree entry: what it names, what Git is in the middle of, and moving it.
//!
//! Moving writes `HEAD` under Git's own lock and appends to its reflog what
//! `git checkout` would: `@{-1}` and `git switch -` work across both.
//! Refuses to move a HEAD that somebody else moved meanwhile.

use std::path::Path;

use gix::ObjectId;
use gix::bstr::ByteSlice;

use super::GitdirError;
use super::files::{LockedFile, read_small};
use super::reflog::{self, Committer};
use super::refs::{RefValue, check_name, parse_ref, read_ref_from};

/// Longest HEAD that is read.
const HEAD_BYTES: u64 = 64 << 10;

/// The other name of Larder's lock on HEAD.
const LOCK_MARK: &str = "larder-switch-head";

/// What HEAD says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The full name of the branch it is on; `None` when it is detached.
    pub branch: Option<String>,
    /// The commit it leads to; `None` on a branch that has none yet.
    pub commit: Option<ObjectId>,
}

impl Head {
    /// As Git calls it in reflogs: the branch's short name, or the commit.
    pub fn description(&self) -> String {
        match (&self.branch, self.commit) {
            (Some(branch), _) => branch.strip_prefix("refs/heads/").unwrap_or(branch).to_owned(),
            (None, Some(commit)) => commit.to_string(),
            (None, None) => "(invalid)".to_owned(),
        }
    }
}

/// What Git is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `git merge`
    Merge,
    /// `git rebase`
    Rebase,
    /// `git am`
    Am,
    /// `git cherry-pick`
    CherryPick,
    /// `git revert`
    Revert,
    /// `git bisect`
    Bisect,
}

impl Operation {
    /// The command's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Rebase => "rebase",
            Self::Am => "am",
            Self::CherryPick => "cherry-pick",
            Self::Revert => "revert",
            Self::Bisect => "bisect",
        }
    }
}

/// Where HEAD is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadMove<'a> {
    /// What it said when the move was decided.
    pub from: &'a Head,
    /// The full name of the branch; `None` detaches it at `commit`.
    pub branch: Option<&'a str>,
    /// The commit it then leads to.
    pub commit: ObjectId,
    /// What the user called it, for the reflog.
    pub named: &'a str,
}

/// Reads HEAD of the entry `admin` of the gitdir `common`.
pub fn read_head(common: &Path, admin: &Path) -> Result<Head, GitdirError> {
    let path = admin.join("HEAD");
    let content = read_small(&path, HEAD_BYTES)?.ok_or_else(|| GitdirError::not_a_gitdir(admin, "HEAD is missing"))?;
    match parse_ref(&content) {
        Some(RefValue::Id(id)) => Ok(Head { branch: None, commit: Some(id) }),
        Some(RefValue::Symbolic(target)) => {
            let branch =
                String::from_utf8(target).map_err(|error| GitdirError::invalid("ref name", error.as_bytes()))?;
            let commit = read_ref_from(place_of(common, admin, &branch), common, &branch)?;
            Ok(Head { branch: Some(branch), commit })
        }
        None => Err(GitdirError::not_a_gitdir(&path, "not a ref")),
    }
}

/// Where a ref's file is: a few names belong to the worktree alone (gitrepository-layout).
pub(super) fn place_of<'a>(common: &'a Path, admin: &'a Path, name: &str) -> &'a Path {
    let own = ["refs/bisect/", "refs/worktree/", "refs/rewritten/"];
    if own.iter().any(|prefix| name.starts_with(prefix)) { admin } else { common }
}

/// What Git is in the middle of in the entry `admin`: as `git status` finds it out.
pub fn operation(admin: &Path) -> Option<Operation> {
    let there = |name: &str| admin.join(name).symlink_metadata().is_ok();
    if there("MERGE_HEAD") {
        return Some(Operation::Merge);
    }
    if there("rebase-apply") {
        return Some(if there("rebase-apply/applying") { Operation::Am } else { Operation::Rebase });
    }
    if there("rebase-merge") {
        return Some(Operation::Rebase);
    }
    if there("CHERRY_PICK_HEAD") {
        return Some(Operation::CherryPick);
    }
    if there("REVERT_HEAD") {
        return Some(Operation::Revert);
    }
    // Between two picks of many there is only the list of what is left to do.
    let todo = read_small(&admin.join("sequencer/todo"), 1 << 20).ok().flatten();
    match todo.as_deref().map(ByteSlice::trim_start) {
        Some(todo) if todo.starts_with(b"revert") => Some(Operation::Revert),
        Some(_) => Some(Operation::CherryPick),
        None => there("BISECT_LOG").then_some(Operation::Bisect),
    }
}

/// Moves HEAD. One that is there already stays, so that a move that was cut off can be repeated.
pub fn move_head(
    common: &Path,
    admin: &Path,
    to: &HeadMove<'_>,
    committer: &Committer,
    at: i64,
) -> Result<(), GitdirError> {
    if let Some(branch) = to.branch {
        check_name(branch)?;
    }
    let lock = LockedFile::take_marked(&admin.join("HEAD"), &admin.join(LOCK_MARK))?;
    let now = read_head(common, admin)?;
    let there = Head { branch: to.branch.map(str::to_owned), commit: Some(to.commit) };
    if now == there {
        return Ok(());
    }
    if now != *to.from {
        return Err(GitdirError::Moved(now.description()));
    }
    let entry = reflog::Entry {
        old: now.commit,
        new: to.commit,
        committer,
        at,
        message: &format!("checkout: moving from {} to {}", now.description(), to.named),
    };
    // As Git does: a reflog that is a step ahead harms nobody, a HEAD without its entry loses `@{-1}`.
    reflog::append(common, &admin.join("logs/HEAD"), &entry)?;
    lock.commit(&match to.branch {
        Some(branch) => format!("ref: {branch}\n").into_bytes(),
        None => format!("{}\n", to.commit).into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn operations_are_told_apart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let admin = dir.path();
        assert_eq!(operation(admin), None);
        for (file, found) in [
            ("BISECT_LOG", Operation::Bisect),
            ("sequencer/todo", Operation::CherryPick),
            ("REVERT_HEAD", Operation::Revert),
            ("CHERRY_PICK_HEAD", Operation::CherryPick),
            ("rebase-merge/done", Operation::Rebase),
            ("rebase-apply/applying", Operation::Am),
            ("MERGE_HEAD", Operation::Merge),
        ] {
            let path = admin.join(file);
            fs::create_dir_all(path.parent().expect("inside")).expect("created");
            fs::write(path, "pick 1\n").expect("written");
            assert_eq!(operation(admin), Some(found), "{file}");
        }
        fs::remove_file(admin.join("MERGE_HEAD")).expect("removed");
        fs::remove_file(admin.join("rebase-apply/applying")).expect("removed");
        assert_eq!(operation(admin), Some(Operation::Rebase));
    }
}
