//! Mounting, restoring and unmounting workspaces.
//!
//! Invariant: a row says `mounted` before the kernel is asked to mount and
//! until it was unmounted, so a daemon that died in between finds the
//! workspace again and mounts it anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::protocol::{Answer, Failure, FailureClass, MountRequest};
use super::workspace::Live;
use super::{Daemon, mounting, prepare, server, status, switch};
use crate::git::url::RepoUrl;
use crate::store::{ObjectIdText, Workspace, WorkspaceId, WorkspaceState};

/// Sizes asked for in one request.
const SIZE_QUERY_LIMIT: usize = 100_000;

/// Tells whether this call made the directory, so that a failed mount leaves none behind.
struct MountPoint {
    path: PathBuf,
    created: bool,
}

impl MountPoint {
    fn create(path: &Path) -> Result<Self, Failure> {
        let created = !path.exists();
        std::fs::create_dir_all(path).map_err(|error| {
            Failure::new(FailureClass::Refused, format!("{} can't be created: {error}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), created })
    }

    fn remove(&self) {
        if self.created {
            // Only ever empty: nothing was mounted. What is not is left alone.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

impl Daemon {
    /// `larder mount`.
    pub async fn mount(
        self: &Arc<Self>,
        mut request: MountRequest,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        request.path = mounting::canonical(&request.path);
        let url = RepoUrl::parse(&request.repository)?;
        let again = {
            let (daemon, request, url) = (Arc::clone(self), request.clone(), url.clone());
            blocking(move || daemon.mounted_again(&request, &url)).await?
        };
        if let Some(live) = again {
            return self.tell_mounted(live, request, read, write).await;
        }
        let live = {
            let (daemon, request, url) = (Arc::clone(self), request.clone(), url.clone());
            blocking(move || daemon.admit(&request, &url)).await?
        };
        live.mounted_with(request.environment.clone());
        let job = prepare::Job {
            url,
            environment: request.environment.clone(),
            gitdir: request.gitdir.clone(),
            warm: request.warm,
            offline: request.offline,
        };
        let outcome = if request.r#async {
            self.mount_async(&live, job).await
        } else {
            let work = self.mount_sync(&live, job);
            server::with_progress(live.progress(), read, write, || live.cancel(), work).await
        };
        if let Err(failure) = outcome {
            tracing::warn!(workspace = live.row().name, "not mounted: {failure}");
            self.forget(&live);
            return Err(failure);
        }
        self.told(live).await
    }

    /// The answer that describes `live`: counting what is cached reads every tree.
    pub(super) async fn told(self: &Arc<Self>, live: Arc<Live>) -> Result<Answer, Failure> {
        let daemon = Arc::clone(self);
        blocking(move || Ok(Answer::Workspaces(vec![daemon.status_of(&live)?]))).await
    }

    async fn mount_sync(self: &Arc<Self>, live: &Arc<Live>, job: prepare::Job) -> Result<(), Failure> {
        let (daemon, live) = (Arc::clone(self), Arc::clone(live));
        blocking(move || {
            let row = live.row();
            let _preparing = preparing(&row).entered();
            let _turn = daemon.turn(&job.url);
            let source = daemon.source(&live, &job)?;
            let point = MountPoint::create(&row.path)?;
            let prepared = prepare::from(&daemon, &live, &job, source).and_then(|shown| {
                live.open(shown);
                live.update(&daemon.store, |row| row.mounted = true)?;
                live.mount(&daemon.config.settings, daemon.runtime.clone())
            });
            if let Err(failure) = prepared {
                point.remove();
                return Err(failure);
            }
            daemon.after_mount(&live, job.warm);
            daemon.start_history(&live, job.environment);
            daemon.name_blobs(&live);
            Ok(())
        })
        .await
    }

    /// Where what a workspace is to show comes from.
    fn source(&self, live: &Live, job: &prepare::Job) -> Result<prepare::Source, Failure> {
        match self.kept(live)? {
            Some(shown) => Ok(prepare::Source::Shown(Box::new(shown))),
            None => prepare::source(self, live, job),
        }
    }

    async fn mount_async(self: &Arc<Self>, live: &Arc<Live>, job: prepare::Job) -> Result<(), Failure> {
        let (daemon, mounting) = (Arc::clone(self), Arc::clone(live));
        blocking(move || {
            let point = MountPoint::create(&mounting.path())?;
            let mounted = mounting
                .update(&daemon.store, |row| row.mounted = true)
                .map_err(Failure::from)
                .and_then(|()| mounting.mount(&daemon.config.settings, daemon.runtime.clone()));
            mounted.inspect_err(|_| point.remove())
        })
        .await?;
        self.prepare_in_background(live, job);
        Ok(())
    }

    fn prepare_in_background(self: &Arc<Self>, live: &Arc<Live>, job: prepare::Job) {
        let (daemon, live) = (Arc::clone(self), Arc::clone(live));
        self.runtime.spawn(async move {
            // The failure is in the row, the log and `status`.
            let _ = blocking(move || daemon.prepare_mounted(&live, &job)).await;
        });
    }

    /// Prepares a workspace that is mounted already, and opens its gate or shuts it.
    fn prepare_mounted(self: &Arc<Self>, live: &Arc<Live>, job: &prepare::Job) -> Result<(), Failure> {
        live.preparing();
        let _preparing = preparing(&live.row()).entered();
        let _turn = self.turn(&job.url);
        let outcome = self.source(live, job).and_then(|source| prepare::from(self, live, job, source));
        match outcome {
            Ok(shown) => {
                live.open(shown);
                self.after_mount(live, job.warm);
                self.start_history(live, job.environment.clone());
                self.name_blobs(live);
                Ok(())
            }
            Err(failure) => {
                if live.cancelled() {
                    return Err(failure);
                }
                tracing::error!("preparation failed: {failure}");
                let noted = live.update(&self.store, |row| {
                    row.state = WorkspaceState::Failed;
                    row.last_error = Some(failure.message.clone());
                });
                if let Err(error) = noted {
                    tracing::error!("{error}");
                }
                live.shut();
                Err(failure)
            }
        }
    }

    /// Learns the sizes of all files in the background, where the server answers for sizes alone:
    /// one request now instead of one a directory later. Fetches all of them when asked to.
    fn after_mount(self: &Arc<Self>, live: &Arc<Live>, warm: bool) {
        let Some(shown) = live.shown() else { return };
        self.watch_head(live);
        self.count_ahead(live);
        if warm {
            self.warm_all_in_background(live);
        }
        if shown.hydrator.offers_sizes() != Some(true) {
            return;
        }
        let store = self.store.clone();
        shown.learning.send_replace(true);
        self.runtime.spawn(async move {
            let tree = shown.view.generation().tree.0;
            let unknown =
                blocking(move || status::without_size(&store, tree).map_err(Failure::from)).await.unwrap_or_default();
            for some in unknown.chunks(SIZE_QUERY_LIMIT) {
                if let Err(error) = shown.hydrator.sizes(some.to_vec(), None).await {
                    tracing::info!("sizes are not known ahead: {error}");
                    break;
                }
            }
            shown.view.refresh();
            shown.learning.send_replace(false);
        });
    }

    /// `larder prepare`: tries again what failed.
    pub async fn prepare_again(
        self: &Arc<Self>,
        target: &str,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let live = self.find(target)?;
        match live.row().state {
            WorkspaceState::Ready => return self.told(live).await,
            WorkspaceState::Unmounted => {
                let text = format!("{target} is not mounted");
                return Err(Failure::new(FailureClass::Refused, text).hint("`larder mount` mounts it again"));
            }
            WorkspaceState::Failed | WorkspaceState::Preparing => {}
        }
        let job = self.job_of(&live)?;
        live.update(&self.store, |row| row.state = WorkspaceState::Preparing)?;
        let (daemon, preparing) = (Arc::clone(self), Arc::clone(&live));
        let work = blocking(move || daemon.prepare_mounted(&preparing, &job));
        server::with_progress(live.progress(), read, write, || {}, work).await?;
        self.told(live).await
    }

    /// `larder unmount`.
    pub fn unmount(self: &Arc<Self>, target: &str, force: bool, purge: bool) -> Result<Answer, Failure> {
        let live = match self.find(target) {
            Ok(live) => live,
            Err(failure) if purge => return self.purge_unmounted(target, force, failure),
            Err(failure) => return Err(failure),
        };
        if purge && !force {
            if live.shown().is_some() {
                self.settle(&live)?;
            }
            self.check_disposable(&live.row())?;
        }
        live.cancel();
        self.take_down(&live, force)?;
        self.unwatch_head(live.row().id);
        self.end_warms(live.row().id, true);
        if let Some(shown) = live.shown() {
            shown.hydrator.forget(shown.owner);
        }
        if live.shown().is_none() {
            // Who still waits for the preparation hears that it will not come.
            live.shut();
        }
        let row = live.row();
        live.update(&self.store, |row| {
            row.mounted = false;
            row.state = WorkspaceState::Unmounted;
        })?;
        if !purge
            && live.shown().is_some()
            && let Err(failure) = self.settle(&live)
        {
            // Whoever looks at it at rest sees changes that Git would not find.
            tracing::warn!(workspace = row.name, "local changes are not compared with the base: {failure}");
        }
        self.workspaces.lock().remove(&row.id);
        self.close_overlay(row.id);
        if purge {
            self.purge(&row)?;
        }
        self.drop_idle_hydrator(row.repository);
        Ok(Answer::Ok)
    }

    pub(super) fn take_down(&self, live: &Live, detach: bool) -> Result<(), Failure> {
        if let Some(mounted) = live.unmount(detach)? {
            // The kernel may let go a moment later; dropping a session before
            // that would unmount whatever is on its path then.
            self.detached.lock().push(mounted);
        }
        Ok(())
    }

    /// Takes every mount down at the end; they are mounted again at the next start.
    pub(super) fn unmount_all(&self) {
        self.end_history(None);
        for live in self.all() {
            live.cancel();
            self.unwatch_head(live.row().id);
            self.end_warms(live.row().id, false);
            if self.take_down(&live, false).is_err()
                && let Err(failure) = self.take_down(&live, true)
            {
                tracing::warn!("{failure}");
            }
            if let Some(converter) = live.shown().and_then(|shown| shown.converter.clone()) {
                converter.close();
            }
        }
        for live in self.all() {
            self.close_overlay(live.row().id);
        }
        if let Err(error) = self.store.flush() {
            tracing::error!("flush: {error}");
        }
        // Sessions still in use end with the process; dropping them would unmount by path.
        std::mem::forget(std::mem::take(&mut *self.detached.lock()));
    }

    /// Mounts again what was mounted when the last daemon ended, however it ended.
    pub(super) async fn restore(self: Arc<Self>) {
        let daemon = Arc::clone(&self);
        let restored = blocking(move || {
            let rows = daemon.store.workspaces()?;
            for row in rows.into_iter().filter(|row| row.mounted) {
                let name = row.name.clone();
                if let Err(failure) = daemon.restore_one(&row) {
                    tracing::error!(workspace = name, "not mounted again: {failure}");
                }
            }
            daemon.forget_stray_warms();
            Ok(())
        })
        .await;
        if let Err(failure) = restored {
            tracing::error!("{failure}");
        }
    }

    /// Mounts again what was mounted before.
    pub(super) fn restore_one(self: &Arc<Self>, row: &Workspace) -> Result<(), Failure> {
        mounting::clear_stale(&row.path)?;
        MountPoint::create(&row.path)?;
        let live =
            Live::new(row.clone(), true, self.store.clone(), Arc::clone(&self.metrics), self.config.home.clone());
        match row.state {
            WorkspaceState::Ready | WorkspaceState::Unmounted => {
                self.finish_switch(&live)?;
                if let Some(admin) = &row.admin {
                    switch::clear_remains(admin);
                }
                let shown = prepare::reopen(self, &live)?;
                live.open(shown);
            }
            WorkspaceState::Failed => live.shut(),
            WorkspaceState::Preparing => {}
        }
        live.mount(&self.config.settings, self.runtime.clone())?;
        self.workspaces.lock().insert(row.id, Arc::clone(&live));
        if live.shown().is_some() {
            self.watch_head(&live);
        }
        self.resume_warms(&live);
        self.start_history(&live, Vec::new());
        self.count_ahead(&live);
        self.name_blobs(&live);
        tracing::info!(workspace = row.name, path = %row.path.display(), "mounted again");
        if row.state == WorkspaceState::Preparing {
            let job = self.job_of(&live)?;
            self.prepare_in_background(&live, job);
        }
        Ok(())
    }

    /// Checks a mount request and reserves its name and path.
    fn admit(&self, request: &MountRequest, url: &RepoUrl) -> Result<Arc<Live>, Failure> {
        let all = self.all();
        let paths: Vec<PathBuf> = all.iter().map(|live| live.path()).collect();
        mounting::check(&request.path, &self.config.home, &paths)?;
        let _repositories_stay = self.admission.read();
        let rows = self.store.workspaces()?;
        let repository = prepare::repository(self, url, request.gitdir.as_deref())?;
        if request.history {
            self.want_history(&repository)?;
        }
        let require_commit = match &request.require_commit {
            Some(text) => Some(ObjectIdText(gix::ObjectId::from_hex(text.as_bytes()).map_err(|_| {
                Failure::new(FailureClass::Usage, format!("--require-commit {text}: not a full object id"))
            })?)),
            None => None,
        };
        let again = rows.iter().find(|row| {
            row.path == request.path
                && row.repository == repository.id
                && request.name.as_ref().is_none_or(|name| *name == row.name)
        });
        let name = match (&request.name, again) {
            (_, Some(row)) => row.name.clone(),
            (Some(name), None) => free_name(name, &rows, true)?,
            (None, None) => free_name(&mounting::name_for(&request.path), &rows, false)?,
        };
        let row = Workspace {
            id: match again {
                Some(row) => row.id,
                None => self.store.next_workspace_id()?,
            },
            name,
            path: request.path.clone(),
            repository: repository.id,
            rev: request.rev.clone(),
            reference: again.and_then(|row| row.reference.clone()),
            require_commit,
            depth: request.depth,
            state: WorkspaceState::Preparing,
            current: again.and_then(|row| row.current),
            last_error: None,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            allow_full: request.allow_full,
            admin: again.and_then(|row| row.admin.clone()),
            mounted: false,
            read_only: request.read_only,
            base_time: again.and_then(|row| row.base_time),
            switching: None,
            refresh_seconds: request.refresh_seconds,
            offline: request.offline,
        };
        let live =
            Live::new(row, again.is_some(), self.store.clone(), Arc::clone(&self.metrics), self.config.home.clone());
        let mut workspaces = self.workspaces.lock();
        // Somebody may have been admitted meanwhile.
        let paths: Vec<PathBuf> = workspaces.values().map(|other| other.path()).collect();
        mounting::check(&request.path, &self.config.home, &paths)?;
        workspaces.insert(live.row().id, Arc::clone(&live));
        Ok(live)
    }

    /// Undoes an admission whose mount failed. What was known of the workspace before stays known.
    fn forget(&self, live: &Live) {
        let row = live.row();
        let _ = self.take_down(live, true);
        self.workspaces.lock().remove(&row.id);
        let undone = if live.was_known() {
            live.update(&self.store, |row| {
                row.mounted = false;
                row.state = WorkspaceState::Unmounted;
            })
            .map_err(Failure::from)
        } else {
            self.purge(&row)
        };
        if let Err(error) = undone {
            tracing::error!("{error}");
        }
        self.drop_idle_hydrator(row.repository);
    }

    /// Notes a mount that somebody else took down.
    pub(super) fn note_unmounted(&self, live: &Arc<Live>) {
        let row = live.row();
        if !row.mounted || !live.was_taken_down() {
            return;
        }
        tracing::info!(workspace = row.name, "unmounted from outside");
        let noted = live.update(&self.store, |row| {
            row.mounted = false;
            row.state = WorkspaceState::Unmounted;
        });
        if let Err(error) = noted {
            tracing::error!("{error}");
        }
        self.workspaces.lock().remove(&row.id);
        self.unwatch_head(row.id);
        self.end_warms(row.id, true);
        self.drop_idle_hydrator(row.repository);
    }

    /// The workspace that `target` names: a workspace's name, its path, or a path inside it.
    pub(super) fn find(&self, target: &str) -> Result<Arc<Live>, Failure> {
        let all = self.all();
        if let Some(live) = all.iter().find(|live| live.row().name == target) {
            return Ok(Arc::clone(live));
        }
        let path = mounting::canonical(Path::new(target));
        all.iter().find(|live| path.starts_with(live.path())).cloned().ok_or_else(|| {
            Failure::new(FailureClass::NotFound, format!("no mounted workspace is called, or contains, {target}"))
                .hint("`larder list` shows all workspaces")
        })
    }

    /// Waits for the turn to prepare `url`: its repository is prepared by one at a time.
    pub(super) fn turn(&self, url: &RepoUrl) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(self.preparing.lock().entry(url.key()).or_default());
        lock.blocking_lock_owned()
    }

    pub(super) fn job_of(&self, live: &Live) -> Result<prepare::Job, Failure> {
        let row = live.row();
        let repository = self.repository_of(live)?;
        Ok(prepare::Job {
            url: RepoUrl::parse(&repository.url)?,
            environment: Vec::new(),
            gitdir: repository.external_gitdir.then_some(repository.gitdir),
            warm: false,
            offline: row.offline,
        })
    }

    /// Lets go of what serves a repository of which nothing is mounted.
    pub(super) fn drop_idle_hydrator(&self, repository: crate::store::RepositoryId) {
        let used: Vec<bool> = self
            .all()
            .iter()
            .map(|live| live.row())
            .filter(|row| row.repository == repository)
            .map(|row| row.offline)
            .collect();
        self.hydrators.lock().retain(|key, _| key.repository != repository || used.contains(&key.offline));
        if !used.contains(&false) {
            self.end_history(Some(repository));
        }
    }
}

/// What belongs to preparing a workspace, in the log. As all such spans it is there whatever the level of the log is.
fn preparing(row: &Workspace) -> tracing::Span {
    tracing::error_span!("preparing", workspace = row.name, rev = row.rev)
}

/// Runs blocking work on a thread where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .unwrap_or_else(|error| Err(Failure::new(FailureClass::Other, format!("the daemon failed: {error}"))))
}

fn free_name(name: &str, rows: &[Workspace], exact: bool) -> Result<String, Failure> {
    let taken = |name: &str| rows.iter().find(|row| row.name == name);
    match taken(name) {
        None => Ok(name.to_owned()),
        Some(row) if exact => {
            let text = format!("a workspace called {name} exists already, at {}", row.path.display());
            Err(Failure::new(FailureClass::Refused, text)
                .hint(format!("choose another --name, or `larder unmount --purge {name}`")))
        }
        Some(_) => (2..10_000)
            .map(|number| format!("{name}-{number}"))
            .find(|name| taken(name).is_none())
            .ok_or_else(|| Failure::new(FailureClass::Refused, format!("no free name like {name}"))),
    }
}

/// Where a workspace's number comes from in a hook's request.
impl Daemon {
    /// The live workspace with number `id`.
    pub(super) fn by_id(&self, id: u64) -> Option<Arc<Live>> {
        self.workspaces.lock().get(&WorkspaceId(id)).cloned()
    }
}
