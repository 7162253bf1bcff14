//! A mount that is asked for and there already: the daemon that was started to make it has mounted it again by itself.
//!
//! Refuses to take one mount for another: what the request says of repository, gitdir, name, revision and options has to
//! be so. A request that did not start the daemon is none of these: whoever sends it could see what is mounted.

use std::sync::Arc;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::{Answer, Failure, MountRequest};
use super::workspace::Live;
use super::{Daemon, prepare};
use crate::git::gitdir;
use crate::git::url::RepoUrl;
use crate::store::{Workspace, WorkspaceState};

impl Daemon {
    /// The workspace that is mounted where `request` wants one, if this daemon was started for it and that is what it wants.
    pub(super) fn mounted_again(&self, request: &MountRequest, url: &RepoUrl) -> Result<Option<Arc<Live>>, Failure> {
        let there = || self.all().into_iter().find(|live| live.path() == request.path && live.is_mounted());
        let Some(live) = request.started.then(there).flatten() else { return Ok(None) };
        let gitdir = request.gitdir.as_deref().map(gitdir::probe).transpose()?.map(|found| found.common);
        let row = live.row();
        let commit = match row.current {
            Some(current) => self.store.generation(row.id, current)?.map(|record| record.commit.0.to_string()),
            None => None,
        };
        let same = prepare::is_of(&self.repository_of(&live)?, url, gitdir.as_deref());
        Ok((same && agrees(&row, commit.as_deref(), request)).then_some(live))
    }

    /// Answers a request for the mount that `live` is.
    pub(super) async fn tell_mounted(
        self: &Arc<Self>,
        live: Arc<Live>,
        request: MountRequest,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let row = live.row();
        tracing::info!(workspace = row.name, "what is to be mounted was mounted again at the start");
        live.mounted_with(request.environment);
        let answer = if request.r#async || row.state == WorkspaceState::Ready {
            self.told(Arc::clone(&live)).await
        } else {
            self.prepare_again(&row.name, read, write).await
        };
        if request.warm && answer.is_ok() {
            self.warm_all_in_background(&live);
        }
        answer
    }
}

/// Whether nothing that `request` says of the workspace is otherwise.
fn agrees(row: &Workspace, commit: Option<&str>, request: &MountRequest) -> bool {
    let names_it = |rev: &String| {
        let reference = row.reference.as_deref().unwrap_or_default();
        let shorter = |prefix| reference.strip_prefix(prefix) == Some(rev.as_str());
        row.rev.as_ref() == Some(rev)
            || commit == Some(rev.as_str())
            || ["", "refs/", "refs/heads/", "refs/tags/"].into_iter().any(shorter)
    };
    request.name.as_ref().is_none_or(|name| *name == row.name)
        && request.rev.as_ref().is_none_or(names_it)
        && request.require_commit.as_deref().is_none_or(|required| commit == Some(required))
        && request.read_only == row.read_only
        && request.offline == row.offline
        && request.refresh_seconds == row.refresh_seconds
}
