//! The thread of one connection: takes a batch, fetches it, lands its objects.
//!
//! Owns retrying. Every want it takes off the queue is landed or failed before
//! it takes the next batch, whatever the remote does.

use std::collections::HashSet;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::engine::{Core, SizeQuery};
use super::flight::Landed;
use super::queue::{Class, Want};
use super::remote::{Connection, Extent, FailureKind, LargeSink, RemoteError, Sink};
use crate::store::{Batch, LargeBlob, listing_from_git};

/// Raw bytes that arrive before a commit: bounds what is landed and not yet stored.
const COMMIT_BYTES: u64 = 4 << 20;

/// Objects that arrive before a commit.
const COMMIT_OBJECTS: usize = 256;

/// A thread without work for this long ends; its connection closes with it.
const IDLE_LIMIT: Duration = Duration::from_mins(5);

/// First pause before a retry; doubles with each.
const BACKOFF: Duration = Duration::from_millis(100);

enum Job {
    Fetch(u64, Vec<Want>),
    Sizes(SizeQuery),
}

/// Serves `core` in worker slot `slot` until it closes or there is no work for long.
pub(super) fn run(core: &Arc<Core>, slot: usize) {
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
                }
            }
            Job::Sizes(query) => sizes(core, &mut connection, query),
        }
    }
}

/// Waits for work that this slot may take. `None`: end the thread.
fn next(core: &Core, slot: usize) -> Option<Job> {
    let settings = &core.settings;
    // With one connection there is nothing to reserve for readers.
    let readers_only = slot == 0 && settings.connections > 1;
    let may_take = |class: Class| !readers_only || class == Class::Read;
    let idle_until = Instant::now() + IDLE_LIMIT;
    let mut state = core.state.lock();
    loop {
        if state.closed {
            state.workers[slot] = false;
            return None;
        }
        if let Some(query) = state.size_queries.pop() {
            return Some(Job::Sizes(query));
        }
        if state.flights.first_class().is_some_and(may_take) {
            // Company usually follows within a moment: siblings, other readers.
            let until = Instant::now() + settings.coalesce;
            while !state.closed && state.flights.queued() < settings.batch_objects {
                if core.work.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            if state.flights.first_class().is_some_and(may_take) {
                let (batch, wants) = state.flights.take(slot, settings.batch_objects, settings.batch_bytes);
                core.observe(&state);
                return Some(Job::Fetch(batch, wants));
            }
            continue;
        }
        let timed_out = core.work.wait_until(&mut state, idle_until).timed_out();
        if timed_out {
            state.workers[slot] = false;
            return None;
        }
    }
}

/// Fetches one batch, retrying what may pass.
fn fetch(core: &Core, connection: &mut Option<Box<dyn Connection>>, batch: u64, ids: &[ObjectId]) {
    let mut open = still_missing(core, ids.to_vec());
    let mut attempt = 0;
    while !open.is_empty() {
        let reused = connection.is_some();
        let outcome = attempt_fetch(core, connection, batch, &mut open);
        let Err(error) = outcome else { break };
        core.metrics.remote_failures.inc();
        tracing::warn!(remote = core.remote.address(), kind = ?error.kind, objects = open.len(), "{error}");
        if error.kind != FailureKind::Missing {
            *connection = None;
        }
        if drop_hopeless(core, &error, &mut open) {
            continue;
        }
        let limit = match error.kind {
            FailureKind::Transient => core.settings.retries,
            FailureKind::Corrupt => 1,
            _ => 0,
        };
        // A warm connection that the server closed meanwhile says nothing about the server.
        let stale = reused && attempt == 0 && error.kind == FailureKind::Transient;
        if attempt >= limit && !stale {
            // What kept failing in passing ways is a network that does not work.
            let offline = matches!(error.kind, FailureKind::Offline | FailureKind::Transient);
            core.offline.store(offline, Ordering::Relaxed);
            give_up(core, &error, &open);
            break;
        }
        attempt += 1;
        core.state.lock().flights.retry_all(&open);
        if !stale && !pause(core, BACKOFF * 2_u32.pow((attempt - 1).min(6))) {
            break;
        }
    }
    let mut state = core.state.lock();
    let lost = RemoteError::new(FailureKind::Missing, "the remote did not send the object");
    for id in &open {
        state.flights.fail(id, &lost.clone().about(*id));
    }
    state.flights.close(batch);
    core.observe(&state);
}

/// Lands those that reached the store meanwhile, and returns the others.
fn still_missing(core: &Core, ids: Vec<ObjectId>) -> Vec<ObjectId> {
    let Ok(missing) = core.store.missing_blobs(&ids) else { return ids };
    if missing.len() < ids.len() {
        let absent: HashSet<&ObjectId> = missing.iter().collect();
        let mut state = core.state.lock();
        for id in ids.iter().filter(|id| !absent.contains(id)) {
            state.flights.land(id, &Landed::Stored);
        }
    }
    missing
}

fn attempt_fetch(
    core: &Core,
    connection: &mut Option<Box<dyn Connection>>,
    batch: u64,
    open: &mut Vec<ObjectId>,
) -> Result<(), RemoteError> {
    let connection = connect(core, connection)?;
    core.metrics.remote_requests.inc();
    let mut landing = Landing { core, batch, objects: Batch::default(), pending: Vec::new(), arrived: Vec::new() };
    let outcome = connection.fetch(open, Extent::Exact, &mut landing);
    landing.commit();
    let arrived: HashSet<ObjectId> = landing.arrived.drain(..).collect();
    open.retain(|id| !arrived.contains(id));
    outcome
}

fn connect<'a>(
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

/// When the failure is about one object, fails that one alone. True: go on with the others.
fn drop_hopeless(core: &Core, error: &RemoteError, open: &mut Vec<ObjectId>) -> bool {
    let (FailureKind::Missing, Some(id)) = (error.kind, error.object) else { return false };
    let Some(at) = open.iter().position(|other| *other == id) else { return false };
    open.swap_remove(at);
    give_up(core, error, &[id]);
    true
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
    while !state.closed {
        if core.work.wait_until(&mut state, until).timed_out() {
            return true;
        }
    }
    false
}

fn sizes(core: &Core, connection: &mut Option<Box<dyn Connection>>, query: SizeQuery) {
    let mut warm = connection.is_some();
    let outcome = loop {
        let outcome = attempt_sizes(core, connection, &query.ids);
        if let Err(error) = &outcome
            && error.kind != FailureKind::Unsupported
        {
            core.metrics.remote_failures.inc();
            *connection = None;
            if std::mem::take(&mut warm) && error.kind == FailureKind::Transient {
                continue;
            }
        }
        break outcome;
    };
    if let Err(error) = &outcome {
        tracing::warn!(remote = core.remote.address(), kind = ?error.kind, "sizes: {error}");
    }
    // Whoever asked may have gone away.
    let _ = query.tell.send(outcome);
}

fn attempt_sizes(
    core: &Core,
    connection: &mut Option<Box<dyn Connection>>,
    ids: &[ObjectId],
) -> Result<(), RemoteError> {
    let connection = connect(core, connection)?;
    if !connection.abilities().object_info {
        return Err(RemoteError::new(FailureKind::Unsupported, "the server does not answer for sizes"));
    }
    core.metrics.remote_requests.inc();
    let mut batch = Batch::default();
    for (id, size) in connection.sizes(ids)? {
        batch.size(id, size);
    }
    core.store.commit(batch)?;
    Ok(())
}

/// Takes the objects of one request as they arrive.
struct Landing<'a> {
    core: &'a Core,
    batch: u64,
    objects: Batch,
    pending: Vec<ObjectId>,
    arrived: Vec<ObjectId>,
}

impl Landing<'_> {
    fn arrive(&mut self, id: ObjectId, size: u64, landed: &Landed) {
        self.core.metrics.remote_objects.inc();
        self.core.metrics.remote_bytes.inc_by(size);
        self.core.offline.store(false, Ordering::Relaxed);
        let mut state = self.core.state.lock();
        state.flights.land(&id, landed);
        state.flights.advance(self.batch);
        self.arrived.push(id);
    }

    fn commit(&mut self) {
        let objects = std::mem::take(&mut self.objects);
        if !objects.is_empty()
            && let Err(error) = self.core.store.commit(objects)
        {
            // Readers have their bytes; the cache does not, so they will be fetched again.
            tracing::error!("objects were not cached: {error}");
        }
        self.core.state.lock().flights.settle(&self.pending);
        self.pending.clear();
    }
}

impl Sink for Landing<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        let size = data.len() as u64;
        match kind {
            Kind::Blob => {
                self.arrive(id, size, &Landed::Bytes(data.clone()));
                self.objects.blob(id, &data);
                self.pending.push(id);
            }
            Kind::Tree => {
                let listing = listing_from_git(&id, &data)
                    .map_err(|error| RemoteError::new(FailureKind::Corrupt, format!("tree {id}: {error}")).about(id))?;
                let mut batch = Batch::default();
                batch.tree(id, &listing);
                self.core.store.commit(batch)?;
                self.arrive(id, size, &Landed::Stored);
            }
            Kind::Commit | Kind::Tag => {}
        }
        if self.objects.raw_bytes() >= COMMIT_BYTES || self.objects.len() >= COMMIT_OBJECTS {
            self.commit();
        }
        Ok(())
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        let blob = self.core.store.large_blob(raw_size)?;
        Ok(Box::new(LargeLanding { landing: self, blob, raw_size }))
    }
}

struct LargeLanding<'a, 'b> {
    landing: &'a mut Landing<'b>,
    blob: LargeBlob,
    raw_size: u64,
}

impl Write for LargeLanding<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.landing.core.state.lock().flights.advance(self.landing.batch);
        self.blob.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

impl LargeSink for LargeLanding<'_, '_> {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        let Self { landing, blob, raw_size } = *self;
        blob.finish(id)?;
        landing.arrive(id, raw_size, &Landed::Stored);
        Ok(())
    }
}
