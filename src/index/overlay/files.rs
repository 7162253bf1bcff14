//! The plain files that hold what users wrote, by number.
//!
//! A number is given to one file ever, so a file found under it is the right one. A few stay open, because small writes
//! come in rows.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

/// Directories that the files are spread over.
const SPREAD: u64 = 256;

/// Files kept open in each of the two halves.
const OPEN_FILES: usize = 128;

/// Longest wait for files to be removed.
const REMOVAL_LIMIT: Duration = Duration::from_secs(2);

/// The files of one workspace.
pub struct Files {
    directory: PathBuf,
    // Guards the handles alone; never held while a file is opened.
    open: Mutex<Open>,
    /// Files to remove, off the threads that answer the kernel: removing a large one takes long.
    removing: Sender<Removal>,
}

/// What the thread that removes files is told.
enum Removal {
    /// Remove this.
    File(PathBuf),
    /// Say when all before it is done.
    Told(Sender<()>),
}

#[derive(Default)]
struct Open {
    young: HashMap<u64, Arc<File>>,
    old: HashMap<u64, Arc<File>>,
}

/// Where file `number` is among those in `directory`, if it has any byte.
pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{:02x}/{number}", number % SPREAD))
}

impl Files {
    /// The files in `directory`, which is made where it is missing.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let (removing, removed) = channel::<Removal>();
        // Ends with the sender. What it did not come to is removed at the next start.
        std::thread::Builder::new().name("remove-files".into()).spawn(move || {
            for removal in removed {
                let path = match removal {
                    Removal::File(path) => path,
                    Removal::Told(done) => {
                        let _ = done.send(());
                        continue;
                    }
                };
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), "not removed: {error}");
                }
            }
        })?;
        Ok(Self { directory: directory.to_owned(), open: Mutex::default(), removing })
    }

    /// Where file `number` is, if it has any byte.
    pub fn path(&self, number: u64) -> PathBuf {
        path(&self.directory, number)
    }

    /// The file `number`; `None`: nothing was ever written to it.
    pub fn get(&self, number: u64) -> io::Result<Option<Arc<File>>> {
        if let Some(file) = self.cached(number) {
            return Ok(Some(file));
        }
        match Self::options().open(self.path(number)) {
            Ok(file) => Ok(Some(self.keep(number, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file `number`, made when it is missing.
    pub fn create(&self, number: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.cached(number) {
            return Ok(file);
        }
        let path = self.path(number);
        let open = || Self::options().create(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let part = path.parent().unwrap_or(&self.directory);
                DirBuilder::new().recursive(true).mode(0o700).create(part)?;
                open()?
            }
            other => other?,
        };
        Ok(self.keep(number, file))
    }

    /// Removes file `number`, soon.
    pub(super) fn remove(&self, number: u64) {
        let mut open = self.open.lock();
        open.young.remove(&number);
        open.old.remove(&number);
        drop(open);
        // The other end lives as long as this one.
        let _ = self.removing.send(Removal::File(self.path(number)));
    }

    /// Waits until what was to be removed is gone, within limits: its room is needed.
    pub(super) fn wait_for_removals(&self) {
        let (done, told) = channel();
        if self.removing.send(Removal::Told(done)).is_ok() {
            let _ = told.recv_timeout(REMOVAL_LIMIT);
        }
    }

    /// Removes file `number`, now.
    pub(super) fn remove_now(&self, number: u64) {
        if let Err(error) = std::fs::remove_file(self.path(number)) {
            tracing::warn!(number, "a stray file is still there: {error}");
        }
    }

    /// The numbers of all files.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for part in std::fs::read_dir(&self.directory)? {
            for entry in std::fs::read_dir(part?.path())? {
                numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
            }
        }
        Ok(numbers)
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options
    }

    fn cached(&self, number: u64) -> Option<Arc<File>> {
        let mut open = self.open.lock();
        if let Some(file) = open.young.get(&number) {
            return Some(Arc::clone(file));
        }
        let file = open.old.remove(&number)?;
        open.insert(number, &file);
        Some(file)
    }

    fn keep(&self, number: u64, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.open.lock().insert(number, &file);
        file
    }
}

impl Open {
    fn insert(&mut self, number: u64, file: &Arc<File>) {
        if self.young.len() >= OPEN_FILES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, Arc::clone(file));
    }
}
