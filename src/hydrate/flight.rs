//! Flights: one fetch for an object, however many wait for it.
//!
//! Owns who waits for what and where each object is: queued, on a connection,
//! or landed (verified, not yet committed). Invariant: an object that anybody
//! waits for is queued or on a connection; whoever takes it off either lands
//! it or fails it, so no waiter is forgotten.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use gix::ObjectId;
use tokio::sync::oneshot;

use super::queue::{Class, Queue, Want};
use super::remote::RemoteError;

/// An object that arrived.
#[derive(Clone, Debug)]
pub enum Landed {
    /// Its bytes, verified; on their way into the store.
    Bytes(Bytes),
    /// It is in the store.
    Stored,
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

/// One waiter as `larder waits` lists it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The object.
    pub id: ObjectId,
    /// The path it was wanted under.
    pub path: Box<[u8]>,
    /// Since when.
    pub since: Instant,
    /// Where its object is.
    pub place: Place,
    /// Attempts that failed.
    pub retries: u32,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    path: Box<[u8]>,
    since: Instant,
    tell: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
struct Flight {
    want: Want,
    place: Place,
    retries: u32,
    waiters: Vec<Waiter>,
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
#[derive(Debug, Default)]
pub struct Flights {
    by_object: HashMap<ObjectId, Flight>,
    queue: Queue,
    landing: HashMap<ObjectId, Bytes>,
    progress: HashMap<u64, Instant>,
    waiters: u64,
    batches: u64,
}

impl Flights {
    /// Joins the flight of `want` as a reader, starting it when there is none.
    pub fn join(&mut self, want: Want, path: Box<[u8]>) -> Seat {
        if let Some(bytes) = self.landing.get(&want.id) {
            return Seat::Landed(bytes.clone());
        }
        let (tell, hear) = oneshot::channel();
        self.waiters += 1;
        let waiter = Waiter { number: self.waiters, path, since: Instant::now(), tell };
        let flight = self.by_object.entry(want.id).or_insert(Flight {
            want,
            place: Place::Queued,
            retries: 0,
            waiters: Vec::new(),
        });
        flight.waiters.push(waiter);
        if flight.place == Place::Queued {
            self.queue.push(want, Class::Read);
        }
        Seat::Waiting { number: self.waiters, hear }
    }

    /// Queues `want` for nobody in particular.
    pub fn prefetch(&mut self, want: Want, class: Class) {
        if !self.by_object.contains_key(&want.id)
            && !self.landing.contains_key(&want.id)
            && self.queue.push(want, class)
        {
            self.by_object.insert(want.id, Flight { want, place: Place::Queued, retries: 0, waiters: Vec::new() });
        }
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

    /// The class of the most urgent queued want.
    pub fn first_class(&self) -> Option<Class> {
        self.queue.first_class()
    }

    /// Wants queued.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Objects on connections.
    pub fn sent(&self) -> usize {
        self.by_object.len() - self.queue.len()
    }

    /// Takes the next batch for `connection`.
    pub fn take(&mut self, connection: usize, objects: usize, bytes: u64) -> (u64, Vec<Want>) {
        let wants = self.queue.take(objects, bytes);
        self.batches += 1;
        for want in &wants {
            if let Some(flight) = self.by_object.get_mut(&want.id) {
                flight.place = Place::Sent { batch: self.batches, connection };
            }
        }
        self.progress.insert(self.batches, Instant::now());
        (self.batches, wants)
    }

    /// Something of `batch` arrived.
    pub fn advance(&mut self, batch: u64) {
        self.progress.insert(batch, Instant::now());
    }

    /// `batch` is over.
    pub fn close(&mut self, batch: u64) {
        self.progress.remove(&batch);
    }

    /// When `id` last moved: when its batch last heard from the remote.
    /// `None` while it is queued or unknown.
    pub fn moved(&self, id: &ObjectId) -> Option<Instant> {
        match self.by_object.get(id)?.place {
            Place::Queued => None,
            Place::Sent { batch, .. } => self.progress.get(&batch).copied(),
        }
    }

    /// `id` arrived: tells everyone who waits. Bytes stay at hand until [`Self::settle`].
    pub fn land(&mut self, id: &ObjectId, landed: &Landed) {
        if let Landed::Bytes(bytes) = landed {
            self.landing.insert(*id, bytes.clone());
        }
        self.finish(id, &Ok(landed.clone()));
    }

    /// Whether `id` arrived and is not committed yet.
    pub fn holds(&self, id: &ObjectId) -> bool {
        self.landing.contains_key(id)
    }

    /// `ids` were committed, or given up: the store answers for them from now on.
    pub fn settle(&mut self, ids: &[ObjectId]) {
        for id in ids {
            self.landing.remove(id);
        }
    }

    /// `id` will not arrive: tells everyone who waits.
    pub fn fail(&mut self, id: &ObjectId, error: &RemoteError) {
        self.finish(id, &Err(error.clone()));
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

    /// Everyone who waits now.
    pub fn waiting(&self) -> Vec<Waiting> {
        let mut all: Vec<Waiting> = self
            .by_object
            .values()
            .flat_map(|flight| {
                flight.waiters.iter().map(|waiter| Waiting {
                    id: flight.want.id,
                    path: waiter.path.clone(),
                    since: waiter.since,
                    place: flight.place,
                    retries: flight.retries,
                })
            })
            .collect();
        all.sort_by_key(|waiting| waiting.since);
        all
    }

    fn finish(&mut self, id: &ObjectId, outcome: &Outcome) {
        let Some(flight) = self.by_object.remove(id) else { return };
        if flight.place == Place::Queued {
            self.queue.remove(id);
        }
        for waiter in flight.waiters {
            // A reader that went away meanwhile is no error.
            let _ = waiter.tell.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::remote::FailureKind;
    use super::*;

    fn want(byte: u8) -> Want {
        Want { id: ObjectId::from_bytes_or_panic(&[byte; 20]), size: None }
    }

    fn join(flights: &mut Flights, byte: u8) -> (u64, oneshot::Receiver<Outcome>) {
        match flights.join(want(byte), Box::from(&b"f"[..])) {
            Seat::Waiting { number, hear } => (number, hear),
            Seat::Landed(_) => panic!("nothing landed"),
        }
    }

    #[test]
    fn many_readers_one_fetch() {
        let mut flights = Flights::default();
        let mut readers: Vec<_> = (0..3).map(|_| join(&mut flights, 1).1).collect();
        let (_, wants) = flights.take(0, 10, 100);
        assert_eq!(wants.len(), 1);
        readers.push(join(&mut flights, 1).1);
        assert_eq!(flights.queued(), 0, "a joined flight is not sent twice");
        flights.land(&want(1).id, &Landed::Bytes(Bytes::from_static(b"x")));
        for mut reader in readers {
            assert!(matches!(reader.try_recv(), Ok(Ok(Landed::Bytes(_)))));
        }
        assert!(matches!(flights.join(want(1), Box::default()), Seat::Landed(_)));
        flights.settle(&[want(1).id]);
        assert!(matches!(flights.join(want(1), Box::default()), Seat::Waiting { .. }));
    }

    #[test]
    fn who_leaves_takes_the_want_along_unless_it_is_sent() {
        let mut flights = Flights::default();
        let (first, _a) = join(&mut flights, 1);
        flights.leave(&want(1).id, first);
        assert_eq!((flights.queued(), flights.sent()), (0, 0));
        let (second, _b) = join(&mut flights, 2);
        flights.take(0, 10, 100);
        flights.leave(&want(2).id, second);
        assert_eq!(flights.sent(), 1);
        flights.land(&want(2).id, &Landed::Stored);
        assert_eq!(flights.sent(), 0);
    }

    #[test]
    fn failure_reaches_all_ten() {
        let mut flights = Flights::default();
        let readers: Vec<_> = (0..10).map(|_| join(&mut flights, 1).1).collect();
        flights.take(0, 10, 100);
        flights.fail(&want(1).id, &RemoteError::new(FailureKind::Offline, "gone"));
        for mut reader in readers {
            assert!(matches!(reader.try_recv(), Ok(Err(error)) if error.kind == FailureKind::Offline));
        }
        assert!(flights.waiting().is_empty());
    }
}
