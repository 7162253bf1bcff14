//! A part of history: commits without trees and files.
//!
//! One request brings so many generations below the commits whose parents are
//! absent, or everything between them and commits whose history is whole. Only
//! the pack is written here, and not where Git looks; what becomes of it is
//! [`super::gitdir::history`]'s.

use std::path::PathBuf;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::error::corrupt;
use super::fetch_commit::PackFile;
use super::pack::{self, Options, Spool};
use super::protocol::fetch::{self, Preface};
use super::remote::GitConnection;
use crate::hydrate::remote::{FailureKind, LargeSink, RemoteError, Sink};
use crate::store::Depth;

/// Longest pack of one step: the commits of any history in steps are far below.
const STEP_BYTES: u64 = 8 << 30;

/// Which part.
#[derive(Clone, Debug)]
pub enum HistoryPart {
    /// That many generations below the commits whose parents are absent (the gitdir's `shallow` file); all, if `None`.
    Below {
        /// Those commits.
        boundary: Vec<ObjectId>,
        /// Generations.
        generations: Option<u32>,
    },
    /// Everything that is reached from `wants` and not from `haves`, whose history is whole here.
    Between {
        /// Commits to fetch.
        wants: Vec<ObjectId>,
        /// Commits that are here with all their ancestors.
        haves: Vec<ObjectId>,
    },
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFetched {
    /// Commits that have become shallow.
    pub shallow: Vec<ObjectId>,
    /// Commits that are shallow no more.
    pub unshallow: Vec<ObjectId>,
    /// Commits received.
    pub commits: u64,
    /// Length of the pack.
    pub bytes: u64,
    /// The pack file; `None` when nothing was new.
    pub pack: Option<PathBuf>,
}

impl GitConnection {
    /// Fetches commits into a pack in `directory`.
    pub fn fetch_history(
        &mut self,
        part: &HistoryPart,
        directory: &std::path::Path,
    ) -> Result<HistoryFetched, RemoteError> {
        self.exchange(|wire, server| {
            let address = wire.address().to_owned();
            if !server.filter || !server.shallow {
                let text = format!("{address} has no filters, so history would come with all files");
                return Err(RemoteError::new(FailureKind::Unsupported, text));
            }
            let (wants, haves, shallow, depth): (&[ObjectId], &[ObjectId], &[ObjectId], _) = match part {
                // They are here, so the server sends what is below them; the depth counts from them, they included.
                HistoryPart::Below { boundary, generations } => {
                    let depth = generations.map_or(Depth::Full, |more| Depth::Commits(more.saturating_add(1)));
                    (boundary, boundary, boundary, Some(depth))
                }
                HistoryPart::Between { wants, haves } => (wants, haves, &[], None),
            };
            if wants.iter().chain(haves).any(|id| id.kind() != server.hash) {
                return Err(corrupt(format!("{address} changed its object format")));
            }
            let request = fetch::Request { wants, haves, shallow, depth, filter: Some("tree:0") };
            let file = PackFile::create(directory)?;
            let (preface, mut band) = fetch::fetch(wire, server, &request)?;
            let spool = Spool::into_file(file.writer()?, directory.to_owned());
            let mut counted = Counted::default();
            let options =
                Options { hash: server.hash, spool, max_bytes: Some(STEP_BYTES), index: true, progress: None };
            let mut decoded = pack::decode(&mut band, options, &mut counted)?;
            decoded.spool.flush()?;
            let pack = match decoded.objects {
                0 => None,
                _ => Some(file.publish(directory, &decoded, true)?),
            };
            let Preface { shallow, unshallow } = preface;
            Ok(HistoryFetched { shallow, unshallow, commits: counted.commits, bytes: decoded.bytes, pack })
        })
    }
}

/// Counts commits; the pack keeps them.
#[derive(Default)]
struct Counted {
    commits: u64,
}

impl Sink for Counted {
    fn object(&mut self, _id: ObjectId, kind: Kind, _data: Bytes) -> Result<(), RemoteError> {
        self.commits += u64::from(kind == Kind::Commit);
        Ok(())
    }

    fn large(&mut self, _raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        // A server that ignores the filter: the pack would be the whole repository.
        Err(RemoteError::new(FailureKind::Unsupported, "the server sends files although history was asked for alone"))
    }
}
