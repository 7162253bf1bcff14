//! The objects in the cache, a page at a time.

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListRequest {}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListReport {}

pub(super) fn answer(_sources: &Sources<'_>, _request: &ListRequest) -> Result<ListReport, Failure> {
    Err(Failure::new(FailureClass::Other, "not built yet"))
}
