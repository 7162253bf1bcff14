//! Packs that only repeat the store.
//!
//! What Git fetches through the object door it keeps as promisor packs. Each
//! can go once the store has all that is in it, since Git asks again and finds
//! packs anew by itself. But an object's absence is in order only while an
//! object of a promisor pack names it: `git push`, `git gc` and `git fsck`
//! take anything else for damage, for example a file that a commit of the
//! user's brought back from an old version. So the names stay: a pack of one
//! tree that names all that was removed takes their place.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;

use super::GitdirError;
use crate::git::door::entry_header;
use crate::git::pack::{Checksum, IndexRow, write_index};

/// What the `.promisor` file of a pack of names says. Git reads it nowhere.
const NAMES: &[u8] = b"larder names\n";

/// Most objects of a pack that is looked at; what is larger is no lazy fetch of one command.
const PACK_OBJECTS: u64 = 1 << 20;

/// Packs of names that may exist; one more, and the smallest are joined.
const NAME_PACKS: usize = 8;

/// Objects in a tree of names: it is parsed as a whole by `git gc`.
const NAMES_IN_TREE: usize = 1 << 16;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Packs.
    pub packs: usize,
    /// Objects in them.
    pub objects: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Packs that were left because they are too young.
    pub young: usize,
}

/// An object, and whether it is a tree: Git takes the kind that a tree says for true.
type Name = (ObjectId, bool);

struct Pack {
    /// The path without its suffix.
    stem: PathBuf,
    names: bool,
}

/// Removes promisor packs older than `age` all of whose objects the store has: `kinds` then tells which of them are
/// trees, the others being blobs. Without `remove` it only tells what it would.
pub fn prune_packs<E>(
    common: &Path,
    hash: HashKind,
    age: Duration,
    remove: bool,
    mut kinds: impl FnMut(&[ObjectId]) -> Result<Option<Vec<bool>>, E>,
) -> Result<Pruned, GitdirError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut pruned = Pruned::default();
    let directory = common.join("objects/pack");
    let mut removed: Vec<PathBuf> = Vec::new();
    let mut names: BTreeSet<Name> = BTreeSet::new();
    let mut old_names: Vec<(usize, PathBuf, Vec<Name>)> = Vec::new();
    for pack in packs(&directory, age, &mut pruned)? {
        let Some(ids) = ids(&pack.stem, hash)? else { continue };
        if pack.names {
            let told = tree_names(&pack.stem, hash)?;
            old_names.push((told.len(), pack.stem, told));
            continue;
        }
        let Some(trees) = kinds(&ids).map_err(|error| GitdirError::Sink(error.into()))? else { continue };
        if ids.is_empty() {
            continue;
        }
        pruned.packs += 1;
        pruned.objects += ids.len();
        pruned.bytes += files(&pack.stem).filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum::<u64>();
        names.extend(ids.into_iter().zip(trees));
        removed.push(pack.stem);
    }
    if removed.is_empty() || !remove {
        return Ok(pruned);
    }
    if old_names.len() >= NAME_PACKS {
        old_names.sort_by_key(|(count, ..)| *count);
        // All but the largest: so each name is written a logarithm of times.
        for (_, stem, told) in old_names.drain(..NAME_PACKS - 1) {
            names.extend(told);
            removed.push(stem);
        }
    }
    let kept = write_names(&directory, hash, &names.into_iter().collect::<Vec<_>>())?;
    for stem in removed.iter().filter(|stem| **stem != kept) {
        remove_pack(stem)?;
    }
    Ok(pruned)
}

/// Promisor packs that may be looked at: whole, old enough, and kept by nobody.
fn packs(directory: &Path, age: Duration, pruned: &mut Pruned) -> Result<Vec<Pack>, GitdirError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(GitdirError::io(directory))? {
        let path = entry.map_err(GitdirError::io(directory))?.path();
        if path.extension().is_none_or(|suffix| suffix != "promisor") {
            continue;
        }
        let stem = path.with_extension("");
        let beside = |suffix: &str| stem.with_extension(suffix);
        let Ok(index) = fs::metadata(beside("idx")) else { continue };
        if beside("keep").exists() || !beside("pack").exists() {
            continue;
        }
        let now = SystemTime::now();
        if index.modified().ok().and_then(|at| now.duration_since(at).ok()).is_none_or(|since| since < age) {
            pruned.young += 1;
            continue;
        }
        let mut head = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(NAMES.len() as u64 + 1).read_to_end(&mut head));
        read.map_err(GitdirError::io(&path))?;
        found.push(Pack { names: head == NAMES, stem });
    }
    Ok(found)
}

/// The ids in a pack's index; `None` for one that is too large or not of version 2.
fn ids(stem: &Path, hash: HashKind) -> Result<Option<Vec<ObjectId>>, GitdirError> {
    let path = stem.with_extension("idx");
    let failed = |error: io::Error| GitdirError::io(&path)(error);
    let mut file = File::open(&path).map_err(failed)?;
    let mut head = [0; 8];
    file.read_exact(&mut head).map_err(failed)?;
    if head != [0xff, b't', b'O', b'c', 0, 0, 0, 2] {
        return Ok(None);
    }
    let mut count = [0; 4];
    file.seek(SeekFrom::Start(8 + 255 * 4)).and_then(|_| file.read_exact(&mut count)).map_err(failed)?;
    let count = u64::from(u32::from_be_bytes(count));
    if count > PACK_OBJECTS {
        return Ok(None);
    }
    let length = hash.len_in_bytes();
    let mut table = Vec::new();
    file.take(count * length as u64).read_to_end(&mut table).map_err(failed)?;
    if table.len() as u64 != count * length as u64 {
        return Err(GitdirError::not_a_gitdir(&path, "cut short"));
    }
    Ok(Some(table.chunks_exact(length).map(ObjectId::from_bytes_or_panic).collect()))
}

/// What the trees of a pack of names name.
fn tree_names(stem: &Path, hash: HashKind) -> Result<Vec<Name>, GitdirError> {
    let path = stem.with_extension("pack");
    let content = fs::read(&path).map_err(GitdirError::io(&path))?;
    let mut told = Told { ids: Vec::new(), length: hash.len_in_bytes() };
    let options = crate::git::pack::Options::new(hash);
    crate::git::pack::decode(&mut &content[..], options, &mut told)
        .map_err(|error| GitdirError::not_a_gitdir(&path, error.message))?;
    Ok(told.ids)
}

struct Told {
    ids: Vec<Name>,
    length: usize,
}

impl crate::hydrate::remote::Sink for Told {
    fn object(&mut self, _: ObjectId, _: Kind, data: bytes::Bytes) -> Result<(), crate::hydrate::RemoteError> {
        let mut rest = &data[..];
        while let Some(nul) = rest.iter().position(|&byte| byte == 0) {
            let Some(id) = rest.get(nul + 1..nul + 1 + self.length) else { break };
            self.ids.push((ObjectId::from_bytes_or_panic(id), rest.starts_with(b"40000 ")));
            rest = &rest[nul + 1 + self.length..];
        }
        Ok(())
    }

    fn large(
        &mut self,
        _: u64,
    ) -> Result<Box<dyn crate::hydrate::remote::LargeSink + '_>, crate::hydrate::RemoteError> {
        Err(crate::git::error::corrupt("a pack of names holds a file"))
    }
}

/// Writes a pack of trees that name objects, and returns its path without suffix.
fn write_names(directory: &Path, hash: HashKind, names: &[Name]) -> Result<PathBuf, GitdirError> {
    let failed = |error: io::Error| GitdirError::io(directory)(error);
    let trees: Vec<Vec<u8>> = names.chunks(NAMES_IN_TREE).map(tree).collect();
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&u32::try_from(trees.len()).map_err(|error| failed(io::Error::other(error)))?.to_be_bytes());
    let mut rows = Vec::new();
    for tree in &trees {
        let id = gix::objs::compute_hash(hash, Kind::Tree, tree).map_err(|error| failed(io::Error::other(error)))?;
        let offset = pack.len();
        pack.extend_from_slice(&entry_header(Kind::Tree, tree.len() as u64));
        let mut zlib = ZlibEncoder::new(&mut pack, Compression::fast());
        zlib.write_all(tree).and_then(|()| zlib.finish().map(drop)).map_err(failed)?;
        rows.push(IndexRow { id, crc: crc32fast::hash(&pack[offset..]), offset: offset as u64 });
    }
    rows.sort_unstable();
    let mut checksum = Checksum::new(hash);
    checksum.update(&pack);
    let checksum = checksum.finish();
    pack.extend_from_slice(checksum.as_bytes());
    let mut index = Vec::new();
    write_index(&rows, checksum, &mut index).map_err(failed)?;
    let stem = directory.join(format!("pack-{checksum}"));
    // The index comes last, since Git finds packs by it; and all are on the disk before what they name goes.
    for (suffix, content) in [("promisor", NAMES), ("pack", &pack), ("idx", &index)] {
        let file = tempfile::Builder::new().prefix("tmp_names_").tempfile_in(directory).map_err(failed)?;
        file.as_file().write_all(content).map_err(failed)?;
        file.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(stem.with_extension(suffix)).map_err(|error| failed(error.error))?;
    }
    File::open(directory).and_then(|file| file.sync_all()).map_err(failed)?;
    Ok(stem)
}

/// A tree whose entries are called by their number.
fn tree(names: &[Name]) -> Vec<u8> {
    let mut tree = Vec::new();
    for (number, (id, is_tree)) in names.iter().enumerate() {
        let mode = if *is_tree { "40000" } else { "100644" };
        tree.extend_from_slice(format!("{mode} {number:05x}\0").as_bytes());
        tree.extend_from_slice(id.as_bytes());
    }
    tree
}

/// The files of a pack; the index first, so that Git never finds one whose pack is gone.
fn files(stem: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    ["idx", "rev", "bitmap", "mtimes", "pack", "promisor"].into_iter().map(|suffix| stem.with_extension(suffix))
}

/// Removes a pack.
fn remove_pack(stem: &Path) -> Result<(), GitdirError> {
    for path in files(stem) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(GitdirError::io(&path)(error)),
            _ => {}
        }
    }
    Ok(())
}
