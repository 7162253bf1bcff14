//! Asks the daemon, at once and then again and again on a thread of its own.
//!
//! So a daemon that does not answer holds up no key. Never starts one.
//! Invariant: the thread ends with whoever listens to it.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::super::facts::mixed_up;
use crate::config::Config;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::facts::top::{TopReport, TopRequest};
use crate::daemon::facts::{Finding, Question};
use crate::daemon::protocol::{Answer, Failure, FailureClass, Request};

/// How far back it is told who is busy.
const WINDOW: Duration = Duration::from_mins(1);
/// Components of a path by which directories are grouped, as in `larder why`.
const DEPTH: usize = 2;

/// What the daemon said.
#[derive(Debug)]
pub(super) enum Sample {
    /// What goes on.
    Report(Box<TopReport>),
    /// None runs.
    Absent,
    /// It can't be asked.
    Failed(Failure),
}

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) interval: Duration,
    pub(super) only: Option<String>,
}

/// Asks once.
pub(super) fn ask(config: &Config, only: Option<&str>) -> Result<Option<TopReport>, Failure> {
    let Some(client) = Client::running(config)? else { return Ok(None) };
    let window_ms = u64::try_from(WINDOW.as_millis()).expect("a minute");
    let request = TopRequest { workspace: only.map(str::to_owned), window_ms, depth: DEPTH };
    match client.ask(Request::Facts(Question::Top(request))) {
        Ok(Answer::Facts(Finding::Top(report))) => Ok(Some(*report)),
        Ok(Answer::Facts(_)) => Err(mixed_up()),
        Ok(other) => Err(unexpected(&other)),
        // It ended in between.
        Err(failure) if failure.class == FailureClass::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Asks on a thread of its own until `samples` is dropped.
pub(super) struct Asker {
    wishes: Sender<Wish>,
    pub(super) samples: Receiver<Sample>,
}

impl Asker {
    pub(super) fn start(config: Config, wish: Wish) -> Self {
        let (tell, samples) = mpsc::channel();
        let (wishes, heard) = mpsc::channel();
        // Not waited for at the end: it may be waiting for a daemon that does not answer, and owns nothing.
        drop(thread::spawn(move || watch(&config, wish, &heard, &tell)));
        Self { wishes, samples }
    }

    /// Asks that from now on.
    pub(super) fn wish(&self, wish: Wish) {
        // It ended only if nobody listens any more.
        let _ = self.wishes.send(wish);
    }
}

fn watch(config: &Config, mut wish: Wish, wishes: &Receiver<Wish>, tell: &Sender<Sample>) {
    loop {
        let begun = Instant::now();
        let sample = match ask(config, wish.only.as_deref()) {
            Ok(Some(report)) => Sample::Report(Box::new(report)),
            Ok(None) => Sample::Absent,
            Err(failure) => Sample::Failed(failure),
        };
        if tell.send(sample).is_err() {
            return;
        }
        loop {
            match wishes.recv_timeout(wish.interval.saturating_sub(begun.elapsed())) {
                Ok(next) => {
                    let other = next.only != wish.only;
                    wish = next;
                    if other {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
