//! Fetches a bulk batch, retrying what may pass and asking again for what did not come.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use gix::ObjectId;

use super::bulk::{Brought, Bulk};
use super::engine::{Core, closed};
use super::landing::{Landing, cancelled};
use super::remote::{Connection, Extent, FailureKind, RemoteError};
use super::worker::{Attempts, Post, connect, land_stored};
use crate::store::FetchClass;

/// Objects looked at under the lock in one go: a tenth of a millisecond, which a reader does not notice.
pub(super) const LOCKED_OBJECTS: usize = 1024;

/// Ids in one request. HTTP servers take a megabyte by default; a line has 50 bytes, or 74 for SHA-256.
const REQUEST_WANTS: usize = 13_000;

/// Objects of one batch that the remote may lack. Each costs a request to find out; more is another repository.
const MISSING_LIMIT: usize = 64;

/// Fetches `bulk` on `connection` and tells what became of it.
pub(super) fn carry(core: &Arc<Core>, slot: usize, connection: &mut Option<Box<dyn Connection>>, mut bulk: Bulk) {
    let mut brought = Brought::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| fetch(core, slot, connection, &mut bulk, &mut brought)));
    let outcome =
        outcome.unwrap_or_else(|_| Err(RemoteError::new(FailureKind::Local, "warming failed; see the daemon's log")));
    if let Err(error) = outcome {
        *connection = None;
        brought.error = Some(error);
    }
    for some in bulk.cargo.wants.chunks(LOCKED_OBJECTS) {
        core.state.lock().flights.end_bulk(some.iter().map(|want| &want.id), bulk.number);
    }
    if brought.objects > 0 {
        let took = bulk.since.elapsed();
        core.store.note_fetch(bulk.cause.record(None, FetchClass::Warm, (brought.objects, brought.bytes), took));
    }
    let mut state = core.state.lock();
    state.bulk_bytes -= bulk.known_bytes();
    state.posts[slot] = Post::Busy;
    if let Some(error) = brought.error.as_ref().filter(|_| !bulk.is_cancelled()) {
        state.last_error = Some(error.clone());
    }
    core.hurry(&state);
    drop(state);
    let Bulk { tell, place, .. } = bulk;
    drop(place);
    // Whoever asked may have gone away.
    let _ = tell.send(brought);
    core.changed.notify_waiters();
}

fn fetch(
    core: &Arc<Core>,
    slot: usize,
    connection: &mut Option<Box<dyn Connection>>,
    bulk: &mut Bulk,
    brought: &mut Brought,
) -> Result<(), RemoteError> {
    let mut attempts = Attempts::default();
    let mut complete = false;
    loop {
        if bulk.is_cancelled() {
            return Err(cancelled());
        }
        if core.state.lock().closed {
            return Err(closed());
        }
        let open = still_open(core, bulk);
        let (ids, extent) = bulk.cargo.request(&open);
        if ids.is_empty() {
            return Ok(());
        }
        if complete && bulk.cargo.max_blob_bytes.is_some() {
            // The rest is too large.
            return Ok(());
        }
        let reused = connection.is_some();
        let before = brought.objects;
        let mut outcome = Ok(());
        for some in ids.chunks(REQUEST_WANTS) {
            outcome =
                connect(core, connection).and_then(|connection| ask(core, connection, bulk, some, extent, brought));
            if outcome.is_err() {
                break;
            }
        }
        if brought.objects > before {
            attempts.reset();
        }
        match outcome {
            Ok(()) if std::mem::replace(&mut complete, true) => {
                // Asked for by its own id it did not come either.
                brought.missing.extend(ids);
                return Ok(());
            }
            Ok(()) => bulk.cargo.subtrees.retain(|subtree| subtree.always),
            Err(mut error) => {
                if brought.objects > before && error.kind == FailureKind::Offline {
                    // It was there a moment ago.
                    error.kind = FailureKind::Transient;
                }
                if bulk.is_cancelled() {
                    return Err(cancelled());
                }
                core.failed(&error, ids.len());
                if !lacks(core, bulk, brought, &error) {
                    *connection = None;
                    note_retry(core, slot);
                    if !attempts.again(core, &error, reused) {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// One request.
fn ask(
    core: &Arc<Core>,
    connection: &mut Box<dyn Connection>,
    bulk: &Bulk,
    ids: &[ObjectId],
    extent: Extent,
    brought: &mut Brought,
) -> Result<(), RemoteError> {
    core.metrics.remote_requests.inc();
    brought.requests += 1;
    let mut landing = Landing::bulk(core, bulk);
    let outcome = connection.fetch(ids, extent, &mut landing);
    brought.objects += landing.objects;
    brought.bytes += landing.bytes;
    brought.arrivals = brought.arrivals.max(landing.arrivals);
    outcome
}

/// Takes out what the remote says it lacks. False: the failure is another one.
fn lacks(core: &Core, bulk: &mut Bulk, brought: &mut Brought, error: &RemoteError) -> bool {
    let (FailureKind::Missing, Some(id)) = (error.kind, error.object) else { return false };
    if bulk.cargo.forget_tree(&id) {
        return true;
    }
    let mut state = core.state.lock();
    if !state.flights.expects(&id, bulk.number) || brought.missing.len() >= MISSING_LIMIT {
        return false;
    }
    state.flights.end_bulk([id].iter(), bulk.number);
    brought.missing.push(id);
    true
}

fn note_retry(core: &Core, slot: usize) {
    if let Post::Serving(waiting) = &mut core.state.lock().posts[slot] {
        waiting.retries += 1;
    }
}

/// Which of the wants are still to come. The store is asked once more: others fetch too.
fn still_open(core: &Core, bulk: &Bulk) -> Vec<bool> {
    let mut open = Vec::with_capacity(bulk.cargo.wants.len());
    for some in bulk.cargo.wants.chunks(LOCKED_OBJECTS) {
        let ids: Vec<ObjectId> = some.iter().map(|want| want.id).collect();
        if !bulk.cargo.trees {
            land_stored(core, &ids);
        }
        let state = core.state.lock();
        open.extend(ids.iter().map(|id| state.flights.expects(id, bulk.number)));
    }
    open
}
