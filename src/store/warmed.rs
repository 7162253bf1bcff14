//! What was warmed to its end, so that warming it again need not walk.
//!
//! Invariant: a row is durable only together with every object it vouches for, because it is written durably after
//! them; and whoever takes a blob out of the store forgets all rows in the same transaction.

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::Store;
use super::db::Wait;
use super::error::{Failure, StoreError};
use super::row::{seal, unseal};
use super::schema::WARMED;

/// Rows kept: a hundred bytes each. Beyond it all are forgotten, which costs a walk each.
const ROWS_MAX: u64 = 4096;

/// What a warm selected: the key of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmedKey(pub [u8; 32]);

/// How a warm ended; counts of distinct blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmed {
    /// Selected; all that were not left out are in the store.
    pub selected: u64,
    /// Above its limit.
    pub left_out: u64,
}

/// What the store had lost when a warm began.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    epoch: u64,
    damaged: u64,
}

impl Store {
    /// To be taken before a warm, and given back when it is noted.
    pub fn losses(&self) -> Losses {
        Losses { epoch: self.inner.epoch(), damaged: self.damaged() }
    }

    /// How the warm `key` ended, when it did and nothing has left the store since.
    pub fn warmed(&self, key: &WarmedKey) -> Result<Option<Warmed>, StoreError> {
        self.inner.read("looking up a warm", |txn| {
            let row = txn.open_table(WARMED)?.get(&key.0[..])?;
            let counts = row.as_ref().and_then(|row| unseal(&key.0, row.value())).map(<[u8]>::as_chunks::<8>);
            let Some(([selected, left_out], [])) = counts else { return Ok(None) };
            Ok(Some(Warmed { selected: u64::from_le_bytes(*selected), left_out: u64::from_le_bytes(*left_out) }))
        })
    }

    /// Notes how the warm `key` ended (durable, with everything committed before), unless something was lost since it
    /// began: then it is not all here. Damage is counted before its blob is dropped, so one of both transactions sees it.
    pub fn note_warmed(&self, key: &WarmedKey, warmed: Warmed, since: Losses) -> Result<(), StoreError> {
        if self.inner.epoch() != since.epoch {
            return Ok(());
        }
        let mut row = [warmed.selected.to_le_bytes(), warmed.left_out.to_le_bytes()].concat();
        seal(&key.0, &mut row);
        self.inner.write_in(Some(since.epoch), "noting a warm", Wait::Durable, row.len() as u64, |txn| {
            if self.damaged() != since.damaged {
                return Ok(());
            }
            let mut table = txn.open_table(WARMED)?;
            if table.len()? >= ROWS_MAX {
                table.retain(|_, _| false)?;
            }
            table.insert(&key.0[..], row.as_slice())?;
            Ok(())
        })
    }
}

/// A blob leaves the store: nothing is certain any more.
pub(super) fn forget(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut table = txn.open_table(WARMED)?;
    if table.first()?.is_some() {
        table.retain(|_, _| false)?;
    }
    Ok(())
}
