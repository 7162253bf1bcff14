//! The quota: room is made before objects are stored.
//!
//! redb reuses what is freed inside its file, and gives nothing back before it is compacted. So what counts is the file: it
//! may grow while it is smaller than the limit; beyond that as much must be freed inside as is to be stored.
//!
//! A thread of its own evicts: whoever stores asks it early and goes on, and waits only when the file would grow beyond the
//! limit, `LONGEST_WAIT` at most. Readers have their bytes before they are stored, so they never wait for this.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::Daemon;
use super::hour_now;
use super::roots::Retention;
use crate::daemon::protocol::Failure;
use crate::index::gc::{self, Plan, Rules};
use crate::store::{MakeRoom, Room, StoreError};

/// Longest wait of whoever stores.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Pause after an eviction that found nothing to take out.
const FRUITLESS_PAUSE: Duration = Duration::from_secs(5);

/// Most bytes kept clear of the limit, of which smaller caches keep a part.
const MARGIN_BYTES: u64 = 128 << 20;

/// Bytes of the newest chunks that are never evicted, where they are less than a part of [`NEWEST_PART`] of the limit: what
/// just arrived is about to be read.
const NEWEST_BYTES: u64 = 8 << 20;
const NEWEST_PART: u64 = 8;

/// The state of the quota.
pub struct Quota {
    daemon: Mutex<Weak<Daemon>>,
    /// Most bytes of the file, and least bytes left free on its disk.
    max_size: u64,
    min_free: u64,
    state: Mutex<State>,
    asked: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes to be freed inside the file.
    wanted: u64,
    /// Evictions so far.
    rounds: u64,
    /// When one found nothing to take out.
    fruitless: Option<Instant>,
    /// Bytes of the file when it was last looked at, and what was believed to be free in it then.
    last: Option<(u64, u64)>,
    /// What is believed to be free and is not.
    illusion: u64,
    closed: bool,
}

/// How the file stands to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    /// The file's bytes.
    file: u64,
    /// Of these, free inside.
    free: u64,
    /// The most it may have.
    limit: u64,
}

impl Standing {
    /// Bytes in use.
    fn used(&self) -> u64 {
        self.file.saturating_sub(self.free)
    }

    /// Whether `bytes` more make the file grow beyond its limit.
    fn exceeded_by(&self, bytes: u64) -> bool {
        let growth = bytes.saturating_sub(self.free);
        growth > 0 && self.file.saturating_add(growth) > self.hard()
    }

    /// What is kept clear of the limit: pages of the tables grow along with what is stored, and a commit needs some beside
    /// those it frees.
    fn margin(&self) -> u64 {
        (self.limit / 8).min(MARGIN_BYTES)
    }

    fn hard(&self) -> u64 {
        self.limit - self.margin()
    }

    /// What is to be freed so that `bytes` more leave room for some time.
    fn shortage(&self, bytes: u64) -> u64 {
        let low = self.limit - 4 * self.margin();
        self.used().saturating_add(bytes).saturating_sub(low)
    }

    /// From here on somebody sees to it.
    fn is_high(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) > self.limit - 2 * self.margin()
    }

    /// From here on commits wait for the disk: only then are the pages they free used again.
    fn is_tight(&self) -> bool {
        self.file > self.limit - 3 * self.margin()
    }
}

impl Quota {
    /// A quota of `max_size` bytes; nothing is evicted before [`Self::begin`].
    pub fn new(max_size: u64, min_free: u64) -> Arc<Self> {
        Arc::new(Self {
            daemon: Mutex::new(Weak::new()),
            max_size,
            min_free,
            state: Mutex::default(),
            asked: Condvar::new(),
            done: Condvar::new(),
        })
    }

    /// Begins to watch over the store of `daemon`.
    pub fn begin(self: &Arc<Self>, daemon: &Arc<Daemon>) -> std::io::Result<()> {
        *self.daemon.lock() = Arc::downgrade(daemon);
        let quota = Arc::clone(self);
        std::thread::Builder::new().name("evict".into()).spawn(move || quota.run())?;
        daemon.store.set_room(Arc::clone(self) as Arc<dyn MakeRoom>);
        Ok(())
    }

    /// Ends it.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.asked.notify_all();
        self.done.notify_all();
    }

    /// Most bytes of the file.
    pub fn max_size(&self) -> u64 {
        self.max_size
    }

    fn standing(&self, daemon: &Daemon, state: &mut State) -> Result<Standing, StoreError> {
        let space = daemon.store.space()?;
        if let Some((file, free)) = state.last {
            // It grew although there was room inside: that was of no use.
            let grown = space.file_bytes.saturating_sub(file);
            if grown > 0 && free > 0 {
                state.illusion = state.illusion.saturating_add(grown.min(free));
            }
        }
        let free = space.free_inside.saturating_sub(state.illusion);
        state.last = Some((space.file_bytes, free));
        let disk = space.file_bytes.saturating_add(space.disk_free).saturating_sub(self.min_free);
        Ok(Standing { file: space.file_bytes, free, limit: self.max_size.min(disk).max(1) })
    }

    fn run(&self) {
        loop {
            let wanted = {
                let mut state = self.state.lock();
                while state.wanted == 0 && !state.closed {
                    self.asked.wait(&mut state);
                }
                if state.closed {
                    return;
                }
                state.wanted
            };
            let Some(daemon) = self.daemon.lock().upgrade() else { return };
            let freed = daemon.evict(wanted, self.max_size).unwrap_or_else(|failure| {
                tracing::warn!("making room in the cache: {failure}");
                0
            });
            drop(daemon);
            let mut state = self.state.lock();
            state.wanted = 0;
            state.rounds += 1;
            state.fruitless = (freed == 0).then(Instant::now);
            // What was freed for certain can be believed in.
            state.illusion = 0;
            state.last = None;
            drop(state);
            self.done.notify_all();
        }
    }
}

impl MakeRoom for Quota {
    fn make_room(&self, bytes: u64) -> Result<Room, StoreError> {
        let Some(daemon) = self.daemon.lock().upgrade() else { return Ok(Room::Plenty) };
        let begun = Instant::now();
        let mut state = self.state.lock();
        loop {
            let standing = self.standing(&daemon, &mut state)?;
            let resting = state.fruitless.is_some_and(|at| at.elapsed() < FRUITLESS_PAUSE);
            let exceeded = standing.exceeded_by(bytes);
            if (exceeded || standing.is_high(bytes)) && !resting && state.wanted == 0 && !state.closed {
                state.wanted = standing.shortage(bytes).max(bytes);
                self.asked.notify_one();
            }
            if !exceeded {
                return Ok(if standing.is_tight() { Room::Tight } else { Room::Plenty });
            }
            if state.closed || (resting && state.wanted == 0) || begun.elapsed() >= LONGEST_WAIT {
                let message = format!(
                    "the cache is full: {} of {} bytes, and nothing more can go; raise cache.max_size, unpin something, or \
                     free space on its disk (cache.min_free)",
                    standing.used(),
                    standing.limit
                );
                return Err(StoreError::full(message));
            }
            self.done.wait_for(&mut state, Duration::from_millis(200));
        }
    }
}

impl Daemon {
    /// Frees about `bytes` inside the store's file; returns how much it was. Blocks.
    fn evict(&self, bytes: u64, limit: u64) -> Result<u64, Failure> {
        let begun = Instant::now();
        let Some(_alone) = self.collection.try_lock_for(LONGEST_WAIT / 2) else { return Ok(0) };
        let version = self.store.roots_version();
        let generations = &self.config.settings.generations;
        let gathered = self.gather(&Retention { keep: generations.keep, max_age: generations.max_age })?;
        let marks = gc::mark(&self.store, gathered.roots)?;
        let stats = self.store.stats()?;
        let newest = NEWEST_BYTES.min(limit / NEWEST_PART);
        let rules = Rules {
            // What no root reaches has no better and no worse claim than what only a generation names.
            unreached_before: Some(0),
            named_before: None,
            most_bytes: Some(stats.stored_bytes.saturating_sub(bytes)),
            spare_newest_bytes: newest,
        };
        let plan = Plan::new(&self.store, &marks, &rules, hour_now())?;
        let swept = self
            .store
            .remove_blobs(plan.victims(), &mut || self.store.roots_version() == version && !self.stopping())?;
        // Pages are free for others two durable commits later.
        self.store.sync()?;
        self.store.sync()?;
        self.metrics.evicted_objects.inc_by(swept.objects);
        self.metrics.evicted_bytes.inc_by(swept.stored_bytes);
        tracing::info!(
            objects = swept.objects,
            bytes = swept.stored_bytes,
            seconds = begun.elapsed().as_secs_f64(),
            "evicted"
        );
        Ok(swept.stored_bytes)
    }
}
