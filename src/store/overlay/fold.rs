//! Folding: what the write-ahead file has goes into redb, in one durable transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};

use super::super::Store;
use super::super::db::Wait;
use super::super::error::{Failure, StoreError};
use super::super::record::{GenerationRecord, Workspace, WorkspaceId};
use super::super::row::{seal, unseal};
use super::super::rows;
use super::super::schema::{FOLDED, JOURNAL, JOURNAL_PATHS, NODES, OVERLAY};
use super::memory::Memory;
use super::record::{Change, Folded};
use super::wal::{self, Wal};
use super::{OverlayLog, binding_key, node_key};

/// Room asked for before a fold, a value: names are up to 255 bytes, nodes about 150.
const PUT_BYTES: u64 = 512;

/// Paths kept in the journal of a workspace. Older ones are dropped, half at a time; whoever asks from before that is told
/// every path that differs from the base or once did.
const JOURNAL_ROWS: u64 = 400_000;

/// What is to be folded; carried out without the overlay's lock.
pub struct Fold {
    memory: Arc<Memory>,
    store: Store,
    workspace: WorkspaceId,
    directory: PathBuf,
    files: Vec<u64>,
    after: Folded,
}

impl Fold {
    /// Writes it, durably.
    pub fn run(&self) -> Result<(), StoreError> {
        let bytes = PUT_BYTES * self.memory.puts as u64;
        self.store.inner.write("writing down local changes", Wait::Durable, bytes, |txn| {
            put_memory(txn, self.workspace, &self.memory)?;
            put_folded(txn, self.workspace, &self.after)
        })
    }
}

impl OverlayLog {
    /// Sets aside all that is pending, to be folded by the caller; `None` when there is nothing, or a fold is under way.
    /// The caller gives it back to [`Self::finish`], whatever came of it.
    pub fn begin(&mut self) -> Result<Option<Fold>, StoreError> {
        if self.active.is_empty() || self.folding.is_some() {
            return Ok(None);
        }
        let next = Wal::create(&self.directory, self.wal.number() + 1)
            .map_err(|error| StoreError::from_io("starting a write-ahead file", &error))?;
        let number = next.number();
        let before = std::mem::replace(&mut self.wal, next);
        self.older.push(before.file());
        let files = std::mem::replace(&mut self.unfolded, vec![number]);
        let memory = Arc::new(std::mem::take(&mut self.active));
        self.folding = Some(Arc::clone(&memory));
        let after = Folded { sequence: self.sequence, next: self.next, wal: before.number(), ..self.folded.clone() };
        let (store, directory) = (self.store.clone(), self.directory.clone());
        Ok(Some(Fold { memory, store, workspace: self.workspace, directory, files, after }))
    }

    /// Ends a fold: with success its write-ahead files go, else everything is pending again.
    pub fn finish(&mut self, fold: Fold, outcome: &Result<(), StoreError>) {
        if outcome.is_ok() {
            self.rows = true;
            self.folded = fold.after;
            self.folding = None;
            self.older.clear();
            remove_files(&fold.directory, &fold.files);
            return;
        }
        self.folding = None;
        let Fold { memory, mut files, .. } = fold;
        files.append(&mut self.unfolded);
        self.unfolded = files;
        let newer = std::mem::take(&mut self.active);
        self.active = Arc::try_unwrap(memory).unwrap_or_else(|shared| shared.copied());
        self.active.extend(newer);
    }

    /// Folds everything now, with `change` and a generation's rows in the same transaction: the overlay is expressed
    /// against that generation from then on, or nothing happened. `change` does not go through the write-ahead file.
    pub fn publish(
        &mut self,
        mut change: Change,
        record: &GenerationRecord,
        workspace: &Workspace,
    ) -> Result<(), StoreError> {
        change.sequence = self.sequence;
        let width = change.width();
        let mut memory = Memory::default();
        memory.apply(change);
        let next = Wal::create(&self.directory, self.wal.number() + 1)
            .map_err(|error| StoreError::from_io("starting a write-ahead file", &error))?;
        let after =
            Folded { sequence: self.sequence + width, next: self.next, wal: self.wal.number(), ..self.folded.clone() };
        let bytes = PUT_BYTES * (memory.puts + self.active.puts + 2) as u64;
        let older = self.folding.clone();
        let written = self.store.inner.write("publishing a generation", Wait::Durable, bytes, |txn| {
            if let Some(older) = &older {
                put_memory(txn, self.workspace, older)?;
            }
            put_memory(txn, self.workspace, &self.active)?;
            put_memory(txn, self.workspace, &memory)?;
            put_folded(txn, self.workspace, &after)?;
            rows::put_generation(txn, record, workspace)
        });
        if let Err(error) = written {
            let _ = wal::remove(&self.directory, next.number());
            return Err(error);
        }
        self.sequence += width;
        self.folded = after;
        self.active = Memory::default();
        self.rows = true;
        self.older.clear();
        let number = next.number();
        self.wal = next;
        remove_files(&self.directory, &std::mem::replace(&mut self.unfolded, vec![number]));
        Ok(())
    }

    /// Folds everything and notes that it was closed in order.
    pub fn close(&mut self) -> Result<(), StoreError> {
        if let Some(fold) = self.begin()? {
            let outcome = fold.run();
            self.finish(fold, &outcome);
            outcome?;
        }
        if self.folding.is_none() && self.active.is_empty() {
            self.folded.closed = true;
            write(&self.store, self.workspace, &self.folded)?;
        }
        Ok(())
    }
}

impl Store {
    /// Removes all overlay rows of a workspace and its files in `directory` (durable).
    pub fn remove_overlay(&self, workspace: WorkspaceId, directory: &Path) -> Result<(), StoreError> {
        self.inner.write("removing local changes", Wait::Durable, PUT_BYTES, |txn| {
            let id = workspace.0;
            txn.open_table(OVERLAY)?.retain_in((id, 0, &[][..])..(id + 1, 0, &[][..]), |_, _| false)?;
            txn.open_table(NODES)?.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
            txn.open_table(JOURNAL)?.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
            txn.open_table(JOURNAL_PATHS)?.retain_in((id, &[][..])..(id + 1, &[][..]), |_, _| false)?;
            txn.open_table(FOLDED)?.remove(id)?;
            Ok(())
        })?;
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::from_io(&format!("removing {}", directory.display()), &error))
            }
            _ => Ok(()),
        }
    }
}

/// What is left behind is removed when the overlay is opened.
fn remove_files(directory: &Path, numbers: &[u64]) {
    for number in numbers {
        if let Err(error) = wal::remove(directory, *number) {
            tracing::warn!(%error, "a folded write-ahead file is still there");
        }
    }
}

fn put_memory(txn: &WriteTransaction, workspace: WorkspaceId, memory: &Memory) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let mut sealed = |key: &[u8], value: &dyn Fn(Vec<u8>) -> postcard::Result<Vec<u8>>| -> Result<Vec<u8>, Failure> {
        bytes.clear();
        let mut row = value(std::mem::take(&mut bytes))
            .map_err(|error| StoreError::corrupt(format!("a local change can't be written: {error}")))?;
        seal(key, &mut row);
        Ok(row)
    };
    let mut overlay = txn.open_table(OVERLAY)?;
    for (parent, names) in &memory.bindings {
        for (name, binding) in names {
            let key = (workspace.0, *parent, &**name);
            match binding {
                None => drop(overlay.remove(key)?),
                Some(binding) => {
                    let row = sealed(&binding_key(workspace, *parent, name), &|out| postcard::to_extend(binding, out))?;
                    overlay.insert(key, row.as_slice())?;
                }
            }
        }
    }
    let mut nodes = txn.open_table(NODES)?;
    for (ino, node) in &memory.nodes {
        match node {
            None => drop(nodes.remove((workspace.0, *ino))?),
            Some(node) => {
                let row = sealed(&node_key(workspace, *ino), &|out| postcard::to_extend(&**node, out))?;
                nodes.insert((workspace.0, *ino), row.as_slice())?;
            }
        }
    }
    let mut journal = txn.open_table(JOURNAL)?;
    let mut paths = txn.open_table(JOURNAL_PATHS)?;
    for (sequence, path) in &memory.journal {
        let before = paths.insert((workspace.0, &**path), sequence)?.map(|before| before.value());
        if let Some(before) = before.filter(|before| before != sequence) {
            journal.remove((workspace.0, before))?;
        }
        journal.insert((workspace.0, *sequence), &**path)?;
    }
    Ok(())
}

fn put_folded(txn: &WriteTransaction, workspace: WorkspaceId, after: &Folded) -> Result<(), Failure> {
    let mut after = after.clone();
    if let Some(floor) = prune(txn, workspace)? {
        after.floor = after.floor.max(floor);
    }
    let table = &mut txn.open_table(FOLDED)?;
    let mut row =
        serde_json::to_vec(&after).map_err(|error| StoreError::corrupt(format!("row can't be written: {error}")))?;
    seal(&workspace.0.to_le_bytes(), &mut row);
    table.insert(workspace.0, row.as_slice())?;
    Ok(())
}

/// Drops the older half of a journal that is too long; answers where it begins then.
fn prune(txn: &WriteTransaction, workspace: WorkspaceId) -> Result<Option<u64>, Failure> {
    let mut journal = txn.open_table(JOURNAL)?;
    // Rows of all workspaces: an upper bound that costs nothing to look at.
    if redb::ReadableTableMetadata::len(&journal)? <= JOURNAL_ROWS {
        return Ok(None);
    }
    let all = (workspace.0, 0)..=(workspace.0, u64::MAX);
    let count = journal.range(all.clone())?.count();
    if count as u64 <= JOURNAL_ROWS {
        return Ok(None);
    }
    let middle = match journal.range(all)?.nth(count / 2) {
        Some(row) => row?.0.value().1,
        None => return Ok(None),
    };
    let mut gone = Vec::new();
    journal.retain_in((workspace.0, 0)..(workspace.0, middle), |_, path| {
        gone.push(path.to_vec());
        false
    })?;
    let mut paths = txn.open_table(JOURNAL_PATHS)?;
    for path in gone {
        paths.remove((workspace.0, path.as_slice()))?;
    }
    Ok(Some(middle))
}

pub(super) fn read(store: &Store, workspace: WorkspaceId) -> Result<Option<Folded>, StoreError> {
    store.inner.read("reading how far local changes are written", |txn| {
        let row = txn.open_table(FOLDED)?.get(workspace.0)?;
        row.map(|row| {
            let json = unseal(&workspace.0.to_le_bytes(), row.value());
            json.and_then(|json| serde_json::from_slice(json).ok())
                .ok_or_else(|| StoreError::corrupt("the row about local changes is damaged").into())
        })
        .transpose()
    })
}

pub(super) fn write(store: &Store, workspace: WorkspaceId, folded: &Folded) -> Result<(), StoreError> {
    store.inner.write("noting how far local changes are written", Wait::Durable, PUT_BYTES, |txn| {
        put_folded(txn, workspace, folded)
    })
}

pub(super) fn has_rows(store: &Store, workspace: WorkspaceId) -> Result<bool, StoreError> {
    store.inner.read("looking for local changes", |txn| {
        let nodes = txn.open_table(NODES)?;
        Ok(nodes.range((workspace.0, 0)..=(workspace.0, u64::MAX))?.next().is_some())
    })
}
