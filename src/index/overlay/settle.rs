//! Settling: what became again what the base says is no change any more.
//!
//! A file equal to the base's gives up its bytes for the blob, which goes into the cache if it is not there. It keeps its
//! inode and its times, so nobody notices: not who has it open, not `make`, not Git.
//!
//! Invariant: what changed is not taken for compared before it was compared with the generation that the overlay is
//! expressed against. Another may be published at any moment; a comparison with one before it changes nothing then, and
//! is made again.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use gix::ObjectId;

use super::{Found, Ground, Outcome, Overlay, State};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::overlay::{Binding, Change, Content, Name, Node};
use crate::store::{Batch, EntryKind, Store};

/// Larger files are compared only when the cache has the blob: it is not put in from here.
const STORED_BYTES: u64 = 64 << 20;

/// A path that is not as the base has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Relative to the root.
    pub path: Vec<u8>,
    /// What the base has there.
    pub base: Option<(EntryKind, ObjectId)>,
    /// What is there now.
    pub now: Option<Now>,
}

/// What is at a path that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// A file or symlink of this kind, with that object id.
    Blob(EntryKind, ObjectId),
    /// A directory without entries.
    Directory,
    /// What a Git tree can't hold.
    Other,
}

/// What a checkout writes for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum As {
    /// Its bytes.
    Blob,
    /// These: it is converted.
    Bytes(Vec<u8>),
    /// It can't be told now.
    Unknown,
}

/// A file that may be what the base has.
struct Candidate {
    number: u64,
    id: ObjectId,
    kind: EntryKind,
    path: Vec<u8>,
    /// Its length in bytes.
    size: u64,
}

impl Overlay {
    /// Compares what changed lately with the base of `view`, whose blobs are in `store`. `convert` says what a checkout
    /// writes for a path, kind and blob. What can't be told now, and everything if a later generation is published
    /// meanwhile, is compared again the next time.
    pub fn settle(
        &self,
        store: &Store,
        view: &View,
        ground: &dyn Ground,
        convert: &dyn Fn(&[u8], EntryKind, ObjectId) -> As,
    ) -> Outcome<()> {
        let candidates = {
            let mut state = self.state.write();
            if state.is_past(view) {
                return Ok(());
            }
            std::mem::take(&mut state.unsettled)
        };
        let (mut again, mut outcome) = (Vec::new(), Ok(()));
        for ino in candidates.iter().copied() {
            let looked = if outcome.is_ok() { self.settle_file(store, view, ground, convert, ino) } else { Ok(false) };
            if !*looked.as_ref().unwrap_or(&false) {
                again.push(ino);
            }
            outcome = outcome.and(looked.map(drop));
        }
        {
            let mut state = self.state.write();
            let past = state.is_past(view);
            state.unsettled.extend(if past { candidates.into_iter().collect() } else { again });
        }
        outcome?;
        self.normalize(view, ground)
    }

    /// Has everything that was changed compared again: other attributes make other bytes of an unchanged base.
    pub fn unsettle(&self) -> Outcome<()> {
        let mut state = self.state.write();
        for ino in state.log.inodes()? {
            let node = state.log.node(ino)?;
            if matches!(node.map(|node| node.content.clone()), Some(Content::File(_) | Content::Target(_))) {
                state.unsettled.insert(Ino(ino));
            }
        }
        Ok(())
    }

    /// Compares one inode. False: it has to be looked at again.
    fn settle_file(
        &self,
        store: &Store,
        view: &View,
        ground: &dyn Ground,
        convert: &dyn Fn(&[u8], EntryKind, ObjectId) -> As,
        ino: Ino,
    ) -> Outcome<bool> {
        if self.settle_link(store, view, ground, ino)? {
            return Ok(true);
        }
        let Some(Candidate { number, id, kind, path, size }) = self.candidate(view, ground, ino)? else {
            return Ok(true);
        };
        let Some(file) = self.files.get(number)? else { return Ok(true) };
        match convert(&path, kind, id) {
            As::Unknown => return Ok(false),
            As::Bytes(bytes) => {
                if bytes.len() as u64 != size {
                    return Ok(true);
                }
                let mut mine = Vec::with_capacity(bytes.len());
                At { file: &file, offset: 0 }.read_to_end(&mut mine)?;
                if mine != bytes {
                    return Ok(true);
                }
            }
            As::Blob => {
                let known = store.sizes(&[id])?.into_iter().next().flatten();
                if known.is_some_and(|known| known != size) {
                    return Ok(true);
                }
                let equal = compare(store, &file, &id)?;
                if let Compared::Missing(bytes) = &equal {
                    let mut batch = Batch::default();
                    batch.blob(id, bytes);
                    // Durable before the file goes: a commit that was never pushed is nowhere else.
                    store.commit_durably(batch)?;
                }
                if matches!(equal, Compared::Different) {
                    return Ok(true);
                }
            }
        }
        let mut state = self.state.write();
        // Written to while it was read, or the bytes are those that another generation's attributes make of the blob.
        if state.reported.contains(&ino) || state.is_past(view) {
            return Ok(false);
        }
        let Some(node) = state.log.node(ino.0)?.filter(|node| node.content == Content::File(number)) else {
            return Ok(true);
        };
        let measured = self.measure(&state, &node)?;
        let mut node = Node::clone(&node);
        if let Some(measured) = measured {
            (node.atime, node.mtime, node.ctime) = (measured.atime, measured.mtime, measured.ctime);
        }
        node.content = Content::Blob(id);
        state.log.apply(Change { nodes: vec![(ino.0, Some(node))], ..Change::default() })?;
        self.files.remove(number);
        Ok(true)
    }

    /// The same for a symbolic link, whose target is its blob's bytes. True if `ino` is one.
    fn settle_link(&self, store: &Store, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<bool> {
        let mut state = self.state.write();
        let Some(node) = state.log.node(ino.0)? else { return Ok(false) };
        let Content::Target(target) = &node.content else { return Ok(false) };
        let [(parent, name)] = node.links.as_slice() else { return Ok(true) };
        let Some(Found::Base { kind: EntryKind::Symlink, id, .. }) =
            state.find_base(view, ground, Ino(*parent), name)?
        else {
            return Ok(true);
        };
        if object_id(id.kind(), &mut &target[..], target.len() as u64)? != id {
            return Ok(true);
        }
        if !store.contains(&id)? {
            let mut batch = Batch::default();
            batch.blob(id, target);
            store.commit_durably(batch)?;
        }
        let node = Node { content: Content::Blob(id), ..Node::clone(&node) };
        state.log.apply(Change { nodes: vec![(ino.0, Some(node))], ..Change::default() })?;
        Ok(true)
    }

    /// The plain file of `ino` and the blob it may be equal to. From now on a write to it shows.
    fn candidate(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<Option<Candidate>> {
        let mut state = self.state.write();
        let Some(node) = state.log.node(ino.0)? else { return Ok(None) };
        let (Content::File(number), [(parent, name)]) = (&node.content, node.links.as_slice()) else { return Ok(None) };
        let Some(Found::Base { kind: kind @ (EntryKind::File | EntryKind::Executable), id, .. }) =
            state.find_base(view, ground, Ino(*parent), name)?
        else {
            return Ok(None);
        };
        state.reported.remove(&ino);
        self.release(&mut state, *number)?;
        let size = self.measure(&state, &node)?.map_or(0, |measured| measured.size);
        let path = state.path(ground, Ino(*parent), name)?;
        Ok(Some(Candidate { number: *number, id, kind, path, size }))
    }

    /// Entries that differ from the base: what `larder status` counts.
    pub fn count(&self, view: &View, ground: &dyn Ground) -> Outcome<u64> {
        let state = self.state.read();
        let mut count = 0;
        state.changed(view, ground, false, &mut |_, _, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Trees and blobs of the base that it needs, wherever they are shown, and the originals of what was changed: Git
    /// compares with them.
    pub fn rests_on(&self, view: &View, ground: &dyn Ground) -> Outcome<(Vec<ObjectId>, Vec<ObjectId>)> {
        let state = self.state.read();
        let (mut trees, mut blobs) = (Vec::new(), Vec::new());
        let mut add = |entry: Option<(EntryKind, ObjectId)>| match entry {
            Some((EntryKind::Directory, id)) => trees.push(id),
            Some((EntryKind::File | EntryKind::Executable | EntryKind::Symlink, id)) => blobs.push(id),
            Some((EntryKind::Gitlink, _)) | None => {}
        };
        let of = |node: &Node| match node.content {
            Content::Tree(id) => Some((EntryKind::Directory, id)),
            Content::Blob(id) => Some((EntryKind::File, id)),
            _ => None,
        };
        state.orphans.values().for_each(|node| add(of(node)));
        state.changed(view, ground, false, &mut |_, base, seen| {
            add(base.filter(|(kind, _)| *kind != EntryKind::Directory));
            add(match seen {
                Seen::Node(node) => of(node),
                Seen::Moved(kind, id) => Some((kind, id)),
                Seen::Nothing => None,
            });
            Ok(())
        })?;
        Ok((trees, blobs))
    }

    /// What Git would take a node for.
    fn now_of(&self, state: &State, node: &Node, hash: gix::hash::Kind) -> Outcome<Now> {
        Ok(match &node.content {
            _ if node.is_directory() => Now::Directory,
            Content::Blob(id) => Now::Blob(kind_of(node), *id),
            Content::Target(target) => {
                Now::Blob(EntryKind::Symlink, object_id(hash, &mut &target[..], target.len() as u64)?)
            }
            Content::File(number) => {
                let id = match state.held.get(*number) {
                    Some(bytes) => object_id(hash, &mut &bytes[..], bytes.len() as u64)?,
                    None => match self.files.get(*number)? {
                        Some(file) => {
                            let length = file.metadata()?.len();
                            object_id(hash, &mut At { file: &file, offset: 0 }, length)?
                        }
                        None => object_id(hash, &mut io::empty(), 0)?,
                    },
                };
                Now::Blob(kind_of(node), id)
            }
            _ => Now::Other,
        })
    }

    /// Every path that differs from the base, files of directories that were renamed or removed included; object ids are
    /// computed as Git would without conversions.
    pub fn differences(&self, view: &View, ground: &dyn Ground) -> Outcome<Vec<Difference>> {
        let state = self.state.read();
        let hash = view.generation().tree.0.kind();
        let mut found = Vec::new();
        state.changed(view, ground, true, &mut |path, base, seen| {
            match base {
                Some((EntryKind::Directory, id)) => below(view, path, &id, &mut |path, entry| {
                    found.push(Difference { path, base: Some(entry), now: None });
                })?,
                Some(base) => found.push(Difference { path: path.to_vec(), base: Some(base), now: None }),
                None => {}
            }
            let now = match seen {
                Seen::Nothing => return Ok(()),
                Seen::Moved(EntryKind::Directory, tree) => {
                    return below(view, path, &tree, &mut |path, (kind, id)| {
                        found.push(Difference { path, base: None, now: Some(Now::Blob(kind, id)) });
                    });
                }
                Seen::Moved(EntryKind::Gitlink, _) => Now::Directory,
                Seen::Moved(kind, id) => Now::Blob(kind, id),
                Seen::Node(node) => self.now_of(&state, node, hash)?,
            };
            found.push(Difference { path: path.to_vec(), base: None, now: Some(now) });
            Ok(())
        })?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|later, first| {
            let same = later.path == first.path;
            if same {
                first.base = first.base.or(later.base);
                first.now = first.now.take().or(later.now.take());
            }
            same
        });
        found.retain(|one| one.base.is_some() || one.now.is_some());
        found.retain(|one| one.now.as_ref() != one.base.map(|(kind, id)| Now::Blob(kind, id)).as_ref());
        Ok(found)
    }
}

/// What is at a path that differs from the base.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    /// Nothing.
    Nothing,
    /// This inode.
    Node(&'a Node),
    /// An entry of a tree that was moved here with its directory.
    Moved(EntryKind, ObjectId),
}

/// Told of a path, what the base has there and what is there now.
pub(super) type See<'a> = dyn FnMut(&[u8], Option<(EntryKind, ObjectId)>, Seen<'_>) -> Outcome<()> + 'a;

impl State {
    /// Calls `see` with each path that is not as the base has it; with `all` also with what is unchanged in directories
    /// that the base has elsewhere.
    pub(super) fn changed(&self, view: &View, ground: &dyn Ground, all: bool, see: &mut See<'_>) -> Outcome<()> {
        // A directory is detached when the base has none at its place: whatever is in it is added.
        let mut open: Vec<(Ino, Vec<u8>, bool)> = vec![(Ino::ROOT, Vec::new(), false)];
        while let Some((parent, prefix, detached)) = open.pop() {
            let bindings = self.log.bindings(parent.0)?;
            if bindings.is_empty() && !(detached && all) {
                continue;
            }
            let directory = self.base(view, ground, parent)?;
            if detached && all {
                for entry in directory.iter().flat_map(|directory| directory.listing().iter()) {
                    if !bindings.contains_key(entry.name) {
                        see(&[&prefix[..], entry.name].concat(), None, Seen::Moved(entry.kind, entry.id))?;
                    }
                }
            }
            for (name, binding) in bindings {
                let path = [&prefix[..], &name].concat();
                let base = directory.as_ref().and_then(|directory| directory.find(&name));
                let base = base.map(|(_, entry)| (entry.kind, entry.id));
                let Binding::Inode { ino, .. } = binding else {
                    if !detached {
                        see(&path, base, Seen::Nothing)?;
                    }
                    continue;
                };
                let Some(node) = self.node(Ino(ino))? else { continue };
                let there = if detached { None } else { base };
                if node.is_directory() {
                    let stays = node.content == Content::Base && !detached;
                    if !stays {
                        see(&path, there, Seen::Node(&node))?;
                    }
                    open.push((Ino(ino), [&path[..], b"/"].concat(), !stays));
                } else if !is_base(&node, base) || (detached && all) {
                    see(&path, there, Seen::Node(&node))?;
                }
            }
        }
        Ok(())
    }
}

/// Whether Git would find nothing changed in `node` where the base has `base`.
pub fn is_base(node: &Node, base: Option<(EntryKind, ObjectId)>) -> bool {
    matches!((&node.content, base), (Content::Blob(id), Some((kind, of))) if *id == of && kind_of(node) == kind)
}

/// What Git takes a node for.
fn kind_of(node: &Node) -> EntryKind {
    if node.is_symlink() {
        EntryKind::Symlink
    } else if node.mode & 0o100 != 0 {
        EntryKind::Executable
    } else {
        EntryKind::File
    }
}

/// Calls `see` with every file below a tree.
fn below(
    view: &View,
    path: &[u8],
    tree: &ObjectId,
    see: &mut dyn FnMut(Vec<u8>, (EntryKind, ObjectId)),
) -> Outcome<()> {
    let mut open: Vec<(Vec<u8>, ObjectId)> = vec![(path.to_vec(), *tree)];
    while let Some((prefix, tree)) = open.pop() {
        let directory = view.directory(&tree)?;
        for entry in directory.listing().iter() {
            let path: Name = [&prefix[..], b"/", entry.name].concat().into();
            if entry.kind == EntryKind::Directory {
                open.push((path.into(), entry.id));
            } else {
                see(path.into(), (entry.kind, entry.id));
            }
        }
    }
    Ok(())
}

/// What a file is to a blob.
enum Compared {
    /// Something else.
    Different,
    /// The same, and the cache has it.
    Held,
    /// The same, and the cache lacks it.
    Missing(Vec<u8>),
}

/// Compares the bytes of `file` with the blob `id`.
fn compare(store: &Store, file: &File, id: &ObjectId) -> Outcome<Compared> {
    let length = file.metadata()?.len();
    let held = store.contains(id)?;
    if !held && length > STORED_BYTES {
        return Ok(Compared::Different);
    }
    if held {
        let equal = object_id(id.kind(), &mut At { file, offset: 0 }, length)? == *id;
        return Ok(if equal { Compared::Held } else { Compared::Different });
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    if let Err(error) = file.read_exact_at(&mut bytes, 0) {
        // Cut meanwhile: the next time tells.
        let cut = error.kind() == io::ErrorKind::UnexpectedEof;
        return if cut { Ok(Compared::Different) } else { Err(error.into()) };
    }
    let equal = object_id(id.kind(), &mut &bytes[..], length)? == *id;
    Ok(if equal { Compared::Missing(bytes) } else { Compared::Different })
}

/// Reads a file from the start, whatever others do with its position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The id of a blob with these bytes (gitformat-pack(5), "object name").
fn object_id(kind: gix::hash::Kind, bytes: &mut dyn Read, length: u64) -> Outcome<ObjectId> {
    let mut hasher = gix::hash::hasher(kind);
    hasher.update(format!("blob {length}\0").as_bytes());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    hasher.try_finalize().map_err(|error| io::Error::other(error).into())
}
