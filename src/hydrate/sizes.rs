//! Raw sizes without contents, where the server answers for them (`object-info`, gitprotocol-v2(5)).

use std::sync::Arc;
use std::time::Instant;

use gix::ObjectId;
use tokio::sync::oneshot;

use super::cause::Cause;
use super::engine::Core;
use super::remote::{Connection, FailureKind, RemoteError};
use super::worker::{Attempts, connect};
use crate::store::{Batch, FetchClass};

/// Objects and their raw sizes.
pub type Sizes = Vec<(ObjectId, u64)>;

/// A question for sizes alone.
pub(super) struct SizeQuery {
    pub(super) ids: Vec<ObjectId>,
    cause: Option<Arc<Cause>>,
    pub(super) since: Instant,
    pub(super) tell: oneshot::Sender<Result<Sizes, RemoteError>>,
}

impl SizeQuery {
    pub(super) fn new(
        ids: Vec<ObjectId>,
        cause: Option<&Arc<Cause>>,
        tell: oneshot::Sender<Result<Sizes, RemoteError>>,
    ) -> Self {
        Self { ids, cause: cause.map(Arc::clone), since: Instant::now(), tell }
    }

    /// Whether a reader waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        self.cause.is_some()
    }

    pub(super) fn path(&self) -> &[u8] {
        self.cause.as_ref().map(|cause| &*cause.label).unwrap_or_default()
    }
}

/// Answers `query`, trying again what may pass.
pub(super) fn answer(core: &Arc<Core>, connection: &mut Option<Box<dyn Connection>>, query: SizeQuery) {
    let mut attempts = Attempts::default();
    let outcome = loop {
        if query.tell.is_closed() {
            return;
        }
        let reused = connection.is_some();
        let outcome = attempt(core, connection, &query.ids);
        if let Err(error) = &outcome
            && error.kind != FailureKind::Unsupported
        {
            core.failed(error, query.ids.len());
            *connection = None;
            if attempts.again(core, error, reused) {
                continue;
            }
        }
        break outcome;
    };
    if let (Some(cause), Ok(sizes)) = (&query.cause, &outcome) {
        let told = (sizes.len() as u64, 0);
        core.store.note_fetch(cause.record(None, FetchClass::Sizes, told, query.since.elapsed()));
    }
    // Whoever asked may have gone away.
    let _ = query.tell.send(outcome);
}

fn attempt(core: &Core, connection: &mut Option<Box<dyn Connection>>, ids: &[ObjectId]) -> Result<Sizes, RemoteError> {
    let connection = connect(core, connection)?;
    if !connection.abilities().object_info {
        return Err(RemoteError::new(FailureKind::Unsupported, "the server does not answer for sizes"));
    }
    core.metrics.remote_requests.inc();
    let mut batch = Batch::default();
    let sizes = connection.sizes(ids)?;
    for (id, size) in &sizes {
        batch.size(*id, *size);
    }
    if let Err(error) = core.store.commit(batch) {
        // Whoever asked has them; on a full disk they are asked for again when they are needed again.
        tracing::error!("sizes were not cached: {error}");
        core.state.lock().last_error = Some(error.into());
    }
    Ok(sizes)
}
