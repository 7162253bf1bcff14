//! The four tables: their columns, their rows, how they are sorted and which columns fit.
//!
//! Invariant: every text that comes from a repository or a process leaves here
//! escaped.

use std::cmp::Reverse;

use super::super::output::{escape, grouped};
use super::super::why::waited;
use super::numbers::{Numbers, duration, rate};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::PathText;
use crate::daemon::facts::top::TopReport;
use crate::daemon::facts::why::Sums;
use crate::daemon::protocol::WaitKind;
use crate::store::WorkspaceState;

/// Cells between two columns.
const GAP: u16 = 1;
/// A column that takes what is left has at least so many cells, or goes.
const FLEXIBLE_MIN: u16 = 10;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Waiters,
    Workspaces,
    Processes,
    Directories,
}

impl Kind {
    /// All, in the order in which Tab goes through them.
    pub(super) const ALL: [Self; 4] = [Self::Waiters, Self::Workspaces, Self::Processes, Self::Directories];

    /// Its columns.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Waiters => {
                const {
                    &[
                        number("WAITED", 8, 0),
                        text("KIND", 6, 3),
                        text("WORKSPACE", 14, 2),
                        text("BEHIND", 26, 4),
                        number("TRIES", 5, 5),
                        flexible("PATH", 0),
                    ]
                }
            }
            Self::Workspaces => {
                const {
                    &[
                        flexible("WORKSPACE", 0),
                        text("STATE", 15, 2),
                        number("HITS/s", 9, 1),
                        number("MISSES/s", 9, 0),
                        number("HITS", 12, 4),
                        number("MISSES", 10, 3),
                        number("FETCHED", 9, 1),
                        number("OBJECTS", 9, 5),
                    ]
                }
            }
            Self::Processes => {
                const {
                    &[
                        number("BYTES", 8, 0),
                        number("OBJECTS", 8, 2),
                        number("WAITED", 7, 3),
                        text("PROCESS", 15, 0),
                        flexible("MOSTLY IN", 1),
                    ]
                }
            }
            Self::Directories => {
                const {
                    &[
                        number("BYTES", 8, 0),
                        number("OBJECTS", 8, 2),
                        number("WAITED", 7, 3),
                        text("MOSTLY BY", 15, 4),
                        flexible("DIRECTORY", 0),
                    ]
                }
            }
        }
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) head: &'static str,
    /// Cells; 0: what is left.
    width: u16,
    /// The one with the highest goes first where there is no room; 0 stays.
    rank: u8,
    pub(super) is_number: bool,
}

const fn number(head: &'static str, width: u16, rank: u8) -> Column {
    Column { head, width, rank, is_number: true }
}

const fn text(head: &'static str, width: u16, rank: u8) -> Column {
    Column { head, width, rank, is_number: false }
}

const fn flexible(head: &'static str, rank: u8) -> Column {
    Column { head, width: 0, rank, is_number: false }
}

/// By what a table is sorted, at first by its first column: numbers the largest first, words in their order, or the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) reversed: bool,
}

/// A cell: what is shown, and a number where that is what it is sorted by.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    value: u64,
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// The workspace it is about, as it is; empty: none.
    pub(super) workspace: String,
}

fn word(text: impl AsRef<str>) -> Cell {
    let text = text.as_ref();
    Cell { text: if text.is_empty() { "-".to_owned() } else { escape(text) }, value: 0 }
}

fn count(value: u64) -> Cell {
    Cell { text: grouped(value), value }
}

fn bytes(value: u64) -> Cell {
    Cell { text: human_bytes(value), value }
}

fn a_second(per_second: f64) -> Cell {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate, to sort by")]
    let value = (per_second * 1_000.0) as u64;
    Cell { text: rate(per_second), value }
}

/// The rows of a table, sorted.
pub(super) fn rows(kind: Kind, numbers: &Numbers, sort: Sort) -> Vec<Row> {
    let Some(report) = numbers.report() else { return Vec::new() };
    let mut rows = match kind {
        Kind::Waiters => waiters(report),
        Kind::Workspaces => workspaces(report, numbers),
        Kind::Processes => processes(report),
        Kind::Directories => directories(report),
    };
    let is_number = kind.columns().get(sort.column).is_some_and(|column| column.is_number);
    let cell = |row: &Row| row.cells.get(sort.column).cloned().unwrap_or_else(|| word(""));
    if is_number {
        rows.sort_by_key(|row| Reverse(cell(row).value));
    } else {
        rows.sort_by_cached_key(|row| cell(row).text);
    }
    if sort.reversed {
        rows.reverse();
    }
    rows
}

fn waiters(report: &TopReport) -> Vec<Row> {
    let row = |wait: &crate::daemon::protocol::Wait| {
        let kind = match wait.kind {
            WaitKind::Object => "object",
            WaitKind::Sizes => "sizes",
            WaitKind::Warm => "warm",
        };
        let waited = Cell { text: duration(wait.waited_ms.saturating_mul(1_000)), value: wait.waited_ms };
        let cells = vec![
            waited,
            word(kind),
            word(&wait.workspace),
            word(&wait.behind),
            count(wait.retries.into()),
            word(&wait.path),
        ];
        Row { cells, workspace: wait.workspace.clone() }
    };
    report.waits.iter().map(row).collect()
}

fn workspaces(report: &TopReport, numbers: &Numbers) -> Vec<Row> {
    let row = |row: &crate::daemon::facts::top::WorkspaceRow| {
        let (hits, misses) = numbers.of_workspace(&row.workspace);
        let state = if row.offline { format!("{}, offline", state(row.state)) } else { state(row.state).to_owned() };
        let cells = vec![
            word(&row.workspace),
            word(state),
            a_second(hits),
            a_second(misses),
            count(row.hits),
            count(row.misses),
            bytes(row.fetched.bytes),
            count(row.fetched.objects),
        ];
        Row { cells, workspace: row.workspace.clone() }
    };
    report.workspaces.iter().map(row).collect()
}

pub(super) const fn state(state: WorkspaceState) -> &'static str {
    match state {
        WorkspaceState::Preparing => "preparing",
        WorkspaceState::Ready => "ready",
        WorkspaceState::Failed => "failed",
        WorkspaceState::Unmounted => "unmounted",
    }
}

fn processes(report: &TopReport) -> Vec<Row> {
    let row = |row: &crate::daemon::facts::why::ProcessRow| {
        let place = place(&row.workspace, &row.mostly_in);
        Row { cells: summed(&row.sums, [word(&row.process), word(place)]), workspace: row.workspace.clone() }
    };
    report.processes.iter().map(row).collect()
}

fn directories(report: &TopReport) -> Vec<Row> {
    let row = |row: &crate::daemon::facts::why::DirectoryRow| {
        let place = place(&row.workspace, &row.directory);
        Row { cells: summed(&row.sums, [word(&row.process), word(place)]), workspace: row.workspace.clone() }
    };
    report.directories.iter().map(row).collect()
}

fn summed(sums: &Sums, rest: [Cell; 2]) -> Vec<Cell> {
    let waited = Cell { text: waited(sums.waited_us), value: sums.waited_us };
    let mut cells = vec![bytes(sums.bytes), count(sums.objects), waited];
    cells.extend(rest);
    cells
}

/// A path in a workspace; not escaped.
pub(super) fn place(workspace: &str, path: &PathText) -> String {
    match (workspace, path.path.as_str()) {
        ("", path) => path.to_owned(),
        (workspace, path) => format!("{workspace}:/{path}"),
    }
}

/// Which columns fit into `width` cells, and how wide each is.
pub(super) fn fitting(columns: &[Column], width: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let least = |shown: &[usize]| -> u16 {
        let widths = shown.iter().map(|at| if columns[*at].width == 0 { FLEXIBLE_MIN } else { columns[*at].width });
        widths.sum::<u16>() + GAP * u16::try_from(shown.len().saturating_sub(1)).unwrap_or(0)
    };
    while least(&shown) > width {
        let Some(at) = shown.iter().copied().filter(|at| columns[*at].rank > 0).max_by_key(|at| columns[*at].rank)
        else {
            break;
        };
        shown.retain(|other| *other != at);
    }
    let fixed: u16 = shown.iter().map(|at| columns[*at].width).sum();
    let gaps = GAP * u16::try_from(shown.len().saturating_sub(1)).unwrap_or(0);
    let left = width.saturating_sub(fixed + gaps);
    shown.into_iter().map(|at| (at, if columns[at].width == 0 { left } else { columns[at].width })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: Kind, width: u16) -> Vec<&'static str> {
        fitting(kind.columns(), width).into_iter().map(|(at, _)| kind.columns()[at].head).collect()
    }

    #[test]
    fn the_least_important_columns_go_first() {
        assert_eq!(shown(Kind::Waiters, 200).len(), 6);
        assert_eq!(shown(Kind::Waiters, 45), ["WAITED", "KIND", "WORKSPACE", "PATH"]);
        assert_eq!(shown(Kind::Waiters, 20), ["WAITED", "PATH"]);
        assert_eq!(shown(Kind::Processes, 40), ["BYTES", "PROCESS", "MOSTLY IN"]);
        assert_eq!(shown(Kind::Workspaces, 20), ["WORKSPACE", "MISSES/s"]);
        for kind in Kind::ALL {
            for width in 0..200 {
                let fitting = fitting(kind.columns(), width);
                assert!(!fitting.is_empty());
                let total: u16 = fitting.iter().map(|(_, width)| width + GAP).sum::<u16>() - GAP;
                assert!(total <= width || fitting.iter().all(|(at, _)| kind.columns()[*at].rank == 0), "{kind:?}");
            }
        }
    }
}
