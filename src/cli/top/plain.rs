//! Lines instead of a screen: a block an interval, or a JSON document.
//!
//! Invariant: what is printed can be cut after any line, and ends when nobody
//! reads it any more.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use serde::Serialize;

use super::super::output::{Output, grouped, name};
use super::asker::{Wish, ask};
use super::no_daemon;
use super::numbers::{Numbers, Rates, Times, byte_rate, duration, hit_share, rate, span};
use super::tables;
use crate::config::Config;
use crate::config::quantity::human_bytes;
use crate::daemon::facts::top::{TopReport, WarmRow};
use crate::daemon::protocol::Failure;

/// Waiters, processes and directories of a block.
const LINES: usize = 5;

/// A document of `larder top --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a TopReport,
    /// What happened in the interval before.
    rates: &'a Rates,
}

/// Prints `count` blocks, or blocks for ever. Fails where no daemon runs; once one did, it waits for the next.
pub(super) fn run(config: &Config, wish: &Wish, count: Option<u64>, output: Output) -> Result<ExitCode, Failure> {
    let mut numbers = Numbers::default();
    let mut printed = 0;
    let (mut runs, mut failed) = (true, false);
    loop {
        let begun = Instant::now();
        match ask(config, wish.only.as_deref()) {
            Ok(Some(report)) => {
                (runs, failed) = (true, false);
                numbers.take(report, wish.interval / 2);
                if let (Some(report), Some(rates)) = (numbers.report(), numbers.rates()) {
                    let block =
                        if output.is_json() { document(report, rates)? } else { block(report, &numbers, rates) };
                    printed += 1;
                    if !output.part(block.as_bytes())? || count.is_some_and(|count| printed >= count) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
            }
            // One that is killed while it answers is told of the next time.
            Err(failure) if failed || count == Some(1) => return Err(failure),
            Err(_) => failed = true,
            Ok(None) if count == Some(1) => return Err(no_daemon()),
            Ok(None) => {
                numbers.end();
                if std::mem::replace(&mut runs, false) {
                    output.complain("larder: the daemon ended; waiting for another");
                }
            }
        }
        thread::sleep(wish.interval.saturating_sub(begun.elapsed()));
    }
}

fn document(report: &TopReport, rates: &Rates) -> Result<String, Failure> {
    let text = serde_json::to_string(&Document { report, rates });
    text.map(|text| text + "\n").map_err(|error| {
        Failure::new(crate::daemon::protocol::FailureClass::Other, format!("cannot print as JSON: {error}"))
    })
}

fn block(report: &TopReport, numbers: &Numbers, rates: &Rates) -> String {
    let mut text = format!("{}\n", report.time);
    let share = hit_share(rates.hits, rates.misses).map_or_else(String::new, |share| format!(" ({share} hits)"));
    let (bytes, objects, requests) = (byte_rate(rates.bytes), rate(rates.objects), rate(rates.requests));
    let _ = writeln!(text, "  fetched   {bytes} in {objects} objects/s, {requests} requests/s");
    let _ = writeln!(text, "  reads     {} hits/s, {} misses/s{share}", rate(rates.hits), rate(rates.misses));
    let _ = writeln!(text, "  answered  {}", times(&rates.reads));
    let _ = writeln!(text, "  hydrated  {}", times(&rates.hydrations));
    let _ = writeln!(text, "  queued    {}", queue(report));
    let _ = writeln!(text, "  waiters   {}", grouped(report.waiters));
    for wait in report.waits.iter().take(LINES) {
        let waited = duration(wait.waited_ms.saturating_mul(1_000));
        let _ = writeln!(text, "    {waited}  {}  {}", wait.behind, name(&wait.path));
    }
    for warm in &report.warms {
        let _ = writeln!(text, "  warm      {}  {}", progress(warm), name(&warm.path));
    }
    for row in &report.workspaces {
        let (hits, misses) = numbers.of_workspace(&row.workspace);
        let offline = if row.offline { ", offline" } else { "" };
        let _ = writeln!(
            text,
            "  workspace {}  {}{offline}  {} hits/s, {} misses/s; {} fetched",
            name(&row.workspace),
            tables::state(row.state),
            rate(hits),
            rate(misses),
            human_bytes(row.fetched.bytes),
        );
    }
    for row in report.processes.iter().take(LINES) {
        let (process, place) = (name(&row.process), name(&tables::place(&row.workspace, &row.mostly_in)));
        let _ = writeln!(text, "  process   {}  {process}  {place}", human_bytes(row.sums.bytes));
    }
    for row in report.directories.iter().take(LINES) {
        let place = name(&tables::place(&row.workspace, &row.directory));
        let _ = writeln!(text, "  directory {}  {place}", human_bytes(row.sums.bytes));
    }
    text
}

fn times(times: &Times) -> String {
    let [p50, p95, p99, max] =
        [times.p50_below_us, times.p95_below_us, times.p99_below_us, times.max_below_us].map(|bound| times.text(bound));
    if times.count == 0 {
        return "nothing".to_owned();
    }
    format!("{}: p50 {p50}, p95 {p95}, p99 {p99}, max {max}", grouped(times.count))
}

fn queue(report: &TopReport) -> String {
    let queue = &report.queue;
    let mut told: Vec<String> =
        queue.queued().into_iter().map(|(class, length)| format!("{class} {}", grouped(length))).collect();
    told.push(format!("in flight {}", grouped(queue.inflight + queue.bulk_inflight)));
    told.join(", ")
}

/// How far a warm is.
pub(super) fn progress(warm: &WarmRow) -> String {
    let (objects, bytes) = (grouped(warm.objects), human_bytes(warm.bytes));
    let of = warm.total_objects.map_or_else(String::new, |total| format!("/{}", grouped(total)));
    format!("{objects}{of} objects, {bytes}, {}", span(warm.running_ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::screen::tests::report;
    use super::*;

    #[test]
    fn a_block_says_everything_in_short() {
        let mut numbers = Numbers::default();
        numbers.take(report(1_000), Duration::ZERO);
        numbers.take(report(2_000), Duration::ZERO);
        let (told, rates) = (numbers.report().expect("taken"), numbers.rates().expect("two"));
        let text = block(told, &numbers, rates);
        for part in [
            "10 MiB/s",
            "120 objects/s",
            "read 3, ",
            "bulk 32,768",
            "in flight 8,448",
            "waiters   2",
            "indexer",
            "second:/src",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&document(told, rates).expect("JSON")).expect("JSON");
        assert_eq!((&json["rates"]["interval_ms"], &json["queue"]["read"]), (&1_000.into(), &3.into()));
    }
}
