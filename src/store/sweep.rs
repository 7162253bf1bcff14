//! Taking objects out of the store: what garbage collection and eviction decided.
//!
//! Invariants:
//!
//! * One short transaction after the other, so that whoever stores waits a few milliseconds; who reads never waits. After
//!   each the store is whole: a reader finds an object or does not.
//! * A chunk has no members but those it was written with, so a look at all blobs tells who is left in it. When much of it
//!   is gone, those move to a new chunk: what is not moved and what is not there any more is never more than a part in
//!   [`HOLES`].
//! * What was used, or stored anew, since it was chosen stays.

use std::collections::{HashMap, HashSet};

use gix::ObjectId;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::batch::NEXT_CHUNK;
use super::db::Wait;
use super::error::{Failure, StoreError};
use super::row::{BlobRow, Place, seal, unseal};
use super::schema::{ACCESS, BLOBS, CHUNKS, CONVERTED, COUNTERS, SIZES, TREE_SIZES, TREES};
use super::stats::Totals;
use super::{Store, converted, pack, schema, warmed};

/// Blobs taken out in one transaction.
const BLOBS_PER_STEP: usize = 512;

/// Bytes moved in one transaction, about.
const MOVED_PER_STEP: usize = 1 << 20;

/// Trees, sizes and other small rows taken out in one transaction.
const ROWS_PER_STEP: usize = 2048;

/// A chunk with more than one part in this many gone is written anew.
const HOLES: usize = 16;

/// A blob as whoever decides about it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its id.
    pub id: ObjectId,
    /// Bytes of its content.
    pub raw_size: u64,
    /// Bytes it takes in the store.
    pub stored_size: u64,
    /// When it was last used, in hours since 1970: never later than that.
    pub last_used: u32,
    place: Place,
}

impl StoredBlob {
    /// The chunk it begins in: later ones were stored later.
    pub fn chunk(&self) -> u64 {
        match self.place {
            Place::Packed { chunk, .. } => chunk,
            Place::Run { first_chunk, .. } => first_chunk,
        }
    }

    /// Whether it shares a chunk with others.
    fn is_packed(&self) -> bool {
        matches!(self.place, Place::Packed { .. }) && self.stored_size > 0
    }
}

/// What becomes of the size of a blob that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSize {
    /// It stays known: something names the blob.
    Yes,
    /// It goes too.
    No,
}

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs and trees.
    pub objects: u64,
    /// Bytes the blobs had as stored.
    pub stored_bytes: u64,
    /// Whether all was done; if not, the caller stopped it.
    pub complete: bool,
}

/// A member of a chunk some others of which go.
struct Member {
    chunk: u64,
    id: ObjectId,
}

impl Store {
    /// Every blob that `wanted` says yes to, in the order of ids; one read transaction. Rows that are damaged are passed by.
    pub fn blobs_where(&self, wanted: impl Fn(&StoredBlob) -> bool) -> Result<Vec<StoredBlob>, StoreError> {
        let noted = self.inner.access.lock().clone();
        self.inner.read("looking through all blobs", |txn| {
            let mut found = Vec::new();
            each_blob(txn, &noted, &mut |blob| found.extend(blob.filter(&wanted)))?;
            Ok(found)
        })
    }

    /// Every tree that `wanted` says yes to; one read transaction.
    pub fn trees_where(&self, wanted: impl Fn(&ObjectId) -> bool) -> Result<Vec<ObjectId>, StoreError> {
        self.inner.read("looking through all trees", |txn| {
            let mut found = Vec::new();
            for row in txn.open_table(TREES)?.iter()? {
                let (id, _) = row?;
                found.extend(ObjectId::try_from(id.value()).ok().filter(|id| wanted(id)));
            }
            Ok(found)
        })
    }

    /// Ids of converted files and the blobs they were made of.
    pub fn converted_sources(&self) -> Result<Vec<(ObjectId, ObjectId)>, StoreError> {
        self.inner.read("looking through converted files", |txn| {
            let mut found = Vec::new();
            for row in txn.open_table(CONVERTED)?.iter()? {
                let (id, row) = row?;
                let (Ok(id), Some(row)) = (ObjectId::try_from(id.value()), unseal(id.value(), row.value())) else {
                    continue;
                };
                found.extend(converted::source(row).map(|source| (id, source)));
            }
            Ok(found)
        })
    }

    /// Blobs here that `reached` says no to.
    pub fn unreached_blobs(&self, reached: impl Fn(&ObjectId) -> bool) -> Result<super::IdSet, StoreError> {
        let found = self.blobs_where(|blob| !reached(&blob.id))?;
        let mut set = super::IdSet::default();
        set.extend(found.iter().map(|blob| &blob.id));
        Ok(set)
    }

    /// Takes `blobs` out. `go_on` is asked before each transaction; it may wait.
    pub fn remove_blobs(
        &self,
        mut blobs: Vec<(StoredBlob, KeepSize)>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Swept, StoreError> {
        blobs.sort_unstable_by_key(|(blob, _)| blob.chunk());
        let mut left = self.left_behind(&blobs)?.into_iter().peekable();
        let mut swept = Swept { complete: true, ..Swept::default() };
        let mut rest = &blobs[..];
        while !rest.is_empty() {
            if !go_on() {
                swept.complete = false;
                break;
            }
            let mut step = Step::default();
            let mut moving = 0;
            while step.blobs.len() < BLOBS_PER_STEP && moving < MOVED_PER_STEP {
                let Some((first, _)) = rest.first() else { break };
                let chunk = first.chunk();
                let count = rest.iter().take_while(|(blob, _)| blob.chunk() == chunk).count();
                step.blobs.extend(&rest[..count]);
                rest = &rest[count..];
                let mut members = Vec::new();
                while let Some(member) = left.next_if(|member| member.chunk <= chunk) {
                    members.push(member.id);
                }
                if !members.is_empty() {
                    moving += pack::CHUNK_BYTES;
                }
                // The chunks of runs go with their rows, and an empty blob is in none.
                if step.blobs[step.blobs.len() - count..].iter().any(|(blob, _)| blob.is_packed()) {
                    step.chunks.push((chunk, members));
                }
            }
            // What was used since it was chosen stays, and its chunk.
            let used = self.inner.access.lock();
            step.spared = step
                .blobs
                .iter()
                .map(|(blob, _)| used.get(&blob.id).is_some_and(|hour| *hour > blob.last_used))
                .collect();
            drop(used);
            let bytes = moving as u64 + 4096;
            let (gone, stored_bytes) =
                self.inner.write("taking blobs out", Wait::Relaxed, bytes, |txn| step.run(txn))?;
            swept.objects += gone.len() as u64;
            swept.stored_bytes += stored_bytes;
            self.inner.tell(|watch| watch.left(&gone));
        }
        Ok(swept)
    }

    /// Members of the chunks of `blobs`, which are sorted by chunk, that are not among them.
    fn left_behind(&self, blobs: &[(StoredBlob, KeepSize)]) -> Result<Vec<Member>, StoreError> {
        let packed = blobs.iter().filter(|(blob, _)| blob.is_packed());
        let chunks: HashSet<u64> = packed.map(|(blob, _)| blob.chunk()).collect();
        // One that can't be told from them would be lost, so this set is exact.
        let gone: HashSet<&ObjectId> = blobs.iter().map(|(blob, _)| &blob.id).collect();
        let left =
            self.blobs_where(|blob| blob.is_packed() && chunks.contains(&blob.chunk()) && !gone.contains(&blob.id))?;
        let mut members: Vec<Member> =
            left.into_iter().map(|blob| Member { chunk: blob.chunk(), id: blob.id }).collect();
        members.sort_by_key(|member| member.chunk);
        Ok(members)
    }

    /// Takes trees out, with what is known of their sizes. `go_on` as for blobs.
    pub fn remove_trees(&self, ids: &[ObjectId], go_on: &mut dyn FnMut() -> bool) -> Result<Swept, StoreError> {
        let mut swept = Swept { complete: true, ..Swept::default() };
        for some in ids.chunks(ROWS_PER_STEP) {
            if !go_on() {
                swept.complete = false;
                break;
            }
            swept.objects += self.inner.write("taking trees out", Wait::Relaxed, 4096, |txn| {
                let (mut trees, mut sizes) = (txn.open_table(TREES)?, txn.open_table(TREE_SIZES)?);
                let mut removed = Totals::default();
                for id in some {
                    removed.trees += u64::from(trees.remove(id.as_bytes())?.is_some());
                    sizes.remove(id.as_bytes())?;
                }
                removed.take_from(&mut txn.open_table(COUNTERS)?)?;
                Ok(removed.trees)
            })?;
        }
        Ok(swept)
    }

    /// Takes out what is known of blobs that `named` says no to: sizes, and what conversions made of them.
    pub fn forget_unnamed(
        &self,
        named: impl Fn(&ObjectId) -> bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), StoreError> {
        let (sizes, converted) = self.inner.read("looking through sizes", |txn| {
            let mut sizes = Vec::new();
            for row in txn.open_table(SIZES)?.iter()? {
                let (id, _) = row?;
                sizes.extend(ObjectId::try_from(id.value()).ok().filter(|id| !named(id)));
            }
            let mut converted = Vec::new();
            for row in txn.open_table(CONVERTED)?.iter()? {
                let (id, _) = row?;
                converted.extend(ObjectId::try_from(id.value()).ok().filter(|id| !named(id)));
            }
            Ok((sizes, converted))
        })?;
        for (table, ids) in [(SIZES, sizes), (CONVERTED, converted)] {
            for some in ids.chunks(ROWS_PER_STEP) {
                if !go_on() {
                    return Ok(());
                }
                self.inner.write("forgetting sizes", Wait::Relaxed, 4096, |txn| {
                    let mut table = txn.open_table(table)?;
                    for id in some {
                        table.remove(id.as_bytes())?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

/// Gives `see` every blob in the order of ids; `None`: a row that is damaged. `noted`: uses that are not written yet.
pub(super) fn each_blob(
    txn: &ReadTransaction,
    noted: &HashMap<ObjectId, u32>,
    see: &mut dyn FnMut(Option<StoredBlob>),
) -> Result<(), Failure> {
    let (blobs, access) = (txn.open_table(BLOBS)?, txn.open_table(ACCESS)?);
    let mut touched = access.iter()?;
    let mut used = touched.next().transpose()?;
    for row in blobs.iter()? {
        let (id, row) = row?;
        // Both tables are in the order of ids.
        while used.as_ref().is_some_and(|(other, _)| other.value() < id.value()) {
            used = touched.next().transpose()?;
        }
        let head = ObjectId::try_from(id.value()).ok().and_then(|id| Some((id, BlobRow::decode(&id, row.value())?)));
        let written = used.as_ref().filter(|(other, _)| other.value() == id.value()).map(|(_, hour)| hour.value());
        see(head.map(|(id, head)| StoredBlob {
            id,
            raw_size: head.raw_size,
            stored_size: head.stored_size,
            last_used: head.stored_hour.max(written.unwrap_or(0)).max(noted.get(&id).copied().unwrap_or(0)),
            place: head.place,
        }));
    }
    Ok(())
}

/// What one transaction takes out.
#[derive(Default)]
struct Step<'a> {
    blobs: Vec<&'a (StoredBlob, KeepSize)>,
    /// Of each of them, whether it stays after all.
    spared: Vec<bool>,
    /// Chunks they are in, and who else is.
    chunks: Vec<(u64, Vec<ObjectId>)>,
}

impl Step<'_> {
    /// Returns which blobs went, with their raw sizes, and their stored bytes.
    fn run(self, txn: &WriteTransaction) -> Result<(Vec<(ObjectId, u64)>, u64), Failure> {
        let (mut removed, mut gone) = (Totals::default(), Vec::new());
        let mut spared: HashMap<u64, Vec<ObjectId>> = HashMap::new();
        {
            let mut blobs = txn.open_table(BLOBS)?;
            let mut chunks = txn.open_table(CHUNKS)?;
            let mut access = txn.open_table(ACCESS)?;
            let mut sizes = txn.open_table(SIZES)?;
            for ((blob, keep), stays) in self.blobs.into_iter().zip(self.spared) {
                let key = blob.id.as_bytes();
                let head = blobs.get(key)?.and_then(|row| BlobRow::decode(&blob.id, row.value()));
                // Stored anew since: its old place is empty.
                let Some(head) = head.filter(|head| head.place == blob.place) else { continue };
                let used = access.get(key)?.is_some_and(|hour| hour.value() > blob.last_used);
                if stays || used {
                    spared.entry(blob.chunk()).or_default().push(blob.id);
                    continue;
                }
                blobs.remove(key)?;
                access.remove(key)?;
                match keep {
                    KeepSize::Yes => {
                        let mut row = head.raw_size.to_le_bytes().to_vec();
                        seal(key, &mut row);
                        sizes.insert(key, row.as_slice())?;
                    }
                    KeepSize::No => drop(sizes.remove(key)?),
                }
                if let Place::Run { first_chunk, unit } = head.place {
                    for (chunk, length) in (first_chunk..).zip(pack::cut(head.stored_size, unit)) {
                        chunks.remove(chunk)?;
                        removed.pages += usize::try_from(length).map_or(0, pack::page_bytes);
                    }
                }
                removed.add_blob(&head);
                gone.push((blob.id, head.raw_size));
            }
        }
        let mut moving = Moving::default();
        for (chunk, mut members) in self.chunks {
            members.extend(spared.remove(&chunk).unwrap_or_default());
            removed.pages += moving.take(txn, chunk, &members)?;
        }
        let taken = Totals { pages: moving.put(txn)?, ..Totals::default() };
        warmed::forget(txn)?;
        let mut counters = txn.open_table(COUNTERS)?;
        removed.take_from(&mut counters)?;
        taken.add_to(&mut counters)?;
        Ok((gone, removed.stored_bytes))
    }
}

/// Members on their way to new chunks.
#[derive(Default)]
struct Moving {
    /// Stored bytes, one after the other.
    data: Vec<u8>,
    members: Vec<(ObjectId, BlobRow, std::ops::Range<usize>)>,
}

impl Moving {
    /// Removes `chunk`, unless most of it is still in use; what `members` have in it is taken along. Returns the bytes of
    /// the page it had.
    fn take(&mut self, txn: &WriteTransaction, chunk: u64, members: &[ObjectId]) -> Result<u64, Failure> {
        let mut chunks = txn.open_table(CHUNKS)?;
        let mut here = Vec::new();
        {
            let blobs = txn.open_table(BLOBS)?;
            for id in members {
                let head = blobs.get(id.as_bytes())?.and_then(|row| BlobRow::decode(id, row.value()));
                if let Some(head) = head
                    && let Place::Packed { chunk: at, offset } = head.place
                    && at == chunk
                {
                    here.push((*id, head, offset as usize));
                }
            }
        }
        if here.is_empty() {
            let removed = chunks.remove(chunk)?;
            return Ok(removed.map_or(0, |value| pack::page_bytes(value.value().len())));
        }
        here.sort_unstable_by_key(|(_, _, offset)| *offset);
        let live: u64 = here.iter().map(|(_, head, _)| head.stored_size).sum();
        {
            let Some(value) = chunks.get(chunk)? else { return Ok(0) };
            let stored = value.value();
            let gone = (stored.len() as u64).saturating_sub(live);
            if gone.saturating_mul(HOLES as u64) <= stored.len() as u64 {
                return Ok(0);
            }
            for (id, head, offset) in here {
                let part = usize::try_from(head.stored_size)
                    .ok()
                    .and_then(|size| stored.get(offset..offset.checked_add(size)?));
                // What is not where its row says it is is damaged; a read finds and drops it.
                let Some(part) = part else { continue };
                let start = self.data.len();
                self.data.extend_from_slice(part);
                self.members.push((id, head, start..self.data.len()));
            }
        }
        let removed = chunks.remove(chunk)?;
        Ok(removed.map_or(0, |value| pack::page_bytes(value.value().len())))
    }

    /// Writes them; returns the bytes of their new pages.
    fn put(self, txn: &WriteTransaction) -> Result<u64, Failure> {
        if self.members.is_empty() {
            return Ok(0);
        }
        let mut blobs = txn.open_table(BLOBS)?;
        let mut chunks = txn.open_table(CHUNKS)?;
        let mut counters = txn.open_table(COUNTERS)?;
        let mut next_chunk = schema::counter(&counters, NEXT_CHUNK)?;
        let mut pages = 0;
        let sizes: Vec<usize> = self.members.iter().map(|(_, _, range)| range.len()).collect();
        for plan in pack::plan(&sizes) {
            pages += pack::page_bytes(plan.bytes);
            let mut value = chunks.insert_reserve(next_chunk, plan.bytes)?;
            let mut at = 0;
            for member in plan.members {
                let (id, head, range) = &self.members[member];
                let stored = &self.data[range.clone()];
                value.as_mut()[at..at + stored.len()].copy_from_slice(stored);
                let offset = u32::try_from(at).expect("offsets lie below CHUNK_BYTES");
                let row = BlobRow { place: Place::Packed { chunk: next_chunk, offset }, ..*head };
                blobs.insert(id.as_bytes(), row.encode(id, &[]).as_slice())?;
                at += stored.len();
            }
            next_chunk += 1;
        }
        counters.insert(NEXT_CHUNK, next_chunk)?;
        Ok(pages)
    }
}
