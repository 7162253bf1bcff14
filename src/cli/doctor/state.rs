//! The directories, their disk and the store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::cli::bounded::bounded;
use crate::config::Config;
use crate::config::quantity::human_bytes;
use crate::store::{Store, StoreErrorKind};

/// Below this a large repository may not fit.
const LITTLE_BYTES: u64 = 1 << 30;
/// Below this the store can hardly commit.
const NO_BYTES: u64 = 64 << 20;

pub(super) fn findings(config: &Config, daemon_runs: bool) -> Vec<Finding> {
    vec![
        directory("state directory", &config.home),
        directory("run directory", &config.run_dir),
        disk(&config.home),
        store(config, daemon_runs),
    ]
}

fn directory(name: &str, path: &Path) -> Finding {
    let shown = path.display();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok(name, format!("{shown} is made at the first start"));
        }
        Err(error) => return Finding::error(name, format!("{shown}: {error}"), "check its permissions and its disk"),
    };
    let own = rustix::process::getuid().as_raw();
    if !meta.is_dir() {
        return Finding::error(name, format!("{shown} is not a directory"), "move it away, or set LARDER_HOME");
    }
    if meta.uid() != own {
        let detail = format!("{shown} belongs to user {}, you are {own}", meta.uid());
        return Finding::error(name, detail, "set LARDER_HOME to a directory of your own");
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o700 != 0o700 {
        return Finding::error(name, format!("{shown} has mode {mode:04o}"), format!("`chmod 700 {shown}`"));
    }
    if mode & 0o077 != 0 {
        return Finding::warning(
            name,
            format!("{shown} is open to others: mode {mode:04o}"),
            format!("`chmod 700 {shown}`"),
        );
    }
    Finding::ok(name, format!("{shown}, mode {mode:04o}"))
}

fn disk(home: &Path) -> Finding {
    let existing = home.ancestors().find(|path| path.exists()).unwrap_or(home).to_owned();
    let asked = existing.clone();
    let fix = "make room, or set LARDER_HOME to a directory on a larger disk";
    let shown = existing.display();
    match bounded(move || rustix::fs::statvfs(&asked)) {
        Some(Ok(space)) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let detail = format!("{} free at {shown}", human_bytes(free));
            match free {
                free if free < NO_BYTES => Finding::error("disk", detail, fix),
                free if free < LITTLE_BYTES => Finding::warning("disk", detail, fix),
                _ => Finding::ok("disk", detail),
            }
        }
        Some(Err(error)) => Finding::warning("disk", format!("free space at {shown} is unknown: {error}"), fix),
        None => Finding::error("disk", format!("the file system at {shown} does not answer"), fix),
    }
}

fn store(config: &Config, daemon_runs: bool) -> Finding {
    const NAME: &str = "store";
    let path = config.store_path.display();
    if daemon_runs {
        return Finding::ok(NAME, format!("{path} is open in the running daemon"));
    }
    if !config.store_path.exists() {
        return Finding::ok(NAME, format!("{path} is made at the first mount"));
    }
    match Store::open_read_only(&config.store_path).and_then(|store| store.stats()) {
        Ok(stats) => Finding::ok(
            NAME,
            format!(
                "{path} opens: {} blobs and {} trees in {}",
                stats.blobs,
                stats.trees,
                human_bytes(stats.file_bytes)
            ),
        ),
        Err(error) if error.kind == StoreErrorKind::Busy => {
            Finding::warning(NAME, error.message, "another process holds it; a daemon may be starting: look again")
        }
        Err(error) => Finding::failed(NAME, error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Severity;
    use super::*;

    #[test]
    fn a_directory_open_to_others_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let with = |mode| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("own directory");
            directory("d", dir.path()).severity
        };
        assert_eq!(with(0o755), Severity::Warning);
        assert_eq!(with(0o500), Severity::Error);
        assert_eq!(with(0o700), Severity::Ok);
        assert_eq!(directory("d", &dir.path().join("none")).severity, Severity::Ok);
        let file = dir.path().join("file");
        fs::write(&file, b"").expect("written");
        assert_eq!(directory("d", &file).severity, Severity::Error);
    }
}
