//! The writer alone, over made-up trees; `tests/git_worktree.rs` lets Git judge it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use gix::objs::Kind as ObjectKind;

use super::*;
use crate::store::Entry;

/// Trees by id, made from names and modes.
#[derive(Default)]
struct Trees(HashMap<ObjectId, Listing>);

impl Trees {
    /// Adds a tree; its id is made from its content, not Git's own.
    fn add(&mut self, entries: &[(&[u8], u16, ObjectId)]) -> ObjectId {
        let packed = entries
            .iter()
            .map(|&(name, mode, id)| Entry { name, kind: EntryKind::from_mode(mode).expect("test mode"), mode, id })
            .collect();
        let listing = Listing::pack(20, packed).expect("no duplicates");
        let id = gix::objs::compute_hash(Kind::Sha1, ObjectKind::Blob, listing.as_bytes()).expect("hashed");
        self.0.insert(id, listing);
        id
    }

    fn write(&self, admin: &Path, root: ObjectId, max_paths: u64) -> Result<IndexWritten, IndexFileError> {
        self.write_with(admin, root, max_paths, &|_| Stat::default())
    }

    fn write_with(
        &self,
        admin: &Path,
        root: ObjectId,
        max_paths: u64,
        stat: &dyn Fn(&StatRequest<'_>) -> Stat,
    ) -> Result<IndexWritten, IndexFileError> {
        let spec = IndexSpec {
            object_format: Kind::Sha1,
            root,
            trees: &|id| self.0.get(id).cloned().ok_or_else(|| "absent".into()),
            stat,
            fsmonitor_token: Some("t"),
            untracked: Some(UntrackedSpec {
                worktree: Path::new("/mount"),
                info_exclude: ExcludeFile::default(),
                excludes_file: ExcludeFile::default(),
                show_all: false,
                exclude_id: &|_, id| Some(*id),
            }),
            max_paths,
        };
        write(admin, &spec)
    }
}

fn blob() -> ObjectId {
    ObjectId::from_bytes_or_panic(&[9; 20])
}

const FILE: u16 = 0o100_644;
const DIR: u16 = 0o040_000;

#[test]
fn paths_come_in_whole_path_order_and_directories_before_their_children() {
    let mut trees = Trees::default();
    let leaf = trees.add(&[(b"x", FILE, blob())]);
    let root = trees.add(&[
        (b"a", DIR, leaf),
        (b"a-b", DIR, leaf),
        (b"a.b", FILE, blob()),
        (b"a0", FILE, blob()),
        (b"link", 0o160_000, blob()),
        (b"z", DIR, leaf),
    ]);
    let asked = RefCell::new(Vec::new());
    let admin = tempfile::tempdir().expect("temporary directory");
    let stat = |request: &StatRequest<'_>| {
        let path = String::from_utf8_lossy(request.path).into_owned();
        asked.borrow_mut().push((path, request.parent, request.position));
        Stat::default()
    };
    let written = trees.write_with(admin.path(), root, 100, &stat).expect("written");
    let expected = [
        ("", 0, 0),
        ("a-b", 0, 1),
        ("a-b/x", 1, 0),
        ("a.b", 0, 2),
        ("a", 0, 0),
        ("a/x", 2, 0),
        ("a0", 0, 3),
        ("z", 0, 5),
        ("z/x", 3, 0),
    ];
    assert_eq!(asked.into_inner(), expected.map(|(path, parent, position)| (path.to_owned(), parent, position)));
    assert_eq!((written.entries, written.directories, written.omitted), (6, 4, 0));
    let size = fs::metadata(admin.path().join("index")).expect("there").len();
    assert_eq!(written.bytes, size);
}

#[test]
fn names_no_working_tree_can_hold_are_left_out_and_their_trees_marked() {
    let mut trees = Trees::default();
    let bad =
        trees.add(&[(b".git", FILE, blob()), (b"ok", FILE, blob()), (b"..", DIR, blob()), (b"a/b", FILE, blob())]);
    let root = trees.add(&[(b"bad", DIR, bad), (b".GiT", DIR, bad), (b"nul\0", FILE, blob()), (b"fine", FILE, blob())]);
    let admin = tempfile::tempdir().expect("temporary directory");
    let written = trees.write(admin.path(), root, 100).expect("written");
    assert_eq!((written.entries, written.omitted), (2, 5));
    let index = fs::read(admin.path().join("index")).expect("readable");
    let at = index.windows(4).position(|window| window == b"TREE").expect("cache tree");
    assert!(index[at + 8..].starts_with(b"\0-1 1\nbad\0-1 0\n"), "{}", index[at..].escape_ascii());
}

#[test]
fn a_tree_that_multiplies_is_refused_and_leaves_nothing() {
    let mut trees = Trees::default();
    let names: Vec<[u8; 1]> = (b'a'..=b'j').map(|name| [name]).collect();
    let mut tree = trees.add(&[(b"x", FILE, blob())]);
    for _ in 0..10 {
        let entries: Vec<(&[u8], u16, ObjectId)> = names.iter().map(|name| (&name[..], DIR, tree)).collect();
        tree = trees.add(&entries);
    }
    let admin = tempfile::tempdir().expect("temporary directory");
    let error = trees.write(admin.path(), tree, 10_000).expect_err("ten thousand million paths");
    assert!(matches!(error, IndexFileError::TooLarge { .. }), "{error}");
    assert_eq!(fs::read_dir(admin.path()).expect("listed").count(), 0);
}

#[test]
fn depth_has_a_bound_and_a_missing_tree_is_named() {
    let mut trees = Trees::default();
    let mut tree = trees.add(&[(b"x", FILE, blob())]);
    for _ in 0..=MAX_DEPTH {
        tree = trees.add(&[(b"d", DIR, tree)]);
    }
    let admin = tempfile::tempdir().expect("temporary directory");
    let error = trees.write(admin.path(), tree, u64::MAX).expect_err("too deep");
    assert!(matches!(error, IndexFileError::TooLarge { .. }), "{error}");
    let root = trees.add(&[(b"gone", DIR, blob())]);
    let error = trees.write(admin.path(), root, 100).expect_err("missing");
    assert!(matches!(&error, IndexFileError::Tree { path, id, .. } if path == b"gone" && *id == blob()), "{error}");
    let foreign = ObjectId::null(Kind::Sha256);
    assert!(matches!(trees.write(admin.path(), foreign, 100), Err(IndexFileError::Invalid(_))));
}

#[test]
fn what_git_reads_first_is_told() {
    let mut trees = Trees::default();
    let sub = trees.add(&[(b".gitattributes", FILE, blob()), (b".gitignore", 0o120_000, blob())]);
    let root = trees.add(&[(b".gitignore", 0o100_755, blob()), (b"sub", DIR, sub)]);
    let admin = tempfile::tempdir().expect("temporary directory");
    let written = trees.write(admin.path(), root, 100).expect("written");
    let paths: Vec<_> = written.read_first.iter().map(|(path, _)| path.escape_ascii().to_string()).collect();
    assert_eq!(paths, [".gitignore", "sub/.gitattributes"], "a symbolic link is not followed by Git");
}

#[test]
fn the_checksum_is_over_all_that_comes_before() {
    let mut trees = Trees::default();
    let leaf: Vec<Vec<u8>> =
        (0..3000).map(|n| format!("file-{n:05}-with-a-name-of-some-length").into_bytes()).collect();
    let entries: Vec<(&[u8], u16, ObjectId)> = leaf.iter().map(|name| (&name[..], FILE, blob())).collect();
    let leaf = trees.add(&entries);
    let root = trees.add(&[(b"a", DIR, leaf), (b"b", DIR, leaf), (b"c", DIR, leaf), (b"d", DIR, leaf)]);
    let admin = tempfile::tempdir().expect("temporary directory");
    let asked = Cell::new(0);
    let stat = |_: &StatRequest<'_>| {
        asked.set(asked.get() + 1);
        Stat { size: 1, ..Stat::default() }
    };
    trees.write_with(admin.path(), root, u64::MAX, &stat).expect("written");
    assert_eq!(asked.get(), 12_005);
    let index = fs::read(admin.path().join("index")).expect("readable");
    assert!(index.len() > 2 * (512 << 10), "larger than a buffer: {}", index.len());
    let (content, checksum) = index.split_at(index.len() - 20);
    assert_eq!(sha1::Sha1::digest(content)[..], *checksum);
    assert_eq!(index[8..12], 12_000_u32.to_be_bytes());
}

#[test]
fn sizes_keep_zero_for_what_is_empty() {
    assert_eq!(Stat::size_field(0), 0);
    assert_eq!(Stat::size_field(7), 7);
    assert_eq!(Stat::size_field(1 << 32), 0x8000_0000);
    assert_eq!(Stat::size_field((1 << 32) + 5), 5);
}

#[test]
fn an_ignore_file_is_hashed_as_git_hashes_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("exclude");
    assert_eq!(ExcludeFile::read(&path, Kind::Sha1), ExcludeFile::default());
    fs::write(&path, "").expect("written");
    assert_eq!(ExcludeFile::read(&path, Kind::Sha1).id, Some(ObjectId::empty_blob(Kind::Sha1)));
    fs::write(&path, "*.o").expect("written");
    let hashed = gix::objs::compute_hash(Kind::Sha1, ObjectKind::Blob, b"*.o\n").expect("hashed");
    assert_eq!(ExcludeFile::read(&path, Kind::Sha1).id, Some(hashed));
    assert_eq!(ExcludeFile::read(dir.path(), Kind::Sha1), ExcludeFile::default(), "a directory is none");
}
