//! `larder cache import`: a file becomes objects in the cache and a repository that can be mounted.
//!
//! Every object's id is computed from its bytes before it is stored, whatever checksums say. Invariant: the repository is
//! known only when everything of the file is on the disk. An import that ended early leaves verified objects; started
//! again it passes over them.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;
use tokio::io::BufReader as AsyncBufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::super::lifecycle::blocking;
use super::super::protocol::{Answer, CarryReport, Failure, FailureClass, Progress};
use super::super::{Daemon, prepare, server};
use super::order::{Item, Order, blobs_of, listing};
use super::read::{Next, ReadError, Reader};
use super::{Hashing, Head, Header, PATHS_LIMIT, UNKNOWN, What, called, failed, place};
use crate::git::fetch_commit::{keep_objects, parse_commit};
use crate::git::gitdir::{self, BranchRecorded, GitdirSpec, Objects};
use crate::git::pathspec::Pathspecs;
use crate::git::url::RepoUrl;
use crate::hydrate::remote::LARGE_BLOB_BYTES;
use crate::index::walk;
use crate::store::{Batch, Repository, listing_from_git};

/// Bytes read ahead.
const BUFFER_BYTES: usize = 1 << 20;

/// Objects committed together.
const BATCH_OBJECTS: usize = 4096;

/// Raw bytes of blobs committed together.
const BATCH_BYTES: u64 = 8 << 20;

/// Time between two reports of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

impl Daemon {
    /// `larder cache import`.
    pub(in crate::daemon) async fn import(
        self: &Arc<Self>,
        file: PathBuf,
        read: &mut AsyncBufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let _place = place()?;
        let (told, progress) = watch::channel(Progress::default());
        let (cancel, cancelled) = watch::channel(false);
        let daemon = Arc::clone(self);
        let work = blocking(move || Import::open(&daemon, file, told, cancelled)?.run());
        let report = server::with_progress(progress, read, write, || _ = cancel.send_replace(true), work).await?;
        Ok(Answer::Carried(Box::new(CarryReport { seconds: begun.elapsed().as_secs_f64(), ..report })))
    }
}

struct Import<'a> {
    daemon: &'a Arc<Daemon>,
    file: PathBuf,
    file_bytes: u64,
    header: Header,
    url: RepoUrl,
    hash: HashKind,
    reader: Reader<BufReader<File>>,
    batch: Batch,
    /// The commit's bytes.
    commit: Bytes,
    skipped: u64,
    /// Room for a piece.
    piece: Vec<u8>,
    told: watch::Sender<Progress>,
    cancelled: watch::Receiver<bool>,
}

impl<'a> Import<'a> {
    fn open(
        daemon: &'a Arc<Daemon>,
        file: PathBuf,
        told: watch::Sender<Progress>,
        cancelled: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let cannot = |error: &std::io::Error| failed("read", &file, error);
        let found = std::fs::metadata(&file).map_err(|error| cannot(&error))?;
        if !found.is_file() {
            return Err(Failure::new(FailureClass::Usage, format!("{} is no file", file.display())));
        }
        let input = BufReader::with_capacity(BUFFER_BYTES, File::open(&file).map_err(|error| cannot(&error))?);
        let (header, reader) = Reader::open(input).map_err(|error| refused(&file, &error, None))?;
        let (url, hash) = checked(&header).map_err(|why| {
            Failure::new(FailureClass::Corrupt, format!("{} is refused: its header {why}", file.display()))
        })?;
        Ok(Self {
            daemon,
            file,
            file_bytes: found.len(),
            header,
            url,
            hash,
            reader,
            batch: Batch::default(),
            commit: Bytes::new(),
            skipped: 0,
            piece: Vec::new(),
            told,
            cancelled,
        })
    }

    fn run(mut self) -> Result<CarryReport, Failure> {
        let (commit, tree) = (self.header.commit.0, self.header.tree.0);
        let held = self.daemon.hold(tree, &self.header.pathspecs);
        let taken = self.take_all(commit, tree);
        // What came before a failure is verified, and stays.
        let stored = self.daemon.store.commit_durably(std::mem::take(&mut self.batch));
        taken?;
        stored?;
        // The whole file was right, so its selection is complete.
        self.install()?;
        drop(held);
        let totals = self.reader.mark().totals;
        tracing::info!(file = %self.file.display(), blobs = totals.blobs, skipped = self.skipped, "imported");
        let Header { repository, reference, pathspecs, .. } = self.header;
        Ok(CarryReport {
            file: self.file,
            repository,
            reference,
            commit: commit.to_string(),
            tree: tree.to_string(),
            pathspecs,
            objects: totals.blobs,
            trees: totals.trees,
            skipped: self.skipped,
            fetched: 0,
            raw_bytes: totals.raw_bytes,
            stored_bytes: totals.stored_bytes,
            file_bytes: self.file_bytes,
            seconds: 0.0,
        })
    }

    /// Takes every record in.
    fn take_all(&mut self, commit: ObjectId, tree: ObjectId) -> Result<(), Failure> {
        let store = self.daemon.store.clone();
        let mut order = Order::new(store, commit, tree, &self.header.pathspecs)?;
        // Trees that are here stay here until all are, and a note says so.
        let daemon = Arc::clone(self.daemon);
        let mut trees_stay = Some(daemon.collecting.read_recursive());
        let mut last = Instant::now();
        while let Some(item) = order.advance()? {
            if last.elapsed() >= PROGRESS_PERIOD {
                last = Instant::now();
                self.report()?;
            }
            if item == Item::TreesEnd {
                self.trees_are_here(tree)?;
                trees_stay = None;
                continue;
            }
            let head = match self.reader.advance() {
                Ok(Next::Record(head)) if head.is(&item) => head,
                Ok(Next::Record(head)) => return Err(self.wrong(&item, &format!("object {} is in its place", head.id))),
                Ok(Next::End) => return Err(self.wrong(&item, "the file ends before it")),
                Err(error) => return Err(refused(&self.file, &error, Some(&item))),
            };
            match &item {
                Item::Commit(id) => self.take_commit(&item, id, tree, head)?,
                Item::Tree(id) => self.take_tree(&item, id, head, &mut order)?,
                Item::Blob { id, .. } => self.take_blob(&item, id, head)?,
                Item::Sizes(id) => self.take_sizes(&item, id, head)?,
                Item::TreesEnd => {}
            }
            if self.batch.len() >= BATCH_OBJECTS || self.batch.raw_bytes() >= BATCH_BYTES {
                self.daemon.store.commit(std::mem::take(&mut self.batch))?;
            }
        }
        drop(trees_stay);
        match self.reader.advance() {
            Ok(Next::End) => Ok(()),
            Ok(Next::Record(head)) => {
                let at = self.reader.begun();
                let text =
                    format!("{} is refused: byte {at}: object {} does not belong there", self.file.display(), head.id);
                Err(Failure::new(FailureClass::Corrupt, text).hint(COPY_AGAIN))
            }
            Err(error) => Err(refused(&self.file, &error, None)),
        }
    }

    fn report(&self) -> Result<(), Failure> {
        if *self.cancelled.borrow() || self.daemon.stopping() {
            let text = "the import was interrupted; what came in stays, and run again it goes on from there";
            return Err(Failure::new(FailureClass::Other, text));
        }
        let mark = self.reader.mark();
        let objects = mark.totals.trees + mark.totals.blobs;
        self.told.send_replace(Progress {
            phase: format!("importing, {} %", mark.offset * 100 / self.file_bytes.max(1)),
            objects,
            bytes: mark.offset,
            total_objects: None,
        });
        Ok(())
    }

    /// All trees were taken: they go into the store, and from now on what they name is kept.
    fn trees_are_here(&mut self, tree: ObjectId) -> Result<(), Failure> {
        self.daemon.store.commit(std::mem::take(&mut self.batch))?;
        let counts = walk::count(&self.daemon.store, tree)?;
        if counts.files > PATHS_LIMIT || counts.directories > PATHS_LIMIT {
            let text = format!("commit {} names more than {PATHS_LIMIT} files or directories", self.header.commit.0);
            return Err(Failure::new(FailureClass::Corrupt, text));
        }
        self.daemon.keep_import(tree, &self.header.pathspecs)
    }

    fn take_commit(&mut self, item: &Item, id: &ObjectId, tree: ObjectId, head: Head) -> Result<(), Failure> {
        let raw = self.verified(item, id, Kind::Commit, head)?;
        if parse_commit(&raw, self.hash).is_none_or(|(root, _)| root != tree) {
            return Err(self.wrong(item, "it does not have the tree that the header names"));
        }
        self.commit = raw.into();
        Ok(())
    }

    fn take_tree(&mut self, item: &Item, id: &ObjectId, head: Head, order: &mut Order) -> Result<(), Failure> {
        if let Some(listing) = self.daemon.store.tree(id)? {
            self.skip(item)?;
            return order.enter(&listing);
        }
        let raw = self.verified(item, id, Kind::Tree, head)?;
        let listing = listing_from_git(id, &raw).map_err(|error| self.wrong(item, &error.to_string()))?;
        self.batch.tree(*id, &listing);
        order.enter(&listing)
    }

    fn take_blob(&mut self, item: &Item, id: &ObjectId, head: Head) -> Result<(), Failure> {
        if let Some(size) = self.daemon.store.stored_sizes(&[*id])?[0] {
            if size != head.raw_size {
                return Err(self.wrong(item, "its size is wrong"));
            }
            return self.skip(item);
        }
        if head.raw_size <= LARGE_BLOB_BYTES {
            let raw = self.verified(item, id, Kind::Blob, head)?;
            self.batch.blob(*id, &raw);
            return Ok(());
        }
        let mut blob = self.daemon.store.large_blob(head.raw_size)?;
        let mut hashing = Hashing::new(self.hash, Kind::Blob, head.raw_size);
        let mut last = Instant::now();
        while self.next_piece(item)? {
            hashing.update(&self.piece);
            blob.write_all(&self.piece).map_err(|error| {
                let text = format!("cannot store {}: {error}", called(item));
                Failure::new(FailureClass::Other, text).hint("make room on that disk; run again it goes on from there")
            })?;
            if last.elapsed() >= PROGRESS_PERIOD {
                last = Instant::now();
                self.report()?;
            }
        }
        self.check_id(item, id, hashing.finish())?;
        Ok(blob.finish(*id)?)
    }

    fn take_sizes(&mut self, item: &Item, tree: &ObjectId, head: Head) -> Result<(), Failure> {
        let blobs: Vec<ObjectId> = blobs_of(&listing(&self.daemon.store, tree)?).collect();
        if head.raw_size != 8 * blobs.len() as u64 {
            return Err(self.wrong(item, "they are not as many as the tree has files"));
        }
        let raw = self.raw(item, head)?;
        let (sizes, _) = raw.as_chunks::<8>();
        let known = self.daemon.store.sizes(&blobs)?;
        for ((id, size), known) in blobs.iter().zip(sizes).zip(known) {
            let size = u64::from_le_bytes(*size);
            match known {
                _ if size == UNKNOWN => {}
                None => self.batch.size(*id, size),
                Some(known) if known == size => {}
                Some(known) => {
                    return Err(self.wrong(item, &format!("blob {id} is said to have {size} bytes, and has {known}")));
                }
            }
        }
        Ok(())
    }

    /// The record's bytes, which are those of the object `id`.
    fn verified(&mut self, item: &Item, id: &ObjectId, kind: Kind, head: Head) -> Result<Vec<u8>, Failure> {
        let raw = self.raw(item, head)?;
        self.check_id(item, id, Hashing::of(self.hash, kind, &raw))?;
        Ok(raw)
    }

    fn check_id(&self, item: &Item, id: &ObjectId, actual: Option<ObjectId>) -> Result<(), Failure> {
        match actual {
            Some(actual) if actual == *id => Ok(()),
            Some(actual) => Err(self.wrong(item, &format!("its content hashes to {actual}"))),
            None => Err(self.wrong(item, "its content attacks the hash")),
        }
    }

    /// The record's bytes, which fit its checksum. Memory grows with what came, not with what was announced.
    fn raw(&mut self, item: &Item, head: Head) -> Result<Vec<u8>, Failure> {
        debug_assert!(head.what != What::Blob || head.raw_size <= LARGE_BLOB_BYTES, "larger blobs are streamed");
        let mut raw = Vec::new();
        while self.next_piece(item)? {
            raw.extend_from_slice(&self.piece);
        }
        Ok(raw)
    }

    fn next_piece(&mut self, item: &Item) -> Result<bool, Failure> {
        self.reader.piece(&mut self.piece).map_err(|error| refused(&self.file, &error, Some(item)))
    }

    fn skip(&mut self, item: &Item) -> Result<(), Failure> {
        self.reader.skip().map_err(|error| refused(&self.file, &error, Some(item)))?;
        self.skipped += 1;
        Ok(())
    }

    fn wrong(&self, item: &Item, why: &str) -> Failure {
        let (file, at) = (self.file.display(), self.reader.begun());
        let text = format!("{file} is refused: {} at byte {at} is damaged: {why}", called(item));
        Failure::new(FailureClass::Corrupt, text).hint(COPY_AGAIN)
    }

    /// Makes the repository known, with the commit and its name in its gitdir.
    fn install(&self) -> Result<(), Failure> {
        let _turn = self.daemon.turn(&self.url);
        let commit = self.header.commit.0;
        let repository = prepare::repository(self.daemon, &self.url, None)?;
        let branch = self.header.reference.as_deref().and_then(|name| name.strip_prefix("refs/heads/"));
        let url = self.url.to_git();
        let spec = GitdirSpec {
            object_format: self.hash,
            url: url.as_bytes(),
            refspecs: gitdir::refspecs(true, branch),
            partial: true,
            shallow: &[],
        };
        prepare::create_gitdir(&repository, &spec)?;
        if gitdir::probe(&repository.gitdir)?.object_format != self.hash {
            let text = format!("{} is known here with another object format", self.header.repository);
            return Err(Failure::new(FailureClass::Refused, text).hint("use another LARDER_HOME"));
        }
        prepare::ensure_door(self.daemon, &repository)?;
        let common = &repository.gitdir;
        if !Objects::open(common, self.hash)?.has_commit(&commit)? {
            keep_objects(&common.join("objects/pack"), &[(commit, Kind::Commit, self.commit.clone())])?;
        }
        self.end_history(&repository)?;
        if let Some(name) = branch {
            if let BranchRecorded::Kept(at) = gitdir::record_branch(common, name, commit)? {
                tracing::info!(branch = name, %at, "the local branch stays where the user has it");
            }
            let has_default = gitdir::read_ref(common, &format!("refs/remotes/{}/HEAD", gitdir::REMOTE))?.is_some();
            if self.header.default_branch || !has_default {
                gitdir::set_remote_head(common, name)?;
            }
        } else if let Some(tag) = &self.header.reference {
            gitdir::set_ref(common, tag, commit)?;
        }
        Ok(())
    }

    /// Tells Git that the parents of the commit are not here, where they are not.
    fn end_history(&self, repository: &Repository) -> Result<(), Failure> {
        let (common, commit) = (&repository.gitdir, self.header.commit.0);
        let objects = Objects::open(common, self.hash)?;
        for parent in objects.parents(&commit)? {
            if !objects.has_commit(&parent)? && !gitdir::shallow(common)?.contains(&commit) {
                gitdir::update_shallow(common, &[], &[commit])?;
            }
        }
        Ok(())
    }
}

const COPY_AGAIN: &str =
    "copy the file again, or export it again; what came before is in the cache, and the import goes on from there";

/// What a header names, if it can be used.
fn checked(header: &Header) -> Result<(RepoUrl, HashKind), String> {
    let hash = header.hash().ok_or("names no object format that fits")?;
    // An address that is not the one shown would be another one tomorrow, or on another machine.
    let url = RepoUrl::parse(&header.repository).map_err(|error| format!("names no repository: {error}"))?;
    if url.display() != header.repository {
        return Err("names a repository that is not an address in full".to_owned());
    }
    if let Some(name) = &header.reference {
        let known = name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
        if !known || !gitdir::is_ref_name(name) {
            return Err(format!("names the ref {name:?}, which is no branch or tag"));
        }
    }
    Pathspecs::parse(&header.pathspecs).map_err(|error| format!("has pathspecs that can't be used: {error}"))?;
    Ok((url, hash))
}

/// Why a file is refused, naming what should have come next.
fn refused(file: &Path, error: &ReadError, item: Option<&Item>) -> Failure {
    let name = file.display();
    let item = item.map(called);
    match error {
        ReadError::Io(error) => failed("read", file, error),
        ReadError::Foreign => {
            let part =
                if file.extension().is_some_and(|suffix| suffix == "part") { " (and it is unfinished)" } else { "" };
            Failure::new(FailureClass::Corrupt, format!("{name} is refused: {error}{part}"))
                .hint("give a file that `larder cache export` wrote")
        }
        ReadError::Newer(_) => Failure::new(FailureClass::Refused, format!("{name} is refused: {error}"))
            .hint("use the newer larder that wrote it, or one as new"),
        ReadError::Cut(at) => {
            let inside = item.map_or_else(String::new, |item| format!(", before {item} is whole"));
            Failure::new(FailureClass::Corrupt, format!("{name} is cut short: it ends at byte {at}{inside}"))
                .hint("an export that was interrupted goes on when it is run again; else copy the file again")
        }
        ReadError::Damaged { at, what } => {
            let text = match item {
                Some(item) => format!("{name} is refused: {item} at byte {at} is damaged: {what}"),
                None => format!("{name} is refused: byte {at}: {what}"),
            };
            Failure::new(FailureClass::Corrupt, text).hint(COPY_AGAIN)
        }
    }
}
