//! `larder verify`: every stored byte against its checksum and object id.

use serde::{Deserialize, Serialize};

/// What is to be checked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Fetch again what is damaged.
    pub repair: bool,
}

/// What was found: the fields of `larder verify --json` (CLI.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Blobs and trees checked.
    pub objects_checked: u64,
    /// Stored bytes checked.
    pub bytes_checked: u64,
    /// Objects found damaged.
    pub corrupt: u64,
    /// Those of them that were fetched again.
    pub repaired: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
}
