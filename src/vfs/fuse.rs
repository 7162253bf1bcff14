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
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::abilities::{self, Ability};
use super::attr::{Attr, kept, stamp_of, system_time};
use super::caller::{CALLER, Caller};
use super::errno::Errno;
use super::interrupt::interrupted;
use super::ops::{Answer, Found, Fs, KEEP, Listed, Shown};
use super::write::Wanted;
use super::{latency, mount};
use crate::index::ino::Ino;
use crate::index::overlay::attributes::{Presence, Set};
use crate::index::overlay::names::New;
use crate::index::overlay::rename::{At, Existing};
use crate::index::overlay::{Defaults, now};
use crate::store::overlay::Stamp;
use crate::store::{EntryKind, Operation};

/// Not kept by the kernel at all.
const NOT: Duration = Duration::ZERO;

/// Inode numbers are never given to other files, so one generation of them serves.
const GENERATION: Generation = Generation(0);

/// What is asked of the kernel, and how it is called where people read it.
const ABILITIES: &[(InitFlags, Ability)] = &[
    (InitFlags::FUSE_NO_OPEN_SUPPORT, abilities::NO_OPEN),
    (InitFlags::FUSE_NO_OPENDIR_SUPPORT, abilities::NO_OPENDIR),
    (InitFlags::FUSE_PARALLEL_DIROPS, abilities::PARALLEL_DIROPS),
    (InitFlags::FUSE_CACHE_SYMLINKS, abilities::CACHE_SYMLINKS),
    (InitFlags::FUSE_DO_READDIRPLUS.union(InitFlags::FUSE_READDIRPLUS_AUTO), abilities::READDIRPLUS),
    // Otherwise the kernel asks for `security.capability` before each write, not the first alone.
    (InitFlags::FUSE_HANDLE_KILLPRIV_V2, abilities::KILLPRIV),
];

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
    /// Whether writing is refused (`EROFS`).
    pub read_only: bool,
}

/// A mounted filesystem. Dropping it unmounts nothing: its threads serve until the kernel lets go.
pub struct Mounted {
    session: BackgroundSession,
}

/// Makes the kernel forget. Never used from a thread that answers the kernel, nor while the generation is held: each call
/// may wait for an answer.
#[derive(Clone)]
pub struct Forgetter(Notifier);

impl Forgetter {
    /// Forgets what `name` in `parent` leads to, or that it leads nowhere.
    pub fn name(&self, parent: Ino, name: &[u8]) {
        // What the kernel does not know it need not forget.
        let _ = self.0.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name));
    }

    /// Forgets attributes and listing or bytes of `ino`.
    pub fn inode(&self, ino: Ino) {
        let _ = self.0.inval_inode(INodeNo(ino.0), 0, 0);
    }

    /// Forgets the attributes alone.
    pub fn attributes(&self, ino: Ino) {
        let _ = self.0.inval_inode(INodeNo(ino.0), -1, 0);
    }
}

impl Mounted {
    /// What makes the kernel forget things of this mount.
    pub fn forgetter(&self) -> Forgetter {
        Forgetter(self.session.notifier())
    }

    /// Mounts `fs` on `path`. Waiting requests run on `runtime`.
    pub fn new(fs: Arc<Fs>, path: &Path, options: &MountOptions, runtime: Handle) -> io::Result<Self> {
        let device = mount::attach(path, &options.source, options.allow_other, options.read_only)?;
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
        self.answer_to(request, Operation::Stat, operate, reply);
    }

    /// As [`Self::answer`] for what is more than a look at names and attributes.
    fn answer_to<T: Send + 'static>(
        &self,
        request: &Request,
        operation: Operation,
        operate: impl FnOnce(&Arc<Fs>, &Arc<Shown>) -> Answer<T> + Send + 'static,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        latency::request();
        let held = self.fs.hold();
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
        drop(held);
        let pid = request.pid();
        self.runtime.spawn(CALLER.scope(Caller { thread: pid, operation }, async move {
            let result = tokio::select! {
                result = waiting => result,
                () = interrupted(pid) => Err(Errno::EINTR),
            };
            reply(result);
        }));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::empty();
        let mut lacking = Vec::new();
        for (flag, ability) in ABILITIES {
            if self.readdirplus || *ability != abilities::READDIRPLUS {
                wanted |= *flag;
            }
            if !config.capabilities().contains(*flag) {
                lacking.push(*ability);
            }
        }
        let version = config.kernel_abi();
        abilities::note(abilities::Negotiated { version: (version.0, version.1), lacking });
        // What an older kernel can't do only makes it slower.
        let _ = config.add_capabilities(wanted & config.capabilities());
        // Read-ahead of large files may keep both session threads busy; more only queues.
        let _ = config.set_max_background(32);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (Ino(parent.0), name.as_bytes().to_vec());
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.lookup(shown, parent, &name)),
            move |result| match result {
                Ok(found) => {
                    let attr_ttl = if found.sized { &KEEP } else { &NOT };
                    reply.entry_with_ttls(attr_ttl, &KEEP, &file_attr(&found.attr), GENERATION);
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
        let ino = Ino(ino.0);
        // The mount point itself can be looked at while the workspace is prepared.
        if ino == Ino::ROOT && matches!(self.fs.shown(), Ok(None)) {
            return reply.attr(&NOT, &file_attr(&unprepared_root()));
        }
        let pid = request.pid();
        self.answer(
            request,
            move |fs, shown| match fs.getattr(shown, ino) {
                // The kernel checks permissions: who opens a file is not told its size by that.
                Answer::Wait(_) if fs.is_writer(pid) || opens(pid) => {
                    Answer::Ready(fs.attr_without_size(shown, ino).map(|attr| Found { attr, sized: false }))
                }
                Answer::Ready(result) => Answer::Ready(result.map(|attr| Found { attr, sized: true })),
                Answer::Wait(attr) => Answer::wait(async move { attr.await.map(|attr| Found { attr, sized: true }) }),
            },
            move |result| reply_attr(reply, result),
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer_to(
            request,
            Operation::Readlink,
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
        self.answer_to(
            request,
            Operation::Read,
            move |fs, shown| fs.read(shown, Ino(ino.0), offset, size as usize),
            move |result| match result {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno.into()),
            },
        );
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let (fs, directory) = (Arc::clone(&self.fs), Ino(ino.0));
        let caller = Caller { thread: request.pid(), operation: Operation::List };
        self.answer(request, shown, move |shown| {
            let mut add = |listed: &Listed<'_>| {
                let name = OsStr::from_bytes(listed.name);
                !reply.add(INodeNo(listed.ino.0), listed.next, file_type(listed.mode), name)
            };
            let list = |shown: Arc<Shown>| fs.readdir(&shown, directory, offset, &mut add);
            let filled = CALLER.sync_scope(caller, || shown.and_then(list));
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
        let caller = Caller { thread: request.pid(), operation: Operation::List };
        self.answer(request, shown, move |shown| {
            let mut list = |shown: Arc<Shown>| {
                fs.readdir(&shown, directory, offset, |listed| {
                    // Unlinked since the listing was made, which the next one shows.
                    let Ok(Found { attr, sized }) = fs.listed(&shown, listed) else { return true };
                    // A number that another file has, or a size not known yet, is looked up when it is needed.
                    let ttl = if sized && fs.owns_number(directory, listed) { &KEEP } else { &NOT };
                    let (name, attr) = (OsStr::from_bytes(listed.name), file_attr(&attr));
                    let full = reply.add(INodeNo(listed.ino.0), listed.next, name, ttl, &attr, GENERATION);
                    if !full {
                        fs.count(&shown, directory, listed);
                    }
                    !full
                })
            };
            let filled = CALLER.sync_scope(caller, || shown.and_then(&mut list));
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
                // As many files can be made as the disk can hold: each that is written to is one there.
                let (free, files) = (disk.f_favail, files.saturating_add(disk.f_favail));
                reply.statfs(disk.f_blocks, disk.f_bfree, disk.f_bavail, files, free, size, 255, fragment);
            }
            Err(errno) => reply.error(errno.into()),
        }
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        // The kernel asks for this before the first write to each file.
        if name.as_bytes() == b"security.capability" {
            return reply.error(Errno::ENODATA.into());
        }
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.getxattr(shown, Ino(ino.0), &name)),
            move |result| xattr(reply, size, result.as_deref().map_err(|errno| *errno)),
        );
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.listxattr(shown, Ino(ino.0))),
            move |result| xattr(reply, size, result.as_deref().map_err(|errno| *errno)),
        );
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = Set { mode, uid, gid, atime: atime.map(stamp), mtime: mtime.map(stamp) };
        // What the kernel leaves to us: another owner, or a cut by somebody without privilege, takes set-user-ID away. So does
        // what is left of a request for that alone: nothing.
        let asked = uid.is_some() || gid.is_some() || (size.is_none() && set.is_empty());
        let drops = mode.is_none() && (asked || (size.is_some() && request.uid() != 0));
        self.answer_to(
            request,
            Operation::Write,
            move |fs, shown| {
                if drops && let Err(errno) = fs.drop_privileges(shown, Ino(ino.0)) {
                    return Answer::Ready(Err(errno));
                }
                fs.setattr(shown, Ino(ino.0), Wanted { set, size })
            },
            move |result| reply_attr(reply, result),
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = New { mode, uid: request.uid(), gid: request.gid(), rdev, target: None };
        self.make(request, parent, name, new, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let mode = (mode & !libc::S_IFMT) | libc::S_IFDIR;
        let new = New { mode, uid: request.uid(), gid: request.gid(), rdev: 0, target: None };
        self.make(request, parent, name, new, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = Some(Box::from(target.as_os_str().as_bytes()));
        let new = New { mode: libc::S_IFLNK | 0o777, uid: request.uid(), gid: request.gid(), rdev: 0, target };
        self.make(request, parent, name, new, reply);
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        // The kernel then makes the node and opens it without asking: one request less than this one and its release.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.link(shown, Ino(ino.0), Ino(parent.0), &name)),
            move |result| reply_entry(reply, result),
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.unlink(shown, Ino(parent.0), &name)),
            move |result| reply_empty(reply, result),
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.rmdir(shown, Ino(parent.0), &name)),
            move |result| reply_empty(reply, result),
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let existing = match flags {
            RenameFlags::RENAME_NOREPLACE => Existing::Refuse,
            RenameFlags::RENAME_EXCHANGE => Existing::Exchange,
            flags if flags.is_empty() => Existing::Replace,
            _ => return reply.error(Errno::EINVAL.into()),
        };
        let (name, to_name) = (name.as_bytes().to_vec(), to_name.as_bytes().to_vec());
        self.answer(
            request,
            move |fs, shown| {
                let from = At { parent: Ino(parent.0), name: &name };
                let to = At { parent: Ino(to_parent.0), name: &to_name };
                Answer::Ready(fs.rename(shown, from, to, existing))
            },
            move |result| reply_empty(reply, result),
        );
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        latency::request();
        let held = self.fs.hold();
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let shown = match self.fs.shown() {
            Ok(Some(shown)) => shown,
            // Nothing could be opened before the workspace was prepared.
            Ok(None) => return reply.error(Errno::EIO.into()),
            Err(errno) => return reply.error(errno.into()),
        };
        if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            && let Err(errno) = self.fs.drop_privileges(&shown, Ino(ino.0))
        {
            return reply.error(errno.into());
        }
        // The bytes are the session's: copied only if the write has to wait.
        let waiting = match self.fs.write(&shown, Ino(ino.0), offset, data) {
            Answer::Ready(Ok(())) => return reply.written(written),
            Answer::Ready(Err(errno)) => return reply.error(errno.into()),
            Answer::Wait(future) => future,
        };
        drop(held);
        let pid = request.pid();
        self.runtime.spawn(CALLER.scope(Caller { thread: pid, operation: Operation::Write }, async move {
            let result = tokio::select! {
                result = waiting => result,
                () = interrupted(pid) => Err(Errno::EINTR),
            };
            match result {
                Ok(()) => reply.written(written),
                Err(errno) => reply.error(errno.into()),
            }
        }));
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.answer(
            request,
            move |fs, shown| fs.sync(shown, Ino(ino.0), datasync),
            move |result| reply_empty(reply, result),
        );
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.answer(
            request,
            move |fs, shown| fs.sync(shown, Ino(ino.0), datasync),
            move |result| reply_empty(reply, result),
        );
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.answer_to(
            request,
            Operation::Write,
            move |fs, shown| fs.allocate(shown, Ino(ino.0), offset, length, mode.cast_unsigned()),
            move |result| reply_empty(reply, result),
        );
    }

    fn lseek(&self, request: &Request, ino: INodeNo, _handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO.into()) };
        self.answer(
            request,
            move |fs, shown| fs.seek(shown, Ino(ino.0), offset, whence == libc::SEEK_DATA),
            move |result| match result.map(i64::try_from) {
                Ok(Ok(offset)) => reply.offset(offset),
                Ok(Err(_)) => reply.error(Errno::EINVAL.into()),
                Err(errno) => reply.error(errno.into()),
            },
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let presence = match flags {
            0 => Presence::Any,
            libc::XATTR_CREATE => Presence::Absent,
            libc::XATTR_REPLACE => Presence::Present,
            _ => return reply.error(Errno::EINVAL.into()),
        };
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.setxattr(shown, Ino(ino.0), &name, &value, presence)),
            move |result| reply_empty(reply, result),
        );
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| Answer::Ready(fs.removexattr(shown, Ino(ino.0), &name)),
            move |result| reply_empty(reply, result),
        );
    }
}

impl Adapter {
    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, new: New, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.answer(
            request,
            move |fs, shown| {
                Answer::Ready(fs.make(shown, Ino(parent.0), &name, new).map(|attr| Found { attr, sized: true }))
            },
            move |result| reply_entry(reply, result),
        );
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<Found, Errno>) {
    match result {
        Ok(found) => {
            let attr_ttl = if found.sized { &KEEP } else { &NOT };
            reply.entry_with_ttls(attr_ttl, &KEEP, &file_attr(&found.attr), GENERATION);
        }
        Err(errno) => reply.error(errno.into()),
    }
}

fn reply_attr(reply: ReplyAttr, result: Result<Found, Errno>) {
    match result {
        Ok(found) => reply.attr(if found.sized { &KEEP } else { &NOT }, &file_attr(&found.attr)),
        Err(errno) => reply.error(errno.into()),
    }
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno.into()),
    }
}

fn stamp(time: TimeOrNow) -> Stamp {
    match time {
        TimeOrNow::SpecificTime(time) => kept(given(time)),
        TimeOrNow::Now => now(),
    }
}

/// A time as the kernel gave it. fuser subtracts the nanoseconds of times before 1970, which count forward.
fn given(time: SystemTime) -> Stamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(_) => stamp_of(time),
        Err(before) => {
            let before = before.duration();
            Stamp { seconds: 0_i64.saturating_sub_unsigned(before.as_secs()), nanos: before.subsec_nanos() }
        }
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

fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.ctime),
        kind: file_type(attr.mode),
        // The bits below the type fit 12.
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

fn no_entry() -> FileAttr {
    let defaults = Defaults { uid: 0, gid: 0, time: Stamp::default() };
    file_attr(&Attr::base(Ino(0), EntryKind::File, 0, 0, &defaults))
}

fn unprepared_root() -> Attr {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Attr::base(Ino::ROOT, EntryKind::Directory, 4096, 2, &Defaults { uid, gid, time: Stamp::default() })
}

/// Whether the thread `pid` is opening a file without being told its size by that: for reading, where a read at the end asks
/// again, or to cut it; or whether it only asks for access or extended attributes. The kernel asks for attributes then only to check permissions. An append needs the size. Where
/// `/proc` does not tell (`ptrace(2)`, "access mode checking"), the answer is no, and the size is found out.
fn opens(pid: u32) -> bool {
    let Ok(call) = std::fs::read_to_string(format!("/proc/{pid}/syscall")) else { return false };
    let mut fields = call.split(' ');
    let number = fields.next().and_then(|number| number.parse::<i64>().ok());
    let mut argument = |position: usize| {
        let hex = fields.nth(position)?.strip_prefix("0x")?;
        Some((u64::from_str_radix(hex, 16).ok()? & 0xffff_ffff).try_into().unwrap_or(0_i32))
    };
    let flags = match number {
        Some(libc::SYS_openat) => argument(2),
        #[cfg(target_arch = "x86_64")]
        Some(libc::SYS_open) => argument(1),
        #[cfg(target_arch = "x86_64")]
        Some(libc::SYS_creat) => return true,
        Some(
            libc::SYS_truncate
            | libc::SYS_faccessat
            | libc::SYS_faccessat2
            | libc::SYS_getxattr
            | libc::SYS_lgetxattr
            | libc::SYS_listxattr
            | libc::SYS_llistxattr
            | libc::SYS_setxattr
            | libc::SYS_lsetxattr
            | libc::SYS_removexattr
            | libc::SYS_lremovexattr,
        ) => return true,
        _ => return false,
    };
    flags.is_some_and(|flags| flags & libc::O_TRUNC != 0 || flags & libc::O_ACCMODE == libc::O_RDONLY)
}
