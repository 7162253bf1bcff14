//! The hydrator: the handle readers and warms ask.
//!
//! Owns the flights of one repository and its connections. Callers get
//! futures that never block a thread; dropping one cancels. Connections block,
//! so each has a thread of its own, started when there is work for it. The
//! first connection serves only what somebody waits for, so a read never
//! queues behind prefetch.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::bulk::Bulk;
use super::cause::Cause;
use super::class::ClassTable;
use super::flight::{Awaited, Flights, Place, Seat, Waiting};
use super::queue::{ByClass, Class, Owner, Want};
use super::remote::{Abilities, Connection, FailureKind, Remote, RemoteError};
use super::sizes::{SizeQuery, Sizes};
use super::ticket::Ticket;
use super::worker::{self, Post};
use super::writer::{self, Unsaved};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// Bulk batches that exist at once: one under way, one ready to follow it, one being walked.
const BULK_PLACES: usize = 3;

/// Longest wait for the store of who looks at what is cached.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
/// The same while a warm is under way: an answer within a tenth of a second.
const LOOK_BESIDE_A_WARM: Duration = Duration::from_millis(30);

/// Bounds and times of one repository's hydration; [`crate::config`] says why each is what it is.
#[derive(Clone, Debug)]
pub struct HydrateSettings {
    /// Connections at most.
    pub connections: usize,
    /// How long prefetch waits for company.
    pub coalesce: Duration,
    /// Objects in a request at most.
    pub batch_objects: usize,
    /// Known raw bytes in a request at most.
    pub batch_bytes: u64,
    /// Objects in a request of a warm at most.
    pub warm_objects: usize,
    /// Wants queued for prefetch at most.
    pub queue_objects: usize,
    /// Objects asked for and not here yet, at most.
    pub inflight_objects: usize,
    /// Their known raw bytes, at most.
    pub inflight_bytes: u64,
    /// Raw bytes that arrived and are not stored yet, at most.
    pub memory_bytes: u64,
    /// Attempts after the first for what is transient.
    pub retries: u32,
    /// Longest silence of a remote before waiters are told it is offline.
    pub timeout: Duration,
    /// Which files are prefetched first.
    pub classes: Arc<ClassTable>,
}

impl Default for HydrateSettings {
    fn default() -> Self {
        Self {
            connections: 2,
            coalesce: Duration::from_millis(2),
            batch_objects: 256,
            batch_bytes: 8 << 20,
            warm_objects: 32_768,
            queue_objects: 65_536,
            inflight_objects: 65_536,
            inflight_bytes: 2 << 30,
            memory_bytes: 32 << 20,
            retries: 4,
            timeout: Duration::from_secs(30),
            classes: Arc::default(),
        }
    }
}

/// What a hydrator has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Wants queued, by class.
    pub queued: ByClass,
    /// Objects of bulk batches that wait for a connection.
    pub bulk_queued: usize,
    /// Objects on connections, bulk apart.
    pub sent: usize,
    /// Objects of bulk batches on connections.
    pub bulk_sent: usize,
    /// Raw bytes that arrived and are not stored yet.
    pub unsaved_bytes: u64,
}

/// What changes; held for no I/O.
pub(super) struct State {
    pub(super) flights: Flights,
    pub(super) sizes: VecDeque<SizeQuery>,
    pub(super) bulks: VecDeque<Bulk>,
    /// Known raw bytes of bulk batches under way.
    pub(super) bulk_bytes: u64,
    /// When the oldest prefetch may leave without further company.
    pub(super) prefetch_due: Instant,
    /// What each worker slot does.
    pub(super) posts: Vec<Post>,
    pub(super) unsaved: VecDeque<Unsaved>,
    /// Objects handed to the writer, and how many of those it is done with.
    pub(super) arrived: u64,
    pub(super) saved: u64,
    /// The arrival whose commit failed last, and why.
    pub(super) write_failure: Option<(u64, RemoteError)>,
    pub(super) writer: bool,
    /// How many wait for something to be stored.
    pub(super) awaiting: usize,
    pub(super) closed: bool,
    pub(super) last_error: Option<RemoteError>,
}

pub(super) struct Core {
    pub(super) store: Store,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) settings: HydrateSettings,
    pub(super) metrics: Arc<Metrics>,
    /// The only lock of this layer that is held while another thread is waited for (with a condition); `spare` and
    /// `abilities` are held for a moment and never together with it.
    pub(super) state: Mutex<State>,
    /// One a worker slot, so that one worker is woken and not all.
    pub(super) work: Vec<Condvar>,
    /// Something arrived for the writer.
    pub(super) unsaved: Condvar,
    /// The writer made room, or ended.
    pub(super) room: Condvar,
    /// Something arrived, was stored, failed or was given up.
    pub(super) changed: Notify,
    pub(super) bulk_places: Arc<Semaphore>,
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
        let slots = settings.connections.max(1);
        let state = State {
            flights: Flights::new(settings.queue_objects),
            sizes: VecDeque::new(),
            bulks: VecDeque::new(),
            bulk_bytes: 0,
            prefetch_due: Instant::now(),
            posts: std::iter::repeat_with(|| Post::Absent).take(slots).collect(),
            unsaved: VecDeque::new(),
            arrived: 0,
            saved: 0,
            write_failure: None,
            writer: false,
            awaiting: 0,
            closed: false,
            last_error: None,
        };
        Self(Arc::new(Handle(Arc::new(Core {
            store,
            remote,
            settings,
            metrics,
            state: Mutex::new(state),
            work: std::iter::repeat_with(Condvar::new).take(slots).collect(),
            unsaved: Condvar::new(),
            room: Condvar::new(),
            changed: Notify::new(),
            bulk_places: Arc::new(Semaphore::new(BULK_PLACES)),
            spare: Mutex::new(connection.into_iter().collect()),
            abilities: Mutex::new(abilities),
            offline: AtomicBool::new(false),
        }))))
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0.0
    }

    /// Where objects go.
    pub fn store(&self) -> &Store {
        &self.core().store
    }

    /// Its bounds.
    pub fn settings(&self) -> &HydrateSettings {
        &self.core().settings
    }

    /// Takes over a connection that is already open, unless there are enough.
    pub fn donate(&self, connection: Box<dyn Connection>) {
        let core = self.core();
        let mut spare = core.spare.lock();
        if spare.len() < core.settings.connections {
            spare.push(connection);
        }
    }

    /// Asks for `want` on behalf of a reader; `companions` follow it, most wanted first.
    pub fn hydrate(&self, want: Want, cause: &Arc<Cause>, companions: &[Want]) -> Ticket {
        let core = self.core();
        let mut state = core.state.lock();
        if state.closed {
            return Ticket::done(core, want.id, Err(closed()));
        }
        let seat = state.flights.join(want, cause);
        if !companions.is_empty() {
            // They are each other's company.
            state.prefetch_due = Instant::now();
        }
        for companion in companions {
            state.flights.prefetch(*companion, Class::Sibling, cause);
        }
        Core::wake(core, &mut state);
        drop(state);
        match seat {
            Seat::Landed(bytes) => Ticket::done(core, want.id, Ok(super::Landed::Bytes(bytes))),
            Seat::Waiting { number, hear } => Ticket::waiting(core, want.id, number, hear),
        }
    }

    /// Asks for `ids`, of whatever kind, on behalf of one reader. The first batch of them is as urgent as a read; the
    /// rest goes after reads, so that thousands hold up none.
    pub fn hydrate_all(&self, ids: &[ObjectId], cause: &Arc<Cause>) -> Vec<Ticket> {
        let core = self.core();
        let mut state = core.state.lock();
        if state.closed {
            return ids.iter().map(|id| Ticket::done(core, *id, Err(closed()))).collect();
        }
        // They are each other's company.
        state.prefetch_due = Instant::now();
        let first = core.settings.batch_objects;
        let mut tickets = Vec::with_capacity(ids.len());
        for (number, id) in ids.iter().enumerate() {
            let class = if number < first { Class::Read } else { Class::Sibling };
            let seat = state.flights.join_any_kind(Want { id: *id, size: None }, cause, class);
            tickets.push(match seat {
                Seat::Landed(bytes) => Ticket::done(core, *id, Ok(super::Landed::Bytes(bytes))),
                Seat::Waiting { number, hear } => Ticket::waiting(core, *id, number, hear),
            });
        }
        // Once, after all of them: they are to share requests.
        Core::wake(core, &mut state);
        tickets
    }

    /// Queues what of `wants` is not in the store, each object once and under its highest class, asking the store in
    /// one transaction. Returns how many were queued; what the queue has no room for is left out.
    pub fn prefetch(&self, cause: &Arc<Cause>, wants: &[(Want, Class)]) -> Result<usize, StoreError> {
        let core = self.core();
        let mut distinct: HashMap<ObjectId, usize> = HashMap::with_capacity(wants.len());
        let mut first: Vec<(Want, Class)> = Vec::new();
        for (want, class) in wants {
            let at = *distinct.entry(want.id).or_insert(first.len());
            match first.get_mut(at) {
                Some(known) => known.1 = known.1.min(*class),
                None => first.push((*want, *class)),
            }
        }
        let ids: Vec<ObjectId> = first.iter().map(|(want, _)| want.id).collect();
        let missing = core.store.missing_blobs(&ids)?;
        let mut state = core.state.lock();
        if state.closed || missing.is_empty() {
            return Ok(0);
        }
        if state.flights.queued() == 0 {
            state.prefetch_due = Instant::now() + core.settings.coalesce;
        }
        let mut queued = 0;
        for id in &missing {
            let (want, class) = first[distinct[id]];
            queued += usize::from(state.flights.prefetch(want, class, cause));
        }
        Core::wake(core, &mut state);
        Ok(queued)
    }

    /// `owner` went away: what is queued for nobody else leaves the queue.
    pub fn forget(&self, owner: Owner) {
        let core = self.core();
        let mut state = core.state.lock();
        state.flights.forget(owner);
    }

    /// Whether `id` arrived and is on its way into the store. Ask this before the store: what is committed in between is
    /// then found there.
    pub fn holds(&self, id: &ObjectId) -> bool {
        self.core().state.lock().flights.holds(id)
    }

    /// Learns the raw sizes of `ids` without their contents, in one request; for a reader, or ahead of use
    /// when there is none. They are in the store then, if that takes them. Fails with [`FailureKind::Unsupported`] where the server can't.
    pub fn sizes(
        &self,
        ids: Vec<ObjectId>,
        cause: Option<&Arc<Cause>>,
    ) -> impl Future<Output = Result<Sizes, RemoteError>> + Send + use<> {
        let core = self.core();
        let (tell, hear) = oneshot::channel();
        let mut state = core.state.lock();
        if !state.closed {
            state.sizes.push_back(SizeQuery::new(ids, cause, tell));
            Core::wake(core, &mut state);
        }
        drop(state);
        async move { hear.await.unwrap_or_else(|_| Err(closed())) }
    }

    /// Whether the server answers for sizes alone; `None` before the first connection.
    pub fn offers_sizes(&self) -> Option<bool> {
        self.core().abilities.lock().map(|abilities| abilities.object_info)
    }

    /// Everyone who waits now, longest first.
    pub fn waiting(&self) -> Vec<Waiting> {
        let state = self.core().state.lock();
        let mut all = state.flights.waiting();
        let queued = |awaited, path: &[u8], since| Waiting {
            awaited,
            path: Box::from(path),
            since,
            place: Place::Queued,
            retries: 0,
        };
        all.extend(state.sizes.iter().map(|query| queued(Awaited::Sizes(query.ids.len()), query.path(), query.since)));
        all.extend(
            state.bulks.iter().map(|bulk| queued(Awaited::Warm(bulk.cargo.wants.len()), &bulk.cause.label, bulk.since)),
        );
        all.extend(state.posts.iter().filter_map(Post::waiting));
        all.sort_by_key(|waiting| waiting.since);
        all
    }

    /// Wants queued, objects on connections.
    pub fn backlog(&self) -> (usize, usize) {
        self.core().state.lock().backlog()
    }

    /// What is queued by class, and what is on its way.
    pub fn load(&self) -> Load {
        self.core().state.lock().load()
    }

    /// Waits until nothing is queued, asked for or unsaved.
    pub async fn idle(&self) {
        self.core().until(|state| state.closed || (!state.is_coming() && state.saved == state.arrived)).await;
    }

    /// Blocks until what arrived so far is stored, at most `limit`.
    pub fn settle(&self, limit: Duration) {
        let core = self.core();
        let _awaiting = Awaiting::new(core);
        let until = Instant::now() + limit;
        let mut state = core.state.lock();
        let arrived = state.arrived;
        while state.saved < arrived && state.writer && !core.room.wait_until(&mut state, until).timed_out() {}
    }

    /// [`Self::settle`] for who looks at what is cached: long enough for what was read a moment ago, and a moment while a
    /// warm keeps the writer busy, because the counts are another before they are told.
    pub fn settle_for_a_look(&self) {
        let warming = self.core().state.lock().flights.in_bulk() > 0;
        self.settle(if warming { LOOK_BESIDE_A_WARM } else { LOOK_LIMIT });
    }

    /// Whether the last exchange with the remote failed for want of a network.
    pub fn offline(&self) -> bool {
        self.core().offline.load(Ordering::Relaxed)
    }

    /// The last failure that was told to somebody.
    pub fn last_error(&self) -> Option<RemoteError> {
        self.core().state.lock().last_error.clone()
    }

    /// Ends all work and waits, at most `limit`, until what arrived is stored.
    pub fn close(&self, limit: Duration) {
        let core = self.core();
        core.close();
        let until = Instant::now() + limit;
        let mut state = core.state.lock();
        while state.writer && !core.room.wait_until(&mut state, until).timed_out() {}
    }
}

impl State {
    /// Whether anything is queued or on a connection.
    pub(super) fn is_coming(&self) -> bool {
        self.backlog() != (0, 0)
    }

    /// Wants queued and objects on connections, bulk included.
    pub(super) fn backlog(&self) -> (usize, usize) {
        let load = self.load();
        (self.flights.queued() + load.bulk_queued, load.sent + load.bulk_sent)
    }

    fn load(&self) -> Load {
        let waiting: usize = self.bulks.iter().map(|bulk| bulk.cargo.wants.len()).sum();
        let bulk_queued = waiting.min(self.flights.in_bulk());
        Load {
            queued: self.flights.queued_by_class(),
            bulk_queued,
            sent: self.flights.sent(),
            bulk_sent: self.flights.in_bulk() - bulk_queued,
            unsaved_bytes: self.flights.landing_bytes(),
        }
    }
}

/// Somebody who waits for something to be stored, while they do.
struct Awaiting<'a>(&'a Core);

impl<'a> Awaiting<'a> {
    fn new(core: &'a Core) -> Self {
        let mut state = core.state.lock();
        state.awaiting += 1;
        core.hurry(&state);
        Self(core)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().awaiting -= 1;
    }
}

impl Core {
    /// Wakes a worker, or starts one, for the most urgent job there is. One at a time: a worker that wakes calls this
    /// again, whether it found a job or not, so workers wake as long as there is a backlog. What is wanted meanwhile
    /// shares its request, instead of waking a thread an object.
    pub(super) fn wake(core: &Arc<Self>, state: &mut State) {
        if !state.writer && !state.closed {
            state.writer = writer::start(core);
        }
        if state.posts.iter().any(|post| matches!(post, Post::Waking)) {
            return;
        }
        let slots = state.posts.len();
        let fit = |slot: usize, state: &State| worker::has_work(core, state, slot);
        if let Some(slot) = (0..slots).find(|&slot| matches!(state.posts[slot], Post::Asleep) && fit(slot, state)) {
            core.work[slot].notify_one();
            state.posts[slot] = Post::Waking;
        } else if let Some(slot) =
            (0..slots).find(|&slot| matches!(state.posts[slot], Post::Absent) && fit(slot, state))
        {
            if let Err(error) = worker::start(core, slot) {
                let error = RemoteError::new(FailureKind::Local, format!("cannot start a thread: {error}"));
                tracing::error!("{error}");
                if !state.posts.iter().any(Post::is_present) {
                    state.flights.fail_all(&error);
                }
                return;
            }
            state.posts[slot] = Post::Waking;
        }
    }

    /// Tells the writer, which lingers in case more comes, when nothing does and somebody waits for what there is.
    pub(super) fn hurry(&self, state: &State) {
        if state.awaiting > 0 && !state.is_coming() {
            self.unsaved.notify_one();
        }
    }

    /// Waits until `met`, asking whenever something changed.
    pub(super) async fn until(&self, met: impl Fn(&State) -> bool) {
        let _awaiting = Awaiting::new(self);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed.
            changed.as_mut().enable();
            if met(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.flights.fail_all(&closed());
        state.sizes.clear();
        state.bulks.clear();
        drop(state);
        for work in &self.work {
            work.notify_all();
        }
        self.unsaved.notify_all();
        self.room.notify_all();
        self.changed.notify_waiters();
        self.spare.lock().clear();
    }
}

pub(super) fn closed() -> RemoteError {
    RemoteError::new(FailureKind::Offline, "the workspace is being unmounted")
}
