//! A workspace's overlay as it was left, read without opening it: nothing is written, removed or begun.
//!
//! For commands that look while no daemon runs, on a store that is open for reading. Sees what is in the tables and, where
//! the write-ahead files are there, what they have on top; a copy of the store alone has no such files.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::memory::{Memory, Said};
use super::record::{Binding, Name, Node};
use super::{binding_key, fold, node_key, parse, wal};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::record::WorkspaceId;
use crate::store::schema::{NODES, OVERLAY};

/// An overlay that nobody has open.
pub struct Peek {
    store: Store,
    workspace: WorkspaceId,
    unfolded: Memory,
    /// How long the plain files are whose bytes are in the write-ahead files alone.
    written: HashMap<u64, u64>,
    rows: bool,
}

impl Peek {
    /// Looks at the overlay of `workspace`, whose files are in `directory`, if that is there.
    pub fn open(store: &Store, workspace: WorkspaceId, directory: &Path) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::from_io(&format!("reading {}", directory.display()), &error);
        let folded = fold::read(store, workspace)?.unwrap_or_default();
        let (mut unfolded, mut written) = (Memory::default(), HashMap::new());
        let numbers = match wal::numbers(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            numbers => numbers.map_err(failed)?,
        };
        for number in numbers.into_iter().filter(|number| *number > folded.wal) {
            let replayed = wal::replay(directory, number, |change| {
                for bytes in &change.bytes {
                    written.insert(bytes.number, bytes.offset + bytes.bytes.len() as u64);
                }
                for number in &change.released {
                    written.remove(number);
                }
                unfolded.apply(change);
            });
            match replayed {
                // Folded by somebody else a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                replayed => drop(replayed.map_err(failed)?),
            }
        }
        let rows = fold::has_rows(store, workspace)?;
        Ok(Self { store: store.clone(), workspace, unfolded, written, rows })
    }

    /// Whether nothing was ever changed.
    pub fn is_pristine(&self) -> bool {
        !self.rows && self.unfolded.is_empty()
    }

    /// What `name` in `parent` leads to, where that is not what the base says.
    pub fn binding(&self, parent: u64, name: &[u8]) -> Result<Option<Binding>, StoreError> {
        match self.unfolded.binding(parent, name) {
            Said::This(binding) => return Ok(Some(binding)),
            Said::Base => return Ok(None),
            Said::Nothing => {}
        }
        self.store.inner.read("looking up a name", |txn| {
            let row = txn.open_table(OVERLAY)?.get((self.workspace.0, parent, name))?;
            row.map(|row| parse(&binding_key(self.workspace, parent, name), row.value())).transpose()
        })
    }

    /// The inode `ino`, if it is not as the base has it.
    pub fn node(&self, ino: u64) -> Result<Option<Arc<Node>>, StoreError> {
        match self.unfolded.node(ino) {
            Said::This(node) => return Ok(Some(node)),
            Said::Base => return Ok(None),
            Said::Nothing => {}
        }
        self.store.inner.read("looking up an inode", |txn| {
            let row = txn.open_table(NODES)?.get((self.workspace.0, ino))?;
            row.map(|row| parse::<Node>(&node_key(self.workspace, ino), row.value()).map(Arc::new)).transpose()
        })
    }

    /// Every directory with names that lead elsewhere than the base says, and those names.
    pub fn bindings(&self) -> Result<BTreeMap<(u64, Name), Binding>, StoreError> {
        let mut found = self.store.inner.read("listing changed names", |txn| {
            let mut found: BTreeMap<(u64, Name), Binding> = BTreeMap::new();
            let of_it = (self.workspace.0, 0, &[][..])..(self.workspace.0 + 1, 0, &[][..]);
            for row in txn.open_table(OVERLAY)?.range(of_it)? {
                let (key, row) = row?;
                let (_, parent, name) = key.value();
                found.insert((parent, name.into()), parse(&binding_key(self.workspace, parent, name), row.value())?);
            }
            Ok(found)
        })?;
        for (parent, names) in &self.unfolded.bindings {
            for (name, binding) in names {
                match binding {
                    Some(binding) => found.insert((*parent, name.clone()), *binding),
                    None => found.remove(&(*parent, name.clone())),
                };
            }
        }
        Ok(found)
    }

    /// Bytes of the plain file `number`, if they are in the write-ahead files alone.
    pub fn unwritten(&self, number: u64) -> Option<u64> {
        self.written.get(&number).copied()
    }
}
