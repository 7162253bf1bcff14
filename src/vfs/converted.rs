//! Reading files and sizes through their conversions: what [`Fs`] does where a workspace has a converter.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;

use super::convert::{BATCH_BYTES, Converter, Plan, Plans};
use super::errno::Errno;
use super::inode::What;
use super::ops::{Fs, Shown};
use crate::config::Prefetch;
use crate::hydrate::{Cause, Landed, Want};
use crate::index::convert::RulesError;
use crate::index::ino::Ino;
use crate::store::overlay::Node;
use crate::store::{Batch, EntryKind};

/// Where the bytes of a file are.
pub(super) enum Content {
    /// In its blob.
    Raw,
    /// In this object, as a checkout has them.
    Converted(ObjectId),
    /// It has a conversion, or may have one, and was not converted yet.
    Unknown,
}

/// What a file's conversion gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolved {
    pub(super) content: ObjectId,
    pub(super) size: u64,
}

impl Fs {
    /// The conversions in the directory `ino`. Never waits.
    pub(super) fn plans(&self, shown: &Shown, ino: Ino) -> Plans {
        let Some(converter) = &shown.converter else { return Plans::Raw };
        let planned = match shown.overlay.base_path(&self.inodes, ino) {
            Ok(path) => converter.plan(&shown.view, &path),
            Err(error) => {
                tracing::error!("{error}");
                return Plans::Unknown;
            }
        };
        as_plans(planned)
    }

    /// The conversion of a file that was moved or whose base moved on: a plan with one entry. Never waits.
    pub(super) fn plan_alone(&self, shown: &Shown, ino: Ino, node: &Node, id: ObjectId) -> Plans {
        let Some(converter) = shown.converter.as_ref().filter(|_| node.is_regular()) else { return Plans::Raw };
        let kind = if node.mode & 0o100 == 0 { EntryKind::File } else { EntryKind::Executable };
        match shown.overlay.base_path(&self.inodes, ino) {
            Ok(path) => as_plans(converter.plan_file(&shown.view, &path, kind, id)),
            Err(_) => Plans::Unknown,
        }
    }

    /// The plan that `ino` is in, and its position there, where it shows the blob `id`.
    fn planned(&self, shown: &Shown, ino: Ino, id: ObjectId) -> Result<(Plans, usize), Errno> {
        if shown.converter.is_none() {
            return Ok((Plans::Raw, 0));
        }
        if let Some(node) = shown.overlay.node(ino)? {
            return Ok((self.plan_alone(shown, ino, &node, id), 0));
        }
        let known = self.inodes.get(ino).ok_or(Errno::ESTALE)?;
        match known.what {
            What::Blob { kind: EntryKind::File | EntryKind::Executable, position, .. } => {
                Ok((self.plans(shown, known.parent), position as usize))
            }
            _ => Ok((Plans::Raw, 0)),
        }
    }

    /// Where the bytes of `ino`, which shows the blob `id`, are. Never waits.
    pub(super) fn content(&self, shown: &Shown, ino: Ino, id: ObjectId) -> Result<Content, Errno> {
        Ok(match self.planned(shown, ino, id)? {
            (Plans::Raw, _) => Content::Raw,
            (Plans::Unknown, _) => Content::Unknown,
            (Plans::Plan(plan), position) => match plan.get(position) {
                None => Content::Raw,
                Some(planned) => planned.content().map_or(Content::Unknown, Content::Converted),
            },
        })
    }

    /// Up to `len` bytes of `ino` from `offset`, converted first if it has a conversion.
    pub(super) async fn read_converted(
        &self,
        shown: &Shown,
        ino: Ino,
        id: ObjectId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Errno> {
        // As with blobs: what was stored can be damaged or evicted before it is read.
        for _ in 0..2 {
            let Some(resolved) = self.resolve_converted(shown, ino, id, None).await? else {
                return self.hydrated(shown, ino, id, offset, len).await;
            };
            let read = self.store.read_at(&resolved.content, offset, len);
            if let Some(bytes) = read.map_err(|error| Errno::from(&error))? {
                return Ok(bytes);
            }
        }
        Err(Errno::EIO)
    }

    /// Converts `ino` unless that was done, hydrating first what it is made of. `None`: it has no conversion. In a walk
    /// its siblings, which come along anyway, are waited for and converted with it, and so many files of the next
    /// directories are fetched too.
    pub(super) async fn resolve_converted(
        &self,
        shown: &Shown,
        ino: Ino,
        id: ObjectId,
        walk: Option<usize>,
    ) -> Result<Option<Resolved>, Errno> {
        let Some(converter) = &shown.converter else { return Ok(None) };
        let cause = self.cause(shown, ino);
        let (mut plans, mut position) = self.planned(shown, ino, id)?;
        if matches!(plans, Plans::Unknown) {
            self.bring_attributes(shown, converter, ino, &cause).await?;
            (plans, position) = self.planned(shown, ino, id)?;
        }
        let plan = match plans {
            Plans::Raw => return Ok(None),
            Plans::Unknown => return Err(Errno::EIO),
            Plans::Plan(plan) => plan,
        };
        let Some(planned) = plan.get(position) else { return Ok(None) };
        let place = match self.inodes.get(ino) {
            Some(known) if matches!(known.what, What::Blob { .. }) && shown.overlay.node(ino)?.is_none() => {
                self.directory(shown, known.parent)?.map(|directory| (known.parent, directory))
            }
            _ => None,
        };
        let here = |id: &ObjectId| self.store.contains(id).map_err(|error| Errno::from(&error));
        for _ in 0..2 {
            if let (Some(content), Some(size)) = (planned.content(), planned.size())
                && here(&content)?
            {
                return Ok(Some(Resolved { content, size }));
            }
            let mut raw = HashMap::new();
            if !here(&planned.source)? {
                self.missed();
                let wanted = |at: usize| plan.get(at).is_some_and(|planned| planned.size().is_none());
                let mut companions = Vec::new();
                if let Some((_, directory)) = &place
                    && (walk.is_some() || shown.prefetch != Prefetch::Off)
                {
                    companions = self.companions(directory, position, wanted);
                }
                let siblings = if walk.is_some() { companions.len() } else { 0 };
                let room = walk.unwrap_or(0).saturating_sub(companions.len());
                if let Some((parent, _)) = &place {
                    companions.extend(self.neighbours(shown, *parent, room));
                }
                let size = place.as_ref().and_then(|(_, directory)| directory.size(position));
                let want = Want { id: planned.source, size };
                raw = landed(self, shown, want, &cause, &companions, siblings).await?;
            }
            let done = converter.convert(&plan, position, raw).await;
            done.map_err(|error| {
                tracing::error!("{error}");
                Errno::from(&error)
            })?;
        }
        match (planned.content(), planned.size()) {
            (Some(content), Some(size)) => Ok(Some(Resolved { content, size })),
            _ => Err(Errno::EIO),
        }
    }

    /// Hydrates the attribute files that decide about `ino`.
    async fn bring_attributes(
        &self,
        shown: &Shown,
        converter: &Converter,
        ino: Ino,
        cause: &Arc<Cause>,
    ) -> Result<(), Errno> {
        let path = shown.overlay.base_path(&self.inodes, ino)?;
        let ids = match converter.plan_file(&shown.view, &path, EntryKind::File, shown.view.generation().tree.0) {
            Ok(_) => return Ok(()),
            Err(RulesError::Missing(ids)) => ids,
            Err(error) => {
                tracing::error!("{error}");
                return Err(Errno::from(&error));
            }
        };
        let hydrate = |id: &ObjectId| {
            let want = Want { id: *id, size: None };
            (*id, shown.hydrator.hydrate(want, cause, &[]))
        };
        let tickets: Vec<_> = ids.iter().map(hydrate).collect();
        let mut batch = Batch::default();
        for (id, ticket) in tickets {
            // Rules are read out of the store, where what arrived may not be yet.
            if let Landed::Bytes(bytes) =
                ticket.wait().await.map_err(|error| self.failed(shown, &cause.label, id, &error))?
            {
                batch.blob(id, &bytes);
            }
        }
        self.store.commit(batch).map_err(|error| Errno::from(&error))
    }
}

fn as_plans(planned: Result<Option<Arc<Plan>>, RulesError>) -> Plans {
    match planned {
        Ok(None) => Plans::Raw,
        Ok(Some(plan)) => Plans::Plan(plan),
        Err(RulesError::Missing(_)) => Plans::Unknown,
        Err(error) => {
            tracing::error!("{error}");
            Plans::Unknown
        }
    }
}

/// Hydrates `want` and waits for the first `waited` of its companions too. What arrived and may not be stored yet, as far as memory
/// should hold it: the rest is read out of the store later.
async fn landed(
    fs: &Fs,
    shown: &Shown,
    want: Want,
    cause: &Arc<Cause>,
    companions: &[Want],
    waited: usize,
) -> Result<HashMap<ObjectId, Bytes>, Errno> {
    let mut raw = HashMap::new();
    let first = shown.hydrator.hydrate(want, cause, companions);
    let others: Vec<_> =
        companions[..waited].iter().map(|other| (other.id, shown.hydrator.hydrate(*other, cause, &[]))).collect();
    if let Landed::Bytes(bytes) = first.wait().await.map_err(|error| fs.failed(shown, &cause.label, want.id, &error))? {
        raw.insert(want.id, bytes);
    }
    let mut room = BATCH_BYTES;
    for (id, ticket) in others {
        // Whoever asks for that one is told why it failed.
        if let Ok(Landed::Bytes(bytes)) = ticket.wait().await
            && bytes.len() <= room
        {
            room -= bytes.len();
            raw.insert(id, bytes);
        }
    }
    Ok(raw)
}
