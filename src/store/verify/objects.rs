//! Every blob: stored bytes against their BLAKE3, what they decode to against the object id.
//!
//! Blobs are looked at in the order of their chunks, so that each chunk is read once however many blobs share it. A blob
//! that is stored anew meanwhile is looked at where it is now; one that goes is none of ours.

use std::sync::atomic::{AtomicUsize, Ordering};

use gix::ObjectId;
use parking_lot::Mutex;
use redb::{ReadTransaction, ReadableTableMetadata};

use super::super::batch::NEXT_CHUNK;
use super::super::blob::{decode_frame, frame_check};
use super::super::error::{Failure, StoreError};
use super::super::read::Run;
use super::super::row::{BlobRow, Place, unseal};
use super::super::schema::{BLOBS, CHUNKS, CONVERTED, COUNTERS, TREES, counter};
use super::super::{Store, converted};
use super::{PAGE_ROWS, Problem, Subject, Watch};

/// Blobs put in the order of their chunks at a time: 48 MB. For each so many all rows are looked through once.
const WINDOW_BLOBS: usize = 1 << 20;

/// Blobs a thread takes at a time, about.
const JOB_BLOBS: usize = 64;

/// Frames of a run read in one transaction: a megabyte.
const RUN_FRAMES: u64 = 8;

/// How often a blob is followed to where it was stored anew while it was looked at.
const ROUNDS: usize = 4;

/// How far the threads that check stand back (`setpriority(2)`): those who answer the kernel come first.
const NICE: i32 = 5;

const CHUNK_MISSING: &str = "its chunk is missing";
const OUTSIDE: &str = "its place lies outside of its chunk";
const CHECKSUM: &str = "its stored bytes do not match their BLAKE3";
const UNDECODABLE: &str = "its stored bytes do not decode";
const OTHER_BYTES: &str = "its bytes are not those that its id stands for";
pub(super) const ROW: &str = "its row is damaged";

/// A blob and the chunk it begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    chunk: u64,
    id: ObjectId,
}

/// What became of a look at a blob.
enum Look {
    Good(u64),
    Gone,
    /// Stored anew since its place was looked up.
    Moved(Place),
    Bad(&'static str),
}

impl Store {
    /// How many blobs and trees there are to check.
    pub fn count_objects(&self) -> Result<u64, StoreError> {
        self.inner.read("counting objects", |txn| Ok(txn.open_table(BLOBS)?.len()? + txn.open_table(TREES)?.len()?))
    }

    /// Checks every blob and tree that is here when it begins, on so many threads. Ends early when `watch` says so.
    pub fn check_objects(&self, threads: usize, watch: &dyn Watch) -> Result<(), StoreError> {
        let doing = "looking through all blobs";
        let upto = self.inner.read(doing, |txn| counter(&txn.open_table(COUNTERS)?, NEXT_CHUNK))?;
        let mut after = None;
        loop {
            let window = self.window(after, upto, watch)?;
            let Some(last) = window.last() else { break };
            after = Some(*last);
            let jobs: Vec<&[Placed]> = jobs(&window);
            let next = AtomicUsize::new(0);
            in_parallel(threads, || {
                let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(false) };
                for members in job.chunk_by(|a, b| a.chunk == b.chunk) {
                    if !self.check_members(members, watch)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
            if !watch.go_on(0) {
                return Ok(());
            }
        }
        self.check_trees(threads, watch)
    }

    /// Checks one blob. `None`: it is not here; else what is wrong with it, if anything is.
    pub fn check_blob(&self, id: &ObjectId) -> Result<Option<Result<(), &'static str>>, StoreError> {
        for _ in 0..ROUNDS {
            let place = self.inner.read("looking at a blob", |txn| {
                let row = txn.open_table(BLOBS)?.get(id.as_bytes())?;
                Ok(row.map(|row| BlobRow::decode(id, row.value()).map(|head| head.place)))
            })?;
            let look = match place {
                None => return Ok(None),
                Some(None) => Look::Bad(ROW),
                Some(Some(place)) => self.look_at_place(id, place, &|_| true)?,
            };
            match look {
                Look::Good(_) => return Ok(Some(Ok(()))),
                Look::Gone => return Ok(None),
                Look::Bad(text) => return Ok(Some(Err(text))),
                Look::Moved(_) => {}
            }
        }
        Ok(None)
    }

    /// The first blobs after `after` in the order of chunks, below chunk `upto`. Reports rows without a place.
    fn window(&self, after: Option<Placed>, upto: u64, watch: &dyn Watch) -> Result<Vec<Placed>, StoreError> {
        let mut found: Vec<Placed> = Vec::new();
        let mut from: Vec<u8> = Vec::new();
        loop {
            let (mut page, damaged, last) = self.inner.read("looking through all blobs", |txn| {
                let (mut page, mut damaged, mut last) = (Vec::new(), Vec::new(), None);
                for row in txn.open_table(BLOBS)?.range(&from[..]..)?.take(PAGE_ROWS) {
                    let (key, row) = row?;
                    last = Some(key.value().to_vec());
                    let Ok(id) = ObjectId::try_from(key.value()) else { continue };
                    match BlobRow::decode(&id, row.value()).map(|head| head.place) {
                        None => damaged.push(id),
                        Some(Place::Packed { chunk, .. } | Place::Run { first_chunk: chunk, .. }) => {
                            page.push(Placed { chunk, id });
                        }
                    }
                }
                Ok((page, damaged, last))
            })?;
            if after.is_none() {
                for id in damaged {
                    watch.found(Problem::new(Subject::Blob(id), ROW));
                    watch.checked(0);
                }
            }
            // An empty blob is in no chunk, whatever the next one's number is.
            page.retain(|placed| {
                after.is_none_or(|after| *placed > after) && (placed.chunk < upto || placed.chunk == 0)
            });
            found.append(&mut page);
            if found.len() >= 2 * WINDOW_BLOBS {
                found.select_nth_unstable(WINDOW_BLOBS);
                found.truncate(WINDOW_BLOBS);
            }
            let Some(mut last) = last.filter(|_| watch.go_on(0)) else { break };
            // The smallest key after it.
            last.push(0);
            from = last;
        }
        found.sort_unstable();
        found.truncate(WINDOW_BLOBS);
        Ok(found)
    }

    /// Checks blobs that begin in one chunk. False: stop.
    fn check_members(&self, members: &[Placed], watch: &dyn Watch) -> Result<bool, StoreError> {
        let Some(first) = members.first() else { return Ok(true) };
        let (looks, bytes) = self.inner.read("checking blobs", |txn| look_packed(txn, first.chunk, members))?;
        let mut go_on = watch.go_on(bytes);
        for (placed, mut look) in members.iter().zip(looks) {
            for _ in 0..ROUNDS {
                let Look::Moved(place) = look else { break };
                if !go_on {
                    return Ok(false);
                }
                look = self.look_at_place(&placed.id, place, &|bytes| watch.go_on(bytes))?;
                go_on = watch.go_on(0);
            }
            match look {
                Look::Good(bytes) => watch.checked(bytes),
                Look::Bad(text) => {
                    watch.found(Problem::new(Subject::Blob(placed.id), text));
                    watch.checked(0);
                }
                Look::Gone | Look::Moved(_) => {}
            }
        }
        Ok(go_on)
    }

    /// Looks at a blob at `place`.
    fn look_at_place(&self, id: &ObjectId, place: Place, go_on: &dyn Fn(u64) -> bool) -> Result<Look, StoreError> {
        match place {
            Place::Packed { chunk, .. } => {
                let alone = [Placed { chunk, id: *id }];
                let (looks, bytes) = self.inner.read("checking a blob", |txn| look_packed(txn, chunk, &alone))?;
                go_on(bytes);
                Ok(looks.into_iter().next().unwrap_or(Look::Gone))
            }
            Place::Run { .. } => self.look_at_run(id, place, go_on),
        }
    }

    /// Looks at a run, a few frames a transaction.
    fn look_at_run(&self, id: &ObjectId, place: Place, go_on: &dyn Fn(u64) -> bool) -> Result<Look, StoreError> {
        let mut sums: Option<Sums> = None;
        let mut raw = Vec::new();
        let mut index = 0;
        loop {
            let part = match self.inner.read("checking a blob", |txn| run_part(txn, id, place, index))? {
                Part::Look(look) => return Ok(look),
                Part::Frames(part) => part,
            };
            let sums = sums.get_or_insert_with(|| Sums::new(id, part.head.raw_size));
            for frame in &part.parts {
                let stored = &part.stored[frame.stored.clone()];
                if frame_check(stored) != frame.check {
                    return Ok(Look::Bad(CHECKSUM));
                }
                raw.clear();
                if !decode_frame(stored, frame.raw_size, &mut raw) {
                    return Ok(Look::Bad(UNDECODABLE));
                }
                sums.stored.update(stored);
                sums.raw.update(&raw);
            }
            index += part.parts.len() as u64;
            let more = go_on(part.stored.len() as u64);
            if index >= part.head.frames() {
                break self.run_verdict(id, &part.head, sums);
            }
            if !more {
                return Ok(Look::Gone);
            }
        }
    }

    fn run_verdict(&self, id: &ObjectId, head: &BlobRow, sums: &mut Sums) -> Result<Look, StoreError> {
        let sums = std::mem::replace(sums, Sums::new(id, 0));
        if *sums.stored.finalize().as_bytes() != head.hash {
            return Ok(Look::Bad(CHECKSUM));
        }
        if sums.raw.try_finalize().is_ok_and(|actual| actual == *id) {
            return Ok(Look::Good(head.stored_size));
        }
        let made = self.inner.read("checking a blob", |txn| is_converted(txn, id, head.raw_size))?;
        Ok(if made { Look::Good(head.stored_size) } else { Look::Bad(OTHER_BYTES) })
    }
}

/// Runs `step` on so many threads until it says no on each. The first failure ends all.
pub(super) fn in_parallel(
    threads: usize,
    step: impl Fn() -> Result<bool, StoreError> + Sync,
) -> Result<(), StoreError> {
    let failure: Mutex<Option<StoreError>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                    tracing::debug!("the priority of a check: {error}");
                }
                while failure.lock().is_none() {
                    match step() {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            failure.lock().get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    failure.into_inner().map_or(Ok(()), Err)
}

/// Cuts a window into what a thread takes at a time; a chunk is never cut in two.
fn jobs(window: &[Placed]) -> Vec<&[Placed]> {
    let mut jobs = Vec::new();
    let (mut start, mut end) = (0, 0);
    for members in window.chunk_by(|a, b| a.chunk == b.chunk) {
        end += members.len();
        if end - start >= JOB_BLOBS {
            jobs.push(&window[start..end]);
            start = end;
        }
    }
    if end > start {
        jobs.push(&window[start..end]);
    }
    jobs
}

/// Looks at blobs in `chunk`; also tells how many bytes were read.
fn look_packed(txn: &ReadTransaction, chunk: u64, members: &[Placed]) -> Result<(Vec<Look>, u64), Failure> {
    let blobs = txn.open_table(BLOBS)?;
    let mut value = None;
    let mut raw = Vec::new();
    let mut looks = Vec::with_capacity(members.len());
    for Placed { id, .. } in members {
        let Some(row) = blobs.get(id.as_bytes())? else {
            looks.push(Look::Gone);
            continue;
        };
        let Some(head) = BlobRow::decode(id, row.value()) else {
            looks.push(Look::Bad(ROW));
            continue;
        };
        let Place::Packed { chunk: at, offset } = head.place else {
            looks.push(Look::Moved(head.place));
            continue;
        };
        if at != chunk {
            looks.push(Look::Moved(head.place));
            continue;
        }
        if value.is_none() && head.stored_size > 0 {
            value = Some(txn.open_table(CHUNKS)?.get(chunk)?);
        }
        let bytes = match &value {
            Some(Some(value)) => Some(value.value()),
            _ => None,
        };
        looks.push(match packed_fault(txn, id, &head, bytes, offset as usize, &mut raw)? {
            None => Look::Good(head.stored_size),
            Some(text) => Look::Bad(text),
        });
    }
    let bytes = value.flatten().map_or(0, |value| value.value().len() as u64);
    Ok((looks, bytes))
}

fn packed_fault(
    txn: &ReadTransaction,
    id: &ObjectId,
    head: &BlobRow,
    chunk: Option<&[u8]>,
    offset: usize,
    raw: &mut Vec<u8>,
) -> Result<Option<&'static str>, Failure> {
    let stored = if head.stored_size == 0 {
        &[][..]
    } else {
        let Some(chunk) = chunk else { return Ok(Some(CHUNK_MISSING)) };
        let end = usize::try_from(head.stored_size).ok().and_then(|size| offset.checked_add(size));
        let Some(stored) = end.and_then(|end| chunk.get(offset..end)) else { return Ok(Some(OUTSIDE)) };
        stored
    };
    if *blake3::hash(stored).as_bytes() != head.hash {
        return Ok(Some(CHECKSUM));
    }
    raw.clear();
    if !decode_frame(stored, head.frame_raw_size(0), raw) {
        return Ok(Some(UNDECODABLE));
    }
    if object_id(id, "blob", raw) == Some(*id) || is_converted(txn, id, head.raw_size)? {
        return Ok(None);
    }
    Ok(Some(OTHER_BYTES))
}

/// The sums of a run so far.
struct Sums {
    stored: blake3::Hasher,
    raw: gix::hash::Hasher,
}

impl Sums {
    fn new(id: &ObjectId, raw_size: u64) -> Self {
        let mut raw = gix::hash::hasher(id.kind());
        raw.update(format!("blob {raw_size}\0").as_bytes());
        Self { stored: blake3::Hasher::new(), raw }
    }
}

/// Some frames of a run.
struct Frames {
    head: BlobRow,
    stored: Vec<u8>,
    parts: Vec<FramePart>,
}

struct FramePart {
    stored: std::ops::Range<usize>,
    check: [u8; 16],
    raw_size: usize,
}

enum Part {
    Look(Look),
    Frames(Frames),
}

/// Reads frames of a run from `index` on.
fn run_part(txn: &ReadTransaction, id: &ObjectId, place: Place, index: u64) -> Result<Part, Failure> {
    let Some(row) = txn.open_table(BLOBS)?.get(id.as_bytes())? else { return Ok(Part::Look(Look::Gone)) };
    let Some(head) = BlobRow::decode(id, row.value()) else { return Ok(Part::Look(Look::Bad(ROW))) };
    let Place::Run { first_chunk, unit } = head.place else { return Ok(Part::Look(Look::Moved(head.place))) };
    if head.place != place {
        return Ok(Part::Look(Look::Moved(head.place)));
    }
    let run = Run { first_chunk, unit, stored_size: head.stored_size };
    let chunks = txn.open_table(CHUNKS)?;
    let mut part = Frames { head, stored: Vec::new(), parts: Vec::new() };
    for index in index..head.frames().min(index.saturating_add(RUN_FRAMES)) {
        let Some((start, entry)) = head.frame(row.value(), index) else { return Ok(Part::Look(Look::Bad(ROW))) };
        let at = part.stored.len();
        if !run.parts(&chunks, start, entry.end, |bytes| part.stored.extend_from_slice(bytes))? {
            return Ok(Part::Look(Look::Bad(CHUNK_MISSING)));
        }
        let raw_size = head.frame_raw_size(index);
        part.parts.push(FramePart { stored: at..part.stored.len(), check: entry.check, raw_size });
    }
    Ok(Part::Frames(part))
}

/// Whether `id` is that of a converted file of `raw_size` bytes, and no Git object's.
fn is_converted(txn: &ReadTransaction, id: &ObjectId, raw_size: u64) -> Result<bool, Failure> {
    let row = txn.open_table(CONVERTED)?.get(id.as_bytes())?;
    let known = row.and_then(|row| converted::decode(unseal(id.as_bytes(), row.value())?));
    Ok(known.is_some_and(|known| known.changed && known.size == raw_size))
}

pub(super) fn object_id(like: &ObjectId, kind: &str, raw: &[u8]) -> Option<ObjectId> {
    let mut hasher = gix::hash::hasher(like.kind());
    hasher.update(format!("{kind} {}\0", raw.len()).as_bytes());
    hasher.update(raw);
    hasher.try_finalize().ok()
}
