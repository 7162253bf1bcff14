//! A pack of a few objects, without deltas, for what came one by one and Git is to find as well.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix::ObjectId;
use gix::objs::Kind;

use super::index::IndexRow;
use super::input::Checksum;

/// What was written.
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) checksum: ObjectId,
    /// Sorted by id.
    pub(crate) rows: Vec<IndexRow>,
}

/// Writes `objects`, each there once, as a pack of version 2.
pub(crate) fn write(
    hash: gix::hash::Kind,
    objects: &[(ObjectId, Kind, Bytes)],
    out: &mut dyn Write,
) -> io::Result<Written> {
    let mut checksum = Checksum::new(hash);
    let mut bytes = 0;
    let mut put = |part: &[u8], bytes: &mut u64| {
        checksum.update(part);
        *bytes += part.len() as u64;
        out.write_all(part)
    };
    put(b"PACK\0\0\0\x02", &mut bytes)?;
    put(&u32::try_from(objects.len()).map_err(io::Error::other)?.to_be_bytes(), &mut bytes)?;
    let mut rows = Vec::with_capacity(objects.len());
    for (id, kind, data) in objects {
        let mut encoder = ZlibEncoder::new(header(*kind, data.len()), Compression::fast());
        encoder.write_all(data)?;
        let entry = encoder.finish()?;
        rows.push(IndexRow { id: *id, crc: crc32fast::hash(&entry), offset: bytes });
        put(&entry, &mut bytes)?;
    }
    rows.sort_unstable();
    let checksum = checksum.finish();
    out.write_all(checksum.as_bytes())?;
    Ok(Written { bytes: bytes + checksum.as_bytes().len() as u64, checksum, rows })
}

/// Type and size: three bits of type, then the size in groups of 4, 7, 7… bits, the lowest first.
fn header(kind: Kind, length: usize) -> Vec<u8> {
    let number = match kind {
        Kind::Commit => 1_u8,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let low = |size: usize, bits: u32| u8::try_from(size & ((1 << bits) - 1)).expect("masked");
    let mut out = vec![number << 4 | low(length, 4)];
    let mut rest = length >> 4;
    while rest > 0 {
        *out.last_mut().expect("not empty") |= 0x80;
        out.push(low(rest, 7));
        rest >>= 7;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_gits() {
        assert_eq!(header(Kind::Commit, 0), [0x10]);
        assert_eq!(header(Kind::Tree, 15), [0x2f]);
        assert_eq!(header(Kind::Tree, 16), [0xa0, 0x01]);
        assert_eq!(header(Kind::Blob, 16 + 128 * 16), [0xb0, 0x81, 0x01]);
    }
}
