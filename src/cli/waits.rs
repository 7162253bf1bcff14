//! `larder waits`: everyone who waits for an object now.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::config;
use super::output::{Output, name, table};
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, Request, Wait};

/// Show everyone who waits for an object: since when, and behind what
#[derive(Clone, Copy, Debug, Args)]
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
            name(&wait.workspace),
            wait.oid.chars().take(12).collect(),
            wait.behind.clone(),
            wait.retries.to_string(),
            name(&wait.path),
        ]
    };
    table(&["WAITED", "WORKSPACE", "OBJECT", "BEHIND", "RETRIES", "PATH"], &waits.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_since_when_in_rfc_3339() {
        let wait = Wait {
            workspace: "w".to_owned(),
            oid: "ab".repeat(20),
            path: "a/b".to_owned(),
            waited_ms: 1_500,
            behind: "queued".to_owned(),
            retries: 0,
        };
        let now: Timestamp = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        let row =
            serde_json::to_value(Row { wait: &wait, since: since(now, &wait).to_string() }).expect("serializable");
        assert_eq!(row["since"], "2026-01-02T03:04:04Z");
        assert_eq!(row["waited_ms"], 1500);
        assert_eq!(since(now, &Wait { waited_ms: u64::MAX, ..wait }), Timestamp::UNIX_EPOCH);
    }
}
