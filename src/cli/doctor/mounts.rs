//! Mounts that a killed daemon left behind.
//!
//! The kernel's table says what is mounted without asking any of it. Only
//! mounts that the running daemon does not vouch for are then asked, each with
//! a limit.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

use super::Finding;
use crate::cli::bounded::bounded;
use crate::daemon::protocol::WorkspaceStatus;
use crate::store::WorkspaceState;

/// What the source of our mounts begins with.
const SOURCE: &str = "larder:";

pub(super) fn findings(known: &[WorkspaceStatus]) -> Vec<Finding> {
    let table = match fs::read("/proc/self/mountinfo") {
        Ok(table) => table,
        Err(error) => {
            return vec![Finding::warning(
                "mounts",
                format!("/proc/self/mountinfo cannot be read: {error}"),
                "mount /proc; without it nothing here can be told",
            )];
        }
    };
    let ours = ours(&table);
    let count = ours.len();
    let vouched =
        |path: &Path| known.iter().any(|status| status.path == path && status.state != WorkspaceState::Unmounted);
    let mut found: Vec<Finding> =
        ours.into_iter().filter(|path| !vouched(path)).filter_map(|path| stale(&path)).collect();
    if found.is_empty() {
        let detail = match count {
            0 => "no Larder mounts".to_owned(),
            1 => "1 Larder mount, alive".to_owned(),
            _ => format!("{count} Larder mounts, all alive"),
        };
        found.push(Finding::ok("mounts", detail));
    }
    found
}

/// What is wrong with a mount nobody vouches for; another `LARDER_HOME`'s is well.
fn stale(path: &Path) -> Option<Finding> {
    let asked = path.to_owned();
    // The kernel knows the root's attributes; only asking the daemon shows whether it is there.
    let answer = bounded(move || statx(CWD, &asked, AtFlags::STATX_FORCE_SYNC, StatxFlags::MODE).map(|_| ()));
    let path = path.display();
    match answer {
        Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Some(Finding::warning(
            format!("mount {path}"),
            "its daemon is gone",
            format!("the next `larder mount` or `larder daemon` cleans it up, or `fusermount3 -uz '{path}'`"),
        )),
        None => Some(Finding::error(
            format!("mount {path}"),
            "its daemon does not answer",
            format!("end that daemon, then `fusermount3 -uz '{path}'`"),
        )),
        Some(_) => None,
    }
}

/// Mount points of ours in a `mountinfo` table, the lower of stacked ones left out.
fn ours(table: &[u8]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = table.split(|byte| *byte == b'\n').filter_map(mount_point).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// `36 35 98:0 /root /mount/point options [optional…] - type source super-options`
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    fields.find(|field| field == b"-")?;
    let kind = fields.next()?;
    let source = fields.next()?;
    let is_fuse = kind == b"fuse" || kind.starts_with(b"fuse.");
    (is_fuse && source.starts_with(SOURCE.as_bytes())).then(|| OsString::from_vec(unescape(point)).into())
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, after) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_told_from_others() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 0:5 / /mnt/a\\040b rw,nosuid shared:3 master:1 - fuse larder:linux rw\n\
            3 1 0:6 / /mnt/c rw - fuse.larder larder:x rw\n\
            4 2 0:7 / /mnt/c rw - fuse larder:y rw\n\
            5 1 0:8 / /mnt/d rw - fuse.sshfs host:/ rw\n\
            6 1 0:9 / /mnt/larder rw - tmpfs larder:z rw\n\
            garbage\n\n7 1 0:9 /";
        assert_eq!(ours(table), [PathBuf::from("/mnt/a b"), PathBuf::from("/mnt/c")]);
    }

    #[test]
    fn octal_escapes_are_undone_and_nothing_else() {
        assert_eq!(unescape(b"a\\134b\\011\\8\\"), b"a\\b\t\\8\\");
        assert_eq!(unescape(b"\\377\\400"), b"\xff\\400");
    }

    #[test]
    fn a_living_directory_is_well() {
        assert!(stale(&std::env::temp_dir()).is_none());
    }
}
