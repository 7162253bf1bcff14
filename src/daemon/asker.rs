//! Who stands behind a process that Git started: which Git command, in which workspace.

use std::path::PathBuf;

use crate::hydrate::cause::Process;

/// How far up is looked: a shell, an alias and a few commands that run each other.
const ANCESTORS: usize = 8;

/// The Git command that, perhaps by others, started `pid`; the process itself where there is none.
pub(super) fn git_command(pid: u32) -> Process {
    let mut found = Process::of_thread(pid);
    let mut at = pid;
    for _ in 0..ANCESTORS {
        let Some(parent) = parent(at) else { break };
        let arguments = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        if let Some(name) = command(&arguments) {
            found = Process { id: parent, name: name.into() };
        }
        at = parent;
    }
    found
}

/// The directory `pid` works in.
pub(super) fn directory(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).filter(|pid| *pid > 1)
}

/// `git SUBCOMMAND` out of a command line (`proc_pid_cmdline(5)`); `None`: it is not Git's.
fn command(arguments: &[u8]) -> Option<String> {
    let mut words = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next()?;
    let program = program.rsplit('/').next()?;
    if let Some(subcommand) = program.strip_prefix("git-") {
        return Some(format!("git {subcommand}"));
    }
    if program != "git" {
        return None;
    }
    while let Some(word) = words.next() {
        match &*word {
            // Their value is a word of its own.
            "-C" | "-c" | "--git-dir" | "--work-tree" | "--namespace" => drop(words.next()),
            option if option.starts_with('-') => {}
            "" => {}
            subcommand => return Some(format!("git {subcommand}")),
        }
    }
    Some("git".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_command_is_told_by_its_words() {
        let told = |line: &str| command(line.replace(' ', "\0").as_bytes());
        assert_eq!(told("git -C /x -c a=b --no-pager blame f").as_deref(), Some("git blame"));
        assert_eq!(told("/usr/lib/git-core/git fetch larder").as_deref(), Some("git fetch"));
        assert_eq!(told("/usr/lib/git-core/git-diff").as_deref(), Some("git diff"));
        assert_eq!(told("git --version").as_deref(), Some("git"));
        assert_eq!((told("bash -c git"), told("")), (None, None));
    }

    #[test]
    fn what_no_git_started_is_itself() {
        let found = git_command(std::process::id());
        assert!(found.id > 0 && !found.name.is_empty());
    }
}
