//! What the documents and the help show, done: every session, every example, every command that is named.
//!
//! Owns what is run and where. `LARDER_EXAMPLES=git.md` runs only what has
//! that in its name; `LARDER_EXAMPLES_WRITE=1` puts what was printed into the
//! documents where something else is shown, for a person to look at. See `examples/document.rs` for what comments in the
//! documents may tell, and `examples/remotes.rs` for what they mount.

mod common;
#[path = "examples/document.rs"]
mod document;
#[path = "examples/help.rs"]
mod help;
#[path = "examples/output.rs"]
mod output;
#[path = "examples/remotes.rs"]
mod remotes;
#[path = "examples/sandbox.rs"]
mod sandbox;
#[path = "examples/shell.rs"]
mod shell;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io, thread};

use common::{COMMAND_LIMIT, Fixture, run};
use document::Step;
use remotes::Remotes;
use sandbox::Sandbox;

/// Done at once: as many as the smallest machine has processors.
const AT_ONCE: usize = 2;
/// Blocks that a test can't run; more are sessions that nobody looks after.
const MOST_SKIPPED: usize = 0;

/// The documents, by their names.
fn documents() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = fs::read_dir(top.join("docs")).expect("docs is there").map(|entry| entry.expect("readable").path());
    let mut files: Vec<PathBuf> = in_docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    files.push(top.join("README.md"));
    files.sort();
    let name = |path: &Path| path.strip_prefix(top).expect("below the top").to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).expect("readable"))).collect()
}

fn wanted(name: &str) -> bool {
    std::env::var("LARDER_EXAMPLES").map_or(true, |part| name.contains(&part))
}

/// Calls `each` for all of `items`, a few at once, and returns what they complain of.
fn all<T: Sync>(items: &[T], each: impl Fn(&T) -> Vec<String> + Sync) -> Vec<String> {
    let (queue, complaints) = (Mutex::new(items.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    // In a statement of its own, so that the queue is free while the item is dealt with.
                    let next = queue.lock().expect("nobody panics holding it").next();
                    let Some(item) = next else { break };
                    let found = each(item);
                    complaints.lock().expect("nobody panics holding it").extend(found);
                }
            });
        }
    });
    complaints.into_inner().expect("nobody panics holding it")
}

#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n\n{}", complaints.len(), complaints.join("\n\n"));
}

#[test]
fn the_sessions_of_the_documents_are_true() {
    let remotes = Remotes::get();
    let mut skipped = Vec::new();
    let mut documented = Vec::new();
    for (name, text) in documents() {
        let steps = document::steps(&text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        for step in &steps {
            if let Step::Skip { line, reason } = step {
                skipped.push(format!("{name}:{line}: {reason}"));
            }
        }
        if wanted(&name) && steps.iter().any(|step| matches!(step, Step::Command { .. })) {
            documented.push((name, steps));
        }
    }
    none(&all(&documented, |(name, steps)| session(name, steps, remotes.path())));
    if !skipped.is_empty() {
        // Seen with `--nocapture`; a test that skips in silence is trusted too much.
        let _ = writeln!(io::stdout(), "{} blocks skipped: {skipped:#?}", skipped.len());
    }
    let most = MOST_SKIPPED;
    assert!(skipped.len() <= most, "{} blocks skipped, {most} at most: {skipped:#?}", skipped.len());
}

/// Runs a document.
fn session(name: &str, steps: &[Step], served: &Path) -> Vec<String> {
    let commands = steps.iter().filter_map(|step| match step {
        Step::Setup(text) | Step::Command { text, .. } => Some(text.as_str()),
        Step::Server(..) | Step::Skip { .. } => None,
    });
    let Some(mut sandbox) = Sandbox::new(served, commands) else { return Vec::new() };
    let (mut complaints, mut printed) = (Vec::new(), Vec::new());
    for step in steps {
        let done = match step {
            Step::Skip { .. } => continue,
            Step::Server(port, condition) => sandbox.server(*port, *condition),
            Step::Setup(text) => sandbox.run(text).and_then(|outcome| match outcome.status {
                0 => Ok(()),
                status => Err(format!("{text}\nended with {status}: {}", outcome.printed.join("\n"))),
            }),
            Step::Command { line, text, shown, status } => sandbox.run(text).map(|mut outcome| {
                outcome.printed = output::without_progress(outcome.printed);
                let complaint = judge(text, shown, *status, &outcome);
                if complaint.is_some() {
                    printed.push((*line, shown.len(), outcome.printed));
                }
                complaints.extend(complaint.map(|complaint| format!("{name}:{line}: $ {text}\n{complaint}")));
            }),
        };
        if let Err(broken) = done {
            complaints.push(format!("{name}: what follows was not run: {broken}"));
            break;
        }
    }
    if std::env::var_os("LARDER_EXAMPLES_WRITE").is_some() {
        write_down(name, printed);
    }
    complaints
}

/// Replaces, in a document, the lines below a command's line by what it printed.
fn write_down(name: &str, printed: Vec<(usize, usize, Vec<String>)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = fs::read_to_string(&path).expect("readable");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // From the end, so that the numbers of the lines before stay.
    for (line, shown, printed) in printed.into_iter().rev() {
        let indent = lines[line - 1].split('$').next().unwrap_or_default().to_owned();
        lines.splice(
            line..line + shown,
            printed.into_iter().map(|text| format!("{indent}{}", text.replace('\t', "  "))),
        );
    }
    fs::write(&path, lines.join("\n") + "\n").expect("writable");
}

/// What is wrong with what a command did.
fn judge(command: &str, shown: &[String], status: Option<i32>, outcome: &shell::Outcome) -> Option<String> {
    let ended = outcome.status;
    let right = match status {
        Some(status) => status == ended,
        None => output::fails(command, shown) == (ended != 0),
    };
    if right && output::agrees(shown, &outcome.printed) {
        return None;
    }
    let mut complaint = String::new();
    if !right {
        let _ = writeln!(complaint, "exit status {ended}");
    }
    let _ = write!(complaint, "shown:\n{}\nprinted:\n{}", shown.join("\n"), outcome.printed.join("\n"));
    Some(complaint)
}

#[test]
fn the_examples_of_the_help_run() {
    let remotes = Remotes::get();
    let commands = help::commands();
    let commands: Vec<_> = commands.iter().filter(|it| wanted(&it.name)).collect();
    none(&all(&commands, |command| {
        if command.is_group {
            return Vec::new();
        }
        let examples = command.examples();
        if examples.is_empty() {
            return vec![format!("larder {}: its help has no examples", command.name)];
        }
        help::run(command, &examples, remotes.path())
    }));
}

#[test]
fn every_command_that_is_named_exists() {
    let Some(fixture) = Fixture::with_settings("no settings\n") else { return };
    let helps = help::commands().iter();
    let helps = helps.map(|command| (format!("larder {} --help", command.name), command.text.clone()));
    let mut named: Vec<(String, String)> = Vec::new();
    for (name, text) in documents().into_iter().chain(helps) {
        let found = document::commands_named(&text);
        named.extend(found.into_iter().map(|(line, command)| (format!("{name}:{line}"), command)));
    }
    assert!(named.len() > 50, "the documents name commands, and {} were found", named.len());
    none(&all(&named, |(place, command)| {
        let mut larder = fixture.larder();
        larder.args(help::plausible(command));
        let outcome = run(larder, COMMAND_LIMIT);
        // The settings are wrong on purpose, so that nothing is done: only the command line is looked at.
        let refused = outcome.err().lines().find(|line| line.starts_with("error: ")).map(str::to_owned);
        // Text names commands and options without all that belongs to them.
        let incomplete = ["required arguments were not provided", "a value is required for"];
        let refused = refused.filter(|line| !incomplete.iter().any(|part| line.contains(part)));
        refused.map(|line| format!("{place}: `{command}`: {line}")).into_iter().collect()
    }));
}
