//! `larder history`: how much of history is here, and whether the rest is fetched.

use std::process::ExitCode;

use clap::Args;

use super::output::{Output, counted, name};
use super::{client, config, target};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{
    Answer, Failure, FailureClass, HistoryAction, HistoryState, HistoryStatus, Request, WorkspaceStatus,
};

/// Show how much of history is here; pause or resume fetching the rest
///
/// A mount is ready after one commit; unless --depth was given, the rest of the history follows in the background,
/// commits only. All workspaces of a repository share it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder history work             how much is here
  larder history work --pause     fetch no more for now
  larder history work --resume    go on")]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,

    /// Fetch no more for now; what is here stays
    #[arg(long, conflicts_with = "resume")]
    pause: bool,

    /// Go on, or start where a depth was asked for
    #[arg(long)]
    resume: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let client = client(&config, || target::unknown(&arguments.target))?;
    let action = match (arguments.pause, arguments.resume) {
        (true, _) => Some(HistoryAction::Pause),
        (_, true) => Some(HistoryAction::Resume),
        _ => None,
    };
    let request = |target| Request::History { target, action };
    match target::call(&client, &arguments.target, request, &mut |_| ())? {
        Answer::Workspaces(rows) => match <[WorkspaceStatus; 1]>::try_from(rows) {
            Ok([one]) => {
                output.facts(&one.history, || format!("{}: {}\n", name(&one.workspace), sentence(&one.history)))
            }
            Err(_) => Err(Failure::new(FailureClass::Other, "the daemon named another number of workspaces than one")),
        },
        other => Err(unexpected(&other)),
    }
}

/// The state's name.
const fn state(state: HistoryState) -> &'static str {
    match state {
        HistoryState::Complete => "complete",
        HistoryState::Fetching => "fetching",
        HistoryState::Paused => "paused",
        HistoryState::Off => "off",
        HistoryState::Failed => "failed",
    }
}

/// A history in a line.
pub(super) fn sentence(history: &HistoryStatus) -> String {
    let commits = history.commits.map_or_else(String::new, |commits| format!(", {}", counted(commits, "commit")));
    let reason = history.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{}{commits}{reason}", state(history.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_state_number_and_reason() {
        let mut history = HistoryStatus { state: HistoryState::Complete, commits: None, reason: None };
        assert_eq!(sentence(&history), "complete");
        history =
            HistoryStatus { state: HistoryState::Fetching, commits: Some(12_000), reason: Some("no route".into()) };
        assert_eq!(sentence(&history), "fetching, 12,000 commits (no route)");
        for each in [
            HistoryState::Complete,
            HistoryState::Fetching,
            HistoryState::Paused,
            HistoryState::Off,
            HistoryState::Failed,
        ] {
            assert_eq!(serde_json::to_value(each).expect("serializable"), state(each));
        }
    }
}
