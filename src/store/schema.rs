//! The tables, their version, and the steps from one version to the next.
//!
//! The version lies in the file. An older file is brought up to date in one
//! durable transaction a step; a newer one is refused untouched.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::error::{Failure, StoreError, StoreErrorKind};

/// `"schema"` → version.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Object id → [`super::row::BlobRow`].
pub(super) const BLOBS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("blobs");
/// Chunk number → stored bytes of objects, packed. Numbers are never used again.
pub(super) const CHUNKS: TableDefinition<u64, &[u8]> = TableDefinition::new("chunks");
/// First chunk number → how many are set aside, for each large blob being written.
pub(super) const PENDING: TableDefinition<u64, u64> = TableDefinition::new("pending");
/// Tree id → packed listing, sealed ([`super::row::seal`]).
pub(super) const TREES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("trees");
/// Object id → raw size (u64, little-endian), sealed.
pub(super) const SIZES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("sizes");
/// Tree id → raw sizes of its entries in the listing's order (u64s, little-endian), sealed: what listing a directory with
/// attributes needs, in one row.
pub(super) const TREE_SIZES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tree_sizes");
/// (workspace, generation) → JSON, sealed.
pub(super) const GENERATIONS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("generations");
/// Workspace → JSON, sealed.
pub(super) const WORKSPACES: TableDefinition<u64, &[u8]> = TableDefinition::new("workspaces");
/// Repository → JSON, sealed.
pub(super) const REPOSITORIES: TableDefinition<u64, &[u8]> = TableDefinition::new("repositories");
/// Number → JSON ([`super::record::Pin`]), sealed: what garbage collection keeps because somebody said so.
pub(super) const PINS: TableDefinition<u64, &[u8]> = TableDefinition::new("pins");
/// Name → JSON, sealed: what is remembered about the store itself ([`super::Store::note`]).
pub(super) const NOTES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("notes");
/// Number → JSON ([`super::record::PendingWarm`]), sealed: prefetch that must survive a restart.
pub(super) const WANTS: TableDefinition<u64, &[u8]> = TableDefinition::new("wants");
/// Key of a selection → counts, sealed ([`super::warmed`]): warms that ended.
pub(super) const WARMED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("warmed");
/// (workspace, directory's inode, name) → [`super::overlay::Binding`], sealed.
pub(super) const OVERLAY: TableDefinition<(u64, u64, &[u8]), &[u8]> = TableDefinition::new("overlay");
/// (workspace, inode) → [`super::overlay::Node`], sealed.
pub(super) const NODES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("overlay_nodes");
/// (workspace, sequence) → path that changed then and not since.
pub(super) const JOURNAL: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("journal");
/// (workspace, path) → sequence of its last change.
pub(super) const JOURNAL_PATHS: TableDefinition<(u64, &[u8]), u64> = TableDefinition::new("journal_paths");
/// Workspace → JSON ([`super::overlay::Folded`]), sealed: how far its write-ahead file is in these tables.
pub(super) const FOLDED: TableDefinition<u64, &[u8]> = TableDefinition::new("overlay_folded");
/// Id of a converted file → what it is, sealed ([`super::converted`]).
pub(super) const CONVERTED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("converted");
/// Number → [`super::Fetch`], sealed: what caused fetches.
pub(super) const FETCHES: TableDefinition<u64, &[u8]> = TableDefinition::new("fetches");
/// Object id → hours since 1970 of its last use.
pub(super) const ACCESS: TableDefinition<&[u8], u32> = TableDefinition::new("access");
/// Next free numbers and running totals, by name.
pub(super) const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");

const SCHEMA: &str = "schema";

/// Takes a store from one version to the next.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), Failure>;

/// `STEPS[n]` leads from version n + 1 to n + 2. Append; never change or remove one.
pub(super) const STEPS: &[Step] = &[
    |txn| {
        txn.open_table(WANTS)?;
        txn.open_table(WARMED)?;
        Ok(())
    },
    create_overlay,
    |txn| {
        txn.open_table(CONVERTED)?;
        Ok(())
    },
    |txn| {
        txn.open_table(PINS)?;
        txn.open_table(NOTES)?;
        Ok(())
    },
    |txn| {
        txn.open_table(FETCHES)?;
        Ok(())
    },
];

fn create_overlay(txn: &WriteTransaction) -> Result<(), Failure> {
    txn.open_table(OVERLAY)?;
    txn.open_table(NODES)?;
    txn.open_table(JOURNAL)?;
    txn.open_table(JOURNAL_PATHS)?;
    txn.open_table(FOLDED)?;
    Ok(())
}

/// Checks the version, creates the tables of a new file, and runs the steps an older one lacks.
pub(super) fn prepare(db: &Database, steps: &[Step]) -> Result<(), Failure> {
    let newest = newest(steps);
    let mut version = match version(db)? {
        Some(version) => version,
        None => create(db, newest)?,
    };
    refuse_unknown(version, newest)?;
    while version < newest {
        let mut txn = db.begin_write()?;
        txn.set_quick_repair(true);
        steps[usize::try_from(version - 1).expect("below the number of steps")](&txn)?;
        version += 1;
        txn.open_table(META)?.insert(SCHEMA, version)?;
        txn.commit()?;
    }
    Ok(())
}

/// Checks the version of a file that is only read: there is no bringing up to date.
pub(super) fn check(db: &impl ReadableDatabase, steps: &[Step]) -> Result<(), Failure> {
    let newest = newest(steps);
    let version = version(db)?.ok_or_else(|| StoreError::corrupt("the file is empty: it is no store yet"))?;
    refuse_unknown(version, newest)?;
    if version < newest {
        let message = format!(
            "the store has schema {version}, this Larder needs {newest}: open it once for writing (start the daemon)"
        );
        return Err(StoreError::new(StoreErrorKind::Older, message).into());
    }
    Ok(())
}

/// The version this Larder writes.
pub const fn current() -> u64 {
    STEPS.len() as u64 + 1
}

fn newest(steps: &[Step]) -> u64 {
    steps.len() as u64 + 1
}

fn refuse_unknown(version: u64, newest: u64) -> Result<(), StoreError> {
    if version > newest {
        let message = format!(
            "the store was written by a newer Larder (schema {version}; this one knows up to {newest}): update Larder, \
             or use another LARDER_HOME"
        );
        return Err(StoreError::new(StoreErrorKind::Newer, message));
    }
    if version == 0 {
        return Err(StoreError::corrupt("the store's schema version is damaged"));
    }
    Ok(())
}

/// The version in the file; `None` when it has no tables at all.
fn version(db: &impl ReadableDatabase) -> Result<Option<u64>, Failure> {
    let txn = db.begin_read()?;
    let mut tables = txn.list_tables()?.peekable();
    if tables.peek().is_none() {
        return Ok(None);
    }
    if !tables.any(|table| table.name() == META.name()) {
        return Err(StoreError::corrupt("the file is a redb database, but not a Larder store").into());
    }
    let meta = txn.open_table(META)?;
    let version = meta.get(SCHEMA)?.ok_or_else(|| StoreError::corrupt("the store has no schema version"))?;
    Ok(Some(version.value()))
}

/// Makes all tables, so that no reader ever finds one missing.
fn create(db: &Database, newest: u64) -> Result<u64, Failure> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    for table in [BLOBS, TREES, SIZES, TREE_SIZES, WARMED, CONVERTED, NOTES] {
        txn.open_table(table)?;
    }
    for table in [WORKSPACES, REPOSITORIES, CHUNKS, WANTS, PINS, FETCHES] {
        txn.open_table(table)?;
    }
    create_overlay(&txn)?;
    txn.open_table(PENDING)?;
    txn.open_table(GENERATIONS)?;
    txn.open_table(ACCESS)?;
    txn.open_table(COUNTERS)?;
    txn.open_table(META)?.insert(SCHEMA, newest)?;
    txn.commit()?;
    Ok(newest)
}

/// A counter's value; 0 when it was never set.
pub(super) fn counter(table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, Failure> {
    Ok(table.get(name)?.map_or(0, |value| value.value()))
}
