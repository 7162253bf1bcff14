//! From failures to exit codes, and from the store's errors to failures.

use std::process::ExitCode;

use crate::daemon::protocol::{Failure, FailureClass};
use crate::store::{StoreError, StoreErrorKind};

/// The exit code of a class of failures, as the command line promises it.
pub(super) fn exit_code(class: FailureClass) -> ExitCode {
    ExitCode::from(number(class))
}

const fn number(class: FailureClass) -> u8 {
    match class {
        FailureClass::Other => 1,
        FailureClass::Usage => 2,
        FailureClass::NotFound => 3,
        FailureClass::Remote => 4,
        FailureClass::Corrupt => 5,
        FailureClass::Refused => 6,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (class, hint) = match error.kind {
            StoreErrorKind::Busy => (FailureClass::Refused, "a daemon is starting or ending; try again"),
            StoreErrorKind::Newer => {
                (FailureClass::Refused, "use the newer larder that wrote it, or another LARDER_HOME")
            }
            StoreErrorKind::Corrupt => (FailureClass::Corrupt, "the cache can be fetched again: move the file away"),
            StoreErrorKind::Full => (FailureClass::Other, "make room on that disk"),
            StoreErrorKind::Io | StoreErrorKind::Poisoned => {
                (FailureClass::Other, "`larder doctor` looks for the cause")
            }
        };
        Self::new(class, error.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_promised_exit_codes() {
        let promised = [
            (FailureClass::Other, 1),
            (FailureClass::Usage, 2),
            (FailureClass::NotFound, 3),
            (FailureClass::Remote, 4),
            (FailureClass::Corrupt, 5),
            (FailureClass::Refused, 6),
        ];
        for (class, code) in promised {
            assert_eq!(number(class), code, "{class:?}");
        }
    }

    #[test]
    fn a_store_error_keeps_its_class() {
        let of = |kind| Failure::from(StoreError { kind, message: "cannot open x: y".to_owned() }).class;
        assert_eq!(of(StoreErrorKind::Corrupt), FailureClass::Corrupt);
        assert_eq!(of(StoreErrorKind::Busy), FailureClass::Refused);
        assert_eq!(of(StoreErrorKind::Io), FailureClass::Other);
    }
}
