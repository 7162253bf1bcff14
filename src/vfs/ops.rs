//! Every file operation as a plain function, testable without a kernel.
//!
//! An [`Answer`] is ready, or a future to be awaited elsewhere: nothing here
//! blocks a thread that answers the kernel. Sizes are always true: where one
//! is not known yet, the answer says so and the kernel asks again with
//! [`Fs::getattr`], which resolves the whole directory at once.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::ahead::SizesInARow;
use super::attr::Attr;
use super::convert::{Converter, Planned, Plans};
use super::converted::Content as Made;
use super::errno::Errno;
use super::inode::{Inodes, What};
use crate::config::Prefetch;
use crate::hydrate::{Hydrator, Landed, Owner as For, Want};
use crate::index::ino::Ino;
use crate::index::overlay::attributes::OWN_XATTRS;
use crate::index::overlay::listing::{RowKind, Rows};
use crate::index::overlay::names::NAME_MAX;
use crate::index::overlay::{Found as Place, Overlay, base_mode};
use crate::index::view::{Directory, View};
use crate::metrics::Metrics;
use crate::store::overlay::{Content, Node};
use crate::store::{EntryKind, Store};

/// Longest symlink target Linux takes.
const TARGET_MAX: usize = 4095;

/// A result, now or later.
pub enum Answer<T> {
    /// Known now.
    Ready(Result<T, Errno>),
    /// Needs the network, or the preparation to finish.
    Wait(Pin<Box<dyn Future<Output = Result<T, Errno>> + Send>>),
}

impl<T> Answer<T> {
    pub(super) fn wait(future: impl Future<Output = Result<T, Errno>> + Send + 'static) -> Self {
        Self::Wait(Box::pin(future))
    }

    /// The result, awaited where it must be.
    pub async fn get(self) -> Result<T, Errno> {
        match self {
            Self::Ready(result) => result,
            Self::Wait(future) => future.await,
        }
    }
}

/// What a prepared workspace shows.
#[derive(Clone)]
pub struct Shown {
    /// The generation.
    pub view: View,
    /// Where its contents come from.
    pub hydrator: Hydrator,
    /// What a checkout makes of them; `None`: nothing.
    pub converter: Option<Arc<Converter>>,
    /// What the user changed on top.
    pub overlay: Arc<Overlay>,
    /// Contents of the root's `.git`.
    pub gitfile: Vec<u8>,
    /// What takes a directory's files along.
    pub prefetch: Prefetch,
    /// Whether the sizes of all its files are being asked for.
    pub learning: watch::Sender<bool>,
    /// For whom it prefetches.
    pub owner: For,
    /// Where it is mounted: what `larder waits` puts before its paths.
    pub root: PathBuf,
    /// The workspace's name, for the log.
    pub workspace: Arc<str>,
}

/// Whether a workspace can be read.
#[derive(Clone)]
pub enum Gate {
    /// Not yet: operations wait.
    Preparing,
    /// Not until `larder prepare` succeeds: operations fail with this.
    Failed(Errno),
    /// Yes.
    Open(Arc<Shown>),
}

/// An entry found by name.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its attributes; the size is 0 when not [`Self::sized`].
    pub attr: Attr,
    /// Whether the size is known.
    pub sized: bool,
}

/// One name of a directory listing.
pub struct Listed<'a> {
    /// Number as `look_up` would give it.
    pub ino: Ino,
    /// Its type, as `st_mode` has it.
    pub mode: u32,
    /// Its name.
    pub name: &'a [u8],
    /// Where the listing goes on after it.
    pub next: u64,
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    /// `.` or `..`.
    Dot,
    /// The root's `.git`.
    Gitfile,
    /// The base, at that position.
    Base { directory: &'a Directory, position: usize, what: What, plans: &'a Plans },
    /// The overlay.
    Bound,
}

/// Extended attributes every file has.
const XATTRS: &[u8] = b"user.larder.oid\0user.larder.hydrated\0";

/// One workspace's filesystem.
pub struct Fs {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inodes: Inodes,
    gate: watch::Receiver<Gate>,
    /// Held shared from when an answer is worked out until it is sent, exclusively while a workspace gets another
    /// generation: so what is invalidated afterwards was sent before. First in the order of locks.
    moving: RwLock<()>,
    /// Git commands that look at files only to see whether they are there and unchanged.
    writers: RwLock<HashSet<u32>>,
    /// One at a time takes a file over: inode → its turn.
    pub(super) copying: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
    // Reads answered from the cache, and those that waited for a remote: this workspace's part of the metrics.
    hits: AtomicU64,
    misses: AtomicU64,
    // Where the cache is: its disk is what `df` is told.
    home: PathBuf,
    pub(super) sizes_in_a_row: SizesInARow,
}

impl Fs {
    /// The filesystem that `gate` opens.
    pub fn new(store: Store, metrics: Arc<Metrics>, gate: watch::Receiver<Gate>, home: PathBuf) -> Self {
        Self {
            store,
            metrics,
            inodes: Inodes::new(What::Gitfile),
            gate,
            moving: RwLock::new(()),
            writers: RwLock::default(),
            copying: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            home,
            sizes_in_a_row: SizesInARow::default(),
        }
    }

    /// Reads of this workspace answered from the cache, and those that waited for a remote.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    fn hit(&self) {
        self.metrics.hits.inc();
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn missed(&self) {
        self.metrics.misses.inc();
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the generation as it is until the answer was sent.
    pub(super) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read()
    }

    /// Runs `change`, which gives the workspace another generation, while no answer is on its way.
    pub fn moved<T>(&self, change: impl FnOnce(&Inodes) -> T) -> T {
        let _alone = self.moving.write();
        change(&self.inodes)
    }

    /// The process `pid` is a Git command that writes trees, until [`Self::writer_ended`].
    pub fn writer_began(&self, pid: u32) {
        self.writers.write().insert(pid);
    }

    /// It ended.
    pub fn writer_ended(&self, pid: u32) {
        self.writers.write().remove(&pid);
    }

    /// Whether `pid` is such a command. Before it replaces a file of the base it asks for its attributes, and what it
    /// compares them with is an index that has no size either where the size is not known: nothing is fetched for that.
    pub(super) fn is_writer(&self, pid: u32) -> bool {
        self.writers.read().contains(&pid)
    }

    /// The inodes that the kernel knows.
    pub fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    /// The gate's state now, without waiting.
    pub fn shown(&self) -> Result<Option<Arc<Shown>>, Errno> {
        match &*self.gate.borrow() {
            Gate::Preparing => Ok(None),
            Gate::Failed(errno) => Err(*errno),
            Gate::Open(shown) => Ok(Some(Arc::clone(shown))),
        }
    }

    /// Waits until the workspace is prepared, or failed to be.
    pub async fn prepared(&self) -> Result<Arc<Shown>, Errno> {
        let mut gate = self.gate.clone();
        loop {
            match &*gate.borrow_and_update() {
                Gate::Preparing => {}
                Gate::Failed(errno) => return Err(*errno),
                Gate::Open(shown) => return Ok(Arc::clone(shown)),
            }
            gate.changed().await.map_err(|_| Errno::EIO)?;
        }
    }

    /// Finds `name` in `parent` and counts a look-up of it. Never waits for the network.
    pub fn lookup(&self, shown: &Shown, parent: Ino, name: &[u8]) -> Result<Found, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if parent == Ino::ROOT && name == b".git" {
            let ino = Ino::synthetic(parent, name);
            let ino = self.inodes.look_up(ino, parent, name, What::Gitfile);
            return Ok(Found { attr: gitfile_attr(shown, ino), sized: true });
        }
        match shown.overlay.find(&shown.view, &self.inodes, parent, name)? {
            Place::Nothing => Err(Errno::ENOENT),
            Place::Base { directory, position, kind, id, ino } => {
                let what = what_of(shown, kind, id, position);
                let ino = self.inodes.look_up(ino, parent, name, what);
                let size = self.plans(shown, parent).size(&directory, position);
                Ok(Found { attr: attr(shown, ino, what, size.unwrap_or(0))?, sized: size.is_some() })
            }
            Place::Bound { ino, node } => {
                let found = self.weighed(shown, ino)?.ok_or(Errno::ENOENT)?;
                self.inodes.look_up_bound(ino, parent, name, bound(&node));
                Ok(found)
            }
        }
    }

    /// Attributes of something that was changed or made, as far as they are known; `None`: `ino` is as the base has it.
    pub(super) fn weighed(&self, shown: &Shown, ino: Ino) -> Result<Option<Found>, Errno> {
        let Some((node, measured)) = shown.overlay.weigh(ino)? else { return Ok(None) };
        let size = match (&node.content, measured) {
            (Content::Blob(id), None) => match self.plan_alone(shown, ino, &node, *id) {
                Plans::Raw => self.known_size(id)?,
                Plans::Plan(plan) => plan.get(0).and_then(Planned::size),
                Plans::Unknown => None,
            },
            _ => Some(0),
        };
        Ok(Some(Found { attr: Attr::node(ino, &node, measured, size.unwrap_or(0)), sized: size.is_some() }))
    }

    /// The kernel forgot `count` look-ups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        if self.inodes.forget(ino, count)
            && let Ok(Some(shown)) = self.shown()
        {
            shown.overlay.forgotten(ino);
        }
    }

    /// Attributes of `ino`, its size true. An unknown size is resolved with
    /// those of its directory, in one request.
    pub fn getattr(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino) -> Answer<Attr> {
        match self.getattr_now(shown, ino) {
            Ok(Some(attr)) => Answer::Ready(Ok(attr)),
            Err(errno) => Answer::Ready(Err(errno)),
            Ok(None) => {
                let (fs, shown) = (Arc::clone(self), Arc::clone(shown));
                Answer::wait(async move {
                    // Not looked up again: others may drop what is cached of the directory meanwhile.
                    let size = fs.resolve_size(&shown, ino).await?;
                    if let Some((node, measured)) = shown.overlay.weigh(ino)? {
                        return Ok(Attr::node(ino, &node, measured, size));
                    }
                    let what = fs.inodes.what(ino).ok_or(Errno::ESTALE)?;
                    attr(&shown, ino, what, size)
                })
            }
        }
    }

    /// Attributes of `ino` with whatever size is known of it, for a caller that does not look at sizes.
    pub fn attr_without_size(&self, shown: &Shown, ino: Ino) -> Result<Attr, Errno> {
        if let Some(found) = self.weighed(shown, ino)? {
            return Ok(found.attr);
        }
        attr(shown, ino, self.inodes.what(ino).ok_or(Errno::ESTALE)?, 0)
    }

    /// Attributes of `ino` when its size is known.
    pub(super) fn getattr_now(&self, shown: &Shown, ino: Ino) -> Result<Option<Attr>, Errno> {
        if let Some(found) = self.weighed(shown, ino)? {
            return Ok(found.sized.then_some(found.attr));
        }
        if ino == Ino::ROOT {
            return attr(shown, ino, root(shown), 0).map(Some);
        }
        let known = self.inodes.get(ino).ok_or(Errno::ESTALE)?;
        let What::Blob { id, position, .. } = known.what else {
            return attr(shown, ino, known.what, 0).map(Some);
        };
        let directory = self.directory_of(shown, known.parent, &id, position)?;
        let plans = self.plans(shown, known.parent);
        let noted = directory.as_ref().and_then(|directory| plans.size(directory, position as usize));
        let raw = matches!(plans, Plans::Raw);
        let size = match noted {
            None if raw => self.known_size(&id)?,
            noted => noted,
        };
        let Some(size) = size else { return Ok(None) };
        if let Some(directory) = directory.filter(|_| raw) {
            directory.learn(position as usize, size);
        }
        attr(shown, ino, known.what, size).map(Some)
    }

    /// The base's directory in which `id` is at `position`; `None` once the base has moved on.
    pub(super) fn directory_of(
        &self,
        shown: &Shown,
        parent: Ino,
        id: &ObjectId,
        position: u32,
    ) -> Result<Option<Arc<Directory>>, Errno> {
        let directory = self.directory(shown, parent)?;
        Ok(directory
            .filter(|directory| directory.listing().get(position as usize).is_some_and(|entry| entry.id == *id)))
    }

    /// The blob that `ino` shows, or the plain file.
    pub(super) fn bytes_of(&self, shown: &Shown, ino: Ino) -> Result<Bytes, Errno> {
        if let Some(node) = shown.overlay.node(ino)? {
            return match &node.content {
                Content::File(_) => Ok(Bytes::File),
                Content::Blob(id) => Ok(Bytes::Blob(*id)),
                Content::Target(target) => Ok(Bytes::Held(target.to_vec())),
                _ if node.is_directory() => Err(Errno::EISDIR),
                _ => Err(Errno::EINVAL),
            };
        }
        match self.inodes.what(ino).ok_or(Errno::ESTALE)? {
            What::Gitfile => Ok(Bytes::Held(shown.gitfile.clone())),
            What::Directory { .. } | What::Gitlink { .. } => Err(Errno::EISDIR),
            What::Blob { id, .. } => Ok(Bytes::Blob(id)),
            What::Overlay => Err(Errno::ESTALE),
        }
    }

    /// Up to `len` bytes of `ino` from `offset`; fewer only at its end.
    pub fn read(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let begun = Instant::now();
        let id = match self.bytes_of(shown, ino) {
            Ok(Bytes::Blob(id)) => id,
            Ok(Bytes::Held(bytes)) => return Answer::Ready(Ok(slice(&bytes, offset, len))),
            Ok(Bytes::File) => match shown.overlay.read(ino, offset, len) {
                Ok(Some(bytes)) => return Answer::Ready(Ok(bytes)),
                // It became a blob again just now.
                Ok(None) => return self.read(shown, ino, offset, len),
                Err(error) => return Answer::Ready(Err(error.into())),
            },
            Err(errno) => return Answer::Ready(Err(errno)),
        };
        let (held, converted) = match self.content(shown, ino, id) {
            Ok(Made::Raw) => (Some(id), false),
            Ok(Made::Converted(made)) => (Some(made), true),
            Ok(Made::Unknown) => (None, true),
            Err(errno) => return Answer::Ready(Err(errno)),
        };
        match held.map_or(Ok(None), |held| self.store.read_at(&held, offset, len)) {
            Ok(Some(bytes)) => {
                self.hit();
                if offset == 0
                    && let Some(held) = held
                {
                    self.store.touch(&held);
                    if converted {
                        self.store.touch(&id);
                    }
                }
                self.metrics.read_seconds.observe(begun.elapsed().as_secs_f64());
                Answer::Ready(Ok(bytes))
            }
            Ok(None) => {
                self.missed();
                let (fs, shown) = (Arc::clone(self), Arc::clone(shown));
                Answer::wait(async move {
                    let result = if converted {
                        fs.read_converted(&shown, ino, id, offset, len).await
                    } else {
                        fs.hydrated(&shown, ino, id, offset, len).await
                    };
                    if result.is_ok() {
                        // The kernel keeps what it was given: there may be no second read that would note the use.
                        fs.store.touch(&id);
                    }
                    fs.metrics.read_seconds.observe(begun.elapsed().as_secs_f64());
                    result
                })
            }
            Err(error) => {
                tracing::error!(object = %id, "read: {error}");
                Answer::Ready(Err((&error).into()))
            }
        }
    }

    /// Hydrates `id`, which `ino` shows, and reads it.
    pub(super) async fn hydrated(
        &self,
        shown: &Shown,
        ino: Ino,
        id: ObjectId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Errno> {
        let place = match self.inodes.get(ino) {
            Some(known) => match known.what {
                What::Blob { position, .. } => {
                    let directory = self.directory_of(shown, known.parent, &id, position)?;
                    directory.map(|directory| (directory, position as usize))
                }
                _ => None,
            },
            None => None,
        };
        let companions = match (shown.prefetch, &place) {
            (Prefetch::Off, _) | (_, None) => Vec::new(),
            (_, Some((directory, position))) => self.companions(directory, *position, |_| true),
        };
        let want = Want { id, size: place.as_ref().and_then(|(directory, position)| directory.size(*position)) };
        let cause = self.cause(shown, ino);
        // A stored object can be damaged or evicted before it is read; once more is enough, twice would hide a fault.
        for _ in 0..2 {
            match shown.hydrator.hydrate(want, &cause, &companions).wait().await {
                Ok(Landed::Bytes(bytes)) => {
                    if let Some((directory, position)) = &place {
                        directory.learn(*position, bytes.len() as u64);
                    }
                    return Ok(slice(&bytes, offset, len));
                }
                // A tree's entry says blob and its id names something else.
                Ok(Landed::Structure(..)) => return Err(Errno::EIO),
                Ok(Landed::Stored) => {
                    if let Some(bytes) = self.store.read_at(&id, offset, len).map_err(|error| Errno::from(&error))? {
                        return Ok(bytes);
                    }
                }
                Err(error) => return Err(self.failed(shown, &cause.label, id, &error)),
            }
        }
        Err(Errno::EIO)
    }

    /// The target of the symlink `ino`.
    pub fn readlink(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino) -> Answer<Vec<u8>> {
        let node = match shown.overlay.node(ino) {
            Ok(node) => node,
            Err(error) => return Answer::Ready(Err(error.into())),
        };
        match (node, self.inodes.what(ino)) {
            (Some(node), _) if node.is_symlink() => {}
            (None, Some(What::Blob { kind: EntryKind::Symlink, .. })) => {}
            (None, None) => return Answer::Ready(Err(Errno::ESTALE)),
            _ => return Answer::Ready(Err(Errno::EINVAL)),
        }
        let checked = |target: Vec<u8>| {
            if target.len() > TARGET_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(target) }
        };
        // One byte more than fits tells a target that is too long from one that is not.
        match self.read(shown, ino, 0, TARGET_MAX + 1) {
            Answer::Ready(result) => Answer::Ready(result.and_then(checked)),
            Answer::Wait(future) => Answer::wait(async move { future.await.and_then(checked) }),
        }
    }

    /// Calls `add` for each entry of `ino` from `offset` until it returns false.
    /// Needs no sizes and no network.
    pub fn readdir(
        &self,
        shown: &Shown,
        ino: Ino,
        offset: u64,
        mut add: impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<(), Errno> {
        let parent = if ino == Ino::ROOT { ino } else { self.inodes.get(ino).ok_or(Errno::ESTALE)?.parent };
        for (at, name, number) in [(0, &b"."[..], ino), (1, b"..", parent)] {
            let dot = Listed { ino: number, mode: libc::S_IFDIR, name, next: at + 1, source: Source::Dot };
            if offset <= at && !add(&dot) {
                return Ok(());
            }
        }
        if let Some(rows) = shown.overlay.rows(&shown.view, &self.inodes, ino)? {
            let first = rows.rows.partition_point(|row| row.cookie + 3 <= offset);
            if !Self::list_changed((shown, ino, &self.plans(shown, ino)), &rows, first, &mut add) {
                return Ok(());
            }
        } else if let Some(directory) = self.directory(shown, ino)? {
            if offset == 0 && shown.prefetch == Prefetch::OnList {
                self.listed_ahead(shown, ino, &directory);
            }
            let first = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
            let plans = self.plans(shown, ino);
            for position in first..directory.listing().len() {
                if !Self::list_base((shown, ino, &plans), &directory, position, &mut add) {
                    return Ok(());
                }
            }
        }
        if ino == Ino::ROOT && offset < LAST {
            let number = Ino::synthetic(ino, b".git");
            let git = Listed { ino: number, mode: libc::S_IFREG, name: b".git", next: LAST, source: Source::Gitfile };
            add(&git);
        }
        Ok(())
    }

    /// Lists the rows of a changed directory from `first` on; false when `add` had enough.
    fn list_changed(
        here: (&Shown, Ino, &Plans),
        rows: &Rows,
        first: usize,
        add: &mut impl FnMut(&Listed<'_>) -> bool,
    ) -> bool {
        rows.rows[first..].iter().all(|row| match (&row.what, &rows.base) {
            (RowKind::Base(position), Some(directory)) => Self::list_base(here, directory, *position, add),
            (RowKind::Base(_), None) => true,
            (RowKind::Bound { name, ino, kind }, _) => {
                let mode = u32::from(*kind) << 12;
                add(&Listed { ino: *ino, mode, name, next: row.cookie + 3, source: Source::Bound })
            }
        })
    }

    fn list_base(
        (shown, ino, plans): (&Shown, Ino, &Plans),
        directory: &Directory,
        position: usize,
        add: &mut impl FnMut(&Listed<'_>) -> bool,
    ) -> bool {
        let Some(entry) = directory.listing().get(position) else { return true };
        if entry.name.len() > NAME_MAX {
            return true;
        }
        let what = what_of(shown, entry.kind, entry.id, position);
        add(&Listed {
            ino: Ino::of(ino, entry.name, entry.kind, &entry.id),
            mode: base_mode(entry.kind),
            name: entry.name,
            next: position as u64 + 3,
            source: Source::Base { directory, position, what, plans },
        })
    }

    /// Attributes of a listed entry. The caller counts the look-up with
    /// [`Self::count`] when the kernel was given it.
    pub fn listed(&self, shown: &Shown, listed: &Listed<'_>) -> Result<Found, Errno> {
        Ok(match listed.source {
            // The kernel takes nothing but the number and the type.
            Source::Dot => {
                let attr = Attr::base(listed.ino, EntryKind::Directory, 0, 2, shown.overlay.defaults());
                Found { attr, sized: true }
            }
            Source::Gitfile => Found { attr: gitfile_attr(shown, listed.ino), sized: true },
            Source::Base { directory, position, what, plans } => {
                let size = plans.size(directory, position);
                Found { attr: attr(shown, listed.ino, what, size.unwrap_or(0))?, sized: size.is_some() }
            }
            Source::Bound => self.weighed(shown, listed.ino)?.ok_or(Errno::ESTALE)?,
        })
    }

    /// Counts a look-up of an entry given to the kernel by a listing of `parent`.
    pub fn count(&self, shown: &Shown, parent: Ino, listed: &Listed<'_>) {
        match listed.source {
            Source::Dot => {}
            Source::Gitfile => drop(self.inodes.look_up(listed.ino, parent, listed.name, What::Gitfile)),
            Source::Base { what, .. } => drop(self.inodes.look_up(listed.ino, parent, listed.name, what)),
            Source::Bound => {
                let directory = listed.mode == libc::S_IFDIR;
                let what = if directory { unknown_tree() } else { What::Overlay };
                self.inodes.look_up_bound(listed.ino, parent, listed.name, what);
            }
        }
        let _ = shown;
    }

    /// Whether the number of a listed entry is free or its own; where it is not, `lookup` finds the right one.
    pub fn owns_number(&self, parent: Ino, listed: &Listed<'_>) -> bool {
        matches!(listed.source, Source::Bound) || self.inodes.is_free_for(listed.ino, parent, listed.name)
    }

    /// The value of the extended attribute `name`; never hydrates.
    pub fn getxattr(&self, shown: &Shown, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let node = shown.overlay.node(ino)?;
        if !name.starts_with(OWN_XATTRS) {
            let node = node.ok_or(Errno::ENODATA)?;
            let place = node.xattrs.binary_search_by(|(known, _)| (**known).cmp(name));
            return place.map(|at| node.xattrs[at].1.to_vec()).map_err(|_| Errno::ENODATA);
        }
        let what = if ino == Ino::ROOT { root(shown) } else { self.inodes.what(ino).ok_or(Errno::ESTALE)? };
        let (id, blob) = match (node.as_deref().map(|node| &node.content), what) {
            (Some(Content::Tree(id)), _) => (*id, false),
            (Some(Content::Blob(id)), _) => (*id, true),
            (Some(Content::Base) | None, What::Directory { .. }) => {
                (shown.overlay.tree(&shown.view, &self.inodes, ino)?.ok_or(Errno::ENODATA)?, false)
            }
            (None, What::Gitlink { id }) => (id, false),
            (None, What::Blob { id, .. }) => (id, true),
            _ => return Err(Errno::ENODATA),
        };
        match name {
            b"user.larder.oid" => Ok(id.to_string().into_bytes()),
            b"user.larder.hydrated" => {
                let here = !blob
                    || shown.hydrator.holds(&id)
                    || self.store.contains(&id).map_err(|error| Errno::from(&error))?;
                Ok(if here { b"1".to_vec() } else { b"0".to_vec() })
            }
            _ => Err(Errno::ENODATA),
        }
    }

    /// Names of the extended attributes of `ino`, each ended by NUL.
    pub fn listxattr(&self, shown: &Shown, ino: Ino) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        match shown.overlay.node(ino)? {
            Some(node) => {
                if matches!(node.content, Content::Tree(_) | Content::Blob(_) | Content::Base) {
                    names.extend_from_slice(XATTRS);
                }
                for (name, _) in &node.xattrs {
                    names.extend_from_slice(name);
                    names.push(0);
                }
            }
            None if ino == Ino::ROOT => names.extend_from_slice(XATTRS),
            None if self.inodes.what(ino).ok_or(Errno::ESTALE)? == What::Gitfile => {}
            None => names.extend_from_slice(XATTRS),
        }
        Ok(names)
    }

    /// The disk that holds the cache: what is free there is what can still be hydrated.
    pub fn disk(&self) -> Result<rustix::fs::StatVfs, Errno> {
        rustix::fs::statvfs(&self.home).map_err(|error| Errno(error.raw_os_error()))
    }

    /// The path `larder waits` shows.
    pub(super) fn label(&self, shown: &Shown, ino: Ino) -> Vec<u8> {
        [shown.root.as_os_str().as_bytes(), b"/", &self.inodes.path(ino)].concat()
    }

    /// What the base has in the directory `ino`; `None` for one that shows nothing of the base.
    pub(super) fn directory(&self, shown: &Shown, ino: Ino) -> Result<Option<Arc<Directory>>, Errno> {
        Ok(shown.overlay.base(&shown.view, &self.inodes, ino)?)
    }
}

/// Where the bytes of a file come from.
pub(super) enum Bytes {
    /// A blob of the store, hydrated where it is missing.
    Blob(ObjectId),
    /// A plain file of the overlay.
    File,
    /// These.
    Held(Vec<u8>),
}

fn root(shown: &Shown) -> What {
    let generation = shown.view.generation();
    What::Directory { tree: Some(generation.tree.0), generation: generation.generation.0 }
}

fn what_of(shown: &Shown, kind: EntryKind, id: ObjectId, position: usize) -> What {
    match kind {
        EntryKind::Directory => What::Directory { tree: Some(id), generation: shown.view.generation().generation.0 },
        EntryKind::Gitlink => What::Gitlink { id },
        // A packed listing counts its entries in 32 bits.
        _ => What::Blob { kind, id, position: u32::try_from(position).unwrap_or(u32::MAX) },
    }
}

/// What an inode of the overlay is to the table of inodes.
pub(super) fn bound(node: &Node) -> What {
    if node.is_directory() { unknown_tree() } else { What::Overlay }
}

/// A directory whose tree is looked up when it is needed: no generation has the number 0.
fn unknown_tree() -> What {
    What::Directory { tree: None, generation: 0 }
}

fn attr(shown: &Shown, ino: Ino, what: What, size: u64) -> Result<Attr, Errno> {
    let (kind, size, nlink) = match what {
        What::Directory { tree, .. } => {
            let subdirectories = match tree {
                Some(tree) => {
                    let directory = shown.view.directory(&tree).map_err(|error| Errno::from(&error))?;
                    directory.listing().directories()
                }
                None => 0,
            };
            (EntryKind::Directory, 4096, subdirectories.saturating_add(2))
        }
        What::Gitlink { .. } => (EntryKind::Gitlink, 4096, 2),
        What::Blob { kind, .. } => (kind, size, 1),
        What::Gitfile => return Ok(gitfile_attr(shown, ino)),
        What::Overlay => return Err(Errno::ESTALE),
    };
    Ok(Attr::base(ino, kind, size, nlink, shown.overlay.defaults()))
}

fn gitfile_attr(shown: &Shown, ino: Ino) -> Attr {
    Attr::base(ino, EntryKind::File, shown.gitfile.len() as u64, 1, shown.overlay.defaults())
}

/// Where a listing goes on after its last name, the root's `.git`.
const LAST: u64 = 1 << 62;

fn slice(bytes: &[u8], offset: u64, len: usize) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes[start..bytes.len().min(start.saturating_add(len))].to_vec()
}

/// How long the kernel may keep a name, its absence or attributes: until told otherwise.
pub const KEEP: Duration = Duration::from_hours(24);
