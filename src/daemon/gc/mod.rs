//! Garbage collection: who is asked what keeps objects, and how the plan is carried out.
//!
//! In reading order: [`roots`] gathers what keeps objects; `open_files` is one of those who know; `crate::index::gc` marks
//! and plans; here the plan is told or carried out; `leftovers` are files that nothing belongs to; [`quota`] makes room
//! while objects arrive.
//!
//! Invariants:
//!
//! * Rows of generations go before what only they reach, in a durable transaction: no row ever names a tree that is gone.
//! * Trees go only while no commit is being brought in (`Daemon::collecting`), and only if every tree below the roots is
//!   here: what is not certain stays.
//! * Whatever becomes a root while blobs are taken out ends that; it is planned anew.

mod leftovers;
mod open_files;
pub mod quota;
pub mod roots;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Daemon;
use super::protocol::{Answer, Failure, FailureClass, GcGeneration, GcReport, GcRequest, GcRow};
use crate::index::gc::{self, Marks, Plan, Rules, Why};
use crate::store::Swept;
use leftovers::Tidy;
use roots::{Gathered, Retention};

/// Rows of the plan in an answer, the largest: with their file names they fit a line of the protocol.
const ROWS_TOLD: usize = 1500;

/// How often a collection begins anew because the roots changed under it.
const ROUNDS: usize = 5;

/// Longest wait for commits that are being brought in, before trees are left for the next time.
const PATIENCE: Duration = Duration::from_secs(5);

const SECONDS_PER_HOUR: u64 = 3600;

/// Name of the note that tells of the last collection.
pub(super) const LAST: &str = "last_gc";

/// The last collection, as `larder status` tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastGc {
    /// When it ended, seconds since 1970 UTC.
    pub at: i64,
    /// What started it: `larder gc`, `housekeeping` or `quota`.
    pub started_by: String,
    /// Objects it took out.
    pub freed_objects: u64,
    /// Their stored bytes.
    pub freed_bytes: u64,
    /// Generations it dropped.
    pub generations_dropped: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
}

/// What a collection is to do.
struct Task {
    retention: Retention,
    rules: Rules,
    started_by: &'static str,
    tidy: Tidy,
    /// Time after which it ends, done or not.
    limit: Option<Duration>,
    /// Rest after each transaction, as a multiple of the time it took.
    rest: u32,
}

impl Daemon {
    /// `larder gc`.
    pub(super) fn gc(&self, request: &GcRequest) -> Result<Answer, Failure> {
        let begun = Instant::now();
        // Housekeeping ends soon; another `larder gc` may not.
        let _alone = self.collection.try_lock_for(HOUSEKEEPING_LIMIT + PATIENCE).ok_or_else(|| {
            Failure::new(FailureClass::Refused, "a collection is under way already").hint("try again when it is done")
        })?;
        let settings = &self.config.settings.generations;
        let retention = Retention { keep: request.generations.unwrap_or(settings.keep), max_age: settings.max_age };
        let hour = hour_now();
        let rules = Rules {
            unreached_before: None,
            named_before: request.max_age_seconds.map(|age| hour.saturating_sub(whole_hours(age))),
            most_bytes: request.max_size,
            spare_newest_bytes: 0,
        };
        let task = Task { retention, rules, started_by: "larder gc", tidy: Tidy::All, limit: None, rest: 0 };
        let before = self.store.stats()?;
        let mut report =
            GcReport { dry_run: request.dry_run, file_bytes_before: before.file_bytes, ..GcReport::default() };
        self.settle_all();
        if request.dry_run {
            self.tell_plan(&task, &mut report)?;
        } else {
            self.collect(&task, begun, &mut report)?;
            if request.compact {
                self.compact(&mut report)?;
            }
        }
        report.file_bytes_after = self.store.stats()?.file_bytes;
        report.seconds = begun.elapsed().as_secs_f64();
        Ok(Answer::Collected(Box::new(report)))
    }

    /// What was read a moment ago is in the store then, and counts as used.
    pub(super) fn settle_all(&self) {
        const LIMIT: Duration = Duration::from_millis(500);
        let hydrators: Vec<_> = self.hydrators.lock().values().cloned().collect();
        for hydrator in hydrators {
            hydrator.settle(LIMIT);
        }
    }

    /// Asks who keeps objects, and marks what they reach.
    fn marked(&self, task: &Task) -> Result<(Gathered, Marks), Failure> {
        let mut gathered = self.gather(&task.retention)?;
        let mut marks = gc::mark(&self.store, std::mem::take(&mut gathered.roots))?;
        marks.certain &= gathered.certain;
        Ok((gathered, marks))
    }

    fn tell_plan(&self, task: &Task, report: &mut GcReport) -> Result<(), Failure> {
        let (gathered, marks) = self.marked(task)?;
        let plan = Plan::new(&self.store, &marks, &task.rules, hour_now())?;
        report.trees = gc::unreached_trees(&self.store, &marks)?.len() as u64;
        report.freed_objects = plan.blobs.len() as u64 + report.trees;
        report.freed_bytes = plan.bytes;
        report.kept_objects = plan.kept_objects;
        report.kept_bytes = plan.kept_bytes;
        self.describe(&gathered, &plan, report)?;
        report.leftovers = self.tidy(Tidy::Tell, &mut report.notes);
        if plan.missing_bytes > 0 {
            report.notes.push(cannot_go(plan.missing_bytes));
        }
        if !marks.certain {
            report.notes.push(UNCERTAIN.to_owned());
        }
        Ok(())
    }

    fn describe(&self, gathered: &Gathered, plan: &Plan, report: &mut GcReport) -> Result<(), Failure> {
        report.generations = gathered
            .dropped
            .iter()
            .map(|dropped| GcGeneration {
                workspace: dropped.workspace.clone(),
                generation: dropped.record.generation.0,
                commit: dropped.record.commit.0.to_string(),
                why: dropped.why.clone(),
            })
            .collect();
        report.generations_dropped = gathered.dropped.len() as u64;
        let rows = gc::describe(&self.store, plan, &gathered.origins)?;
        let told = rows.len().min(ROWS_TOLD);
        report.rows_left_out = (rows.len() - told) as u64;
        report.rows = rows
            .into_iter()
            .take(told)
            .map(|row| GcRow {
                why: why(row.why).to_owned(),
                of: row.origin.and_then(|origin| gathered.origins.get(origin)).map(|origin| origin.label.clone()),
                directory: String::from_utf8_lossy(&row.directory).into_owned(),
                objects: row.objects,
                bytes: row.bytes,
                files: row.files.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
            })
            .collect();
        Ok(())
    }

    /// Carries a plan out, and tells what it was in `report`.
    #[tracing::instrument(level = "error", name = "collecting", skip_all, fields(started_by = task.started_by))]
    fn collect(&self, task: &Task, begun: Instant, report: &mut GcReport) -> Result<(), Failure> {
        let in_time = || task.limit.is_none_or(|limit| begun.elapsed() < limit);
        let mut described = false;
        let mut missing = 0;
        for round in 0.. {
            let version = self.store.roots_version();
            let (gathered, marks) = self.marked(task)?;
            let plan = Plan::new(&self.store, &marks, &task.rules, hour_now())?;
            if !described {
                self.describe(&gathered, &plan, report)?;
                described = true;
            }
            let mut dropped = 0;
            for (workspace, generations) in gathered.by_workspace() {
                dropped += self.store.remove_generations(workspace, &generations)?;
            }
            report.generations_dropped = report.generations_dropped.max(dropped);
            missing = plan.missing_bytes;
            let mut pace = Pace::new(task.rest);
            let swept = self.store.remove_blobs(plan.victims(), &mut || {
                pace.rest();
                in_time() && !self.stopping() && self.store.roots_version() == version
            })?;
            report.freed_objects += swept.objects;
            report.freed_bytes += swept.stored_bytes;
            if swept.complete || round + 1 >= ROUNDS || !in_time() || self.stopping() {
                if !swept.complete {
                    report.notes.push("not all of it was done; the next collection goes on".to_owned());
                }
                break;
            }
        }
        if missing > 0 {
            report.notes.push(cannot_go(missing));
        }
        let swept = self.collect_trees(task, report)?;
        report.freed_objects += swept.objects;
        report.trees = swept.objects;
        report.leftovers = self.tidy(task.tidy, &mut report.notes);
        self.store.flush()?;
        let stats = self.store.stats()?;
        report.kept_objects = stats.blobs;
        report.kept_bytes = stats.stored_bytes;
        let last = LastGc {
            at: super::prepare::now(),
            started_by: task.started_by.to_owned(),
            freed_objects: report.freed_objects,
            freed_bytes: report.freed_bytes,
            generations_dropped: report.generations_dropped,
            seconds: begun.elapsed().as_secs_f64(),
        };
        Ok(self.store.note(LAST, &last)?)
    }

    /// Takes trees out that no root reaches, and what is known of sizes nobody asks for.
    fn collect_trees(&self, task: &Task, report: &mut GcReport) -> Result<Swept, Failure> {
        let Some(_nobody) = self.collecting.try_write_for(PATIENCE) else {
            report.notes.push("trees stay for now: a commit is being brought in".to_owned());
            return Ok(Swept::default());
        };
        let (_, marks) = self.marked(task)?;
        if !marks.certain {
            report.notes.push(UNCERTAIN.to_owned());
            return Ok(Swept::default());
        }
        let mut pace = Pace::new(task.rest);
        let mut go_on = || {
            pace.rest();
            !self.stopping()
        };
        let trees = gc::unreached_trees(&self.store, &marks)?;
        let swept = self.store.remove_trees(&trees, &mut go_on)?;
        let here = self.store.unreached_blobs(|id| marks.reaches(id))?;
        self.store.forget_unnamed(|id| marks.reaches(id) || here.contains(id), &mut go_on)?;
        Ok(swept)
    }

    /// Gives freed space back to the file system. Whoever reads waits meanwhile.
    fn compact(&self, report: &mut GcReport) -> Result<(), Failure> {
        let begun = Instant::now();
        // Each pass frees what the one before could not move.
        for _ in 0..3 {
            let before = self.store.stats()?.file_bytes;
            if !self.store.compact()? || self.store.stats()?.file_bytes >= before {
                break;
            }
        }
        tracing::info!(seconds = begun.elapsed().as_secs_f64(), "store compacted");
        report.compacted = true;
        Ok(())
    }

    /// What the daemon does by itself when it has nothing else to do. Blocks.
    pub(super) fn collect_when_idle(&self) {
        let settings = &self.config.settings.gc;
        if settings.interval.is_zero() || !self.is_idle() {
            return;
        }
        let last = self.last_gc().map_or(0, |last| last.at);
        let due = last.saturating_add_unsigned(settings.interval.as_secs());
        if super::prepare::now() < due {
            return;
        }
        let Some(_alone) = self.collection.try_lock() else { return };
        let grace = hour_now().saturating_sub(whole_hours(settings.grace.as_secs()));
        let generations = &self.config.settings.generations;
        let task = Task {
            retention: Retention { keep: generations.keep, max_age: generations.max_age },
            rules: Rules { unreached_before: Some(grace), ..Rules::default() },
            started_by: "housekeeping",
            tidy: Tidy::Litter,
            limit: Some(HOUSEKEEPING_LIMIT),
            rest: HOUSEKEEPING_REST,
        };
        let mut report = GcReport::default();
        match self.collect(&task, Instant::now(), &mut report) {
            Ok(()) => tracing::info!(
                objects = report.freed_objects,
                bytes = report.freed_bytes,
                generations = report.generations_dropped,
                "housekeeping done"
            ),
            Err(failure) => {
                tracing::warn!("housekeeping: {failure}");
                // Not again at once.
                let tried =
                    LastGc { at: super::prepare::now(), started_by: "housekeeping".into(), ..LastGc::default() };
                let _ = self.store.note(LAST, &tried);
            }
        }
    }

    /// The last collection, if there was one.
    pub(super) fn last_gc(&self) -> Option<LastGc> {
        self.store.noted(LAST).ok().flatten()
    }

    /// Whether nothing is fetched or warmed.
    fn is_idle(&self) -> bool {
        let hydrators: Vec<_> = self.hydrators.lock().values().cloned().collect();
        hydrators.iter().all(|hydrator| hydrator.backlog() == (0, 0)) && self.warms.is_empty()
    }
}

/// Housekeeping ends after this long, done or not.
const HOUSEKEEPING_LIMIT: Duration = Duration::from_secs(20);

/// Housekeeping rests three times as long as it works.
const HOUSEKEEPING_REST: u32 = 3;

const UNCERTAIN: &str = "trees stay: some that a root reaches are not here, so nobody knows what they name";

fn cannot_go(bytes: u64) -> String {
    let bytes = crate::config::quantity::human_bytes(bytes);
    format!("{bytes} more would have to go for that size, but they are pinned or in use")
}

fn why(why: Why) -> &'static str {
    match why {
        Why::Unreached => "no generation, pin or local change names it",
        Why::Old => "not used for longer than the age asked for",
        Why::Room => "to make room: not used for longest, or large",
    }
}

/// Rests between transactions, so that others get their share.
struct Pace {
    rest: u32,
    last: Instant,
}

impl Pace {
    fn new(rest: u32) -> Self {
        Self { rest, last: Instant::now() }
    }

    fn rest(&mut self) {
        const LONGEST: Duration = Duration::from_millis(200);
        if self.rest > 0 {
            std::thread::sleep((self.last.elapsed() * self.rest).min(LONGEST));
        }
        self.last = Instant::now();
    }
}

fn hour_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / SECONDS_PER_HOUR).unwrap_or(u32::MAX)
}

/// Hours that are over after `seconds`: a use is known to the hour, so one of this very hour is none that is an hour old.
fn whole_hours(seconds: u64) -> u32 {
    u32::try_from(seconds.div_ceil(SECONDS_PER_HOUR)).unwrap_or(u32::MAX)
}
