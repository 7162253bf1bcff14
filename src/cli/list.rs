//! `larder list`: all workspaces, one a line.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, name, table};
use super::status::{all, short, state};
use crate::daemon::protocol::{Failure, WorkspaceStatus};
use crate::store::WorkspaceState;

/// List all workspaces
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  larder list           every workspace, mounted or not
  larder list --json    the same for a program")]
pub(super) struct Arguments {}

#[derive(Serialize)]
struct Document<'a> {
    rows: Vec<Row<'a>>,
}

/// `name` is the word of `list`, `workspace` that of `status`: one filter reads both.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    workspace: &'a str,
    path: &'a Path,
    repository: &'a str,
    rev: Option<&'a str>,
    commit: Option<&'a str>,
    state: WorkspaceState,
}

impl<'a> From<&'a WorkspaceStatus> for Row<'a> {
    fn from(status: &'a WorkspaceStatus) -> Self {
        Self {
            name: &status.workspace,
            workspace: &status.workspace,
            path: &status.path,
            repository: &status.repository,
            rev: status.rev.as_deref(),
            commit: status.commit.as_deref(),
            state: status.state,
        }
    }
}

pub(super) fn run(_: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let workspaces = all(crate::daemon::protocol::Request::List)?;
    let document = Document { rows: workspaces.iter().map(Row::from).collect() };
    output.facts(&document, || human(&workspaces))
}

fn human(workspaces: &[WorkspaceStatus]) -> String {
    if workspaces.is_empty() {
        return "no workspaces; `larder mount REPO DIR` makes one\n".to_owned();
    }
    let row = |status: &WorkspaceStatus| {
        vec![
            name(&status.workspace),
            state(status.state).to_owned(),
            short(status.commit.as_deref()),
            name(&status.path.to_string_lossy()),
            name(&status.repository),
        ]
    };
    table(&["NAME", "STATE", "COMMIT", "PATH", "REPOSITORY"], &workspaces.iter().map(row).collect::<Vec<_>>())
}
