//! Mounts that a killed daemon left behind.
//!
//! The kernel's table says what is mounted without asking any of it. Only
//! mounts that the running daemon does not vouch for are then asked, all at
//! once and with a limit.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

use super::finding::{Finding, Mend, quoted};
use super::section::Section;
use crate::daemon::facts::health::HealthWorkspace;
use crate::daemon::mounting::{self, MountEntry};
use crate::store::WorkspaceState;

/// A mount whose daemon lives answers in microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Mounts asked at once; more than a machine has.
const ASKED: usize = 64;

/// `known`: the cache's workspaces; `serving`: a daemon runs and says how they are.
pub(super) fn findings(known: &[HealthWorkspace], serving: bool) -> Vec<Finding> {
    let mut table = match mounting::mounts() {
        Ok(table) => table,
        Err(error) => {
            return vec![Finding::warning(
                "mounts",
                format!("/proc/self/mountinfo cannot be read: {error}"),
                "mount /proc; without it nothing here can be told",
            )];
        }
    };
    table.sort_by(|a, b| a.path.cmp(&b.path));
    table.dedup_by(|a, b| a.path == b.path);
    let vouched = |entry: &&MountEntry| {
        !(serving && known.iter().any(|row| row.path == entry.path && row.state != WorkspaceState::Unmounted))
    };
    let asked: Vec<_> = table
        .iter()
        .filter(vouched)
        .take(ASKED)
        .map(|entry| {
            let path = entry.path.clone();
            // The kernel knows the root's attributes; only asking the daemon shows whether it is there.
            let ask = move || statx(CWD, &path, AtFlags::STATX_FORCE_SYNC, StatxFlags::MODE).map(|_| ());
            (entry, Section::begin(ask))
        })
        .collect();
    let until = Instant::now() + PATIENCE;
    let mut found: Vec<Finding> =
        asked.into_iter().filter_map(|(entry, answer)| judge(&entry.path, answer.by(until), known)).collect();
    if found.is_empty() {
        let detail = match table.len() {
            0 => "no Larder mounts".to_owned(),
            1 => "1 Larder mount, alive".to_owned(),
            count => format!("{count} Larder mounts, all alive"),
        };
        found.push(Finding::ok("mounts", detail));
    }
    found
}

/// What is wrong with a mount nobody vouches for; one of another `LARDER_HOME` that answers is well.
fn judge(path: &Path, answer: Option<Result<(), Errno>>, known: &[HealthWorkspace]) -> Option<Finding> {
    let name = format!("mount {}", path.display());
    let program = if rustix::process::geteuid().is_root() { "umount -l" } else { "fusermount3 -uz" };
    let command = format!("{program} {}", quoted(path));
    let ours = known.iter().any(|row| row.path == path);
    match answer {
        Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) if ours => {
            let detail = "its daemon is gone: every access fails with `Transport endpoint is not connected`";
            let fix = "`larder daemon` mounts it again, with all local changes; or take it down";
            Some(Finding::error(name, detail, fix).run(command).mended_by(Mend::Unmount(path.to_owned())))
        }
        Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) => {
            let detail = "its daemon, of another LARDER_HOME, is gone";
            let fix = "start that daemon, which mounts it again, or take it down";
            Some(Finding::warning(name, detail, fix).run(command))
        }
        None => {
            let fix = "end that daemon (`larder shutdown`, or `kill`), then take it down";
            Some(Finding::error(name, "its daemon does not answer", fix).run(command))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn only_a_dead_mount_of_this_cache_is_taken_down() {
        let ours = HealthWorkspace {
            id: 1,
            name: "w".to_owned(),
            path: "/mnt/a b".into(),
            repository: 1,
            state: WorkspaceState::Unmounted,
            offline: false,
            stays_offline: false,
            last_error: None,
            admin: None,
        };
        let known = [ours];
        let dead = Some(Err(Errno::NOTCONN));
        let own = judge(Path::new("/mnt/a b"), dead, &known).expect("dead");
        assert_eq!(own.mend, Some(Mend::Unmount("/mnt/a b".into())));
        assert!(own.command.expect("one").ends_with(" '/mnt/a b'"));
        let others = judge(Path::new("/mnt/c"), dead, &known).expect("dead");
        assert_eq!((others.severity, others.fixable), (Severity::Warning, false));
        assert_eq!(judge(Path::new("/mnt/c"), None, &known).expect("hangs").severity, Severity::Error);
        assert!(judge(Path::new("/mnt/c"), Some(Ok(())), &known).is_none());
    }
}
