//! The walk over a root tree in the index's order: whole paths compared byte by byte.
//!
//! In a directory that order is by name, where a directory's name ends in `/`:
//! `a.b` comes before `a/b`, and both after `a`. Listings are sorted by bare name,
//! so only directories with such neighbours need sorting.

use std::cmp::Ordering;

use gix::ObjectId;

use std::collections::HashSet;
use std::collections::btree_map;
use std::iter::Peekable;

use super::entries::{EntryWriter, Marks};
use super::{IndexFileError, IndexSpec, Staged, StagedEntry, Stat, StatRequest};
use crate::store::{Entry, EntryKind, Listing};

/// Deepest directory that is written. Git itself recurses over directories, and runs out of stack somewhat deeper.
pub const MAX_DEPTH: usize = 10_000;

/// A directory met on the walk; its number is its place in [`Directories::all`].
pub(super) struct Directory {
    pub(super) parent: u32,
    name: (usize, usize),
    pub(super) id: ObjectId,
    pub(super) stat: Stat,
    /// Id of its `.gitignore`, where Git is to read one.
    pub(super) exclude: Option<ObjectId>,
    /// Index entries in it and beneath.
    pub(super) entries: u32,
    /// Whether those entries make exactly this tree.
    pub(super) exact: bool,
}

/// All directories in the order they were met, parents first.
#[derive(Default)]
pub(super) struct Directories {
    pub(super) all: Vec<Directory>,
    names: Vec<u8>,
    pub(super) omitted: u64,
    pub(super) read_first: Vec<(Vec<u8>, ObjectId)>,
}

impl Directories {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn name(&self, number: u32) -> &[u8] {
        let (start, end) = self.all[number as usize].name;
        &self.names[start..end]
    }

    fn push(&mut self, parent: u32, name: &[u8], id: ObjectId, stat: Stat) -> u32 {
        let number = u32::try_from(self.all.len()).expect("fewer than max_paths, which fits 32 bits");
        let before = self.names.len();
        self.names.extend_from_slice(name);
        let range = (before, self.names.len());
        self.all.push(Directory { parent, name: range, id, stat, exclude: None, entries: 0, exact: true });
        number
    }

    /// Carries counts and inexactness from children up; children always have greater numbers.
    fn sum_up(&mut self) {
        for number in (1..self.all.len()).rev() {
            let Directory { parent, entries, exact, .. } = self.all[number];
            let parent = &mut self.all[parent as usize];
            parent.entries += entries;
            parent.exact &= exact;
        }
    }
}

/// A directory being walked.
struct Frame {
    listing: Listing,
    /// Positions in index order; `None` when that is the listing's own.
    order: Option<Vec<u32>>,
    next: usize,
    path_length: usize,
    number: u32,
}

impl Frame {
    fn new(listing: Listing, path_length: usize, number: u32) -> Self {
        Self { order: index_order(&listing), listing, next: 0, path_length, number }
    }

    /// The next position in the listing.
    fn advance(&mut self) -> Option<usize> {
        let at = self.next;
        self.next += 1;
        match &self.order {
            Some(order) => order.get(at).map(|&position| position as usize),
            None => (at < self.listing.len()).then_some(at),
        }
    }
}

pub(super) fn index_order(listing: &Listing) -> Option<Vec<u32>> {
    if listing.directories() == 0 {
        return None;
    }
    let entries: Vec<Entry<'_>> = listing.iter().collect();
    if entries.is_sorted_by(|a, b| compare(a, b) == Ordering::Less) {
        return None;
    }
    let mut order: Vec<u32> = (0..).take(entries.len()).collect();
    order.sort_by(|&a, &b| compare(&entries[a as usize], &entries[b as usize]));
    Some(order)
}

fn compare(a: &Entry<'_>, b: &Entry<'_>) -> Ordering {
    let shared = a.name.len().min(b.name.len());
    a.name[..shared].cmp(&b.name[..shared]).then_with(|| {
        let next = |e: &Entry<'_>| match e.name.get(shared) {
            Some(&byte) => Some(byte),
            None => (e.kind == EntryKind::Directory).then_some(b'/'),
        };
        next(a).cmp(&next(b))
    })
}

/// What is staged, taken along while the tree is walked.
struct Pending<'a> {
    staged: &'a Staged,
    entries: Peekable<btree_map::Iter<'a, Vec<u8>, Option<StagedEntry>>>,
    /// Directories whose entries are not exactly their tree's, without the root.
    inexact: HashSet<&'a [u8]>,
}

impl<'a> Pending<'a> {
    fn new(staged: &'a Staged) -> Self {
        let ancestors =
            |path: &'a Vec<u8>| path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end]);
        let inexact = staged.entries.keys().flat_map(ancestors).collect();
        Self { staged, entries: staged.entries.iter().peekable(), inexact }
    }

    /// Writes what is staged before `path`; all that is left, without one. Tells whether `path` itself is staged.
    fn write_before(&mut self, path: Option<&[u8]>, writer: &mut EntryWriter<'_>) -> Result<bool, IndexFileError> {
        while let Some((staged, entry)) =
            self.entries.next_if(|(staged, _)| path.is_none_or(|path| staged.as_slice() <= path))
        {
            if let Some(entry) = entry {
                let marks = Marks {
                    assume_valid: self.staged.assume_valid.contains(staged),
                    intent_to_add: entry.intent_to_add,
                    unknown: true,
                };
                let written = writer.entry(staged, entry.kind, &entry.id, &entry.stat, marks);
                written.map_err(|source| IndexFileError::Io { path: "index".into(), source })?;
            }
            if path.is_some_and(|path| staged.as_slice() == path) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn marks(&self, path: &[u8]) -> Marks {
        Marks {
            assume_valid: self.staged.assume_valid.contains(path),
            intent_to_add: false,
            unknown: self.staged.unknown.contains(path),
        }
    }
}

/// Whether a working tree can hold that name. Git refuses to check out the others.
fn holdable(name: &[u8]) -> bool {
    !name.is_empty()
        && !name.contains(&0)
        && !name.contains(&b'/')
        && name != b"."
        && name != b".."
        && !name.eq_ignore_ascii_case(b".git")
}

/// Writes an entry for every file beneath the root, in order.
pub(super) fn walk(
    spec: &IndexSpec<'_>,
    staged: &Staged,
    writer: &mut EntryWriter<'_>,
) -> Result<Directories, IndexFileError> {
    let mut pending = Pending::new(staged);
    let max_paths = spec.max_paths.min(u64::from(u32::MAX) - 1);
    let too_large = |reason| IndexFileError::TooLarge { root: spec.root, reason };
    let mut directories = Directories::default();
    let mut path = Vec::with_capacity(4096);
    let root = StatRequest { path: b"", kind: EntryKind::Directory, id: &spec.root, parent: 0, position: 0 };
    let number = directories.push(0, b"", spec.root, (spec.stat)(&root));
    directories.all[0].exact = staged.entries.is_empty();
    let mut stack = vec![Frame::new(tree(spec, &spec.root, &path)?, 0, number)];
    while let Some(frame) = stack.last_mut() {
        path.truncate(frame.path_length);
        let parent = frame.number;
        let Some((position, entry)) = frame.advance().and_then(|at| Some((at, frame.listing.get(at)?))) else {
            stack.pop();
            continue;
        };
        if writer.entries + directories.len() as u64 + directories.omitted >= max_paths {
            return Err(too_large(format!("more than {max_paths} paths")));
        }
        if !holdable(entry.name) || entry.id.kind() != spec.object_format {
            directories.omitted += 1;
            directories.all[parent as usize].exact = false;
            continue;
        }
        path.extend_from_slice(entry.name);
        let request = StatRequest { path: &path, kind: entry.kind, id: &entry.id, parent, position };
        // Git compares no stat data of gitlinks, and writes none.
        let stat = if entry.kind == EntryKind::Gitlink { Stat::default() } else { (spec.stat)(&request) };
        if entry.kind == EntryKind::Directory {
            let (id, number) = (entry.id, directories.push(parent, entry.name, entry.id, stat));
            if stack.len() >= MAX_DEPTH {
                return Err(too_large(format!("deeper than {MAX_DEPTH} directories")));
            }
            let listing = tree(spec, &id, &path)?;
            directories.all[number as usize].exact = !pending.inexact.contains(path.as_slice());
            path.push(b'/');
            stack.push(Frame::new(listing, path.len(), number));
        } else {
            file(spec, &mut directories, parent, &entry, &path);
            if !pending.write_before(Some(&path), writer)? {
                writer
                    .entry(&path, entry.kind, &entry.id, &stat, pending.marks(&path))
                    .map_err(|source| IndexFileError::Io { path: "index".into(), source })?;
            }
        }
    }
    pending.write_before(None, writer)?;
    directories.sum_up();
    Ok(directories)
}

/// Counts a file and notes it if Git reads it before others. Git follows no symbolic link to such a file.
fn file(spec: &IndexSpec<'_>, directories: &mut Directories, parent: u32, entry: &Entry<'_>, path: &[u8]) {
    let directory = &mut directories.all[parent as usize];
    directory.entries += 1;
    if !matches!(entry.kind, EntryKind::File | EntryKind::Executable) {
        return;
    }
    let ignore = entry.name == b".gitignore";
    if let (true, Some(untracked)) = (ignore, &spec.untracked) {
        directory.exclude = (untracked.exclude_id)(path, &entry.id);
    }
    if ignore || entry.name == b".gitattributes" {
        directories.read_first.push((path.to_vec(), entry.id));
    }
}

fn tree(spec: &IndexSpec<'_>, id: &ObjectId, path: &[u8]) -> Result<Listing, IndexFileError> {
    let listing = (spec.trees)(id).map_err(|source| IndexFileError::Tree { id: *id, path: path.to_vec(), source })?;
    if listing.id_len() != spec.object_format.len_in_bytes() {
        return Err(IndexFileError::Invalid("a tree is of another object format"));
    }
    Ok(listing)
}
