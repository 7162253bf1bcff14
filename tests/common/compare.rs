//! Two trees, entry by entry: what `lstat`, `readlink` and `read` say of every path.
//!
//! Owns the walk. It follows no symlink and leaves out a `.git` at the top,
//! which is a directory in a clone and a file in a mount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// What a path is and holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Directory { mode: u32 },
    File { mode: u32, size: u64, blake3: blake3::Hash },
    Symlink { size: u64, target: Vec<u8> },
    Other { mode: u32 },
}

/// Numbers and times that must outlive a remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub ino: u64,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
    pub size: u64,
    pub nlink_is_set: bool,
}

/// Every path below `root`, relative, with what it holds.
pub fn tree(root: &Path) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut |path, name| {
        let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("lstat {}: {error}", path.display()));
        let mode = meta.permissions().mode() & 0o7777;
        let entry = if meta.is_dir() {
            Entry::Directory { mode }
        } else if meta.is_file() {
            let bytes = fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            assert_eq!(bytes.len() as u64, meta.len(), "{}: size and content disagree", path.display());
            Entry::File { mode, size: meta.len(), blake3: blake3::hash(&bytes) }
        } else if meta.is_symlink() {
            let target = fs::read_link(path).unwrap_or_else(|error| panic!("readlink {}: {error}", path.display()));
            Entry::Symlink { size: meta.len(), target: target.as_os_str().as_bytes().to_vec() }
        } else {
            Entry::Other { mode }
        };
        found.insert(name.to_vec(), entry);
    });
    found
}

/// Every path below `root` with its identity; reads no content.
pub fn identities(root: &Path) -> BTreeMap<Vec<u8>, Identity> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut |path, name| {
        let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("lstat {}: {error}", path.display()));
        let identity = Identity {
            ino: meta.ino(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            size: meta.len(),
            nlink_is_set: meta.nlink() > 0,
        };
        found.insert(name.to_vec(), identity);
    });
    found
}

fn walk(root: &Path, dir: &Path, see: &mut impl FnMut(&Path, &[u8])) {
    let listing = fs::read_dir(dir).unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
    for entry in listing {
        let entry = entry.unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
        let path = entry.path();
        if dir == root && entry.file_name() == ".git" {
            continue;
        }
        see(&path, path.strip_prefix(root).expect("the walk stays below its root").as_os_str().as_bytes());
        if entry.file_type().unwrap_or_else(|error| panic!("type of {}: {error}", path.display())).is_dir() {
            walk(root, &path, see);
        }
    }
}

/// Fails with the first few paths that differ.
#[track_caller]
pub fn assert_same<T: PartialEq + std::fmt::Debug>(wanted: &BTreeMap<Vec<u8>, T>, found: &BTreeMap<Vec<u8>, T>) {
    let paths = wanted.keys().chain(found.keys().filter(|path| !wanted.contains_key(*path)));
    let differing: Vec<String> = paths
        .filter(|path| wanted.get(*path) != found.get(*path))
        .map(|path| format!("{}: wanted {:?}, found {:?}", path.escape_ascii(), wanted.get(path), found.get(path)))
        .collect();
    assert!(!wanted.is_empty(), "a comparison with nothing proves nothing");
    assert!(
        differing.is_empty(),
        "{} of {} paths differ:\n{}",
        differing.len(),
        wanted.len(),
        differing[..differing.len().min(10)].join("\n")
    );
}
