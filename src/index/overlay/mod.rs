//! What the user changed, over the base: names, inodes and bytes.
//!
//! A directory entry is what a *binding* says, else what the base has; an inode is what its *node* says, else what the
//! base has. Directories are known by inode number, so renaming one moves nothing that is in it, and one that was made
//! anew under an old name shows nothing of the old one.
//!
//! Invariants:
//!
//! * An inode with a node is found from the root by bindings alone: the directories above it have nodes and bindings too.
//! * A number never stands for two files at a time: numbers of the base are used again only when no node has them.
//! * Every change is acknowledged by [`OverlayLog::apply`] before anybody sees it, with the paths Git must look at.
//! * Bytes are written, and tokens handed out, under the same lock: who holds a token was told of every write before it.

pub mod attributes;
pub mod changes;
pub mod check;
pub mod content;
mod draft;
pub mod files;
mod held;
pub mod listing;
pub mod names;
pub mod reconcile;
pub mod rename;
pub mod settle;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use gix::ObjectId;
use parking_lot::{Mutex, RwLock};
use rustix::time::{ClockId, clock_gettime};

use super::IndexError;
use super::ino::Ino;
use super::view::{Directory, View};
use crate::store::overlay::{Binding, Content, Name, Node, OverlayLog, Stamp};
use crate::store::{EntryKind, Generation, Store, StoreError, StoreErrorKind, WorkspaceId};
use files::Files;

/// Why an operation on the overlay was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// No such entry.
    #[error("no such entry")]
    NotFound,
    /// The entry exists.
    #[error("the entry exists")]
    Exists,
    /// Something that is no directory where one is needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory where none is allowed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Over 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// Not what the operation works on, or impossible numbers.
    #[error("invalid argument")]
    Invalid,
    /// Larder's own `.git`, which stays.
    #[error("not permitted")]
    NotPermitted,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoData,
    /// Attributes of that kind are not kept.
    #[error("not supported")]
    Unsupported,
    /// More extended attributes than are kept of one file.
    #[error("too much for one file")]
    TooMuch,
    /// More names than one file may have.
    #[error("too many links")]
    TooManyLinks,
    /// The inode is gone.
    #[error("stale inode")]
    Stale,
    /// Changed since it was decided what becomes of it.
    #[error("{} was changed meanwhile", String::from_utf8_lossy(.0))]
    Changed(Vec<u8>),
    /// A plain file beside the store failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The rows below failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<StoreError> for OverlayError {
    fn from(error: StoreError) -> Self {
        Self::Index(error.into())
    }
}

type Outcome<T> = Result<T, OverlayError>;

/// What the kernel knows: where it found the inodes it holds. Answers from memory.
pub trait Ground: Sync {
    /// Directory and name under which `ino` was found.
    fn place(&self, ino: Ino) -> Option<(Ino, Name)>;
    /// It is found there from now on.
    fn moved(&self, ino: Ino, parent: Ino, name: &[u8]);
    /// The base's tree of directory `ino` in `generation`, if noted: `Some(None)` is a directory without one.
    fn tree(&self, ino: Ino, generation: u64) -> Option<Option<ObjectId>>;
    /// Notes it.
    fn note_tree(&self, ino: Ino, generation: u64, tree: Option<ObjectId>);
    /// The base's entry that `ino` stands for, if it is a file or symlink of the base.
    fn blob(&self, ino: Ino) -> Option<(EntryKind, ObjectId)>;
    /// Whether the kernel holds `ino`.
    fn knows(&self, ino: Ino) -> bool;
}

/// A workspace's owner and the time of everything in its base.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Times of what was never touched.
    pub time: Stamp,
}

/// What a name leads to.
pub enum Found {
    /// Nothing.
    Nothing,
    /// What the base has, at that position of that directory.
    Base {
        /// The base's directory.
        directory: Arc<Directory>,
        /// Position in it.
        position: usize,
        /// Kind.
        kind: EntryKind,
        /// Object.
        id: ObjectId,
        /// Its inode number.
        ino: Ino,
    },
    /// An inode of the overlay.
    Bound {
        /// Its number.
        ino: Ino,
        /// Itself.
        node: Arc<Node>,
    },
}

impl Found {
    /// The inode number, if there is one.
    pub fn ino(&self) -> Option<Ino> {
        match self {
            Self::Nothing => None,
            Self::Base { ino, .. } | Self::Bound { ino, .. } => Some(*ino),
        }
    }

    /// Whether it is a directory; a gitlink counts as one.
    pub fn is_directory(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Base { kind, .. } => matches!(kind, EntryKind::Directory | EntryKind::Gitlink),
            Self::Bound { node, .. } => node.is_directory(),
        }
    }
}

/// One workspace's overlay.
pub struct Overlay {
    // Guards everything; held exclusively for a change, shared for look-ups and for writing bytes. Taken after the
    // generation's lock in vfs; nothing that waits for the network or the kernel is done under it.
    state: RwLock<State>,
    files: Files,
    defaults: Defaults,
    /// Held while rows are folded: two writers would overtake each other. Taken before `state`.
    folding: Mutex<()>,
}

pub(super) struct State {
    pub(super) log: OverlayLog,
    /// Unlinked, but the kernel still knows them.
    pub(super) orphans: HashMap<Ino, Arc<Node>>,
    /// Inodes whose writes are in the journal since a token was last handed out.
    reported: HashSet<Ino>,
    /// Merged listings of directories, the last few.
    listings: listing::Cache,
    /// Inodes changed since they were last compared with the base.
    pub(super) unsettled: HashSet<Ino>,
    /// The generation that was published here last, of which the bindings and nodes are changes; none yet: the one that
    /// it was opened with, or a later one.
    pub(super) published: Option<Generation>,
    /// Bytes of small new files that are no files yet.
    held: held::Held,
}

impl Overlay {
    /// Opens the overlay of `workspace`, whose files are in `directory`.
    pub fn open(store: &Store, workspace: WorkspaceId, directory: &Path, defaults: Defaults) -> Outcome<Self> {
        let log = OverlayLog::open(store, workspace, directory)?;
        let files = Files::open(&directory.join("files"))?;
        let state = State {
            log,
            orphans: HashMap::new(),
            reported: HashSet::new(),
            listings: listing::Cache::default(),
            unsettled: HashSet::new(),
            published: None,
            held: held::Held::default(),
        };
        let overlay = Self { state: RwLock::new(state), files, defaults, folding: Mutex::new(()) };
        overlay.restore_held();
        // What a killed process left is made durable now, so that only write-ahead files of this one have to be synced.
        match overlay.fold(true) {
            // The write-ahead files stay until there is room.
            Err(OverlayError::Index(IndexError::Store(error))) if error.kind == StoreErrorKind::Full => {
                tracing::warn!("{error}");
            }
            folded => folded?,
        }
        overlay.remove_strays()?;
        Ok(overlay)
    }

    /// Owner and times of what was never touched.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The node of `ino`, if it is not as the base has it.
    pub fn node(&self, ino: Ino) -> Outcome<Option<Arc<Node>>> {
        self.state.read().node(ino)
    }

    /// What `name` in `parent` was made to lead to; `None`: what the base says.
    pub fn binding(&self, parent: Ino, name: &[u8]) -> Outcome<Option<Binding>> {
        Ok(self.state.read().log.binding(parent.0, name)?)
    }

    /// What `name` in `parent` leads to.
    pub fn find(&self, view: &View, ground: &dyn Ground, parent: Ino, name: &[u8]) -> Outcome<Found> {
        self.state.read().find(view, ground, parent, name)
    }

    /// The base's directory that `ino` shows beneath its changes; `None`: it has none.
    pub fn base(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<Option<Arc<Directory>>> {
        self.state.read().base(view, ground, ino)
    }

    /// The base's tree that directory `ino` shows beneath its changes; `None`: it has none.
    pub fn tree(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<Option<ObjectId>> {
        self.state.read().tree(view, ground, ino)
    }

    /// The path that the base has what `ino` shows at: what attributes go by, also where it was renamed.
    pub fn base_path(&self, ground: &dyn Ground, ino: Ino) -> Outcome<Vec<u8>> {
        self.state.read().base_path(ground, ino)
    }

    /// The kernel forgot `ino`: what was unlinked goes for good.
    pub fn forgotten(&self, ino: Ino) {
        if self.state.read().orphans.is_empty() {
            return;
        }
        let mut state = self.state.write();
        let orphan = state.orphans.remove(&ino);
        if let Some(Content::File(number)) = orphan.map(|node| node.content.clone())
            && !state.held.forget(number)
        {
            drop(state);
            self.files.remove(number);
        }
    }

    /// Folds what is pending into the store, if there is much of it or `all` is asked for. Not from a thread that answers
    /// the kernel: it waits for the disk.
    pub fn fold(&self, all: bool) -> Outcome<()> {
        /// Values and bytes beyond which memory is given back even while more changes arrive.
        const PUTS: usize = 100_000;
        const BYTES: u64 = 96 << 20;
        let _turn = self.folding.lock();
        let begun = {
            let mut state = self.state.write();
            let (puts, bytes) = state.log.pending();
            if puts == 0 || !(all || puts > PUTS || bytes > BYTES) { None } else { state.log.begin()? }
        };
        let Some(fold) = begun else { return Ok(()) };
        // The write-ahead files that have their bytes go with the fold.
        let outcome = self.release_all().and_then(|()| Ok(fold.run()?)).map_err(|error| match error {
            OverlayError::Index(IndexError::Store(error)) => error,
            OverlayError::Io(error) => StoreError::writing("a file of local changes", &error),
            other => StoreError::writing("local changes", &io::Error::other(other.to_string())),
        });
        self.state.write().log.finish(fold, &outcome);
        Ok(outcome?)
    }

    /// Folds everything at an orderly end.
    pub fn close(&self) -> Outcome<()> {
        let _turn = self.folding.lock();
        let mut state = self.state.write();
        self.release_rest(&mut state)?;
        Ok(state.log.close()?)
    }

    /// Whether nothing was ever changed.
    pub fn is_pristine(&self) -> bool {
        self.state.read().log.is_pristine()
    }

    /// Removes plain files that no inode has: what a killed process had just made, or was about to remove. Those that one
    /// has may be equal to the base.
    fn remove_strays(&self) -> Outcome<()> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let mut used = HashSet::new();
        for ino in state.log.inodes()? {
            match state.log.node(ino)?.map(|node| node.content.clone()) {
                Some(Content::File(number)) => {
                    used.insert(number);
                    state.unsettled.insert(Ino(ino));
                }
                Some(Content::Target(_)) => drop(state.unsettled.insert(Ino(ino))),
                _ => {}
            }
        }
        let numbers = self.files.numbers()?;
        for number in numbers.into_iter().filter(|number| !used.contains(number)) {
            self.files.remove_now(number);
        }
        Ok(())
    }
}

impl State {
    /// Whether `view` shows a generation before the one that this is expressed against.
    pub(super) fn is_past(&self, view: &View) -> bool {
        self.published.is_some_and(|published| view.generation().generation < published)
    }

    pub(super) fn node(&self, ino: Ino) -> Outcome<Option<Arc<Node>>> {
        if let Some(orphan) = self.orphans.get(&ino) {
            return Ok(Some(Arc::clone(orphan)));
        }
        Ok(self.log.node(ino.0)?)
    }

    /// The base's tree of directory `ino`.
    pub(super) fn tree(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<Option<ObjectId>> {
        let generation = view.generation().generation.0;
        if ino == Ino::ROOT {
            return Ok(Some(view.generation().tree.0));
        }
        if let Some(noted) = ground.tree(ino, generation) {
            return Ok(noted);
        }
        let place = match self.node(ino)? {
            Some(node) => match &node.content {
                Content::Tree(tree) => return Ok(Some(*tree)),
                Content::Base => node.links.first().map(|(parent, name)| (Ino(*parent), name.clone())),
                _ if node.is_directory() => return Ok(None),
                _ => return Err(OverlayError::NotDirectory),
            },
            None => ground.place(ino),
        };
        let (parent, name) = place.ok_or(OverlayError::Stale)?;
        let tree = match self.base(view, ground, parent)? {
            Some(directory) => {
                directory.find(&name).and_then(|(_, entry)| (entry.kind == EntryKind::Directory).then_some(entry.id))
            }
            None => None,
        };
        ground.note_tree(ino, generation, tree);
        Ok(tree)
    }

    pub(super) fn base(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<Option<Arc<Directory>>> {
        match self.tree(view, ground, ino)? {
            Some(tree) => Ok(Some(view.directory(&tree)?)),
            None => Ok(None),
        }
    }

    pub(super) fn find(&self, view: &View, ground: &dyn Ground, parent: Ino, name: &[u8]) -> Outcome<Found> {
        if !self.log.is_pristine() {
            match self.log.binding(parent.0, name)? {
                Some(Binding::Whiteout) => return Ok(Found::Nothing),
                Some(Binding::Inode { ino, .. }) => {
                    let ino = Ino(ino);
                    let node = self.node(ino)?.ok_or(OverlayError::Stale)?;
                    return Ok(Found::Bound { ino, node });
                }
                None => {}
            }
        }
        Ok(self.find_base(view, ground, parent, name)?.unwrap_or(Found::Nothing))
    }

    /// What the base has under that name, whatever the overlay says.
    pub(super) fn find_base(
        &self,
        view: &View,
        ground: &dyn Ground,
        parent: Ino,
        name: &[u8],
    ) -> Outcome<Option<Found>> {
        let Some(directory) = self.base(view, ground, parent)? else { return Ok(None) };
        let Some((position, entry)) = directory.find(name) else { return Ok(None) };
        let (kind, id) = (entry.kind, entry.id);
        let ino = Ino::of(parent, name, kind, &id);
        Ok(Some(Found::Base { directory, position, kind, id, ino }))
    }

    /// The path that the base has what `ino` shows at, as far as it is the base's.
    pub(super) fn base_path(&self, ground: &dyn Ground, ino: Ino) -> Outcome<Vec<u8>> {
        let mut names: Vec<Name> = Vec::new();
        let mut ino = ino;
        while ino != Ino::ROOT && names.len() <= DEPTH_LIMIT {
            let node = self.log.node(ino.0)?;
            if let Some(node) = &node
                && !node.origin.is_empty()
            {
                names.push(node.origin.clone());
                break;
            }
            let bound = node.and_then(|node| node.links.first().map(|(parent, name)| (Ino(*parent), name.clone())));
            let (above, name) = bound.or_else(|| ground.place(ino)).ok_or(OverlayError::Stale)?;
            names.push(name);
            ino = above;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// The path of `name` in `parent`, from the root.
    pub(super) fn path(&self, ground: &dyn Ground, parent: Ino, name: &[u8]) -> Outcome<Vec<u8>> {
        let mut names: Vec<Name> = vec![Box::from(name)];
        let mut ino = parent;
        while ino != Ino::ROOT {
            if names.len() > DEPTH_LIMIT {
                return Err(OverlayError::Stale);
            }
            let place = ground.place(ino).or_else(|| {
                let node = self.log.node(ino.0).ok().flatten()?;
                node.links.first().map(|(parent, name)| (Ino(*parent), name.clone()))
            });
            let (above, name) = place.ok_or(OverlayError::Stale)?;
            names.push(name);
            ino = above;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }
}

/// Longer chains of directories only come from damage.
const DEPTH_LIMIT: usize = 10_000;

/// Now, as the files of this machine are stamped: to the tick of the kernel's clock.
pub fn now() -> Stamp {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    Stamp { seconds: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// `st_mode` of what the base has.
pub fn base_mode(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::File => libc::S_IFREG | 0o644,
        EntryKind::Executable => libc::S_IFREG | 0o755,
        EntryKind::Symlink => libc::S_IFLNK | 0o777,
        EntryKind::Directory | EntryKind::Gitlink => libc::S_IFDIR | 0o755,
    }
}
