//! What the hydrator's threads do under their lock, in thousands of orders.
//!
//! The engine's protocol is a series of lock sections on [`Flights`]. Here each actor (reader, worker, writer, warm,
//! carrier of a bulk batch, whoever closes) goes through the engine's sections on a lock that shuttle schedules. Nobody
//! sleeps: a wake-up that is missing is a deadlock, which shuttle reports. The last tests break the protocol on purpose,
//! because a model that can't fail proves nothing.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;
use larder::hydrate::flight::{Flights, Outcome, Seat};
use larder::hydrate::{Cause, Class, FailureKind, Landed, Owner, RemoteError, Want};
use larder::store::Operation;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread::JoinHandle;
use shuttle::{future, thread};
use tokio::sync::oneshot;

const ME: Owner = Owner(1);

fn me() -> Arc<Cause> {
    Arc::new(Cause::new(ME, b"f", Operation::Read))
}

/// Orders tried for each scenario by each of two schedulers; all scenarios together take ten seconds.
const ORDERS: usize = 10_000;

/// Places where a schedule that favours some threads changes its mind.
const CHANGES: usize = 3;

/// Bytes of every object.
const DATA: &[u8] = b"1234";

/// What a bulk batch may have landed before it waits for the writer: room for one object.
const MEMORY: u64 = 6;

/// How the protocol is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A worker forgets the last want of a batch.
    DropsWant,
    /// The writer does not say what it committed.
    NeverSettles,
    /// A carrier does not take off the books what did not come.
    LeavesBulkOpen,
    /// Who fails a request looks at the objects of the request instead of those still open.
    FailsWhatLanded,
}

/// How the remote answers requests, one after another; the last answer is repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    All,
    /// The first object, then the connection is cut.
    One,
    Nothing,
}

struct Bulk {
    number: u64,
    objects: Vec<ObjectId>,
    cancelled: Arc<AtomicBool>,
    tell: oneshot::Sender<()>,
}

struct World {
    flights: Flights,
    bulks: Vec<Bulk>,
    unsaved: Vec<ObjectId>,
    arrived: u64,
    saved: u64,
    closed: bool,
    /// The scenario is over: idle threads end.
    over: bool,
    /// Objects that a worker took and that neither landed nor failed since.
    taken: HashSet<ObjectId>,
    /// Objects of requests under way, bulk apart.
    asked: HashSet<ObjectId>,
}

struct Model {
    world: Mutex<World>,
    work: Condvar,
    unsaved: Condvar,
    room: Condvar,
    changed: Condvar,
    store: Mutex<HashSet<ObjectId>>,
    wrong: Wrong,
    requests: AtomicUsize,
}

fn id(byte: u8) -> ObjectId {
    ObjectId::from_bytes_or_panic(&[byte; 20])
}

fn want(id: ObjectId) -> Want {
    Want { id, size: None }
}

fn wait<'a>(on: &Condvar, world: MutexGuard<'a, World>) -> MutexGuard<'a, World> {
    on.wait(world).expect("whoever panics ends the test")
}

fn failure() -> RemoteError {
    RemoteError::new(FailureKind::Offline, "gone")
}

impl World {
    fn land(&mut self, id: &ObjectId, landed: &Landed) -> bool {
        self.taken.remove(id);
        self.flights.land(id, landed).is_some()
    }

    fn fail(&mut self, id: &ObjectId) {
        self.taken.remove(id);
        self.flights.fail(id, &failure());
    }

    fn is_idle(&self) -> bool {
        let flights = &self.flights;
        flights.queued() + flights.sent() + flights.in_bulk() == 0 && self.saved == self.arrived
    }
}

impl Model {
    fn new(wrong: Wrong) -> Arc<Self> {
        let world = World {
            flights: Flights::new(100),
            bulks: Vec::new(),
            unsaved: Vec::new(),
            arrived: 0,
            saved: 0,
            closed: false,
            over: false,
            taken: HashSet::new(),
            asked: HashSet::new(),
        };
        Arc::new(Self {
            world: Mutex::new(world),
            work: Condvar::new(),
            unsaved: Condvar::new(),
            room: Condvar::new(),
            changed: Condvar::new(),
            store: Mutex::new(HashSet::new()),
            wrong,
            requests: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("whoever panics ends the test")
    }

    fn is_stored(&self, id: &ObjectId) -> bool {
        self.store.lock().expect("whoever panics ends the test").contains(id)
    }

    /// A thread that does `act`.
    fn start<T: Send + 'static>(self: &Arc<Self>, act: impl FnOnce(&Self) -> T + Send + 'static) -> JoinHandle<T> {
        let model = Arc::clone(self);
        thread::spawn(move || act(&model))
    }

    /// `Hydrator::hydrate`, after the store was asked as every reader does. `None`: there is no need to wait.
    fn join(&self, id: ObjectId) -> Option<Result<(u64, oneshot::Receiver<Outcome>), RemoteError>> {
        if self.lock().flights.holds(&id) || self.is_stored(&id) {
            return None;
        }
        let mut world = self.lock();
        if world.closed {
            return Some(Err(failure()));
        }
        let seat = world.flights.join(want(id), &me());
        drop(world);
        self.work.notify_all();
        match seat {
            Seat::Landed(_) => None,
            Seat::Waiting { number, hear } => Some(Ok((number, hear))),
        }
    }

    /// A reader that waits to the end. False: it was told that the object does not come.
    fn read(&self, id: ObjectId) -> bool {
        match self.join(id) {
            None => true,
            Some(Err(_)) => false,
            Some(Ok((_, hear))) => future::block_on(hear).expect("a waiter is told, not forgotten").is_ok(),
        }
    }

    /// A reader that goes away: `Ticket::drop`.
    fn read_and_leave(&self, id: ObjectId) {
        if let Some(Ok((number, hear))) = self.join(id) {
            thread::yield_now();
            let mut world = self.lock();
            world.flights.leave(&id, number);
            drop(world);
            self.changed.notify_all();
            drop(hear);
        }
    }

    fn prefetch(&self, ids: &[ObjectId]) {
        let mut world = self.lock();
        for id in ids {
            world.flights.prefetch(want(*id), Class::Text, &me());
        }
        drop(world);
        self.work.notify_all();
    }

    fn forget(&self) {
        self.lock().flights.forget(ME);
        self.changed.notify_all();
    }

    /// `worker::run`: takes batches of at most `objects` and fetches them.
    fn work(&self, slot: usize, objects: usize, answers: &[Answer]) {
        let mut answers = answers.iter().copied();
        loop {
            let mut world = self.lock();
            while world.flights.queued() == 0 && !world.closed && !world.over {
                world = wait(&self.work, world);
            }
            if world.closed || world.flights.queued() == 0 {
                return;
            }
            let (batch, wants) = world.flights.take(slot, Class::Last, objects, 1 << 20);
            assert!(!wants.is_empty(), "something was queued");
            for want in &wants {
                assert!(world.taken.insert(want.id), "taken while another worker has it");
                assert!(!world.flights.holds(&want.id), "taken although it is here");
            }
            drop(world);
            let ids: Vec<ObjectId> = wants.iter().map(|want| want.id).collect();
            self.fetch(batch, &ids, &mut answers);
        }
    }

    /// `worker::fetch`.
    fn fetch(&self, batch: u64, ids: &[ObjectId], answers: &mut impl Iterator<Item = Answer>) {
        let mut open = ids.to_vec();
        self.land_stored(&open);
        loop {
            let mut world = self.lock();
            open.retain(|id| world.flights.is_open(id, batch));
            for id in &open {
                assert!(world.asked.insert(*id), "asked for twice at once");
            }
            drop(world);
            if open.is_empty() {
                break;
            }
            self.requests.fetch_add(1, SeqCst);
            let answer = answers.next().unwrap_or(Answer::All);
            let coming = match answer {
                Answer::All => open.len(),
                Answer::One => 1,
                Answer::Nothing => 0,
            };
            for id in &open[..coming] {
                self.arrive(batch, id);
            }
            let mut world = self.lock();
            for id in &open {
                world.asked.remove(id);
            }
            if self.wrong != Wrong::FailsWhatLanded {
                open.retain(|id| world.flights.is_open(id, batch));
            }
            match answer {
                Answer::All => {}
                Answer::One => {
                    world.flights.retry_all(&open);
                    continue;
                }
                Answer::Nothing => open.iter().for_each(|id| world.fail(id)),
            }
            break;
        }
        let mut world = self.lock();
        if self.wrong == Wrong::DropsWant {
            open.pop();
        }
        for id in &open {
            world.fail(id);
        }
        world.flights.close(batch);
        drop(world);
        self.changed.notify_all();
    }

    fn land_stored(&self, ids: &[ObjectId]) {
        let stored: Vec<ObjectId> = ids.iter().copied().filter(|id| self.is_stored(id)).collect();
        if stored.is_empty() {
            return;
        }
        let mut world = self.lock();
        for id in &stored {
            world.land(id, &Landed::Stored);
        }
    }

    /// `Landing::arrive`.
    fn arrive(&self, batch: u64, id: &ObjectId) {
        let mut world = self.lock();
        if world.closed {
            return;
        }
        world.flights.advance(batch);
        if self.wrong == Wrong::DropsWant && *id == crate::id(1) {
            return;
        }
        if !world.land(id, &Landed::Bytes(Bytes::from_static(DATA))) {
            return;
        }
        world.arrived += 1;
        world.unsaved.push(*id);
        if world.unsaved.len() == 1 {
            self.unsaved.notify_one();
        }
        drop(world);
        self.changed.notify_all();
    }

    /// `writer::run`.
    fn write(&self) {
        loop {
            let mut world = self.lock();
            while world.unsaved.is_empty() && !world.closed && !world.over {
                world = wait(&self.unsaved, world);
            }
            if world.unsaved.is_empty() {
                return;
            }
            let some = std::mem::take(&mut world.unsaved);
            drop(world);
            self.store.lock().expect("whoever panics ends the test").extend(&some);
            let mut world = self.lock();
            if self.wrong != Wrong::NeverSettles {
                world.flights.settle(some.iter());
            }
            world.saved += some.len() as u64;
            drop(world);
            self.room.notify_all();
            self.changed.notify_all();
        }
    }

    /// `Hydrator::warm` of one batch; `patient` or it goes away as soon as it has sent it.
    fn warm(&self, objects: &[ObjectId], patient: bool) {
        loop {
            let number = self.lock().flights.number();
            for id in objects {
                self.lock().flights.add_bulk(&[want(*id)], number);
            }
            let (tell, hear) = oneshot::channel();
            let cancelled = Arc::new(AtomicBool::new(false));
            let bulk = Bulk { number, objects: objects.to_vec(), cancelled: Arc::clone(&cancelled), tell };
            let mut world = self.lock();
            if world.closed {
                drop(bulk);
            } else {
                world.bulks.push(bulk);
            }
            drop(world);
            self.work.notify_all();
            let told = patient && future::block_on(hear).is_ok();
            self.drop_bulk(objects, number, &cancelled);
            if !told {
                return;
            }
            let mut world = self.lock();
            while !world.closed && objects.iter().any(|id| world.flights.is_coming(id)) {
                world = wait(&self.changed, world);
            }
            let closed = world.closed;
            drop(world);
            // What others were to bring and did not is asked for again.
            if closed || objects.iter().all(|id| self.is_stored(id)) {
                return;
            }
        }
    }

    /// `Carried::drop`.
    fn drop_bulk(&self, objects: &[ObjectId], number: u64, cancelled: &AtomicBool) {
        cancelled.store(true, SeqCst);
        let mut world = self.lock();
        let before = world.bulks.len();
        world.bulks.retain(|bulk| bulk.number != number);
        if world.bulks.len() < before || world.closed {
            world.flights.end_bulk(objects.iter(), number);
        }
        drop(world);
        self.room.notify_all();
        self.changed.notify_all();
    }

    /// `carry::carry`: carries bulk batches one after another.
    fn carry(&self, answers: &[Answer]) {
        let mut answers = answers.iter().copied();
        loop {
            let mut world = self.lock();
            while world.bulks.is_empty() && !world.closed && !world.over {
                world = wait(&self.work, world);
            }
            if world.closed || world.bulks.is_empty() {
                return;
            }
            let bulk = world.bulks.remove(0);
            drop(world);
            self.bring(&bulk, &mut answers);
            for id in &bulk.objects {
                if self.wrong != Wrong::LeavesBulkOpen {
                    self.lock().flights.end_bulk([id].into_iter(), bulk.number);
                }
            }
            // Whoever asked may have gone away.
            let _ = bulk.tell.send(());
            self.changed.notify_all();
        }
    }

    fn bring(&self, bulk: &Bulk, answers: &mut impl Iterator<Item = Answer>) {
        loop {
            if bulk.cancelled.load(SeqCst) || self.lock().closed {
                return;
            }
            let mut open = 0;
            for id in &bulk.objects {
                self.land_stored(&[*id]);
                open += usize::from(self.lock().flights.expects(id, bulk.number));
            }
            if open == 0 {
                return;
            }
            // The whole tree was asked for: it brings what others fetch, too.
            let answer = answers.next().unwrap_or(Answer::All);
            let coming = match answer {
                Answer::All => bulk.objects.len(),
                Answer::One => 1,
                Answer::Nothing => return,
            };
            for id in &bulk.objects[..coming] {
                if !self.admit(bulk) {
                    return;
                }
                self.arrive(bulk.number, id);
            }
        }
    }

    /// `Landing::admit`. False: the batch is over.
    fn admit(&self, bulk: &Bulk) -> bool {
        let mut world = self.lock();
        loop {
            if world.closed || bulk.cancelled.load(SeqCst) {
                return false;
            }
            let here = world.flights.landing_bytes();
            if here == 0 || here + DATA.len() as u64 <= MEMORY {
                return true;
            }
            world = wait(&self.room, world);
        }
    }

    /// `Core::close`.
    fn close(&self) {
        let mut world = self.lock();
        world.closed = true;
        world.taken.clear();
        world.flights.fail_all(&failure());
        world.bulks.clear();
        drop(world);
        for all in [&self.work, &self.unsaved, &self.room, &self.changed] {
            all.notify_all();
        }
    }

    /// `Hydrator::idle`, then the end of all threads that serve, then what must hold.
    fn end(&self, servers: Vec<JoinHandle<()>>) {
        let mut world = self.lock();
        while !world.closed && !world.is_idle() {
            world = wait(&self.changed, world);
        }
        world.over = true;
        drop(world);
        for all in [&self.work, &self.unsaved] {
            all.notify_all();
        }
        for server in servers {
            server.join().expect("it ended well");
        }
        let world = self.lock();
        let flights = &world.flights;
        assert!(flights.waiting().is_empty(), "somebody still waits");
        assert_eq!((flights.queued(), flights.sent(), flights.in_bulk()), (0, 0, 0), "something is left");
        assert_eq!(flights.landing_bytes(), 0, "something is left landing");
        assert!(!(0..=9).any(|byte| flights.is_coming(&id(byte))), "something is still coming");
        assert!(world.asked.is_empty() && world.unsaved.is_empty() && world.bulks.is_empty());
    }
}

/// Tries `scenario` in many orders: all equally likely, then those that favour some threads over others.
fn check(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(scenario, ORDERS);
    shuttle::check_pct(scenario, ORDERS, CHANGES);
}

fn all(threads: Vec<JoinHandle<bool>>) -> Vec<bool> {
    threads.into_iter().map(|thread| thread.join().expect("it ended well")).collect()
}

fn waiters_join_while_the_fetch_completes(wrong: Wrong) {
    let model = Model::new(wrong);
    let servers = vec![
        model.start(|model| model.work(0, 2, &[Answer::One])),
        model.start(|model| model.work(1, 1, &[])),
        model.start(Model::write),
    ];
    let readers = [1, 1, 2, 1].map(|byte| model.start(move |model| model.read(id(byte))));
    assert!(all(readers.into()).into_iter().all(|came| came), "the remote has everything");
    model.end(servers);
    let requests = model.requests.load(SeqCst);
    assert!(requests <= 3, "{requests} requests for two objects and a cut");
}

#[test]
fn a_waiter_joins_while_the_fetch_completes() {
    check(|| waiters_join_while_the_fetch_completes(Wrong::Nothing));
}

#[test]
fn a_waiter_leaves_while_the_fetch_completes() {
    check(|| {
        let model = Model::new(Wrong::Nothing);
        let servers = vec![
            model.start(|model| model.work(0, 1, &[])),
            model.start(|model| model.work(1, 1, &[Answer::Nothing])),
            model.start(Model::write),
        ];
        let leavers = [1, 2, 1].map(|byte| model.start(move |model| model.read_and_leave(id(byte))));
        let stays = model.start(|model| model.read(id(1)));
        for leaver in leavers {
            leaver.join().expect("it ended well");
        }
        stays.join().expect("it ended well");
        model.end(servers);
    });
}

#[test]
fn a_prefetch_becomes_a_read_while_it_is_taken() {
    check(|| {
        let model = Model::new(Wrong::Nothing);
        let servers = vec![
            model.start(|model| model.work(0, 1, &[])),
            model.start(|model| model.work(1, 3, &[Answer::One])),
            model.start(Model::write),
        ];
        let ahead = model.start(|model| model.prefetch(&[id(1), id(2), id(3)]));
        let readers = [2, 3].map(|byte| model.start(move |model| model.read(id(byte))));
        let forgetful = model.start(Model::forget);
        assert!(all(readers.into()).into_iter().all(|came| came), "a forgotten owner takes no reader along");
        ahead.join().expect("it ended well");
        forgetful.join().expect("it ended well");
        model.end(servers);
    });
}

#[test]
fn a_failure_reaches_ten_waiters() {
    check(|| {
        let model = Model::new(Wrong::Nothing);
        let servers = vec![model.start(|model| model.work(0, 2, &[Answer::Nothing])), model.start(Model::write)];
        let readers: Vec<_> = (0..10).map(|_| model.start(|model| model.read(id(1)))).collect();
        // The first request fails; who asked after that is served by the second.
        assert!(all(readers).contains(&false), "somebody asked first");
        model.end(servers);
    });
}

#[test]
fn closing_tells_everyone() {
    check(|| {
        let model = Model::new(Wrong::Nothing);
        let servers = vec![
            model.start(|model| model.work(0, 1, &[Answer::One])),
            model.start(|model| model.carry(&[Answer::One])),
            model.start(Model::write),
        ];
        let readers = [1, 2, 3].map(|byte| model.start(move |model| model.read(id(byte))));
        let leaver = model.start(|model| model.read_and_leave(id(1)));
        let warm = model.start(|model| model.warm(&[id(3), id(4), id(5)], true));
        let closer = model.start(Model::close);
        all(readers.into());
        for thread in [leaver, warm, closer] {
            thread.join().expect("it ended well");
        }
        model.end(servers);
    });
}

fn read_during_bulk(wrong: Wrong, patient: bool) {
    let model = Model::new(wrong);
    let servers = vec![
        model.start(|model| model.work(0, 1, &[])),
        model.start(|model| model.carry(&[Answer::One])),
        model.start(Model::write),
    ];
    let warm = model.start(move |model| model.warm(&[id(1), id(2), id(3)], patient));
    let readers = [1, 3].map(|byte| model.start(move |model| model.read(id(byte))));
    let leaver = model.start(|model| model.read_and_leave(id(2)));
    assert!(all(readers.into()).into_iter().all(|came| came), "a reader does not depend on the bulk batch");
    warm.join().expect("it ended well");
    leaver.join().expect("it ended well");
    model.end(servers);
    assert!(!patient || (1..=3).all(|byte| model.is_stored(&id(byte))), "a warm that succeeds brings everything");
}

#[test]
fn a_reader_of_an_object_that_a_bulk_batch_lands() {
    check(|| read_during_bulk(Wrong::Nothing, true));
}

#[test]
fn a_reader_of_an_object_whose_bulk_batch_is_cancelled() {
    check(|| read_during_bulk(Wrong::Nothing, false));
}

#[test]
fn two_warms_and_a_prefetch_of_the_same_objects() {
    check(|| {
        let model = Model::new(Wrong::Nothing);
        let servers = vec![
            model.start(|model| model.work(0, 2, &[Answer::Nothing])),
            model.start(|model| model.carry(&[Answer::Nothing])),
            model.start(|model| model.carry(&[])),
            model.start(Model::write),
        ];
        let ahead = model.start(|model| model.prefetch(&[id(1), id(2)]));
        let stays = model.start(|model| model.warm(&[id(1), id(2)], true));
        let goes = model.start(|model| model.warm(&[id(2), id(3)], false));
        for thread in [ahead, stays, goes] {
            thread.join().expect("it ended well");
        }
        model.end(servers);
        assert!((1..=2).all(|byte| model.is_stored(&id(byte))), "whoever was to bring it, it is here");
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_worker_that_drops_a_want_is_found() {
    check(|| waiters_join_while_the_fetch_completes(Wrong::DropsWant));
}

#[test]
#[should_panic(expected = "something is left landing")]
fn a_writer_that_never_settles_is_found() {
    check(|| waiters_join_while_the_fetch_completes(Wrong::NeverSettles));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_carrier_that_leaves_its_batch_open_is_found() {
    check(|| read_during_bulk(Wrong::LeavesBulkOpen, false));
}

#[test]
#[should_panic(expected = "the remote has everything")]
fn a_worker_that_fails_what_others_ask_for_anew_is_found() {
    check(|| waiters_join_while_the_fetch_completes(Wrong::FailsWhatLanded));
}
