//! Reads: one fetch for many readers, failures by class, nobody forgotten, and what idle means.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;

use super::super::memory::MemoryRemote;
use super::super::{FailureKind, HydrateSettings, Landed, RemoteError, Want};
use super::{Hold, LONG, bench, bench_with, me, soon, want};

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_one_fetch_and_siblings_follow() {
    let bench = bench(MemoryRemote { delay: Duration::from_millis(20), ..MemoryRemote::default() }, LONG);
    let ids: Vec<ObjectId> = (0..100_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    let siblings: Vec<Want> = ids.iter().skip(1).copied().map(want).collect();
    let readers: Vec<_> = (0..32).map(|_| bench.hydrator.hydrate(want(ids[0]), &me(), &siblings)).collect();
    for reader in readers {
        assert!(matches!(reader.wait().await, Ok(Landed::Bytes(bytes)) if *bytes == 0_u32.to_le_bytes()));
    }
    for id in &ids {
        bench.hydrator.hydrate(want(*id), &me(), &[]).wait().await.expect("fetched");
    }
    assert_eq!(bench.remote.requests.load(Ordering::SeqCst), 2, "one for what is read, one for its siblings");
    assert_eq!(bench.remote.sent.load(Ordering::SeqCst), 100);
    assert!(bench.hydrator.waiting().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_retried_and_delivers_everything() {
    let bench = bench(MemoryRemote { cut_after: 3, faults: AtomicU64::new(2), ..MemoryRemote::default() }, LONG);
    let ids: Vec<ObjectId> = (0..10_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    let tickets: Vec<_> = ids.iter().map(|id| bench.hydrator.hydrate(want(*id), &me(), &[])).collect();
    for ticket in tickets {
        ticket.wait().await.expect("retried");
    }
    assert_eq!(bench.remote.sent.load(Ordering::SeqCst), 10, "no object is fetched twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_fails_alone() {
    let bench = bench(MemoryRemote::default(), LONG);
    let good = bench.remote.insert("good");
    let missing = bench.hydrator.hydrate(want(ObjectId::from_bytes_or_panic(&[9; 20])), &me(), &[]);
    let present = bench.hydrator.hydrate(want(good), &me(), &[]);
    assert_eq!(missing.wait().await.expect_err("no such object").kind, FailureKind::Missing);
    present.wait().await.expect("the other of the batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_is_prompt_and_passes() {
    let bench = bench(MemoryRemote::default(), LONG);
    let id = bench.remote.insert("later");
    bench.remote.unplugged.store(true, Ordering::SeqCst);
    let error = bench.hydrator.hydrate(want(id), &me(), &[]).wait().await.expect_err("unplugged");
    assert_eq!(error.kind, FailureKind::Offline);
    assert!(bench.hydrator.offline());
    bench.remote.unplugged.store(false, Ordering::SeqCst);
    bench.hydrator.hydrate(want(id), &me(), &[]).wait().await.expect("plugged in again");
    assert!(!bench.hydrator.offline());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_remote_is_offline_within_the_time_out() {
    let delay = Duration::from_secs(3);
    let bench = bench(MemoryRemote { delay, ..MemoryRemote::default() }, Duration::from_millis(200));
    let id = bench.remote.insert("slow");
    let begun = Instant::now();
    let error = bench.hydrator.hydrate(want(id), &me(), &[]).wait().await.expect_err("silent");
    assert_eq!(error.kind, FailureKind::Offline);
    assert!(begun.elapsed() < delay);
    assert!(bench.hydrator.waiting().is_empty(), "a reader that gave up waits no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_and_sizes() {
    let bench = bench(MemoryRemote { object_info: true, ..MemoryRemote::default() }, LONG);
    let data: Vec<u8> = (0..9_u32 << 20).map(|number| (number >> 10).to_le_bytes()[0]).collect();
    let id = bench.remote.insert(data.clone());
    bench.hydrator.sizes(vec![id], None).await.expect("offered");
    assert_eq!(bench.store.sizes(&[id]).expect("store"), [Some(data.len() as u64)]);
    assert!(!bench.store.contains(&id).expect("store"));
    assert!(matches!(bench.hydrator.hydrate(want(id), &me(), &[]).wait().await, Ok(Landed::Stored)));
    assert_eq!(bench.store.read_at(&id, 5 << 20, 10).expect("store").as_deref(), Some(&data[5 << 20..(5 << 20) + 10]));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_tells_waiters_and_ends_threads() {
    let bench = bench(MemoryRemote { delay: Duration::from_millis(300), ..MemoryRemote::default() }, LONG);
    let id = bench.remote.insert("x");
    let ticket = bench.hydrator.hydrate(want(id), &me(), &[]);
    drop(bench);
    assert!(soon("a waiter is told", ticket.wait()).await.is_err());
}

fn busy(retry_after: Duration) -> RemoteError {
    RemoteError { retry_after: Some(retry_after), ..RemoteError::new(FailureKind::Transient, "busy") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_wants_a_pause_gets_it() {
    let bench = bench(MemoryRemote::default(), LONG);
    let id = bench.remote.insert("x");
    let pause = Duration::from_millis(300);
    bench.watched.refusals.lock().push_back(busy(pause));
    let begun = Instant::now();
    soon("a read", bench.hydrator.hydrate(want(id), &me(), &[]).wait()).await.expect("asked again");
    assert!(begun.elapsed() >= pause, "asked again after {:?}", begun.elapsed());
    assert_eq!(bench.watched.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_pause_longer_than_the_time_out() {
    let bench = bench(MemoryRemote::default(), Duration::from_secs(2));
    let id = bench.remote.insert("x");
    bench.watched.refusals.lock().push_back(busy(Duration::from_secs(3)));
    let begun = Instant::now();
    let error = bench.hydrator.hydrate(want(id), &me(), &[]).wait().await.expect_err("it is as good as gone");
    assert_eq!(error.kind, FailureKind::Transient);
    assert!(begun.elapsed() < Duration::from_secs(1), "told after {:?}", begun.elapsed());
    assert!(bench.hydrator.offline());
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_bounded() {
    let settings = HydrateSettings { retries: 2, ..HydrateSettings::default() };
    let bench = bench_with(MemoryRemote { faults: AtomicU64::new(100), ..MemoryRemote::default() }, settings);
    let id = bench.remote.insert("x");
    let error = soon("a read", bench.hydrator.hydrate(want(id), &me(), &[]).wait()).await.expect_err("always cut");
    assert_eq!(error.kind, FailureKind::Transient);
    assert_eq!(bench.watched.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_means_that_all_is_stored() {
    let bench = bench(MemoryRemote::default(), LONG);
    soon("a hydrator without work is idle", bench.hydrator.idle()).await;
    let ids: Vec<ObjectId> = (0..50_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    bench.watched.hold(Hold::Reads, 0);
    let ticket = bench.hydrator.hydrate(want(ids[0]), &me(), &[]);
    bench.watched.held(1).await;
    let early = tokio::time::timeout(Duration::from_millis(50), bench.hydrator.idle()).await;
    assert!(early.is_err(), "idle while a request is under way");
    bench.watched.hold(Hold::None, 0);
    let others: Vec<_> = ids[1..].iter().map(|id| bench.hydrator.hydrate(want(*id), &me(), &[])).collect();
    soon("idle", bench.hydrator.idle()).await;
    assert!(bench.has(&ids));
    for ticket in others.into_iter().chain([ticket]) {
        ticket.wait().await.expect("it is here");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_follows_failures_and_readers_that_left() {
    let bench = bench(MemoryRemote::default(), LONG);
    let id = bench.remote.insert("x");
    bench.watched.hold(Hold::Reads, 0);
    let stays = bench.hydrator.hydrate(want(ObjectId::from_bytes_or_panic(&[9; 20])), &me(), &[]);
    let leaves = bench.hydrator.hydrate(want(id), &me(), &[]);
    bench.watched.hold(Hold::None, 0);
    drop(leaves);
    soon("idle", bench.hydrator.idle()).await;
    assert_eq!(bench.hydrator.backlog(), (0, 0));
    assert_eq!(stays.wait().await.expect_err("no such object").kind, FailureKind::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_ours_is_told_and_the_connection_serves_on() {
    let settings = HydrateSettings { connections: 1, ..HydrateSettings::default() };
    let bench = bench_with(MemoryRemote { object_info: true, ..MemoryRemote::default() }, settings);
    let id = bench.remote.insert("x");
    bench.watched.panics.store(true, Ordering::SeqCst);
    let ticket = bench.hydrator.hydrate(want(id), &me(), &[]);
    soon("idle", bench.hydrator.idle()).await;
    assert_eq!(ticket.wait().await.expect_err("a panic").kind, FailureKind::Local);
    bench.watched.panics.store(true, Ordering::SeqCst);
    soon("sizes", bench.hydrator.sizes(vec![id], Some(&me()))).await.expect_err("a panic");
    soon("sizes", bench.hydrator.sizes(vec![id], Some(&me()))).await.expect("asked again");
    soon("a read", bench.hydrator.hydrate(want(id), &me(), &[]).wait()).await.expect("fetched");
    assert!(bench.hydrator.waiting().is_empty());
}
