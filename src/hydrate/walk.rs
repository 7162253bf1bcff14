//! Walks over trees: which blobs a selection names and the store lacks.
//!
//! A flat loop over a stack of steps, one look-up a directory: no recursion,
//! no callbacks, and it can stop after any step. It comes in windows of
//! bounded size, so a tree of ten million files needs no more memory than one
//! window and a path for each directory yet to be entered. Trees the store
//! lacks are set aside, to be fetched together and entered later.

use std::collections::HashSet;

use gix::ObjectId;

use super::bulk::{Cargo, Subtree};
use super::class::ClassTable;
use super::queue::{Class, Want};
use crate::store::{Listing, Store, StoreError};

/// How far a selection reaches below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything below is selected.
    All,
    /// Something below may be: ask for each entry.
    Some,
    /// Nothing below can be.
    None,
}

/// Which paths a walk is for. Paths are relative to the root, without a leading or trailing slash; the root is empty.
pub trait Select: Send {
    /// How far it reaches below the directory `path`.
    fn directory(&mut self, path: &[u8]) -> Reach;

    /// Whether it has the file, symlink or gitlink `path`, in a directory where it reaches [`Reach::Some`].
    fn file(&mut self, path: &[u8]) -> bool;
}

/// Selects everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything;

impl Select for Everything {
    fn directory(&mut self, _: &[u8]) -> Reach {
        Reach::All
    }

    fn file(&mut self, _: &[u8]) -> bool {
        true
    }
}

/// Distinct objects told apart at most: 20 MB. Beyond it one that is named twice may be counted twice.
const DISTINCT_MAX: usize = 1 << 20;

/// Trees set aside before they are fetched together.
const ABSENT_MAX: usize = 4096;

/// Entries looked up in one transaction.
const LOOKED_UP: usize = 4096;

/// A tree with fewer blobs is not worth a line of its own: it brings itself and its subtrees along.
const SUBTREE_MIN: usize = 4;

/// Files that tools open first, asked for ahead of the rest: a request of their own that takes no time.
const FIRST_MAX: usize = 1024;

/// What a walk came past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Distinct blobs selected.
    pub selected: u64,
    /// Those above the limit.
    pub left_out: u64,
}

/// A directory to be entered.
#[derive(Debug)]
pub struct Directory {
    tree: ObjectId,
    path: Vec<u8>,
    /// Everything below is selected.
    whole: bool,
}

impl Directory {
    /// Its tree.
    pub fn tree(&self) -> ObjectId {
        self.tree
    }
}

#[derive(Debug)]
enum Step {
    Enter(Directory),
    /// Its files from a position on.
    Files {
        directory: Directory,
        listing: Listing,
        from: usize,
    },
    /// Everything below was walked. Where in which window that began, and after how many blobs.
    Leave {
        tree: ObjectId,
        whole: bool,
        window: u64,
        begin: usize,
        passed: u64,
    },
}

/// A part of a walk.
#[derive(Debug, Default)]
pub struct Window {
    /// What the store lacks.
    pub cargo: Cargo,
    /// Of that, what tools open first.
    pub first: Vec<Want>,
    /// Trees the store lacks.
    pub absent: Vec<Directory>,
    /// Nothing follows, unless [`Self::absent`] are entered.
    pub last: bool,
}

/// A walk that can be continued.
pub struct Walk {
    store: Store,
    select: Box<dyn Select>,
    max_blob_bytes: Option<u64>,
    steps: Vec<Step>,
    entered: Distinct,
    blobs: Distinct,
    absent: Vec<Directory>,
    tally: Tally,
    window: u64,
}

impl Walk {
    /// A walk over what `select` has below the tree `root`, leaving out blobs known to be larger than `max_blob_bytes`.
    pub fn new(store: Store, root: ObjectId, mut select: Box<dyn Select>, max_blob_bytes: Option<u64>) -> Self {
        let reach = select.directory(b"");
        let root = Directory { tree: root, path: Vec::new(), whole: reach == Reach::All };
        Self {
            store,
            select,
            max_blob_bytes,
            steps: if reach == Reach::None { Vec::new() } else { vec![Step::Enter(root)] },
            entered: Distinct::default(),
            blobs: Distinct::default(),
            absent: Vec::new(),
            tally: Tally::default(),
            window: 0,
        }
    }

    /// What it came past so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Enters directories whose trees were fetched meanwhile.
    pub fn resume(&mut self, directories: Vec<Directory>) {
        for directory in &directories {
            self.entered.remove(&directory.tree);
        }
        self.steps.extend(directories.into_iter().map(Step::Enter));
    }

    /// Walks until `most` blobs are found that the store lacks, or many trees, or nothing is left.
    pub fn window(&mut self, most: usize, classes: &ClassTable) -> Result<Window, StoreError> {
        self.window += 1;
        let mut window = Window::default();
        window.cargo.max_blob_bytes = self.max_blob_bytes;
        while window.cargo.wants.len() < most && self.absent.len() < ABSENT_MAX {
            match self.steps.pop() {
                None => break,
                Some(Step::Enter(directory)) => self.enter(directory, window.cargo.wants.len())?,
                Some(Step::Files { directory, listing, from }) => {
                    let room = (most - window.cargo.wants.len()).min(LOOKED_UP);
                    self.files(&mut window, &directory, &listing, from..from.saturating_add(room), classes)?;
                    if from + room < listing.len() {
                        self.steps.push(Step::Files { directory, listing, from: from + room });
                    }
                }
                Some(Step::Leave { tree, whole, window: began, begin, passed }) => {
                    let here = whole && began == self.window;
                    leave(&mut window.cargo, here.then_some(tree), begin, self.tally.selected - passed);
                }
            }
        }
        window.absent = std::mem::take(&mut self.absent);
        window.last = self.steps.is_empty();
        Ok(window)
    }

    /// Counts the blobs selected, without asking which are here. Trees the store lacks are passed by.
    pub fn count(self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.blobs(|ids| -> Result<(), StoreError> {
            count += ids.len() as u64;
            Ok(())
        })?;
        Ok(count)
    }

    /// Hands on the blobs selected, a directory's at a time, whether they are here or not. Trees the store lacks are passed
    /// by; tells how many those are.
    pub fn blobs<E: From<StoreError>>(
        mut self,
        mut visit: impl FnMut(&[ObjectId]) -> Result<(), E>,
    ) -> Result<usize, E> {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Enter(directory) => self.enter(directory, 0)?,
                Step::Files { directory, listing, .. } => {
                    let found = self.selected(&directory, &listing, 0..listing.len());
                    let ids: Vec<ObjectId> = found.into_iter().map(|(_, id)| id).collect();
                    visit(&ids)?;
                }
                Step::Leave { .. } => {}
            }
        }
        Ok(self.absent.len())
    }

    fn enter(&mut self, directory: Directory, begin: usize) -> Result<(), StoreError> {
        // The same tree elsewhere has the same blobs, unless only some of them are selected.
        if directory.whole && !self.entered.insert(&directory.tree) {
            return Ok(());
        }
        let Some(listing) = self.store.tree(&directory.tree)? else {
            self.absent.push(directory);
            return Ok(());
        };
        let Directory { tree, whole, .. } = directory;
        self.steps.push(Step::Leave { tree, whole, window: self.window, begin, passed: self.tally.selected });
        let begin = self.steps.len();
        for entry in listing.iter().filter(|entry| entry.kind == crate::store::EntryKind::Directory) {
            let path = if whole { Vec::new() } else { join(&directory.path, entry.name) };
            let reach = if whole { Reach::All } else { self.select.directory(&path) };
            if reach != Reach::None {
                self.steps.push(Step::Enter(Directory { tree: entry.id, path, whole: reach == Reach::All }));
            }
        }
        // The last step pushed is the first one taken.
        self.steps[begin..].reverse();
        self.steps.push(Step::Files { directory, listing, from: 0 });
        Ok(())
    }

    /// Selected blobs at `places` that were not named before: where they are, and what.
    fn selected(
        &mut self,
        directory: &Directory,
        listing: &Listing,
        places: std::ops::Range<usize>,
    ) -> Vec<(usize, ObjectId)> {
        let mut found = Vec::new();
        for place in places.start..places.end.min(listing.len()) {
            let Some(entry) = listing.get(place).filter(|entry| entry.kind.is_blob()) else { continue };
            if (directory.whole || self.select.file(&join(&directory.path, entry.name))) && self.blobs.insert(&entry.id)
            {
                found.push((place, entry.id));
            }
        }
        self.tally.selected += found.len() as u64;
        found
    }

    fn files(
        &mut self,
        window: &mut Window,
        directory: &Directory,
        listing: &Listing,
        places: std::ops::Range<usize>,
        classes: &ClassTable,
    ) -> Result<(), StoreError> {
        let found = self.selected(directory, listing, places);
        let ids: Vec<ObjectId> = found.iter().map(|(_, id)| *id).collect();
        let missing = self.store.missing_blobs(&ids)?;
        let sizes = match self.max_blob_bytes {
            Some(_) => self.store.sizes(&missing)?,
            None => vec![None; missing.len()],
        };
        let begin = window.cargo.wants.len();
        let mut unsized_blobs = false;
        let mut places = found.into_iter();
        for (id, size) in missing.into_iter().zip(sizes) {
            // Both are in the order of the listing.
            let place = places.find(|(_, other)| *other == id).map(|(place, _)| place);
            match (size, self.max_blob_bytes) {
                (Some(size), Some(most)) if size > most => {
                    self.tally.left_out += 1;
                    continue;
                }
                (None, Some(_)) => unsized_blobs = true,
                _ => {}
            }
            let want = Want { id, size };
            let name = place.and_then(|place| listing.get(place)).map_or(&b""[..], |entry| entry.name);
            if window.first.len() < FIRST_MAX && classes.class(name, size) == Class::Manifest {
                window.first.push(want);
            }
            window.cargo.wants.push(want);
        }
        if unsized_blobs {
            let wants = begin..window.cargo.wants.len();
            window.cargo.subtrees.push(Subtree { tree: directory.tree, wants, always: true });
        }
        Ok(())
    }
}

/// Notes that the blobs from `begin` on are those of `tree`, when there is one, of `passed` in all.
fn leave(cargo: &mut Cargo, tree: Option<ObjectId>, begin: usize, passed: u64) {
    let Some(tree) = tree else { return };
    let wants = begin..cargo.wants.len();
    let most_is_missing = wants.len() as u64 * 4 >= passed * 3;
    if wants.len() < SUBTREE_MIN || !most_is_missing {
        return;
    }
    let mut always = false;
    while let Some(inner) = cargo.subtrees.pop_if(|inner| inner.wants.start >= begin) {
        always |= inner.always;
    }
    cargo.subtrees.push(Subtree { tree, wants, always });
}

/// The path of `name` in the directory `path`; the root is empty.
pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// A bounded set of object ids, told apart by their first eight bytes.
#[derive(Default)]
struct Distinct(HashSet<u64>);

impl Distinct {
    /// Whether `id` is new, as far as is known.
    fn insert(&mut self, id: &ObjectId) -> bool {
        let key = key(id);
        if self.0.len() < DISTINCT_MAX { self.0.insert(key) } else { !self.0.contains(&key) }
    }

    fn remove(&mut self, id: &ObjectId) {
        self.0.remove(&key(id));
    }
}

fn key(id: &ObjectId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
