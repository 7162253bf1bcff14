//! Takes the objects of one request as they arrive: tells who waits, hands them to the writer.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::bulk::Bulk;
use super::engine::{Core, closed};
use super::flight::{Landed, News};
use super::remote::{FailureKind, LargeSink, RemoteError, Sink};
use super::writer::Unsaved;
use crate::store::{LargeBlob, listing_from_git};

/// The landing of one request.
pub(super) struct Landing<'a> {
    core: &'a Arc<Core>,
    batch: u64,
    /// Whether it comes over the network, and counts.
    remote: bool,
    bulk: Option<&'a Bulk>,
    /// Objects that somebody expected, and their raw bytes.
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// The number of the last arrival.
    pub(super) arrivals: u64,
    begun_at: u64,
}

impl<'a> Landing<'a> {
    /// For the ordinary batch `batch`.
    pub(super) fn new(core: &'a Arc<Core>, batch: u64) -> Self {
        Self { core, batch, remote: true, bulk: None, objects: 0, bytes: 0, arrivals: 0, begun_at: 0 }
    }

    /// For those of the ordinary batch `batch` that are on this machine.
    pub(super) fn nearby(core: &'a Arc<Core>, batch: u64) -> Self {
        Self { remote: false, ..Self::new(core, batch) }
    }

    /// For a bulk batch, of which at most as much arrives as the writer keeps up with.
    pub(super) fn bulk(core: &'a Arc<Core>, bulk: &'a Bulk) -> Self {
        let begun_at = core.state.lock().arrived;
        Self { bulk: Some(bulk), begun_at, ..Self::new(core, bulk.number) }
    }

    /// Whether more is wanted at all. Waits while there is no room for `size` more bytes.
    fn admit(&self, size: u64) -> Result<(), RemoteError> {
        let Some(bulk) = self.bulk else { return Ok(()) };
        let mut state = self.core.state.lock();
        loop {
            if state.closed {
                return Err(closed());
            }
            if bulk.is_cancelled() {
                return Err(cancelled());
            }
            if let Some((at, error)) = &state.write_failure
                && *at > self.begun_at
            {
                return Err(error.clone());
            }
            let here = state.flights.landing_bytes();
            if here == 0 || here + size <= self.core.settings.memory_bytes {
                return Ok(());
            }
            self.core.room.wait(&mut state);
        }
    }

    /// A tree, commit or tag, wanted by its id by somebody who knew no kind.
    fn structure(&mut self, id: ObjectId, kind: Kind, data: Bytes) {
        if self.bulk.is_some() || !self.core.state.lock().flights.any_kind(&[id]) {
            return;
        }
        // A tree that no working tree can hold is none for the store, and still one for Git.
        let listing = if kind == Kind::Tree { listing_from_git(&id, &data).ok() } else { None };
        let unsaved = listing.map(|listing| Unsaved::Tree(id, listing));
        self.arrive(id, data.len() as u64, &Landed::Structure(kind, data), unsaved);
    }

    /// Notes an arrival; `unsaved` is what the writer is to store of it.
    fn arrive(&mut self, id: ObjectId, size: u64, landed: &Landed, unsaved: Option<Unsaved>) {
        let core = self.core;
        if self.remote {
            core.offline.store(false, Ordering::Relaxed);
        }
        let mut state = core.state.lock();
        if state.closed {
            // The writer may have ended.
            return;
        }
        state.flights.advance(self.batch);
        let news = state.flights.land(&id, landed);
        if news.is_none() && self.bulk.is_none_or(|bulk| !bulk.cargo.trees) {
            return;
        }
        if self.remote {
            core.metrics.remote_objects.inc();
            core.metrics.remote_bytes.inc_by(size);
        }
        let stored = unsaved.is_none();
        if let Some(unsaved) = unsaved {
            state.arrived += 1;
            self.arrivals = state.arrived;
            state.unsaved.push_back(unsaved);
            if state.unsaved.len() == 1 || state.unsaved.len() >= super::writer::COMMIT_OBJECTS {
                core.unsaved.notify_one();
            }
        }
        drop(state);
        if self.remote
            && core.store.keeps_fetches()
            && let Some(told) = news.as_ref().and_then(News::told)
        {
            core.store.note_fetch(told.cause.record(Some(id), told.class, (1, size), told.waited));
        }
        drop(news);
        self.objects += 1;
        self.bytes += size;
        if let Some(bulk) = self.bulk {
            (bulk.progress)(1, size);
        }
        if stored {
            // Of the others the writer tells: nobody waits for less than that they are stored.
            core.changed.notify_waiters();
        }
    }
}

pub(super) fn cancelled() -> RemoteError {
    RemoteError::new(FailureKind::Offline, "cancelled")
}

impl Sink for Landing<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        let size = data.len() as u64;
        match kind {
            Kind::Blob => {
                self.admit(size)?;
                self.arrive(id, size, &Landed::Bytes(data.clone()), Some(Unsaved::Blob(id, data)));
            }
            Kind::Tree if self.bulk.is_some_and(|bulk| bulk.cargo.trees) => {
                self.admit(size)?;
                let listing = listing_from_git(&id, &data)
                    .map_err(|error| RemoteError::new(FailureKind::Corrupt, format!("tree {id}: {error}")).about(id))?;
                self.arrive(id, size, &Landed::Stored, Some(Unsaved::Tree(id, listing)));
            }
            Kind::Tree | Kind::Commit | Kind::Tag => self.structure(id, kind, data),
        }
        Ok(())
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        self.admit(0)?;
        let blob = self.core.store.large_blob(raw_size)?;
        Ok(Box::new(LargeLanding { landing: self, blob, raw_size }))
    }
}

struct LargeLanding<'a, 'b> {
    landing: &'a mut Landing<'b>,
    blob: LargeBlob,
    raw_size: u64,
}

impl Write for LargeLanding<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.landing.admit(0).map_err(io::Error::other)?;
        self.landing.core.state.lock().flights.advance(self.landing.batch);
        self.blob.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}

impl LargeSink for LargeLanding<'_, '_> {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        let Self { landing, blob, raw_size } = *self;
        if landing.core.state.lock().flights.is_coming(&id) {
            blob.finish(id)?;
            landing.arrive(id, raw_size, &Landed::Stored, None);
        }
        Ok(())
    }
}
