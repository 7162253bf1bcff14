//! The overlays of workspaces: opened when one is mounted, folded in time, closed at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use super::{Daemon, prepare};
use crate::index::overlay::{Defaults, Overlay};
use crate::store::{Workspace, WorkspaceId};
use crate::vfs::Shown;
use crate::vfs::attr::commit_stamp;

/// Time between looks at how much is pending.
const FOLD_PERIOD: Duration = Duration::from_secs(1);

/// Folds overlays that changed much, before they take much memory.
pub(super) async fn fold_in_time(daemon: Arc<Daemon>) {
    let mut tick = tokio::time::interval(FOLD_PERIOD);
    loop {
        tick.tick().await;
        let overlays = daemon.all_overlays();
        let folded = tokio::task::spawn_blocking(move || {
            for overlay in overlays {
                if let Err(error) = overlay.fold(false) {
                    tracing::error!("local changes stay in the write-ahead file: {error}");
                }
            }
        });
        let _ = folded.await;
    }
}

impl Daemon {
    /// The overlay of `row`, opened if it is not.
    pub(super) fn overlay_of(&self, row: &Workspace) -> Result<Arc<Overlay>, Failure> {
        let mut overlays = self.overlays.lock();
        if let Some(overlay) = overlays.get(&row.id) {
            return Ok(Arc::clone(overlay));
        }
        let time = commit_stamp(self.base_time(row)?);
        let defaults = Defaults { uid: row.uid, gid: row.gid, time };
        let overlay = Overlay::open(&self.store, row.id, &self.overlay_directory(row.id), defaults)?;
        let overlay = Arc::new(overlay);
        overlays.insert(row.id, Arc::clone(&overlay));
        Ok(overlay)
    }

    /// Time of what was never touched; older stores have it in the generation alone.
    pub(super) fn base_time(&self, row: &Workspace) -> Result<i64, Failure> {
        Ok(match (row.base_time, row.current) {
            (Some(time), _) => time,
            (None, Some(current)) => self.store.generation(row.id, current)?.map_or(0, |record| record.commit_time),
            (None, None) => 0,
        })
    }

    /// What a workspace showed last, as it was left, if there is work in it that another commit beneath would change:
    /// local changes, or a HEAD that was moved. A request for another revision is refused then.
    pub(super) fn kept(&self, live: &Live) -> Result<Option<Shown>, Failure> {
        let row = live.row();
        let before = self.store.workspaces()?.into_iter().find(|known| known.id == row.id && live.was_known());
        let Some(before) = before.filter(|before| before.current.is_some()) else { return Ok(None) };
        let moved = match before.current {
            Some(current) => self.store.generation(before.id, current)?.is_some_and(|record| record.origin != "mount"),
            None => false,
        };
        if !moved && self.overlay_of(&before)?.is_pristine() {
            return Ok(None);
        }
        if row.rev.is_some() && row.rev != before.rev {
            let text = format!("workspace {} has work in it, so it stays at its commit", row.name);
            return Err(Failure::new(FailureClass::Refused, text)
                .hint(format!("mount it without --rev, then `larder switch {} REV`", row.name)));
        }
        live.update(&self.store, |row| row.rev.clone_from(&before.rev))?;
        prepare::reopen(self, live).map(Some)
    }

    /// Where the plain files of a workspace's overlay are.
    pub(super) fn overlay_directory(&self, id: WorkspaceId) -> PathBuf {
        self.config.home.join("overlay").join(id.0.to_string())
    }

    /// Folds the overlay of a workspace that is no longer mounted.
    pub(super) fn close_overlay(&self, id: WorkspaceId) {
        let overlay = self.overlays.lock().get(&id).cloned();
        if let Some(overlay) = overlay
            && let Err(error) = overlay.close()
        {
            tracing::error!("local changes stay in the write-ahead file: {error}");
        }
    }

    /// Removes the overlay of a workspace with everything in it.
    pub(super) fn remove_overlay(&self, id: WorkspaceId) -> Result<(), Failure> {
        self.overlays.lock().remove(&id);
        Ok(self.store.remove_overlay(id, &self.overlay_directory(id))?)
    }
}
