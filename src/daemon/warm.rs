//! `larder warm`: fetching ahead for a client, or in the background.
//!
//! Invariant: a background warm has a row in the store from before it is
//! acknowledged until it is done, given up for good, or its workspace is
//! unmounted; so a daemon that was killed goes on with it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gix::ObjectId;
use parking_lot::Mutex;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::lifecycle::blocking;
use super::protocol::{Answer, Failure, FailureClass, Progress, Wait, WaitKind, WarmReport, WarmRequest};
use super::workspace::Live;
use super::{Daemon, bring, prepare, server};
use crate::git::pathspec::Pathspecs;
use crate::hydrate::cause::Process;
use crate::hydrate::walk::Select;
use crate::hydrate::{Cause, FailureKind, Owner, RemoteError, WarmPlan, WarmProgress};
use crate::store::{ObjectIdText, Operation, PendingWarm, Warmed, WarmedKey, WorkspaceId};
use crate::vfs::Shown;

/// Warms that run at once: each walks ahead by a window of a few megabytes. Further ones are refused.
const RUNNING_MAX: usize = 16;

/// Background warms written down at once.
const PENDING_MAX: usize = 256;

/// Pause before a background warm tries again; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// A network that is gone for hours is looked for this often.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Time between two reports of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// What is warmed, apart from who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) root: ObjectId,
    pub(super) pathspecs: Vec<String>,
    pub(super) max_blob_bytes: Option<u64>,
}

/// A warm under way.
pub(super) struct Running {
    workspace: WorkspaceId,
    label: String,
    since: Instant,
    pub(super) progress: Arc<WarmProgress>,
    pub(super) cancel: watch::Sender<bool>,
}

/// All warms of the daemon.
#[derive(Default)]
pub(super) struct Warms {
    // Guards the map alone.
    running: Mutex<HashMap<u64, Arc<Running>>>,
    count: AtomicU64,
}

/// A warm's place among those running; dropping it frees the place.
pub(super) struct Place<'a> {
    warms: &'a Warms,
    number: u64,
    pub(super) running: Arc<Running>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.warms.running.lock().remove(&self.number);
    }
}

impl Warms {
    pub(super) fn enter(&self, workspace: WorkspaceId, label: String) -> Result<Place<'_>, Failure> {
        let mut all = self.running.lock();
        if all.len() >= RUNNING_MAX {
            let text = format!("{RUNNING_MAX} warms are under way already");
            return Err(Failure::new(FailureClass::Refused, text).hint("`larder waits` shows them; try again later"));
        }
        let (cancel, progress) = (watch::channel(false).0, Arc::default());
        let running = Arc::new(Running { workspace, label, since: Instant::now(), progress, cancel });
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        all.insert(number, Arc::clone(&running));
        Ok(Place { warms: self, number, running })
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.running.lock().is_empty()
    }

    /// Ends the warms of `workspace`.
    fn cancel(&self, workspace: WorkspaceId) {
        for running in self.running.lock().values().filter(|running| running.workspace == workspace) {
            running.cancel.send_replace(true);
        }
    }

    /// Whose they are, what each is called, since when it runs and how far it is; the oldest first.
    pub(super) fn under_way(&self) -> Vec<(WorkspaceId, String, Duration, Progress)> {
        let all = self.running.lock();
        let mut told: Vec<_> = all
            .values()
            .map(|running| {
                (running.workspace, running.label.clone(), running.since.elapsed(), so_far(&running.progress))
            })
            .collect();
        told.sort_by_key(|(_, _, since, _)| std::cmp::Reverse(*since));
        told
    }

    fn waits(&self, live: &[Arc<Live>]) -> Vec<Wait> {
        let all = self.running.lock();
        let held = all.values().filter(|running| running.progress.held.load(Ordering::Relaxed));
        let name = |id: WorkspaceId| live.iter().map(|live| live.row()).find(|row| row.id == id).map(|row| row.name);
        held.map(|running| Wait {
            kind: WaitKind::Warm,
            workspace: name(running.workspace).unwrap_or_default(),
            oid: String::new(),
            path: running.label.clone(),
            waited_ms: u64::try_from(running.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            behind: "other batches: it waits for a place".into(),
            retries: 0,
        })
        .collect()
    }
}

impl Daemon {
    /// `larder warm`.
    pub(super) async fn warm(
        self: &Arc<Self>,
        request: WarmRequest,
        read: &mut BufReader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<Answer, Failure> {
        let begun = Instant::now();
        Pathspecs::parse(&request.pathspecs)?;
        let live = self.find(&request.target)?;
        let (told, progress) = watch::channel(Progress::default());
        let place = self.warms.enter(live.row().id, label(&live, &request.pathspecs))?;
        let cancel = place.running.cancel.clone();
        let work = async {
            let (root, requests) = self.root(&live, &request).await?;
            place.running.progress.requests.fetch_add(requests, Ordering::Relaxed);
            let subject = Subject { root, pathspecs: request.pathspecs.clone(), max_blob_bytes: request.limit };
            if request.background {
                return self.begin_background(&live, subject).await;
            }
            let report = self.run(&live, &subject, &place.running, |now| drop(told.send_replace(now))).await?;
            Ok(Answer::Warmed(WarmReport { seconds: begun.elapsed().as_secs_f64(), ..report }))
        };
        server::with_progress(progress, read, write, || _ = cancel.send_replace(true), work).await
    }

    /// The tree that a request is about, and how many requests to the remote that took.
    async fn root(self: &Arc<Self>, live: &Arc<Live>, request: &WarmRequest) -> Result<(ObjectId, u64), Failure> {
        let Some(rev) = request.rev.clone() else {
            return Ok((prepared(live)?.view.generation().tree.0, 0));
        };
        let (daemon, live) = (Arc::clone(self), Arc::clone(live));
        let job = prepare::Job { environment: request.environment.clone(), ..self.job_of(&live)? };
        blocking(move || {
            let _turn = daemon.turn(&job.url);
            let repository = prepare::repository(&daemon, &job.url, job.gitdir.as_deref())?;
            if let Ok(id) = ObjectId::from_hex(rev.as_bytes())
                && let Some(commit) = bring::known(&daemon, &live, &repository, id)?
            {
                return Ok((commit.tree, 0));
            }
            let (id, mut connection) = prepare::retried(&daemon, &live, || prepare::ask(&daemon, &job, &rev))?;
            if let Some(commit) = bring::known(&daemon, &live, &repository, id)? {
                return Ok((commit.tree, 0));
            }
            let commit = bring::fetched(&daemon, &live, &repository, id, &mut connection)?;
            Ok((commit.tree, 1))
        })
        .await
    }

    /// Warms `subject` to its end, until it is cancelled or fails. `tell` hears how far it is.
    #[tracing::instrument(
        level = "error", name = "warming", skip_all, fields(workspace = live.row().name, tree = %subject.root)
    )]
    pub(super) async fn run(
        self: &Arc<Self>,
        live: &Arc<Live>,
        subject: &Subject,
        running: &Running,
        tell: impl Fn(Progress),
    ) -> Result<WarmReport, Failure> {
        let key = subject.key();
        let store = self.store.clone();
        if let Some(done) = blocking(move || Ok(store.warmed(&key)?)).await? {
            return Ok(WarmReport {
                objects_wanted: done.selected,
                objects_already_cached: done.selected - done.left_out.min(done.selected),
                objects_left_out: done.left_out,
                ..WarmReport::default()
            });
        }
        let losses = self.store.losses();
        let shown = live.shown().ok_or_else(cancelled)?;
        let plan = subject.plan(running)?;
        let progress = &running.progress;
        let warming = shown.hydrator.warm(&plan, progress);
        let told = until_done(warming, || tell(so_far(progress)));
        let mut cancel = running.cancel.subscribe();
        let outcome = tokio::select! {
            outcome = told => outcome,
            _ = cancel.wait_for(|cancelled| *cancelled) => return Err(cancelled()),
        };
        let report = report(progress);
        outcome.map_err(|error| failure(&error, &report))?;
        // Others read the sizes of what is here now.
        shown.view.refresh();
        let done = Warmed { selected: report.objects_wanted, left_out: report.objects_left_out };
        let store = self.store.clone();
        blocking(move || Ok(store.note_warmed(&key, done, losses)?)).await?;
        tracing::info!(objects = report.objects_fetched, bytes = report.bytes_fetched, "warmed");
        Ok(report)
    }

    /// Brings what `pathspecs` select of the tree `root` into the cache, for somebody who is about to read all of it.
    /// `tell` hears how far it is; it ends when `cancel` becomes true.
    pub(super) async fn warm_for(
        self: &Arc<Self>,
        live: &Arc<Live>,
        root: ObjectId,
        pathspecs: &[String],
        mut cancel: watch::Receiver<bool>,
        tell: impl Fn(Progress),
    ) -> Result<WarmReport, Failure> {
        let place = self.warms.enter(live.row().id, label(live, pathspecs))?;
        let subject = Subject { root, pathspecs: pathspecs.to_vec(), max_blob_bytes: None };
        tokio::select! {
            outcome = self.run(live, &subject, &place.running, tell) => outcome,
            _ = cancel.wait_for(|cancelled| *cancelled) => Err(cancelled()),
        }
    }

    /// Writes down that `subject` is to be warmed, and begins.
    async fn begin_background(self: &Arc<Self>, live: &Arc<Live>, subject: Subject) -> Result<Answer, Failure> {
        let (store, workspace) = (self.store.clone(), live.row().id);
        let row = blocking(move || {
            let Subject { root, pathspecs, max_blob_bytes } = subject;
            let rows = store.warms()?;
            let same = |row: &&PendingWarm| {
                row.workspace == workspace
                    && (row.root.0, &row.pathspecs, row.max_blob_bytes) == (root, &pathspecs, max_blob_bytes)
            };
            if rows.iter().any(|row| same(&row)) {
                return Ok(None);
            }
            if rows.len() >= PENDING_MAX {
                let text = format!("{PENDING_MAX} background warms are pending already");
                return Err(Failure::new(FailureClass::Refused, text).hint("`larder waits` shows those under way"));
            }
            let row = PendingWarm {
                id: store.next_warm_id()?,
                workspace,
                root: ObjectIdText(root),
                pathspecs,
                max_blob_bytes,
            };
            store.put_warm(&row)?;
            Ok(Some(row))
        })
        .await?;
        if let Some(row) = row {
            self.continue_background(live, row);
        }
        Ok(Answer::Warmed(WarmReport { background: true, ..WarmReport::default() }))
    }

    /// Warms in the background all of what a workspace that was just mounted shows.
    pub(super) fn warm_all_in_background(self: &Arc<Self>, live: &Arc<Live>) {
        let Some(shown) = live.shown() else { return };
        let subject = Subject { root: shown.view.generation().tree.0, pathspecs: Vec::new(), max_blob_bytes: None };
        let (daemon, live) = (Arc::clone(self), Arc::clone(live));
        self.runtime.spawn(async move {
            if let Err(failure) = daemon.begin_background(&live, subject).await {
                tracing::error!(workspace = live.row().name, "warming: {failure}");
            }
        });
    }

    /// Goes on with the background warms of a workspace that is mounted again.
    pub(super) fn resume_warms(self: &Arc<Self>, live: &Arc<Live>) {
        let workspace = live.row().id;
        match self.store.warms() {
            Ok(rows) => {
                for row in rows.into_iter().filter(|row| row.workspace == workspace) {
                    self.continue_background(live, row);
                }
            }
            Err(error) => tracing::error!("background warms: {error}"),
        }
    }

    /// Forgets the background warms of workspaces that were unmounted while no daemon ran.
    pub(super) fn forget_stray_warms(&self) {
        let known: Vec<WorkspaceId> = self.all().iter().map(|live| live.row().id).collect();
        let forgotten = self.store.warms().and_then(|rows| {
            let ids: Vec<u64> = rows.iter().filter(|row| !known.contains(&row.workspace)).map(|row| row.id).collect();
            self.store.remove_warms(&ids)
        });
        if let Err(error) = forgotten {
            tracing::error!("background warms: {error}");
        }
    }

    /// Ends the warms of a workspace that is being unmounted; `forget` those that were to survive a restart too.
    pub(super) fn end_warms(&self, workspace: WorkspaceId, forget: bool) {
        self.warms.cancel(workspace);
        if !forget {
            return;
        }
        let ended = self.store.warms().and_then(|rows| {
            let ids: Vec<u64> = rows.iter().filter(|row| row.workspace == workspace).map(|row| row.id).collect();
            self.store.remove_warms(&ids)
        });
        if let Err(error) = ended {
            tracing::error!("background warms: {error}");
        }
    }

    /// Waiters that are warms waiting for a place.
    pub(super) fn warm_waits(&self, live: &[Arc<Live>]) -> Vec<Wait> {
        self.warms.waits(live)
    }

    /// Whether the background warm `id` is still to be done.
    async fn pending(&self, id: u64) -> Result<bool, Failure> {
        let store = self.store.clone();
        blocking(move || Ok(store.warms()?.iter().any(|row| row.id == id))).await
    }

    fn continue_background(self: &Arc<Self>, live: &Arc<Live>, row: PendingWarm) {
        let (daemon, live) = (Arc::clone(self), Arc::clone(live));
        self.runtime.spawn(async move {
            let PendingWarm { id, root, pathspecs, max_blob_bytes, .. } = row;
            let label = label(&live, &pathspecs);
            let subject = Subject { root: root.0, pathspecs, max_blob_bytes };
            let mut pause = FIRST_PAUSE;
            let outcome = loop {
                let Ok(place) = daemon.warms.enter(live.row().id, label.clone()) else {
                    tokio::time::sleep(FIRST_PAUSE).await;
                    // Whoever unmounts meanwhile takes the row away, and cancels nothing.
                    match daemon.pending(id).await {
                        Ok(true) => continue,
                        Ok(false) => return,
                        Err(failure) => break Err(failure),
                    }
                };
                let outcome = daemon.run(&live, &subject, &place.running, |_| {}).await;
                let mut cancel = place.running.cancel.subscribe();
                if *cancel.borrow() {
                    // Whoever cancelled decides about the row.
                    return;
                }
                match outcome {
                    Err(failure) if failure.class == FailureClass::Remote => {
                        tracing::info!("a background warm tries again in {pause:?}: {failure}");
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            _ = cancel.wait_for(|cancelled| *cancelled) => return,
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    outcome => break outcome,
                }
            };
            match &outcome {
                Ok(report) => tracing::info!(objects = report.objects_fetched, "background warm done: {label}"),
                Err(failure) => tracing::error!("background warm of {label} given up: {failure}"),
            }
            let forgotten = blocking(move || Ok(daemon.store.remove_warms(&[id])?)).await;
            if let Err(failure) = forgotten {
                tracing::error!("{failure}");
            }
        });
    }
}

impl Subject {
    /// Two subjects of one key are the same.
    fn key(&self) -> WarmedKey {
        let Self { root, pathspecs, max_blob_bytes } = self;
        let text = format!("{root} {max_blob_bytes:?} {pathspecs:?}");
        WarmedKey(blake3::hash(text.as_bytes()).into())
    }

    fn plan(&self, running: &Running) -> Result<WarmPlan, Failure> {
        let words = self.pathspecs.join(" ");
        let label = running.label.as_bytes();
        let cause = Arc::new(Cause {
            path_at: label.len().saturating_sub(words.len()),
            process: Process::own("larder warm"),
            ..Cause::new(Owner(running.workspace.0), label, Operation::Warm)
        });
        let specs = Pathspecs::parse(&self.pathspecs)?;
        let select = move || -> Box<dyn Select> { Box::new(specs.clone()) };
        Ok(WarmPlan { root: self.root, select: Arc::new(select), max_blob_bytes: self.max_blob_bytes, cause })
    }
}

/// What a workspace shows; refused before it is prepared.
pub(super) fn prepared(live: &Live) -> Result<Arc<Shown>, Failure> {
    live.shown().ok_or_else(|| {
        let text = format!("{} is not prepared yet", live.row().name);
        Failure::new(FailureClass::Refused, text).hint("`larder status` shows why; `larder prepare` tries again")
    })
}

/// What `larder waits` and the log call a warm.
pub(super) fn label(live: &Live, pathspecs: &[String]) -> String {
    let path = live.path();
    if pathspecs.is_empty() {
        path.display().to_string()
    } else {
        format!("{}: {}", path.display(), pathspecs.join(" "))
    }
}

/// Runs `work` and calls `tell` now and then until it is done.
async fn until_done<T>(work: impl Future<Output = T>, tell: impl Fn()) -> T {
    tokio::pin!(work);
    let mut tick = tokio::time::interval(PROGRESS_PERIOD);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = tick.tick() => tell(),
        }
    }
}

fn so_far(progress: &WarmProgress) -> Progress {
    let get = WarmProgress::get;
    let total = get(&progress.total);
    let here = get(&progress.selected).saturating_sub(get(&progress.coming));
    Progress {
        phase: "warming".into(),
        objects: if total > 0 { here.min(total) } else { get(&progress.fetched) },
        bytes: get(&progress.bytes),
        total_objects: (total > 0).then_some(total),
    }
}

fn report(progress: &WarmProgress) -> WarmReport {
    let get = WarmProgress::get;
    let (wanted, fetched, left_out) = (get(&progress.selected), get(&progress.fetched), get(&progress.left_out));
    WarmReport {
        objects_wanted: wanted,
        objects_fetched: fetched,
        objects_already_cached: wanted.saturating_sub(fetched + left_out),
        objects_left_out: left_out,
        bytes_fetched: get(&progress.bytes),
        requests: get(&progress.requests),
        seconds: 0.0,
        background: false,
    }
}

fn failure(error: &RemoteError, report: &WarmReport) -> Failure {
    let mut failure = Failure::from(error.clone());
    failure.message =
        format!("{}; {} objects were fetched and stay in the cache", failure.message, report.objects_fetched);
    if error.kind != FailureKind::Missing && failure.hint.is_none() {
        failure.hint = Some("run it again: it goes on where it ended".into());
    }
    failure
}

fn cancelled() -> Failure {
    Failure::new(FailureClass::Other, "the warm was cancelled; what was fetched stays in the cache")
}
