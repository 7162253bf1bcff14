//! How far a preparation is, shown once it takes longer than a second.
//!
//! A spinner line on a terminal, else one plain line a second at most, and
//! nothing at all with `--json` or `--quiet`. Invariant: a quick command shows
//! nothing, and nothing is left on the terminal when the command ends.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::output::{Output, escape, grouped};
use crate::config::quantity::human_bytes;
use crate::daemon::protocol::Progress;

/// What ends sooner needs no progress.
const QUIET_START: Duration = Duration::from_secs(1);
/// At most one plain line in this time.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often the terminal's line is drawn again.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Shows reports until it is dropped.
pub(super) struct Display {
    latest: Arc<Mutex<Progress>>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Display {
    /// A display that is silent unless `output` wants progress.
    pub(super) fn new(output: Output) -> Self {
        let latest = Arc::new(Mutex::new(Progress::default()));
        let ticker = output.shows_progress().then(|| {
            let (stop, stopped) = mpsc::channel();
            let latest = Arc::clone(&latest);
            let terminal = io::stderr().is_terminal();
            let show = move || {
                let began = Instant::now();
                if stopped.recv_timeout(QUIET_START) == Err(RecvTimeoutError::Timeout) {
                    let wait = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
                    if terminal { draw(&latest, began, wait) } else { print(&latest, began, wait) }
                }
            };
            (stop, thread::spawn(show))
        });
        Self { latest, ticker }
    }

    /// Takes a report.
    pub(super) fn report(&self, progress: &Progress) {
        self.latest.lock().clone_from(progress);
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            // It wakes at once, clears its line and ends.
            let _ = ticker.join();
        }
    }
}

fn draw(latest: &Mutex<Progress>, began: Instant, wait: impl Fn(Duration) -> bool) {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed:>5}").expect("a fixed template");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    let bar = bar.with_elapsed(began.elapsed());
    while wait(DRAW_EVERY) {
        bar.set_message(line(&latest.lock(), began.elapsed()));
        bar.tick();
    }
    bar.finish_and_clear();
}

fn print(latest: &Mutex<Progress>, began: Instant, wait: impl Fn(Duration) -> bool) {
    let mut shown = None;
    loop {
        let progress = latest.lock().clone();
        if shown.as_ref() != Some(&progress) {
            let _ = writeln!(io::stderr().lock(), "{}", line(&progress, began.elapsed()));
            shown = Some(progress);
        }
        if !wait(LINE_EVERY) {
            return;
        }
    }
}

fn line(progress: &Progress, elapsed: Duration) -> String {
    let phase = if progress.phase.is_empty() { "waiting for the daemon" } else { &progress.phase };
    let mut line = escape(phase);
    if progress.objects > 0 {
        let _ = write!(line, ", {} objects", grouped(progress.objects));
    }
    if progress.bytes > 0 {
        let per_second = u128::from(progress.bytes) * 1000 / elapsed.as_millis().max(1);
        let rate = human_bytes(u64::try_from(per_second).unwrap_or(u64::MAX));
        let _ = write!(line, ", {}, {rate}/s", human_bytes(progress.bytes));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let mut progress = Progress::default();
        assert_eq!(line(&progress, Duration::from_secs(1)), "waiting for the daemon");
        progress = Progress { phase: "fetching trees".to_owned(), objects: 5092, bytes: 4 << 20 };
        assert_eq!(line(&progress, Duration::from_secs(2)), "fetching trees, 5,092 objects, 4 MiB, 2 MiB/s");
    }

    #[test]
    fn a_quick_command_waits_for_nothing() {
        let began = Instant::now();
        Display::new(Output::new(false, false)).report(&Progress::default());
        assert!(began.elapsed() < QUIET_START);
    }
}
