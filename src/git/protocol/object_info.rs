//! `object-info`: sizes of objects without their contents.

use std::collections::HashMap;

use gix::ObjectId;

use super::Capabilities;
use super::packet::{self, Packet, Wire};
use crate::git::error::corrupt;
use crate::hydrate::remote::{FailureKind, RemoteError};

/// Ids in one request: the server holds all of them before it answers.
const IDS_PER_REQUEST: usize = 100_000;

/// Raw sizes of `ids`; an id the server does not have is an error of kind missing.
pub(crate) fn sizes(
    wire: &mut Wire,
    server: &Capabilities,
    ids: &[ObjectId],
) -> Result<Vec<(ObjectId, u64)>, RemoteError> {
    if !server.object_info {
        let text = format!("{} does not tell sizes (object-info)", wire.address());
        return Err(RemoteError::new(FailureKind::Unsupported, text));
    }
    let mut sizes = Vec::with_capacity(ids.len());
    for part in ids.chunks(IDS_PER_REQUEST) {
        ask(wire, server, part, &mut sizes)?;
    }
    Ok(sizes)
}

fn ask(
    wire: &mut Wire,
    server: &Capabilities,
    ids: &[ObjectId],
    sizes: &mut Vec<(ObjectId, u64)>,
) -> Result<(), RemoteError> {
    let mut request = server.begin("object-info");
    packet::line(&mut request, "size");
    for id in ids {
        packet::line(&mut request, &format!("oid {id}"));
    }
    packet::flush(&mut request);
    wire.send(request)?;
    let address = wire.address().to_owned();
    let mut told: HashMap<ObjectId, u64> = HashMap::with_capacity(ids.len());
    // One line names the attributes, then one comes for each id.
    for number in 0..ids.len() + 2 {
        let packet = wire.packet()?;
        if packet == Packet::Flush {
            break;
        }
        let line = packet.line().and_then(|line| std::str::from_utf8(line).ok());
        let bad = || corrupt(format!("{address} sent a list of sizes that cannot be read"));
        let line = line.ok_or_else(bad)?;
        if number == 0 && line == "size" {
            continue;
        }
        let (id, size) = line.split_once(' ').ok_or_else(bad)?;
        let id = ObjectId::from_hex(id.as_bytes()).map_err(|_| bad())?;
        // An object the server does not have comes with an empty size.
        if !size.is_empty() {
            told.insert(id, size.parse().map_err(|_| bad().about(id))?);
        }
    }
    for id in ids {
        let size = told.get(id).ok_or_else(|| {
            RemoteError::new(FailureKind::Missing, format!("{address} does not have the object {id}")).about(*id)
        })?;
        sizes.push((*id, *size));
    }
    Ok(())
}
