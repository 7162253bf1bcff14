//! `larder pin`: what a commit's pathspecs select is fetched, and kept whatever is collected.

use std::process::ExitCode;

use clap::Args;

use super::output::{Output, name};
use super::progress::Display;
use super::{client, config, environment, status, target, warm};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, PinReport, PinRequest, Request};

/// Fetch files and keep them in the cache, whatever is collected or evicted
///
/// The first word after TARGET is a revision if it names a commit, else a pathspec; after `--` there are only pathspecs.
/// What was pinned can be read, and mounted again, without a network. A pin that was interrupted stays: the same command
/// goes on with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder pin work                     everything that the workspace shows
  larder pin work v1.0 docs           of another commit, a directory
  larder pin work -- src ':!*.png'    what pathspecs select")]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,

    /// A revision first, if there is to be one [default: what the workspace shows], and Git pathspecs relative to the
    /// workspace's root [default: everything]
    #[arg(value_name = "REV|PATHSPEC", value_parser = warm::pathspec)]
    words: Vec<String>,

    /// Git pathspecs and nothing else
    #[arg(value_name = "PATHSPEC", value_parser = warm::pathspec, last = true)]
    pathspecs: Vec<String>,
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let progress = Display::new(output);
    let client = client(&config, || target::unknown(&arguments.target))?;
    let request = PinRequest {
        target: target::resolve(&client, &arguments.target)?,
        words: arguments.words,
        only_pathspecs: arguments.pathspecs,
        environment: environment::for_daemon(),
    };
    let answer = client.call(Request::Pin(request), &mut |report| progress.report(report));
    drop(progress);
    match answer? {
        Answer::Pinned(report) => output.done(&report, || human(&report)),
        other => Err(unexpected(&other)),
    }
}

fn human(report: &PinReport) -> String {
    let verb = if report.existed { "was there and is complete" } else { "is complete" };
    format!(
        "pin {} of {} at {} {verb}: {}",
        report.number,
        name(&report.workspace),
        status::short(Some(&report.commit)),
        warm::human(&report.warmed, &report.workspace, None)
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn words_stand_before_and_after_the_dashes() {
        let read = |words: &[&str]| {
            let all = std::iter::once("pin").chain(words.iter().copied());
            Line::try_parse_from(all)
                .map(|line| (line.arguments.target, line.arguments.words, line.arguments.pathspecs))
                .ok()
        };
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(&["w"]), Some(("w".to_owned(), Vec::new(), Vec::new())));
        assert_eq!(read(&["w", "v1", "a", "b"]), Some(("w".to_owned(), strings(&["v1", "a", "b"]), Vec::new())));
        assert_eq!(read(&["w", "v1", "--", "-a"]), Some(("w".to_owned(), strings(&["v1"]), strings(&["-a"]))));
        assert_eq!(read(&["w", "--", "a"]), Some(("w".to_owned(), Vec::new(), strings(&["a"]))));
        assert!(read(&[]).is_none() && read(&["w", ""]).is_none());
    }
}
