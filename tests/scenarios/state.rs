//! What a working tree and its repository are at one moment, and what differs between two of them.
//!
//! Owns what counts: status by every route, refs, index, the remote's refs,
//! every path, mode, target and byte. It leaves out everything named `.git`,
//! which a mount keeps elsewhere, and times, which belong to each tree.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Side, walk};
use crate::common::compare::Entry;
use crate::common::{COMMAND_LIMIT, Fixture, run};

/// Lines of a difference that are shown.
const MOST_LINES: usize = 20;

/// Asked of each side. Status comes first, as the user asks it; those that follow must not write the index, or they
/// would repair what the next step should find.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("status", &["status", "--porcelain=v2", "--branch"]),
    (
        "status without fsmonitor",
        &[
            "--no-optional-locks",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.untrackedCache=false",
            "status",
            "--porcelain=v2",
            "--branch",
        ],
    ),
    ("long status", &["--no-optional-locks", "status", "--show-stash"]),
    ("refs", &["for-each-ref", "--format=%(refname) %(objectname) %(symref)"]),
    ("HEAD", &["rev-parse", "--symbolic-full-name", "HEAD"]),
    // The letter tells what was marked to be skipped.
    ("index", &["ls-files", "-t", "-s"]),
];

/// One side at one moment.
pub struct State {
    answers: Vec<(&'static str, String)>,
    tree: BTreeMap<Vec<u8>, Entry>,
}

impl State {
    pub fn of(fixture: &Fixture, side: &Side) -> Self {
        let ask = |place: &Path, args: &[&str]| {
            let mut command = fixture.git(place);
            command.args(args);
            let outcome = run(command, COMMAND_LIMIT);
            side.normalised(&outcome.stdout) + &side.normalised(&outcome.stderr) + &format!("exit {:?}\n", outcome.code)
        };
        let mut answers: Vec<_> = QUESTIONS.iter().map(|(name, args)| (*name, ask(&side.top, args))).collect();
        answers.push(("refs of the remote", ask(&side.bare, QUESTIONS[3].1)));
        let mut tree = walk(&side.top);
        tree.retain(|path, _| !path.split(|byte| *byte == b'/').any(|name| name == b".git"));
        Self { answers, tree }
    }

    /// The first thing that differs, in words.
    pub fn same_as(&self, other: &Self) -> Result<(), String> {
        let paths = self.tree.keys().chain(other.tree.keys().filter(|path| !self.tree.contains_key(*path)));
        let differing: Vec<String> = paths
            .filter(|path| self.tree.get(*path) != other.tree.get(*path))
            .map(|path| format!("{}: {:?} | {:?}", path.escape_ascii(), self.tree.get(path), other.tree.get(path)))
            .take(MOST_LINES)
            .collect();
        if !differing.is_empty() {
            return Err(format!("the tree differs (plain | mount)\n{}", differing.join("\n")));
        }
        for ((name, wanted), (_, found)) in self.answers.iter().zip(&other.answers) {
            if let Some(lines) = lines_that_differ(wanted, found) {
                return Err(format!("{name} differs\n{lines}"));
            }
        }
        Ok(())
    }
}

/// The lines that only one of two texts has; `None` when they are equal.
pub fn lines_that_differ(wanted: &str, found: &str) -> Option<String> {
    if wanted == found {
        return None;
    }
    let only = |mark: &str, here: &str, there: &str| -> Vec<String> {
        let lines = here.lines().filter(|line| !there.lines().any(|other| other == *line));
        lines.map(|line| format!("{mark} {line}")).take(MOST_LINES).collect()
    };
    let mut lines = only("- plain:", wanted, found);
    lines.extend(only("+ mount:", found, wanted));
    if lines.is_empty() {
        lines.push(format!("the same lines in another order or number:\n{wanted}---\n{found}"));
    }
    Some(lines.join("\n"))
}
