//! Git's index file for a mount, written so that the first `git status` looks at nothing.
//!
//! Owns the writing of one index, version 4, from a root tree: every blob,
//! symbolic link and gitlink with the stat data the mount reports, and three
//! extensions (Documentation/gitformat-index):
//!
//! * `TREE`, complete: Git compares HEAD and index by one object id.
//! * `UNTR`, valid for every directory: Git opens no directory to look for untracked files.
//! * `FSMN`, everything valid: Git asks the hook instead of looking at files.
//!
//! Refuses trees deeper than [`MAX_DEPTH`] and more paths than asked for
//! ([`IndexSpec::max_paths`]): a small hostile tree can name itself into billions
//! of paths. Names no working tree can hold are left out and counted; Git then
//! shows them as deleted, which is what they are in the mount.
//!
//! Invariants: the file appears by rename while holding Git's `index.lock`;
//! entries are streamed, so memory grows with directories, not with files; no
//! recursion.

mod entries;
mod ewah;
mod exclude;
mod extensions;
mod prepared;
mod read;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::hash::Kind;
use sha1::Digest;

use crate::store::{EntryKind, Listing};

pub use exclude::{ExcludeFile, converted_exclude_id};
pub use prepared::PreparedIndex;
pub use read::{Difference, IndexEntry, OldIndex};
pub use walk::MAX_DEPTH;

/// Any error of whoever provides the trees.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The default of [`IndexSpec::max_paths`]: Git itself needs some 4 GiB of memory for an index that large.
pub const DEFAULT_MAX_PATHS: u64 = 20_000_000;

/// Bytes read at a time for the trailing checksum.
const CHECKSUM_BUFFER_BYTES: usize = 256 << 10;

/// What `lstat` in the mount returns, in the width the index has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Seconds and nanoseconds of the last change of metadata.
    pub ctime: (u32, u32),
    /// Seconds and nanoseconds of the last change of content.
    pub mtime: (u32, u32),
    /// Device, low 32 bits.
    pub dev: u32,
    /// Inode number, low 32 bits.
    pub ino: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size as [`Stat::size_field`] gives it.
    pub size: u32,
}

impl Stat {
    /// A size as the index has it: low 32 bits, never zero for what isn't empty (zero means "unknown, look").
    pub const fn size_field(size: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the format keeps the low 32 bits")]
        let low = size as u32;
        if low == 0 && size != 0 { 0x8000_0000 } else { low }
    }

    /// From what the system reports for a path.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the format keeps the low 32 bits")]
    pub fn from_metadata(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            ctime: (metadata.ctime() as u32, metadata.ctime_nsec() as u32),
            mtime: (metadata.mtime() as u32, metadata.mtime_nsec() as u32),
            dev: metadata.dev() as u32,
            ino: metadata.ino() as u32,
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: Self::size_field(metadata.size()),
        }
    }
}

/// The path a [`Stat`] is wanted for. A directory is asked for before what it holds; the root, with an empty
/// path, first of all. Gitlinks are not asked for.
#[derive(Clone, Copy, Debug)]
pub struct StatRequest<'a> {
    /// Relative to the working tree.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind,
    /// Its object.
    pub id: &'a ObjectId,
    /// Which directory holds it: the number of directories asked for before that one.
    pub parent: u32,
    /// Its position in that directory's listing.
    pub position: usize,
}

/// What the untracked cache is to claim.
pub struct UntrackedSpec<'a> {
    /// The working tree: absolute, symbolic links resolved; a cache for another path is not used.
    pub worktree: &'a Path,
    /// The gitdir's `info/exclude`.
    pub info_exclude: ExcludeFile,
    /// The user's `core.excludesFile`.
    pub excludes_file: ExcludeFile,
    /// Whether `status.showUntrackedFiles` is `all`.
    pub show_all: bool,
    /// The id Git will compute for a tracked `.gitignore`, by path and blob.
    ///
    /// Usually the blob's own id. Where attributes or `core.autocrlf` may convert the file, Git hashes what it
    /// reads: [`converted_exclude_id`]. A wrong id costs one scan of that directory and all beneath it.
    ///
    /// `None` lets Git skip reading that file until something in its directory or beneath changes, and then
    /// costs the same scan. Only right while fsmonitor reports every change: without it Git would go on
    /// not reading the file.
    pub exclude_id: &'a dyn Fn(&[u8], &ObjectId) -> Option<ObjectId>,
}

/// What the index is to hold.
pub struct IndexSpec<'a> {
    /// Format of object ids and checksum.
    pub object_format: Kind,
    /// The root tree.
    pub root: ObjectId,
    /// Where trees come from.
    pub trees: &'a dyn Fn(&ObjectId) -> Result<Listing, BoxError>,
    /// What the mount will report; all zeros where it isn't known.
    pub stat: &'a dyn Fn(&StatRequest<'_>) -> Stat,
    /// The fsmonitor token the index is up to date with; `None` writes no fsmonitor state.
    pub fsmonitor_token: Option<&'a str>,
    /// `None` writes no untracked cache.
    pub untracked: Option<UntrackedSpec<'a>>,
    /// Most paths, directories included, before the tree is refused.
    pub max_paths: u64,
}

/// An entry that is staged: not what the tree has at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedEntry {
    /// What it is; never a directory.
    pub kind: EntryKind,
    /// Its object.
    pub id: ObjectId,
    /// Its stat data.
    pub stat: Stat,
    /// Whether it only announces a file (`git add --intent-to-add`).
    pub intent_to_add: bool,
}

/// Where an index is not what its tree says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// Entries other than the tree's; `None` leaves the path out. Git looks at each of these files itself.
    pub entries: BTreeMap<Vec<u8>, Option<StagedEntry>>,
    /// Further paths that Git is to look at itself, whatever fsmonitor says.
    pub unknown: BTreeSet<Vec<u8>>,
    /// Paths marked by `git update-index --assume-unchanged`.
    pub assume_valid: BTreeSet<Vec<u8>>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexWritten {
    /// Entries: files, symbolic links, gitlinks.
    pub entries: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Names no working tree can hold, left out.
    pub omitted: u64,
    /// Size of the file.
    pub bytes: u64,
    /// `.gitignore` and `.gitattributes` files, in index order: what Git reads first.
    pub read_first: Vec<(Vec<u8>, ObjectId)>,
}

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexFileError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Git is writing the index, or died while writing it.
    #[error("{}: locked by another process (remove it if that process is gone)", .0.display())]
    Locked(PathBuf),
    /// A tree can't be had.
    #[error("tree {id} ({}): {source}", String::from_utf8_lossy(path))]
    Tree {
        /// The tree.
        id: ObjectId,
        /// Where it was met first.
        path: Vec<u8>,
        /// Why.
        source: BoxError,
    },
    /// The tree is too deep, too wide or too large.
    #[error("tree {root}: {reason}")]
    TooLarge {
        /// The root tree.
        root: ObjectId,
        /// The bound that was passed.
        reason: String,
    },
    /// The index that is there can't be read.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index that is there uses a feature that isn't kept when it is rewritten.
    #[error("the index is {0}")]
    Unsupported(&'static str),
    /// A tree of the other object format, or a token or path that can't be written.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Writes `admin/index`. Whatever was staged in an index that is there is lost: callers write it once, at the first
/// mount, and when nothing was staged.
pub fn write(admin: &Path, spec: &IndexSpec<'_>) -> Result<IndexWritten, IndexFileError> {
    let io = |source| IndexFileError::Io { path: admin.join("index"), source };
    let new = tempfile::Builder::new().prefix("larder-index-").tempfile_in(admin).map_err(io)?;
    let written = write_to(new.as_file(), spec, &Staged::default())?;
    publish(admin, new)?;
    Ok(written)
}

/// Writes an index into `file`, which is empty and open for reading too: the tree of `spec` with what is `staged`.
pub fn write_to(file: &File, spec: &IndexSpec<'_>, staged: &Staged) -> Result<IndexWritten, IndexFileError> {
    if spec.root.kind() != spec.object_format {
        return Err(IndexFileError::Invalid("the root tree is of another object format"));
    }
    if spec.fsmonitor_token.is_some_and(|token| token.is_empty() || token.contains('\0')) {
        return Err(IndexFileError::Invalid("an fsmonitor token is text without NUL"));
    }
    let io = |source| IndexFileError::Io { path: "index".into(), source };
    let mut writer = entries::EntryWriter::new(file);
    let directories = walk::walk(spec, staged, &mut writer)?;
    let mut written = writer.finish_entries().map_err(io)?;
    let extensions = extensions::all(spec, &directories, &written)?;
    written.bytes += extensions.len() as u64;
    written.directories = directories.len() as u64;
    written.omitted = directories.omitted;
    let seal = || {
        let mut file = file;
        file.write_all(&extensions)?;
        // The number of entries is known only now; the checksum covers it.
        let count = u32::try_from(written.entries).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(entries::COUNT_OFFSET))?;
        file.write_all(&count.to_be_bytes())?;
        let checksum = checksum(file, spec.object_format)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&checksum)?;
        Ok(checksum.len() as u64)
    };
    written.bytes += seal().map_err(io)?;
    Ok(IndexWritten { read_first: directories.read_first, ..written.into() })
}

/// Puts the finished file in place under Git's own lock, held for two system calls.
fn publish(admin: &Path, new: tempfile::NamedTempFile) -> Result<(), IndexFileError> {
    use std::os::unix::fs::PermissionsExt;
    let index = admin.join("index");
    let lock = admin.join("index.lock");
    match OpenOptions::new().write(true).create_new(true).open(&lock) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(IndexFileError::Locked(lock)),
        Err(source) => return Err(IndexFileError::Io { path: lock, source }),
    }
    let placed = new
        .as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .and_then(|()| new.persist(&index).map_err(|error| error.error));
    let released = fs::remove_file(&lock);
    placed.map_err(|source| IndexFileError::Io { path: index, source })?;
    released.map_err(|source| IndexFileError::Io { path: lock, source })
}

/// The checksum over the whole file, read back from the page cache: 2 ms for 78,000 entries, and entries needn't
/// be kept in memory until their number is known.
fn checksum(mut file: &File, kind: Kind) -> io::Result<Vec<u8>> {
    fn over<D: Digest>(file: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut digest = D::new();
        let mut buffer = vec![0; CHECKSUM_BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finalize().to_vec()),
                length => digest.update(&buffer[..length]),
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    match kind {
        Kind::Sha1 => over::<sha1::Sha1>(&mut file),
        Kind::Sha256 => over::<sha2::Sha256>(&mut file),
        _ => Err(io::Error::other("unknown object format")),
    }
}
