//! What goes on now.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &TopRequest) -> Result<TopReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
