//! Whether the plain files of local changes are those that their entries name.
//!
//! Only looks. A file without an entry may be a copy that is being made, an entry without a file one to which nothing was
//! written: whoever asks about a workspace in use asks more than once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Outcome, Overlay, State};
use crate::index::ino::Ino;
use crate::store::overlay::{Content, Holder, Name, Referred};

/// Deepest path that is told.
const DEPTH_MAX: usize = 4096;

/// What does not go together.
#[derive(Clone, Debug, Default)]
pub struct Amiss {
    /// Files that no entry names.
    pub strays: BTreeMap<u64, PathBuf>,
    /// Entries whose file was written and is not there.
    pub lost: BTreeMap<u64, Holder>,
    /// Entries without a file, to which nothing may have been written.
    pub empty: BTreeMap<u64, Holder>,
}

impl Amiss {
    /// Compares what entries refer to with the files that are there.
    pub fn new(referred: Referred, mut files: BTreeMap<u64, PathBuf>) -> Self {
        let mut amiss = Self::default();
        for (number, holder) in referred.files {
            if files.remove(&number).is_none() {
                let into = if holder.written { &mut amiss.lost } else { &mut amiss.empty };
                into.insert(number, holder);
            }
        }
        Self { strays: files, ..amiss }
    }

    /// What was amiss before and is now.
    #[must_use]
    pub fn still(mut self, before: &Self) -> Self {
        self.strays.retain(|number, _| before.strays.contains_key(number));
        self.lost.retain(|number, _| before.lost.contains_key(number));
        self.empty.retain(|number, _| before.empty.contains_key(number));
        self
    }
}

/// The plain files of the overlay in `directory`, by number.
pub fn plain_files(directory: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    let parts = match std::fs::read_dir(directory.join("files")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        parts => parts?,
    };
    for part in parts {
        for entry in std::fs::read_dir(part?.path())? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            found.extend(number.map(|number| (number, path)));
        }
    }
    Ok(found)
}

impl Overlay {
    /// What the entries refer to now, those that are not folded included, and files that are unlinked and still open.
    pub fn referred(&self) -> Outcome<Referred> {
        let mut referred = Referred::default();
        let seconds = self.defaults.time.seconds;
        let inodes = self.state.read().log.inodes()?;
        for ino in inodes {
            // One lock each: who writes waits for one look-up at most.
            let state = self.state.read();
            let Some(node) = state.log.node(ino)? else { continue };
            let path = match node.links.first() {
                Some((parent, name)) => state.known_path(Ino(*parent), name)?,
                None => Vec::new(),
            };
            referred.note(ino, &node, path, seconds);
            if let Content::File(number) = &node.content
                && state.held.may_have(*number)
                && let Some(holder) = referred.files.get_mut(number)
            {
                holder.written = false;
            }
        }
        let state = self.state.read();
        for (ino, node) in &state.orphans {
            if let Content::File(number) = node.content {
                let holder = Holder { ino: ino.0, path: Vec::new(), written: false };
                referred.files.insert(number, holder);
            }
        }
        Ok(referred)
    }
}

impl State {
    /// The path of `name` in `parent`, by the entries alone.
    fn known_path(&self, parent: Ino, name: &Name) -> Outcome<Vec<u8>> {
        let mut parts = vec![name.to_vec()];
        let mut at = parent;
        while at != Ino::ROOT && parts.len() < DEPTH_MAX {
            let link = self.log.node(at.0)?.and_then(|node| node.links.first().cloned());
            let Some((above, name)) = link else { break };
            parts.push(name.into_vec());
            at = Ino(above);
        }
        parts.reverse();
        Ok(parts.join(&b'/'))
    }
}
