//! `larder status --offline-ready`: which files would fail to be read without a network.
//!
//! Walks what the mount shows, the overlay over the base, and asks store and
//! gitdir for each blob; nothing is fetched, converted or changed by it. A
//! file with a conversion can be read if its result is here, or what it is
//! made of is and no driver has to run: a driver may want a network itself.

use std::sync::Arc;

use gix::ObjectId;

use super::protocol::{Failure, ReadyReport};
use super::workspace::Live;
use super::{Daemon, warm};
use crate::git::gitdir::Objects;
use crate::git::pathspec::Pathspecs;
use crate::hydrate::walk::{Reach, Select, join};
use crate::index::convert::RulesError;
use crate::index::ino::Ino;
use crate::index::overlay::listing::RowKind;
use crate::store::overlay::{Content, Node};
use crate::store::{EntryKind, IdSet, Store};
use crate::vfs::Shown;
use crate::vfs::convert::{Plan, Planned};

/// Paths told, at most.
const PATHS_TOLD: usize = 1000;

/// Bytes of them in the answer, at most: a line of the protocol has room for them and the rest.
const PATH_BYTES: usize = 768 << 10;

/// A directory to be walked.
struct Directory {
    ino: Ino,
    /// What the base has beneath it.
    tree: Option<ObjectId>,
    path: Vec<u8>,
    /// Its path in the base, which conversions go by.
    base_path: Vec<u8>,
    whole: bool,
}

/// What has to be here for one file to be readable.
#[derive(Debug)]
enum Need {
    /// The blob.
    Blob(ObjectId),
    /// The result of a conversion, if it is known, or what it is made of.
    Made(Option<ObjectId>, ObjectId),
    /// The result of a conversion by a driver, if it is known; what it is made of.
    Driven(Option<ObjectId>, ObjectId),
    /// Attribute files, to begin with, and the blob.
    Attributes(Vec<ObjectId>, ObjectId),
}

/// What is converted in a directory.
enum Rules {
    None,
    Plan(Arc<Plan>),
    /// It takes these attribute files to know.
    Missing(Vec<ObjectId>),
}

struct Walk<'a> {
    live: &'a Live,
    shown: &'a Shown,
    store: &'a Store,
    objects: Objects,
    select: Pathspecs,
    report: ReadyReport,
    /// Blobs counted as missing.
    missing: IdSet,
    path_bytes: usize,
}

impl Daemon {
    /// What can't be read of a workspace without a network.
    pub(super) fn offline_ready(&self, target: &str, pathspecs: &[String]) -> Result<ReadyReport, Failure> {
        let select = Pathspecs::parse(pathspecs)?;
        let live = self.find(target)?;
        let shown = warm::prepared(&live)?;
        shown.hydrator.settle_for_a_look();
        let record = shown.view.generation();
        let repository = self.repository_of(&live)?;
        let mut walk = Walk {
            live: &live,
            shown: &shown,
            store: &self.store,
            objects: Objects::open(&repository.gitdir, record.tree.0.kind())?,
            select,
            report: ReadyReport { workspace: live.row().name, ..ReadyReport::default() },
            missing: IdSet::default(),
            path_bytes: 0,
        };
        walk.all(record.tree.0)?;
        let Walk { mut report, .. } = walk;
        report.ready = report.paths.is_empty() && report.paths_left_out == 0;
        Ok(report)
    }
}

impl Walk<'_> {
    fn all(&mut self, root: ObjectId) -> Result<(), Failure> {
        let reach = self.select.directory(b"");
        let root = Directory {
            ino: Ino::ROOT,
            tree: Some(root),
            path: Vec::new(),
            base_path: Vec::new(),
            whole: reach == Reach::All,
        };
        let mut open = if reach == Reach::None { Vec::new() } else { vec![root] };
        while let Some(directory) = open.pop() {
            let from = open.len();
            self.directory(&directory, &mut open)?;
            // The last one pushed is walked first.
            open[from..].reverse();
        }
        Ok(())
    }

    /// Looks at the files of a directory and notes the directories in it.
    fn directory(&mut self, directory: &Directory, open: &mut Vec<Directory>) -> Result<(), Failure> {
        let inodes = self.live.fs().inodes();
        let (overlay, view) = (&self.shown.overlay, &self.shown.view);
        let rows = overlay.rows(view, inodes, directory.ino)?;
        let base = match (&rows, directory.tree) {
            (Some(rows), _) => rows.base.clone(),
            (None, Some(tree)) => Some(view.directory(&tree)?),
            (None, None) => None,
        };
        let kinds: Vec<RowKind> = match &rows {
            Some(rows) => rows.rows.iter().map(|row| row.what.clone()).collect(),
            None => (0..base.as_ref().map_or(0, |base| base.listing().len())).map(RowKind::Base).collect(),
        };
        let rules = self.rules(&directory.base_path)?;
        let mut files: Vec<(Vec<u8>, Need)> = Vec::new();
        for kind in kinds {
            match kind {
                RowKind::Base(position) => {
                    let Some(entry) = base.as_ref().and_then(|base| base.listing().get(position)) else { continue };
                    let path = join(&directory.path, entry.name);
                    if entry.kind == EntryKind::Directory {
                        let ino = Ino::of(directory.ino, entry.name, entry.kind, &entry.id);
                        let base_path = join(&directory.base_path, entry.name);
                        self.enter(
                            open,
                            directory.whole,
                            Directory { ino, tree: Some(entry.id), path, base_path, whole: false },
                        );
                    } else if entry.kind.is_blob() && (directory.whole || self.select.file(&path)) {
                        let file = entry.kind != EntryKind::Symlink;
                        files.push((path, need(&rules, file.then_some(position), entry.id)));
                    }
                }
                RowKind::Bound { name, ino, .. } => {
                    let Some(node) = overlay.node(ino)? else { continue };
                    let path = join(&directory.path, &name);
                    if node.is_directory() {
                        let tree = overlay.tree(view, inodes, ino)?;
                        let base_path = overlay.base_path(inodes, ino)?;
                        self.enter(open, directory.whole, Directory { ino, tree, path, base_path, whole: false });
                    } else if let Content::Blob(id) = node.content
                        && (directory.whole || self.select.file(&path))
                    {
                        files.push((path, self.need_alone(ino, &node, id)?));
                    }
                }
            }
        }
        self.judge(files)
    }

    fn enter(&mut self, open: &mut Vec<Directory>, whole: bool, directory: Directory) {
        let reach = if whole { Reach::All } else { self.select.directory(&directory.path) };
        if reach != Reach::None {
            open.push(Directory { whole: reach == Reach::All, ..directory });
        }
    }

    fn rules(&self, base_path: &[u8]) -> Result<Rules, Failure> {
        let Some(converter) = &self.shown.converter else { return Ok(Rules::None) };
        as_rules(converter.plan(&self.shown.view, base_path))
    }

    /// What a file needs that was moved, or had its attributes changed.
    fn need_alone(&self, ino: Ino, node: &Node, id: ObjectId) -> Result<Need, Failure> {
        let Some(converter) = self.shown.converter.as_ref().filter(|_| node.is_regular()) else {
            return Ok(Need::Blob(id));
        };
        let kind = if node.mode & 0o100 == 0 { EntryKind::File } else { EntryKind::Executable };
        let path = self.shown.overlay.base_path(self.live.fs().inodes(), ino)?;
        let rules = as_rules(converter.plan_file(&self.shown.view, &path, kind, id))?;
        Ok(need(&rules, Some(0), id))
    }

    /// Finds out which of a directory's files can't be read.
    fn judge(&mut self, files: Vec<(Vec<u8>, Need)>) -> Result<(), Failure> {
        let mut ids: Vec<ObjectId> = files.iter().flat_map(|(_, need)| need.objects()).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut absent = Vec::new();
        for id in self.store.missing_blobs(&ids)? {
            // What a user committed here is read from the gitdir.
            if self.objects.blob_size(&id)?.is_none() {
                absent.push(id);
            }
        }
        let is_here = |id: &ObjectId| absent.binary_search(id).is_err();
        for (path, need) in files {
            let missing = need.missing(is_here);
            let Some(missing) = missing else { continue };
            for id in missing {
                if self.missing.insert(&id) {
                    self.report.missing_objects += 1;
                    match self.store.sizes(&[id])?.into_iter().next().flatten() {
                        Some(size) => self.report.missing_bytes += size,
                        None => self.report.unknown_sizes += 1,
                    }
                }
            }
            self.tell(&path);
        }
        Ok(())
    }

    fn tell(&mut self, path: &[u8]) {
        let text = String::from_utf8_lossy(path).into_owned();
        let bytes = serde_json::to_string(&text).map_or(usize::MAX, |text| text.len() + 1);
        let room = self.path_bytes.saturating_add(bytes) <= PATH_BYTES;
        if self.report.paths_left_out == 0 && self.report.paths.len() < PATHS_TOLD && room {
            self.path_bytes += bytes;
            self.report.paths.push(text);
        } else {
            self.report.paths_left_out += 1;
        }
    }
}

impl Need {
    /// Every object that it may come to.
    fn objects(&self) -> Vec<ObjectId> {
        match self {
            Self::Blob(id) => vec![*id],
            Self::Made(result, source) | Self::Driven(result, source) => {
                result.iter().copied().chain([*source]).collect()
            }
            Self::Attributes(files, id) => files.iter().copied().chain([*id]).collect(),
        }
    }

    /// What would have to be fetched; `None`: the file can be read.
    fn missing(&self, is_here: impl Fn(&ObjectId) -> bool) -> Option<Vec<ObjectId>> {
        let absent = |ids: &mut dyn Iterator<Item = &ObjectId>| ids.filter(|id| !is_here(id)).copied().collect();
        match self {
            Self::Blob(id) => (!is_here(id)).then(|| vec![*id]),
            Self::Made(Some(result), _) | Self::Driven(Some(result), _) if is_here(result) => None,
            Self::Made(_, source) => (!is_here(source)).then(|| vec![*source]),
            // The driver has to run, with what it is made of.
            Self::Driven(_, source) => Some(absent(&mut [source].into_iter())),
            Self::Attributes(files, id) => Some(absent(&mut files.iter().chain([id]))),
        }
    }
}

fn as_rules(planned: Result<Option<Arc<Plan>>, RulesError>) -> Result<Rules, Failure> {
    match planned {
        Ok(plan) => Ok(plan.map_or(Rules::None, Rules::Plan)),
        Err(RulesError::Missing(ids)) => Ok(Rules::Missing(ids)),
        Err(RulesError::Index(error)) => Err(error.into()),
    }
}

/// What the entry at `position` needs, which shows the blob `id`; without a position it is never converted.
fn need(rules: &Rules, position: Option<usize>, id: ObjectId) -> Need {
    match (rules, position) {
        (Rules::Missing(files), Some(_)) => Need::Attributes(files.clone(), id),
        (Rules::Plan(plan), Some(position)) => match plan.get(position) {
            Some(planned) => converted(planned),
            None => Need::Blob(id),
        },
        _ => Need::Blob(id),
    }
}

fn converted(planned: &Planned) -> Need {
    match planned.content() {
        content if planned.needs_driver() => Need::Driven(content, planned.source),
        content => Need::Made(content, planned.source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driven_file_is_ready_with_its_result_alone() {
        let id = |byte: u8| ObjectId::from_bytes_or_panic(&[byte; 20]);
        let here = |ids: &'static [u8]| move |found: &ObjectId| ids.iter().any(|byte| id(*byte) == *found);
        let driven = Need::Driven(Some(id(1)), id(2));
        assert_eq!(driven.missing(here(&[1])), None);
        assert_eq!(driven.missing(here(&[2])), Some(Vec::new()));
        assert_eq!(driven.missing(here(&[])), Some(vec![id(2)]));
        assert_eq!(Need::Driven(None, id(2)).missing(here(&[2])), Some(Vec::new()));
        for here in [here(&[1]), here(&[2])] {
            assert_eq!(Need::Made(Some(id(1)), id(2)).missing(here), None);
        }
        assert_eq!(Need::Made(None, id(2)).missing(here(&[])), Some(vec![id(2)]));
        assert_eq!(Need::Blob(id(3)).missing(here(&[3])), None);
        assert_eq!(Need::Attributes(vec![id(4)], id(5)).missing(here(&[5])), Some(vec![id(4)]));
    }
}
