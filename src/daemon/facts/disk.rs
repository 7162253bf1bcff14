//! What the cache's directory takes on the disk, as `du -s` counts it.
//!
//! Allocated blocks, a file with several names once, other file systems left out. Invariant: the parts add up to the whole.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::Failure;
use crate::store::StoreStats;

/// Units that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Workspaces and repositories told at most; what others take is one row.
const ROWS_MAX: usize = 500;

/// What the cache's directory takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// All of it.
    pub total_bytes: u64,
    /// The store's file.
    pub store: StoreFile,
    /// Local changes of each workspace.
    pub overlays: Vec<DiskRow>,
    /// The gitdir of each repository, where Larder made it.
    pub gitdirs: Vec<DiskRow>,
    /// Logs.
    pub logs_bytes: u64,
    /// Everything else: directories, sockets, locks.
    pub other_bytes: u64,
}

/// A part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRow {
    /// Whose it is.
    pub key: String,
    /// What it takes.
    pub bytes: u64,
}

/// The store's file: `blobs_stored_bytes`, all tables and `other_bytes` together are `file_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFile {
    /// Bytes it occupies.
    pub file_bytes: u64,
    /// Stored bytes of all blobs.
    pub blobs_stored_bytes: u64,
    /// Pages of each table but that of the stored bytes.
    pub tables: Vec<DiskTable>,
    /// Free pages, the unused ends of pages with stored bytes, and redb's own records. Below zero where the file system
    /// compresses.
    pub other_bytes: i64,
}

/// A table of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its pages.
    pub bytes: u64,
}

/// What a file belongs to.
enum Part {
    Store,
    Overlay(u64),
    Gitdir(u64),
    Logs,
    Other,
}

/// Measures the directory of the cache. `stats`: what is in the store.
pub(super) fn measure(sources: &Sources<'_>, stats: &StoreStats) -> Result<Disk, Failure> {
    let mut disk = Disk::default();
    let (mut overlays, mut gitdirs) = (BTreeMap::new(), BTreeMap::new());
    let home = &sources.config.home;
    let mut store_bytes = 0;
    each_file(home, &mut |path, bytes| {
        disk.total_bytes += bytes;
        match part(sources, path.strip_prefix(home).unwrap_or(path)) {
            Part::Store => store_bytes += bytes,
            Part::Overlay(number) => *overlays.entry(number).or_default() += bytes,
            Part::Gitdir(number) => *gitdirs.entry(number).or_default() += bytes,
            Part::Logs => disk.logs_bytes += bytes,
            Part::Other => disk.other_bytes += bytes,
        }
    });
    let workspaces: BTreeMap<u64, String> =
        sources.store.workspaces()?.into_iter().map(|row| (row.id.0, row.name)).collect();
    let repositories: BTreeMap<u64, String> =
        sources.store.repositories()?.into_iter().map(|row| (row.id.0, row.url)).collect();
    disk.overlays = named(&overlays, &workspaces, "workspace");
    disk.gitdirs = named(&gitdirs, &repositories, "repository");
    disk.store = store_file(sources, store_bytes, stats.stored_bytes)?;
    Ok(disk)
}

fn part(sources: &Sources<'_>, path: &Path) -> Part {
    let mut names = path.iter().map(|name| name.to_string_lossy());
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    let is = |file: &PathBuf, prefix: bool| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if prefix { first.starts_with(&*name) } else { first == *name }
    };
    match (&*first, second) {
        ("overlay", Some(number)) => number.parse().map_or(Part::Other, Part::Overlay),
        ("repositories", Some(name)) => {
            name.strip_suffix(".git").and_then(|number| number.parse().ok()).map_or(Part::Other, Part::Gitdir)
        }
        (_, None) if is(&sources.config.store_path, false) => Part::Store,
        (_, None) if is(&sources.config.log_path, true) => Part::Logs,
        _ => Part::Other,
    }
}

fn named(parts: &BTreeMap<u64, u64>, names: &BTreeMap<u64, String>, what: &str) -> Vec<DiskRow> {
    let name = |number: &u64| names.get(number).cloned().unwrap_or_else(|| format!("{what} {number}, not known"));
    let mut rows: Vec<DiskRow> =
        parts.iter().map(|(number, bytes)| DiskRow { key: name(number), bytes: *bytes }).collect();
    if rows.len() > ROWS_MAX {
        let bytes = rows.drain(ROWS_MAX..).map(|row| row.bytes).sum();
        rows.push(DiskRow { key: "others".to_owned(), bytes });
    }
    rows
}

fn store_file(sources: &Sources<'_>, file_bytes: u64, blobs_stored_bytes: u64) -> Result<StoreFile, Failure> {
    let tables: Vec<DiskTable> = sources
        .store
        .table_sizes()?
        .into_iter()
        .map(|table| DiskTable { name: table.name, rows: table.rows, bytes: table.bytes })
        .collect();
    let known = blobs_stored_bytes + tables.iter().map(|table| table.bytes).sum::<u64>();
    let other_bytes = i64::try_from(file_bytes).unwrap_or(i64::MAX) - i64::try_from(known).unwrap_or(i64::MAX);
    Ok(StoreFile { file_bytes, blobs_stored_bytes, tables, other_bytes })
}

/// Calls `see` with everything at and below `root` that is on its file system, and its allocated bytes. What goes
/// meanwhile, or can't be looked at, takes nothing.
fn each_file(root: &Path, see: &mut dyn FnMut(&Path, u64)) {
    let Ok(top) = fs::symlink_metadata(root) else { return };
    see(root, top.blocks() * BLOCK_BYTES);
    let mut seen: HashSet<u64> = HashSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != top.dev() || (!found.is_dir() && found.nlink() > 1 && !seen.insert(found.ino())) {
                continue;
            }
            let path = entry.path();
            see(&path, found.blocks() * BLOCK_BYTES);
            if found.is_dir() {
                open.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_once_and_directories_too() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("d")).expect("made");
        fs::write(path("d/a"), vec![1; 100_000]).expect("written");
        fs::hard_link(path("d/a"), path("b")).expect("linked");
        std::os::unix::fs::symlink("nowhere", path("l")).expect("linked");
        let (mut count, mut bytes) = (0, 0);
        each_file(directory.path(), &mut |_, size| {
            count += 1;
            bytes += size;
        });
        assert_eq!(count, 4, "the directory, d, the file, the link");
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
