//! `git status` is right, whatever was done to the files, and however: what the monitor makes of it is compared with
//! what a scan finds, and both with what was done.
//!
//! With `LARDER_TEST_STAND_IN=1` the files are on the ordinary file system.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime};

use common::place::{Place, stand_in};
use common::repos::{self, write};
use common::{COMMAND_LIMIT, Fixture, run, text, wait_for};

/// Files in the directory that is edited.
const FILES: usize = 40;

struct Truth {
    fixture: Fixture,
    place: Place,
}

impl Truth {
    fn new() -> Option<Self> {
        let fixture = Fixture::new()?;
        let source = fixture.path("source");
        repos::init(&source, "sha1");
        for number in 0..FILES {
            write(&source, format!("many/f{number:02}"), format!("file {number:02}\n"));
        }
        write(&source, "dir/sub/deep", "deep\n");
        write(&source, "dir/other", "other\n");
        write(&source, "a.txt", "alpha\n");
        write(&source, "page", "x".repeat(8192));
        write(&source, ".gitignore", "*.o\n");
        repos::commit_all(&source, "first");
        let place = Place::new(&fixture, text(&source), "m", &[]);
        let truth = Self { fixture, place };
        truth.is("");
        Some(truth)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.root.join(name)
    }

    fn status(&self, scan: bool) -> String {
        let mut command = self.fixture.git(&self.place.root);
        if scan {
            // It must not write the index, or it would repair what the next question should find.
            command.args(["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false"]);
        }
        command.args(["status", "--porcelain", "-uall", "--no-renames"]);
        run(command, COMMAND_LIMIT).success().out()
    }

    /// Both ways to ask agree with each other and with these lines, in any order.
    #[track_caller]
    fn is(&self, wanted: &str) {
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let wanted = sorted(wanted);
        assert_eq!(sorted(&self.status(false)), wanted, "git status");
        assert_eq!(sorted(&self.status(true)), wanted, "git status without fsmonitor");
        // The answer after the scan's answer, and from whatever the first one wrote down.
        assert_eq!(sorted(&self.status(false)), wanted, "git status, asked again");
    }

    fn git(&self, args: &[&str]) {
        self.place.git(&self.fixture, args);
    }
}

/// What else `git status` must see a second time: everything staged, so that only later changes count.
fn stage(truth: &Truth) {
    truth.git(&["add", "-A"]);
}

#[test]
fn same_size_rewrite_within_a_tick() {
    let Some(truth) = Truth::new() else { return };
    let file = truth.path("a.txt");
    let times = fs::metadata(&file).expect("there").modified().expect("a time");
    fs::write(&file, "ALPHA\n").expect("writable");
    File::options().write(true).open(&file).expect("opens").set_modified(times).expect("a time can be set");
    // Git itself, scanning, believes in size and time: only what the monitor says can be right.
    if !stand_in() {
        assert_eq!(truth.status(false), " M a.txt\n");
    }
    // The usual case: the index is written and the file is written again, both within one second.
    for round in 0..20 {
        fs::write(&file, format!("alph{}\n", round % 10)).expect("writable");
        stage(&truth);
        fs::write(&file, format!("beta{}\n", round % 10)).expect("writable");
        truth.is("MM a.txt\n");
    }
    fs::write(&file, "alpha\n").expect("writable");
    stage(&truth);
    truth.is("");
}

#[test]
fn writes_through_a_mapping() {
    let Some(truth) = Truth::new() else { return };
    let file = OpenOptions::new().read(true).write(true).open(truth.path("page")).expect("opens");
    #[expect(unsafe_code, reason = "nobody truncates the file while it is mapped")]
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("maps");
    map[5000] = b'y';
    map.flush().expect("msync");
    truth.is(" M page\n");
    stage(&truth);
    truth.is("M  page\n");
    map[5000] = b'z';
    map.flush().expect("msync");
    truth.is("MM page\n");
    stage(&truth);
    truth.is("M  page\n");
    map[1] = b'w';
    // Never msynced: unmapping and closing are enough.
    drop(map);
    drop(file);
    truth.is("MM page\n");
}

#[test]
fn renames_of_directories() {
    let Some(truth) = Truth::new() else { return };
    let (dir, moved) = (truth.path("dir"), truth.path("moved"));
    fs::rename(&dir, &moved).expect("renames");
    let away = " D dir/other\n D dir/sub/deep\n?? moved/other\n?? moved/sub/deep\n";
    truth.is(away);
    fs::create_dir(&dir).expect("the name is free");
    truth.is(away);
    fs::remove_dir(&dir).expect("it is empty");
    fs::rename(&moved, &dir).expect("renames");
    truth.is("");
    fs::write(truth.path("dir/sub/untracked"), "").expect("writable");
    fs::rename(truth.path("dir/sub"), truth.path("many/sub")).expect("renames");
    truth.is(" D dir/sub/deep\n?? many/sub/deep\n?? many/sub/untracked\n");
    stage(&truth);
    fs::write(truth.path("many/sub/deep"), "changed\n").expect("writable");
    truth.is("D  dir/sub/deep\nAM many/sub/deep\nA  many/sub/untracked\n");
    // Two directories change places.
    truth.git(&["reset", "-q", "--hard"]);
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, truth.path("dir"), here, truth.path("many"), exchange).expect("exchanges");
    let status = truth.status(false);
    assert_eq!(status, truth.status(true));
    assert!(status.contains(" D dir/other\n") && status.contains("?? dir/f00\n"), "{status}");
    rustix::fs::renameat_with(here, truth.path("dir"), here, truth.path("many"), exchange).expect("exchanges");
    truth.is("");
}

#[test]
fn edits_while_status_runs() {
    let Some(truth) = Truth::new() else { return };
    let mut changed = Vec::new();
    for round in 0..FILES {
        let mut command = truth.fixture.git(&truth.place.root);
        command.args(["status", "--porcelain"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut status = command.spawn().expect("git runs");
        // At another moment of its life each time: from before it asks to after it has written the index.
        thread::sleep(Duration::from_micros(400 * round as u64));
        let name = format!("many/f{round:02}");
        fs::write(truth.path(&name), format!("FILE {round:02}\n")).expect("writable");
        changed.push(format!(" M {name}\n"));
        wait_for(&mut status, COMMAND_LIMIT).expect("status ends");
        truth.is(&changed.concat());
    }
}

#[test]
fn new_files_while_status_runs() {
    let Some(truth) = Truth::new() else { return };
    let mut new = Vec::new();
    for round in 0..FILES / 2 {
        let mut command = truth.fixture.git(&truth.place.root);
        command.args(["status", "--porcelain"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut status = command.spawn().expect("git runs");
        thread::sleep(Duration::from_micros(800 * round as u64));
        fs::write(truth.path(&format!("dir/sub/new{round:02}")), "").expect("writable");
        fs::write(truth.path(&format!("dir/ignored{round:02}.o")), "").expect("writable");
        new.push(format!("?? dir/sub/new{round:02}\n"));
        wait_for(&mut status, COMMAND_LIMIT).expect("status ends");
        truth.is(&new.concat());
    }
    fs::remove_dir_all(truth.path("dir/sub")).expect("removable");
    truth.is(" D dir/sub/deep\n");
}

#[test]
fn touches() {
    let Some(truth) = Truth::new() else { return };
    let file = truth.path("a.txt");
    let open = || OpenOptions::new().append(true).open(&file).expect("opens");
    for time in [SystemTime::now(), SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_hours(1000)] {
        open().set_modified(time).expect("a time can be set");
        truth.is("");
    }
    open().write_all(b"").expect("writable");
    drop(open());
    fs::write(&file, "alpha\n").expect("writable");
    truth.is("");
    fs::write(truth.path("dir/.new"), "").expect("writable");
    truth.is("?? dir/.new\n");
    fs::remove_file(truth.path("dir/.new")).expect("removable");
    truth.is("");
}

#[test]
fn modes_only() {
    let Some(truth) = Truth::new() else { return };
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(truth.path(name), fs::Permissions::from_mode(mode)).expect("permitted");
    };
    mode("a.txt", 0o755);
    truth.is(" M a.txt\n");
    stage(&truth);
    truth.is("M  a.txt\n");
    mode("a.txt", 0o644);
    truth.is("MM a.txt\n");
    truth.git(&["reset", "-q"]);
    truth.is("");
    mode("a.txt", 0o600);
    mode("dir", 0o700);
    truth.is("");
}

#[test]
fn an_editor_that_keeps_its_file_open() {
    let Some(truth) = Truth::new() else { return };
    let file = OpenOptions::new().write(true).open(truth.path("a.txt")).expect("opens");
    truth.is("");
    for round in 0..10_u8 {
        let line = [b'A' + round; 5];
        file.write_all_at(&line, 0).expect("writable");
        truth.is(if round == 0 { " M a.txt\n" } else { "MM a.txt\n" });
        stage(&truth);
        truth.is("M  a.txt\n");
    }
    // The other way to save: a new file takes the name, the old descriptor writes to what has none.
    fs::write(truth.path("a.txt~"), "saved\n").expect("writable");
    fs::rename(truth.path("a.txt~"), truth.path("a.txt")).expect("renames");
    truth.is("MM a.txt\n");
    stage(&truth);
    file.write_all_at(b"nobody", 0).expect("writable");
    file.sync_all().expect("fsync of a file without a name");
    truth.is("M  a.txt\n");
}

#[test]
fn edits_before_the_daemon_dies() {
    let Some(truth) = Truth::new() else { return };
    for (round, end) in [Place::crash, Place::restart, Place::remount, Place::crash].into_iter().enumerate() {
        let (kept, fresh) = (format!("many/f{round:02}"), format!("new{round}/file"));
        fs::write(truth.path(&kept), "changed\n").expect("writable");
        write(&truth.place.root, &fresh, "new\n");
        fs::remove_file(truth.path(&format!("many/f{:02}", 20 + round))).expect("removable");
        fs::rename(truth.path("dir"), truth.path("moved")).expect("renames");
        end(&truth.place, &truth.fixture);
        truth.is(&format!(
            " M {kept}\n?? {fresh}\n D many/f{:02}\n D dir/other\n D dir/sub/deep\n?? moved/other\n?? moved/sub/deep\n",
            20 + round
        ));
        // Status was right and has written its index; the next change comes after the restart.
        fs::rename(truth.path("moved"), truth.path("dir")).expect("renames");
        stage(&truth);
        truth.git(&["commit", "-q", "-m", "round"]);
        truth.is("");
        end(&truth.place, &truth.fixture);
        truth.is("");
    }
}

#[test]
fn a_crash_between_an_edit_and_any_status() {
    let Some(truth) = Truth::new() else { return };
    let mut changed = Vec::new();
    for round in 0..4 {
        let name = format!("many/f{round:02}");
        // The same size, so that only the journal can tell.
        fs::write(truth.path(&name), format!("FILE {round:02}\n")).expect("writable");
        truth.place.crash(&truth.fixture);
        changed.push(format!(" M {name}\n"));
        assert_eq!(truth.status(false), changed.concat());
    }
    truth.is(&changed.concat());
}

#[test]
fn links_and_kinds_that_git_cannot_hold() {
    let Some(truth) = Truth::new() else { return };
    let make = |name: &str, kind: rustix::fs::FileType| {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, truth.path(name), kind, mode, 0).expect("makes");
    };
    fs::hard_link(truth.path("a.txt"), truth.path("dir/hard")).expect("links");
    truth.is("?? dir/hard\n");
    // Written under one name, changed under both.
    append(&truth.path("dir/hard"), b"more\n");
    truth.is(" M a.txt\n?? dir/hard\n");
    fs::remove_file(truth.path("dir/hard")).expect("removable");
    truth.git(&["checkout", "-q", "a.txt"]);
    make("dir/pipe", rustix::fs::FileType::Fifo);
    make("dir/socket", rustix::fs::FileType::Socket);
    truth.is("");
    fs::remove_file(truth.path("a.txt")).expect("removable");
    make("a.txt", rustix::fs::FileType::Fifo);
    truth.is(" M a.txt\n");
    fs::remove_file(truth.path("a.txt")).expect("removable");
    std::os::unix::fs::symlink("dir/other", truth.path("a.txt")).expect("links");
    truth.is(" T a.txt\n");
}

#[test]
fn a_monitor_that_hides_a_change_would_be_noticed() {
    let Some(truth) = Truth::new() else { return };
    let hook = truth.fixture.path("blind-hook");
    fs::write(&hook, "#!/bin/sh\nprintf 'token\\0'\n").expect("writable");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("just written");
    for setting in [["core.fsmonitor", text(&hook)], ["core.fsmonitorHookVersion", "2"]] {
        truth.git(&[&["config", "--worktree"][..], &setting].concat());
    }
    truth.is("");
    fs::write(truth.path("a.txt"), "changed\n").expect("writable");
    assert_eq!(truth.status(true), " M a.txt\n");
    assert_eq!(truth.status(false), "", "this monitor says that nothing changed");
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).expect("opens").write_all(bytes).expect("writable");
}
