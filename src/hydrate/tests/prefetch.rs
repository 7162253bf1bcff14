//! Prefetch: each object once, most urgent first, bounded, and gone with its owner.

use std::time::Duration;

use gix::ObjectId;

use super::super::memory::MemoryRemote;
use super::super::{Class, HydrateSettings, Owner, Want};
use super::{Bench, Hold, ME, bench_with, by, me, soon, want};

/// A hydrator with one connection, on which a request is held; until it is let go, what is prefetched stays queued.
async fn held(settings: HydrateSettings) -> (Bench, Vec<ObjectId>) {
    let bench = bench_with(MemoryRemote::default(), HydrateSettings { connections: 1, ..settings });
    let ids: Vec<ObjectId> = (0..40_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    bench.watched.hold(Hold::Reads, 0);
    // Whoever reads it leaves; the request goes on.
    drop(first(&bench, ids[0]).await);
    (bench, ids)
}

async fn first(bench: &Bench, id: ObjectId) -> super::super::Ticket {
    let ticket = bench.hydrator.hydrate(want(id), &me(), &[]);
    bench.watched.held(1).await;
    ticket
}

/// Objects in the order they were asked for.
async fn asked(bench: &Bench) -> Vec<ObjectId> {
    bench.watched.hold(Hold::None, 0);
    soon("prefetch", bench.hydrator.idle()).await;
    bench.watched.requests().into_iter().flat_map(|(ids, _)| ids).collect()
}

fn text(ids: &[ObjectId]) -> Vec<(Want, Class)> {
    ids.iter().map(|id| (want(*id), Class::Text)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_object_is_asked_for_once() {
    let (bench, ids) = held(HydrateSettings::default()).await;
    let twice = [text(&ids[..5]), text(&ids[..5])].concat();
    assert_eq!(bench.hydrator.prefetch(&me(), &twice).expect("store"), 4, "one is on its way, the others come once");
    bench.hydrator.prefetch(&by(Owner(2)), &text(&ids[2..7])).expect("store");
    let asked = asked(&bench).await;
    assert_eq!(asked, ids[..7]);
    assert_eq!(bench.hydrator.prefetch(&me(), &text(&ids[..7])).expect("store"), 0, "they are here");
    assert_eq!(bench.sent(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_urgent_leave_first() {
    let (bench, ids) = held(HydrateSettings::default()).await;
    let classes = [Class::Last, Class::Text, Class::Source, Class::Manifest, Class::Last];
    let mut wants: Vec<_> = ids[1..6].iter().zip(classes).map(|(id, class)| (want(*id), class)).collect();
    // Named twice: its highest class counts.
    wants.push((want(ids[5]), Class::Manifest));
    bench.hydrator.prefetch(&me(), &wants).expect("store");
    let ticket = bench.hydrator.hydrate(want(ids[1]), &me(), &[want(ids[6])]);
    let asked = asked(&bench).await;
    assert_eq!(asked, [0, 1, 6, 4, 5, 3, 2].map(|place: usize| ids[place]));
    soon("a read", ticket.wait()).await.expect("it is here");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded_and_takes_reads() {
    let (bench, ids) = held(HydrateSettings { queue_objects: 5, ..HydrateSettings::default() }).await;
    assert_eq!(bench.hydrator.prefetch(&me(), &text(&ids[1..20])).expect("store"), 5);
    assert_eq!(bench.hydrator.prefetch(&me(), &text(&ids[20..])).expect("store"), 0);
    assert_eq!(bench.hydrator.backlog(), (5, 1));
    let ticket = bench.hydrator.hydrate(want(ids[30]), &me(), &[]);
    assert_eq!(bench.hydrator.backlog(), (6, 1));
    let asked = asked(&bench).await;
    assert_eq!(asked.len(), 7);
    assert_eq!(asked[1], ids[30]);
    soon("a read", ticket.wait()).await.expect("it is here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_leaves_with_its_owner() {
    let (bench, ids) = held(HydrateSettings::default()).await;
    bench.hydrator.prefetch(&me(), &text(&ids[1..10])).expect("store");
    bench.hydrator.prefetch(&by(Owner(2)), &text(&ids[10..13])).expect("store");
    let ticket = bench.hydrator.hydrate(want(ids[3]), &me(), &[]);
    bench.hydrator.forget(ME);
    assert_eq!(bench.hydrator.backlog(), (4, 1), "another's prefetch and the read stay");
    let asked = asked(&bench).await;
    assert_eq!(asked, [0, 3, 10, 11, 12].map(|place: usize| ids[place]));
    soon("a read", ticket.wait()).await.expect("it is here");
    bench.hydrator.prefetch(&me(), &text(&ids[20..22])).expect("store");
    bench.hydrator.forget(Owner(2));
    soon("idle", bench.hydrator.idle()).await;
    assert!(bench.has(&ids[20..22]), "who comes back is served again");
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_waits_for_company_and_no_longer() {
    let coalesce = Duration::from_millis(200);
    let bench = bench_with(MemoryRemote::default(), HydrateSettings { coalesce, ..HydrateSettings::default() });
    let ids: Vec<ObjectId> = (0..3_u32).map(|number| bench.remote.insert(number.to_le_bytes().to_vec())).collect();
    for id in &ids {
        bench.hydrator.prefetch(&me(), &text(&[*id])).expect("store");
    }
    soon("prefetch", bench.hydrator.idle()).await;
    assert_eq!(bench.watched.requests().len(), 1, "three that come together share a request");
    assert!(bench.has(&ids));
}
