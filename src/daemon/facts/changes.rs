//! What was changed in a workspace that nobody has open: as [`crate::index::overlay::Overlay::count`] counts it in one that
//! is mounted.

use std::collections::BTreeMap;

use gix::ObjectId;

use super::{Sources, place};
use crate::daemon::protocol::Failure;
use crate::index::ino::Ino;
use crate::index::overlay::settle::is_base;
use crate::store::overlay::{Binding, Content, Name, Node, Peek};
use crate::store::{EntryKind, GenerationRecord, Store, Workspace};

/// A file's or directory's kind and object in the base.
pub(super) type Base = (EntryKind, ObjectId);

/// Told of what the base has at a path that was changed, and of what is there now.
pub(super) type See<'a> = dyn FnMut(Option<Base>, Option<&Node>) + 'a;

/// Paths of `row` that are not as `record`, which it shows, has them.
pub fn count(sources: &Sources<'_>, row: &Workspace, record: &GenerationRecord) -> Result<u64, Failure> {
    let (peek, _) = place::left(sources, row)?;
    let mut count = 0;
    each(sources.store, &peek, record, &mut |_, _| count += 1)?;
    Ok(count)
}

/// Calls `see` for each path that is not as the base has it.
pub(super) fn each(store: &Store, peek: &Peek, record: &GenerationRecord, see: &mut See<'_>) -> Result<(), Failure> {
    if peek.is_pristine() {
        return Ok(());
    }
    let mut by_directory: BTreeMap<u64, Vec<(Name, Binding)>> = BTreeMap::new();
    for ((parent, name), binding) in peek.bindings()? {
        by_directory.entry(parent).or_default().push((name, binding));
    }
    // A directory is detached when the base has none at its place: whatever is in it is added.
    let mut open: Vec<(u64, Option<ObjectId>, bool)> = vec![(Ino::ROOT.0, Some(record.tree.0), false)];
    // Taken out, each is entered once, whatever damage says.
    while let Some((parent, tree, detached)) = open.pop() {
        let Some(bindings) = by_directory.remove(&parent) else { continue };
        let listing = tree.map(|tree| place::listing(store, &tree)).transpose()?;
        for (name, binding) in bindings {
            let base = listing.as_ref().and_then(|listing| listing.find(&name)).map(|entry| (entry.kind, entry.id));
            let there = base.filter(|_| !detached);
            let Binding::Inode { ino, .. } = binding else {
                if !detached {
                    see(there, None);
                }
                continue;
            };
            let Some(node) = peek.node(ino)? else { continue };
            if node.is_directory() {
                let stays = node.content == Content::Base && !detached;
                if !stays {
                    see(there, Some(&node));
                }
                let tree = match &node.content {
                    Content::Base => base.filter(|(kind, _)| *kind == EntryKind::Directory).map(|(_, id)| id),
                    Content::Tree(tree) => Some(*tree),
                    _ => None,
                };
                open.push((ino, tree, !stays));
            } else if !is_base(&node, base) {
                see(there, Some(&node));
            }
        }
    }
    Ok(())
}
