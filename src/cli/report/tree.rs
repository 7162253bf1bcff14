//! The files of a workspace as a tree, and the compact form of it that the page's script reads.
//!
//! Directories are one flat list, each after the one it is in, so that neither side needs recursion however deep a
//! repository is. Names of a directory's files are one text, joined with `/`, which no name has. Invariant: every file is
//! counted in the form; beyond [`FILES_NAMED_MAX`] the smallest of a directory are only sums.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::daemon::facts::area::{AreaRow, AreaState, path_bytes};

/// Files told by name: what a browser lays out in a moment. The smallest of those beyond are sums.
const FILES_NAMED_MAX: usize = 250_000;

/// What is drawn for a file of unknown size where none is known: a middling source file.
const AVERAGE_BYTES: u64 = 4096;

/// All states, in the order in which everything tells them.
pub(super) const STATES: [AreaState; 4] =
    [AreaState::Hydrated, AreaState::Cached, AreaState::Untouched, AreaState::Overlay];

pub(super) const fn slot(state: AreaState) -> usize {
    match state {
        AreaState::Hydrated => 0,
        AreaState::Cached => 1,
        AreaState::Untouched => 2,
        AreaState::Overlay => 3,
    }
}

/// Sums over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sum {
    pub files: u64,
    /// Of those whose size is known.
    pub bytes: u64,
    /// Files whose size is not.
    pub unknown: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unknown += other.unknown;
    }

    fn of(size: Option<u64>) -> Self {
        Self { files: 1, bytes: size.unwrap_or(0), unknown: u64::from(size.is_none()) }
    }
}

/// Sums by state.
pub(super) type Sums = [Sum; 4];

/// All states together.
pub(super) fn whole(sums: &Sums) -> Sum {
    sums.iter().fold(Sum::default(), |mut all, one| {
        all.add(*one);
        all
    })
}

pub(super) struct File {
    pub name: Box<[u8]>,
    pub size: Option<u64>,
    pub state: AreaState,
}

pub(super) struct Directory {
    /// The one it is in; of the root itself.
    pub parent: usize,
    pub name: Box<[u8]>,
    pub files: Vec<File>,
}

/// A workspace's files. They are added directory by directory, as [`crate::daemon::facts::area`] tells them.
pub(super) struct Tree {
    pub directories: Vec<Directory>,
    /// The directory the last file was added to, and those it is in.
    open: Vec<usize>,
    pub files: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Directory { parent: 0, name: Box::default(), files: Vec::new() };
        Self { directories: vec![root], open: vec![0], files: 0 }
    }

    pub(super) fn add(&mut self, row: &AreaRow) {
        let mut names: Vec<&[u8]> = path_bytes(&row.path).split(|byte| *byte == b'/').collect();
        let name = names.pop().unwrap_or_default();
        let same =
            names.iter().zip(self.open.iter().skip(1)).take_while(|(name, at)| *self.directories[**at].name == ***name);
        let same = same.count();
        self.open.truncate(same + 1);
        for name in &names[same..] {
            let parent = self.open.last().copied().unwrap_or(0);
            self.open.push(self.directories.len());
            self.directories.push(Directory { parent, name: Box::from(*name), files: Vec::new() });
        }
        let at = self.open.last().copied().unwrap_or(0);
        self.directories[at].files.push(File { name: Box::from(name), size: row.size, state: row.state });
        self.files += 1;
    }

    /// Sums of each directory with all that is below it.
    pub(super) fn sums(&self) -> Vec<Sums> {
        let mut sums = vec![Sums::default(); self.directories.len()];
        for (at, directory) in self.directories.iter().enumerate().rev() {
            for file in &directory.files {
                sums[at][slot(file.state)].add(Sum::of(file.size));
            }
            if at > 0 {
                let below = sums[at];
                for (above, below) in sums[directory.parent].iter_mut().zip(below) {
                    above.add(below);
                }
            }
        }
        sums
    }

    /// The directory at `path`, or the innermost that is there.
    pub(super) fn at(&self, path: &[u8]) -> usize {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let inner = |at: usize, name: &[u8]| {
            let mut below = self.directories.iter().enumerate().skip(at + 1);
            below.find(|(_, one)| one.parent == at && *one.name == *name).map(|(found, _)| found)
        };
        names
            .map_while({
                let mut at = 0;
                move |name| {
                    at = inner(at, name)?;
                    Some(at)
                }
            })
            .last()
            .unwrap_or(0)
    }

    /// The size that stands for one that is not known: the average of those that are.
    pub(super) fn average(all: Sum) -> u64 {
        all.bytes.checked_div(all.files - all.unknown).filter(|average| *average > 0).unwrap_or(AVERAGE_BYTES)
    }

    /// The size below which files are not told by name, so that `most` are.
    fn least_size(&self, most: usize) -> u64 {
        let mut sizes: Vec<u64> =
            self.directories.iter().flat_map(|one| &one.files).map(|file| file.size.unwrap_or(0)).collect();
        match sizes.len().checked_sub(most) {
            Some(beyond @ 1..) => *sizes.select_nth_unstable(beyond).1,
            _ => 0,
        }
    }

    /// The compact form.
    pub(super) fn compact(&self) -> Vec<CompactDirectory> {
        self.compact_with(FILES_NAMED_MAX)
    }

    fn compact_with(&self, most: usize) -> Vec<CompactDirectory> {
        let least = self.least_size(most);
        let mut left = most;
        self.directories
            .iter()
            .enumerate()
            .map(|(at, one)| {
                let (name, bytes) = text(&one.name);
                let mut compact = CompactDirectory {
                    parent: at.checked_sub(1).map(|_| one.parent),
                    name,
                    bytes,
                    ..CompactDirectory::default()
                };
                let mut rest = Sums::default();
                for file in &one.files {
                    if file.size.unwrap_or(0) < least || left == 0 {
                        rest[slot(file.state)].add(Sum::of(file.size));
                        continue;
                    }
                    left -= 1;
                    let (name, bytes) = text(&file.name);
                    if let Some(bytes) = bytes {
                        compact.odd.insert(compact.sizes.len(), bytes);
                    }
                    if !compact.sizes.is_empty() {
                        compact.files.push('/');
                    }
                    compact.files.push_str(&name);
                    compact.sizes.push(file.size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)));
                    compact.states.push(['h', 'c', 'u', 'o'][slot(file.state)]);
                }
                if rest != Sums::default() {
                    compact.others = Some(rest.map(|sum| [sum.files, sum.bytes, sum.unknown]));
                }
                compact
            })
            .collect()
    }
}

/// A directory for the script. Its fields are those that script.js reads.
#[derive(Default, Serialize)]
pub(super) struct CompactDirectory {
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    parent: Option<usize>,
    #[serde(rename = "n")]
    name: String,
    /// The name's bytes, where they are not UTF-8.
    #[serde(rename = "b", skip_serializing_if = "Option::is_none")]
    bytes: Option<Box<[u8]>>,
    #[serde(rename = "f", skip_serializing_if = "String::is_empty")]
    files: String,
    /// -1: not known.
    #[serde(rename = "s", skip_serializing_if = "Vec::is_empty")]
    sizes: Vec<i64>,
    #[serde(rename = "t", skip_serializing_if = "String::is_empty")]
    states: String,
    /// Bytes of the names that are not UTF-8, by number of the file.
    #[serde(rename = "x", skip_serializing_if = "BTreeMap::is_empty")]
    odd: BTreeMap<usize, Box<[u8]>>,
    /// Files, bytes and files of unknown size that are not told by name, by state.
    #[serde(rename = "o", skip_serializing_if = "Option::is_none")]
    others: Option<[[u64; 3]; 4]>,
}

/// A name as text, and its bytes where those are something else.
fn text(name: &[u8]) -> (String, Option<Box<[u8]>>) {
    match std::str::from_utf8(name) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(name).into_owned(), Some(Box::from(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::facts::PathText;

    fn tree(rows: &[(&[u8], Option<u64>, AreaState)]) -> Tree {
        let mut tree = Tree::new();
        for (path, size, state) in rows {
            tree.add(&AreaRow { path: PathText::from(*path), size: *size, state: *state });
        }
        tree
    }

    #[test]
    fn files_find_their_directories_and_sums_are_those_of_all_below() {
        let tree = tree(&[
            (b"a/b/one", Some(5), AreaState::Hydrated),
            (b"a/b/two", None, AreaState::Untouched),
            (b"a/c/\xff", Some(7), AreaState::Cached),
            (b"a/three", Some(1), AreaState::Overlay),
            (b"ab/b/one", Some(2), AreaState::Hydrated),
            (b"top", Some(3), AreaState::Hydrated),
        ]);
        assert_eq!((tree.files, tree.directories.len()), (6, 6));
        let sums = tree.sums();
        assert_eq!(sums[0][0], Sum { files: 3, bytes: 10, unknown: 0 });
        assert_eq!(whole(&sums[tree.at(b"a")]), Sum { files: 4, bytes: 13, unknown: 1 });
        assert_eq!((tree.at(b"ab/b"), tree.at(b"a/nothing"), tree.at(b"")), (5, 1, 0));
        assert_eq!(Tree::average(whole(&sums[0])), 3);
        let text = serde_json::to_value(tree.compact()).expect("JSON");
        assert_eq!(text[0], serde_json::json!({"n": "", "f": "top", "s": [3], "t": "h"}));
        assert_eq!(text[2], serde_json::json!({"p": 1, "n": "b", "f": "one/two", "s": [5, -1], "t": "hu"}));
        assert_eq!(text[3]["x"], serde_json::json!({"0": [255]}));
    }

    #[test]
    fn the_smallest_are_summed_where_there_are_too_many() {
        let names: Vec<String> = (0..100).map(|number| format!("d{}/f{number}", number / 50)).collect();
        let rows: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_bytes(), Some(at as u64 % 50), AreaState::Cached))
            .collect();
        let compact = tree(&rows).compact_with(10);
        assert_eq!(compact.iter().map(|one| one.sizes.len()).sum::<usize>(), 10);
        let others: u64 = compact.iter().filter_map(|one| one.others).map(|others| others[1][0]).sum();
        assert_eq!(others, 90);
        assert!(compact.iter().flat_map(|one| &one.sizes).all(|size| *size >= 45));
    }
}
