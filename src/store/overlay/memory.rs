//! Changes that are not in redb yet, as look-ups see them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::record::{Binding, Change, Name, Node};

/// What some changes say of a row.
pub(super) enum Said<T> {
    /// Nothing: older ones decide.
    Nothing,
    /// It is as the base has it.
    Base,
    /// This.
    This(T),
}

impl<T> From<Option<T>> for Said<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Base, Self::This)
    }
}

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

    pub(super) fn binding(&self, parent: u64, name: &[u8]) -> Said<Binding> {
        let said = self.bindings.get(&parent).and_then(|names| names.get(name));
        said.map_or(Said::Nothing, |binding| Said::from(*binding))
    }

    pub(super) fn node(&self, ino: u64) -> Said<Arc<Node>> {
        self.nodes.get(&ino).map_or(Said::Nothing, |node| Said::from(node.clone()))
    }
}
