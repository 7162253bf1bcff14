//! Garbage collection: roots → marks → plan.
//!
//! A plan is a value: it names what would go, why, and under which paths it was known, and changes nothing.
//! [`crate::store::Store::remove_blobs`] and its neighbours carry it out.
//!
//! Two kinds of roots. What is *named* stays as long as there is room and it is not too old: the trees of generations. What
//! is *held* stays whatever happens: pins, work in progress, files that are open. What no root reaches goes.

use std::collections::HashMap;

use gix::ObjectId;

use super::IndexError;
use crate::hydrate::walk::{Reach, Select, join};
use crate::store::{EntryKind, IdSet, KeepSize, Listing, Store, StoredBlob};

/// Rows of a plan that are told, the largest; the rest is counted.
const ROWS_MAX: usize = 10_000;

/// Files named in a row, the largest.
const FILES_MAX: usize = 3;

/// A tree that keeps something.
pub struct Held {
    /// The tree.
    pub tree: ObjectId,
    /// Which of its files; all of its trees are held anyway.
    pub select: Box<dyn Select>,
}

/// What keeps objects.
#[derive(Default)]
pub struct Roots {
    /// Trees that name what they reach.
    pub named: Vec<ObjectId>,
    /// Trees that hold what they reach.
    pub held: Vec<Held>,
    /// Blobs that are held by themselves.
    pub blobs: Vec<ObjectId>,
}

/// What roots reach.
#[derive(Debug, Default)]
pub struct Marks {
    /// Trees.
    pub trees: IdSet,
    /// Blobs that are named.
    pub named: IdSet,
    /// Blobs that are held.
    pub held: IdSet,
    /// Whether every tree below the roots is here; if not, nobody knows what the missing ones reach.
    pub certain: bool,
}

impl Marks {
    /// Whether any root reaches the blob.
    pub fn reaches(&self, blob: &ObjectId) -> bool {
        self.named.contains(blob) || self.held.contains(blob)
    }
}

/// Marks everything that `roots` reach.
pub fn mark(store: &Store, roots: Roots) -> Result<Marks, IndexError> {
    let mut marks = Marks { certain: true, ..Marks::default() };
    for tree in roots.named {
        each_tree(store, tree, &mut marks.trees, &mut marks.certain, |entry| {
            marks.named.insert(entry);
        })?;
    }
    let mut whole = IdSet::default();
    for Held { tree, select } in roots.held {
        // All trees, then of the blobs those that are selected.
        each_tree(store, tree, &mut marks.trees, &mut marks.certain, |_| {})?;
        hold(store, tree, select, &mut whole, &mut marks.held)?;
    }
    marks.held.extend(&roots.blobs);
    for (id, source) in store.converted_sources()? {
        for set in [&mut marks.named, &mut marks.held] {
            if set.contains(&source) {
                set.insert(&id);
            }
        }
    }
    Ok(marks)
}

/// Calls `see` with every blob below `root` in trees not in `seen`.
fn each_tree(
    store: &Store,
    root: ObjectId,
    seen: &mut IdSet,
    certain: &mut bool,
    mut see: impl FnMut(&ObjectId),
) -> Result<(), IndexError> {
    let mut open = if seen.insert(&root) { vec![root] } else { Vec::new() };
    while let Some(id) = open.pop() {
        let Some(listing) = store.tree(&id)? else {
            *certain = false;
            continue;
        };
        for entry in listing.iter() {
            match entry.kind {
                EntryKind::Directory if seen.insert(&entry.id) => open.push(entry.id),
                EntryKind::Directory | EntryKind::Gitlink => {}
                EntryKind::File | EntryKind::Executable | EntryKind::Symlink => see(&entry.id),
            }
        }
    }
    Ok(())
}

/// Adds the blobs to `held` that `select` has below `root`. `whole`: trees all blobs of which are held already.
fn hold(
    store: &Store,
    root: ObjectId,
    mut select: Box<dyn Select>,
    whole: &mut IdSet,
    held: &mut IdSet,
) -> Result<(), IndexError> {
    let mut open = vec![(root, Vec::new(), select.directory(b""))];
    while let Some((id, path, reach)) = open.pop() {
        if reach == Reach::None || (reach == Reach::All && !whole.insert(&id)) {
            continue;
        }
        let Some(listing) = store.tree(&id)? else { continue };
        for entry in listing.iter() {
            let below = if reach == Reach::All { Vec::new() } else { join(&path, entry.name) };
            match entry.kind {
                EntryKind::Directory => {
                    let reach = if reach == Reach::All { reach } else { select.directory(&below) };
                    open.push((entry.id, below, reach));
                }
                EntryKind::Gitlink => {}
                EntryKind::File | EntryKind::Executable | EntryKind::Symlink => {
                    if reach == Reach::All || select.file(&below) {
                        held.insert(&entry.id);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Trees that no root reaches; none if that is not certain.
pub fn unreached_trees(store: &Store, marks: &Marks) -> Result<Vec<ObjectId>, IndexError> {
    if marks.certain { Ok(store.trees_where(|id| !marks.trees.contains(id))?) } else { Ok(Vec::new()) }
}

/// What is to go beside what no root reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What no root reaches stays if it was used after that (hours since 1970).
    pub unreached_before: Option<u32>,
    /// What is only named goes if it was not used after that (hours since 1970).
    pub named_before: Option<u32>,
    /// Stored bytes of all blobs at most: what is only named goes for it, what was not used for longest and large first.
    pub most_bytes: Option<u64>,
    /// For that, about so many bytes of what was stored last stay.
    pub spare_newest_bytes: u64,
}

/// Why a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// No root reaches it.
    Unreached,
    /// It was not used for long.
    Old,
    /// To make room.
    Room,
}

/// What would go, and what stays.
#[derive(Debug, Default)]
pub struct Plan {
    /// Blobs, and why.
    pub blobs: Vec<(StoredBlob, Why)>,
    /// Stored bytes of those blobs.
    pub bytes: u64,
    /// Blobs that stay.
    pub kept_objects: u64,
    /// Their stored bytes.
    pub kept_bytes: u64,
    /// Stored bytes that could not go although more room was asked for.
    pub missing_bytes: u64,
}

impl Plan {
    /// Works out what goes. `hour`: now, in hours since 1970.
    pub fn new(store: &Store, marks: &Marks, rules: &Rules, hour: u32) -> Result<Self, IndexError> {
        let (total_objects, total_bytes) = {
            let stats = store.stats()?;
            (stats.blobs, stats.stored_bytes)
        };
        let goes = |blob: &StoredBlob| {
            if !marks.reaches(&blob.id) {
                return rules.unreached_before.is_none_or(|hour| blob.last_used <= hour).then_some(Why::Unreached);
            }
            let old = rules.named_before.is_some_and(|hour| blob.last_used <= hour);
            (old && !marks.held.contains(&blob.id)).then_some(Why::Old)
        };
        let for_room = |blob: &StoredBlob| rules.most_bytes.is_some() && !marks.held.contains(&blob.id);
        let found = store.blobs_where(|blob| goes(blob).is_some() || for_room(blob))?;
        let mut plan = Self::default();
        let mut spare = Vec::new();
        for blob in found {
            match goes(&blob) {
                Some(why) => plan.take(blob, why),
                None => spare.push(blob),
            }
        }
        if let Some(most) = rules.most_bytes {
            spare_newest(&mut spare, rules.spare_newest_bytes);
            spare.sort_by_cached_key(|blob| (std::cmp::Reverse(worth_going(blob, hour)), blob.chunk()));
            for blob in spare {
                if total_bytes.saturating_sub(plan.bytes) <= most {
                    break;
                }
                plan.take(blob, Why::Room);
            }
            plan.missing_bytes = total_bytes.saturating_sub(plan.bytes).saturating_sub(most);
        }
        plan.kept_objects = total_objects.saturating_sub(plan.blobs.len() as u64);
        plan.kept_bytes = total_bytes.saturating_sub(plan.bytes);
        Ok(plan)
    }

    fn take(&mut self, blob: StoredBlob, why: Why) {
        self.bytes += blob.stored_size;
        self.blobs.push((blob, why));
    }

    /// What the sweep is to do: of what is still named, the size stays known.
    pub fn victims(&self) -> Vec<(StoredBlob, KeepSize)> {
        let keep = |why: Why| if why == Why::Unreached { KeepSize::No } else { KeepSize::Yes };
        self.blobs.iter().map(|(blob, why)| (blob.clone(), keep(*why))).collect()
    }
}

/// Leaves out the last `bytes` of what was stored.
fn spare_newest(blobs: &mut Vec<StoredBlob>, bytes: u64) {
    blobs.sort_unstable_by_key(StoredBlob::chunk);
    let mut spared = 0;
    while spared < bytes
        && let Some(blob) = blobs.pop()
    {
        spared += blob.stored_size;
    }
}

/// How much sooner than others a blob goes: by the time since its last use, and among those of the same time by size, so
/// that one large file goes before a thousand small ones that took as many requests as files.
fn worth_going(blob: &StoredBlob, hour: u32) -> u64 {
    let age = u64::from(hour.saturating_sub(blob.last_used));
    let pages = blob.stored_size / 4096 + 1;
    age * u64::from(64 - pages.leading_zeros())
}

/// Where an object was known to be: a tree and what it is called.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The tree.
    pub tree: ObjectId,
    /// What people call it: `generation 3 of linux`.
    pub label: String,
}

/// A directory from which objects go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Why.
    pub why: Why,
    /// Which [`Origin`] names it; `None`: no tree that is known does.
    pub origin: Option<usize>,
    /// The directory in it; the root is empty.
    pub directory: Vec<u8>,
    /// Blobs.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// The largest of them.
    pub files: Vec<Vec<u8>>,
}

/// What a [`Row`] stands for: why, whose, which directory.
type RowKey = (Why, Option<usize>, Vec<u8>);

/// A file: stored bytes and name.
type Weighed = (u64, Vec<u8>);

/// The plan by directory, the largest first; each blob is told once, under the first of `origins` that has it.
pub fn describe(store: &Store, plan: &Plan, origins: &[Origin]) -> Result<Vec<Row>, IndexError> {
    let mut unnamed: HashMap<ObjectId, (u64, Why)> =
        plan.blobs.iter().map(|(blob, why)| (blob.id, (blob.stored_size, *why))).collect();
    let mut rows: HashMap<RowKey, (Row, Vec<Weighed>)> = HashMap::new();
    let mut seen = IdSet::default();
    for (number, origin) in origins.iter().enumerate() {
        let mut open = vec![(origin.tree, Vec::new())];
        while let Some((tree, path)) = open.pop() {
            if unnamed.is_empty() {
                break;
            }
            if !seen.insert(&tree) {
                continue;
            }
            let Some(listing): Option<Listing> = store.tree(&tree)? else { continue };
            for entry in listing.iter() {
                if entry.kind == EntryKind::Directory {
                    open.push((entry.id, join(&path, entry.name)));
                } else if let Some((bytes, why)) = unnamed.remove(&entry.id) {
                    let (row, files) = rows.entry((why, Some(number), path.clone())).or_insert_with(|| {
                        let row = Row {
                            why,
                            origin: Some(number),
                            directory: path.clone(),
                            objects: 0,
                            bytes: 0,
                            files: Vec::new(),
                        };
                        (row, Vec::new())
                    });
                    row.objects += 1;
                    row.bytes += bytes;
                    files.push((bytes, entry.name.to_vec()));
                    if files.len() > 16 * FILES_MAX {
                        largest(files);
                    }
                }
            }
        }
    }
    for (bytes, why) in unnamed.into_values() {
        let (row, _) = rows.entry((why, None, Vec::new())).or_insert_with(|| {
            (Row { why, origin: None, directory: Vec::new(), objects: 0, bytes: 0, files: Vec::new() }, Vec::new())
        });
        row.objects += 1;
        row.bytes += bytes;
    }
    let mut rows: Vec<Row> = rows
        .into_values()
        .map(|(mut row, mut files)| {
            largest(&mut files);
            row.files = files.into_iter().map(|(_, name)| name).collect();
            row
        })
        .collect();
    rows.sort_by(|a, b| (b.bytes, &a.directory, a.origin).cmp(&(a.bytes, &b.directory, b.origin)));
    rows.truncate(ROWS_MAX);
    Ok(rows)
}

fn largest(files: &mut Vec<Weighed>) {
    files.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    files.truncate(FILES_MAX);
}

/// What goes when a tree is given up that others need not: blobs that only it reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// Blobs in the store.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// For each of `trees`, the blobs in the store that neither the others nor `rest` reach.
pub fn alone(store: &Store, trees: &[ObjectId], rest: &Marks) -> Result<Vec<Alone>, IndexError> {
    /// Reached by more than one.
    const SHARED: u32 = u32::MAX;
    let mut owners: HashMap<ObjectId, u32> = HashMap::new();
    let mut blobs: HashMap<ObjectId, u32> = HashMap::new();
    for (number, root) in (0_u32..).zip(trees) {
        let mut open = vec![*root];
        while let Some(tree) = open.pop() {
            // Entered once by the first that reaches it, and once more when it turns out to be shared.
            let owner = match owners.get(&tree) {
                Some(owner) if *owner == number || *owner == SHARED => continue,
                Some(_) => SHARED,
                None if rest.trees.contains(&tree) => SHARED,
                None => number,
            };
            owners.insert(tree, owner);
            let Some(listing) = store.tree(&tree)? else { continue };
            for entry in listing.iter() {
                match entry.kind {
                    EntryKind::Directory => open.push(entry.id),
                    EntryKind::Gitlink => {}
                    EntryKind::File | EntryKind::Executable | EntryKind::Symlink => {
                        let shared = owner == SHARED || rest.reaches(&entry.id);
                        let known = blobs.entry(entry.id).or_insert(number);
                        if shared || *known != number {
                            *known = SHARED;
                        }
                    }
                }
            }
        }
    }
    let mut found = vec![Alone::default(); trees.len()];
    for blob in store.blobs_where(|blob| blobs.get(&blob.id).is_some_and(|owner| *owner != SHARED))? {
        let owner = blobs.get(&blob.id).and_then(|owner| found.get_mut(usize::try_from(*owner).ok()?));
        if let Some(alone) = owner {
            alone.objects += 1;
            alone.bytes += blob.stored_size;
        }
    }
    Ok(found)
}
