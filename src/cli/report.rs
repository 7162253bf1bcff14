//! `larder report`: write a page about a workspace for a browser.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use crate::daemon::protocol::{Failure, FailureClass};

/// Write a page about a workspace for a browser
#[derive(Clone, Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments, _output: Output) -> Result<ExitCode, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
