//! A pack as it is sent: whole objects, deflated one by one, on band 1.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;

use crate::git::pack::Checksum;

/// Bytes of a packet after its length and band.
const PAYLOAD_BYTES: usize = 65_515;

/// An answer's side bands.
pub(super) struct Band<'a> {
    out: &'a mut dyn Write,
    payload: Vec<u8>,
}

impl<'a> Band<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, payload: Vec::with_capacity(PAYLOAD_BYTES) }
    }

    fn packet(&mut self, band: u8, bytes: &[u8]) -> io::Result<()> {
        write!(self.out, "{:04x}", bytes.len() + 5)?;
        self.out.write_all(&[band])?;
        self.out.write_all(bytes)
    }

    fn send(&mut self) -> io::Result<()> {
        let payload = std::mem::take(&mut self.payload);
        if !payload.is_empty() {
            self.packet(1, &payload)?;
        }
        self.payload = payload;
        self.payload.clear();
        Ok(())
    }

    /// Ends the answer.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.send()?;
        self.out.write_all(b"0000")?;
        self.out.flush()
    }

    /// Breaks the answer off; the client shows `why` and fails.
    pub(super) fn fatal(mut self, why: &str) -> io::Result<()> {
        self.payload.clear();
        self.packet(3, format!("{why}\n").as_bytes())?;
        self.out.write_all(b"0000")?;
        self.out.flush()
    }
}

impl Write for Band<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PAYLOAD_BYTES - self.payload.len());
        self.payload.extend_from_slice(&bytes[..length]);
        if self.payload.len() == PAYLOAD_BYTES {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes through, keeping the pack's checksum.
struct Summed<'a, 'b> {
    band: &'a mut Band<'b>,
    checksum: Checksum,
}

impl Write for Summed<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.band.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pack under way.
pub(super) struct PackWriter<'a, 'b>(Summed<'a, 'b>);

/// An object's bytes under way.
pub(super) struct Entry<'p, 'a, 'b>(ZlibEncoder<&'p mut Summed<'a, 'b>>);

impl<'a, 'b> PackWriter<'a, 'b> {
    pub(super) fn new(band: &'a mut Band<'b>, hash: HashKind, count: u32) -> io::Result<Self> {
        let mut out = Summed { band, checksum: Checksum::new(hash) };
        out.write_all(b"PACK\0\0\0\x02")?;
        out.write_all(&count.to_be_bytes())?;
        Ok(Self(out))
    }

    /// Begins an object of `size` bytes.
    pub(super) fn entry(&mut self, kind: Kind, size: u64) -> io::Result<Entry<'_, 'a, 'b>> {
        self.0.write_all(&entry_header(kind, size))?;
        // Git inflates it again at once, and the pack does not stay.
        Ok(Entry(ZlibEncoder::new(&mut self.0, Compression::fast())))
    }

    /// Writes the trailer.
    pub(super) fn finish(self) -> io::Result<()> {
        let Summed { band, checksum } = self.0;
        band.write_all(checksum.finish().as_bytes())
    }
}

impl Write for Entry<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Entry<'_, '_, '_> {
    pub(super) fn finish(self) -> io::Result<()> {
        self.0.finish().map(drop)
    }
}

/// The head of an undeltified entry: kind, and size in groups of bits, lowest first.
pub(crate) fn entry_header(kind: Kind, size: u64) -> Vec<u8> {
    let code = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let low = |value: u64, bits: u32| u8::try_from(value & ((1 << bits) - 1)).expect("at most seven bits");
    let mut byte = code << 4 | low(size, 4);
    let mut rest = size >> 4;
    let mut head = Vec::with_capacity(10);
    while rest > 0 {
        head.push(byte | 0x80);
        byte = low(rest, 7);
        rest >>= 7;
    }
    head.push(byte);
    head
}
