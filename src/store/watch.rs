//! Who is told which blobs come and go, so that counts of them need not be made again.

use std::sync::{Arc, Weak};

use gix::ObjectId;

use super::Store;
use super::db::Inner;

/// Is told of blobs after the transaction that brought or took them. What is lost because the file had to be opened again is
/// not told: [`Store::epoch`] changes then.
pub trait Watch: Send + Sync {
    /// These are here now, with their raw sizes; they may have been before.
    fn arrived(&self, blobs: &[(ObjectId, u64)]);
    /// These are not.
    fn left(&self, blobs: &[(ObjectId, u64)]);
}

impl Store {
    /// Tells `watch` from now on, for as long as it lives.
    pub fn watch(&self, watch: &Arc<dyn Watch>) {
        self.inner.watchers.lock().push(Arc::downgrade(watch));
    }

    /// How often the file was opened again after a failed access: what was not durable before is gone.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}

impl Inner {
    pub(super) fn tell(&self, what: impl Fn(&dyn Watch)) {
        let mut watchers = self.watchers.lock();
        if watchers.is_empty() {
            return;
        }
        watchers.retain(|watch: &Weak<dyn Watch>| watch.strong_count() > 0);
        let all: Vec<Arc<dyn Watch>> = watchers.iter().filter_map(Weak::upgrade).collect();
        drop(watchers);
        for watch in all {
            what(&*watch);
        }
    }
}
