//! One generation's tree, directory by directory.
//!
//! Owns a bounded cache of decoded directories: the packed listing and the
//! raw sizes of its blobs, read from the store in one transaction. Sizes
//! learned later are written into the cached directory by whoever learned them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gix::ObjectId;
use parking_lot::Mutex;

use super::IndexError;
use crate::store::{Entry, GenerationRecord, Listing, Store};

/// Bytes of cached directories; beyond it the older half is dropped.
/// 16 MiB hold every directory of a tree of about 250,000 files.
const CACHE_BYTES: usize = 16 << 20;

/// Marks a size that is not known yet; no object has it.
const UNKNOWN: u64 = u64::MAX;

/// One directory: its entries and, beside each, its raw size where known.
pub struct Directory {
    store: Store,
    id: ObjectId,
    listing: Listing,
    // Read from the store when a size is first asked for: listing names needs none.
    sizes: OnceLock<Vec<AtomicU64>>,
}

impl Directory {
    /// The entries, sorted by name.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The entry called `name` and its position.
    pub fn find(&self, name: &[u8]) -> Option<(usize, Entry<'_>)> {
        let position = self.listing.position(name)?;
        Some((position, self.listing.get(position)?))
    }

    /// Raw size in bytes of the blob at `position`, where known.
    pub fn size(&self, position: usize) -> Option<u64> {
        let size = self.sizes().get(position)?.load(Ordering::Relaxed);
        (size != UNKNOWN).then_some(size)
    }

    /// Notes the raw size of the blob at `position`.
    pub fn learn(&self, position: usize, size: u64) {
        if let Some(slot) = self.sizes().get(position) {
            slot.store(size, Ordering::Relaxed);
        }
    }

    fn sizes(&self) -> &[AtomicU64] {
        self.sizes.get_or_init(|| {
            // A store that fails here fails again, and is reported, when a size is resolved.
            if let Ok(Some(known)) = self.store.tree_sizes(&self.id, self.listing.len()) {
                return known.into_iter().map(AtomicU64::new).collect();
            }
            let sizes = self.looked_up();
            if !sizes.contains(&UNKNOWN) {
                self.store.note_tree_sizes(&self.id, sizes.clone());
            }
            sizes.into_iter().map(AtomicU64::new).collect()
        })
    }

    /// The size of each entry from its own row.
    fn looked_up(&self) -> Vec<u64> {
        let blobs: Vec<ObjectId> =
            self.listing.iter().filter(|entry| entry.kind.is_blob()).map(|entry| entry.id).collect();
        let mut known = self.store.sizes(&blobs).unwrap_or_default().into_iter();
        let size = |entry: Entry<'_>| if entry.kind.is_blob() { known.next().flatten() } else { Some(0) };
        self.listing.iter().map(size).map(|size| size.unwrap_or(UNKNOWN)).collect()
    }

    fn bytes(&self) -> usize {
        self.listing.as_bytes().len() + 8 * self.listing.len() + 128
    }
}

#[derive(Default)]
struct Cache {
    young: HashMap<ObjectId, Arc<Directory>>,
    old: HashMap<ObjectId, Arc<Directory>>,
    young_bytes: usize,
}

/// The base that a workspace shows: one generation, immutable. Clones share what is cached.
#[derive(Clone)]
pub struct View {
    store: Store,
    generation: GenerationRecord,
    // Guards the cache alone; never held while the store is asked.
    cache: Arc<Mutex<Cache>>,
}

impl View {
    /// The view of `generation`.
    pub fn new(store: Store, generation: GenerationRecord) -> Self {
        Self { store, generation, cache: Arc::default() }
    }

    /// What it shows.
    pub fn generation(&self) -> &GenerationRecord {
        &self.generation
    }

    /// The directory that tree `id` is.
    pub fn directory(&self, id: &ObjectId) -> Result<Arc<Directory>, IndexError> {
        if let Some(directory) = self.cached(id) {
            return Ok(directory);
        }
        let listing = self.store.tree(id)?.ok_or(IndexError::MissingTree(*id))?;
        let directory = Arc::new(Directory { store: self.store.clone(), id: *id, listing, sizes: OnceLock::new() });
        let mut cache = self.cache.lock();
        cache.insert(*id, Arc::clone(&directory));
        Ok(directory)
    }

    /// Drops what is cached, so that sizes learned by others are read again.
    pub fn refresh(&self) {
        *self.cache.lock() = Cache::default();
    }

    fn cached(&self, id: &ObjectId) -> Option<Arc<Directory>> {
        let mut cache = self.cache.lock();
        if let Some(directory) = cache.young.get(id) {
            return Some(Arc::clone(directory));
        }
        let directory = cache.old.remove(id)?;
        cache.insert(*id, Arc::clone(&directory));
        Some(directory)
    }
}

impl Cache {
    /// Two halves instead of a linked list: an entry used since the last
    /// turn-over is young, and dropping the old half costs nothing per look-up.
    fn insert(&mut self, id: ObjectId, directory: Arc<Directory>) {
        self.young_bytes += directory.bytes();
        self.young.insert(id, directory);
        if self.young_bytes > CACHE_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}
