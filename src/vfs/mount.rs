//! Attaching a FUSE connection to a directory: mount(2) where that is
//! permitted, else libfuse's setuid helper (`fusermount3(1)`).
//!
//! fuser could mount too, but then unmounts by path when its session is
//! dropped, and by that time another mount may be there. Here nothing is
//! unmounted but on request.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

/// File system type in the mount table, after `fuse.`.
const SUBTYPE: &str = "larder";

/// Read-ahead of a mount, where it may be set. The kernel gives FUSE 128 KiB; with 512 KiB the page cache uses larger
/// folios, and reading again is faster by half.
const READ_AHEAD_KIB: &str = "512";

/// Sets the read-ahead of the mount on `path`, which is served already. Best effort: needs root.
pub fn widen_read_ahead(path: &Path) {
    // From the mount table: looking at the mount itself would ask the session.
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return };
    let device = table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.nth(2)?;
        (fields.nth(1)? == path.to_str()?).then(|| device.to_owned())
    });
    if let Some(device) = device {
        let _ = std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB);
    }
}

/// Mounts a new FUSE connection on the directory `path` and returns its device. `source` is shown in the mount table. The
/// kernel checks permissions (`default_permissions`), because nobody asks us before a file is opened.
pub fn attach(path: &Path, source: &str, allow_other: bool, read_only: bool) -> io::Result<OwnedFd> {
    match attach_directly(path, source, allow_other, read_only) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            attach_with_helper(path, source, allow_other, read_only)
        }
        attached => attached,
    }
}

fn attach_directly(path: &Path, source: &str, allow_other: bool, read_only: bool) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let other = if allow_other { ",allow_other" } else { "" };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{other}",
        device.as_raw_fd(),
        uid.as_raw(),
        gid.as_raw()
    );
    let only = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let flags = only | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(source, path, format!("fuse.{SUBTYPE}"), flags, Some(&*CString::new(data)?))?;
    Ok(device)
}

/// The helper mounts and sends the device over its standard input, a socket (`_FUSE_COMMFD`).
fn attach_with_helper(path: &Path, source: &str, allow_other: bool, read_only: bool) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let other = if allow_other { ",allow_other" } else { "" };
    let access = if read_only { "ro" } else { "rw" };
    let options = format!("{access},nosuid,nodev,noatime,default_permissions,fsname={source},subtype={SUBTYPE}{other}");
    let helper = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(path)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("fusermount3: {error}")))?;
    let received = receive_device(&ours);
    let output = helper.wait_with_output()?;
    received?.ok_or_else(|| {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        io::Error::other(if text.is_empty() { "fusermount3 sent no device".into() } else { text })
    })
}

/// The descriptor sent over `socket`; `None` when its other end closed without one.
fn receive_device(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}
