//! An index made ready before anything else of a switch happens, so that a crash can be finished.
//!
//! One file under two names: Larder's own, and Git's `index.lock`, made by a
//! hard link. So whether a lock is Larder's is a fact of the file system, and
//! no Git process touches the index from when it was read until it is replaced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::IndexFileError;

/// Larder's name for it.
const OWN_NAME: &str = "larder-switch-index";

/// A lock on the index with the file that is to replace it; dropped, nothing has changed.
pub struct PreparedIndex {
    admin: PathBuf,
    file: File,
    kept: bool,
}

impl PreparedIndex {
    /// Takes Git's lock on the index of `admin`. What an earlier attempt left behind is taken away first.
    pub fn take(admin: &Path) -> Result<Self, IndexFileError> {
        Self::discard(admin)?;
        let own = admin.join(OWN_NAME);
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(&own);
        let file = created.map_err(|source| IndexFileError::Io { path: own.clone(), source })?;
        let lock = admin.join("index.lock");
        if let Err(source) = fs::hard_link(&own, &lock) {
            let _ = fs::remove_file(&own);
            return Err(match source.kind() {
                io::ErrorKind::AlreadyExists => IndexFileError::Locked(lock),
                _ => IndexFileError::Io { path: lock, source },
            });
        }
        Ok(Self { admin: admin.to_owned(), file, kept: false })
    }

    /// The file to write the index into.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Lets lock and file outlive this value: whoever keeps them has written down that [`Self::publish`] follows.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Puts a kept index in place, as far as that has not happened yet.
    pub fn publish(admin: &Path) -> Result<(), IndexFileError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| IndexFileError::Io { path, source }
        };
        let (own, lock, index) = (admin.join(OWN_NAME), admin.join("index.lock"), admin.join("index"));
        if same(&own, &lock) {
            fs::rename(&lock, &index).map_err(failed(&index))?;
        }
        remove(&own)
    }

    /// Takes away what an attempt left behind that changed nothing.
    pub fn discard(admin: &Path) -> Result<(), IndexFileError> {
        let (own, lock) = (admin.join(OWN_NAME), admin.join("index.lock"));
        if same(&own, &lock) {
            remove(&lock)?;
        }
        remove(&own)
    }
}

impl Drop for PreparedIndex {
    fn drop(&mut self) {
        if !self.kept {
            // What can't be removed now is when the next switch begins.
            let _ = Self::discard(&self.admin);
        }
    }
}

fn same(a: &Path, b: &Path) -> bool {
    let number = |path: &Path| path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
    number(a).is_some_and(|found| number(b) == Some(found))
}

fn remove(path: &Path) -> Result<(), IndexFileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(IndexFileError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(admin: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(admin)
            .expect("listed")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("ASCII"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_lock_of_gits_is_respected_and_one_of_ours_taken_away() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let admin = dir.path();
        fs::write(admin.join("index"), "old").expect("written");
        let prepared = PreparedIndex::take(admin).expect("free");
        assert_eq!(names(admin), ["index", "index.lock", OWN_NAME]);
        drop(prepared);
        assert_eq!(names(admin), ["index"]);
        PreparedIndex::take(admin).expect("free").keep();
        PreparedIndex::take(admin).expect("what a crash left is ours");
        fs::write(admin.join("index.lock"), "").expect("written");
        assert!(matches!(PreparedIndex::take(admin), Err(IndexFileError::Locked(_))));
        PreparedIndex::publish(admin).expect("nothing to do");
        assert_eq!(fs::read(admin.join("index")).expect("there"), b"old");
        assert_eq!(names(admin), ["index", "index.lock"]);
    }

    #[test]
    fn publishing_can_be_repeated() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let admin = dir.path();
        let prepared = PreparedIndex::take(admin).expect("free");
        prepared.file().write_all(b"new").expect("written");
        prepared.keep();
        for _ in 0..2 {
            PreparedIndex::publish(admin).expect("published");
            assert_eq!(fs::read(admin.join("index")).expect("there"), b"new");
            assert_eq!(names(admin), ["index"]);
        }
        // Cut off between the two steps.
        fs::hard_link(admin.join("index"), admin.join(OWN_NAME)).expect("linked");
        PreparedIndex::publish(admin).expect("published");
        assert_eq!(names(admin), ["index"]);
    }
}
