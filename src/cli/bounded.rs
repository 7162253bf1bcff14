//! Questions to the file system that a hung mount must not keep from being given up.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A local file system answers in microseconds; a mount that takes longer than this counts as hung.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What `ask` answers, or `None` when it takes longer than [`PATIENCE`]. The thread is then left behind; it ends with
/// the process.
pub(super) fn bounded<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let asked = thread::Builder::new().name("bounded".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = sender.send(ask());
    });
    asked.ok()?;
    receiver.recv_timeout(PATIENCE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn an_answer_is_handed_on_and_silence_is_given_up() {
        assert_eq!(bounded(|| 7), Some(7));
        let began = Instant::now();
        let (_keep, never) = mpsc::channel::<()>();
        assert_eq!(bounded(move || never.recv().is_ok()), None);
        assert!(began.elapsed() < 3 * PATIENCE);
    }
}
