//! The only place where an errno is chosen.

use super::convert::ConversionError;
use crate::hydrate::{FailureKind, RemoteError};
use crate::index::IndexError;
use crate::index::convert::{ConvertError, ConvertErrorKind, RulesError};
use crate::index::overlay::OverlayError;
use crate::store::{StoreError, StoreErrorKind};

/// A POSIX error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Not permitted.
    pub const EPERM: Self = Self(libc::EPERM);
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
    /// Not supported by this file system.
    pub const EOPNOTSUPP: Self = Self(libc::EOPNOTSUPP);
    /// No such device or address: lseek(2) found no data.
    pub const ENXIO: Self = Self(libc::ENXIO);
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

impl From<&ConvertError> for Errno {
    fn from(error: &ConvertError) -> Self {
        Self(if error.kind == ConvertErrorKind::Full { libc::ENOSPC } else { libc::EIO })
    }
}

impl From<&ConversionError> for Errno {
    fn from(error: &ConversionError) -> Self {
        match error {
            ConversionError::Convert(error) => error.into(),
            ConversionError::Store(error) => error.into(),
        }
    }
}

impl From<&RulesError> for Errno {
    fn from(error: &RulesError) -> Self {
        match error {
            RulesError::Index(error) => error.into(),
            RulesError::Missing(_) => Self::EIO,
        }
    }
}

impl From<&IndexError> for Errno {
    fn from(error: &IndexError) -> Self {
        match error {
            IndexError::Store(error) => error.into(),
            IndexError::MissingTree(_) | IndexError::Attributes(_) => Self::EIO,
        }
    }
}

impl From<&OverlayError> for Errno {
    fn from(error: &OverlayError) -> Self {
        Self(match error {
            OverlayError::NotFound => libc::ENOENT,
            OverlayError::Exists => libc::EEXIST,
            OverlayError::NotDirectory => libc::ENOTDIR,
            OverlayError::IsDirectory => libc::EISDIR,
            OverlayError::NotEmpty => libc::ENOTEMPTY,
            OverlayError::NameTooLong => libc::ENAMETOOLONG,
            OverlayError::Invalid => libc::EINVAL,
            OverlayError::NotPermitted => libc::EPERM,
            OverlayError::NoData => libc::ENODATA,
            OverlayError::Unsupported => libc::EOPNOTSUPP,
            OverlayError::TooMuch => libc::ENOSPC,
            OverlayError::TooManyLinks => libc::EMLINK,
            OverlayError::Stale => libc::ESTALE,
            OverlayError::Changed(_) => libc::EBUSY,
            OverlayError::Io(error) => error.raw_os_error().unwrap_or(libc::EIO),
            OverlayError::Index(error) => return error.into(),
        })
    }
}

impl From<OverlayError> for Errno {
    fn from(error: OverlayError) -> Self {
        let errno = Self::from(&error);
        // Others are answers; these are faults somebody has to look into.
        if matches!(errno.0, libc::EIO | libc::ESTALE) {
            tracing::error!("local changes: {error}");
        }
        errno
    }
}
