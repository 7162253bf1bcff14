//! Byte streams to servers that speak Git's protocol v2.
//!
//! Owns how a server is reached: a local child, `git://`, the user's `ssh`,
//! smart HTTP. A transport sends one request at a time and reads its answer;
//! it knows nothing of packets. Every wait is bounded by the time-out, and a
//! [`CancelHandle`] ends it from another thread.

mod credential;
mod daemon;
mod http;
mod http_settings;
mod local;
mod netrc;
mod retry_after;
mod socket;
mod ssh;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::environment::Environment;
use super::url::{RepoUrl, Scheme};
use crate::hydrate::remote::{FailureKind, RemoteError};

pub(crate) use credential::Keyring;

/// One connection to a server.
pub(crate) trait Transport: Send {
    /// Sends a whole request; its answer follows.
    fn send(&mut self, request: Vec<u8>) -> Result<(), RemoteError>;

    /// Reads of the answer, or of the greeting before the first request; 0 at the end of the stream.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RemoteError>;

    /// Whether the server hung up while nothing was asked of it.
    fn is_stale(&self) -> bool;

    /// Why the stream ended early, where more is known than that it did.
    fn reason_of_end(&mut self) -> Option<RemoteError>;

    /// How another thread ends what this connection waits for.
    fn canceller(&self) -> Result<Box<dyn Fn() + Send + Sync>, RemoteError>;
}

/// What all transports need to know.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) url: RepoUrl,
    /// [`RepoUrl::display`], for messages.
    pub(crate) address: String,
    pub(crate) timeout: Duration,
    pub(crate) environment: Environment,
    /// Credentials that worked, shared by all connections of one remote.
    pub(crate) keyring: Arc<Keyring>,
}

impl Dial {
    /// Opens a connection on which the server's greeting can be read.
    pub(crate) fn open(&self) -> Result<Box<dyn Transport>, RemoteError> {
        Ok(match self.url.scheme() {
            Scheme::Local => Box::new(local::open(self)?),
            Scheme::Git => Box::new(daemon::open(self)?),
            Scheme::Ssh => Box::new(ssh::open(self)?),
            Scheme::Http | Scheme::Https => Box::new(http::open(self)?),
        })
    }
}

/// Ends whatever a connection waits for, from another thread. The connection is of no use afterwards.
#[derive(Clone, Default)]
pub struct CancelHandle(Arc<CancelSlot>);

#[derive(Default)]
struct CancelSlot {
    cancelled: AtomicBool,
    /// The transport in use. Held only while calling it, which does not block.
    current: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl std::fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelHandle").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl CancelHandle {
    /// Ends the transfer; the call waiting for it fails.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some(cancel) = self.0.current.lock().as_ref() {
            cancel();
        }
    }

    /// Whether [`CancelHandle::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Makes this handle govern `transport`.
    pub(crate) fn govern(&self, transport: &dyn Transport) -> Result<(), RemoteError> {
        *self.0.current.lock() = Some(transport.canceller()?);
        // A cancel that came before the slot was filled found nothing to end.
        if self.is_cancelled() { Err(Self::error()) } else { Ok(()) }
    }

    pub(crate) fn error() -> RemoteError {
        RemoteError::new(FailureKind::Transient, "the transfer was cancelled")
    }
}
