//! Object id → bytes, sizes, listings.
//!
//! Every stored byte is checked before it is handed out. What fails its check
//! is dropped from the store and reported as not there, so that the caller
//! fetches it again.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use gix::ObjectId;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::blob::{decode_frame, frame_check};
use super::db::Wait;
use super::error::{Failure, StoreError};
use super::row::{BlobRow, FRAME_BYTES, FrameEntry, Place, unseal};
use super::schema::{BLOBS, CHUNKS, COUNTERS, SIZES, TREES};
use super::stats::Totals;
use super::tree::Listing;
use super::{Store, pack, warmed};

/// How a blob is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Bytes of its content.
    pub raw_size: u64,
    /// Bytes it takes in the store.
    pub stored_size: u64,
    /// `zstd` or `raw`.
    pub codec: &'static str,
    /// Parts that can be read one by one.
    pub frames: u32,
    /// BLAKE3 of the stored bytes.
    pub blake3: [u8; 32],
}

/// What a look-up found.
enum Found<T> {
    Good(T),
    Nothing,
    /// The row as it was found.
    Damaged(Vec<u8>),
}

thread_local! {
    /// A frame of which only a part is wanted.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// A frame's stored bytes, which may lie in several chunks.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Store {
    /// Whether the blob is here.
    pub fn contains(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.inner.read("looking for a blob", |txn| Ok(txn.open_table(BLOBS)?.get(id.as_bytes())?.is_some()))
    }

    /// Those of `ids` whose blobs are not here, in one read transaction; order kept.
    pub fn missing_blobs(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, StoreError> {
        self.inner.read("looking for blobs", |txn| missing(&txn.open_table(BLOBS)?, ids))
    }

    /// Those of `ids` whose trees are not here, in one read transaction; order kept.
    pub fn missing_trees(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, StoreError> {
        self.inner.read("looking for trees", |txn| missing(&txn.open_table(TREES)?, ids))
    }

    /// Up to `len` raw bytes of a blob from `offset` (fewer at its end). `None`: not here.
    ///
    /// A damaged frame: the blob is dropped and `None` returned, so that the caller hydrates it again.
    pub fn read_at(&self, id: &ObjectId, offset: u64, len: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.read("reading a blob", |txn| {
            let Some(row) = txn.open_table(BLOBS)?.get(id.as_bytes())? else { return Ok(Found::Nothing) };
            let read = match BlobRow::decode(id, row.value()) {
                Some(head) => read_range(txn, &head, row.value(), offset, len)?,
                None => None,
            };
            Ok(read.map_or_else(|| Found::Damaged(row.value().to_vec()), Found::Good))
        })?;
        match found {
            Found::Good(bytes) => Ok(Some(bytes)),
            Found::Nothing => Ok(None),
            Found::Damaged(row) => {
                self.drop_damaged_blob(id, &row);
                Ok(None)
            }
        }
    }

    /// A whole blob. `None`: not here, or found damaged and dropped.
    pub fn read(&self, id: &ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read_at(id, 0, usize::MAX)
    }

    /// How a blob is kept. `None`: not here, or its row is damaged.
    pub fn blob_info(&self, id: &ObjectId) -> Result<Option<BlobInfo>, StoreError> {
        let row = self.blob_row(id)?;
        Ok(row.map(|row| BlobInfo {
            raw_size: row.raw_size,
            stored_size: row.stored_size,
            codec: row.codec(),
            frames: u32::try_from(row.frames()).unwrap_or(u32::MAX),
            blake3: row.hash,
        }))
    }

    pub(super) fn blob_row(&self, id: &ObjectId) -> Result<Option<BlobRow>, StoreError> {
        self.inner.read("looking at a blob", |txn| {
            let row = txn.open_table(BLOBS)?.get(id.as_bytes())?;
            Ok(row.and_then(|row| BlobRow::decode(id, row.value())))
        })
    }

    /// Raw sizes of blobs, whether they are here or only their sizes are known; one read transaction.
    pub fn sizes(&self, ids: &[ObjectId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.inner.read("looking up sizes", |txn| {
            let (blobs, sizes) = (txn.open_table(BLOBS)?, txn.open_table(SIZES)?);
            let size = |id: &ObjectId| -> Result<Option<u64>, Failure> {
                let blob = blobs.get(id.as_bytes())?.and_then(|row| BlobRow::decode(id, row.value()));
                if let Some(row) = blob {
                    return Ok(Some(row.raw_size));
                }
                let row = sizes.get(id.as_bytes())?;
                Ok(row.and_then(|row| Some(u64::from_le_bytes(unseal(id.as_bytes(), row.value())?.try_into().ok()?))))
            };
            ids.iter().map(size).collect()
        })
    }

    /// Raw sizes of those of `ids` whose blobs are here; one read transaction.
    pub fn stored_sizes(&self, ids: &[ObjectId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.inner.read("looking up blobs", |txn| {
            let blobs = txn.open_table(BLOBS)?;
            let size = |id: &ObjectId| -> Result<Option<u64>, Failure> {
                Ok(blobs.get(id.as_bytes())?.and_then(|row| BlobRow::decode(id, row.value())).map(|row| row.raw_size))
            };
            ids.iter().map(size).collect()
        })
    }

    /// Raw and stored size of each of `ids` that is here.
    pub fn kept_sizes(&self, ids: &[ObjectId]) -> Result<Vec<Option<(u64, u64)>>, StoreError> {
        self.inner.read("looking up blobs", |txn| {
            let blobs = txn.open_table(BLOBS)?;
            let sizes = |id: &ObjectId| -> Result<Option<(u64, u64)>, Failure> {
                let row = blobs.get(id.as_bytes())?.and_then(|row| BlobRow::decode(id, row.value()));
                Ok(row.map(|row| (row.raw_size, row.stored_size)))
            };
            ids.iter().map(sizes).collect()
        })
    }

    /// A tree's packed listing. `None`: not here, or found damaged and dropped.
    pub fn tree(&self, id: &ObjectId) -> Result<Option<Listing>, StoreError> {
        let found = self.inner.read("reading a tree", |txn| {
            let Some(row) = txn.open_table(TREES)?.get(id.as_bytes())? else { return Ok(Found::Nothing) };
            let listing = unseal(id.as_bytes(), row.value())
                .map(Bytes::copy_from_slice)
                .and_then(|row| Listing::from_row(row).ok());
            Ok(listing.map_or_else(|| Found::Damaged(row.value().to_vec()), Found::Good))
        })?;
        match found {
            Found::Good(listing) => Ok(Some(listing)),
            Found::Nothing => Ok(None),
            Found::Damaged(row) => {
                self.drop_damaged_tree(id, &row);
                Ok(None)
            }
        }
    }

    /// Objects found damaged since the store was opened.
    pub fn damaged(&self) -> u64 {
        self.inner.damaged.load(Ordering::Relaxed)
    }

    /// Drops the row that was found damaged, unless it was replaced since.
    pub(super) fn drop_damaged_blob(&self, id: &ObjectId, found: &[u8]) {
        self.report_damage(id);
        if !self.inner.writable() {
            return;
        }
        let dropped = self.inner.write("dropping a damaged blob", Wait::Relaxed, 0, |txn| {
            let mut blobs = txn.open_table(BLOBS)?;
            if blobs.get(id.as_bytes())?.is_none_or(|row| row.value() != found) {
                return Ok(0);
            }
            blobs.remove(id.as_bytes())?;
            warmed::forget(txn)?;
            let head = BlobRow::decode(id, found);
            if let Some(BlobRow { place: Place::Run { first_chunk, unit }, stored_size, .. }) = head {
                let mut chunks = txn.open_table(CHUNKS)?;
                for (chunk, _) in (first_chunk..).zip(pack::cut(stored_size, unit)) {
                    chunks.remove(chunk)?;
                }
            }
            let totals = Totals::of_blob(head.as_ref());
            totals.take_from(&mut txn.open_table(COUNTERS)?)?;
            Ok(totals.raw_bytes)
        });
        match dropped {
            Ok(raw_size) => self.inner.tell(|watch| watch.left(&[(*id, raw_size)])),
            Err(error) => tracing::warn!(%error, %id, "a damaged blob stays in the store"),
        }
    }

    fn drop_damaged_tree(&self, id: &ObjectId, found: &[u8]) {
        self.report_damage(id);
        if !self.inner.writable() {
            return;
        }
        let dropped = self.inner.write("dropping a damaged tree", Wait::Relaxed, 0, |txn| {
            let mut trees = txn.open_table(TREES)?;
            if trees.get(id.as_bytes())?.is_none_or(|row| row.value() != found) {
                return Ok(());
            }
            trees.remove(id.as_bytes())?;
            Totals { trees: 1, ..Totals::default() }.take_from(&mut txn.open_table(COUNTERS)?)
        });
        if let Err(error) = dropped {
            tracing::warn!(%error, %id, "a damaged tree stays in the store");
        }
    }

    fn report_damage(&self, id: &ObjectId) {
        self.inner.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%id, "object found damaged in the store");
    }
}

fn missing(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    ids: &[ObjectId],
) -> Result<Vec<ObjectId>, Failure> {
    let mut missing = Vec::new();
    for id in ids {
        if table.get(id.as_bytes())?.is_none() {
            missing.push(*id);
        }
    }
    Ok(missing)
}

/// Raw bytes `offset..offset + len` of a blob, cut at its end. `None`: damaged.
pub(super) fn read_range(
    txn: &ReadTransaction,
    head: &BlobRow,
    row: &[u8],
    offset: u64,
    len: usize,
) -> Result<Option<Vec<u8>>, Failure> {
    let end = offset.saturating_add(len as u64).min(head.raw_size);
    if offset >= end {
        return Ok(Some(Vec::new()));
    }
    let chunks = txn.open_table(CHUNKS)?;
    match head.place {
        Place::Packed { chunk, offset: at } => {
            let Some(value) = chunks.get(chunk)? else { return Ok(None) };
            let start = at as usize;
            let Ok(size) = usize::try_from(head.stored_size) else { return Ok(None) };
            let stored = start.checked_add(size).and_then(|end| value.value().get(start..end));
            let Some(stored) = stored.filter(|stored| *blake3::hash(stored).as_bytes() == head.hash) else {
                return Ok(None);
            };
            let mut out = Vec::new();
            let good = append_part(stored, head.frame_raw_size(0), offset, end, &mut out);
            Ok(good.then_some(out))
        }
        Place::Run { first_chunk, unit } => {
            let frame_bytes = FRAME_BYTES as u64;
            // The row's frame table vouches for the size, so this is no allocation at a damaged number's word.
            let mut out = Vec::with_capacity(usize::try_from(end - offset).unwrap_or(0));
            let run = Run { first_chunk, unit, stored_size: head.stored_size };
            for index in offset / frame_bytes..end.div_ceil(frame_bytes) {
                let Some((start, entry)) = head.frame(row, index) else { return Ok(None) };
                let frame = Frame { start, entry, raw_size: head.frame_raw_size(index) };
                let base = index * frame_bytes;
                let wanted = (offset.saturating_sub(base), (end - base).min(frame.raw_size as u64));
                if !run.append_frame(&chunks, &frame, wanted, &mut out)? {
                    return Ok(None);
                }
            }
            Ok(Some(out))
        }
    }
}

/// Decodes a frame and appends its raw bytes `from..to`. `false`: it doesn't decode.
fn append_part(stored: &[u8], raw_size: usize, from: u64, to: u64, out: &mut Vec<u8>) -> bool {
    let (from, to) = (usize::try_from(from).unwrap_or(raw_size), usize::try_from(to).unwrap_or(raw_size));
    if stored.len() == raw_size {
        let part = stored.get(from..to.min(raw_size));
        out.extend_from_slice(part.unwrap_or_default());
        return part.is_some();
    }
    if from == 0 && to >= raw_size {
        return decode_frame(stored, raw_size, out);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        let good = decode_frame(stored, raw_size, scratch);
        let part = scratch.get(from..to.min(raw_size));
        out.extend_from_slice(part.unwrap_or_default());
        good && part.is_some()
    })
}

/// Stored bytes that lie in chunks of their own.
pub(super) struct Run {
    pub(super) first_chunk: u64,
    pub(super) unit: u32,
    pub(super) stored_size: u64,
}

impl Run {
    /// Gives `look` each part of the stored bytes `start..end`, one a chunk. `false`: they are not there.
    pub(super) fn parts(
        &self,
        chunks: &ReadOnlyTable<u64, &'static [u8]>,
        start: u64,
        end: u64,
        mut look: impl FnMut(&[u8]),
    ) -> Result<bool, Failure> {
        let mut at = start;
        while at < end {
            let Some((index, chunk_start, length)) = pack::locate(self.stored_size, self.unit, at) else {
                return Ok(false);
            };
            let Some(chunk) = self.first_chunk.checked_add(index) else { return Ok(false) };
            let Some(value) = chunks.get(chunk)? else { return Ok(false) };
            let upto = end.min(chunk_start + length);
            let Some(part) = part(value.value(), at - chunk_start, upto - chunk_start) else { return Ok(false) };
            look(part);
            at = upto;
        }
        Ok(true)
    }

    /// Appends raw bytes `from..to` of a frame. `false`: it is damaged.
    fn append_frame(
        &self,
        chunks: &ReadOnlyTable<u64, &'static [u8]>,
        frame: &Frame,
        (from, to): (u64, u64),
        out: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        let (stored, raw) = (frame.entry.end - frame.start, frame.raw_size as u64);
        if stored == raw && (from, to) == (0, raw) {
            // Wanted whole and not compressed: checked where it will be read.
            let before = out.len();
            let here = self.parts(chunks, frame.start, frame.entry.end, |part| out.extend_from_slice(part))?;
            return Ok(here && frame_check(&out[before..]) == frame.entry.check);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            let here = self.parts(chunks, frame.start, frame.entry.end, |part| gathered.extend_from_slice(part))?;
            Ok(here
                && frame_check(gathered) == frame.entry.check
                && append_part(gathered, frame.raw_size, from, to, out))
        })
    }
}

/// A frame of a run, as its row describes it.
struct Frame {
    start: u64,
    entry: FrameEntry,
    raw_size: usize,
}

fn part(bytes: &[u8], from: u64, to: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}
