//! The terminal: taken over at the start, given back however this ends.
//!
//! Invariant: after `q`, an error, a panic or a signal the terminal is as it
//! was: no raw mode, no alternate screen, the cursor seen.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};

use super::asker::{Asker, Wish};
use super::screen::draw;
use super::state::{Act, State};
use crate::config::Config;
use crate::daemon::protocol::{Failure, FailureClass};

/// How long keys are waited for before it is seen whether the daemon or a signal said something.
const LISTEN: Duration = Duration::from_millis(50);
/// Drawn anew at least so often: the header counts how long the daemon is silent.
const REDRAW: Duration = Duration::from_secs(1);

/// Gives the terminal back when it is dropped; a panic does the same through ratatui's hook.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = ratatui::try_restore();
        let _ = ratatui::crossterm::execute!(io::stdout(), ratatui::crossterm::cursor::Show);
    }
}

/// Shows the screen until somebody quits.
pub(super) fn run(config: Config, wish: Wish, colours: bool) -> Result<ExitCode, Failure> {
    let signalled = signals().map_err(|error| failed("watch for signals", &error))?;
    let restore = Restore;
    let mut terminal = ratatui::try_init().map_err(|error| failed("use the terminal", &error))?;
    let mut state = State::new(wish.interval, wish.only.clone(), colours);
    let asker = Asker::start(config, wish);
    let mut drawn: Option<Instant> = None;
    loop {
        let mut changed = drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW);
        for sample in asker.samples.try_iter() {
            state.take(sample);
            changed = true;
        }
        if changed {
            terminal.draw(|frame| draw(frame, &state)).map_err(|error| failed("draw", &error))?;
            drawn = Some(Instant::now());
        }
        let signal = signalled.load(Ordering::Relaxed);
        if signal != 0 {
            drop(restore);
            // As a shell tells of who was ended by a signal.
            return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)));
        }
        while event::poll(if drawn.is_some() { LISTEN } else { Duration::ZERO })
            .map_err(|error| failed("read keys", &error))?
        {
            match event::read().map_err(|error| failed("read keys", &error))? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match state.key(key) {
                    Act::Stay => {}
                    Act::Ask => asker.wish(Wish { interval: state.interval, only: state.only.clone() }),
                    Act::Quit => return Ok(ExitCode::SUCCESS),
                },
                Event::Resize(..) => {}
                _ => continue,
            }
            drawn = None;
        }
    }
}

/// The number of the signal that asks for the end; 0 before.
fn signals() -> io::Result<Arc<AtomicI32>> {
    let signalled = Arc::new(AtomicI32::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = Arc::clone(&signalled);
    let (mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    // It ends with the process.
    drop(thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hang_up.recv() => SignalKind::hangup(),
            }
        });
        told.store(number.as_raw_value(), Ordering::Relaxed);
    }));
    Ok(signalled)
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(FailureClass::Other, format!("cannot {what}: {error}"))
        .hint("`larder top --once` prints the same as text")
}
