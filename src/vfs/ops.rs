//! Every file operation as a plain function, testable without a kernel.
//!
//! An [`Answer`] is ready, or a future to be awaited elsewhere: nothing here
//! blocks a thread that answers the kernel. Sizes are always true: where one
//! is not known yet, the answer says so and the kernel asks again with
//! [`Fs::getattr`], which resolves the whole directory at once.

use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gix::ObjectId;
use tokio::sync::watch;

use super::ahead::SizesInARow;
use super::attr::Attr;
use super::errno::Errno;
use super::inode::{Inodes, What};
use crate::config::Prefetch;
use crate::hydrate::{Hydrator, Landed, Owner as For, Want};
use crate::index::ino::Ino;
use crate::index::view::{Directory, View};
use crate::metrics::Metrics;
use crate::store::{EntryKind, Store};

/// Longest name Linux file systems take; longer ones in a tree are not shown.
const NAME_MAX: usize = 255;

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
    fn wait(future: impl Future<Output = Result<T, Errno>> + Send + 'static) -> Self {
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

/// Who owns everything in the mount.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a prepared workspace shows.
pub struct Shown {
    /// The generation.
    pub view: View,
    /// Where its contents come from.
    pub hydrator: Hydrator,
    /// Contents of the root's `.git`.
    pub gitfile: Vec<u8>,
    /// Times of everything in it.
    pub time: SystemTime,
    /// What takes a directory's files along.
    pub prefetch: Prefetch,
    /// Whether the sizes of all its files are being asked for.
    pub learning: watch::Sender<bool>,
    /// For whom it prefetches.
    pub owner: For,
    /// Where it is mounted: what `larder waits` puts before its paths.
    pub root: PathBuf,
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
    /// What it is.
    pub kind: EntryKind,
    /// Its name.
    pub name: &'a [u8],
    /// Where the listing goes on after it.
    pub next: u64,
    what: Option<What>,
    // Where its size is found, for those who ask.
    place: Option<(&'a Directory, usize)>,
}

/// Extended attributes every file has.
const XATTRS: &[u8] = b"user.larder.oid\0user.larder.hydrated\0";

/// One workspace's filesystem.
pub struct Fs {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inodes: Inodes,
    gate: watch::Receiver<Gate>,
    owner: Owner,
    // Where the cache is: its disk is what `df` is told.
    home: PathBuf,
    pub(super) sizes_in_a_row: SizesInARow,
}

impl Fs {
    /// The filesystem that `gate` opens.
    pub fn new(store: Store, metrics: Arc<Metrics>, gate: watch::Receiver<Gate>, owner: Owner, home: PathBuf) -> Self {
        Self {
            store,
            metrics,
            inodes: Inodes::new(What::Gitfile),
            gate,
            owner,
            home,
            sizes_in_a_row: SizesInARow::default(),
        }
    }

    /// Who owns everything.
    pub fn owner(&self) -> Owner {
        self.owner
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
        let directory = self.directory(shown, parent)?.ok_or(Errno::ENOENT)?;
        let (position, entry) = directory.find(name).ok_or(Errno::ENOENT)?;
        let what = what_of(entry.kind, entry.id, position);
        let ino = self.inodes.look_up(Ino::of(parent, name, entry.kind, &entry.id), parent, name, what);
        let size = directory.size(position);
        Ok(Found { attr: attr(shown, ino, what, size.unwrap_or(0))?, sized: size.is_some() })
    }

    /// The kernel forgot `count` look-ups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
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
                    let what = fs.inodes.what(ino).ok_or(Errno::ESTALE)?;
                    attr(&shown, ino, what, size)
                })
            }
        }
    }

    /// Attributes of `ino` when its size is known.
    fn getattr_now(&self, shown: &Shown, ino: Ino) -> Result<Option<Attr>, Errno> {
        if ino == Ino::ROOT {
            return attr(shown, ino, root(shown), 0).map(Some);
        }
        let node = self.inodes.get(ino).ok_or(Errno::ESTALE)?;
        let What::Blob { id, position, .. } = node.what else {
            return attr(shown, ino, node.what, 0).map(Some);
        };
        let directory = self.directory(shown, node.parent)?.ok_or(Errno::ESTALE)?;
        let position = position as usize;
        let size = match directory.size(position) {
            Some(size) => Some(size),
            None => self.known_size(&id)?,
        };
        let Some(size) = size else { return Ok(None) };
        directory.learn(position, size);
        attr(shown, ino, node.what, size).map(Some)
    }

    /// Up to `len` bytes of `ino` from `offset`; fewer only at its end.
    pub fn read(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, offset: u64, len: usize) -> Answer<Vec<u8>> {
        let begun = Instant::now();
        let Some(what) = self.inodes.what(ino) else { return Answer::Ready(Err(Errno::ESTALE)) };
        let id = match what {
            What::Gitfile => return Answer::Ready(Ok(slice(&shown.gitfile, offset, len))),
            What::Directory { .. } | What::Gitlink { .. } => return Answer::Ready(Err(Errno::EISDIR)),
            What::Blob { id, .. } => id,
        };
        match self.store.read_at(&id, offset, len) {
            Ok(Some(bytes)) => {
                self.metrics.hits.inc();
                if offset == 0 {
                    self.store.touch(&id);
                }
                self.metrics.read_seconds.observe(begun.elapsed().as_secs_f64());
                Answer::Ready(Ok(bytes))
            }
            Ok(None) => {
                self.metrics.misses.inc();
                let (fs, shown) = (Arc::clone(self), Arc::clone(shown));
                Answer::wait(async move {
                    let result = fs.hydrated(&shown, ino, offset, len).await;
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

    /// Hydrates `ino` and reads it.
    async fn hydrated(&self, shown: &Shown, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let node = self.inodes.get(ino).ok_or(Errno::ESTALE)?;
        let What::Blob { id, position, .. } = node.what else { return Err(Errno::EINVAL) };
        let directory = self.directory(shown, node.parent)?.ok_or(Errno::ESTALE)?;
        let position = position as usize;
        let companions = match shown.prefetch {
            Prefetch::Off => Vec::new(),
            Prefetch::OnRead | Prefetch::OnList => self.companions(&directory, position, |_| true),
        };
        let want = Want { id, size: directory.size(position) };
        let path = self.label(shown, ino);
        // A stored object can be damaged or evicted before it is read; once more is enough, twice would hide a fault.
        for _ in 0..2 {
            match shown.hydrator.hydrate(want, &path, shown.owner, &companions).wait().await {
                Ok(Landed::Bytes(bytes)) => {
                    directory.learn(position, bytes.len() as u64);
                    return Ok(slice(&bytes, offset, len));
                }
                Ok(Landed::Stored) => {
                    if let Some(bytes) = self.store.read_at(&id, offset, len).map_err(|error| Errno::from(&error))? {
                        return Ok(bytes);
                    }
                }
                Err(error) => {
                    tracing::warn!(object = %id, path = %String::from_utf8_lossy(&path), kind = ?error.kind, "{error}");
                    return Err((&error).into());
                }
            }
        }
        Err(Errno::EIO)
    }

    /// The target of the symlink `ino`.
    pub fn readlink(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino) -> Answer<Vec<u8>> {
        match self.inodes.what(ino) {
            Some(What::Blob { kind: EntryKind::Symlink, .. }) => {}
            Some(_) => return Answer::Ready(Err(Errno::EINVAL)),
            None => return Answer::Ready(Err(Errno::ESTALE)),
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
        let directory = self.directory(shown, ino)?;
        let parent = if ino == Ino::ROOT { ino } else { self.inodes.get(ino).ok_or(Errno::ESTALE)?.parent };
        for (at, name, number) in [(0, &b"."[..], ino), (1, b"..", parent)] {
            let dot = Listed { ino: number, kind: EntryKind::Directory, name, next: at + 1, what: None, place: None };
            if offset <= at && !add(&dot) {
                return Ok(());
            }
        }
        let Some(directory) = directory else { return Ok(()) };
        if offset == 0 && shown.prefetch == Prefetch::OnList {
            Self::listed_ahead(shown, &directory);
        }
        let count = directory.listing().len();
        let first = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        for position in first..count {
            let Some(entry) = directory.listing().get(position) else { break };
            if entry.name.len() > NAME_MAX {
                continue;
            }
            let listed = Listed {
                ino: Ino::of(ino, entry.name, entry.kind, &entry.id),
                kind: entry.kind,
                name: entry.name,
                next: position as u64 + 3,
                what: Some(what_of(entry.kind, entry.id, position)),
                place: Some((&directory, position)),
            };
            if !add(&listed) {
                return Ok(());
            }
        }
        if ino == Ino::ROOT && first <= count {
            let git = Listed {
                ino: Ino::synthetic(ino, b".git"),
                kind: EntryKind::File,
                name: b".git",
                next: count as u64 + 3,
                what: Some(What::Gitfile),
                place: None,
            };
            add(&git);
        }
        Ok(())
    }

    /// Attributes of a listed entry. The caller counts the look-up with
    /// [`Self::count`] when the kernel was given it.
    pub fn listed(shown: &Shown, listed: &Listed<'_>) -> Result<Found, Errno> {
        let size = listed.place.map_or(Some(0), |(directory, position)| directory.size(position));
        let attr = match listed.what {
            // `.` and `..`: the kernel takes nothing but the number and the type.
            None => Attr { ino: listed.ino, kind: listed.kind, size: 0, nlink: 2, time: shown.time },
            Some(what) => attr(shown, listed.ino, what, size.unwrap_or(0))?,
        };
        Ok(Found { attr, sized: size.is_some() })
    }

    /// Counts a look-up of an entry given to the kernel by a listing of `parent`.
    pub fn count(&self, parent: Ino, listed: &Listed<'_>) {
        if let Some(what) = listed.what {
            self.inodes.look_up(listed.ino, parent, listed.name, what);
        }
    }

    /// Whether the number of a listed entry is free or its own; where it is not, `lookup` finds the right one.
    pub fn owns_number(&self, parent: Ino, listed: &Listed<'_>) -> bool {
        self.inodes.is_free_for(listed.ino, parent, listed.name)
    }

    /// The value of the extended attribute `name`; never hydrates.
    pub fn getxattr(&self, shown: &Shown, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let what = if ino == Ino::ROOT { root(shown) } else { self.inodes.what(ino).ok_or(Errno::ESTALE)? };
        let (id, blob) = match what {
            What::Directory { tree } => (tree, false),
            What::Gitlink { id } => (id, false),
            What::Blob { id, .. } => (id, true),
            What::Gitfile => return Err(Errno::ENODATA),
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
    pub fn listxattr(&self, ino: Ino) -> Result<&'static [u8], Errno> {
        if ino == Ino::ROOT {
            return Ok(XATTRS);
        }
        match self.inodes.what(ino).ok_or(Errno::ESTALE)? {
            What::Gitfile => Ok(b""),
            _ => Ok(XATTRS),
        }
    }

    /// The disk that holds the cache: what is free there is what can still be hydrated.
    pub fn disk(&self) -> Result<rustix::fs::StatVfs, Errno> {
        rustix::fs::statvfs(&self.home).map_err(|error| Errno(error.raw_os_error()))
    }

    /// The path `larder waits` shows.
    pub(super) fn label(&self, shown: &Shown, ino: Ino) -> Vec<u8> {
        [shown.root.as_os_str().as_bytes(), b"/", &self.inodes.path(ino)].concat()
    }

    /// The directory `ino` is; `None` for one without entries (a gitlink).
    pub(super) fn directory(&self, shown: &Shown, ino: Ino) -> Result<Option<Arc<Directory>>, Errno> {
        let what = if ino == Ino::ROOT { root(shown) } else { self.inodes.what(ino).ok_or(Errno::ESTALE)? };
        match what {
            What::Directory { tree } => shown.view.directory(&tree).map(Some).map_err(|error| {
                tracing::error!(tree = %tree, "{error}");
                (&error).into()
            }),
            What::Gitlink { .. } => Ok(None),
            What::Blob { .. } | What::Gitfile => Err(Errno::ENOTDIR),
        }
    }
}

fn root(shown: &Shown) -> What {
    What::Directory { tree: shown.view.generation().tree.0 }
}

fn what_of(kind: EntryKind, id: ObjectId, position: usize) -> What {
    match kind {
        EntryKind::Directory => What::Directory { tree: id },
        EntryKind::Gitlink => What::Gitlink { id },
        // A packed listing counts its entries in 32 bits.
        _ => What::Blob { kind, id, position: u32::try_from(position).unwrap_or(u32::MAX) },
    }
}

fn attr(shown: &Shown, ino: Ino, what: What, size: u64) -> Result<Attr, Errno> {
    let (kind, size, nlink) = match what {
        What::Directory { tree } => {
            let directory = shown.view.directory(&tree).map_err(|error| Errno::from(&error))?;
            (EntryKind::Directory, 4096, directory.listing().directories().saturating_add(2))
        }
        What::Gitlink { .. } => (EntryKind::Gitlink, 4096, 2),
        What::Blob { kind, .. } => (kind, size, 1),
        What::Gitfile => return Ok(gitfile_attr(shown, ino)),
    };
    Ok(Attr { ino, kind, size, nlink, time: shown.time })
}

fn gitfile_attr(shown: &Shown, ino: Ino) -> Attr {
    Attr { ino, kind: EntryKind::File, size: shown.gitfile.len() as u64, nlink: 1, time: shown.time }
}

fn slice(bytes: &[u8], offset: u64, len: usize) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes[start..bytes.len().min(start.saturating_add(len))].to_vec()
}

/// How long the kernel may keep a name, its absence or attributes: until told otherwise.
pub const KEEP: Duration = Duration::from_hours(24);
