//! Finding out, while a workspace is prepared, whether its files are converted.
//!
//! Costs one `git config`, a walk over names (once a root tree) and reading
//! the attribute files. Those the store lacks are fetched before the workspace
//! is shown, because inode numbers and sizes follow from them: together, in
//! one exchange, and only these. Where they can't be had the workspace is
//! shown without the sizes of its files until they can.

use std::collections::HashMap;
use std::sync::Arc;

use gix::ObjectId;
use parking_lot::Mutex;

use super::Daemon;
use super::protocol::{Failure, FailureClass};
use crate::git::convert::{Checkout, GitConversions};
use crate::hydrate::{Cause, Hydrator, Landed, Owner, Want};
use crate::index::convert::{RulesError, attribute_blobs};
use crate::store::{Batch, GenerationRecord, Operation, Repository, Workspace};
use crate::vfs::convert::Converter;

/// Root trees whose attribute files are remembered.
const REMEMBERED: usize = 16;

/// Attribute files of root trees looked at lately.
#[derive(Default)]
pub struct AttributeBlobs {
    // Guards the table alone.
    roots: Mutex<HashMap<ObjectId, Arc<[ObjectId]>>>,
}

impl AttributeBlobs {
    pub(super) fn of(&self, daemon: &Daemon, root: ObjectId) -> Result<Arc<[ObjectId]>, Failure> {
        if let Some(known) = self.roots.lock().get(&root) {
            return Ok(Arc::clone(known));
        }
        let found: Arc<[ObjectId]> = attribute_blobs(&daemon.store, root)?.into();
        let mut roots = self.roots.lock();
        if roots.len() >= REMEMBERED {
            roots.clear();
        }
        roots.insert(root, Arc::clone(&found));
        Ok(found)
    }
}

/// What converts the files of `record`; `None`: nothing does. With `fetch` missing attribute files are fetched by that.
/// Blocks, on a thread that may.
pub fn converter(
    daemon: &Daemon,
    repository: &Repository,
    row: &Workspace,
    record: &GenerationRecord,
    environment: Vec<(String, String)>,
    fetch: Option<&Hydrator>,
) -> Result<Option<Arc<Converter>>, Failure> {
    let Some(admin) = row.admin.clone() else { return Ok(None) };
    let checkout = Checkout {
        environment,
        common: repository.gitdir.clone(),
        admin,
        scratch: daemon.config.home.join("filters"),
        timeout: daemon.config.settings.git.filter_timeout,
        commit: record.commit.0,
        reference: row.reference.clone(),
    };
    let blobs = daemon.attributes.of(daemon, record.tree.0)?;
    let conversions = GitConversions::new(daemon.store.clone(), checkout)
        .map_err(|error| Failure::new(FailureClass::Other, format!("checkout conversions: {error}")))?;
    let mut may = conversions.may_convert(&blobs);
    if let (Some(hydrator), Err(RulesError::Missing(ids))) = (fetch, &may) {
        bring(daemon, row, hydrator, ids);
        may = conversions.may_convert(&blobs);
    }
    let converts = match may {
        Ok(converts) => converts,
        Err(RulesError::Missing(ids)) => {
            tracing::warn!(workspace = row.name, files = ids.len(), "attribute files are missing: sizes wait for them");
            true
        }
        Err(RulesError::Index(error)) => return Err(error.into()),
    };
    if !converts {
        return Ok(None);
    }
    tracing::info!(workspace = row.name, "files are converted as a checkout would");
    Ok(Some(Arc::new(Converter::new(daemon.store.clone(), Arc::new(conversions)))))
}

/// Fetches `ids` and stores them. What fails stays missing.
pub(super) fn bring(daemon: &Daemon, row: &Workspace, hydrator: &Hydrator, ids: &[ObjectId]) {
    let Some((first, rest)) = ids.split_first() else { return };
    let want = |id: &ObjectId| Want { id: *id, size: None };
    let companions: Vec<Want> = rest.iter().map(want).collect();
    let cause = Arc::new(Cause::new(Owner(row.id.0), b".gitattributes", Operation::Convert));
    // The first takes the others along; then each is waited for.
    let mut tickets = vec![(*first, hydrator.hydrate(want(first), &cause, &companions))];
    tickets.extend(rest.iter().map(|id| (*id, hydrator.hydrate(want(id), &cause, &[]))));
    let mut batch = Batch::default();
    daemon.runtime.block_on(async {
        for (id, ticket) in tickets {
            match ticket.wait().await {
                // Arrived, and perhaps not written yet.
                Ok(Landed::Bytes(bytes)) => batch.blob(id, &bytes),
                Ok(Landed::Stored | Landed::Structure(..)) => {}
                Err(error) => tracing::warn!(object = %id, "attribute file: {error}"),
            }
        }
    });
    if let Err(error) = daemon.store.commit(batch) {
        tracing::warn!("attribute files: {error}");
    }
}
