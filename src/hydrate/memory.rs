//! A remote in memory, with faults on request: for tests and benches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use parking_lot::Mutex;

use super::remote::{Abilities, Connection, FailureKind, LARGE_BLOB_BYTES, Remote, RemoteError, Sink};

/// Objects to serve and how badly; shared by all its connections.
#[derive(Default)]
pub struct MemoryRemote {
    /// What it has.
    pub objects: Mutex<HashMap<ObjectId, Bytes>>,
    /// Time each request takes before its first object.
    pub delay: Duration,
    /// Whether it answers for sizes.
    pub object_info: bool,
    /// Requests fail with [`FailureKind::Transient`] after this many objects, as long as `faults` is not used up.
    pub cut_after: usize,
    /// How many requests are cut.
    pub faults: AtomicU64,
    /// Connections are refused while set.
    pub unplugged: AtomicBool,
    /// Requests served or cut so far.
    pub requests: AtomicU64,
    /// Objects sent so far.
    pub sent: AtomicU64,
}

impl MemoryRemote {
    /// Adds a blob and returns its id.
    ///
    /// # Panics
    /// When the data is crafted to collide.
    pub fn insert(&self, data: impl Into<Bytes>) -> ObjectId {
        let data = data.into();
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        hasher.update(format!("blob {}\0", data.len()).as_bytes());
        hasher.update(&data);
        let id = hasher.try_finalize().expect("no test data collides");
        self.objects.lock().insert(id, data);
        id
    }
}

impl Remote for Arc<MemoryRemote> {
    fn connect(&self) -> Result<Box<dyn Connection>, RemoteError> {
        if self.unplugged.load(Ordering::SeqCst) {
            return Err(RemoteError::new(FailureKind::Offline, "unplugged"));
        }
        Ok(Box::new(MemoryConnection(Self::clone(self))))
    }

    fn address(&self) -> String {
        "memory".into()
    }
}

struct MemoryConnection(Arc<MemoryRemote>);

impl Connection for MemoryConnection {
    fn abilities(&self) -> Abilities {
        Abilities { filter: true, object_info: self.0.object_info }
    }

    fn fetch(&mut self, wants: &[ObjectId], sink: &mut dyn Sink) -> Result<(), RemoteError> {
        let remote = &self.0;
        remote.requests.fetch_add(1, Ordering::SeqCst);
        if remote.unplugged.load(Ordering::SeqCst) {
            return Err(RemoteError::new(FailureKind::Transient, "connection reset"));
        }
        if !remote.delay.is_zero() {
            std::thread::sleep(remote.delay);
        }
        let found: Result<Vec<(ObjectId, Bytes)>, RemoteError> = {
            let objects = remote.objects.lock();
            let missing =
                |id: &ObjectId| RemoteError::new(FailureKind::Missing, format!("not our ref {id}")).about(*id);
            wants.iter().map(|id| objects.get(id).map(|data| (*id, data.clone())).ok_or_else(|| missing(id))).collect()
        };
        let cut = remote.faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        for (number, (id, data)) in found?.into_iter().enumerate() {
            if cut && number >= remote.cut_after {
                return Err(RemoteError::new(FailureKind::Transient, "connection cut"));
            }
            remote.sent.fetch_add(1, Ordering::SeqCst);
            if data.len() as u64 > LARGE_BLOB_BYTES {
                let mut large = sink.large(data.len() as u64)?;
                large.write_all(&data).map_err(|error| RemoteError::new(FailureKind::Local, error.to_string()))?;
                large.finish(id)?;
            } else {
                sink.object(id, Kind::Blob, data)?;
            }
        }
        Ok(())
    }

    fn sizes(&mut self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>, RemoteError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let objects = self.0.objects.lock();
        Ok(ids.iter().filter_map(|id| objects.get(id).map(|data| (*id, data.len() as u64))).collect())
    }
}
