//! What a program may rely on when it writes into a mount: each test a promise, most of them broken by some lazy mount
//! before.
//!
//! With `LARDER_TEST_STAND_IN=1` a plain clone on the ordinary file system
//! takes the mount's part.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;

use common::place::{Place, stand_in};
use common::repos::{self, noise, write};
use common::servers::GitDaemon;
use common::{COMMAND_LIMIT, Fixture, names, within};
use rustix::fs::{
    Advice, AtFlags, CWD, FallocateFlags, FlockOperation, RenameFlags, Timespec, Timestamps, copy_file_range, fadvise,
    fallocate, flock, renameat_with, utimensat,
};
use rustix::io::Errno;

/// Files of the cold directory.
const COLD: usize = 30;

struct Mounted {
    place: Place,
    fixture: Fixture,
    _server: GitDaemon,
}

impl Mounted {
    fn new() -> Option<Self> {
        let fixture = Fixture::new()?;
        let source = fixture.path("served/source");
        repos::small(&source);
        repos::advertise_sizes(&source);
        for number in 0..COLD as u64 {
            write(&source, format!("cold/sub{}/f{number:02}", number % 3), noise(number, 9000));
        }
        write(&source, "clean", "");
        write(&source, "big", noise(99, 3 << 20));
        repos::commit_all(&source, "more");
        let server = GitDaemon::serve(&fixture.path("served"));
        let place = Place::new(&fixture, &server.url("source"), "m", &[]);
        Some(Self { place, fixture, _server: server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.root.join(name)
    }

    /// Requests that the daemon has sent to the remote.
    fn requests(&self) -> u64 {
        if stand_in() { 0 } else { self.fixture.metric("larder_remote_requests_total") }
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).expect("opens")
}

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("opens")
}

#[track_caller]
fn fails_with<T: std::fmt::Debug>(result: io::Result<T>, errno: Errno) {
    assert_eq!(result.expect_err("it must fail").raw_os_error(), Some(errno.raw_os_error()));
}

#[test]
fn concurrent_appenders_of_a_clean_file_lose_nothing() {
    let Some(mounted) = Mounted::new() else { return };
    for name in ["a.txt", "cold/sub0/f00", "big"] {
        let (writers, lines, gate) = (16, 50, Arc::new(Barrier::new(16)));
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (gate, path) = (Arc::clone(&gate), mounted.path(name));
                thread::spawn(move || {
                    gate.wait();
                    let mut file = append(&path);
                    for line in 0..lines {
                        file.write_all(format!("<{writer:02}.{line:02}>\n").as_bytes()).expect("appends");
                    }
                })
            })
            .collect();
        within(COMMAND_LIMIT, "sixteen appenders", move || {
            for thread in threads {
                thread.join().expect("it appends");
            }
        });
        let bytes = fs::read(mounted.path(name)).expect("it reads");
        let added = &bytes[bytes.len() - writers * lines * 8..];
        let mut found: Vec<_> = added.split_inclusive(|byte| *byte == b'\n').collect();
        found.sort();
        let wanted = (0..writers).flat_map(|writer| (0..lines).map(move |line| format!("<{writer:02}.{line:02}>\n")));
        assert!(wanted.eq(found.iter().map(|line| String::from_utf8_lossy(line).into_owned())), "{name}");
    }
}

#[test]
fn a_reader_opened_before_the_first_write_sees_it() {
    let Some(mounted) = Mounted::new() else { return };
    for name in ["a.txt", "cold/sub0/f00"] {
        let path = mounted.path(name);
        let mut reader = File::open(&path).expect("opens");
        let before = reader.metadata().expect("fstat");
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("reads");
        both(&path).write_all_at(b"NEW", 1).expect("writes");
        bytes[1..4].copy_from_slice(b"NEW");
        append(&path).write_all(b"end").expect("appends");
        bytes.extend_from_slice(b"end");
        let mut again = Vec::new();
        reader.seek(SeekFrom::Start(0)).expect("seeks");
        reader.read_to_end(&mut again).expect("reads");
        assert!(again == bytes, "{name}: the same file, the new bytes");
        let after = reader.metadata().expect("fstat");
        assert_eq!((after.ino(), after.len()), (before.ino(), bytes.len() as u64), "{name}");
        assert_eq!(fs::metadata(&path).expect("stat").ino(), before.ino(), "{name} is still that file");
    }
}

#[test]
fn nothing_is_fetched_for_what_goes_away() {
    let Some(mounted) = Mounted::new() else { return };
    let cold = mounted.path("cold");
    let before = mounted.requests();
    File::options().write(true).truncate(true).open(cold.join("sub0/f00")).expect("opens");
    fs::write(cold.join("sub0/f03"), "replaced\n").expect("writes");
    both(&cold.join("sub0/f06")).set_len(0).expect("truncates");
    fs::rename(cold.join("sub0/f09"), cold.join("sub0/renamed")).expect("renames");
    fs::rename(cold.join("sub0/f12"), cold.join("sub0/f15")).expect("renames over another");
    fs::rename(cold.join("sub1"), mounted.path("dir/sub1")).expect("renames a directory");
    fs::set_permissions(cold.join("sub2/f02"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let touched = File::open(cold.join("sub2/f05")).expect("opens");
    touched.set_modified(std::time::UNIX_EPOCH).expect("touch");
    fs::hard_link(cold.join("sub2/f08"), cold.join("hard")).expect("links");
    fs::remove_file(cold.join("sub2/f11")).expect("removes");
    fs::remove_dir_all(cold.join("sub2")).expect("removes a tree");
    assert_eq!(mounted.requests() - before, 0, "none of this needs a byte from the remote");
    // And what was only renamed is still there to be fetched.
    assert!(fs::read(cold.join("sub0/renamed")).expect("reads") == noise(9, 9000));
    assert!(fs::read(cold.join("sub0/f15")).expect("reads") == noise(12, 9000));
    assert!(fs::read(mounted.path("dir/sub1/f04")).expect("reads") == noise(4, 9000));
    assert!(fs::read(cold.join("hard")).expect("reads") == noise(8, 9000));
    assert_eq!(fs::read(cold.join("sub0/f00")).expect("reads"), b"");
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let Some(mounted) = Mounted::new() else { return };
    for (name, length) in [("a.txt", 6), ("cold/sub0/f00", 9000), ("new", 0)] {
        let path = mounted.path(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).expect("opens");
        fs::remove_file(&path).expect("unlinks");
        let meta = file.metadata().expect("fstat after unlink");
        assert_eq!((meta.len(), meta.nlink()), (length, 0), "{name}");
        let mut bytes = vec![0; usize::try_from(length).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("reads");
        file.write_all_at(b"more", length).expect("writes");
        file.sync_all().expect("fsync");
        file.set_len(length + 10).expect("truncates");
        file.set_permissions(fs::Permissions::from_mode(0o600)).expect("fchmod");
        let meta = file.metadata().expect("fstat");
        assert_eq!((meta.len(), meta.mode() & 0o777), (length + 10, 0o600), "{name}");
        fs::write(&path, "another file\n").expect("the name is free");
        assert_eq!(file.metadata().expect("fstat").len(), length + 10, "{name}");
    }
    let held = File::open(mounted.path("dir")).expect("opens");
    fs::remove_dir_all(mounted.path("dir")).expect("removes");
    assert!(held.metadata().expect("fstat of a removed directory").is_dir());
    fails_with(fs::read_dir(mounted.path("dir")), Errno::NOENT);
}

#[test]
fn a_renamed_directory_leaves_nothing_behind() {
    let Some(mounted) = Mounted::new() else { return };
    let (cold, away) = (mounted.path("cold"), mounted.path("away"));
    fs::rename(&cold, &away).expect("renames");
    fails_with(fs::read_dir(&cold), Errno::NOENT);
    fs::create_dir(&cold).expect("the name is free");
    assert!(names(&cold).expect("lists").is_empty(), "the old children are not in the new directory");
    fails_with(File::open(cold.join("sub0/f00")), Errno::NOENT);
    fs::create_dir(cold.join("sub0")).expect("makes");
    assert!(names(&cold.join("sub0")).expect("lists").is_empty());
    assert_eq!(names(&away).expect("lists").len(), 3);
    fails_with(fs::rename(&cold, &away), Errno::NOTEMPTY);
    fails_with(fs::rename(mounted.path("dir"), &away), Errno::NOTEMPTY);
    fails_with(fs::rename(mounted.path("a.txt"), &away), Errno::ISDIR);
    fails_with(fs::rename(&away, mounted.path("a.txt")), Errno::NOTDIR);
    fails_with(fs::rename(&away, away.join("sub0/inside")), Errno::INVAL);
    fails_with(fs::remove_dir(&away), Errno::NOTEMPTY);
    mounted.place.crash(&mounted.fixture);
    assert_eq!(names(&cold).expect("lists"), ["sub0"]);
    assert_eq!(names(&cold.join("sub0")).expect("lists").len(), 0);
    assert!(fs::read(away.join("sub1/f01")).expect("reads") == noise(1, 9000));
}

#[test]
fn renames_that_look_first() {
    let Some(mounted) = Mounted::new() else { return };
    let rename = |from: &str, to: &str, flags| -> io::Result<()> {
        Ok(renameat_with(CWD, mounted.path(from), CWD, mounted.path(to), flags)?)
    };
    fails_with(rename("a.txt", "big", RenameFlags::NOREPLACE), Errno::EXIST);
    fails_with(rename("a.txt", "nothing", RenameFlags::EXCHANGE), Errno::NOENT);
    rename("a.txt", "b.txt", RenameFlags::NOREPLACE).expect("the name is free");
    rename("b.txt", "cold", RenameFlags::EXCHANGE).expect("a file and a directory change places");
    assert_eq!(fs::read(mounted.path("cold")).expect("reads"), b"alpha\n");
    assert!(fs::read(mounted.path("b.txt/sub2/f02")).expect("reads") == noise(2, 9000));
    let open = File::open(mounted.path("clean")).expect("opens");
    fs::rename(mounted.path("cold"), mounted.path("clean")).expect("renames over an open file");
    assert_eq!(open.metadata().expect("fstat").len(), 0, "the open one is still the old one");
    assert_eq!(fs::read(mounted.path("clean")).expect("reads"), b"alpha\n");
}

#[test]
fn names_have_255_bytes() {
    let Some(mounted) = Mounted::new() else { return };
    let (fits, too_long) = ("n".repeat(255), "n".repeat(256));
    fs::write(mounted.path(&fits), "").expect("255 are allowed");
    fails_with(fs::write(mounted.path(&too_long), ""), Errno::NAMETOOLONG);
    fails_with(fs::create_dir(mounted.path(&too_long)), Errno::NAMETOOLONG);
    fails_with(fs::rename(mounted.path(&fits), mounted.path(&too_long)), Errno::NAMETOOLONG);
    fails_with(std::os::unix::fs::symlink("a", mounted.path(&too_long)), Errno::NAMETOOLONG);
    fails_with(fs::hard_link(mounted.path("a.txt"), mounted.path(&too_long)), Errno::NAMETOOLONG);
}

#[test]
fn everything_can_be_synced() {
    let Some(mounted) = Mounted::new() else { return };
    for name in ["a.txt", "cold/sub0/f00", ".", "cold", "dir"] {
        let file = File::open(mounted.path(name)).expect("opens");
        file.sync_all().unwrap_or_else(|error| panic!("fsync {name}: {error}"));
        file.sync_data().unwrap_or_else(|error| panic!("fdatasync {name}: {error}"));
    }
    let mut file = File::create(mounted.path("new")).expect("creates");
    file.write_all(b"synced").expect("writes");
    file.sync_all().expect("fsync");
    File::open(mounted.path(".")).expect("opens").sync_all().expect("fsync of the directory");
    rustix::fs::syncfs(&file).expect("syncfs");
    mounted.place.crash(&mounted.fixture);
    assert_eq!(fs::read(mounted.path("new")).expect("reads"), b"synced");
}

#[test]
fn locks_exclude() {
    let Some(mounted) = Mounted::new() else { return };
    let [first, second] = [0, 1].map(|_| both(&mounted.path("a.txt")));
    flock(&first, FlockOperation::LockExclusive).expect("locks");
    assert_eq!(flock(&second, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    flock(&first, FlockOperation::Unlock).expect("unlocks");
    flock(&second, FlockOperation::NonBlockingLockShared).expect("locks");
    drop(second);
    // Record locks belong to processes: another one must be refused, and let in when this one has gone.
    rustix::fs::fcntl_lock(&first, FlockOperation::LockExclusive).expect("locks");
    let other = || {
        let script = "import fcntl, sys\nfcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)";
        let mut python = std::process::Command::new("python3");
        python.args(["-c", script]).arg(mounted.path("a.txt"));
        common::run(python, COMMAND_LIMIT)
    };
    assert!(other().err().contains("BlockingIOError"), "another process is refused");
    rustix::fs::fcntl_lock(&first, FlockOperation::Unlock).expect("unlocks");
    other().success();
}

#[test]
fn pipes_and_sockets_work() {
    let Some(mounted) = Mounted::new() else { return };
    let (pipe, socket) = (mounted.path("dir/pipe"), mounted.path("dir/socket"));
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("makes a pipe");
    let (kind, writer) = (fs::symlink_metadata(&pipe).expect("lstat"), pipe.clone());
    assert!(kind.file_type().is_fifo() && kind.mode() & 0o777 == 0o640);
    let writer = thread::spawn(move || fs::write(writer, "through").expect("writes"));
    assert_eq!(common::read(&pipe).expect("reads"), b"through");
    writer.join().expect("it has written");
    let listener = UnixListener::bind(&socket).expect("binds");
    assert!(fs::symlink_metadata(&socket).expect("lstat").file_type().is_socket());
    let mut client = UnixStream::connect(&socket).expect("connects");
    client.write_all(b"hello").expect("writes");
    drop(client);
    let mut heard = String::new();
    listener.accept().expect("accepts").0.read_to_string(&mut heard).expect("reads");
    assert_eq!(heard, "hello");
    // A bound socket is a use of the file system it is bound in.
    drop(listener);
    mounted.place.remount(&mounted.fixture);
    assert!(fs::symlink_metadata(&pipe).expect("lstat").file_type().is_fifo());
    assert!(fs::symlink_metadata(&socket).expect("lstat").file_type().is_socket());
    fs::remove_file(&socket).expect("unlinks");
    UnixListener::bind(&socket).expect("the name is free again");
}

#[test]
#[expect(unsafe_code, reason = "nobody truncates the files while they are mapped")]
fn mappings_are_shared_or_private() {
    let Some(mounted) = Mounted::new() else { return };
    for name in ["big", "cold/sub0/f00"] {
        let path = mounted.path(name);
        let file = both(&path);
        let before = fs::read(&path).expect("reads");
        let mut private = unsafe { memmap2::MmapOptions::new().map_copy(&file) }.expect("maps");
        private[100] ^= 1;
        assert!(fs::read(&path).expect("reads") == before, "{name}: a private mapping changes nothing");
        let mut shared = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("maps");
        shared[5000..5004].copy_from_slice(b"MMAP");
        assert_eq!(fs::read(&path).expect("reads")[5000..5004], *b"MMAP", "{name}: readers see it at once");
        file.write_all_at(b"WRITE", 6000).expect("writes");
        assert_eq!(shared[6000..6005], *b"WRITE", "{name}: the mapping sees a write");
        shared.flush().expect("msync");
        drop((shared, private, file));
        mounted.place.remount(&mounted.fixture);
        let after = fs::read(&path).expect("reads");
        assert_eq!((&after[5000..5004], &after[6000..6005]), (&b"MMAP"[..], &b"WRITE"[..]), "{name}");
    }
}

#[test]
fn ranges_are_copied_allocated_and_sought() {
    let Some(mounted) = Mounted::new() else { return };
    let (cold, new) = (File::open(mounted.path("cold/sub0/f00")).expect("opens"), both_new(&mounted.path("new")));
    let (mut from, mut to) = (1000, 500);
    let copied = copy_file_range(&cold, Some(&mut from), &new, Some(&mut to), 4000).expect("copies");
    let mut bytes = vec![0; copied];
    new.read_exact_at(&mut bytes, 500).expect("reads");
    assert!(copied > 0 && bytes == noise(0, 9000)[1000..1000 + copied]);
    let sparse = both_new(&mounted.path("sparse"));
    sparse.write_all_at(b"end", 1 << 20).expect("writes");
    let data = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data(0)).expect("SEEK_DATA");
    let hole = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Hole(0)).expect("SEEK_HOLE");
    // A file system may take a hole for data, never data for a hole.
    assert!(data <= 1 << 20 && hole <= (1 << 20) + 3, "data from {data}, hole from {hole}");
    let past = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data((1 << 20) + 3));
    assert_eq!(past, Err(Errno::NXIO));
    let clean = File::open(mounted.path("big")).expect("opens");
    assert_eq!(rustix::fs::seek(&clean, rustix::fs::SeekFrom::Data(0)), Ok(0));
    assert_eq!(rustix::fs::seek(&clean, rustix::fs::SeekFrom::Hole(0)), Ok(3 << 20));
    fallocate(&sparse, FallocateFlags::empty(), 0, 2 << 20).expect("allocates");
    assert_eq!(sparse.metadata().expect("fstat").len(), 2 << 20);
    fallocate(&sparse, FallocateFlags::KEEP_SIZE, 0, 4 << 20).expect("allocates beyond the end");
    assert_eq!(sparse.metadata().expect("fstat").len(), 2 << 20);
    let cold = both(&mounted.path("cold/sub0/f03"));
    fallocate(&cold, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 4096).expect("punches");
    let mut wanted = noise(3, 9000);
    wanted[4096..8192].fill(0);
    assert!(fs::read(mounted.path("cold/sub0/f03")).expect("reads") == wanted);
}

fn both_new(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("creates")
}

fn set_times(path: &Path, seconds: i64, nanos: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Times that no clock shows are kept or become the nearest that can be, as on ext4; nothing hangs or dies of them.
#[test]
fn extreme_times_do_no_harm() {
    const FIRST: i64 = -(1 << 31);
    const LAST: i64 = (1 << 34) - (1 << 31) - 1;
    let Some(mounted) = Mounted::new() else { return };
    fs::create_dir(mounted.path("new")).expect("creates");
    fs::write(mounted.path("new/file"), "x").expect("writes");
    std::os::unix::fs::symlink("nowhere", mounted.path("new/link")).expect("creates");
    let wanted = [
        (i64::MIN, 0),
        (i64::MIN, 999_999_999),
        (i64::MIN + 1, 5),
        (-62_135_596_801, 1),
        (FIRST - 1, 7),
        (FIRST, 0),
        (-1, 999_999_999),
        (-1, 0),
        (0, 1),
        (LAST, 0),
        (LAST + 1, 0),
        (i64::MAX - 1, 999_999_999),
        (i64::MAX, 999_999_999),
    ];
    let paths = ["a.txt", "clean", "dir", "dir/link", "new", "new/file", "new/link"].map(|name| mounted.path(name));
    let root = mounted.place.root.clone();
    within(COMMAND_LIMIT, "setting extreme times", move || {
        for path in &paths {
            for (seconds, nanos) in wanted {
                set_times(path, seconds, nanos).expect("it is set");
                let found = path.symlink_metadata().expect("there");
                let kept = seconds.clamp(FIRST, LAST);
                let nanos = if kept == seconds && kept != FIRST && kept != LAST { nanos } else { 0 };
                for (what, shown) in
                    [("mtime", (found.mtime(), found.mtime_nsec())), ("atime", (found.atime(), found.atime_nsec()))]
                {
                    assert_eq!(shown, (kept, nanos), "{what} of {} after {seconds}", path.display());
                }
            }
        }
        assert!(fs::read_dir(&root).expect("lists").all(|entry| entry.expect("lists").metadata().is_ok()));
    });
    mounted.place.git(&mounted.fixture, &["status", "--short"]);
    mounted.place.crash(&mounted.fixture);
    assert_eq!(mounted.path("a.txt").metadata().expect("there").mtime(), LAST);
    assert_eq!(mounted.path("new/file").metadata().expect("there").mtime(), LAST);
}

/// Many links take their time or are refused, but nothing hangs and none is lost.
#[test]
fn many_links_are_made_or_refused() {
    let Some(mounted) = Mounted::new() else { return };
    fs::create_dir(mounted.path("links")).expect("creates");
    for (name, content) in [("new", "x"), ("a.txt", "alpha\n")] {
        if name == "new" {
            fs::write(mounted.path(name), content).expect("writes");
        }
        let (file, directory) = (mounted.path(name), mounted.path("links"));
        let made = within(COMMAND_LIMIT, "making links", move || {
            for number in 1..1500_u64 {
                if let Err(error) = fs::hard_link(&file, directory.join(format!("of-the-file-{number}"))) {
                    assert_eq!(error.raw_os_error(), Some(Errno::MLINK.raw_os_error()), "{error}");
                    return number;
                }
            }
            1500
        });
        assert!(made >= 1000, "{made} links");
        let links = || mounted.path(name).metadata().expect("there").nlink();
        assert_eq!(links(), made);
        assert_eq!(names(&mounted.path("links")).expect("lists").len() as u64, made - 1);
        mounted.place.restart(&mounted.fixture);
        assert_eq!(links(), made);
        let last = mounted.path("links").join(format!("of-the-file-{}", made - 1));
        assert_eq!(fs::read_to_string(last).expect("reads"), content);
        let directory = mounted.path("links");
        within(COMMAND_LIMIT, "removing links", move || {
            for number in 1..made {
                fs::remove_file(directory.join(format!("of-the-file-{number}"))).expect("removes");
            }
        });
        assert_eq!(links(), 1);
        assert_eq!(fs::read_to_string(mounted.path(name)).expect("reads"), content);
    }
}

/// A directory in which something was changed and that was listed: what is changed in it next is listed as it is now.
#[test]
fn a_merged_listing_has_the_attributes_of_now() {
    let Some(mounted) = Mounted::new() else { return };
    let directory = mounted.path("cold/sub0");
    let listed = || -> std::collections::BTreeMap<String, (u32, u64)> {
        // The kernel is to ask for the names again. It then asks for attributes along (readdirplus) and keeps those.
        let open = File::open(&directory).expect("opens");
        fadvise(&open, 0, None, Advice::DontNeed).expect("drops pages");
        fs::read_dir(&directory)
            .expect("lists")
            .map(|entry| {
                let entry = entry.expect("lists");
                let found = entry.metadata().expect("there");
                (entry.file_name().into_string().expect("UTF-8"), (found.mode() & 0o7777, found.len()))
            })
            .collect()
    };
    fs::write(directory.join("added"), "1").expect("writes");
    assert_eq!(listed()["f00"], (0o644, 9000));
    // Each in a directory that was listed just before.
    fs::set_permissions(directory.join("f00"), fs::Permissions::from_mode(0o755)).expect("changes");
    assert_eq!(listed()["f00"], (0o755, 9000));
    fs::write(directory.join("f03"), "short").expect("writes");
    assert_eq!(listed()["f03"], (0o644, 5));
    append(&directory.join("f06")).write_all(b"more").expect("writes");
    assert_eq!(listed()["f06"], (0o644, 9004));
    rustix::fs::setxattr(directory.join("f09"), "user.note", b"x", rustix::fs::XattrFlags::empty()).expect("sets");
    assert_eq!(listed()["f09"], (0o644, 9000));
    fs::set_permissions(directory.join("f09"), fs::Permissions::from_mode(0o600)).expect("changes");
    assert_eq!(listed()["f09"], (0o600, 9000));
    File::options().write(true).open(directory.join("f12")).expect("opens").set_len(12_345).expect("grows");
    assert_eq!(listed()["f12"], (0o644, 12_345));
    fs::remove_file(directory.join("f15")).expect("removes");
    fs::write(directory.join("f15"), "new").expect("writes");
    let now = listed();
    assert_eq!(now["f15"], (0o644, 3));
    // And so for somebody whose kernel knows nothing of it yet.
    mounted.place.remount(&mounted.fixture);
    let mut again = listed();
    assert_eq!(now, again);
    fs::set_permissions(directory.join("f18"), fs::Permissions::from_mode(0o640)).expect("changes");
    again.insert("f18".into(), (0o640, 9000));
    assert_eq!(listed(), again);
}
