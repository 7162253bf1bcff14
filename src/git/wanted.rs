//! Which objects of a pack are handed on.
//!
//! A server may send more than was asked for: what lies below a tree, blobs
//! where it has no filters, or anything at all. Owns the choice, and knows in
//! the end which want did not come. A want counts as come only when it was
//! handed on.

use std::collections::HashSet;
use std::io::{self, Write};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use crate::hydrate::remote::{Extent, LargeSink, RemoteError, Sink};

/// Passes on what `extent` covers.
pub(super) struct Wanted<'a> {
    /// Borrowed, since there may be tens of thousands.
    missing: HashSet<&'a ObjectId>,
    extent: Extent,
    sink: &'a mut dyn Sink,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(wants: &'a [ObjectId], extent: Extent, sink: &'a mut dyn Sink) -> Self {
        Self { missing: wants.iter().collect(), extent, sink }
    }

    /// From now on passes on nothing but the wants that did not come yet: these.
    pub(super) fn expect_missing_only(&mut self) -> Vec<ObjectId> {
        self.extent = Extent::Exact;
        self.missing.iter().map(|id| **id).collect()
    }

    /// The first of `wants` that did not come.
    pub(super) fn first_missing(&self, wants: &[ObjectId]) -> Option<ObjectId> {
        wants.iter().find(|id| self.missing.contains(*id)).copied()
    }
}

impl Sink for Wanted<'_> {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        let covered = match self.extent {
            Extent::Exact | Extent::Objects => self.missing.contains(&id),
            Extent::Trees => kind == Kind::Tree,
            Extent::Everything { .. } => matches!(kind, Kind::Tree | Kind::Blob),
        };
        if !covered {
            return Ok(());
        }
        self.missing.remove(&id);
        self.sink.object(id, kind, data)
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        let all = match self.extent {
            Extent::Trees => return Ok(Box::new(io::sink())),
            Extent::Exact | Extent::Objects if self.missing.is_empty() => return Ok(Box::new(io::sink())),
            Extent::Exact | Extent::Objects => false,
            Extent::Everything { .. } => true,
        };
        Ok(Box::new(LargeWanted { missing: &mut self.missing, all, inner: self.sink.large(raw_size)? }))
    }
}

/// A large blob whose id is known only at its end.
struct LargeWanted<'a, 'w> {
    missing: &'a mut HashSet<&'w ObjectId>,
    /// Whether it is kept even if it was not among the wants.
    all: bool,
    inner: Box<dyn LargeSink + 'a>,
}

impl Write for LargeWanted<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl LargeSink for LargeWanted<'_, '_> {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        if self.missing.remove(&id) || self.all { self.inner.finish(id) } else { Ok(()) }
    }
}

/// A blob nobody asked for.
impl LargeSink for io::Sink {
    fn finish(self: Box<Self>, _id: ObjectId) -> Result<(), RemoteError> {
        Ok(())
    }
}
