//! Frames: how raw bytes become stored bytes and back.
//!
//! Owns compression and checksums. It refuses to hand out a raw byte whose
//! stored bytes do not match their checksum. zstd's contexts are kept one a
//! thread: making one costs as much as a small file.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::row::{FRAME_BYTES, FrameCheck, FrameEntry, Hash};

/// zstd's level: 3 is its default, 254 MB of 1.3 GB on the linux corpus.
const LEVEL: i32 = 3;

/// Compression must save one part in this many, else reading raw bytes is the better bargain.
const MIN_SAVING: usize = 16;

thread_local! {
    static COMPRESSOR: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends the stored form of one frame to `out`. `raw` is at most [`FRAME_BYTES`].
pub(super) fn encode_frame(raw: &[u8], out: &mut Vec<u8>) {
    debug_assert!(raw.len() <= FRAME_BYTES, "callers cut blobs into frames");
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            // Fails for want of memory only; then frames are stored raw.
            *slot = Compressor::new(LEVEL).ok().map(|context| (context, Vec::new()));
        }
        let compressed = slot.as_mut().and_then(|(context, scratch)| {
            scratch.clear();
            scratch.reserve(zstd::zstd_safe::compress_bound(raw.len()));
            context.compress_to_buffer(raw, scratch).ok()?;
            (scratch.len() + raw.len() / MIN_SAVING < raw.len()).then_some(scratch.as_slice())
        });
        out.extend_from_slice(compressed.unwrap_or(raw));
    });
}

/// Appends the raw bytes of a frame whose checksum holds. `false`: the bytes don't decode to `raw_size`.
pub(super) fn decode_frame(stored: &[u8], raw_size: usize, out: &mut Vec<u8>) -> bool {
    if stored.len() == raw_size {
        out.extend_from_slice(stored);
        return true;
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        let Some(context) = slot.as_mut() else { return false };
        let before = out.len();
        let decoded = if before == 0 {
            // zstd fills a vector from its start, without zeroing it first.
            out.reserve_exact(raw_size);
            context.decompress_to_buffer(stored, out)
        } else {
            out.resize(before + raw_size, 0);
            context.decompress_to_buffer(stored, &mut out[before..])
        };
        let good = matches!(decoded, Ok(size) if size == raw_size);
        if !good {
            out.truncate(before);
        }
        good
    })
}

/// A blob in its stored form, frame by frame.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub raw_size: u64,
    pub stored_size: u64,
    pub hash: Hash,
    pub frames: Vec<FrameEntry>,
}

/// Appends the stored form of `raw` to `out`.
pub(super) fn encode(raw: &[u8], out: &mut Vec<u8>) -> Encoded {
    let start = out.len();
    if raw.len() <= FRAME_BYTES {
        encode_frame(raw, out);
        let hash = *blake3::hash(&out[start..]).as_bytes();
        let frame = FrameEntry { end: (out.len() - start) as u64, check: half(&hash) };
        return Encoded { raw_size: raw.len() as u64, stored_size: frame.end, hash, frames: vec![frame] };
    }
    let mut frames = Vec::with_capacity(raw.len().div_ceil(FRAME_BYTES));
    for frame in raw.chunks(FRAME_BYTES) {
        let at = out.len();
        encode_frame(frame, out);
        frames.push(FrameEntry { end: (out.len() - start) as u64, check: frame_check(&out[at..]) });
    }
    let hash = *blake3::hash(&out[start..]).as_bytes();
    Encoded { raw_size: raw.len() as u64, stored_size: (out.len() - start) as u64, hash, frames }
}

pub(super) fn frame_check(stored: &[u8]) -> FrameCheck {
    half(blake3::hash(stored).as_bytes())
}

fn half(hash: &Hash) -> FrameCheck {
    *hash.first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_pay_or_stay_raw() {
        let text = b"int main(void);\n".repeat(1000);
        let noise: Vec<u8> = blake3_stream(5000);
        for raw in [&text[..], &noise, b"", b"x"] {
            let mut stored = Vec::new();
            encode_frame(raw, &mut stored);
            assert!(stored.len() <= raw.len());
            let mut out = b"before".to_vec();
            assert!(decode_frame(&stored, raw.len(), &mut out));
            assert_eq!(&out[6..], raw);
        }
        let mut stored = Vec::new();
        encode_frame(&noise, &mut stored);
        assert_eq!(stored, noise);
    }

    #[test]
    fn a_frame_that_lies_about_its_size_is_refused() {
        let mut stored = Vec::new();
        encode_frame(&[7; 1000], &mut stored);
        for claimed in [0, 999, 1001, FRAME_BYTES] {
            let mut out = Vec::new();
            assert!(!decode_frame(&stored, claimed, &mut out), "{claimed}");
            assert!(out.is_empty());
        }
    }

    fn blake3_stream(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }
}
