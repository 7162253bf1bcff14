//! Inode numbers the kernel knows, and what they stand for.
//!
//! Invariant: a number stays in the table as long as the kernel counts a
//! look-up of it; the root stays for ever. Memory is what the kernel holds,
//! about 150 bytes an inode, not what the tree has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use gix::ObjectId;
use parking_lot::Mutex;

use crate::index::ino::Ino;
use crate::index::overlay::Ground;
use crate::store::EntryKind;

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Directory {
        /// The tree that the base has beneath it in `generation`; none for one that a user made.
        tree: Option<ObjectId>,
        /// For which generation that is so.
        generation: u64,
    },
    /// A commit of another repository: an empty directory.
    Gitlink {
        /// The commit.
        id: ObjectId,
    },
    /// A file, executable or symlink of the base.
    Blob {
        /// Which of them.
        kind: EntryKind,
        /// Its blob.
        id: ObjectId,
        /// Its position in the parent's listing.
        position: u32,
    },
    /// Something a user made that is no directory.
    Overlay,
    /// The root's `.git`.
    Gitfile,
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// The directory it was found in.
    pub parent: Ino,
    /// The name it was found under.
    pub name: Box<[u8]>,
    /// What it is.
    pub what: What,
    lookups: u64,
}

/// Numbers are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Nodes = HashMap<u64, Node, BuildHasherDefault<Identity>>;

/// The table of inodes.
#[derive(Default)]
pub struct Inodes {
    // Guards the table alone; held for a few look-ups, never across I/O.
    nodes: Mutex<Nodes>,
}

impl Inodes {
    /// A table that holds the root alone.
    pub fn new(root: What) -> Self {
        let inodes = Self::default();
        inodes.set_root(root);
        inodes
    }

    /// Says what the root is.
    pub fn set_root(&self, what: What) {
        let root = Node { parent: Ino::ROOT, name: Box::default(), what, lookups: u64::MAX };
        self.nodes.lock().insert(Ino::ROOT.0, root);
    }

    /// The inode `ino`.
    pub fn get(&self, ino: Ino) -> Option<Node> {
        self.nodes.lock().get(&ino.0).cloned()
    }

    /// What `ino` stands for, without its name.
    pub fn what(&self, ino: Ino) -> Option<What> {
        self.nodes.lock().get(&ino.0).map(|node| node.what)
    }

    /// Whether `ino` is free, or is `name` in `parent` already.
    pub fn is_free_for(&self, ino: Ino, parent: Ino, name: &[u8]) -> bool {
        self.nodes.lock().get(&ino.0).is_none_or(|node| node.parent == parent && *node.name == *name)
    }

    /// Counts one look-up of `name` in `parent` and returns its number: `ino`
    /// unless another file has it.
    pub fn look_up(&self, ino: Ino, parent: Ino, name: &[u8], what: What) -> Ino {
        let mut nodes = self.nodes.lock();
        let mut ino = ino;
        loop {
            match nodes.entry(ino.0) {
                Entry::Vacant(place) => {
                    place.insert(Node { parent, name: Box::from(name), what, lookups: 1 });
                    return ino;
                }
                Entry::Occupied(mut place) => {
                    let node = place.get_mut();
                    if node.parent == parent && *node.name == *name {
                        node.lookups = node.lookups.saturating_add(1);
                        node.what = what;
                        return ino;
                    }
                    ino = ino.next();
                }
            }
        }
    }

    /// Counts one look-up of `name` in `parent`, which is bound to `ino`: the overlay never gives a number to two files.
    pub fn look_up_bound(&self, ino: Ino, parent: Ino, name: &[u8], what: What) {
        match self.nodes.lock().entry(ino.0) {
            Entry::Vacant(place) => {
                place.insert(Node { parent, name: Box::from(name), what, lookups: 1 });
            }
            Entry::Occupied(mut place) => {
                let node = place.get_mut();
                node.lookups = node.lookups.saturating_add(1);
                node.parent = parent;
                if *node.name != *name {
                    node.name = Box::from(name);
                }
                // What is known of a directory's tree stays known.
                if !matches!((node.what, what), (What::Directory { .. } | What::Gitlink { .. }, What::Directory { .. }))
                {
                    node.what = what;
                }
            }
        }
    }

    /// The kernel forgot `count` look-ups of `ino`; true when it knows the inode no more.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        if ino == Ino::ROOT {
            return false;
        }
        let mut nodes = self.nodes.lock();
        let mut gone = false;
        if let Some(node) = nodes.get_mut(&ino.0) {
            node.lookups = node.lookups.saturating_sub(count);
            gone = node.lookups == 0;
            if gone {
                nodes.remove(&ino.0);
            }
        }
        // A table that was large and is not any more gives its memory back.
        if nodes.capacity() > 1 << 16 && nodes.len() < nodes.capacity() / 8 {
            nodes.shrink_to_fit();
        }
        gone
    }

    /// The path of `ino` from the root, as far as it is known.
    pub fn path(&self, ino: Ino) -> Vec<u8> {
        // Longer chains than PATH_MAX components only come from hostile trees.
        const DEPTH_LIMIT: usize = 4096;
        let nodes = self.nodes.lock();
        let mut names: Vec<&[u8]> = Vec::new();
        let mut ino = ino;
        while ino != Ino::ROOT && names.len() < DEPTH_LIMIT {
            let Some(node) = nodes.get(&ino.0) else { break };
            names.push(&node.name);
            ino = node.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Calls `see` with every inode the kernel knows, without holding the table.
    pub fn each(&self, see: impl FnMut(Ino)) {
        let known: Vec<Ino> = self.nodes.lock().keys().map(|number| Ino(*number)).collect();
        known.into_iter().for_each(see);
    }

    /// Inodes the kernel knows.
    pub fn len(&self) -> usize {
        self.nodes.lock().len()
    }

    /// Whether the kernel knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ground for Inodes {
    fn place(&self, ino: Ino) -> Option<(Ino, Box<[u8]>)> {
        let nodes = self.nodes.lock();
        let node = nodes.get(&ino.0).filter(|_| ino != Ino::ROOT)?;
        Some((node.parent, node.name.clone()))
    }

    fn moved(&self, ino: Ino, parent: Ino, name: &[u8]) {
        if let Some(node) = self.nodes.lock().get_mut(&ino.0) {
            (node.parent, node.name) = (parent, Box::from(name));
        }
    }

    fn tree(&self, ino: Ino, generation: u64) -> Option<Option<ObjectId>> {
        match self.nodes.lock().get(&ino.0)?.what {
            What::Directory { tree, generation: of } if of == generation => Some(tree),
            What::Gitlink { .. } => Some(None),
            _ => None,
        }
    }

    fn note_tree(&self, ino: Ino, generation: u64, tree: Option<ObjectId>) {
        if let Some(node) = self.nodes.lock().get_mut(&ino.0)
            && matches!(node.what, What::Directory { .. })
        {
            node.what = What::Directory { tree, generation };
        }
    }

    fn blob(&self, ino: Ino) -> Option<(EntryKind, ObjectId)> {
        match self.nodes.lock().get(&ino.0)?.what {
            What::Blob { kind, id, .. } => Some((kind, id)),
            _ => None,
        }
    }

    fn knows(&self, ino: Ino) -> bool {
        self.nodes.lock().contains_key(&ino.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lookups_and_resolves_collisions() {
        let inodes = Inodes::new(What::Gitfile);
        let first = inodes.look_up(Ino(99), Ino::ROOT, b"a", What::Gitfile);
        let twin = inodes.look_up(Ino(99), Ino::ROOT, b"b", What::Gitfile);
        assert_eq!((first, twin), (Ino(99), Ino(100)));
        assert_eq!(inodes.look_up(Ino(99), Ino::ROOT, b"b", What::Gitfile), twin);
        inodes.forget(twin, 1);
        assert!(inodes.get(twin).is_some());
        inodes.forget(twin, 1);
        assert!(inodes.get(twin).is_none());
        inodes.forget(Ino::ROOT, u64::MAX);
        assert!(inodes.get(Ino::ROOT).is_some());
        assert_eq!(inodes.path(first), b"a");
    }
}
