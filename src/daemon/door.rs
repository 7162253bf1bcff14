//! The object door: the larder binary, started by Git under another name.
//!
//! Speaks Git's protocol on standard input and output and asks the daemon for
//! the objects, some thousands a request. It starts no daemon: whoever mounts
//! does.

use std::ffi::OsStr;
use std::io::{BufReader, BufWriter};

use gix::ObjectId;

use super::client::{Client, ObjectStream};
use super::protocol::{Failure, FailureClass, OBJECTS_LIMIT};
use crate::git::door::link::{self, DoorTarget};
use crate::git::door::{self, Head, Source};

/// Whether this process was started as the door.
pub fn is_invocation(argv0: &OsStr) -> bool {
    link::is_door_invocation(argv0)
}

/// Serves Git on standard input and output.
pub fn serve(argv0: &OsStr) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(FailureClass::Other, format!("object door: {error}"));
    let target = link::target_of_invocation(argv0).map_err(failed)?;
    let mut input = BufReader::with_capacity(64 << 10, std::io::stdin().lock());
    let mut output = BufWriter::with_capacity(128 << 10, std::io::stdout().lock());
    let hash = target.hash;
    let client = Client::at(target.socket.clone());
    let mut source = Daemons { target, client, wants: Vec::new(), at: 0, stream: None };
    door::serve(hash, &mut input, &mut output, &mut source).map_err(failed)
}

/// Objects from the daemon.
struct Daemons {
    target: DoorTarget,
    client: Client,
    wants: Vec<ObjectId>,
    /// How many of the wants were asked for.
    at: usize,
    stream: Option<ObjectStream>,
}

impl Daemons {
    /// Asks for the next wants.
    fn ask(&mut self) -> Result<(), Failure> {
        let end = self.wants.len().min(self.at + OBJECTS_LIMIT);
        let some = &self.wants[self.at..end];
        self.stream = Some(self.client.objects(self.target.repository.0, self.target.hash, some)?);
        self.at = end;
        Ok(())
    }
}

impl Source for Daemons {
    fn begin(&mut self, wants: &[ObjectId]) -> Result<(), String> {
        self.wants = wants.to_vec();
        self.at = 0;
        self.ask().map_err(|failure| failure.message)
    }

    fn next(&mut self) -> Result<Option<Head>, String> {
        loop {
            let Some(stream) = &mut self.stream else { return Ok(None) };
            if let Some(head) = stream.next_object().map_err(|failure| failure.message)? {
                return Ok(Some(head));
            }
            self.stream = None;
            if self.at < self.wants.len() {
                self.ask().map_err(|failure| failure.message)?;
            }
        }
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<(), String> {
        let stream = self.stream.as_mut().ok_or("no object is under way")?;
        stream.fill(piece).map_err(|failure| failure.message)
    }
}
