//! Blobs too large to hold in memory, written frame by frame.
//!
//! Chunks go in as they fill, in bounded transactions; nobody sees them until
//! [`LargeBlob::finish`] writes the blob's row. The numbers they use are set
//! aside in `pending` by the same transaction that writes the first of them,
//! so that an unfinished blob is given back when it is dropped or, should the
//! process die, when the store is opened next.

use std::io;
use std::sync::Arc;

use gix::ObjectId;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::Store;
use super::access::hour_now;
use super::batch::NEXT_CHUNK;
use super::blob::{encode_frame, frame_check};
use super::db::{Inner, Wait};
use super::error::{Failure, StoreError, StoreErrorKind};
use super::pack::{self, UNIT};
use super::row::{BlobRow, FRAME_BYTES, FrameEntry, Place};
use super::schema::{self, BLOBS, CHUNKS, COUNTERS, PENDING};
use super::stats::Totals;

/// Stored bytes gathered for one transaction; bounds what a large blob keeps in memory.
const WRITE_BYTES: usize = 1 << 20;

const DOING: &str = "storing a large blob";

/// A large blob being written. Dropped unfinished, it leaves nothing behind.
pub struct LargeBlob {
    inner: Arc<Inner>,
    /// Opening of the file that its chunks were written to.
    epoch: u64,
    expected: u64,
    written: u64,
    /// The frame being filled.
    raw: Vec<u8>,
    /// Stored bytes not yet in a chunk.
    stored: Vec<u8>,
    stored_size: u64,
    frames: Vec<FrameEntry>,
    hash: blake3::Hasher,
    /// Where its chunks begin, once the first was written.
    first_chunk: Option<u64>,
    chunks: u64,
    finished: bool,
}

impl Store {
    /// Starts a blob of exactly `raw_size` bytes, to be written through [`io::Write`].
    pub fn large_blob(&self, raw_size: u64) -> Result<LargeBlob, StoreError> {
        self.inner.may_write(DOING, raw_size.min(WRITE_BYTES as u64))?;
        Ok(LargeBlob {
            inner: Arc::clone(&self.inner),
            epoch: self.inner.epoch(),
            expected: raw_size,
            written: 0,
            raw: Vec::new(),
            stored: Vec::new(),
            stored_size: 0,
            frames: Vec::new(),
            hash: blake3::Hasher::new(),
            first_chunk: None,
            chunks: 0,
            finished: false,
        })
    }
}

impl io::Write for LargeBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = FRAME_BYTES - self.raw.len();
        let taken = &bytes[..bytes.len().min(room)];
        if taken.len() as u64 > self.expected - self.written {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than the blob's announced size"));
        }
        self.raw.extend_from_slice(taken);
        self.written += taken.len() as u64;
        if self.raw.len() == FRAME_BYTES {
            self.end_frame();
            if self.stored.len() >= WRITE_BYTES {
                self.write_chunks()?;
            }
        }
        Ok(taken.len())
    }

    /// Does nothing: whole frames are written as they fill, the rest by [`LargeBlob::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LargeBlob {
    /// Commits it as `id`.
    #[expect(clippy::missing_panics_doc, reason = "lengths are parts of bytes in memory")]
    pub fn finish(mut self, id: ObjectId) -> Result<(), StoreError> {
        if self.written != self.expected {
            let message = format!("{DOING} {id}: {} bytes instead of {}", self.written, self.expected);
            return Err(StoreError::corrupt(message));
        }
        if !self.raw.is_empty() {
            self.end_frame();
        }
        let hash = *self.hash.finalize().as_bytes();
        let bytes = self.stored.len() as u64 + 24 * self.frames.len() as u64;
        let wait = self.inner.make_room(Wait::Relaxed, bytes)?;
        self.inner.write_in(Some(self.epoch), DOING, wait, bytes, |txn| {
            let mut blobs = txn.open_table(BLOBS)?;
            if blobs.get(id.as_bytes())?.is_some() {
                return self.first_chunk.map_or(Ok(()), |first| give_back(txn, first));
            }
            let first = match self.first_chunk {
                Some(first) => first,
                None => reserve(txn, self.expected)?,
            };
            let mut chunks = txn.open_table(CHUNKS)?;
            let mut rest = &self.stored[..];
            for (index, length) in (first + self.chunks..).zip(pack::cut(rest.len() as u64, UNIT)) {
                let (chunk, after) = rest.split_at(usize::try_from(length).expect("part of bytes in memory"));
                chunks.insert(index, chunk)?;
                rest = after;
            }
            let row = BlobRow {
                place: Place::Run { first_chunk: first, unit: UNIT },
                stored_size: self.stored_size,
                raw_size: self.expected,
                hash,
                stored_hour: hour_now(),
            };
            blobs.insert(id.as_bytes(), row.encode(&id, &self.frames).as_slice())?;
            txn.open_table(PENDING)?.remove(first)?;
            let pages = |(_, length): (u64, u64)| usize::try_from(length).map_or(0, pack::page_bytes);
            let mut added =
                Totals { pages: (0..).zip(pack::cut(self.stored_size, UNIT)).map(pages).sum(), ..Totals::default() };
            added.add_blob(&row);
            added.add_to(&mut txn.open_table(COUNTERS)?)
        })?;
        self.finished = true;
        self.inner.tell(|watch| watch.arrived(&[(id, self.expected)]));
        Ok(())
    }

    fn end_frame(&mut self) {
        let at = self.stored.len();
        encode_frame(&self.raw, &mut self.stored);
        self.raw.clear();
        let stored = &self.stored[at..];
        self.hash.update(stored);
        self.stored_size += stored.len() as u64;
        self.frames.push(FrameEntry { end: self.stored_size, check: frame_check(stored) });
    }

    /// Writes whole chunks out of the stored bytes gathered.
    fn write_chunks(&mut self) -> Result<(), StoreError> {
        let whole = self.stored.chunks_exact(UNIT as usize);
        let (count, bytes) = (whole.len() as u64, self.stored.len() - whole.remainder().len());
        let (first_chunk, at) = (self.first_chunk, self.chunks);
        let wait = self.inner.make_room(Wait::Relaxed, bytes as u64)?;
        let first = self.inner.write_in(Some(self.epoch), DOING, wait, bytes as u64, |txn| {
            let first = match first_chunk {
                Some(first) => first,
                None => reserve(txn, self.expected)?,
            };
            let mut chunks = txn.open_table(CHUNKS)?;
            for (index, chunk) in (first + at..).zip(whole) {
                chunks.insert(index, chunk)?;
            }
            Ok(first)
        })?;
        self.first_chunk = Some(first);
        self.chunks += count;
        self.stored.drain(..bytes);
        Ok(())
    }
}

impl Drop for LargeBlob {
    fn drop(&mut self) {
        let Some(first) = self.first_chunk.filter(|_| !self.finished) else { return };
        // Opened again since, the store has given them back already; poisoned, the next opening will.
        let given = self.inner.write_in(Some(self.epoch), DOING, Wait::Relaxed, 0, |txn| give_back(txn, first));
        if let Err(error) = given {
            tracing::debug!(%error, "an unfinished large blob stays until the store is opened next");
        }
    }
}

/// Sets chunk numbers aside for a run of at most `raw_size` stored bytes.
fn reserve(txn: &WriteTransaction, raw_size: u64) -> Result<u64, Failure> {
    let mut counters = txn.open_table(COUNTERS)?;
    let first = schema::counter(&counters, NEXT_CHUNK)?;
    let count = pack::cut_limit(raw_size, UNIT);
    let next = first
        .checked_add(count)
        .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "the store's chunk numbers are used up"))?;
    counters.insert(NEXT_CHUNK, next)?;
    txn.open_table(PENDING)?.insert(first, count)?;
    Ok(first)
}

/// Removes the chunks of an unfinished blob: they are consecutive, so the first gap ends them.
fn give_back(txn: &WriteTransaction, first: u64) -> Result<(), Failure> {
    let count = txn.open_table(PENDING)?.remove(first)?.map_or(0, |count| count.value());
    let mut chunks = txn.open_table(CHUNKS)?;
    for chunk in first..first.saturating_add(count) {
        if chunks.remove(chunk)?.is_none() {
            break;
        }
    }
    Ok(())
}

/// Gives back what blobs left that were being written when their process ended.
pub(super) fn reclaim_abandoned(db: &Database) -> Result<(), Failure> {
    if db.begin_read()?.open_table(PENDING)?.is_empty()? {
        return Ok(());
    }
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    let abandoned: Vec<u64> =
        txn.open_table(PENDING)?.iter()?.map(|row| row.map(|(first, _)| first.value())).collect::<Result<_, _>>()?;
    for first in abandoned {
        give_back(&txn, first)?;
    }
    txn.commit()?;
    Ok(())
}
