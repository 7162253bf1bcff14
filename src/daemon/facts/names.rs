//! Which paths name an object, in which generations of which workspaces.
//!
//! Every distinct tree is read once. Bounded: paths told, and without being
//! asked for all also how many trees are read; what is left out is counted, and
//! a search that was given up says so.

use std::collections::HashMap;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::PathText;
use super::place::weight;
use crate::daemon::protocol::Failure;
use crate::hydrate::walk::join;
use crate::store::{EntryKind, GenerationRecord, Look, Store, Workspace, id_key};

/// Paths told at most.
const NAMES_MAX: usize = 100;

/// Bytes that they take in the answer at most.
const NAMES_BYTES: usize = 256 << 10;

/// Trees read unless all are asked for: some ten milliseconds.
const TREES_QUICK: usize = 2_000;

/// Entries of those trees looked at, likewise.
const ENTRIES_QUICK: usize = 100_000;

/// Who names an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedBy {
    /// Paths, and where they are.
    pub rows: Vec<NameRow>,
    /// How often further paths of generations name it.
    pub left_out: u64,
    /// Whether all generations were searched.
    pub complete: bool,
    /// Distinct trees that were read for it.
    pub trees_searched: u64,
}

/// A path that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The workspace.
    pub workspace: String,
    /// Its generations that have the object there.
    pub generations: Vec<u64>,
    /// The path in the workspace, lossy.
    pub path: String,
    /// The same as bytes, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
}

/// Finds who names `id`. `known`: a path at which somebody found it.
pub(super) fn search(
    store: &Store,
    id: &ObjectId,
    known: Option<(&Workspace, &GenerationRecord, &[u8])>,
    all: bool,
) -> Result<NamedBy, Failure> {
    let mut search = Search { store, id: *id, all, entries: 0, below: HashMap::new() };
    let mut roots: Vec<(Workspace, GenerationRecord)> = Vec::new();
    for row in store.workspaces()? {
        for record in store.generations(row.id)?.into_iter().rev() {
            roots.push((row.clone(), record));
        }
    }
    let mut told = Told::default();
    if let Some((row, record, path)) = known {
        told.tell(row, record, path);
    }
    let mut named = NamedBy { complete: true, ..NamedBy::default() };
    let mut total = 0_u64;
    for (row, record) in &roots {
        if record.tree.0 == *id {
            told.tell(row, record, b"");
            total = total.saturating_add(1);
        }
        match search.count(record.tree.0)? {
            Some(paths) => total = total.saturating_add(paths),
            None => named.complete = false,
        }
        search.tell(row, record, &mut told)?;
    }
    named.trees_searched = search.below.len() as u64;
    named.left_out = total.saturating_sub(told.count);
    named.rows = told.rows;
    Ok(named)
}

struct Search<'a> {
    store: &'a Store,
    id: ObjectId,
    all: bool,
    entries: usize,
    /// How many paths below a tree name the object; a tree is told by the first eight bytes of its id.
    below: HashMap<u64, u64>,
}

impl Search<'_> {
    /// Counts the paths below `root` that name the object; `None`: that would take too long. Numbers saturate: a hostile
    /// repository can name ten trees ten billion times.
    fn count(&mut self, root: ObjectId) -> Result<Option<u64>, Failure> {
        let mut open = vec![root];
        while let Some(&id) = open.last() {
            if self.below.contains_key(&id_key(&id)) {
                open.pop();
                continue;
            }
            if !self.all && (self.below.len() >= TREES_QUICK || self.entries >= ENTRIES_QUICK) {
                return Ok(None);
            }
            let mut paths = 0_u64;
            let before = open.len();
            // One that is not here names nothing that anybody could know of.
            if let Look::Good(listing) = self.store.look_at_tree(&id)? {
                for entry in listing.iter() {
                    paths = paths.saturating_add(u64::from(entry.id == self.id));
                    if entry.kind == EntryKind::Directory {
                        match self.below.get(&id_key(&entry.id)) {
                            Some(below) => paths = paths.saturating_add(*below),
                            None => open.push(entry.id),
                        }
                    }
                }
                self.entries += listing.len();
            }
            if open.len() == before {
                self.below.insert(id_key(&id), paths);
                open.pop();
            }
        }
        Ok(self.below.get(&id_key(&root)).copied())
    }

    /// Tells the paths of a generation, as far as they were counted.
    fn tell(&self, row: &Workspace, record: &GenerationRecord, told: &mut Told) -> Result<(), Failure> {
        let names = |id: &ObjectId| self.below.get(&id_key(id)).is_some_and(|paths| *paths > 0);
        let mut open = if names(&record.tree.0) { vec![(record.tree.0, Vec::new())] } else { Vec::new() };
        while let Some((id, path)) = open.pop() {
            let Look::Good(listing) = self.store.look_at_tree(&id)? else { continue };
            let mut below = Vec::new();
            for entry in listing.iter() {
                if entry.id == self.id && !told.tell(row, record, &join(&path, entry.name)) {
                    return Ok(());
                }
                if entry.kind == EntryKind::Directory && names(&entry.id) {
                    below.push((entry.id, join(&path, entry.name)));
                }
            }
            // The stack's end comes first.
            open.extend(below.into_iter().rev());
        }
        Ok(())
    }
}

/// Paths that were told.
#[derive(Default)]
struct Told {
    rows: Vec<NameRow>,
    places: HashMap<(u64, Vec<u8>), usize>,
    bytes: usize,
    count: u64,
}

impl Told {
    /// Tells a path; false: no more are told.
    fn tell(&mut self, row: &Workspace, record: &GenerationRecord, path: &[u8]) -> bool {
        let place = (row.id.0, path.to_vec());
        if let Some(at) = self.places.get(&place) {
            let generations = &mut self.rows[*at].generations;
            if !generations.contains(&record.generation.0) {
                generations.push(record.generation.0);
                self.count += 1;
            }
            return true;
        }
        self.bytes += weight(path);
        if self.rows.len() >= NAMES_MAX || self.bytes > NAMES_BYTES {
            return false;
        }
        let PathText { path, path_bytes } = PathText::from(path);
        self.places.insert(place, self.rows.len());
        let generations = vec![record.generation.0];
        self.rows.push(NameRow { workspace: row.name.clone(), generations, path, path_bytes });
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        Batch, Depth, Entry, Generation, Listing, ObjectIdText, RepositoryId, StoreOptions, WorkspaceId, WorkspaceState,
    };

    fn id(number: u64) -> ObjectId {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        ObjectId::from_bytes_or_panic(&bytes)
    }

    /// A workspace whose one generation has `root`.
    fn shown(store: &Store, root: ObjectId) {
        let workspace = Workspace {
            id: WorkspaceId(1),
            name: "w".to_owned(),
            path: "/w".into(),
            repository: RepositoryId(1),
            rev: None,
            reference: None,
            require_commit: None,
            depth: Depth::Full,
            state: WorkspaceState::Ready,
            current: Some(Generation(1)),
            last_error: None,
            uid: 0,
            gid: 0,
            allow_full: false,
            admin: None,
            mounted: false,
            read_only: false,
            base_time: None,
            switching: None,
            refresh_seconds: None,
            offline: false,
        };
        let record = GenerationRecord {
            workspace: WorkspaceId(1),
            generation: Generation(1),
            commit: ObjectIdText(id(1)),
            tree: ObjectIdText(root),
            commit_time: 0,
            files: 0,
            created: 0,
            origin: "mount".to_owned(),
        };
        store.publish(&record, &workspace).expect("published");
    }

    #[test]
    fn a_bomb_of_trees_is_counted_and_not_walked() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("s"), &StoreOptions::default()).expect("new store");
        let mut batch = Batch::default();
        let (blob, levels) = (id(7), 20);
        for level in 0..levels {
            let (kind, mode) =
                if level == 0 { (EntryKind::File, 0o100_644) } else { (EntryKind::Directory, 0o040_000) };
            let below = if level == 0 { blob } else { id(100 + level - 1) };
            let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
            let entries = names.iter().map(|name| Entry { name: name.as_bytes(), kind, mode, id: below }).collect();
            batch.tree(id(100 + level), &Listing::pack(20, entries).expect("distinct names"));
        }
        store.commit(batch).expect("stored");
        shown(&store, id(100 + levels - 1));
        let named = search(&store, &blob, None, false).expect("searched");
        assert!(named.complete && named.trees_searched == levels, "{named:?}");
        assert_eq!(named.rows.len(), NAMES_MAX);
        assert_eq!(named.left_out, u64::MAX - NAMES_MAX as u64, "ten to the twentieth");
        let none = search(&store, &id(8), None, false).expect("searched");
        assert!(none.complete && none.rows.is_empty() && none.left_out == 0);
    }
}
