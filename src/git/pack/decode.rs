//! The pass over a pack: entries in, verified objects out.
//!
//! A delta whose base was seen is applied at once; one whose base comes later
//! waits by position or id and is woken when the base is known. Chains are
//! followed with a list of positions, never by recursion.

use std::collections::HashMap;

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;

use super::base::Bases;
use super::buffer::{Buffer, Data};
use super::header::{self, Head};
use super::inflate::Inflater;
use super::input::{Again, Input, refuse_at};
use super::{
    ByteSource, Decoded, IndexRow, MAX_BLOB_BYTES, MAX_DELTA_RESULT_BYTES, MAX_STRUCTURE_BYTES, Options, Progress,
    delta,
};
use crate::git::error::{corrupt, local};
use crate::hydrate::remote::{LARGE_BLOB_BYTES, LargeSink, RemoteError, Sink};

/// Objects between two reports of progress.
const PROGRESS_OBJECTS: u32 = 256;

/// Entries room is made for ahead of seeing them: the head of a pack may lie.
const ENTRIES_AHEAD: usize = 1 << 16;

/// Reads a whole pack from `source`, handing each object to `sink` once it is verified.
pub fn decode(source: &mut dyn ByteSource, options: Options<'_>, sink: &mut dyn Sink) -> Result<Decoded, RemoteError> {
    let Options { hash, spool, max_bytes, index, mut progress } = options;
    let mut input = Input::new(source, hash, spool, max_bytes);
    input.begin_entry();
    let count = header::pack(&mut input)?;
    input.end_entry()?;
    let mut decoder = Decoder {
        entries: Vec::with_capacity(ENTRIES_AHEAD.min(count as usize)),
        input,
        hash,
        sink,
        inflater: Inflater::new(),
        bases: Bases::default(),
        waiting_for_entry: HashMap::new(),
        waiting_for_id: HashMap::new(),
        positions: None,
        unresolved: 0,
    };
    let mut report = |decoder: &Decoder<'_>| {
        if let Some(progress) = progress.as_mut() {
            let objects = decoder.entries.len() as u64;
            progress(Progress { objects, total: u64::from(count), bytes: decoder.input.position() });
        }
    };
    for number in 0..count {
        if number % PROGRESS_OBJECTS == 0 {
            report(&decoder);
        }
        decoder.next(number)?;
    }
    report(&decoder);
    decoder.finish(index)
}

/// What is remembered of an entry.
struct Entry {
    offset: u64,
    /// Where its compressed bytes begin.
    data_at: u64,
    /// What they inflate to.
    size: u64,
    base: Base,
    /// Known once verified.
    object: Option<(ObjectId, Kind)>,
    crc: u32,
}

#[derive(Clone, Copy)]
enum Base {
    None,
    Entry(u32),
    /// Not seen yet.
    Unknown,
}

struct Decoder<'a> {
    input: Input<'a>,
    hash: HashKind,
    sink: &'a mut dyn Sink,
    inflater: Inflater,
    entries: Vec<Entry>,
    bases: Bases,
    /// Deltas whose base was seen but waits itself.
    waiting_for_entry: HashMap<u32, Vec<u32>>,
    /// Deltas whose base was not seen.
    waiting_for_id: HashMap<ObjectId, Vec<u32>>,
    /// Verified objects by id; made when the first delta names its base by id.
    positions: Option<HashMap<ObjectId, u32>>,
    unresolved: u64,
}

impl Decoder<'_> {
    /// Reads the entry `number`.
    fn next(&mut self, number: u32) -> Result<(), RemoteError> {
        self.input.begin_entry();
        let offset = self.input.position();
        let (head, size) = header::entry(&mut self.input, self.hash)?;
        let data_at = self.input.position();
        let base = match &head {
            Head::Whole(_) => Base::None,
            Head::Offset(distance) => Base::Entry(self.entry_before(offset, *distance)?),
            Head::Reference(id) => self.position_of(*id).map_or(Base::Unknown, Base::Entry),
        };
        self.entries.push(Entry { offset, data_at, size, base, object: None, crc: 0 });
        let verified = match head {
            Head::Whole(Kind::Blob) if size > LARGE_BLOB_BYTES => Some(self.stream_blob(offset, size)?),
            Head::Whole(kind) => {
                let data = self.inflate_whole(offset, kind, size)?;
                Some(self.deliver(number, kind, &data)?)
            }
            Head::Offset(_) | Head::Reference(_) => {
                let delta = self.inflate_delta(offset, size)?;
                self.begin_delta(number, &head, &delta)?
            }
        };
        let crc = self.input.end_entry()?;
        self.entries[number as usize].crc = crc;
        if let Some(object) = verified {
            self.verified(number, object)?;
        } else {
            self.unresolved += 1;
        }
        Ok(())
    }

    /// Applies a delta whose base is known; the others wait.
    fn begin_delta(&mut self, number: u32, head: &Head, delta: &[u8]) -> Result<Option<(ObjectId, Kind)>, RemoteError> {
        let base = match (self.entries[number as usize].base, head) {
            (Base::Entry(base), _) => base,
            (_, Head::Reference(id)) => {
                self.waiting_for_id.entry(*id).or_default().push(number);
                return Ok(None);
            }
            _ => return Err(self.refuse(number, "has no base")),
        };
        let Some((_, kind)) = self.entries[base as usize].object else {
            self.waiting_for_entry.entry(base).or_default().push(number);
            return Ok(None);
        };
        let base = self.data(base)?;
        let data = self.apply(number, kind, &base, delta)?;
        self.deliver(number, kind, &data).map(Some)
    }

    /// Records what entry `number` turned out to be, and wakes what waited for it.
    fn verified(&mut self, number: u32, object: (ObjectId, Kind)) -> Result<(), RemoteError> {
        let mut woken = vec![(number, object)];
        while let Some((base, object)) = woken.pop() {
            self.entries[base as usize].object = Some(object);
            if let Some(positions) = &mut self.positions {
                positions.insert(object.0, base);
            }
            let mut waiting = self.waiting_for_entry.remove(&base).unwrap_or_default();
            if !self.waiting_for_id.is_empty() {
                waiting.extend(self.waiting_for_id.remove(&object.0).unwrap_or_default());
            }
            for child in waiting {
                self.entries[child as usize].base = Base::Entry(base);
                let base = self.data(base)?;
                let delta = self.inflate_again(child)?;
                let data = self.apply(child, object.1, &base, &delta)?;
                let id = self.deliver(child, object.1, &data)?;
                self.unresolved -= 1;
                woken.push((child, id));
            }
        }
        Ok(())
    }

    /// The entry that begins `distance` bytes before `offset`.
    fn entry_before(&self, offset: u64, distance: u64) -> Result<u32, RemoteError> {
        let base = offset.checked_sub(distance).filter(|_| distance > 0);
        let found = base.and_then(|base| self.entries.binary_search_by_key(&base, |entry| entry.offset).ok());
        let found = found.and_then(|found| u32::try_from(found).ok());
        found.ok_or_else(|| refuse_at(offset, "has its base where no entry is"))
    }

    fn position_of(&mut self, id: ObjectId) -> Option<u32> {
        let entries = &self.entries;
        let positions = self.positions.get_or_insert_with(|| {
            let numbered = (0..).zip(entries);
            numbered.filter_map(|(number, entry)| entry.object.map(|(id, _)| (id, number))).collect()
        });
        positions.get(&id).copied()
    }

    /// A large blob goes to the sink as it is inflated.
    fn stream_blob(&mut self, offset: u64, size: u64) -> Result<(ObjectId, Kind), RemoteError> {
        if size > MAX_BLOB_BYTES {
            return Err(refuse_at(offset, "says it has an absurd size"));
        }
        let mut hasher = gix::hash::hasher(self.hash);
        hasher.update(&gix::objs::encode::loose_header(Kind::Blob, size));
        let mut large = self.sink.large(size)?;
        self.inflater.stream(&mut self.input, size, &mut |bytes| {
            hasher.update(bytes);
            write(&mut *large, bytes)
        })?;
        let id = hasher.try_finalize().map_err(|_| refuse_at(offset, "attacks its hash"))?;
        large.finish(id)?;
        Ok((id, Kind::Blob))
    }

    fn inflate_whole(&mut self, offset: u64, kind: Kind, size: u64) -> Result<Data, RemoteError> {
        if kind != Kind::Blob && size > MAX_STRUCTURE_BYTES {
            return Err(refuse_at(offset, "says it has an absurd size"));
        }
        let mut out = Buffer::new(size, &self.input.spool)?;
        self.inflater.fill(&mut self.input, &mut out)?;
        Ok(out.freeze())
    }

    fn inflate_delta(&mut self, offset: u64, size: u64) -> Result<Buffer, RemoteError> {
        if size > MAX_DELTA_RESULT_BYTES {
            return Err(refuse_at(offset, "says it has an absurd size"));
        }
        let mut out = Buffer::new(size, &self.input.spool)?;
        self.inflater.fill(&mut self.input, &mut out)?;
        Ok(out)
    }

    /// The inflated bytes of an entry seen before: object or delta.
    fn inflate_again(&mut self, number: u32) -> Result<Buffer, RemoteError> {
        let Entry { data_at, size, .. } = self.entries[number as usize];
        let mut out = Buffer::new(size, &self.input.spool)?;
        self.inflater.fill(&mut Again::new(&self.input.spool, data_at), &mut out)?;
        Ok(out)
    }

    /// The object of a verified entry, from the cache or decoded again.
    fn data(&mut self, number: u32) -> Result<Data, RemoteError> {
        let mut chain = Vec::new();
        let mut at = number;
        let mut data = loop {
            if let Some(data) = self.bases.get(at) {
                break data;
            }
            match self.entries[at as usize].base {
                Base::Entry(base) => {
                    chain.push(at);
                    at = base;
                }
                Base::None => {
                    let data = self.inflate_again(at)?.freeze();
                    self.bases.put(at, &data);
                    break data;
                }
                Base::Unknown => return Err(self.refuse(at, "has no base")),
            }
        };
        while let Some(at) = chain.pop() {
            let kind = self.entries[at as usize].object.map_or(Kind::Blob, |(_, kind)| kind);
            let delta = self.inflate_again(at)?;
            data = self.apply(at, kind, &data, &delta)?;
            self.bases.put(at, &data);
        }
        Ok(data)
    }

    fn apply(&self, number: u32, kind: Kind, base: &[u8], delta: &[u8]) -> Result<Data, RemoteError> {
        let (base_size, size, instructions) =
            delta::head(delta).ok_or_else(|| self.refuse(number, "is a delta without sizes"))?;
        if base_size != base.len() as u64 {
            return Err(self.refuse(number, "is a delta to a base of another size"));
        }
        let limit = if kind == Kind::Blob { MAX_DELTA_RESULT_BYTES } else { MAX_STRUCTURE_BYTES };
        if size > limit {
            return Err(self.refuse(number, "says it has an absurd size"));
        }
        let mut out = Buffer::new(size, &self.input.spool)?;
        delta::apply(base, instructions, &mut out).map_err(|why| self.refuse(number, &format!("is refused: {why}")))?;
        Ok(out.freeze())
    }

    /// Computes the id and hands the object on.
    fn deliver(&mut self, number: u32, kind: Kind, data: &Data) -> Result<(ObjectId, Kind), RemoteError> {
        let id = gix::objs::compute_hash(self.hash, kind, data).map_err(|_| self.refuse(number, "attacks its hash"))?;
        self.bases.put(number, data);
        if kind == Kind::Blob && data.len() as u64 > LARGE_BLOB_BYTES {
            let mut large = self.sink.large(data.len() as u64)?;
            for piece in data.chunks(1 << 20) {
                write(&mut *large, piece)?;
            }
            large.finish(id)?;
        } else {
            self.sink.object(id, kind, data.to_bytes())?;
        }
        Ok((id, kind))
    }

    fn refuse(&self, number: u32, what: &str) -> RemoteError {
        let entry = &self.entries[number as usize];
        let error = refuse_at(entry.offset, what);
        match entry.object {
            Some((id, _)) => error.about(id),
            None => error,
        }
    }

    fn finish(self, index: bool) -> Result<Decoded, RemoteError> {
        if self.unresolved > 0 {
            let what = "the received pack is damaged: it lacks the base of a delta";
            return Err(match self.waiting_for_id.keys().next() {
                Some(id) => corrupt(format!("{what}, {id}")).about(*id),
                None => corrupt(what),
            });
        }
        let (checksum, bytes, spool) = self.input.finish(self.hash)?;
        let objects = self.entries.len() as u64;
        let mut rows = Vec::new();
        if index {
            let row = |entry: Entry| entry.object.map(|(id, _)| IndexRow { id, crc: entry.crc, offset: entry.offset });
            rows.extend(self.entries.into_iter().filter_map(row));
            rows.sort_unstable();
            if let Some(twins) = rows.windows(2).find(|twins| twins[0].id == twins[1].id) {
                let id = twins[0].id;
                return Err(corrupt(format!("the received pack is damaged: it holds {id} twice")).about(id));
            }
        }
        Ok(Decoded { objects, bytes, checksum, spool, rows })
    }
}

fn write(large: &mut dyn LargeSink, bytes: &[u8]) -> Result<(), RemoteError> {
    large.write_all(bytes).map_err(|error| {
        let text = error.to_string();
        match error.downcast::<RemoteError>() {
            Ok(inner) => inner,
            Err(_) => local("cannot store a large object", &std::io::Error::other(text)),
        }
    })
}
