//! The byte formats of rows that hold objects, and the check of every row.
//!
//! Rows are sealed: each ends (of `blobs`: its head ends) in a CRC-32 over key
//! and bytes, so that a damaged row, or one under the wrong key, is noticed
//! before anything in it is believed. Integers are little-endian.
//!
//! `blobs`, layout 1, *packed*: one frame inside one chunk.
//!
//! ```text
//! u8        1
//! u32       hours since 1970 when it was stored
//! u64       chunk
//! u32       offset in the chunk
//! u32       stored size
//! u32       raw size, at most FRAME_BYTES
//! [u8; 32]  BLAKE3 of the stored bytes
//! u32       CRC-32 of object id and all of the above
//! ```
//!
//! `blobs`, layout 2, *run*: n frames, one after the other, in chunks of their
//! own that are numbered consecutively. Where the frames' bytes are cut into
//! chunks follows from stored size and unit alone ([`super::pack::cut`]); a
//! frame may lie across a cut.
//!
//! ```text
//! u8        2
//! u32       hours since 1970 when it was stored
//! u64       first chunk
//! u32       unit: size of every chunk but the last few
//! u64       stored size
//! u64       raw size
//! [u8; 32]  BLAKE3 of the stored bytes
//! u32       CRC-32 of object id and all of the above
//! n × { u64 end of the frame, [u8; 16] first half of BLAKE3 of its stored bytes }
//! ```
//!
//! In both a frame holds [`FRAME_BYTES`] raw bytes, the last one the rest. It
//! is stored raw when its stored size equals its raw size, else as zstd.

use gix::ObjectId;

/// Raw bytes of a frame: the largest read the kernel's read-ahead asks of FUSE,
/// so that an aligned request decodes exactly one.
pub const FRAME_BYTES: usize = 128 << 10;

/// BLAKE3 of stored bytes.
pub(super) type Hash = [u8; 32];
/// First half of a frame's BLAKE3: against bit rot, where nobody chooses the bytes, 128 bits are plenty.
pub(super) type FrameCheck = [u8; 16];

const PACKED: u8 = 1;
const RUN: u8 = 2;
const PACKED_BYTES: usize = 1 + 4 + 8 + 4 + 4 + 4 + 32 + SEAL_BYTES;
const RUN_HEAD_BYTES: usize = 1 + 4 + 8 + 4 + 8 + 8 + 32 + SEAL_BYTES;
const FRAME_ENTRY_BYTES: usize = 8 + 16;
const SEAL_BYTES: usize = 4;

/// Where a frame ends in its blob's stored bytes, and its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameEntry {
    pub end: u64,
    pub check: FrameCheck,
}

/// Where a blob's stored bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Packed { chunk: u64, offset: u32 },
    Run { first_chunk: u64, unit: u32 },
}

/// The head of a `blobs` row: everything but the frame table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlobRow {
    pub place: Place,
    pub stored_size: u64,
    pub raw_size: u64,
    pub hash: Hash,
    /// Hours since 1970.
    pub stored_hour: u32,
}

impl BlobRow {
    /// The row's bytes; `frames` belong to a run.
    pub(super) fn encode(&self, id: &ObjectId, frames: &[FrameEntry]) -> Vec<u8> {
        let mut out = Vec::with_capacity(RUN_HEAD_BYTES + frames.len() * FRAME_ENTRY_BYTES);
        match self.place {
            Place::Packed { chunk, offset } => {
                let small = |size: u64| u32::try_from(size).expect("a packed blob is at most one frame");
                out.push(PACKED);
                out.extend_from_slice(&self.stored_hour.to_le_bytes());
                out.extend_from_slice(&chunk.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&small(self.stored_size).to_le_bytes());
                out.extend_from_slice(&small(self.raw_size).to_le_bytes());
            }
            Place::Run { first_chunk, unit } => {
                out.push(RUN);
                out.extend_from_slice(&self.stored_hour.to_le_bytes());
                out.extend_from_slice(&first_chunk.to_le_bytes());
                out.extend_from_slice(&unit.to_le_bytes());
                out.extend_from_slice(&self.stored_size.to_le_bytes());
                out.extend_from_slice(&self.raw_size.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.hash);
        seal(id.as_bytes(), &mut out);
        for frame in frames {
            out.extend_from_slice(&frame.end.to_le_bytes());
            out.extend_from_slice(&frame.check);
        }
        out
    }

    /// Checks the head of a row. `None`: damaged.
    pub(super) fn decode(id: &ObjectId, row: &[u8]) -> Option<Self> {
        let layout = *row.first()?;
        let head = match layout {
            PACKED if row.len() == PACKED_BYTES => row,
            RUN => row.get(..RUN_HEAD_BYTES)?,
            _ => return None,
        };
        let mut rest = Fields(&unseal(id.as_bytes(), head)?[1..]);
        let stored_hour = rest.u32()?;
        let decoded = if layout == PACKED {
            let place = Place::Packed { chunk: rest.u64()?, offset: rest.u32()? };
            let (stored_size, raw_size) = (rest.u32()?.into(), rest.u32()?.into());
            Self { place, stored_size, raw_size, hash: rest.array()?, stored_hour }
        } else {
            let place = Place::Run { first_chunk: rest.u64()?, unit: rest.u32()? };
            let (stored_size, raw_size) = (rest.u64()?, rest.u64()?);
            Self { place, stored_size, raw_size, hash: rest.array()?, stored_hour }
        };
        decoded.plausible(row.len()).then_some(decoded)
    }

    /// Whether the numbers agree with each other and with the row's length: what later allocations rely on.
    fn plausible(&self, row_bytes: usize) -> bool {
        if self.stored_size > self.raw_size {
            return false;
        }
        match self.place {
            Place::Packed { .. } => self.raw_size <= FRAME_BYTES as u64,
            Place::Run { unit, .. } => {
                let table = (row_bytes - RUN_HEAD_BYTES) as u64;
                unit > 0
                    && table.is_multiple_of(FRAME_ENTRY_BYTES as u64)
                    && table / FRAME_ENTRY_BYTES as u64 == self.raw_size.div_ceil(FRAME_BYTES as u64)
            }
        }
    }

    pub(super) fn frames(&self) -> u64 {
        match self.place {
            Place::Packed { .. } => 1,
            Place::Run { .. } => self.raw_size.div_ceil(FRAME_BYTES as u64),
        }
    }

    /// Raw size of frame `index`, which is below [`Self::frames`].
    pub(super) fn frame_raw_size(&self, index: u64) -> usize {
        let start = index * FRAME_BYTES as u64;
        usize::try_from(self.raw_size - start).map_or(FRAME_BYTES, |rest| rest.min(FRAME_BYTES))
    }

    /// Start, end and check of frame `index` of a run, out of its row. `None`: damaged.
    pub(super) fn frame(&self, row: &[u8], index: u64) -> Option<(u64, FrameEntry)> {
        let table = row.get(RUN_HEAD_BYTES..)?;
        let entry = |index: u64| {
            let at = usize::try_from(index).ok()?.checked_mul(FRAME_ENTRY_BYTES)?;
            let mut fields = Fields(table.get(at..at + FRAME_ENTRY_BYTES)?);
            Some(FrameEntry { end: fields.u64()?, check: fields.array()? })
        };
        let start = if index == 0 { 0 } else { entry(index - 1)?.end };
        let frame = entry(index)?;
        let size = frame.end.checked_sub(start)?;
        (frame.end <= self.stored_size && size <= self.frame_raw_size(index) as u64).then_some((start, frame))
    }

    pub(super) fn codec(&self) -> &'static str {
        if self.stored_size < self.raw_size { "zstd" } else { "raw" }
    }
}

/// Appends the check of `row` under `key`.
pub(super) fn seal(key: &[u8], row: &mut Vec<u8>) {
    let check = crc(key, row);
    row.extend_from_slice(&check.to_le_bytes());
}

/// The row without its check. `None`: damaged.
pub(super) fn unseal<'a>(key: &[u8], row: &'a [u8]) -> Option<&'a [u8]> {
    let (row, check) = row.split_last_chunk::<SEAL_BYTES>()?;
    (crc(key, row) == u32::from_le_bytes(*check)).then_some(row)
}

fn crc(key: &[u8], row: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(row);
    crc.finalize()
}

/// Fields taken one by one from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_head_is_noticed() {
        let id = ObjectId::from_bytes_or_panic(&[3; 20]);
        let frames = [FrameEntry { end: 5, check: [1; 16] }, FrameEntry { end: 9, check: [2; 16] }];
        let packed = BlobRow {
            place: Place::Packed { chunk: 7, offset: 9 },
            stored_size: 5,
            raw_size: 11,
            hash: [8; 32],
            stored_hour: 77,
        };
        let run = BlobRow {
            place: Place::Run { first_chunk: 7, unit: 4 },
            stored_size: 9,
            raw_size: FRAME_BYTES as u64 + 1,
            ..packed
        };
        for (row, bytes, head) in
            [(packed, packed.encode(&id, &[]), PACKED_BYTES), (run, run.encode(&id, &frames), RUN_HEAD_BYTES)]
        {
            assert_eq!(BlobRow::decode(&id, &bytes), Some(row));
            for bit in 0..head * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(BlobRow::decode(&id, &damaged), None, "bit {bit}");
            }
            for cut in 0..bytes.len() {
                assert_eq!(BlobRow::decode(&id, &bytes[..cut]), None, "cut at {cut}");
            }
            assert_eq!(BlobRow::decode(&ObjectId::from_bytes_or_panic(&[4; 20]), &bytes), None);
        }
        let bytes = run.encode(&id, &frames);
        assert_eq!(run.frame(&bytes, 1), None, "nine stored bytes cannot hold a raw frame of one in four");
        assert_eq!(run.frame(&bytes, 0), Some((0, frames[0])));
        assert_eq!(run.frame(&bytes, 2), None);
    }
}
