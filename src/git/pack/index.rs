//! The index beside a pack file, version 2: ids, checksums and offsets.

use std::io::{self, Write};

use gix::ObjectId;

use super::input::Checksum;

const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];

/// Offsets from here on go into the table of long ones.
const LONG_OFFSET: u64 = 1 << 31;

/// One object of the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IndexRow {
    pub(crate) id: ObjectId,
    pub(crate) crc: u32,
    pub(crate) offset: u64,
}

/// Writes the index of `rows`, which are sorted by id without duplicates.
pub(crate) fn write_index(rows: &[IndexRow], pack: ObjectId, out: &mut dyn Write) -> io::Result<()> {
    let mut checksum = Checksum::new(pack.kind());
    let mut put = |bytes: &[u8]| {
        checksum.update(bytes);
        out.write_all(bytes)
    };
    put(&MAGIC)?;
    let mut end = 0;
    for first in 0..=255_u8 {
        end += rows[end..].iter().take_while(|row| row.id.as_bytes()[0] == first).count();
        put(&u32::try_from(end).map_err(io::Error::other)?.to_be_bytes())?;
    }
    for row in rows {
        put(row.id.as_bytes())?;
    }
    for row in rows {
        put(&row.crc.to_be_bytes())?;
    }
    let mut long = Vec::new();
    for row in rows {
        let place = if row.offset < LONG_OFFSET {
            row.offset
        } else {
            long.push(row.offset);
            LONG_OFFSET + long.len() as u64 - 1
        };
        put(&u32::try_from(place).map_err(io::Error::other)?.to_be_bytes())?;
    }
    for offset in long {
        put(&offset.to_be_bytes())?;
    }
    put(pack.as_bytes())?;
    out.write_all(checksum.finish().as_bytes())
}
