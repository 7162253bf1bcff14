//! The overlay's rows of one workspace: what is acknowledged is in the write-ahead file, what is folded is in redb, and
//! look-ups see both.
//!
//! Invariants:
//!
//! * A change is in the write-ahead file before [`OverlayLog::apply`] returns; look-ups see it from then on.
//! * A fold writes absolute values in one durable transaction together with the number of the last write-ahead file in
//!   it, so folding twice, or replaying what was folded, changes nothing.
//! * Memory holds what is not folded: the owner folds when [`OverlayLog::pending`] grows.

mod check;
mod fold;
mod journal;
mod memory;
mod peek;
pub mod record;
mod wal;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Store;
use super::error::{Failure, StoreError, StoreErrorKind};
use super::record::WorkspaceId;
use super::row::unseal;
use super::schema::{NODES, OVERLAY};
pub use check::{Holder, Referred};
pub use fold::Fold;
use memory::{Memory, Said};
pub use peek::Peek;
pub use record::{Binding, Change, Content, Folded, Name, Node, Stamp, Written};
use wal::Wal;

/// Overlay rows of one workspace. Not shared: its owner guards it with a lock.
pub struct OverlayLog {
    store: Store,
    workspace: WorkspaceId,
    directory: PathBuf,
    active: Memory,
    /// Being folded: older than `active`, newer than redb.
    folding: Option<Arc<Memory>>,
    wal: Wal,
    /// Write-ahead files whose records are in memory only.
    unfolded: Vec<u64>,
    /// The handles of those before `wal`.
    older: Vec<Arc<File>>,
    folded: Folded,
    sequence: u64,
    next: u64,
    /// What replaying found of plain files that were not there yet.
    replayed: Vec<Written>,
    /// Whether redb has any row of this workspace: reading needs no transaction where nothing was ever changed.
    rows: bool,
}

impl OverlayLog {
    /// Opens the overlay of `workspace`, whose files are in `directory`: replays what was acknowledged and not folded.
    pub fn open(store: &Store, workspace: WorkspaceId, directory: &Path) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::from_io(&format!("opening {}", directory.display()), &error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let before = fold::read(store, workspace)?;
        let boot = boot_id();
        let mut folded =
            before.clone().unwrap_or_else(|| Folded { sequence: 1, epoch: new_epoch(), ..Folded::default() });
        let mut active = Memory::default();
        let (mut sequence, mut next) = (folded.sequence.max(1), folded.next);
        let (mut torn, mut unfolded, mut replayed) = (false, Vec::new(), Vec::new());
        for number in wal::numbers(directory).map_err(failed)? {
            if number <= folded.wal {
                wal::remove(directory, number).map_err(failed)?;
                continue;
            }
            unfolded.push(number);
            torn |= wal::replay(directory, number, |mut change| {
                sequence = sequence.max(change.sequence + change.width());
                next = next.max(change.next);
                replayed.retain(|written: &Written| !change.released.contains(&written.number));
                replayed.append(&mut change.bytes);
                active.apply(change);
            })
            .map_err(failed)?;
        }
        // After a loss of power the last operations may be gone, and whoever remembers their sequences is wrong. A record
        // cut short while the machine ran on was never acknowledged.
        if before.is_some() && !folded.closed && folded.boot != boot {
            tracing::info!(workspace = workspace.0, torn, "the machine went down: changes are counted anew");
            folded.epoch = new_epoch();
        }
        (folded.boot, folded.closed) = (boot, false);
        match fold::write(store, workspace, &folded) {
            // What was acknowledged is readable without it; it is noted with the next fold.
            Err(error) if error.kind == StoreErrorKind::Full => tracing::warn!("{error}"),
            written => written?,
        }
        let number = unfolded.last().copied().unwrap_or(folded.wal) + 1;
        let wal = Wal::create(directory, number).map_err(failed)?;
        unfolded.push(number);
        let directory = directory.to_owned();
        let rows = fold::has_rows(store, workspace)?;
        let store = store.clone();
        let (older, folding) = (Vec::new(), None);
        Ok(Self {
            store,
            workspace,
            directory,
            active,
            folding,
            wal,
            unfolded,
            older,
            folded,
            sequence,
            next,
            replayed,
            rows,
        })
    }

    /// Appends `change` to the write-ahead file and makes it visible. Its numbers are filled in here.
    pub fn apply(&mut self, mut change: Change) -> Result<(), StoreError> {
        change.sequence = self.sequence;
        change.next = self.next;
        let append = self.wal.append(&change);
        append.map_err(|error| StoreError::from_io("writing down a change", &error))?;
        self.sequence += change.width();
        // The owner has them.
        (change.bytes, change.released) = (Vec::new(), Vec::new());
        self.active.apply(change);
        Ok(())
    }

    /// What was written to plain files that are not there, by a process that was killed; in order. The owner makes the files
    /// before it folds anything.
    pub fn take_replayed(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.replayed)
    }

    /// A number not used before in this workspace, for an inode, a place in a listing or a file. Lost, and given again,
    /// unless a change is applied afterwards.
    pub fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The write-ahead files that have to be synced for all applied changes to be durable: what `fsync` waits for,
    /// without holding the owner's lock.
    pub fn syncers(&self) -> Vec<Arc<File>> {
        self.older.iter().cloned().chain([self.wal.file()]).collect()
    }

    /// Values that are not folded yet, and bytes of the write-ahead file.
    pub fn pending(&self) -> (usize, u64) {
        (self.active.puts, self.wal.length())
    }

    /// Whether nothing was ever changed.
    pub fn is_pristine(&self) -> bool {
        !self.rows && self.active.is_empty() && self.folding.is_none()
    }

    /// What `name` in `parent` leads to, where that is not what the base says.
    pub fn binding(&self, parent: u64, name: &[u8]) -> Result<Option<Binding>, StoreError> {
        for memory in self.memories() {
            match memory.binding(parent, name) {
                Said::Nothing => {}
                Said::Base => return Ok(None),
                Said::This(binding) => return Ok(Some(binding)),
            }
        }
        if !self.rows {
            return Ok(None);
        }
        self.store.inner.read("looking up a name", |txn| {
            let table = txn.open_table(OVERLAY)?;
            let row = table.get((self.workspace.0, parent, name))?;
            row.map(|row| parse(&binding_key(self.workspace, parent, name), row.value())).transpose()
        })
    }

    /// All names of `parent` that lead elsewhere than the base says, sorted.
    pub fn bindings(&self, parent: u64) -> Result<BTreeMap<Name, Binding>, StoreError> {
        let mut found: BTreeMap<Name, Binding> = BTreeMap::new();
        if self.rows {
            found = self.store.inner.read("listing changed names", |txn| {
                let table = txn.open_table(OVERLAY)?;
                let mut found = BTreeMap::new();
                for row in table.range((self.workspace.0, parent, &[][..])..(self.workspace.0, parent + 1, &[][..]))? {
                    let (key, row) = row?;
                    let name = key.value().2;
                    found.insert(Box::from(name), parse(&binding_key(self.workspace, parent, name), row.value())?);
                }
                Ok(found)
            })?;
        }
        for memory in self.memories().rev() {
            for (name, binding) in memory.bindings.get(&parent).into_iter().flatten() {
                match binding {
                    Some(binding) => found.insert(name.clone(), *binding),
                    None => found.remove(name),
                };
            }
        }
        Ok(found)
    }

    /// The inode `ino`, if it is not as the base has it.
    pub fn node(&self, ino: u64) -> Result<Option<Arc<Node>>, StoreError> {
        for memory in self.memories() {
            match memory.node(ino) {
                Said::Nothing => {}
                Said::Base => return Ok(None),
                Said::This(node) => return Ok(Some(node)),
            }
        }
        if !self.rows {
            return Ok(None);
        }
        self.store.inner.read("looking up an inode", |txn| {
            let row = txn.open_table(NODES)?.get((self.workspace.0, ino))?;
            row.map(|row| parse::<Node>(&node_key(self.workspace, ino), row.value()).map(Arc::new)).transpose()
        })
    }

    /// Numbers of all inodes that are not as the base has them.
    pub fn inodes(&self) -> Result<Vec<u64>, StoreError> {
        let mut found = std::collections::BTreeSet::new();
        if self.rows {
            found = self.store.inner.read("listing changed inodes", |txn| {
                let rows = txn.open_table(NODES)?.range((self.workspace.0, 0)..=(self.workspace.0, u64::MAX))?;
                rows.map(|row| Ok(row?.0.value().1)).collect()
            })?;
        }
        for memory in self.memories().rev() {
            for (ino, node) in &memory.nodes {
                if node.is_some() {
                    found.insert(*ino)
                } else {
                    found.remove(ino)
                };
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Newest first.
    fn memories(&self) -> impl DoubleEndedIterator<Item = &Memory> {
        std::iter::once(&self.active).chain(self.folding.as_deref())
    }

    /// Where the workspace's plain files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn parse<T: DeserializeOwned>(key: &[u8], row: &[u8]) -> Result<T, Failure> {
    let parsed = unseal(key, row).and_then(|row| postcard::from_bytes(row).ok());
    parsed.ok_or_else(|| StoreError::corrupt("a row of what was changed locally is damaged").into())
}

fn binding_key(workspace: WorkspaceId, parent: u64, name: &[u8]) -> Vec<u8> {
    [&workspace.0.to_le_bytes()[..], &parent.to_le_bytes(), name].concat()
}

fn node_key(workspace: WorkspaceId, ino: u64) -> Vec<u8> {
    [workspace.0.to_le_bytes(), ino.to_le_bytes()].concat()
}

/// Differs between any two journals whose sequences can't be compared.
fn new_epoch() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Which boot of the machine this is; empty where the kernel does not tell, which counts as another one each time.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
