//! `larder man`: the manual pages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::definition;
use super::output::Output;
use crate::daemon::protocol::{Failure, FailureClass};

/// Print the manual page, or write those of all commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder man > larder.1    the manual page; `man ./larder.1` shows it
  larder man --dir man     a page for each command, in the directory man")]
pub(super) struct Arguments {
    /// Write larder.1 and a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let wrong = |what: String| {
        move |error: io::Error| {
            Failure::new(FailureClass::Other, format!("cannot write {what}: {error}")).hint("check the directory")
        }
    };
    let Some(dir) = &arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(definition()).render(&mut page).map_err(wrong("the page".to_owned()))?;
        return output.bytes(&page);
    };
    let what = || format!("manual pages to {}", dir.display());
    fs::create_dir_all(dir).map_err(wrong(what()))?;
    clap_mangen::generate_to(definition(), dir).map_err(wrong(what()))?;
    output.done(&json!({ "dir": Path::new(dir) }), || format!("wrote {}\n", what()))
}
