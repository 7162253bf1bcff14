//! Asks for what is in a report.

use super::tables::ROWS;
use super::tree::Tree;
use crate::cli::facts::{Desk, mixed_up};
use crate::cli::progress::Display;
use crate::daemon::facts::area::{AreaHead, AreaReport, AreaRequest, ROWS_MAX};
use crate::daemon::facts::du::{By, DuReport, DuRequest};
use crate::daemon::facts::why::{WhyReport, WhyRequest};
use crate::daemon::facts::{Finding, PathText, Question};
use crate::daemon::protocol::{Failure, FailureClass, Progress};

/// Files in a report at most; a hostile tree names more than any machine can count.
const FILES_MAX: u64 = 4_000_000;
/// Pages asked for at most: a hostile tree has no files in its directories.
const PAGES_MAX: usize = 20_000;
/// Times a listing is begun anew because the workspace moved to another commit meanwhile.
const ATTEMPTS: usize = 3;
/// Fetches in the lists of the biggest and the slowest.
const RANKED: usize = 20;
/// Directories of fetches are told to this depth.
const DEPTH: usize = 3;

/// What is in a report.
pub(super) struct Gathered {
    pub head: AreaHead,
    pub generation: u64,
    pub tree: Tree,
    /// Whether there are more files than are in it.
    pub beyond: bool,
    pub passed_by: u64,
    pub why: WhyReport,
    /// The cache by repository.
    pub repositories: DuReport,
    /// The cache by last use.
    pub ages: DuReport,
    /// When it was made, RFC 3339.
    pub made: String,
}

/// Gathers it. `made`: the time now.
pub(super) fn gather(desk: &Desk, target: &str, made: &str, progress: &Display) -> Result<Gathered, Failure> {
    for _ in 0..ATTEMPTS {
        let Some(mut found) = files(desk, target, progress)? else { continue };
        made.clone_into(&mut found.made);
        say(progress, "looking through the fetches", found.tree.files, None);
        found.why = why(desk, &found.head.workspace)?;
        say(progress, "looking through the cache", found.tree.files, None);
        found.repositories = du(desk, By::Repository)?;
        found.ages = du(desk, By::Age)?;
        return Ok(found);
    }
    let text = format!("cannot list the files of {target:?}: the workspace moves to other commits meanwhile");
    Err(Failure::new(FailureClass::Refused, text).hint("try again once it rests"))
}

/// All files; `None`: they are not of one commit.
fn files(desk: &Desk, target: &str, progress: &Display) -> Result<Option<Gathered>, Failure> {
    let first = desk.ask_about(target, |meaning| area(meaning, None))?;
    let mut report = area_of(first)?;
    let Some(head) = report.head.take() else { return Err(mixed_up()) };
    let mut found = Gathered {
        generation: report.generation,
        head,
        tree: Tree::new(),
        beyond: false,
        passed_by: 0,
        why: WhyReport::default(),
        repositories: DuReport::default(),
        ages: DuReport::default(),
        made: String::new(),
    };
    for _ in 0..PAGES_MAX {
        for row in &report.rows {
            found.tree.add(row);
        }
        found.passed_by += report.passed_by;
        say(progress, "listing files", found.tree.files, Some(found.head.files.max(found.tree.files)));
        let Some(next) = report.next.take() else { return Ok(Some(found)) };
        if found.tree.files >= FILES_MAX {
            break;
        }
        report = area_of(desk.ask(area(found.head.workspace.clone(), Some(next)))?)?;
        if report.generation != found.generation {
            return Ok(None);
        }
    }
    found.beyond = true;
    Ok(Some(found))
}

fn area(target: String, after: Option<PathText>) -> Question {
    Question::Area(AreaRequest { target, after, limit: ROWS_MAX })
}

fn area_of(finding: Finding) -> Result<AreaReport, Failure> {
    let Finding::Area(report) = finding else { return Err(mixed_up()) };
    Ok(*report)
}

fn why(desk: &Desk, workspace: &str) -> Result<WhyReport, Failure> {
    let request = WhyRequest {
        target: Some(workspace.to_owned()),
        depth: DEPTH,
        ranked: RANKED,
        timeline: true,
        ..WhyRequest::default()
    };
    let Finding::Why(report) = desk.ask(Question::Why(request))? else { return Err(mixed_up()) };
    Ok(*report)
}

fn du(desk: &Desk, by: By) -> Result<DuReport, Failure> {
    let request = DuRequest { by, limit: ROWS, ..DuRequest::default() };
    let Finding::Du(report) = desk.ask(Question::Du(request))? else { return Err(mixed_up()) };
    Ok(*report)
}

fn say(progress: &Display, phase: &str, objects: u64, total_objects: Option<u64>) {
    progress.report(&Progress { phase: phase.to_owned(), objects, bytes: 0, total_objects });
}
