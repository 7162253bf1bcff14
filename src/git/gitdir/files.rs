//! Files that appear whole: written beside their place under Git's own lock name, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::GitdirError;

/// A file being replaced under Git's `<file>.lock` protocol; dropped unfinished, nothing has changed.
pub(super) struct LockedFile {
    path: PathBuf,
    lock: PathBuf,
    /// A second name of the lock, by which it can be told that it is Larder's.
    mark: Option<PathBuf>,
    file: Option<File>,
}

impl LockedFile {
    /// Takes the lock; fails at once when someone holds it.
    pub(super) fn take(path: &Path) -> Result<Self, GitdirError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(GitdirError::io(parent))?;
        }
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        match OpenOptions::new().write(true).create_new(true).open(&lock) {
            Ok(file) => Ok(Self { path: path.to_owned(), lock, mark: None, file: Some(file) }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(GitdirError::Locked(lock)),
            Err(error) => Err(GitdirError::io(&lock)(error)),
        }
    }

    /// [`Self::take`] for a file that only one thread of one process locks: `mark` is another name for the lock, so
    /// that one left behind by a process that was killed is known for Larder's and taken away.
    pub(super) fn take_marked(path: &Path, mark: &Path) -> Result<Self, GitdirError> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let number = |path: &Path| path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
        if let Some(marked) = number(mark) {
            if number(&lock) == Some(marked) {
                fs::remove_file(&lock).map_err(GitdirError::io(&lock))?;
            }
            fs::remove_file(mark).map_err(GitdirError::io(mark))?;
        }
        let file = OpenOptions::new().write(true).create_new(true).open(mark).map_err(GitdirError::io(mark))?;
        if let Err(error) = fs::hard_link(mark, &lock) {
            let _ = fs::remove_file(mark);
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => GitdirError::Locked(lock),
                _ => GitdirError::io(&lock)(error),
            });
        }
        Ok(Self { path: path.to_owned(), lock, mark: Some(mark.to_owned()), file: Some(file) })
    }

    /// Makes `content` the file's content and lets the lock go. Flushed before the name moves, as Git does with
    /// refs: a power cut must not leave an empty one.
    pub(super) fn commit(mut self, content: &[u8]) -> Result<(), GitdirError> {
        let mut file = self.file.take().expect("taken once, by commit");
        let flushed = file.write_all(content).and_then(|()| file.sync_data());
        let written = flushed.and_then(|()| fs::rename(&self.lock, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&self.lock);
        }
        self.remove_mark();
        written.map_err(GitdirError::io(&self.path))
    }
}

impl LockedFile {
    fn remove_mark(&mut self) {
        if let Some(mark) = self.mark.take() {
            // One that stays is taken away by whoever locks next.
            let _ = fs::remove_file(mark);
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Nothing better can be done about a lock that can't be removed; the next user is told its name.
            let _ = fs::remove_file(&self.lock);
        }
        self.remove_mark();
    }
}

/// The content of a small file; `None` when there is none.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, GitdirError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(GitdirError::io(path)(error)),
    };
    let mut content = Vec::new();
    match file.take(limit + 1).read_to_end(&mut content) {
        Ok(_) if content.len() as u64 > limit => Err(GitdirError::not_a_gitdir(path, "unreasonably large")),
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) => Err(GitdirError::io(path)(error)),
    }
}

/// Renames a directory to a name that must be free.
pub(super) fn rename_to_free_name(from: &Path, to: &Path) -> Result<(), GitdirError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system without that flag: a plain rename still refuses everything but an empty directory.
        Err(rustix::io::Errno::INVAL) if to.symlink_metadata().is_err() => {
            fs::rename(from, to).map_err(GitdirError::io(to))
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::EXIST) => Err(GitdirError::Exists(to.to_owned())),
        Err(error) => Err(GitdirError::io(to)(error.into())),
    }
}
