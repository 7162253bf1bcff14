//! Packed directory listings: one row holds one Git tree.
//!
//! Owns the byte format of the `trees` table. It refuses listings whose
//! offsets, lengths or order do not hold, so that every later look-up is a
//! binary search in checked bytes.
//!
//! Format, version 1 (integers little-endian):
//!
//! ```text
//! u8   version = 1
//! u8   object id length: 20 (SHA-1) or 32 (SHA-256)
//! u32  number of entries, n
//! u32  number of entries that are directories
//! n × u32  end of entry i, counted from the first byte after this table
//! n × { u16 mode, id, name }   sorted by name, byte by byte; no duplicates
//! ```

use bytes::Bytes;
use gix::ObjectId;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 10;

/// What an entry of a tree is, from its mode's type bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file (`100644`).
    File,
    /// A regular file with the execute bit (`100755`).
    Executable,
    /// A symbolic link (`120000`).
    Symlink,
    /// A directory (`040000`).
    Directory,
    /// A commit of another repository (`160000`), shown as an empty directory.
    Gitlink,
}

impl EntryKind {
    /// The kind of a Git file mode, or `None` for modes Git never writes.
    pub const fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o160_000 => Self::Gitlink,
            0o100_000 if mode & 0o100 != 0 => Self::Executable,
            0o100_000 => Self::File,
            _ => return None,
        })
    }

    /// The mode Git's index holds for this kind (canonical, as `git ls-files -s` prints it).
    pub const fn mode(self) -> u16 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Symlink => 0o120_000,
            Self::Directory => 0o040_000,
            Self::Gitlink => 0o160_000,
        }
    }

    /// Whether the entry's object is a blob: files, executables and symlinks.
    pub const fn is_blob(self) -> bool {
        matches!(self, Self::File | Self::Executable | Self::Symlink)
    }
}

/// One child of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name: raw bytes, never empty, without `/` and NUL.
    pub name: &'a [u8],
    /// The kind, derived from `mode`.
    pub kind: EntryKind,
    /// The mode exactly as the tree object has it.
    pub mode: u16,
    /// Blob, tree or commit id.
    pub id: ObjectId,
}

/// Why bytes are not a packed listing, or entries can't become one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ListingError {
    /// The row was damaged or written by another version.
    #[error("packed listing is damaged: {0}")]
    Damaged(&'static str),
    /// Two entries have one name.
    #[error("two entries are named {:?}", String::from_utf8_lossy(.0))]
    Duplicate(Vec<u8>),
    /// A mode Git never writes.
    #[error("entry {:?} has the unknown mode {mode:o}", String::from_utf8_lossy(.name))]
    Mode {
        /// The entry's name.
        name: Vec<u8>,
        /// Its mode.
        mode: u16,
    },
    /// More entries or bytes than the format can count.
    #[error("directory is too large")]
    TooLarge,
}

/// A directory's children, sorted by name; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    bytes: Bytes,
    id_len: usize,
    count: usize,
}

impl Listing {
    /// Packs `entries`, given in any order.
    pub fn pack(id_len: usize, mut entries: Vec<Entry<'_>>) -> Result<Self, ListingError> {
        entries.sort_unstable_by(|a, b| a.name.cmp(b.name));
        if let Some(twin) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ListingError::Duplicate(twin[0].name.to_vec()));
        }
        let body: usize = entries.iter().map(|e| 2 + id_len + e.name.len()).sum();
        let count = u32::try_from(entries.len()).map_err(|_| ListingError::TooLarge)?;
        u32::try_from(body).map_err(|_| ListingError::TooLarge)?;
        let directories = entries.iter().filter(|e| e.kind == EntryKind::Directory).count();
        let mut out = Vec::with_capacity(HEADER_BYTES + 4 * entries.len() + body);
        out.push(VERSION);
        out.push(u8::try_from(id_len).map_err(|_| ListingError::TooLarge)?);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&u32::try_from(directories).unwrap_or(u32::MAX).to_le_bytes());
        let mut end = 0_u32;
        for entry in &entries {
            end += u32::try_from(2 + id_len + entry.name.len()).map_err(|_| ListingError::TooLarge)?;
            out.extend_from_slice(&end.to_le_bytes());
        }
        for entry in &entries {
            out.extend_from_slice(&entry.mode.to_le_bytes());
            out.extend_from_slice(entry.id.as_bytes());
            out.extend_from_slice(entry.name);
        }
        Ok(Self { bytes: out.into(), id_len, count: entries.len() })
    }

    /// Checks a row of the `trees` table.
    pub fn from_row(bytes: Bytes) -> Result<Self, ListingError> {
        let damaged = ListingError::Damaged;
        let header = bytes.get(..HEADER_BYTES).ok_or(damaged("no header"))?;
        if header[0] != VERSION {
            return Err(damaged("unknown version"));
        }
        let id_len = usize::from(header[1]);
        if id_len != 20 && id_len != 32 {
            return Err(damaged("object id length"));
        }
        let count = u32::from_le_bytes([header[2], header[3], header[4], header[5]]) as usize;
        let listing = Self { bytes, id_len, count };
        let body = HEADER_BYTES + 4 * count;
        let length = listing.bytes.len().checked_sub(body).ok_or(damaged("offset table"))?;
        let mut start = 0;
        for index in 0..count {
            let end = listing.end(index);
            if end > length || end < start + 2 + id_len + 1 {
                return Err(damaged("entry bounds"));
            }
            if EntryKind::from_mode(listing.mode(body + start)).is_none() {
                return Err(damaged("entry mode"));
            }
            start = end;
        }
        if start != length {
            return Err(damaged("length"));
        }
        Ok(listing)
    }

    /// The row to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the directory has no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of entries that are directories.
    pub fn directories(&self) -> u32 {
        let b = &self.bytes;
        u32::from_le_bytes([b[6], b[7], b[8], b[9]])
    }

    /// Object id length in bytes: 20 or 32.
    pub fn id_len(&self) -> usize {
        self.id_len
    }

    /// The entry at `index` in name order.
    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        if index >= self.count {
            return None;
        }
        let body = HEADER_BYTES + 4 * self.count;
        let start = body + if index == 0 { 0 } else { self.end(index - 1) };
        let end = body + self.end(index);
        let mode = self.mode(start);
        Some(Entry {
            name: &self.bytes[start + 2 + self.id_len..end],
            kind: EntryKind::from_mode(mode)?,
            mode,
            id: ObjectId::from_bytes_or_panic(&self.bytes[start + 2..start + 2 + self.id_len]),
        })
    }

    /// Position of `name`.
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The entry called `name`.
    pub fn find(&self, name: &[u8]) -> Option<Entry<'_>> {
        self.get(self.position(name)?)
    }

    /// All entries in name order.
    #[expect(clippy::missing_panics_doc, reason = "the row was checked when it was read")]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        (0..self.count).map(|index| self.get(index).expect("index below count, row checked when it was read"))
    }

    fn name(&self, index: usize) -> &[u8] {
        let body = HEADER_BYTES + 4 * self.count;
        let start = body + if index == 0 { 0 } else { self.end(index - 1) };
        &self.bytes[start + 2 + self.id_len..body + self.end(index)]
    }

    fn end(&self, index: usize) -> usize {
        let at = HEADER_BYTES + 4 * index;
        let b = &self.bytes;
        u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]) as usize
    }

    fn mode(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[byte; 20])
    }

    fn entry(name: &[u8], mode: u16) -> Entry<'_> {
        Entry { name, kind: EntryKind::from_mode(mode).expect("test mode"), mode, id: id(7) }
    }

    #[test]
    fn finds_what_was_packed_and_nothing_else() {
        let packed = Listing::pack(20, vec![entry(b"b", 0o40000), entry(b"a.c", 0o100_644), entry(b"\xff", 0o120_000)])
            .expect("valid entries");
        let read = Listing::from_row(Bytes::copy_from_slice(packed.as_bytes())).expect("own bytes");
        assert_eq!(read.iter().map(|e| e.name.to_vec()).collect::<Vec<_>>(), [&b"a.c"[..], b"b", b"\xff"]);
        assert_eq!(read.find(b"b").map(|e| e.kind), Some(EntryKind::Directory));
        assert_eq!(read.find(b"a"), None);
        assert_eq!(read.directories(), 1);
    }

    #[test]
    fn refuses_duplicates_and_damage() {
        assert!(matches!(
            Listing::pack(20, vec![entry(b"a", 0o100_644), entry(b"a", 0o40000)]),
            Err(ListingError::Duplicate(_))
        ));
        let good = Listing::pack(20, vec![entry(b"a", 0o100_644), entry(b"bc", 0o100_755)]).expect("valid entries");
        for cut in 0..good.as_bytes().len() {
            assert!(Listing::from_row(Bytes::copy_from_slice(&good.as_bytes()[..cut])).is_err(), "cut at {cut}");
        }
    }
}
