//! What failures of the layers below mean for whoever asked: a class, which
//! decides the exit code, and what to do about it.

use super::protocol::{Failure, FailureClass};
use crate::git::gitdir::GitdirError;
use crate::git::index_file::IndexFileError;
use crate::git::pathspec::PathspecError;
use crate::git::url::UrlError;
use crate::hydrate::{FailureKind, RemoteError};
use crate::index::IndexError;
use crate::index::overlay::OverlayError;
use crate::store::{StoreError, StoreErrorKind};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (class, hint) = match error.kind {
            StoreErrorKind::Busy => (FailureClass::Refused, "a daemon is starting or ending; try again"),
            StoreErrorKind::Newer => {
                (FailureClass::Refused, "use the newer larder that wrote it, or another LARDER_HOME")
            }
            StoreErrorKind::Older => (FailureClass::Other, "`larder daemon` starts one, which brings it up to date"),
            StoreErrorKind::Corrupt => (FailureClass::Corrupt, "the cache can be fetched again: move the file away"),
            StoreErrorKind::Full => (FailureClass::Other, "make room on that disk"),
            StoreErrorKind::Io | StoreErrorKind::Poisoned => {
                (FailureClass::Other, "`larder doctor` looks for the cause")
            }
        };
        Self::new(class, error.to_string()).hint(hint)
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Store(error) => error.into(),
            IndexError::MissingTree(_) => Self::new(FailureClass::NotFound, error.to_string()),
            IndexError::Attributes(_) => Self::new(FailureClass::Other, error.to_string()),
        }
    }
}

impl From<PathspecError> for Failure {
    fn from(error: PathspecError) -> Self {
        Self::new(FailureClass::Usage, error.to_string())
            .hint("pathspecs are relative to the workspace's root; see gitglossary(7)")
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let (class, hint) = match error.kind {
            FailureKind::Offline if error.message.contains("--offline") => {
                (FailureClass::Remote, Some("unmount it, and mount it without --offline"))
            }
            FailureKind::Offline | FailureKind::Transient => {
                (FailureClass::Remote, Some("check the address and the network; what is cached stays readable"))
            }
            // Trust in a certificate has nothing to do with who asks; the message says what to set.
            FailureKind::Denied if error.message.contains("certificate") => (FailureClass::Remote, None),
            FailureKind::Denied => (
                FailureClass::Remote,
                Some(
                    "check that `git ls-remote` works with your credentials; larder uses Git's helpers and ssh's keys",
                ),
            ),
            FailureKind::Missing => (FailureClass::NotFound, None),
            FailureKind::Corrupt => (FailureClass::Corrupt, None),
            FailureKind::Unsupported if error.message.contains("filters") => {
                (FailureClass::Remote, Some("--allow-full accepts everything from a server without filters"))
            }
            FailureKind::Unsupported => (FailureClass::Remote, None),
            FailureKind::Local => (FailureClass::Other, Some("`larder doctor` looks for the cause")),
        };
        let failure = Self::new(class, error.message);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<GitdirError> for Failure {
    fn from(error: GitdirError) -> Self {
        let class = match error {
            GitdirError::Exists(_) | GitdirError::Locked(_) | GitdirError::Moved(_) => FailureClass::Refused,
            GitdirError::Missing(_) | GitdirError::NotAGitdir { .. } => FailureClass::NotFound,
            GitdirError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                FailureClass::NotFound
            }
            _ => FailureClass::Other,
        };
        Self::new(class, error.to_string())
    }
}

impl From<IndexFileError> for Failure {
    fn from(error: IndexFileError) -> Self {
        let class = match error {
            IndexFileError::Locked(_) | IndexFileError::Unsupported(_) => FailureClass::Refused,
            IndexFileError::TooLarge { .. } | IndexFileError::Damaged { .. } => FailureClass::Corrupt,
            _ => FailureClass::Other,
        };
        Self::new(class, error.to_string())
    }
}

impl From<OverlayError> for Failure {
    fn from(error: OverlayError) -> Self {
        match error {
            OverlayError::Index(error) => error.into(),
            OverlayError::Changed(path) => {
                let text = format!("{} was changed meanwhile", String::from_utf8_lossy(&path));
                Self::new(FailureClass::Refused, text).hint("nothing was done; try again").paths([&path].into_iter())
            }
            other => Self::new(FailureClass::Other, format!("local changes: {other}")),
        }
    }
}

impl From<UrlError> for Failure {
    fn from(error: UrlError) -> Self {
        Self::new(FailureClass::Usage, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_error_keeps_its_class() {
        let of = |kind| Failure::from(StoreError { kind, message: "cannot open x: y".to_owned() }).class;
        assert_eq!(of(StoreErrorKind::Corrupt), FailureClass::Corrupt);
        assert_eq!(of(StoreErrorKind::Busy), FailureClass::Refused);
        assert_eq!(of(StoreErrorKind::Io), FailureClass::Other);
    }

    #[test]
    fn a_remote_error_keeps_its_class() {
        let of = |kind| Failure::from(RemoteError::new(kind, "x")).class;
        assert_eq!(of(FailureKind::Offline), FailureClass::Remote);
        assert_eq!(of(FailureKind::Denied), FailureClass::Remote);
        assert_eq!(of(FailureKind::Missing), FailureClass::NotFound);
        assert_eq!(of(FailureKind::Corrupt), FailureClass::Corrupt);
    }
}
