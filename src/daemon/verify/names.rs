//! Who names what is damaged: workspaces and paths for people, repositories for fetching it again.
//!
//! Walks every tree that a generation, a local change or a pin names, each once a repository, and finds those that are not
//! there on the way. Invariant: nothing is dropped by looking.

use std::collections::HashMap;

use gix::ObjectId;

use super::{Damage, Name};
use crate::daemon::facts::Sources;
use crate::daemon::protocol::Failure;
use crate::hydrate::walk::join;
use crate::store::verify::{Problem, Subject};
use crate::store::{EntryKind, Generation, IdSet, RepositoryId, Store, StoreErrorKind, WorkspaceId};

/// Trees walked between two looks whether to go on.
const TREES_PER_LOOK: usize = 256;

/// What a walk found beside names.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Whether all trees could be read: only then what has no name is named by nobody.
    pub(super) certain: bool,
    pub(super) notes: Vec<String>,
}

/// Why a tree is walked.
#[derive(Clone, Copy, Debug)]
enum Why {
    Generation(Generation),
    Local,
    Pin(u64),
}

/// Something that names objects.
struct Root {
    workspace: WorkspaceId,
    name: String,
    repository: RepositoryId,
    offline: bool,
    why: Why,
    object: ObjectId,
    is_tree: bool,
    path: Vec<u8>,
}

/// Finds names for `damages`, and adds the trees that are missing.
pub(super) fn walk(
    sources: &Sources<'_>,
    damages: &mut Vec<Damage>,
    stop: &dyn Fn() -> bool,
) -> Result<Walked, Failure> {
    let mut walked = Walked { certain: true, notes: Vec::new() };
    let mut roots = roots(sources, &mut walked)?;
    // A workspace that may ask its remote comes before one that may not.
    roots.sort_by_key(|root| (root.repository, root.offline));
    let mut places: HashMap<ObjectId, usize> = HashMap::new();
    for (place, damage) in damages.iter().enumerate() {
        if let Subject::Blob(id) | Subject::Tree(id) = damage.problem.subject {
            places.entry(id).or_insert(place);
        }
    }
    let mut walk = Walk { store: sources.store, damages, places, walked };
    for of_one in roots.chunk_by(|a, b| a.repository == b.repository) {
        let mut seen = IdSet::default();
        for root in of_one {
            if !walk.root(root, &mut seen, stop)? {
                walk.walked.certain = false;
                return Ok(walk.walked);
            }
        }
    }
    Ok(walk.walked)
}

/// Everything that names objects, what is shown now first.
fn roots(sources: &Sources<'_>, walked: &mut Walked) -> Result<Vec<Root>, Failure> {
    let store = sources.store;
    let mut roots = Vec::new();
    let workspaces = readable(store.workspaces(), walked)?.unwrap_or_default();
    let pins = readable(store.pins(), walked)?.unwrap_or_default();
    for row in &workspaces {
        let root = |why, object, is_tree, path| Root {
            workspace: row.id,
            name: row.name.clone(),
            repository: row.repository,
            offline: row.offline,
            why,
            object,
            is_tree,
            path,
        };
        let mut generations = readable(store.generations(row.id), walked)?.unwrap_or_default();
        generations.reverse();
        generations.sort_by_key(|record| Some(record.generation) != row.current);
        for record in generations {
            roots.push(root(Why::Generation(record.generation), record.tree.0, true, Vec::new()));
        }
        if let Some(referred) = readable(store.referred(row.id, None, 0), walked)? {
            for (object, is_tree, path) in referred.objects {
                roots.push(root(Why::Local, object, is_tree, path));
            }
        }
        for pin in pins.iter().filter(|pin| pin.workspace == row.id) {
            roots.push(root(Why::Pin(pin.id), pin.tree.0, true, Vec::new()));
        }
    }
    Ok(roots)
}

/// What damaged rows don't tell is not known; they are reported already.
fn readable<T>(found: Result<T, crate::store::StoreError>, walked: &mut Walked) -> Result<Option<T>, Failure> {
    match found {
        Err(error) if error.kind == StoreErrorKind::Corrupt => {
            walked.certain = false;
            Ok(None)
        }
        found => Ok(Some(found?)),
    }
}

struct Walk<'a> {
    store: &'a Store,
    damages: &'a mut Vec<Damage>,
    /// Where each object is in them.
    places: HashMap<ObjectId, usize>,
    walked: Walked,
}

impl Walk<'_> {
    /// Walks what is below one root. False: stopped.
    fn root(&mut self, root: &Root, seen: &mut IdSet, stop: &dyn Fn() -> bool) -> Result<bool, Failure> {
        if !root.is_tree {
            self.name(&root.object, root, &root.path);
            return Ok(true);
        }
        let mut open = if seen.insert(&root.object) { vec![(root.object, root.path.clone())] } else { Vec::new() };
        let mut looked = 0;
        while let Some((id, path)) = open.pop() {
            looked += 1;
            if looked % TREES_PER_LOOK == 0 && stop() {
                return Ok(false);
            }
            self.name(&id, root, &path);
            let Some(listing) = self.store.look_at_tree(&id)?.good() else {
                self.lacking(&id, root, &path)?;
                continue;
            };
            for entry in listing.iter() {
                match entry.kind {
                    EntryKind::Directory if seen.insert(&entry.id) => open.push((entry.id, join(&path, entry.name))),
                    EntryKind::Directory | EntryKind::Gitlink => {}
                    EntryKind::File | EntryKind::Executable | EntryKind::Symlink => {
                        if self.places.contains_key(&entry.id) {
                            self.name(&entry.id, root, &join(&path, entry.name));
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    /// Notes a name of a damaged object, one a repository.
    fn name(&mut self, id: &ObjectId, root: &Root, path: &[u8]) {
        let Some(damage) = self.places.get(id).and_then(|place| self.damages.get_mut(*place)) else { return };
        if damage.names.iter().any(|name| (name.repository, name.offline) == (root.repository, root.offline)) {
            return;
        }
        damage.names.push(Name {
            workspace: root.name.clone(),
            repository: root.repository,
            offline: root.offline,
            path: path.to_vec(),
        });
    }

    /// A tree that can't be read: damaged, which is known, or missing.
    fn lacking(&mut self, id: &ObjectId, root: &Root, path: &[u8]) -> Result<(), Failure> {
        if self.places.contains_key(id) {
            self.walked.certain = false;
            return Ok(());
        }
        let what = match root.why {
            Why::Generation(generation) => {
                // Collected meanwhile, with its trees.
                if self.store.generation(root.workspace, generation)?.is_none() {
                    return Ok(());
                }
                format!("generation {}", generation.0)
            }
            Why::Local => "a directory that was moved".to_owned(),
            Why::Pin(number) => {
                let text =
                    format!("pin {number} is not whole: its tree {id} is not here; pin the same again to fetch it");
                self.walked.notes.push(text);
                self.walked.certain = false;
                return Ok(());
            }
        };
        if self.store.look_at_tree(id)?.good().is_some() {
            return Ok(());
        }
        self.walked.certain = false;
        self.places.insert(*id, self.damages.len());
        let text = format!("it is not here, and {what} of {} names it", root.name);
        self.damages.push(Damage::new(Problem::new(Subject::Tree(*id), text)));
        self.name(id, root, path);
        Ok(())
    }
}
