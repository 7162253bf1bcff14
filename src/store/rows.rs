//! Repositories, workspaces and generations: few rows, always durable.
//!
//! A damaged one is an error, never skipped: a workspace may not vanish
//! unnoticed.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::db::Wait;
use super::error::{Failure, StoreError};
use super::record::{Generation, GenerationRecord, PendingWarm, Pin, Repository, RepositoryId, Workspace, WorkspaceId};
use super::row::{seal, unseal};
use super::schema::{COUNTERS, GENERATIONS, NOTES, PINS, REPOSITORIES, WANTS, WORKSPACES, counter};

pub(super) const NEXT_REPOSITORY: &str = "next_repository";
pub(super) const NEXT_WORKSPACE: &str = "next_workspace";
pub(super) const NEXT_WARM: &str = "next_warm";
pub(super) const NEXT_PIN: &str = "next_pin";

/// A table of rows by number.
type Numbered = TableDefinition<'static, u64, &'static [u8]>;

/// Room asked for before writing one row.
const ROW_BYTES: u64 = 4096;

impl Store {
    /// The next free repository number, from 1 on (durable).
    pub fn next_repository_id(&self) -> Result<RepositoryId, StoreError> {
        self.next_number(NEXT_REPOSITORY).map(RepositoryId)
    }

    /// The next free workspace number, from 1 on (durable).
    pub fn next_workspace_id(&self) -> Result<WorkspaceId, StoreError> {
        self.next_number(NEXT_WORKSPACE).map(WorkspaceId)
    }

    fn next_number(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.write("taking a number", Wait::Durable, ROW_BYTES, |txn| {
            let mut counters = txn.open_table(COUNTERS)?;
            let number = counter(&counters, name)?
                .checked_add(1)
                .ok_or_else(|| StoreError::corrupt(format!("counter {name} is used up")))?;
            counters.insert(name, number)?;
            Ok(number)
        })
    }

    /// Writes a repository's row (durable).
    pub fn put_repository(&self, row: &Repository) -> Result<(), StoreError> {
        self.inner.write("writing a repository", Wait::Durable, ROW_BYTES, |txn| {
            put(&mut txn.open_table(REPOSITORIES)?, row.id.0, row)
        })
    }

    /// All repositories, oldest first.
    pub fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        self.inner.read("reading repositories", |txn| all(&txn.open_table(REPOSITORIES)?))
    }

    /// Writes a workspace's row (durable).
    pub fn put_workspace(&self, row: &Workspace) -> Result<(), StoreError> {
        self.inner.write("writing a workspace", Wait::Durable, ROW_BYTES, |txn| {
            put(&mut txn.open_table(WORKSPACES)?, row.id.0, row)
        })
    }

    /// The next free number of a pending warm, from 1 on (durable).
    pub fn next_warm_id(&self) -> Result<u64, StoreError> {
        self.next_number(NEXT_WARM)
    }

    /// Writes a pending warm's row (durable).
    pub fn put_warm(&self, row: &PendingWarm) -> Result<(), StoreError> {
        self.inner
            .write("writing a warm", Wait::Durable, ROW_BYTES, |txn| put(&mut txn.open_table(WANTS)?, row.id, row))?;
        self.roots_changed();
        Ok(())
    }

    /// Removes pending warms (durable).
    pub fn remove_warms(&self, ids: &[u64]) -> Result<(), StoreError> {
        self.remove_numbered("removing warms", WANTS, ids)
    }

    fn remove_numbered(&self, doing: &str, table: Numbered, ids: &[u64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.inner.write(doing, Wait::Durable, ROW_BYTES, |txn| {
            let mut table = txn.open_table(table)?;
            for id in ids {
                table.remove(id)?;
            }
            Ok(())
        })
    }

    /// All pending warms, oldest first.
    pub fn warms(&self) -> Result<Vec<PendingWarm>, StoreError> {
        self.inner.read("reading warms", |txn| all(&txn.open_table(WANTS)?))
    }

    /// The next free number of a pin, from 1 on (durable).
    pub fn next_pin_id(&self) -> Result<u64, StoreError> {
        self.next_number(NEXT_PIN)
    }

    /// Writes a pin's row (durable).
    pub fn put_pin(&self, row: &Pin) -> Result<(), StoreError> {
        self.inner
            .write("writing a pin", Wait::Durable, ROW_BYTES, |txn| put(&mut txn.open_table(PINS)?, row.id, row))?;
        self.roots_changed();
        Ok(())
    }

    /// Removes pins (durable).
    pub fn remove_pins(&self, ids: &[u64]) -> Result<(), StoreError> {
        self.remove_numbered("removing pins", PINS, ids)
    }

    /// All pins, oldest first.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.inner.read("reading pins", |txn| all(&txn.open_table(PINS)?))
    }

    /// Removes generations of a workspace (durable), in one transaction. The one it shows stays, whoever asks.
    pub fn remove_generations(&self, workspace: WorkspaceId, generations: &[Generation]) -> Result<u64, StoreError> {
        self.inner.write("removing generations", Wait::Durable, ROW_BYTES, |txn| {
            let row = txn
                .open_table(WORKSPACES)?
                .get(workspace.0)?
                .map(|row| parse::<u64, Workspace>(&workspace.0, row.value()));
            let current = row.transpose()?.and_then(|row| row.current);
            let mut table = txn.open_table(GENERATIONS)?;
            let mut removed = 0;
            for generation in generations.iter().filter(|generation| Some(**generation) != current) {
                removed += u64::from(table.remove((workspace.0, generation.0))?.is_some());
            }
            Ok(removed)
        })
    }

    /// Remembers `value` under `name` (durable).
    pub fn note(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        self.inner.write("writing a note", Wait::Durable, ROW_BYTES, |txn| {
            put(&mut txn.open_table(NOTES)?, name.as_bytes(), value)
        })
    }

    /// What is remembered under `name`. One that does not parse is none: notes are conveniences.
    pub fn noted<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        self.inner.read("reading a note", |txn| {
            let row = txn.open_table(NOTES)?.get(name.as_bytes())?;
            Ok(row.and_then(|row| parse::<&[u8], T>(&name.as_bytes(), row.value()).ok()))
        })
    }

    /// Removes a workspace with its generations and pins (durable).
    pub fn remove_workspace(&self, id: WorkspaceId) -> Result<(), StoreError> {
        self.inner.write("removing a workspace", Wait::Durable, ROW_BYTES, |txn| {
            txn.open_table(WORKSPACES)?.remove(id.0)?;
            txn.open_table(GENERATIONS)?.retain_in((id.0, 0)..=(id.0, u64::MAX), |_, _| false)?;
            let mut pins = txn.open_table(PINS)?;
            let of_it: Vec<u64> =
                all::<Pin>(&pins)?.into_iter().filter(|pin| pin.workspace == id).map(|pin| pin.id).collect();
            for pin in of_it {
                pins.remove(pin)?;
            }
            Ok(())
        })
    }

    /// Forgets a repository (durable), unless a workspace is of it.
    pub fn remove_repository(&self, id: RepositoryId) -> Result<bool, StoreError> {
        self.inner.write("removing a repository", Wait::Durable, ROW_BYTES, |txn| {
            let used = all::<Workspace>(&txn.open_table(WORKSPACES)?)?.iter().any(|row| row.repository == id);
            Ok(!used && txn.open_table(REPOSITORIES)?.remove(id.0)?.is_some())
        })
    }

    /// All workspaces, oldest first.
    pub fn workspaces(&self) -> Result<Vec<Workspace>, StoreError> {
        self.inner.read("reading workspaces", |txn| all(&txn.open_table(WORKSPACES)?))
    }

    /// Publishes: writes the generation's row and the workspace's, which names it, in one durable transaction.
    ///
    /// Everything committed before is durable with it.
    pub fn publish(&self, row: &GenerationRecord, workspace: &Workspace) -> Result<(), StoreError> {
        self.inner.write("publishing a generation", Wait::Durable, 2 * ROW_BYTES, |txn| {
            put_generation(txn, row, workspace)
        })?;
        self.roots_changed();
        Ok(())
    }

    /// One generation.
    pub fn generation(
        &self,
        workspace: WorkspaceId,
        generation: Generation,
    ) -> Result<Option<GenerationRecord>, StoreError> {
        self.inner.read("reading a generation", |txn| {
            let key = (workspace.0, generation.0);
            let row = txn.open_table(GENERATIONS)?.get(key)?;
            row.map(|row| parse::<(u64, u64), _>(&key, row.value())).transpose()
        })
    }

    /// All generations of a workspace, oldest first.
    pub fn generations(&self, workspace: WorkspaceId) -> Result<Vec<GenerationRecord>, StoreError> {
        self.inner.read("reading generations", |txn| {
            let rows = txn.open_table(GENERATIONS)?.range((workspace.0, 0)..=(workspace.0, u64::MAX))?;
            rows.map(|row| {
                row.map_err(Failure::from).and_then(|(key, row)| parse::<(u64, u64), _>(&key.value(), row.value()))
            })
            .collect()
        })
    }
}

/// Writes a generation's row and its workspace's.
pub(super) fn put_generation(
    txn: &WriteTransaction,
    row: &GenerationRecord,
    workspace: &Workspace,
) -> Result<(), Failure> {
    put(&mut txn.open_table(GENERATIONS)?, (row.workspace.0, row.generation.0), row)?;
    put(&mut txn.open_table(WORKSPACES)?, workspace.id.0, workspace)
}

fn put<K: redb::Key + 'static>(
    table: &mut Table<K, &'static [u8]>,
    key: K::SelfType<'_>,
    row: &impl Serialize,
) -> Result<(), Failure> {
    let mut bytes =
        serde_json::to_vec(row).map_err(|error| StoreError::corrupt(format!("row can't be written: {error}")))?;
    seal(K::as_bytes(&key).as_ref(), &mut bytes);
    table.insert(key, bytes.as_slice())?;
    Ok(())
}

fn all<T: DeserializeOwned>(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<T>, Failure> {
    let rows = table.iter()?;
    rows.map(|row| row.map_err(Failure::from).and_then(|(key, row)| parse::<u64, T>(&key.value(), row.value())))
        .collect()
}

pub(super) fn parse<K: redb::Key + 'static, T: DeserializeOwned>(
    key: &K::SelfType<'_>,
    row: &[u8],
) -> Result<T, Failure> {
    let json = unseal(K::as_bytes(key).as_ref(), row);
    let parsed = json.and_then(|json| serde_json::from_slice(json).ok());
    parsed.ok_or_else(|| StoreError::corrupt("a repository's, workspace's or generation's row is damaged").into())
}
