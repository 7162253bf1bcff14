//! Files that a checkout would convert: their sizes, and where their bytes are.
//!
//! A [`Plan`] says for each entry of a directory whether it is converted and
//! under which id its result is kept. Plans are by base path, because
//! attributes are. Where a workspace has no [`Converter`] none of this is
//! entered. An entry with a conversion has no size until it was converted, and
//! then the size of the result for ever.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gix::ObjectId;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::index::IndexError;
use crate::index::convert::{
    Conversion, Conversions, ConvertError, ConvertErrorKind, Output, RulesError, Source, attribute_chain, chain,
};
use crate::index::view::{Directory, View};
use crate::store::{Batch, Converted, EntryKind, Store, StoreError, StoreErrorKind};

/// Conversions without a driver under way at once: as many as there are session threads.
const BUILT_IN_PLACES: usize = 2;

/// Entries of plans kept, 16 MiB at most; beyond it all are made anew, out of what is in memory or the store.
const PLANNED_ENTRIES: usize = 256 << 10;

/// Files converted and stored together.
const BATCH_FILES: usize = 256;

/// Their raw bytes.
pub(super) const BATCH_BYTES: usize = 8 << 20;

const UNKNOWN: u64 = u64::MAX;
/// Marks the size of a result that is its source.
const SAME: u64 = 1 << 63;

/// One entry that has a conversion.
pub struct Planned {
    rule: Arc<dyn Conversion>,
    /// The blob it is made of.
    pub source: ObjectId,
    /// Its name in its directory.
    name: Box<[u8]>,
    /// Under which its result is kept.
    pub id: ObjectId,
    size: AtomicU64,
}

impl Planned {
    /// Size of the result, where known.
    pub fn size(&self) -> Option<u64> {
        let size = self.size.load(Ordering::Relaxed);
        (size != UNKNOWN).then_some(size & !SAME)
    }

    /// Whether a driver has to run for it.
    pub fn needs_driver(&self) -> bool {
        self.rule.lane().is_some()
    }

    /// The object whose bytes the result are, where known.
    pub fn content(&self) -> Option<ObjectId> {
        let size = self.size.load(Ordering::Relaxed);
        (size != UNKNOWN).then_some(if size & SAME == 0 { self.id } else { self.source })
    }

    fn learn(&self, converted: Converted) {
        let size = converted.size & !SAME;
        self.size.store(if converted.changed { size } else { size | SAME }, Ordering::Relaxed);
    }
}

/// What is converted of a directory.
pub struct Plan {
    directory: Vec<u8>,
    /// In the order of its listing.
    entries: Vec<Option<Planned>>,
}

impl Plan {
    /// The entry at `position` of the listing, if it is converted.
    pub fn get(&self, position: usize) -> Option<&Planned> {
        self.entries.get(position)?.as_ref()
    }
}

/// What a directory's conversions are.
#[derive(Clone)]
pub enum Plans {
    /// None.
    Raw,
    /// These.
    Plan(Arc<Plan>),
    /// Not known: attribute files are missing or can't be used. No size of the directory can be told.
    Unknown,
}

impl Plans {
    /// Size of the entry at `position` of `directory`, where known.
    pub fn size(&self, directory: &Directory, position: usize) -> Option<u64> {
        match self {
            Self::Raw => directory.size(position),
            Self::Plan(plan) => match plan.get(position) {
                Some(planned) => planned.size(),
                None => directory.size(position),
            },
            // Symbolic links are never converted; directories and gitlinks have no size to get wrong.
            Self::Unknown => {
                let entry = directory.listing().get(position)?;
                let file = matches!(entry.kind, EntryKind::File | EntryKind::Executable);
                if file { None } else { directory.size(position) }
            }
        }
    }
}

type Cache = HashMap<Box<[u8]>, Option<Arc<Plan>>>;

/// Why a conversion did not end with a stored result.
#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    /// The conversion failed.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The store did.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The conversions of what one workspace shows.
pub struct Converter {
    conversions: Arc<dyn Conversions>,
    store: Store,
    // Guards the cache alone, and the count of its entries.
    plans: Mutex<(Cache, usize)>,
    built_in: Arc<Semaphore>,
}

impl Converter {
    /// Converts as `conversions` say, and keeps the results in `store`.
    pub fn new(store: Store, conversions: Arc<dyn Conversions>) -> Self {
        let built_in = Arc::new(Semaphore::new(BUILT_IN_PLACES));
        Self { conversions, store, plans: Mutex::default(), built_in }
    }

    /// Ends drivers; what is being converted fails.
    pub fn close(&self) {
        self.conversions.close();
    }

    /// What is converted of the directory at `path` of `view`.
    pub fn plan(&self, view: &View, path: &[u8]) -> Result<Option<Arc<Plan>>, RulesError> {
        if let Some(known) = self.plans.lock().0.get(path) {
            return Ok(known.clone());
        }
        let Some((tree, chain)) = chain(view, path)? else { return Ok(None) };
        let directory = view.directory(&tree)?;
        let mut entries = directory.listing().iter().map(|entry| (entry.name, entry.kind));
        let rules = self.conversions.rules(path, &chain, &mut entries)?;
        let plan = match rules {
            Some(rules) => Some(Arc::new(self.planned(path, &directory, rules)?)),
            None => None,
        };
        let count = 1 + plan.as_ref().map_or(0, |plan| plan.entries.len());
        let mut plans = self.plans.lock();
        if plans.1 + count > PLANNED_ENTRIES {
            *plans = (Cache::default(), 0);
        }
        plans.1 += count;
        plans.0.insert(path.into(), plan.clone());
        Ok(plan)
    }

    /// The same for one file with the blob `id` that `view` may have no more at `path`: a plan with one entry.
    pub fn plan_file(
        &self,
        view: &View,
        path: &[u8],
        kind: EntryKind,
        id: ObjectId,
    ) -> Result<Option<Arc<Plan>>, RulesError> {
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (directory, name) = split.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let files = attribute_chain(view, directory)?;
        let rules = self.conversions.rules(directory, &files, &mut std::iter::once((name, kind)))?;
        let Some(rule) = rules.and_then(|rules| rules.into_iter().next().flatten()) else { return Ok(None) };
        let converted = rule.id(&id, path);
        let size = AtomicU64::new(UNKNOWN);
        let planned = Planned { rule, source: id, name: Box::from(name), id: converted, size };
        if let Some(known) = self.store.converted(&[converted]).map_err(IndexError::from)?.into_iter().next().flatten()
        {
            planned.learn(known);
        }
        Ok(Some(Arc::new(Plan { directory: directory.to_vec(), entries: vec![Some(planned)] })))
    }

    /// What a checkout makes of the blob `id` at `path`, whose bytes are `raw` or in the store; `None`: it has no conversion.
    /// Blocks.
    pub fn converted_now(
        &self,
        view: &View,
        path: &[u8],
        kind: EntryKind,
        id: ObjectId,
        raw: Option<Bytes>,
    ) -> Result<Option<Vec<u8>>, ConversionError> {
        let missing = || ConvertError::new(ConvertErrorKind::Local, "its bytes are not here");
        let plan = self.plan_file(view, path, kind, id);
        let Some(plan) = plan.map_err(|error| ConvertError::new(ConvertErrorKind::Local, error.to_string()))? else {
            return Ok(None);
        };
        if !self.convert_now(&plan, 0, &raw.map(|raw| (id, raw)).into_iter().collect())? {
            return Err(missing().into());
        }
        let content = plan.get(0).and_then(Planned::content).ok_or_else(missing)?;
        Ok(Some(self.store.read(&content)?.ok_or_else(missing)?))
    }

    fn planned(
        &self,
        path: &[u8],
        directory: &Directory,
        rules: Vec<Option<Arc<dyn Conversion>>>,
    ) -> Result<Plan, RulesError> {
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let entry = |(entry, rule): (crate::store::Entry<'_>, Option<Arc<dyn Conversion>>)| {
            let rule = rule?;
            let id = rule.id(&entry.id, &[path, slash, entry.name].concat());
            let name = Box::from(entry.name);
            Some(Planned { rule, source: entry.id, name, id, size: AtomicU64::new(UNKNOWN) })
        };
        let entries: Vec<Option<Planned>> = directory.listing().iter().zip(rules).map(entry).collect();
        let ids: Vec<ObjectId> = entries.iter().flatten().map(|planned| planned.id).collect();
        let known = self.store.converted(&ids).map_err(IndexError::from)?;
        for (planned, known) in entries.iter().flatten().zip(known) {
            if let Some(known) = known {
                planned.learn(known);
            }
        }
        Ok(Plan { directory: path.to_vec(), entries })
    }

    /// Converts the entry at `position` of `plan`, whose raw bytes are in `raw` or in the store, and with it what of
    /// its siblings can be converted without a driver, without the network, and is not yet. `false`: the raw bytes are
    /// not there.
    pub async fn convert(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        position: usize,
        raw: HashMap<ObjectId, Bytes>,
    ) -> Result<bool, ConversionError> {
        let Some(planned) = plan.get(position) else { return Ok(true) };
        let lane = planned.rule.lane().unwrap_or(&self.built_in);
        let closed = || ConvertError::new(ConvertErrorKind::Closed, "the workspace is being unmounted");
        let place = Arc::clone(lane).acquire_owned().await.map_err(|_| closed())?;
        let (converter, plan) = (Arc::clone(self), Arc::clone(plan));
        let work = move || {
            // The place is given back when the work ends, whether or not somebody still waits for it.
            let _place = place;
            converter.convert_now(&plan, position, &raw)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| closed())?
    }

    fn convert_now(
        &self,
        plan: &Plan,
        position: usize,
        raw: &HashMap<ObjectId, Bytes>,
    ) -> Result<bool, ConversionError> {
        let Some(planned) = plan.get(position) else { return Ok(true) };
        if self.is_here(planned)? {
            return Ok(true);
        }
        let Some(own) = self.raw(&planned.source, raw)? else { return Ok(false) };
        let mut batch = Batch::default();
        let mut done = Vec::new();
        let converted = self.one(plan, position, &own, &mut batch)?;
        done.push((position, converted));
        if planned.rule.lane().is_none() {
            self.siblings(plan, position, raw, &mut batch, &mut done)?;
        }
        self.store.commit(batch)?;
        for (position, converted) in done {
            if let Some(planned) = plan.get(position) {
                planned.learn(converted);
            }
        }
        Ok(true)
    }

    /// Whether the result is stored, or is the source, which is.
    fn is_here(&self, planned: &Planned) -> Result<bool, StoreError> {
        if planned.content().is_none()
            && let Some(known) = self.store.converted(&[planned.id])?.into_iter().next().flatten()
        {
            planned.learn(known);
        }
        match planned.content() {
            Some(content) => self.store.contains(&content),
            None => Ok(false),
        }
    }

    /// Converts further entries of the directory whose blobs are here, up to a batch.
    fn siblings(
        &self,
        plan: &Plan,
        position: usize,
        raw: &HashMap<ObjectId, Bytes>,
        batch: &mut Batch,
        done: &mut Vec<(usize, Converted)>,
    ) -> Result<(), ConversionError> {
        let count = plan.entries.len();
        let open: Vec<(usize, ObjectId)> = (position + 1..count)
            .chain(0..position)
            .filter_map(|at| plan.get(at).map(|planned| (at, planned)))
            .filter(|(_, planned)| planned.size().is_none() && planned.rule.lane().is_none())
            .map(|(at, planned)| (at, planned.source))
            .take(BATCH_FILES - 1)
            .collect();
        let ids: Vec<ObjectId> = open.iter().map(|(_, id)| *id).collect();
        let mut room = BATCH_BYTES as u64;
        for ((at, id), stored) in open.into_iter().zip(self.store.stored_sizes(&ids)?) {
            let Some(size) = raw.get(&id).map(|bytes| bytes.len() as u64).or(stored) else { continue };
            let Some(rest) = room.checked_sub(size) else { break };
            room = rest;
            if let Some(bytes) = self.raw(&id, raw)? {
                // Whoever asks for this one is told why it failed.
                if let Ok(converted) = self.one(plan, at, &bytes, batch) {
                    done.push((at, converted));
                }
            }
        }
        Ok(())
    }

    /// The blob `id`: among what just arrived, or in the store.
    fn raw(&self, id: &ObjectId, arrived: &HashMap<ObjectId, Bytes>) -> Result<Option<Bytes>, StoreError> {
        match arrived.get(id) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => Ok(self.store.read(id)?.map(Bytes::from)),
        }
    }

    /// Converts one entry into `batch`, or past it if it is large.
    fn one(&self, plan: &Plan, position: usize, raw: &[u8], batch: &mut Batch) -> Result<Converted, ConversionError> {
        let Some(planned) = plan.get(position) else {
            return Err(ConvertError::new(ConvertErrorKind::Local, "no such entry").into());
        };
        let slash: &[u8] = if plan.directory.is_empty() { b"" } else { b"/" };
        let path = [&plan.directory[..], slash, &planned.name].concat();
        let output = planned.rule.convert(&Source { id: planned.source, path: &path, raw })?;
        let made = |size, changed| Converted { source: planned.source, size, changed };
        let converted = match &output {
            Output::Same => made(raw.len() as u64, false),
            Output::Bytes(bytes) => made(bytes.len() as u64, true),
            Output::Spooled(_, size) => made(*size, true),
        };
        self.same_as_before(planned, &path, converted)?;
        match output {
            // So that it can be read where the source is not stored yet.
            Output::Same if !self.store.contains(&planned.source)? => batch.blob(planned.source, raw),
            Output::Same => {}
            Output::Bytes(bytes) => batch.blob(planned.id, &bytes),
            Output::Spooled(mut file, size) => {
                let mut blob = self.store.large_blob(size)?;
                io::copy(&mut file, &mut blob).and_then(|_| blob.flush()).map_err(|error| failed(&path, &error))?;
                blob.finish(planned.id)?;
            }
        }
        batch.converted(planned.id, converted);
        Ok(converted)
    }

    /// A size that was told is a promise: the kernel may have it, and a driver that now gives another is refused.
    fn same_as_before(&self, planned: &Planned, path: &[u8], now: Converted) -> Result<(), ConversionError> {
        let before = self.store.converted(&[planned.id])?.into_iter().next().flatten();
        match before {
            Some(before) if before != now => {
                let path = String::from_utf8_lossy(path);
                let text = format!(
                    "{path}: its filter gave {} bytes before and {} now; the mount can't show both",
                    before.size, now.size
                );
                Err(ConvertError::new(ConvertErrorKind::Driver, text).into())
            }
            _ => Ok(()),
        }
    }
}

fn failed(path: &[u8], error: &io::Error) -> ConversionError {
    let kind = match error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()) {
        Some(store) if store.kind == StoreErrorKind::Full => ConvertErrorKind::Full,
        _ if error.kind() == io::ErrorKind::StorageFull => ConvertErrorKind::Full,
        _ => ConvertErrorKind::Local,
    };
    ConvertError::new(kind, format!("{}: {error}", String::from_utf8_lossy(path))).into()
}
