//! Repositories to mount: ordinary, awkward, hostile.
//!
//! Owns their content, which is the same at every run, and a writer of loose
//! objects that checks nothing, for trees that no git would write.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest, Sha1};

use super::{COMMAND_LIMIT, git, git_out, run, text};

/// Size of the two large files of [`generated`].
pub const LARGE_BYTES: usize = 12 << 20;

/// A commit that is no object of any of these repositories.
pub const NO_COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Bytes that no compressor shrinks, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// A new repository in `dir` with this object format, served to whoever asks.
pub fn init(dir: &Path, format: &str) {
    fs::create_dir_all(dir).expect("the fixture is writable");
    git_out(dir, &["init", "-q", "-b", "main", &format!("--object-format={format}")]);
    for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
        git_out(dir, &["config", setting, "true"]);
    }
}

/// Lets the server tell sizes without contents.
pub fn advertise_sizes(dir: &Path) {
    git_out(dir, &["config", "transfer.advertiseObjectInfo", "true"]);
}

/// Writes a file and the directories above it.
pub fn write(dir: &Path, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
    let path = dir.join(Path::new(name.as_ref()));
    fs::create_dir_all(path.parent().expect("below dir")).expect("the fixture is writable");
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Commits everything in the working tree and returns the commit.
pub fn commit_all(dir: &Path, message: &str) -> String {
    git_out(dir, &["add", "-A", "-f", "."]);
    git_out(dir, &["commit", "-q", "--allow-empty", "-m", message]);
    git_out(dir, &["rev-parse", "HEAD"])
}

/// A repository of a few small files: `a.txt`, `dir/b.txt`, `dir/run.sh`, `dir/link`.
pub fn small(dir: &Path) -> String {
    init(dir, "sha1");
    write(dir, "a.txt", "alpha\n");
    write(dir, "dir/b.txt", "beta\n");
    write(dir, "dir/run.sh", "#!/bin/sh\necho it runs \"$@\"\n");
    fs::set_permissions(dir.join("dir/run.sh"), fs::Permissions::from_mode(0o755)).expect("just written");
    symlink("b.txt", dir.join("dir/link")).expect("the fixture is writable");
    commit_all(dir, "small")
}

/// A repository whose directory `many` holds `count` files of about 4 KiB that share nothing, and `alone/file` 300 KiB.
pub fn wide(dir: &Path, count: usize) -> String {
    init(dir, "sha1");
    for number in 0..count {
        write(dir, format!("many/f{number:05}"), noise(number as u64 + 7, 4000 + number % 200));
    }
    write(dir, "alone/file", noise(1, 300 << 10));
    write(dir, "a.txt", "alpha\n");
    commit_all(dir, "wide")
}

/// Everything a tree can hold, in two commits, with branch `next`, a light and an annotated tag. HEAD is `main`.
pub fn generated(dir: &Path, format: &str) {
    init(dir, format);
    write(dir, "README.md", "# generated\n");
    write(dir, ".gitignore", "*.o\n/build/\n");
    write(dir, ".gitattributes", "*.bin binary\n");
    write(dir, "sub/.gitignore", "!keep.o\n*.tmp\n");
    write(dir, "sub/keep.o", "kept\n");
    write(dir, "empty", "");
    write(dir, "sub/also empty", "");
    for number in 0..120_usize {
        write(dir, format!("sources/d{}/f{number}.c", number % 7), format!("int f{number};\n").repeat(number));
    }
    write(dir, "tools/run", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(dir.join("tools/run"), fs::Permissions::from_mode(0o755)).expect("just written");
    write(dir, (0..60).map(|_| "deep/").collect::<String>() + "file", "deep down\n");
    awkward_names(dir);
    links(dir);
    write(dir, "large/noise.bin", noise(42, LARGE_BYTES));
    write(dir, "large/text.txt", b"the same line again and again\n".repeat(LARGE_BYTES / 30));
    // Sizes around the frames and chunks of any store.
    for (number, size) in [4096, 65_535, 65_536, 131_071, 131_072, 131_073, 1 << 20].into_iter().enumerate() {
        write(dir, format!("sizes/s{size}"), noise(number as u64 + 100, size));
    }
    let elsewhere = "1".repeat(if format == "sha256" { 64 } else { 40 });
    git_out(dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{elsewhere},vendor/module")]);
    git_out(dir, &["add", "-A", "-f", "--", ".", ":!vendor"]);
    git_out(dir, &["commit", "-q", "-m", "first"]);
    git_out(dir, &["tag", "light"]);
    write(dir, "README.md", "# generated, second commit\n");
    git_out(dir, &["add", "README.md"]);
    git_out(dir, &["commit", "-q", "-m", "second"]);
    git_out(dir, &["tag", "-a", "-m", "a tag", "annotated"]);
    git_out(dir, &["checkout", "-q", "-b", "next"]);
    write(dir, "only-in-next", "next\n");
    git_out(dir, &["add", "only-in-next"]);
    git_out(dir, &["commit", "-q", "-m", "next"]);
    git_out(dir, &["checkout", "-q", "main"]);
}

fn awkward_names(dir: &Path) {
    for (number, name) in [
        &b"not utf-8 \xff\xfe"[..],
        b"line\nbreak",
        b"quote\"and'tick",
        b"back\\slash",
        b" leading and trailing ",
        b"-dash",
        b"tab\tin",
        b"*?[glob]",
        b"aux.c",
        b"con",
        b"name.",
        b"git~2",
        b".gitx",
        b"\x01control",
        "e\u{301}clair".as_bytes(),
        "\u{e9}clair".as_bytes(),
        &[b'n'; 255],
    ]
    .into_iter()
    .enumerate()
    {
        let mut path = b"names/".to_vec();
        path.extend_from_slice(name);
        write(dir, OsStr::from_bytes(&path), format!("name {number}\n"));
    }
    // Sorted differently as a name and as a directory: `a.b` < `a/` < `a0`.
    for name in ["order/a.b", "order/a/x", "order/a0", "order/a-b"] {
        write(dir, name, name);
    }
}

fn links(dir: &Path) {
    fs::create_dir_all(dir.join("links")).expect("the fixture is writable");
    let long = "x/".repeat(2000);
    let longest = "y".repeat(4095);
    for (name, target) in [
        ("plain", "../README.md"),
        ("dangling", "nowhere/at all"),
        ("absolute", "/etc/hostname"),
        ("directory", "../sources"),
        ("loop", "loop"),
        ("long", &long),
        ("longest", &longest),
    ] {
        symlink(target, dir.join("links").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    symlink(OsStr::from_bytes(b"not utf-8 \xff"), dir.join("links/bytes")).expect("the fixture is writable");
}

/// A clone of `source` at `rev`, checked out as a user with the usual umask does.
pub fn clone(source: &Path, rev: Option<&str>, to: &Path) -> PathBuf {
    let mut command = git(Path::new("/"));
    command.args(["-c", "advice.detachedHead=false", "clone", "-q", "--no-local"]);
    if let Some(rev) = rev {
        command.args(["-b", rev]);
    }
    command.args([text(source), text(to)]);
    run(command, COMMAND_LIMIT).success();
    let mut restrict = std::process::Command::new("chmod");
    // Whatever the umask of whoever runs the tests: git's 644 and 755 are what a mount shows.
    restrict.args(["-R", "u=rwX,go=rX", text(to)]);
    run(restrict, COMMAND_LIMIT).success();
    to.to_owned()
}

/// Writes a loose SHA-1 object without looking at it, and returns its id.
pub fn raw_object(dir: &Path, kind: &str, content: &[u8]) -> [u8; 20] {
    let mut object = format!("{kind} {}\0", content.len()).into_bytes();
    object.extend_from_slice(content);
    let id: [u8; 20] = Sha1::digest(&object).into();
    let name = hex(&id);
    let path = dir.join(".git/objects").join(&name[..2]).join(&name[2..]);
    if !path.exists() {
        fs::create_dir_all(path.parent().expect("below objects")).expect("the fixture is writable");
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&object).expect("a vector takes everything");
        fs::write(path, zlib.finish().expect("a vector takes everything")).expect("the fixture is writable");
    }
    id
}

/// The bytes of a tree, in the order given and with the names given.
pub fn raw_tree(entries: &[(&str, &[u8], [u8; 20])]) -> Vec<u8> {
    let mut tree = Vec::new();
    for (mode, name, id) in entries {
        tree.extend_from_slice(mode.as_bytes());
        tree.push(b' ');
        tree.extend_from_slice(name);
        tree.push(0);
        tree.extend_from_slice(id);
    }
    tree
}

/// A repository whose `main` is one commit of this tree, however wrong the tree is.
pub fn with_raw_tree(dir: &Path, tree: [u8; 20]) -> String {
    let commit = raw_commit(dir, tree);
    let reference = dir.join(".git/refs/heads/main");
    fs::write(reference, commit.clone() + "\n").expect("the fixture is writable");
    commit
}

fn raw_commit(dir: &Path, tree: [u8; 20]) -> String {
    let body = commit_of(tree);
    hex(&raw_object(dir, "commit", &body))
}

/// The bytes of a commit without parents.
pub fn commit_of(tree: [u8; 20]) -> Vec<u8> {
    let tree = hex(&tree);
    format!(
        "tree {tree}\nauthor A <a@example.org> 1709294400 +0000\ncommitter A <a@example.org> 1709294400 +0000\n\nraw\n"
    )
    .into_bytes()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// `depth` directories named `d`, one in the other, with `bottom` in the last. Served by a git that allows it.
pub fn deep(dir: &Path, depth: usize) -> String {
    init(dir, "sha1");
    // git itself stops at 2,048 or 4,096 unless told.
    git_out(dir, &["config", "core.maxTreeDepth", "20000"]);
    let blob = raw_object(dir, "blob", b"bottom\n");
    let mut tree = raw_object(dir, "tree", &raw_tree(&[("100644", b"bottom", blob)]));
    for _ in 0..depth {
        tree = raw_object(dir, "tree", &raw_tree(&[("40000", b"d", tree)]));
    }
    with_raw_tree(dir, tree)
}
