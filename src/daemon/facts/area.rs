//! The files of a workspace and how much of each is here, a page at a time.
//!
//! With a daemon that has it mounted these are the files the mount shows, local
//! changes included; else those of its current generation. Pages go through the
//! tree directory by directory, names in the order of their bytes, so a path is
//! all it takes to go on. Invariants: a page is bounded in files, in directories
//! looked into and in bytes, however the tree is made; nothing is fetched and
//! nothing noted as used by it.

use std::sync::Arc;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::place;
use super::{PathText, Sources};
use crate::daemon::protocol::{Failure, FailureClass, MAX_LINE_BYTES, rfc3339};
use crate::daemon::status;
use crate::daemon::workspace::Live;
use crate::hydrate::walk::join;
use crate::index::ino::Ino;
use crate::index::overlay::listing::RowKind;
use crate::index::overlay::settle::is_base;
use crate::store::overlay::{Content, Node};
use crate::store::{EntryKind, GenerationRecord, Listing, Store, Workspace};
use crate::vfs::Shown;

/// Files in a page at most.
pub const ROWS_MAX: usize = 4_000;
/// Directories looked into for a page at most: a tree may be made of nothing else.
const DIRECTORIES_MAX: usize = 20_000;
/// Bytes of a page's rows at most; the rest of a line is for what stands beside them.
const ROW_BYTES: usize = MAX_LINE_BYTES / 2;
/// Longest path told; it stands in the rows and, as numbers, where to go on.
const PATH_MAX: usize = 32 << 10;
/// Generations told at most, the newest.
const GENERATIONS_MAX: usize = 500;

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AreaRequest {
    /// A workspace, or a path in one.
    pub target: String,
    /// The last path that is known; `None`: from the beginning.
    pub after: Option<PathText>,
    /// Files wanted; at most [`ROWS_MAX`] are told.
    pub limit: usize,
}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AreaReport {
    /// The generation the files are of; when it is another one than that of the page before, they are of different trees.
    pub generation: u64,
    /// The workspace; with the first page only.
    pub head: Option<AreaHead>,
    /// Files, directory by directory.
    pub rows: Vec<AreaRow>,
    /// What to ask for next; `None`: that was all.
    pub next: Option<PathText>,
    /// Directories passed by because their tree is damaged or not here, or their path too long.
    pub passed_by: u64,
}

/// A workspace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AreaHead {
    /// Its name.
    pub workspace: String,
    /// Where it is mounted.
    pub path: String,
    /// The part of it that was asked about; empty: all.
    pub place: PathText,
    /// Its repository, without credentials.
    pub repository: String,
    /// The revision it follows.
    pub rev: Option<String>,
    /// Its commit.
    pub commit: String,
    /// Files of its generation.
    pub files: u64,
    /// Whether local changes are among the rows: they are known only while it is mounted.
    pub live: bool,
    /// Its generations, the newest first.
    pub generations: Vec<AreaGeneration>,
}

/// A generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AreaGeneration {
    /// Its number.
    pub generation: u64,
    /// Its commit.
    pub commit: String,
    /// When it was published, RFC 3339.
    pub created: String,
    /// What published it.
    pub origin: String,
    /// Whether the workspace shows it.
    pub current: bool,
    /// Files in it.
    pub files: u64,
}

/// How much of a file is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AreaState {
    /// In the cache, and read in a mount since it came there.
    Hydrated,
    /// In the cache and not read: fetched ahead of use, or for another workspace.
    Cached,
    /// Not in the cache.
    Untouched,
    /// Changed locally.
    Overlay,
}

/// One file, symlink or special file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AreaRow {
    /// Relative to the workspace's root.
    #[serde(flatten)]
    pub path: PathText,
    /// Its size; `None`: not known yet.
    pub size: Option<u64>,
    /// How much of it is here.
    pub state: AreaState,
}

/// The bytes of a path.
pub fn path_bytes(path: &PathText) -> &[u8] {
    path.path_bytes.as_deref().unwrap_or(path.path.as_bytes())
}

pub(super) fn answer(sources: &Sources<'_>, request: &AreaRequest) -> Result<AreaReport, Failure> {
    let place = place::within(sources.store, &request.target)?;
    let row = &place.0;
    let live = sources.daemon.and_then(|daemon| daemon.by_id(row.id.0));
    let shown = live.as_ref().and_then(|live| Some((live, live.shown()?)));
    let record = match &shown {
        Some((_, shown)) => Some(shown.view.generation().clone()),
        None => row.current.map(|current| sources.store.generation(row.id, current)).transpose()?.flatten(),
    };
    let record = record.ok_or_else(|| {
        let text = format!("cannot list the files of {}: it was never prepared", row.name);
        Failure::new(FailureClass::Refused, text).hint(format!("`larder prepare {}` prepares it", row.name))
    })?;
    let mut report = AreaReport { generation: record.generation.0, ..AreaReport::default() };
    if request.after.is_none() {
        if let Some((_, shown)) = &shown {
            // What was read a moment ago is to be told as read.
            shown.hydrator.settle_for_a_look();
        }
        report.head = Some(head(sources, &place, &record, shown.is_some())?);
    }
    let ground = shown.as_ref().map(|(live, shown)| (&***live, &**shown));
    let walk = Walk { store: sources.store, ground };
    let after = request.after.as_ref().map(|after| path_bytes(after).to_vec());
    let limit = request.limit.clamp(1, ROWS_MAX);
    page(&walk, record.tree.0, after.as_deref(), limit, &mut report)?;
    Ok(report)
}

fn head(
    sources: &Sources<'_>,
    (workspace, path): &(Workspace, Vec<u8>),
    record: &GenerationRecord,
    live: bool,
) -> Result<AreaHead, Failure> {
    let repositories = sources.store.repositories()?;
    let told = status::describe(sources.store, workspace, &repositories)?;
    let mut generations = sources.store.generations(workspace.id)?;
    generations.sort_by_key(|row| std::cmp::Reverse(row.generation));
    let generations = generations.into_iter().take(GENERATIONS_MAX).map(|row| AreaGeneration {
        generation: row.generation.0,
        commit: row.commit.0.to_string(),
        created: rfc3339(row.created),
        origin: row.origin,
        current: row.generation == record.generation,
        files: row.files,
    });
    Ok(AreaHead {
        workspace: told.workspace,
        path: told.path.to_string_lossy().into_owned(),
        place: PathText::from(&**path),
        repository: told.repository,
        rev: told.rev,
        commit: record.commit.0.to_string(),
        files: record.files,
        live,
        generations: generations.collect(),
    })
}

/// What is walked: a mount, or a tree in the store.
struct Walk<'a> {
    store: &'a Store,
    ground: Option<(&'a Live, &'a Shown)>,
}

/// A directory to look into.
struct Directory {
    path: Vec<u8>,
    ino: Ino,
    /// What the base has beneath it.
    tree: Option<ObjectId>,
    /// Whether it is not where the base has it, so that all in it is a local change.
    moved: bool,
}

struct Child {
    name: Vec<u8>,
    what: What,
}

enum What {
    Directory(Directory),
    /// The base's, unchanged.
    Blob(ObjectId),
    /// A local change: its size, or the blob whose size it has.
    Local(Option<u64>, Option<ObjectId>),
}

/// What is left to do in a directory.
struct Frame {
    path: Vec<u8>,
    children: std::vec::IntoIter<Child>,
}

/// The directories that `after` is in, with what comes after it in each; then the directory that it is itself.
fn down(
    walk: &Walk<'_>,
    tree: ObjectId,
    after: Option<&[u8]>,
    report: &mut AreaReport,
) -> Result<(Vec<Frame>, Option<Directory>), Failure> {
    let mut open = Vec::new();
    let mut next = Some(Directory { path: Vec::new(), ino: Ino::ROOT, tree: Some(tree), moved: false });
    for name in after.into_iter().flat_map(|after| after.split(|byte| *byte == b'/')) {
        let Some(directory) = next.take() else { break };
        let mut children = walk.children(&directory, report)?;
        let from = children.partition_point(|child| child.name.as_slice() <= name);
        let later = children.split_off(from);
        if let Some(Child { name: last, what: What::Directory(inner) }) = children.pop()
            && last == name
        {
            next = Some(inner);
        }
        open.push(Frame { path: directory.path, children: later.into_iter() });
    }
    Ok((open, next))
}

/// Fills `report` with the files that come after `after`.
fn page(
    walk: &Walk<'_>,
    tree: ObjectId,
    after: Option<&[u8]>,
    limit: usize,
    report: &mut AreaReport,
) -> Result<(), Failure> {
    let (mut open, mut next) = down(walk, tree, after, report)?;
    let mut found: Vec<(Vec<u8>, What)> = Vec::new();
    let (mut directories, mut bytes_left) = (0, ROW_BYTES);
    let mut at = None;
    loop {
        if let Some(directory) = next.take() {
            directories += 1;
            let children = walk.children(&directory, report)?.into_iter();
            open.push(Frame { path: directory.path, children });
        }
        let Some(frame) = open.last_mut() else { break };
        let Some(child) = frame.children.next() else {
            open.pop();
            continue;
        };
        let path = join(&frame.path, &child.name);
        if path.len() > PATH_MAX {
            report.passed_by += 1;
            continue;
        }
        let bytes = row_bytes(&path);
        if found.len() >= limit || directories >= DIRECTORIES_MAX || (bytes > bytes_left && !found.is_empty()) {
            report.next = at.as_deref().map(PathText::from);
            break;
        }
        at = Some(path.clone());
        match child.what {
            What::Directory(directory) => next = Some(directory),
            file => {
                bytes_left = bytes_left.saturating_sub(bytes);
                found.push((path, file));
            }
        }
    }
    report.rows = judge(walk.store, found)?;
    Ok(())
}

/// Bytes of a row as JSON, at most: a character takes six, and one that is none stands there as a number too.
fn row_bytes(path: &[u8]) -> usize {
    64 + path.iter().map(|byte| if (0x20..0x7f).contains(byte) { 2 } else { 8 }).sum::<usize>()
}

/// Looks the files up.
fn judge(store: &Store, found: Vec<(Vec<u8>, What)>) -> Result<Vec<AreaRow>, Failure> {
    let id = |what: &What| match what {
        What::Blob(id) | What::Local(_, Some(id)) => Some(*id),
        _ => None,
    };
    let ids: Vec<ObjectId> = found.iter().filter_map(|(_, what)| id(what)).collect();
    let mut known = store.touched(&ids)?.into_iter();
    Ok(found
        .into_iter()
        .map(|(path, what)| {
            let glance = id(&what).and_then(|_| known.next()).unwrap_or_default();
            let (size, state) = match what {
                What::Local(size, _) => (size.or(glance.raw_size), AreaState::Overlay),
                _ if !glance.here => (glance.raw_size, AreaState::Untouched),
                _ if glance.read => (glance.raw_size, AreaState::Hydrated),
                _ => (glance.raw_size, AreaState::Cached),
            };
            AreaRow { path: PathText::from(&*path), size, state }
        })
        .collect())
}

impl Walk<'_> {
    /// What is in a directory, in the order of names. Submodules are nothing to hydrate and left out.
    fn children(&self, directory: &Directory, report: &mut AreaReport) -> Result<Vec<Child>, Failure> {
        let mut found = match self.ground {
            Some((live, shown)) => match self.changed(live, shown, directory)? {
                Some(found) => found,
                None => self.unchanged(directory, report)?,
            },
            None => self.unchanged(directory, report)?,
        };
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// A directory in which nothing was changed.
    fn unchanged(&self, directory: &Directory, report: &mut AreaReport) -> Result<Vec<Child>, Failure> {
        let Some(tree) = directory.tree else { return Ok(Vec::new()) };
        let Some(listing) = self.store.tree(&tree)? else {
            report.passed_by += 1;
            return Ok(Vec::new());
        };
        Ok((0..listing.len()).filter_map(|position| self.base_child(directory, &listing, position)).collect())
    }

    /// A directory in which something was; `None`: nothing.
    fn changed(&self, live: &Live, shown: &Shown, directory: &Directory) -> Result<Option<Vec<Child>>, Failure> {
        let (overlay, inodes) = (&shown.overlay, live.fs().inodes());
        let Some(rows) = overlay.rows(&shown.view, inodes, directory.ino)? else { return Ok(None) };
        let base = rows.base.as_ref().map(Arc::as_ref);
        let mut found = Vec::with_capacity(rows.rows.len());
        for row in &rows.rows {
            match &row.what {
                RowKind::Base(position) => {
                    found.extend(base.and_then(|base| self.base_child(directory, base.listing(), *position)));
                }
                RowKind::Bound { name, ino, .. } => {
                    // One that is gone by now was removed while its directory was listed.
                    let Some((node, measured)) = overlay.weigh(*ino)? else { continue };
                    let what = if node.is_directory() {
                        What::Directory(Directory {
                            path: join(&directory.path, name),
                            ino: *ino,
                            tree: overlay.tree(&shown.view, inodes, *ino)?,
                            moved: directory.moved || node.content != Content::Base,
                        })
                    } else {
                        let entry = base.and_then(|base| base.find(name)).map(|(_, entry)| (entry.kind, entry.id));
                        local(&node, entry.filter(|_| !directory.moved), measured.map(|measured| measured.size))
                    };
                    found.push(Child { name: name.to_vec(), what });
                }
            }
        }
        Ok(Some(found))
    }

    fn base_child(&self, directory: &Directory, listing: &Listing, position: usize) -> Option<Child> {
        let entry = listing.get(position)?;
        let what = match entry.kind {
            EntryKind::Gitlink => return None,
            EntryKind::Directory => What::Directory(Directory {
                path: join(&directory.path, entry.name),
                // Only a mount has inodes.
                ino: self.ground.map_or(Ino::ROOT, |_| Ino::of(directory.ino, entry.name, entry.kind, &entry.id)),
                tree: Some(entry.id),
                moved: directory.moved,
            }),
            _ if directory.moved => What::Local(None, Some(entry.id)),
            _ => What::Blob(entry.id),
        };
        Some(Child { name: entry.name.to_vec(), what })
    }
}

/// A file that has a node, where the base has `entry`.
fn local(node: &Node, entry: Option<(EntryKind, ObjectId)>, size: Option<u64>) -> What {
    match node.content {
        Content::Blob(id) if is_base(node, entry) => What::Blob(id),
        Content::Blob(id) => What::Local(size, Some(id)),
        _ => What::Local(size, None),
    }
}

#[cfg(test)]
mod tests;
