//! The only place where an errno is chosen.

use crate::hydrate::{FailureKind, RemoteError};
use crate::index::IndexError;
use crate::store::{StoreError, StoreErrorKind};

/// A POSIX error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// No such entry.
    pub const ENOENT: Self = Self(libc::ENOENT);
    /// Not a directory.
    pub const ENOTDIR: Self = Self(libc::ENOTDIR);
    /// Is a directory.
    pub const EISDIR: Self = Self(libc::EISDIR);
    /// Not what the operation works on.
    pub const EINVAL: Self = Self(libc::EINVAL);
    /// The bytes can't be had.
    pub const EIO: Self = Self(libc::EIO);
    /// The number is not known, or not any more.
    pub const ESTALE: Self = Self(libc::ESTALE);
    /// A name over 255 bytes, or a symlink target that Linux can't hold.
    pub const ENAMETOOLONG: Self = Self(libc::ENAMETOOLONG);
    /// No such extended attribute.
    pub const ENODATA: Self = Self(libc::ENODATA);
    /// The buffer is too small.
    pub const ERANGE: Self = Self(libc::ERANGE);
    /// The reader was signalled.
    pub const EINTR: Self = Self(libc::EINTR);
}

impl From<&RemoteError> for Errno {
    fn from(error: &RemoteError) -> Self {
        Self(match error.kind {
            FailureKind::Offline | FailureKind::Transient => libc::ENETUNREACH,
            FailureKind::Denied => libc::EACCES,
            FailureKind::Missing | FailureKind::Corrupt | FailureKind::Unsupported | FailureKind::Local => libc::EIO,
        })
    }
}

impl From<&StoreError> for Errno {
    fn from(error: &StoreError) -> Self {
        Self(if error.kind == StoreErrorKind::Full { libc::ENOSPC } else { libc::EIO })
    }
}

impl From<&IndexError> for Errno {
    fn from(error: &IndexError) -> Self {
        match error {
            IndexError::Store(error) => error.into(),
            IndexError::MissingTree(_) => Self::EIO,
        }
    }
}
