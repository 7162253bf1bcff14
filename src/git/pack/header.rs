//! The head of a pack and of each entry in it.

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;

use super::input::{Feed, byte, exactly};
use crate::git::error::corrupt;
use crate::hydrate::remote::RemoteError;

/// What an entry is.
pub(super) enum Head {
    /// An object.
    Whole(Kind),
    /// A delta to the entry that many bytes earlier.
    Offset(u64),
    /// A delta to an object.
    Reference(ObjectId),
}

/// Number of entries, from the head of the pack.
pub(super) fn pack(feed: &mut dyn Feed) -> Result<u32, RemoteError> {
    let mut head = [0; 12];
    exactly(feed, &mut head)?;
    let [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, count @ ..] = head else {
        return Err(corrupt("the server sent something that is not a pack"));
    };
    Ok(u32::from_be_bytes(count))
}

/// Kind of the next entry, and how many bytes it inflates to.
pub(super) fn entry(feed: &mut dyn Feed, hash: HashKind) -> Result<(Head, u64), RemoteError> {
    let mut next = byte(feed)?;
    let code = next >> 4 & 7;
    let mut size = u64::from(next & 15);
    let mut shift = 4_u32;
    while next & 0x80 != 0 {
        next = byte(feed)?;
        let bits = u64::from(next & 0x7f);
        let place = bits.checked_shl(shift).filter(|place| place >> shift == bits);
        size |= place.ok_or_else(|| feed.refuse("says it has an absurd size"))?;
        shift += 7;
    }
    let head = match code {
        1 => Head::Whole(Kind::Commit),
        2 => Head::Whole(Kind::Tree),
        3 => Head::Whole(Kind::Blob),
        4 => Head::Whole(Kind::Tag),
        6 => Head::Offset(distance(feed)?),
        7 => {
            let mut id = [0; 32];
            let id = &mut id[..hash.len_in_bytes()];
            exactly(feed, id)?;
            Head::Reference(ObjectId::from_bytes_or_panic(id))
        }
        _ => return Err(feed.refuse("is of an unknown kind")),
    };
    Ok((head, size))
}

/// How far back the base is: seven bits a byte, highest first, one added between bytes.
fn distance(feed: &mut dyn Feed) -> Result<u64, RemoteError> {
    let mut next = byte(feed)?;
    let mut value = u64::from(next & 0x7f);
    while next & 0x80 != 0 {
        next = byte(feed)?;
        let shifted = value.checked_add(1).filter(|value| *value < 1 << 57);
        value = shifted.ok_or_else(|| feed.refuse("has its base absurdly far away"))? << 7 | u64::from(next & 0x7f);
    }
    Ok(value)
}
