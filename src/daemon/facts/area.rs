//! The files of a workspace and how much of each is here, a page at a time.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AreaRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AreaReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &AreaRequest) -> Result<AreaReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
