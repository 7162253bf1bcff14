//! What crashes left below the home: sockets nobody listens on, directories nobody owns, locks nobody holds.
//!
//! Looks only at names that Larder and Git give. Only a deserted socket is mended by `--fix`: what is in a directory, or
//! guarded by a lock, may be somebody's work.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Mend, quoted};
use crate::config::Config;
use crate::daemon::client::is_deserted;
use crate::daemon::facts::health::{HealthReport, HealthRepository};

/// A younger socket may be about to be listened on.
const SOCKET_AGE: Duration = Duration::from_secs(10);
/// A younger directory may belong to a mount that is being made.
const DIRECTORY_AGE: Duration = Duration::from_mins(1);
/// Git holds a lock for seconds; a rebase or a hook may take minutes.
const LOCK_AGE: Duration = Duration::from_hours(1);
/// Entries of a directory looked at.
const ENTRIES: usize = 10_000;

/// Locks of a gitdir, and of a workspace's entry in it.
const LOCKS: [&str; 5] = ["config.lock", "packed-refs.lock", "shallow.lock", "HEAD.lock", "index.lock"];

/// `known`: what the cache tells, if it does.
pub(super) fn findings(config: &Config, known: Option<&HealthReport>) -> Vec<Finding> {
    let mut found = sockets(&config.run_dir);
    if let Some(known) = known {
        if known.left_out == 0 {
            let workspaces: Vec<u64> = known.workspaces.iter().map(|row| row.id).collect();
            found.extend(unowned(&config.home.join("overlay"), "", &workspaces, "the local changes of no workspace"));
            let repositories: Vec<u64> = known.repositories.iter().map(|row| row.id).collect();
            let what = "gitdirs of no repository";
            found.extend(unowned(&config.home.join("repositories"), ".git", &repositories, what));
        }
        found.extend(known.repositories.iter().flat_map(locks));
    }
    if found.is_empty() {
        found.push(Finding::ok("leftovers", "none"));
    }
    found
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().take(ENTRIES);
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn is_older(path: &Path, age: Duration) -> bool {
    let changed = path.symlink_metadata().and_then(|meta| meta.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|since| since >= age))
}

/// Whether `path` is a socket that nobody listens on, and not because it is being made.
pub(super) fn is_dead_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket())
        && is_older(path, SOCKET_AGE)
        && is_deserted(path)
}

fn sockets(run_dir: &Path) -> Vec<Finding> {
    let dead = listed(run_dir).into_iter().filter(|path| is_dead_socket(path));
    dead.map(|path| {
        let name = format!("socket {}", path.display());
        let fix = "remove it; the next daemon would make it anew";
        Finding::warning(name, "nobody listens on it: its daemon was killed", fix)
            .run(format!("rm {}", quoted(&path)))
            .mended_by(Mend::RemoveSocket(path))
    })
    .collect()
}

/// Directories called by a number that is none of `known`.
fn unowned(directory: &Path, suffix: &str, known: &[u64], what: &str) -> Option<Finding> {
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(suffix)?.parse::<u64>().ok();
    let of_nobody = |path: &PathBuf| number(path).is_some_and(|number| !known.contains(&number));
    let stray: Vec<PathBuf> =
        listed(directory).into_iter().filter(|path| of_nobody(path) && is_older(path, DIRECTORY_AGE)).collect();
    let first = stray.first()?;
    let more = if stray.len() > 1 { format!(" and {} more", stray.len() - 1) } else { String::new() };
    let detail = format!("{}{more}: {what}", first.display());
    let fix = "this removes what holds nothing that is nowhere else, and tells what stays; `larder gc --dry-run` first";
    Some(Finding::warning(format!("leftovers in {}", directory.display()), detail, fix).run("larder gc"))
}

fn locks(repository: &HealthRepository) -> Vec<Finding> {
    let mut directories = vec![repository.gitdir.clone()];
    directories.extend(listed(&repository.gitdir.join("worktrees")));
    let all = directories.iter().flat_map(|directory| LOCKS.map(|name| directory.join(name)));
    all.filter(|path| is_older(path, LOCK_AGE))
        .map(|path| {
            let detail = "a lock of Git's that is older than an hour: Git refuses to change what it guards";
            let fix = "make sure that no Git command runs there, then remove it";
            Finding::warning(format!("lock {}", path.display()), detail, fix).run(format!("rm {}", quoted(&path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn age(path: &Path, by: Duration) {
        let file = fs::File::open(path).expect("there");
        file.set_modified(SystemTime::now() - by).expect("own file");
    }

    #[test]
    fn old_locks_and_directories_of_nobody_are_found_and_young_ones_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let gitdir = dir.path().join("1.git");
        let entry = gitdir.join("worktrees/w");
        fs::create_dir_all(&entry).expect("made");
        let repository =
            HealthRepository { id: 1, url: String::new(), gitdir: gitdir.clone(), external_gitdir: false, probe: None };
        fs::write(entry.join("index.lock"), b"").expect("written");
        assert!(locks(&repository).is_empty());
        age(&entry.join("index.lock"), 2 * LOCK_AGE);
        let found = locks(&repository);
        assert_eq!(found.len(), 1);
        assert!(found[0].command.as_deref().is_some_and(|command| command.ends_with("worktrees/w/index.lock")));
        assert!(!found[0].fixable);

        fs::create_dir(dir.path().join("7.git")).expect("made");
        assert!(unowned(dir.path(), ".git", &[1], "x").is_none());
        age(&dir.path().join("7.git"), 2 * DIRECTORY_AGE);
        assert!(unowned(dir.path(), ".git", &[1], "x").is_some_and(|found| found.detail.contains("/7.git: x")));
        assert!(unowned(dir.path(), ".git", &[1, 7], "x").is_none());
    }

    #[test]
    fn a_socket_is_dead_when_it_is_old_and_nobody_listens() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("s.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        assert!(!is_dead_socket(&path));
        drop(listener);
        assert!(!is_dead_socket(&path), "it is young");
        fs::write(dir.path().join("file"), b"").expect("written");
        assert!(!is_dead_socket(&dir.path().join("file")));
    }
}
