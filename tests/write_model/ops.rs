//! What can be done to a file system, drawn at random.
//!
//! Owns the pool of names, which is small so that operations meet. Targets of
//! symlinks never lead out of the tree, where both sides would meet.

use proptest::prelude::*;

use super::base;

/// Descriptors that are open at once.
pub const SLOTS: usize = 4;

/// Names that a tree has at first, and names that it may get. A name may become anything.
const PATHS: [&str; 26] = [
    "a.txt",
    "big",
    "run.sh",
    "link",
    "dirlink",
    "d",
    "d/one",
    "d/two",
    "d/e",
    "d/e/three",
    "src",
    "src/x",
    "src/deep",
    "src/deep/y",
    "cold",
    "cold/f0",
    "cold/f1",
    "n1",
    "n2",
    "n1/a",
    "n1/b",
    "n2/a",
    "d/n1",
    "src/n2",
    "d/e/n1",
    "n1/a/deeper",
];
const TARGETS: [&str; 6] = ["a.txt", "d", "one", "e/three", "nowhere", "n1"];
const MODES: [u32; 6] = [0o644, 0o755, 0o600, 0o700, 0o640, 0o777];
const ATTRIBUTES: [&str; 3] = ["user.one", "user.two", "user.a longer name"];

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Read,
    Write,
    Both,
    Append,
    Create,
    CreateNew,
    Truncate,
}

/// How a name takes another.
#[derive(Clone, Copy, Debug)]
pub enum Rename {
    Plain,
    NoReplace,
    Exchange,
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug)]
pub enum Allocate {
    Extend,
    KeepSize,
    Punch,
    Zero,
}

/// What happens to the mount from outside.
#[derive(Clone, Copy, Debug)]
pub enum Outage {
    Remount,
    Restart,
    Crash,
}

/// One operation; the same on both sides.
#[derive(Clone, Debug)]
pub enum Op {
    Open {
        slot: usize,
        path: &'static str,
        how: How,
    },
    Close {
        slot: usize,
    },
    WriteAt {
        slot: usize,
        at: u64,
        len: usize,
        seed: u8,
    },
    ReadAt {
        slot: usize,
        at: u64,
        len: usize,
    },
    SetLength {
        slot: usize,
        length: u64,
    },
    StatOpen {
        slot: usize,
    },
    Fsync {
        slot: usize,
    },
    Allocate {
        slot: usize,
        how: Allocate,
        at: u64,
        length: u64,
    },
    CopyRange {
        from: usize,
        to: usize,
        at: u64,
        to_at: u64,
        length: usize,
    },
    WriteFile {
        path: &'static str,
        len: usize,
        seed: u8,
    },
    AppendFile {
        path: &'static str,
        len: usize,
        seed: u8,
    },
    /// Written piece by piece, not in order, and read in between: as assemblers and linkers do.
    Assemble {
        path: &'static str,
        pieces: Vec<(u64, usize)>,
        seed: u8,
    },
    TruncateFile {
        path: &'static str,
        length: u64,
    },
    ReadFile {
        path: &'static str,
    },
    Stat {
        path: &'static str,
    },
    List {
        path: &'static str,
    },
    SyncDirectory {
        path: &'static str,
    },
    Unlink {
        path: &'static str,
    },
    Rmdir {
        path: &'static str,
    },
    Mkdir {
        path: &'static str,
        mode: u32,
    },
    Symlink {
        target: &'static str,
        path: &'static str,
    },
    ReadLink {
        path: &'static str,
    },
    Link {
        from: &'static str,
        to: &'static str,
    },
    Rename {
        from: &'static str,
        to: &'static str,
        how: Rename,
    },
    Chmod {
        path: &'static str,
        mode: u32,
    },
    Utimens {
        path: &'static str,
        seconds: i64,
        nanoseconds: i64,
    },
    SetAttribute {
        path: &'static str,
        name: &'static str,
        len: usize,
    },
    GetAttribute {
        path: &'static str,
        name: &'static str,
    },
    RemoveAttribute {
        path: &'static str,
        name: &'static str,
    },
    ListAttributes {
        path: &'static str,
    },
    Outage(Outage),
}

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&PATHS[..])
}

fn slot() -> impl Strategy<Value = usize> {
    0..SLOTS
}

/// Offsets and lengths around the sizes of the base's files, and of pages and frames.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..100_u64, 2 => 4090..4100_u64, 2 => 0..10_000_u64, 1 => 0..base::BIG_BYTES as u64 + 5000]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 5 => 1..200_usize, 2 => 4000..9000_usize, 1 => 0..200_000_usize]
}

/// A piece of a file that is assembled: many begin where the file does.
fn piece() -> impl Strategy<Value = (u64, usize)> {
    (prop_oneof![1 => Just(0), 1 => 1..5000_u64], 1..3000_usize)
}

fn on_descriptors() -> BoxedStrategy<Op> {
    let how = prop::sample::select(vec![
        How::Read,
        How::Write,
        How::Both,
        How::Both,
        How::Append,
        How::Create,
        How::CreateNew,
        How::Truncate,
    ]);
    let allocate = prop::sample::select(vec![Allocate::Extend, Allocate::KeepSize, Allocate::Punch, Allocate::Zero]);
    prop_oneof![
        6 => (slot(), path(), how).prop_map(|(slot, path, how)| Op::Open { slot, path, how }),
        2 => slot().prop_map(|slot| Op::Close { slot }),
        7 => (slot(), place(), length(), any::<u8>())
            .prop_map(|(slot, at, len, seed)| Op::WriteAt { slot, at, len, seed }),
        5 => (slot(), place(), length()).prop_map(|(slot, at, len)| Op::ReadAt { slot, at, len }),
        2 => (slot(), place()).prop_map(|(slot, length)| Op::SetLength { slot, length }),
        2 => slot().prop_map(|slot| Op::StatOpen { slot }),
        1 => slot().prop_map(|slot| Op::Fsync { slot }),
        1 => (slot(), allocate, place(), 1..9000_u64)
            .prop_map(|(slot, how, at, length)| Op::Allocate { slot, how, at, length }),
        1 => (slot(), slot(), place(), place(), 1..9000_usize)
            .prop_map(|(from, to, at, to_at, length)| Op::CopyRange { from, to, at, to_at, length }),
    ]
    .boxed()
}

fn on_files() -> BoxedStrategy<Op> {
    prop_oneof![
        4 => (path(), length(), any::<u8>()).prop_map(|(path, len, seed)| Op::WriteFile { path, len, seed }),
        3 => (path(), length(), any::<u8>()).prop_map(|(path, len, seed)| Op::AppendFile { path, len, seed }),
        4 => (path(), prop::collection::vec(piece(), 1..6), any::<u8>())
            .prop_map(|(path, pieces, seed)| Op::Assemble { path, pieces, seed }),
        2 => (path(), place()).prop_map(|(path, length)| Op::TruncateFile { path, length }),
        4 => path().prop_map(|path| Op::ReadFile { path }),
        4 => path().prop_map(|path| Op::Stat { path }),
        2 => path().prop_map(|path| Op::ReadLink { path }),
        2 => (path(), prop::sample::select(&MODES[..])).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        2 => (path(), 1..base::LAST_SET_TIME, 0..1_000_000_000_i64)
            .prop_map(|(path, seconds, nanoseconds)| Op::Utimens { path, seconds, nanoseconds }),
    ]
    .boxed()
}

fn on_names() -> BoxedStrategy<Op> {
    let rename = prop::sample::select(vec![Rename::Plain, Rename::Plain, Rename::NoReplace, Rename::Exchange]);
    prop_oneof![
        3 => path().prop_map(|path| Op::List { path }),
        1 => path().prop_map(|path| Op::SyncDirectory { path }),
        4 => path().prop_map(|path| Op::Unlink { path }),
        2 => path().prop_map(|path| Op::Rmdir { path }),
        4 => (path(), prop::sample::select(&MODES[..])).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        2 => (prop::sample::select(&TARGETS[..]), path()).prop_map(|(target, path)| Op::Symlink { target, path }),
        2 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        8 => (path(), path(), rename).prop_map(|(from, to, how)| Op::Rename { from, to, how }),
    ]
    .boxed()
}

fn on_attributes() -> BoxedStrategy<Op> {
    let name = || prop::sample::select(&ATTRIBUTES[..]);
    prop_oneof![
        3 => (path(), name(), 0..200_usize).prop_map(|(path, name, len)| Op::SetAttribute { path, name, len }),
        2 => (path(), name()).prop_map(|(path, name)| Op::GetAttribute { path, name }),
        1 => (path(), name()).prop_map(|(path, name)| Op::RemoveAttribute { path, name }),
        1 => path().prop_map(|path| Op::ListAttributes { path }),
    ]
    .boxed()
}

/// Any operation.
pub fn op() -> impl Strategy<Value = Op> {
    let outage = prop::sample::select(vec![Outage::Remount, Outage::Restart, Outage::Crash, Outage::Crash]);
    prop_oneof![
        27 => on_descriptors(),
        23 => on_files(),
        26 => on_names(),
        7 => on_attributes(),
        3 => outage.prop_map(Op::Outage),
    ]
}
