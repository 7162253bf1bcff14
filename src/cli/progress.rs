//! How far a preparation or a warm is, shown once it takes longer than a second.
//!
//! On a terminal a line with a spinner, or with a bar once it is known how much
//! there is; else one plain line a second at most, and nothing at all with
//! `--json` or `--quiet`. Invariants: a quick command shows nothing, nothing is
//! left on the terminal when the command ends, and a terminal that is stopped
//! keeps nobody from reading the daemon's reports.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::output::{Output, counted, escape, grouped};
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
    /// The latest report, for the ticker; never held while something is written, since that may block.
    meter: Arc<Mutex<Meter>>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Display {
    /// A display that is silent unless `output` wants progress.
    pub(super) fn new(output: Output) -> Self {
        let meter = Arc::new(Mutex::new(Meter::new()));
        let ticker = output.shows_progress().then(|| {
            let (stop, stopped) = mpsc::channel();
            let meter = Arc::clone(&meter);
            let terminal = io::stderr().is_terminal();
            let show = move || {
                let began = Instant::now();
                if stopped.recv_timeout(QUIET_START) == Err(RecvTimeoutError::Timeout) {
                    let wait = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
                    if terminal { draw(&meter, began, wait) } else { print(&meter, wait) }
                }
            };
            (stop, thread::spawn(show))
        });
        Self { meter, ticker }
    }

    /// Takes a report.
    pub(super) fn report(&self, progress: &Progress) {
        self.meter.lock().take(progress);
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

/// The latest report, and indicatif's smoothed estimates of how fast it goes. Neither bar is ever drawn.
struct Meter {
    progress: Progress,
    objects: ProgressBar,
    bytes: ProgressBar,
}

/// How fast it goes; nothing as long as that cannot be told.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    bytes_per_second: u64,
    left: Option<Duration>,
}

impl Meter {
    fn new() -> Self {
        Self { progress: Progress::default(), objects: ProgressBar::hidden(), bytes: ProgressBar::hidden() }
    }

    fn take(&mut self, progress: &Progress) {
        let known = progress.total_objects.is_some();
        // What was there before it began says nothing about its pace.
        let begins = progress.phase != self.progress.phase || known != self.progress.total_objects.is_some();
        if let Some(total) = progress.total_objects {
            self.objects.set_length(total);
        }
        for (bar, position) in [(&self.objects, progress.objects), (&self.bytes, progress.bytes)] {
            bar.set_position(position);
            bar.tick();
            if begins {
                bar.reset_eta();
            }
        }
        self.progress.clone_from(progress);
    }

    fn pace(&self) -> Pace {
        let moving = self.objects.per_sec() > 0.0;
        let unfinished = self.progress.total_objects.is_some_and(|total| total > self.progress.objects);
        Pace { bytes_per_second: whole(self.bytes.per_sec()), left: (moving && unfinished).then(|| self.objects.eta()) }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people; the cast saturates")]
fn whole(rate: f64) -> u64 {
    rate as u64
}

fn draw(meter: &Mutex<Meter>, began: Instant, wait: impl Fn(Duration) -> bool) {
    let style = |template| ProgressStyle::with_template(template).expect("a fixed template");
    let waiting = style("{spinner} {wide_msg} {elapsed:>5}");
    let counting = style("{prefix} [{wide_bar}] {msg}").progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let bar = bar.with_style(waiting.clone()).with_elapsed(began.elapsed());
    let mut has_bar = false;
    while wait(DRAW_EVERY) {
        let (progress, pace) = {
            let meter = meter.lock();
            (meter.progress.clone(), meter.pace())
        };
        if let Some(total) = progress.total_objects {
            bar.set_prefix(phase(&progress));
            bar.set_message(amounts(&progress, pace).join(", "));
            bar.set_length(total);
            bar.set_position(progress.objects);
        } else {
            bar.set_message(line(&progress, pace));
        }
        // Last, because what is set is also drawn: a bar without its numbers would flash up.
        if progress.total_objects.is_some() != has_bar {
            has_bar = !has_bar;
            bar.set_style(if has_bar { counting.clone() } else { waiting.clone() });
        }
        bar.tick();
    }
    bar.finish_and_clear();
}

fn print(meter: &Mutex<Meter>, wait: impl Fn(Duration) -> bool) {
    let mut shown = None;
    loop {
        let (progress, pace) = {
            let meter = meter.lock();
            (meter.progress.clone(), meter.pace())
        };
        if shown.as_ref() != Some(&progress) {
            let _ = writeln!(io::stderr().lock(), "{}", line(&progress, pace));
            shown = Some(progress);
        }
        if !wait(LINE_EVERY) {
            return;
        }
    }
}

fn line(progress: &Progress, pace: Pace) -> String {
    let mut line = phase(progress);
    for amount in amounts(progress, pace) {
        let _ = write!(line, ", {amount}");
    }
    line
}

fn phase(progress: &Progress) -> String {
    escape(if progress.phase.is_empty() { "waiting for the daemon" } else { &progress.phase })
}

fn amounts(progress: &Progress, pace: Pace) -> Vec<String> {
    let mut amounts = Vec::new();
    match progress.total_objects {
        Some(total) => amounts.push(format!("{} of {}", grouped(progress.objects), counted(total, "object"))),
        None if progress.objects > 0 => amounts.push(counted(progress.objects, "object")),
        None => {}
    }
    if progress.bytes > 0 {
        amounts.push(human_bytes(progress.bytes));
        amounts.push(format!("{}/s", human_bytes(pace.bytes_per_second)));
    }
    if let Some(left) = pace.left {
        // A second is the least that is worth saying.
        amounts.push(format!("{} left", humantime::format_duration(Duration::from_secs(left.as_secs().max(1)))));
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let mut progress = Progress::default();
        assert_eq!(line(&progress, Pace::default()), "waiting for the daemon");
        progress = Progress { phase: "fetching trees".to_owned(), objects: 5092, bytes: 4 << 20, total_objects: None };
        let pace = Pace { bytes_per_second: 2 << 20, left: None };
        assert_eq!(line(&progress, pace), "fetching trees, 5,092 objects, 4 MiB, 2 MiB/s");
        progress =
            Progress { phase: "warming".to_owned(), objects: 12_345, bytes: 240 << 20, total_objects: Some(78_225) };
        let pace = Pace { bytes_per_second: 61 << 20, left: Some(Duration::from_millis(4_900)) };
        assert_eq!(line(&progress, pace), "warming, 12,345 of 78,225 objects, 240 MiB, 61 MiB/s, 4s left");
        progress = Progress { objects: 0, bytes: 0, ..progress };
        assert_eq!(line(&progress, Pace::default()), "warming, 0 of 78,225 objects");
    }

    #[test]
    fn time_left_is_told_from_what_moved_since_the_total_is_known() {
        let mut meter = Meter::new();
        let report = |objects, bytes, total_objects| Progress { phase: "p".to_owned(), objects, bytes, total_objects };
        assert!(meter.pace().left.is_none());
        meter.take(&report(0, 0, None));
        thread::sleep(Duration::from_millis(5));
        meter.take(&report(1_000_000, 1 << 30, Some(1_000_100)));
        let pace = meter.pace();
        assert!(pace.left.is_none() && pace.bytes_per_second == 0, "the jump counts: {pace:?}");
        thread::sleep(Duration::from_millis(20));
        meter.take(&report(1_000_010, (1 << 30) + 1000, Some(1_000_100)));
        let pace = meter.pace();
        let left = pace.left.expect("it moves");
        assert!(left > Duration::from_millis(50) && left < Duration::from_mins(10), "{pace:?}");
        assert!((1..100_000).contains(&pace.bytes_per_second), "{pace:?}");
        meter.take(&report(1_000_100, (1 << 30) + 1000, Some(1_000_100)));
        assert!(meter.pace().left.is_none(), "nothing is left");
    }

    #[test]
    fn a_quick_command_waits_for_nothing() {
        let began = Instant::now();
        Display::new(Output::new(false, false)).report(&Progress::default());
        assert!(began.elapsed() < QUIET_START);
    }
}
