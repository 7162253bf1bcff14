//! `larder switch`: another commit in a workspace, without writing its files.

use std::process::ExitCode;

use clap::Args;

use super::output::{Output, counted, grouped, name};
use super::progress::Display;
use super::{client, config, environment, status, target};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, Request, SwitchReport, SwitchRequest};

/// Move a workspace to another branch, tag or commit without writing files
///
/// Local changes and what is staged are kept, as `git switch` keeps them; when some would be lost, nothing is done and
/// the exit status is 6. A branch that only the remote has is created; a tag or commit detaches HEAD.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder switch work topic    to a branch, here or on the remote
  larder switch work -        back to the one before
  larder switch . HEAD~1      one commit back with HEAD detached; in the workspace")]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,

    /// Branch, tag, commit, `-` for the one before, or what else `git rev-parse` takes
    #[arg(allow_hyphen_values = true, value_parser = rev)]
    rev: String,
}

fn rev(text: &str) -> Result<String, String> {
    let wrong = text.is_empty() || text.contains(char::is_control) || text.starts_with('-') && text != "-";
    if wrong { Err("it is no revision".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Arguments { target, rev } = arguments;
    let config = config()?;
    let progress = Display::new(output);
    let client = client(&config, || target::unknown(&target))?;
    // A revision can be unknown too, so the workspace is found out first.
    let target = target::resolve(&client, &target)?;
    let request = SwitchRequest { target, rev, environment: environment::for_daemon() };
    let answer = client.call(Request::Switch(request), &mut |report| progress.report(report));
    drop(progress);
    match answer? {
        Answer::Switched(report) => output.done(&report, || human(&report)),
        other => Err(unexpected(&other)),
    }
}

fn human(report: &SwitchReport) -> String {
    let commit = status::short(Some(&report.commit));
    let place = match (&report.branch, report.branch_created) {
        (Some(branch), true) => format!("new branch {} ({commit})", name(branch)),
        (Some(branch), false) => format!("{} ({commit})", name(branch)),
        (None, _) => format!("{commit}, detached"),
    };
    let kept = match report.paths_kept {
        0 => String::new(),
        kept => format!(", {} with local changes kept", grouped(kept)),
    };
    let changed = counted(report.paths_changed, "path");
    format!("{} is at {place}: {changed} changed{kept}\n", name(&report.workspace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_no_revisions() {
        for text in ["-", "main", "HEAD~2", "v1^{commit}", "@{-2}"] {
            assert!(rev(text).is_ok(), "{text}");
        }
        for text in ["", "-f", "--detach", "a\nb"] {
            assert!(rev(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_happened_fits_in_a_line() {
        let report = SwitchReport {
            workspace: "w".into(),
            commit: "0123456789abcdef".into(),
            branch: Some("next".into()),
            branch_created: true,
            paths_changed: 700,
            paths_kept: 2,
            ..SwitchReport::default()
        };
        let expected = "w is at new branch next (0123456789ab): 700 paths changed, 2 with local changes kept\n";
        assert_eq!(human(&report), expected);
        let detached = SwitchReport { branch: None, paths_kept: 0, ..report };
        assert_eq!(human(&detached), "w is at 0123456789ab, detached: 700 paths changed\n");
        let one = SwitchReport { paths_changed: 1, ..detached };
        assert_eq!(human(&one), "w is at 0123456789ab, detached: 1 path changed\n");
    }
}
