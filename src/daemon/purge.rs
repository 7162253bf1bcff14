//! Forgetting a workspace for good, unless work would be lost with it.
//!
//! What is lost with a workspace are its local changes and what only its HEAD leads to: branches and the stash are in the
//! common gitdir, where the repository's other workspaces have them too. With the last workspace nobody sees them any
//! more, so then everything that was never pushed counts. A gitdir made elsewhere stays its owner's.

use std::path::Path;

use gix::ObjectId;

use super::protocol::{Answer, Failure, FailureClass};
use super::{Daemon, mounting, prepare, worktree};
use crate::git::gitdir::{self, Loss, Unpushed};
use crate::index::view::View;
use crate::store::{Repository, Workspace};
use crate::vfs::inode::Inodes;

impl Daemon {
    /// Forgets a workspace that is known but not mounted.
    pub(super) fn purge_unmounted(&self, target: &str, force: bool, unknown: Failure) -> Result<Answer, Failure> {
        let path = mounting::canonical(Path::new(target));
        let rows = self.store.workspaces()?;
        let row = rows.iter().find(|row| row.name == target || row.path == path).ok_or(unknown)?;
        if !force {
            self.settle_unmounted(row);
            self.check_disposable(row)?;
        }
        self.purge(row)?;
        Ok(Answer::Ok)
    }

    /// Removes everything of a workspace but what the repository's others share.
    pub(super) fn purge(&self, row: &Workspace) -> Result<(), Failure> {
        worktree::remove(self, row);
        let _alone = self.admission.write();
        self.remove_overlay(row.id)?;
        Ok(self.store.remove_workspace(row.id)?)
    }

    /// Refuses to throw work away: local changes, and commits that are nowhere else.
    pub(super) fn check_disposable(&self, row: &Workspace) -> Result<(), Failure> {
        let changes = self.local_changes(row)?;
        let (commits, last) = self.unpushed_of(row)?;
        let mut parts = Vec::new();
        if changes > 0 {
            parts.push(format!("{changes} local change{}", if changes == 1 { "" } else { "s" }));
        }
        let detached = !last && !commits.is_empty();
        if !commits.is_empty() {
            parts.push(commits.describe());
        }
        if parts.is_empty() {
            return Ok(());
        }
        let text = format!("with workspace {} would be lost: {}", row.name, parts.join(" and "));
        let hint = match (changes > 0, commits.is_empty()) {
            (true, true) => "commit and push them, or add --force",
            (true, false) => "commit and push all of it, or add --force",
            (false, _) if detached => {
                "`git branch NAME` there keeps them in the repository; or push them, or add --force"
            }
            (false, _) => "push them, or add --force",
        };
        Err(Failure::new(FailureClass::Refused, text).hint(hint))
    }

    /// What was changed and undone is no change: nobody asked for its status after that.
    fn settle_unmounted(&self, row: &Workspace) {
        let settled = self.current_view(row).and_then(|view| match view {
            Some(view) => self.settle_at_rest(row, &*self.overlay_of(row)?, &view),
            None => Ok(()),
        });
        if let Err(failure) = settled {
            // Then it counts: rather too much is refused than lost.
            tracing::warn!(workspace = row.name, "local changes are not compared with the base: {failure}");
        }
    }

    fn current_view(&self, row: &Workspace) -> Result<Option<View>, Failure> {
        let record = match row.current {
            Some(current) => self.store.generation(row.id, current)?,
            None => None,
        };
        Ok(record.map(|record| View::new(self.store.clone(), record)))
    }

    fn local_changes(&self, row: &Workspace) -> Result<u64, Failure> {
        let Some(view) = self.current_view(row)? else { return Ok(0) };
        // Nothing of it need be mounted: what was changed is found from the root.
        Ok(self.overlay_of(row)?.count(&view, &Inodes::default())?)
    }

    /// The commits that are lost with `row`, and whether it is its repository's last workspace.
    fn unpushed_of(&self, row: &Workspace) -> Result<(Unpushed, bool), Failure> {
        let none = (Unpushed::default(), false);
        let Ok(repository) = prepare::repository_of(self, row.repository) else { return Ok(none) };
        if !repository.gitdir.join("HEAD").exists() {
            return Ok(none);
        }
        let admin = worktree::find(&repository, row)?;
        let last = !repository.external_gitdir && !self.is_used(repository.id, Some(row.id))?;
        let loss = match &admin {
            _ if last => Loss::Gitdir,
            Some(admin) => Loss::Entry(admin),
            None => return Ok(none),
        };
        let hash = gitdir::probe(&repository.gitdir)?.object_format;
        let mut found = gitdir::unpushed(&repository.gitdir, hash, loss, &[])?;
        if !found.is_empty() {
            // Git notes a push only of branches that it fetches, and a mount fetches one.
            let tips = self.tips_of(&repository);
            if !tips.is_empty() {
                found = gitdir::unpushed(&repository.gitdir, hash, loss, &tips)?;
            }
        }
        Ok((found, last))
    }

    /// Whether a workspace other than `but` is of the repository, mounted, being prepared or only known.
    pub(super) fn is_used(
        &self,
        repository: crate::store::RepositoryId,
        but: Option<crate::store::WorkspaceId>,
    ) -> Result<bool, Failure> {
        let live: Vec<Workspace> = self.all().iter().map(|live| live.row()).collect();
        let rows = self.store.workspaces()?;
        Ok(rows.iter().chain(&live).any(|row| row.repository == repository && Some(row.id) != but))
    }

    /// What the remote's branches and tags are at; nothing when it can't be asked.
    fn tips_of(&self, repository: &Repository) -> Vec<ObjectId> {
        let asked = prepare::remote_of(self, repository).and_then(|remote| {
            let mut connection = remote.open()?;
            Ok(connection.list_refs(&["refs/heads/", "refs/tags/"])?)
        });
        match asked {
            Ok(refs) => refs.into_iter().map(|found| found.id).collect(),
            Err(failure) => {
                tracing::info!(repository = repository.url, "what is pushed is known from here alone: {failure}");
                Vec::new()
            }
        }
    }
}
