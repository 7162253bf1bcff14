//! Warms: everything arrives once, in few requests, whatever the remote does; reads pass them by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;

use super::super::memory::MemoryRemote;
use super::super::remote::Extent;
use super::super::walk::Everything;
use super::super::{FailureKind, HydrateSettings, RemoteError, WarmPlan, WarmProgress};
use super::{Bench, Hold, LONG, bench, bench_with, blobs, files, me, plant, soon, spread, want};

fn plan(root: ObjectId, max_blob_bytes: Option<u64>) -> WarmPlan {
    WarmPlan { root, select: Arc::new(|| Box::new(Everything)), max_blob_bytes, cause: me() }
}

/// Warms all of `root`; what it counted, and how it ended.
async fn warm(bench: &Bench, root: ObjectId) -> (Arc<WarmProgress>, Result<(), RemoteError>) {
    let progress = Arc::default();
    let outcome = soon("a warm", bench.hydrator.warm(&plan(root, None), &progress)).await;
    (progress, outcome)
}

/// A warm in the background.
fn begin(bench: &Bench, root: ObjectId) -> tokio::task::JoinHandle<Result<(), RemoteError>> {
    let hydrator = bench.hydrator.clone();
    tokio::spawn(async move { hydrator.warm(&plan(root, None), &Arc::default()).await })
}

async fn end(warm: tokio::task::JoinHandle<Result<(), RemoteError>>) -> Result<(), RemoteError> {
    soon("a warm", warm).await.expect("no panic")
}

/// Small batches, so that a warm has several.
fn small_batches() -> HydrateSettings {
    HydrateSettings { warm_objects: 50, ..HydrateSettings::default() }
}

fn counts(progress: &WarmProgress) -> (u64, u64, u64, u64) {
    let get = WarmProgress::get;
    (get(&progress.selected), get(&progress.fetched), get(&progress.left_out), get(&progress.coming))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_and_the_second_time_nothing_is_asked() {
    for settings in [HydrateSettings::default(), small_batches()] {
        let bench = bench_with(MemoryRemote::default(), settings);
        let files = spread(333);
        let root = plant(&bench.remote, &files);
        // Not even the trees are here.
        let (progress, outcome) = warm(&bench, root).await;
        outcome.expect("warmed");
        assert!(bench.has(&blobs(&files)));
        assert_eq!(counts(&progress), (333, 333, 0, 0));
        let bytes: usize = files.iter().map(|(_, data)| data.len()).sum();
        assert_eq!(WarmProgress::get(&progress.bytes), bytes as u64);
        let requests = bench.watched.requests().len();
        assert_eq!(WarmProgress::get(&progress.requests), requests as u64);
        let (progress, outcome) = warm(&bench, root).await;
        outcome.expect("warmed already");
        assert_eq!(counts(&progress), (333, 0, 0, 0));
        assert_eq!(bench.watched.requests().len(), requests, "everything was here");
        soon("idle", bench.hydrator.idle()).await;
        assert_eq!(bench.hydrator.backlog(), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_only_what_is_missing_is_asked_for() {
    let remote = MemoryRemote { cut_after: 50, faults: AtomicU64::new(1), ..MemoryRemote::default() };
    let bench = bench(remote, LONG);
    let files = files((0..100).map(|number| format!("f{number}")));
    let root = plant(&bench.remote, &files);
    bench.learn_trees();
    let (progress, outcome) = warm(&bench, root).await;
    outcome.expect("asked again");
    assert!(bench.has(&blobs(&files)));
    let requests = bench.watched.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], (vec![root], Extent::Everything { max_blob_bytes: None }));
    // The tree itself was one of the fifty.
    assert_eq!((requests[1].0.len(), requests[1].1), (51, Extent::Exact));
    assert_eq!(bench.sent(), 101);
    assert_eq!(counts(&progress), (100, 100, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cuts_are_survived_as_long_as_something_arrives() {
    let remote = MemoryRemote { cut_after: 30, faults: AtomicU64::new(8), ..MemoryRemote::default() };
    let bench = bench_with(remote, HydrateSettings { retries: 1, ..small_batches() });
    let files = spread(300);
    let root = plant(&bench.remote, &files);
    bench.learn_trees();
    warm(&bench, root).await.1.expect("each request brings something");
    assert!(bench.has(&blobs(&files)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_brings_nothing_is_repeated_a_bounded_number_of_times() {
    let remote = MemoryRemote { cut_after: 0, faults: AtomicU64::new(1000), ..MemoryRemote::default() };
    let bench = bench_with(remote, HydrateSettings { retries: 2, ..HydrateSettings::default() });
    let root = plant(&bench.remote, &spread(20));
    bench.learn_trees();
    let error = warm(&bench, root).await.1.expect_err("never anything");
    assert_eq!(error.kind, FailureKind::Transient);
    assert_eq!(bench.watched.requests().len(), 3);
    assert_eq!(bench.hydrator.backlog(), (0, 0));
    bench.remote.faults.store(0, Ordering::SeqCst);
    warm(&bench, root).await.1.expect("the remote is well again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_remote_lacks_is_named_and_all_else_arrives() {
    for settings in [HydrateSettings::default(), small_batches()] {
        let bench = bench_with(MemoryRemote::default(), settings);
        let files = spread(120);
        let root = plant(&bench.remote, &files);
        bench.learn_trees();
        let mut ids = blobs(&files);
        let lost = [ids.remove(70), ids.remove(7)];
        for id in &lost {
            bench.remote.objects.lock().remove(id);
        }
        let error = warm(&bench, root).await.1.expect_err("two are not there");
        assert_eq!(error.kind, FailureKind::Missing);
        assert!(error.object.is_some_and(|id| lost.contains(&id)), "{error}");
        assert!(
            error.message.contains('2') && lost.iter().any(|id| error.message.contains(&id.to_string())),
            "{error}"
        );
        assert!(bench.has(&ids), "all others arrive");
        assert_eq!(bench.hydrator.backlog(), (0, 0));
        soon("idle", bench.hydrator.idle()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_the_remote_lacks_is_named() {
    let bench = bench(MemoryRemote::default(), LONG);
    let root = plant(&bench.remote, &spread(20));
    bench.remote.objects.lock().remove(&root);
    let error = warm(&bench, root).await.1.expect_err("it is nowhere");
    assert_eq!((error.kind, error.object), (FailureKind::Missing, Some(root)));
    assert_eq!(bench.hydrator.backlog(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_is_told_at_once_and_passes() {
    let bench = bench(MemoryRemote::default(), LONG);
    let files = spread(20);
    let root = plant(&bench.remote, &files);
    bench.learn_trees();
    bench.remote.unplugged.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let error = warm(&bench, root).await.1.expect_err("unplugged");
    assert_eq!(error.kind, FailureKind::Offline);
    assert!(begun.elapsed() < Duration::from_secs(2), "told after {:?}", begun.elapsed());
    assert!(bench.hydrator.offline());
    bench.remote.unplugged.store(false, Ordering::SeqCst);
    warm(&bench, root).await.1.expect("plugged in again");
    assert!(bench.has(&blobs(&files)) && !bench.hydrator.offline());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_the_remote_asks_for_is_made() {
    let bench = bench(MemoryRemote::default(), LONG);
    let root = plant(&bench.remote, &spread(20));
    bench.learn_trees();
    let pause = Duration::from_millis(300);
    let busy = RemoteError { retry_after: Some(pause), ..RemoteError::new(FailureKind::Transient, "busy") };
    bench.watched.refusals.lock().push_back(busy.clone());
    let begun = Instant::now();
    warm(&bench, root).await.1.expect("asked again");
    assert!(begun.elapsed() >= pause);
    let other = plant(&bench.remote, &files(["other".to_owned()]));
    bench.watched.refusals.lock().push_back(RemoteError { retry_after: Some(LONG * 2), ..busy });
    let begun = Instant::now();
    warm(&bench, other).await.1.expect_err("nobody waits that long");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_left_out() {
    for object_info in [true, false] {
        let bench = bench(MemoryRemote { object_info, ..MemoryRemote::default() }, LONG);
        let sized = |number: usize| {
            (format!("d{}/f{number}", number % 3), vec![u8::try_from(number).unwrap_or(0); number * 10])
        };
        let files: Vec<_> = (1..=30).map(sized).collect();
        let root = plant(&bench.remote, &files);
        let progress = Arc::default();
        soon("a warm", bench.hydrator.warm(&plan(root, Some(200)), &progress)).await.expect("warmed");
        assert!(bench.has(&blobs(&files[..20])));
        assert_eq!(bench.store.missing_blobs(&blobs(&files[20..])).expect("store").len(), 10, "sizes: {object_info}");
        assert_eq!(counts(&progress), (30, 20, 10, 0), "sizes: {object_info}");
        let (progress, outcome) = warm(&bench, root).await;
        outcome.expect("warmed");
        assert_eq!(counts(&progress).1, 10, "the rest comes when it is asked for");
        assert!(bench.has(&blobs(&files)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_that_is_dropped_leaves_nothing_in_flight() {
    // In its first batch, before and after something arrived, with another batch queued behind it.
    for after in [0, 10] {
        let bench = bench_with(MemoryRemote::default(), small_batches());
        let files = spread(300);
        let root = plant(&bench.remote, &files);
        bench.learn_trees();
        bench.watched.hold(Hold::Bulk, after);
        let warming = begin(&bench, root);
        bench.watched.held(1).await;
        soon("the next batch is queued", async {
            while bench.hydrator.waiting().len() < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        warming.abort();
        assert!(soon("it ends", warming).await.expect_err("aborted").is_cancelled());
        assert_eq!(bench.hydrator.backlog().0, 0, "nothing is queued any more");
        bench.watched.hold(Hold::None, 0);
        soon("idle", bench.hydrator.idle()).await;
        assert_eq!(bench.hydrator.backlog(), (0, 0));
        let sent = bench.sent();
        assert!(sent < 70, "{sent} objects came after the warm was dropped");
        assert!(bench.hydrator.waiting().is_empty());
        assert_eq!(bench.watched.requests().len(), 1, "nothing more was asked for");
        let (progress, outcome) = warm(&bench, root).await;
        outcome.expect("warmed");
        let (selected, fetched, ..) = counts(&progress);
        assert!(selected == 300 && fetched <= 300 && bench.has(&blobs(&files)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_wait_for_a_warm() {
    let bench = bench(MemoryRemote::default(), LONG);
    let files = spread(100);
    let root = plant(&bench.remote, &files);
    bench.learn_trees();
    bench.watched.hold(Hold::Bulk, 10);
    let warming = begin(&bench, root);
    bench.watched.held(1).await;
    let missing = blobs(&files).into_iter().filter(|id| !bench.hydrator.holds(id) && !bench.has(&[*id]));
    let missing: Vec<ObjectId> = missing.take(5).collect();
    assert_eq!(missing.len(), 5);
    for id in &missing {
        let ticket = bench.hydrator.hydrate(want(*id), &me(), &[]);
        soon("a read beside a warm", ticket.wait()).await.expect("by a request of its own");
    }
    assert!(!warming.is_finished());
    bench.watched.hold(Hold::None, 0);
    end(warming).await.expect("warmed");
    assert!(bench.has(&blobs(&files)));
    assert_eq!(bench.watched.requests().len(), 6, "and the warm asks for nothing again");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_warms_at_once_fetch_each_object_once() {
    let delay = Duration::from_millis(20);
    for settings in [HydrateSettings::default(), small_batches(), HydrateSettings { connections: 4, ..small_batches() }]
    {
        let bench = bench_with(MemoryRemote { delay, ..MemoryRemote::default() }, settings);
        // No tree is asked for whole: what else it would bring is not counted.
        let files = files((0..300).map(|number| format!("d{number}/f")));
        let root = plant(&bench.remote, &files);
        bench.learn_trees();
        let (one, two) = (begin(&bench, root), begin(&bench, root));
        end(one).await.expect("warmed");
        end(two).await.expect("warmed");
        assert!(bench.has(&blobs(&files)));
        let blobs = blobs(&files);
        let mut asked: Vec<ObjectId> = bench.watched.requests().into_iter().flat_map(|(ids, _)| ids).collect();
        asked.retain(|id| blobs.contains(id));
        let all = asked.len();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), all, "asked for twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_warms_at_once_without_the_trees() {
    for connections in [2, 3] {
        let remote = MemoryRemote { delay: Duration::from_millis(50), ..MemoryRemote::default() };
        let bench = bench_with(remote, HydrateSettings { connections, ..HydrateSettings::default() });
        let files = spread(100);
        let root = plant(&bench.remote, &files);
        let (one, two) = (begin(&bench, root), begin(&bench, root));
        end(one).await.expect("warmed");
        end(two).await.expect("the other brings the trees; nothing is missing");
        assert!(bench.has(&blobs(&files)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_takes_over_when_the_other_is_dropped() {
    let bench = bench(MemoryRemote::default(), LONG);
    let files = spread(100);
    let root = plant(&bench.remote, &files);
    bench.watched.hold(Hold::Bulk, 0);
    let goes = begin(&bench, root);
    bench.watched.held(1).await;
    let stays = begin(&bench, root);
    tokio::time::sleep(Duration::from_millis(50)).await;
    goes.abort();
    bench.watched.hold(Hold::None, 0);
    end(stays).await.expect("it asks itself");
    assert!(bench.has(&blobs(&files)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_both_reads_and_warms() {
    let settings = HydrateSettings { connections: 1, batch_objects: 20, ..HydrateSettings::default() };
    let bench = bench_with(MemoryRemote { delay: Duration::from_millis(10), ..MemoryRemote::default() }, settings);
    let files = spread(200);
    let root = plant(&bench.remote, &files);
    bench.learn_trees();
    let other = bench.remote.insert("not part of it");
    let warming = begin(&bench, root);
    soon("a batch", async {
        while bench.sent() < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    soon("a read", bench.hydrator.hydrate(want(other), &me(), &[]).wait()).await.expect("fetched");
    assert!(!warming.is_finished(), "a read goes between two batches");
    end(warming).await.expect("warmed");
    assert!(bench.has(&blobs(&files)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_larger_than_what_may_be_in_flight_goes_when_it_is_alone() {
    let settings = HydrateSettings { inflight_objects: 10, ..HydrateSettings::default() };
    let bench = bench_with(MemoryRemote::default(), settings);
    let files = spread(100);
    let root = plant(&bench.remote, &files);
    bench.learn_trees();
    let other = bench.remote.insert("not part of it");
    bench.watched.hold(Hold::Reads, 0);
    let ticket = bench.hydrator.hydrate(want(other), &me(), &[]);
    bench.watched.held(1).await;
    let warming = begin(&bench, root);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.watched.requests().len(), 1, "there is no room beside the read");
    bench.watched.hold(Hold::None, 0);
    soon("a read", ticket.wait()).await.expect("fetched");
    end(warming).await.expect("the connection that is free now is told");
    assert!(bench.has(&blobs(&files)));
}

#[tokio::test(flavor = "multi_thread")]
async fn little_memory_slows_a_warm_and_stops_nothing() {
    let settings = HydrateSettings { memory_bytes: 4096, ..HydrateSettings::default() };
    let bench = bench_with(MemoryRemote::default(), settings);
    let files: Vec<_> =
        (0..60_u8).map(|number| (format!("f{number}"), vec![number; 1500 + usize::from(number)])).collect();
    let root = plant(&bench.remote, &files);
    warm(&bench, root).await.1.expect("warmed");
    assert!(bench.has(&blobs(&files)));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_a_warm() {
    let bench = bench_with(MemoryRemote::default(), small_batches());
    let root = plant(&bench.remote, &spread(300));
    bench.watched.hold(Hold::Bulk, 5);
    let warming = begin(&bench, root);
    bench.watched.held(1).await;
    bench.hydrator.close(Duration::ZERO);
    bench.watched.hold(Hold::None, 0);
    assert!(end(warming).await.is_err());
    assert_eq!(bench.hydrator.backlog(), (0, 0));
    let sent = bench.sent();
    assert!(sent < 10, "{sent} objects came after the end");
    soon("idle", bench.hydrator.idle()).await;
}
