//! From classes of failures to exit codes.

use std::process::ExitCode;

use crate::daemon::protocol::FailureClass;

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
}
