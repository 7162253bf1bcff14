//! A Git server as hydration sees it.
//!
//! Owns the life of a connection: opened, used for one request after another,
//! opened again when the server hung up in between or a request failed.
//! Invariant: after an error nothing of the failed answer is read any more.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::environment::Environment;
use super::pack::{self, Options, Spool};
use super::protocol::packet::Wire;
use super::protocol::{Capabilities, fetch, object_info, refs};
use super::transport::Dial;
use super::url::RepoUrl;
use crate::hydrate::remote::{Abilities, Connection, FailureKind, LargeSink, Remote, RemoteError, Sink};

pub use super::protocol::refs::Resolved;
pub use super::transport::CancelHandle;

/// How long nothing may be heard before a server counts as gone.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything about a connection that is not its address.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The longest wait without a byte; for connecting too.
    pub timeout: Duration,
    /// The client's environment, for ssh, credential helpers and proxies; empty means this process's.
    pub environment: Vec<(String, String)>,
    /// A gitdir whose configuration counts beside the user's.
    pub gitdir: Option<PathBuf>,
    /// Where large deltas are worked on; default: the directory for temporary files.
    pub scratch: Option<PathBuf>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: DEFAULT_TIMEOUT, environment: Vec::new(), gitdir: None, scratch: None }
    }
}

impl std::fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("ConnectOptions")
            .field("timeout", &self.timeout)
            .field("gitdir", &self.gitdir)
            .finish_non_exhaustive()
    }
}

/// A repository elsewhere. Connections to it share credentials that worked.
pub struct GitRemote {
    dial: Dial,
    scratch: Option<PathBuf>,
}

impl GitRemote {
    /// Nothing is contacted yet.
    pub fn new(url: RepoUrl, options: ConnectOptions) -> Self {
        let ConnectOptions { timeout, environment, gitdir, scratch } = options;
        let address = url.display();
        let environment = Environment::new(environment, gitdir, timeout);
        Self { dial: Dial { url, address, timeout, environment, keyring: std::sync::Arc::default() }, scratch }
    }

    /// Opens a connection and reads the server's greeting.
    pub fn open(&self) -> Result<GitConnection, RemoteError> {
        self.open_with(CancelHandle::default())
    }

    /// As [`GitRemote::open`], with a handle that can end it from the start.
    pub fn open_with(&self, cancel: CancelHandle) -> Result<GitConnection, RemoteError> {
        let (wire, server) = connect(&self.dial, &cancel)?;
        let (dial, scratch) = (self.dial.clone(), self.scratch.clone());
        Ok(GitConnection { dial, scratch, server, wire: Some(wire), cancel, bytes_before: 0 })
    }
}

impl Remote for GitRemote {
    fn connect(&self) -> Result<Box<dyn Connection>, RemoteError> {
        Ok(Box::new(self.open()?))
    }

    fn address(&self) -> String {
        self.dial.address.clone()
    }
}

fn connect(dial: &Dial, cancel: &CancelHandle) -> Result<(Wire, Capabilities), RemoteError> {
    if cancel.is_cancelled() {
        return Err(CancelHandle::error());
    }
    let transport = dial.open()?;
    cancel.govern(&*transport)?;
    let mut wire = Wire::new(transport, dial.address.clone(), cancel.clone());
    let server = Capabilities::read(&mut wire)?;
    Ok((wire, server))
}

/// A connection to a Git server. One that failed connects again at its next use.
pub struct GitConnection {
    dial: Dial,
    pub(super) scratch: Option<PathBuf>,
    server: Capabilities,
    /// `None` after a failure.
    wire: Option<Wire>,
    cancel: CancelHandle,
    /// Bytes received on wires given up.
    bytes_before: u64,
}

impl GitConnection {
    /// The server's object format.
    pub fn object_hash(&self) -> gix::hash::Kind {
        self.server.hash
    }

    /// Ends whatever this connection does, from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Bytes received so far, over all reconnections.
    pub fn bytes_received(&self) -> u64 {
        self.bytes_before + self.wire.as_ref().map_or(0, Wire::bytes_in)
    }

    /// What `rev` means at the server: `None` is its HEAD; else a branch, a tag (peeled), a full
    /// ref name, or a whole object id, which is taken at its word.
    pub fn resolve(&mut self, rev: Option<&str>) -> Result<Resolved, RemoteError> {
        self.exchange(|wire, server| refs::resolve(wire, server, rev))
    }

    /// Runs `work` on a live wire, which is given up when it fails.
    pub(super) fn exchange<T>(
        &mut self,
        work: impl FnOnce(&mut Wire, &Capabilities) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        if self.cancel.is_cancelled() {
            return Err(CancelHandle::error());
        }
        if let Some(stale) = self.wire.take_if(|wire| wire.is_stale()) {
            self.bytes_before += stale.bytes_in();
        }
        let mut wire = if let Some(wire) = self.wire.take() {
            wire
        } else {
            let (wire, server) = connect(&self.dial, &self.cancel)?;
            self.server = server;
            wire
        };
        let result = work(&mut wire, &self.server);
        match result {
            Ok(_) => self.wire = Some(wire),
            Err(_) => self.bytes_before += wire.bytes_in(),
        }
        result
    }
}

impl Connection for GitConnection {
    fn abilities(&self) -> Abilities {
        self.server.abilities()
    }

    fn fetch(&mut self, wants: &[ObjectId], sink: &mut dyn Sink) -> Result<(), RemoteError> {
        let mut missing: HashSet<ObjectId> = wants.iter().copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let spool = Spool::new(self.scratch.clone());
        let absent = |id: &ObjectId, address: &str| {
            RemoteError::new(FailureKind::Missing, format!("{address} does not have the object {id}")).about(*id)
        };
        self.exchange(|wire, server| {
            let address = wire.address().to_owned();
            if let Some(id) = wants.iter().find(|id| id.kind() != server.hash) {
                return Err(absent(id, &address));
            }
            // What is wanted by its id comes whatever the filter; it keeps a tree from bringing its blobs.
            let filter = server.filter.then_some("blob:none");
            let request = fetch::Request { wants, filter, ..Default::default() };
            let (_, mut band) = fetch::fetch(wire, server, &request)?;
            let mut wanted = Wanted { missing: &mut missing, sink };
            pack::decode(&mut band, Options { spool, ..Options::new(server.hash) }, &mut wanted)?;
            match wants.iter().find(|id| missing.contains(*id)) {
                Some(id) => Err(absent(id, &address)),
                None => Ok(()),
            }
        })
    }

    fn sizes(&mut self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>, RemoteError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.exchange(|wire, server| object_info::sizes(wire, server, ids))
    }
}

/// Passes on what was asked for, each object once.
struct Wanted<'a> {
    missing: &'a mut HashSet<ObjectId>,
    sink: &'a mut dyn Sink,
}

impl Sink for Wanted<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        if self.missing.remove(&id) { self.sink.object(id, kind, data) } else { Ok(()) }
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Ok(Box::new(LargeWanted { missing: self.missing, inner: self.sink.large(raw_size)? }))
    }
}

/// A large blob whose id is known only at its end.
struct LargeWanted<'a> {
    missing: &'a mut HashSet<ObjectId>,
    inner: Box<dyn LargeSink + 'a>,
}

impl Write for LargeWanted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl LargeSink for LargeWanted<'_> {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        if self.missing.remove(&id) { self.inner.finish(id) } else { Ok(()) }
    }
}
