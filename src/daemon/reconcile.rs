//! Another generation in a mounted workspace: because Git moved HEAD, or because Larder is asked to switch.
//!
//! The generation's row and the overlay expressed against it are one transaction; no answer is on its way to the kernel
//! while the view changes, and what the kernel still has of before is invalidated right after. Callers have the turn to
//! move the workspace (`Daemon::turn_to_move`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::protocol::{Failure, FailureClass};
use super::workspace::Live;
use super::{Daemon, convert, moving, prepare};
use crate::git::gitdir::Objects;
use crate::index::diff::Leaf;
use crate::index::generation::{self, Commit};
use crate::index::overlay::Overlay;
use crate::index::overlay::reconcile::{Planned, Rule};
use crate::index::overlay::settle::{As, Now};
use crate::index::switching::{Kept, Local};
use crate::index::view::View;
use crate::store::overlay::Stamp;
use crate::store::{Repository, Workspace};
use crate::vfs::Shown;
use crate::vfs::convert::Converter;
use crate::vfs::inode::Inodes;

impl Daemon {
    /// Publishes the commit that Git's HEAD is at. Nothing visible changes; what is equal to it no longer counts as changed.
    pub(super) fn head_moved(&self, live: &Live, commit: &Commit) -> Result<(), Failure> {
        self.publish_moved(live, commit, "commit", Rule::Stay)?;
        self.settle(live)
    }

    /// Publishes `commit` and shows it, but for the paths in `keep`. Files that change by it show `at`. Refused if somebody
    /// changed one of the `planned` paths since the plan was made: what is saved is kept.
    pub(super) fn move_base(
        &self,
        live: &Live,
        commit: &Commit,
        keep: &BTreeMap<Vec<u8>, Kept>,
        planned: Planned<'_>,
        at: moving::Stamp,
    ) -> Result<(), Failure> {
        let at = Stamp { seconds: at.0.into(), nanos: at.1 };
        self.publish_moved(live, commit, "switch", Rule::Follow { keep, at, planned: Some(planned) })
    }

    /// Every path that differs from what the workspace's generation says, as the plan of a switch wants it, and the first
    /// change that may not be among them.
    pub(super) fn locally_changed(&self, live: &Live) -> Result<(BTreeMap<Vec<u8>, Local>, u64), Failure> {
        let shown = shown(live)?;
        self.settle(live)?;
        let since = shown.overlay.mark();
        let differences = shown.overlay.differences(&shown.view, live.fs().inodes())?;
        let local = |now: Option<Now>| match now {
            None => Local::Absent,
            Some(Now::Blob(kind, id)) => Local::Leaf(Leaf { kind, id }),
            Some(Now::Directory) => Local::Directory,
            Some(Now::Other) => Local::Other,
        };
        Ok((differences.into_iter().map(|difference| (difference.path, local(difference.now))).collect(), since))
    }

    /// Compares what changed lately with the base.
    pub(super) fn settle(&self, live: &Live) -> Result<(), Failure> {
        let shown = shown(live)?;
        let repository = self.repository_of(live)?;
        let ground = live.fs().inodes();
        self.settle_against(&shown.overlay, &shown.view, ground, shown.converter.as_deref(), &repository)
    }

    /// The same for a workspace that nobody has mounted, whose overlay is against `view`.
    pub(super) fn settle_at_rest(&self, row: &Workspace, overlay: &Overlay, view: &View) -> Result<(), Failure> {
        let repository = prepare::repository_of(self, row.repository)?;
        let converter = convert::converter(self, &repository, row, view.generation(), Vec::new(), None)?;
        self.settle_against(overlay, view, &Inodes::default(), converter.as_deref(), &repository)
    }

    fn settle_against(
        &self,
        overlay: &Overlay,
        view: &View,
        ground: &Inodes,
        converter: Option<&Converter>,
        repository: &Repository,
    ) -> Result<(), Failure> {
        let hash = view.generation().tree.0.kind();
        let objects = converter.and_then(|_| Objects::open(&repository.gitdir, hash).ok());
        let convert = |path: &[u8], kind, id| {
            let Some(converter) = converter else { return As::Blob };
            // From the store or the gitdir: what was committed here is in one of them. Nothing is fetched for this.
            let raw = objects.as_ref().and_then(|objects| objects.blob(&id).ok().flatten()).map(Bytes::from);
            match converter.converted_now(view, path, kind, id, raw) {
                Ok(None) => As::Blob,
                Ok(Some(bytes)) => As::Bytes(bytes),
                Err(error) => {
                    tracing::debug!("{error}");
                    As::Unknown
                }
            }
        };
        Ok(overlay.settle(&self.store, view, ground, &convert)?)
    }

    fn publish_moved(&self, live: &Live, commit: &Commit, origin: &str, rule: Rule<'_>) -> Result<(), Failure> {
        let forgetter = live.forgetter();
        let before = shown(live)?;
        let mut row = live.row();
        let record = generation::next(&self.store, &mut row, commit, origin, prepare::now())?;
        let repository = prepare::repository_of(self, row.repository)?;
        let converter = convert::converter(self, &repository, &row, &record, live.environment(), None)?;
        let attributes = |tree| self.attributes.of(self, tree);
        let same_rules = attributes(before.view.generation().tree.0)? == attributes(commit.tree)?;
        let (moved, converts) = live.fs().moved(|inodes| -> Result<_, Failure> {
            let row = Workspace { current: row.current, base_time: row.base_time, ..live.row() };
            let moved = before.overlay.reconcile(&before.view, inodes, rule, &record, &row)?;
            live.replace(row);
            let converts = converter.is_some() || before.converter.is_some();
            live.open(Shown { view: View::new(self.store.clone(), record), converter, ..Shown::clone(&before) });
            Ok((moved, converts))
        })?;
        if !same_rules && let Err(error) = before.overlay.unsettle() {
            tracing::warn!("what was committed may go on to count as changed: {error}");
        }
        self.count_ahead(live);
        if let Err(failure) = self.rename_blobs(live, before.view.generation().tree.0, commit.tree) {
            tracing::warn!("names of blobs: {failure}");
        }
        // Outside of the lock: the kernel may first want an answer.
        if let Some(forgetter) = forgetter {
            for (parent, name) in &moved.names {
                forgetter.name(*parent, name);
            }
            for ino in &moved.inodes {
                forgetter.inode(*ino);
            }
            if converts && (matches!(rule, Rule::Follow { .. }) || !same_rules) {
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
