//! Changes that are not in redb yet, as look-ups see them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::record::{Binding, Change, Name, Node};

/// The newest value of everything some changes touched. `None` inside: taken back to what the base says.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) bindings: HashMap<u64, BTreeMap<Name, Option<Binding>>>,
    pub(super) nodes: HashMap<u64, Option<Arc<Node>>>,
    pub(super) journal: Vec<(u64, Name)>,
    /// Values put in; what bounds it.
    pub(super) puts: usize,
}

impl Memory {
    pub(super) fn apply(&mut self, change: Change) {
        self.puts += change.bindings.len() + change.nodes.len() + change.paths.len();
        for (parent, name, binding) in change.bindings {
            self.bindings.entry(parent).or_default().insert(name, binding);
        }
        for (ino, node) in change.nodes {
            self.nodes.insert(ino, node.map(Arc::new));
        }
        self.journal.extend((change.sequence..).zip(change.paths));
    }

    /// Takes over what came later.
    pub(super) fn extend(&mut self, newer: Self) {
        self.puts += newer.puts;
        for (parent, names) in newer.bindings {
            self.bindings.entry(parent).or_default().extend(names);
        }
        self.nodes.extend(newer.nodes);
        self.journal.extend(newer.journal);
    }

    /// A copy, for when a reader still holds it.
    pub(super) fn copied(&self) -> Self {
        Self {
            bindings: self.bindings.clone(),
            nodes: self.nodes.clone(),
            journal: self.journal.clone(),
            puts: self.puts,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.puts == 0
    }

    pub(super) fn binding(&self, parent: u64, name: &[u8]) -> Option<Option<Binding>> {
        self.bindings.get(&parent)?.get(name).copied()
    }

    pub(super) fn node(&self, ino: u64) -> Option<Option<Arc<Node>>> {
        self.nodes.get(&ino).cloned()
    }
}
