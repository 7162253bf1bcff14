//! The thread of one connection: which job it takes, and how it fetches a batch.
//!
//! Owns retrying. Every want it takes off the queue is landed or failed before
//! it takes the next job, whatever the remote does.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gix::ObjectId;

use super::bulk::Bulk;
use super::carry;
use super::engine::{Core, State};
use super::flight::{Awaited, Landed, Place, Waiting};
use super::landing::Landing;
use super::queue::{Class, Want};
use super::remote::{Connection, Extent, FailureKind, RemoteError};
use super::sizes::{self, SizeQuery};

/// A thread without work for this long ends; its connection closes with it.
const IDLE_LIMIT: Duration = Duration::from_mins(5);

/// First pause before a retry; doubles with each.
const BACKOFF: Duration = Duration::from_millis(100);

/// What a worker slot is doing.
pub(super) enum Post {
    /// It has no thread.
    Absent,
    /// Its thread waits for work.
    Asleep,
    /// Its thread was told that there is work.
    Waking,
    /// It fetches a batch.
    Busy,
    /// It does what somebody waits for who is in no flight.
    Serving(Waiting),
}

impl Post {
    pub(super) fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        if let Self::Serving(waiting) = self { Some(waiting.clone()) } else { None }
    }
}

enum Job {
    Fetch(u64, Vec<Want>),
    Sizes(SizeQuery),
    Bulk(Bulk),
}

enum Next {
    Job(Job),
    /// Nothing before then.
    Later(Instant),
    Nothing,
}

/// Starts the thread of `slot`.
pub(super) fn start(core: &Arc<Core>, slot: usize) -> io::Result<()> {
    let core = Arc::clone(core);
    std::thread::Builder::new().name(format!("hydrate-{slot}")).spawn(move || run(&core, slot)).map(drop)
}

/// Serves `core` in worker slot `slot` until it closes or there is no work for long.
fn run(core: &Arc<Core>, slot: usize) {
    let mut connection: Option<Box<dyn Connection>> = None;
    while let Some(job) = next(core, slot) {
        match job {
            Job::Fetch(batch, wants) => {
                let ids: Vec<ObjectId> = wants.iter().map(|want| want.id).collect();
                let outcome = catch_unwind(AssertUnwindSafe(|| fetch(core, &mut connection, batch, &ids)));
                if outcome.is_err() {
                    // A fault of ours must not leave readers waiting: the panic is in the log.
                    connection = None;
                    give_up(
                        core,
                        &RemoteError::new(FailureKind::Local, "hydration failed; see the daemon's log"),
                        &ids,
                    );
                    core.state.lock().flights.close(batch);
                    core.changed.notify_waiters();
                }
            }
            Job::Sizes(query) => {
                if catch_unwind(AssertUnwindSafe(|| sizes::answer(core, &mut connection, query))).is_err() {
                    connection = None;
                }
            }
            Job::Bulk(bulk) => carry::carry(core, slot, &mut connection, bulk),
        }
    }
}

/// Whether only what somebody waits for may be done in `slot`. With one connection there is nothing to reserve.
fn is_reserved(state: &State, slot: usize) -> bool {
    slot == 0 && state.posts.len() > 1
}

/// Whether the bounds on what is in flight leave room for `objects` more of `bytes`.
fn fits(core: &Core, state: &State, objects: usize, bytes: u64) -> bool {
    let sent = state.backlog().1;
    let settings = &core.settings;
    let room = sent + objects <= settings.inflight_objects && state.bulk_bytes + bytes <= settings.inflight_bytes;
    // What is larger than the bounds goes alone.
    room || sent == 0
}

fn first_bulk_fits(core: &Core, state: &State) -> bool {
    state.bulks.front().is_some_and(|bulk| fits(core, state, bulk.cargo.wants.len(), bulk.known_bytes()))
}

/// Whether there is a job that `slot` may take, now or in a moment.
pub(super) fn has_work(core: &Core, state: &State, slot: usize) -> bool {
    let all = !is_reserved(state, slot);
    state.sizes.iter().any(|query| all || query.is_urgent())
        || state.flights.first_class().is_some_and(|class| class == Class::Read || (all && fits(core, state, 1, 0)))
        || (all && first_bulk_fits(core, state))
}

/// The most urgent job that `slot` may take: what readers wait for, then prefetch, then sizes and objects ahead of use.
fn choose(core: &Core, state: &mut State, slot: usize) -> Next {
    let all = !is_reserved(state, slot);
    if let Some(at) = state.sizes.iter().position(SizeQuery::is_urgent) {
        return state.sizes.remove(at).map_or(Next::Nothing, |query| Next::Job(Job::Sizes(query)));
    }
    let settings = &core.settings;
    match state.flights.first_class() {
        None => {}
        // A read leaves at once; what comes meanwhile shares the next request. Its siblings take another connection
        // when one is free: in one answer the server might send them first.
        Some(Class::Read) => {
            let free = |(other, post): (usize, &Post)| {
                other != slot && !is_reserved(state, other) && !matches!(post, Post::Busy | Post::Serving(_))
            };
            let least = if state.posts.iter().enumerate().any(free) { Class::Read } else { Class::Last };
            return Next::Job(take(core, state, slot, least));
        }
        Some(_) if !all || !fits(core, state, 1, 0) => {}
        Some(_) => {
            // Company usually follows within a moment.
            if state.flights.queued() < settings.batch_objects && Instant::now() < state.prefetch_due {
                return Next::Later(state.prefetch_due);
            }
            return Next::Job(take(core, state, slot, Class::Last));
        }
    }
    if all && let Some(query) = state.sizes.pop_front() {
        return Next::Job(Job::Sizes(query));
    }
    if all
        && first_bulk_fits(core, state)
        && let Some(bulk) = state.bulks.pop_front()
    {
        return Next::Job(Job::Bulk(bulk));
    }
    Next::Nothing
}

fn take(core: &Core, state: &mut State, slot: usize, least: Class) -> Job {
    let (batch, wants) = state.flights.take(slot, least, core.settings.batch_objects, core.settings.batch_bytes);
    Job::Fetch(batch, wants)
}

/// Waits for work that this slot may take. `None`: end the thread.
fn next(core: &Arc<Core>, slot: usize) -> Option<Job> {
    let idle_until = Instant::now() + IDLE_LIMIT;
    let mut state = core.state.lock();
    loop {
        if state.closed {
            state.posts[slot] = Post::Absent;
            return None;
        }
        let until = match choose(core, &mut state, slot) {
            Next::Job(job) => {
                state.posts[slot] = post_for(&job, &mut state, slot);
                Core::wake(core, &mut state);
                return Some(job);
            }
            Next::Later(due) => due,
            Next::Nothing => {
                state.posts[slot] = Post::Asleep;
                // What this slot finished made room, or what it was woken for is for others only.
                Core::wake(core, &mut state);
                idle_until
            }
        };
        state.posts[slot] = Post::Asleep;
        let timed_out = core.work[slot].wait_until(&mut state, until).timed_out();
        // Who was told of work a moment ago has to look for it.
        if timed_out && until == idle_until && !matches!(state.posts[slot], Post::Waking) {
            state.posts[slot] = Post::Absent;
            return None;
        }
    }
}

fn post_for(job: &Job, state: &mut State, slot: usize) -> Post {
    let serving = |awaited, path: &[u8], since, batch| {
        let place = Place::Sent { batch, connection: slot };
        Post::Serving(Waiting { awaited, path: Box::from(path), since, place, retries: 0 })
    };
    match job {
        Job::Fetch(..) => Post::Busy,
        Job::Sizes(query) => {
            serving(Awaited::Sizes(query.ids.len()), query.path(), query.since, state.flights.number())
        }
        Job::Bulk(bulk) => {
            state.bulk_bytes += bulk.known_bytes();
            serving(Awaited::Warm(bulk.cargo.wants.len()), &bulk.cause.label, bulk.since, bulk.number)
        }
    }
}

/// Fetches one batch, retrying what may pass.
fn fetch(core: &Arc<Core>, connection: &mut Option<Box<dyn Connection>>, batch: u64, ids: &[ObjectId]) {
    let mut open = ids.to_vec();
    land_stored(core, &open);
    let state = core.state.lock();
    let mut lacking = open.clone();
    lacking.retain(|id| state.flights.is_open(id, batch));
    drop(state);
    core.remote.nearby(&lacking, &mut Landing::nearby(core, batch));
    let mut attempts = Attempts::default();
    loop {
        let state = core.state.lock();
        open.retain(|id| state.flights.is_open(id, batch));
        let extent = if state.flights.any_kind(&open) { Extent::Objects } else { Extent::Exact };
        drop(state);
        if open.is_empty() {
            break;
        }
        let reused = connection.is_some();
        let outcome = match connect(core, connection) {
            Ok(connection) => {
                core.metrics.remote_requests.inc();
                connection.fetch(&open, extent, &mut Landing::new(core, batch))
            }
            Err(error) => Err(error),
        };
        let Err(error) = outcome else {
            let state = core.state.lock();
            open.retain(|id| state.flights.is_open(id, batch));
            break;
        };
        core.failed(&error, open.len());
        if error.kind != FailureKind::Missing {
            *connection = None;
        }
        if let (FailureKind::Missing, Some(id)) = (error.kind, error.object)
            && open.contains(&id)
        {
            // The others may be there.
            give_up(core, &error, &[id]);
            continue;
        }
        core.state.lock().flights.retry_all(&open);
        if !attempts.again(core, &error, reused) {
            give_up(core, &error, &open);
            break;
        }
    }
    let mut state = core.state.lock();
    let lost = RemoteError::new(FailureKind::Missing, "the remote did not send the object");
    for id in &open {
        state.flights.fail(id, &lost.clone().about(*id));
    }
    state.flights.close(batch);
    core.hurry(&state);
    drop(state);
    core.changed.notify_waiters();
}

/// Lands those that reached the store meanwhile.
pub(super) fn land_stored(core: &Core, ids: &[ObjectId]) {
    let Ok(missing) = core.store.missing_blobs(ids) else { return };
    if missing.len() == ids.len() {
        return;
    }
    // Both are in the same order.
    let mut missing = missing.iter().peekable();
    let mut state = core.state.lock();
    for id in ids {
        if missing.next_if_eq(&id).is_none() {
            state.flights.land(id, &Landed::Stored);
        }
    }
}

/// How often a request failed in a row.
#[derive(Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// Something arrived: what fails from now on is another failure.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Waits before another attempt. False: there is to be none. `reused`: the connection had served before.
    pub(super) fn again(&mut self, core: &Core, error: &RemoteError, reused: bool) -> bool {
        let limit = match error.kind {
            FailureKind::Transient => core.settings.retries,
            FailureKind::Corrupt => 1,
            _ => 0,
        };
        // A warm connection that the server closed meanwhile says nothing about the server.
        let stale = reused && self.0 == 0 && error.kind == FailureKind::Transient && error.retry_after.is_none();
        let asked = error.retry_after.unwrap_or_default();
        // Nobody waits longer than the time-out, so a remote that wants to be left alone for longer is as good as gone.
        if (self.0 >= limit && !stale) || asked > core.settings.timeout {
            // What kept failing in passing ways is a network that does not work.
            let offline = matches!(error.kind, FailureKind::Offline | FailureKind::Transient);
            core.offline.store(offline, Ordering::Relaxed);
            return false;
        }
        self.0 += 1;
        stale || pause(core, asked.max(BACKOFF * 2_u32.pow((self.0 - 1).min(6))))
    }
}

pub(super) fn connect<'a>(
    core: &Core,
    connection: &'a mut Option<Box<dyn Connection>>,
) -> Result<&'a mut Box<dyn Connection>, RemoteError> {
    if connection.is_none() {
        let spare = core.spare.lock().pop();
        let fresh = match spare {
            Some(spare) => spare,
            None => core.remote.connect()?,
        };
        *core.abilities.lock() = Some(fresh.abilities());
        *connection = Some(fresh);
    }
    connection.as_mut().ok_or_else(|| RemoteError::new(FailureKind::Offline, "no connection"))
}

fn give_up(core: &Core, error: &RemoteError, ids: &[ObjectId]) {
    let mut state = core.state.lock();
    for id in ids {
        state.flights.fail(id, error);
    }
    state.last_error = Some(error.clone());
}

/// Waits before a retry. False: the hydrator closed.
fn pause(core: &Core, length: Duration) -> bool {
    let until = Instant::now() + length;
    let mut state = core.state.lock();
    // `room` is told of every commit, and of the end.
    while !state.closed {
        if core.room.wait_until(&mut state, until).timed_out() {
            return !state.closed;
        }
    }
    false
}

impl Core {
    /// Notes a request that failed.
    pub(super) fn failed(&self, error: &RemoteError, objects: usize) {
        self.metrics.remote_failures.inc();
        tracing::warn!(remote = self.remote.address(), kind = ?error.kind, objects, "{error}");
    }
}
