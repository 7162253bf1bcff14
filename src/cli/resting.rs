//! What the store knows of the workspaces while no daemon runs.

use std::time::Duration;

use crate::config::Config;
use crate::daemon::facts::{Sources, changes};
use crate::daemon::mounting::is_stale;
use crate::daemon::protocol::{Failure, WorkspaceStatus};
use crate::daemon::status;
use crate::index::census::Census;
use crate::store::{Store, StoreError, Workspace, WorkspaceState, patiently};

/// Opens the store for reading, once whoever died lets go of it.
pub(super) fn open(config: &Config) -> Result<Store, StoreError> {
    patiently(|| Store::open_read_only(&config.store_path))
}

/// Whether a daemon died and left mounts behind: whoever asks about them wants them back.
pub(super) fn orphaned(config: &Config) -> bool {
    let rows = || open(config).and_then(|store| store.workspaces());
    config.store_path.exists() && rows().is_ok_and(|rows| rows.iter().any(|row| row.mounted && is_stale(&row.path)))
}

/// All workspaces by name; none where there is no store. Nothing is mounted without a daemon. With `count` all trees are
/// walked for what is hydrated.
pub(super) fn workspaces(config: &Config, count: bool) -> Result<Vec<WorkspaceStatus>, Failure> {
    if !config.store_path.exists() {
        return Ok(Vec::new());
    }
    let store = open(config)?;
    let repositories = store.repositories()?;
    let mut found = Vec::new();
    for row in store.workspaces()? {
        let state = if row.state == WorkspaceState::Failed { row.state } else { WorkspaceState::Unmounted };
        let row = Workspace { state, ..row };
        let mut status = status::describe(&store, &row, &repositories)?;
        if count
            && let Some(current) = row.current
            && let Some(record) = store.generation(row.id, current)?
        {
            let census = Census::new(&store, record.tree.0);
            // What a damaged store can't count is shown as not cached.
            let _ = census.count(&store);
            let here = census.here(Duration::ZERO);
            (status.hydrated_objects, status.hydrated_bytes, status.counting) = (here.objects, here.bytes, !here.whole);
            let sources = Sources { store: &store, config, daemon: None };
            // So are local changes that can't be read.
            status.overlay_entries = changes::count(&sources, &row, &record).unwrap_or_default();
        }
        found.push(status);
    }
    found.sort_by(|a, b| a.workspace.cmp(&b.workspace));
    Ok(found)
}
