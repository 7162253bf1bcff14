//! `larder top`: watch hydration live: hits and misses, queue, who waits for what.
//!
//! In reading order: `asker` asks the daemon, `numbers` works out what happened
//! between two answers, `tables` makes rows of them; `state` is what the screen
//! shows and what keys do, `screen` paints it, `terminal` runs it; `plain`
//! prints lines where there is no terminal. Never starts a daemon.

mod asker;
mod numbers;
mod plain;
mod screen;
mod state;
mod tables;
mod terminal;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::Output;
use super::{config, target};
use crate::config::quantity::parse_duration;
use crate::daemon::client::Client;
use crate::daemon::protocol::{Failure, FailureClass};

/// The shortest interval: the daemon has other things to do.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_hours(1);

/// Watch hydration live: hits and misses, queue, who waits for what
///
/// On a terminal a screen that is drawn anew every second, until q is pressed; ? shows all keys. Elsewhere, and with --once,
/// --count or --json, plain lines: a block for every interval, of which the first comes when the first interval is over.
/// With --json every block is one JSON document on a line of its own; with --once --json that is the only one.
///
/// Rates and percentiles are of the last interval; percentiles are bounds, since times are counted in buckets. Busy processes
/// and directories are those of the last minute, from the records that `larder why` reads.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  larder top                       the screen: q quits, p pauses, s sorts, ? shows all keys
  larder top --once                what goes on within a second, as text
  larder top --count 5 --json .    five documents, of the workspace this is called in")]
pub(super) struct Arguments {
    /// A workspace's name, or a path in a mount: only its waiters, processes and directories [default: all]
    target: Option<String>,

    /// Time between two looks, 100ms at least
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,

    /// Print one block of lines and end
    #[arg(long, conflicts_with = "count")]
    once: bool,

    /// Print N blocks of lines and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if (SHORTEST..=LONGEST).contains(&interval) { Ok(interval) } else { Err("must be from 100ms to 1h".to_owned()) }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let running = Client::running(&config)?;
    let count = if arguments.once { Some(1) } else { arguments.count };
    // A terminal that can't be drawn on gets lines.
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let on_screen =
        count.is_none() && !output.is_json() && !is_dumb && io::stdout().is_terminal() && io::stdin().is_terminal();
    let only = match (&arguments.target, running.as_ref()) {
        (Some(target), Some(client)) => Some(target::resolve(client, target)?),
        (None, Some(_)) => None,
        (None, None) if on_screen => None,
        (_, None) => return Err(no_daemon()),
    };
    let wish = asker::Wish { interval: arguments.interval, only };
    if on_screen {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        return terminal::run(config, wish, colours);
    }
    plain::run(&config, &wish, count, output)
}

fn no_daemon() -> Failure {
    Failure::new(FailureClass::NotFound, "cannot watch what goes on: no daemon is running")
        .hint("start it with `larder daemon`, or mount something")
}
