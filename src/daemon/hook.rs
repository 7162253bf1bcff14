//! Git's fsmonitor hook: the larder binary, started by Git under another name.
//!
//! Runs before everything else in `main`: Git waits for it at every command,
//! so it reads one small file and asks the daemon, nothing more. Any failure
//! makes Git look at every file itself: slow, never wrong.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::client::{Client, unexpected};
use super::protocol::{Answer, Failure, FailureClass, Request};
use crate::git::fsmonitor;

/// Whether this process was started as the hook.
pub fn is_invocation(argv0: &OsStr) -> bool {
    fsmonitor::is_hook_invocation(argv0)
}

/// The bytes Git is told, for `arguments` without `argv0`.
pub fn answer(argv0: &OsStr, arguments: &[OsString]) -> Result<Vec<u8>, Failure> {
    let failed = |error: fsmonitor::HookError| Failure::new(FailureClass::Other, error.to_string());
    let query = fsmonitor::parse_args(arguments).map_err(failed)?;
    fsmonitor::check_working_tree(argv0, Path::new(".")).map_err(failed)?;
    let git_dir = std::env::var_os("GIT_DIR");
    let target = fsmonitor::workspace_of_invocation(argv0, git_dir.as_deref()).map_err(failed)?;
    let token = String::from_utf8_lossy(&query.token).into_owned();
    let request = Request::Fsmonitor { workspace: target.workspace.0, token, writer: writer() };
    match Client::at(target.socket).ask(request)? {
        Answer::Changes { token, everything: true, .. } => {
            Ok(fsmonitor::render(&token, &fsmonitor::Answer::Everything))
        }
        Answer::Changes { token, paths, .. } => Ok(fsmonitor::render(&token, &fsmonitor::Answer::Paths(paths))),
        other => Err(unexpected(&other)),
    }
}

/// Commands that only read: they are not told of blobs that are not here ([`crate::git::gitdir::Names`]), and fetch those they
/// need together.
const READERS: [&str; 32] = [
    "add",
    "archive",
    "blame",
    "bundle",
    "cat-file",
    "clean",
    "clone",
    "describe",
    "diff",
    "diff-files",
    "diff-index",
    "diff-tree",
    "fetch",
    "fsck",
    "gc",
    "grep",
    "log",
    "ls-files",
    "maintenance",
    "mv",
    "pack-objects",
    "prune",
    "push",
    "repack",
    "rev-list",
    "rev-parse",
    "rm",
    "shortlog",
    "show",
    "status",
    "whatchanged",
    "worktree",
];

/// The process that started the hook, unless it is a Git command that only reads.
fn writer() -> Option<u32> {
    let mut pid = std::os::unix::process::parent_id();
    let words = |pid: u32| -> Option<Vec<String>> {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    };
    let mut line = words(pid)?;
    if line.first().is_some_and(|program| program.ends_with("sh")) {
        // Git starts hooks whose path needs quoting through a shell.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        pid = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        line = words(pid)?;
    }
    let mut rest = line.iter().skip(1);
    let command = loop {
        let word = rest.next()?;
        match word.as_str() {
            "-c" | "-C" | "--git-dir" | "--work-tree" | "--namespace" | "--exec-path" => drop(rest.next()),
            option if option.starts_with('-') => {}
            command => break command,
        }
    };
    (!READERS.contains(&command)).then_some(pid)
}
