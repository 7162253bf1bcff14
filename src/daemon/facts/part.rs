//! Bytes of an object in the cache, a part at a time.
//!
//! Only what is in the cache, and only bytes whose checksum holds; nothing is fetched for it. A tree is given as
//! `git cat-file -p` prints it.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::Sources;
use super::place::{self, Subject, What};
use crate::daemon::protocol::{Failure, FailureClass};
use crate::store::{EntryKind, Listing, Look, ObjectIdText, ObjectKind};

/// Bytes of a part at most: base64 makes two thirds of a line of them.
pub const PART_BYTES: usize = 512 << 10;

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PartRequest {
    /// A path or an object.
    pub subject: Subject,
    /// Look at this generation instead of what is shown now.
    pub generation: Option<u64>,
    /// From which byte on.
    pub offset: u64,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartReport {
    /// The object: what the next part is asked of.
    pub oid: ObjectIdText,
    /// The bytes, in base64.
    pub base64: String,
    /// Whether nothing follows.
    pub last: bool,
}

impl PartReport {
    /// The bytes. `None`: that was no base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.base64).ok()
    }
}

pub(super) fn answer(sources: &Sources<'_>, request: &PartRequest) -> Result<PartReport, Failure> {
    let id = match &request.subject {
        Subject::Object(text) => place::object(sources.store, text)?,
        Subject::Path(path) => of_path(sources, path, request.generation)?,
    };
    let absent = || {
        Failure::new(FailureClass::NotFound, format!("object {id} is not in the cache"))
            .hint("reading its file in a mount fetches it; `larder inspect` says who names it")
    };
    let kind = sources.store.glance(&id)?.ok_or_else(absent)?.kind;
    let (bytes, last) = match kind {
        ObjectKind::Tree => {
            let text = printed(&place::listing(sources.store, &id)?);
            let start = usize::try_from(request.offset).unwrap_or(usize::MAX).min(text.len());
            let end = text.len().min(start + PART_BYTES);
            (text[start..end].to_vec(), end == text.len())
        }
        ObjectKind::Blob => match sources.store.look_at(&id, request.offset, PART_BYTES)? {
            Look::Good(bytes) => {
                sources.store.touch(&id);
                let last = bytes.len() < PART_BYTES;
                (bytes, last)
            }
            Look::Absent => return Err(absent()),
            Look::Damaged => return Err(damaged(sources, &id, request.offset)),
        },
    };
    Ok(PartReport { oid: ObjectIdText(id), base64: STANDARD.encode(bytes), last })
}

/// The object that a path's bytes are.
fn of_path(sources: &Sources<'_>, path: &[u8], generation: Option<u64>) -> Result<ObjectId, Failure> {
    let place = place::look_up(sources, path, generation)?;
    let shown = String::from_utf8_lossy(path).into_owned();
    let none = |why: &str, hint: &str| {
        let text = format!("cannot print {shown} from the cache: {why}");
        Err(Failure::new(FailureClass::NotFound, text).hint(hint))
    };
    match (&place.what, place.what.id()) {
        (What::Base { kind: EntryKind::Gitlink, .. }, _) => {
            none("it is a commit of another repository", "mount that one")
        }
        (_, Some(id)) => Ok(id),
        (_, None) => none("it is a local change", "the mount has it; --generation shows what was committed"),
    }
}

/// The failure for a damaged blob, which goes where that is possible, as after any other read.
fn damaged(sources: &Sources<'_>, id: &ObjectId, offset: u64) -> Failure {
    let failure = Failure::new(FailureClass::Corrupt, format!("object {id} is damaged in the cache"));
    if sources.daemon.is_none() {
        return failure.hint("`larder verify --repair` fetches it again");
    }
    // A read drops it.
    match sources.store.read_at(id, offset, PART_BYTES) {
        Ok(None) => failure.hint("it was dropped; reading its file in a mount fetches it again"),
        Ok(Some(_)) => failure.hint("it was stored anew meanwhile: try again"),
        Err(error) => error.into(),
    }
}

/// A tree as `git cat-file -p` prints it.
fn printed(listing: &Listing) -> Vec<u8> {
    let mut entries: Vec<_> = listing.iter().collect();
    // Git takes a directory's name for one that ends in a slash.
    entries.sort_by_cached_key(|entry| {
        let slash = (entry.kind == EntryKind::Directory).then_some(b'/');
        entry.name.iter().copied().chain(slash).collect::<Vec<u8>>()
    });
    let mut text = String::new();
    for entry in entries {
        let kind = match entry.kind {
            EntryKind::Directory => "tree",
            EntryKind::Gitlink => "commit",
            _ => "blob",
        };
        let _ = writeln!(text, "{:06o} {kind} {}\t{}", entry.mode, entry.id, quoted(entry.name));
    }
    text.into_bytes()
}

/// A name as Git prints it (`core.quotePath`): in quotes with escapes unless it is plain ASCII.
fn quoted(name: &[u8]) -> String {
    let plain = |byte: &u8| (b' '..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    if name.iter().all(plain) {
        return String::from_utf8_lossy(name).into_owned();
    }
    let mut out = String::from("\"");
    for byte in name {
        match byte {
            7 => out.push_str("\\a"),
            8 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            11 => out.push_str("\\v"),
            12 => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            byte if plain(byte) => out.push(char::from(*byte)),
            byte => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_git_does() {
        for (name, text) in [
            (&b"a b.c"[..], "a b.c"),
            (b"tab\tin", "\"tab\\tin\""),
            (b"q\"b\\", "\"q\\\"b\\\\\""),
            ("gr\u{fc}n".as_bytes(), "\"gr\\303\\274n\""),
            (b"\x01\x7f\xff", "\"\\001\\177\\377\""),
        ] {
            assert_eq!(quoted(name), text);
        }
    }
}
