//! `larder prepare`: another attempt at a preparation that failed.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{Output, name};
use super::progress::Display;
use super::{client, config, mount, target};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, Request};

/// Retry a preparation that failed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder prepare work    a workspace that `larder status` calls failed
  larder prepare .       the same, in it")]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let target = &arguments.target;
    let config = config()?;
    let progress = Display::new(output);
    let client = client(&config, || target::unknown(target))?;
    let request = |target| Request::Prepare { target };
    let answer = target::call(&client, target, request, &mut |report| progress.report(report));
    drop(progress);
    match answer? {
        Answer::Workspaces(workspaces) => match workspaces.as_slice() {
            [one] => output.done(one, || mount::confirmation(one)),
            all => output.done(&json!({ "rows": all }), || all.iter().map(mount::confirmation).collect()),
        },
        Answer::Ok => output.done(&json!({ "target": target }), || format!("{} is prepared\n", name(target))),
        other => Err(unexpected(&other)),
    }
}
