//! A loopback TCP proxy that behaves like a bad network.
//!
//! Owns the faults: delay, a narrow line, cut, stall, flipped bits, offline. A fault is armed
//! at any time and strikes when that many bytes have gone to the client since
//! it was armed (or since it last struck), whichever connection carries them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::servers::{GitDaemon, git_url};
use super::{Fixture, repos};

/// A mount of a repository of [`repos::wide`] through a proxy, everything cold.
pub fn wide_behind_proxy(fixture: &Fixture, count: usize) -> (GitDaemon, Proxy, PathBuf) {
    repos::wide(&fixture.path("served/wide"), count);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&git_url(proxy.port(), "wide"), "m");
    (server, proxy, mount)
}

/// What happens to the connection that carries the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reset after this byte.
    Cut,
    /// Left open, nothing more is sent.
    Stall,
    /// One bit of this byte is turned over.
    Flip,
}

/// The default number of strikes: every time.
pub const ALWAYS: u64 = u64::MAX;

/// Bytes that go over a narrow line in one piece, so that connections take turns.
const PIECE: usize = 4 << 10;

struct Armed {
    fault: Fault,
    after: u64,
    seen: u64,
    strikes: u64,
}

#[derive(Default)]
struct Shared {
    rtt_ms: AtomicU64,
    bytes_per_second: AtomicU64,
    /// When the line has carried what was given to it.
    busy_until: Mutex<Option<Instant>>,
    offline: AtomicBool,
    closing: AtomicBool,
    connections: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    armed: Mutex<Option<Armed>>,
    live: Mutex<Vec<TcpStream>>,
}

/// A running proxy; dropping it resets every connection.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Forwards a free port of loopback to `target`.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if state.closing.load(SeqCst) {
                    return;
                }
                let Ok(client) = stream else { continue };
                if !state.offline.load(SeqCst) {
                    accept(&state, client, target);
                }
            }
        });
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Round-trip time of everything sent from now on.
    pub fn set_rtt(&self, rtt: Duration) {
        self.shared.rtt_ms.store(u64::try_from(rtt.as_millis()).expect("a short delay"), SeqCst);
    }

    /// Lets all connections together carry so many bytes a second to the client from now on; 0 is no limit.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, SeqCst);
    }

    /// Arms a fault that strikes `strikes` times, each time `after` bytes have gone down.
    pub fn arm(&self, fault: Fault, after: u64, strikes: u64) {
        *lock(&self.shared.armed) = Some(Armed { fault, after, seen: 0, strikes });
    }

    /// No more faults. Connections already stalled stay so.
    pub fn disarm(&self) {
        *lock(&self.shared.armed) = None;
    }

    /// Strikes still to come.
    pub fn strikes_left(&self) -> u64 {
        lock(&self.shared.armed).as_ref().map_or(0, |armed| armed.strikes)
    }

    /// Resets all connections and refuses new ones, or ends that.
    pub fn set_offline(&self, offline: bool) {
        self.shared.offline.store(offline, SeqCst);
        if offline {
            self.reset_connections();
        }
    }

    /// Bytes sent to the client so far.
    pub fn bytes_down(&self) -> u64 {
        self.shared.bytes_down.load(SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }

    fn reset_connections(&self) {
        for stream in lock(&self.shared.live).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        self.set_offline(true);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Shared>, client: TcpStream, target: u16) {
    shared.connections.fetch_add(1, SeqCst);
    let address = SocketAddr::from(([127, 0, 0, 1], target));
    let Ok(server) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        if let Ok(copy) = stream.try_clone() {
            lock(&shared.live).push(copy);
        }
    }
    let (Ok(client_out), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
    carry(shared, client, server_out, false);
    carry(shared, server, client_out, true);
}

/// Reads eagerly on one thread, delivers each piece on another when its delay has passed.
fn carry(shared: &Arc<Shared>, mut from: TcpStream, to: TcpStream, down: bool) {
    let (send, receive) = mpsc::channel();
    let state = Arc::clone(shared);
    thread::spawn(move || read_all(&state, &mut from, down, &send));
    let state = Arc::clone(shared);
    thread::spawn(move || deliver(&state, to, down, &receive));
}

fn read_all(shared: &Shared, from: &mut TcpStream, down: bool, send: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count) = from.read(&mut buffer) {
        let counter = if down { &shared.bytes_down } else { &shared.bytes_up };
        counter.fetch_add(count as u64, SeqCst);
        let due = Instant::now() + Duration::from_millis(shared.rtt_ms.load(SeqCst)) / 2;
        // An empty piece is the end of the stream.
        if send.send((due, buffer[..count].to_vec())).is_err() || count == 0 {
            return;
        }
    }
}

fn deliver(shared: &Shared, mut to: TcpStream, down: bool, pieces: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, mut piece)) = pieces.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        let struck = if down { strike(shared, &mut piece) } else { None };
        let written = if down { write_narrow(shared, &mut to, &piece) } else { to.write_all(&piece) };
        match struck {
            Some(Fault::Stall) => {
                // Held open until the proxy or the client ends it.
                while pieces.recv().is_ok() {}
                return;
            }
            Some(Fault::Cut) => {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
            _ if written.is_err() => return,
            _ => {}
        }
    }
}

/// Writes as fast as the line carries; a line that is widened meanwhile is wide at once.
fn write_narrow(shared: &Shared, to: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        let nanoseconds = piece.len() as u64 * 1_000_000_000;
        if let Some(took) = nanoseconds.checked_div(shared.bytes_per_second.load(SeqCst)) {
            let now = Instant::now();
            let mut busy = lock(&shared.busy_until);
            let until = busy.unwrap_or(now).max(now) + Duration::from_nanos(took);
            *busy = Some(until);
            drop(busy);
            thread::sleep(until - now);
        }
        to.write_all(piece)?;
    }
    Ok(())
}

/// Applies the armed fault when its byte is in `piece`, shortening the piece where nothing may follow.
fn strike(shared: &Shared, piece: &mut Vec<u8>) -> Option<Fault> {
    let mut armed = lock(&shared.armed);
    let state = armed.as_mut().filter(|state| state.strikes > 0)?;
    let length = piece.len() as u64;
    let place = state.after.checked_sub(state.seen).filter(|place| *place < length);
    let Some(place) = place.and_then(|place| usize::try_from(place).ok()) else {
        state.seen = state.seen.saturating_add(length);
        return None;
    };
    state.strikes -= 1;
    state.seen = 0;
    if state.fault == Fault::Flip {
        piece[place] ^= 1;
    } else {
        piece.truncate(place);
    }
    Some(state.fault)
}
