//! A part of the examination on a thread of its own, which is given up when it takes too long.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::finding::Finding;

/// A part that is under way.
pub(super) struct Section<T> {
    answer: Option<mpsc::Receiver<T>>,
}

impl<T: Send + 'static> Section<T> {
    /// Begins to `look`. A thread that never ends is left behind; it ends with the process.
    pub(super) fn begin(look: impl FnOnce() -> T + Send + 'static) -> Self {
        let (tell, answer) = mpsc::channel();
        let started = thread::Builder::new().name("doctor".to_owned()).spawn(move || drop(tell.send(look())));
        Self { answer: started.is_ok().then_some(answer) }
    }

    /// What was seen, if it was by `until`.
    pub(super) fn by(self, until: Instant) -> Option<T> {
        self.answer?.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }
}

impl Section<Vec<Finding>> {
    /// The findings, or one that says that nobody knows.
    pub(super) fn findings(self, name: &str, until: Instant) -> Vec<Finding> {
        self.by(until).unwrap_or_else(|| {
            vec![Finding::error(
                name,
                "no answer in time: a file system or program that is asked does not answer",
                "look for a network file system that hangs, and run this again",
            )]
        })
    }
}
