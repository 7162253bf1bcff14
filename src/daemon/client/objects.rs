//! Objects as the daemon sends them: frames after its answer (`daemon/objects.rs` has the format).

use std::io::{BufReader, Read};
use std::os::unix::net::UnixStream;

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;

use super::{Client, connect, unexpected};
use crate::daemon::objects::{END, FAILED};
use crate::daemon::protocol::{Answer, Failure, FailureClass, MAX_LINE_BYTES, Request};
use crate::git::door::Head;
use crate::store::ObjectIdText;

/// Bytes read of the socket at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Objects on their way from the daemon.
pub struct ObjectStream {
    replies: BufReader<UnixStream>,
    hash: HashKind,
}

impl Client {
    /// Asks for objects of a repository; they follow on the stream.
    pub fn objects(&self, repository: u64, hash: HashKind, ids: &[ObjectId]) -> Result<ObjectStream, Failure> {
        let stream = connect(&self.socket).map_err(|error| self.failed("connect to", &error))?;
        let ids = ids.iter().copied().map(ObjectIdText).collect();
        self.begin(&stream, Request::Objects { repository, ids })?;
        let mut replies = BufReader::with_capacity(BUFFER_BYTES, stream);
        match self.result(&mut replies, &mut |_| ())? {
            Some(Answer::Objects) => Ok(ObjectStream { replies, hash }),
            Some(other) => Err(unexpected(&other)),
            None => Err(self.broken("it ended before answering")),
        }
    }
}

impl ObjectStream {
    /// What comes next; `None` at the end.
    pub fn next_object(&mut self) -> Result<Option<Head>, Failure> {
        let [code] = self.array()?;
        let kind = match code {
            END => return Ok(None),
            FAILED => return Err(self.failure()),
            1 => Kind::Commit,
            2 => Kind::Tree,
            3 => Kind::Blob,
            4 => Kind::Tag,
            other => return Err(broken(&format!("it sent an object of kind {other}"))),
        };
        let mut id = [0; 32];
        let id = &mut id[..self.hash.len_in_bytes()];
        self.fill(id)?;
        let id = ObjectId::from_bytes_or_panic(id);
        Ok(Some(Head { id, kind, size: u64::from_le_bytes(self.array()?) }))
    }

    /// Fills `piece` with bytes of the object.
    pub fn fill(&mut self, piece: &mut [u8]) -> Result<(), Failure> {
        self.replies.read_exact(piece).map_err(|error| broken(&error.to_string()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn failure(&mut self) -> Failure {
        let read = self.array().and_then(|length| {
            let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
            let mut text = vec![0; length.min(MAX_LINE_BYTES)];
            self.fill(&mut text)?;
            serde_json::from_slice(&text).map_err(|error| broken(&error.to_string()))
        });
        read.unwrap_or_else(|failure| failure)
    }
}

fn broken(why: &str) -> Failure {
    Failure::new(FailureClass::Other, format!("the daemon broke off: {why}"))
}
