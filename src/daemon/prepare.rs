//! Preparing a workspace: from a URL and a revision to something to show.
//!
//! Steps, each safe to be killed after: resolve the revision; bring its commit
//! and trees in; publish the generation; write the worktree and its index.
//! Nothing is created before the remote answered for the revision, and nothing
//! is published before every tree is in the store.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gix::ObjectId;

use super::protocol::{Failure, FailureClass, Progress};
use super::workspace::Live;
use super::{Daemon, bring, convert, worktree};
use crate::git::door::link::DoorTarget;
use crate::git::gitdir::{self, BranchRecorded, GitdirSpec, HeadSpec};
use crate::git::remote::{ConnectOptions, GitConnection, GitRemote, Resolved};
use crate::git::url::RepoUrl;
use crate::hydrate::remote::Connection;
use crate::hydrate::{FailureKind, HydrateSettings, Hydrator, Owner, RemoteError};
use crate::index::generation;
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
    let key = url.key();
    let same = |repository: &&Repository| {
        let same_url = RepoUrl::parse(&repository.url).is_ok_and(|url| url.key() == key);
        same_url && gitdir.as_ref().map_or(!repository.external_gitdir, |gitdir| *gitdir == repository.gitdir)
    };
    if let Some(repository) = known.iter().find(same) {
        return Ok(repository.clone());
    }
    let id = daemon.store.next_repository_id()?;
    let own = || daemon.config.home.join("repositories").join(format!("{}.git", id.0));
    let external_gitdir = gitdir.is_some();
    let repository = Repository { id, url: url.display(), gitdir: gitdir.unwrap_or_else(own), external_gitdir };
    daemon.store.put_repository(&repository)?;
    Ok(repository)
}

/// Asks the remote for the workspace's revision. Creates nothing.
pub fn resolve(daemon: &Daemon, live: &Live, job: &Job) -> Result<Answered, Failure> {
    advance(live, "connecting", 0, 0);
    retried(daemon, live, || resolve_once(daemon, live, job))
}

/// What the workspace showed last, when the remote can't be reached and nothing else was asked for.
pub fn known_offline(daemon: &Daemon, live: &Live, failure: &Failure) -> Option<Shown> {
    let row = live.row();
    let unreachable = failure.class == FailureClass::Remote;
    let before = daemon.store.workspaces().ok()?.into_iter().find(|known| known.id == row.id)?;
    let same = row.require_commit.is_none() && before.rev == row.rev && before.current.is_some();
    if !unreachable || !same {
        return None;
    }
    let shown = reopen(daemon, live).ok()?;
    let notice = format!("mounted as it was last, because the remote can't be reached: {failure}");
    tracing::warn!(workspace = row.name, "{notice}");
    live.update(&daemon.store, |row| row.last_error = Some(notice)).ok()?;
    Some(shown)
}

/// Runs `attempt` again, with growing pauses, while it fails in a way that may pass.
pub fn retried<T>(daemon: &Daemon, live: &Live, mut attempt: impl FnMut() -> Result<T, Attempt>) -> Result<T, Failure> {
    let mut pause = FIRST_PAUSE;
    for _ in 0..daemon.config.settings.hydrate.retries {
        match attempt() {
            Err(Attempt::Remote(error)) if error.kind == FailureKind::Transient && !live.cancelled() => {
                tracing::info!("trying again: {error}");
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            outcome => return outcome.map_err(Failure::from),
        }
    }
    attempt().map_err(Failure::from)
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
}

fn resolve_once(daemon: &Daemon, live: &Live, job: &Job) -> Result<Answered, Attempt> {
    let row = live.row();
    let remote = remote(daemon, job);
    let mut connection = remote.open()?;
    let resolved = connection.resolve(row.rev.as_deref())?;
    if let Some(required) = row.require_commit
        && required.0 != resolved.commit
    {
        let rev = row.rev.as_deref().unwrap_or("the remote's HEAD");
        let text = format!("{rev} is {}, not the required {}: nothing was published", resolved.commit, required.0);
        return Err(Failure::new(FailureClass::Refused, text).into());
    }
    Ok(Answered { resolved, connection, remote })
}

fn options(daemon: &Daemon, environment: Vec<(String, String)>, gitdir: Option<PathBuf>) -> ConnectOptions {
    // Beside the store: large deltas may need more room than a small /tmp has.
    let scratch = Some(daemon.config.home.clone());
    ConnectOptions { timeout: daemon.config.settings.network.timeout, environment, gitdir, scratch }
}

/// Brings the commit in, publishes it and writes the worktree.
pub fn prepare(daemon: &Daemon, live: &Arc<Live>, job: &Job, answered: Answered) -> Result<Shown, Failure> {
    let Answered { resolved, mut connection, remote } = answered;
    let _trees_stay = daemon.collecting.read_recursive();
    let mut row = live.row();
    let repository = repository(daemon, &job.url, job.gitdir.as_deref())?;
    ensure_gitdir(&repository, &row, job, &resolved, &connection)?;
    ensure_door(daemon, &repository)?;
    let commit = bring::commit(daemon, live, &repository, resolved.commit, &mut connection)?;
    if commit.files > FILE_LIMIT {
        let text = format!("commit {} names {} files, more than {FILE_LIMIT}", commit.id, commit.files);
        return Err(Failure::new(FailureClass::Corrupt, text));
    }
    check_cancelled(live)?;
    advance(live, "writing the index", 0, 0);
    let before = row.current;
    row.repository = repository.id;
    row.reference.clone_from(&resolved.reference);
    let record = generation::publish(&daemon.store, &mut row, &commit, "mount", now())?;
    if before != Some(record.generation) {
        // Its HEAD would count as having the branch checked out.
        worktree::remove_entry(&repository, &row)?;
    }
    let head = record_head(&repository, &row, &resolved)?;
    worktree::write(daemon, &repository, &mut row, &record, &head)?;
    let hydrator = hydrator(daemon, &repository, remote, Some(connection));
    let converter = convert::converter(daemon, &repository, &row, &record, job.environment.clone(), &hydrator, true)?;
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
    let hydrator = hydrator(daemon, &repository, remote_of(daemon, &repository)?, None);
    let converter = convert::converter(daemon, &repository, &row, &record, Vec::new(), &hydrator, false)?;
    let shown = show(daemon, &row, record, hydrator, converter)?;
    row.state = WorkspaceState::Ready;
    live.replace(row);
    Ok(shown)
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
    if repository.external_gitdir || repository.gitdir.join("HEAD").exists() {
        return Ok(());
    }
    if let Some(parent) = repository.gitdir.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| Failure::new(FailureClass::Other, format!("{}: {error}", parent.display())))?;
    }
    let url = job.url.to_git();
    let spec = GitdirSpec {
        object_format: connection.object_hash(),
        url: url.as_bytes(),
        refspecs: gitdir::refspecs(row.depth != Depth::Full, branch_of(resolved)),
        partial: connection.abilities().filter,
        shallow: &[],
    };
    gitdir::create(&repository.gitdir, &spec).map_err(Failure::from)
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

/// A repository and the hydrator that serves it; one is made where no workspace needed it so far.
pub fn hydrator_of(daemon: &Daemon, id: RepositoryId) -> Result<(Repository, Hydrator), Failure> {
    let repository = repository_of(daemon, id)?;
    let hydrator = hydrator(daemon, &repository, remote_of(daemon, &repository)?, None);
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
fn ensure_door(daemon: &Daemon, repository: &Repository) -> Result<(), Failure> {
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
) -> Hydrator {
    let connection = connection.map(|connection| Box::new(connection) as Box<dyn Connection>);
    let mut hydrators = daemon.hydrators.lock();
    if let Some(hydrator) = hydrators.get(&repository.id) {
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
        retries: wanted.retries,
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
    hydrators.insert(repository.id, hydrator.clone());
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
