//! What the cache takes, by repository, workspace, generation, directory, type or age.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DuRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DuReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &DuRequest) -> Result<DuReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
