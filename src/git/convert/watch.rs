//! A driver's running process, and the thread that watches it.
//!
//! Invariants: a process that does nothing for the time-out while a file
//! waits for it is killed with its process group; one that nobody used for
//! [`IDLE`] is ended; no signal goes to a number that may be another
//! process's.

use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};

/// A driver not used for this long is ended: longer than pauses between the files of one walk or build.
pub(super) const IDLE: Duration = Duration::from_mins(1);

/// How long a process whose input was closed may take to end by itself.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A file waits for it; killed when nothing moves until then.
    Busy(Instant),
    /// Ended when nobody needs it until then.
    Idle(Instant),
    /// It was killed or waited for: its number may be another process's.
    Over,
}

struct State {
    phase: Phase,
    timed_out: bool,
}

/// What the watching thread and the user of a process share.
pub(super) struct Watch {
    group: Option<Pid>,
    limit: Duration,
    // Guards the phase; held for no I/O but the kill, so that no other process gets the number meanwhile.
    state: Mutex<State>,
    changed: Condvar,
}

impl Watch {
    /// Watches `child`, the leader of its process group. `retire` is called when it was idle for [`IDLE`], and again
    /// until it says that it ended it.
    pub(super) fn start(
        child: &Child,
        limit: Duration,
        retire: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let state = State { phase: Phase::Busy(Instant::now() + limit), timed_out: false };
        let watch = Arc::new(Self { group, limit, state: Mutex::new(state), changed: Condvar::new() });
        let watching = Arc::clone(&watch);
        std::thread::Builder::new().name("filter-watch".into()).spawn(move || watching.run(&retire))?;
        Ok(watch)
    }

    fn run(&self, retire: &dyn Fn() -> bool) {
        let mut state = self.state.lock();
        loop {
            let until = match state.phase {
                Phase::Over => return,
                Phase::Busy(until) | Phase::Idle(until) => until,
            };
            if Instant::now() < until {
                self.changed.wait_until(&mut state, until);
            } else if matches!(state.phase, Phase::Idle(_)) {
                drop(state);
                if retire() {
                    return;
                }
                // Somebody began to use it, and says so in a moment.
                std::thread::sleep(Duration::from_millis(10));
                state = self.state.lock();
            } else {
                state.timed_out = true;
                return self.kill_locked(&mut state);
            }
        }
    }

    /// Whether nobody uses it.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Idle(_))
    }

    /// Something moved, or is about to.
    pub(super) fn moved(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::Over {
            state.phase = Phase::Busy(Instant::now() + self.limit);
            // Sooner than an idle process would be looked at.
            self.changed.notify_one();
        }
    }

    /// Nobody waits for it now.
    pub(super) fn rest(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::Over {
            state.phase = Phase::Idle(Instant::now() + IDLE);
            self.changed.notify_one();
        }
    }

    /// Whether it was killed for its silence.
    pub(super) fn timed_out(&self) -> bool {
        self.state.lock().timed_out
    }

    /// Kills it, whatever it does.
    pub(super) fn kill(&self) {
        self.kill_locked(&mut self.state.lock());
    }

    fn kill_locked(&self, state: &mut State) {
        if state.phase == Phase::Over {
            return;
        }
        state.phase = Phase::Over;
        if let Some(group) = self.group {
            // Its leader was not waited for yet, so the group is this one.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.changed.notify_one();
    }

    /// Kills a process whose [`Child`] is gone, and waits for it.
    pub(super) fn reap(&self) {
        self.kill();
        if let Some(group) = self.group {
            // Nobody else waits for it.
            let _ = waitpid(Some(group), WaitOptions::empty());
        }
    }

    /// Waits at most `limit` for `child`, whose pipes are closed, and kills it should it not end. Whether it ended well.
    pub(super) fn end(&self, mut child: Child, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            let found = {
                // Its number is its own until it was waited for: no kill may come in between.
                let mut state = self.state.lock();
                let found = child.try_wait();
                if let Ok(Some(_)) = found {
                    state.phase = Phase::Over;
                    self.changed.notify_one();
                }
                found
            };
            match found {
                Ok(Some(status)) => return status.success(),
                Ok(None) if Instant::now() < until => std::thread::sleep(pause),
                Ok(None) | Err(_) => {
                    self.kill();
                    let _ = child.wait();
                    return false;
                }
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}
