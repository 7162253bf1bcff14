//! Flights: one fetch for an object, however many wait for it.
//!
//! Owns who waits for what and where each object is: queued, on a connection,
//! or landed (verified, not yet committed); and which objects a warm has asked
//! for in bulk. Invariant: an object that anybody waits for is queued or on a
//! connection; whoever takes it off either lands it or fails it, so no waiter
//! is forgotten. Bulk is apart: nobody waits for it here, and a reader of one
//! of its objects asks for that object anew instead of waiting for the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use tokio::sync::oneshot;

use super::cause::{Cause, Told};
use super::queue::{ByClass, Class, Owner, Queue, Want};
use super::remote::RemoteError;
use crate::store::FetchClass;

/// An object that arrived.
#[derive(Clone, Debug)]
pub enum Landed {
    /// Its bytes, verified; on their way into the store.
    Bytes(Bytes),
    /// It is in the store.
    Stored,
    /// It is a tree, a commit or a tag: its bytes, verified.
    Structure(Kind, Bytes),
}

/// What a waiter is told.
pub type Outcome = Result<Landed, RemoteError>;

/// Where a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Waiting for a connection.
    Queued,
    /// Part of a request.
    Sent {
        /// The request's number.
        batch: u64,
        /// The connection's number.
        connection: usize,
    },
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// An object's bytes.
    Object(ObjectId),
    /// Sizes of so many objects.
    Sizes(usize),
    /// So many objects ahead of use.
    Warm(usize),
}

/// One waiter as `larder waits` lists it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What for.
    pub awaited: Awaited,
    /// The path it was wanted under; what is warmed.
    pub path: Box<[u8]>,
    /// Since when.
    pub since: Instant,
    /// Where it is.
    pub place: Place,
    /// Attempts that failed.
    pub retries: u32,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    cause: Arc<Cause>,
    since: Instant,
    tell: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
struct Flight {
    want: Want,
    place: Place,
    retries: u32,
    /// Why it was wanted first, and how urgently.
    cause: Arc<Cause>,
    class: Class,
    waiters: Vec<Waiter>,
    /// Whether it may be of any kind; a blob otherwise.
    any_kind: bool,
}

/// A place in a flight.
#[derive(Debug)]
pub enum Seat {
    /// The object is already here.
    Landed(Bytes),
    /// Told through `hear`; `number` is for [`Flights::leave`].
    Waiting {
        /// The waiter's number.
        number: u64,
        /// Where the outcome arrives.
        hear: oneshot::Receiver<Outcome>,
    },
}

/// All flights of one repository.
#[derive(Debug)]
pub struct Flights {
    by_object: HashMap<ObjectId, Flight>,
    queue: Queue,
    landing: HashMap<ObjectId, Bytes>,
    landing_bytes: u64,
    /// Objects of bulk batches, queued or sent, and the batch of each.
    bulk: HashMap<ObjectId, u64>,
    progress: HashMap<u64, Instant>,
    moved: Option<Instant>,
    waiters: u64,
    batches: u64,
}

impl Flights {
    /// No flights; at most `queue_limit` wants will be queued for prefetch.
    pub fn new(queue_limit: usize) -> Self {
        Self {
            by_object: HashMap::new(),
            queue: Queue::new(queue_limit),
            landing: HashMap::new(),
            landing_bytes: 0,
            bulk: HashMap::new(),
            progress: HashMap::new(),
            moved: None,
            waiters: 0,
            batches: 0,
        }
    }

    /// Joins the flight of `want` as a reader, starting it when there is none.
    pub fn join(&mut self, want: Want, cause: &Arc<Cause>) -> Seat {
        self.join_as(want, cause, Class::Read, false)
    }

    /// As [`Self::join`] for an object whose kind is not known, with the urgency `class`.
    pub fn join_any_kind(&mut self, want: Want, cause: &Arc<Cause>, class: Class) -> Seat {
        self.join_as(want, cause, class, true)
    }

    fn join_as(&mut self, want: Want, cause: &Arc<Cause>, class: Class, any_kind: bool) -> Seat {
        if let Some(bytes) = self.landing.get(&want.id) {
            return Seat::Landed(bytes.clone());
        }
        let (tell, hear) = oneshot::channel();
        self.waiters += 1;
        let waiter = Waiter { number: self.waiters, cause: Arc::clone(cause), since: Instant::now(), tell };
        let flight = self.by_object.entry(want.id).or_insert(Flight {
            want,
            place: Place::Queued,
            retries: 0,
            cause: Arc::clone(cause),
            class,
            waiters: Vec::new(),
            any_kind,
        });
        flight.waiters.push(waiter);
        if flight.place == Place::Queued {
            flight.any_kind |= any_kind;
            self.queue.push_awaited(want, class, cause.owner);
        }
        Seat::Waiting { number: self.waiters, hear }
    }

    /// Queues `want` for nobody in particular. False: it is on its way already, or the queue is full.
    pub fn prefetch(&mut self, want: Want, class: Class, cause: &Arc<Cause>) -> bool {
        let here = self.landing.contains_key(&want.id) || self.bulk.contains_key(&want.id);
        if here || self.by_object.get(&want.id).is_some_and(|flight| flight.place != Place::Queued) {
            return false;
        }
        let queued = self.queue.push(want, class, cause.owner);
        if queued {
            self.by_object.entry(want.id).or_insert_with(|| Flight {
                want,
                place: Place::Queued,
                retries: 0,
                cause: Arc::clone(cause),
                class,
                waiters: Vec::new(),
                any_kind: false,
            });
        }
        queued
    }

    /// A reader went away. An object nobody else waits for leaves the queue.
    pub fn leave(&mut self, id: &ObjectId, number: u64) {
        let Some(flight) = self.by_object.get_mut(id) else { return };
        flight.waiters.retain(|waiter| waiter.number != number);
        if flight.waiters.is_empty() && flight.place == Place::Queued {
            self.queue.remove(id);
            self.by_object.remove(id);
        }
    }

    /// `owner` went away: what is queued for it alone leaves the queue.
    pub fn forget(&mut self, owner: Owner) {
        for id in self.queue.owned_by(owner) {
            self.queue.remove(&id);
            self.by_object.remove(&id);
        }
    }

    /// The class of the most urgent queued want.
    pub fn first_class(&self) -> Option<Class> {
        self.queue.first_class()
    }

    /// Wants queued.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Wants queued of each class, as in [`Class::ALL`].
    pub fn queued_by_class(&self) -> ByClass {
        self.queue.depths()
    }

    /// Objects on connections, bulk apart.
    pub fn sent(&self) -> usize {
        self.by_object.len() - self.queue.len()
    }

    /// Objects of bulk batches that did not arrive yet, queued or sent.
    pub fn in_bulk(&self) -> usize {
        self.bulk.len()
    }

    /// Bytes that arrived and are not committed.
    pub fn landing_bytes(&self) -> u64 {
        self.landing_bytes
    }

    /// A number for a request that is no batch.
    pub fn number(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// Takes the next batch for `connection`, of wants no less urgent than `least`.
    pub fn take(&mut self, connection: usize, least: Class, objects: usize, bytes: u64) -> (u64, Vec<Want>) {
        let wants = self.queue.take(least, objects, bytes);
        let batch = self.number();
        for want in &wants {
            if let Some(flight) = self.by_object.get_mut(&want.id) {
                flight.place = Place::Sent { batch, connection };
            }
        }
        self.advance(batch);
        (batch, wants)
    }

    /// Makes `wants` part of the bulk batch `number` (from [`Self::number`]). Those that are on their way already, or
    /// that somebody waits for, are left to who fetches them; those queued for nobody are taken over.
    pub fn add_bulk(&mut self, wants: &[Want], number: u64) {
        for want in wants {
            let id = &want.id;
            if self.landing.contains_key(id) || self.bulk.contains_key(id) {
                continue;
            }
            match self.by_object.get(id) {
                Some(flight) if flight.place != Place::Queued || !flight.waiters.is_empty() => continue,
                Some(_) => {
                    self.queue.remove(id);
                    self.by_object.remove(id);
                }
                None => {}
            }
            self.bulk.insert(*id, number);
        }
    }

    /// Whether `id` is still to come in the bulk batch `number`.
    pub fn expects(&self, id: &ObjectId, number: u64) -> bool {
        self.bulk.get(id) == Some(&number)
    }

    /// The bulk batch `number` is over; what it still expected is nobody's.
    pub fn end_bulk<'a>(&mut self, ids: impl Iterator<Item = &'a ObjectId>, number: u64) {
        for id in ids {
            if self.expects(id, number) {
                self.bulk.remove(id);
            }
        }
        self.close(number);
    }

    /// Whether `id` is part of the ordinary batch `number` and did not arrive.
    pub fn is_open(&self, id: &ObjectId, number: u64) -> bool {
        let flight = self.by_object.get(id);
        flight.is_some_and(|flight| matches!(flight.place, Place::Sent { batch, .. } if batch == number))
    }

    /// Whether one of `ids` may be of any kind.
    pub fn any_kind(&self, ids: &[ObjectId]) -> bool {
        ids.iter().any(|id| self.by_object.get(id).is_some_and(|flight| flight.any_kind))
    }

    /// Something of `batch` arrived.
    pub fn advance(&mut self, batch: u64) {
        let now = Instant::now();
        self.progress.insert(batch, now);
        self.moved = Some(now);
    }

    /// `batch` is over.
    pub fn close(&mut self, batch: u64) {
        self.progress.remove(&batch);
    }

    /// When `id` last moved: when its batch last heard from the remote; while it is queued, when any batch did.
    pub fn moved(&self, id: &ObjectId) -> Option<Instant> {
        match self.by_object.get(id)?.place {
            Place::Queued => self.moved,
            Place::Sent { batch, .. } => self.progress.get(&batch).copied(),
        }
    }

    /// `id` arrived: tells everyone who waits. Bytes stay at hand until [`Self::settle`].
    /// `None`: nobody expects it any more, because it arrived before.
    pub fn land(&mut self, id: &ObjectId, landed: &Landed) -> Option<News> {
        let bulk = self.bulk.remove(id).is_some();
        if !bulk && !self.by_object.contains_key(id) {
            return None;
        }
        if let Landed::Bytes(bytes) = landed
            && self.landing.insert(*id, bytes.clone()).is_none()
        {
            self.landing_bytes += bytes.len() as u64;
        }
        Some(self.finish(id, Ok(landed.clone())))
    }

    /// Whether `id` arrived and is not committed yet.
    pub fn holds(&self, id: &ObjectId) -> bool {
        self.landing.contains_key(id)
    }

    /// Whether `id` is on its way: queued, asked for or landed.
    pub fn is_coming(&self, id: &ObjectId) -> bool {
        self.landing.contains_key(id) || self.bulk.contains_key(id) || self.by_object.contains_key(id)
    }

    /// `ids` were committed, or given up: the store answers for them from now on.
    pub fn settle<'a>(&mut self, ids: impl Iterator<Item = &'a ObjectId>) {
        for id in ids {
            if let Some(bytes) = self.landing.remove(id) {
                self.landing_bytes -= bytes.len() as u64;
            }
        }
    }

    /// `id` will not arrive: tells everyone who waits.
    pub fn fail(&mut self, id: &ObjectId, error: &RemoteError) {
        drop(self.finish(id, Err(error.clone())));
    }

    /// Another attempt for `ids` begins.
    pub fn retry_all(&mut self, ids: &[ObjectId]) {
        for id in ids {
            if let Some(flight) = self.by_object.get_mut(id) {
                flight.retries += 1;
            }
        }
    }

    /// Drops every flight, telling all waiters `error`.
    pub fn fail_all(&mut self, error: &RemoteError) {
        let ids: Vec<ObjectId> = self.by_object.keys().copied().collect();
        for id in ids {
            self.fail(&id, error);
        }
    }

    /// Everyone who waits for an object now.
    pub fn waiting(&self) -> Vec<Waiting> {
        let of_flight = |flight: &Flight| {
            let (id, place, retries) = (flight.want.id, flight.place, flight.retries);
            let waiting = move |waiter: &Waiter| Waiting {
                awaited: Awaited::Object(id),
                path: waiter.cause.label.clone(),
                since: waiter.since,
                place,
                retries,
            };
            flight.waiters.iter().map(waiting).collect::<Vec<_>>()
        };
        self.by_object.values().flat_map(of_flight).collect()
    }

    fn finish(&mut self, id: &ObjectId, outcome: Outcome) -> News {
        let Some(flight) = self.by_object.remove(id) else { return News { told: None, waiters: Vec::new(), outcome } };
        if flight.place == Place::Queued {
            self.queue.remove(id);
        }
        News { told: Some(flight.told()), waiters: flight.waiters, outcome }
    }
}

/// What became of a flight, for those who wait for it. Dropping it tells them, so nobody is forgotten; that wakes
/// threads, which is better done once the lock around the flights is released.
#[derive(Debug)]
pub struct News {
    /// Why it was fetched; a bulk batch tells of itself.
    told: Option<Told>,
    waiters: Vec<Waiter>,
    outcome: Outcome,
}

impl Flight {
    /// Who waited longest caused it; where nobody did, who wanted it first.
    fn told(&self) -> Told {
        match self.waiters.first() {
            Some(waiter) => Told {
                cause: Arc::clone(&waiter.cause),
                class: FetchClass::Read,
                waited: waiter.cause.wait_ends(waiter.since),
            },
            None => Told { cause: Arc::clone(&self.cause), class: self.class.into(), waited: Duration::ZERO },
        }
    }
}

impl News {
    /// Why it was fetched.
    pub(super) fn told(&self) -> Option<&Told> {
        self.told.as_ref()
    }
}

impl Drop for News {
    fn drop(&mut self) {
        for waiter in self.waiters.drain(..) {
            // A reader that went away meanwhile is no error.
            let _ = waiter.tell.send(self.outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::remote::FailureKind;
    use super::*;

    const ME: Owner = Owner(1);

    fn me() -> Arc<Cause> {
        Arc::new(Cause::new(ME, b"f", crate::store::Operation::Read))
    }

    fn want(byte: u8) -> Want {
        Want { id: ObjectId::from_bytes_or_panic(&[byte; 20]), size: None }
    }

    fn join(flights: &mut Flights, byte: u8) -> (u64, oneshot::Receiver<Outcome>) {
        match flights.join(want(byte), &me()) {
            Seat::Waiting { number, hear } => (number, hear),
            Seat::Landed(_) => panic!("nothing landed"),
        }
    }

    #[test]
    fn many_readers_one_fetch() {
        let mut flights = Flights::new(100);
        let mut readers: Vec<_> = (0..3).map(|_| join(&mut flights, 1).1).collect();
        let (_, wants) = flights.take(0, Class::Last, 10, 100);
        assert_eq!(wants.len(), 1);
        readers.push(join(&mut flights, 1).1);
        assert_eq!(flights.queued(), 0, "a joined flight is not sent twice");
        flights.land(&want(1).id, &Landed::Bytes(Bytes::from_static(b"x")));
        for mut reader in readers {
            assert!(matches!(reader.try_recv(), Ok(Ok(Landed::Bytes(_)))));
        }
        assert!(matches!(flights.join(want(1), &me()), Seat::Landed(_)));
        flights.settle([want(1).id].iter());
        assert!(matches!(flights.join(want(1), &me()), Seat::Waiting { .. }));
    }

    #[test]
    fn who_leaves_takes_the_want_along_unless_it_is_sent() {
        let mut flights = Flights::new(100);
        let (first, _a) = join(&mut flights, 1);
        flights.leave(&want(1).id, first);
        assert_eq!((flights.queued(), flights.sent()), (0, 0));
        let (second, _b) = join(&mut flights, 2);
        flights.take(0, Class::Last, 10, 100);
        flights.leave(&want(2).id, second);
        assert_eq!(flights.sent(), 1);
        flights.land(&want(2).id, &Landed::Stored);
        assert_eq!(flights.sent(), 0);
    }

    #[test]
    fn failure_reaches_all_ten() {
        let mut flights = Flights::new(100);
        let readers: Vec<_> = (0..10).map(|_| join(&mut flights, 1).1).collect();
        flights.take(0, Class::Last, 10, 100);
        flights.fail(&want(1).id, &RemoteError::new(FailureKind::Offline, "gone"));
        for mut reader in readers {
            assert!(matches!(reader.try_recv(), Ok(Err(error)) if error.kind == FailureKind::Offline));
        }
        assert!(flights.waiting().is_empty());
    }

    #[test]
    fn a_reader_does_not_wait_for_bulk() {
        let mut flights = Flights::new(100);
        assert!(flights.prefetch(want(1), Class::Text, &me()));
        let number = flights.number();
        flights.add_bulk(&[want(1), want(2)], number);
        assert_eq!((flights.queued(), flights.in_bulk()), (0, 2), "what was queued for nobody is taken over");
        assert!(!flights.prefetch(want(2), Class::Text, &me()), "it is on its way");
        let (_, mut reader) = join(&mut flights, 2);
        assert_eq!(flights.queued(), 1, "the reader asks for it alone");
        assert!(flights.land(&want(2).id, &Landed::Stored).is_some());
        assert!(matches!(reader.try_recv(), Ok(Ok(Landed::Stored))));
        assert_eq!((flights.queued(), flights.in_bulk()), (0, 1), "whoever brings it first brings it for both");
        assert!(flights.land(&want(2).id, &Landed::Stored).is_none(), "and it is not stored twice");
        flights.end_bulk([want(1).id, want(2).id].iter(), number);
        assert_eq!(flights.in_bulk(), 0);
    }

    #[test]
    fn bulk_leaves_alone_what_others_fetch() {
        let mut flights = Flights::new(100);
        let (_, _reader) = join(&mut flights, 1);
        flights.add_bulk(&[want(1), want(2)], 1);
        flights.add_bulk(&[want(2), want(3)], 2);
        assert_eq!((flights.queued(), flights.in_bulk()), (1, 2));
    }

    #[test]
    fn prefetch_leaves_the_queue_with_its_owner_unless_somebody_waits() {
        let mut flights = Flights::new(100);
        flights.prefetch(want(1), Class::Text, &me());
        flights.prefetch(want(2), Class::Text, &me());
        let (_, _reader) = join(&mut flights, 2);
        flights.forget(ME);
        assert_eq!(flights.queued(), 1);
    }
}
