//! `git://`: one TCP connection that serves many requests.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::Duration;

use super::socket::SocketTransport;
use super::{Dial, Transport as _};
use crate::git::error::{silent, stream};
use crate::git::protocol::packet;
use crate::hydrate::remote::{FailureKind, RemoteError};

/// Connects and says which repository is meant.
pub(super) fn open(dial: &Dial) -> Result<SocketTransport, RemoteError> {
    let (host, port) = (dial.url.host(), dial.url.port_or_default());
    let mut failure = None;
    for address in resolve(host, port, dial)? {
        match TcpStream::connect_timeout(&address, dial.timeout) {
            Ok(socket) => {
                let mut transport = SocketTransport::tcp(socket, dial)?;
                transport.send(greeting(dial))?;
                return Ok(transport);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        Some(error) => stream(&dial.address, dial.timeout, &error),
        None => RemoteError::new(FailureKind::Offline, format!("cannot reach {}: {host} has no address", dial.address)),
    })
}

fn greeting(dial: &Dial) -> Vec<u8> {
    let host = match dial.url.port() {
        Some(port) => format!("{}:{port}", dial.url.host()),
        None => dial.url.host().to_owned(),
    };
    let mut line = b"git-upload-pack ".to_vec();
    line.extend_from_slice(dial.url.path());
    line.extend_from_slice(b"\0host=");
    line.extend_from_slice(host.as_bytes());
    line.extend_from_slice(b"\0\0version=2\0");
    let mut request = Vec::new();
    packet::data(&mut request, &line);
    request
}

/// The addresses of `host`. The system's resolver has no time-out of its own, so it runs on a thread
/// that is left behind when it takes too long.
fn resolve(host: &str, port: u16, dial: &Dial) -> Result<Vec<SocketAddr>, RemoteError> {
    let (answer, wait) = mpsc::sync_channel(1);
    let name = host.to_owned();
    let look_up = move || drop(answer.send((name.as_str(), port).to_socket_addrs().map(Vec::from_iter)));
    std::thread::Builder::new()
        .name("larder-resolve".into())
        .spawn(look_up)
        .map_err(|error| crate::git::error::local("cannot start a thread", &error))?;
    match wait.recv_timeout(dial.timeout.max(Duration::from_millis(1))) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => {
            Err(RemoteError::new(FailureKind::Offline, format!("cannot find the host of {}: {error}", dial.address)))
        }
        Err(_) => Err(silent(&format!("the name server about {host}"), dial.timeout)),
    }
}
