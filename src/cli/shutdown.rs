//! `larder shutdown`: the daemon unmounts everything and ends.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::config;
use super::output::Output;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, FailureClass, Request};

/// Unmounting and making the store durable takes well under this.
const LIMIT: Duration = Duration::from_mins(1);
/// How often the ending process is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Unmount everything and end the daemon; the workspaces are mounted again when it next starts
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  larder shutdown            the next command that needs it starts the daemon again
  larder shutdown --quiet    without a word")]
pub(super) struct Arguments {}

pub(super) fn run(_: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let client = Client::at(config.socket);
    let Some((_, pid)) = client.ping()? else {
        return output.done(&json!({ "stopped": false }), || "no daemon is running\n".to_owned());
    };
    end(&client, pid)?;
    output.done(&json!({ "stopped": true, "pid": pid }), || format!("the daemon, process {pid}, has ended\n"))
}

/// Ends the daemon, which is process `pid`.
pub(super) fn end(client: &Client, pid: u32) -> Result<(), Failure> {
    match client.ask(Request::Shutdown)? {
        Answer::Ok => {}
        other => return Err(unexpected(&other)),
    }
    // It answers before it lets go of the store; the next command must find both gone.
    let began = Instant::now();
    while lives(pid) {
        if began.elapsed() > LIMIT {
            let why = format!("process {pid} is still there after {} s", LIMIT.as_secs());
            return Err(Failure::new(FailureClass::Refused, format!("cannot end the daemon: {why}"))
                .hint("`larder waits` shows what it waits for; `kill` ends it without harm"));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether the process still holds anything; one that only waits to be collected does not.
fn lives(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncollected_process_has_ended() {
        assert!(lives(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let began = Instant::now();
        while lives(child.id()) && began.elapsed() < Duration::from_secs(10) {
            thread::sleep(POLL);
        }
        assert!(!lives(child.id()));
        child.wait().expect("collected");
        assert!(!lives(child.id()));
    }
}
