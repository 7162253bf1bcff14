//! Names of objects that are not here: what tells Git that the base's blobs exist, without having them.
//!
//! Whenever Git writes a tree (commit, merge, checkout…) in a gitdir with a promisor, it first fetches every blob of the
//! index that it lacks (`cache_tree_update`, `prefetch_cache_entries` in cache-tree.c), which in a lazy mount is all of
//! them. It looks for names alone: a loose object exists if its directory lists it, or if `lstat(2)` finds it. So beside the
//! objects lies a directory in which every blob of the base has a name, a hard link to one symbolic link that leads nowhere.
//! Reading such an object fails like one that is missing, and Git asks its promisor for it.
//!
//! The names are only shown while a command runs that writes trees: `git fsck` would read each of them. `git index-pack`
//! would refuse an object that it is told to be here and cannot read, so a name goes before its object is sent.
//!
//! ```text
//! larder-names/full/xx/…   the names
//! larder-names/empty/      nothing
//! larder-names/current     → full or empty
//! larder-names/odb/xx      → ../current/xx; objects/info/alternates names odb, whose path Git resolves when it starts
//! larder-names/stub.N      symbolic links that lead nowhere, each with some ten thousand names
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use parking_lot::Mutex;

use super::GitdirError;
use super::files::read_small;

/// Hard links of one file that every file system takes; ext4 takes 65,000.
const LINKS: u64 = 30_000;

/// The line in `objects/info/alternates`; relative to `objects`.
const ALTERNATE: &str = "../larder-names/odb";

/// Longest `alternates` that is read.
const ALTERNATES_BYTES: u64 = 1 << 20;

/// The names of one common gitdir.
pub struct Names {
    directory: PathBuf,
    // The stub that takes links, and how many it has. Guards these alone.
    stub: Mutex<(u64, u64)>,
}

impl Names {
    /// Makes what is missing of the directory; nothing is shown.
    pub fn open(common: &Path) -> Result<Self, GitdirError> {
        let directory = common.join("larder-names");
        for sub in (0..=255_u8).map(|byte| format!("full/{byte:02x}")).chain(["empty".into(), "odb".into()]) {
            let path = directory.join(sub);
            fs::create_dir_all(&path).map_err(GitdirError::io(&path))?;
        }
        for byte in 0..=255_u8 {
            let path = directory.join(format!("odb/{byte:02x}"));
            match symlink(format!("../current/{byte:02x}"), &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(GitdirError::io(&path)(error));
                }
                _ => {}
            }
        }
        let names = Self { directory, stub: Mutex::new((0, LINKS)) };
        names.show(false)?;
        let path = common.join("objects/info/alternates");
        let before = read_small(&path, ALTERNATES_BYTES)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&before);
        if !text.lines().any(|line| line == ALTERNATE) {
            let end = if before.is_empty() || before.ends_with(b"\n") { "" } else { "\n" };
            let line = format!("{end}{ALTERNATE}\n");
            let parent = path.parent().unwrap_or(common);
            fs::create_dir_all(parent).map_err(GitdirError::io(parent))?;
            fs::write(&path, [&before[..], line.as_bytes()].concat()).map_err(GitdirError::io(&path))?;
        }
        Ok(names)
    }

    /// Shows the names to Git, or hides them, in one step.
    pub fn show(&self, shown: bool) -> Result<(), GitdirError> {
        let (new, current) = (self.directory.join("current.new"), self.directory.join("current"));
        let _ = fs::remove_file(&new);
        let made = symlink(if shown { "full" } else { "empty" }, &new).and_then(|()| fs::rename(&new, &current));
        made.map_err(GitdirError::io(&current))
    }

    /// Gives `ids` names; those that have one keep it.
    pub fn add<'a>(&self, ids: impl IntoIterator<Item = &'a ObjectId>) -> Result<(), GitdirError> {
        for id in ids {
            let path = self.path(id);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            match self.link(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(GitdirError::io(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the name of `id` away, if it has one.
    pub fn remove(&self, id: &ObjectId) -> bool {
        fs::remove_file(self.path(id)).is_ok()
    }

    fn path(&self, id: &ObjectId) -> PathBuf {
        let hex = id.to_string();
        self.directory.join("full").join(&hex[..2]).join(&hex[2..])
    }

    fn link(&self, path: &Path) -> io::Result<()> {
        let mut stub = self.stub.lock();
        loop {
            let source = self.directory.join(format!("stub.{}", stub.0));
            if stub.1 >= LINKS {
                // Another one, with as many links as it had when the daemon ended.
                stub.0 += 1;
                let next = self.directory.join(format!("stub.{}", stub.0));
                match symlink("nowhere", &next) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => stub.1 = next.symlink_metadata()?.nlink(),
                }
                continue;
            }
            // link(2) does not follow symbolic links on Linux.
            fs::hard_link(&source, path)?;
            stub.1 += 1;
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_exist_and_lead_nowhere() {
        let common = tempfile::tempdir().expect("temporary directory");
        let names = Names::open(common.path()).expect("opened");
        let id = ObjectId::from_bytes_or_panic(&[0xab; 20]);
        names.add([&id, &id]).expect("added");
        let path = common.path().join("larder-names/odb/ab").join("ab".repeat(19));
        assert!(path.symlink_metadata().is_err(), "hidden");
        names.show(true).expect("shown");
        assert!(path.symlink_metadata().is_ok());
        assert_eq!(fs::read(&path).expect_err("nothing to read").kind(), io::ErrorKind::NotFound);
        let names = Names::open(common.path()).expect("opened again");
        assert!(path.symlink_metadata().is_err(), "hidden after a restart");
        assert!(names.remove(&id));
        assert!(!names.remove(&id));
        let alternates = fs::read_to_string(common.path().join("objects/info/alternates")).expect("read");
        assert_eq!(alternates, "../larder-names/odb\n");
    }
}
