//! The directories and their disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::confinement;
use super::finding::{Finding, Mend, as_root, quoted};
use crate::cli::bounded::bounded;
use crate::config::Config;
use crate::config::quantity::human_bytes;

/// Below this a large repository may not fit.
const LITTLE_BYTES: u64 = 1 << 30;
/// Below this the store can hardly commit.
const NO_BYTES: u64 = 64 << 20;
/// Below this a gitdir and the plain files of a workspace may not fit.
const FEW_INODES: u64 = 10_000;

/// What is to be known of a file system whose magic number (statfs(2)) is this: its name, and what is wrong with it.
const FILE_SYSTEMS: &[(i64, &str, &str)] = &[
    (0x6969, "nfs", NETWORK),
    (0x517b, "smb", NETWORK),
    (0xff53_4d42, "cifs", NETWORK),
    (0xfe53_4d42, "smb2", NETWORK),
    (0x0102_1997, "9p", NETWORK),
    (0x00c3_6400, "ceph", NETWORK),
    (0x0bd0_0bd0, "lustre", NETWORK),
    (0x5346_414f, "afs", NETWORK),
    (0x6573_5546, "fuse", "another program serves it: locks and sync may not hold, and mounts would wait for it"),
    (0x0102_1994, "tmpfs", "it is in memory: the cache and all local changes are gone after a restart"),
    (0x8584_58f6, "ramfs", "it is in memory: the cache and all local changes are gone after a restart"),
];
const NETWORK: &str = "a file system of the network: locks and sync may not hold, and every read pays its latency";
/// A container's own layer.
const OVERLAYFS: i64 = 0x794c_7630;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut found = vec![
        directory("state directory", &config.home),
        directory("run directory", &config.run_dir),
        disk(&config.home),
    ];
    found.push(file_system(&config.home));
    found
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
        let command = as_root(&format!("chown -R {own} {}", quoted(path)));
        return Finding::error(name, detail, "set LARDER_HOME to a directory of your own, or take this one")
            .run(command);
    }
    let mode = meta.mode() & 0o7777;
    let mended =
        |finding: Finding| finding.run(format!("chmod 700 {}", quoted(path))).mended_by(Mend::Close(path.to_owned()));
    if mode & 0o700 != 0o700 {
        return mended(Finding::error(name, format!("{shown} has mode {mode:04o}"), "let its owner in"));
    }
    if mode & 0o077 != 0 {
        let detail = format!("{shown} is open to others: mode {mode:04o}");
        return mended(Finding::warning(name, detail, "close it to others; the next daemon does so too"));
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
            // File systems without a fixed number of inodes tell 0 of 0.
            let inodes = (space.f_files > 0).then_some(space.f_favail);
            match (free, inodes) {
                (free, _) if free < NO_BYTES => Finding::error("disk", detail, fix),
                (_, Some(0)) => Finding::error("disk", format!("{detail}, and no inode"), "remove files there"),
                (free, _) if free < LITTLE_BYTES => Finding::warning("disk", detail, fix),
                (_, Some(few)) if few < FEW_INODES => {
                    Finding::warning("disk", format!("{detail}, and only {few} inodes"), "remove files there")
                }
                _ => Finding::ok("disk", detail),
            }
        }
        Some(Err(error)) => Finding::warning("disk", format!("free space at {shown} is unknown: {error}"), fix),
        None => Finding::error("disk", format!("the file system at {shown} does not answer"), fix),
    }
}

/// What the state lies on.
fn file_system(home: &Path) -> Finding {
    const NAME: &str = "file system";
    let existing = home.ancestors().find(|path| path.exists()).unwrap_or(home).to_owned();
    let asked = existing.clone();
    let shown = existing.display();
    match bounded(move || rustix::fs::statfs(&asked)) {
        Some(Ok(found)) => judge_file_system(magic_of(&found), &shown.to_string(), confinement::container().is_some()),
        Some(Err(error)) => Finding::warning(NAME, format!("{shown}: {error}"), "check the disk"),
        None => {
            Finding::error(NAME, format!("the one at {shown} does not answer"), "mount it anew, or set LARDER_HOME")
        }
    }
}

#[expect(clippy::useless_conversion, reason = "the number has another type on other machines")]
fn magic_of(found: &rustix::fs::StatFs) -> i64 {
    i64::from(found.f_type)
}

fn judge_file_system(magic: i64, shown: &str, contained: bool) -> Finding {
    const NAME: &str = "file system";
    let fix = "set LARDER_HOME to a directory on a disk of this machine";
    // The number is 32 bits wide, and on some machines told with a sign.
    let magic = magic & 0xffff_ffff;
    if magic == OVERLAYFS && contained {
        let detail = format!("{shown} is in the container's own layer: the cache and all local changes go with it");
        return Finding::warning(NAME, detail, "set LARDER_HOME to a volume of the container");
    }
    match FILE_SYSTEMS.iter().find(|(known, _, _)| *known == magic) {
        Some((_, kind, trouble)) => Finding::warning(NAME, format!("{shown} is on {kind}: {trouble}"), fix),
        None => Finding::ok(NAME, format!("{shown} is on a local one")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn a_directory_open_to_others_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let with = |mode| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("own directory");
            directory("d", dir.path())
        };
        assert_eq!((with(0o755).severity, with(0o755).fixable), (Severity::Warning, true));
        assert_eq!((with(0o500).severity, with(0o500).fixable), (Severity::Error, true));
        assert_eq!((with(0o700).severity, with(0o700).fixable), (Severity::Ok, false));
        assert_eq!(directory("d", &dir.path().join("none")).severity, Severity::Ok);
        let file = dir.path().join("file");
        fs::write(&file, b"").expect("written");
        assert_eq!(directory("d", &file).severity, Severity::Error);
    }

    #[test]
    fn file_systems_that_lose_or_delay_are_named() {
        assert_eq!(judge_file_system(0xef53, "/x", true).severity, Severity::Ok);
        assert!(judge_file_system(0x6969, "/x", false).detail.contains("on nfs"));
        assert!(judge_file_system(0x0102_1994, "/x", false).detail.contains("after a restart"));
        // As a 32-bit machine tells it.
        assert!(judge_file_system(i64::from(0xff53_4d42_u32.cast_signed()), "/x", false).detail.contains("cifs"));
        assert_eq!(judge_file_system(OVERLAYFS, "/x", false).severity, Severity::Ok);
        assert_eq!(judge_file_system(OVERLAYFS, "/x", true).severity, Severity::Warning);
    }
}
