//! Every tree: its seal, its form, and the object id that follows from it.

use bytes::Bytes;
use gix::ObjectId;
use parking_lot::Mutex;

use super::super::Store;
use super::super::error::StoreError;
use super::super::git_tree::tree_bytes;
use super::super::row::unseal;
use super::super::schema::TREES;
use super::super::tree::{EntryKind, Listing};
use super::objects::{ROW, in_parallel, object_id};
use super::{PAGE_BYTES, PAGE_ROWS, Problem, Subject, Watch};

impl Store {
    pub(super) fn check_trees(&self, threads: usize, watch: &dyn Watch) -> Result<(), StoreError> {
        // Where the next page begins; `None`: there is none.
        let cursor = Mutex::new(Some(Vec::new()));
        in_parallel(threads, || {
            let mut place = cursor.lock();
            let Some(from) = place.take() else { return Ok(false) };
            let page = self.inner.read("looking through all trees", |txn| {
                let mut page = Vec::new();
                let mut bytes = 0;
                for row in txn.open_table(TREES)?.range(&from[..]..)?.take(PAGE_ROWS) {
                    let (key, row) = row?;
                    bytes += row.value().len();
                    page.push((key.value().to_vec(), row.value().to_vec()));
                    if bytes >= PAGE_BYTES {
                        break;
                    }
                }
                Ok(page)
            })?;
            *place = page.last().map(|(key, _)| [&key[..], &[0]].concat());
            drop(place);
            let mut bytes = 0;
            for (key, row) in &page {
                bytes += row.len() as u64;
                let Ok(id) = ObjectId::try_from(&key[..]) else { continue };
                watch.checked(row.len() as u64);
                match listing_of(&id, row) {
                    None => watch.found(Problem::new(Subject::Tree(id), ROW)),
                    Some(listing) if !gives_id(&listing, &id) => {
                        let text = "its id does not follow from what is stored of it";
                        watch.found(Problem { odd: true, ..Problem::new(Subject::Tree(id), text) });
                    }
                    Some(_) => {}
                }
            }
            Ok(!page.is_empty() && watch.go_on(bytes))
        })
    }
}

/// The listing in a row of `trees`, if it is whole.
pub(super) fn listing_of(id: &ObjectId, row: &[u8]) -> Option<Listing> {
    let listing = Listing::from_row(Bytes::copy_from_slice(unseal(id.as_bytes(), row)?)).ok()?;
    (listing.id_len() == id.as_bytes().len()).then_some(listing)
}

/// Whether `id` follows from `listing`.
fn gives_id(listing: &Listing, id: &ObjectId) -> bool {
    let plain = tree_bytes(listing);
    if object_id(id, "tree", &plain) == Some(*id) {
        return true;
    }
    // Modes with a leading zero: early tools wrote them.
    let has_directories = listing.iter().any(|entry| entry.kind == EntryKind::Directory);
    has_directories && object_id(id, "tree", &padded(listing, &plain)) == Some(*id)
}

/// The tree object `plain` with `040000` for directories.
fn padded(listing: &Listing, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + listing.len());
    let mut rest = plain;
    while let Some(nul) = rest.iter().position(|byte| *byte == 0) {
        let (entry, after) = rest.split_at((nul + 1 + listing.id_len()).min(rest.len()));
        if entry.starts_with(b"40000 ") {
            out.push(b'0');
        }
        out.extend_from_slice(entry);
        rest = after;
    }
    out
}
