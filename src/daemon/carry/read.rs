//! Reading a file record by record; whatever it says is checked before it is believed.

use std::io::{self, Read};

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use zstd::bulk::Decompressor;

use super::write::Mark;
use super::{END, HEADER_BYTES, Head, Header, MAGIC, PIECE_BYTES, Totals, VERSION, What};

/// Why a file can't be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else, or its first bytes are damaged.
    #[error("it is no export of larder, or its first bytes are damaged")]
    Foreign,
    /// Written by a newer Larder.
    #[error("it has version {0} of the format, and this larder reads version {VERSION}")]
    Newer(u16),
    /// It ends too early.
    #[error("it ends at byte {0}")]
    Cut(u64),
    /// It is not what was written.
    #[error("byte {at}: {what}")]
    Damaged {
        /// Where what is damaged begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record; its pieces follow.
    Record(Head),
    /// The end, whole and right.
    End,
}

/// A file being read.
pub(super) struct Reader<R> {
    input: R,
    hash: HashKind,
    mark: Mark,
    /// Where the record at hand begins.
    begun: u64,
    /// Its raw bytes that are still to come, and its BLAKE3 so far.
    left: u64,
    record: blake3::Hasher,
    decompressor: Decompressor<'static>,
    stored: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads what comes before the first record.
    pub(super) fn open(input: R) -> Result<(Header, Self), ReadError> {
        let mut reader = Self {
            input,
            hash: HashKind::Sha1,
            mark: Mark { offset: 0, all: blake3::Hasher::new(), totals: Totals::default() },
            begun: 0,
            left: 0,
            record: blake3::Hasher::new(),
            decompressor: Decompressor::new()?,
            stored: Vec::new(),
        };
        let magic: [u8; 8] = reader.array().map_err(|error| match error {
            // An empty file, or one of three bytes.
            ReadError::Cut(_) => ReadError::Foreign,
            error => error,
        })?;
        if magic != MAGIC {
            return Err(ReadError::Foreign);
        }
        let version = u16::from_le_bytes(reader.array()?);
        if u16::from_le_bytes(reader.array()?) != !version {
            return Err(reader.damaged("the version is damaged"));
        }
        if version != VERSION {
            return Err(ReadError::Newer(version));
        }
        let length = u32::from_le_bytes(reader.array()?) as usize;
        if length > HEADER_BYTES {
            return Err(reader.damaged("the header is damaged: its length is absurd"));
        }
        let mut header = vec![0; length];
        reader.take(&mut header)?;
        reader.check_all("the header is damaged")?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| reader.damaged("the header is not understood"))?;
        reader.hash = header.hash().ok_or_else(|| reader.damaged("the header names no object format that fits"))?;
        Ok((header, reader))
    }

    /// Where it is, between two records.
    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Where the record at hand begins.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// The head of the next record, or the end.
    pub(super) fn advance(&mut self) -> Result<Next, ReadError> {
        self.begun = self.mark.offset;
        self.record.reset();
        let [code] = self.array()?;
        if code == END {
            return self.end().map(|()| Next::End);
        }
        let mut id = [0; 32];
        let id = &mut id[..self.hash.len_in_bytes()];
        self.take(id)?;
        let raw_size = u64::from_le_bytes(self.array()?);
        let check = self.record.finalize();
        let told: [u8; 16] = self.array()?;
        if check.as_bytes()[..16] != told {
            return Err(self.damaged("what it says of itself does not fit its checksum"));
        }
        let what = What::from_code(code).ok_or_else(|| self.damaged("it is of an unknown kind"))?;
        if raw_size > what.limit() {
            return Err(self.damaged("it says it has an absurd size"));
        }
        let head = Head { what, id: ObjectId::from_bytes_or_panic(id), raw_size };
        self.left = raw_size;
        self.mark.totals.count(what, raw_size);
        Ok(Next::Record(head))
    }

    /// Puts the next piece of the record into `raw`, in place of what is there. False: there was none left, and the
    /// record's checksum holds. Only then is anything of it to be believed.
    pub(super) fn piece(&mut self, raw: &mut Vec<u8>) -> Result<bool, ReadError> {
        let Some(size) = self.stored_piece()? else { return Ok(false) };
        raw.clear();
        if self.stored.len() == size {
            raw.extend_from_slice(&self.stored);
        } else {
            raw.reserve_exact(size);
            // A frame that holds more does not fit, whatever it says of itself.
            let decoded = self.decompressor.decompress_to_buffer(&self.stored[..], raw);
            if !matches!(decoded, Ok(decoded) if decoded == size) || raw.len() != size {
                return Err(self.damaged("it does not decompress"));
            }
        }
        Ok(true)
    }

    /// Passes over what is left of the record. Its checksum is looked at, its bytes are not decompressed.
    pub(super) fn skip(&mut self) -> Result<(), ReadError> {
        while self.stored_piece()?.is_some() {}
        Ok(())
    }

    /// Reads a piece as it is stored, and returns its raw size; `None` at the record's end.
    fn stored_piece(&mut self) -> Result<Option<usize>, ReadError> {
        if self.left == 0 {
            let check = self.record.finalize();
            let told: [u8; 32] = self.array()?;
            return if *check.as_bytes() == told {
                Ok(None)
            } else {
                Err(self.damaged("its bytes do not fit its checksum"))
            };
        }
        let raw_size = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let stored = u32::from_le_bytes(self.array()?) as usize;
        if stored == 0 || stored > raw_size {
            return Err(self.damaged("a piece of it says it has an absurd size"));
        }
        let mut buffer = std::mem::take(&mut self.stored);
        buffer.resize(stored, 0);
        let taken = self.take(&mut buffer);
        self.stored = buffer;
        taken?;
        self.left -= raw_size as u64;
        self.mark.totals.stored_bytes += stored as u64;
        Ok(Some(raw_size))
    }

    fn end(&mut self) -> Result<(), ReadError> {
        let told: [u8; 32] = self.array()?;
        if told != self.mark.totals.encode() {
            return Err(self.damaged("the end counts other objects than there are"));
        }
        self.check_all("the checksum of the whole file does not fit")?;
        if self.input.read(&mut [0])? > 0 {
            return Err(self.damaged("bytes follow the end"));
        }
        Ok(())
    }

    /// Reads the BLAKE3 of everything before it.
    fn check_all(&mut self, what: &'static str) -> Result<(), ReadError> {
        let check = self.mark.all.finalize();
        let told: [u8; 32] = self.array()?;
        if *check.as_bytes() == told { Ok(()) } else { Err(self.damaged(what)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut out = [0; N];
        self.take(&mut out)?;
        Ok(out)
    }

    /// Fills `out`.
    fn take(&mut self, out: &mut [u8]) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => return Err(ReadError::Cut(self.mark.offset + filled as u64)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.mark.all.update(out);
        self.record.update(out);
        self.mark.offset += out.len() as u64;
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { at: self.begun, what }
    }
}
