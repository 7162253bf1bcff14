//! Reading commits and trees from a gitdir's own object database: loose objects, packs, alternates.
//!
//! Every object is checked against its id before it is handed on. Trees are
//! read level by level, each once, so depth costs no stack and a directory
//! that occurs a thousand times costs one read.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use gix::ObjectId;
use gix::hash::Kind;
use gix::objs::{CommitRef, Find, Kind as ObjectKind, TagRef};
use gix::odb::Header;
use gix::odb::pack::cache::DecodeEntry;
use gix::odb::store::init::Options;

use super::GitdirError;
use crate::store::{EntryKind, Listing, listing_from_git};

/// Decoded pack entries kept for the deltas built on them, in bytes.
const DELTA_CACHE_BYTES: usize = 16 << 20;

/// Largest object that is read.
const OBJECT_BYTES: usize = 256 << 20;

/// Tags of tags that are followed.
const TAGS_DEEP: usize = 16;

/// What of a commit a generation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The root tree.
    pub tree: ObjectId,
    /// Committer time, seconds since 1970 UTC.
    pub time: i64,
}

/// What [`Objects::read_trees`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreesRead {
    /// The commit.
    pub info: CommitInfo,
    /// Trees handed on.
    pub trees: u64,
    /// Trees that are not in the gitdir, each once; nothing beneath them was looked at.
    pub missing: Vec<ObjectId>,
}

/// A gitdir's object database, opened.
pub struct Objects {
    odb: gix::odb::Handle,
    kind: Kind,
}

impl Objects {
    /// Opens `common`, the common gitdir.
    pub fn open(common: &Path, kind: Kind) -> Result<Self, GitdirError> {
        let path = common.join("objects");
        let bounded = Options { alloc_limit_bytes: Some(OBJECT_BYTES), ..Options::default() };
        let mut odb = gix::odb::at_opts(&path, kind, None, bounded).map_err(GitdirError::io(&path))?;
        odb.set_pack_cache(|| Box::new(DeltaBases::default()));
        // Much is missing by intent in a partial gitdir: don't look for new packs at each miss.
        odb.refresh_never();
        Ok(Self { odb, kind })
    }

    /// A commit, tree or tag that is here, and its kind; `None` for blobs too.
    pub fn structure(&self, id: &ObjectId) -> Result<Option<(ObjectKind, Vec<u8>)>, GitdirError> {
        let header = self.odb.try_header(id).map_err(|error| broken(*id, &error))?;
        let Some(kind) = header.map(|header| header.kind()).filter(|kind| *kind != ObjectKind::Blob) else {
            return Ok(None);
        };
        let mut buffer = Vec::new();
        Ok(self.read(id, kind, &mut buffer)?.map(|data| (kind, data.to_vec())))
    }

    /// Raw size of the blob, if it is here.
    pub fn blob_size(&self, id: &ObjectId) -> Result<Option<u64>, GitdirError> {
        let header = self.odb.try_header(id).map_err(|error| broken(*id, &error))?;
        Ok(header.filter(|header| header.kind() == ObjectKind::Blob).map(|header| header.size()))
    }

    /// The blob's bytes, if it is here.
    pub fn blob(&self, id: &ObjectId) -> Result<Option<Vec<u8>>, GitdirError> {
        let mut buffer = Vec::new();
        Ok(self.read(id, ObjectKind::Blob, &mut buffer)?.map(<[u8]>::to_vec))
    }

    /// Whether the object is here, whatever it is.
    pub fn contains(&self, id: &ObjectId) -> Result<bool, GitdirError> {
        Ok(self.odb.try_header(id).map_err(|error| broken(*id, &error))?.is_some())
    }

    /// Whether the commit is here.
    pub fn has_commit(&self, id: &ObjectId) -> Result<bool, GitdirError> {
        let header = self.odb.try_header(id).map_err(|error| broken(*id, &error))?;
        Ok(header.is_some_and(|header| header.kind() == ObjectKind::Commit))
    }

    /// The commit that `id` is, or that it leads to as a tag; `None`: it leads to none, or not all on the way is here.
    pub fn peeled(&self, id: &ObjectId) -> Result<Option<ObjectId>, GitdirError> {
        let mut id = *id;
        for _ in 0..TAGS_DEEP {
            match self.structure(&id)? {
                Some((ObjectKind::Commit, _)) => return Ok(Some(id)),
                Some((ObjectKind::Tag, data)) => {
                    id = TagRef::from_bytes(&data, self.kind).map_err(|error| broken(id, &error))?.target();
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The commit's parents.
    pub fn parents(&self, id: &ObjectId) -> Result<Vec<ObjectId>, GitdirError> {
        let mut buffer = Vec::new();
        let data = self.read(id, ObjectKind::Commit, &mut buffer)?.ok_or(GitdirError::Missing(*id))?;
        Ok(CommitRef::from_bytes(data, self.kind).map_err(|error| broken(*id, &error))?.parents().collect())
    }

    /// The commit's parents and committer time; `None` when it is not here.
    pub fn lineage(&self, id: &ObjectId) -> Result<Option<(Vec<ObjectId>, i64)>, GitdirError> {
        let mut buffer = Vec::new();
        let Some(data) = self.read(id, ObjectKind::Commit, &mut buffer)? else { return Ok(None) };
        let commit = CommitRef::from_bytes(data, self.kind).map_err(|error| broken(*id, &error))?;
        // Commits without a sound time exist; it only decides the order.
        let time = commit.committer().map_or(0, |committer| committer.seconds());
        Ok(Some((commit.parents().collect(), time)))
    }

    /// The commit's tree and time.
    pub fn commit_info(&self, id: &ObjectId) -> Result<CommitInfo, GitdirError> {
        let mut buffer = Vec::new();
        let data = self.read(id, ObjectKind::Commit, &mut buffer)?.ok_or(GitdirError::Missing(*id))?;
        let commit = CommitRef::from_bytes(data, self.kind).map_err(|error| broken(*id, &error))?;
        let time = commit.committer().map_err(|error| broken(*id, &error))?.seconds();
        Ok(CommitInfo { tree: commit.tree(), time })
    }

    /// Whether the `depth` youngest generations of ancestors of `id`, itself included, are here and none of the
    /// `shallow` commits hides some of them from Git.
    pub fn has_history(&self, id: &ObjectId, depth: u32, shallow: &[ObjectId]) -> Result<bool, GitdirError> {
        let mut seen = HashSet::from([*id]);
        let mut level = vec![*id];
        let mut buffer = Vec::new();
        for left in (0..depth).rev() {
            let mut next = Vec::new();
            for id in level {
                let Some(data) = self.read(&id, ObjectKind::Commit, &mut buffer)? else { return Ok(false) };
                let commit = CommitRef::from_bytes(data, self.kind).map_err(|error| broken(id, &error))?;
                let parents: Vec<ObjectId> = commit.parents().collect();
                if left > 0 && !parents.is_empty() && shallow.contains(&id) {
                    return Ok(false);
                }
                next.extend(parents.into_iter().filter(|parent| seen.insert(*parent)));
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        Ok(true)
    }

    /// One tree; `None` when it is not here.
    pub fn read_tree(&self, id: &ObjectId) -> Result<Option<Listing>, GitdirError> {
        let mut buffer = Vec::new();
        let Some(data) = self.read(id, ObjectKind::Tree, &mut buffer)? else { return Ok(None) };
        listing_from_git(id, data).map(Some).map_err(|error| broken(*id, &error))
    }

    /// Hands on every tree of the commit, parents before children.
    pub fn read_trees<E>(
        &self,
        commit: &ObjectId,
        mut on_tree: impl FnMut(ObjectId, Listing) -> Result<(), E>,
    ) -> Result<TreesRead, GitdirError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let info = self.commit_info(commit)?;
        let mut found = TreesRead { info, trees: 0, missing: Vec::new() };
        let mut seen = HashSet::from([info.tree]);
        let mut level = vec![info.tree];
        let mut buffer = Vec::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            for id in level {
                let Some(data) = self.read(&id, ObjectKind::Tree, &mut buffer)? else {
                    found.missing.push(id);
                    continue;
                };
                let listing = listing_from_git(&id, data).map_err(|error| broken(id, &error))?;
                let children = listing.iter().filter(|entry| entry.kind == EntryKind::Directory);
                next.extend(children.map(|entry| entry.id).filter(|id| seen.insert(*id)));
                on_tree(id, listing).map_err(|error| GitdirError::Sink(error.into()))?;
                found.trees += 1;
            }
            level = next;
        }
        Ok(found)
    }

    /// Reads an object that must be of `kind` and hash to `id`; `None` when it is not here.
    fn read<'b>(
        &self,
        id: &ObjectId,
        kind: ObjectKind,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<&'b [u8]>, GitdirError> {
        let failed = |error: &dyn std::fmt::Display| broken(*id, error);
        // Git answers for the empty tree without storing it.
        if kind == ObjectKind::Tree && id.is_empty_tree() {
            return Ok(Some(&[]));
        }
        let Some(data) = self.odb.try_find(id, buffer).map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        if data.kind != kind {
            return Err(failed(&format!("is a {}, not a {kind}", data.kind)));
        }
        let actual = gix::objs::compute_hash(self.kind, kind, data.data).map_err(|error| failed(&error))?;
        if actual != *id {
            return Err(failed(&format!("its content hashes to {actual}")));
        }
        Ok(Some(data.data))
    }
}

/// Decoded delta bases of one handle; emptied whenever it is full, which is cheap and good enough for one walk.
#[derive(Default)]
struct DeltaBases {
    bytes: usize,
    bases: HashMap<(u32, u64), (Vec<u8>, ObjectKind, usize)>,
}

impl DecodeEntry for DeltaBases {
    fn put(&mut self, pack: u32, offset: u64, data: &[u8], kind: ObjectKind, compressed_size: usize) {
        if self.bytes + data.len() > DELTA_CACHE_BYTES {
            self.bases.clear();
            self.bytes = 0;
        }
        if data.len() <= DELTA_CACHE_BYTES
            && self.bases.insert((pack, offset), (data.to_vec(), kind, compressed_size)).is_none()
        {
            self.bytes += data.len();
        }
    }

    fn get(&mut self, pack: u32, offset: u64, out: &mut Vec<u8>) -> Option<(ObjectKind, usize)> {
        let (data, kind, compressed_size) = self.bases.get(&(pack, offset))?;
        out.clear();
        out.extend_from_slice(data);
        Some((*kind, *compressed_size))
    }
}

fn broken(id: ObjectId, error: &dyn std::fmt::Display) -> GitdirError {
    GitdirError::Object { id, reason: error.to_string() }
}

/// Whether `common` has the commit.
pub fn has_commit(common: &Path, id: &ObjectId) -> Result<bool, GitdirError> {
    Objects::open(common, id.kind())?.has_commit(id)
}

/// A commit's tree and time.
pub fn commit_info(common: &Path, id: &ObjectId) -> Result<CommitInfo, GitdirError> {
    Objects::open(common, id.kind())?.commit_info(id)
}

/// Hands on every tree of `commit` that `common` has, parents before children, and tells which are missing.
pub fn read_commit_and_trees<E>(
    common: &Path,
    commit: &ObjectId,
    on_tree: impl FnMut(ObjectId, Listing) -> Result<(), E>,
) -> Result<TreesRead, GitdirError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Objects::open(common, commit.kind())?.read_trees(commit, on_tree)
}
