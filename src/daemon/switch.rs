//! `larder switch`: another commit in a workspace without writing its files.
//!
//! Order, each step safe to be killed after: the index is locked; commit and
//! trees are brought in; what would happen is planned, and refused if it lost
//! anything; the new index is prepared; the intent is recorded in the
//! workspace's row; the working tree moves, which publishes the generation;
//! HEAD moves; the index takes its place; the intent is taken back.
//!
//! Invariant: the publication decides. A daemon that finds an intent finishes
//! the switch if its generation is published, and otherwise nothing happened.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gix::ObjectId;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::bring_changed::{self, Lazy};
use super::lifecycle::blocking;
use super::moving::Stamp;
use super::prepare::{self, Attempt, advance};
use super::protocol::{Answer, Failure, FailureClass, SwitchReport, SwitchRequest};
use super::workspace::Live;
use super::{Daemon, bring, server, worktree};
use crate::git::fetch_tips::TipsRequest;
use crate::git::gitdir::{self, Committer, GitdirError, Head, HeadMove, Meant, Objects, REMOTE};
use crate::git::index_file::{self, Difference, IndexEntry, OldIndex, PreparedIndex, StagedEntry, Stat, StatRequest};
use crate::git::remote::GitConnection;
use crate::hydrate::remote::FailureKind;
use crate::index::diff::{self, Leaf};
use crate::index::generation::Commit;
use crate::index::ino::Ino;
use crate::index::overlay::changes::Point;
use crate::index::overlay::reconcile::Planned;
use crate::index::switching::{self, Plan, Refused, Situation};
use crate::store::{
    Depth, EntryKind, Generation, GenerationRecord, ObjectIdText, Repository, Switching, Workspace, WorkspaceState,
};

/// Paths named in an error for people; the error document has all of them.
const PATHS_IN_MESSAGE: usize = 10;

/// What a switch works with.
struct Scene {
    repository: Repository,
    record: GenerationRecord,
    row: Workspace,
    admin: std::path::PathBuf,
    head: Head,
}

impl Daemon {
    /// `larder switch`.
    pub(super) async fn switch(
        self: &Arc<Self>,
        request: SwitchRequest,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let live = self.find(&request.target)?;
        let (daemon, switching) = (Arc::clone(self), Arc::clone(&live));
        let environment = request.environment.clone();
        let work = blocking(move || daemon.switch_to(&switching, &request));
        let report = server::with_progress(live.progress(), read, write, || {}, work).await?;
        // What was fetched is joined to the history that is here.
        self.start_history(&live, environment);
        Ok(Answer::Switched(report))
    }

    #[tracing::instrument(
        level = "error", name = "switching", skip_all,
        fields(workspace = live.row().name, generation = live.row().current.map(|now| now.0), to = request.rev)
    )]
    fn switch_to(&self, live: &Arc<Live>, request: &SwitchRequest) -> Result<SwitchReport, Failure> {
        let begun = Instant::now();
        let _turn = self.turn_to_move(live.row().id);
        self.finish_switch(live)?;
        self.follow_head_in_turn(live)?;
        let scene = self.scene(live)?;
        let prepared = PreparedIndex::take(&scene.admin)?;
        let job = prepare::Job { environment: request.environment.clone(), ..self.job_of(live)? };
        let open = || prepare::remote(self, &job).open();
        let mut remote = Lazy::new(&open);
        let meant = self.meant(live, &scene, &request.rev, &mut remote)?;
        if let Some(branch) = meant.branch.as_deref().and_then(|branch| branch.strip_prefix("refs/heads/"))
            && let Some(place) = gitdir::branch_in_use(&scene.repository.gitdir, branch, &scene.admin)?
        {
            let text = format!("{branch} is already checked out at {}", place.display());
            return Err(Failure::new(FailureClass::Refused, text)
                .hint(format!("switch to its commit: `larder switch {} {}`", scene.row.name, meant.commit)));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at: Stamp = (u32::try_from(now.as_secs()).unwrap_or(u32::MAX), now.subsec_nanos());
        let committer = Committer::find(&scene.repository.gitdir, &request.environment, utc_offset());
        let intent = intent(&scene, &meant, &committer, i64::from(at.0));
        if let Some(name) = &meant.tracks {
            let common = &scene.repository.gitdir;
            gitdir::create_tracking_branch(common, name, meant.commit, &committer, i64::from(at.0))?;
        }
        let mut report = SwitchReport {
            workspace: scene.row.name.clone(),
            previous_commit: scene.record.commit.0.to_string(),
            commit: meant.commit.to_string(),
            branch: meant.branch.as_deref().map(|name| name.trim_start_matches("refs/heads/").to_owned()),
            branch_created: meant.tracks.is_some(),
            ..SwitchReport::default()
        };
        if Some(meant.commit) == scene.head.commit {
            // Only the name changes: index and working tree stay as they are, as with `git switch`.
            drop(prepared);
            live.update(&self.store, |row| row.switching = Some(intent))?;
            self.finish_switch(live)?;
        } else {
            let (changed, kept) = self.move_all(live, &scene, &meant, &mut remote, prepared, intent, at)?;
            (report.paths_changed, report.paths_kept) = (changed, kept);
        }
        report.generation = live.row().current.map(|generation| generation.0).unwrap_or_default();
        report.seconds = begun.elapsed().as_secs_f64();
        tracing::info!(published = report.generation, named = meant.named, commit = report.commit, "switched");
        Ok(report)
    }

    /// Working tree, HEAD and index. Tells how many paths changed and how many were kept.
    #[expect(clippy::too_many_arguments, reason = "what was found out about the switch, each of it once")]
    fn move_all(
        &self,
        live: &Arc<Live>,
        scene: &Scene,
        meant: &Meant,
        remote: &mut Lazy<'_>,
        prepared: PreparedIndex,
        intent: Switching,
        at: Stamp,
    ) -> Result<(u64, u64), Failure> {
        let _trees_stay = self.collecting.read_recursive();
        let commit = bring_changed::commit(self, &scene.repository, &scene.record, meant.commit, remote)?;
        let old = OldIndex::read(&scene.admin, commit.id.kind())?;
        let unmerged = old.as_ref().map(OldIndex::unmerged).unwrap_or_default();
        if !unmerged.is_empty() {
            let failure = Failure::new(FailureClass::Refused, "the index has unresolved conflicts");
            return Err(failure.hint("resolve them first (`git status` shows them)").paths(unmerged.iter()));
        }
        let staged = self.staged(old.as_ref(), scene.record.tree.0)?;
        let changed = diff::leaves(&self.store, scene.record.tree.0, commit.tree)?;
        let (local, since) = self.locally_changed(live)?;
        let plan = {
            let staged: BTreeMap<_, _> = staged.iter().map(|(path, found)| (path.clone(), as_staged(found))).collect();
            switching::plan(&Situation { changed: &changed, staged: &staged, local: &local })
        };
        if !plan.refused.is_empty() {
            return Err(would_lose(&plan.refused, &meant.named));
        }
        let written = std::fs::metadata(scene.admin.join("index")).map_or(0, |index| index.mtime());
        let work = NewIndex { scene, commit: &commit, old: old.as_ref(), staged: &staged, plan: &plan, at, written };
        self.write_index(&work, &prepared)?;
        // From here on the intent decides what becomes of the prepared index.
        live.update(&self.store, |row| row.switching = Some(intent))?;
        prepared.keep();
        let moved = self.move_base(live, &commit, &plan.keep, Planned { since, changes: &changed }, at);
        self.finish_switch(live)?;
        moved?;
        Ok((changed.len() as u64, plan.keep.len() as u64))
    }

    /// Finishes what a recorded switch left to do, or takes it back if its generation was not published.
    pub(super) fn finish_switch(&self, live: &Live) -> Result<(), Failure> {
        let row = live.row();
        let (Some(switching), Some(admin)) = (&row.switching, &row.admin) else { return Ok(()) };
        let current = row.current.map(|current| self.store.generation(row.id, current)).transpose()?.flatten();
        if current.is_none_or(|current| current.commit != switching.commit) {
            PreparedIndex::discard(admin)?;
            return Ok(live.update(&self.store, |row| row.switching = None)?);
        }
        let repository = self.repository_of(live)?;
        let from = Head { branch: switching.from_branch.clone(), commit: switching.from_commit.map(|commit| commit.0) };
        let to = HeadMove {
            from: &from,
            branch: switching.branch.as_deref(),
            commit: switching.commit.0,
            named: &switching.named,
        };
        let (name, email, offset_seconds) = switching.committer.clone();
        let committer = Committer { name, email, offset_seconds };
        match gitdir::move_head(&repository.gitdir, admin, &to, &committer, switching.at) {
            // Somebody else's HEAD is followed like any other.
            Err(error @ GitdirError::Moved(_)) => tracing::warn!(workspace = row.name, "{error}"),
            moved => moved?,
        }
        PreparedIndex::publish(admin)?;
        Ok(live.update(&self.store, |row| {
            row.rev = Some(match &switching.branch {
                Some(branch) => branch.trim_start_matches("refs/heads/").to_owned(),
                None => switching.commit.0.to_string(),
            });
            row.reference.clone_from(&switching.branch);
            row.switching = None;
        })?)
    }

    /// What the switch starts from; refused in the middle of something.
    fn scene(&self, live: &Live) -> Result<Scene, Failure> {
        let row = live.row();
        let refused = |text: String| Failure::new(FailureClass::Refused, text);
        let not_ready = || refused(format!("{} is not ready", row.name)).hint("`larder status` tells why");
        if row.state != WorkspaceState::Ready {
            return Err(not_ready());
        }
        let admin = row.admin.clone().ok_or_else(not_ready)?;
        let current = row.current.ok_or_else(not_ready)?;
        let record = self.store.generation(row.id, current)?.ok_or_else(not_ready)?;
        let repository = self.repository_of(live)?;
        if let Some(operation) = gitdir::operation(&admin) {
            let name = operation.name();
            let end = if name == "bisect" { "`git bisect reset`" } else { "finish or abort it" };
            return Err(refused(format!("{} is in the middle of a {name}", row.name)).hint(format!("{end} first")));
        }
        let head = gitdir::read_head(&repository.gitdir, &admin)?;
        if head.commit != Some(record.commit.0) {
            let at = head.commit.map_or_else(|| "a branch without commits".to_owned(), |commit| commit.to_string());
            return Err(refused(format!("HEAD is at {at}, and the mount shows {}", record.commit.0))
                .hint("move HEAD back with `git reset --soft`, or use `git switch`"));
        }
        Ok(Scene { repository, record, row, admin, head })
    }

    /// What the user means; asked from the remote if the gitdir does not know.
    fn meant(&self, live: &Live, scene: &Scene, rev: &str, remote: &mut Lazy<'_>) -> Result<Meant, Failure> {
        let common = &scene.repository.gitdir;
        if let Some(meant) = gitdir::resolve_revision(common, &scene.admin, &scene.head, rev)? {
            return Ok(meant);
        }
        if rev == "-" || rev.contains("..") || rev.contains(|c: char| " ~^:?*[\\{}".contains(c)) {
            let text = format!("{rev:?} is nothing that this workspace's gitdir knows");
            return Err(Failure::new(FailureClass::NotFound, text).hint(
                "history that was not fetched is not there; a branch, a tag or a full id is asked from the remote",
            ));
        }
        advance(live, "asking the remote", 0, 0);
        prepare::retried(self, live, || self.meant_remotely(live, &scene.repository, remote.get()?, rev))
    }

    /// What `rev` means at the remote: the commit is fetched into the gitdir, and the ref noted as `git fetch` would.
    pub(super) fn meant_remotely(
        &self,
        live: &Live,
        repository: &Repository,
        connection: &mut GitConnection,
        rev: &str,
    ) -> Result<Meant, Attempt> {
        let common = &repository.gitdir;
        let resolved = connection.resolve(Some(rev))?;
        let named = rev.to_owned();
        let reference = resolved.reference.unwrap_or_default();
        if let Some(name) = reference.strip_prefix("refs/heads/") {
            self.fetch_commits(live, repository, vec![resolved.commit], connection)?;
            let set = gitdir::set_ref(common, &format!("refs/remotes/{REMOTE}/{name}"), resolved.commit)
                .and_then(|()| gitdir::follow_branch(common, name))
                .and_then(|()| gitdir::read_ref(common, &format!("refs/heads/{name}")));
            let local = set.map_err(Failure::from)?;
            let tracks = local.is_none().then(|| name.to_owned());
            let commit = local.unwrap_or(resolved.commit);
            return Ok(Meant { commit, branch: Some(format!("refs/heads/{name}")), tracks, named });
        }
        if reference.starts_with("refs/tags/") {
            let tags = connection.list_refs(&[&reference])?;
            let tag = tags.into_iter().find(|tag| tag.name == reference).map_or(resolved.commit, |tag| tag.id);
            self.fetch_commits(live, repository, vec![tag], connection)?;
            gitdir::set_ref(common, &reference, tag).map_err(Failure::from)?;
        } else {
            self.fetch_commits(live, repository, vec![resolved.commit], connection)?;
        }
        Ok(Meant { commit: resolved.commit, branch: None, tracks: None, named })
    }

    /// Fetches commits and tags into the gitdir; trees only from servers that can't leave them out.
    pub(super) fn fetch_commits(
        &self,
        live: &Live,
        repository: &Repository,
        wants: Vec<ObjectId>,
        connection: &mut GitConnection,
    ) -> Result<(), Attempt> {
        let shallow = gitdir::shallow(&repository.gitdir).map_err(Failure::from)?;
        let row = live.row();
        let depth = match row.depth {
            // What is older than the boundary stays away; once all history is here, there is no boundary.
            Depth::Commits(_) if !shallow.is_empty() => Some(row.depth),
            _ => None,
        };
        let current = row.current.map(|current| self.store.generation(row.id, current)).transpose();
        let current = current.map_err(Failure::from)?.flatten();
        let haves =
            if depth.is_none() { current.map(|record| record.commit.0).into_iter().collect() } else { Vec::new() };
        let pack_dir = repository.gitdir.join("objects/pack");
        let request = TipsRequest { wants: wants.clone(), haves, shallow: shallow.clone(), depth, pack_dir };
        let fetched = connection.fetch_tips(&request, &mut |progress| {
            advance(live, "fetching commits", progress.objects, progress.bytes);
        });
        let fetched = match fetched {
            Err(error) if error.kind == FailureKind::Unsupported => {
                for id in wants {
                    bring::fetched(self, live, repository, id, connection)?;
                }
                return Ok(());
            }
            fetched => fetched?,
        };
        let fresh: Vec<ObjectId> = fetched.shallow.iter().copied().filter(|id| !shallow.contains(id)).collect();
        gitdir::update_shallow(&repository.gitdir, &fetched.unshallow, &fresh).map_err(Failure::from)?;
        let objects = Objects::open(&repository.gitdir, connection.object_hash()).map_err(Failure::from)?;
        for id in wants {
            if !objects.contains(&id).map_err(Failure::from)? {
                let text = format!("the remote did not send {id}");
                return Err(Failure::new(FailureClass::NotFound, text).into());
            }
        }
        Ok(())
    }

    fn staged(&self, old: Option<&OldIndex>, root: ObjectId) -> Result<BTreeMap<Vec<u8>, Difference>, Failure> {
        let trees = worktree::trees(&self.store);
        match old {
            Some(old) => Ok(old.staged(root, &trees)?),
            None => Err(Failure::new(FailureClass::Refused, "the workspace has no index")
                .hint("`git reset` makes one that says what HEAD says")),
        }
    }

    /// Writes the index as it will be, with the stat data that will be seen.
    fn write_index(&self, work: &NewIndex<'_>, prepared: &PreparedIndex) -> Result<(), Failure> {
        let NewIndex { scene, commit, plan, at, .. } = work;
        let next = self.store.generations(scene.row.id)?.last().map_or(0, |last| last.generation.0) + 1;
        let record = GenerationRecord {
            generation: Generation(next),
            commit: ObjectIdText(commit.id),
            tree: ObjectIdText(commit.tree),
            commit_time: commit.time,
            ..scene.record.clone()
        };
        let mut staged = index_file::Staged {
            unknown: plan.keep.keys().cloned().collect(),
            assume_valid: work.old.map(OldIndex::assumed_valid).unwrap_or_default(),
            ..index_file::Staged::default()
        };
        for (path, leaf) in &plan.staged {
            let entry = work.staged.get(path).and_then(|found| found.index);
            let entry = entry.map(|entry| IndexEntry { stat: doubtful(entry.stat, work.written), ..entry });
            staged.entries.insert(path.clone(), leaf.map(|leaf| staged_entry(leaf, entry)));
        }
        let (cursor, inos) = (Cell::new(0), RefCell::default());
        let stat = |request: &StatRequest<'_>| Self::new_stat(work, &mut inos.borrow_mut(), &cursor, request);
        let file = prepared.file();
        let point = Point { sequence: 0, ..self.overlay_of(&scene.row)?.point() };
        worktree::with_spec(&self.store, &scene.repository, &scene.row, (&record, point), &stat, |spec| {
            index_file::write_to(file, spec, &staged)
        })?;
        // An entry as young as the index counts as maybe changed since: the index is younger.
        let younger = UNIX_EPOCH + Duration::from_secs(u64::from(at.0) + 1);
        let sealed = file.set_modified(younger).and_then(|()| file.sync_data());
        sealed.map_err(|error| Failure::new(FailureClass::Other, format!("index: {error}")))
    }

    fn new_stat(
        work: &NewIndex<'_>,
        directories: &mut Vec<Ino>,
        cursor: &Cell<usize>,
        request: &StatRequest<'_>,
    ) -> Stat {
        let ino = worktree::number(directories, request);
        let row = &work.scene.row;
        let with = |time: Stamp, size: u32| Stat {
            ctime: time,
            mtime: time,
            ino: worktree::low(ino.0),
            uid: row.uid,
            gid: row.gid,
            size,
            ..Stat::default()
        };
        if request.kind == EntryKind::Directory {
            return with(work.at, 0);
        }
        let mut at = cursor.get();
        let before = work.old.and_then(|old| old.next_at(&mut at, request.path));
        cursor.set(at);
        match before.filter(|before| (before.kind, before.id) == (request.kind, *request.id)) {
            Some(before) => doubtful(before.stat, work.written),
            // No size: whenever Git doubts such an entry, it looks at the file. A write within the second of the switch, which
            // left size and time as they are to the second, would go unseen otherwise: Git's own precaution (racy-git)
            // compares with the time of the index, which is younger.
            None => with(work.at, 0),
        }
    }
}

/// What the new index is made from.
struct NewIndex<'a> {
    scene: &'a Scene,
    commit: &'a Commit,
    old: Option<&'a OldIndex>,
    staged: &'a BTreeMap<Vec<u8>, Difference>,
    plan: &'a Plan,
    at: Stamp,
    /// When the old index was written, in seconds.
    written: i64,
}

/// The stat data of an entry in a younger index than the one of `written`, in seconds: an entry that Git did not believe
/// there loses its size, so that it is not believed now (racy-git, as Git does when it writes an index).
fn doubtful(stat: Stat, written: i64) -> Stat {
    if i64::from(stat.mtime.0) >= written { Stat { size: 0, ..stat } } else { stat }
}

fn as_staged(found: &Difference) -> switching::Staged {
    let head = found.tree.map(|(kind, id)| Leaf { kind, id });
    switching::Staged { head, index: found.index.map(|entry| Leaf { kind: entry.kind, id: entry.id }) }
}

/// An entry that stays staged keeps its stat data; one that was not, because only the trees differ, has none.
fn staged_entry(leaf: Leaf, entry: Option<IndexEntry>) -> StagedEntry {
    StagedEntry {
        kind: leaf.kind,
        id: leaf.id,
        stat: entry.map(|entry| entry.stat).unwrap_or_default(),
        intent_to_add: entry.is_some_and(|entry| entry.intent_to_add),
    }
}

fn intent(scene: &Scene, meant: &Meant, committer: &Committer, at: i64) -> Switching {
    Switching {
        commit: ObjectIdText(meant.commit),
        branch: meant.branch.clone(),
        named: meant.named.clone(),
        from_branch: scene.head.branch.clone(),
        from_commit: scene.head.commit.map(ObjectIdText),
        committer: (committer.name.clone(), committer.email.clone(), committer.offset_seconds),
        at,
    }
}

fn would_lose(refused: &Refused, to: &str) -> Failure {
    let lists = [
        ("local changes would be overwritten", &refused.overwritten),
        ("untracked files would be overwritten", &refused.untracked),
        ("untracked files would be removed", &refused.removed),
        ("directories would lose untracked files", &refused.directories),
    ];
    let reasons: Vec<String> = lists
        .iter()
        .filter(|(_, paths)| !paths.is_empty())
        .map(|(reason, paths)| {
            let shown: Vec<_> =
                paths.iter().take(PATHS_IN_MESSAGE).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            let more = paths.len().saturating_sub(PATHS_IN_MESSAGE);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{reason}: {}{more}", shown.join(", "))
        })
        .collect();
    Failure::new(FailureClass::Refused, format!("not switched to {to}: {}", reasons.join("; ")))
        .hint("commit, stash or move them first")
        .paths(refused.paths())
}

/// How far the local time is ahead of UTC, in seconds.
fn utc_offset() -> i32 {
    jiff::Zoned::now().offset().seconds()
}

/// Removes what a daemon that died left of a switch which changed nothing.
pub(super) fn clear_remains(admin: &Path) {
    if let Err(error) = PreparedIndex::discard(admin) {
        tracing::warn!("{error}");
    }
}
