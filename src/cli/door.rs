//! The object door `git` fetches missing objects from: serves what [`crate::daemon::door`] finds.
//!
//! Runs before the command line is parsed: Git starts it, with arguments of its own.

use std::ffi::OsString;
use std::process::ExitCode;

use super::output::Output;
use crate::daemon::door;

/// Whether these arguments are the door's: the program was started under its name.
pub(super) fn is_call(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|argv0| door::is_invocation(argv0))
}

/// Serves Git until it hangs up.
pub(super) fn run(arguments: &[OsString], output: Output) -> ExitCode {
    let argv0 = arguments.first().map(OsString::as_os_str).unwrap_or_default();
    match door::serve(argv0) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}
