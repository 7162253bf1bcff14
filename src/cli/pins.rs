//! `larder pins`: what is kept, and how much of it is here.

use std::process::ExitCode;

use clap::Args;

use super::facts::{Desk, mixed_up};
use super::output::{Output, grouped, name, table};
use super::{config, status};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::pins::{PinsReport, PinsRequest};
use crate::daemon::facts::{Finding, Question};
use crate::daemon::protocol::{Failure, PinRow};

const EXAMPLES: &str = "\
Examples:
  larder pins                        all pins
  larder pins work                   those of the workspace work
  larder pins --json                 the same for scripts";

/// List what is pinned: how much it is, and how much of it is in the cache
///
/// To count that, the trees of every pin are walked. Works without a daemon.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A path in a mount, a mount path or a workspace name [default: all workspaces]
    target: Option<String>,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let finding = match &arguments.target {
        Some(target) => Desk::of(config, target)?
            .ask_about(target, |target| Question::Pins(PinsRequest { target: Some(target) }))?,
        // Where nothing was ever mounted nothing is pinned.
        None if !config.store_path.exists() => Finding::Pins(Box::default()),
        None => Desk::open(config)?.ask(Question::Pins(PinsRequest { target: None }))?,
    };
    match finding {
        Finding::Pins(report) => output.facts(&*report, || human(&report)),
        _ => Err(mixed_up()),
    }
}

fn human(PinsReport { rows }: &PinsReport) -> String {
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
        let text = human(&PinsReport { rows: vec![row] });
        let line = "3    notes      0123456789ab  2026-01-02T03:04:05Z  1,100 of 1,200  3 MiB  1 MiB   incomplete  src :!*.png";
        assert_eq!(text.lines().nth(1), Some(line), "{text}");
        assert!(human(&PinsReport::default()).contains("nothing is pinned"));
    }
}
