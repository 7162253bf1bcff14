//! What keeps objects: gathered from the store, the mounts and everything under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gix::ObjectId;
use parking_lot::Mutex;

use super::super::protocol::{Failure, GenerationRow};
use super::super::workspace::Live;
use super::super::{Daemon, prepare};
use super::open_files;
use crate::git::pathspec::Pathspecs;
use crate::hydrate::walk::Everything;
use crate::index::gc::{self, Held, Origin, Roots};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::Content;
use crate::store::{Generation, GenerationRecord, Pin, Workspace, WorkspaceId};
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
    pub(super) fn gather(&self, retention: &Retention) -> Result<Gathered, Failure> {
        let mut gathered = Gathered { certain: true, ..Gathered::default() };
        let mut kept: Vec<Origin> = Vec::new();
        let now = prepare::now();
        for row in self.store.workspaces()? {
            let records = self.store.generations(row.id)?;
            let current = row.current;
            let past = records.iter().rev().filter(|record| Some(record.generation) != current);
            for (place, record) in past.enumerate() {
                let age = u64::try_from(now.saturating_sub(record.created)).unwrap_or(0);
                let why = if place >= retention.keep {
                    format!("older than the {} kept beside the one shown", retention.keep)
                } else if age > retention.max_age.as_secs() {
                    format!(
                        "older than {}",
                        humantime::format_duration(Duration::from_secs(retention.max_age.as_secs()))
                    )
                } else {
                    gathered.roots.named.push(record.tree.0);
                    kept.push(origin(&row, record));
                    continue;
                };
                gathered.origins.push(origin(&row, record));
                gathered.dropped.push(Dropped { record: record.clone(), workspace: row.name.clone(), why });
            }
            for record in records.iter().filter(|record| Some(record.generation) == current) {
                gathered.roots.named.push(record.tree.0);
                kept.push(origin(&row, record));
                self.gather_overlay(&row, record, &mut gathered)?;
            }
        }
        gathered.origins.append(&mut kept);
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

    /// `larder generations`: what a workspace has, newest first.
    pub(in crate::daemon) fn generations(&self, target: &str) -> Result<Vec<GenerationRow>, Failure> {
        let row = self.known(target)?;
        let settings = &self.config.settings.generations;
        let retention = Retention { keep: settings.keep, max_age: settings.max_age };
        let mut gathered = self.gather(&retention)?;
        let records = self.store.generations(row.id)?;
        let pins: Vec<Pin> = self.store.pins()?;
        // Everything but this workspace's own generations.
        let own: Vec<ObjectId> = records.iter().map(|record| record.tree.0).collect();
        let mut others = Vec::new();
        for other in self.store.workspaces()?.iter().filter(|other| other.id != row.id) {
            others.extend(self.store.generations(other.id)?.iter().map(|record| record.tree.0));
        }
        gathered.roots.named = others;
        let rest = gc::mark(&self.store, gathered.roots)?;
        let mut distinct = own.clone();
        distinct.sort();
        distinct.dedup();
        let alone = gc::alone(&self.store, &distinct, &rest)?;
        let dropped: HashMap<Generation, String> = gathered
            .dropped
            .into_iter()
            .filter(|dropped| dropped.record.workspace == row.id)
            .map(|dropped| (dropped.record.generation, dropped.why))
            .collect();
        let rows = records.iter().rev().map(|record| {
            let current = Some(record.generation) == row.current;
            let pins: Vec<u64> = pins.iter().filter(|pin| pin.tree == record.tree).map(|pin| pin.id).collect();
            // Two generations of one tree free nothing one by one.
            let shared = own.iter().filter(|tree| **tree == record.tree.0).count() > 1;
            let place = distinct.binary_search(&record.tree.0).ok().filter(|_| !shared);
            let frees = place.and_then(|place| alone.get(place)).copied().unwrap_or_default();
            let mut kept_by = Vec::new();
            if current {
                kept_by.push(format!("shown by {}", row.name));
            }
            kept_by.extend(pins.iter().map(|pin| format!("pin {pin}")));
            let why = dropped.get(&record.generation);
            if why.is_none() && !current {
                kept_by.push("retention".to_owned());
            }
            GenerationRow {
                generation: record.generation.0,
                commit: record.commit.0.to_string(),
                created: super::super::protocol::rfc3339(record.created),
                origin: record.origin.clone(),
                state: if current {
                    "current"
                } else if why.is_some() {
                    "expired"
                } else {
                    "kept"
                }
                .to_owned(),
                current,
                pinned: !pins.is_empty(),
                files: record.files,
                kept_by,
                frees_objects: frees.objects,
                frees_bytes: frees.bytes,
            }
        });
        Ok(rows.collect())
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

fn origin(row: &Workspace, record: &GenerationRecord) -> Origin {
    Origin { tree: record.tree.0, label: format!("generation {} of {}", record.generation.0, row.name) }
}

fn held(tree: ObjectId, pathspecs: &[String]) -> Result<Held, Failure> {
    Ok(Held { tree, select: Box::new(Pathspecs::parse(pathspecs)?) })
}
