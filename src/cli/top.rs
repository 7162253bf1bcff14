//! `larder top`: watch hydration live: hits and misses, queue, who waits for what.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use crate::daemon::protocol::{Failure, FailureClass};

/// Watch hydration live: hits and misses, queue, who waits for what
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments, _output: Output) -> Result<ExitCode, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
