//! The extensions `TREE`, `UNTR` and `FSMN` (Documentation/gitformat-index).

use std::os::unix::ffi::OsStrExt;

use gix::ObjectId;

use super::entries::{EntriesWritten, push_stat, varint};
use super::ewah::bitmap;
use super::walk::{Directories, Directory};
use super::{ExcludeFile, IndexFileError, IndexSpec, UntrackedSpec};

/// `DIR_SHOW_OTHER_DIRECTORIES | DIR_HIDE_EMPTY_DIRECTORIES`: what `git status` asks for unless told otherwise.
const NORMAL_FLAGS: u32 = 0b110;

/// All extensions one after the other, each with its name and length.
pub(super) fn all(
    spec: &IndexSpec<'_>,
    directories: &Directories,
    entries: &EntriesWritten,
) -> Result<Vec<u8>, IndexFileError> {
    let children = Children::of(directories);
    let mut out = Vec::new();
    append(&mut out, *b"TREE", &cache_tree(directories, &children))?;
    if let Some(untracked) = &spec.untracked {
        append(&mut out, *b"UNTR", &untracked_cache(spec, untracked, directories, &children)?)?;
    }
    if let Some(token) = spec.fsmonitor_token {
        append(&mut out, *b"FSMN", &fsmonitor(token, entries))?;
    }
    Ok(out)
}

fn append(out: &mut Vec<u8>, name: [u8; 4], content: &[u8]) -> Result<(), IndexFileError> {
    let length = u32::try_from(content.len()).map_err(|_| IndexFileError::Invalid("an extension is over 4 GiB"))?;
    out.extend_from_slice(&name);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(content);
    Ok(())
}

/// Every directory's subdirectories, sorted by name.
struct Children {
    starts: Vec<usize>,
    numbers: Vec<u32>,
}

impl Children {
    fn of(directories: &Directories) -> Self {
        let mut starts = vec![0; directories.len() + 1];
        for directory in directories.all.iter().skip(1) {
            starts[directory.parent as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut free = starts.clone();
        let mut numbers = vec![0; directories.len() - 1];
        for (number, directory) in (0..).zip(&directories.all).skip(1) {
            let at = &mut free[directory.parent as usize];
            numbers[*at] = number;
            *at += 1;
        }
        for pair in starts.windows(2) {
            numbers[pair[0]..pair[1]].sort_by(|&a, &b| directories.name(a).cmp(directories.name(b)));
        }
        Self { starts, numbers }
    }

    fn get(&self, number: u32) -> &[u32] {
        &self.numbers[self.starts[number as usize]..self.starts[number as usize + 1]]
    }

    /// Visits all directories depth first, children in the order `arrange` gives them.
    fn depth_first(&self, mut arrange: impl FnMut(&mut [u32]), mut visit: impl FnMut(u32, &[u32])) {
        let mut stack = vec![0];
        let mut arranged = Vec::new();
        while let Some(number) = stack.pop() {
            let children = self.get(number);
            visit(number, children);
            arranged.clear();
            arranged.extend_from_slice(children);
            arrange(&mut arranged);
            stack.extend(arranged.iter().rev());
        }
    }
}

fn cache_tree(directories: &Directories, children: &Children) -> Vec<u8> {
    let mut out = Vec::with_capacity(directories.len() * 48);
    // Git keeps subtrees by length of name, then name; given in that order it appends instead of inserting.
    let by_length = |numbers: &mut [u32]| {
        numbers.sort_by_key(|&number| directories.name(number).len());
    };
    children.depth_first(by_length, |number, children| {
        let Directory { entries, exact, id, .. } = &directories.all[number as usize];
        out.extend_from_slice(directories.name(number));
        out.push(0);
        if *exact {
            out.extend_from_slice(format!("{entries} {}\n", children.len()).as_bytes());
            out.extend_from_slice(id.as_bytes());
        } else {
            out.extend_from_slice(format!("-1 {}\n", children.len()).as_bytes());
        }
    });
    out
}

fn untracked_cache(
    spec: &IndexSpec<'_>,
    untracked: &UntrackedSpec<'_>,
    directories: &Directories,
    children: &Children,
) -> Result<Vec<u8>, IndexFileError> {
    let worktree = untracked.worktree.as_os_str().as_bytes();
    if worktree.contains(&0) || !untracked.worktree.is_absolute() {
        return Err(IndexFileError::Invalid("the working tree's path is not absolute"));
    }
    let system = rustix::system::uname();
    let ident = [b"Location ", worktree, b", system ", system.sysname().to_bytes(), b"\0"].concat();
    let mut out = Vec::with_capacity(directories.len() * 64);
    varint(&mut out, ident.len() as u64);
    out.extend_from_slice(&ident);
    let outside = [&untracked.info_exclude, &untracked.excludes_file];
    for file in outside {
        push_stat(&mut out, &file.stat, None);
    }
    let flags = if untracked.show_all { 0 } else { NORMAL_FLAGS };
    out.extend_from_slice(&flags.to_be_bytes());
    let null = ObjectId::null(spec.object_format);
    let id_of = |file: &ExcludeFile| file.id.unwrap_or(null);
    for file in outside {
        out.extend_from_slice(id_of(file).as_bytes());
    }
    out.extend_from_slice(b".gitignore\0");
    varint(&mut out, directories.len() as u64);

    let (mut stats, mut ids) = (Vec::with_capacity(36 * directories.len()), Vec::new());
    let (mut valid, mut check_only, mut with_id) = (Vec::new(), Vec::new(), Vec::new());
    let mut written = 0_u32;
    children.depth_first(
        |_| {},
        |number, children| {
            let directory = &directories.all[number as usize];
            varint(&mut out, 0);
            varint(&mut out, children.len() as u64);
            out.extend_from_slice(directories.name(number));
            out.push(0);
            // Where the index is not what the tree says, a file of the tree may be untracked: Git looks itself.
            if !directory.exact {
                written += 1;
                return;
            }
            valid.push(written);
            push_stat(&mut stats, &directory.stat, None);
            // Git finds a directory without tracked files untracked, looks only whether it holds anything, and
            // marks what it saw on the way as seen by such a look.
            if directory.entries == 0 && number != 0 && !untracked.show_all {
                check_only.push(written);
            }
            if let Some(id) = directory.exclude.filter(|id| !id.is_null()) {
                with_id.push(written);
                ids.extend_from_slice(id.as_bytes());
            }
            written += 1;
        },
    );
    out.extend_from_slice(&bitmap(valid));
    out.extend_from_slice(&bitmap(check_only));
    out.extend_from_slice(&bitmap(with_id));
    out.extend_from_slice(&stats);
    out.extend_from_slice(&ids);
    out.push(0);
    Ok(out)
}

fn fsmonitor(token: &str, entries: &EntriesWritten) -> Vec<u8> {
    let mut out = 2_u32.to_be_bytes().to_vec();
    out.extend_from_slice(token.as_bytes());
    out.push(0);
    // The bitmap tells what is not known to be clean: gitlinks, which Git always looks at itself, and what was marked.
    let unknown = bitmap(entries.unknown.iter().copied());
    out.extend_from_slice(&u32::try_from(unknown.len()).expect("a bitmap over 32-bit positions").to_be_bytes());
    out.extend_from_slice(&unknown);
    out
}
