//! What a workspace changed, as rows: which names lead to which inodes, and what those inodes are.
//!
//! Written with postcard (its wire format is stable since 1.0), in the order of the fields here. A field is never
//! removed or moved; a new kind of content goes to the end of its enum.

use gix::ObjectId;
use serde::{Deserialize, Serialize};

/// A file name: bytes without `/` and NUL.
pub type Name = Box<[u8]>;

/// An instant: seconds since 1970 UTC and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Seconds since 1970 UTC.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// What a name in a directory leads to, where that is not what the base says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// Nothing: the base's entry was removed.
    Whiteout,
    /// An inode.
    Inode {
        /// Its number.
        ino: u64,
        /// Its type: `st_mode >> 12`.
        kind: u8,
        /// Where listings put it after the names of the base; numbers only grow.
        cookie: u64,
    },
}

/// Where an inode's bytes or entries come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A directory: whatever the base has at its place.
    Base,
    /// A directory, device, pipe or socket with nothing from elsewhere.
    Empty,
    /// A directory: the entries of this tree, wherever the directory was moved.
    Tree(#[serde(with = "oid")] ObjectId),
    /// A regular file or symlink: this blob, not changed yet.
    Blob(#[serde(with = "oid")] ObjectId),
    /// A regular file: a plain file beside the store. It is not there before the first byte is written.
    File(u64),
    /// A symlink to this.
    Target(Box<[u8]>),
}

/// An inode whose attributes, names or content are not those of the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Stamp,
    /// Last change of content. For a [`Content::File`] that exists, the file's own times count.
    pub mtime: Stamp,
    /// Last change of anything.
    pub ctime: Stamp,
    /// Device number of a device node.
    pub rdev: u32,
    /// Bytes or entries.
    pub content: Content,
    /// Directory and name of each hard link; none once it is unlinked, one for directories but the root.
    pub links: Vec<(u64, Name)>,
    /// Subdirectories of a directory.
    pub subdirectories: u32,
    /// Extended attributes, `user.` and all, sorted by name.
    pub xattrs: Vec<(Name, Box<[u8]>)>,
    /// The path it had in the base, if it was moved since: what attributes and so checkout conversions go by.
    pub origin: Box<[u8]>,
}

impl Node {
    /// The type bits of a mode.
    pub const TYPE: u32 = libc::S_IFMT;

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & Self::TYPE == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.mode & Self::TYPE == libc::S_IFREG
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.mode & Self::TYPE == libc::S_IFLNK
    }

    /// The type as bindings keep it.
    pub fn kind(&self) -> u8 {
        u8::try_from((self.mode & Self::TYPE) >> 12).unwrap_or(0)
    }

    /// Hard links, as `st_nlink`.
    pub fn nlink(&self) -> u32 {
        if self.is_directory() {
            return self.subdirectories.saturating_add(2);
        }
        u32::try_from(self.links.len()).unwrap_or(u32::MAX)
    }
}

/// One acknowledged operation: everything it changed, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Number of its first path; the next change's is greater by the number of paths, at least one.
    pub sequence: u64,
    /// Next free number for inodes, listings and files.
    pub next: u64,
    /// Names and what they lead to now; `None`: what the base says.
    pub bindings: Vec<(u64, Name, Option<Binding>)>,
    /// Inodes as they are now; `None`: as the base has them, or gone.
    pub nodes: Vec<(u64, Option<Node>)>,
    /// Paths whose content, type or existence changed, relative to the root; directories end in `/`.
    pub paths: Vec<Name>,
    /// Bytes written to plain files that are not there yet.
    pub bytes: Vec<Written>,
    /// Plain files that are there now, with all bytes before this change.
    pub released: Vec<u64>,
}

/// Bytes of a plain file that is not there yet: so far they are in the write-ahead file alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The plain file.
    pub number: u64,
    /// The inode it belongs to.
    pub ino: u64,
    /// Where in the file; the end of what was written before.
    pub offset: u64,
    /// The bytes.
    pub bytes: Box<[u8]>,
}

impl Change {
    /// Sequences it uses up.
    pub fn width(&self) -> u64 {
        (self.paths.len() as u64).max(1)
    }
}

/// How far a workspace's write-ahead files are in the tables, and which history its sequences count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// First sequence that is not in the tables.
    pub sequence: u64,
    /// Next free number for inodes, listings and files.
    pub next: u64,
    /// Write-ahead files up to this number are in the tables.
    pub wal: u64,
    /// Sequences of different epochs can't be compared: operations may have been lost in between.
    pub epoch: u64,
    /// The journal answers for sequences from here on.
    pub floor: u64,
    /// The boot during which it was written (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Whether it was closed in order, so that nothing was lost whatever happened since.
    pub closed: bool,
}

mod oid {
    use gix::ObjectId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &ObjectId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(id.as_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectId, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        ObjectId::try_from(bytes).map_err(serde::de::Error::custom)
    }
}
