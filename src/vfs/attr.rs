//! What `stat` shows of a file.

use std::time::{Duration, SystemTime};

use crate::index::ino::Ino;
use crate::store::EntryKind;

/// Attributes of one inode; the same after every remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; a symlink's is its target's length.
    pub size: u64,
    /// Hard links: 1, or 2 and the number of subdirectories.
    pub nlink: u32,
    /// Modification, change and access time: the commit's.
    pub time: SystemTime,
}

impl Attr {
    /// Permission bits, as a checkout with umask 022 has them.
    pub const fn permissions(&self) -> u16 {
        match self.kind {
            EntryKind::File => 0o644,
            EntryKind::Executable | EntryKind::Directory | EntryKind::Gitlink => 0o755,
            EntryKind::Symlink => 0o777,
        }
    }

    /// Allocated space in units of 512 bytes.
    pub const fn blocks(&self) -> u64 {
        self.size.div_ceil(512)
    }
}

/// Seconds since 1970 as a time; times before it, which a commit may claim, become 1970
/// because Git's index can't hold them.
pub fn time_of(seconds: i64) -> SystemTime {
    // 2^33 seconds (the year 2242) is the end of what ext4 and Git's tools handle alike.
    let seconds = u64::try_from(seconds).unwrap_or(0).min(1 << 33);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
