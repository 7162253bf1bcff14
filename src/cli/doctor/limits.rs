//! Limits of the system that a daemon with many mounts can meet, and the clock.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, as_root};
use crate::daemon::protocol::rfc3339;

/// Editors and build tools watch a directory each; a large tree has tens of thousands.
const WATCHES: u64 = 65_536;
/// Instances of inotify left for who needs one: the daemon needs one a workspace, an editor a few.
const INSTANCES: u64 = 16;
/// Files open at once: a client, a connection and a filter driver take a few each, a mount as many as threads serve it.
const FILES: u64 = 1_024;
/// Tasks left: the daemon has about sixty threads, and a warm starts Git processes.
const TASKS: u64 = 128;
/// Nothing was ever cached before this time (2020): a clock that says so is not set.
const NOT_BEFORE: u64 = 1_577_836_800;
/// Clocks of two machines that use one cache may differ by this much.
const DRIFT: Duration = Duration::from_mins(5);

/// `daemon`: its process.
pub(super) fn findings(daemon: Option<u32>) -> Vec<Finding> {
    vec![files(daemon), inotify(), tasks()]
}

fn files(daemon: Option<u32>) -> Finding {
    const NAME: &str = "open files";
    let (limit, open) = match daemon.and_then(open_files) {
        Some((limit, open)) => (Some(limit), open),
        None => (getrlimit(Resource::Nofile).current, 0),
    };
    let Some(limit) = limit else { return Finding::ok(NAME, "unlimited") };
    let detail = if open > 0 { format!("{open} of {limit}, in the daemon") } else { format!("{limit} a process") };
    let (few, full) = (limit < FILES, open.saturating_mul(5) > limit.saturating_mul(4));
    if few || full {
        let fix = "allow more in this shell, then `larder shutdown`; the next command starts a daemon that may";
        let command = format!("ulimit -n {}", (4 * FILES).max(2 * limit));
        return Finding::warning(NAME, format!("{detail}; the daemon may run out of them"), fix).run(command);
    }
    Finding::ok(NAME, detail)
}

/// How many files a process may open, and has open.
fn open_files(pid: u32) -> Option<(u64, u64)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let limit =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())?;
    Some((limit, fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64))
}

fn inotify() -> Finding {
    const NAME: &str = "inotify";
    let setting = |name: &str| read_number(&format!("/proc/sys/fs/inotify/{name}"));
    let (Some(watches), Some(instances)) = (setting("max_user_watches"), setting("max_user_instances")) else {
        return Finding::ok(NAME, "its limits cannot be read here");
    };
    judge_inotify(watches, instances, instances_in_use())
}

fn judge_inotify(watches: u64, instances: u64, used: u64) -> Finding {
    const NAME: &str = "inotify";
    if instances.saturating_sub(used) < INSTANCES {
        let detail = format!("{used} of {instances} instances in use; the daemon takes one a workspace to follow HEAD");
        let command = as_root(&format!("sysctl fs.inotify.max_user_instances={}", (4 * instances).max(512)));
        return Finding::warning(NAME, detail, "allow more").run(command);
    }
    if watches < WATCHES {
        let detail = format!("{watches} watches; editors run out of them in large trees");
        let command = as_root(&format!("sysctl fs.inotify.max_user_watches={}", 8 * WATCHES));
        return Finding::warning(NAME, detail, "allow more").run(command);
    }
    Finding::ok(NAME, format!("{watches} watches a user; {used} of {instances} instances in use"))
}

/// Inotify instances of this user's processes.
fn instances_in_use() -> u64 {
    let own = rustix::process::getuid().as_raw();
    let links = processes().filter(|(_, uid)| *uid == own).flat_map(|(path, _)| {
        fs::read_dir(path.join("fd")).into_iter().flatten().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
    });
    links.filter(|link| link.as_os_str() == OsStr::new("anon_inode:inotify")).count() as u64
}

/// Directories of all processes in `/proc`, and their owners.
pub(super) fn processes() -> impl Iterator<Item = (PathBuf, u32)> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.parse::<u32>().ok()?;
        let owner = fs::metadata(&path).ok()?.uid();
        Some((path, owner))
    })
}

fn tasks() -> Finding {
    const NAME: &str = "processes";
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let within = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let mount = match controllers {
            "" => "/sys/fs/cgroup",
            "pids" => "/sys/fs/cgroup/pids",
            _ => return None,
        };
        let directory = format!("{mount}{}", path.trim_end_matches('/'));
        Some((read_number(&format!("{directory}/pids.max"))?, read_number(&format!("{directory}/pids.current"))?))
    });
    let user = getrlimit(Resource::Nproc).current.filter(|_| !rustix::process::geteuid().is_root());
    let of_user = user.map(|limit| {
        let own = rustix::process::getuid().as_raw();
        let threads = processes()
            .filter(|(_, uid)| *uid == own)
            .map(|(path, _)| fs::read_dir(path.join("task")).map_or(1, |tasks| tasks.count() as u64));
        (limit, threads.sum())
    });
    match within.chain(of_user).min_by_key(|(most, now)| most.saturating_sub(*now)) {
        None => Finding::ok(NAME, "unlimited"),
        Some((most, now)) if most.saturating_sub(now) < TASKS => {
            let fix =
                "end some, or allow more: `ulimit -u`, `pids.max` of the control group, `--pids-limit` of a container";
            Finding::warning(NAME, format!("{now} of {most} threads in use; the daemon has about sixty"), fix)
        }
        Some((most, now)) => Finding::ok(NAME, format!("{now} of {most} threads in use")),
    }
}

fn read_number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `newest`: time of the newest row in the cache.
pub(super) fn clock(newest: Option<i64>) -> Finding {
    judge_clock(SystemTime::now(), newest)
}

fn judge_clock(now: SystemTime, newest: Option<i64>) -> Finding {
    const NAME: &str = "clock";
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let shown = rfc3339(i64::try_from(seconds).unwrap_or(i64::MAX));
    let fix = "set it; what is cached is kept by when it was used";
    let command = as_root("timedatectl set-ntp true");
    if seconds < NOT_BEFORE {
        let detail = format!("it says {shown}: certificates of remotes are not valid then");
        return Finding::error(NAME, detail, fix).run(command);
    }
    let ahead =
        newest.and_then(|newest| u64::try_from(newest).ok()).filter(|newest| *newest > seconds + DRIFT.as_secs());
    if let Some(newest) = ahead {
        let newest = rfc3339(i64::try_from(newest).unwrap_or(i64::MAX));
        return Finding::warning(NAME, format!("it says {shown}, and the cache has a row of {newest}"), fix)
            .run(command);
    }
    Finding::ok(NAME, shown)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn a_clock_that_is_not_set_or_went_back_is_found() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(judge_clock(at(0), None).severity, Severity::Error);
        assert_eq!(judge_clock(at(1_700_000_000), Some(1_700_000_200)).severity, Severity::Ok);
        let back = judge_clock(at(1_700_000_000), Some(1_700_000_400));
        assert_eq!(back.severity, Severity::Warning);
        assert!(back.detail.contains("2023-11-14T22:13:20Z"), "{}", back.detail);
    }

    #[test]
    fn instances_and_watches_run_out_separately() {
        assert_eq!(judge_inotify(WATCHES, 128, 7).severity, Severity::Ok);
        let few = judge_inotify(WATCHES, 128, 120);
        assert!(few.command.expect("one").ends_with("max_user_instances=512"));
        assert!(judge_inotify(8192, 128, 1).command.expect("one").contains("max_user_watches"));
    }

    #[test]
    fn this_process_is_counted() {
        let (limit, open) = open_files(std::process::id()).expect("it is there");
        assert!(limit > open && open > 2);
    }
}
