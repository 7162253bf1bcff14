//! Repairs: each looks once more, in the transaction that changes something.
//!
//! Refuses to touch what people made: rows of workspaces, generations, repositories, pins and local changes.

use gix::ObjectId;
use redb::{ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::super::db::Wait;
use super::super::error::{Failure, StoreError};
use super::super::row::seal;
use super::super::schema::{
    BLOBS, CHUNKS, CONVERTED, COUNTERS, FETCHES, NOTES, SIZES, TREE_SIZES, TREES, WANTS, WARMED, counter,
};
use super::super::stats::{self, Totals};
use super::super::tree::Listing;
use super::super::{Store, pack};
use super::tables::least_numbers;
use super::trees::listing_of;
use super::{Key, Problem, Subject};

/// Chunks removed in one transaction.
const CHUNKS_PER_STEP: usize = 512;

/// What became of a blob that was found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is whole: somebody stored it anew.
    Whole,
    /// It is not there any more.
    Gone,
    /// It is damaged, and stays: the store takes no writes.
    Stays,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It is right, or gone and will be made again.
    Yes,
    /// Nothing was done: it is not one that can be made again.
    No,
}

impl Store {
    /// Drops a blob if it is damaged.
    pub fn drop_if_damaged(&self, id: &ObjectId) -> Result<Dropped, StoreError> {
        let row = self.inner.read("looking at a blob", |txn| {
            Ok(txn.open_table(BLOBS)?.get(id.as_bytes())?.map(|row| row.value().to_vec()))
        })?;
        let Some(row) = row else { return Ok(Dropped::Gone) };
        match self.check_blob(id)? {
            None => Ok(Dropped::Gone),
            Some(Ok(())) => Ok(Dropped::Whole),
            Some(Err(_)) => {
                // It goes if its row is still this one.
                self.drop_damaged_blob(id, &row);
                Ok(if self.contains(id)? { Dropped::Stays } else { Dropped::Gone })
            }
        }
    }

    /// Puts a tree in the place of one that is damaged or missing, durably: generations name it.
    pub fn replace_tree(&self, id: &ObjectId, listing: &Listing) -> Result<(), StoreError> {
        let mut row = listing.as_bytes().to_vec();
        seal(id.as_bytes(), &mut row);
        self.inner.write("storing a tree anew", Wait::Durable, row.len() as u64, |txn| {
            let mut trees = txn.open_table(TREES)?;
            let before = trees.insert(id.as_bytes(), row.as_slice())?.is_some();
            if before {
                return Ok(());
            }
            Totals { trees: 1, ..Totals::default() }.add_to(&mut txn.open_table(COUNTERS)?)
        })
    }

    /// Mends the row or counter that `problem` is about, if that can be made again from what else is stored.
    pub fn mend(&self, problem: &Problem) -> Result<Mended, StoreError> {
        match &problem.subject {
            Subject::Row { table, key } => self.mend_row(table, key),
            Subject::Counter(_) => self.recount(),
            Subject::Blob(_) | Subject::Tree(_) | Subject::Local(_) => Ok(Mended::No),
        }
    }

    fn mend_row(&self, table: &'static str, key: &Key) -> Result<Mended, StoreError> {
        let named: &[TableDefinition<'static, &'static [u8], &'static [u8]>] =
            &[SIZES, TREE_SIZES, CONVERTED, WARMED, NOTES];
        let numbered: &[TableDefinition<'static, u64, &'static [u8]>] = &[FETCHES, WANTS];
        let name = |known: &str| known == table;
        let doing = "taking a damaged row out";
        match key {
            Key::Bytes(key) => {
                let Some(table) = named.iter().find(|known| name(redb::TableHandle::name(*known))) else {
                    return Ok(Mended::No);
                };
                self.inner.write(doing, Wait::Relaxed, 4096, |txn| {
                    txn.open_table(*table)?.remove(&key[..])?;
                    Ok(())
                })?;
            }
            Key::Number(key) => {
                let Some(table) = numbered.iter().find(|known| name(redb::TableHandle::name(*known))) else {
                    return Ok(Mended::No);
                };
                self.inner.write(doing, Wait::Relaxed, 4096, |txn| {
                    txn.open_table(*table)?.remove(key)?;
                    Ok(())
                })?;
            }
            Key::Words(_) => return Ok(Mended::No),
        }
        Ok(Mended::Yes)
    }

    /// Counts everything anew, in one transaction: readers go on meanwhile, whoever stores waits.
    fn recount(&self) -> Result<Mended, StoreError> {
        self.inner.write("counting the store's totals", Wait::Durable, 4096, |txn| {
            let right = stats::count(&txn.open_table(BLOBS)?, txn.open_table(TREES)?.len()?)?;
            let mut counters = txn.open_table(COUNTERS)?;
            for (name, counted) in right {
                counters.insert(name, counted)?;
            }
            for (name, least) in least_numbers(|table| Ok(txn.open_table(table)?))? {
                if counter(&counters, name)? < least {
                    counters.insert(name, least)?;
                }
            }
            Ok(())
        })?;
        Ok(Mended::Yes)
    }

    /// Removes chunks that no blob has ([`Store::orphan_chunks`]). `go_on` is asked before each transaction.
    pub fn remove_orphans(&self, chunks: &[u64], go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        let mut removed = 0;
        for some in chunks.chunks(CHUNKS_PER_STEP) {
            if !go_on() {
                break;
            }
            removed += self
                .inner
                .write("removing chunks that no blob has", Wait::Relaxed, 4096, |txn| remove_chunks(txn, some))?;
        }
        Ok(removed)
    }

    /// Whether a tree can be put in the place of `id`: it is not there, or damaged.
    pub fn lacks_tree(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.inner.read("looking at a tree", |txn| {
            let row = txn.open_table(TREES)?.get(id.as_bytes())?;
            Ok(row.is_none_or(|row| listing_of(id, row.value()).is_none()))
        })
    }
}

fn remove_chunks(txn: &WriteTransaction, numbers: &[u64]) -> Result<u64, Failure> {
    let mut chunks = txn.open_table(CHUNKS)?;
    let mut freed = Totals::default();
    let mut removed = 0;
    for number in numbers {
        if let Some(value) = chunks.remove(number)? {
            freed.pages += pack::page_bytes(value.value().len());
            removed += 1;
        }
    }
    freed.take_from(&mut txn.open_table(COUNTERS)?)?;
    Ok(removed)
}
