//! What was imported and no workspace shows yet: kept from garbage collection until one does.
//!
//! Without it the first collection after an import would take out what nobody can fetch again. One note in the store:
//! should it be lost, an import is repeated.

use std::collections::HashSet;

use gix::ObjectId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::super::Daemon;
use super::super::protocol::Failure;
use crate::store::{ObjectIdText, Store};

/// Name of the note.
const NOTE: &str = "imports";

/// Imports kept; the oldest goes for one more.
const IMPORTS_MAX: usize = 256;

/// Reading and writing the note are one step.
static NOTING: Mutex<()> = Mutex::new(());

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Imported {
    tree: ObjectIdText,
    pathspecs: Vec<String>,
}

impl Daemon {
    /// Keeps what `pathspecs` select of `tree` until a workspace shows that tree.
    pub(super) fn keep_import(&self, tree: ObjectId, pathspecs: &[String]) -> Result<(), Failure> {
        let _alone = NOTING.lock();
        let mut all: Vec<Imported> = self.store.noted(NOTE)?.unwrap_or_default();
        let one = Imported { tree: ObjectIdText(tree), pathspecs: pathspecs.to_vec() };
        all.retain(|other| *other != one);
        all.push(one);
        let surplus = all.len().saturating_sub(IMPORTS_MAX);
        all.drain(..surplus);
        self.store.note(NOTE, &all)?;
        self.store.roots_changed();
        Ok(())
    }

    /// Trees and pathspecs of what was imported and is in no generation.
    pub(in crate::daemon) fn imported(&self) -> Result<Vec<(ObjectId, Vec<String>)>, Failure> {
        let _alone = NOTING.lock();
        let Some(all) = self.store.noted::<Vec<Imported>>(NOTE)? else { return Ok(Vec::new()) };
        let (done, kept) = sorted(&self.store, all)?;
        if !done.is_empty() {
            // From now on the generation keeps it.
            self.store.note(NOTE, &kept)?;
        }
        Ok(kept.into_iter().map(|one| (one.tree.0, one.pathspecs)).collect())
    }
}

/// The same without a daemon: nothing is written.
pub(in crate::daemon) fn imported_at_rest(store: &Store) -> Result<Vec<(ObjectId, Vec<String>)>, Failure> {
    let (_, kept) = sorted(store, store.noted(NOTE)?.unwrap_or_default())?;
    Ok(kept.into_iter().map(|one| (one.tree.0, one.pathspecs)).collect())
}

/// Those that a generation has, and the others.
fn sorted(store: &Store, all: Vec<Imported>) -> Result<(Vec<Imported>, Vec<Imported>), Failure> {
    if all.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut shown = HashSet::new();
    for row in store.workspaces()? {
        shown.extend(store.generations(row.id)?.iter().map(|record| record.tree.0));
    }
    Ok(all.into_iter().partition(|one| shown.contains(&one.tree.0)))
}
