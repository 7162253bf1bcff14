//! What the cache takes, by repository, workspace, generation, directory, type or age.
//!
//! Walks all blobs once and the trees of what names them. Invariant: what keys name alone, what several of them name, what
//! none names and what is damaged add up to the store's own totals, blob by blob; and those, with everything else in the
//! cache's directory, to what the disk says. Needs 32 bytes for each blob in the cache, eight for each tree, and the rows.

use std::collections::HashMap;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::ledger::Ledger;
use super::place::{self, weight};
use super::{PathText, Sources};
use crate::daemon::protocol::Failure;
use crate::hydrate::walk::join;
use crate::store::{Entry, EntryKind, GenerationRecord, IdSet, Look, Store, Workspace};

/// Rows told at most.
pub const ROWS_MAX: usize = 2_000;

/// Bytes that they take in the answer at most.
const ROWS_BYTES: usize = 512 << 10;

/// Directories entered under every path they have. Beyond it trees that were entered before are not entered again: a
/// hostile repository can name ten trees ten billion times.
const PATHS_MAX: usize = 1 << 20;

/// Beginnings of age, in hours, and what they are called.
const AGES: [(u32, &str); 5] =
    [(24, "today"), (24 * 7, "this week"), (24 * 30, "this month"), (24 * 91, "this quarter"), (u32::MAX, "older")];

/// What blobs are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Generations and pins of all workspaces of a repository.
    #[default]
    Repository,
    /// Generations and pins of a workspace.
    Workspace,
    /// One generation.
    Generation,
    /// The directory where the current generation has them.
    Directory,
    /// What their names end in, in the current generation.
    Type,
    /// When they were last used.
    Age,
}

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DuRequest {
    /// Counted by what.
    pub by: By,
    /// Of this workspace alone.
    pub target: Option<String>,
    /// Of directories: names of a path that count, [`None`] is all.
    pub depth: Option<usize>,
    /// Rows told, [`ROWS_MAX`] at most.
    pub limit: usize,
}

/// Some blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Bytes of their contents.
    pub raw_bytes: u64,
    /// Bytes they take in the store.
    pub stored_bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, raw: u64, stored: u64) {
        self.objects += 1;
        self.raw_bytes += raw;
        self.stored_bytes += stored;
    }

    fn join(&mut self, other: Self) {
        self.objects += other.objects;
        self.raw_bytes += other.raw_bytes;
        self.stored_bytes += other.stored_bytes;
    }

    fn less(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_sub(other.objects),
            raw_bytes: self.raw_bytes.saturating_sub(other.raw_bytes),
            stored_bytes: self.stored_bytes.saturating_sub(other.stored_bytes),
        }
    }
}

/// A key and the blobs it names: a row of `larder du --json` (CLI.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuRow {
    /// The key, lossy.
    pub key: String,
    /// The same as bytes, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_bytes: Option<Vec<u8>>,
    /// All blobs it names.
    #[serde(flatten)]
    pub all: Amount,
    /// Blobs that no other key names.
    pub exclusive_objects: u64,
    /// Bytes of their contents.
    pub exclusive_raw_bytes: u64,
    /// Bytes they take in the store.
    pub exclusive_stored_bytes: u64,
}

/// Rows that were not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many.
    pub rows: u64,
    /// The sums of what they name; what several of them name is in it several times.
    #[serde(flatten)]
    pub all: Amount,
    /// Blobs that only one key names, one of these.
    pub exclusive_objects: u64,
    /// Bytes of their contents.
    pub exclusive_raw_bytes: u64,
    /// Bytes they take in the store.
    pub exclusive_stored_bytes: u64,
}

/// What is answered: the fields of `larder du --json` (CLI.md), and more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuReport {
    /// Counted by what.
    pub by: By,
    /// The workspace it was asked of.
    pub target: Option<String>,
    /// Bytes of the contents of all blobs in the cache.
    pub total_raw_bytes: u64,
    /// Bytes they take in the store.
    pub total_stored_bytes: u64,
    /// All blobs in the cache.
    pub objects: u64,
    /// Trees in the cache.
    pub trees: u64,
    /// Keys, the largest first; ages from young to old.
    pub rows: Vec<DuRow>,
    /// Keys that are not among them.
    pub rows_left_out: LeftOut,
    /// Distinct blobs that several keys name.
    pub shared: Amount,
    /// Blobs that no key names.
    pub unnamed: Amount,
    /// Blobs whose rows are damaged.
    pub damaged: Amount,
    /// Trees that name blobs and are not here, or damaged: what only they name is in `unnamed`.
    pub trees_missing: u64,
    /// Whether some directories were counted under one of their paths alone, because there are too many.
    pub paths_left_out: bool,
    /// What all of it takes on the disk.
    pub disk: Disk,
}

pub(super) fn answer(sources: &Sources<'_>, request: &DuRequest) -> Result<DuReport, Failure> {
    if let Some(daemon) = sources.daemon {
        // What was read a moment ago counts, and is on the disk then.
        daemon.settle_all();
        sources.store.flush()?;
    }
    let store = sources.store;
    let target = request.target.as_ref().map(|target| place::workspace(store, target)).transpose()?;
    let (mut ledger, stats) = Ledger::open(store, (request.by == By::Age).then(|| AGES.map(|(hours, _)| hours)))?;
    let mut count = Count { store, ledger: &mut ledger, keys: Vec::new(), missing: 0, paths_left_out: false };
    match request.by {
        By::Repository => count.repositories(target.as_ref())?,
        By::Workspace => count.workspaces(target.as_ref())?,
        By::Generation => count.generations(target.as_ref())?,
        By::Directory => count.directories(target.as_ref(), request.depth)?,
        By::Type => count.types(target.as_ref())?,
        By::Age => count.keys = AGES.iter().map(|(_, name)| name.as_bytes().to_vec()).collect(),
    }
    let (keys, trees_missing, paths_left_out) = (count.keys, count.missing, count.paths_left_out);
    let totals = Amount { objects: stats.blobs, raw_bytes: stats.raw_bytes, stored_bytes: stats.stored_bytes };
    let sums = ledger.sums();
    let (rows, rows_left_out) = told(rows(keys, &sums.rows, request.by), request.limit.clamp(1, ROWS_MAX));
    Ok(DuReport {
        by: request.by,
        target: target.map(|row| row.name),
        total_raw_bytes: totals.raw_bytes,
        total_stored_bytes: totals.stored_bytes,
        objects: totals.objects,
        trees: stats.trees,
        rows,
        rows_left_out,
        shared: sums.shared,
        unnamed: sums.unnamed,
        damaged: totals.less(sums.seen),
        trees_missing,
        paths_left_out,
        disk: disk::measure(sources, &stats)?,
    })
}

/// All rows in order.
fn rows(keys: Vec<Vec<u8>>, sums: &[(Amount, Amount)], by: By) -> Vec<(Vec<u8>, Amount, Amount)> {
    let none = (Amount::default(), Amount::default());
    let sums = sums.iter().copied().chain(std::iter::repeat(none));
    let mut rows: Vec<(Vec<u8>, Amount, Amount)> =
        keys.into_iter().zip(sums).map(|(key, (all, own))| (key, all, own)).collect();
    if by != By::Age {
        rows.sort_by(|a, b| b.1.stored_bytes.cmp(&a.1.stored_bytes).then_with(|| a.0.cmp(&b.0)));
    }
    rows
}

/// As many rows as an answer holds, and the sums of the others.
fn told(rows: Vec<(Vec<u8>, Amount, Amount)>, limit: usize) -> (Vec<DuRow>, LeftOut) {
    let (mut told, mut bytes) = (Vec::new(), 0);
    let (mut left_all, mut left_own, mut left_rows) = (Amount::default(), Amount::default(), 0);
    for (key, all, own) in rows {
        bytes += weight(&key) + 200;
        if told.len() >= limit || bytes > ROWS_BYTES {
            left_rows += 1;
            left_all.join(all);
            left_own.join(own);
            continue;
        }
        let PathText { path: key, path_bytes: key_bytes } = PathText::from(&key[..]);
        told.push(DuRow {
            key,
            key_bytes,
            all,
            exclusive_objects: own.objects,
            exclusive_raw_bytes: own.raw_bytes,
            exclusive_stored_bytes: own.stored_bytes,
        });
    }
    let left_out = LeftOut {
        rows: left_rows,
        all: left_all,
        exclusive_objects: left_own.objects,
        exclusive_raw_bytes: left_own.raw_bytes,
        exclusive_stored_bytes: left_own.stored_bytes,
    };
    (told, left_out)
}

/// A count under way.
struct Count<'a> {
    store: &'a Store,
    ledger: &'a mut Ledger,
    keys: Vec<Vec<u8>>,
    missing: u64,
    paths_left_out: bool,
}

/// Of a workspace's rows those that `target` means.
fn meant(target: Option<&Workspace>, row: &Workspace) -> bool {
    target.is_none_or(|target| target.id == row.id)
}

impl Count<'_> {
    fn key(&mut self, key: Vec<u8>) -> u32 {
        self.keys.push(key);
        u32::try_from(self.keys.len() - 1).unwrap_or(0)
    }

    fn repositories(&mut self, target: Option<&Workspace>) -> Result<(), Failure> {
        let workspaces = self.store.workspaces()?;
        for repository in self.store.repositories()? {
            if target.is_some_and(|target| target.repository != repository.id) {
                continue;
            }
            let mut roots = Vec::new();
            for row in workspaces.iter().filter(|row| row.repository == repository.id) {
                roots.extend(self.roots(row)?);
            }
            let key = self.key(repository.url.into_bytes());
            self.below(key, roots)?;
        }
        Ok(())
    }

    fn workspaces(&mut self, target: Option<&Workspace>) -> Result<(), Failure> {
        for row in self.store.workspaces()?.into_iter().filter(|row| meant(target, row)) {
            let roots = self.roots(&row)?;
            let key = self.key(row.name.into_bytes());
            self.below(key, roots)?;
        }
        Ok(())
    }

    fn generations(&mut self, target: Option<&Workspace>) -> Result<(), Failure> {
        for row in self.store.workspaces()?.into_iter().filter(|row| meant(target, row)) {
            for record in self.store.generations(row.id)? {
                let key = self.key(format!("{}@{}", row.name, record.generation.0).into_bytes());
                self.below(key, vec![record.tree.0])?;
            }
        }
        Ok(())
    }

    /// Trees of a workspace's generations and pins.
    fn roots(&self, row: &Workspace) -> Result<Vec<ObjectId>, Failure> {
        let mut roots: Vec<ObjectId> = self.store.generations(row.id)?.iter().map(|record| record.tree.0).collect();
        roots.extend(self.store.pins()?.iter().filter(|pin| pin.workspace == row.id).map(|pin| pin.tree.0));
        Ok(roots)
    }

    /// Counts everything below `roots` for `key`.
    fn below(&mut self, key: u32, roots: Vec<ObjectId>) -> Result<(), Failure> {
        let ledger = &mut *self.ledger;
        self.missing += each_file(self.store, roots, |entry| ledger.count(key, &entry.id))?;
        Ok(())
    }

    /// What is shown now: for each repository, the distinct trees of its workspaces.
    fn shown(&self, target: Option<&Workspace>) -> Result<Vec<(String, Vec<ObjectId>)>, Failure> {
        let workspaces: Vec<Workspace> =
            self.store.workspaces()?.into_iter().filter(|row| meant(target, row)).collect();
        let mut shown = Vec::new();
        for repository in self.store.repositories()? {
            let mut trees: Vec<ObjectId> = Vec::new();
            for row in workspaces.iter().filter(|row| row.repository == repository.id) {
                let record: Option<GenerationRecord> = match row.current {
                    Some(current) => self.store.generation(row.id, current)?,
                    None => None,
                };
                trees.extend(record.map(|record| record.tree.0));
            }
            trees.sort_unstable();
            trees.dedup();
            if !trees.is_empty() {
                shown.push((repository.url, trees));
            }
        }
        Ok(shown)
    }

    /// Counts by directory. All trees that a path has in some workspace are looked at together, and all of a key in one
    /// go, as the ledger wants it.
    fn directories(&mut self, target: Option<&Workspace>, depth: Option<usize>) -> Result<(), Failure> {
        let shown = self.shown(target)?;
        let several = shown.len() > 1;
        for (url, trees) in shown {
            let before = if several { format!("{url}:").into_bytes() } else { Vec::new() };
            let mut walk = Walk { before, depth: depth.unwrap_or(usize::MAX), key: None, seen: IdSet::default() };
            let mut open = vec![(Vec::new(), 0, trees)];
            let mut entered = 0;
            while let Some((path, level, trees)) = open.pop() {
                entered += 1;
                self.directory(&mut walk, entered > PATHS_MAX, (path, level, trees), &mut open)?;
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        walk: &mut Walk,
        crowded: bool,
        (path, level, trees): Step,
        open: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        if level <= walk.depth {
            walk.key = None;
        }
        let mut below: std::collections::BTreeMap<Vec<u8>, Vec<ObjectId>> = std::collections::BTreeMap::new();
        for tree in trees {
            if !walk.seen.insert(&tree) && crowded {
                self.paths_left_out = true;
                continue;
            }
            let Look::Good(listing) = self.store.look_at_tree(&tree)? else {
                self.missing += 1;
                continue;
            };
            for entry in listing.iter() {
                match entry.kind {
                    EntryKind::Directory => {
                        let same = below.entry(entry.name.to_vec()).or_default();
                        if !same.contains(&entry.id) {
                            same.push(entry.id);
                        }
                    }
                    kind if kind.is_blob() && self.ledger.has(&entry.id) => {
                        let key = walk.key.unwrap_or_else(|| {
                            let path = if path.is_empty() { b"." } else { &path[..] };
                            self.key([&walk.before[..], path].concat())
                        });
                        walk.key = Some(key);
                        self.ledger.count(key, &entry.id);
                    }
                    _ => {}
                }
            }
        }
        // Below the depth everything counts for the directory at the depth, by whose path it goes on.
        let deeper = |name: &[u8]| if level < walk.depth { join(&path, name) } else { path.clone() };
        open.extend(below.into_iter().rev().map(|(name, trees)| (deeper(&name), level + 1, trees)));
        Ok(())
    }

    fn types(&mut self, target: Option<&Workspace>) -> Result<(), Failure> {
        let mut keys: HashMap<Vec<u8>, u32> = HashMap::new();
        let roots = self.shown(target)?.into_iter().flat_map(|(_, trees)| trees).collect();
        let missing = each_file(self.store, roots, |entry| {
            if !self.ledger.has(&entry.id) {
                return;
            }
            let name = type_of(entry.name, entry.kind);
            let key = match keys.get(name) {
                Some(key) => *key,
                None => self.key(name.to_vec()),
            };
            keys.insert(name.to_vec(), key);
            self.ledger.count_scattered(key, &entry.id);
        })?;
        self.missing += missing;
        Ok(())
    }
}

/// Calls `see` for every file below `roots`, reading each distinct tree once. Returns how many trees could not be read.
fn each_file(store: &Store, roots: Vec<ObjectId>, mut see: impl FnMut(&Entry<'_>)) -> Result<u64, Failure> {
    let (mut seen, mut open, mut missing) = (IdSet::default(), roots, 0);
    open.retain(|root| seen.insert(root));
    while let Some(id) = open.pop() {
        let Look::Good(listing) = store.look_at_tree(&id)? else {
            missing += 1;
            continue;
        };
        for entry in listing.iter() {
            match entry.kind {
                EntryKind::Directory if seen.insert(&entry.id) => open.push(entry.id),
                kind if kind.is_blob() => see(&entry),
                _ => {}
            }
        }
    }
    Ok(missing)
}

/// A path, how deep it is, and the trees it has.
type Step = (Vec<u8>, usize, Vec<ObjectId>);

/// A walk by directory.
struct Walk {
    /// What comes before every path.
    before: Vec<u8>,
    depth: usize,
    /// The key that is counted for now, if it has any blob yet.
    key: Option<u32>,
    seen: IdSet,
}

/// What a name ends in.
fn type_of(name: &[u8], kind: EntryKind) -> &[u8] {
    if kind == EntryKind::Symlink {
        return b"(symlink)";
    }
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 && dot + 1 < name.len() => &name[dot..],
        _ => b"(none)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_what_follows_the_last_dot() {
        for (name, of) in
            [("a.c", ".c"), ("a.tar.gz", ".gz"), ("Makefile", "(none)"), (".gitignore", "(none)"), ("x.", "(none)")]
        {
            assert_eq!(type_of(name.as_bytes(), EntryKind::File), of.as_bytes(), "{name}");
        }
        assert_eq!(type_of(b"a.c", EntryKind::Symlink), b"(symlink)");
    }

    #[test]
    fn rows_beyond_the_limit_are_summed() {
        let amount = |bytes| Amount { objects: 1, raw_bytes: bytes, stored_bytes: bytes };
        let keys = vec![b"a".to_vec(), b"b".to_vec(), b"\xff".to_vec()];
        let sums = [(amount(1), amount(1)), (amount(9), Amount::default()), (amount(5), amount(2))];
        let (rows, left) = told(super::rows(keys, &sums, By::Type), 2);
        assert_eq!(rows.iter().map(|row| &*row.key).collect::<Vec<_>>(), ["b", "\u{fffd}"]);
        assert_eq!(rows[1].key_bytes.as_deref(), Some(&b"\xff"[..]));
        assert_eq!((left.rows, left.all, left.exclusive_stored_bytes), (1, amount(1), 1));
    }
}
