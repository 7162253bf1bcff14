//! Connections that are a socket: TCP, or one end of a pair whose other end
//! is the standard input and output of a child.
//!
//! Owns time-outs, quick acknowledgements and the child's error output. The
//! invariant: no read or write waits longer than the time-out for one byte,
//! and a child never outlives its connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv, sockopt};

use super::{Dial, Transport};
use crate::git::environment::OwnedChild;
use crate::git::error::{class_of, local, one_line, stream};
use crate::hydrate::remote::{FailureKind, RemoteError};

/// Error output kept: the last words are the ones that matter.
const COMPLAINT_BYTES: usize = 8 << 10;

/// How long a child that closed its output may take to say why on its error output.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A socket and, where there is one, the child behind it.
pub(super) struct SocketTransport {
    socket: Socket,
    child: Option<Companion>,
    address: String,
    timeout: Duration,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The child at the other end of a socket pair.
struct Companion {
    process: OwnedChild,
    stderr: UnixStream,
    complaint: Vec<u8>,
}

impl Companion {
    /// Takes what the child wrote to its error output, without waiting.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = self.stderr.read(&mut buffer) {
            self.complaint.extend_from_slice(&buffer[..length]);
            let surplus = self.complaint.len().saturating_sub(COMPLAINT_BYTES);
            self.complaint.drain(..surplus);
        }
    }
}

impl SocketTransport {
    pub(super) fn tcp(socket: TcpStream, dial: &Dial) -> Result<Self, RemoteError> {
        let setup = || {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(dial.timeout))?;
            socket.set_write_timeout(Some(dial.timeout))
        };
        setup().map_err(|error| stream(&dial.address, dial.timeout, &error))?;
        let (address, timeout) = (dial.address.clone(), dial.timeout);
        Ok(Self { socket: Socket::Tcp(socket), child: None, address, timeout })
    }

    /// Starts `command` and talks to its standard input and output.
    pub(super) fn child(mut command: Command, dial: &Dial) -> Result<Self, RemoteError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut start = || {
            let (ours, theirs) = UnixStream::pair()?;
            let (stderr, their_stderr) = UnixStream::pair()?;
            ours.set_read_timeout(Some(dial.timeout))?;
            ours.set_write_timeout(Some(dial.timeout))?;
            stderr.set_nonblocking(true)?;
            command
                .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
                .stdout(Stdio::from(OwnedFd::from(theirs)))
                .stderr(Stdio::from(OwnedFd::from(their_stderr)));
            let process = OwnedChild(command.spawn()?);
            io::Result::Ok((ours, Companion { process, stderr, complaint: Vec::new() }))
        };
        let (socket, child) = start().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                RemoteError::new(FailureKind::Unsupported, format!("cannot run {program}: it is not installed"))
            }
            _ => local(&format!("cannot run {program}"), &error),
        })?;
        // The command holds the child's ends of the sockets; while it lives, the child's end is never seen.
        drop(command);
        let (address, timeout) = (dial.address.clone(), dial.timeout);
        Ok(Self { socket: Socket::Unix(socket), child: Some(child), address, timeout })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Transport for SocketTransport {
    fn send(&mut self, request: Vec<u8>) -> Result<(), RemoteError> {
        if let Some(child) = &mut self.child {
            child.listen();
        }
        let sent = match &mut self.socket {
            Socket::Tcp(socket) => socket.write_all(&request),
            Socket::Unix(socket) => socket.write_all(&request),
        };
        match sent {
            // A server that refuses a want says so and hangs up before it read the rest: its words are there to be read.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            sent => sent.map_err(|error| stream(&self.address, self.timeout, &error)),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RemoteError> {
        loop {
            let read = match &mut self.socket {
                Socket::Tcp(socket) => {
                    // The kernel falls back to delayed acknowledgements by itself; they cost 40 ms a request.
                    let _ = sockopt::set_tcp_quickack(&*socket, true);
                    socket.read(buffer)
                }
                Socket::Unix(socket) => socket.read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A child that exits with requests unread resets its end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.child.is_some() => return Ok(0),
                Err(error) => return Err(stream(&self.address, self.timeout, &error)),
                Ok(length) => return Ok(length),
            }
        }
    }

    fn is_stale(&self) -> bool {
        let mut byte = [0_u8; 1];
        match recv(self.fd(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            // Bytes nobody asked for are as bad as an end.
            Ok(_) => true,
            Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
        }
    }

    fn reason_of_end(&mut self) -> Option<RemoteError> {
        let child = self.child.as_mut()?;
        let deadline = Instant::now() + LAST_WORDS;
        while Instant::now() < deadline && matches!(child.process.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.listen();
        let line = one_line(&child.complaint);
        if line.is_empty() {
            return None;
        }
        let kind = class_of(&line).unwrap_or(FailureKind::Transient);
        Some(RemoteError::new(kind, format!("{}: {line}", self.address)))
    }

    fn canceller(&self) -> Result<Box<dyn Fn() + Send + Sync>, RemoteError> {
        let socket: Box<dyn Fn() + Send + Sync> = match &self.socket {
            Socket::Tcp(socket) => {
                let socket = socket.try_clone().map_err(|error| local("cannot copy a descriptor", &error))?;
                Box::new(move || drop(socket.shutdown(Shutdown::Both)))
            }
            Socket::Unix(socket) => {
                let socket = socket.try_clone().map_err(|error| local("cannot copy a descriptor", &error))?;
                Box::new(move || drop(socket.shutdown(Shutdown::Both)))
            }
        };
        Ok(socket)
    }
}
