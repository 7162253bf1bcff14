//! How much of history a gitdir has, and the step by which it gets more.
//!
//! Two things have to change together: the packs, and the `shallow` file that
//! says where history ends here. A step is therefore written down first, with
//! its pack in a directory where Git does not look; carrying it out can be
//! repeated until it is done ([`finish_step`]). So a crash at any instant
//! leaves a gitdir whose `shallow` file is true.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::GitdirError;
use super::files::{LockedFile, read_small};
use super::refs::update_shallow;
use crate::store::ObjectIdText;

/// Where a step's pack waits, in the gitdir.
const INCOMING: &str = "larder-incoming";

/// What a step is to do, in [`INCOMING`].
const STEP: &str = "step.json";

/// Largest file of this module that is read: as many ids as a `shallow` file may have.
const FILE_BYTES: u64 = 16 << 20;

/// Commits kept of those whose history became whole; the newest ones serve.
const TIPS: usize = 256;

// Only the daemon writes the state, so its threads need no lock file, which a killed daemon would leave behind.
static WRITING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// What is known and wanted of a gitdir's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Whether the rest is to be fetched in the background.
    pub wanted: bool,
    /// Not now.
    pub paused: bool,
    /// Commits fetched so far.
    pub commits: u64,
    /// Why it was given up.
    pub failed: Option<String>,
    /// Commits below which history is being fetched.
    pub tips: Vec<ObjectIdText>,
    /// Commits whose history is whole here.
    pub whole: Vec<ObjectIdText>,
}

/// What carrying out a step changes besides adding the packs in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Commits that are shallow no more.
    pub unshallow: Vec<ObjectIdText>,
    /// Commits that have become shallow.
    pub shallow: Vec<ObjectIdText>,
    /// Commits fetched with it.
    pub commits: u64,
}

/// Beside the gitdir, not in it: it is written before the gitdir is there.
fn state_path(common: &Path) -> PathBuf {
    let mut path = common.as_os_str().to_owned();
    path.push(".history");
    path.into()
}

/// Reads what is known; nothing is known of a gitdir nobody wanted history of.
pub fn history(common: &Path) -> Result<History, GitdirError> {
    let path = state_path(common);
    let content = read_small(&path, FILE_BYTES)?.unwrap_or_default();
    // A damaged file costs no more than the wish: history is what the gitdir has.
    Ok(serde_json::from_slice(&content).unwrap_or_default())
}

/// Changes what is known and wanted.
pub fn set_history(common: &Path, change: impl FnOnce(&mut History)) -> Result<History, GitdirError> {
    let path = state_path(common);
    let _guard = WRITING.lock();
    let mut state = history(common)?;
    let before = state.clone();
    change(&mut state);
    let surplus = state.whole.len().saturating_sub(TIPS);
    state.whole.drain(..surplus);
    if state != before {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let content = serde_json::to_vec(&state).map_err(io::Error::from);
        let written = content.and_then(|content| fs::write(&new, content)).and_then(|()| fs::rename(&new, &path));
        written.map_err(GitdirError::io(&path))?;
    }
    Ok(state)
}

/// The directory for a step's pack, empty. Call [`finish_step`] before.
pub fn incoming(common: &Path) -> Result<PathBuf, GitdirError> {
    let path = common.join(INCOMING);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(GitdirError::io(&path)(error)),
        _ => fs::create_dir(&path).map_err(GitdirError::io(&path))?,
    }
    Ok(path)
}

/// Writes a step down and carries it out.
pub fn take_step(common: &Path, step: &Step) -> Result<(), GitdirError> {
    let directory = common.join(INCOMING);
    let failed = |error: io::Error| GitdirError::io(&directory)(error);
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(GitdirError::io(&path))?;
    }
    let text = serde_json::to_vec(step).map_err(|error| failed(error.into()))?;
    LockedFile::take(&directory.join(STEP))?.commit(&text)?;
    sync(&directory)?;
    finish_step(common)
}

/// Carries out the step that was written down, if there is one.
pub fn finish_step(common: &Path) -> Result<(), GitdirError> {
    let directory = common.join(INCOMING);
    let file = directory.join(STEP);
    let Some(content) = read_small(&file, FILE_BYTES)? else {
        return Ok(());
    };
    let step: Step =
        serde_json::from_slice(&content).map_err(|error| GitdirError::not_a_gitdir(&file, error.to_string()))?;
    let packs = common.join("objects/pack");
    // The index comes last, since Git finds packs by it.
    for suffix in ["promisor", "pack", "idx"] {
        for entry in fs::read_dir(&directory).map_err(GitdirError::io(&directory))? {
            let path = entry.map_err(GitdirError::io(&directory))?.path();
            if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|found| found == suffix)) {
                let to = packs.join(name);
                fs::rename(&path, &to).map_err(GitdirError::io(&to))?;
            }
        }
    }
    sync(&packs)?;
    let ids = |list: &[ObjectIdText]| list.iter().map(|id| id.0).collect::<Vec<ObjectId>>();
    update_shallow(common, &ids(&step.unshallow), &ids(&step.shallow))?;
    fs::remove_file(&file).map_err(GitdirError::io(&file))?;
    set_history(common, |state| state.commits += step.commits).map(drop)
}

fn sync(directory: &Path) -> Result<(), GitdirError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(GitdirError::io(directory))
}

#[cfg(test)]
mod tests {
    use super::super::{set_shallow, shallow};
    use super::*;

    fn id(byte: u8) -> ObjectIdText {
        ObjectIdText(ObjectId::from_bytes_or_panic(&[byte; 20]))
    }

    #[test]
    fn a_step_that_was_written_down_is_finished_later() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let common = dir.path().join("x.git");
        fs::create_dir_all(common.join("objects/pack")).expect("created");
        set_shallow(&common, &[id(1).0, id(2).0]).expect("written");
        let incoming = incoming(&common).expect("made");
        let step = Step { unshallow: vec![id(1)], shallow: vec![id(3)], commits: 9 };
        fs::write(incoming.join(STEP), serde_json::to_vec(&step).expect("text")).expect("written");
        // As after a crash in the middle: one file was moved, two were not.
        for name in ["pack-a.pack", "pack-a.idx"] {
            fs::write(incoming.join(name), name).expect("written");
        }
        for _ in 0..2 {
            finish_step(&common).expect("finished");
            assert_eq!(shallow(&common).expect("readable"), [id(2).0, id(3).0]);
            assert!(
                common.join("objects/pack/pack-a.idx").exists() && common.join("objects/pack/pack-a.pack").exists()
            );
            assert_eq!(history(&common).expect("readable").commits, 9, "counted once");
        }
    }

    #[test]
    fn what_was_not_written_down_did_not_happen() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let common = dir.path().join("x.git");
        fs::create_dir_all(common.join("objects/pack")).expect("created");
        fs::write(incoming(&common).expect("made").join("pack-a.idx"), "half").expect("written");
        finish_step(&common).expect("nothing to do");
        assert!(!common.join("objects/pack/pack-a.idx").exists());
        assert!(fs::read_dir(incoming(&common).expect("emptied")).expect("listed").next().is_none());
    }
}
