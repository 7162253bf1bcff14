//! `larder daemon`: the process that owns the store and the mounts.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::config;
use super::output::Output;
use crate::daemon::client::{Client, leave_start_failure};
use crate::daemon::protocol::{Failure, FailureClass};

/// Start the daemon (other commands do so by themselves)
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Stay in the foreground and log to standard error as well
    #[arg(long)]
    foreground: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    if arguments.foreground {
        config.create_directories()?;
        return crate::daemon::run(&config, true).map(|()| ExitCode::SUCCESS);
    }
    let already = Client::running(&config)?.is_some();
    let client = Client::start(&config)?;
    let (version, pid) = client
        .ping()?
        .ok_or_else(|| Failure::new(FailureClass::Other, "cannot ask the daemon: it ended right after its start"))?;
    let document = json!({ "pid": pid, "version": version, "started": !already });
    output.done(&document, || {
        let what = if already { "is running already" } else { "is running" };
        format!("larder {version} {what}, process {pid}\n")
    })
}

/// Is the process that a client has started and detached. It is called so by a client only, so it is no flag.
pub(super) fn run_detached(output: Output) -> ExitCode {
    let ended = config().and_then(|config| {
        let ended = crate::daemon::run(&config, false);
        if let Err(failure) = &ended {
            // Nobody reads this process's standard error; whoever started it reads this.
            let _ = leave_start_failure(&config, failure);
        }
        ended
    });
    ended.map_or_else(|failure| output.failure(&failure), |()| ExitCode::SUCCESS)
}
