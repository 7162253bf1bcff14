//! `larder inspect`: show where the bytes of a path come from, or what the cache knows of an object.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use crate::daemon::protocol::{Failure, FailureClass};

/// Show where the bytes of a path come from, or what the cache knows of an object
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments, _output: Output) -> Result<ExitCode, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
