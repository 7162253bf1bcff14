//! What hydration needs of a remote: connections that fetch many objects in
//! one request and, where the server can, answer for sizes alone.
//!
//! Connections block; each lives on a thread of its own. Whoever implements
//! [`Connection`] promises that every object handed to a [`Sink`] was verified
//! against its id, and that no call is silent for longer than the time-out.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use crate::store::StoreError;

/// Blobs above this many raw bytes are streamed into the store, never held whole in memory.
pub const LARGE_BLOB_BYTES: u64 = 8 << 20;

/// The class of a failure: what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// May pass by itself: retried with backoff.
    Transient,
    /// No route, refused, name not found, or nothing heard within the time-out.
    Offline,
    /// Credentials missing or refused.
    Denied,
    /// There is no such repository, ref or object.
    Missing,
    /// The remote sent something that is not what was asked for.
    Corrupt,
    /// The remote lacks an ability that is needed.
    Unsupported,
    /// This machine's disk or store refused.
    Local,
}

/// A failed exchange with a remote. Never carries a credential.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// The class.
    pub kind: FailureKind,
    /// What failed and why, in one line.
    pub message: String,
    /// The object that was refused or missing, where there is one.
    pub object: Option<ObjectId>,
    /// How long the remote asked to be left alone (HTTP `Retry-After`).
    pub retry_after: Option<Duration>,
}

impl RemoteError {
    /// An error of `kind`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), object: None, retry_after: None }
    }

    /// The same error, naming `object`.
    #[must_use]
    pub fn about(mut self, object: ObjectId) -> Self {
        self.object = Some(object);
        self
    }
}

impl From<StoreError> for RemoteError {
    fn from(error: StoreError) -> Self {
        Self::new(FailureKind::Local, error.to_string())
    }
}

/// Takes objects in the order they arrive, each already verified.
pub trait Sink {
    /// An object of at most [`LARGE_BLOB_BYTES`], or of any kind but blob.
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError>;

    /// A blob above [`LARGE_BLOB_BYTES`]: its bytes are written as they are
    /// decoded; nothing is stored unless [`LargeSink::finish`] is called.
    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError>;
}

/// The bytes of one large blob on their way into the store; dropping it discards them.
pub trait LargeSink: io::Write {
    /// All bytes were written and hash to `id`.
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError>;
}

/// What a server offers, known once connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Partial clone filters (`fetch=filter`).
    pub filter: bool,
    /// Sizes without contents (`object-info`).
    pub object_info: bool,
}

/// How much of what lies below the wanted objects comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The wanted objects and nothing else; they are blobs and trees.
    Exact,
    /// The wanted objects and nothing else, of whatever kind: a commit comes without its history.
    Objects,
    /// Every tree below the wanted trees, no blobs.
    Trees,
    /// Every tree and blob below the wanted trees.
    Everything {
        /// Blobs above this many raw bytes may be left out, where the server can do that.
        max_blob_bytes: Option<u64>,
    },
}

/// One warm connection; requests on it run one after another.
pub trait Connection: Send {
    /// What the server offers.
    fn abilities(&self) -> Abilities;

    /// Fetches `wants` and what `extent` adds in one request. Objects may
    /// arrive in any order; those delivered before an error stay delivered. A
    /// want the server does not have is an error of kind [`FailureKind::Missing`].
    /// With [`Extent::Exact`] and [`Extent::Objects`] the sink gets nothing but the wants, each once.
    fn fetch(&mut self, wants: &[ObjectId], extent: Extent, sink: &mut dyn Sink) -> Result<(), RemoteError>;

    /// Raw sizes in bytes of `ids`, in one request; only when [`Abilities::object_info`].
    fn sizes(&mut self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>, RemoteError>;
}

/// A place objects come from.
pub trait Remote: Send + Sync + 'static {
    /// Opens a connection; fails within the connect time-out.
    fn connect(&self) -> Result<Box<dyn Connection>, RemoteError>;

    /// Hands over those of `ids`, which are blobs, that are on this machine without being in the store: what users
    /// committed here and nobody else has. Verified like everything else, without the network; what fails is left out.
    fn nearby(&self, ids: &[ObjectId], sink: &mut dyn Sink) {
        let _ = (ids, sink);
    }

    /// The address as shown to people: never with credentials.
    fn address(&self) -> String;
}
