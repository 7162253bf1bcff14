//! `larder du`: show what the cache takes, and for what.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::config;
use super::facts::{Desk, mixed_up};
use super::output::{Output, grouped, name};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::disk::Disk;
use crate::daemon::facts::du::{Amount, By, DuReport, DuRequest, ROWS_MAX};
use crate::daemon::facts::{Finding, Question};
use crate::daemon::protocol::Failure;

const EXAMPLES: &str = "\
Examples:
  larder du                                     by repository
  larder du --by directory work --depth 2       the larger directories of the workspace work
  larder du --by type --limit 10                what kinds of files take most
  larder du --by age --json                     what was not used for long, for scripts";

/// Show what the cache takes, and for what
///
/// Counts every blob in the cache once: named by one key alone, shared by several, or named by none. That adds up to all
/// blobs, and these with everything else to what `du -s` says of the cache's directory. Directories and types are those
/// of the generations that are shown now. All blobs and trees are walked: with millions of objects it takes some seconds.
/// Works without a daemon.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A path in a mount, a mount path or a workspace name [default: all workspaces]
    target: Option<String>,

    /// What to count by
    #[arg(long, value_enum, default_value_t = Key::Repository)]
    by: Key,

    /// With `--by directory`: count what is deeper for the directory at this depth
    #[arg(long, value_name = "NAMES")]
    depth: Option<usize>,

    /// Rows to show, the largest; the others are summed
    #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = limit)]
    limit: usize,
}

/// What to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Key {
    /// All generations and pins of its workspaces
    Repository,
    /// All its generations and pins
    Workspace,
    /// Each generation of each workspace
    Generation,
    /// Where the files are in what is shown now
    Directory,
    /// What the files' names end in
    Type,
    /// When they were last used
    Age,
}

impl From<Key> for By {
    fn from(key: Key) -> Self {
        match key {
            Key::Repository => Self::Repository,
            Key::Workspace => Self::Workspace,
            Key::Generation => Self::Generation,
            Key::Directory => Self::Directory,
            Key::Type => Self::Type,
            Key::Age => Self::Age,
        }
    }
}

fn limit(text: &str) -> Result<usize, String> {
    let rows = text.parse::<usize>().map_err(|error| error.to_string())?;
    if (1..=ROWS_MAX).contains(&rows) { Ok(rows) } else { Err(format!("it has to be from 1 to {ROWS_MAX}")) }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let question = |target| {
        let (by, depth, limit) = (arguments.by.into(), arguments.depth, arguments.limit);
        Question::Du(DuRequest { by, target, depth, limit })
    };
    let finding = match &arguments.target {
        Some(target) => Desk::of(config, target)?.ask_about(target, |target| question(Some(target)))?,
        None => Desk::open(config)?.ask(question(None))?,
    };
    match finding {
        Finding::Du(report) => output.facts(&*report, || human(&report)),
        _ => Err(mixed_up()),
    }
}

fn line(text: &mut String, cells: [&str; 4], key: &str) {
    let [stored, raw, objects, own] = cells;
    let _ = writeln!(text, "{stored:>10}  {raw:>10}  {objects:>11}  {own:>10}  {key}");
}

fn human(report: &DuReport) -> String {
    let mut text = String::new();
    let by = match report.by {
        By::Repository => "REPOSITORY",
        By::Workspace => "WORKSPACE",
        By::Generation => "GENERATION",
        By::Directory => "DIRECTORY",
        By::Type => "TYPE",
        By::Age => "LAST USED",
    };
    line(&mut text, ["STORED", "RAW", "OBJECTS", "ALONE"], by);
    let amount = |text: &mut String, amount: &Amount, own: Option<u64>, key: &str| {
        let (stored, raw) = (human_bytes(amount.stored_bytes), human_bytes(amount.raw_bytes));
        let own = own.map_or_else(|| "-".to_owned(), human_bytes);
        line(text, [&stored, &raw, &grouped(amount.objects), &own], key);
    };
    for row in &report.rows {
        amount(&mut text, &row.all, Some(row.exclusive_stored_bytes), &name(&row.key));
    }
    let left = &report.rows_left_out;
    if left.rows > 0 {
        let key = format!("({} more rows)", grouped(left.rows));
        amount(&mut text, &left.all, Some(left.exclusive_stored_bytes), &key);
    }
    text.push('\n');
    let total =
        Amount { objects: report.objects, raw_bytes: report.total_raw_bytes, stored_bytes: report.total_stored_bytes };
    let own = report.rows.iter().map(|row| row.exclusive_stored_bytes).sum::<u64>() + left.exclusive_stored_bytes;
    let summed = [
        (&report.shared, "shared by several of these"),
        (&report.unnamed, unnamed(report)),
        (&report.damaged, "with a damaged row; `larder verify --repair` mends that"),
    ];
    for (some, key) in summed.into_iter().filter(|(some, _)| some.objects > 0) {
        amount(&mut text, some, None, key);
    }
    amount(&mut text, &total, Some(own), "all blobs in the cache");
    if report.trees_missing > 0 {
        let _ =
            writeln!(text, "{} trees are not here: what only they name counts for none", grouped(report.trees_missing));
    }
    if report.paths_left_out {
        text.push_str("so many directories that some were counted under one of their paths alone\n");
    }
    text.push('\n');
    on_disk(&mut text, report, &report.disk);
    text
}

const fn unnamed(report: &DuReport) -> &'static str {
    match (report.by, report.target.is_some()) {
        (By::Directory | By::Type, false) => "in no directory that is shown now",
        (_, true) => "of others, or of none",
        (_, false) => "of none of these: history that was read, and what a collection would take",
    }
}

fn on_disk(text: &mut String, report: &DuReport, disk: &Disk) {
    let mut part = |bytes: i64, what: &str| {
        let size = human_bytes(bytes.unsigned_abs());
        let sign = if bytes < 0 { "-" } else { "" };
        let _ = writeln!(text, "{:>10}  {what}", format!("{sign}{size}"));
    };
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    part(signed(disk.total_bytes), "on the disk, of that:");
    part(signed(disk.store.blobs_stored_bytes), "  store.redb: stored bytes of all blobs");
    let tables = disk.store.tables.iter().map(|table| table.bytes).sum();
    part(signed(tables), &format!("  store.redb: tables, with {} trees", grouped(report.trees)));
    part(disk.store.other_bytes, "  store.redb: free pages, unused ends of pages");
    for row in &disk.gitdirs {
        part(signed(row.bytes), &format!("  gitdir of {}", name(&row.key)));
    }
    for row in &disk.overlays {
        part(signed(row.bytes), &format!("  local changes of {}", name(&row.key)));
    }
    part(signed(disk.logs_bytes), "  logs");
    part(signed(disk.other_bytes), "  directories and the rest");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::facts::du::DuRow;

    #[test]
    fn rows_and_sums_are_told() {
        let all = Amount { objects: 1200, raw_bytes: 9 << 20, stored_bytes: 3 << 20 };
        let row = DuRow { key: "src".to_owned(), all, exclusive_stored_bytes: 1 << 20, ..DuRow::default() };
        let report = DuReport {
            by: By::Directory,
            rows: vec![row],
            shared: Amount { objects: 2, raw_bytes: 2, stored_bytes: 2 << 20 },
            objects: 1200,
            total_raw_bytes: 9 << 20,
            total_stored_bytes: 3 << 20,
            ..DuReport::default()
        };
        let text = human(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "    STORED         RAW      OBJECTS       ALONE  DIRECTORY");
        assert_eq!(lines[1], "     3 MiB       9 MiB        1,200       1 MiB  src");
        assert!(
            lines[3].ends_with("shared by several of these") && lines[4].ends_with("all blobs in the cache"),
            "{text}"
        );
        assert!(limit("0").is_err() && limit("2001").is_err() && limit("x").is_err() && limit("7") == Ok(7));
    }
}
