//! `larder gc`: take out of the cache what nothing keeps, or tell what would go and why.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::{Output, counted, grouped, name, plural};
use super::{client, config, status};
use crate::config::quantity::{human_bytes, parse_bytes, parse_duration};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, FailureClass, GcReport, GcRequest, Request};

/// Directories shown; `--json` has more.
const ROWS_SHOWN: usize = 20;

/// Drop old generations, and everything in the cache that no generation, pin or local change needs
///
/// What goes can be fetched again. What is pinned, changed locally, open, or waited for stays, whatever is asked for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder gc --dry-run                     what would go
  larder gc --max-age 30d                 and what was not used for thirty days
  larder gc --max-size 20GiB --compact    until no more is left, and cut the file")]
pub(super) struct Arguments {
    /// Only tell what would go, from where, and why
    #[arg(long)]
    dry_run: bool,

    /// Take out more, least recently used and large first, until the objects take at most this
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_size: Option<u64>,

    /// Take out everything not used for this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,

    /// Keep this many generations beside the one a workspace shows [default: generations.keep]
    #[arg(long, value_name = "N")]
    generations: Option<usize>,

    /// Give freed space back to the file system; who reads waits meanwhile, about a second for each GiB
    #[arg(long)]
    compact: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let client = client(&config, || Failure::new(FailureClass::NotFound, "there is no cache yet"))?;
    let request = GcRequest {
        dry_run: arguments.dry_run,
        max_size: arguments.max_size,
        max_age_seconds: arguments.max_age.map(|age| age.as_secs()),
        generations: arguments.generations,
        compact: arguments.compact,
    };
    match client.call(Request::Gc(request), &mut |_| ())? {
        Answer::Collected(report) => output.facts(&report, || human(&report)),
        other => Err(unexpected(&other)),
    }
}

fn human(report: &GcReport) -> String {
    let mut text = String::new();
    let would = if report.dry_run { "would drop" } else { "dropped" };
    for generation in &report.generations {
        let _ = writeln!(
            text,
            "{would} generation {} of {} ({}): {}",
            generation.generation,
            name(&generation.workspace),
            status::short(Some(&generation.commit)),
            generation.why
        );
    }
    let mut why = "";
    for row in report.rows.iter().take(ROWS_SHOWN) {
        if row.why != why {
            why = &row.why;
            let _ = writeln!(text, "{why}:");
        }
        let directory = if row.directory.is_empty() { "." } else { &row.directory };
        let place = row.of.as_ref().map_or_else(
            || "read from history, in no generation".to_owned(),
            |of| format!("{} in {}", name(directory), name(of)),
        );
        let files = row.files.iter().map(|file| name(file)).collect::<Vec<_>>().join(", ");
        let files = if files.is_empty() {
            files
        } else {
            format!(": {files}{}", if row.objects > row.files.len() as u64 { ", …" } else { "" })
        };
        let _ = writeln!(
            text,
            "  {:>10}  {:>8} {:<5}  {place}{files}",
            human_bytes(row.bytes),
            grouped(row.objects),
            plural(row.objects, "file")
        );
    }
    let more = report.rows.len().saturating_sub(ROWS_SHOWN) as u64 + report.rows_left_out;
    if more > 0 {
        let _ = writeln!(text, "  … and {} more {}", grouped(more), plural(more, "directory"));
    }
    for leftover in &report.leftovers {
        let _ = writeln!(
            text,
            "  {:>10}  {}: {}",
            human_bytes(leftover.bytes),
            name(&leftover.path.to_string_lossy()),
            leftover.why
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let verb = if report.dry_run { "would free" } else { "freed" };
    let _ = writeln!(
        text,
        "{verb} {} in {}; {} in {} {}",
        human_bytes(report.freed_bytes),
        counted(report.freed_objects, "object"),
        human_bytes(report.kept_bytes),
        counted(report.kept_objects, "file"),
        if report.kept_objects == 1 { "stays" } else { "stay" }
    );
    if report.compacted {
        let _ = writeln!(
            text,
            "the cache's file: {}, was {}",
            human_bytes(report.file_bytes_after),
            human_bytes(report.file_bytes_before)
        );
    } else if !report.dry_run && report.freed_bytes > 0 {
        text.push_str(
            "the space is used again for what comes; `larder gc --compact` gives it back to the file system\n",
        );
    }
    text
}
