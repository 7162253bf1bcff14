//! Where the bytes of a path come from, and what the cache knows of an object.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InspectRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InspectReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &InspectRequest) -> Result<InspectReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
