//! Reading Git's own tree objects into packed listings.
//!
//! Refuses what Git itself would refuse to check out: names that climb out of
//! the tree or reach into `.git` under any disguise, empty names, duplicates,
//! unknown modes. So whatever is in the `trees` table is safe to show.

use gix::ObjectId;
use gix::validate::path::component;

use super::tree::{Entry, EntryKind, Listing, ListingError};

/// Why a tree object can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Not the format of gitformat-tree: octal mode, space, name, NUL, id.
    #[error("the tree object is malformed")]
    Malformed,
    /// A name that must not exist in a working tree.
    #[error("entry {:?} is refused: {reason}", String::from_utf8_lossy(.name))]
    Name {
        /// The name.
        name: Vec<u8>,
        /// Why.
        reason: String,
    },
    /// Duplicates, unknown modes.
    #[error(transparent)]
    Listing(#[from] ListingError),
}

/// Packs the tree object `id` whose bytes, without header, are `raw`.
pub fn listing_from_git(id: &ObjectId, raw: &[u8]) -> Result<Listing, TreeError> {
    let id_len = id.as_bytes().len();
    let mut entries = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() {
        let (entry, after) = parse(rest, id_len)?;
        entries.push(entry);
        rest = after;
    }
    Ok(Listing::pack(id_len, entries)?)
}

/// The tree object a listing was packed from, without header: entries in Git's order, which takes a directory's name for
/// one that ends in a slash. Modes are written as Git writes them; whoever hands it on checks the id.
pub fn tree_bytes(listing: &Listing) -> Vec<u8> {
    let mut entries: Vec<Entry<'_>> = listing.iter().collect();
    let key = |entry: &Entry<'_>| {
        let slash = (entry.kind == EntryKind::Directory).then_some(b'/');
        entry.name.iter().copied().chain(slash).collect::<Vec<u8>>()
    };
    entries.sort_by_cached_key(key);
    let mut raw = Vec::new();
    for entry in entries {
        raw.extend_from_slice(format!("{:o} ", entry.mode).as_bytes());
        raw.extend_from_slice(entry.name);
        raw.push(0);
        raw.extend_from_slice(entry.id.as_bytes());
    }
    raw
}

fn parse(raw: &[u8], id_len: usize) -> Result<(Entry<'_>, &[u8]), TreeError> {
    let space = raw.iter().take(8).position(|byte| *byte == b' ').ok_or(TreeError::Malformed)?;
    let nul = raw.iter().position(|byte| *byte == 0).ok_or(TreeError::Malformed)?;
    let name = raw.get(space + 1..nul).ok_or(TreeError::Malformed)?;
    let id = raw.get(nul + 1..nul + 1 + id_len).ok_or(TreeError::Malformed)?;
    let digits = std::str::from_utf8(&raw[..space]).map_err(|_| TreeError::Malformed)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(TreeError::Malformed);
    }
    let mode = u16::from_str_radix(digits, 8).map_err(|_| TreeError::Malformed)?;
    let kind = EntryKind::from_mode(mode).ok_or_else(|| ListingError::Mode { name: name.to_vec(), mode })?;
    check_name(name, kind)?;
    Ok((Entry { name, kind, mode, id: ObjectId::from_bytes_or_panic(id) }, &raw[nul + 1 + id_len..]))
}

fn check_name(name: &[u8], kind: EntryKind) -> Result<(), TreeError> {
    // What `core.protectHFS` and `core.protectNTFS` protect from; reserved device names such as `aux.c` are
    // ordinary files here.
    let options = component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };
    let mode = (kind == EntryKind::Symlink).then_some(component::Mode::Symlink);
    match gix::validate::path::component(name.into(), mode, options) {
        Ok(_) => Ok(()),
        Err(error) => Err(TreeError::Name { name: name.to_vec(), reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut raw = Vec::new();
        for (mode, name) in entries {
            raw.extend_from_slice(mode.as_bytes());
            raw.push(b' ');
            raw.extend_from_slice(name);
            raw.push(0);
            raw.extend_from_slice(&[3; 20]);
        }
        raw
    }

    fn read(raw: &[u8]) -> Result<Listing, TreeError> {
        listing_from_git(&ObjectId::from_bytes_or_panic(&[0; 20]), raw)
    }

    #[test]
    fn ordinary_names_of_any_encoding() {
        let listing = read(&tree(&[
            ("100644", b"aux.c"),
            ("40000", b"d\xff"),
            ("120000", b"l\n"),
            ("160000", b"sub"),
            ("100664", b"x"),
        ]));
        assert_eq!(listing.expect("valid").len(), 5);
        assert!(read(b"").expect("the empty tree").is_empty());
    }

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let names: [(&str, &[u8]); 5] =
            [("100644", b"a-b"), ("100644", b"a.b"), ("40000", b"a"), ("100664", b"a0"), ("160000", b"b")];
        let raw = tree(&names);
        assert_eq!(tree_bytes(&read(&raw).expect("valid")), raw);
        assert!(tree_bytes(&read(b"").expect("the empty tree")).is_empty());
    }

    #[test]
    fn hostile_names_are_refused() {
        let names: [&[u8]; 9] =
            [b"..", b".", b".git", b".GiT", b"git~1", b"", b"a/b", ".g\u{200c}it".as_bytes(), b".git "];
        for name in names {
            assert!(read(&tree(&[("100644", name)])).is_err(), "{:?}", String::from_utf8_lossy(name));
        }
        assert!(read(&tree(&[("120000", b".gitmodules")])).is_err());
        assert!(read(&tree(&[("100644", b"a"), ("40000", b"a")])).is_err());
        assert!(read(&tree(&[("70000", b"a")])).is_err());
        assert!(read(&tree(&[("+10064", b"a")])).is_err());
    }

    #[test]
    fn cut_anywhere_is_malformed_or_shorter() {
        let raw = tree(&[("100644", b"a"), ("40000", b"b")]);
        for cut in 1..raw.len() {
            let complete = cut == raw.len() / 2 + 1 || read(&raw[..cut]).is_err();
            assert!(complete, "cut at {cut}");
        }
    }
}
