//! What a mount fetches once: one commit with its trees.
//!
//! Owns the writing of the received pack into a gitdir (`.pack`, `.idx`,
//! `.promisor`) while its objects go to a [`Sink`]. Nothing appears under its
//! final name before the whole pack was verified. Refuses servers that would
//! send every blob, unless a bound for that is given.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use tempfile::NamedTempFile;

use super::error::{corrupt, local};
use super::pack::{self, Decoded, Options, Progress, Spool, write_index};
use super::protocol::Capabilities;
use super::protocol::fetch::{self, Preface};
use super::protocol::packet::Wire;
use super::remote::GitConnection;
use crate::hydrate::remote::{FailureKind, LargeSink, RemoteError, Sink};
use crate::store::Depth;

/// One commit, and how it is to be fetched.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The commit.
    pub commit: ObjectId,
    /// History to fetch.
    pub depth: Depth,
    /// Leave the blobs out, where the server can.
    pub filter: bool,
    /// Commits whose trees are here already.
    pub haves: Vec<ObjectId>,
    /// Commits whose parents are not here: the gitdir's `shallow` file.
    pub shallow: Vec<ObjectId>,
    /// `objects/pack` of the gitdir.
    pub pack_dir: PathBuf,
    /// How long a pack with all blobs may be; `None` refuses one.
    pub max_unfiltered_bytes: Option<u64>,
}

/// A commit that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedCommit {
    /// Its root tree.
    pub tree: ObjectId,
    /// Committer time, seconds since 1970 UTC.
    pub commit_time: i64,
    /// Commits that have become shallow.
    pub shallow: Vec<ObjectId>,
    /// Commits that are shallow no more.
    pub unshallow: Vec<ObjectId>,
    /// Trees received.
    pub trees: u64,
    /// Blobs received.
    pub blobs: u64,
    /// Length of the pack.
    pub bytes: u64,
    /// Whether blobs were left out.
    pub filtered: bool,
    /// The pack file; `None` when nothing was new.
    pub pack: Option<PathBuf>,
}

impl GitConnection {
    /// Fetches a commit. Every object of the pack goes to `sink` as it is decoded: commits, trees, and
    /// blobs where the server has no filters; `progress` is told now and then how far it is.
    pub fn fetch_commit(
        &mut self,
        request: &CommitRequest,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<FetchedCommit, RemoteError> {
        self.exchange(|wire, server| {
            let address = wire.address().to_owned();
            let unsupported = |why: &str| RemoteError::new(FailureKind::Unsupported, format!("{address} {why}"));
            if request.commit.kind() != server.hash {
                return Err(absent(&address, request.commit));
            }
            if matches!(request.depth, Depth::Commits(_)) && !server.shallow {
                return Err(unsupported("cannot send a part of history; ask for full depth"));
            }
            let filtered = request.filter && server.filter;
            let max_bytes = request.max_unfiltered_bytes.filter(|_| !filtered);
            if request.filter && !filtered && max_bytes.is_none() {
                return Err(unsupported(
                    "has no filters, so all files of the commit would be sent; this must be allowed",
                ));
            }
            let asked = fetch::Request {
                wants: &[request.commit],
                haves: &request.haves,
                shallow: &request.shallow,
                depth: Some(request.depth),
                filter: filtered.then_some("blob:none"),
            };
            let file = PackFile::create(&request.pack_dir)?;
            let (preface, mut band) = fetch::fetch(wire, server, &asked)?;
            let mut collector = Collector::new(request, &preface, sink);
            let spool = Spool::into_file(file.writer()?, request.pack_dir.clone());
            let options = Options { hash: server.hash, spool, max_bytes, index: true, progress: Some(progress) };
            let mut decoded = pack::decode(&mut band, options, &mut collector)?;
            let (trees, blobs) = (collector.trees, collector.blobs);
            let here = request.shallow.contains(&request.commit) || request.haves.contains(&request.commit);
            if collector.found.is_none() && here && server.filter {
                // A server does not send again what it was told is here, but its tree and time are wanted.
                alone(wire, server, &mut collector)?;
            }
            let (tree, commit_time) = collector.finish(request, &address)?;
            decoded.spool.flush()?;
            let pack = match decoded.objects {
                0 => None,
                _ => Some(file.publish(&request.pack_dir, &decoded, filtered)?),
            };
            let Preface { shallow, unshallow } = preface;
            Ok(FetchedCommit {
                tree,
                commit_time,
                shallow,
                unshallow,
                trees,
                blobs,
                bytes: decoded.bytes,
                filtered,
                pack,
            })
        })
    }
}

/// Fetches the commit object and nothing else.
fn alone(wire: &mut Wire, server: &Capabilities, collector: &mut Collector<'_>) -> Result<(), RemoteError> {
    let wants = [collector.commit];
    let depth = Some(Depth::Commits(1));
    let request = fetch::Request { wants: &wants, depth, filter: Some("tree:0"), ..Default::default() };
    let (_, mut band) = fetch::fetch(wire, server, &request)?;
    pack::decode(&mut band, Options::new(server.hash), collector).map(drop)
}

fn absent(address: &str, id: ObjectId) -> RemoteError {
    RemoteError::new(FailureKind::Missing, format!("{address} does not have the commit {id}")).about(id)
}

/// Counts what passes and picks out the commit.
struct Collector<'a> {
    sink: &'a mut dyn Sink,
    commit: ObjectId,
    /// The commit's bytes, or the kind of object its id turned out to name.
    found: Option<(Kind, Bytes)>,
    /// Shallow commits the server named that did not come yet.
    shallow: HashSet<ObjectId>,
    /// Trees seen, when the root tree has to be among them.
    roots: Option<HashSet<ObjectId>>,
    trees: u64,
    blobs: u64,
}

impl<'a> Collector<'a> {
    fn new(request: &CommitRequest, preface: &Preface, sink: &'a mut dyn Sink) -> Self {
        // Only a fetch from nothing has to bring everything it names.
        let whole = request.haves.is_empty() && request.shallow.is_empty();
        let one = whole && matches!(request.depth, Depth::Commits(1));
        Self {
            sink,
            commit: request.commit,
            found: None,
            shallow: if whole { preface.shallow.iter().copied().collect() } else { HashSet::new() },
            roots: one.then(HashSet::new),
            trees: 0,
            blobs: 0,
        }
    }

    fn finish(&self, request: &CommitRequest, address: &str) -> Result<(ObjectId, i64), RemoteError> {
        let id = request.commit;
        let bytes = match &self.found {
            Some((Kind::Commit, bytes)) => bytes,
            Some((kind, _)) => {
                let text = format!("{address}: {id} is a {kind}, not a commit");
                return Err(RemoteError::new(FailureKind::Missing, text).about(id));
            }
            // A server without it says so before it sends a pack.
            None => return Err(corrupt(format!("{address} sent a pack without the commit {id}")).about(id)),
        };
        let (tree, time) = parse_commit(bytes, id.kind())
            .ok_or_else(|| corrupt(format!("the commit {id} names no tree")).about(id))?;
        if self.roots.as_ref().is_some_and(|seen| !seen.contains(&tree) && !tree.is_empty_tree()) {
            return Err(corrupt(format!("{address} did not send the tree {tree} of the commit")).about(tree));
        }
        if let Some(id) = self.shallow.iter().next() {
            return Err(corrupt(format!("{address} calls {id} shallow but did not send it")).about(*id));
        }
        Ok((tree, time))
    }
}

impl Sink for Collector<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        match kind {
            Kind::Tree => {
                self.trees += 1;
                if let Some(seen) = &mut self.roots {
                    seen.insert(id);
                }
            }
            Kind::Blob => self.blobs += 1,
            Kind::Commit => drop(self.shallow.remove(&id)),
            Kind::Tag => {}
        }
        if id == self.commit {
            self.found = Some((kind, data.clone()));
        }
        self.sink.object(id, kind, data)
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        self.blobs += 1;
        self.sink.large(raw_size)
    }
}

/// Root tree and committer time of a commit object. A time that cannot be read is the epoch, as for Git.
pub fn parse_commit(raw: &[u8], hash: gix::hash::Kind) -> Option<(ObjectId, i64)> {
    let mut lines = raw.split(|&b| b == b'\n').take_while(|line| !line.is_empty());
    let tree = ObjectId::from_hex(lines.next()?.strip_prefix(b"tree ")?).ok().filter(|id| id.kind() == hash)?;
    let committer = lines.find_map(|line| line.strip_prefix(b"committer "));
    let time = committer.and_then(|line| {
        let mut words = line.rsplit(|&b| b == b' ');
        words.next()?;
        std::str::from_utf8(words.next()?).ok()?.parse().ok()
    });
    Some((tree, time.unwrap_or(0)))
}

/// Puts a few objects into the gitdir whose `objects/pack` is given: they came by themselves, and Git is to find them.
pub fn keep_objects(directory: &Path, objects: &[(ObjectId, Kind, Bytes)]) -> Result<(), RemoteError> {
    let Some((first, _, _)) = objects.first() else { return Ok(()) };
    let file = PackFile::create(directory)?;
    let failed = |error: std::io::Error| local("cannot write a pack", &error);
    let mut out = BufWriter::new(file.writer()?);
    let pack::Written { bytes, checksum, rows } = pack::write(first.kind(), objects, &mut out).map_err(failed)?;
    out.flush().map_err(failed)?;
    let decoded = Decoded { objects: rows.len() as u64, bytes, checksum, spool: Spool::new(None), rows };
    file.publish(directory, &decoded, true).map(drop)
}

/// A pack being received, under a name that Git's housekeeping knows to remove.
pub(super) struct PackFile(NamedTempFile);

impl PackFile {
    pub(super) fn create(directory: &Path) -> Result<Self, RemoteError> {
        temporary(directory, "tmp_pack_").map(Self)
    }

    pub(super) fn writer(&self) -> Result<File, RemoteError> {
        self.0.as_file().try_clone().map_err(|error| local("cannot write the received pack", &error))
    }

    /// Gives the pack its name; the index comes last, since Git finds packs by it.
    pub(super) fn publish(self, directory: &Path, decoded: &Decoded, promisor: bool) -> Result<PathBuf, RemoteError> {
        let name = |suffix: &str| directory.join(format!("pack-{}.{suffix}", decoded.checksum));
        if promisor {
            keep(temporary(directory, "tmp_promisor_")?, &name("promisor"))?;
        }
        keep(self.0, &name("pack"))?;
        let index = temporary(directory, "tmp_idx_")?;
        let mut out = BufWriter::new(index.as_file());
        let written = write_index(&decoded.rows, decoded.checksum, &mut out).and_then(|()| out.flush());
        written.map_err(|error| local("cannot write the pack's index", &error))?;
        drop(out);
        keep(index, &name("idx"))?;
        Ok(name("pack"))
    }
}

fn temporary(directory: &Path, prefix: &str) -> Result<NamedTempFile, RemoteError> {
    let made = tempfile::Builder::new().prefix(prefix).tempfile_in(directory);
    made.map_err(|error| local(&format!("cannot write into {}", directory.display()), &error))
}

/// Renames to the final name, read-only as Git's own packs.
fn keep(file: NamedTempFile, path: &Path) -> Result<(), RemoteError> {
    let failed = |error: &std::io::Error| local(&format!("cannot write {}", path.display()), error);
    file.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(|error| failed(&error))?;
    file.persist(path).map(drop).map_err(|error| failed(&error.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_give_tree_and_time() {
        let hash = gix::hash::Kind::Sha1;
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let parse = |text: String| parse_commit(text.as_bytes(), hash).map(|(id, time)| (id.to_string(), time));
        let people = "author A <a> 1 +0000\ncommitter B C <b> 1700000000 +0100";
        assert_eq!(parse(format!("tree {tree}\n{people}\n\nx")), Some((tree.to_owned(), 1_700_000_000)));
        assert_eq!(parse(format!("tree {tree}\n\ncommitter B <b> 7 +0")), Some((tree.to_owned(), 0)));
        assert_eq!(parse(format!("tree {tree}\ncommitter broken\n\n")), Some((tree.to_owned(), 0)));
        assert_eq!(parse("parent x".to_owned()), None);
        assert_eq!(parse(format!("tree {tree}00\n{people}\n\n")), None);
    }
}
