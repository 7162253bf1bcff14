//! The command line: one file a command, and what they share.
//!
//! Owns names, flags, output and exit codes, which scripts rely on. It
//! refuses what can be seen to be wrong without asking the daemon. Only this
//! layer prints. Invariant: facts go to standard output, everything else to
//! standard error, and no output error ever panics.

mod bounded;
mod cache;
mod completions;
mod daemon;
mod doctor;
mod door;
mod du;
mod environment;
mod facts;
mod failure;
mod fsmonitor;
mod gc;
mod generations;
mod history;
mod inspect;
mod list;
mod man;
mod metrics;
mod mount;
mod objects;
mod output;
mod pin;
mod pins;
mod prepare;
mod progress;
mod refresh;
mod report;
mod resting;
mod settings;
mod shutdown;
mod status;
mod switch;
mod target;
mod top;
mod unmount;
mod unpin;
mod verify;
mod waits;
mod warm;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, Parser, Subcommand};

use crate::config::Config;
use crate::daemon::client::{Client, DETACHED};
use crate::daemon::protocol::{Failure, FailureClass};
use output::Output;

const AFTER_HELP: &str = "\
Exit status: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 offline or remote failure, 5 corrupt data, \
6 refused (busy, denied, would lose work).

Environment: LARDER_HOME holds all state, else $XDG_DATA_HOME/larder; settings are in \
$XDG_CONFIG_HOME/larder/config.toml.";

/// Mounts remote Git repositories as working trees and keeps what they read in one cache
#[derive(Debug, Parser)]
#[command(name = "larder", version, color = ColorChoice::Never, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = false)]
struct Cli {
    /// Print facts as one JSON document, and errors as one on standard error
    #[arg(long, global = true)]
    json: bool,

    /// Show no progress and no confirmation
    #[arg(long, short, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Arguments),
    Unmount(unmount::Arguments),
    List(list::Arguments),
    Status(status::Arguments),
    Switch(switch::Arguments),
    Refresh(refresh::Arguments),
    Prepare(prepare::Arguments),
    Warm(warm::Arguments),
    Pin(pin::Arguments),
    Unpin(unpin::Arguments),
    Pins(pins::Arguments),
    Generations(generations::Arguments),
    Gc(gc::Arguments),
    Cache(cache::Arguments),
    History(history::Arguments),
    Du(du::Arguments),
    Inspect(inspect::Arguments),
    Why(why::Arguments),
    Top(top::Arguments),
    Waits(waits::Arguments),
    Verify(verify::Arguments),
    Doctor(doctor::Arguments),
    Metrics(metrics::Arguments),
    Report(report::Arguments),
    Config(settings::Arguments),
    Daemon(daemon::Arguments),
    Shutdown(shutdown::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Runs the process's command line.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Git waits for the hook before every command, so it comes before anything that takes time.
    if fsmonitor::is_call(&arguments) {
        return fsmonitor::run(&arguments);
    }
    if door::is_call(&arguments) {
        return door::run(&arguments, Output::new(false, false));
    }
    if arguments.get(1..).is_some_and(|rest| rest == DETACHED) {
        return daemon::run_detached(Output::new(false, false));
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments),
    };
    let output = Output::new(cli.json, cli.quiet);
    match run(cli.command, output) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

fn run(command: Command, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Mount(arguments) => mount::run(arguments, output),
        Command::Unmount(arguments) => unmount::run(&arguments, output),
        Command::List(arguments) => list::run(arguments, output),
        Command::Status(arguments) => status::run(&arguments, output),
        Command::Switch(arguments) => switch::run(arguments, output),
        Command::Refresh(arguments) => refresh::run(arguments, output),
        Command::Prepare(arguments) => prepare::run(&arguments, output),
        Command::History(arguments) => history::run(&arguments, output),
        Command::Warm(arguments) => warm::run(arguments, output),
        Command::Pin(arguments) => pin::run(arguments, output),
        Command::Unpin(arguments) => unpin::run(&arguments, output),
        Command::Pins(arguments) => pins::run(&arguments, output),
        Command::Generations(arguments) => generations::run(&arguments, output),
        Command::Gc(arguments) => gc::run(&arguments, output),
        Command::Cache(arguments) => cache::run(arguments, output),
        Command::Du(arguments) => du::run(&arguments, output),
        Command::Inspect(arguments) => inspect::run(&arguments, output),
        Command::Why(arguments) => why::run(&arguments, output),
        Command::Top(arguments) => top::run(&arguments, output),
        Command::Waits(arguments) => waits::run(arguments, output),
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Doctor(arguments) => doctor::run(&arguments, output),
        Command::Metrics(arguments) => metrics::run(arguments, output),
        Command::Report(arguments) => report::run(&arguments, output),
        Command::Config(arguments) => settings::run(&arguments, output),
        Command::Daemon(arguments) => daemon::run(&arguments, output),
        Command::Shutdown(arguments) => shutdown::run(arguments, output),
        Command::Completions(arguments) => completions::run(arguments, output),
        Command::Man(arguments) => man::run(&arguments, output),
    }
}

/// Help and version are no errors; anything else clap says is wrong usage.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let output = Output::new(arguments.iter().any(|argument| argument == "--json"), false);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output.text(&error.render().to_string()).unwrap_or_else(|failure| output.failure(&failure))
        }
        _ if output.is_json() => {
            let text = error.render().to_string();
            // What is wrong, without clap's usage and tips below it.
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            output.failure(&Failure::new(FailureClass::Usage, message).hint("`larder --help` shows the usage"))
        }
        _ => {
            output.complain(error.render().to_string().trim_end());
            failure::exit_code(FailureClass::Usage)
        }
    }
}

/// The command line as clap knows it: what completions and manual pages are made from.
fn definition() -> clap::Command {
    Cli::command()
}

fn config() -> Result<Config, Failure> {
    Ok(Config::load()?)
}

/// The daemon of a cache that is there: the one that runs, or a new one. `absent` is what it means that there is none.
fn client(config: &Config, absent: impl FnOnce() -> Failure) -> Result<Client, Failure> {
    match Client::running(config)? {
        Some(client) => Ok(client),
        None if config.store_path.exists() => Client::start(config),
        None => Err(absent()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in definition().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
            }
        }
    }
}
