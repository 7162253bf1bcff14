//! Walks over whole trees, without recursion and each distinct tree once.

use std::collections::{HashMap, HashSet};

use gix::ObjectId;

use super::IndexError;
use crate::store::{EntryKind, Listing, Store};

/// Counts over a whole tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounts {
    /// Files, symlinks and gitlinks.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
}

/// Calls `visit` for each distinct tree below `root`, the root first.
pub fn distinct<E: From<IndexError>>(
    store: &Store,
    root: ObjectId,
    mut visit: impl FnMut(&Listing) -> Result<(), E>,
) -> Result<(), E> {
    let mut seen = HashSet::from([root]);
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        let listing = store.tree(&id).map_err(IndexError::from)?.ok_or(IndexError::MissingTree(id))?;
        visit(&listing)?;
        let children = listing.iter().filter(|entry| entry.kind == EntryKind::Directory).map(|entry| entry.id);
        open.extend(children.filter(|id| seen.insert(*id)));
    }
    Ok(())
}

/// Counts files and directories below `root`, and so proves that every tree is in the store.
/// Each distinct tree is read once, however often it is named: a hostile repository can name
/// ten trees ten billion times, and the counts saturate instead of the walk running for ever.
pub fn count(store: &Store, root: ObjectId) -> Result<TreeCounts, IndexError> {
    let mut known: HashMap<ObjectId, TreeCounts> = HashMap::new();
    let mut open = vec![root];
    while let Some(&id) = open.last() {
        if known.contains_key(&id) {
            open.pop();
            continue;
        }
        let listing = store.tree(&id)?.ok_or(IndexError::MissingTree(id))?;
        let mut counts = TreeCounts { files: listing.len() as u64 - u64::from(listing.directories()), directories: 1 };
        let before = open.len();
        for child in listing.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            match known.get(&child.id) {
                Some(below) => {
                    counts.files = counts.files.saturating_add(below.files);
                    counts.directories = counts.directories.saturating_add(below.directories);
                }
                None => open.push(child.id),
            }
        }
        if open.len() == before {
            known.insert(id, counts);
            open.pop();
        }
    }
    Ok(known.get(&root).copied().unwrap_or_default())
}
