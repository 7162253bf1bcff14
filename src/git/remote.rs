//! A Git server as hydration sees it.
//!
//! Owns the life of a connection: opened, used for one request after another,
//! opened again when the server hung up in between or a request failed.
//! Invariant: after an error nothing of the failed answer is read any more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gix::ObjectId;

use super::environment::Environment;
use super::nearby::Nearby;
use super::pack::{self, Options, Spool};
use super::protocol::packet::Wire;
use super::protocol::{Capabilities, fetch, object_info, refs};
use super::transport::{Dial, Keyring};
use super::url::RepoUrl;
use super::wanted::Wanted;
use crate::hydrate::remote::{Abilities, Connection, Extent, FailureKind, Remote, RemoteError, Sink};
use crate::store::Depth;

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
    nearby: Option<Nearby>,
    /// It is never contacted.
    offline: bool,
}

impl GitRemote {
    /// Nothing is contacted yet.
    pub fn new(url: RepoUrl, options: ConnectOptions) -> Self {
        let ConnectOptions { timeout, environment, gitdir, scratch } = options;
        let address = url.display();
        let environment = Environment::new(environment, gitdir, timeout);
        Self {
            dial: Dial { url, address, timeout, environment, keyring: std::sync::Arc::default() },
            scratch,
            nearby: None,
            offline: false,
        }
    }

    /// The same, whose blobs need not be fetched where the common gitdir `common` has them.
    #[must_use]
    pub fn with_objects(self, common: &Path) -> Self {
        Self { nearby: Some(Nearby::new(common)), ..self }
    }

    /// The same; with `offline` it is never contacted: whatever is asked of it fails at once.
    #[must_use]
    pub fn kept_offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// The same; what comes of credentials is not told to the helpers that gave them.
    #[must_use]
    pub fn looking_only(mut self) -> Self {
        self.dial.keyring = std::sync::Arc::new(Keyring::silent());
        self
    }

    /// Where the credentials in use came from; `None`: none are.
    pub fn credentials(&self) -> Option<&'static str> {
        self.dial.keyring.source()
    }

    /// The credential helpers that are configured, by name: what else their settings say may be secret.
    pub fn credential_helpers(&self) -> Vec<String> {
        let found = self.dial.environment.git_config(&["--get-regexp", r"^credential\.(.*\.)?helper$"]);
        let mut helpers = Vec::new();
        for entry in found.unwrap_or_default().split('\0').filter(|entry| !entry.is_empty()) {
            // An empty one takes back those before it.
            match entry.split_once('\n').map_or("", |(_, value)| value).split_whitespace().next() {
                None => helpers.clear(),
                Some(word) if word.starts_with('!') => helpers.push("a shell command".to_owned()),
                Some(word) => helpers.push(word.to_owned()),
            }
        }
        helpers
    }

    /// Opens a connection and reads the server's greeting.
    pub fn open(&self) -> Result<GitConnection, RemoteError> {
        self.open_with(CancelHandle::default())
    }

    /// As [`GitRemote::open`], with a handle that can end it from the start.
    pub fn open_with(&self, cancel: CancelHandle) -> Result<GitConnection, RemoteError> {
        if self.offline {
            let text = format!("{} is not asked: the workspace is mounted with --offline", self.dial.address);
            return Err(RemoteError::new(FailureKind::Offline, text));
        }
        let (wire, server) = connect(&self.dial, &cancel)?;
        let (dial, scratch) = (self.dial.clone(), self.scratch.clone());
        Ok(GitConnection { dial, scratch, server, wire: Some(wire), cancel, bytes_before: 0, trees_filter: true })
    }
}

impl Remote for GitRemote {
    fn connect(&self) -> Result<Box<dyn Connection>, RemoteError> {
        Ok(Box::new(self.open()?))
    }

    fn nearby(&self, ids: &[ObjectId], sink: &mut dyn Sink) {
        if let Some(nearby) = &self.nearby {
            nearby.give(ids, sink);
        }
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
    /// Whether the server leaves trees out when asked to, as far as is known.
    trees_filter: bool,
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

impl GitConnection {
    fn fetch_filtered(
        &mut self,
        wants: &[ObjectId],
        extent: Extent,
        trees_filter: bool,
        sink: &mut dyn Sink,
    ) -> Result<(), RemoteError> {
        let scratch = self.scratch.clone();
        self.exchange(|wire, server| {
            let absent = |id: ObjectId, wire: &Wire| {
                RemoteError::new(FailureKind::Missing, format!("{} does not have the object {id}", wire.address()))
                    .about(id)
            };
            if let Some(id) = wants.iter().find(|id| id.kind() != server.hash) {
                return Err(absent(*id, wire));
            }
            let filter = filter(extent, server, trees_filter);
            // A wanted commit comes without its parents.
            let depth = (extent == Extent::Objects && server.shallow).then_some(Depth::Commits(1));
            let mut wanted = Wanted::new(wants, extent, sink);
            let ask = |wire: &mut Wire, wants: &[ObjectId], wanted: &mut Wanted<'_>| {
                let request = fetch::Request { wants, depth, filter: filter.as_deref(), ..Default::default() };
                let (_, mut band) = fetch::fetch(wire, server, &request)?;
                let options = Options { spool: Spool::new(scratch.clone()), ..Options::new(server.hash) };
                pack::decode(&mut band, options, wanted).map(drop)
            };
            ask(wire, wants, &mut wanted)?;
            if filter.is_some() && extent != Extent::Trees {
                // Git filters out a wanted blob that it met in a wanted tree first; by itself it comes.
                let left = wanted.expect_missing_only();
                if !left.is_empty() {
                    ask(wire, &left, &mut wanted)?;
                }
            }
            wanted.first_missing(wants).map_or(Ok(()), |id| Err(absent(id, wire)))
        })
    }
}

impl Connection for GitConnection {
    fn abilities(&self) -> Abilities {
        self.server.abilities()
    }

    fn fetch(&mut self, wants: &[ObjectId], extent: Extent, sink: &mut dyn Sink) -> Result<(), RemoteError> {
        if wants.is_empty() {
            return Ok(());
        }
        let trees_filter = self.trees_filter;
        let outcome = self.fetch_filtered(wants, extent, trees_filter, sink);
        match &outcome {
            // Some servers allow the filter for blobs alone.
            Err(error) if extent == Extent::Objects && trees_filter && error.kind == FailureKind::Unsupported => {
                self.trees_filter = false;
                self.fetch_filtered(wants, extent, false, sink)
            }
            _ => outcome,
        }
    }

    fn sizes(&mut self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>, RemoteError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.exchange(|wire, server| object_info::sizes(wire, server, ids))
    }
}

/// What the server is asked to leave out.
fn filter(extent: Extent, server: &Capabilities, trees_filter: bool) -> Option<String> {
    match extent {
        _ if !server.filter => None,
        Extent::Objects if trees_filter => Some("tree:0".to_owned()),
        Extent::Objects | Extent::Exact | Extent::Trees => Some("blob:none".to_owned()),
        // Git's limit is the first size that stays behind.
        Extent::Everything { max_blob_bytes } => {
            max_blob_bytes.map(|bytes| format!("blob:limit={}", bytes.saturating_add(1)))
        }
    }
}
