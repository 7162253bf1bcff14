//! What caused fetches.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhyRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhyReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &WhyRequest) -> Result<WhyReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
