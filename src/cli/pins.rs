//! `larder pins`: what is kept, and how much of it is here.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, grouped, name, table};
use super::{config, status, target};
use crate::config::quantity::human_bytes;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, PinRow, Request};

/// List what is pinned: how much it is, and how much of it is in the cache
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A mount path or a workspace name [default: all workspaces]
    target: Option<String>,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [PinRow],
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let client = match (Client::running(&config)?, &arguments.target) {
        (Some(client), _) => client,
        (None, _) if config.store_path.exists() => Client::start(&config)?,
        (None, Some(target)) => return Err(target::unknown(target)),
        (None, None) => return output.facts(&Document { rows: &[] }, || human(&[])),
    };
    let answer = match &arguments.target {
        Some(target) => {
            let request = |target| Request::Pins { target: Some(target) };
            target::call(&client, target, request, &mut |_| ())?
        }
        None => client.ask(Request::Pins { target: None })?,
    };
    match answer {
        Answer::Pins(rows) => output.facts(&Document { rows: &rows }, || human(&rows)),
        other => Err(unexpected(&other)),
    }
}

fn human(rows: &[PinRow]) -> String {
    if rows.is_empty() {
        return "nothing is pinned; `larder pin TARGET` pins what a workspace shows\n".to_owned();
    }
    let cells = |row: &PinRow| {
        let paths: Vec<String> = row.pathspecs.iter().map(|spec| name(spec)).collect();
        vec![
            row.number.to_string(),
            name(&row.workspace),
            status::short(Some(&row.commit)),
            row.created.clone(),
            format!("{} of {}", grouped(row.cached_objects), grouped(row.objects)),
            human_bytes(row.raw_bytes),
            human_bytes(row.stored_bytes),
            if row.complete { "complete" } else { "incomplete" }.to_owned(),
            if paths.is_empty() { "everything".to_owned() } else { paths.join(" ") },
        ]
    };
    let head = ["PIN", "WORKSPACE", "COMMIT", "CREATED", "OBJECTS", "SIZE", "STORED", "STATE", "PATHS"];
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_missing() {
        let row = PinRow {
            number: 3,
            workspace: "notes".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            pathspecs: vec!["src".to_owned(), ":!*.png".to_owned()],
            created: "2026-01-02T03:04:05Z".to_owned(),
            objects: 1200,
            cached_objects: 1100,
            raw_bytes: 3 << 20,
            stored_bytes: 1 << 20,
            complete: false,
        };
        let text = human(&[row]);
        let line = "3    notes      0123456789ab  2026-01-02T03:04:05Z  1,100 of 1,200  3 MiB  1 MiB   incomplete  src :!*.png";
        assert_eq!(text.lines().nth(1), Some(line), "{text}");
        assert!(human(&[]).contains("nothing is pinned"));
    }
}
