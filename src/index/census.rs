//! How much of a tree is in the store, kept up to date as blobs come and go.
//!
//! Counting a million files takes a second, and people ask again and again; so
//! a census is counted once, by whoever has the time, and told of every change
//! from then on. It takes eight bytes and a bit for each distinct blob of the
//! tree. Invariant: once it is whole its counts are those a walk would find.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gix::ObjectId;
use parking_lot::{Condvar, Mutex};

use super::{IndexError, walk};
use crate::store::{Store, Watch, id_key};

/// Blobs looked up in one transaction.
const LOOKED_UP: usize = 8192;

/// How much of a tree is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Distinct blobs.
    pub objects: u64,
    /// Their raw bytes.
    pub bytes: u64,
    /// Whether all were looked at; until then these are the ones that were seen.
    pub whole: bool,
}

#[derive(Default)]
struct Counts {
    /// First eight bytes of each blob's id, in order, once the trees were walked.
    keys: Vec<u64>,
    /// One bit for each: it is here.
    here: Vec<u64>,
    counted: Here,
    /// Blobs left while they were looked up: what was seen may be gone.
    stale: bool,
    failed: bool,
}

/// The census of one tree.
pub struct Census {
    tree: ObjectId,
    epoch: u64,
    /// Held for a look-up in memory, never for I/O.
    counts: Mutex<Counts>,
    done: Condvar,
    begun: AtomicBool,
}

impl Census {
    /// A census of what is below `tree`, not begun.
    pub fn new(store: &Store, tree: ObjectId) -> Arc<Self> {
        let census = Arc::new(Self {
            tree,
            epoch: store.epoch(),
            counts: Mutex::default(),
            done: Condvar::new(),
            begun: AtomicBool::new(false),
        });
        let watch: Arc<dyn Watch> = Arc::clone(&census) as Arc<dyn Watch>;
        store.watch(&watch);
        census
    }

    /// Whether it is, or will be, of `tree` in the store as it is.
    pub fn is_of(&self, store: &Store, tree: ObjectId) -> bool {
        self.tree == tree && self.epoch == store.epoch() && !self.counts.lock().failed
    }

    /// Whether the caller is the first to ask, and so the one to [`Self::count`].
    pub fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::AcqRel)
    }

    /// Counts: walks all trees, and looks each blob up.
    pub fn count(&self, store: &Store) -> Result<(), IndexError> {
        let counted = self.take(store);
        let mut counts = self.counts.lock();
        counts.failed = counted.is_err();
        counts.counted.whole = counted.is_ok();
        self.done.notify_all();
        counted
    }

    fn take(&self, store: &Store) -> Result<(), IndexError> {
        let mut ids = blobs(store, self.tree)?;
        ids.sort_unstable();
        ids.dedup();
        let mut keys: Vec<u64> = ids.iter().map(id_key).collect();
        keys.dedup();
        {
            let mut counts = self.counts.lock();
            counts.here = vec![0; keys.len().div_ceil(64)];
            counts.keys = keys;
        }
        loop {
            // In the order of the table, which is thus read once.
            for some in ids.chunks(LOOKED_UP) {
                let sizes = store.stored_sizes(some)?;
                let mut counts = self.counts.lock();
                for (id, size) in some.iter().zip(sizes) {
                    if let Some(size) = size {
                        counts.mark(id, size);
                    }
                }
            }
            let mut counts = self.counts.lock();
            if !std::mem::take(&mut counts.stale) {
                return Ok(());
            }
            counts.here.fill(0);
            counts.counted = Here::default();
        }
    }

    /// What is here, after at most `limit` of waiting for all to be counted.
    pub fn here(&self, limit: Duration) -> Here {
        let mut counts = self.counts.lock();
        if !counts.counted.whole && !counts.failed {
            self.done.wait_for(&mut counts, limit);
        }
        counts.counted
    }
}

impl Counts {
    fn place(&self, id: &ObjectId) -> Option<(usize, u64)> {
        let at = self.keys.binary_search(&id_key(id)).ok()?;
        Some((at / 64, 1 << (at % 64)))
    }

    fn mark(&mut self, id: &ObjectId, size: u64) {
        if let Some((word, bit)) = self.place(id)
            && self.here[word] & bit == 0
        {
            self.here[word] |= bit;
            self.counted.objects += 1;
            self.counted.bytes += size;
        }
    }

    fn clear(&mut self, id: &ObjectId, size: u64) {
        if let Some((word, bit)) = self.place(id) {
            self.stale = true;
            if self.here[word] & bit != 0 {
                self.here[word] &= !bit;
                self.counted.objects -= 1;
                self.counted.bytes = self.counted.bytes.saturating_sub(size);
            }
        }
    }
}

impl Watch for Census {
    fn arrived(&self, blobs: &[(ObjectId, u64)]) {
        let mut counts = self.counts.lock();
        for (id, size) in blobs {
            counts.mark(id, *size);
        }
    }

    fn left(&self, blobs: &[(ObjectId, u64)]) {
        let mut counts = self.counts.lock();
        for (id, size) in blobs {
            counts.clear(id, *size);
        }
    }
}

/// Ids of all blobs below `tree`, some more than once.
fn blobs(store: &Store, tree: ObjectId) -> Result<Vec<ObjectId>, IndexError> {
    let mut ids = Vec::new();
    walk::distinct(store, tree, |listing| {
        ids.extend(listing.iter().filter(|entry| entry.kind.is_blob()).map(|entry| entry.id));
        Ok::<(), IndexError>(())
    })?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, KeepSize, StoreOptions, listing_from_git};

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[byte; 20])
    }

    /// A tree of the blobs `1..=count`.
    fn tree(count: u8) -> Vec<u8> {
        (1..=count)
            .flat_map(|byte| [b"100644 f", format!("{byte:03}").as_bytes(), b"\0", id(byte).as_bytes()].concat())
            .collect()
    }

    #[test]
    fn counts_follow_what_comes_and_goes() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("s"), &StoreOptions::default()).expect("opened");
        let (root, git) = (id(200), tree(70));
        let mut batch = Batch::default();
        batch.tree(root, &listing_from_git(&root, &git).expect("a tree"));
        batch.blob(id(1), b"one");
        store.commit(batch).expect("stored");
        let census = Census::new(&store, root);
        assert!(census.begin() && !census.begin());
        assert_eq!(census.here(Duration::ZERO), Here::default());
        census.count(&store).expect("counted");
        assert_eq!(census.here(Duration::ZERO), Here { objects: 1, bytes: 3, whole: true });
        let mut batch = Batch::default();
        batch.blob(id(1), b"one");
        batch.blob(id(70), b"seventy");
        batch.blob(id(99), b"elsewhere");
        store.commit(batch).expect("stored");
        assert_eq!(census.here(Duration::ZERO), Here { objects: 2, bytes: 10, whole: true });
        let gone = store.blobs_where(|blob| blob.id == id(1) || blob.id == id(99)).expect("found");
        let gone = gone.into_iter().map(|blob| (blob, KeepSize::Yes)).collect();
        store.remove_blobs(gone, &mut || true).expect("removed");
        assert_eq!(census.here(Duration::ZERO), Here { objects: 1, bytes: 7, whole: true });
        assert!(census.is_of(&store, root) && !census.is_of(&store, id(3)));
    }

    #[test]
    fn a_tree_that_is_not_here_can_not_be_counted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("s"), &StoreOptions::default()).expect("opened");
        let census = Census::new(&store, id(9));
        assert!(census.count(&store).is_err());
        assert!(!census.is_of(&store, id(9)), "asked for again it is begun anew");
    }
}
