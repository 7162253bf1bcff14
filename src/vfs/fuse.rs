//! The adapter to FUSE: the one place that names fuser.
//!
//! Answers that are ready are sent from the session's thread; those that must
//! wait move their reply to a task, so one slow request never holds up
//! another. Opens are answered `ENOSYS` once, after which the kernel opens,
//! reads and lists from its caches without asking (FUSE protocol,
//! `FUSE_NO_OPEN_SUPPORT`, `FUSE_NO_OPENDIR_SUPPORT`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session, SessionACL,
};
use tokio::runtime::Handle;

use super::attr::Attr;
use super::errno::Errno;
use super::interrupt::interrupted;
use super::ops::{Answer, Found, Fs, KEEP, Shown};
use super::{latency, mount};
use crate::index::ino::Ino;
use crate::store::EntryKind;

/// Not kept by the kernel at all.
const NOT: Duration = Duration::ZERO;

/// Inode numbers are never given to other files, so one generation of them serves.
const GENERATION: Generation = Generation(0);

/// Where and how to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Shown as the source in the mount table; tells our mounts from others.
    pub source: String,
    /// Whether users other than the owner may look in.
    pub allow_other: bool,
    /// Threads that answer the kernel.
    pub threads: usize,
    /// Whether directory listings carry attributes along.
    pub readdirplus: bool,
}

/// A mounted filesystem. Dropping it unmounts nothing: its threads serve until the kernel lets go.
pub struct Mounted {
    session: BackgroundSession,
}

impl Mounted {
    /// Mounts `fs` on `path`, read-only. Waiting requests run on `runtime`.
    pub fn new(fs: Arc<Fs>, path: &Path, options: &MountOptions, runtime: Handle) -> io::Result<Self> {
        // Without `default_permissions`: everything is readable by all who may look in at all, nothing can be written,
        // and the kernel would ask for attributes, and so for sizes, before each open.
        let device = mount::attach(path, &options.source, options.allow_other)?;
        let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        let mut config = Config::default();
        config.n_threads = Some(options.threads.max(1));
        config.clone_fd = options.threads > 1;
        let adapter = Adapter { fs, runtime, readdirplus: options.readdirplus };
        let session = Session::from_fd(adapter, device, acl, config)?.spawn()?;
        mount::widen_read_ahead(path);
        Ok(Self { session })
    }

    /// Whether the kernel let go of the session: unmounted, and no file in it open any more.
    pub fn ended(&self) -> bool {
        self.session.guard.is_finished()
    }
}

struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    readdirplus: bool,
}

impl Adapter {
    /// Runs `operate` as soon as the workspace is prepared, and hands its
    /// result to `reply`: at once where possible, else from a task that ends
    /// early when the caller is signalled.
    fn answer<T: Send + 'static>(
        &self,
        request: &Request,
        operate: impl FnOnce(&Arc<Fs>, &Arc<Shown>) -> Answer<T> + Send + 'static,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        latency::request();
        let waiting = match self.fs.shown() {
            Err(errno) => return reply(Err(errno)),
            Ok(Some(shown)) => match operate(&self.fs, &shown) {
                Answer::Ready(result) => return reply(result),
                Answer::Wait(future) => future,
            },
            Ok(None) => {
                let fs = Arc::clone(&self.fs);
                Box::pin(async move {
                    let shown = fs.prepared().await?;
                    operate(&fs, &shown).get().await
                })
            }
        };
        let pid = request.pid();
        self.runtime.spawn(async move {
            let result = tokio::select! {
                result = waiting => result,
                () = interrupted(pid) => Err(Errno::EINTR),
            };
            reply(result);
        });
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS;
        if self.readdirplus {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
        }
        // What an older kernel can't do only makes it slower.
        let _ = config.add_capabilities(wanted & config.capabilities());
        // Read-ahead of large files may keep both session threads busy; more only queues.
        let _ = config.set_max_background(32);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (Ino(parent.0), name.as_bytes().to_vec());
        let owner = self.fs.owner();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.lookup(shown, parent, &name)),
            move |result| match result {
                Ok(found) => {
                    let attr_ttl = if found.sized { &KEEP } else { &NOT };
                    reply.entry_with_ttls(attr_ttl, &KEEP, &file_attr(&found.attr, owner), GENERATION);
                }
                // Inode 0 tells the kernel to remember that there is none.
                Err(Errno::ENOENT) => reply.entry(&KEEP, &no_entry(), GENERATION),
                Err(errno) => reply.error(errno.into()),
            },
        );
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.fs.forget(Ino(ino.0), count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let (ino, owner) = (Ino(ino.0), self.fs.owner());
        // The mount point itself can be looked at while the workspace is prepared.
        if ino == Ino::ROOT && matches!(self.fs.shown(), Ok(None)) {
            let time = std::time::SystemTime::UNIX_EPOCH;
            let attr = Attr { ino, kind: EntryKind::Directory, size: 4096, nlink: 2, time };
            return reply.attr(&NOT, &file_attr(&attr, owner));
        }
        self.answer(
            request,
            move |fs, shown| fs.getattr(shown, ino),
            move |result| match result {
                Ok(attr) => reply.attr(&KEEP, &file_attr(&attr, owner)),
                Err(errno) => reply.error(errno.into()),
            },
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer(
            request,
            move |fs, shown| fs.readlink(shown, Ino(ino.0)),
            move |result| match result {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno.into()),
            },
        );
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.answer(
            request,
            move |fs, shown| fs.read(shown, Ino(ino.0), offset, size as usize),
            move |result| match result {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno.into()),
            },
        );
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let (fs, directory) = (Arc::clone(&self.fs), Ino(ino.0));
        self.answer(request, shown, move |shown| {
            let filled = shown.and_then(|shown| {
                fs.readdir(&shown, directory, offset, |listed| {
                    let name = OsStr::from_bytes(listed.name);
                    !reply.add(INodeNo(listed.ino.0), listed.next, file_type(listed.kind), name)
                })
            });
            match filled {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno.into()),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (fs, directory, mut reply) = (Arc::clone(&self.fs), Ino(ino.0), reply);
        self.answer(request, shown, move |shown| {
            let filled = shown.and_then(|shown| {
                fs.readdir(&shown, directory, offset, |listed| {
                    let Ok(Found { attr, sized }) = Fs::listed(&shown, listed) else { return false };
                    // A number that another file has, or a size not known yet, is looked up when it is needed.
                    let ttl = if sized && fs.owns_number(directory, listed) { &KEEP } else { &NOT };
                    let (name, attr) = (OsStr::from_bytes(listed.name), file_attr(&attr, fs.owner()));
                    let full = reply.add(INodeNo(listed.ino.0), listed.next, name, ttl, &attr, GENERATION);
                    if !full {
                        fs.count(directory, listed);
                    }
                    !full
                })
            });
            match filled {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno.into()),
            }
        });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let files = match self.fs.shown() {
            Ok(Some(shown)) => shown.view.generation().files,
            _ => 0,
        };
        match self.fs.disk() {
            Ok(disk) => {
                let (size, fragment) = (u32::try_from(disk.f_bsize), u32::try_from(disk.f_frsize));
                let (size, fragment) = (size.unwrap_or(4096), fragment.unwrap_or(4096));
                reply.statfs(disk.f_blocks, disk.f_bfree, disk.f_bavail, files, 0, size, 255, fragment);
            }
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.getxattr(shown, Ino(ino.0), &name)),
            move |result| xattr(reply, size, result.as_deref().map_err(|errno| *errno)),
        );
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, size, self.fs.listxattr(Ino(ino.0)));
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }
}

/// For operations that do all their work while the reply is filled.
fn shown(_fs: &Arc<Fs>, shown: &Arc<Shown>) -> Answer<Arc<Shown>> {
    Answer::Ready(Ok(Arc::clone(shown)))
}

fn xattr(reply: ReplyXattr, size: u32, value: Result<&[u8], Errno>) {
    match value {
        Err(errno) => reply.error(errno.into()),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE.into()),
        Ok(value) => reply.data(value),
    }
}

impl From<Errno> for fuser::Errno {
    fn from(errno: Errno) -> Self {
        Self::from_i32(errno.0)
    }
}

fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File | EntryKind::Executable => FileType::RegularFile,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Directory | EntryKind::Gitlink => FileType::Directory,
    }
}

fn file_attr(attr: &Attr, owner: super::Owner) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks(),
        atime: attr.time,
        mtime: attr.time,
        ctime: attr.time,
        crtime: attr.time,
        kind: file_type(attr.kind),
        perm: attr.permissions(),
        nlink: attr.nlink,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn no_entry() -> FileAttr {
    let time = std::time::SystemTime::UNIX_EPOCH;
    let attr = Attr { ino: Ino(0), kind: EntryKind::File, size: 0, nlink: 0, time };
    file_attr(&attr, super::Owner { uid: 0, gid: 0 })
}
