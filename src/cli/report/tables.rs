//! The tables of fetches, of what caused them, of the cache and of generations.

use super::gather::Gathered;
use super::html::{metered, path, table, text, time};
use crate::cli::output::grouped;
use crate::cli::why::{class, operation, waited};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::PathText;
use crate::daemon::facts::du::DuRow;
use crate::daemon::facts::why::{FetchRow, Sums};

/// Rows of the tables of processes, directories, repositories.
pub(super) const ROWS: usize = 15;
/// Generations shown.
const GENERATION_ROWS: usize = 50;

/// What a fetch was for, with who caused it below.
fn caused(row: &FetchRow) -> String {
    let what = match (row.path.path.as_str(), &row.oid) {
        ("", Some(oid)) => format!("object <code>{}</code>", text(oid.get(..12).unwrap_or(oid))),
        ("", None) => "<span class=\"sub\">everything</span>".to_owned(),
        _ => path(&row.path),
    };
    let many = if row.objects == 1 { String::new() } else { format!(", {} objects", grouped(row.objects)) };
    format!("{what}<br><span class=\"sub\">{}: {}{many}</span>", who(&row.process), operation(row.operation))
}

fn who(process: &str) -> String {
    if process.is_empty() { "not known".to_owned() } else { format!("<bdi>{}</bdi>", text(process)) }
}

const NO_FETCHES: &str = "No fetches of this workspace are recorded.";

pub(super) fn fetches(rows: &[FetchRow]) -> String {
    let most = rows.first().map_or(0, |row| row.bytes);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                metered(&human_bytes(row.bytes), row.bytes, most),
                caused(row),
                class(row.class).to_owned(),
                time(&row.time),
            ]
        })
        .collect();
    table(&[("Size", "n"), ("For", ""), ("As", "wide"), ("Arrived", "t wide")], &rows, NO_FETCHES)
}

pub(super) fn slowest(rows: &[FetchRow]) -> String {
    let most = rows.first().map_or(0, |row| row.waited_us);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                metered(&waited(row.waited_us), row.waited_us, most),
                caused(row),
                human_bytes(row.bytes),
                time(&row.time),
            ]
        })
        .collect();
    table(&[("Took", "n"), ("For", ""), ("Size", "n wide"), ("Arrived", "t wide")], &rows, NO_FETCHES)
}

fn place(of: &PathText) -> String {
    if of.path.is_empty() { "in several directories".to_owned() } else { format!("mostly in {}", path(of)) }
}

/// A row of what was fetched, as a part of `most`.
fn fetched(sums: &Sums, most: u64, what: String) -> Vec<String> {
    vec![metered(&human_bytes(sums.bytes), sums.bytes, most), what, grouped(sums.objects), waited(sums.waited_us)]
}

pub(super) fn processes(found: &Gathered) -> String {
    let rows = &found.why.processes;
    let most = rows.first().map_or(0, |row| row.sums.bytes);
    let rows: Vec<_> = rows
        .iter()
        .take(ROWS)
        .map(|row| {
            let mostly = format!("{}<br><span class=\"sub\">{}</span>", who(&row.process), place(&row.mostly_in));
            fetched(&row.sums, most, mostly)
        })
        .collect();
    table(&[("Fetched", "n"), ("Process", ""), ("Objects", "n"), ("Waited", "n wide")], &rows, NO_FETCHES)
}

pub(super) fn directories(found: &Gathered) -> String {
    let rows = &found.why.directories;
    let most = rows.first().map_or(0, |row| row.sums.bytes);
    let rows: Vec<_> = rows
        .iter()
        .take(ROWS)
        .map(|row| {
            let directory = if row.directory.path.is_empty() {
                "<span class=\"sub\">the root, or everything</span>".to_owned()
            } else {
                path(&row.directory)
            };
            let mostly = format!("{directory}<br><span class=\"sub\">mostly by {}</span>", who(&row.process));
            fetched(&row.sums, most, mostly)
        })
        .collect();
    table(&[("Fetched", "n"), ("Directory", ""), ("Objects", "n"), ("Waited", "n wide")], &rows, NO_FETCHES)
}

pub(super) fn shares(rows: &[DuRow], head: &'static str) -> String {
    let most = rows.iter().map(|row| row.all.stored_bytes).max().unwrap_or(0);
    let rows: Vec<_> = rows
        .iter()
        .take(ROWS)
        .map(|row| {
            vec![
                format!("<bdi>{}</bdi>", text(&row.key)),
                grouped(row.all.objects),
                human_bytes(row.all.raw_bytes),
                metered(&human_bytes(row.all.stored_bytes), row.all.stored_bytes, most),
            ]
        })
        .collect();
    table(&[(head, ""), ("Objects", "n"), ("Content", "n wide"), ("Stored", "n")], &rows, "The cache is empty.")
}

pub(super) fn generations(found: &Gathered) -> String {
    let rows: Vec<_> = found
        .head
        .generations
        .iter()
        .take(GENERATION_ROWS)
        .map(|row| {
            let current = if row.current { " <span class=\"tag\">shown</span>" } else { "" };
            vec![
                format!("{}{current}", row.generation),
                format!("<code>{}</code>", text(row.commit.get(..12).unwrap_or(&row.commit))),
                time(&row.created),
                text(&row.origin),
                grouped(row.files),
            ]
        })
        .collect();
    let columns = [("Generation", ""), ("Commit", ""), ("Published", "t"), ("By", "wide"), ("Files", "n wide")];
    table(&columns, &rows, "There is none.")
}
