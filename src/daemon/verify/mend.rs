//! Putting right what a check found: objects are fetched again, rows made anew, wasted room given back.
//!
//! Trees are replaced, never dropped: somebody may be listing them. A damaged blob is dropped as a read would drop it, and
//! fetched as a read would fetch it; who reads it meanwhile shares that. Trees come first, because what is below a damaged
//! one has no name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gix::ObjectId;
use gix::objs::Kind;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Checked, Damage, from_gitdir, is_damage, names};
use crate::daemon::lifecycle::blocking;
use crate::daemon::protocol::{Failure, FailureClass, Progress};
use crate::daemon::{Daemon, prepare};
use crate::hydrate::cause::Process;
use crate::hydrate::{Cause, Hydrator, Landed, Owner};
use crate::store::verify::{Dropped, Key, Mended, Orphans, Problem, Subject};
use crate::store::{Operation, RepositoryId, listing_from_git};

/// Objects asked for at once.
const WINDOW_OBJECTS: usize = 1024;

/// The repair is no workspace.
const OWNER: Owner = Owner(u64::MAX - 1);

/// Longest wait for the store to have what arrived.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A server that may be asked for an object: a repository's, with or without its remote.
type Server = (RepositoryId, bool);

impl Daemon {
    /// Puts right what can be.
    pub(super) async fn mend(
        self: &Arc<Self>,
        checked: &mut Checked,
        stop: &Arc<AtomicBool>,
        told: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        let mut servers: Vec<Server> = Vec::new();
        self.mend_trees(checked, stop, told, &mut servers).await?;
        if checked.damages.iter().any(|damage| damage.tree().is_some() && damage.repaired) {
            let daemon = Arc::clone(self);
            checked.notes.extend(blocking(move || daemon.mount_again()).await?);
        }
        self.mend_blobs(checked, told, &mut servers).await?;
        tell(told, "mending tables", 0, 0);
        let (daemon, stop) = (Arc::clone(self), Arc::clone(stop));
        let mut damages = std::mem::take(&mut checked.damages);
        let orphans = std::mem::take(&mut checked.orphans);
        let (damages, orphans, note) = blocking(move || {
            let go_on = || !stop.load(Ordering::Acquire) && !daemon.stopping();
            daemon.mend_rows(&mut damages)?;
            let (orphans, note) = daemon.give_room_back(orphans, &go_on)?;
            daemon.store.flush()?;
            for (repository, _) in servers {
                daemon.drop_idle_hydrator(repository);
            }
            Ok((damages, orphans, note))
        })
        .await?;
        (checked.damages, checked.orphans) = (damages, orphans);
        checked.notes.extend(note);
        Ok(())
    }

    /// Trees, from the top down as long as that brings something.
    async fn mend_trees(
        self: &Arc<Self>,
        checked: &mut Checked,
        stop: &Arc<AtomicBool>,
        told: &watch::Sender<Progress>,
        servers: &mut Vec<Server>,
    ) -> Result<(), Failure> {
        let mut tried: HashMap<ObjectId, Vec<Server>> = HashMap::new();
        loop {
            let wanted = ask_next(&checked.damages, Damage::tree, &mut tried);
            if wanted.is_empty() {
                return Ok(());
            }
            for (server, ids) in wanted {
                servers.push(server);
                tell(told, "fetching trees again", 0, ids.len() as u64);
                let (placed, failures) = self.fetch_trees(server, ids).await?;
                note_failures(&mut checked.damages, &failures);
                for damage in &mut checked.damages {
                    damage.repaired |= damage.tree().is_some_and(|id| placed.contains(&id));
                }
            }
            self.look_again(checked, stop).await?;
        }
    }

    /// Looks which trees are whole now, and what can be seen below them.
    async fn look_again(self: &Arc<Self>, checked: &mut Checked, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
        let (daemon, stop) = (Arc::clone(self), Arc::clone(stop));
        let mut damages = std::mem::take(&mut checked.damages);
        let (damages, certain) = blocking(move || {
            for damage in &mut damages {
                if let Some(id) = damage.tree().filter(|_| !damage.repaired && !damage.problem.odd) {
                    damage.repaired = !daemon.store.lacks_tree(&id)?;
                }
            }
            let walked = names::walk(&daemon.sources(), &mut damages, &|| stop.load(Ordering::Acquire))?;
            Ok((damages, walked.certain))
        })
        .await?;
        (checked.damages, checked.certain) = (damages, certain);
        Ok(())
    }

    /// Mounts what could not be mounted when the daemon started, because a tree was damaged.
    fn mount_again(self: &Arc<Self>) -> Result<Vec<String>, Failure> {
        let mut notes = Vec::new();
        for row in self.store.workspaces()?.into_iter().filter(|row| row.mounted) {
            if self.workspaces.lock().contains_key(&row.id) {
                continue;
            }
            notes.push(match self.restore_one(&row) {
                Ok(()) => format!("{} is mounted again", row.name),
                Err(failure) => format!("{} can't be mounted again: {failure}", row.name),
            });
        }
        Ok(notes)
    }

    /// Puts trees in their places, out of the gitdir or from the remote. Returns those it has put there, and why some could
    /// not be had.
    async fn fetch_trees(
        self: &Arc<Self>,
        server: Server,
        ids: Vec<ObjectId>,
    ) -> Result<(HashSet<ObjectId>, Vec<(ObjectId, String)>), Failure> {
        let daemon = Arc::clone(self);
        let (hydrator, missing, mut placed) = blocking(move || {
            let (repository, hydrator) = prepare::hydrator_of(&daemon, server.0, server.1)?;
            let (mut missing, mut placed) = (Vec::new(), HashSet::new());
            for id in ids {
                match from_gitdir(&repository.gitdir, &id) {
                    Some(listing) => {
                        daemon.store.replace_tree(&id, &listing)?;
                        placed.insert(id);
                    }
                    None => missing.push(id),
                }
            }
            Ok((hydrator, missing, placed))
        })
        .await?;
        let mut failures = Vec::new();
        for window in missing.chunks(WINDOW_OBJECTS) {
            for (id, outcome) in fetch(&hydrator, window).await? {
                match outcome {
                    Ok(Landed::Structure(Kind::Tree, raw)) => {
                        let Ok(listing) = listing_from_git(&id, &raw) else { continue };
                        let store = self.store.clone();
                        blocking(move || Ok(store.replace_tree(&id, &listing)?)).await?;
                        placed.insert(id);
                    }
                    Ok(_) => {}
                    Err(why) => failures.push((id, why)),
                }
            }
        }
        Ok((placed, failures))
    }

    /// Blobs: dropped, and fetched from each server that may have them until one has.
    async fn mend_blobs(
        self: &Arc<Self>,
        checked: &mut Checked,
        told: &watch::Sender<Progress>,
        servers: &mut Vec<Server>,
    ) -> Result<(), Failure> {
        self.drop_blobs(checked).await?;
        let total = checked.damages.iter().filter(|damage| damage.blob().is_some()).count() as u64;
        let mut tried: HashMap<ObjectId, Vec<Server>> = HashMap::new();
        loop {
            let wanted = ask_next(&checked.damages, Damage::blob, &mut tried);
            if wanted.is_empty() {
                return Ok(());
            }
            for (server, ids) in wanted {
                servers.push(server);
                let daemon = Arc::clone(self);
                let hydrator = blocking(move || Ok(prepare::hydrator_of(&daemon, server.0, server.1)?.1)).await?;
                for window in ids.chunks(WINDOW_OBJECTS) {
                    let done = checked.damages.iter().filter(|damage| damage.blob().is_some() && damage.repaired);
                    tell(told, "fetching again", done.count() as u64, total);
                    let outcomes = fetch(&hydrator, window).await?;
                    let failures = outcomes.into_iter().filter_map(|(id, outcome)| Some((id, outcome.err()?)));
                    note_failures(&mut checked.damages, &failures.collect::<Vec<_>>());
                    self.look_at_blobs(checked, &hydrator, window).await?;
                }
            }
        }
    }

    /// Drops what is damaged. What nobody names is put right by that.
    async fn drop_blobs(self: &Arc<Self>, checked: &mut Checked) -> Result<(), Failure> {
        let (daemon, certain) = (Arc::clone(self), checked.certain);
        let mut damages = std::mem::take(&mut checked.damages);
        checked.damages = blocking(move || {
            let mut dropped = false;
            for damage in &mut damages {
                let Some(id) = damage.blob() else { continue };
                match daemon.store.drop_if_damaged(&id)? {
                    Dropped::Whole => damage.repaired = true,
                    Dropped::Stays => damage.failure = Some("the store takes no writes".to_owned()),
                    Dropped::Gone if damage.names.is_empty() && certain => {
                        (damage.repaired, dropped) = (true, true);
                    }
                    Dropped::Gone => {
                        dropped = true;
                        let nobody = "it was dropped from the cache; no tree that can be read names it";
                        damage.failure = damage.names.is_empty().then(|| nobody.to_owned());
                    }
                }
            }
            if dropped {
                // A damaged row did not tell how many bytes its blob had.
                daemon.store.mend(&Problem::new(Subject::Counter(""), ""))?;
            }
            Ok(damages)
        })
        .await?;
        Ok(())
    }

    /// Looks which of `ids` are here and whole now.
    async fn look_at_blobs(
        self: &Arc<Self>,
        checked: &mut Checked,
        hydrator: &Hydrator,
        ids: &[ObjectId],
    ) -> Result<(), Failure> {
        let (store, hydrator, ids) = (self.store.clone(), hydrator.clone(), ids.to_vec());
        let whole = blocking(move || {
            hydrator.settle(SETTLE_LIMIT);
            let mut whole = HashMap::new();
            for id in ids {
                whole.insert(id, matches!(store.check_blob(&id)?, Some(Ok(()))));
            }
            Ok(whole)
        })
        .await?;
        for damage in &mut checked.damages {
            if damage.blob().and_then(|id| whole.get(&id)) == Some(&true) {
                (damage.repaired, damage.failure) = (true, None);
            }
        }
        Ok(())
    }

    /// Rows that can be made again, and totals.
    fn mend_rows(&self, damages: &mut [Damage]) -> Result<(), Failure> {
        for damage in damages.iter_mut().filter(|damage| !damage.repaired) {
            match self.store.mend(&damage.problem) {
                Ok(Mended::Yes) => damage.repaired = true,
                Ok(Mended::No) => {
                    if damage.failure.is_none() && damage.blob().is_none() {
                        damage.failure = Some(advice(&damage.problem.subject).to_owned());
                    }
                }
                Err(error) if is_damage(&error) => damage.failure = Some(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes chunks that no blob has, those included that dropped blobs left. Returns what was found at first.
    fn give_room_back(
        &self,
        before: Orphans,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<(Orphans, Option<String>), Failure> {
        let stop = || !go_on();
        let watching = super::Watching::new(None, &stop, &|_| {});
        let orphans = match self.store.orphan_chunks(false, &watching) {
            Err(error) if is_damage(&error) => return Ok((before, None)),
            orphans => orphans?,
        };
        if orphans.chunks.is_empty() {
            return Ok((before, None));
        }
        let removed = self.store.remove_orphans(&orphans.chunks, go_on)?;
        Ok((before, (removed > 0).then(|| format!("{removed} chunks that no blob had were removed"))))
    }
}

/// Asks for `ids`, and waits for each.
async fn fetch(hydrator: &Hydrator, ids: &[ObjectId]) -> Result<Vec<(ObjectId, Result<Landed, String>)>, Failure> {
    let label = b"larder verify --repair";
    let cause = Arc::new(Cause {
        workspace: None,
        path_at: label.len(),
        process: Process::own("larder verify"),
        ..Cause::new(OWNER, label, Operation::Repair)
    });
    let mut waiting = JoinSet::new();
    for (id, ticket) in ids.iter().zip(hydrator.hydrate_all(ids, &cause)) {
        let id = *id;
        waiting.spawn(async move { (id, ticket.wait().await) });
    }
    let mut outcomes = Vec::with_capacity(ids.len());
    while let Some(ended) = waiting.join_next().await {
        let (id, outcome) = ended.map_err(|error| Failure::new(FailureClass::Other, error.to_string()))?;
        outcomes.push((id, outcome.map_err(|error| error.message)));
    }
    Ok(outcomes)
}

/// Who is to be asked next for what is damaged.
/// Whom to ask next for what is not repaired, each server once for an object.
fn ask_next(
    damages: &[Damage],
    id_of: fn(&Damage) -> Option<ObjectId>,
    tried: &mut HashMap<ObjectId, Vec<Server>>,
) -> BTreeMap<Server, Vec<ObjectId>> {
    let mut wanted: BTreeMap<Server, Vec<ObjectId>> = BTreeMap::new();
    for damage in damages.iter().filter(|damage| !damage.repaired) {
        let Some(id) = id_of(damage) else { continue };
        let before = tried.entry(id).or_default();
        if let Some(server) = next_server(damage, before) {
            before.push(server);
            wanted.entry(server).or_default().push(id);
        }
    }
    wanted
}

fn next_server(damage: &Damage, tried: &[Server]) -> Option<Server> {
    damage.names.iter().map(|name| (name.repository, name.offline)).find(|server| !tried.contains(server))
}

fn note_failures(damages: &mut [Damage], failures: &[(ObjectId, String)]) {
    let failures: HashMap<&ObjectId, &String> = failures.iter().map(|(id, why)| (id, why)).collect();
    for damage in damages.iter_mut().filter(|damage| !damage.repaired) {
        let why = damage.blob().or_else(|| damage.tree()).and_then(|id| failures.get(&id).copied());
        if let Some(why) = why {
            damage.failure = Some(format!("it could not be fetched again: {why}"));
        }
    }
}

/// What to do about what is not repaired here.
fn advice(subject: &Subject) -> &'static str {
    match subject {
        Subject::Local(_) => "files of local changes are never removed or replaced by a repair",
        Subject::Row {
            table: "overlay" | "overlay_nodes" | "overlay_folded" | "journal" | "journal_paths", ..
        } => {
            "rows of local changes are never removed by a repair: copy what you need out of the mount, then unmount the \
             workspace with --purge and mount it again"
        }
        Subject::Row { table: "pins", .. } => "pins are not removed by a repair: pin again what is to be kept",
        Subject::Row { table: "file", key: Key::Words(_) } => {
            "the file itself is damaged: move it away, and mount again; everything but local changes is fetched anew"
        }
        Subject::Row { .. } => {
            "it can't be made again from what is stored: unmount the workspace, and mount it again with another name"
        }
        Subject::Tree(_) => "no repository that names it could be asked",
        Subject::Blob(_) | Subject::Counter(_) => "",
    }
}

fn tell(told: &watch::Sender<Progress>, phase: &str, objects: u64, total: u64) {
    let total_objects = (total > 0).then_some(total);
    told.send_replace(Progress { phase: phase.to_owned(), objects, bytes: 0, total_objects });
}
