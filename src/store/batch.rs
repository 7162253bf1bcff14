//! Objects that are stored together.
//!
//! A batch compresses as it is filled, on its filler's thread; committing it
//! is one short transaction that packs and copies bytes. Objects already in
//! the store, or twice in the batch, are stored once.

use std::cell::LazyCell;
use std::collections::HashSet;

use gix::ObjectId;
use redb::{ReadableTable, Table, WriteTransaction};

use super::access::hour_now;
use super::blob::{self, Encoded};
use super::converted::{self, Converted};
use super::db::Wait;
use super::error::{Failure, StoreError};
use super::pack::{self, CHUNK_BYTES, UNIT};
use super::row::{BlobRow, FRAME_BYTES, Place, seal};
use super::schema::{BLOBS, CHUNKS, COUNTERS, SIZES, TREES};
use super::stats::Totals;
use super::tree::Listing;
use super::{Store, schema};

/// Counter: the next free chunk number.
pub(super) const NEXT_CHUNK: &str = "next_chunk";

/// Objects to commit together, already compressed.
#[derive(Debug, Default)]
pub struct Batch {
    /// Stored bytes of all blobs, one after the other.
    data: Vec<u8>,
    blobs: Vec<(ObjectId, Encoded, usize)>,
    trees: Vec<(ObjectId, Listing)>,
    sizes: Vec<(ObjectId, u64)>,
    converted: Vec<(ObjectId, Converted)>,
    seen: HashSet<ObjectId>,
    raw_bytes: u64,
}

impl Batch {
    /// Adds a blob, compressing it now. One that is too large to hold in memory goes through [`Store::large_blob`].
    pub fn blob(&mut self, id: ObjectId, raw: &[u8]) {
        if !self.seen.insert(id) {
            return;
        }
        let start = self.data.len();
        let encoded = blob::encode(raw, &mut self.data);
        self.raw_bytes += encoded.raw_size;
        self.blobs.push((id, encoded, start));
    }

    /// Adds a tree.
    pub fn tree(&mut self, id: ObjectId, listing: &Listing) {
        if self.seen.insert(id) {
            self.trees.push((id, listing.clone()));
        }
    }

    /// Adds a size that is known before its blob.
    pub fn size(&mut self, id: ObjectId, raw_size: u64) {
        self.sizes.push((id, raw_size));
    }

    /// Adds what is known of a converted file. Its bytes, if it changed, are added as a blob of the same id.
    pub fn converted(&mut self, id: ObjectId, converted: Converted) {
        self.converted.push((id, converted));
    }

    /// Objects in it.
    pub fn len(&self) -> usize {
        self.blobs.len() + self.trees.len() + self.sizes.len() + self.converted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Raw bytes of its blobs.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Stored bytes of its blobs: about the memory it takes.
    pub fn stored_bytes(&self) -> u64 {
        self.data.len() as u64
    }

    fn stored(&self, blob: usize) -> &[u8] {
        let (_, encoded, start) = &self.blobs[blob];
        let length = usize::try_from(encoded.stored_size).expect("it lies in memory");
        &self.data[*start..*start + length]
    }
}

impl Store {
    /// Commits a batch in one transaction, without waiting for the disk: a crash may lose it, never tear it.
    #[expect(clippy::needless_pass_by_value, reason = "a batch is spent by committing it; its memory goes at once")]
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.commit_with(&batch, Wait::Relaxed)
    }

    /// Commits a batch and waits until it is on the disk, with everything committed before it.
    #[expect(clippy::needless_pass_by_value, reason = "a batch is spent by committing it; its memory goes at once")]
    pub fn commit_durably(&self, batch: Batch) -> Result<(), StoreError> {
        self.commit_with(&batch, Wait::Durable)
    }

    fn commit_with(&self, batch: &Batch, wait: Wait) -> Result<(), StoreError> {
        if batch.is_empty() {
            return if wait == Wait::Durable { self.flush() } else { Ok(()) };
        }
        let trees: usize = batch.trees.iter().map(|(_, listing)| listing.as_bytes().len()).sum();
        let bytes = batch.stored_bytes() + trees as u64 + 256 * batch.len() as u64;
        let wait = self.inner.make_room(wait, bytes)?;
        self.inner.write("storing a batch", wait, bytes, |txn| write_batch(txn, batch))?;
        let blobs =
            LazyCell::new(|| batch.blobs.iter().map(|(id, encoded, _)| (*id, encoded.raw_size)).collect::<Vec<_>>());
        self.inner.tell(|watch| watch.arrived(&blobs));
        Ok(())
    }
}

fn write_batch(txn: &WriteTransaction, batch: &Batch) -> Result<(), Failure> {
    let mut added = Totals::default();
    if !batch.blobs.is_empty() {
        write_blobs(txn, batch, &mut added)?;
    }
    if !batch.trees.is_empty() {
        let mut trees = txn.open_table(TREES)?;
        let mut row = Vec::new();
        for (id, listing) in &batch.trees {
            if trees.get(id.as_bytes())?.is_none() {
                row.clear();
                row.extend_from_slice(listing.as_bytes());
                seal(id.as_bytes(), &mut row);
                trees.insert(id.as_bytes(), row.as_slice())?;
                added.trees += 1;
            }
        }
    }
    if !batch.sizes.is_empty() {
        let mut sizes = txn.open_table(SIZES)?;
        for (id, size) in &batch.sizes {
            let mut row = size.to_le_bytes().to_vec();
            seal(id.as_bytes(), &mut row);
            sizes.insert(id.as_bytes(), row.as_slice())?;
        }
    }
    if !batch.converted.is_empty() {
        converted::write(txn, &batch.converted)?;
    }
    added.add_to(&mut txn.open_table(COUNTERS)?)
}

fn write_blobs(txn: &WriteTransaction, batch: &Batch, added: &mut Totals) -> Result<(), Failure> {
    let mut blobs = txn.open_table(BLOBS)?;
    let mut chunks = txn.open_table(CHUNKS)?;
    let mut counters = txn.open_table(COUNTERS)?;
    let mut next_chunk = schema::counter(&counters, NEXT_CHUNK)?;
    let mut rows: Vec<(usize, Place)> = Vec::with_capacity(batch.blobs.len());
    let mut packed = Vec::with_capacity(batch.blobs.len());
    for (index, (id, encoded, _)) in batch.blobs.iter().enumerate() {
        if blobs.get(id.as_bytes())?.is_some() {
            continue;
        }
        if encoded.stored_size == 0 {
            // No chunk holds an empty blob, and none is read for it.
            rows.push((index, Place::Packed { chunk: 0, offset: 0 }));
        } else if encoded.raw_size <= FRAME_BYTES as u64 && encoded.stored_size <= CHUNK_BYTES as u64 {
            packed.push(index);
        } else {
            rows.push((index, Place::Run { first_chunk: next_chunk, unit: UNIT }));
            let (count, pages) = write_run(&mut chunks, next_chunk, batch.stored(index))?;
            next_chunk += count;
            added.pages += pages;
        }
    }
    let sizes: Vec<usize> = packed.iter().map(|&index| batch.stored(index).len()).collect();
    for chunk in pack::plan(&sizes) {
        added.pages += pack::page_bytes(chunk.bytes);
        let mut value = chunks.insert_reserve(next_chunk, chunk.bytes)?;
        let mut offset = 0;
        for member in chunk.members {
            let stored = batch.stored(packed[member]);
            value.as_mut()[offset..offset + stored.len()].copy_from_slice(stored);
            let place = u32::try_from(offset).expect("offsets lie below CHUNK_BYTES");
            rows.push((packed[member], Place::Packed { chunk: next_chunk, offset: place }));
            offset += stored.len();
        }
        next_chunk += 1;
    }
    let hour = hour_now();
    for (index, place) in rows {
        let (id, encoded, _) = &batch.blobs[index];
        let row = BlobRow {
            place,
            stored_size: encoded.stored_size,
            raw_size: encoded.raw_size,
            hash: encoded.hash,
            stored_hour: hour,
        };
        let frames = if matches!(place, Place::Run { .. }) { &encoded.frames[..] } else { &[] };
        blobs.insert(id.as_bytes(), row.encode(id, frames).as_slice())?;
        added.add_blob(&row);
    }
    counters.insert(NEXT_CHUNK, next_chunk)?;
    Ok(())
}

/// Writes a run's stored bytes from chunk `first` on. Returns how many chunks it took, and the bytes of their pages.
fn write_run(chunks: &mut Table<u64, &[u8]>, first: u64, stored: &[u8]) -> Result<(u64, u64), Failure> {
    let mut rest = stored;
    let (mut count, mut pages) = (0, 0);
    for length in pack::cut(stored.len() as u64, UNIT) {
        let (chunk, after) = rest.split_at(usize::try_from(length).expect("part of bytes in memory"));
        chunks.insert(first + count, chunk)?;
        pages += pack::page_bytes(chunk.len());
        rest = after;
        count += 1;
    }
    Ok((count, pages))
}
