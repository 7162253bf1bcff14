//! Inode numbers: the same for the same path and content, on every mount.
//!
//! A number is the hash of the parent directory's number, the name and, for
//! anything but directories, the object. So the base never changes under an
//! inode, a directory keeps its inode when its contents change, and nothing
//! has to be remembered between mounts. 62 bits make a collision in ten
//! million files a matter of one in 90,000; the inode table resolves it. What
//! users make is numbered from 2^62 on.

use gix::ObjectId;

use crate::store::EntryKind;

/// An inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The workspace's root, as the kernel numbers it.
    pub const ROOT: Self = Self(1);
    /// Numbers below this are reserved: 0 is no inode, 1 the root.
    const FIRST: u64 = 16;
    /// Numbers from here on are given to what users make; those of the base are below.
    const LOCAL: u64 = 1 << 62;

    /// The number of `name` in the directory `parent`.
    pub fn of(parent: Self, name: &[u8], kind: EntryKind, id: &ObjectId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&parent.0.to_le_bytes());
        match kind {
            EntryKind::Directory | EntryKind::Gitlink => {
                hasher.update(&[0]);
            }
            _ => {
                hasher.update(&kind.mode().to_le_bytes());
                hasher.update(id.as_bytes());
            }
        }
        hasher.update(name);
        Self::from_hash(&hasher)
    }

    /// The number of a file Larder itself shows, such as the root's `.git`.
    pub fn synthetic(parent: Self, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"synthetic");
        hasher.update(&parent.0.to_le_bytes());
        hasher.update(name);
        Self::from_hash(&hasher)
    }

    /// The number of something a user made: `count` is never used again in its workspace.
    pub fn local(count: u64) -> Self {
        Self(Self::LOCAL | count)
    }

    /// Where to look next when another file has this number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1).max(Self::FIRST))
    }

    fn from_hash(hasher: &blake3::Hasher) -> Self {
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Self((u64::from_le_bytes(bytes) % Self::LOCAL).max(Self::FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_changes_a_file_but_not_a_directory() {
        let ids = [ObjectId::from_bytes_or_panic(&[1; 20]), ObjectId::from_bytes_or_panic(&[2; 20])];
        let number = |kind, id| Ino::of(Ino::ROOT, b"a", kind, id);
        assert_eq!(number(EntryKind::Directory, &ids[0]), number(EntryKind::Directory, &ids[1]));
        assert_ne!(number(EntryKind::File, &ids[0]), number(EntryKind::File, &ids[1]));
        assert_ne!(number(EntryKind::File, &ids[0]), number(EntryKind::Executable, &ids[0]));
        assert_eq!(number(EntryKind::File, &ids[0]), number(EntryKind::File, &ids[0]));
    }
}
