//! `larder unmount`: the directory is an ordinary one again.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{Output, name};
use super::{client, config, target};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, Request};

/// Unmount a workspace; it stays known unless it is purged
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder unmount work                    local changes stay for the next mount
  larder unmount work --purge --force    forget it, and throw local changes away")]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,

    /// Detach even while files are open
    #[arg(long)]
    force: bool,

    /// Forget the workspace as well, unless work would be lost (add --force); cached objects stay
    #[arg(long)]
    purge: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Arguments { target, force, purge } = arguments;
    let config = config()?;
    // A killed daemon's mounts are cleaned up by the next one, so one has to be there; but nothing was ever mounted
    // where there is no store.
    let client = client(&config, || target::unknown(target))?;
    let request = |target| Request::Unmount { target, force: *force, purge: *purge };
    match target::call(&client, target, request, &mut |_| ())? {
        Answer::Ok | Answer::Workspaces(_) => {
            let document = json!({ "target": target, "unmounted": true, "purged": purge });
            let what = if *purge { "unmounted and forgotten" } else { "unmounted" };
            output.done(&document, || format!("{} is {what}\n", name(target)))
        }
        other => Err(unexpected(&other)),
    }
}
