//! Writing a file record by record.

use std::io::{self, Write};

use zstd::bulk::Compressor;

use super::{END, Head, Header, MAGIC, PIECE_BYTES, Totals, VERSION};

/// zstd's level: as in the store.
const LEVEL: i32 = 3;

/// Where a file that is whole up to some record goes on.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Bytes of the file so far.
    pub offset: u64,
    /// BLAKE3 of them.
    pub all: blake3::Hasher,
    /// What the records hold.
    pub totals: Totals,
}

/// A file being written.
pub(super) struct Writer<W> {
    out: W,
    mark: Mark,
    /// Raw bytes of the record that are still to come, and its BLAKE3 so far.
    left: u64,
    record: blake3::Hasher,
    compressor: Compressor<'static>,
    compressed: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(super) fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mark = Mark { offset: 0, all: blake3::Hasher::new(), totals: Totals::default() };
        let mut writer = Self::resume(out, mark)?;
        let header = serde_json::to_vec(header)?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        writer.put(&MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        writer.put(&(!VERSION).to_le_bytes())?;
        writer.put(&length.to_le_bytes())?;
        writer.put(&header)?;
        writer.end_with_hash()?;
        Ok(writer)
    }

    /// Goes on behind a whole record, at the end of which `out` is.
    pub(super) fn resume(out: W, mark: Mark) -> io::Result<Self> {
        let compressor = Compressor::new(LEVEL)?;
        Ok(Self { out, mark, left: 0, record: blake3::Hasher::new(), compressor, compressed: Vec::new() })
    }

    /// Bytes so far, and what the records hold.
    pub(super) fn so_far(&self) -> (u64, Totals) {
        (self.mark.offset, self.mark.totals)
    }

    /// Writes a record of bytes in memory.
    pub(super) fn record(&mut self, head: Head, raw: &[u8]) -> io::Result<()> {
        self.start(head)?;
        for piece in raw.chunks(PIECE_BYTES) {
            self.piece(piece)?;
        }
        self.end()
    }

    /// Begins a record. As many pieces as its size says follow, all but the last of [`PIECE_BYTES`], and then
    /// [`Self::end`].
    pub(super) fn start(&mut self, head: Head) -> io::Result<()> {
        self.record.reset();
        self.put(&[head.what.code()])?;
        self.put(head.id.as_bytes())?;
        self.put(&head.raw_size.to_le_bytes())?;
        let check = self.record.finalize();
        self.put(&check.as_bytes()[..16])?;
        self.left = head.raw_size;
        self.mark.totals.count(head.what, head.raw_size);
        Ok(())
    }

    /// The next piece of the record.
    pub(super) fn piece(&mut self, raw: &[u8]) -> io::Result<()> {
        if raw.len() as u64 != self.left.min(PIECE_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a piece is not as long as its record says"));
        }
        self.left -= raw.len() as u64;
        let mut compressed = std::mem::take(&mut self.compressed);
        compressed.clear();
        compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, &mut compressed)?;
        let stored = if compressed.len() < raw.len() { &compressed[..] } else { raw };
        self.mark.totals.stored_bytes += stored.len() as u64;
        self.put(&u32::try_from(stored.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.put(stored)?;
        self.compressed = compressed;
        Ok(())
    }

    /// Ends the record.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record is shorter than it says"));
        }
        let check = self.record.finalize();
        self.put(check.as_bytes())
    }

    /// Ends the file, and gives the output back with the file's length.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        self.put(&[END])?;
        self.put(&self.mark.totals.encode())?;
        self.end_with_hash()?;
        self.out.flush()?;
        Ok((self.out, self.mark.offset))
    }

    fn end_with_hash(&mut self) -> io::Result<()> {
        let check = self.mark.all.finalize();
        self.put(check.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.mark.all.update(bytes);
        self.record.update(bytes);
        self.mark.offset += bytes.len() as u64;
        Ok(())
    }
}
