//! Blobs that users committed here: in the gitdir, and nowhere else until they are pushed.
//!
//! Asked before the network. Misses are the rule and cost a look into each pack's index and one `stat`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use parking_lot::Mutex;

use super::gitdir::{GitdirError, Objects};
use crate::hydrate::remote::{LARGE_BLOB_BYTES, Sink};

/// The object database of a common gitdir, opened when it is first asked and again when packs came or went.
pub(super) struct Nearby {
    common: PathBuf,
    // Guards the handle; held while objects are read, which several workers rarely do at a time.
    opened: Mutex<Option<(Option<SystemTime>, Objects)>>,
}

impl Nearby {
    pub(super) fn new(common: &Path) -> Self {
        Self { common: common.to_owned(), opened: Mutex::new(None) }
    }

    /// Hands over those of `ids` that are here.
    pub(super) fn give(&self, ids: &[ObjectId], sink: &mut dyn Sink) {
        let Some(first) = ids.first() else { return };
        let packs = std::fs::metadata(self.common.join("objects/pack")).and_then(|found| found.modified()).ok();
        let mut opened = self.opened.lock();
        if opened.as_ref().is_none_or(|(at, _)| *at != packs) {
            match Objects::open(&self.common, first.kind()) {
                Ok(objects) => *opened = Some((packs, objects)),
                Err(error) => return tracing::warn!("{error}"),
            }
        }
        let Some((_, objects)) = opened.as_ref() else { return };
        for id in ids {
            if let Err(error) = one(objects, id, sink) {
                // The remote may have it.
                tracing::warn!(object = %id, "{error}");
            }
        }
    }
}

fn one(objects: &Objects, id: &ObjectId, sink: &mut dyn Sink) -> Result<(), GitdirError> {
    let Some(size) = objects.blob_size(id)? else { return Ok(()) };
    let Some(bytes) = objects.blob(id)? else { return Ok(()) };
    let given = if size > LARGE_BLOB_BYTES {
        sink.large(size).and_then(|mut large| {
            let failed = |error: std::io::Error| super::error::local("storing a blob of the gitdir", &error);
            std::io::Write::write_all(&mut large, &bytes).map_err(failed)?;
            large.finish(*id)
        })
    } else {
        sink.object(*id, Kind::Blob, Bytes::from(bytes))
    };
    if let Err(error) = given {
        tracing::warn!(object = %id, "{error}");
    }
    Ok(())
}
