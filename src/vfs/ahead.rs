//! What is fetched before it is asked for: siblings of what is read, files of what is listed, sizes.
//!
//! Refuses to resolve the sizes of a directory one file at a time, and to fetch
//! contents for them where the server answers for sizes alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::ObjectId;
use parking_lot::Mutex;

use super::errno::Errno;
use super::inode::What;
use super::ops::{Bytes, Fs, Shown};
use crate::config::Prefetch;
use crate::hydrate::{Cause, Class, FailureKind, Landed, RemoteError, Sizes, Want};
use crate::index::ino::Ino;
use crate::index::view::Directory;
use crate::store::EntryKind;

/// Most siblings that ride along with a read or a size: one batch.
const SIBLINGS: usize = 255;

/// Most files of a directory that listing it prefetches.
const LISTED: usize = 256;

/// Entries of a directory among which the best are chosen. Looking at four batches' worth keeps this short in
/// directories of a hundred thousand files.
const CONSIDERED: usize = 4 * SIBLINGS;

/// Most names whose sizes are asked for at once.
const SIZE_QUERY_LIMIT: usize = 100_000;

/// Directories looked into for more files whose size is unknown.
const NEIGHBOURS: usize = 64;

/// Files of neighbouring directories taken along the second time that sizes are resolved in a row; doubles with each.
const FIRST_NEIGHBOURS: usize = 32;

/// Sizes resolved further apart are no walk through a tree.
const IN_A_ROW: Duration = Duration::from_secs(2);

/// How often sizes had to be fetched one shortly after the other: whoever does that walks a tree, and will ask for
/// those of the next directories too.
#[derive(Default)]
pub(super) struct SizesInARow(Mutex<Option<Row>>);

#[derive(Clone, Copy)]
struct Row {
    last: Instant,
    directory: Ino,
    /// Directories in a row.
    length: u32,
}

/// Where a question for a size stands among those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The first for long.
    First,
    /// Another one of the same directory.
    SameDirectory,
    /// So many other directories were asked about just before.
    NextDirectory(u32),
}

impl Turn {
    /// How many files of the next directories are worth taking along; `None`: this is no walk.
    fn walk(self) -> Option<usize> {
        match self {
            Self::First => None,
            Self::SameDirectory => Some(0),
            Self::NextDirectory(row) => Some((FIRST_NEIGHBOURS << (row - 1).min(8)).min(SIBLINGS)),
        }
    }
}

impl SizesInARow {
    /// Notes one more, in `directory`.
    fn next(&self, directory: Ino) -> Turn {
        let mut row = self.0.lock();
        let now = Instant::now();
        let before = row.filter(|row| now.duration_since(row.last) < IN_A_ROW);
        let (turn, length) = match before {
            // Many readers of one directory walk nowhere.
            Some(before) if before.directory == directory => (Turn::SameDirectory, before.length),
            Some(before) => (Turn::NextDirectory(before.length + 1), before.length + 1),
            None => (Turn::First, 0),
        };
        *row = Some(Row { last: now, directory, length });
        turn
    }

    /// The time it took does not count as time between.
    fn done(&self) {
        if let Some(row) = self.0.lock().as_mut() {
            row.last = Instant::now();
        }
    }
}

impl Fs {
    /// The size of the blob `id` at `position` of the directory of `ino`, learned with those of its directory in one
    /// request.
    pub(super) async fn resolve_size(&self, shown: &Shown, ino: Ino) -> Result<u64, Errno> {
        let Bytes::Blob(id) = self.bytes_of(shown, ino)? else { return Err(Errno::EINVAL) };
        let node = self.inodes.get(ino).ok_or(Errno::ESTALE)?;
        let place = match node.what {
            What::Blob { position, .. } => self.directory_of(shown, node.parent, &id, position)?.zip(Some(position)),
            _ => None,
        };
        let turn = self.sizes_in_a_row.next(node.parent);
        if shown.converter.is_some() {
            let resolved = self.resolve_converted(shown, ino, id, turn.walk()).await;
            self.sizes_in_a_row.done();
            if let Some(resolved) = resolved? {
                return Ok(resolved.size);
            }
        }
        let Some((directory, position)) = place else { return self.resolve_alone(shown, ino, id).await };
        let position = position as usize;
        let cause = self.cause(shown, ino);
        if shown.hydrator.offers_sizes() != Some(false) {
            match self.ask_for_sizes(shown, &directory, position, turn, &cause).await {
                Err(error) if error.kind == FailureKind::Unsupported => {}
                Err(error) => return Err(self.failed(shown, &cause.label, id, &error)),
                // The server answered for all that it has.
                Ok(told) => {
                    self.sizes_in_a_row.done();
                    self.learn_sizes(&directory)?;
                    learn_told(&directory, &told);
                    return directory.size(position).ok_or(Errno::EIO);
                }
            }
        }
        self.missed();
        let companions = self.size_companions(shown, &directory, node.parent, position, turn);
        let landed = shown.hydrator.hydrate(Want { id, size: None }, &cause, &companions).wait().await;
        self.sizes_in_a_row.done();
        let size = match landed.map_err(|error| self.failed(shown, &cause.label, id, &error))? {
            Landed::Bytes(bytes) => bytes.len() as u64,
            // Something else than a blob has no size to show.
            Landed::Structure(..) => return Err(Errno::EIO),
            Landed::Stored => self.known_size(&id)?.ok_or(Errno::EIO)?,
        };
        directory.learn(position, size);
        Ok(size)
    }

    /// The size of a blob that has no place in the base any more: a renamed file, or one whose base moved on.
    async fn resolve_alone(&self, shown: &Shown, ino: Ino, id: ObjectId) -> Result<u64, Errno> {
        let cause = self.cause(shown, ino);
        if shown.hydrator.offers_sizes() != Some(false)
            && let Ok(told) = shown.hydrator.sizes(vec![id], Some(&cause)).await
            && let Some((_, size)) = told.into_iter().find(|(told, _)| *told == id)
        {
            return Ok(size);
        }
        let landed = shown.hydrator.hydrate(Want { id, size: None }, &cause, &[]).wait().await;
        match landed.map_err(|error| self.failed(shown, &cause.label, id, &error))? {
            Landed::Bytes(bytes) => Ok(bytes.len() as u64),
            Landed::Structure(..) => Err(Errno::EIO),
            Landed::Stored => self.known_size(&id)?.ok_or(Errno::EIO),
        }
    }

    /// What the store knows of the size of `id`.
    pub(super) fn known_size(&self, id: &ObjectId) -> Result<Option<u64>, Errno> {
        Ok(self.store.sizes(&[*id]).map_err(|error| Errno::from(&error))?.into_iter().next().flatten())
    }

    /// Asks the server for sizes alone. Whoever goes from directory to directory while those of the whole generation
    /// are on their way waits for these instead.
    async fn ask_for_sizes(
        &self,
        shown: &Shown,
        directory: &Directory,
        position: usize,
        turn: Turn,
        cause: &Arc<Cause>,
    ) -> Result<Sizes, RemoteError> {
        if matches!(turn, Turn::NextDirectory(_)) {
            let mut learning = shown.learning.subscribe();
            let limit = shown.hydrator.settings().timeout;
            let _ = tokio::time::timeout(limit, learning.wait_for(|learning| !*learning)).await;
            if self.learn_sizes(directory).is_ok() && directory.size(position).is_some() {
                return Ok(Sizes::new());
            }
        }
        let unknown: Vec<ObjectId> = after(directory, position, |p| directory.size(p).is_none())
            .take(SIZE_QUERY_LIMIT)
            .map(|(_, id)| id)
            .collect();
        shown.hydrator.sizes(unknown, Some(cause)).await
    }

    /// What comes along when a size has to be learned by fetching: otherwise sizes would be fetched one file at a time.
    fn size_companions(
        &self,
        shown: &Shown,
        directory: &Directory,
        ino: Ino,
        position: usize,
        turn: Turn,
    ) -> Vec<Want> {
        let own = || self.companions(directory, position, |p| directory.size(p).is_none());
        match (shown.prefetch, turn) {
            // One file, opened; the second of its directory tells that all are looked at.
            (Prefetch::Off, Turn::First | Turn::NextDirectory(_)) => Vec::new(),
            (_, Turn::First | Turn::SameDirectory) => own(),
            (_, Turn::NextDirectory(_)) => {
                let mut companions = own();
                let budget = turn.walk().unwrap_or(0);
                companions.extend(self.neighbours(shown, ino, budget.saturating_sub(companions.len())));
                companions
            }
        }
    }

    fn learn_sizes(&self, directory: &Directory) -> Result<(), Errno> {
        let unknown: Vec<(usize, ObjectId)> = after(directory, 0, |p| directory.size(p).is_none()).collect();
        let ids: Vec<ObjectId> = unknown.iter().map(|(_, id)| *id).collect();
        let sizes = self.store.sizes(&ids).map_err(|error| Errno::from(&error))?;
        for ((position, _), size) in unknown.iter().zip(sizes) {
            if let Some(size) = size {
                directory.learn(*position, size);
            }
        }
        Ok(())
    }

    /// Siblings of the entry at `position` that `choose` accepts and the store lacks.
    pub(super) fn companions(
        &self,
        directory: &Directory,
        position: usize,
        choose: impl Fn(usize) -> bool,
    ) -> Vec<Want> {
        let near: Vec<(usize, ObjectId)> = after(directory, position, choose).skip(1).take(CONSIDERED).collect();
        self.lacking(directory, &near, SIBLINGS)
    }

    /// Up to `most` files of unknown size in the directories that a walk enters after `directory`: those below it, then
    /// those after it.
    pub(super) fn neighbours(&self, shown: &Shown, directory: Ino, most: usize) -> Vec<Want> {
        let mut found: Vec<Want> = Vec::new();
        let mut above = directory;
        let mut trees: Vec<ObjectId> = Vec::new();
        let Ok(Some(own)) = self.directory(shown, directory) else { return found };
        trees.extend(subdirectories(&own, 0).into_iter().rev());
        for _ in 0..NEIGHBOURS {
            if found.len() >= most {
                break;
            }
            let Some(tree) = trees.pop() else {
                // Up, and on behind where it came from.
                let Some(node) = (above != Ino::ROOT).then(|| self.inodes.get(above)).flatten() else { break };
                let Ok(Some(parent)) = self.directory(shown, node.parent) else { break };
                let behind = parent.find(&node.name).map_or(usize::MAX, |(position, _)| position + 1);
                trees.extend(subdirectories(&parent, behind).into_iter().rev());
                above = node.parent;
                continue;
            };
            let Ok(next) = shown.view.directory(&tree) else { break };
            let near: Vec<(usize, ObjectId)> = after(&next, 0, |p| next.size(p).is_none()).take(CONSIDERED).collect();
            found.extend(self.lacking(&next, &near, most - found.len()));
            trees.extend(subdirectories(&next, 0).into_iter().rev());
        }
        found
    }

    /// Those of `near` that the store lacks, at most `most`.
    fn lacking(&self, directory: &Directory, near: &[(usize, ObjectId)], most: usize) -> Vec<Want> {
        let ids: Vec<ObjectId> = near.iter().map(|(_, id)| *id).collect();
        let Ok(missing) = self.store.missing_blobs(&ids) else { return Vec::new() };
        let mut missing = missing.into_iter().peekable();
        near.iter()
            .filter(|(_, id)| missing.next_if_eq(id).is_some())
            .take(most)
            .map(|(position, id)| Want { id: *id, size: directory.size(*position) })
            .collect()
    }

    /// Queues the files of a directory that is being listed, most useful first.
    pub(super) fn listed_ahead(&self, shown: &Shown, ino: Ino, directory: &Directory) {
        let classes = &shown.hydrator.settings().classes;
        let mut wants: Vec<(Want, Class)> = after(directory, 0, |_| true)
            .take(CONSIDERED)
            .map(|(position, id)| {
                let (name, size) =
                    (directory.listing().get(position).map(|entry| entry.name), directory.size(position));
                (Want { id, size }, classes.class(name.unwrap_or_default(), size))
            })
            .collect();
        wants.sort_by_key(|(_, class)| *class);
        wants.truncate(LISTED);
        if let Err(error) = shown.hydrator.prefetch(&self.cause(shown, ino), &wants) {
            // Nobody waits for it; a read of the same store will say so to somebody.
            tracing::debug!("prefetch: {error}");
        }
    }
}

/// Notes sizes that were told, whether or not the store took them: a full disk is no reason not to show them.
fn learn_told(directory: &Directory, told: &Sizes) {
    let told: HashMap<&ObjectId, u64> = told.iter().map(|(id, size)| (id, *size)).collect();
    let unknown: Vec<(usize, ObjectId)> = after(directory, 0, |p| directory.size(p).is_none()).collect();
    for (position, id) in unknown {
        if let Some(size) = told.get(&id) {
            directory.learn(position, *size);
        }
    }
}

/// Trees of the directories in `directory` from position `from` on.
fn subdirectories(directory: &Directory, from: usize) -> Vec<ObjectId> {
    (from..directory.listing().len())
        .filter_map(|position| directory.listing().get(position))
        .filter(|entry| entry.kind == EntryKind::Directory)
        .map(|entry| entry.id)
        .take(NEIGHBOURS)
        .collect()
}

/// Blobs of `directory` from `position` on and round again, as far as `choose` accepts their position.
fn after(
    directory: &Directory,
    position: usize,
    choose: impl Fn(usize) -> bool,
) -> impl Iterator<Item = (usize, ObjectId)> {
    let count = directory.listing().len();
    (position..count).chain(0..position.min(count)).filter_map(move |at| {
        let entry = directory.listing().get(at)?;
        (entry.kind.is_blob() && choose(at)).then_some((at, entry.id))
    })
}
