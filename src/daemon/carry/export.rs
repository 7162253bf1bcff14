//! `larder cache export`: what a workspace shows becomes one file.
//!
//! Invariant: the file has its name only when all of it is on the disk. Until then it is called `FILE.part`, of which an
//! export that is started again keeps all whole records that belong there. What is exported is held against garbage
//! collection from before the first look until the end.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::ObjectId;
use gix::objs::Kind;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use tokio::io::BufReader as AsyncBufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::super::lifecycle::blocking;
use super::super::protocol::{Answer, CarryReport, ExportRequest, Failure, FailureClass, Progress, rfc3339};
use super::super::workspace::Live;
use super::super::{Daemon, prepare, server, warm};
use super::order::{Item, Order, blobs_of, listing};
use super::read::{Next, Reader};
use super::write::Writer;
use super::{Head, Header, MAGIC, PART_SUFFIX, PIECE_BYTES, UNKNOWN, What, called, failed, place};
use crate::git::door::tree_of;
use crate::git::gitdir::{self, Objects};
use crate::git::pathspec::Pathspecs;
use crate::hydrate::cause::Process;
use crate::hydrate::{Cause, Hydrator, Landed, Owner};
use crate::store::{EntryKind, ObjectIdText, Operation, Repository, Store, Workspace};

/// Bytes gathered for one write, and read ahead.
const BUFFER_BYTES: usize = 1 << 20;

/// Blobs looked up in one transaction, and trees fetched together.
const LOOKED_UP: usize = 1024;

/// Missing files that are named.
const NAMED_MAX: usize = 5;

/// Longest wait for the store to have what arrived.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Time between two reports of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

impl Daemon {
    /// `larder cache export`.
    pub(in crate::daemon) async fn export(
        self: &Arc<Self>,
        request: ExportRequest,
        read: &mut AsyncBufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let _place = place()?;
        Pathspecs::parse(&request.pathspecs)?;
        let live = self.find(&request.target)?;
        let (told, progress) = watch::channel(Progress::default());
        let (cancel, cancelled) = watch::channel(false);
        let work = self.export_to(&live, request, told, cancelled);
        let report = server::with_progress(progress, read, write, || _ = cancel.send_replace(true), work).await?;
        Ok(Answer::Carried(Box::new(CarryReport { seconds: begun.elapsed().as_secs_f64(), ..report })))
    }

    async fn export_to(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: ExportRequest,
        told: watch::Sender<Progress>,
        cancelled: watch::Receiver<bool>,
    ) -> Result<CarryReport, Failure> {
        let shown = warm::prepared(live)?;
        let generation = shown.view.generation();
        let (commit, tree) = (generation.commit.0, generation.tree.0);
        let _held = self.hold(tree, &request.pathspecs);
        let opening = (Arc::clone(self), live.row(), request.clone());
        let subject = Subject { commit, tree, hydrator: shown.hydrator.clone(), owner: shown.owner, cancelled };
        let export = blocking(move || {
            let (daemon, row, request) = opening;
            Export::open(daemon, &row, request, subject)
        })
        .await?;
        let export = Arc::new(export);
        let whole = Arc::clone(&export);
        blocking(move || whole.bring_trees()).await?;
        let tell = |now| drop(told.send_replace(now));
        let stop = export.subject.cancelled.clone();
        let fetched = match self.warm_for(live, tree, &request.pathspecs, stop, tell).await {
            Ok(report) => report.objects_fetched,
            Err(failure) if failure.class == FailureClass::Remote => {
                let (export, failure) = (Arc::clone(&export), failure);
                return blocking(move || Err(export.name_missing(failure)?)).await;
            }
            Err(failure) => return Err(failure),
        };
        let report = blocking(move || export.write(&told)).await?;
        Ok(CarryReport { fetched, ..report })
    }
}

/// A blob, and the first path it was found under.
type Named = (ObjectId, Vec<u8>);

/// What is exported, and what brings it.
struct Subject {
    commit: ObjectId,
    tree: ObjectId,
    hydrator: Hydrator,
    owner: Owner,
    cancelled: watch::Receiver<bool>,
}

struct Export {
    daemon: Arc<Daemon>,
    repository: Repository,
    request: ExportRequest,
    subject: Subject,
    header: Header,
    part: PathBuf,
    /// [`Self::part`], locked.
    out: File,
}

impl Export {
    fn open(daemon: Arc<Daemon>, row: &Workspace, request: ExportRequest, subject: Subject) -> Result<Self, Failure> {
        let file = &request.file;
        let refused = |text: String| Failure::new(FailureClass::Refused, text);
        if daemon.all().iter().any(|live| file.starts_with(live.path())) {
            return Err(refused(format!("{} is inside a mount of this daemon", file.display())).hint("write elsewhere"));
        }
        if file.symlink_metadata().is_ok() {
            return Err(refused(format!("{} exists already", file.display()))
                .hint("remove it, or choose another name: what is exported is never overwritten"));
        }
        let mut part = OsString::from(file);
        part.push(PART_SUFFIX);
        let part = PathBuf::from(part);
        if part.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(refused(format!("{} is no file", part.display())).hint("move it away"));
        }
        let out = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let out = out.map_err(|error| failed("write", &part, &error))?;
        flock(&out, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            refused(format!("another export writes {}", part.display())).hint("wait for it, or choose another name")
        })?;
        let repository = prepare::repository_of(&daemon, row.repository)?;
        let header = header(&repository, row, &request.pathspecs, &subject)?;
        Ok(Self { daemon, repository, request, subject, header, part, out })
    }

    fn store(&self) -> &Store {
        &self.daemon.store
    }

    fn order(&self) -> Result<Order, Failure> {
        Order::new(self.store().clone(), self.subject.commit, self.subject.tree, &self.request.pathspecs)
    }

    fn check_cancelled(&self) -> Result<(), Failure> {
        if *self.subject.cancelled.borrow() || self.daemon.stopping() {
            let text = "the export was interrupted; run it again and it goes on where it ended";
            return Err(Failure::new(FailureClass::Other, text));
        }
        Ok(())
    }

    /// Fetches trees that the store lost, also those that no pathspec leads to.
    fn bring_trees(&self) -> Result<(), Failure> {
        let mut before = Vec::new();
        loop {
            self.check_cancelled()?;
            let mut missing = self.missing_trees()?;
            if missing.is_empty() {
                return Ok(());
            }
            missing.sort_unstable();
            if missing == before {
                let text = format!("tree {} does not stay in the cache", missing[0]);
                return Err(Failure::new(FailureClass::Other, text).hint("`larder doctor` looks for the cause"));
            }
            for some in missing.chunks(LOOKED_UP) {
                self.fetch(some, "tree")?;
            }
            before = missing;
        }
    }

    /// Trees below the root that are not in the store; what they name is not known.
    fn missing_trees(&self) -> Result<Vec<ObjectId>, Failure> {
        let mut seen = std::collections::HashSet::from([self.subject.tree]);
        let mut open = vec![self.subject.tree];
        let mut missing = Vec::new();
        while let Some(id) = open.pop() {
            match self.store().tree(&id)? {
                None => missing.push(id),
                Some(listing) => {
                    let below = listing.iter().filter(|entry| entry.kind == EntryKind::Directory);
                    open.extend(below.map(|entry| entry.id).filter(|id| seen.insert(*id)));
                }
            }
        }
        Ok(missing)
    }

    /// Fetches objects by id, and waits until the store has them.
    fn fetch(&self, ids: &[ObjectId], kind: &str) -> Result<Vec<Landed>, Failure> {
        let Subject { hydrator, owner, .. } = &self.subject;
        let label = format!("export to {}", self.request.file.display());
        let cause = Arc::new(Cause {
            path_at: label.len(),
            process: Process::own("larder cache export"),
            ..Cause::new(*owner, label.as_bytes(), Operation::Warm)
        });
        let tickets = hydrator.hydrate_all(ids, &cause);
        let mut landed = Vec::with_capacity(ids.len());
        for (id, ticket) in ids.iter().zip(tickets) {
            let outcome = self.daemon.runtime.block_on(ticket.wait());
            landed.push(outcome.map_err(|error| {
                let mut failure = Failure::from(error);
                failure.message = format!("{kind} {id} is not in the cache: {}", failure.message);
                failure
            })?);
        }
        hydrator.settle(SETTLE_LIMIT);
        Ok(landed)
    }

    /// Goes through everything that is to be in the file: how many records, and which blobs are not here.
    fn survey(&self) -> Result<(u64, Vec<Named>), Failure> {
        let mut order = self.order()?;
        let (mut records, mut some, mut missing) = (0, Vec::new(), Vec::new());
        loop {
            let item = order.advance()?;
            if some.len() >= LOOKED_UP || item.is_none() {
                let ids: Vec<ObjectId> = some.iter().map(|(id, _)| *id).collect();
                let gone = self.store().missing_blobs(&ids)?;
                missing.extend(some.drain(..).filter(|(id, _)| gone.contains(id)));
                self.check_cancelled()?;
            }
            match item {
                None => return Ok((records, missing)),
                Some(Item::Tree(id)) => order.enter(&listing(self.store(), &id)?)?,
                Some(Item::Blob { id, path }) => some.push((id, path)),
                Some(Item::Commit(_) | Item::Sizes(_)) => {}
                Some(Item::TreesEnd) => continue,
            }
            records += 1;
        }
    }

    /// The failure to fetch, with what is missing.
    fn name_missing(&self, mut failure: Failure) -> Result<Failure, Failure> {
        let (_, missing) = self.survey()?;
        let named: Vec<String> = missing
            .iter()
            .take(NAMED_MAX)
            .map(|(id, path)| format!("{} ({id})", String::from_utf8_lossy(path)))
            .collect();
        let more = if missing.len() > named.len() { ", …" } else { "" };
        let files = if missing.len() == 1 { "file is" } else { "files are" };
        failure.message =
            format!("{} {files} not in the cache: {}{more}; {}", missing.len(), named.join(", "), failure.message);
        failure.hint = Some("run it again when the remote can be reached: it goes on where it ended".to_owned());
        Ok(failure.paths(missing.iter().map(|(_, path)| path)))
    }

    fn write(&self, told: &watch::Sender<Progress>) -> Result<CarryReport, Failure> {
        let (total, _) = self.survey()?;
        let on_disk = |error: &io::Error| failed("write", &self.part, error);
        let mut order = self.order()?;
        let mut next = order.advance()?;
        let (mut writer, mut records, skipped) = self.resume(&mut order, &mut next)?;
        let objects = Objects::open(&self.repository.gitdir, self.subject.commit.kind())?;
        let mut last = Instant::now();
        while let Some(item) = next {
            if last.elapsed() >= PROGRESS_PERIOD {
                self.check_cancelled()?;
                last = Instant::now();
                let bytes = writer.so_far().0;
                told.send_replace(Progress {
                    phase: "exporting".into(),
                    objects: records,
                    bytes,
                    total_objects: Some(total),
                });
            }
            if item != Item::TreesEnd {
                self.put(&mut writer, &objects, &item, &mut order)?;
                records += 1;
            }
            next = order.advance()?;
        }
        let (_, totals) = writer.so_far();
        let (out, file_bytes) = writer.finish().map_err(|error| on_disk(&error))?;
        drop(out);
        self.out.sync_all().map_err(|error| on_disk(&error))?;
        self.publish()?;
        let Header { repository, reference, commit, tree, pathspecs, .. } = self.header.clone();
        tracing::info!(file = %self.request.file.display(), blobs = totals.blobs, bytes = file_bytes, "exported");
        Ok(CarryReport {
            file: self.request.file.clone(),
            repository,
            reference,
            commit: commit.0.to_string(),
            tree: tree.0.to_string(),
            pathspecs,
            objects: totals.blobs,
            trees: totals.trees,
            skipped,
            fetched: 0,
            raw_bytes: totals.raw_bytes,
            stored_bytes: totals.stored_bytes,
            file_bytes,
            seconds: 0.0,
        })
    }

    /// Keeps the whole records of an earlier attempt that come first in `order`, and cuts the file behind them. `next`:
    /// what comes after them. Returns how many records there were, and how many of them were objects.
    fn resume(
        &self,
        order: &mut Order,
        next: &mut Option<Item>,
    ) -> Result<(Writer<BufWriter<&File>>, u64, u64), Failure> {
        let on_disk = |error: &io::Error| failed("write", &self.part, error);
        self.check_ours()?;
        let mut kept = None;
        let (mut records, mut skipped) = (0, 0);
        if let Ok((header, mut reader)) = Reader::open(BufReader::with_capacity(BUFFER_BYTES, &self.out))
            && header.is_about(&self.header)
        {
            let mut good = reader.mark().clone();
            while let Some(item) = next.as_ref() {
                if *item != Item::TreesEnd {
                    let found = reader.advance();
                    let fits = matches!(found, Ok(Next::Record(head)) if head.is(item)) && reader.skip().is_ok();
                    if !fits {
                        break;
                    }
                    good = reader.mark().clone();
                    records += 1;
                }
                match item {
                    Item::Tree(id) => {
                        order.enter(&listing(self.store(), id)?)?;
                        skipped += 1;
                    }
                    Item::Blob { .. } => skipped += 1,
                    Item::Commit(_) | Item::TreesEnd | Item::Sizes(_) => {}
                }
                *next = order.advance()?;
                self.check_cancelled()?;
            }
            kept = Some(good);
        }
        let offset = kept.as_ref().map_or(0, |mark| mark.offset);
        let cut = self.out.set_len(offset).and_then(|()| (&self.out).seek(SeekFrom::Start(offset)));
        cut.map_err(|error| on_disk(&error))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, &self.out);
        let writer = match kept {
            Some(mark) => Writer::resume(out, mark),
            None => Writer::begin(out, &self.header),
        };
        Ok((writer.map_err(|error| on_disk(&error))?, records, skipped))
    }

    /// Refuses to cut a file that is none of ours.
    fn check_ours(&self) -> Result<(), Failure> {
        let on_disk = |error: &io::Error| failed("read", &self.part, error);
        let mut begin = Vec::new();
        (&self.out).take(MAGIC.len() as u64).read_to_end(&mut begin).map_err(|error| on_disk(&error))?;
        (&self.out).rewind().map_err(|error| on_disk(&error))?;
        if MAGIC.starts_with(&begin) {
            return Ok(());
        }
        let text = format!("{} is no unfinished export", self.part.display());
        Err(Failure::new(FailureClass::Refused, text).hint("move it away"))
    }

    /// Writes a record.
    fn put(
        &self,
        writer: &mut Writer<BufWriter<&File>>,
        objects: &Objects,
        item: &Item,
        order: &mut Order,
    ) -> Result<(), Failure> {
        let on_disk = |error: io::Error| failed("write", &self.part, &error);
        let record =
            |what, id: &ObjectId, raw: &[u8]| (Head { what, id: *id, raw_size: raw.len() as u64 }, raw.to_vec());
        let (head, raw) = match item {
            Item::TreesEnd => return Ok(()),
            Item::Commit(id) => record(What::Commit, id, &self.structure(objects, id, Kind::Commit)?),
            Item::Tree(id) => {
                let listing = listing(self.store(), id)?;
                order.enter(&listing)?;
                match tree_of(id, &listing) {
                    Some(raw) => record(What::Tree, id, &raw),
                    // Written in a way that the listing does not keep.
                    None => record(What::Tree, id, &self.structure(objects, id, Kind::Tree)?),
                }
            }
            Item::Sizes(id) => {
                let blobs: Vec<ObjectId> = blobs_of(&listing(self.store(), id)?).collect();
                let sizes = self.store().sizes(&blobs)?;
                let raw: Vec<u8> = sizes.into_iter().flat_map(|size| size.unwrap_or(UNKNOWN).to_le_bytes()).collect();
                record(What::Sizes, id, &raw)
            }
            Item::Blob { id, .. } => return self.put_blob(writer, id, item),
        };
        if head.raw_size > head.what.limit() {
            let text = format!("{} is too large for an export: {} bytes", called(item), head.raw_size);
            return Err(Failure::new(FailureClass::Refused, text));
        }
        writer.record(head, &raw).map_err(on_disk)
    }

    fn put_blob(&self, writer: &mut Writer<BufWriter<&File>>, id: &ObjectId, item: &Item) -> Result<(), Failure> {
        let on_disk = |error: io::Error| failed("write", &self.part, &error);
        let lost = || {
            Failure::new(FailureClass::Other, format!("{} was found damaged in the cache and dropped", called(item)))
                .hint("run it again: it is fetched again, and the export goes on where it ended")
        };
        // Found damaged and dropped since it was warmed: it is fetched again once.
        let mut first = self.store().read_at(id, 0, PIECE_BYTES)?;
        if first.is_none() {
            self.fetch(std::slice::from_ref(id), "blob")?;
            first = self.store().read_at(id, 0, PIECE_BYTES)?;
        }
        let (Some(mut piece), Some(raw_size)) = (first, self.store().stored_sizes(&[*id])?[0]) else {
            return Err(lost());
        };
        writer.start(Head { what: What::Blob, id: *id, raw_size }).map_err(on_disk)?;
        let mut at = 0;
        while at < raw_size {
            at += piece.len() as u64;
            writer.piece(&piece).map_err(on_disk)?;
            if at < raw_size {
                self.check_cancelled()?;
                piece = self.store().read_at(id, at, PIECE_BYTES)?.ok_or_else(lost)?;
            }
        }
        writer.end().map_err(on_disk)
    }

    /// A commit or tree that the store does not keep as Git has it: from the gitdir, else from the remote.
    fn structure(&self, objects: &Objects, id: &ObjectId, kind: Kind) -> Result<Vec<u8>, Failure> {
        if let Some((_, raw)) = objects.structure(id)?.filter(|(found, _)| *found == kind) {
            return Ok(raw);
        }
        match self.fetch(std::slice::from_ref(id), "object")?.pop() {
            Some(Landed::Structure(found, raw)) if found == kind => Ok(raw.to_vec()),
            _ => Err(Failure::new(FailureClass::NotFound, format!("{kind} {id} is neither here nor at the remote"))),
        }
    }

    /// Gives the file its name.
    fn publish(&self) -> Result<(), Failure> {
        let file = &self.request.file;
        let renamed = match renameat_with(CWD, &self.part, CWD, file, RenameFlags::NOREPLACE) {
            // A file system without that flag.
            Err(rustix::io::Errno::INVAL) => std::fs::rename(&self.part, file),
            other => other.map_err(io::Error::from),
        };
        renamed.map_err(|error| failed("rename the finished export to", file, &error))?;
        let directory = file.parent().unwrap_or(Path::new("/"));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed("make durable the name", file, &error))
    }
}

fn header(
    repository: &Repository,
    row: &Workspace,
    pathspecs: &[String],
    subject: &Subject,
) -> Result<Header, Failure> {
    let Subject { commit, tree, .. } = subject;
    let head = row.admin.as_ref().and_then(|admin| gitdir::read_head(&repository.gitdir, admin).ok());
    let branch = head.and_then(|head| head.branch);
    let mut reference = None;
    for name in [&branch, &row.reference].into_iter().flatten() {
        if reference.is_none() && is_at(repository, name, *commit)? {
            reference = Some(name.clone());
        }
    }
    Ok(Header {
        repository: repository.url.clone(),
        default_branch: row.rev.is_none() && reference.is_some() && reference == row.reference,
        reference,
        commit: ObjectIdText(*commit),
        tree: ObjectIdText(*tree),
        object_hash: commit.kind().to_string(),
        pathspecs: pathspecs.to_vec(),
        created: rfc3339(prepare::now()),
        larder: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Whether a branch or tag is at `commit`, here or at the remote.
fn is_at(repository: &Repository, name: &str, commit: ObjectId) -> Result<bool, Failure> {
    let at = |name: &str| gitdir::read_ref(&repository.gitdir, name);
    if at(name)? == Some(commit) {
        return Ok(true);
    }
    // A branch that another workspace has checked out stays where it is.
    let Some(branch) = name.strip_prefix("refs/heads/") else { return Ok(false) };
    Ok(at(&format!("refs/remotes/{}/{branch}", gitdir::REMOTE))? == Some(commit))
}
