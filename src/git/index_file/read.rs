//! The index that is there: what is staged in it, and the stat data worth keeping.
//!
//! Versions 2 to 4, and split indexes, which are read as one. Refuses sparse
//! indexes and entries marked skip-worktree: which of a new tree's files
//! belong to a sparse checkout is for Git to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gix::ObjectId;
use gix::hash::Kind;
use gix::index::entry::{Flags, Stage};
use gix::index::extension::Tree as CacheTree;

use super::walk::index_order;
use super::{BoxError, IndexFileError, Stat};
use crate::store::{Entry, EntryKind, Listing};

/// Largest allocation for what the file claims to hold.
const ALLOCATION_BYTES: usize = 8 << 30;

/// An entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// What it is; never a directory.
    pub kind: EntryKind,
    /// Its object.
    pub id: ObjectId,
    /// Its stat data.
    pub stat: Stat,
    /// Whether it only announces a file (`git add --intent-to-add`).
    pub intent_to_add: bool,
}

/// Where the index is not what a tree says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In the tree.
    pub tree: Option<(EntryKind, ObjectId)>,
    /// In the index.
    pub index: Option<IndexEntry>,
}

/// An index that was read.
pub struct OldIndex {
    file: gix::index::File,
    kinds: Vec<EntryKind>,
}

/// Where trees come from.
type Trees<'a> = &'a dyn Fn(&ObjectId) -> Result<Listing, BoxError>;

impl OldIndex {
    /// Reads `admin/index`. `None`: there is none.
    pub fn read(admin: &Path, object_format: Kind) -> Result<Option<Self>, IndexFileError> {
        let path = admin.join("index");
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IndexFileError::Io { path, source }),
            Ok(_) => {}
        }
        let options = gix::index::decode::Options {
            // Reading takes 15 ms for 79,000 entries; a second thread for half of it is not worth having.
            thread_limit: Some(1),
            alloc_limit_bytes: Some(ALLOCATION_BYTES),
            ..gix::index::decode::Options::default()
        };
        let damaged = |reason: String| IndexFileError::Damaged { path: path.clone(), reason };
        // As Git itself, without looking at the checksum.
        let file =
            gix::index::File::at(&path, object_format, true, options).map_err(|error| damaged(error.to_string()))?;
        let mut kinds = Vec::with_capacity(file.entries().len());
        for entry in file.entries() {
            if entry.mode.is_sparse() || entry.flags.contains(Flags::SKIP_WORKTREE) {
                return Err(IndexFileError::Unsupported("one of a sparse checkout"));
            }
            let mode = u16::try_from(entry.mode.bits()).ok().and_then(EntryKind::from_mode);
            kinds.push(mode.ok_or_else(|| damaged(format!("an entry has the unknown mode {:o}", entry.mode.bits())))?);
        }
        Ok(Some(Self { file, kinds }))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Paths that a merge left in conflict.
    pub fn unmerged(&self) -> BTreeSet<Vec<u8>> {
        let conflicts = self.file.entries().iter().filter(|entry| entry.stage() != Stage::Unconflicted);
        conflicts.map(|entry| self.path(entry).to_vec()).collect()
    }

    /// Paths marked by `git update-index --assume-unchanged`.
    pub fn assumed_valid(&self) -> BTreeSet<Vec<u8>> {
        let marked = self.file.entries().iter().filter(|entry| entry.flags.contains(Flags::ASSUME_VALID));
        marked.map(|entry| self.path(entry).to_vec()).collect()
    }

    fn path(&self, entry: &gix::index::Entry) -> &[u8] {
        entry.path(&self.file)
    }

    fn entry(&self, at: usize) -> IndexEntry {
        let entry = &self.file.entries()[at];
        let stat = Stat {
            ctime: (entry.stat.ctime.secs, entry.stat.ctime.nsecs),
            mtime: (entry.stat.mtime.secs, entry.stat.mtime.nsecs),
            dev: entry.stat.dev,
            ino: entry.stat.ino,
            uid: entry.stat.uid,
            gid: entry.stat.gid,
            size: entry.stat.size,
        };
        let intent_to_add = entry.flags.contains(Flags::INTENT_TO_ADD);
        IndexEntry { kind: self.kinds[at], id: entry.id, stat, intent_to_add }
    }

    /// The entry at `path`, looked up from `cursor` on, which is moved there: for paths that come in order.
    pub fn next_at(&self, cursor: &mut usize, path: &[u8]) -> Option<IndexEntry> {
        let entries = self.file.entries();
        while entries.get(*cursor).is_some_and(|entry| self.path(entry) < path) {
            *cursor += 1;
        }
        let entry = entries.get(*cursor).filter(|entry| self.path(entry) == path);
        entry.filter(|entry| entry.stage() == Stage::Unconflicted).map(|_| self.entry(*cursor))
    }

    /// Where the index is not what the tree `root` says. Directories that the cache-tree has the id of are not
    /// looked into.
    pub fn staged(&self, root: ObjectId, trees: Trees<'_>) -> Result<BTreeMap<Vec<u8>, Difference>, IndexFileError> {
        let mut comparison = Comparison { old: self, at: 0, found: BTreeMap::new() };
        let cached = self.file.tree();
        if !comparison.skip(b"", cached, root) {
            comparison.run(root, cached, trees)?;
        }
        comparison.added_before(None);
        Ok(comparison.found)
    }
}

/// A tree being compared.
struct Frame<'a> {
    listing: Listing,
    order: Vec<u32>,
    next: usize,
    path_length: usize,
    cached: Option<&'a CacheTree>,
}

/// The walk over a tree and the index side by side.
struct Comparison<'a> {
    old: &'a OldIndex,
    /// The entry that comes next.
    at: usize,
    found: BTreeMap<Vec<u8>, Difference>,
}

impl<'a> Comparison<'a> {
    fn run(&mut self, root: ObjectId, cached: Option<&'a CacheTree>, trees: Trees<'_>) -> Result<(), IndexFileError> {
        let mut path = Vec::new();
        let mut stack = vec![frame(trees, root, &path, cached)?];
        while let Some(top) = stack.last_mut() {
            path.truncate(top.path_length);
            let position = top.order.get(top.next).map(|position| *position as usize);
            top.next += 1;
            let Some(entry) = position.and_then(|position| top.listing.get(position)) else {
                stack.pop();
                continue;
            };
            path.extend_from_slice(entry.name);
            if entry.kind != EntryKind::Directory {
                self.leaf(&path, &entry);
                continue;
            }
            let (id, name) = (entry.id, entry.name.to_vec());
            let below = top.cached.and_then(|cached| cached.children.iter().find(|child| child.name[..] == name[..]));
            path.push(b'/');
            self.added_before(Some(&path));
            if !self.skip(&path, below, id) {
                let frame = frame(trees, id, &path, below)?;
                stack.push(frame);
            }
        }
        Ok(())
    }

    /// Passes over the entries beneath `prefix` if the cache-tree says that they are the tree `id`.
    fn skip(&mut self, prefix: &[u8], cached: Option<&CacheTree>, id: ObjectId) -> bool {
        let Some(count) = cached.filter(|cached| cached.id == id).and_then(|cached| cached.num_entries) else {
            return false;
        };
        let end = self.at + count as usize;
        // The number cannot be trusted; an honest one ends with the directory.
        let inside = |at: usize| self.old.file.entries().get(at).is_some_and(|e| self.old.path(e).starts_with(prefix));
        let honest = end <= self.old.len() && (count == 0 || inside(self.at) && inside(end - 1)) && !inside(end);
        if honest {
            self.at = end;
        }
        honest
    }

    fn leaf(&mut self, path: &[u8], entry: &Entry<'_>) {
        self.added_before(Some(path));
        let tree = Some((entry.kind, entry.id));
        let index = self.take(path);
        if index.is_none_or(|index| (index.kind, index.id) != (entry.kind, entry.id) || index.intent_to_add) {
            self.found.insert(path.to_vec(), Difference { tree, index });
        }
    }

    /// The entry at `path`, if it comes next; of one in conflict, the last stage.
    fn take(&mut self, path: &[u8]) -> Option<IndexEntry> {
        let mut taken = None;
        while self.old.file.entries().get(self.at).is_some_and(|entry| self.old.path(entry) == path) {
            taken = Some(self.old.entry(self.at));
            self.at += 1;
        }
        taken
    }

    /// Notes entries before `path` that the tree does not have; all that are left, without one.
    fn added_before(&mut self, path: Option<&[u8]>) {
        while let Some(entry) = self.old.file.entries().get(self.at) {
            let here = self.old.path(entry);
            if path.is_some_and(|path| here >= path) {
                return;
            }
            let index = Some(self.old.entry(self.at));
            self.found.insert(here.to_vec(), Difference { tree: None, index });
            self.at += 1;
        }
    }
}

fn frame<'a>(
    trees: Trees<'_>,
    id: ObjectId,
    path: &[u8],
    cached: Option<&'a CacheTree>,
) -> Result<Frame<'a>, IndexFileError> {
    let listing = trees(&id).map_err(|source| IndexFileError::Tree { id, path: path.to_vec(), source })?;
    let order = index_order(&listing).unwrap_or_else(|| (0..).take(listing.len()).collect());
    Ok(Frame { listing, order, next: 0, path_length: path.len(), cached })
}
