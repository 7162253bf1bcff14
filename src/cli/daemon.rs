//! `larder daemon`: the process that owns the store and the mounts.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::config;
use super::output::Output;
use crate::config::LogFormat;
use crate::daemon::client::{Client, leave_start_failure};
use crate::daemon::protocol::{Failure, FailureClass};

/// Start the daemon (other commands do so by themselves)
///
/// It owns the cache and the mounts, and takes up again what was mounted when it last ended. `larder shutdown` ends it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder daemon                 in the background: mounts again what was mounted
  larder daemon --foreground    until ^C, with its log on the terminal
  larder daemon --foreground --log-format json")]
pub(super) struct Arguments {
    /// Stay in the foreground and log to standard error as well
    #[arg(long)]
    foreground: bool,

    /// How the log is written, whatever log.format says in the settings
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// A JSON object a line
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let mut config = config()?;
    if let Some(format) = arguments.log_format {
        config.settings.log.format = format.into();
    }
    if arguments.foreground {
        config.create_directories()?;
        return crate::daemon::run(&config, true).map(|()| ExitCode::SUCCESS);
    }
    let already = Client::running(&config)?.is_some();
    let client = Client::start(&config)?;
    let (version, pid) = client
        .ping()?
        .ok_or_else(|| Failure::new(FailureClass::Other, "cannot ask the daemon: it ended right after its start"))?;
    if let (true, Some(_)) = (already, arguments.log_format) {
        output.complain("larder: the daemon that runs goes on with the log format it has; `larder shutdown` ends it");
    }
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
