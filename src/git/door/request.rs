//! What a client asks, read with a bound on everything.

use std::collections::HashSet;
use std::io::{self, Read};

use gix::ObjectId;
use gix::hash::Kind;

use crate::git::error::one_line;

/// Objects in one request at most: more than the files of any repository Larder mounts in one go.
const WANTS: usize = 1 << 22;

/// Lines in one request at most: wants, and the client's shallow commits and refs, which are read and forgotten.
const LINES: usize = 1 << 23;

/// The longest line a packet can hold.
const PACKET_BYTES: usize = 65_520;

/// A request.
pub(super) enum Command {
    ListRefs,
    Fetch {
        /// Each once.
        wants: Vec<ObjectId>,
        /// No acknowledgments are waited for.
        done: bool,
    },
}

/// Why there is no request.
pub(super) enum Refused {
    Input(io::Error),
    Content(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Input(error)
    }
}

enum Packet {
    Data(Vec<u8>),
    Delimiter,
    Flush,
}

/// Requests, one after the other.
pub(super) struct Requests<'a> {
    input: &'a mut dyn Read,
    hash: Kind,
}

impl<'a> Requests<'a> {
    pub(super) fn new(input: &'a mut dyn Read, hash: Kind) -> Self {
        Self { input, hash }
    }

    /// The next request; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Command>, Refused> {
        let first = match self.packet()? {
            None | Some(Packet::Flush) => return Ok(None),
            Some(Packet::Data(line)) => line,
            Some(Packet::Delimiter) => return Err(refused("a request begins with its command")),
        };
        let Some(command) = first.strip_prefix(b"command=") else {
            return Err(refused(&format!("unexpected line {:?}", one_line(&first))));
        };
        match command {
            b"ls-refs" => {
                let arguments = self.capabilities()?;
                self.skip(arguments)?;
                Ok(Some(Command::ListRefs))
            }
            b"fetch" => {
                if !self.capabilities()? {
                    return Err(refused("the request names no objects"));
                }
                self.fetch().map(Some)
            }
            other => Err(refused(&format!("unknown command {:?}", one_line(other)))),
        }
    }

    /// Reads up to the arguments. False: there are none.
    fn capabilities(&mut self) -> Result<bool, Refused> {
        for _ in 0..LINES {
            match self.packet()? {
                Some(Packet::Delimiter) => return Ok(true),
                Some(Packet::Flush) => return Ok(false),
                None => return Err(cut()),
                Some(Packet::Data(line)) => match line.strip_prefix(b"object-format=") {
                    Some(format) if format != self.hash.to_string().as_bytes() => {
                        let text = format!("this repository uses {}, not {:?}", self.hash, one_line(format));
                        return Err(refused(&text));
                    }
                    Some(_) => {}
                    None if line.starts_with(b"agent=") || line.starts_with(b"session-id=") => {}
                    None => return Err(refused(&format!("unknown capability {:?}", one_line(&line)))),
                },
            }
        }
        Err(refused("the request is too long"))
    }

    fn skip(&mut self, arguments: bool) -> Result<(), Refused> {
        if !arguments {
            return Ok(());
        }
        for _ in 0..LINES {
            match self.packet()? {
                Some(Packet::Flush) => return Ok(()),
                Some(Packet::Data(_)) => {}
                None => return Err(cut()),
                Some(Packet::Delimiter) => return Err(refused("a delimiter amid the arguments")),
            }
        }
        Err(refused("the request is too long"))
    }

    fn fetch(&mut self) -> Result<Command, Refused> {
        let (mut wants, mut seen, mut done) = (Vec::new(), HashSet::new(), false);
        for _ in 0..LINES {
            let line = match self.packet()? {
                Some(Packet::Data(line)) => line,
                Some(Packet::Flush) if wants.is_empty() => return Err(refused("the request names no objects")),
                Some(Packet::Flush) => return Ok(Command::Fetch { wants, done }),
                Some(Packet::Delimiter) => return Err(refused("a delimiter amid the arguments")),
                None => return Err(cut()),
            };
            let (word, rest) = match line.iter().position(|&byte| byte == b' ') {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (&line[..], &[][..]),
            };
            match word {
                b"want" => {
                    let id = self.id(rest)?;
                    if wants.len() >= WANTS {
                        return Err(refused(&format!("more than {WANTS} objects in one request")));
                    }
                    if seen.insert(id) {
                        wants.push(id);
                    }
                }
                // What the client has changes nothing: it gets what it asked for.
                b"have" | b"shallow" => drop(self.id(rest)?),
                b"done" => done = true,
                b"filter" if known_filter(rest) => {}
                b"thin-pack" | b"no-progress" | b"include-tag" | b"ofs-delta" => {}
                _ => return Err(refused(&format!("{:?} is not supported here", one_line(&line)))),
            }
        }
        Err(refused("the request is too long"))
    }

    fn id(&self, hex: &[u8]) -> Result<ObjectId, Refused> {
        let id = ObjectId::from_hex(hex).ok().filter(|id| id.kind() == self.hash);
        id.ok_or_else(|| refused(&format!("{:?} is no {} object id", one_line(hex), self.hash)))
    }

    /// The next packet; `None` where the input ends between two.
    fn packet(&mut self) -> Result<Option<Packet>, Refused> {
        let mut digits = [0; 4];
        let mut got = 0;
        while got < 4 {
            match self.input.read(&mut digits[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(cut()),
                Ok(read) => got += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let hex = digits.iter().all(u8::is_ascii_hexdigit);
        let length = std::str::from_utf8(&digits).ok().filter(|_| hex);
        let length = length.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match length {
            Some(0) => Ok(Some(Packet::Flush)),
            Some(1) => Ok(Some(Packet::Delimiter)),
            Some(length @ 4..=PACKET_BYTES) => {
                let mut line = vec![0; length - 4];
                self.input.read_exact(&mut line)?;
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Ok(Some(Packet::Data(line)))
            }
            _ => Err(refused(&format!("{:?} is no packet's length", one_line(&digits)))),
        }
    }
}

/// Filters are accepted and need nothing: only what was asked for by id is sent.
fn known_filter(spec: &[u8]) -> bool {
    let known: [&[u8]; 6] = [b"blob:none", b"blob:limit=", b"tree:", b"object:type=", b"sparse:oid=", b"combine:"];
    spec.len() <= 1000 && known.iter().any(|known| spec.starts_with(known))
}

fn refused(why: &str) -> Refused {
    Refused::Content(why.to_owned())
}

fn cut() -> Refused {
    Refused::Input(io::ErrorKind::UnexpectedEof.into())
}
