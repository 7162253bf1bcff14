//! Another generation in a mounted workspace: because Git moved HEAD, or because Larder is asked to switch.
//!
//! The generation's row and the overlay expressed against it are one transaction; no answer is on its way to the kernel
//! while the view changes, and what the kernel still has of before is invalidated right after.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Daemon;
use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use crate::index::generation::{self, Commit};
use crate::index::overlay::reconcile::{Moved, Rule};
use crate::index::overlay::settle::Difference;
use crate::index::view::View;
use crate::vfs::Shown;

impl Daemon {
    /// Publishes the commit that Git's HEAD is at. Nothing visible changes; what is equal to it no longer counts as changed.
    pub(super) fn head_moved(&self, live: &Live, commit: &Commit, origin: &str) -> Result<(), Failure> {
        self.publish_moved(live, commit, origin, Rule::Stay)?;
        self.settle(live)
    }

    /// Publishes `commit` and shows it, but for the paths in `keep`, which were changed locally.
    pub(super) fn move_base(
        &self,
        live: &Live,
        commit: &Commit,
        origin: &str,
        keep: &HashSet<Vec<u8>>,
    ) -> Result<(), Failure> {
        self.publish_moved(live, commit, origin, Rule::Follow(keep))
    }

    /// Every path that differs from what the workspace's generation says.
    pub(super) fn local_changes(&self, live: &Live) -> Result<Vec<Difference>, Failure> {
        let shown = shown(live)?;
        self.settle(live)?;
        Ok(shown.overlay.differences(&shown.view, live.fs().inodes())?)
    }

    /// Compares what changed lately with the base.
    pub(super) fn settle(&self, live: &Live) -> Result<(), Failure> {
        let shown = shown(live)?;
        Ok(shown.overlay.settle(&self.store, &shown.view, live.fs().inodes())?)
    }

    fn publish_moved(&self, live: &Live, commit: &Commit, origin: &str, rule: Rule<'_>) -> Result<(), Failure> {
        let _turn = live.moving();
        let forgetter = live.forgetter();
        let moved = live.fs().moved(|inodes| -> Result<Moved, Failure> {
            let before = shown(live)?;
            let mut row = live.row();
            let record = generation::next(&self.store, &mut row, commit, origin, now())?;
            let moved = before.overlay.reconcile(&before.view, inodes, rule, &record, &row)?;
            live.replace(row);
            live.open(Shown { view: View::new(self.store.clone(), record), ..Shown::clone(&before) });
            Ok(moved)
        })?;
        // Outside of the lock: the kernel may first want an answer.
        if let Some(forgetter) = forgetter {
            for (parent, name) in &moved.names {
                forgetter.name(*parent, name);
            }
            for ino in &moved.inodes {
                forgetter.inode(*ino);
            }
        }
        Ok(())
    }
}

fn shown(live: &Live) -> Result<std::sync::Arc<Shown>, Failure> {
    live.shown().ok_or_else(|| Failure::new(FailureClass::Refused, "the workspace is not prepared"))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}
