//! What `git switch` would do to index and working tree, as a plan and nothing else.
//!
//! The rules are those of Git's two-way merge (git-read-tree, "Two Tree
//! Merge") and of its checks before a file is written or removed: what differs
//! between the trees is taken from the new one unless that would lose
//! something; what does not differ is left as the user has it.
//!
//! Stricter than Git in four cases, all of which lose work there: an ignored
//! file in the way of a new one, a staged file that a directory or file of the
//! new tree pushes out of the index, anything beneath a symbolic link that
//! replaced a directory, and a staged entry whose path the new tree uses as a directory.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::{Leaf, Sides};
use crate::store::EntryKind;

/// What is in the working tree at a path where it is not what the base says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// A regular file or a symbolic link with this content.
    Leaf(Leaf),
    /// Nothing.
    Absent,
    /// A directory of the user's own.
    Directory,
    /// What a Git tree can't hold: a named pipe, a socket, a device.
    Other,
}

/// What is staged at a path: where the index is not what HEAD's tree says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// In HEAD's tree.
    pub head: Option<Leaf>,
    /// In the index.
    pub index: Option<Leaf>,
}

/// What is known before a switch. HEAD's tree is the base of the working tree.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Paths that HEAD's tree and the new tree do not have alike.
    pub changed: &'a BTreeMap<Vec<u8>, Sides>,
    /// Paths that HEAD's tree and the index do not have alike.
    pub staged: &'a BTreeMap<Vec<u8>, Staged>,
    /// Paths that HEAD's tree and the working tree do not have alike.
    pub local: &'a BTreeMap<Vec<u8>, Local>,
}

/// How a path keeps what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The user's change stays as it is.
    AsItIs,
    /// It shows what the old base has, and the new one has something else.
    OldBase(Leaf),
    /// Nothing is there, and the new base has something.
    Absent,
}

/// What a switch does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Paths that do not follow the new base. All others show it.
    pub keep: BTreeMap<Vec<u8>, Kept>,
    /// Where the index is not what the new tree says.
    pub staged: BTreeMap<Vec<u8>, Option<Leaf>>,
    /// What would be lost; when there is anything, nothing may be done.
    pub refused: Refused,
}

/// Paths that stand in the way of a switch, by the reason Git gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Local changes would be overwritten.
    pub overwritten: BTreeSet<Vec<u8>>,
    /// Untracked files would be overwritten.
    pub untracked: BTreeSet<Vec<u8>>,
    /// Untracked files would be removed.
    pub removed: BTreeSet<Vec<u8>>,
    /// Directories would lose untracked files in them.
    pub directories: BTreeSet<Vec<u8>>,
}

impl Refused {
    /// Whether nothing would be lost.
    pub fn is_empty(&self) -> bool {
        self.paths().next().is_none()
    }

    /// All paths, each list in order.
    pub fn paths(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.overwritten.iter().chain(&self.untracked).chain(&self.removed).chain(&self.directories)
    }
}

/// What happens to one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Index and working tree stay.
    Keep,
    /// Both become what the new tree has.
    Follow,
}

/// A path whose trees or index entry make it worth a look.
#[derive(Clone, Copy)]
struct Touched {
    sides: Sides,
    index: Option<Leaf>,
    outcome: Outcome,
}

/// Decides.
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    let touched = touched(situation, &mut plan.refused);
    for (path, touched) in &touched {
        check(situation, path, touched, &mut plan.refused);
    }
    check_kinds(situation, &touched, &mut plan.refused);
    for (path, touched) in &touched {
        let result = if touched.outcome == Outcome::Keep { touched.index } else { touched.sides.new };
        if result != touched.sides.new {
            plan.staged.insert(path.to_vec(), result);
        }
        if touched.outcome == Outcome::Keep
            && !situation.local.contains_key(*path)
            && touched.sides.old != touched.sides.new
        {
            let kept = touched.sides.old.map_or(Kept::Absent, Kept::OldBase);
            plan.keep.insert(path.to_vec(), kept);
        }
    }
    for (path, local) in situation.local {
        let outcome = touched.get(path.as_slice()).map_or(Outcome::Keep, |touched| touched.outcome);
        // A directory without files gives way to whatever the new tree has there.
        let gives_way = *local == Local::Directory
            && ancestors(path).chain([path.as_slice()]).any(|place| {
                touched.get(place).is_some_and(|place| place.outcome == Outcome::Follow && place.sides.new.is_some())
            });
        if outcome == Outcome::Keep && !gives_way {
            plan.keep.insert(path.clone(), Kept::AsItIs);
        }
    }
    plan
}

/// The two-way merge, path by path.
fn touched<'a>(situation: &Situation<'a>, refused: &mut Refused) -> BTreeMap<&'a [u8], Touched> {
    let mut all = BTreeMap::new();
    let paths: BTreeSet<&Vec<u8>> = situation.changed.keys().chain(situation.staged.keys()).collect();
    for path in paths {
        let staged = situation.staged.get(path);
        let sides = situation.changed.get(path).copied().unwrap_or_else(|| {
            let head = staged.and_then(|staged| staged.head);
            Sides { old: head, new: head }
        });
        let Sides { old, new } = sides;
        let index = staged.map_or(old, |staged| staged.index);
        let outcome = if old == new || index == new {
            Outcome::Keep
        } else if index == old {
            Outcome::Follow
        } else {
            refused.overwritten.insert(path.clone());
            Outcome::Keep
        };
        // Staged as gone: Git then looks whether an untracked file took the place.
        let outcome = if index.is_none() && new.is_none() && old.is_some() { Outcome::Follow } else { outcome };
        all.insert(path.as_slice(), Touched { sides, index, outcome });
    }
    all
}

/// Whether following the new tree at `path` would lose what is in the working tree there.
fn check(situation: &Situation<'_>, path: &[u8], touched: &Touched, refused: &mut Refused) {
    if touched.outcome == Outcome::Keep {
        return;
    }
    if let Some(index) = touched.index {
        if !up_to_date(situation, path, index, touched.sides.old) {
            refused.overwritten.insert(path.to_vec());
        }
    } else if shown(situation, path, touched.sides.old) {
        let list = if touched.sides.new.is_some() { &mut refused.untracked } else { &mut refused.removed };
        list.insert(path.to_vec());
    }
}

/// Whether the working tree has at `path` what the index says, or nothing.
fn up_to_date(situation: &Situation<'_>, path: &[u8], index: Leaf, base: Option<Leaf>) -> bool {
    if index.kind == EntryKind::Gitlink {
        // What is checked out of a submodule is its own business.
        return true;
    }
    if ancestors(path).any(|outer| is_file(situation, outer)) || holds_files(situation, path) {
        return false;
    }
    match situation.local.get(path) {
        Some(Local::Leaf(leaf)) => *leaf == index,
        Some(Local::Absent) => true,
        Some(Local::Directory | Local::Other) => false,
        None => base.is_none_or(|base| base == index),
    }
}

/// Whether a file is at `path` in the working tree.
fn shown(situation: &Situation<'_>, path: &[u8], base: Option<Leaf>) -> bool {
    match situation.local.get(path) {
        Some(Local::Leaf(_) | Local::Other) => true,
        Some(Local::Absent | Local::Directory) => false,
        None => base.is_some_and(|base| base.kind != EntryKind::Gitlink),
    }
}

fn is_file(situation: &Situation<'_>, path: &[u8]) -> bool {
    matches!(situation.local.get(path), Some(Local::Leaf(_) | Local::Other))
}

/// Whether the user has files of their own beneath `path`.
fn holds_files(situation: &Situation<'_>, path: &[u8]) -> bool {
    beneath(situation.local, path).any(|(_, local)| matches!(local, Local::Leaf(_) | Local::Other))
}

/// Where a file takes the place of a directory or the other way round.
fn check_kinds(situation: &Situation<'_>, touched: &BTreeMap<&[u8], Touched>, refused: &mut Refused) {
    for (path, new) in touched {
        // Git looks for what is in the way of files it writes, and of those it takes for gone already.
        if new.outcome == Outcome::Keep || new.sides.new.is_none() && new.index.is_some() {
            continue;
        }
        for outer in ancestors(path) {
            let tracked = touched.get(outer);
            let stays = tracked.is_some_and(|outer| outer.outcome == Outcome::Keep && outer.index.is_some());
            let removed = tracked.is_some_and(|outer| outer.outcome == Outcome::Follow && outer.index.is_some());
            let base = tracked.and_then(|outer| outer.sides.old);
            if stays || shown(situation, outer, base) && !removed {
                let list = if new.sides.new.is_some() { &mut refused.untracked } else { &mut refused.removed };
                list.insert(outer.to_vec());
            }
        }
        let prefix = [*path, b"/"].concat();
        for (inner, staged) in
            touched.range::<[u8], _>((std::ops::Bound::Included(&prefix[..]), std::ops::Bound::Unbounded))
        {
            if !inner.starts_with(&prefix) {
                break;
            }
            if staged.outcome == Outcome::Keep && staged.index.is_some() {
                refused.overwritten.insert(inner.to_vec());
            }
        }
        let lost = beneath(situation.local, path).any(|(inner, local)| {
            let tracked = touched.get(inner.as_slice()).is_some_and(|inner| inner.index.is_some());
            matches!(local, Local::Leaf(_) | Local::Other) && !tracked
        });
        let unstaged = touched.iter().any(|(inner, removed)| {
            let here = inner.starts_with(&prefix) && removed.index.is_none();
            here && shown(situation, inner, removed.sides.old)
        });
        if lost || unstaged {
            refused.directories.insert(path.to_vec());
        }
    }
}

/// The directories above `path`, outermost first.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end])
}

fn beneath<'a, T>(map: &'a BTreeMap<Vec<u8>, T>, path: &[u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a T)> {
    let prefix = [path, b"/"].concat();
    map.range(prefix.clone()..).take_while(move |(inner, _)| inner.starts_with(&prefix))
}
