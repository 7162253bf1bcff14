//! The hydrator against a remote in memory: one fetch for many readers,
//! failures by class, nobody forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gix::ObjectId;

use super::memory::MemoryRemote;
use super::{FailureKind, HydrateSettings, Hydrator, Landed, Want};
use crate::metrics::Metrics;
use crate::store::{Store, StoreOptions};

struct Bench {
    store: Store,
    remote: Arc<MemoryRemote>,
    hydrator: Hydrator,
    _directory: tempfile::TempDir,
}

fn bench(remote: MemoryRemote, timeout: Duration) -> Bench {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store =
        Store::open(&directory.path().join("store.redb"), &StoreOptions { cache_bytes: 1 << 20 }).expect("new store");
    let remote = Arc::new(remote);
    let settings = HydrateSettings { timeout, ..HydrateSettings::default() };
    let hydrator =
        Hydrator::new(store.clone(), Arc::new(Arc::clone(&remote)), settings, Arc::new(Metrics::default()), None);
    Bench { store, remote, hydrator, _directory: directory }
}

const LONG: Duration = Duration::from_secs(20);

fn want(id: ObjectId) -> Want {
    Want { id, size: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_one_fetch_and_siblings_ride_along() {
    let bench = bench(MemoryRemote { delay: Duration::from_millis(20), ..MemoryRemote::default() }, LONG);
    let ids: Vec<ObjectId> = (0..100_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    let siblings: Vec<Want> = ids.iter().skip(1).copied().map(want).collect();
    let readers: Vec<_> = (0..32).map(|_| bench.hydrator.hydrate(want(ids[0]), b"f", &siblings)).collect();
    for reader in readers {
        assert!(matches!(reader.wait().await, Ok(Landed::Bytes(bytes)) if *bytes == 0_u32.to_le_bytes()));
    }
    for id in &ids {
        bench.hydrator.hydrate(want(*id), b"f", &[]).wait().await.expect("fetched");
    }
    assert_eq!(bench.remote.requests.load(Ordering::SeqCst), 1);
    assert_eq!(bench.remote.sent.load(Ordering::SeqCst), 100);
    assert!(bench.hydrator.waiting().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_retried_and_delivers_everything() {
    let bench = bench(MemoryRemote { cut_after: 3, faults: AtomicU64::new(2), ..MemoryRemote::default() }, LONG);
    let ids: Vec<ObjectId> = (0..10_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    let tickets: Vec<_> = ids.iter().map(|id| bench.hydrator.hydrate(want(*id), b"f", &[])).collect();
    for ticket in tickets {
        ticket.wait().await.expect("retried");
    }
    assert_eq!(bench.remote.sent.load(Ordering::SeqCst), 10, "no object is fetched twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_fails_alone() {
    let bench = bench(MemoryRemote::default(), LONG);
    let good = bench.remote.insert("good");
    let missing = bench.hydrator.hydrate(want(ObjectId::from_bytes_or_panic(&[9; 20])), b"a", &[]);
    let present = bench.hydrator.hydrate(want(good), b"b", &[]);
    assert_eq!(missing.wait().await.expect_err("no such object").kind, FailureKind::Missing);
    present.wait().await.expect("the other of the batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_is_prompt_and_passes() {
    let bench = bench(MemoryRemote::default(), LONG);
    let id = bench.remote.insert("later");
    bench.remote.unplugged.store(true, Ordering::SeqCst);
    let error = bench.hydrator.hydrate(want(id), b"f", &[]).wait().await.expect_err("unplugged");
    assert_eq!(error.kind, FailureKind::Offline);
    assert!(bench.hydrator.offline());
    bench.remote.unplugged.store(false, Ordering::SeqCst);
    bench.hydrator.hydrate(want(id), b"f", &[]).wait().await.expect("plugged in again");
    assert!(!bench.hydrator.offline());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_remote_is_offline_within_the_time_out() {
    let delay = Duration::from_secs(3);
    let bench = bench(MemoryRemote { delay, ..MemoryRemote::default() }, Duration::from_millis(200));
    let id = bench.remote.insert("slow");
    let begun = std::time::Instant::now();
    let error = bench.hydrator.hydrate(want(id), b"f", &[]).wait().await.expect_err("silent");
    assert_eq!(error.kind, FailureKind::Offline);
    assert!(begun.elapsed() < delay);
    assert!(bench.hydrator.waiting().is_empty(), "a reader that gave up waits no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_and_sizes() {
    let bench = bench(MemoryRemote { object_info: true, ..MemoryRemote::default() }, LONG);
    let data: Vec<u8> = (0..9_u32 << 20).map(|number| (number >> 10).to_le_bytes()[0]).collect();
    let id = bench.remote.insert(data.clone());
    bench.hydrator.sizes(vec![id]).await.expect("offered");
    assert_eq!(bench.store.sizes(&[id]).expect("store"), [Some(data.len() as u64)]);
    assert!(!bench.store.contains(&id).expect("store"));
    assert!(matches!(bench.hydrator.hydrate(want(id), b"f", &[]).wait().await, Ok(Landed::Stored)));
    assert_eq!(bench.store.read_at(&id, 5 << 20, 10).expect("store").as_deref(), Some(&data[5 << 20..(5 << 20) + 10]));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_tells_waiters_and_ends_threads() {
    let bench = bench(MemoryRemote { delay: Duration::from_millis(300), ..MemoryRemote::default() }, LONG);
    let id = bench.remote.insert("x");
    let ticket = bench.hydrator.hydrate(want(id), b"f", &[]);
    let Bench { hydrator, .. } = bench;
    drop(hydrator);
    assert!(ticket.wait().await.is_err());
}
