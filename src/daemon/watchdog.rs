//! Writes down who has waited for long, so that the log tells what `larder waits` would have told.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Daemon;
use super::protocol::WaitKind;

/// Looks at waiters are this far apart at least and at most: each takes the lock that readers need.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Logs each waiter once that has waited longer than the setting, until it is aborted.
pub(super) async fn watch(daemon: Arc<Daemon>) {
    let bound = daemon.config.settings.hydrate.watchdog;
    let mut tick = tokio::time::interval((bound / 2).clamp(SHORTEST, LONGEST));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told: HashSet<(WaitKind, String, String)> = HashSet::new();
    loop {
        tick.tick().await;
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let mut still = HashSet::new();
        for wait in daemon.waits().into_iter().filter(|wait| wait.waited_ms >= bound_ms) {
            let key = (wait.kind, wait.oid.clone(), wait.path.clone());
            if !told.contains(&key) {
                tracing::warn!(
                    kind = ?wait.kind,
                    object = wait.oid,
                    path = wait.path,
                    waited_ms = wait.waited_ms,
                    behind = wait.behind,
                    retries = wait.retries,
                    "waiting for long"
                );
            }
            still.insert(key);
        }
        told = still;
    }
}
