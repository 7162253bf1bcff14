//! Mount points: whether one can be used, and taking a mount down.
//!
//! Trusts only the kernel's mount table (`proc_pid_mountinfo(5)`): looking at a
//! mount point whose daemon is gone fails, and at one that hangs never ends.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount as umount};

use super::protocol::{Failure, FailureClass};

/// What the mount table shows as the source of every mount of Larder's.
pub const SOURCE_PREFIX: &str = "larder:";

/// One of Larder's mounts, whoever serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount point.
    pub path: PathBuf,
    /// The source: [`SOURCE_PREFIX`] and the workspace's name.
    pub source: String,
    /// The number of its connection: that of its device.
    pub connection: u32,
}

/// Larder's mounts in the mount table, of all daemons.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse(table: &[u8]) -> Vec<MountEntry> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let separator = fields.iter().position(|field| *field == b"-")?;
            let (kind, source) = (fields.get(separator + 1)?, fields.get(separator + 2)?);
            let source = String::from_utf8_lossy(&unescape(source)).into_owned();
            let ours = kind.starts_with(b"fuse") && source.starts_with(SOURCE_PREFIX);
            let path = PathBuf::from(OsString::from_vec(unescape(fields.get(4)?)));
            let device = std::str::from_utf8(fields.get(2)?).ok()?;
            let connection = device.split_once(':')?.1.parse().ok()?;
            ours.then_some(MountEntry { path, source, connection })
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let text = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = text.and_then(|text| u8::from_str_radix(text, 8).ok());
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// The path with its parent's symlinks resolved; the last component may be
/// missing, or a mount that can't be looked at.
pub fn canonical(path: &Path) -> PathBuf {
    let mut existing = path.parent().unwrap_or(path);
    let mut missing: Vec<&std::ffi::OsStr> = path.file_name().into_iter().collect();
    loop {
        if let Ok(resolved) = existing.canonicalize() {
            return missing.iter().rev().fold(resolved, |path, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else { return path.to_owned() };
        missing.push(name);
        existing = parent;
    }
}

/// Whether `path` can become a mount point: missing, or an empty directory.
/// `live` are the paths this daemon serves. A stale mount of ours there is taken down.
pub fn check(path: &Path, home: &Path, live: &[PathBuf]) -> Result<(), Failure> {
    let refused = |text: String| Failure::new(FailureClass::Refused, text);
    let shown = path.display();
    if live.iter().any(|other| other == path) {
        return Err(refused(format!("{shown} is already mounted")).hint(format!("`larder unmount {shown}` first")));
    }
    if let Some(outer) = live.iter().find(|other| path.starts_with(other)) {
        let text = format!("{shown} is inside the mount {}", outer.display());
        return Err(refused(text).hint("choose a directory outside of it"));
    }
    if path.starts_with(home) {
        let text = format!("{shown} is inside {}, where larder keeps its state", home.display());
        return Err(refused(text).hint("choose a directory outside of it"));
    }
    clear_stale(path)?;
    if path == Path::new("/") {
        return Err(refused("/ can't be a mount point".into()));
    }
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(refused(format!("{shown} is not empty")).hint("choose an empty or a new directory")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(format!("{shown} can't be a mount point: {error}"))),
    }
}

/// Whether a mount of Larder's is on `path` whose daemon is gone.
pub fn is_stale(path: &Path) -> bool {
    mounts().is_ok_and(|table| table.iter().any(|entry| entry.path == path)) && is_dead(path)
}

/// Takes down mounts of Larder's on `path` that nobody serves. One that another
/// daemon serves is refused.
pub fn clear_stale(path: &Path) -> Result<(), Failure> {
    let table = mounts().map_err(|error| Failure::new(FailureClass::Other, format!("mount table: {error}")))?;
    for entry in table.iter().filter(|entry| entry.path == path) {
        if !is_dead(path) {
            let text = format!("{} is already mounted by another larder daemon", path.display());
            return Err(Failure::new(FailureClass::Refused, text).hint("unmount it there, or choose another directory"));
        }
        tracing::info!(path = %path.display(), source = entry.source, "taking down a mount whose daemon is gone");
        unmount(path, true)?;
    }
    Ok(())
}

/// Whether the daemon of the mount on `path` is gone: the kernel then answers
/// `ENOTCONN` at once. A mount that does not answer at all is alive, if stuck.
fn is_dead(path: &Path) -> bool {
    let (tell, hear) = std::sync::mpsc::channel();
    let path = path.to_owned();
    // On a thread of its own, because nothing bounds the time a stuck mount takes.
    let looked = std::thread::Builder::new().name("look-at-mount".into()).spawn(move || {
        let found = rustix::fs::statfs(&path);
        let _ = tell.send(matches!(found, Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)));
    });
    looked.is_ok() && hear.recv_timeout(std::time::Duration::from_secs(2)).unwrap_or(false)
}

/// Unmounts `path`; with `detach` even while files in it are open.
pub fn unmount(path: &Path, detach: bool) -> Result<(), Failure> {
    let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() } | UnmountFlags::NOFOLLOW;
    let error = match umount(path, flags) {
        // The errors: not mounted any more.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::PERM) => match fusermount(path, detach) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        Err(error) => error.into(),
    };
    let busy = error.raw_os_error() == Some(libc::EBUSY);
    let failure = Failure::new(
        if busy { FailureClass::Refused } else { FailureClass::Other },
        format!("{} can't be unmounted: {error}", path.display()),
    );
    Err(if busy {
        failure.hint("close the files and shells that use it (`fuser -vm PATH` lists them), or use --force")
    } else {
        failure
    })
}

/// Without privilege, the setuid helper of libfuse unmounts.
fn fusermount(path: &Path, detach: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg(if detach { "-uz" } else { "-u" }).arg("--").arg(path);
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if text.contains("busy") { io::Error::from_raw_os_error(libc::EBUSY) } else { io::Error::other(text) })
}

/// A workspace name for a mount point: its last component, kept to characters
/// that need no quoting.
pub fn name_for(path: &Path) -> String {
    let bytes = path.file_name().map_or(&b"root"[..], OsStrExt::as_bytes);
    let name: String = bytes
        .iter()
        .map(|byte| if byte.is_ascii_alphanumeric() || b"._-".contains(byte) { char::from(*byte) } else { '-' })
        .collect();
    let name = name.trim_start_matches(['.', '-']).to_owned();
    if name.is_empty() { "workspace".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mount_table() {
        let table = b"36 35 0:51 / /mnt/a\\040b rw,nosuid shared:1 - fuse larder:w ro,user_id=0\n\
            37 35 8:1 / /home rw - ext4 /dev/sda1 rw\n38 1 0:9 / /x rw - fuse sshfs rw\n";
        assert_eq!(parse(table), [MountEntry { path: "/mnt/a b".into(), source: "larder:w".into(), connection: 51 }]);
    }

    #[test]
    fn names_need_no_quoting() {
        assert_eq!(name_for(Path::new("/tmp/my repo")), "my-repo");
        assert_eq!(name_for(Path::new("/tmp/..-x")), "x");
        assert_eq!(name_for(Path::new("/")), "root");
    }

    #[test]
    fn a_missing_path_keeps_its_name() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let resolved = directory.path().canonicalize().expect("exists");
        assert_eq!(canonical(&directory.path().join("a/b")), resolved.join("a/b"));
    }
}
