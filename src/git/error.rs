//! Failures of the wire, put into the classes of [`FailureKind`].
//!
//! Owns the mapping from socket errors, server messages and the error output
//! of child processes to classes. It keeps every message to one printable,
//! bounded line, whatever a server sends.

use std::io;
use std::time::Duration;

use gix::ObjectId;

use crate::hydrate::remote::{FailureKind, RemoteError};

/// Characters of foreign text that go into a message: enough for any real one, too few to flood a log.
const MESSAGE_CHARS: usize = 300;

/// Bytes that are not what was asked for.
pub(crate) fn corrupt(message: impl Into<String>) -> RemoteError {
    RemoteError::new(FailureKind::Corrupt, message)
}

/// A failure of this machine's disk.
pub(crate) fn local(what: &str, error: &io::Error) -> RemoteError {
    RemoteError::new(FailureKind::Local, format!("{what}: {error}"))
}

/// A stream that ended in the middle of an answer.
pub(crate) fn cut(address: &str) -> RemoteError {
    RemoteError::new(FailureKind::Transient, format!("{address} closed the connection in the middle of an answer"))
}

/// A failed read, write or connect on a stream to `address`.
pub(crate) fn stream(address: &str, timeout: Duration, error: &io::Error) -> RemoteError {
    use io::ErrorKind as E;
    match error.kind() {
        E::WouldBlock | E::TimedOut => silent(address, timeout),
        E::ConnectionRefused
        | E::HostUnreachable
        | E::NetworkUnreachable
        | E::NetworkDown
        | E::AddrNotAvailable
        | E::NotFound => RemoteError::new(FailureKind::Offline, format!("cannot reach {address}: {error}")),
        _ => RemoteError::new(FailureKind::Transient, format!("connection to {address} failed: {error}")),
    }
}

/// Nothing heard for the whole time-out.
pub(crate) fn silent(address: &str, timeout: Duration) -> RemoteError {
    let heard = humantime::format_duration(timeout);
    RemoteError::new(FailureKind::Offline, format!("nothing heard from {address} for {heard}"))
}

/// One printable line of at most [`MESSAGE_CHARS`] characters out of what somebody else wrote.
pub(crate) fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > MESSAGE_CHARS {
            line = line.chars().take(MESSAGE_CHARS).collect::<String>() + "…";
            break;
        }
    }
    line
}

/// The class of a message in Git's or ssh's words; `None` when the words are not known.
pub(crate) fn class_of(message: &str) -> Option<FailureKind> {
    const WORDS: &[(FailureKind, &[&str])] = &[
        (FailureKind::Denied, &["dubious ownership", "host key verification failed", "permission denied"]),
        (
            FailureKind::Missing,
            &[
                "not our ref",
                "repository not exported",
                "not appear to be a git repository",
                "not a git repository",
                "repository not found",
                "no such repository",
                "project you were looking for could not be found",
                "no such file or directory",
                "bad object",
                "missing blob",
                "missing tree",
                "could not find object",
                "does not exist",
            ],
        ),
        (
            FailureKind::Denied,
            &["access denied", "denied", "forbidden", "unauthorized", "not allowed to", "authentication"],
        ),
        (
            FailureKind::Offline,
            &[
                "could not resolve",
                "name or service not known",
                "connection refused",
                "connection timed out",
                "operation timed out",
                "no route to host",
                "network is unreachable",
            ],
        ),
        (
            FailureKind::Unsupported,
            &[
                "not allowed",
                "not supported",
                "unsupported",
                "unknown command",
                "invalid command",
                "command not found",
                "unexpected line",
                "unknown object format",
                "mismatched object format",
                "no such feature",
            ],
        ),
    ];
    let message = message.to_ascii_lowercase();
    WORDS.iter().find(|(_, words)| words.iter().any(|word| message.contains(word))).map(|(kind, _)| *kind)
}

/// What a server said instead of an answer: an `ERR` line or band 3.
pub(crate) fn server_said(address: &str, text: &[u8]) -> RemoteError {
    let line = one_line(text);
    let kind = class_of(&line).unwrap_or(FailureKind::Transient);
    let error = RemoteError::new(kind, format!("{address} says: {line}"));
    match line.split([' ', ',', '\'']).find_map(|word| ObjectId::from_hex(word.as_bytes()).ok()) {
        Some(id) if kind == FailureKind::Missing => error.about(id),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_messages_are_classed_and_name_the_object() {
        let said = |text: &str| server_said("host", text.as_bytes());
        let id = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        let missing = said(&format!("upload-pack: not our ref {id}"));
        assert_eq!(missing.kind, FailureKind::Missing);
        assert_eq!(missing.object.map(|id| id.to_string()).as_deref(), Some(id));
        assert_eq!(said("access denied or repository not exported: /x").kind, FailureKind::Missing);
        assert_eq!(said("fatal: detected dubious ownership in repository at '/x'").kind, FailureKind::Denied);
        assert_eq!(said("unknown command 'frob'").kind, FailureKind::Unsupported);
        assert_eq!(said("the disk is on fire").kind, FailureKind::Transient);
    }

    #[test]
    fn foreign_text_becomes_one_bounded_line() {
        assert_eq!(one_line(b"fatal:\x1b[31m a\r\n\tb\n"), "fatal: [31m a b");
        assert!(one_line(&[b'x'; 10_000]).chars().count() <= MESSAGE_CHARS + 1);
    }
}
