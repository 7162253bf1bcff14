//! What `larder doctor --fix` does, and what came of it.
//!
//! Each is looked at once more right before it is done. Invariant: nothing is removed but sockets nobody listens on, and
//! nothing is ended that a process uses.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::finding::{Finding, Mend, Severity};
use super::leftovers;
use super::limits;
use crate::cli::{resting, shutdown};
use crate::config::Config;
use crate::daemon::client::Client;
use crate::daemon::mounting;
use crate::store::StoreErrorKind;

/// What was tried.
pub(super) struct Outcome {
    /// The finding's.
    name: String,
    /// What was done, or why it was not.
    done: Result<String, String>,
}

/// Mends what can be mended of `findings`.
pub(super) fn all(findings: &[Finding], config: &Config) -> Vec<Outcome> {
    let mendable = findings.iter().filter_map(|finding| Some((finding, finding.mend.as_ref()?)));
    mendable.map(|(finding, mend)| Outcome { name: finding.name.clone(), done: carry_out(mend, config) }).collect()
}

/// Writes into the findings of a second look what came of the first.
pub(super) fn enter(findings: &mut Vec<Finding>, outcomes: Vec<Outcome>) {
    for finding in findings.iter_mut() {
        finding.fixed = Some(false);
    }
    for Outcome { name, done } in outcomes {
        let again = findings.iter_mut().find(|finding| finding.name == name);
        match (done, again) {
            (Ok(done), Some(finding)) => {
                finding.fixed = Some(finding.severity == Severity::Ok);
                finding.detail = format!("{done}; {}", finding.detail);
            }
            // What it was about is not there any more.
            (Ok(done), None) => findings.push(Finding { fixed: Some(true), ..Finding::ok(name, done) }),
            (Err(why), Some(finding)) => finding.detail = format!("{}; not mended: {why}", finding.detail),
            (Err(_), None) => {}
        }
    }
}

fn carry_out(mend: &Mend, config: &Config) -> Result<String, String> {
    match mend {
        Mend::Unmount(path) => {
            if !mounting::is_stale(path) {
                return Err("its daemon answers now".to_owned());
            }
            mounting::unmount(path, true).map_err(|failure| failure.message)?;
            Ok("taken down; `larder daemon` mounts it again, with all local changes".to_owned())
        }
        Mend::RemoveSocket(path) => remove_socket(path, config),
        Mend::Close(path) => close(path),
        Mend::Restart(pid) => restart(*pid, config),
    }
}

fn remove_socket(path: &Path, config: &Config) -> Result<String, String> {
    // Who holds the store for reading keeps a daemon from beginning to listen between the look and the removal.
    let held = match config.store_path.exists().then(|| resting::open(config)) {
        Some(Err(error)) if error.kind == StoreErrorKind::Busy => return Err("a daemon is starting".to_owned()),
        held => held,
    };
    if !leftovers::is_dead_socket(path) {
        return Err("somebody listens on it now".to_owned());
    }
    fs::remove_file(path).map_err(|error| error.to_string())?;
    drop(held);
    Ok("removed".to_owned())
}

fn close(path: &Path) -> Result<String, String> {
    let meta = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    let own = rustix::process::getuid().as_raw();
    if meta.uid() != own || !(meta.is_dir() || fs::metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == own))
    {
        return Err("it is not a directory of yours any more".to_owned());
    }
    let before = fs::metadata(path).map_or(0, |meta| meta.mode() & 0o7777);
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
    Ok(format!("mode changed from {before:04o} to 0700"))
}

fn restart(pid: u32, config: &Config) -> Result<String, String> {
    if let Some((user, path)) = user_of(&mounts_of(pid)) {
        return Err(format!("process {user} uses {}", path.display()));
    }
    let client = Client::at(config.socket.clone());
    match client.ping() {
        Ok(Some((_, now))) if now == pid => {}
        _ => return Err("another daemon runs now".to_owned()),
    }
    shutdown::end(&client, pid).map_err(|failure| failure.message)?;
    Client::start(config).map_err(|failure| failure.message)?;
    Ok(format!("process {pid} was ended"))
}

/// The mounts that process `pid` serves; where the kernel does not tell, all of Larder's.
fn mounts_of(pid: u32) -> Vec<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(|fd| Some(fd.ok()?.path()));
    let devices = open.filter(|fd| fs::read_link(fd).is_ok_and(|device| device == Path::new("/dev/fuse")));
    // Since Linux 6.9; before, nothing says which connection it is.
    let connections: Option<Vec<u32>> = devices
        .map(|fd| {
            let told = fs::read_to_string(process.join("fdinfo").join(fd.file_name()?)).ok()?;
            told.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse().ok())
        })
        .collect();
    let served = |connection| connections.as_ref().is_none_or(|known| known.contains(&connection));
    let all = mounting::mounts().unwrap_or_default().into_iter();
    all.filter(|entry| served(entry.connection)).map(|entry| entry.path).collect()
}

/// A process that has its directory, its program, an open file or a mapped one in one of `mounts`. Told by the kernel
/// without asking any mount.
fn user_of(mounts: &[PathBuf]) -> Option<(String, PathBuf)> {
    let within = |path: &Path| mounts.iter().find(|mount| path.starts_with(mount)).cloned();
    limits::processes().find_map(|(process, _)| {
        let links = ["cwd", "root", "exe"].into_iter().map(|name| process.join(name));
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(|fd| Some(fd.ok()?.path()));
        let linked = links.chain(open).find_map(|link| within(&fs::read_link(link).ok()?));
        let used = linked.or_else(|| {
            let maps = fs::read_to_string(process.join("maps")).ok()?;
            let mapped = |line: &str| within(Path::new(line.get(line.find('/')?..)?));
            maps.lines().find_map(mapped)
        });
        let pid = process.file_name()?.to_string_lossy().into_owned();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        Some((format!("{pid} ({})", name.trim()), used?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_a_use() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().canonicalize().expect("there");
        assert!(user_of(std::slice::from_ref(&path)).is_none());
        let open = fs::File::create(path.join("file")).expect("made");
        let (user, mount) = user_of(std::slice::from_ref(&path)).expect("this process");
        assert!(user.starts_with(&std::process::id().to_string()), "{user}");
        assert_eq!(mount, path);
        drop(open);
    }

    #[test]
    fn what_was_mended_is_told_beside_what_is_left() {
        let mut findings = vec![Finding::ok("a", "well"), Finding::warning("b", "ill", "x"), Finding::ok("d", "well")];
        let outcome = |name: &str, done: Result<&str, &str>| Outcome {
            name: name.to_owned(),
            done: done.map(str::to_owned).map_err(str::to_owned),
        };
        let outcomes = vec![outcome("a", Ok("done")), outcome("b", Err("busy")), outcome("c", Ok("gone"))];
        enter(&mut findings, outcomes);
        let told: Vec<_> = findings.iter().map(|f| (f.detail.as_str(), f.fixed)).collect();
        let expected = [
            ("done; well", Some(true)),
            ("ill; not mended: busy", Some(false)),
            ("well", Some(false)),
            ("gone", Some(true)),
        ];
        assert_eq!(told, expected);
    }
}
