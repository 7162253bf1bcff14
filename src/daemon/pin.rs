//! Pins: what a commit's pathspecs select is fetched and kept, whatever is collected or evicted.
//!
//! Invariant: a pin's row is written before anything is fetched for it, so
//! that what arrives is held at once. A pin that could not be fetched whole
//! stays, and pinning the same again goes on with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use gix::ObjectId;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::bring_changed::{self, Lazy};
use super::lifecycle::blocking;
use super::protocol::{
    Answer, Failure, FailureClass, PinReport, PinRequest, PinRow, Progress, UnpinRequest, WarmReport, rfc3339,
};
use super::warm::{self, Subject};
use super::workspace::Live;
use super::{Daemon, convert, prepare, server};
use crate::git::gitdir::{self, GitdirError};
use crate::git::pathspec::Pathspecs;
use crate::hydrate::walk::Walk;
use crate::hydrate::{FailureKind, RemoteError};
use crate::store::{EntryKind, GenerationRecord, ObjectIdText, Pin, Repository, Store};

/// Pins of a store at most: each is walked by every collection.
const PINS_MAX: usize = 1000;

/// Bytes of the pathspecs of all pins at most: with everything else about them they fit a line of the protocol.
const PATHSPEC_BYTES_MAX: usize = 512 << 10;

/// Longest word that is tried as a revision.
const REV_BYTES_MAX: usize = 1000;

/// What the words of a request mean.
struct Meant {
    /// A commit that the gitdir knows, or what the remote is to be asked for; `None`: what the workspace shows.
    rev: Option<Rev>,
    pathspecs: Vec<String>,
}

enum Rev {
    Here(ObjectId),
    Remote(String),
}

impl Daemon {
    /// `larder pin`.
    pub(super) async fn pin(
        self: &Arc<Self>,
        request: PinRequest,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let live = self.find(&request.target)?;
        let (told, progress) = watch::channel(Progress::default());
        let words = [&request.words[..], &request.only_pathspecs].concat();
        let place = self.warms.enter(live.row().id, warm::label(&live, &words))?;
        let cancel = place.running.cancel.clone();
        let work = async {
            let (daemon, pinned) = (Arc::clone(self), Arc::clone(&live));
            let (pin, existed, requests) = blocking(move || daemon.put_pin(&pinned, &request)).await?;
            place.running.progress.requests.fetch_add(requests, Ordering::Relaxed);
            let subject = Subject { root: pin.tree.0, pathspecs: pin.pathspecs.clone(), max_blob_bytes: None };
            let fetched = self.run(&live, &subject, &place.running, |now| drop(told.send_replace(now))).await;
            let fetched = match fetched {
                Ok(report) => self.bring_attributes(&live, &pin).await.map(|()| report),
                Err(failure) => Err(failure),
            };
            match fetched {
                Ok(report) => Ok(Answer::Pinned(PinReport {
                    number: pin.id,
                    workspace: live.row().name,
                    commit: pin.commit.0.to_string(),
                    pathspecs: pin.pathspecs,
                    existed,
                    warmed: WarmReport { seconds: begun.elapsed().as_secs_f64(), ..report },
                })),
                Err(failure) => Err(incomplete(&pin, failure)),
            }
        };
        server::with_progress(progress, read, write, || _ = cancel.send_replace(true), work).await
    }

    /// Writes the pin that is asked for, or finds it. Tells whether it was there, and how many requests its trees took.
    fn put_pin(&self, live: &Arc<Live>, request: &PinRequest) -> Result<(Pin, bool, u64), Failure> {
        let row = live.row();
        let job = prepare::Job { environment: request.environment.clone(), ..self.job_of(live)? };
        let _turn = self.turn(&job.url);
        let _trees_stay = self.collecting.read_recursive();
        let record = warm::prepared(live)?.view.generation().clone();
        let repository = self.repository_of(live)?;
        let Meant { rev, pathspecs } = self.words(live, &repository, &record, request)?;
        let select = Pathspecs::parse(&pathspecs)?;
        let (commit, tree, requests) = match rev {
            None => (record.commit.0, record.tree.0, 0),
            Some(rev) => self.bring_pinned(live, &repository, &record, &job, &rev)?,
        };
        let _kept = self.hold(tree, &pathspecs);
        if !pathspecs.is_empty() && Walk::new(self.store.clone(), tree, Box::new(select), None).count()? == 0 {
            let text = format!("commit {commit} has no file that the pathspecs select: nothing was pinned");
            return Err(Failure::new(FailureClass::NotFound, text)
                .hint("pathspecs are relative to the workspace's root, wherever this is called"));
        }
        let pins = self.store.pins()?;
        let same = |pin: &&Pin| pin.workspace == row.id && pin.commit.0 == commit && pin.pathspecs == pathspecs;
        if let Some(pin) = pins.iter().find(same) {
            return Ok((pin.clone(), true, requests));
        }
        let bytes = |pathspecs: &[String]| pathspecs.iter().map(|spec| spec.len() + 8).sum::<usize>();
        let taken: usize = pins.iter().map(|pin| bytes(&pin.pathspecs)).sum();
        if pins.len() >= PINS_MAX || taken + bytes(&pathspecs) > PATHSPEC_BYTES_MAX {
            let text = format!("there are {} pins already, and this one would be too much", pins.len());
            return Err(Failure::new(FailureClass::Refused, text)
                .hint("`larder pins` shows them, `larder unpin` takes some away; a pathspec can name a directory"));
        }
        let pin = Pin {
            id: self.store.next_pin_id()?,
            workspace: row.id,
            commit: ObjectIdText(commit),
            tree: ObjectIdText(tree),
            pathspecs,
            created: prepare::now(),
        };
        self.store.put_pin(&pin)?;
        tracing::info!(workspace = row.name, pin = pin.id, %commit, "pinned");
        Ok((pin, false, requests))
    }

    /// The commit that `rev` names and its tree, all trees brought in; and how many requests that took, about.
    fn bring_pinned(
        &self,
        live: &Live,
        repository: &Repository,
        record: &GenerationRecord,
        job: &prepare::Job,
        rev: &Rev,
    ) -> Result<(ObjectId, ObjectId, u64), Failure> {
        let open = || prepare::remote(self, job).open();
        let mut remote = Lazy::new(&open);
        let id = match rev {
            Rev::Here(id) => *id,
            Rev::Remote(rev) => {
                let meant = prepare::retried(self, live, || self.meant_remotely(live, repository, remote.get()?, rev));
                meant.map_err(|failure| unknown_word(rev, failure))?.commit
            }
        };
        let commit = bring_changed::commit(self, repository, record, id, &mut remote)
            .map_err(|failure| not_brought(&id, failure))?;
        Ok((commit.id, commit.tree, u64::from(remote.was_opened())))
    }

    /// Which of the words is a revision, and which are pathspecs.
    fn words(
        &self,
        live: &Live,
        repository: &Repository,
        record: &GenerationRecord,
        request: &PinRequest,
    ) -> Result<Meant, Failure> {
        let PinRequest { words, only_pathspecs, .. } = request;
        let Some((first, rest)) = words.split_first() else {
            return Ok(Meant { rev: None, pathspecs: only_pathspecs.clone() });
        };
        let here = || -> Result<Option<ObjectId>, Failure> {
            let Some(admin) = live.row().admin.filter(|_| may_be_rev(first)) else { return Ok(None) };
            let head = gitdir::read_head(&repository.gitdir, &admin)?;
            match gitdir::resolve_revision(&repository.gitdir, &admin, &head, first) {
                Err(GitdirError::Invalid { .. }) => Ok(None),
                meant => Ok(meant?.map(|meant| meant.commit)),
            }
        };
        if !only_pathspecs.is_empty() {
            if !rest.is_empty() {
                let text = format!("before `--` there is one revision at most, and {:?} follows it", rest[0]);
                return Err(Failure::new(FailureClass::Usage, text).hint("put the pathspecs after `--`"));
            }
            let rev = here()?.map_or_else(|| Rev::Remote(first.clone()), Rev::Here);
            return Ok(Meant { rev: Some(rev), pathspecs: only_pathspecs.clone() });
        }
        let is_path = has_path(&self.store, record.tree.0, first)?;
        let commit = here()?;
        if is_path && commit.is_some() {
            let text = format!("{first:?} is both a path and the name of a commit");
            return Err(Failure::new(FailureClass::Usage, text).hint(format!(
                "`larder pin {0} -- {first}` means the path, `larder pin {0} {first} -- .` the commit",
                request.target
            )));
        }
        let rev = match commit {
            Some(commit) => Some(Rev::Here(commit)),
            None if is_path || looks_like_pathspec(first) => None,
            None if asked_remotely(first) => Some(Rev::Remote(first.clone())),
            None => {
                let text = format!("{first:?} is neither a path that the workspace shows nor a commit that is known");
                return Err(Failure::new(FailureClass::NotFound, text)
                    .hint("a pathspec that is no path can be given after `--`"));
            }
        };
        let pathspecs = if rev.is_some() { rest } else { &words[..] };
        Ok(Meant { rev, pathspecs: pathspecs.to_vec() })
    }

    /// Fetches the attribute files of a pinned tree: files can't be converted without them, nor their sizes be told.
    async fn bring_attributes(self: &Arc<Self>, live: &Arc<Live>, pin: &Pin) -> Result<(), Failure> {
        let (daemon, live, root) = (Arc::clone(self), Arc::clone(live), pin.tree.0);
        blocking(move || {
            let blobs = daemon.attributes.of(&daemon, root)?;
            let missing = daemon.store.missing_blobs(&blobs)?;
            convert::bring(&daemon, &live.row(), &warm::prepared(&live)?.hydrator, &missing);
            match daemon.store.missing_blobs(&missing)?.first() {
                None => Ok(()),
                Some(id) => {
                    Err(RemoteError::new(FailureKind::Offline, format!("the attribute file {id} can't be had")).into())
                }
            }
        })
        .await
    }

    /// `larder unpin`: those that were taken away.
    pub(super) fn unpin(&self, request: &UnpinRequest) -> Result<Answer, Failure> {
        let pins = self.store.pins()?;
        let numbers: Vec<u64> = match request {
            UnpinRequest::Numbers(numbers) => {
                if let Some(number) = numbers.iter().find(|number| !pins.iter().any(|pin| pin.id == **number)) {
                    let text = format!("there is no pin {number}: nothing was unpinned");
                    return Err(Failure::new(FailureClass::NotFound, text).hint("`larder pins` shows all"));
                }
                numbers.clone()
            }
            UnpinRequest::AllOf(targets) => {
                let mut workspaces = Vec::new();
                for target in targets {
                    workspaces.push(self.known(target)?.id);
                }
                pins.iter().filter(|pin| workspaces.contains(&pin.workspace)).map(|pin| pin.id).collect()
            }
        };
        let gone = pin_rows(&self.store, pins.into_iter().filter(|pin| numbers.contains(&pin.id)))?;
        self.store.remove_pins(&numbers)?;
        Ok(Answer::Pins(gone))
    }
}

/// What `pins` select, and how much of it is here.
pub(super) fn pin_rows(store: &Store, pins: impl Iterator<Item = Pin>) -> Result<Vec<PinRow>, Failure> {
    let workspaces = store.workspaces()?;
    let mut rows = Vec::new();
    for pin in pins {
        let name = workspaces.iter().find(|row| row.id == pin.workspace).map(|row| row.name.clone());
        let mut row = PinRow {
            number: pin.id,
            workspace: name.unwrap_or_default(),
            commit: pin.commit.0.to_string(),
            created: rfc3339(pin.created),
            ..PinRow::default()
        };
        let select = Box::new(Pathspecs::parse(&pin.pathspecs)?);
        let walk = Walk::new(store.clone(), pin.tree.0, select, None);
        let absent = walk.blobs(|ids| -> Result<(), Failure> {
            row.objects += ids.len() as u64;
            for (raw, stored) in store.kept_sizes(ids)?.into_iter().flatten() {
                row.cached_objects += 1;
                row.raw_bytes += raw;
                row.stored_bytes += stored;
            }
            Ok(())
        })?;
        row.complete = absent == 0 && row.cached_objects == row.objects;
        row.pathspecs = pin.pathspecs;
        rows.push(row);
    }
    Ok(rows)
}

/// Whether a word can be a revision at all; what begins with a colon is a pathspec's magic.
fn may_be_rev(word: &str) -> bool {
    !word.is_empty() && word.len() <= REV_BYTES_MAX && !word.starts_with(':') && !word.contains(char::is_control)
}

/// Whether a remote can be asked for it: a ref's name or an object id.
fn asked_remotely(word: &str) -> bool {
    may_be_rev(word)
        && !word.starts_with('-')
        && !word.contains("..")
        && !word.ends_with('/')
        && !word.contains(|c: char| " ~^:?*[\\{}".contains(c))
}

/// Whether it can only be a pathspec: magic or wildcards.
fn looks_like_pathspec(word: &str) -> bool {
    word.starts_with(':') || word.contains(['*', '?', '[']) || word == "." || word.starts_with("./")
}

/// Whether the tree `root` has the path `word`.
fn has_path(store: &Store, root: ObjectId, word: &str) -> Result<bool, Failure> {
    let mut tree = Some(root);
    for name in word.trim_end_matches('/').split('/').filter(|name| !matches!(*name, "" | ".")) {
        let Some(listing) = tree.map(|tree| store.tree(&tree)).transpose()?.flatten() else { return Ok(false) };
        let Some(entry) = listing.find(name.as_bytes()) else { return Ok(false) };
        tree = (entry.kind == EntryKind::Directory).then_some(entry.id);
    }
    Ok(!word.trim_matches(['/', '.']).is_empty())
}

/// The failure to ask the remote about a word that nothing here is called by.
fn unknown_word(word: &str, mut failure: Failure) -> Failure {
    failure.message = match failure.class {
        FailureClass::NotFound => {
            format!("{word:?} is neither a path that the workspace shows nor a commit: {}", failure.message)
        }
        _ => format!(
            "{word:?} is no path and no commit known here, and the remote can't be asked about it: {}",
            failure.message
        ),
    };
    failure
}

fn not_brought(id: &ObjectId, mut failure: Failure) -> Failure {
    failure.message = format!("commit {id} can't be brought in, nothing was pinned: {}", failure.message);
    failure
}

/// What is said of a pin that could not be fetched whole.
fn incomplete(pin: &Pin, mut failure: Failure) -> Failure {
    failure.message = format!("pin {} stays, but is not complete: {}", pin.id, failure.message);
    failure.hint = Some("the same command goes on where it ended; `larder pins` shows what is here".to_owned());
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_by_their_letters_where_they_can_be() {
        for word in [":!x", ":(glob)**", "*.rs", "src/[ab]", ".", "./x"] {
            assert!(looks_like_pathspec(word), "{word}");
        }
        for word in ["main", "v1.0", "0123abcd", "feature/x"] {
            assert!(!looks_like_pathspec(word) && asked_remotely(word), "{word}");
        }
        for word in ["", "HEAD~1", "a..b", "-x", "src/", "a b"] {
            assert!(!asked_remotely(word), "{word}");
        }
        assert!(may_be_rev("HEAD~1") && !may_be_rev(":/message") && !may_be_rev("a\nb"));
    }
}
