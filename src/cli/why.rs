//! `larder why`: what caused fetches.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::config;
use super::facts::{Desk, mixed_up};
use super::output::{Output, grouped, name, table};
use crate::config::quantity::{human_bytes, parse_duration};
use crate::daemon::facts::why::{FetchRow, Sums, WhyReport, WhyRequest};
use crate::daemon::facts::{Finding, PathText, Question};
use crate::daemon::protocol::Failure;
use crate::store::{FetchClass, Operation};

/// Lines of a group shown to people.
const LINES: usize = 10;

/// Show what caused fetches: which processes, in which directories, by what
///
/// Every fetch is recorded with the process that set it off: what it read, what came along because it lies beside that,
/// how long it waited. The newest records are kept (setting `why.records`; 0 records nothing). Stock Git's own fetches are put
/// down to the Git command, and those of `larder warm` to it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  larder why                        everything that is recorded, by process and by directory
  larder why --since 1h .           the last hour, in the workspace or directory this is called in
  larder why --fetches 50 --json    the newest 50 one by one, for a program")]
pub(super) struct Arguments {
    /// A workspace's name, or a path in a mount: only what was caused there [default: everything]
    target: Option<String>,

    /// Only what arrived since: a duration like 2h, or a time like 2026-11-21T10:00:00Z
    #[arg(long, value_parser = since)]
    since: Option<Timestamp>,

    /// Group directories by so many components of their path
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    depth: u8,

    /// Tell the newest N one by one as well
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=2000))]
    fetches: u16,
}

/// A time, or how long ago it is.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        return Timestamp::now().checked_sub(ago).map_err(|_| "is too long ago".to_owned());
    }
    text.parse().map_err(|_| "must be a duration like 2h, or a time like 2026-11-21T10:00:00Z".to_owned())
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let desk = Desk::open(config()?)?;
    let question = |target| {
        Question::Why(WhyRequest {
            target,
            since_ms: arguments.since.map(Timestamp::as_millisecond),
            rows: arguments.fetches.into(),
            depth: arguments.depth.into(),
            ..WhyRequest::default()
        })
    };
    let finding = match &arguments.target {
        Some(target) => desk.ask_about(target, |meaning| question(Some(meaning)))?,
        None => desk.ask(question(None))?,
    };
    let Finding::Why(report) = finding else { return Err(mixed_up()) };
    output.facts(&report, || human(&report))
}

fn human(report: &WhyReport) -> String {
    if report.total.fetches == 0 {
        let why = if report.recording { "" } else { "; nothing is recorded, since why.records is 0" };
        return format!("no fetches are recorded{why}\n");
    }
    let since = report.oldest.as_deref().unwrap_or("-");
    let mut text = format!("since {since}: {}\n", sentence(&report.total));
    let processes = report.processes.iter().take(LINES).map(|row| {
        let mostly = in_workspace(&row.workspace, &row.mostly_in);
        sums(&row.sums, [process(&row.process), mostly])
    });
    let _ = write!(
        text,
        "\n{}",
        table(&["BYTES", "OBJECTS", "WAITED", "PROCESS", "MOSTLY IN"], &processes.collect::<Vec<_>>())
    );
    let directories = report
        .directories
        .iter()
        .take(LINES)
        .map(|row| sums(&row.sums, [process(&row.process), in_workspace(&row.workspace, &row.directory)]));
    let _ = write!(
        text,
        "\n{}",
        table(&["BYTES", "OBJECTS", "WAITED", "MOSTLY BY", "DIRECTORY"], &directories.collect::<Vec<_>>())
    );
    let operations = report
        .operations
        .iter()
        .map(|row| sums(&row.sums, [operation(row.operation).to_owned(), class(row.class).to_owned()]));
    let _ = write!(text, "\n{}", table(&["BYTES", "OBJECTS", "WAITED", "BY", "AS"], &operations.collect::<Vec<_>>()));
    if !report.rows.is_empty() {
        let rows: Vec<_> = report.rows.iter().map(line).collect();
        let head = ["TIME", "BYTES", "WAITED", "PROCESS", "BY", "AS", "PATH"];
        let _ = write!(text, "\n{}", table(&head, &rows));
    }
    let hidden = report.processes.len().saturating_sub(LINES) + report.directories.len().saturating_sub(LINES);
    let hidden = hidden as u64 + report.groups_left_out;
    if hidden > 0 {
        let _ = writeln!(text, "\n{} further rows; --json has them", grouped(hidden));
    }
    if report.lost > 0 {
        let _ = writeln!(text, "\n{} fetches came too fast to be recorded", grouped(report.lost));
    }
    text
}

fn sentence(sums: &Sums) -> String {
    format!(
        "{} in {} objects; {} of them were waited for, {} in all",
        human_bytes(sums.bytes),
        grouped(sums.objects),
        grouped(sums.waited_for),
        waited(sums.waited_us)
    )
}

fn sums<const N: usize>(sums: &Sums, rest: [String; N]) -> Vec<String> {
    let mut row = vec![human_bytes(sums.bytes), grouped(sums.objects), waited(sums.waited_us)];
    row.extend(rest);
    row
}

fn line(row: &FetchRow) -> Vec<String> {
    vec![
        row.time.clone(),
        human_bytes(row.bytes),
        waited(row.waited_us),
        process(&row.process),
        operation(row.operation).to_owned(),
        class(row.class).to_owned(),
        in_workspace(&row.workspace, &row.path),
    ]
}

/// A wait, rounded as people would.
pub(super) fn waited(microseconds: u64) -> String {
    match microseconds {
        0 => "-".to_owned(),
        1..1_000 => format!("{microseconds}us"),
        1_000..1_000_000 => format!("{}ms", microseconds / 1_000),
        1_000_000..60_000_000 => format!("{}.{}s", microseconds / 1_000_000, microseconds / 100_000 % 10),
        _ => humantime::format_duration(Duration::from_secs(microseconds / 1_000_000)).to_string(),
    }
}

fn process(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { name(text) }
}

fn in_workspace(workspace: &str, path: &PathText) -> String {
    match (workspace, path.path.as_str()) {
        ("", "") => "-".to_owned(),
        ("", path) => name(path),
        (workspace, path) => name(&format!("{workspace}:/{path}")),
    }
}

pub(super) const fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Readlink => "readlink",
        Operation::Write => "write",
        Operation::Stat => "stat",
        Operation::List => "list",
        Operation::Git => "git",
        Operation::Warm => "warm",
        Operation::Convert => "convert",
        Operation::Repair => "repair",
    }
}

pub(super) const fn class(class: FetchClass) -> &'static str {
    match class {
        FetchClass::Read => "read",
        FetchClass::Sibling => "sibling",
        FetchClass::Prefetch => "prefetch",
        FetchClass::Warm => "warm",
        FetchClass::Sizes => "sizes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_both_ways() {
        let hour = Timestamp::now().duration_since(since("1h").expect("a duration")).as_secs();
        assert!((3_599..=3_601).contains(&hour), "{hour}");
        assert_eq!(since("2026-01-01T00:00:00Z").expect("a time").as_second(), 1_767_225_600);
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn words_are_those_of_json() {
        for each in [
            Operation::Read,
            Operation::Readlink,
            Operation::Write,
            Operation::Stat,
            Operation::List,
            Operation::Git,
            Operation::Warm,
            Operation::Convert,
            Operation::Repair,
            Operation::Repair,
        ] {
            assert_eq!(serde_json::to_value(each).expect("serializable"), operation(each));
        }
        for each in [FetchClass::Read, FetchClass::Sibling, FetchClass::Prefetch, FetchClass::Warm, FetchClass::Sizes] {
            assert_eq!(serde_json::to_value(each).expect("serializable"), class(each));
        }
    }

    #[test]
    fn waits_are_rounded() {
        let told: Vec<_> = [0, 900, 1_500, 2_340_000, 61_000_000].into_iter().map(waited).collect();
        assert_eq!(told, ["-", "900us", "1ms", "2.3s", "1m 1s"]);
    }
}
