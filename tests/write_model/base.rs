//! What both sides hold at first.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::common::repos;

/// Size of the file that has several frames.
pub const BIG_BYTES: usize = 300 << 10;

/// Times that operations set are before this, times that the system sets long after it.
pub const LAST_SET_TIME: i64 = 1_000_000_000;

/// A repository with files of every size class, links, and a directory that nobody reads at first.
pub fn repository(dir: &Path) {
    repos::init(dir, "sha1");
    repos::write(dir, "a.txt", "alpha\n");
    repos::write(dir, "big", repos::noise(1, BIG_BYTES));
    repos::write(dir, "run.sh", "#!/bin/sh\n");
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("just written");
    for (target, name) in [("a.txt", "link"), ("d", "dirlink")] {
        symlink(target, dir.join(name)).expect("the fixture is writable");
    }
    repos::write(dir, "d/one", repos::noise(2, 5000));
    repos::write(dir, "d/two", "");
    repos::write(dir, "d/e/three", repos::noise(3, 4096));
    repos::write(dir, "src/x", "x\n".repeat(100));
    repos::write(dir, "src/deep/y", repos::noise(4, 70_000));
    repos::write(dir, "cold/f0", repos::noise(5, 9000));
    repos::write(dir, "cold/f1", "cold\n");
    repos::commit_all(dir, "base");
}

/// A checkout without its repository, with the times that `mount` shows: a copy would have read every file.
pub fn plain_copy(source: &Path, mount: &Path, to: &Path) {
    repos::clone(source, None, to);
    fs::remove_dir_all(to.join(".git")).expect("a clone has one");
    let mut paths = Vec::new();
    below(to, to, &mut paths);
    // What is in a directory before the directory.
    for path in paths.iter().rev() {
        let meta = mount.join(path).symlink_metadata().expect("a mount has what a clone has");
        let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, to.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).expect("times can be set");
    }
}

fn below(root: &Path, dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("it lists") {
        let path = entry.expect("it lists").path();
        paths.push(path.strip_prefix(root).expect("below").to_owned());
        if path.symlink_metadata().expect("it stats").is_dir() {
            below(root, &path, paths);
        }
    }
}
