//! What `stat` shows of a file.

use std::time::{Duration, SystemTime};

use crate::index::ino::Ino;
use crate::index::overlay::content::Measured;
use crate::index::overlay::{Defaults, base_mode};
use crate::store::EntryKind;
use crate::store::overlay::{Node, Stamp};

/// Attributes of one inode; the same after every remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Type and permissions (`st_mode`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; a symlink's is its target's length.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Hard links; a directory's are 2 and the number of subdirectories.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Last access.
    pub atime: Stamp,
    /// Last change of content.
    pub mtime: Stamp,
    /// Last change of anything.
    pub ctime: Stamp,
}

impl Attr {
    /// Of something in the base: as a checkout with umask 022 has it, its times those of everything in the base.
    pub fn base(ino: Ino, kind: EntryKind, size: u64, nlink: u32, defaults: &Defaults) -> Self {
        let Defaults { uid, gid, time } = *defaults;
        let mode = base_mode(kind);
        Self {
            ino,
            mode,
            uid,
            gid,
            size,
            blocks: size.div_ceil(512),
            nlink,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    /// Of something that was changed or made; `measured` is absent where the size is a blob's, which is given then.
    pub fn node(ino: Ino, node: &Node, measured: Option<Measured>, blob_size: u64) -> Self {
        let measured = measured.unwrap_or(Measured {
            size: blob_size,
            blocks: blob_size.div_ceil(512),
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        });
        // Only the root is bound nowhere and there.
        let removed = node.links.is_empty() && ino != Ino::ROOT;
        Self {
            ino,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size: measured.size,
            blocks: measured.blocks,
            nlink: if removed { 0 } else { node.nlink() },
            rdev: node.rdev,
            atime: measured.atime,
            mtime: measured.mtime,
            ctime: measured.ctime,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// A stamp as the system's time.
pub fn system_time(stamp: Stamp) -> SystemTime {
    let whole = Duration::from_secs(stamp.seconds.unsigned_abs());
    let base = if stamp.seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
    base + Duration::from_nanos(stamp.nanos.into())
}

/// The system's time as a stamp.
pub fn stamp_of(time: SystemTime) -> Stamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Stamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let nanos = before.subsec_nanos();
            let seconds = 0_i64.saturating_sub_unsigned(before.as_secs());
            if nanos == 0 {
                Stamp { seconds, nanos }
            } else {
                Stamp { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos }
            }
        }
    }
}

/// First and last second that a file can have: those of ext4 (1901 and 2446), where the plain files are most often.
const KEPT_SECONDS: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - (1 << 31) - 1;

/// A time that was asked for as it is kept: one beyond what can be kept is the nearest that can, without a fraction, as
/// the kernel does it for ext4 (`timestamp_truncate`).
pub fn kept(stamp: Stamp) -> Stamp {
    let (first, last) = KEPT_SECONDS.into_inner();
    let seconds = stamp.seconds.clamp(first, last);
    let nanos = if seconds == first || seconds == last { 0 } else { stamp.nanos };
    Stamp { seconds, nanos }
}

/// Seconds since 1970 as a stamp; times before it, which a commit may claim, become 1970 because Git's index can't hold
/// them.
pub fn commit_stamp(seconds: i64) -> Stamp {
    // 2^33 seconds (the year 2242) is the end of what ext4 and Git's tools handle alike.
    Stamp { seconds: seconds.clamp(0, 1 << 33), nanos: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive() {
        for stamp in [
            Stamp { seconds: 0, nanos: 0 },
            Stamp { seconds: 5, nanos: 7 },
            Stamp { seconds: -1, nanos: 999_999_999 },
            Stamp { seconds: -3, nanos: 0 },
        ] {
            assert_eq!(stamp_of(system_time(stamp)), stamp);
            assert_eq!(kept(stamp), stamp);
        }
    }

    #[test]
    fn times_that_cannot_be_kept_are_the_nearest() {
        for seconds in [i64::MIN, i64::MIN + 1, i64::MAX] {
            let stamp = Stamp { seconds, nanos: 0 };
            assert_eq!(stamp_of(system_time(stamp)), stamp);
            let nearest = if seconds < 0 { -2_147_483_648 } else { 15_032_385_535 };
            assert_eq!(kept(Stamp { seconds, nanos: 5 }), Stamp { seconds: nearest, nanos: 0 });
        }
    }
}
