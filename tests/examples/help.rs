//! The help of every command, its examples, and where they run.
//!
//! Owns how an example is told from the rest: in the section `Examples:` it
//! begins a line with `larder `, and ends at two spaces. Examples call the
//! workspace and its directory `work`, a repository
//! `git://127.0.0.1:9427/notes.git`; one with `.` runs in the workspace.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use super::sandbox::Sandbox;
use crate::common::{COMMAND_LIMIT, run as run_command};

/// What examples mount.
const REPOSITORY: &str = "git://127.0.0.1:9427/notes.git";
/// What runs until it is ended, and how long the test lets it, in seconds.
const ENDLESS: &[&str] = &["larder top", "larder daemon --foreground"];
const ENDLESS_SECONDS: u32 = 1;
/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// What is there before an example of a command.
const BEFORE: &[(&str, &str)] = &[
    ("mount", "larder unmount work --purge --force"),
    ("unpin", "larder pin work && larder pin work v1.0 docs && larder pin work -- src"),
    ("status", "larder warm work"),
    ("daemon", "larder shutdown"),
    ("man", "mkdir -p man"),
    ("inspect", "larder warm work"),
    ("cache cat", "larder warm work"),
    ("cache export", "rm -f *.larder"),
    ("cache import", "test -f notes.larder || larder cache export notes.larder work"),
    ("completions", "mkdir -p .local/share/bash-completion/completions .zfunc .config/fish/completions"),
];

/// A command, or a group of them.
pub struct Subcommand {
    /// As it is typed after `larder`.
    pub name: String,
    /// Its long help.
    pub text: String,
    /// Whether it has commands of its own, and so does nothing itself.
    pub is_group: bool,
}

/// All commands, those in groups included.
pub fn commands() -> &'static [Subcommand] {
    static COMMANDS: LazyLock<Vec<Subcommand>> = LazyLock::new(all);
    &COMMANDS
}

fn all() -> Vec<Subcommand> {
    let mut found = Vec::new();
    let mut open: Vec<String> = listed(&help(&[]));
    while let Some(name) = open.pop() {
        let text = help(&name.split(' ').collect::<Vec<_>>());
        let inner = listed(&text);
        let is_group = !inner.is_empty();
        open.extend(inner.iter().map(|inner| format!("{name} {inner}")));
        found.push(Subcommand { name, text, is_group });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn help(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(words).arg("--help");
    run_command(command, COMMAND_LIMIT).success().out()
}

/// The commands that a help lists, but `help`.
fn listed(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = section.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

impl Subcommand {
    /// The commands of its examples.
    pub fn examples(&self) -> Vec<String> {
        let section = self.text.lines().skip_while(|line| *line != "Examples:").skip(1);
        let lines = section.take_while(|line| line.is_empty() || line.starts_with(' ')).map(str::trim);
        let commands = lines.filter(|line| line.starts_with("larder "));
        commands.map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect()
    }
}

/// Runs the examples of a command; what is wrong with them.
pub fn run(command: &Subcommand, examples: &[String], served: &Path) -> Vec<String> {
    let Some(mut sandbox) = Sandbox::new(served, std::iter::once(&*format!("{REPOSITORY} "))) else {
        return Vec::new();
    };
    let before = BEFORE.iter().find(|(name, _)| *name == command.name).map(|(_, before)| *before);
    // A daemon that was shut down mounts again what was mounted.
    let mount = format!("larder daemon && (mountpoint -q work || larder mount {REPOSITORY} work)");
    let mut complaints = Vec::new();
    for example in examples {
        for setup in std::iter::once(mount.as_str()).chain(before) {
            match sandbox.run(setup) {
                Ok(outcome) if outcome.status == 0 => {}
                Ok(outcome) => complaints.push(format!("{setup}: {}", outcome.printed.join("\n"))),
                Err(broken) => complaints.push(format!("{setup}: {broken}")),
            }
        }
        let here = example.split(' ').any(|word| word == ".");
        let endless = ENDLESS.iter().any(|endless| example.starts_with(endless));
        let bound = if endless { format!("timeout -s INT {ENDLESS_SECONDS} ") } else { String::new() };
        let line = format!("(cd {} && {bound}{example})", if here { "work" } else { "." });
        match sandbox.run(&line) {
            Ok(outcome) if outcome.status == 0 || endless && outcome.status == TIMED_OUT => {}
            Ok(outcome) => {
                let printed = outcome.printed.join("\n");
                complaints.push(format!("{example}\nended with {}: {printed}", outcome.status));
            }
            Err(broken) => complaints.push(format!("{example}: {broken}")),
        }
    }
    complaints
}

/// The arguments of a command line in a document, with something in each placeholder's place.
pub fn plausible(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    for word in line.split_whitespace().skip(1) {
        // Where a document leaves out the beginning of a mount, it has no arguments.
        let bare = word.trim_matches(|c| "[]'\"".contains(c)).trim_end_matches("...").trim_end_matches(']');
        let first = bare.split(['|', '\\']).next().unwrap_or_default();
        let instead = match first {
            "…" | "options" | "" => continue,
            "TARGET" => "work",
            "DIR" | "FILE" | "PATH" | "PATHSPEC" => "path",
            "REPO" | "URL" => REPOSITORY,
            "REV" | "BRANCH" | "NEW" | "NAME" => "main",
            "COMMIT" | "OID" => "0123456789abcdef0123456789abcdef01234567",
            "N" | "NUMBER" => "3",
            "SIZE" => "1MiB",
            "DURATION" => "1h",
            "COMMAND" => "status",
            "SHELL" => "bash",
            other => other,
        };
        arguments.push(instead.to_owned());
    }
    arguments
}
