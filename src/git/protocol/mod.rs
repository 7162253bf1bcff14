//! Git's protocol, version 2: the greeting and three commands.
//!
//! Owns what is written to a server and how its answers are read. Refuses
//! servers that speak another version and object formats not known here.
//! Nothing in it decides policy: what to want is said by its callers.

pub(crate) mod fetch;
pub(crate) mod object_info;
pub(crate) mod packet;
pub(crate) mod refs;

use gix::hash::Kind as HashKind;

use self::packet::{Packet, Wire};
use super::error::{corrupt, one_line};
use crate::hydrate::remote::{Abilities, FailureKind, RemoteError};

const AGENT: &str = concat!("agent=larder/", env!("CARGO_PKG_VERSION"));

/// Lines of a greeting read at most; real ones have about ten.
const GREETING_LINES: usize = 1000;

/// What a server's greeting promises.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the greeting, there or not")]
pub(crate) struct Capabilities {
    pub(crate) hash: HashKind,
    pub(crate) filter: bool,
    pub(crate) object_info: bool,
    pub(crate) shallow: bool,
    /// Whether the object format was named and so is named back.
    object_format: bool,
}

impl Capabilities {
    /// Reads the greeting.
    pub(crate) fn read(wire: &mut Wire) -> Result<Self, RemoteError> {
        let address = wire.address().to_owned();
        let mut first = greeting_line(wire)?;
        if first.as_deref().is_some_and(|line| line.starts_with(b"# service=")) {
            // Smart HTTP opens with a line and a flush of its own.
            if greeting_line(wire)?.is_some() {
                return Err(corrupt(format!("{address} sent a greeting that is not Git's")));
            }
            first = greeting_line(wire)?;
        }
        if first.as_deref() != Some(b"version 2") {
            let why = "does not speak version 2 of Git's protocol (Git 2.18 or newer does)";
            return Err(RemoteError::new(FailureKind::Unsupported, format!("{address} {why}")));
        }
        let mut lines = Vec::new();
        while let Some(line) = greeting_line(wire)? {
            if lines.len() == GREETING_LINES {
                return Err(corrupt(format!("{address} sent a greeting without end")));
            }
            lines.push(line);
        }
        Self::parse(&lines, &address)
    }

    fn parse(lines: &[Vec<u8>], address: &str) -> Result<Self, RemoteError> {
        let value = |name: &str| {
            lines.iter().find_map(|line| match line.strip_prefix(name.as_bytes())? {
                [] => Some(&[][..]),
                [b'=', value @ ..] => Some(value),
                _ => None,
            })
        };
        let has = |list: &[u8], word: &str| list.split(|&b| b == b' ').any(|item| item == word.as_bytes());
        let unsupported = |what: &str| RemoteError::new(FailureKind::Unsupported, format!("{address} {what}"));
        let hash = match value("object-format") {
            None | Some(b"sha1") => HashKind::Sha1,
            Some(b"sha256") => HashKind::Sha256,
            Some(other) => return Err(unsupported(&format!("uses the object format {:?}", one_line(other)))),
        };
        let fetch = value("fetch").ok_or_else(|| unsupported("does not offer to be fetched from"))?;
        if value("ls-refs").is_none() {
            return Err(unsupported("does not list its refs"));
        }
        Ok(Self {
            hash,
            filter: has(fetch, "filter"),
            shallow: has(fetch, "shallow"),
            object_info: value("object-info").is_some(),
            object_format: value("object-format").is_some(),
        })
    }

    pub(crate) fn abilities(&self) -> Abilities {
        Abilities { filter: self.filter, object_info: self.object_info }
    }

    /// The beginning of a request: command, agent, object format, delimiter.
    fn begin(&self, command: &str) -> Vec<u8> {
        let mut request = Vec::with_capacity(256);
        packet::line(&mut request, &format!("command={command}"));
        packet::line(&mut request, AGENT);
        if self.object_format {
            packet::line(&mut request, &format!("object-format={}", self.hash));
        }
        packet::delimiter(&mut request);
        request
    }
}

/// A line of the greeting; `None` at a flush.
fn greeting_line(wire: &mut Wire) -> Result<Option<Vec<u8>>, RemoteError> {
    let address = wire.address().to_owned();
    let packet = wire.packet()?;
    match (&packet, packet.line()) {
        (Packet::Flush, _) => Ok(None),
        (_, Some(line)) => Ok(Some(line.to_vec())),
        _ => Err(corrupt(format!("{address} sent a greeting that is not Git's"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::git::transport::{CancelHandle, Transport};

    /// A server that has said all it will ever say.
    pub(crate) struct Script(pub(crate) std::io::Cursor<Vec<u8>>);

    impl Transport for Script {
        fn send(&mut self, _request: Vec<u8>) -> Result<(), RemoteError> {
            Ok(())
        }
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RemoteError> {
            std::io::Read::read(&mut self.0, buffer).map_err(|error| corrupt(error.to_string()))
        }
        fn is_stale(&self) -> bool {
            false
        }
        fn reason_of_end(&mut self) -> Option<RemoteError> {
            None
        }
        fn canceller(&self) -> Result<Box<dyn Fn() + Send + Sync>, RemoteError> {
            Ok(Box::new(|| ()))
        }
    }

    pub(crate) fn wire(bytes: &[u8]) -> Wire {
        let script = Box::new(Script(std::io::Cursor::new(bytes.to_vec())));
        Wire::new(script, "test".to_owned(), CancelHandle::default())
    }

    pub(crate) fn lines(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            packet::line(&mut out, line);
        }
        packet::flush(&mut out);
        out
    }

    #[test]
    fn a_greeting_is_understood_with_and_without_the_service_line() {
        let greeting = lines(&["version 2", "agent=x", "ls-refs=unborn", "fetch=shallow filter", "object-info"]);
        let read = Capabilities::read(&mut wire(&greeting)).expect("good greeting");
        assert!(read.filter && read.object_info && read.shallow && !read.object_format);
        let http = [lines(&["# service=git-upload-pack"]), greeting].concat();
        assert_eq!(Capabilities::read(&mut wire(&http)).expect("good greeting"), read);
    }

    #[test]
    fn other_versions_and_garbage_are_told_apart() {
        let kind = |bytes: &[u8]| Capabilities::read(&mut wire(bytes)).expect_err("bad greeting").kind;
        assert_eq!(kind(&lines(&["version 1"])), FailureKind::Unsupported);
        assert_eq!(kind(&lines(&["e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 HEAD"])), FailureKind::Unsupported);
        assert_eq!(kind(b"HTTP/1.1 400"), FailureKind::Corrupt);
        assert_eq!(kind(b"+00f"), FailureKind::Corrupt);
        assert_eq!(kind(b"000eversion 2\n"), FailureKind::Transient);
        assert_eq!(kind(b""), FailureKind::Transient);
        assert_eq!(kind(&lines(&["ERR access denied or repository not exported: /x"])), FailureKind::Missing);
        let md5 = lines(&["version 2", "fetch=", "ls-refs", "object-format=md5"]);
        assert_eq!(kind(&md5), FailureKind::Unsupported);
    }
}
