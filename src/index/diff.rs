//! Two trees compared: by id, descending only where ids differ.

use std::collections::BTreeMap;

use gix::ObjectId;

use super::{IndexError, walk};
use crate::store::{EntryKind, Listing, Store};

/// A file, symbolic link or gitlink in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// What it is; never a directory.
    pub kind: EntryKind,
    /// Its object.
    pub id: ObjectId,
}

/// What a path is in two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// In the first.
    pub old: Option<Leaf>,
    /// In the second.
    pub new: Option<Leaf>,
}

/// A directory to be compared: where it is and its tree on each side.
struct Pair {
    path: Vec<u8>,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
}

/// Every path that is not the same in both trees, directories taken apart.
pub fn leaves(store: &Store, old: ObjectId, new: ObjectId) -> Result<BTreeMap<Vec<u8>, Sides>, IndexError> {
    let mut found = BTreeMap::new();
    let mut open = vec![Pair { path: Vec::new(), old: Some(old), new: Some(new) }];
    while let Some(pair) = open.pop() {
        if pair.old == pair.new {
            continue;
        }
        let (old, new) = (listing(store, pair.old)?, listing(store, pair.new)?);
        each_name(old.as_ref(), new.as_ref(), |name, old, new| {
            if old == new {
                return;
            }
            let mut path = pair.path.clone();
            path.extend_from_slice(name);
            let leaf = |side: Option<Leaf>| side.filter(|leaf| leaf.kind != EntryKind::Directory);
            let tree = |side: Option<Leaf>| side.filter(|leaf| leaf.kind == EntryKind::Directory).map(|leaf| leaf.id);
            if tree(old) != tree(new) {
                let path = [path.as_slice(), b"/"].concat();
                open.push(Pair { path, old: tree(old), new: tree(new) });
            }
            if leaf(old) != leaf(new) {
                found.insert(path, Sides { old: leaf(old), new: leaf(new) });
            }
        });
    }
    Ok(found)
}

/// How many more files `new` has than `old`, whose number is known; trees that are on one side only are counted.
pub fn files(store: &Store, old: ObjectId, old_files: u64, new: ObjectId) -> Result<u64, IndexError> {
    let (mut more, mut fewer) = (0_u64, 0_u64);
    let mut open = vec![(old, new)];
    while let Some((old, new)) = open.pop() {
        if old == new {
            continue;
        }
        let (old, new) = (listing(store, Some(old))?, listing(store, Some(new))?);
        let mut one_sided = Vec::new();
        each_name(old.as_ref(), new.as_ref(), |_, old, new| match (old, new) {
            (Some(old), Some(new)) if old.kind == EntryKind::Directory && new.kind == EntryKind::Directory => {
                open.push((old.id, new.id));
            }
            _ => one_sided.extend([(old, false), (new, true)]),
        });
        for (side, added) in one_sided {
            let count = match side {
                None => 0,
                Some(leaf) if leaf.kind == EntryKind::Directory => walk::count(store, leaf.id)?.files,
                Some(_) => 1,
            };
            let sum = if added { &mut more } else { &mut fewer };
            *sum = sum.saturating_add(count);
        }
    }
    Ok(old_files.saturating_add(more).saturating_sub(fewer))
}

fn listing(store: &Store, id: Option<ObjectId>) -> Result<Option<Listing>, IndexError> {
    match id {
        Some(id) => store.tree(&id)?.ok_or(IndexError::MissingTree(id)).map(Some),
        None => Ok(None),
    }
}

/// Calls `visit` for each name of either side with what it is there.
fn each_name(old: Option<&Listing>, new: Option<&Listing>, mut visit: impl FnMut(&[u8], Option<Leaf>, Option<Leaf>)) {
    let mut old = old.into_iter().flat_map(Listing::iter).peekable();
    let mut new = new.into_iter().flat_map(Listing::iter).peekable();
    let leaf = |entry: crate::store::Entry<'_>| Leaf { kind: entry.kind, id: entry.id };
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(b.name),
        };
        let a = if order.is_le() { old.next() } else { None };
        let b = if order.is_ge() { new.next() } else { None };
        if let Some(entry) = a.or(b) {
            visit(entry.name, a.map(leaf), b.map(leaf));
        }
    }
}
