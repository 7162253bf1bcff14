//! Who hears of a check while it runs: counts, bounds its rate, tells how far it is, and says when to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::daemon::protocol::Progress;
use crate::store::verify::{Problem, Watch};

/// Problems kept at most; more are counted. A second check finds the rest.
const PROBLEMS_MAX: usize = 1 << 20;

/// Notes kept at most.
const NOTES_MAX: usize = 200;

/// Time between two reports of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// How long a bounded check sleeps before it looks whether it is still wanted.
const NAP: Duration = Duration::from_millis(50);

/// Hears of one check.
pub struct Watching<'a> {
    pub(super) objects: AtomicU64,
    pub(super) bytes: AtomicU64,
    total: AtomicU64,
    // Each guards itself alone.
    phase: Mutex<(&'static str, Instant)>,
    problems: Mutex<Vec<Problem>>,
    beyond: AtomicU64,
    notes: Mutex<Vec<String>>,
    rate: Option<Rate>,
    /// Whether it is to stop.
    stop: &'a (dyn Fn() -> bool + Sync),
    tell: &'a (dyn Fn(Progress) + Sync),
}

/// Bytes a second, shared by all threads.
struct Rate {
    per_second: u64,
    /// When the next bytes may be read.
    next: Mutex<Instant>,
}

impl<'a> Watching<'a> {
    /// A check at `rate` bytes a second, or as fast as it can. `stop` is asked whether it is to end; `tell` hears how far it
    /// is.
    pub fn new(rate: Option<u64>, stop: &'a (dyn Fn() -> bool + Sync), tell: &'a (dyn Fn(Progress) + Sync)) -> Self {
        let rate = rate.filter(|rate| *rate > 0);
        Self {
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total: AtomicU64::new(0),
            phase: Mutex::new(("checking objects", Instant::now())),
            problems: Mutex::default(),
            beyond: AtomicU64::new(0),
            notes: Mutex::default(),
            rate: rate.map(|per_second| Rate { per_second, next: Mutex::new(Instant::now()) }),
            stop,
            tell,
        }
    }

    /// Whether it is to stop.
    pub(super) fn stopped(&self) -> bool {
        (self.stop)()
    }

    /// What it does now, and how many objects there are.
    pub(super) fn begin(&self, phase: &'static str, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.phase.lock().0 = phase;
        self.report();
    }

    fn report(&self) {
        let phase = self.phase.lock().0.to_owned();
        let total = self.total.load(Ordering::Relaxed);
        let objects = self.objects.load(Ordering::Relaxed);
        (self.tell)(Progress {
            phase,
            objects,
            bytes: self.bytes.load(Ordering::Relaxed),
            // More may have come since they were counted.
            total_objects: (total > 0).then_some(total.max(objects)),
        });
    }

    fn report_in_time(&self) {
        let due = self.phase.try_lock().is_some_and(|mut phase| {
            let due = phase.1.elapsed() >= PROGRESS_PERIOD;
            if due {
                phase.1 = Instant::now();
            }
            due
        });
        if due {
            self.report();
        }
    }

    /// Takes what was found: problems, how many more there were, and notes.
    pub(super) fn take(&self) -> (Vec<Problem>, u64, Vec<String>) {
        let problems = std::mem::take(&mut *self.problems.lock());
        (problems, self.beyond.swap(0, Ordering::Relaxed), std::mem::take(&mut *self.notes.lock()))
    }
}

impl Watch for Watching<'_> {
    fn go_on(&self, bytes: u64) -> bool {
        self.report_in_time();
        if let Some(rate) = self.rate.as_ref().filter(|_| bytes > 0) {
            let until = rate.until(bytes);
            while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                if self.stopped() {
                    return false;
                }
                std::thread::sleep(left.min(NAP));
                self.report_in_time();
            }
        }
        !self.stopped()
    }

    fn checked(&self, bytes: u64) {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn found(&self, problem: Problem) {
        let mut problems = self.problems.lock();
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        } else {
            self.beyond.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note(&self, text: String) {
        let mut notes = self.notes.lock();
        if notes.len() < NOTES_MAX {
            notes.push(text);
        }
    }
}

impl Rate {
    /// When `bytes` that were just read are paid for.
    fn until(&self, bytes: u64) -> Instant {
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second)).unwrap_or(u64::MAX),
        );
        let mut next = self.next.lock();
        *next = (*next).max(Instant::now()) + cost;
        *next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_bounds_all_threads_together() {
        let rate = Rate { per_second: 1 << 20, next: Mutex::new(Instant::now()) };
        let begun = Instant::now();
        rate.until(512 << 10);
        let until = rate.until(512 << 10);
        assert!(until >= begun + Duration::from_millis(999), "a megabyte takes a second");
    }

    #[test]
    fn a_check_that_is_told_to_stop_does_not_sleep_its_time_out() {
        let watching = Watching::new(Some(1), &|| true, &|_| {});
        // It would sleep for years.
        assert!(!watching.go_on(1 << 30));
    }
}
