//! `larder verify`: check every stored byte against its checksum and object id.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use crate::daemon::protocol::{Failure, FailureClass};

/// Check every stored byte against its checksum and object id
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments, _output: Output) -> Result<ExitCode, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
