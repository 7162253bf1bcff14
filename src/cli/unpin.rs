//! `larder unpin`: what was pinned may be collected again.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, name};
use super::{client, config, target};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, FailureClass, PinRow, Request, UnpinRequest};

/// Keep pinned files no longer; they stay in the cache until it is tidied
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder unpin 1 2           two pins, by the numbers that `larder pins` shows
  larder unpin --all work    all of a workspace")]
pub(super) struct Arguments {
    /// Numbers that `larder pins` shows; with --all mount paths or workspace names
    #[arg(value_name = "NUMBER|TARGET", required = true)]
    what: Vec<String>,

    /// All pins of the workspaces
    #[arg(long)]
    all: bool,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [PinRow],
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let numbers = if arguments.all { Vec::new() } else { numbers(&arguments.what)? };
    let config = config()?;
    let client = client(&config, || Failure::new(FailureClass::NotFound, "nothing is pinned: there is no cache yet"))?;
    let request = if arguments.all {
        let targets = arguments.what.iter().map(|target| target::resolve(&client, target));
        UnpinRequest::AllOf(targets.collect::<Result<_, _>>()?)
    } else {
        UnpinRequest::Numbers(numbers)
    };
    match client.ask(Request::Unpin(request))? {
        Answer::Pins(rows) => output.done(&Document { rows: &rows }, || human(&rows)),
        other => Err(unexpected(&other)),
    }
}

fn numbers(words: &[String]) -> Result<Vec<u64>, Failure> {
    let number = |word: &String| {
        word.parse().map_err(|_| {
            Failure::new(FailureClass::Usage, format!("{word:?} is not the number of a pin"))
                .hint("`larder pins` shows the numbers; `larder unpin --all TARGET` takes away all of a workspace")
        })
    };
    words.iter().map(number).collect()
}

fn human(rows: &[PinRow]) -> String {
    if rows.is_empty() {
        return "nothing was pinned\n".to_owned();
    }
    let line = |row: &PinRow| format!("pin {} of {} is gone", row.number, name(&row.workspace));
    rows.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers() {
        assert_eq!(numbers(&["3".to_owned(), "12".to_owned()]).map_err(|failure| failure.message), Ok(vec![3, 12]));
        let failure = numbers(&["notes".to_owned()]).expect_err("a name");
        assert_eq!(failure.class, FailureClass::Usage);
        assert!(failure.hint.is_some_and(|hint| hint.contains("--all")));
    }
}
