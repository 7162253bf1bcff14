//! The daemon: owns the store, the mounts and the control socket.
//!
//! In reading order: [`protocol`] is what clients say; [`server`] listens;
//! [`workspace`] is one live mount; [`mounting`] deals with mount points;
//! [`prepare`] brings a commit into a workspace; [`lifecycle`] mounts,
//! restores and unmounts; [`moving`] follows HEAD and `switch` moves it;
//! `refresh` fetches from the remote; [`warm`] fetches ahead; [`pin`] keeps what was fetched; [`carry`] takes a commit to a
//! machine without a network; [`gc`] takes out what nobody needs; [`status`] reports; [`client`] is the other end of the
//! socket.

mod asker;
pub mod bring;
mod bring_changed;
pub mod carry;
pub mod client;
mod convert;
pub mod door;
pub mod facts;
pub mod failure;
pub mod gc;
pub mod history;
pub mod hook;
pub mod lifecycle;
pub mod log;
pub mod mounting;
pub mod moving;
mod names;
pub mod objects;
pub mod otlp;
pub mod overlay;
pub mod pin;
pub mod prepare;
pub mod protocol;
mod prune;
mod purge;
pub mod reach;
mod ready;
pub mod reconcile;
mod refresh;
mod repeated;
mod scrape;
pub mod server;
pub mod status;
mod switch;
pub mod verify;
pub mod warm;
mod watchdog;
pub mod workspace;
pub mod worktree;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::config::Config;
use crate::hydrate::Hydrator;
use crate::hydrate::class::ClassTable;
use crate::index::overlay::Overlay;
use crate::metrics::Metrics;
use crate::store::{RepositoryId, Store, StoreOptions, WorkspaceId, patiently};
use crate::vfs::fuse::Mounted;
use protocol::{Failure, FailureClass};
use workspace::Live;

/// Time between looks at mounts that ended and commits that are not durable yet.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Longest wait for tasks at the end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Whose a hydrator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct HydratorKey {
    repository: RepositoryId,
    /// It never asks the remote, and finds only what is on this machine.
    offline: bool,
}

/// Everything one daemon owns.
pub struct Daemon {
    config: Config,
    started: Instant,
    // This program, as it was called when it started: later it may have been replaced by a newer one.
    binary: std::path::PathBuf,
    store: Store,
    metrics: Arc<Metrics>,
    runtime: Handle,
    // Guards the map alone. Order of locks: workspaces, then a workspace's row.
    workspaces: Mutex<BTreeMap<WorkspaceId, Arc<Live>>>,
    // Guards the map alone; one hydrator serves all workspaces of a repository, another those that are kept offline.
    hydrators: Mutex<HashMap<HydratorKey, Hydrator>>,
    attributes: convert::AttributeBlobs,
    // One preparation a repository at a time, so that nothing is fetched twice.
    preparing: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    // Sessions that were detached while files in them were open, until those are closed.
    detached: Mutex<Vec<Mounted>>,
    // Guards the map alone. One for each workspace that was mounted since the start: a session that was detached while
    // files are open goes on writing to the one that a new mount shows.
    overlays: Mutex<HashMap<WorkspaceId, Arc<Overlay>>>,
    // Which files are prefetched first.
    classes: Arc<ClassTable>,
    warms: warm::Warms,
    history: history::Histories,
    names: names::AllNames,
    prunings: prune::Prunings,
    moving: moving::Moving,
    // Held by whoever brings a commit in, from the look for its trees until it is published; exclusively while trees are
    // taken out. Taken before every lock but turns.
    collecting: RwLock<()>,
    // Held from the look for a mount's repository until its workspace is known, and while the overlay of one that is known is
    // opened; exclusively while a repository or a workspace is forgotten. Taken before the store and all maps.
    admission: RwLock<()>,
    // One collection or eviction at a time.
    collection: Mutex<()>,
    holds: gc::roots::Holds,
    quota: Arc<gc::quota::Quota>,
    stop: Notify,
    stopping: AtomicBool,
    // Held by the one check of the whole cache that may run.
    verifying: tokio::sync::Mutex<()>,
}

/// Runs the daemon until it is told to stop.
pub fn run(config: &Config, foreground: bool) -> Result<(), Failure> {
    config.create_directories()?;
    let export = log::init(&config.log_path, &config.settings, foreground)
        .map_err(|error| Failure::new(FailureClass::Other, format!("{}: {error}", config.log_path.display())))?;
    let outcome = start(config);
    if let Err(failure) = &outcome {
        tracing::error!("{failure}");
    }
    export.close();
    outcome
}

/// Keeps the C library from making a heap for each thread. Objects are decoded on one thread and freed on another, and a
/// heap that is freed into from outside gives nothing back: warming a million files took 300 MB with eight heaps, 180 with
/// one, in the same time (docs/performance.md).
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library has no other interface for it")]
fn share_one_heap() {
    // SAFETY: changes a number inside the allocator, which takes its own lock; called before threads are started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(target_env = "gnu"))]
fn share_one_heap() {}

fn start(config: &Config) -> Result<(), Failure> {
    share_one_heap();
    let binary = std::env::current_exe()
        .map_err(|error| Failure::new(FailureClass::Other, format!("this program can't be found: {error}")))?;
    let options =
        StoreOptions { cache_bytes: usize::try_from(config.settings.store.cache_bytes).unwrap_or(usize::MAX) };
    let wanted = &config.settings.hydrate;
    let classes = ClassTable::new(&wanted.manifests, &wanted.sources, &wanted.texts, &wanted.last);
    let classes = Arc::new(classes.map_err(|error| Failure::new(FailureClass::Usage, error))?);
    let store = patiently(|| Store::open(&config.store_path, &options))?;
    store.keep_fetches(config.settings.why.records as u64)?;
    let disk = rustix::fs::statvfs(&config.home).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    let quota = gc::quota::Quota::new(config.settings.cache.limit(disk), config.settings.cache.spared(disk));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Preparations and status walks; more at once would only wait for the store.
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FailureClass::Other, format!("cannot start threads: {error}")))?;
    let daemon = Arc::new(Daemon {
        config: config.clone(),
        started: Instant::now(),
        binary,
        store,
        metrics: Arc::default(),
        runtime: runtime.handle().clone(),
        workspaces: Mutex::default(),
        hydrators: Mutex::default(),
        attributes: convert::AttributeBlobs::default(),
        preparing: Mutex::default(),
        detached: Mutex::default(),
        overlays: Mutex::default(),
        classes,
        warms: warm::Warms::default(),
        history: history::Histories::default(),
        names: names::AllNames::default(),
        prunings: prune::Prunings::default(),
        moving: moving::Moving::default(),
        collecting: RwLock::default(),
        admission: RwLock::default(),
        collection: Mutex::default(),
        holds: gc::roots::Holds::default(),
        quota,
        stop: Notify::new(),
        stopping: AtomicBool::new(false),
        verifying: tokio::sync::Mutex::default(),
    });
    daemon
        .quota
        .begin(&daemon)
        .map_err(|error| Failure::new(FailureClass::Other, format!("cannot start a thread: {error}")))?;
    let outcome = runtime.block_on(serve(&daemon));
    // What arrived is stored before the store is closed.
    for (_, hydrator) in daemon.hydrators.lock().drain() {
        hydrator.close(SHUTDOWN_LIMIT);
    }
    daemon.quota.close();
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    outcome
}

async fn serve(daemon: &Arc<Daemon>) -> Result<(), Failure> {
    let listener = server::bind(&daemon.config)?;
    let broken = |error: std::io::Error| Failure::new(FailureClass::Other, format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "daemon started");
    Arc::clone(daemon).restore().await;
    let accepting = tokio::spawn(server::accept(Arc::clone(daemon), listener));
    let watching = tokio::spawn(watchdog::watch(Arc::clone(daemon)));
    let folding = tokio::spawn(overlay::fold_in_time(Arc::clone(daemon)));
    let listen = daemon.config.settings.metrics.listen.clone();
    let scraping = listen.map(|listen| tokio::spawn(scrape::serve(Arc::clone(daemon), listen)));
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            () = daemon.stop.notified() => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => {
                let daemon = Arc::clone(daemon);
                // The store's flush waits for the disk.
                let tidying = Arc::clone(&daemon);
                let _ = tokio::task::spawn_blocking(move || daemon.housekeeping()).await;
                // Nobody waits for this one: it may take as long as it is allowed to.
                drop(tokio::task::spawn_blocking(move || tidying.collect_when_idle()));
            }
        }
    }
    daemon.stopping.store(true, Ordering::Release);
    accepting.abort();
    watching.abort();
    folding.abort();
    if let Some(scraping) = scraping {
        scraping.abort();
    }
    let begun = Instant::now();
    let ending = Arc::clone(daemon);
    let _ = tokio::task::spawn_blocking(move || ending.unmount_all()).await;
    server::remove(&daemon.config);
    tracing::info!(seconds = begun.elapsed().as_secs_f64(), "daemon stopped");
    Ok(())
}

impl Daemon {
    /// Makes commits durable, notes mounts that others took down, lets go of what ended.
    fn housekeeping(&self) {
        if let Err(error) = self.store.flush() {
            tracing::error!("flush: {error}");
        }
        for overlay in self.all_overlays() {
            if let Err(error) = overlay.fold(true) {
                tracing::error!("local changes stay in the write-ahead file: {error}");
            }
        }
        self.detached.lock().retain(|mounted| !mounted.ended());
        for live in self.all() {
            self.note_unmounted(&live);
        }
        self.prune_packs();
    }

    /// Whether the daemon is about to end: what takes long ends sooner then.
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Where questions about the cache are answered from.
    fn sources(&self) -> facts::Sources<'_> {
        facts::Sources { store: &self.store, config: &self.config, daemon: Some(self) }
    }

    fn all_overlays(&self) -> Vec<Arc<Overlay>> {
        self.overlays.lock().values().cloned().collect()
    }

    fn all(&self) -> Vec<Arc<Live>> {
        self.workspaces.lock().values().cloned().collect()
    }
}
