//! The object door: a Git server for one repository's own gitdir.
//!
//! Stock Git asks its promisor remote `larder` for objects it lacks. That
//! remote is the gitdir itself, served not by `git upload-pack` but by the
//! larder binary under another name ([`link`]), which speaks just as much of
//! protocol version 2 as a lazy fetch needs ([`serve`]). It sends the wanted
//! objects and nothing else, undeltified and one after the other, so a pack is
//! never whole in memory.
//!
//! Whoever calls is not trusted: every line and every count has a bound, and
//! what is not understood is refused with an `ERR` packet.

pub mod link;
mod pack;
mod request;

use std::io::{self, Read, Write};

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;

use super::error::one_line;
use super::protocol::packet;
use crate::store::{Listing, tree_bytes};
pub(crate) use pack::entry_header;
use pack::{Band, PackWriter};
use request::{Command, Requests};

/// Bytes of an object handled at once.
const PIECE_BYTES: usize = 64 << 10;

/// What an object is, before its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its id.
    pub id: ObjectId,
    /// Its kind.
    pub kind: Kind,
    /// How many bytes follow.
    pub size: u64,
}

/// Where the door's objects come from. Errors are one line for people.
pub trait Source {
    /// Makes sure that the first of `wants` can be given; each is given once, in any order.
    fn begin(&mut self, wants: &[ObjectId]) -> Result<(), String>;
    /// The next object; `None` after the last.
    fn next(&mut self) -> Result<Option<Head>, String>;
    /// Fills `piece` with the next bytes of the object [`Source::next`] told of.
    fn fill(&mut self, piece: &mut [u8]) -> Result<(), String>;
}

/// Serves requests from `input` until it ends.
pub fn serve(hash: HashKind, input: &mut dyn Read, output: &mut dyn Write, source: &mut dyn Source) -> io::Result<()> {
    let mut greeting = Vec::new();
    packet::line(&mut greeting, "version 2");
    packet::line(&mut greeting, concat!("agent=larder/", env!("CARGO_PKG_VERSION")));
    packet::line(&mut greeting, "ls-refs");
    // A client with a shallow gitdir speaks only to servers that know of shallow commits.
    packet::line(&mut greeting, "fetch=shallow filter");
    packet::line(&mut greeting, &format!("object-format={hash}"));
    packet::flush(&mut greeting);
    output.write_all(&greeting)?;
    output.flush()?;
    let mut requests = Requests::new(input, hash);
    loop {
        match requests.next() {
            Ok(None) => return Ok(()),
            Ok(Some(Command::ListRefs)) => output.write_all(b"0000")?,
            Ok(Some(Command::Fetch { wants, done })) => {
                if let Err(why) = source.begin(&wants) {
                    return refuse(output, &why);
                }
                let mut preface = Vec::new();
                if !done {
                    packet::line(&mut preface, "acknowledgments");
                    packet::line(&mut preface, "NAK");
                    packet::line(&mut preface, "ready");
                    packet::delimiter(&mut preface);
                }
                packet::line(&mut preface, "packfile");
                output.write_all(&preface)?;
                let mut band = Band::new(output);
                match send(hash, wants.len(), &mut band, source) {
                    Ok(()) => band.end()?,
                    Err(Stopped::Output(error)) => return Err(error),
                    Err(Stopped::Source(why)) => return band.fatal(&format!("larder: {}", one_line(why.as_bytes()))),
                }
            }
            Err(request::Refused::Input(error)) => return Err(error),
            Err(request::Refused::Content(why)) => return refuse(output, &why),
        }
        output.flush()?;
    }
}

fn refuse(output: &mut dyn Write, why: &str) -> io::Result<()> {
    let mut answer = Vec::new();
    packet::line(&mut answer, &format!("ERR larder: {}", one_line(why.as_bytes())));
    output.write_all(&answer)?;
    output.flush()
}

/// Why a pack was not finished.
enum Stopped {
    Output(io::Error),
    Source(String),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn send(hash: HashKind, count: usize, band: &mut Band<'_>, source: &mut dyn Source) -> Result<(), Stopped> {
    let count = u32::try_from(count).map_err(|_| Stopped::Source("too many objects for one pack".to_owned()))?;
    let mut pack = PackWriter::new(band, hash, count)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut sent = 0;
    while let Some(head) = source.next().map_err(Stopped::Source)? {
        let mut entry = pack.entry(head.kind, head.size)?;
        let mut left = head.size;
        while left > 0 {
            let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            source.fill(&mut piece[..length]).map_err(Stopped::Source)?;
            entry.write_all(&piece[..length])?;
            left -= length as u64;
        }
        entry.finish()?;
        sent += 1;
    }
    if sent != count {
        return Err(Stopped::Source(format!("{sent} of {count} objects could be given")));
    }
    Ok(pack.finish()?)
}

/// The tree object that `listing` was packed from; `None` when it was written in a way that the listing does not
/// keep, such as a mode with a leading zero.
pub fn tree_of(id: &ObjectId, listing: &Listing) -> Option<Vec<u8>> {
    let bytes = tree_bytes(listing);
    let actual = gix::objs::compute_hash(id.kind(), Kind::Tree, &bytes).ok()?;
    (actual == *id).then_some(bytes)
}

#[cfg(test)]
mod tests;
