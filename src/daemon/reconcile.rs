//! Another generation in a mounted workspace: because Git moved HEAD, or because Larder is asked to switch.
//!
//! The generation's row and the overlay expressed against it are one transaction; no answer is on its way to the kernel
//! while the view changes, and what the kernel still has of before is invalidated right after.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Daemon, convert, prepare};
use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use crate::index::generation::{self, Commit};
use crate::index::overlay::reconcile::Rule;
use crate::index::overlay::settle::Difference;
use crate::index::view::View;
use crate::store::Workspace;
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
        let converts = |path: &[u8], id| {
            let converter = shown.converter.as_ref();
            converter.is_some_and(|converter| converter.applies(&shown.view, path, id))
        };
        Ok(shown.overlay.settle(&self.store, &shown.view, live.fs().inodes(), &converts)?)
    }

    fn publish_moved(&self, live: &Live, commit: &Commit, origin: &str, rule: Rule<'_>) -> Result<(), Failure> {
        let _turn = live.moving();
        let forgetter = live.forgetter();
        let before = shown(live)?;
        let mut row = live.row();
        let record = generation::next(&self.store, &mut row, commit, origin, now())?;
        let repository = prepare::repository_of(self, row.repository)?;
        let converter =
            convert::converter(self, &repository, &row, &record, Vec::new(), &before.hydrator, false)?;
        let (moved, converts) = live.fs().moved(|inodes| -> Result<_, Failure> {
            let row = Workspace { current: row.current, base_time: row.base_time, ..live.row() };
            let moved = before.overlay.reconcile(&before.view, inodes, rule, &record, &row)?;
            live.replace(row);
            let converts = converter.is_some() || before.converter.is_some();
            live.open(Shown { view: View::new(self.store.clone(), record), converter, ..Shown::clone(&before) });
            Ok((moved, converts))
        })?;
        // Outside of the lock: the kernel may first want an answer.
        if let Some(forgetter) = forgetter {
            for (parent, name) in &moved.names {
                forgetter.name(*parent, name);
            }
            for ino in &moved.inodes {
                forgetter.inode(*ino);
            }
            if converts && matches!(rule, Rule::Follow(_)) {
                // Other attributes make other bytes of the same blob.
                live.fs().inodes().each(|ino| forgetter.inode(ino));
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
