//! `larder generations`: which versions of a workspace are kept, by what, and what they take.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, grouped};
use super::{client, config, status, target};
use crate::config::quantity::human_bytes;
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, GenerationRow, Request};

/// Show the generations of a workspace: what keeps each, and what dropping it would free
///
/// A generation is a commit's tree that the workspace showed. Older ones stay as `generations.keep` and
/// `generations.max_age` say, and can be looked at in a second mount: `larder mount REPO DIR --rev COMMIT --read-only`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [GenerationRow],
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let client = client(&config, || target::unknown(&arguments.target))?;
    let request = |target| Request::Generations { target };
    match target::call(&client, &arguments.target, request, &mut |_| ())? {
        Answer::Generations(rows) => output.facts(&Document { rows: &rows }, || human(&rows)),
        other => Err(unexpected(&other)),
    }
}

fn human(rows: &[GenerationRow]) -> String {
    let mut text = format!(
        "{:>10}  {:<12}  {:<20}  {:<8}  {:<8}  {}\n",
        "GENERATION", "COMMIT", "CREATED", "BY", "STATE", "DROPPING IT FREES"
    );
    for row in rows {
        let frees = format!("{} in {} objects", human_bytes(row.frees_bytes), grouped(row.frees_objects));
        let kept =
            if row.kept_by.is_empty() { String::new() } else { format!(" (kept by: {})", row.kept_by.join(", ")) };
        let _ = writeln!(
            text,
            "{:>10}  {:<12}  {:<20}  {:<8}  {:<8}  {frees}{kept}",
            row.generation,
            status::short(Some(&row.commit)),
            row.created,
            row.origin,
            row.state
        );
    }
    text
}
