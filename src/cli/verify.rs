//! `larder verify`: check every stored byte against its checksum and object id.
//!
//! With a daemon it checks; without one the store is opened here, for reading alone, so it works on a copy too. Only a
//! repair needs a daemon, and starts one.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::output::{Output, grouped, name};
use super::progress::Display;
use super::warm::time;
use super::{client, config, failure, resting};
use crate::config::Config;
use crate::config::quantity::{human_bytes, parse_bytes};
use crate::daemon::client::{Client, unexpected};
use crate::daemon::facts::Sources;
use crate::daemon::protocol::{Answer, Failure, FailureClass, Request};
use crate::daemon::verify::{VerifyReport, VerifyRequest, VerifyRow, Watching, check};

/// Rows shown; `--json` has more.
const ROWS_SHOWN: usize = 50;

const EXAMPLES: &str = "\
Examples:
  larder verify                  check everything; changes nothing
  larder verify --repair         and fetch again what is damaged
  larder verify --rate 200MiB    read no more than that in a second

Exit status: 0 all is well, or was put right; 5 something is damaged and stays so.";

/// Check every stored byte against its checksum and object id, and the tables against each other
///
/// Works without a daemon, also on a copy of the cache. While something is mounted it reads at `verify.rate` (64 MiB a
/// second) and stands back for readers.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Fetch again what is damaged, and make wrong counts and sizes anew; local changes are never touched
    #[arg(long)]
    repair: bool,

    /// Bytes read a second at most, like 200MiB; 0 is no limit [default: verify.rate while something is mounted]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    rate: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let absent = || {
        let message = format!("cannot find a cache: there is no {}", config.store_path.display());
        Failure::new(FailureClass::NotFound, message)
            .hint("`larder mount REPO DIR` makes one; LARDER_HOME says where it is")
    };
    let request = VerifyRequest { repair: arguments.repair, rate: arguments.rate };
    let running = if arguments.repair { Some(client(&config, absent)?) } else { Client::running(&config)? };
    let report = match running {
        Some(client) => by_daemon(&client, request, output)?,
        None if config.store_path.exists() => here(&config, &request, output)?,
        None => return Err(absent()),
    };
    let printed = output.facts(&report, || human(&report, arguments.repair))?;
    Ok(if report.corrupt > report.repaired { failure::exit_code(FailureClass::Corrupt) } else { printed })
}

fn by_daemon(client: &Client, request: VerifyRequest, output: Output) -> Result<VerifyReport, Failure> {
    let progress = Display::new(output);
    match client.call(Request::Verify(request), &mut |report| progress.report(report))? {
        Answer::Verified(report) => Ok(*report),
        other => Err(unexpected(&other)),
    }
}

/// Without a daemon: nobody is held up, so nothing bounds the rate but what was asked for.
fn here(config: &Config, request: &VerifyRequest, output: Output) -> Result<VerifyReport, Failure> {
    let begun = Instant::now();
    let store = resting::open(config)?;
    let progress = Display::new(output);
    let tell = |report| progress.report(&report);
    let watching = Watching::new(request.rate, &|| false, &tell);
    let checked = check(&Sources { store: &store, config, daemon: None }, &watching)?;
    Ok(checked.report(begun))
}

fn human(report: &VerifyReport, repair: bool) -> String {
    let mut text = String::new();
    for row in report.rows.iter().take(ROWS_SHOWN) {
        tell(row, &mut text);
    }
    let more = report.rows.len().saturating_sub(ROWS_SHOWN) as u64 + report.rows_left_out;
    if more > 0 {
        let _ = writeln!(text, "… and {} more", grouped(more));
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {}", name(note));
    }
    if report.wasted_chunks > 0 {
        let _ = writeln!(
            text,
            "note: {} in {} chunks belong to no blob: wasted, not damaged",
            human_bytes(report.wasted_bytes),
            grouped(report.wasted_chunks)
        );
    }
    let _ = writeln!(
        text,
        "{} objects ({}) and {} tables checked in {}: {}",
        grouped(report.objects_checked),
        human_bytes(report.bytes_checked),
        report.tables_checked,
        time(report.seconds),
        verdict(report)
    );
    if report.corrupt > report.repaired {
        text.push_str(if repair {
            "hint: what could not be fetched is fetched when it is read next and its remote has it; run `larder verify \
             --repair` again when the remote can be reached\n"
        } else {
            "hint: `larder verify --repair` fetches damaged objects again, and makes counts and sizes anew\n"
        });
    }
    text
}

fn verdict(report: &VerifyReport) -> String {
    match (report.corrupt, report.repaired) {
        (0, _) => "all is well".to_owned(),
        (corrupt, repaired) if corrupt == repaired => format!("{} damaged, all put right", grouped(corrupt)),
        (corrupt, 0) => format!("{} damaged", grouped(corrupt)),
        (corrupt, repaired) => format!("{} damaged, {} put right", grouped(corrupt), grouped(repaired)),
    }
}

fn tell(row: &VerifyRow, text: &mut String) {
    let _ = write!(text, "{} {}", row.kind, name(&row.id));
    match (&row.workspace, &row.path) {
        (Some(workspace), Some(path)) if path.is_empty() => {
            let _ = write!(text, " (the root of {})", name(workspace));
        }
        (Some(workspace), Some(path)) => {
            let _ = write!(text, " ({} in {})", name(path), name(workspace));
        }
        (Some(workspace), None) => {
            let _ = write!(text, " ({})", name(workspace));
        }
        _ => {}
    }
    let _ = writeln!(text, ": {}{}", name(&row.problem), if row.repaired { "; put right" } else { "" });
    if let Some(why) = row.failure.as_ref().filter(|_| !row.repaired) {
        let _ = writeln!(text, "  {}", name(why));
    }
}
