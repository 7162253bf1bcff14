//! Hearing that HEAD may lead elsewhere, from the kernel (inotify), without polling.
//!
//! Watches directories, not files, because Git replaces files by renaming: the
//! entry's own directory for `HEAD`, the directories on the way to the ref
//! that HEAD names, and the common gitdir for `packed-refs`. That is what the
//! commit depends on, so the number of watches is the depth of a branch's
//! name, however many branches there are. Directories that are not there yet
//! are waited for in the one above.
//!
//! Invariant: watches are set before HEAD is read, so a move between the two
//! is heard. It says only "look again"; an overflow of the kernel's queue says so too.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::files::read_small;
use super::head::place_of;
use super::refs::{RefValue, parse_ref};

/// Room for the events of one read: a few dozen, each with a name.
const EVENT_BYTES: usize = 16 << 10;

/// Longest chain of symbolic refs that is followed, as in Git.
const SYMBOLIC_DEPTH: usize = 5;

/// Watches on the files that decide what HEAD leads to.
pub struct HeadWatch {
    common: PathBuf,
    admin: PathBuf,
    inotify: OwnedFd,
    /// By watch: the directory, and the names in it that matter.
    watches: HashMap<i32, (PathBuf, Vec<OsString>)>,
}

impl HeadWatch {
    /// Starts to listen for the entry `admin` of the gitdir `common`.
    pub fn new(common: &Path, admin: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let (common, admin) = (common.to_owned(), admin.to_owned());
        let mut watch = Self { common, admin, inotify, watches: HashMap::new() };
        watch.arm()?;
        Ok(watch)
    }

    /// How many directories are watched.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether nothing is watched: the gitdir is gone.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Makes the watches fit what HEAD names now. To be called before HEAD is read, after every [`Self::drain`].
    pub fn arm(&mut self) -> io::Result<()> {
        let before = std::mem::take(&mut self.watches);
        for (directory, name) in self.wanted() {
            let flags = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, &directory, flags) {
                // The kernel gives the same directory the same number.
                Ok(watch) => self.watches.entry(watch).or_insert_with(|| (directory, Vec::new())).1.push(name),
                // Gone since it was looked for: the directory above is watched too, and tells.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for watch in before.keys().filter(|watch| !self.watches.contains_key(watch)) {
            // One whose directory is gone has gone with it.
            let _ = inotify::remove_watch(&self.inotify, *watch);
        }
        Ok(())
    }

    /// Takes all events that are there. Whether one of them can have changed what HEAD leads to.
    pub fn drain(&mut self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut relevant = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(relevant),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let whole = ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let wanted = self.watches.get(&event.wd());
            // An event of a watch that was given up meanwhile is no news, unless it is about everything.
            relevant |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                || wanted.is_some_and(|(_, names)| {
                    event.events().intersects(whole) || name.is_some_and(|name| names.iter().any(|known| known == name))
                });
        }
    }

    /// Directories and, in each, a name that matters. The files are looked at; what they can't tell is left out.
    fn wanted(&self) -> Vec<(PathBuf, OsString)> {
        let mut wanted =
            vec![(self.admin.clone(), OsString::from("HEAD")), (self.common.clone(), OsString::from("packed-refs"))];
        let mut file = self.admin.join("HEAD");
        for _ in 0..SYMBOLIC_DEPTH {
            let content = read_small(&file, 64 << 10).ok().flatten();
            let Some(RefValue::Symbolic(target)) = content.as_deref().and_then(parse_ref) else { break };
            let target = String::from_utf8_lossy(&target).into_owned();
            let place = place_of(&self.common, &self.admin, &target);
            let mut directory = place.to_owned();
            for name in target.split('/') {
                wanted.push((directory.clone(), OsString::from(name)));
                directory.push(name);
            }
            file = directory;
        }
        wanted
    }
}

impl AsFd for HeadWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl std::os::fd::AsRawFd for HeadWatch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.inotify.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        watch: HeadWatch,
    }

    impl Place {
        fn new(head: &str) -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            let admin = dir.path().join("worktrees/w");
            fs::create_dir_all(&admin).expect("created");
            fs::create_dir_all(dir.path().join("refs/heads")).expect("created");
            fs::write(admin.join("HEAD"), head).expect("written");
            let watch = HeadWatch::new(dir.path(), &admin).expect("watched");
            Self { dir, watch }
        }

        /// Writes as Git does: a lock, renamed.
        fn put(&self, name: &str, content: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().expect("inside")).expect("created");
            let lock = path.with_extension("lock");
            fs::write(&lock, content).expect("written");
            fs::rename(lock, path).expect("renamed");
        }

        fn heard(&mut self) -> bool {
            let heard = self.watch.drain().expect("readable");
            self.watch.arm().expect("armed");
            heard
        }
    }

    const ID: &str = "1111111111111111111111111111111111111111\n";

    #[test]
    fn what_matters_is_heard_and_nothing_else() {
        let mut place = Place::new("ref: refs/heads/main\n");
        assert!(!place.heard());
        for (file, matters) in [
            ("worktrees/w/index", false),
            ("FETCH_HEAD", false),
            ("refs/heads/other", false),
            ("refs/heads/main", true),
            ("packed-refs", true),
            ("worktrees/w/HEAD", true),
        ] {
            place.put(file, ID);
            assert_eq!(place.heard(), matters, "{file}");
        }
        // Detached now: the branch is of no interest any more.
        place.put("refs/heads/main", ID);
        assert!(!place.heard());
        assert_eq!(place.watch.len(), 2);
    }

    #[test]
    fn a_branch_in_directories_that_come_and_go_is_followed() {
        let mut place = Place::new("ref: refs/heads/a/b/c\n");
        place.put("refs/heads/a/b/c", ID);
        assert!(place.heard());
        place.put("refs/heads/a/b/c", ID);
        assert!(place.heard());
        fs::remove_dir_all(place.dir.path().join("refs/heads/a")).expect("removed");
        assert!(place.heard());
        place.put("refs/heads/a/b/c", ID);
        assert!(place.heard());
        place.put("refs/heads/a/b/c", ID);
        assert!(place.heard(), "the new directories are watched");
        fs::rename(place.dir.path().join("refs"), place.dir.path().join("old")).expect("renamed");
        assert!(place.heard());
        place.put("refs/heads/a/b/c", ID);
        assert!(place.heard());
    }

    #[test]
    fn an_overflow_means_look() {
        let mut place = Place::new(ID);
        let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
            .expect("readable")
            .trim()
            .parse()
            .expect("a number");
        let names = [place.dir.path().join("x"), place.dir.path().join("y")];
        for at in 0..limit + 16 {
            // Alike events that follow each other count once, so two names take turns.
            fs::write(&names[at % 2], "").expect("written");
        }
        assert!(place.heard());
    }
}
