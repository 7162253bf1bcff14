//! The hydrator: the handle readers ask, and the threads that serve it.
//!
//! Owns the flights of one repository and its connections. Callers get a
//! [`Ticket`], a future that never blocks a thread; dropping it cancels.
//! Connections block, so each has a thread of its own, started when there is
//! work for it. The first connection serves only batches that a reader leads,
//! so a read never queues behind prefetch.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use gix::ObjectId;

use super::flight::{Flights, Landed, Outcome, Seat, Waiting};
use super::queue::{Class, Want};
use super::remote::{Abilities, Connection, FailureKind, Remote, RemoteError};
use super::worker;
use crate::metrics::Metrics;
use crate::store::Store;

/// Bounds and times of one repository's hydration; the defaults are those of [`crate::config`].
#[derive(Clone, Copy, Debug)]
pub struct HydrateSettings {
    /// Connections at most.
    pub connections: usize,
    /// How long a batch waits for company.
    pub coalesce: Duration,
    /// Objects in a request at most.
    pub batch_objects: usize,
    /// Known raw bytes in a request at most.
    pub batch_bytes: u64,
    /// Attempts after the first for what is transient.
    pub retries: u32,
    /// Longest silence of a remote before waiters are told it is offline.
    pub timeout: Duration,
}

impl Default for HydrateSettings {
    fn default() -> Self {
        Self {
            connections: 2,
            coalesce: Duration::from_millis(2),
            batch_objects: 256,
            batch_bytes: 8 << 20,
            retries: 4,
            timeout: Duration::from_secs(30),
        }
    }
}

/// How much longer than its connection a reader waits.
const TICKET_GRACE: Duration = Duration::from_secs(1);

/// A question for sizes alone.
pub(super) struct SizeQuery {
    pub(super) ids: Vec<ObjectId>,
    pub(super) tell: oneshot::Sender<Result<(), RemoteError>>,
}

/// Guarded by `Core::state`; the only lock of this layer, held for no I/O.
#[derive(Default)]
pub(super) struct State {
    pub(super) flights: Flights,
    pub(super) size_queries: Vec<SizeQuery>,
    pub(super) closed: bool,
    /// Slots of worker threads that exist.
    pub(super) workers: Vec<bool>,
    pub(super) last_error: Option<RemoteError>,
}

pub(super) struct Core {
    pub(super) store: Store,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) settings: HydrateSettings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
    /// Connections made elsewhere (preparation) and not yet in use.
    pub(super) spare: Mutex<Vec<Box<dyn Connection>>>,
    pub(super) abilities: Mutex<Option<Abilities>>,
    pub(super) offline: AtomicBool,
}

/// Brings objects into the store; cheap to clone. When the last clone is
/// dropped, waiters are told and the threads end.
#[derive(Clone)]
pub struct Hydrator(Arc<Handle>);

struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Hydrator {
    /// A hydrator that fetches from `remote` into `store`; `connection` is one that is already open.
    pub fn new(
        store: Store,
        remote: Arc<dyn Remote>,
        settings: HydrateSettings,
        metrics: Arc<Metrics>,
        connection: Option<Box<dyn Connection>>,
    ) -> Self {
        let abilities = connection.as_ref().map(|connection| connection.abilities());
        let state = State { workers: vec![false; settings.connections.max(1)], ..State::default() };
        Self(Arc::new(Handle(Arc::new(Core {
            store,
            remote,
            settings,
            metrics,
            state: Mutex::new(state),
            work: Condvar::new(),
            spare: Mutex::new(connection.into_iter().collect()),
            abilities: Mutex::new(abilities),
            offline: AtomicBool::new(false),
        }))))
    }

    /// Takes over a connection that is already open, unless there are enough.
    pub fn donate(&self, connection: Box<dyn Connection>) {
        let core = &self.0.0;
        let mut spare = core.spare.lock();
        if spare.len() < core.settings.connections {
            spare.push(connection);
        }
    }

    /// Asks for `want` on behalf of a reader of `path`; `companions` ride along, most wanted first.
    pub fn hydrate(&self, want: Want, path: &[u8], companions: &[Want]) -> Ticket {
        let core = &self.0.0;
        let mut state = core.state.lock();
        if state.closed {
            return Ticket::done(core, want.id, Err(closed()));
        }
        let seat = state.flights.join(want, Box::from(path));
        for companion in companions {
            state.flights.prefetch(*companion, Class::Sibling);
        }
        core.observe(&state);
        Core::start_workers(core, &mut state);
        drop(state);
        core.work.notify_all();
        match seat {
            Seat::Landed(bytes) => Ticket::done(core, want.id, Ok(Landed::Bytes(bytes))),
            Seat::Waiting { number, hear } => Ticket::waiting(core, want.id, number, hear),
        }
    }

    /// Whether `id` arrived and is on its way into the store. Ask this before the store: what is committed in between is
    /// then found there.
    pub fn holds(&self, id: &ObjectId) -> bool {
        self.0.0.state.lock().flights.holds(id)
    }

    /// Learns the raw sizes of `ids` without their contents, in one request.
    /// Fails with [`FailureKind::Unsupported`] where the server can't.
    pub fn sizes(&self, ids: Vec<ObjectId>) -> impl Future<Output = Result<(), RemoteError>> + Send + use<> {
        let core = &self.0.0;
        let (tell, hear) = oneshot::channel();
        let mut state = core.state.lock();
        if !state.closed {
            state.size_queries.push(SizeQuery { ids, tell });
            Core::start_workers(core, &mut state);
        }
        drop(state);
        core.work.notify_all();
        async move { hear.await.unwrap_or_else(|_| Err(closed())) }
    }

    /// Whether the server answers for sizes alone; `None` before the first connection.
    pub fn offers_sizes(&self) -> Option<bool> {
        self.0.0.abilities.lock().map(|abilities| abilities.object_info)
    }

    /// Everyone who waits now.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.0.0.state.lock().flights.waiting()
    }

    /// Wants queued, objects on connections.
    pub fn backlog(&self) -> (usize, usize) {
        let state = self.0.0.state.lock();
        (state.flights.queued(), state.flights.sent())
    }

    /// Whether the last exchange with the remote failed for want of a network.
    pub fn offline(&self) -> bool {
        self.0.0.offline.load(Ordering::Relaxed)
    }

    /// The last failure that was told to somebody.
    pub fn last_error(&self) -> Option<RemoteError> {
        self.0.0.state.lock().last_error.clone()
    }
}

impl Core {
    pub(super) fn observe(&self, state: &State) {
        self.metrics.queue_depth.set(i64::try_from(state.flights.queued()).unwrap_or(i64::MAX));
        self.metrics.inflight_objects.set(i64::try_from(state.flights.sent()).unwrap_or(i64::MAX));
    }

    /// Makes sure every worker slot has its thread. Threads are cheap; a
    /// connection is only opened by the one that takes a job.
    fn start_workers(core: &Arc<Self>, state: &mut State) {
        for slot in 0..state.workers.len() {
            if state.workers[slot] {
                continue;
            }
            let owned = Arc::clone(core);
            let started =
                std::thread::Builder::new().name(format!("hydrate-{slot}")).spawn(move || worker::run(&owned, slot));
            match started {
                Ok(_) => state.workers[slot] = true,
                Err(error) if slot == 0 => {
                    let error = RemoteError::new(FailureKind::Local, format!("cannot start a thread: {error}"));
                    state.flights.fail_all(&error);
                }
                Err(error) => tracing::warn!("cannot start a thread: {error}"),
            }
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.flights.fail_all(&closed());
        state.size_queries.clear();
        drop(state);
        self.work.notify_all();
        self.spare.lock().clear();
    }
}

fn closed() -> RemoteError {
    RemoteError::new(FailureKind::Offline, "the workspace is being unmounted")
}

/// One reader's wait for one object. Dropping it cancels.
pub struct Ticket {
    core: Arc<Core>,
    id: ObjectId,
    number: Option<u64>,
    hear: Result<oneshot::Receiver<Outcome>, Option<Outcome>>,
    since: Instant,
}

impl Ticket {
    fn done(core: &Arc<Core>, id: ObjectId, outcome: Outcome) -> Self {
        Self { core: Arc::clone(core), id, number: None, hear: Err(Some(outcome)), since: Instant::now() }
    }

    fn waiting(core: &Arc<Core>, id: ObjectId, number: u64, hear: oneshot::Receiver<Outcome>) -> Self {
        Self { core: Arc::clone(core), id, number: Some(number), hear: Ok(hear), since: Instant::now() }
    }

    /// Waits for the object. Fails as offline once nothing was heard of it for the time-out.
    pub async fn wait(mut self) -> Outcome {
        // A little longer than the connection's own, so that its failure comes first and clears the flight.
        let timeout = self.core.settings.timeout + TICKET_GRACE;
        let mut deadline = self.since + timeout;
        loop {
            let hear = match &mut self.hear {
                Ok(hear) => hear,
                Err(outcome) => return outcome.take().unwrap_or_else(|| Err(closed())),
            };
            match tokio::time::timeout_at(deadline.into(), hear).await {
                Ok(outcome) => {
                    self.number = None;
                    self.core.metrics.hydration_seconds.observe(self.since.elapsed().as_secs_f64());
                    return outcome.unwrap_or_else(|_| Err(closed()));
                }
                Err(_) => match self.core.state.lock().flights.moved(&self.id) {
                    Some(moved) if moved + timeout > Instant::now() => deadline = moved + timeout,
                    _ => {
                        let text = format!("nothing heard from {} for {timeout:?}", self.core.remote.address());
                        return Err(RemoteError::new(FailureKind::Offline, text).about(self.id));
                    }
                },
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.core.state.lock();
            state.flights.leave(&self.id, number);
            self.core.observe(&state);
        }
    }
}
