//! The hydrator against a remote in memory: what is shared, and one file for each thing it is asked for.

mod prefetch;
mod read;
mod walk;
mod warm;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use parking_lot::{Condvar, Mutex};

use super::memory::MemoryRemote;
use super::remote::{Abilities, Connection, Extent, LargeSink, Remote, RemoteError, Sink};
use super::{Cause, HydrateSettings, Hydrator, Owner, Want};
use crate::metrics::Metrics;
use crate::store::{Batch, Operation, Store, StoreOptions, listing_from_git};

const ME: Owner = Owner(1);

fn by(owner: Owner) -> Arc<Cause> {
    Arc::new(Cause::new(owner, b"f", Operation::Read))
}

fn me() -> Arc<Cause> {
    by(ME)
}

const LONG: Duration = Duration::from_secs(20);

/// Which requests are held up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    /// Those of one object.
    Reads,
    /// Those of more.
    Bulk,
}

/// A remote in memory whose requests are written down, refused, or held up until they are let go.
struct Watched {
    memory: Arc<MemoryRemote>,
    log: Mutex<Vec<(Vec<ObjectId>, Extent)>>,
    /// What the next requests fail with.
    refusals: Mutex<VecDeque<RemoteError>>,
    /// The next request, or question for sizes, panics.
    panics: AtomicBool,
    hold: Mutex<Hold>,
    let_go: Condvar,
    /// Objects sent before a request is held.
    hold_after: AtomicUsize,
    /// Requests held now.
    held: AtomicUsize,
}

impl Watched {
    fn new(memory: Arc<MemoryRemote>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            log: Mutex::default(),
            refusals: Mutex::default(),
            panics: AtomicBool::new(false),
            hold: Mutex::new(Hold::None),
            let_go: Condvar::new(),
            hold_after: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        })
    }

    fn hold(&self, which: Hold, after: usize) {
        self.hold_after.store(after, Ordering::SeqCst);
        *self.hold.lock() = which;
        self.let_go.notify_all();
    }

    /// Waits until `count` requests are held.
    async fn held(&self, count: usize) {
        soon("requests are held", async {
            while self.held.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    fn requests(&self) -> Vec<(Vec<ObjectId>, Extent)> {
        self.log.lock().clone()
    }

    fn pass(&self, which: Hold) {
        let mut hold = self.hold.lock();
        if *hold != which {
            return;
        }
        self.held.fetch_add(1, Ordering::SeqCst);
        while *hold == which {
            self.let_go.wait(&mut hold);
        }
        self.held.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Door(Arc<Watched>);

impl Remote for Door {
    fn connect(&self) -> Result<Box<dyn Connection>, RemoteError> {
        Ok(Box::new(WatchedConnection(Arc::clone(&self.0), self.0.memory.connect()?)))
    }

    fn address(&self) -> String {
        self.0.memory.address()
    }
}

struct WatchedConnection(Arc<Watched>, Box<dyn Connection>);

impl Connection for WatchedConnection {
    fn abilities(&self) -> Abilities {
        self.1.abilities()
    }

    fn fetch(&mut self, wants: &[ObjectId], extent: Extent, sink: &mut dyn Sink) -> Result<(), RemoteError> {
        self.0.log.lock().push((wants.to_vec(), extent));
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "a test wants a panic");
        if let Some(error) = self.0.refusals.lock().pop_front() {
            return Err(error);
        }
        let which = if wants.len() > 1 || extent != Extent::Exact { Hold::Bulk } else { Hold::Reads };
        self.1.fetch(wants, extent, &mut HeldSink { watched: &self.0, which, passed: 0, sink })
    }

    fn sizes(&mut self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>, RemoteError> {
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "a test wants a panic");
        self.1.sizes(ids)
    }
}

struct HeldSink<'a> {
    watched: &'a Watched,
    which: Hold,
    passed: usize,
    sink: &'a mut dyn Sink,
}

impl HeldSink<'_> {
    fn pass(&mut self) {
        if self.passed == self.watched.hold_after.load(Ordering::SeqCst) {
            self.watched.pass(self.which);
        }
        self.passed += 1;
    }
}

impl Sink for HeldSink<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        self.pass();
        self.sink.object(id, kind, data)
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        self.pass();
        self.sink.large(raw_size)
    }
}

struct Bench {
    store: Store,
    remote: Arc<MemoryRemote>,
    watched: Arc<Watched>,
    hydrator: Hydrator,
    _directory: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // No thread stays behind when a test fails.
        self.watched.hold(Hold::None, 0);
    }
}

impl Bench {
    /// Puts every tree of the remote into the store, as a mount does.
    fn learn_trees(&self) {
        learn_trees(&self.store, &self.remote, |_| true);
    }

    fn sent(&self) -> u64 {
        self.remote.sent.load(Ordering::SeqCst)
    }

    fn has(&self, ids: &[ObjectId]) -> bool {
        self.store.missing_blobs(ids).expect("store").is_empty()
    }
}

fn bench(remote: MemoryRemote, timeout: Duration) -> Bench {
    bench_with(remote, HydrateSettings { timeout, ..HydrateSettings::default() })
}

fn bench_with(remote: MemoryRemote, settings: HydrateSettings) -> Bench {
    let (directory, store) = store();
    let remote = Arc::new(remote);
    let watched = Watched::new(Arc::clone(&remote));
    let door = Arc::new(Door(Arc::clone(&watched)));
    let hydrator = Hydrator::new(store.clone(), door, settings, Arc::new(Metrics::default()), None);
    Bench { store, remote, watched, hydrator, _directory: directory }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = StoreOptions { cache_bytes: 1 << 20 };
    let store = Store::open(&directory.path().join("store.redb"), &options).expect("new store");
    (directory, store)
}

fn learn_trees(store: &Store, remote: &MemoryRemote, which: impl Fn(&ObjectId) -> bool) {
    let mut batch = Batch::default();
    for (id, (kind, data)) in &*remote.objects.lock() {
        if *kind == Kind::Tree && which(id) {
            batch.tree(*id, &listing_from_git(id, data).expect("built here"));
        }
    }
    store.commit(batch).expect("stored");
}

/// Adds files to the remote and returns the id of their tree.
fn plant(remote: &MemoryRemote, files: &[(String, Vec<u8>)]) -> ObjectId {
    let mut directories: BTreeMap<&str, Vec<(String, Vec<u8>)>> = BTreeMap::new();
    let mut entries = Vec::new();
    for (path, data) in files {
        match path.split_once('/') {
            None => entries.push((path.as_str(), false, remote.insert(data.clone()))),
            Some((name, rest)) => directories.entry(name).or_default().push((rest.to_owned(), data.clone())),
        }
    }
    for (name, files) in &directories {
        entries.push((name, true, plant(remote, files)));
    }
    remote.insert_tree(&entries)
}

/// Files of which no two are alike.
fn files(names: impl IntoIterator<Item = String>) -> Vec<(String, Vec<u8>)> {
    names.into_iter().map(|name| (name.clone(), format!("what {name} holds").into_bytes())).collect()
}

/// `count` files over ten directories, half of those below another.
fn spread(count: usize) -> Vec<(String, Vec<u8>)> {
    let directory = |number| if number % 2 == 0 { format!("d{number}") } else { format!("d{}/e{number}", number - 1) };
    files((0..count).map(|number| format!("{}/f{number}.c", directory(number % 10))))
}

/// The ids of `files`.
fn blobs(files: &[(String, Vec<u8>)]) -> Vec<ObjectId> {
    let scratch = MemoryRemote::default();
    files.iter().map(|(_, data)| scratch.insert(data.clone())).collect()
}

fn want(id: ObjectId) -> Want {
    Want { id, size: None }
}

/// What takes longer hangs.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.unwrap_or_else(|_| panic!("{what}: it hangs"))
}
