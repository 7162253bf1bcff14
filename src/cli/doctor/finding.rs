//! One thing looked at: how it is, and what mends it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::daemon::protocol::Failure;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Larder works, slower or not everywhere, or may stop working.
    Warning,
    /// Something keeps Larder from working.
    Error,
}

impl Severity {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What `--fix` may do. Each is harmless whenever it is done, and undone by the next command that needs it otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// Take down a mount of this cache whose daemon is gone.
    Unmount(PathBuf),
    /// Remove a socket that nobody listens on.
    RemoveSocket(PathBuf),
    /// Close a directory of Larder's to others.
    Close(PathBuf),
    /// End an older daemon and start one that fits.
    Restart(u32),
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) name: String,
    pub(super) severity: Severity,
    /// What was found.
    pub(super) detail: String,
    /// What to do about it; nothing when all is well.
    pub(super) fix: Option<String>,
    /// The command that does it, for a POSIX shell, where one does.
    pub(super) command: Option<String>,
    /// Whether `--fix` does it.
    pub(super) fixable: bool,
    /// With `--fix`: whether it was mended just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fixed: Option<bool>,
    #[serde(skip)]
    pub(super) mend: Option<Mend>,
}

impl Finding {
    fn new(name: impl Into<String>, severity: Severity, detail: impl Into<String>, fix: Option<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        Self { name, severity, detail, fix, command: None, fixable: false, fixed: None, mend: None }
    }

    pub(super) fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Severity::Ok, detail, None)
    }

    pub(super) fn warning(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, Severity::Warning, detail, Some(fix.into()))
    }

    pub(super) fn error(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, Severity::Error, detail, Some(fix.into()))
    }

    /// An error from a failure and its hint.
    pub(super) fn failed(name: impl Into<String>, failure: Failure) -> Self {
        let fix = failure.hint.unwrap_or_else(|| "see the message".to_owned());
        Self::error(name, failure.message, fix)
    }

    /// The same, mended by this command.
    pub(super) fn run(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// The same, mended by `--fix`.
    pub(super) fn mended_by(mut self, mend: Mend) -> Self {
        self.fixable = true;
        self.mend = Some(mend);
        self
    }
}

/// `command` as somebody types it who is not root.
pub(super) fn as_root(command: &str) -> String {
    if rustix::process::geteuid().is_root() { command.to_owned() } else { format!("sudo {command}") }
}

/// `path` as one word of a POSIX shell's command line; control characters and bytes that are no text in the `$'…'` form,
/// so that the command means this path and can steer no terminal.
pub(super) fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(harmless) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) if crate::cli::output::escape(text) == text => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut word = "$'".to_owned();
            for byte in bytes {
                match byte {
                    b'\'' | b'\\' => {
                        let _ = write!(word, "\\{}", char::from(*byte));
                    }
                    b' '..=b'~' => word.push(char::from(*byte)),
                    _ => {
                        let _ = write!(word, "\\{byte:03o}");
                    }
                }
            }
            word + "'"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::Command;

    use super::*;

    #[test]
    fn findings_have_seven_fields() {
        let finding = Finding::warning("a", "b", "c").run("d").mended_by(Mend::Restart(1));
        let mut value = serde_json::to_value(&finding).expect("serializable");
        let mut expected = serde_json::json!({
            "name": "a", "severity": "warning", "detail": "b", "fix": "c", "command": "d", "fixable": true
        });
        assert_eq!(value, expected);
        value = serde_json::to_value(Finding { fixed: Some(false), ..finding }).expect("serializable");
        expected["fixed"] = false.into();
        assert_eq!(value, expected);
    }

    #[test]
    fn a_quoted_path_is_one_word_and_the_same_path() {
        for bytes in
            [&b"/a/b-c"[..], b"/a b", b"/it's", b"/\xff\xfe", b"/tab\there", b"/\x1b[2J$(x)`y`", "/Grüße".as_bytes()]
        {
            let path = Path::new(OsStr::from_bytes(bytes));
            let word = quoted(path);
            assert!(!word.contains(char::is_control), "{word:?}");
            let output = Command::new("bash").arg("-c").arg(format!("printf %s {word}")).output().expect("bash runs");
            assert_eq!(output.stdout, bytes, "{word}");
        }
    }
}
