//! The thread that compresses and commits what arrived.
//!
//! Readers have their bytes before they are stored, so nobody waits for it but
//! a bulk batch that has filled the memory it may have. It commits whatever
//! has come together meanwhile: many readers' objects share a transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;

use super::engine::{Core, State};
use super::remote::{FailureKind, RemoteError};
use crate::store::{Batch, Listing};

/// Objects in a transaction: from here on its own cost is lost in theirs.
pub(super) const COMMIT_OBJECTS: usize = 512;

/// Raw bytes in a transaction: a tenth of a second of compression.
const COMMIT_BYTES: u64 = 8 << 20;

/// A transaction waits this long to be filled, unless nothing is on its way and somebody waits for what there is. Readers
/// have their bytes: without this, each of those who ask for one object after the other costs a transaction.
const LINGER: Duration = Duration::from_millis(5);

/// How far the writer stands back (`setpriority(2)`, this thread alone): a third of a reader's share of a busy CPU.
const NICE: i32 = 5;

/// What arrived and is not stored.
pub(super) enum Unsaved {
    Blob(ObjectId, Bytes),
    Tree(ObjectId, Listing),
}

impl Unsaved {
    fn id(&self) -> &ObjectId {
        match self {
            Self::Blob(id, _) | Self::Tree(id, _) => id,
        }
    }
}

/// Starts the writer. False: it can't be, and the log says why.
pub(super) fn start(core: &Arc<Core>) -> bool {
    let owned = Arc::clone(core);
    let started = std::thread::Builder::new().name("hydrate-writer".into()).spawn(move || run(&owned));
    started.map_err(|error| tracing::error!("cannot start a thread: {error}")).is_ok()
}

/// Stores what arrives until the hydrator closes; then what is left.
fn run(core: &Arc<Core>) {
    // Readers have what they asked for: their next question comes before compressing what is there already.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("the writer's priority: {error}");
    }
    while let Some(some) = next(core) {
        let mut batch = Batch::default();
        for unsaved in &some {
            match unsaved {
                Unsaved::Blob(id, data) => batch.blob(*id, data),
                Unsaved::Tree(id, listing) => batch.tree(*id, listing),
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| core.store.commit(batch)));
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(RemoteError::from(error)),
            Err(_) => Some(RemoteError::new(FailureKind::Local, "storing objects failed; see the daemon's log")),
        };
        if let Some(error) = &failure {
            // Readers have their bytes; the cache does not, so they will be fetched again.
            tracing::error!("objects were not cached: {error}");
        }
        let mut state = core.state.lock();
        state.flights.settle(some.iter().map(Unsaved::id));
        state.saved += some.len() as u64;
        if let Some(error) = failure {
            state.last_error = Some(error.clone());
            state.write_failure = Some((state.saved, error));
        }
        drop(state);
        core.room.notify_all();
        core.changed.notify_waiters();
    }
    core.state.lock().writer = false;
    core.room.notify_all();
}

/// The next transaction's objects. `None`: the hydrator closed and everything is stored.
fn next(core: &Core) -> Option<Vec<Unsaved>> {
    let mut state = core.state.lock();
    while state.unsaved.is_empty() {
        if state.closed {
            return None;
        }
        core.unsaved.wait(&mut state);
    }
    let until = Instant::now() + LINGER;
    while may_grow(&state) && !core.unsaved.wait_until(&mut state, until).timed_out() {}
    let mut bytes = 0;
    let mut some = Vec::new();
    while some.len() < COMMIT_OBJECTS && bytes < COMMIT_BYTES {
        let Some(unsaved) = state.unsaved.pop_front() else { break };
        if let Unsaved::Blob(_, data) = &unsaved {
            bytes += data.len() as u64;
        }
        some.push(unsaved);
    }
    Some(some)
}

fn may_grow(state: &State) -> bool {
    let worth_waiting = state.is_coming() || state.awaiting == 0;
    !state.closed
        && worth_waiting
        && state.unsaved.len() < COMMIT_OBJECTS
        && state.flights.landing_bytes() < COMMIT_BYTES
}
