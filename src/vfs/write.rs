//! Operations that change something, as plain functions like those of [`super::ops`].
//!
//! Only two of them ever wait for the network: writing into a file of the base, and cutting one to a length other than
//! none, because both need its bytes. Everything else moves references.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use gix::ObjectId;

use super::attr::Attr;
use super::errno::Errno;
use super::ops::{Answer, Bytes, Found, Fs, Shown, bound};
use crate::index::ino::Ino;
use crate::index::overlay::Overlay;
use crate::index::overlay::attributes::{Presence, Set};
use crate::index::overlay::content::Measured;
use crate::index::overlay::names::New;
use crate::index::overlay::rename::{At, Existing};
use crate::store::overlay::Content;

/// Bytes copied at a time when a file is taken over: a few frames of the store.
const COPY_BYTES: usize = 1 << 20;

/// What setattr(9) of the kernel asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Attributes other than the size.
    pub set: Set,
    /// Length in bytes.
    pub size: Option<u64>,
}

impl Fs {
    /// Makes `name` in `parent` and counts a look-up of it.
    pub fn make(&self, shown: &Shown, parent: Ino, name: &[u8], new: New) -> Result<Attr, Errno> {
        let (ino, node) = shown.overlay.make(&shown.view, &self.inodes, parent, name, new)?;
        self.inodes.look_up_bound(ino, parent, name, bound(&node));
        // Nothing was written to it yet: it is what its node says.
        let size = match &node.content {
            Content::Target(target) => target.len() as u64,
            _ if node.is_directory() => 4096,
            _ => 0,
        };
        let plain =
            Measured { size, blocks: size.div_ceil(512), atime: node.atime, mtime: node.mtime, ctime: node.ctime };
        Ok(Attr::node(ino, &node, Some(plain), 0))
    }

    /// Gives `ino` another name and counts a look-up of it.
    pub fn link(&self, shown: &Shown, ino: Ino, parent: Ino, name: &[u8]) -> Result<Found, Errno> {
        let node = shown.overlay.link(&shown.view, &self.inodes, ino, parent, name)?;
        let found = self.weighed(shown, ino)?.ok_or(Errno::ESTALE)?;
        self.inodes.look_up_bound(ino, parent, name, bound(&node));
        Ok(found)
    }

    /// Removes a name of something that is no directory.
    pub fn unlink(&self, shown: &Shown, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        Ok(shown.overlay.unlink(&shown.view, &self.inodes, parent, name)?)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, shown: &Shown, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        Ok(shown.overlay.rmdir(&shown.view, &self.inodes, parent, name)?)
    }

    /// Renames.
    pub fn rename(&self, shown: &Shown, from: At<'_>, to: At<'_>, existing: Existing) -> Result<(), Errno> {
        Ok(shown.overlay.rename(&shown.view, &self.inodes, from, to, existing)?)
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &self,
        shown: &Shown,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        presence: Presence,
    ) -> Result<(), Errno> {
        Ok(shown.overlay.set_xattr(&shown.view, &self.inodes, ino, name, value, presence)?)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, shown: &Shown, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        Ok(shown.overlay.remove_xattr(&shown.view, &self.inodes, ino, name)?)
    }

    /// Changes attributes; the answer's size may be unknown.
    pub fn setattr(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, wanted: Wanted) -> Answer<Found> {
        match self.resize_now(shown, ino, wanted.size) {
            Err(errno) => Answer::Ready(Err(errno)),
            Ok(true) => Answer::Ready(self.finish_setattr(shown, ino, &wanted)),
            Ok(false) => {
                let (fs, shown) = (Arc::clone(self), Arc::clone(shown));
                Answer::wait(async move {
                    let size = wanted.size.unwrap_or(0);
                    fs.with_own_bytes(&shown, ino, |overlay| Ok(overlay.truncate(&fs.inodes, ino, size)?)).await?;
                    // As for taking over: the generation of now.
                    let _held = fs.hold();
                    let shown = fs.shown()?.ok_or(Errno::EIO)?;
                    fs.finish_setattr(&shown, ino, &wanted)
                })
            }
        }
    }

    /// Takes set-user-ID and set-group-ID away from a file that is written to or given away (chown(2), write(2)).
    pub fn drop_privileges(&self, shown: &Shown, ino: Ino) -> Result<(), Errno> {
        // The base has no such file.
        let Some(node) = shown.overlay.node(ino)?.filter(|node| node.is_regular()) else { return Ok(()) };
        let group = if node.mode & libc::S_IXGRP == 0 { 0 } else { libc::S_ISGID };
        let kept = node.mode & !(libc::S_ISUID | group);
        if kept != node.mode {
            let set = Set { mode: Some(kept), ..Set::default() };
            shown.overlay.set(&shown.view, &self.inodes, ino, &set)?;
        }
        Ok(())
    }

    /// Sets the length where that needs no byte of the base; false where it does.
    fn resize_now(&self, shown: &Shown, ino: Ino, size: Option<u64>) -> Result<bool, Errno> {
        let Some(size) = size else { return Ok(true) };
        if ino == Ino::ROOT {
            return Err(Errno::EISDIR);
        }
        match self.bytes_of(shown, ino)? {
            Bytes::File => return Ok(shown.overlay.truncate(&self.inodes, ino, size)?),
            Bytes::Held(_) => return Err(Errno::EPERM),
            Bytes::Blob(_) if size == 0 => shown.overlay.empty(&shown.view, &self.inodes, ino)?,
            Bytes::Blob(_) => return Ok(false),
        }
        Ok(true)
    }

    fn finish_setattr(&self, shown: &Shown, ino: Ino, wanted: &Wanted) -> Result<Found, Errno> {
        // To ask for nothing, as chown(2) with two times -1 does, still is a change.
        if wanted.size.is_none() || !wanted.set.is_empty() {
            shown.overlay.set(&shown.view, &self.inodes, ino, &wanted.set)?;
        }
        self.weighed(shown, ino)?.ok_or(Errno::ESTALE)
    }

    /// Writes `bytes` at `offset`.
    pub fn write(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, offset: u64, bytes: &[u8]) -> Answer<()> {
        match shown.overlay.write(&self.inodes, ino, offset, bytes) {
            Ok(true) => Answer::Ready(Ok(())),
            Ok(false) => {
                let (fs, shown, bytes) = (Arc::clone(self), Arc::clone(shown), bytes.to_vec());
                Answer::wait(async move {
                    fs.with_own_bytes(&shown, ino, |overlay| Ok(overlay.write(&fs.inodes, ino, offset, &bytes)?)).await
                })
            }
            Err(error) => Answer::Ready(Err(error.into())),
        }
    }

    /// Runs `act` on a file whose bytes are taken over first; it answers false if they are not its own.
    async fn with_own_bytes(
        &self,
        shown: &Shown,
        ino: Ino,
        act: impl Fn(&Overlay) -> Result<bool, Errno>,
    ) -> Result<(), Errno> {
        // Given up for an equal blob in between: once is a coincidence, not every time.
        for _ in 0..8 {
            self.copy_up(shown, ino).await?;
            if act(&shown.overlay)? {
                return Ok(());
            }
        }
        Err(Errno::EIO)
    }

    /// fallocate(2).
    pub fn allocate(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, offset: u64, length: u64, mode: u32) -> Answer<()> {
        let (fs, shown) = (Arc::clone(self), Arc::clone(shown));
        // Making room may take the disk a while.
        Answer::wait(async move {
            let act = |overlay: &Overlay| {
                tokio::task::block_in_place(|| Ok(overlay.allocate(&fs.inodes, ino, offset, length, mode)?))
            };
            fs.with_own_bytes(&shown, ino, act).await
        })
    }

    /// Where data or a hole begins at or after `offset` (lseek(2)).
    pub fn seek(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, offset: u64, data: bool) -> Answer<u64> {
        match shown.overlay.seek(ino, offset, data) {
            Ok(None) => {}
            Ok(Some(found)) => return Answer::Ready(Ok(found)),
            Err(error) => return Answer::Ready(Err(error.into())),
        }
        // What the base has is data from the first byte to the last.
        let attr = self.getattr(shown, ino);
        Answer::wait(async move {
            let size = attr.get().await?.size;
            if offset >= size { Err(Errno::ENXIO) } else { Ok(if data { offset } else { size }) }
        })
    }

    /// Makes `ino` durable.
    pub fn sync(self: &Arc<Self>, shown: &Arc<Shown>, ino: Ino, data_only: bool) -> Answer<()> {
        let overlay = Arc::clone(&shown.overlay);
        Answer::wait(async move {
            let synced = tokio::task::spawn_blocking(move || overlay.sync(ino, data_only)).await;
            Ok(synced.map_err(|_| Errno::EIO)??)
        })
    }

    /// Copies the bytes that the base has of `ino` into a plain file, unless they are in one already.
    async fn copy_up(&self, shown: &Shown, ino: Ino) -> Result<(), Errno> {
        let turn = Arc::clone(self.copying.lock().entry(ino).or_default());
        let outcome = {
            let _turn = turn.lock().await;
            match self.bytes_of(shown, ino)? {
                Bytes::File => Ok(()),
                Bytes::Held(_) => Err(Errno::EPERM),
                Bytes::Blob(id) => self.copy_blob(shown, ino, id).await,
            }
        };
        // Whoever comes now finds the file, or begins anew.
        self.copying.lock().remove(&ino);
        outcome
    }

    async fn copy_blob(&self, shown: &Shown, ino: Ino, id: ObjectId) -> Result<(), Errno> {
        // What is taken over is what was shown.
        let id = match self.resolve_converted(shown, ino, id, None).await? {
            Some(converted) => converted.content,
            None => id,
        };
        if !self.store.contains(&id).map_err(|error| Errno::from(&error))? {
            self.hydrated(shown, ino, id, 0, 0).await?;
        }
        let mtime = shown.overlay.node(ino)?.map_or(shown.overlay.defaults().time, |node| node.mtime);
        let (number, mut file) = shown.overlay.prepare()?;
        let copied = self.copy_bytes(shown, ino, id, &mut file).await;
        let copied = copied.and_then(|()| Ok(Overlay::stamp(&file, mtime, mtime)?));
        if let Err(errno) = copied {
            shown.overlay.abandon(number);
            return Err(errno);
        }
        // The workspace may show another generation by now, and must not get one in between.
        let _held = self.hold();
        let shown = self.shown()?.ok_or(Errno::EIO)?;
        shown.overlay.take_over(&shown.view, &self.inodes, ino, number)?;
        Ok(())
    }

    async fn copy_bytes(
        &self,
        shown: &Shown,
        ino: Ino,
        id: ObjectId,
        file: &mut Arc<std::fs::File>,
    ) -> Result<(), Errno> {
        let mut offset = 0;
        loop {
            let stored = tokio::task::block_in_place(|| self.store.read_at(&id, offset, COPY_BYTES));
            let bytes = match stored.map_err(|error| Errno::from(&error))? {
                Some(bytes) => bytes,
                // Evicted or found damaged on the way.
                None => self.hydrated(shown, ino, id, offset, COPY_BYTES).await?,
            };
            tokio::task::block_in_place(|| file.write_all_at(&bytes, offset))
                .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
            offset += bytes.len() as u64;
            if bytes.len() < COPY_BYTES {
                return Ok(());
            }
        }
    }
}
