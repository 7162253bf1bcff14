//! `larder generations`: which versions of a workspace are kept, by what, and what they take.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::facts::{Desk, mixed_up};
use super::output::{Output, counted, grouped, plural};
use super::{config, status};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::generations::{GenerationsReport, GenerationsRequest};
use crate::daemon::facts::{Finding, Question};
use crate::daemon::protocol::Failure;

const EXAMPLES: &str = "\
Examples:
  larder generations work            what is kept of the workspace work
  larder generations . --quick       of the one this directory is in, at once";

/// Show the generations of a workspace: what keeps each, and what dropping it would free
///
/// A generation is a commit's tree that the workspace showed. Older ones stay as `generations.keep` and
/// `generations.max_age` say, and can be looked at in a second mount: `larder mount REPO DIR --rev COMMIT --read-only`.
/// To tell what dropping each would free, all trees are walked. Works without a daemon.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A path in a mount, a mount path or a workspace name
    target: String,

    /// Do not tell what dropping each would free: answers at once, however much there is
    #[arg(long)]
    quick: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let quick = arguments.quick;
    let question = |target| Question::Generations(GenerationsRequest { target, quick });
    match Desk::of(config()?, &arguments.target)?.ask_about(&arguments.target, question)? {
        Finding::Generations(report) => output.facts(&*report, || human(&report)),
        _ => Err(mixed_up()),
    }
}

fn human(report: &GenerationsReport) -> String {
    let mut text = format!(
        "{:>10}  {:<12}  {:<20}  {:<8}  {:<8}  {}\n",
        "GENERATION", "COMMIT", "CREATED", "BY", "STATE", "DROPPING IT FREES"
    );
    for row in &report.rows {
        let frees = match (row.frees_bytes, row.frees_objects) {
            (Some(bytes), Some(objects)) => format!("{} in {}", human_bytes(bytes), counted(objects, "object")),
            _ => "not asked".to_owned(),
        };
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
    if report.rows_left_out > 0 {
        let _ = writeln!(text, "… and {} {}", grouped(report.rows_left_out), plural(report.rows_left_out, "older one"));
    }
    text
}
