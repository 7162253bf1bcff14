//! Two whole trees, compared: everything that an operation could have set.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::side::{Stat, attribute, attribute_names};

/// What a path is, holds and shares.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    stat: Stat,
    /// BLAKE3 of a file's bytes, or a symlink's target.
    content: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first path, in order, that is the same file.
    same_as: Vec<u8>,
    time: (i64, i64),
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn tree(root: &Path) -> Result<Tree, String> {
    let mut paths = Vec::new();
    list(root, root, &mut paths)?;
    paths.sort();
    let mut first_names = HashMap::new();
    paths.into_iter().map(|name| entry(root, &name, &mut first_names).map(|entry| (name, entry))).collect()
}

fn list(root: &Path, dir: &Path, paths: &mut Vec<Vec<u8>>) -> Result<(), String> {
    let failed = |error| format!("listing {}: {error}", dir.display());
    for found in fs::read_dir(dir).map_err(failed)? {
        let found = found.map_err(failed)?;
        let path = found.path();
        if dir == root && found.file_name() == ".git" {
            continue;
        }
        paths.push(path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_vec());
        if found.file_type().map_err(failed)?.is_dir() {
            list(root, &path, paths)?;
        }
    }
    Ok(())
}

fn entry(root: &Path, name: &[u8], first_names: &mut HashMap<u64, Vec<u8>>) -> Result<Entry, String> {
    let path = root.join(std::ffi::OsStr::from_bytes(name));
    let failed = |error| format!("{}: {error}", path.display());
    let meta = path.symlink_metadata().map_err(failed)?;
    let content = if meta.is_file() {
        let bytes = fs::read(&path).map_err(failed)?;
        if bytes.len() as u64 != meta.len() {
            return Err(format!("{}: {} bytes, and a size of {}", path.display(), bytes.len(), meta.len()));
        }
        blake3::hash(&bytes).as_bytes().to_vec()
    } else if meta.is_symlink() {
        fs::read_link(&path).map_err(failed)?.as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let mut attributes = Vec::new();
    for name in attribute_names(&path).map_err(failed)? {
        let value = attribute(&path, std::str::from_utf8(&name).expect("ours are UTF-8")).map_err(failed)?;
        attributes.push((name, value));
    }
    let same_as = first_names.entry(meta.ino()).or_insert_with(|| name.to_vec()).clone();
    Ok(Entry { stat: Stat::of(&meta), content, attributes, same_as, time: (meta.mtime(), meta.mtime_nsec()) })
}

/// What differs. Times from before `start` (seconds) were set, by an operation or the commit, and must be equal; later
/// ones are the moments of the operations, which each side has done in its own time.
pub fn difference(plain: &Path, mount: &Path, start: i64) -> Result<(), String> {
    let (wanted, found) = (tree(plain)?, tree(mount)?);
    let settled = |entry: &Entry| entry.time.0 < start;
    let names = wanted.keys().chain(found.keys().filter(|name| !wanted.contains_key(*name)));
    for name in names {
        let (wanted, found) = match (wanted.get(name), found.get(name)) {
            (Some(wanted), Some(found)) => (wanted, found),
            (wanted, found) => return Err(format!("{}: {wanted:?} | {found:?}", name.escape_ascii())),
        };
        let times_agree = settled(wanted) == settled(found) && (!settled(wanted) || wanted.time == found.time);
        let rest = |entry: &Entry| Entry { time: (0, 0), ..entry.clone() };
        if !times_agree || rest(wanted) != rest(found) {
            return Err(format!("{} (plain | mount):\n{wanted:?}\n{found:?}", name.escape_ascii()));
        }
    }
    Ok(())
}
