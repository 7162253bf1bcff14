//! `fetch`: one request for objects, answered by a pack.
//!
//! Every request says `done`: there is no negotiation, one round trip. Packs
//! are asked for without `thin-pack`, so that each is whole by itself.

use gix::ObjectId;

use super::Capabilities;
use super::packet::{self, Packet, SideBand, Wire};
use crate::git::error::{corrupt, one_line};
use crate::hydrate::remote::{FailureKind, RemoteError};
use crate::store::Depth;

/// The depth by which Git means all of history.
const INFINITE_DEPTH: u32 = 0x7fff_ffff;

/// Lines before the pack read at most.
const LINES: usize = 10_000_000;

/// What is asked for.
#[derive(Default)]
pub(crate) struct Request<'a> {
    pub(crate) wants: &'a [ObjectId],
    pub(crate) haves: &'a [ObjectId],
    /// Commits whose parents are not here.
    pub(crate) shallow: &'a [ObjectId],
    pub(crate) depth: Option<Depth>,
    pub(crate) filter: Option<&'a str>,
}

/// What was said before the pack.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) shallow: Vec<ObjectId>,
    pub(crate) unshallow: Vec<ObjectId>,
}

/// Sends `request` and reads up to the pack, which the side band then yields.
pub(crate) fn fetch<'a>(
    wire: &'a mut Wire,
    server: &Capabilities,
    request: &Request<'_>,
) -> Result<(Preface, SideBand<'a>), RemoteError> {
    wire.send(encode(server, request))?;
    let preface = preface(wire, server)?;
    Ok((preface, SideBand::new(wire)))
}

fn encode(server: &Capabilities, request: &Request<'_>) -> Vec<u8> {
    let mut out = server.begin("fetch");
    packet::line(&mut out, "no-progress");
    packet::line(&mut out, "ofs-delta");
    if let Some(filter) = request.filter {
        packet::line(&mut out, &format!("filter {filter}"));
    }
    match request.depth {
        Some(Depth::Commits(depth)) => packet::line(&mut out, &format!("deepen {}", depth.clamp(1, INFINITE_DEPTH))),
        // Without shallow commits everything is sent anyway.
        Some(Depth::Full) if !request.shallow.is_empty() => packet::line(&mut out, &format!("deepen {INFINITE_DEPTH}")),
        _ => {}
    }
    for id in request.shallow {
        packet::line(&mut out, &format!("shallow {id}"));
    }
    for id in request.wants {
        packet::line(&mut out, &format!("want {id}"));
    }
    for id in request.haves {
        packet::line(&mut out, &format!("have {id}"));
    }
    packet::line(&mut out, "done");
    packet::flush(&mut out);
    out
}

fn preface(wire: &mut Wire, server: &Capabilities) -> Result<Preface, RemoteError> {
    let address = wire.address().to_owned();
    let mut preface = Preface::default();
    let mut section = Vec::new();
    for _ in 0..LINES {
        let packet = wire.packet()?;
        if packet == Packet::Delimiter {
            section.clear();
            continue;
        }
        let Some(line) = packet.line() else {
            return Err(RemoteError::new(FailureKind::Corrupt, format!("{address} answered without a pack")));
        };
        if section.is_empty() {
            match line {
                b"packfile" => return Ok(preface),
                b"shallow-info" | b"acknowledgments" | b"wanted-refs" => section = line.to_vec(),
                _ => return Err(corrupt(format!("{address} answered {:?} where a pack belongs", one_line(line)))),
            }
            continue;
        }
        if section == b"shallow-info" {
            let (list, id) = match (line.strip_prefix(b"shallow "), line.strip_prefix(b"unshallow ")) {
                (Some(id), _) => (&mut preface.shallow, id),
                (_, Some(id)) => (&mut preface.unshallow, id),
                _ => return Err(corrupt(format!("{address} sent shallow commits that cannot be read"))),
            };
            let id = ObjectId::from_hex(id).ok().filter(|id| id.kind() == server.hash);
            list.push(id.ok_or_else(|| corrupt(format!("{address} sent a shallow commit that is no id")))?);
        }
    }
    Err(corrupt(format!("{address} sent an answer without end")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::protocol::tests::{lines, wire};

    #[test]
    fn answers_without_a_pack_are_told_apart() {
        let greeting = lines(&["version 2", "ls-refs", "fetch=shallow filter"]);
        let server = Capabilities::read(&mut wire(&greeting)).expect("good greeting");
        let kind = |answer: &[u8]| fetch(&mut wire(answer), &server, &Request::default()).err().map(|error| error.kind);
        let id = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        assert_eq!(kind(&lines(&["packfile"])), None);
        assert_eq!(kind(&lines(&["acknowledgments", "ready"])), Some(FailureKind::Corrupt));
        assert_eq!(kind(&lines(&[])), Some(FailureKind::Corrupt));
        assert_eq!(kind(&lines(&["pack"])), Some(FailureKind::Corrupt));
        assert_eq!(kind(b""), Some(FailureKind::Transient));
        assert_eq!(kind(&lines(&[&format!("ERR upload-pack: not our ref {id}")])), Some(FailureKind::Missing));
    }
}
