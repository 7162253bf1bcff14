//! One reader's wait for one object.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::ObjectId;
use tokio::sync::oneshot;

use super::engine::{Core, closed};
use super::flight::Outcome;
use super::remote::{FailureKind, RemoteError};

/// How much longer than its connection a reader waits.
const GRACE: Duration = Duration::from_secs(1);

/// One reader's wait for one object. Dropping it cancels.
pub struct Ticket {
    core: Arc<Core>,
    id: ObjectId,
    number: Option<u64>,
    hear: Result<oneshot::Receiver<Outcome>, Option<Outcome>>,
    since: Instant,
}

impl Ticket {
    pub(super) fn done(core: &Arc<Core>, id: ObjectId, outcome: Outcome) -> Self {
        Self { core: Arc::clone(core), id, number: None, hear: Err(Some(outcome)), since: Instant::now() }
    }

    pub(super) fn waiting(core: &Arc<Core>, id: ObjectId, number: u64, hear: oneshot::Receiver<Outcome>) -> Self {
        Self { core: Arc::clone(core), id, number: Some(number), hear: Ok(hear), since: Instant::now() }
    }

    /// Waits for the object. Fails as offline once nothing was heard of it for the time-out.
    pub async fn wait(mut self) -> Outcome {
        // A little longer than the connection's own, so that its failure comes first and clears the flight.
        let timeout = self.core.settings.timeout + GRACE;
        let mut deadline = self.since + timeout;
        loop {
            let hear = match &mut self.hear {
                Ok(hear) => hear,
                Err(outcome) => return outcome.take().unwrap_or_else(|| Err(closed())),
            };
            match tokio::time::timeout_at(deadline.into(), hear).await {
                Ok(outcome) => {
                    self.number = None;
                    self.core.metrics.hydration_seconds.observe(self.since.elapsed().as_secs_f64());
                    return outcome.unwrap_or_else(|_| Err(closed()));
                }
                Err(_) => match self.core.state.lock().flights.moved(&self.id) {
                    Some(moved) if moved + timeout > Instant::now() => deadline = moved + timeout,
                    _ => {
                        let text = format!("nothing heard from {} for {timeout:?}", self.core.remote.address());
                        return Err(RemoteError::new(FailureKind::Offline, text).about(self.id));
                    }
                },
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.core.state.lock();
            state.flights.leave(&self.id, number);
            drop(state);
            self.core.changed.notify_waiters();
        }
    }
}
