//! `larder completions`: what a shell reads to complete command lines.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::definition;
use super::output::Output;
use crate::daemon::protocol::Failure;

/// Print a completion script for a shell
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  larder completions bash > ~/.local/share/bash-completion/completions/larder
  larder completions zsh > ~/.zfunc/_larder    where .zfunc is in fpath
  larder completions fish > ~/.config/fish/completions/larder.fish")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    // Into memory first: the generator panics when a reader hangs up.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "larder", &mut script);
    output.bytes(&script)
}
