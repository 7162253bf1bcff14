//! Commits and tags without trees: what `larder switch` and `larder refresh` fetch first.
//!
//! Owns the listing of a server's refs and fetches with the filters `tree:N`.
//! What arrives becomes a promisor pack in the gitdir; nothing goes to the store.

use std::path::PathBuf;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::error::corrupt;
use super::fetch_commit::PackFile;
use super::pack::{self, Options, Progress, Spool};
use super::protocol::fetch;
use super::protocol::refs;
use super::remote::GitConnection;
use super::wanted::Wanted;
use crate::hydrate::remote::{Extent, FailureKind, LargeSink, RemoteError, Sink};
use crate::store::Depth;

pub use super::protocol::refs::RemoteRef;

/// Which commits, and what of their history.
#[derive(Clone, Debug)]
pub struct TipsRequest {
    /// Commits and annotated tags.
    pub wants: Vec<ObjectId>,
    /// Commits that are here with all their history, as far as it is not shallow.
    pub haves: Vec<ObjectId>,
    /// Commits whose parents are not here: the gitdir's `shallow` file.
    pub shallow: Vec<ObjectId>,
    /// How much history; `None` is all that leads to what is here.
    pub depth: Option<Depth>,
    /// `objects/pack` of the gitdir.
    pub pack_dir: PathBuf,
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedTips {
    /// Commits that have become shallow.
    pub shallow: Vec<ObjectId>,
    /// Commits that are shallow no more.
    pub unshallow: Vec<ObjectId>,
    /// Objects in the pack.
    pub objects: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl GitConnection {
    /// The server's refs whose names begin with one of `prefixes`.
    pub fn list_refs(&mut self, prefixes: &[&str]) -> Result<Vec<RemoteRef>, RemoteError> {
        self.exchange(|wire, server| refs::list_all(wire, server, prefixes))
    }

    /// Fetches trees without what is beneath them. Unlike `blob:none`, the filter keeps the server from walking there;
    /// `tree:2` would bring the next level along, and its files.
    /// A tree the server does not have is an error of kind [`FailureKind::Missing`].
    pub fn fetch_trees(&mut self, wants: &[ObjectId], sink: &mut dyn Sink) -> Result<(), RemoteError> {
        let scratch = self.scratch.clone();
        self.exchange(|wire, server| {
            let filter = server.filter.then_some("tree:0");
            let mut wanted = Wanted::new(wants, Extent::Exact, sink);
            let request = fetch::Request { wants, filter, ..Default::default() };
            let (_, mut band) = fetch::fetch(wire, server, &request)?;
            let options = Options { spool: Spool::new(scratch), ..Options::new(server.hash) };
            pack::decode(&mut band, options, &mut wanted)?;
            wanted.first_missing(wants).map_or(Ok(()), |id| {
                let text = format!("{} does not have the tree {id}", wire.address());
                Err(RemoteError::new(FailureKind::Missing, text).about(id))
            })
        })
    }

    /// Fetches commits and tags into the gitdir, without blobs and without trees but the root of a single commit.
    pub fn fetch_tips(
        &mut self,
        request: &TipsRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<FetchedTips, RemoteError> {
        if request.wants.is_empty() {
            return Ok(FetchedTips::default());
        }
        self.exchange(|wire, server| {
            if !server.filter {
                let text = format!("{} has no filters, so commits can't be had without files", wire.address());
                return Err(RemoteError::new(FailureKind::Unsupported, text));
            }
            let asked = fetch::Request {
                wants: &request.wants,
                haves: &request.haves,
                shallow: &request.shallow,
                depth: request.depth,
                // Of one commit the root tree is wanted next; of many, those of the others never.
                filter: Some(if request.depth == Some(Depth::Commits(1)) { "tree:1" } else { "tree:0" }),
            };
            let file = PackFile::create(&request.pack_dir)?;
            let (preface, mut band) = fetch::fetch(wire, server, &asked)?;
            let spool = Spool::into_file(file.writer()?, request.pack_dir.clone());
            let options = Options { hash: server.hash, spool, max_bytes: None, index: true, progress: Some(progress) };
            let mut decoded = pack::decode(&mut band, options, &mut CommitsOnly)?;
            decoded.spool.flush()?;
            if decoded.objects > 0 {
                file.publish(&request.pack_dir, &decoded, true)?;
            }
            let fetch::Preface { shallow, unshallow } = preface;
            Ok(FetchedTips { shallow, unshallow, objects: decoded.objects, bytes: decoded.bytes })
        })
    }
}

/// The pack keeps them; here they are only counted and checked.
struct CommitsOnly;

impl Sink for CommitsOnly {
    fn object(&mut self, _: ObjectId, _: Kind, _: Bytes) -> Result<(), RemoteError> {
        // Servers may send trees and small blobs all the same; the pack is as good with them.
        Ok(())
    }

    fn large(&mut self, _: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Err(corrupt("a large file was sent where commits were asked for"))
    }
}
