//! The control socket itself: both ends reach it and check each other here.
//!
//! Owns the way round the kernel's limit for socket paths. Invariant: nothing
//! is said to a process of another user.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path the kernel takes for a socket (`sun_path` less its NUL).
const SUN_PATH_BYTES: usize = 107;

/// Connects to a socket whose path may be longer than the kernel takes.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    short_path(socket, |path| UnixStream::connect(path))
}

/// Listens at a socket whose path may be longer than the kernel takes, and lets only this user in.
///
/// A socket nobody listens at any more is replaced. Call it only while holding what makes a daemon the only one of its
/// home (the store): between looking at the old socket and replacing it another daemon could come.
pub fn bind(socket: &Path) -> io::Result<UnixListener> {
    let listener = match short_path(socket, |path| UnixListener::bind(path)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match connect(socket) {
                Err(gone) if gone.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(socket)?,
                _ => return Err(error),
            }
            short_path(socket, |path| UnixListener::bind(path))?
        }
        other => other?,
    };
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether nobody listens at a socket. Never waits for somebody who does.
pub fn is_deserted(socket: &Path) -> bool {
    let refused = short_path(socket, |path| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let end = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok(rustix::net::connect(&end, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED))
    });
    refused.unwrap_or(false)
}

/// Whether the process at the other end runs as this user or as root; both ends ask before saying anything.
pub fn trusted(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.uid.is_root() || peer.uid == rustix::process::getuid())
}

/// Runs `act` on a path to `socket` that the kernel takes: itself, or its name below an open directory.
fn short_path<T>(socket: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if socket.as_os_str().len() <= SUN_PATH_BYTES {
        return act(socket);
    }
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    act(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}
