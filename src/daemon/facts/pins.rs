//! What is pinned, and how much of it is here.

use serde::{Deserialize, Serialize};

use super::{Sources, place};
use crate::daemon::pin::pin_rows;
use crate::daemon::protocol::{Failure, PinRow};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PinsRequest {
    /// Of this workspace alone: its name or a path of it.
    pub target: Option<String>,
}

/// What is answered: the document of `larder pins --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsReport {
    /// Pins, oldest first.
    pub rows: Vec<PinRow>,
}

pub(super) fn answer(sources: &Sources<'_>, request: &PinsRequest) -> Result<PinsReport, Failure> {
    let of = request.target.as_ref().map(|target| place::workspace(sources.store, target)).transpose()?;
    if let Some(daemon) = sources.daemon {
        // What was fetched a moment ago counts.
        daemon.settle_for_a_look();
    }
    let pins = sources.store.pins()?.into_iter().filter(|pin| of.as_ref().is_none_or(|of| pin.workspace == of.id));
    Ok(PinsReport { rows: pin_rows(sources.store, pins)? })
}
