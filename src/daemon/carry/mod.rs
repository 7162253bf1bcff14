//! Carrying a commit to a machine without a network: `larder cache export` and `larder cache import`.
//!
//! Owns the format of the file, below. It refuses whatever is not exactly what the format says: the commit, then every
//! tree, then the blobs that are selected, in an order that follows from the trees alone ([`order`]). So each record is
//! known by name before it is read, nothing can be missing unnoticed, and nothing that does not belong there gets in.
//! No path of the file becomes a path on disk; names of entries go through `listing_from_git`, the ref's through Git's
//! rules. Memory is bounded by `PIECE_BYTES`, `STRUCTURE_BYTES` and the sets of [`order`], whatever a file says.
//!
//! In reading order: [`order`] says what comes when; `write` and `read` are the bytes; `export` and `import` the two
//! commands; `imports` keeps what was imported until a workspace shows it.
//!
//! Format, version 1. Integers are little-endian; an id has 20 (SHA-1) or 32 (SHA-256) bytes.
//!
//! ```text
//! [u8; 8]   0x89 "LARDER" 0x0a
//! u16       version = 1
//! u16       the same with all bits turned over: a damaged version is none that is newer
//! u32       length of the header, at most HEADER_BYTES
//! header    JSON, see `Header`
//! [u8; 32]  BLAKE3 of all of the above
//! records
//! u8        255: the end
//! u64       trees
//! u64       blobs
//! u64       records of sizes
//! u64       raw bytes of all records
//! [u8; 32]  BLAKE3 of the whole file before it
//! ```
//!
//! A record:
//!
//! ```text
//! u8        1 commit, 2 tree, 3 blob, 4 sizes
//! id        of the object; of sizes: the tree whose entries they are of
//! u64       raw size, n
//! [u8; 16]  first half of BLAKE3 of the record so far: what is believed before the rest was read
//! ⌈n / PIECE_BYTES⌉ × { u32 stored size, stored bytes }
//! [u8; 32]  BLAKE3 of the record before it
//! ```
//!
//! A piece holds `PIECE_BYTES` raw bytes, the last one the rest: as they are when its stored size is its raw size, else
//! as one zstd frame. The raw bytes are those of the Git object without its header. Those of sizes are one u64 for each
//! blob of the tree, in the order of its packed listing: the blob's raw size, or 2^64-1 where it was not known.
//!
//! The commit comes first, then all trees, the root first and then depth first by name, each once; then the blobs that
//! the header's pathspecs select, directories in the same order, each blob once (beyond two million of them one may come
//! twice); then, only if there are pathspecs, the sizes of every tree that has blobs, in the order of the trees.
//!
//! A file that was being written ends in the middle of a record: `PART_SUFFIX` is its name then.

mod export;
mod import;
pub(in crate::daemon) mod imports;
pub mod order;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::protocol::{Failure, FailureClass};
use crate::store::ObjectIdText;
use order::Item;

/// What a file begins with.
const MAGIC: [u8; 8] = *b"\x89LARDER\n";

/// The version that is written, and the only one that is read.
const VERSION: u16 = 1;

/// Longest header: a few names, and pathspecs that fit a line of the protocol.
const HEADER_BYTES: usize = 2 << 20;

/// Raw bytes of a piece.
const PIECE_BYTES: usize = 1 << 20;

/// Largest commit, tree or list of sizes, as for packs: a directory of more than a million entries fits.
const STRUCTURE_BYTES: u64 = crate::git::pack::MAX_STRUCTURE_BYTES;

/// Largest blob: it is streamed, so this bounds disk, not memory.
const BLOB_BYTES: u64 = crate::git::pack::MAX_BLOB_BYTES;

/// The kind byte of the end.
const END: u8 = 255;

/// What is added to the name of a file that is not whole yet.
const PART_SUFFIX: &str = ".part";

/// A size that is not known.
const UNKNOWN: u64 = u64::MAX;

/// More files or directories than any workspace has: a tree that names more is a bomb.
const PATHS_LIMIT: u64 = 20_000_000;

/// Exports and imports at once: each takes a thread and a few megabytes.
static PLACES: Semaphore = Semaphore::const_new(4);

/// What a file says of itself before its first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// Where the repository is fetched from, without credentials.
    repository: String,
    /// The full name of the branch or tag that was at the commit, if one was.
    reference: Option<String>,
    /// Whether that is what the remote's HEAD is on.
    #[serde(default)]
    default_branch: bool,
    /// The commit.
    commit: ObjectIdText,
    /// Its root tree.
    tree: ObjectIdText,
    /// `sha1` or `sha256`.
    object_hash: String,
    /// Git pathspecs relative to the root; none means everything.
    pathspecs: Vec<String>,
    /// When it was begun, RFC 3339.
    created: String,
    /// What wrote it.
    larder: String,
}

impl Header {
    /// Whether both are about the same: the records after them would be the same.
    fn is_about(&self, other: &Self) -> bool {
        let Self { created, larder, .. } = self;
        *self == Self { created: created.clone(), larder: larder.clone(), ..other.clone() }
    }

    fn hash(&self) -> Option<HashKind> {
        let hash = match self.object_hash.as_str() {
            "sha1" => HashKind::Sha1,
            "sha256" => HashKind::Sha256,
            _ => return None,
        };
        (self.commit.0.kind() == hash && self.tree.0.kind() == hash).then_some(hash)
    }
}

/// What records hold, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    trees: u64,
    blobs: u64,
    sizes: u64,
    raw_bytes: u64,
    /// Bytes of the pieces, which the end does not tell.
    stored_bytes: u64,
}

impl Totals {
    fn count(&mut self, what: What, raw_size: u64) {
        match what {
            What::Commit => {}
            What::Tree => self.trees += 1,
            What::Blob => self.blobs += 1,
            What::Sizes => self.sizes += 1,
        }
        self.raw_bytes = self.raw_bytes.saturating_add(raw_size);
    }

    fn encode(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let fields = [self.trees, self.blobs, self.sizes, self.raw_bytes];
        for (field, out) in fields.into_iter().zip(out.chunks_exact_mut(8)) {
            out.copy_from_slice(&field.to_le_bytes());
        }
        out
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Commit,
    Tree,
    Blob,
    Sizes,
}

impl What {
    const fn code(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Tree => 2,
            Self::Blob => 3,
            Self::Sizes => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Sizes].into_iter().find(|what| what.code() == code)
    }

    /// Most raw bytes.
    const fn limit(self) -> u64 {
        match self {
            Self::Blob => BLOB_BYTES,
            Self::Commit | Self::Tree | Self::Sizes => STRUCTURE_BYTES,
        }
    }
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    what: What,
    id: ObjectId,
    raw_size: u64,
}

impl Head {
    /// Whether it is the one that comes next.
    fn is(&self, item: &Item) -> bool {
        let (what, id) = match item {
            Item::Commit(id) => (What::Commit, id),
            Item::Tree(id) => (What::Tree, id),
            Item::Blob { id, .. } => (What::Blob, id),
            Item::Sizes(id) => (What::Sizes, id),
            Item::TreesEnd => return false,
        };
        (self.what, &self.id) == (what, id)
    }
}

/// An object's id, computed as its bytes pass.
struct Hashing(gix::hash::Hasher);

impl Hashing {
    fn new(hash: HashKind, kind: Kind, size: u64) -> Self {
        let mut hasher = gix::hash::hasher(hash);
        hasher.update(format!("{kind} {size}\0").as_bytes());
        Self(hasher)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// `None`: the bytes attack the hash.
    fn finish(self) -> Option<ObjectId> {
        self.0.try_finalize().ok()
    }

    fn of(hash: HashKind, kind: Kind, bytes: &[u8]) -> Option<ObjectId> {
        let mut hashing = Self::new(hash, kind, bytes.len() as u64);
        hashing.update(bytes);
        hashing.finish()
    }
}

/// How a failure calls what comes next.
fn called(item: &Item) -> String {
    match item {
        Item::Commit(id) => format!("commit {id}"),
        Item::Tree(id) => format!("tree {id}"),
        Item::Blob { id, path } => format!("blob {id} ({})", String::from_utf8_lossy(path)),
        Item::Sizes(id) => format!("the sizes of tree {id}"),
        Item::TreesEnd => "the end of the trees".to_owned(),
    }
}

fn place() -> Result<tokio::sync::SemaphorePermit<'static>, Failure> {
    PLACES.try_acquire().map_err(|_| {
        Failure::new(FailureClass::Refused, "4 exports and imports are under way already").hint("try again later")
    })
}

fn failed(doing: &str, path: &std::path::Path, error: &io::Error) -> Failure {
    use io::ErrorKind as E;
    let text = format!("cannot {doing} {}: {error}", path.display());
    let (class, hint) = match error.kind() {
        E::NotFound => (FailureClass::NotFound, "check the path"),
        E::PermissionDenied | E::ReadOnlyFilesystem => {
            (FailureClass::Refused, "the daemon needs the right to use it; it runs as the user who started it")
        }
        E::StorageFull | E::QuotaExceeded | E::FileTooLarge => {
            (FailureClass::Other, "make room there and run it again: it goes on where it ended")
        }
        _ => (FailureClass::Other, "check the path and the disk"),
    };
    Failure::new(class, text).hint(hint)
}
