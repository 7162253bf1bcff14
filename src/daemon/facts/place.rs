//! Where things are: which workspace a target means, what a path of it leads to, which object an id means.
//!
//! Reads rows alone: what is damaged stays, and nothing is asked of a mount. A
//! path is looked up as the mount does it, local changes over the base; with no
//! daemon those are read as they were left.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass};
use crate::index::ino::Ino;
use crate::store::overlay::{Binding, Content, Node, Peek};
use crate::store::{EntryKind, Generation, GenerationRecord, IdPrefix, Listing, Look, Store, Workspace, WorkspaceId};
use crate::vfs::Shown;

/// Digits an object id is told by, at least: as in Git.
pub const DIGITS_MIN: usize = 4;

/// Objects named when a short id fits several.
const CANDIDATES: usize = 8;

/// What a question is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A path in a mount: absolute, without `.` and `..`, as bytes.
    Path(Vec<u8>),
    /// An object, by its id or the first digits of that.
    Object(String),
}

impl Default for Subject {
    fn default() -> Self {
        Self::Object(String::new())
    }
}

/// What a path leads to.
pub(super) struct Place {
    pub workspace: Workspace,
    pub record: GenerationRecord,
    /// In the workspace; empty is its root.
    pub path: Vec<u8>,
    pub what: What,
}

/// What is there.
pub(super) enum What {
    /// What the generation has.
    Base { mode: u16, kind: EntryKind, id: ObjectId },
    /// What was changed locally.
    Changed {
        node: Arc<Node>,
        /// Bytes of a plain file.
        size: Option<u64>,
        /// What the generation has at that path.
        base: Option<(EntryKind, ObjectId)>,
    },
}

impl What {
    /// The object with its bytes or entries, if it is one.
    pub(super) fn id(&self) -> Option<ObjectId> {
        match self {
            Self::Base { id, .. } => Some(*id),
            Self::Changed { node, base, .. } => match &node.content {
                Content::Blob(id) | Content::Tree(id) => Some(*id),
                Content::Base => base.map(|(_, id)| id),
                Content::Empty | Content::File(_) | Content::Target(_) => None,
            },
        }
    }
}

/// The workspace that `target` names or is a path of: its name, or the innermost that has the path.
pub(super) fn workspace(store: &Store, target: &str) -> Result<Workspace, Failure> {
    let mut rows = store.workspaces()?;
    if let Some(place) = rows.iter().position(|row| row.name == target) {
        return Ok(rows.swap_remove(place));
    }
    innermost(rows, Path::new(target)).ok_or_else(|| {
        let text = format!("cannot find the workspace {target:?}: there is none of that name or path");
        Failure::new(FailureClass::NotFound, text).hint("`larder list` shows all")
    })
}

/// The workspace that `target` means, and the path in it that it is; empty is the root.
pub(super) fn within(store: &Store, target: &str) -> Result<(Workspace, Vec<u8>), Failure> {
    let row = workspace(store, target)?;
    let path = Path::new(target).strip_prefix(&row.path).map(|path| path.as_os_str().as_bytes().to_vec());
    Ok((row, path.unwrap_or_default()))
}

/// The workspaces' names.
pub(super) fn names(store: &Store) -> Result<HashMap<WorkspaceId, String>, Failure> {
    Ok(store.workspaces()?.into_iter().map(|row| (row.id, row.name)).collect())
}

fn innermost(rows: Vec<Workspace>, path: &Path) -> Option<Workspace> {
    let within = rows.into_iter().filter(|row| path.starts_with(&row.path));
    within.max_by_key(|row| row.path.as_os_str().len())
}

/// The generation `number` of a workspace, or the one it shows.
pub(super) fn generation(store: &Store, row: &Workspace, number: Option<u64>) -> Result<GenerationRecord, Failure> {
    let Some(wanted) = number.map(Generation).or(row.current) else {
        let text = format!("workspace {} shows nothing yet: it was never prepared", row.name);
        return Err(Failure::new(FailureClass::NotFound, text).hint("`larder prepare` tries again"));
    };
    store.generation(row.id, wanted)?.ok_or_else(|| {
        let text = format!("workspace {} has no generation {}", row.name, wanted.0);
        Failure::new(FailureClass::NotFound, text).hint(format!("`larder generations {}` shows all", row.name))
    })
}

/// What the absolute path leads to, now or in an older generation.
pub(super) fn look_up(sources: &Sources<'_>, path: &[u8], number: Option<u64>) -> Result<Place, Failure> {
    let absolute = Path::new(OsStr::from_bytes(path));
    let workspace = innermost(sources.store.workspaces()?, absolute).ok_or_else(|| {
        let text = format!("cannot inspect {}: it is in no mount", absolute.display());
        Failure::new(FailureClass::NotFound, text)
            .hint("`larder list` shows all mounts; objects are given by four or more digits of their id")
    })?;
    let record = generation(sources.store, &workspace, number)?;
    let below = absolute.strip_prefix(&workspace.path).unwrap_or(absolute).as_os_str().as_bytes().to_vec();
    let changes = if number.is_some() { Changes::None } else { Changes::of(sources, &workspace)? };
    let what = follow(sources.store, &record, &changes, &below).map_err(|step| step.failure(absolute, &record))?;
    Ok(Place { workspace, record, path: below, what })
}

/// Why a path leads nowhere.
enum Lost {
    Absent { removed: bool },
    NoDirectory(Vec<u8>),
    Gitfile,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Lost {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Lost {
    fn failure(self, path: &Path, record: &GenerationRecord) -> Failure {
        let (path, number) = (path.display(), record.generation.0);
        let (text, hint) = match self {
            Self::Failed(failure) => return failure,
            Self::Absent { removed: false } => {
                (format!("cannot find {path}: generation {number} has no such path"), "check its spelling")
            }
            Self::Absent { removed: true } => (
                format!("cannot find {path}: it was removed locally; generation {number} has it"),
                "`--generation` looks at what was committed",
            ),
            Self::NoDirectory(at) => {
                (format!("cannot find {path}: {} is no directory", String::from_utf8_lossy(&at)), "check its spelling")
            }
            Self::Gitfile => (
                format!("{path} is no file of the repository: Larder shows it to lead Git to the gitdir"),
                "`larder status` says where that is",
            ),
        };
        Failure::new(FailureClass::NotFound, text).hint(hint)
    }
}

fn follow(store: &Store, record: &GenerationRecord, changes: &Changes, path: &[u8]) -> Result<What, Lost> {
    let mut ino = Ino::ROOT;
    let mut tree = Some(record.tree.0);
    let mut what = What::Base { mode: EntryKind::Directory.mode(), kind: EntryKind::Directory, id: record.tree.0 };
    let mut walked: Vec<u8> = Vec::new();
    if path == b".git" {
        return Err(Lost::Gitfile);
    }
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let is_directory = match &what {
            What::Base { kind, .. } => *kind == EntryKind::Directory,
            What::Changed { node, .. } => node.is_directory(),
        };
        if !is_directory {
            return Err(Lost::NoDirectory(walked));
        }
        if !walked.is_empty() {
            walked.push(b'/');
        }
        walked.extend_from_slice(name);
        let base = match tree {
            Some(tree) => listing(store, &tree)?.find(name).map(|entry| (entry.mode, entry.kind, entry.id)),
            None => None,
        };
        match changes.binding(ino, name)? {
            Some(Binding::Whiteout) => return Err(Lost::Absent { removed: true }),
            Some(Binding::Inode { ino: number, .. }) => {
                ino = Ino(number);
                let base = base.map(|(_, kind, id)| (kind, id));
                let (node, size) = changes.node(ino)?.ok_or(Lost::Absent { removed: false })?;
                tree = match node.content {
                    Content::Base => base.filter(|(kind, _)| *kind == EntryKind::Directory).map(|(_, id)| id),
                    Content::Tree(id) => Some(id),
                    _ => None,
                };
                what = What::Changed { node, size, base };
            }
            None => {
                let (mode, kind, id) = base.ok_or(Lost::Absent { removed: false })?;
                ino = Ino::of(ino, name, kind, &id);
                tree = (kind == EntryKind::Directory).then_some(id);
                what = What::Base { mode, kind, id };
            }
        }
    }
    Ok(what)
}

/// A tree's listing, which has to be here and whole.
pub(super) fn listing(store: &Store, id: &ObjectId) -> Result<Listing, Failure> {
    match store.look_at_tree(id)? {
        Look::Good(listing) => Ok(listing),
        Look::Absent => Err(Failure::new(FailureClass::NotFound, format!("tree {id} is not in the cache"))
            .hint("`larder prepare` or a look at the mount fetches it")),
        Look::Damaged => Err(Failure::new(FailureClass::Corrupt, format!("tree {id} is damaged in the cache"))
            .hint("`larder verify --repair` fetches it again")),
    }
}

/// A node, and the bytes of its plain file if it has one.
type Weighed = (Arc<Node>, Option<u64>);

/// A workspace's local changes.
enum Changes {
    /// As the daemon has them.
    Shown(Arc<Shown>),
    /// As they were left, and where their files are.
    Left(Box<Peek>, PathBuf),
    None,
}

impl Changes {
    fn of(sources: &Sources<'_>, row: &Workspace) -> Result<Self, Failure> {
        let shown = sources.daemon.and_then(|daemon| daemon.by_id(row.id.0)).and_then(|live| live.shown());
        if let Some(shown) = shown {
            return Ok(Self::Shown(shown));
        }
        let (peek, directory) = left(sources, row)?;
        Ok(if peek.is_pristine() { Self::None } else { Self::Left(Box::new(peek), directory) })
    }

    fn binding(&self, parent: Ino, name: &[u8]) -> Result<Option<Binding>, Failure> {
        Ok(match self {
            Self::Shown(shown) => shown.overlay.binding(parent, name)?,
            Self::Left(peek, _) => peek.binding(parent.0, name)?,
            Self::None => None,
        })
    }

    fn node(&self, ino: Ino) -> Result<Option<Weighed>, Failure> {
        let plain = |node: &Node, size: u64| matches!(node.content, Content::File(_)).then_some(size);
        Ok(match self {
            Self::Shown(shown) => shown.overlay.weigh(ino)?.map(|(node, measured)| {
                let size = plain(&node, measured.map_or(0, |measured| measured.size));
                (node, size)
            }),
            Self::Left(peek, directory) => peek.node(ino.0)?.map(|node| {
                let size = match node.content {
                    Content::File(number) => peek.unwritten(number).or_else(|| {
                        let file = crate::index::overlay::files::path(&directory.join("files"), number);
                        Some(file.metadata().map_or(0, |file| file.len()))
                    }),
                    _ => None,
                };
                (node, size)
            }),
            Self::None => None,
        })
    }
}

/// The local changes of a workspace that no daemon has open, and where their files are.
pub(super) fn left(sources: &Sources<'_>, row: &Workspace) -> Result<(Peek, PathBuf), Failure> {
    let directory = sources.config.home.join("overlay").join(row.id.0.to_string());
    Ok((Peek::open(sources.store, row.id, &directory)?, directory))
}

/// What `text` names: an object here, or one by its whole id that is not here.
pub(super) fn object(store: &Store, text: &str) -> Result<ObjectId, Failure> {
    let usage = |text: String| Failure::new(FailureClass::Usage, text);
    let prefix = IdPrefix::parse(text).filter(|prefix| prefix.digits() > 0).ok_or_else(|| {
        usage(format!("{text:?} is no object id: those are up to 64 digits from 0 to f"))
            .hint("write ./NAME for a file of that name")
    })?;
    if prefix.digits() < DIGITS_MIN {
        return Err(usage(format!("{text:?} is too short for an object id: give {DIGITS_MIN} digits or more")));
    }
    let whole = ObjectId::from_hex(text.to_ascii_lowercase().as_bytes()).ok();
    let found = store.ids_like(&prefix, CANDIDATES + 1)?;
    match (&found[..], whole) {
        (found, Some(whole)) if found.is_empty() || found.contains(&whole) => Ok(whole),
        ([one], _) => Ok(*one),
        ([], _) => Err(Failure::new(FailureClass::NotFound, format!("no object in the cache begins with {text}"))
            .hint("`larder cache ls` lists all")),
        (several, _) => {
            let mut named = Vec::new();
            for id in several.iter().take(CANDIDATES) {
                let what = match store.glance(id)? {
                    Some(glance) if glance.entries.is_some() => "tree".to_owned(),
                    Some(glance) => format!("blob, {} bytes", glance.raw_size),
                    None => "not here".to_owned(),
                };
                named.push(format!("{id} ({what})"));
            }
            let more = if several.len() > CANDIDATES { ", and more" } else { "" };
            Err(usage(format!("short object id {text} is ambiguous"))
                .hint(format!("give more digits; it could be {}{more}", named.join(", "))))
        }
    }
}

/// Bytes of a line that a name takes at most: each of its bytes escaped, and as a number once more.
pub(super) fn weight(name: &[u8]) -> usize {
    10 * name.len() + 64
}
