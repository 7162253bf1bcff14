//! What keeps objects: gathered from the store, the mounts and everything under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gix::ObjectId;
use parking_lot::Mutex;

use super::super::protocol::Failure;
use super::super::workspace::Live;
use super::super::{Daemon, prepare};
use super::open_files;
use crate::git::pathspec::Pathspecs;
use crate::hydrate::walk::Everything;
use crate::index::gc::{Held, Origin, Roots};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::Content;
use crate::store::{Generation, GenerationRecord, Store, Workspace, WorkspaceId};
use crate::vfs::inode::{Inodes, What};

/// Which generations stay beside the one a workspace shows.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How many of a workspace.
    pub keep: usize,
    /// How old at most.
    pub max_age: Duration,
}

/// A generation that is to go.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// Its row.
    pub record: GenerationRecord,
    /// Its workspace's name.
    pub workspace: String,
    /// Why it goes.
    pub why: String,
}

/// Everything that keeps objects, and what does not any more.
#[derive(Default)]
pub struct Gathered {
    /// What keeps objects.
    pub roots: Roots,
    /// Generations that do not.
    pub dropped: Vec<Dropped>,
    /// Trees by which objects can be called, those that are to go first.
    pub origins: Vec<Origin>,
    /// Whether all roots could be asked.
    pub certain: bool,
}

impl Gathered {
    /// The dropped generations of each workspace.
    pub fn by_workspace(&self) -> BTreeMap<WorkspaceId, Vec<Generation>> {
        let mut all: BTreeMap<WorkspaceId, Vec<Generation>> = BTreeMap::new();
        for dropped in &self.dropped {
            all.entry(dropped.record.workspace).or_default().push(dropped.record.generation);
        }
        all
    }
}

/// Trees that somebody counts on while it works: exports, and pins that are being fetched.
#[derive(Default)]
pub struct Holds {
    // Guards the map alone.
    held: Mutex<HashMap<u64, (ObjectId, Vec<String>)>>,
}

/// Keeps a tree and what pathspecs select of it, until it is dropped.
pub struct Hold<'a> {
    daemon: &'a Daemon,
    number: u64,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.daemon.holds.held.lock().remove(&self.number);
    }
}

impl Daemon {
    /// Keeps what `pathspecs` select of `tree` from being collected.
    pub(in crate::daemon) fn hold(&self, tree: ObjectId, pathspecs: &[String]) -> Hold<'_> {
        let mut held = self.holds.held.lock();
        let number = held.keys().max().map_or(1, |last| last + 1);
        held.insert(number, (tree, pathspecs.to_vec()));
        drop(held);
        self.store.roots_changed();
        Hold { daemon: self, number }
    }

    /// Asks everyone who keeps objects.
    pub(in crate::daemon) fn gather(&self, retention: &Retention) -> Result<Gathered, Failure> {
        let (mut gathered, current) = retained(&self.store, retention)?;
        for (row, record) in &current {
            self.gather_overlay(row, record, &mut gathered)?;
        }
        let mut all: Vec<(ObjectId, Vec<String>)> = self.imported()?;
        all.extend(self.store.pins()?.into_iter().map(|pin| (pin.tree.0, pin.pathspecs)));
        all.extend(self.store.warms()?.into_iter().map(|warm| (warm.root.0, warm.pathspecs)));
        all.extend(self.holds.held.lock().values().cloned());
        for (tree, pathspecs) in all {
            gathered.roots.held.push(held(tree, &pathspecs)?);
            // Nothing of it can be converted without its attribute files.
            match self.attributes.of(self, tree) {
                Ok(blobs) => gathered.roots.blobs.extend(blobs.iter()),
                // Its trees are not all here.
                Err(failure) => tracing::debug!(%tree, "attribute files are not known: {failure}"),
            }
        }
        self.gather_open_files(&mut gathered.roots.blobs);
        Ok(gathered)
    }

    /// What local changes need.
    fn gather_overlay(
        &self,
        row: &Workspace,
        record: &GenerationRecord,
        gathered: &mut Gathered,
    ) -> Result<(), Failure> {
        if !self.overlay_directory(row.id).exists() {
            return Ok(());
        }
        let live = self.by_id(row.id.0);
        let still_known = self.admission.read();
        if !self.store.workspaces()?.iter().any(|known| known.id == row.id) {
            // Purged meanwhile; opening its overlay would make it anew.
            return Ok(());
        }
        let overlay = self.overlay_of(row)?;
        drop(still_known);
        if overlay.is_pristine() {
            return Ok(());
        }
        let nobody = Inodes::default();
        let shown = live.as_ref().and_then(|live| live.shown());
        let rests = match (&live, &shown) {
            (Some(live), Some(shown)) => overlay.rests_on(&shown.view, live.fs().inodes()),
            _ => overlay.rests_on(&View::new(self.store.clone(), record.clone()), &nobody),
        };
        match rests {
            Ok((trees, blobs)) => {
                gathered.roots.held.extend(trees.into_iter().map(|tree| Held { tree, select: Box::new(Everything) }));
                gathered.roots.blobs.extend(blobs);
            }
            Err(error) => {
                // Whatever it needs is of a generation that is kept; only what it moved here from others is not known.
                tracing::warn!(workspace = row.name, "what local changes need is not known: {error}");
                gathered.certain = false;
            }
        }
        Ok(())
    }

    fn gather_open_files(&self, blobs: &mut Vec<ObjectId>) {
        let mounted: Vec<Arc<Live>> = self.all().into_iter().filter(|live| live.is_mounted()).collect();
        let paths: Vec<_> = mounted.iter().map(|live| live.path()).collect();
        for (place, ino) in open_files::inodes(&paths) {
            let Some(live) = mounted.get(place) else { continue };
            if let Some(What::Blob { id, .. }) = live.fs().inodes().what(Ino(ino)) {
                blobs.push(id);
            } else if let Some(shown) = live.shown()
                && let Ok(Some(node)) = shown.overlay.node(Ino(ino))
                && let Content::Blob(id) = node.content
            {
                blobs.push(id);
            }
        }
    }

    /// The workspace that `target` names, mounted or not.
    pub(in crate::daemon) fn known(&self, target: &str) -> Result<Workspace, Failure> {
        let unknown = match self.find(target) {
            Ok(live) => return Ok(live.row()),
            Err(failure) => failure,
        };
        let path = super::super::mounting::canonical(std::path::Path::new(target));
        let rows = self.store.workspaces()?;
        rows.into_iter().find(|row| row.name == target || row.path == path).ok_or(unknown)
    }
}

/// What generations keep, which of them go, and what each workspace shows.
pub(in crate::daemon) fn retained(
    store: &Store,
    retention: &Retention,
) -> Result<(Gathered, Vec<(Workspace, GenerationRecord)>), Failure> {
    let mut gathered = Gathered { certain: true, ..Gathered::default() };
    let (mut kept, mut shown): (Vec<Origin>, Vec<_>) = (Vec::new(), Vec::new());
    let now = prepare::now();
    for row in store.workspaces()? {
        let records = store.generations(row.id)?;
        let current = row.current;
        let past = records.iter().rev().filter(|record| Some(record.generation) != current);
        for (place, record) in past.enumerate() {
            let age = u64::try_from(now.saturating_sub(record.created)).unwrap_or(0);
            let why = if place >= retention.keep {
                format!("older than the {} kept beside the one shown", retention.keep)
            } else if age > retention.max_age.as_secs() {
                format!("older than {}", humantime::format_duration(Duration::from_secs(retention.max_age.as_secs())))
            } else {
                gathered.roots.named.push(record.tree.0);
                kept.push(origin(&row, record));
                continue;
            };
            gathered.origins.push(origin(&row, record));
            gathered.dropped.push(Dropped { record: record.clone(), workspace: row.name.clone(), why });
        }
        for record in records.into_iter().filter(|record| Some(record.generation) == current) {
            gathered.roots.named.push(record.tree.0);
            kept.push(origin(&row, &record));
            shown.push((row.clone(), record));
        }
    }
    gathered.origins.append(&mut kept);
    Ok((gathered, shown))
}

fn origin(row: &Workspace, record: &GenerationRecord) -> Origin {
    Origin { tree: record.tree.0, label: format!("generation {} of {}", record.generation.0, row.name) }
}

/// A tree of which `pathspecs` select what is held.
pub(in crate::daemon) fn held(tree: ObjectId, pathspecs: &[String]) -> Result<Held, Failure> {
    Ok(Held { tree, select: Box::new(Pathspecs::parse(pathspecs)?) })
}
