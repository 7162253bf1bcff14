//! `larder waits`: everyone who waits now, and for what.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::config;
use super::output::{Output, name, table};
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, Request, Wait, WaitKind};

/// Show everyone who waits for objects or sizes, warms included: since when, and behind what
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  larder waits           who waits now, and behind what
  larder waits --json    the same for a program")]
pub(super) struct Arguments {}

#[derive(Serialize)]
struct Document<'a> {
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    wait: &'a Wait,
    /// When the wait began, in RFC 3339.
    since: String,
}

pub(super) fn run(_: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let waits = match Client::running(&config()?)? {
        Some(client) => match client.ask(Request::Waits)? {
            Answer::Waits(waits) => waits,
            other => return Err(unexpected(&other)),
        },
        // Nobody waits where nothing is mounted.
        None => Vec::new(),
    };
    let now = Timestamp::now();
    let document =
        Document { rows: waits.iter().map(|wait| Row { wait, since: since(now, wait).to_string() }).collect() };
    output.facts(&document, || human(&waits))
}

fn since(now: Timestamp, wait: &Wait) -> Timestamp {
    now.checked_sub(Duration::from_millis(wait.waited_ms)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn human(waits: &[Wait]) -> String {
    if waits.is_empty() {
        return "nobody waits\n".to_owned();
    }
    let row = |wait: &Wait| {
        vec![
            humantime::format_duration(Duration::from_millis(wait.waited_ms)).to_string(),
            kind(wait.kind).to_owned(),
            name(&wait.workspace),
            object(&wait.oid),
            wait.behind.clone(),
            wait.retries.to_string(),
            name(&wait.path),
        ]
    };
    let rows: Vec<_> = waits.iter().map(row).collect();
    table(&["WAITED", "KIND", "WORKSPACE", "OBJECT", "BEHIND", "RETRIES", "PATH"], &rows)
}

/// The kind's name, as `--json` has it.
const fn kind(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Object => "object",
        WaitKind::Sizes => "sizes",
        WaitKind::Warm => "warm",
    }
}

/// The first digits of an object id; a warm waits for many, and names none.
fn object(oid: &str) -> String {
    if oid.is_empty() { "-".to_owned() } else { oid.chars().take(12).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait() -> Wait {
        Wait {
            kind: WaitKind::Object,
            workspace: "w".to_owned(),
            oid: "ab".repeat(20),
            path: "a/b".to_owned(),
            waited_ms: 1_500,
            behind: "queued".to_owned(),
            retries: 0,
        }
    }

    #[test]
    fn who_waits_for_many_names_no_object() {
        let warm = Wait { kind: WaitKind::Warm, oid: String::new(), path: "src".to_owned(), ..wait() };
        let text = human(&[wait(), warm]);
        let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[0], ["WAITED", "KIND", "WORKSPACE", "OBJECT", "BEHIND", "RETRIES", "PATH"]);
        assert_eq!(cells[1], ["1s", "500ms", "object", "w", "abababababab", "queued", "0", "a/b"]);
        assert_eq!(cells[2], ["1s", "500ms", "warm", "w", "-", "queued", "0", "src"]);
        for kind in [WaitKind::Object, WaitKind::Sizes, WaitKind::Warm] {
            assert_eq!(serde_json::to_value(kind).expect("serializable"), super::kind(kind));
        }
    }

    #[test]
    fn a_row_says_since_when_in_rfc_3339() {
        let wait = wait();
        let now: Timestamp = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        let row =
            serde_json::to_value(Row { wait: &wait, since: since(now, &wait).to_string() }).expect("serializable");
        assert_eq!(row["since"], "2026-01-02T03:04:04Z");
        assert_eq!(row["waited_ms"], 1500);
        assert_eq!(since(now, &Wait { waited_ms: u64::MAX, ..wait }), Timestamp::UNIX_EPOCH);
    }
}
