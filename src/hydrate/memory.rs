//! A remote in memory, with faults on request: for tests and benches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use parking_lot::Mutex;

use super::remote::{Abilities, Connection, Extent, FailureKind, LARGE_BLOB_BYTES, Remote, RemoteError, Sink};
use crate::store::{EntryKind, listing_from_git};

/// Objects to serve and how badly; shared by all its connections.
#[derive(Default)]
pub struct MemoryRemote {
    /// What it has.
    pub objects: Mutex<HashMap<ObjectId, (Kind, Bytes)>>,
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
        self.add(Kind::Blob, data.into())
    }

    /// Adds a tree of files (`false`) and directories (`true`) and returns its id.
    ///
    /// # Panics
    /// When the data is crafted to collide.
    pub fn insert_tree(&self, entries: &[(&str, bool, ObjectId)]) -> ObjectId {
        let mut entries = entries.to_vec();
        // Git sorts a directory as if its name ended in a slash.
        entries.sort_by_key(|(name, directory, _)| format!("{name}{}", if *directory { "/" } else { "" }));
        let mut data = Vec::new();
        for (name, directory, id) in entries {
            data.extend_from_slice(if directory { b"40000 " } else { b"100644 " });
            data.extend_from_slice(name.as_bytes());
            data.push(0);
            data.extend_from_slice(id.as_bytes());
        }
        self.add(Kind::Tree, data.into())
    }

    fn add(&self, kind: Kind, data: Bytes) -> ObjectId {
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        hasher.update(format!("{kind} {}\0", data.len()).as_bytes());
        hasher.update(&data);
        let id = hasher.try_finalize().expect("no test data collides");
        self.objects.lock().insert(id, (kind, data));
        id
    }

    /// What a request brings, or which of its wants is not here.
    fn answer(&self, wants: &[ObjectId], extent: Extent) -> Result<Vec<(ObjectId, Kind, Bytes)>, RemoteError> {
        let objects = self.objects.lock();
        if let Some(id) = wants.iter().find(|id| !objects.contains_key(*id)) {
            return Err(RemoteError::new(FailureKind::Missing, format!("not our ref {id}")).about(*id));
        }
        let most = match extent {
            Extent::Everything { max_blob_bytes } => max_blob_bytes.unwrap_or(u64::MAX),
            Extent::Exact | Extent::Objects | Extent::Trees => 0,
        };
        let mut seen: HashSet<ObjectId> = wants.iter().copied().collect();
        let mut open = wants.to_vec();
        let mut found = Vec::new();
        while let Some(id) = open.pop() {
            let Some((kind, data)) = objects.get(&id) else { continue };
            if *kind == Kind::Tree && !matches!(extent, Extent::Exact | Extent::Objects) {
                let listing = listing_from_git(&id, data).expect("built here");
                let below = listing.iter().filter(|entry| match entry.kind {
                    EntryKind::Directory => true,
                    _ => most > 0 && objects.get(&entry.id).is_some_and(|(_, data)| data.len() as u64 <= most),
                });
                open.extend(below.map(|entry| entry.id).filter(|id| seen.insert(*id)));
            }
            found.push((id, *kind, data.clone()));
        }
        Ok(found)
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

    fn fetch(&mut self, wants: &[ObjectId], extent: Extent, sink: &mut dyn Sink) -> Result<(), RemoteError> {
        let remote = &self.0;
        remote.requests.fetch_add(1, Ordering::SeqCst);
        if remote.unplugged.load(Ordering::SeqCst) {
            return Err(RemoteError::new(FailureKind::Transient, "connection reset"));
        }
        if !remote.delay.is_zero() {
            std::thread::sleep(remote.delay);
        }
        let found = remote.answer(wants, extent)?;
        let cut = remote.faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        for (number, (id, kind, data)) in found.into_iter().enumerate() {
            if cut && number >= remote.cut_after {
                return Err(RemoteError::new(FailureKind::Transient, "connection cut"));
            }
            remote.sent.fetch_add(1, Ordering::SeqCst);
            if kind == Kind::Blob && data.len() as u64 > LARGE_BLOB_BYTES {
                let mut large = sink.large(data.len() as u64)?;
                large.write_all(&data).map_err(|error| RemoteError::new(FailureKind::Local, error.to_string()))?;
                large.finish(id)?;
            } else {
                sink.object(id, kind, data)?;
            }
        }
        Ok(())
    }

    fn sizes(&mut self, ids: &[ObjectId]) -> Result<Vec<(ObjectId, u64)>, RemoteError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let objects = self.0.objects.lock();
        Ok(ids.iter().filter_map(|id| objects.get(id).map(|(_, data)| (*id, data.len() as u64))).collect())
    }
}
