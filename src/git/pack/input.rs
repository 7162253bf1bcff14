//! The pack as it arrives, and again from its spooled copy.
//!
//! Owns the checksum over the whole and the one over each entry. Every byte
//! taken is in both and in the spool.

use gix::ObjectId;
use gix::hash::Kind;

use super::{ByteSource, Spool};
use crate::git::error::corrupt;
use crate::hydrate::remote::{FailureKind, RemoteError};

/// Bytes asked of the source at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Bytes read of the spool at once: entries are short, and what follows is another one.
const SPOOL_BYTES: usize = 16 << 10;

/// Bytes of a pack in their order.
pub(super) trait Feed {
    /// Bytes not yet consumed; never none.
    fn fill(&mut self) -> Result<&[u8], RemoteError>;
    /// Takes the first `length` of them.
    fn consume(&mut self, length: usize);
    /// An error about the entry at hand.
    fn refuse(&self, what: &str) -> RemoteError;
}

/// Takes one byte.
pub(super) fn byte(feed: &mut dyn Feed) -> Result<u8, RemoteError> {
    let byte = feed.fill()?[0];
    feed.consume(1);
    Ok(byte)
}

/// Takes as many bytes as fit into `out`.
pub(super) fn exactly(feed: &mut dyn Feed, mut out: &mut [u8]) -> Result<(), RemoteError> {
    while !out.is_empty() {
        let bytes = feed.fill()?;
        let length = bytes.len().min(out.len());
        out[..length].copy_from_slice(&bytes[..length]);
        feed.consume(length);
        out = &mut out[length..];
    }
    Ok(())
}

pub(super) fn refuse_at(offset: u64, what: &str) -> RemoteError {
    corrupt(format!("the received pack is damaged: the entry at byte {offset} {what}"))
}

/// The checksum over a pack. It guards against accidents; object ids are computed with collision detection.
pub(crate) enum Checksum {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl Checksum {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Sha256 => Self::Sha256(sha2::Digest::new()),
            _ => Self::Sha1(sha1::Digest::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(state) => sha1::Digest::update(state, bytes),
            Self::Sha256(state) => sha2::Digest::update(state, bytes),
        }
    }

    pub(crate) fn finish(self) -> ObjectId {
        match self {
            Self::Sha1(state) => ObjectId::from_bytes_or_panic(&sha1::Digest::finalize(state)),
            Self::Sha256(state) => ObjectId::from_bytes_or_panic(&sha2::Digest::finalize(state)),
        }
    }
}

/// The pack as it arrives.
pub(super) struct Input<'a> {
    source: &'a mut dyn ByteSource,
    buffer: Box<[u8]>,
    /// Bytes of the buffer before this are in checksums and spool.
    settled: usize,
    from: usize,
    to: usize,
    /// Where in the pack the buffer begins.
    start: u64,
    /// Where in the pack the entry at hand begins.
    entry: u64,
    max_bytes: u64,
    checksum: Checksum,
    crc: crc32fast::Hasher,
    pub(super) spool: Spool,
}

impl<'a> Input<'a> {
    pub(super) fn new(source: &'a mut dyn ByteSource, kind: Kind, spool: Spool, max_bytes: Option<u64>) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            settled: 0,
            from: 0,
            to: 0,
            start: 0,
            entry: 0,
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            checksum: Checksum::new(kind),
            crc: crc32fast::Hasher::new(),
            spool,
        }
    }

    /// Position in the pack.
    pub(super) fn position(&self) -> u64 {
        self.start + self.from as u64
    }

    /// A new entry begins here.
    pub(super) fn begin_entry(&mut self) {
        self.entry = self.position();
        self.crc = crc32fast::Hasher::new();
    }

    /// The entry ends here; its CRC-32.
    pub(super) fn end_entry(&mut self) -> Result<u32, RemoteError> {
        self.settle()?;
        Ok(std::mem::take(&mut self.crc).finalize())
    }

    fn settle(&mut self) -> Result<(), RemoteError> {
        let bytes = &self.buffer[self.settled..self.from];
        self.checksum.update(bytes);
        self.crc.update(bytes);
        self.spool.append(bytes)?;
        self.settled = self.from;
        Ok(())
    }

    /// Reads the trailer and makes sure that nothing comes after it.
    pub(super) fn finish(mut self, kind: Kind) -> Result<(ObjectId, u64, Spool), RemoteError> {
        self.settle()?;
        let computed = std::mem::replace(&mut self.checksum, Checksum::new(kind)).finish();
        let mut trailer = [0; 32];
        let trailer = &mut trailer[..kind.len_in_bytes()];
        exactly(&mut self, trailer)?;
        if computed.as_bytes() != &*trailer {
            return Err(corrupt("the received pack is damaged: its checksum does not fit"));
        }
        self.settle()?;
        if self.from < self.to || self.source.read(&mut self.buffer)? > 0 {
            return Err(corrupt("the received pack is damaged: bytes follow its end"));
        }
        let length = self.position();
        Ok((computed, length, self.spool))
    }
}

impl Feed for Input<'_> {
    fn fill(&mut self) -> Result<&[u8], RemoteError> {
        if self.from == self.to {
            self.settle()?;
            self.start += self.to as u64;
            (self.settled, self.from, self.to) = (0, 0, 0);
            if self.start >= self.max_bytes {
                let text =
                    format!("the server has no filters and sends more than the {} bytes allowed", self.max_bytes);
                return Err(RemoteError::new(FailureKind::Unsupported, text));
            }
            self.to = self.source.read(&mut self.buffer)?;
            if self.to == 0 {
                return Err(corrupt(format!("the received pack is damaged: it ends after {} bytes", self.start)));
            }
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn consume(&mut self, length: usize) {
        self.from += length;
    }

    fn refuse(&self, what: &str) -> RemoteError {
        refuse_at(self.entry, what)
    }
}

/// The pack again, from its spooled copy.
pub(super) struct Again<'a> {
    spool: &'a Spool,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    next: u64,
    entry: u64,
}

impl<'a> Again<'a> {
    /// From `offset`, the beginning of an entry's compressed bytes.
    pub(super) fn new(spool: &'a Spool, offset: u64) -> Self {
        Self { spool, buffer: vec![0; SPOOL_BYTES], from: 0, to: 0, next: offset, entry: offset }
    }
}

impl Feed for Again<'_> {
    fn fill(&mut self) -> Result<&[u8], RemoteError> {
        if self.from == self.to {
            self.to = self.spool.read_at(self.next, &mut self.buffer)?;
            self.from = 0;
            self.next += self.to as u64;
            if self.to == 0 {
                return Err(self.refuse("cannot be read again"));
            }
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn consume(&mut self, length: usize) {
        self.from += length;
    }

    fn refuse(&self, what: &str) -> RemoteError {
        refuse_at(self.entry, what)
    }
}
