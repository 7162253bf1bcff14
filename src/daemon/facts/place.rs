//! Which workspace, and which path in it, somebody means.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};
use crate::store::{Workspace, WorkspaceId};

/// A workspace, and a path in it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The workspace.
    pub workspace: Workspace,
    /// Relative to its root, as bytes; empty is the root.
    pub path: Vec<u8>,
}

/// What `meaning` names: a workspace by its name, or an absolute path in the innermost mount around it.
pub(super) fn find(sources: &Sources<'_>, meaning: &str) -> Result<Place, Failure> {
    let workspaces = sources.store.workspaces()?;
    if let Some(workspace) = workspaces.iter().find(|row| row.name == meaning) {
        return Ok(Place { workspace: workspace.clone(), path: Vec::new() });
    }
    let path = Path::new(meaning);
    let around = workspaces.into_iter().filter(|row| path.is_absolute() && path.starts_with(&row.path));
    let innermost = around.max_by_key(|row| row.path.as_os_str().len());
    let found = innermost.and_then(|workspace| {
        let path = path.strip_prefix(&workspace.path).ok()?.as_os_str().as_bytes().to_vec();
        Some(Place { workspace, path })
    });
    found.ok_or_else(|| {
        let text = format!("cannot find a workspace of that name, or around that path: {meaning:?}");
        Failure::new(FailureClass::NotFound, text).hint("`larder list` shows all")
    })
}

/// The workspaces' names.
pub(super) fn names(sources: &Sources<'_>) -> Result<HashMap<WorkspaceId, String>, Failure> {
    Ok(sources.store.workspaces()?.into_iter().map(|row| (row.id, row.name)).collect())
}
