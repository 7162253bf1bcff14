//! One live workspace: its row, its gate, its mount.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::ObjectId;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::mounting::{self, SOURCE_PREFIX};
use super::protocol::{Failure, FailureClass, Progress};
use crate::config::Settings;
use crate::index::census::Census;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Workspace, WorkspaceState};
use crate::vfs::fuse::{Forgetter, MountOptions, Mounted};
use crate::vfs::{Errno, Fs, Gate, Shown};

/// Listings carry attributes along: measured in docs/performance.md.
const READDIRPLUS: bool = true;

/// A workspace this daemon knows and may have mounted.
pub struct Live {
    // Guards the row; held for the store's transaction that writes it.
    row: Mutex<Workspace>,
    gate: watch::Sender<Gate>,
    fs: Arc<Fs>,
    // Guards the session alone.
    mounted: Mutex<Option<Mounted>>,
    progress: watch::Sender<Progress>,
    cancelled: AtomicBool,
    /// Whether it was in the store before this mount was asked for.
    known: bool,
    // What is cached of what it shows, once somebody asked. Guards it alone.
    census: Mutex<Option<Arc<Census>>>,
    // The environment of who mounted it, for filter drivers. Guards it alone.
    environment: Mutex<Vec<(String, String)>>,
}

impl Live {
    /// A workspace that is not mounted yet and whose gate is closed; `known` if it was in the store before.
    pub fn new(row: Workspace, known: bool, store: Store, metrics: Arc<Metrics>, home: PathBuf) -> Arc<Self> {
        let (gate, opened) = watch::channel(Gate::Preparing);
        let fs = Arc::new(Fs::new(store, metrics, opened, home));
        Arc::new(Self {
            row: Mutex::new(row),
            known,
            gate,
            fs,
            mounted: Mutex::new(None),
            progress: watch::channel(Progress::default()).0,
            cancelled: AtomicBool::new(false),
            census: Mutex::default(),
            environment: Mutex::default(),
        })
    }

    /// Whether it was in the store before this mount was asked for.
    pub fn was_known(&self) -> bool {
        self.known
    }

    /// Its row as it is now.
    pub fn row(&self) -> Workspace {
        self.row.lock().clone()
    }

    /// Changes the row and writes it.
    pub fn update(&self, store: &Store, change: impl FnOnce(&mut Workspace)) -> Result<(), StoreError> {
        let mut row = self.row.lock();
        let mut changed = row.clone();
        change(&mut changed);
        store.put_workspace(&changed)?;
        *row = changed;
        Ok(())
    }

    /// Takes over a row that was written by a publication.
    pub fn replace(&self, row: Workspace) {
        *self.row.lock() = row;
    }

    /// What it shows, when it is prepared.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        self.fs.shown().ok().flatten()
    }

    /// The environment of who mounted it; empty after a restart of the daemon.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.lock().clone()
    }

    /// Notes the environment of who mounts it.
    pub fn mounted_with(&self, environment: Vec<(String, String)>) {
        *self.environment.lock() = environment;
    }

    /// The census of `tree`, which it shows: the one there is, or a new one that is yet to be counted.
    pub fn census(&self, store: &Store, tree: ObjectId) -> Arc<Census> {
        let mut known = self.census.lock();
        match known.as_ref().filter(|census| census.is_of(store, tree)) {
            Some(census) => Arc::clone(census),
            None => Arc::clone(known.insert(Census::new(store, tree))),
        }
    }

    /// Its filesystem.
    pub fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }

    /// What makes the kernel forget; `None` when it is not mounted.
    pub fn forgetter(&self) -> Option<Forgetter> {
        self.mounted.lock().as_ref().map(Mounted::forgetter)
    }

    /// Lets readers in.
    pub fn open(&self, shown: Shown) {
        self.gate.send_replace(Gate::Open(Arc::new(shown)));
    }

    /// Tells readers that preparing failed.
    pub fn shut(&self) {
        self.gate.send_replace(Gate::Failed(Errno::EIO));
    }

    /// Makes readers wait again.
    pub fn preparing(&self) {
        self.cancelled.store(false, Ordering::SeqCst);
        self.gate.send_replace(Gate::Preparing);
    }

    /// How far the preparation is.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Notes how far the preparation is.
    pub fn advance(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Asks the preparation to end without publishing.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether the preparation was asked to end.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Whether the kernel still has the mount.
    pub fn is_mounted(&self) -> bool {
        self.mounted.lock().as_ref().is_some_and(|mounted| !mounted.ended())
    }

    /// Whether it was mounted and somebody else took it down.
    pub fn was_taken_down(&self) -> bool {
        self.mounted.lock().as_ref().is_some_and(Mounted::ended)
    }

    /// Mounts the workspace on its path, which must be checked.
    pub fn mount(&self, settings: &Settings, runtime: Handle) -> Result<(), Failure> {
        let row = self.row();
        let options = MountOptions {
            source: format!("{SOURCE_PREFIX}{}", row.name),
            allow_other: rustix::process::geteuid().is_root(),
            threads: settings.fuse.threads,
            readdirplus: READDIRPLUS,
            read_only: row.read_only,
        };
        let mounted = Mounted::new(Arc::clone(&self.fs), &row.path, &options, runtime).map_err(|error| {
            Failure::new(FailureClass::Other, format!("{} can't be mounted: {error}", row.path.display()))
                .hint("`larder doctor` checks FUSE and permissions")
        })?;
        *self.mounted.lock() = Some(mounted);
        Ok(())
    }

    /// Unmounts; with `detach` even while files are open, which then go on
    /// being served until they are closed: the session is handed back for that.
    pub fn unmount(&self, detach: bool) -> Result<Option<Mounted>, Failure> {
        if self.is_mounted() {
            mounting::unmount(&self.row().path, detach)?;
        }
        Ok(self.mounted.lock().take())
    }

    /// Its mount path.
    pub fn path(&self) -> PathBuf {
        self.row.lock().path.clone()
    }

    /// Its state as told to people: what the kernel says wins over the row.
    pub fn state(&self) -> WorkspaceState {
        let state = self.row.lock().state;
        if self.is_mounted() || state == WorkspaceState::Preparing { state } else { WorkspaceState::Unmounted }
    }
}
