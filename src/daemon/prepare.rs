//! Preparing a workspace: from a URL and a revision to something to show.
//!
//! Steps, each safe to be killed after: resolve the revision; bring its commit
//! and trees in; publish the generation; write the worktree and its index.
//! Nothing is created before the remote answered for the revision, and nothing
//! is published before every tree is in the store. Where the remote is not
//! asked, or can't be, the revision is what it was when it was last fetched.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gix::ObjectId;

use super::protocol::{Failure, FailureClass, Progress};
use super::workspace::Live;
use super::{Daemon, HydratorKey, bring, convert, worktree};
use crate::git::door::link::DoorTarget;
use crate::git::gitdir::{self, BranchRecorded, GitdirSpec, HeadSpec};
use crate::git::remote::{ConnectOptions, GitConnection, GitRemote, Resolved};
use crate::git::url::RepoUrl;
use crate::hydrate::remote::Connection;
use crate::hydrate::{FailureKind, HydrateSettings, Hydrator, Owner, RemoteError};
use crate::index::generation::{self, Commit};
use crate::index::view::View;
use crate::store::{Depth, GenerationRecord, Repository, RepositoryId, Workspace, WorkspaceState};
use crate::vfs::Shown;
use crate::vfs::convert::Converter;

/// More files than any workspace has: a tree that claims more is a bomb, not a project.
const FILE_LIMIT: u64 = 20_000_000;

/// Pause before the second attempt; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer: somebody waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a preparation needs besides the workspace's row.
#[derive(Clone)]
pub struct Job {
    /// The remote, credentials included if the user gave any.
    pub url: RepoUrl,
    /// The client's environment, for credential helpers, ssh and proxies.
    pub environment: Vec<(String, String)>,
    /// A gitdir prepared elsewhere.
    pub gitdir: Option<PathBuf>,
    /// Everything is to be fetched in the background once it can be read.
    pub warm: bool,
    /// The remote is not to be asked.
    pub offline: bool,
}

/// What the notice of a workspace that was mounted without its remote begins with.
pub const CACHED_NOTICE: &str = "mounted as ";

/// Where what a workspace is to show comes from.
pub enum Source {
    /// It is what it was.
    Shown(Box<Shown>),
    /// The remote answered.
    Answered(Box<Answered>),
    /// What was fetched before; with the failure of the remote, where it was asked.
    Cached(Option<Failure>),
}

/// A revision the remote answered for, and the connection it answered on.
pub struct Answered {
    resolved: Resolved,
    connection: GitConnection,
    remote: GitRemote,
}

/// The repository of `url`: known, or new with a number of its own. A gitdir prepared elsewhere is one of its own.
pub fn repository(daemon: &Daemon, url: &RepoUrl, gitdir: Option<&Path>) -> Result<Repository, Failure> {
    let known = daemon.store.repositories()?;
    let gitdir = match gitdir {
        Some(path) => Some(gitdir::probe(path)?.common),
        None => None,
    };
    if let Some(repository) = known.iter().find(|repository| is_of(repository, url, gitdir.as_deref())) {
        return Ok(repository.clone());
    }
    let id = daemon.store.next_repository_id()?;
    let own = || daemon.config.home.join("repositories").join(format!("{}.git", id.0));
    let external_gitdir = gitdir.is_some();
    let repository = Repository { id, url: url.display(), gitdir: gitdir.unwrap_or_else(own), external_gitdir };
    daemon.store.put_repository(&repository)?;
    Ok(repository)
}

/// Whether a repository is what `url` names, with the common gitdir `gitdir` of somebody's or, without, one of Larder's.
pub fn is_of(repository: &Repository, url: &RepoUrl, gitdir: Option<&Path>) -> bool {
    let same_url = RepoUrl::parse(&repository.url).is_ok_and(|known| known.key() == url.key());
    same_url && gitdir.map_or(!repository.external_gitdir, |gitdir| gitdir == repository.gitdir)
}

/// Asks the remote for the workspace's revision, unless it is not to be asked. Creates nothing.
pub fn source(daemon: &Daemon, live: &Live, job: &Job) -> Result<Source, Failure> {
    if job.offline {
        return Ok(as_last(daemon, live, None).unwrap_or(Source::Cached(None)));
    }
    advance(live, "connecting", 0, 0);
    let attempt = match retrying(daemon, live, || resolve_once(daemon, live, job)) {
        Ok(answered) => return Ok(Source::Answered(Box::new(answered))),
        Err(attempt) => attempt,
    };
    let unreachable = matches!(
        &attempt,
        Attempt::Remote(error) if matches!(error.kind, FailureKind::Offline | FailureKind::Transient)
    );
    let failure = Failure::from(attempt);
    if failure.class == FailureClass::Remote
        && let Some(shown) = as_last(daemon, live, Some(&failure))
    {
        return Ok(shown);
    }
    if unreachable { Ok(Source::Cached(Some(failure))) } else { Err(failure) }
}

/// Makes what the workspace is to show of its source.
pub fn from(daemon: &Daemon, live: &Arc<Live>, job: &Job, source: Source) -> Result<Shown, Failure> {
    let shown = match source {
        Source::Shown(shown) => *shown,
        Source::Answered(answered) => prepare(daemon, live, job, *answered)?,
        Source::Cached(failure) => cached(daemon, live, job, failure)?,
    };
    let record = shown.view.generation();
    tracing::info!(generation = record.generation.0, commit = %record.commit.0, files = record.files, "prepared");
    Ok(shown)
}

/// What the workspace showed last, when nothing else was asked for.
fn as_last(daemon: &Daemon, live: &Live, failure: Option<&Failure>) -> Option<Source> {
    let row = live.row();
    let before = daemon.store.workspaces().ok()?.into_iter().find(|known| known.id == row.id)?;
    let same = row.require_commit.is_none() && before.rev == row.rev && before.current.is_some();
    if !same {
        return None;
    }
    let shown = reopen(daemon, live).ok()?;
    let notice =
        failure.map(|failure| format!("{CACHED_NOTICE}it was last, because the remote can't be reached: {failure}"));
    noticed(daemon, live, notice).ok()?;
    Some(Source::Shown(Box::new(shown)))
}

/// Notes in the row how the workspace came to be mounted.
fn noticed(daemon: &Daemon, live: &Live, notice: Option<String>) -> Result<(), Failure> {
    if let Some(notice) = &notice {
        tracing::warn!(workspace = live.row().name, "{notice}");
    }
    Ok(live.update(&daemon.store, |row| row.last_error = notice)?)
}

/// Runs `attempt` again, with growing pauses, while it fails in a way that may pass.
pub fn retried<T>(daemon: &Daemon, live: &Live, attempt: impl FnMut() -> Result<T, Attempt>) -> Result<T, Failure> {
    retrying(daemon, live, attempt).map_err(Failure::from)
}

fn retrying<T>(daemon: &Daemon, live: &Live, mut attempt: impl FnMut() -> Result<T, Attempt>) -> Result<T, Attempt> {
    let mut pause = FIRST_PAUSE;
    for _ in 0..daemon.config.settings.hydrate.retries {
        match attempt() {
            Err(Attempt::Remote(error)) if error.kind == FailureKind::Transient && !live.cancelled() => {
                tracing::info!("trying again: {error}");
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            outcome => return outcome,
        }
    }
    attempt()
}

/// Why one attempt failed.
pub enum Attempt {
    /// The remote: maybe worth another.
    Remote(RemoteError),
    /// Anything else.
    Other(Failure),
}

impl From<RemoteError> for Attempt {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<Attempt> for Failure {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Remote(error) => error.into(),
            Attempt::Other(failure) => failure,
        }
    }
}

/// Asks the remote what `rev` means there: the commit, and the connection it answered on.
pub fn ask(daemon: &Daemon, job: &Job, rev: &str) -> Result<(ObjectId, GitConnection), Attempt> {
    let mut connection = remote(daemon, job).open()?;
    let commit = connection.resolve(Some(rev))?.commit;
    Ok((commit, connection))
}

pub(super) fn remote(daemon: &Daemon, job: &Job) -> GitRemote {
    GitRemote::new(job.url.clone(), options(daemon, job.environment.clone(), job.gitdir.clone()))
        .kept_offline(job.offline)
}

fn resolve_once(daemon: &Daemon, live: &Live, job: &Job) -> Result<Answered, Attempt> {
    let row = live.row();
    let remote = remote(daemon, job);
    let mut connection = remote.open()?;
    let resolved = connection.resolve(row.rev.as_deref())?;
    check_required(&row, resolved.commit)?;
    Ok(Answered { resolved, connection, remote })
}

fn check_required(row: &Workspace, commit: ObjectId) -> Result<(), Failure> {
    match row.require_commit {
        Some(required) if required.0 != commit => {
            let rev = row.rev.as_deref().unwrap_or("the remote's HEAD");
            let text = format!("{rev} is {commit}, not the required {}: nothing was published", required.0);
            Err(Failure::new(FailureClass::Refused, text))
        }
        _ => Ok(()),
    }
}

fn options(daemon: &Daemon, environment: Vec<(String, String)>, gitdir: Option<PathBuf>) -> ConnectOptions {
    // Beside the store: large deltas may need more room than a small /tmp has.
    let scratch = Some(daemon.config.home.clone());
    ConnectOptions { timeout: daemon.config.settings.network.timeout, environment, gitdir, scratch }
}

/// Brings the commit in, publishes it and writes the worktree.
fn prepare(daemon: &Daemon, live: &Arc<Live>, job: &Job, answered: Answered) -> Result<Shown, Failure> {
    let Answered { resolved, mut connection, remote } = answered;
    let _trees_stay = daemon.collecting.read_recursive();
    let repository = repository(daemon, &job.url, job.gitdir.as_deref())?;
    ensure_gitdir(&repository, &live.row(), job, &resolved, &connection)?;
    ensure_door(daemon, &repository)?;
    let commit = bring::commit(daemon, live, &repository, resolved.commit, &mut connection)?;
    publish(daemon, live, job, &repository, &resolved, &commit, (remote, Some(connection)))
}

/// Publishes the revision as it was last fetched, and writes the worktree. Asks the remote for nothing.
fn cached(daemon: &Daemon, live: &Arc<Live>, job: &Job, unreachable: Option<Failure>) -> Result<Shown, Failure> {
    advance(live, "looking at what is here", 0, 0);
    let _trees_stay = daemon.collecting.read_recursive();
    let row = live.row();
    let repository = repository(daemon, &job.url, job.gitdir.as_deref())?;
    let missing = |what: &str| match &unreachable {
        None => Failure::new(FailureClass::Remote, format!("{what}, and the remote is not asked"))
            .hint("mount it without --offline where there is a network; `larder pin` keeps what is needed later"),
        Some(failure) => Failure { message: format!("{}; {what}", failure.message), ..failure.clone() },
    };
    if !repository.gitdir.join("HEAD").exists() {
        return Err(missing(&format!("nothing of {} was ever fetched", repository.url)));
    }
    let Some(known) = gitdir::last_known(&repository.gitdir, row.rev.as_deref())? else {
        return Err(missing(&match &row.rev {
            Some(rev) => format!("{rev:?} was never fetched from {}", repository.url),
            None => format!("the branch that HEAD of {} is on was never fetched", repository.url),
        }));
    };
    check_required(&row, known.commit)?;
    if known.commit.kind() != gitdir::probe(&repository.gitdir)?.object_format {
        return Err(missing(&format!("{} has ids of another length than {}", repository.url, known.commit)));
    }
    let commit = match bring::here(daemon, &repository, known.commit)? {
        bring::Here::Whole(commit) => commit,
        bring::Here::NoCommit => return Err(missing(&format!("commit {} was never fetched", known.commit))),
        bring::Here::TreesMissing(count) => {
            let text =
                format!("commit {} is not here whole: {count} or more of its directories are missing", known.commit);
            return Err(missing(&text));
        }
    };
    ensure_door(daemon, &repository)?;
    let resolved = Resolved { commit: known.commit, reference: known.reference, head: None };
    let shown = publish(daemon, live, job, &repository, &resolved, &commit, (remote(daemon, job), None))?;
    let notice = unreachable
        .map(|failure| format!("{CACHED_NOTICE}last fetched, because the remote can't be reached: {failure}"));
    noticed(daemon, live, notice)?;
    Ok(shown)
}

/// Publishes a commit all of whose trees are here, and writes the worktree.
fn publish(
    daemon: &Daemon,
    live: &Arc<Live>,
    job: &Job,
    repository: &Repository,
    resolved: &Resolved,
    commit: &Commit,
    (remote, connection): (GitRemote, Option<GitConnection>),
) -> Result<Shown, Failure> {
    let mut row = live.row();
    if commit.files > FILE_LIMIT {
        let text = format!("commit {} names {} files, more than {FILE_LIMIT}", commit.id, commit.files);
        return Err(Failure::new(FailureClass::Corrupt, text));
    }
    check_cancelled(live)?;
    advance(live, "writing the index", 0, 0);
    let before = row.current;
    row.repository = repository.id;
    row.reference.clone_from(&resolved.reference);
    let record = generation::publish(&daemon.store, &mut row, commit, "mount", now())?;
    if before != Some(record.generation) {
        // Its HEAD would count as having the branch checked out.
        worktree::remove_entry(repository, &row)?;
    }
    let head = record_head(repository, &row, resolved)?;
    worktree::write(daemon, repository, &mut row, &record, &head)?;
    keep_git_offline(&row);
    let answered = connection.is_some();
    let hydrator = hydrator(daemon, repository, remote, connection, row.offline);
    let fetch = answered.then_some(&hydrator);
    let converter = convert::converter(daemon, repository, &row, &record, job.environment.clone(), fetch)?;
    let shown = show(daemon, &row, record, hydrator, converter)?;
    live.replace(row);
    Ok(shown)
}

/// Shows what was published before, without the network.
pub fn reopen(daemon: &Daemon, live: &Live) -> Result<Shown, Failure> {
    let mut row = live.row();
    let missing = |row: &Workspace, what: &str| {
        Failure::new(FailureClass::Corrupt, format!("workspace {} has no {what}", row.name))
    };
    let repositories = daemon.store.repositories()?;
    let repository = repositories.into_iter().find(|repository| repository.id == row.repository);
    let repository = repository.ok_or_else(|| missing(&row, "repository"))?;
    let record = match row.current {
        Some(current) => daemon.store.generation(row.id, current)?,
        None => None,
    };
    let record = record.ok_or_else(|| missing(&row, "generation"))?;
    match worktree::find(&repository, &row)? {
        Some(admin) if admin.join("index").exists() => row.admin = Some(admin),
        _ => {
            let head = HeadSpec::Detached(record.commit.0);
            worktree::write(daemon, &repository, &mut row, &record, &head)?;
        }
    }
    if let Err(failure) = ensure_door(daemon, &repository) {
        // What is shown needs no door.
        tracing::warn!(workspace = row.name, "Git can't ask for objects: {failure}");
    }
    keep_git_offline(&row);
    let remote = remote_of(daemon, &repository)?.kept_offline(row.offline);
    let hydrator = hydrator(daemon, &repository, remote, None, row.offline);
    let converter = convert::converter(daemon, &repository, &row, &record, Vec::new(), None)?;
    let shown = show(daemon, &row, record, hydrator, converter)?;
    row.state = WorkspaceState::Ready;
    live.replace(row);
    Ok(shown)
}

/// Tells Git whether it may ask a remote by itself: what fails at the object door it would ask `origin` for.
fn keep_git_offline(row: &Workspace) {
    let Some(admin) = &row.admin else { return };
    if let Err(error) = gitdir::keep_offline(admin, row.offline) {
        tracing::warn!(workspace = row.name, "Git is not told to stay offline: {error}");
    }
}

pub(super) fn show(
    daemon: &Daemon,
    row: &Workspace,
    record: GenerationRecord,
    hydrator: Hydrator,
    converter: Option<Arc<Converter>>,
) -> Result<Shown, Failure> {
    let admin = row.admin.as_ref().ok_or_else(|| Failure::new(FailureClass::Other, "the worktree has no entry"))?;
    Ok(Shown {
        view: View::new(daemon.store.clone(), record),
        hydrator,
        gitfile: gitdir::gitfile(admin),
        overlay: daemon.overlay_of(row)?,
        prefetch: daemon.config.settings.hydrate.prefetch,
        learning: tokio::sync::watch::channel(false).0,
        owner: Owner(row.id.0),
        converter,
        root: row.path.clone(),
        workspace: row.name.as_str().into(),
    })
}

/// Makes the repository's own gitdir when it is not there yet.
fn ensure_gitdir(
    repository: &Repository,
    row: &Workspace,
    job: &Job,
    resolved: &Resolved,
    connection: &GitConnection,
) -> Result<(), Failure> {
    let url = job.url.to_git();
    let spec = GitdirSpec {
        object_format: connection.object_hash(),
        url: url.as_bytes(),
        refspecs: gitdir::refspecs(row.depth != Depth::Full, branch_of(resolved)),
        partial: connection.abilities().filter,
        shallow: &[],
    };
    create_gitdir(repository, &spec)
}

/// Makes the repository's own gitdir as `spec` says, when it is not there yet.
pub(super) fn create_gitdir(repository: &Repository, spec: &GitdirSpec<'_>) -> Result<(), Failure> {
    if repository.external_gitdir || repository.gitdir.join("HEAD").exists() {
        return Ok(());
    }
    if let Some(parent) = repository.gitdir.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| Failure::new(FailureClass::Other, format!("{}: {error}", parent.display())))?;
    }
    gitdir::create(&repository.gitdir, spec).map_err(Failure::from)
}

/// The branch that was asked for, or that the remote's HEAD is on.
fn branch_of(resolved: &Resolved) -> Option<&str> {
    resolved.reference.as_deref()?.strip_prefix("refs/heads/")
}

/// Records the remote's ref in the gitdir, and says what HEAD is to be.
fn record_head(repository: &Repository, row: &Workspace, resolved: &Resolved) -> Result<HeadSpec, Failure> {
    let common = &repository.gitdir;
    let detached = HeadSpec::Detached(resolved.commit);
    if repository.external_gitdir {
        // Its refs are its owner's.
        return Ok(branch_of(resolved)
            .map_or(detached, |name| HeadSpec::Branch { name: name.to_owned(), commit: resolved.commit }));
    }
    if let Some(name) = branch_of(resolved) {
        if let BranchRecorded::Kept(at) = gitdir::record_branch(common, name, resolved.commit)? {
            tracing::info!(branch = name, %at, "the local branch stays where the user has it");
        }
        if row.rev.is_none() {
            gitdir::set_remote_head(common, name)?;
        }
        return Ok(HeadSpec::Branch { name: name.to_owned(), commit: resolved.commit });
    }
    if let Some(tag) = resolved.reference.as_deref().filter(|name| name.starts_with("refs/tags/")) {
        gitdir::set_ref(common, tag, resolved.commit)?;
    }
    Ok(detached)
}

/// A repository and the hydrator that serves it, or its workspaces that are kept `offline`; one is made where no
/// workspace needed it so far.
pub fn hydrator_of(daemon: &Daemon, id: RepositoryId, offline: bool) -> Result<(Repository, Hydrator), Failure> {
    let repository = repository_of(daemon, id)?;
    let remote = remote_of(daemon, &repository)?.kept_offline(offline);
    let hydrator = hydrator(daemon, &repository, remote, None, offline);
    Ok((repository, hydrator))
}

/// The repository with the number `id`.
pub fn repository_of(daemon: &Daemon, id: RepositoryId) -> Result<Repository, Failure> {
    let known = daemon.store.repositories()?.into_iter().find(|repository| repository.id == id);
    known.ok_or_else(|| Failure::new(FailureClass::NotFound, format!("no repository has the number {}", id.0)))
}

/// The repository's remote, for who brings no credentials.
pub fn remote_of(daemon: &Daemon, repository: &Repository) -> Result<GitRemote, Failure> {
    remote_for(daemon, repository, Vec::new())
}

/// The repository's remote as the client with `environment` reaches it.
pub fn remote_for(
    daemon: &Daemon,
    repository: &Repository,
    environment: Vec<(String, String)>,
) -> Result<GitRemote, Failure> {
    let url = RepoUrl::parse(&repository.url)?;
    Ok(GitRemote::new(url, options(daemon, environment, Some(repository.gitdir.clone()))))
}

/// Brings the gitdir to the form in which Git asks Larder for objects; one prepared elsewhere stays as it is.
pub(super) fn ensure_door(daemon: &Daemon, repository: &Repository) -> Result<(), Failure> {
    if repository.external_gitdir {
        return Ok(());
    }
    let hash = gitdir::probe(&repository.gitdir)?.object_format;
    let target = DoorTarget { repository: repository.id, hash, socket: daemon.config.socket.clone() };
    Ok(gitdir::ensure_door(&repository.gitdir, &daemon.binary, &target)?)
}

fn hydrator(
    daemon: &Daemon,
    repository: &Repository,
    remote: GitRemote,
    connection: Option<GitConnection>,
    offline: bool,
) -> Hydrator {
    let key = HydratorKey { repository: repository.id, offline };
    let connection = connection.map(|connection| Box::new(connection) as Box<dyn Connection>);
    let mut hydrators = daemon.hydrators.lock();
    if let Some(hydrator) = hydrators.get(&key) {
        if let Some(connection) = connection {
            hydrator.donate(connection);
        }
        return hydrator.clone();
    }
    let settings = &daemon.config.settings;
    let wanted = &settings.hydrate;
    let bounds = HydrateSettings {
        connections: settings.network.connections,
        coalesce: wanted.coalesce,
        batch_objects: wanted.batch_objects,
        batch_bytes: wanted.batch_bytes,
        warm_objects: wanted.warm_objects,
        queue_objects: wanted.queue_objects,
        inflight_objects: wanted.inflight_objects,
        inflight_bytes: wanted.inflight_bytes,
        memory_bytes: wanted.memory_bytes,
        retries: u32::try_from(wanted.retries).unwrap_or(u32::MAX),
        timeout: settings.network.timeout,
        classes: Arc::clone(&daemon.classes),
    };
    let metrics = Arc::clone(&daemon.metrics);
    let hydrator = Hydrator::new(
        daemon.store.clone(),
        Arc::new(remote.with_objects(&repository.gitdir)),
        bounds,
        metrics,
        connection,
    );
    hydrators.insert(key, hydrator.clone());
    hydrator
}

/// Tells clients how far the preparation is.
pub fn advance(live: &Live, phase: &str, objects: u64, bytes: u64) {
    live.advance(Progress { phase: phase.to_owned(), objects, bytes, total_objects: None });
}

/// Fails when the client went away or the workspace is being unmounted.
pub fn check_cancelled(live: &Live) -> Result<(), Failure> {
    if live.cancelled() { Err(Failure::new(FailureClass::Other, "cancelled; nothing was published")) } else { Ok(()) }
}

pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}
