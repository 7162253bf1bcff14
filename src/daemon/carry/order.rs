//! What comes when in a file: it follows from the commit's trees and the pathspecs alone.
//!
//! Whoever writes and whoever reads walk the same way, so a reader knows the name of each object before it comes. Flat
//! loops over stacks; each tree once. Memory: an id for each tree, 16 bytes for each blob up to `DISTINCT_MAX`.

use std::collections::{HashSet, VecDeque};

use gix::ObjectId;

use super::super::protocol::{Failure, FailureClass};
use super::PATHS_LIMIT;
use crate::git::pathspec::Pathspecs;
use crate::hydrate::walk::{Reach, Select, join};
use crate::index::convert::ATTRIBUTES;
use crate::store::{EntryKind, Listing, Store};

/// Distinct blobs told apart: 64 MB. Beyond it one that is named twice comes twice.
const DISTINCT_MAX: usize = 2 << 20;

/// Distinct trees at most: 100 MB of ids.
const TREES_MAX: usize = 2 << 20;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The commit.
    Commit(ObjectId),
    /// A tree. Whoever has its listing tells it with [`Order::enter`].
    Tree(ObjectId),
    /// No record: all trees were named, and have to be in the store before the walk goes on.
    TreesEnd,
    /// A blob, and the first path it was found under.
    Blob {
        /// The blob.
        id: ObjectId,
        /// Relative to the root.
        path: Vec<u8>,
    },
    /// Sizes of the blobs that a tree names.
    Sizes(ObjectId),
}

/// A walk in the order of the format.
pub struct Order {
    store: Store,
    root: ObjectId,
    select: Pathspecs,
    /// Everything is selected: then the blobs tell all sizes.
    whole: bool,
    step: Step,
}

enum Step {
    Commit(ObjectId),
    Trees(Trees),
    /// Attribute files, whatever is selected: no file can be converted without them, nor its size be told.
    Attributes(Trees, Blobs),
    Blobs(Blobs),
    Sizes(Trees),
    End,
}

/// Trees, depth first, each once.
struct Trees {
    open: Vec<ObjectId>,
    seen: HashSet<ObjectId>,
}

impl Trees {
    fn of(root: ObjectId) -> Self {
        Self { open: vec![root], seen: HashSet::from([root]) }
    }

    fn enter(&mut self, listing: &Listing) -> Result<(), Failure> {
        let begin = self.open.len();
        for entry in listing.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            if self.seen.insert(entry.id) {
                self.open.push(entry.id);
            }
        }
        // The last one pushed is the first one taken.
        self.open[begin..].reverse();
        if self.seen.len() > TREES_MAX { Err(bomb()) } else { Ok(()) }
    }
}

/// Selected blobs, directory by directory.
#[derive(Default)]
struct Blobs {
    open: Vec<(ObjectId, Vec<u8>, Reach)>,
    /// Trees of which everything is selected.
    whole: HashSet<ObjectId>,
    /// First halves of ids.
    seen: HashSet<[u8; 16]>,
    found: VecDeque<(ObjectId, Vec<u8>)>,
    entered: u64,
}

impl Blobs {
    fn of(root: ObjectId, select: &mut Pathspecs) -> Self {
        let reach = select.directory(b"");
        Self {
            open: vec![(root, Vec::new(), reach)],
            whole: HashSet::new(),
            seen: HashSet::new(),
            found: VecDeque::new(),
            entered: 0,
        }
    }

    fn advance(&mut self, store: &Store, select: &mut Pathspecs) -> Result<Option<Item>, Failure> {
        loop {
            if let Some((id, path)) = self.found.pop_front() {
                return Ok(Some(Item::Blob { id, path }));
            }
            let Some((tree, path, reach)) = self.open.pop() else { return Ok(None) };
            if reach == Reach::None || (reach == Reach::All && !self.whole.insert(tree)) {
                continue;
            }
            self.entered += 1;
            if self.entered > PATHS_LIMIT {
                return Err(bomb());
            }
            let listing = listing(store, &tree)?;
            let begin = self.open.len();
            for entry in listing.iter() {
                if entry.kind == EntryKind::Directory {
                    let below = join(&path, entry.name);
                    let reach = if reach == Reach::All { reach } else { select.directory(&below) };
                    self.open.push((entry.id, below, reach));
                } else if entry.kind.is_blob() {
                    let below = join(&path, entry.name);
                    if (reach == Reach::All || select.file(&below)) && self.is_new(&entry.id) {
                        self.found.push_back((entry.id, below));
                    }
                }
            }
            self.open[begin..].reverse();
        }
    }

    fn is_new(&mut self, id: &ObjectId) -> bool {
        let Some(key) = id.as_bytes().first_chunk() else { return true };
        if self.seen.len() < DISTINCT_MAX { self.seen.insert(*key) } else { !self.seen.contains(key) }
    }
}

impl Order {
    /// The order of a file about `commit`, whose root tree is `root`.
    pub fn new(store: Store, commit: ObjectId, root: ObjectId, pathspecs: &[String]) -> Result<Self, Failure> {
        let select = Pathspecs::parse(pathspecs)?;
        Ok(Self { store, root, select, whole: pathspecs.is_empty(), step: Step::Commit(commit) })
    }

    /// What comes next; `None` is the end.
    pub fn advance(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            match &mut self.step {
                Step::Commit(commit) => {
                    let item = Item::Commit(*commit);
                    self.step = Step::Trees(Trees::of(self.root));
                    return Ok(Some(item));
                }
                Step::Trees(trees) => {
                    if let Some(id) = trees.open.pop() {
                        return Ok(Some(Item::Tree(id)));
                    }
                    let blobs = Blobs::of(self.root, &mut self.select);
                    self.step =
                        if self.whole { Step::Blobs(blobs) } else { Step::Attributes(Trees::of(self.root), blobs) };
                    return Ok(Some(Item::TreesEnd));
                }
                Step::Attributes(trees, blobs) => {
                    let Some(id) = trees.open.pop() else {
                        self.step = Step::Blobs(std::mem::take(blobs));
                        continue;
                    };
                    let listing = listing(&self.store, &id)?;
                    trees.enter(&listing)?;
                    let found = listing.find(ATTRIBUTES).filter(|entry| entry.kind.is_blob());
                    if let Some(id) = found.map(|entry| entry.id)
                        && blobs.is_new(&id)
                    {
                        return Ok(Some(Item::Blob { id, path: ATTRIBUTES.to_vec() }));
                    }
                }
                Step::Blobs(blobs) => {
                    if let Some(item) = blobs.advance(&self.store, &mut self.select)? {
                        return Ok(Some(item));
                    }
                    self.step = if self.whole { Step::End } else { Step::Sizes(Trees::of(self.root)) };
                }
                Step::Sizes(trees) => {
                    let Some(id) = trees.open.pop() else {
                        self.step = Step::End;
                        continue;
                    };
                    let listing = listing(&self.store, &id)?;
                    trees.enter(&listing)?;
                    if blobs_of(&listing).next().is_some() {
                        return Ok(Some(Item::Sizes(id)));
                    }
                }
                Step::End => return Ok(None),
            }
        }
    }

    /// Tells what the tree that came last names.
    pub fn enter(&mut self, listing: &Listing) -> Result<(), Failure> {
        match &mut self.step {
            Step::Trees(trees) => trees.enter(listing),
            _ => Ok(()),
        }
    }
}

/// Blobs that a listing names, in its order.
pub fn blobs_of(listing: &Listing) -> impl Iterator<Item = ObjectId> {
    listing.iter().filter(|entry| entry.kind.is_blob()).map(|entry| entry.id)
}

/// A tree that has to be in the store.
pub fn listing(store: &Store, id: &ObjectId) -> Result<Listing, Failure> {
    store.tree(id)?.ok_or_else(|| {
        Failure::new(FailureClass::Other, format!("tree {id} was dropped from the cache while it was needed"))
            .hint("run it again: it goes on where it ended")
    })
}

fn bomb() -> Failure {
    let text = format!("the commit names more than {PATHS_LIMIT} files or {TREES_MAX} directories");
    Failure::new(FailureClass::Corrupt, text)
}
