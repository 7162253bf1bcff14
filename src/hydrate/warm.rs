//! Warming: a walk under flow control.
//!
//! The walker runs at most one window ahead of what is fetched, and waits for
//! a place before it walks on; the places are shared by all warms of a
//! repository. What it finds travels in bulk batches. Dropping a warm ends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use gix::ObjectId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::bulk::{Brought, Bulk, Cargo};
use super::carry::LOCKED_OBJECTS;
use super::cause::Cause;
use super::engine::{Core, Hydrator, State, closed};
use super::queue::Want;
use super::remote::{FailureKind, RemoteError};
use super::walk::{Directory, Select, Walk, Window};
use crate::store::StoreError;

/// Batches of one warm under way: while one is fetched the next is ready.
const BATCHES: usize = 2;

/// A smaller window comes so soon that a request for its first files would only delay the rest.
const FIRST_FROM: usize = 4096;

/// How often objects that others were fetching, and did not bring, are asked for again.
const ROUNDS: usize = 3;

/// What it means when that is not enough.
const NOT_KEPT: &str = "objects that were fetched do not stay in the cache, which is too small for all of them: raise \
                        cache.max_size, or warm less";

/// What to warm.
#[derive(Clone)]
pub struct WarmPlan {
    /// The tree to walk.
    pub root: ObjectId,
    /// Makes the selection; it is walked more than once.
    pub select: Arc<dyn Fn() -> Box<dyn Select> + Send + Sync>,
    /// Larger blobs are left out (raw bytes).
    pub max_blob_bytes: Option<u64>,
    /// Who warms; its label is what `larder waits` shows.
    pub cause: Arc<Cause>,
}

/// How far a warm is; all counts are of distinct blobs.
#[derive(Debug, Default)]
pub struct WarmProgress {
    /// Selected, as far as is known; 0 before that.
    pub total: AtomicU64,
    /// Selected so far.
    pub selected: AtomicU64,
    /// Selected and above the limit.
    pub left_out: AtomicU64,
    /// Of those selected so far, the ones still to come.
    pub coming: AtomicU64,
    /// Fetched by this warm.
    pub fetched: AtomicU64,
    /// Their raw bytes.
    pub bytes: AtomicU64,
    /// Requests sent.
    pub requests: AtomicU64,
    /// It waits for a place.
    pub held: AtomicBool,
}

impl WarmProgress {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` of those still to come are here, or will not come.
    fn settle(&self, count: u64) {
        let less = |coming: u64| Some(coming.saturating_sub(count));
        let _ = self.coming.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// A counter's value.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

impl Hydrator {
    /// Brings everything into the store that `plan` selects and the store lacks. What arrived stays when it fails.
    /// Objects the remote lacks are an error once all others are here.
    pub async fn warm(&self, plan: &WarmPlan, progress: &Arc<WarmProgress>) -> Result<(), RemoteError> {
        if plan.max_blob_bytes.is_some() && self.offers_sizes() != Some(false) {
            self.learn_sizes(plan, progress).await?;
        }
        let mut walk = self.walk(plan);
        let mut under_way: VecDeque<Carried> = VecDeque::new();
        let mut missing = Vec::new();
        let mut surveyed = false;
        loop {
            let mut window;
            (walk, window) = self.step(walk).await?;
            WarmProgress::add(&progress.coming, window.cargo.wants.len() as u64);
            progress.selected.store(walk.tally().selected, Ordering::Relaxed);
            progress.left_out.store(walk.tally().left_out, Ordering::Relaxed);
            let last = window.last && window.absent.is_empty();
            if !window.absent.is_empty() {
                let absent = std::mem::take(&mut window.absent);
                walk.resume(self.bring_trees(absent, plan, progress).await?);
            }
            if !last && !std::mem::replace(&mut surveyed, true) {
                self.survey(plan, progress);
            }
            for cargo in cargoes(window) {
                while under_way.len() >= BATCHES
                    && let Some(carried) = under_way.pop_front()
                {
                    missing.extend(self.received(carried, plan, progress).await?);
                }
                under_way.push_back(self.send(cargo, plan, progress).await?);
            }
            if last {
                break;
            }
        }
        for carried in under_way {
            missing.extend(self.received(carried, plan, progress).await?);
        }
        match missing.first() {
            None => Ok(()),
            Some(id) => {
                let text = format!("the remote lacks {} of the objects, {id} among them", missing.len());
                Err(RemoteError::new(FailureKind::Missing, text).about(*id))
            }
        }
    }

    fn walk(&self, plan: &WarmPlan) -> Walk {
        Walk::new(self.store().clone(), plan.root, (plan.select)(), plan.max_blob_bytes)
    }

    /// Walks a window on, where blocking is allowed.
    async fn step(&self, mut walk: Walk) -> Result<(Walk, Window), RemoteError> {
        let settings = self.settings();
        // With one connection a read waits for the batch before it, which then has to be an ordinary one.
        let most = if settings.connections > 1 { settings.warm_objects } else { settings.batch_objects };
        let classes = Arc::clone(&settings.classes);
        blocking(move || {
            let window = walk.window(most, &classes)?;
            Ok((walk, window))
        })
        .await
    }

    /// Counts what is selected, for whoever wants to know how long it will take.
    fn survey(&self, plan: &WarmPlan, progress: &Arc<WarmProgress>) {
        let (walk, progress) = (self.walk(plan), Arc::clone(progress));
        // Ends by itself, soon.
        drop(tokio::task::spawn_blocking(move || {
            if let Ok(total) = walk.count() {
                progress.total.store(total, Ordering::Relaxed);
            }
        }));
    }

    /// Learns the sizes that `plan` needs, where the server answers for sizes: then nothing is fetched in vain.
    async fn learn_sizes(&self, plan: &WarmPlan, progress: &Arc<WarmProgress>) -> Result<(), RemoteError> {
        let mut walk = self.walk(plan);
        loop {
            let mut window;
            (walk, window) = self.step(walk).await?;
            let unknown: Vec<ObjectId> =
                window.cargo.wants.iter().filter(|want| want.size.is_none()).map(|want| want.id).collect();
            if !unknown.is_empty() {
                match self.sizes(unknown, None).await {
                    Err(error) if error.kind == FailureKind::Unsupported => return Ok(()),
                    outcome => drop(outcome?),
                }
                WarmProgress::add(&progress.requests, 1);
            }
            let last = window.last && window.absent.is_empty();
            let absent = std::mem::take(&mut window.absent);
            walk.resume(self.bring_trees(absent, plan, progress).await?);
            if last {
                return Ok(());
            }
        }
    }

    /// Fetches the trees of `directories` and every tree below them, level by level as far as the remote needs that.
    async fn bring_trees(
        &self,
        directories: Vec<Directory>,
        plan: &WarmPlan,
        progress: &Arc<WarmProgress>,
    ) -> Result<Vec<Directory>, RemoteError> {
        if directories.is_empty() {
            return Ok(directories);
        }
        let mut open: Vec<ObjectId> = directories.iter().map(Directory::tree).collect();
        for _ in 0..ROUNDS {
            let wants = open.iter().map(|id| Want { id: *id, size: None }).collect();
            let cargo = Cargo { wants, trees: true, ..Cargo::default() };
            let carried = self.send(cargo, plan, &Arc::new(WarmProgress::default())).await?;
            let brought = self.stored(carried).await?.1;
            WarmProgress::add(&progress.requests, brought.requests);
            if let Some(error) = brought.error {
                return Err(error);
            }
            if let Some(id) = brought.missing.first() {
                let text = format!("the remote lacks the tree {id}");
                return Err(RemoteError::new(FailureKind::Missing, text).about(*id));
            }
            // Another warm may be bringing them, and not be done, or be dropped.
            self.arrived_or_given_up(&open).await;
            let arrived = self.core().state.lock().arrived;
            self.core().until(|state| state.closed || state.saved >= arrived).await;
            let store = self.store().clone();
            open = blocking(move || store.missing_trees(&open)).await?;
            if open.is_empty() {
                return Ok(directories);
            }
        }
        Err(RemoteError::new(FailureKind::Local, NOT_KEPT))
    }

    /// Queues a bulk batch; waits for a place first.
    async fn send(&self, cargo: Cargo, plan: &WarmPlan, progress: &Arc<WarmProgress>) -> Result<Carried, RemoteError> {
        let core = self.core();
        progress.held.store(true, Ordering::Relaxed);
        let place = Arc::clone(&core.bulk_places).acquire_owned().await.map_err(|_| closed())?;
        progress.held.store(false, Ordering::Relaxed);
        Ok(Carried::send(core, cargo, place, plan, progress))
    }

    /// Waits for a batch and until the store has what it brought.
    async fn stored(&self, mut carried: Carried) -> Result<(Vec<Want>, Brought), RemoteError> {
        let core = self.core();
        let brought = (&mut carried.hear).await.map_err(|_| closed())?;
        core.until(|state| state.closed || state.saved >= brought.arrivals).await;
        Ok((std::mem::take(&mut carried.wants), brought))
    }

    /// Waits until none of `ids` is on its way.
    async fn arrived_or_given_up(&self, ids: &[ObjectId]) {
        // Looked at once more only after those behind it: each is asked about once, and a few more than once.
        let coming = Mutex::new(ids.to_vec());
        let none_is = |state: &State| {
            let mut coming = coming.lock();
            while coming.pop_if(|id| !state.flights.is_coming(id)).is_some() {}
            state.closed || coming.is_empty()
        };
        self.core().until(none_is).await;
    }

    /// Waits for a batch and makes sure that the store has all of it, also what others were fetching meanwhile.
    /// Returns what the remote lacks.
    async fn received(
        &self,
        carried: Carried,
        plan: &WarmPlan,
        progress: &Arc<WarmProgress>,
    ) -> Result<Vec<ObjectId>, RemoteError> {
        let mut carried = carried;
        let mut missing = Vec::new();
        for round in 0..ROUNDS {
            let failures_before = carried.arrived;
            let (wants, brought) = self.stored(carried).await?;
            WarmProgress::add(&progress.requests, brought.requests);
            // What others brought, or nobody.
            progress.settle((wants.len() as u64).saturating_sub(brought.objects));
            missing.extend(brought.missing);
            if let Some(error) = brought.error {
                return Err(error);
            }
            let ids: Vec<ObjectId> = wants.iter().map(|want| want.id).filter(|id| !missing.contains(id)).collect();
            self.arrived_or_given_up(&ids).await;
            let store = self.store().clone();
            let absent = blocking(move || store.missing_blobs(&ids)).await?;
            if absent.is_empty() {
                return Ok(missing);
            }
            if plan.max_blob_bytes.is_some() {
                // The server left out what is too large.
                WarmProgress::add(&progress.left_out, absent.len() as u64);
                return Ok(missing);
            }
            if let Some((at, error)) = &self.core().state.lock().write_failure
                && *at > failures_before
            {
                return Err(error.clone());
            }
            tracing::debug!(round, objects = absent.len(), "asked for again: others did not bring them");
            let wants = absent.into_iter().map(|id| Want { id, size: None }).collect();
            carried = self.send(Cargo { wants, ..Cargo::default() }, plan, progress).await?;
        }
        Err(RemoteError::new(FailureKind::Local, NOT_KEPT))
    }
}

/// What a window asks for: first what tools open first, unless that is most of it anyway.
fn cargoes(window: Window) -> impl Iterator<Item = Cargo> {
    let all = window.cargo.wants.len();
    let few = all >= FIRST_FROM && !window.first.is_empty() && window.first.len() * 8 < all;
    let first = few.then(|| Cargo { wants: window.first, ..Cargo::default() });
    let rest = (!window.cargo.wants.is_empty()).then_some(window.cargo);
    first.into_iter().chain(rest)
}

/// A bulk batch from the side of who wants it. Dropping it cancels.
struct Carried {
    core: Arc<Core>,
    number: u64,
    wants: Vec<Want>,
    /// Arrivals before it.
    arrived: u64,
    cancelled: Arc<AtomicBool>,
    hear: oneshot::Receiver<Brought>,
}

impl Carried {
    fn send(
        core: &Arc<Core>,
        cargo: Cargo,
        place: OwnedSemaphorePermit,
        plan: &WarmPlan,
        progress: &Arc<WarmProgress>,
    ) -> Self {
        let (number, arrived) = {
            let mut state = core.state.lock();
            (state.flights.number(), state.arrived)
        };
        let wants = cargo.wants.clone();
        for some in wants.chunks(LOCKED_OBJECTS) {
            core.state.lock().flights.add_bulk(some, number);
        }
        let (tell, hear) = oneshot::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let progress = Arc::clone(progress);
        let bulk = Bulk {
            number,
            cargo,
            cause: Arc::clone(&plan.cause),
            since: Instant::now(),
            cancelled: Arc::clone(&cancelled),
            progress: Arc::new(move |objects, bytes| {
                WarmProgress::add(&progress.fetched, objects);
                progress.settle(objects);
                WarmProgress::add(&progress.bytes, bytes);
            }),
            tell,
            place,
        };
        let mut state = core.state.lock();
        if !state.closed {
            state.bulks.push_back(bulk);
            Core::wake(core, &mut state);
        }
        drop(state);
        Self { core: Arc::clone(core), number, wants, arrived, cancelled, hear }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let mut state = self.core.state.lock();
        let before = state.bulks.len();
        state.bulks.retain(|bulk| bulk.number != self.number);
        if state.bulks.len() < before || state.closed {
            // Nobody will carry it, so nobody else takes it off the books.
            state.flights.end_bulk(self.wants.iter().map(|want| &want.id), self.number);
        }
        drop(state);
        // One that waits for room need wait no longer.
        self.core.room.notify_all();
        self.core.changed.notify_waiters();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RemoteError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(RemoteError::new(FailureKind::Local, format!("the walk failed: {error}"))),
    }
}
