//! The hook `git status` asks what changed: prints what [`crate::daemon::hook`] answers.
//!
//! Runs before the command line is parsed, since Git waits for it at every
//! command. Invariant: whatever is amiss, it exits with 1 and prints nothing,
//! and Git looks at every file; it never leaves a change out.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::daemon::hook;

/// Whether these arguments are the hook's: the program was started under its name.
pub(super) fn is_call(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|argv0| hook::is_invocation(argv0))
}

/// Prints the hook's answer.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let answered = arguments.split_first().and_then(|(argv0, rest)| hook::answer(argv0, rest).ok());
    let printed = answered.is_some_and(|bytes| std::io::stdout().write_all(&bytes).is_ok());
    if printed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
