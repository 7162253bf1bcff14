//! One tree and its open files: does what an operation says, and tells what came of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags, copy_file_range,
    fallocate, lgetxattr, linkat, llistxattr, lremovexattr, lsetxattr, mkdir, open, renameat_with, utimensat,
};

use super::base::LAST_SET_TIME;
use super::ops::{Allocate, How, Op, Rename, SLOTS};
use crate::common::repos::noise;

/// Attributes that a mount answers by itself.
pub const OWN_ATTRIBUTES: &[u8] = b"user.larder.";

/// What came of an operation.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Done,
    Count(usize),
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Stat(Stat),
}

/// What `lstat` says and both sides must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub mode: u32,
    pub owner: (u32, u32),
    /// Not of directories, where file systems differ.
    pub size_and_links: Option<(u64, u64)>,
    /// If an operation set it.
    pub set_time: Option<(i64, i64)>,
}

impl Stat {
    pub fn of(meta: &fs::Metadata) -> Self {
        let set_time = (meta.mtime() < LAST_SET_TIME).then(|| (meta.mtime(), meta.mtime_nsec()));
        let size_and_links = (!meta.is_dir()).then(|| (meta.len(), meta.nlink()));
        Self { mode: meta.mode(), owner: (meta.uid(), meta.gid()), size_and_links, set_time }
    }
}

/// One of the two trees.
pub struct Side {
    root: PathBuf,
    open: [Option<File>; SLOTS],
}

impl Side {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: Default::default() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn close_all(&mut self) {
        self.open = Default::default();
    }

    /// Does it; a failure is its error number.
    pub fn apply(&mut self, op: &Op) -> Result<Seen, i32> {
        let result = match *op {
            Op::Open { slot, path, how } => self.open(slot, path, how),
            Op::Close { slot } => {
                self.open[slot] = None;
                Ok(Seen::Done)
            }
            Op::WriteAt { .. }
            | Op::ReadAt { .. }
            | Op::SetLength { .. }
            | Op::StatOpen { .. }
            | Op::Fsync { .. }
            | Op::Allocate { .. }
            | Op::CopyRange { .. } => self.on_descriptor(op),
            Op::SetAttribute { .. }
            | Op::GetAttribute { .. }
            | Op::RemoveAttribute { .. }
            | Op::ListAttributes { .. } => self.on_attributes(op),
            Op::Unlink { .. }
            | Op::Rmdir { .. }
            | Op::Mkdir { .. }
            | Op::Symlink { .. }
            | Op::Link { .. }
            | Op::Rename { .. } => self.on_names(op),
            _ => self.on_file(op),
        };
        result.map_err(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn open(&mut self, slot: usize, path: &str, how: How) -> io::Result<Seen> {
        let flags = match how {
            How::Read => OFlags::RDONLY,
            How::Write => OFlags::WRONLY,
            How::Both => OFlags::RDWR,
            How::Append => OFlags::RDWR | OFlags::APPEND,
            How::Create => OFlags::RDWR | OFlags::CREATE,
            How::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            How::Truncate => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
        };
        let file = open(self.at(path), flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o666))?;
        self.open[slot] = Some(file.into());
        Ok(Seen::Done)
    }

    fn on_descriptor(&self, op: &Op) -> io::Result<Seen> {
        let (Op::WriteAt { slot, .. }
        | Op::ReadAt { slot, .. }
        | Op::SetLength { slot, .. }
        | Op::StatOpen { slot }
        | Op::Fsync { slot }
        | Op::Allocate { slot, .. }
        | Op::CopyRange { from: slot, .. }) = *op
        else {
            unreachable!("no operation on a descriptor: {op:?}")
        };
        let Some(file) = &self.open[slot] else { return Ok(Seen::Done) };
        match *op {
            Op::WriteAt { at, len, seed, .. } => file.write_all_at(&noise(seed.into(), len), at)?,
            Op::ReadAt { at, len, .. } => return read_at(file, at, len).map(Seen::Bytes),
            Op::SetLength { length, .. } => file.set_len(length)?,
            Op::StatOpen { .. } => return Ok(Seen::Stat(Stat::of(&file.metadata()?))),
            Op::Fsync { .. } => file.sync_all()?,
            Op::Allocate { how, at, length, .. } => {
                let flags = match how {
                    Allocate::Extend => FallocateFlags::empty(),
                    Allocate::KeepSize => FallocateFlags::KEEP_SIZE,
                    Allocate::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    Allocate::Zero => FallocateFlags::ZERO_RANGE,
                };
                fallocate(file, flags, at, length)?;
            }
            Op::CopyRange { to, mut at, mut to_at, length, .. } => {
                let Some(target) = &self.open[to] else { return Ok(Seen::Done) };
                let copied = copy_file_range(file, Some(&mut at), target, Some(&mut to_at), length)?;
                return Ok(Seen::Count(copied));
            }
            _ => unreachable!("filtered above"),
        }
        Ok(Seen::Done)
    }

    fn on_file(&self, op: &Op) -> io::Result<Seen> {
        match *op {
            Op::WriteFile { path, len, seed } => fs::write(self.at(path), noise(seed.into(), len))?,
            Op::AppendFile { path, len, seed } => {
                let file = File::options().append(true).open(self.at(path))?;
                io::Write::write_all(&mut &file, &noise(seed.into(), len))?;
            }
            Op::Assemble { path, ref pieces, seed } => {
                let file = File::options().read(true).write(true).create(true).truncate(true).open(self.at(path))?;
                let mut seen = Vec::new();
                for (number, (at, len)) in pieces.iter().enumerate() {
                    file.write_all_at(&noise(u64::from(seed) + number as u64, *len), *at)?;
                    let mut bytes = vec![0; 9000];
                    let read = file.read_at(&mut bytes, 0)?;
                    seen.extend_from_slice(&bytes[..read]);
                }
                return Ok(Seen::Bytes(seen));
            }
            Op::TruncateFile { path, length } => {
                File::options().write(true).open(self.at(path))?.set_len(length)?;
            }
            Op::ReadFile { path } => return fs::read(self.at(path)).map(Seen::Bytes),
            Op::Stat { path } => return Ok(Seen::Stat(Stat::of(&self.at(path).symlink_metadata()?))),
            Op::ReadLink { path } => {
                return Ok(Seen::Bytes(fs::read_link(self.at(path))?.as_os_str().as_bytes().to_vec()));
            }
            Op::List { path } => {
                let entries = fs::read_dir(self.at(path))?;
                let kind = |entry: &fs::DirEntry| entry.file_type().map(|kind| (kind.is_dir(), kind.is_symlink()));
                let mut names = entries
                    .map(|entry| {
                        let entry = entry?;
                        Ok([entry.file_name().as_bytes(), format!("{:?}", kind(&entry)?).as_bytes()].concat())
                    })
                    .collect::<io::Result<Vec<_>>>()?;
                names.sort();
                return Ok(Seen::Names(names));
            }
            Op::SyncDirectory { path } => File::open(self.at(path))?.sync_all()?,
            Op::Chmod { path, mode } => {
                fs::set_permissions(self.at(path), std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            }
            Op::Utimens { path, seconds, nanoseconds } => {
                let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
                let times = Timestamps { last_access: time, last_modification: time };
                utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?;
                return Ok(Seen::Stat(Stat::of(&self.at(path).symlink_metadata()?)));
            }
            _ => unreachable!("no operation on a file: {op:?}"),
        }
        Ok(Seen::Done)
    }

    fn on_names(&self, op: &Op) -> io::Result<Seen> {
        match *op {
            Op::Unlink { path } => fs::remove_file(self.at(path))?,
            Op::Rmdir { path } => fs::remove_dir(self.at(path))?,
            Op::Mkdir { path, mode } => mkdir(self.at(path), Mode::from_raw_mode(mode))?,
            Op::Symlink { target, path } => std::os::unix::fs::symlink(target, self.at(path))?,
            Op::Link { from, to } => linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())?,
            Op::Rename { from, to, how } => {
                let flags = match how {
                    Rename::Plain => RenameFlags::empty(),
                    Rename::NoReplace => RenameFlags::NOREPLACE,
                    Rename::Exchange => RenameFlags::EXCHANGE,
                };
                renameat_with(CWD, self.at(from), CWD, self.at(to), flags)?;
            }
            _ => unreachable!("no operation on names: {op:?}"),
        }
        Ok(Seen::Done)
    }

    fn on_attributes(&self, op: &Op) -> io::Result<Seen> {
        match *op {
            Op::SetAttribute { path, name, len } => {
                lsetxattr(self.at(path), name, &noise(len as u64, len), XattrFlags::empty())?;
                Ok(Seen::Done)
            }
            Op::GetAttribute { path, name } => Ok(Seen::Bytes(attribute(&self.at(path), name)?)),
            Op::RemoveAttribute { path, name } => {
                lremovexattr(self.at(path), name)?;
                Ok(Seen::Done)
            }
            Op::ListAttributes { path } => Ok(Seen::Names(attribute_names(&self.at(path))?)),
            _ => unreachable!("no operation on attributes: {op:?}"),
        }
    }
}

fn read_at(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// One extended attribute.
pub fn attribute(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = [0; 4096];
    let length = lgetxattr(path, name, &mut value[..])?;
    Ok(value[..length].to_vec())
}

/// The names of those that somebody set.
pub fn attribute_names(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut list = [0; 4096];
    let length = llistxattr(path, &mut list[..])?;
    let names = list[..length].split(|byte| *byte == 0);
    let mut names: Vec<Vec<u8>> = names
        .filter(|name| name.starts_with(b"user.") && !name.starts_with(OWN_ATTRIBUTES))
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}
