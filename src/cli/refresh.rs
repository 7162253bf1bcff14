//! `larder refresh`: fetch what the remote has, move nothing of the user's.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, name};
use super::{client, config, environment, status, target};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, RefreshReport, RefreshRequest, Request};

/// Fetch the remote's branches and tags now
///
/// Moves `refs/remotes/origin/*` as `git fetch` does, and fetches the trees of the branches that workspaces are on, so
/// that switching to them needs no network. Workspaces and local branches stay where they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder refresh         every mounted repository
  larder refresh work    that of one workspace")]
pub(super) struct Arguments {
    /// A mount path or a workspace name [default: all that are mounted]
    target: Option<String>,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [RefreshReport],
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let client = client(&config, || target::unknown(arguments.target.as_deref().unwrap_or("any")))?;
    let target = arguments.target.map(|target| target::resolve(&client, &target)).transpose()?;
    let request = RefreshRequest { target, environment: environment::for_daemon() };
    match client.call(Request::Refresh(request), &mut |_| ())? {
        Answer::Refreshed(rows) => output.done(&Document { rows: &rows }, || rows.iter().map(human).collect()),
        other => Err(unexpected(&other)),
    }
}

fn human(report: &RefreshReport) -> String {
    if report.updated.is_empty() {
        return format!("{}: nothing new\n", name(&report.repository));
    }
    let mut text = format!("{}\n", name(&report.repository));
    for moved in &report.updated {
        let from = moved.from.as_deref().map_or_else(|| "new".to_owned(), |from| status::short(Some(from)));
        let _ = writeln!(text, "  {from:<12}  {:<12}  {}", status::short(Some(&moved.to)), name(&moved.name));
    }
    text
}
