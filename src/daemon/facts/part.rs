//! Bytes of an object in the cache, a part at a time.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PartRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PartReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &PartRequest) -> Result<PartReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
