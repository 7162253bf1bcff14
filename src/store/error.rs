//! What can go wrong in the store, in classes a caller can act on.
//!
//! redb's error types end here: nothing outside `store` names them.

use std::io;

/// The class of a store failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Another process holds the file.
    Busy,
    /// The file was written by a newer Larder.
    Newer,
    /// The file was written by an older Larder and can't be brought up to date by who only reads.
    Older,
    /// Bytes in the file are damaged, or it is no store at all.
    Corrupt,
    /// The disk or a quota is full. Later writes are tried again.
    Full,
    /// Any other failure of the operating system.
    Io,
    /// A write failed before, so that nothing more is written; reads go on.
    Poisoned,
}

/// A failed store operation.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The class.
    pub kind: StoreErrorKind,
    /// What was attempted and why it failed, in one line.
    pub message: String,
}

impl StoreError {
    pub(super) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// There is no room.
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Full, message)
    }

    /// A failure beside the file itself.
    pub fn writing(what: &str, error: &io::Error) -> Self {
        Self::from_io(&format!("writing {what}"), error)
    }

    pub(super) fn from_io(doing: &str, error: &io::Error) -> Self {
        Self::new(io_kind(error), format!("{doing}: {error}"))
    }

    pub(super) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, message)
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind {
            StoreErrorKind::Full => Self::from(io::ErrorKind::StorageFull).kind(),
            StoreErrorKind::Busy => io::ErrorKind::ResourceBusy,
            StoreErrorKind::Corrupt | StoreErrorKind::Newer | StoreErrorKind::Older => io::ErrorKind::InvalidData,
            StoreErrorKind::Io | StoreErrorKind::Poisoned => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Why the body of a transaction stopped: redb's error, or one of our own.
#[derive(Debug)]
pub(super) enum Failure {
    Redb(redb::Error),
    Store(StoreError),
}

impl Failure {
    /// Whether redb refuses everything from now on until the file is opened again.
    ///
    /// After any failed read, write, sync or resize of the file it answers each
    /// later access that misses its cache with `PreviousIo`.
    pub(super) fn breaks_reads(&self) -> bool {
        matches!(
            self,
            Self::Redb(
                redb::Error::Io(_)
                    | redb::Error::PreviousIo
                    | redb::Error::DatabaseClosed
                    | redb::Error::LockPoisoned(_)
            )
        )
    }

    /// The same for writes: a failed commit also discards redb's allocator state, which it calls corruption from then
    /// on.
    pub(super) fn breaks_writes(&self) -> bool {
        self.breaks_reads() || matches!(self, Self::Redb(redb::Error::Corrupted(_)))
    }

    /// Whether this is what an operation meets after another one failed.
    pub(super) fn is_aftermath(&self) -> bool {
        matches!(self, Self::Redb(redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::Corrupted(_)))
    }

    pub(super) fn into_store_error(self, doing: &str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Redb(error) => {
                let kind = match &error {
                    redb::Error::DatabaseAlreadyOpen => StoreErrorKind::Busy,
                    redb::Error::Io(error) => io_kind(error),
                    redb::Error::Corrupted(_)
                    | redb::Error::UpgradeRequired(_)
                    | redb::Error::TableTypeMismatch { .. }
                    | redb::Error::TableIsMultimap(_)
                    | redb::Error::TableDoesNotExist(_)
                    | redb::Error::TypeDefinitionChanged { .. } => StoreErrorKind::Corrupt,
                    _ => StoreErrorKind::Io,
                };
                StoreError::new(kind, format!("{doing}: {error}"))
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

macro_rules! from_redb {
    ($($source:ty),*) => {
        $(impl From<$source> for Failure {
            fn from(error: $source) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError,
    redb::SetDurabilityError
);

fn io_kind(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        // redb: no magic number, a truncated file.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Io,
    }
}
