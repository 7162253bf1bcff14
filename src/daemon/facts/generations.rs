//! Which generations a workspace has, what keeps each, and what dropping it would free.

use std::collections::HashMap;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::{Sources, changes, place};
use crate::daemon::carry::imports::imported_at_rest;
use crate::daemon::gc::roots::{Gathered, Retention, held, retained};
use crate::daemon::protocol::{Failure, GenerationRow, rfc3339};
use crate::hydrate::walk::Everything;
use crate::index::convert::attribute_blobs;
use crate::index::gc::{self, Held, Roots};
use crate::store::overlay::{Content, Peek};
use crate::store::{Generation, GenerationRecord, Pin, Store, Workspace};

/// Rows told at most: the newest.
const ROWS_MAX: usize = 2_000;

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GenerationsRequest {
    /// A workspace's name or a path of it.
    pub target: String,
    /// Do not work out what dropping them would free, for which all trees are walked.
    pub quick: bool,
}

/// What is answered: the document of `larder generations --json` (CLI.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationsReport {
    /// Generations, newest first.
    pub rows: Vec<GenerationRow>,
    /// Older ones that are not among them.
    pub rows_left_out: u64,
}

pub(super) fn answer(sources: &Sources<'_>, request: &GenerationsRequest) -> Result<GenerationsReport, Failure> {
    let store = sources.store;
    let row = place::workspace(store, &request.target)?;
    let settings = &sources.config.settings.generations;
    let retention = Retention { keep: settings.keep, max_age: settings.max_age };
    let records = store.generations(row.id)?;
    let (gathered, frees) = if request.quick {
        (retained(store, &retention)?.0, None)
    } else {
        let mut gathered = match sources.daemon {
            Some(daemon) => daemon.gather(&retention)?,
            None => at_rest(sources, &retention)?,
        };
        let roots = std::mem::take(&mut gathered.roots);
        (gathered, Some(frees(store, &row, &records, roots)?))
    };
    let dropped = gathered.dropped.into_iter().filter(|dropped| dropped.record.workspace == row.id);
    let dropped: HashMap<Generation, String> =
        dropped.map(|dropped| (dropped.record.generation, dropped.why)).collect();
    let pins = store.pins()?;
    let rows = records.iter().enumerate().rev().take(ROWS_MAX);
    let rows = rows.map(|(place, record)| {
        let frees = frees.as_ref().and_then(|frees| frees.get(place)).copied();
        describe(&row, record, &pins, dropped.contains_key(&record.generation), frees)
    });
    Ok(GenerationsReport { rows: rows.collect(), rows_left_out: records.len().saturating_sub(ROWS_MAX) as u64 })
}

fn describe(
    row: &Workspace,
    record: &GenerationRecord,
    pins: &[Pin],
    expired: bool,
    frees: Option<(u64, u64)>,
) -> GenerationRow {
    let current = Some(record.generation) == row.current;
    let pins: Vec<u64> = pins.iter().filter(|pin| pin.tree == record.tree).map(|pin| pin.id).collect();
    let mut kept_by = Vec::new();
    if current {
        kept_by.push(format!("shown by {}", row.name));
    }
    kept_by.extend(pins.iter().map(|pin| format!("pin {pin}")));
    if !expired && !current {
        kept_by.push("retention".to_owned());
    }
    let state = match (current, expired) {
        (true, _) => "current",
        (false, true) => "expired",
        (false, false) => "kept",
    };
    GenerationRow {
        generation: record.generation.0,
        commit: record.commit.0.to_string(),
        created: rfc3339(record.created),
        origin: record.origin.clone(),
        state: state.to_owned(),
        current,
        pinned: !pins.is_empty(),
        files: record.files,
        kept_by,
        frees_objects: frees.map(|(objects, _)| objects),
        frees_bytes: frees.map(|(_, bytes)| bytes),
    }
}

/// Blobs and stored bytes that would go with each of `records`, if nothing else of `row` went.
fn frees(
    store: &Store,
    row: &Workspace,
    records: &[GenerationRecord],
    mut roots: Roots,
) -> Result<Vec<(u64, u64)>, Failure> {
    // Everything but this workspace's own generations.
    roots.named = Vec::new();
    for other in store.workspaces()?.iter().filter(|other| other.id != row.id) {
        roots.named.extend(store.generations(other.id)?.iter().map(|record| record.tree.0));
    }
    let rest = gc::mark(store, roots)?;
    let own: Vec<ObjectId> = records.iter().map(|record| record.tree.0).collect();
    let mut distinct = own.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let alone = gc::alone(store, &distinct, &rest)?;
    let frees = own.iter().map(|tree| {
        // Two generations of one tree free nothing one by one.
        let shared = own.iter().filter(|other| *other == tree).count() > 1;
        let place = distinct.binary_search(tree).ok().filter(|_| !shared);
        let freed = place.and_then(|place| alone.get(place)).copied().unwrap_or_default();
        (freed.objects, freed.bytes)
    });
    Ok(frees.collect())
}

/// What keeps objects while no daemon runs: nothing is under way, and no file is open.
fn at_rest(sources: &Sources<'_>, retention: &Retention) -> Result<Gathered, Failure> {
    let store = sources.store;
    let (mut gathered, current) = retained(store, retention)?;
    for (row, record) in &current {
        let (peek, _) = place::left(sources, row)?;
        if !peek.is_pristine() {
            rest_on(store, &peek, record, &mut gathered.roots)?;
        }
    }
    let mut all: Vec<(ObjectId, Vec<String>)> = imported_at_rest(store)?;
    all.extend(store.pins()?.into_iter().map(|pin| (pin.tree.0, pin.pathspecs)));
    all.extend(store.warms()?.into_iter().map(|warm| (warm.root.0, warm.pathspecs)));
    for (tree, pathspecs) in all {
        gathered.roots.held.push(held(tree, &pathspecs)?);
        // Those of a tree that is not whole are not known.
        gathered.roots.blobs.extend(attribute_blobs(store, tree).unwrap_or_default());
    }
    Ok(gathered)
}

/// What local changes rest on: what they moved, and the originals of what they changed.
fn rest_on(store: &Store, peek: &Peek, record: &GenerationRecord, roots: &mut Roots) -> Result<(), Failure> {
    changes::each(store, peek, record, &mut |base, node| {
        roots.blobs.extend(base.filter(|(kind, _)| kind.is_blob()).map(|(_, id)| id));
        match node.map(|node| &node.content) {
            Some(Content::Tree(tree)) => roots.held.push(Held { tree: *tree, select: Box::new(Everything) }),
            Some(Content::Blob(id)) => roots.blobs.push(*id),
            _ => {}
        }
    })
}
