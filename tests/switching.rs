//! Another commit in a mount that is in use: what `larder switch` does with local changes, what readers and writers see
//! meanwhile, and what a daemon's death leaves.
//!
//! What happens to open files when the daemon dies: the mount they were opened in is gone, so every later operation on
//! their descriptors fails with `ENOTCONN`, and so does a path until a new daemon has mounted the workspace again. A file
//! opened after that has every byte that was acknowledged before, by `write(2)` returning, whether synced or not. Only
//! bytes that a program keeps to itself (stdio, a dirty shared mapping that was neither synced nor unmapped) are lost, as
//! no file system was told of them.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::compare::{self, Entry};
use common::repos::{self, commit_all, noise, write};
use common::{COMMAND_LIMIT, Fixture, eventually, exit, git_out, run, text, within};
use rustix::process::Signal;

// ---------------------------------------------------------------- local changes

/// What a user did before switching from `main` to `next`.
type Work = fn(&Path);

/// The branches: `main` with files, `next` with changed, new, removed and renamed ones, and kinds exchanged.
fn branches(dir: &Path) {
    repos::init(dir, "sha1");
    for name in ["same", "changed", "gone", "dir/same", "dir/changed", "dir/gone", "moved/one", "moved/two"] {
        write(dir, name, format!("{name} of main\n"));
    }
    write(dir, "was-dir/inner", "inner\n");
    write(dir, "was-file", "a file\n");
    write(dir, "run.sh", "#!/bin/sh\n");
    write(dir, ".gitignore", "*.o\n");
    symlink("same", dir.join("link")).expect("the fixture is writable");
    commit_all(dir, "main");
    git_out(dir, &["switch", "-q", "-c", "next"]);
    for name in ["changed", "dir/changed"] {
        write(dir, name, format!("{name} of next, which is longer\n"));
    }
    for name in ["gone", "dir/gone", "link"] {
        fs::remove_file(dir.join(name)).expect("there");
    }
    symlink("changed", dir.join("link")).expect("the fixture is writable");
    fs::rename(dir.join("moved"), dir.join("elsewhere")).expect("renames");
    fs::remove_dir_all(dir.join("was-dir")).expect("there");
    write(dir, "was-dir", "a file now\n");
    fs::remove_file(dir.join("was-file")).expect("there");
    write(dir, "was-file/inner", "a directory now\n");
    write(dir, "new/er/file", "new\n");
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("there");
    commit_all(dir, "next");
    git_out(dir, &["switch", "-q", "main"]);
}

fn remove(dir: &Path, name: &str) {
    let path = dir.join(name);
    let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn rename(dir: &Path, from: &str, to: &str) {
    fs::rename(dir.join(from), dir.join(to)).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
}

const fn works() -> [(&'static str, Work); 39] {
    [
        ("nothing", |_| {}),
        ("edit where nothing differs", |top| write(top, "same", "mine\n")),
        ("edit in a directory that differs", |top| write(top, "dir/same", "mine\n")),
        ("edit where it differs", |top| write(top, "changed", "mine\n")),
        ("edit deeper where it differs", |top| write(top, "dir/changed", "mine\n")),
        ("edit of what goes", |top| write(top, "dir/gone", "mine\n")),
        ("edit to what next has", |top| write(top, "changed", "changed of next, which is longer\n")),
        ("stage what next has", |top| {
            write(top, "changed", "changed of next, which is longer\n");
            git_out(top, &["add", "changed"]);
        }),
        ("edit and back", |top| {
            write(top, "changed", "mine\n");
            write(top, "changed", "changed of main\n");
        }),
        ("touch", |top| {
            let file = OpenOptions::new().append(true).open(top.join("changed")).expect("opens");
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("touches");
        }),
        ("delete where nothing differs", |top| remove(top, "same")),
        ("delete where it differs", |top| remove(top, "changed")),
        ("delete what goes", |top| remove(top, "gone")),
        ("delete a directory", |top| remove(top, "dir")),
        ("delete and stage it", |top| drop(git_out(top, &["rm", "-q", "dir/same"]))),
        ("stage the removal of what goes", |top| drop(git_out(top, &["rm", "-q", "gone"]))),
        ("stage the removal of what differs", |top| drop(git_out(top, &["rm", "-q", "changed"]))),
        ("stage an edit where nothing differs", |top| {
            write(top, "same", "staged\n");
            git_out(top, &["add", "same"]);
        }),
        ("stage an edit and edit again", |top| {
            write(top, "same", "staged\n");
            git_out(top, &["add", "same"]);
            write(top, "same", "and again\n");
        }),
        ("stage an edit where it differs", |top| {
            write(top, "changed", "staged\n");
            git_out(top, &["add", "changed"]);
        }),
        ("stage a new file", |top| {
            write(top, "mine/file", "staged\n");
            git_out(top, &["add", "mine"]);
        }),
        ("stage a new file where next has one", |top| {
            write(top, "new/er/file", "staged\n");
            git_out(top, &["add", "new"]);
        }),
        ("stage the same new file as next", |top| {
            write(top, "new/er/file", "new\n");
            git_out(top, &["add", "new"]);
        }),
        ("untracked beside", |top| {
            write(top, "dir/mine", "mine\n");
            write(top, "new/mine", "mine\n");
            write(top, "mine/mine", "mine\n");
        }),
        ("untracked in the way", |top| write(top, "new/er/file", "mine\n")),
        ("untracked in the way, with the same bytes", |top| write(top, "new/er/file", "new\n")),
        ("untracked where a directory comes", |top| write(top, "new", "mine\n")),
        ("untracked in what becomes a file", |top| write(top, "was-dir/mine", "mine\n")),
        ("ignored in what goes away", |top| write(top, "moved/mine.o", "mine\n")),
        ("untracked in what goes away", |top| write(top, "moved/mine", "mine\n")),
        ("empty directory in the way of a directory", |top| fs::create_dir_all(top.join("new/er")).expect("makes")),
        ("empty directory beside", |top| fs::create_dir_all(top.join("mine/empty")).expect("makes")),
        ("rename where nothing differs", |top| rename(top, "same", "renamed")),
        ("rename of a directory that goes", |top| rename(top, "moved", "mine")),
        ("rename of a directory that differs", |top| rename(top, "dir", "mine")),
        ("rename to where next has it", |top| rename(top, "moved", "elsewhere")),
        ("rename and stage it", |top| {
            rename(top, "moved", "elsewhere");
            git_out(top, &["add", "-A"]);
        }),
        ("mode", |top| {
            fs::set_permissions(top.join("same"), fs::Permissions::from_mode(0o755)).expect("chmod");
            fs::set_permissions(top.join("dir/same"), fs::Permissions::from_mode(0o600)).expect("chmod");
        }),
        ("mode where it differs", |top| {
            fs::set_permissions(top.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
        }),
    ]
}

/// Working tree, index and status of one side.
fn state(fixture: &Fixture, top: &Path) -> (BTreeMap<Vec<u8>, Entry>, Vec<String>) {
    let ask = |args: &[&str]| {
        let mut command = fixture.git(top);
        command.args(args);
        run(command, COMMAND_LIMIT).success().out()
    };
    let answers = vec![
        ask(&["status", "--porcelain=v2", "-uall"]),
        ask(&["--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "-uall"]),
        ask(&["ls-files", "-s", "-t"]),
        ask(&["rev-parse", "HEAD"]),
        ask(&["branch", "--show-current"]),
    ];
    let walked = top.to_owned();
    (within(COMMAND_LIMIT, "walking", move || compare::tree(&walked)), answers)
}

#[test]
fn local_changes_are_treated_as_git_switch_treats_them() {
    let Some(fixture) = Fixture::new() else { return };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let source = fixture.path("source");
    branches(&source);
    let mut outcomes = (0, 0);
    for (number, (what, work)) in works().into_iter().enumerate() {
        let bare = fixture.path(format!("bare{number}"));
        let mut copy = Command::new("cp");
        copy.args(["-a", text(&source), text(&bare)]);
        run(copy, COMMAND_LIMIT).success();
        let plain = repos::clone(&bare, None, &fixture.path(format!("plain{number}")));
        let mount = fixture.mount(text(&bare), &format!("mount{number}"));
        for top in [&plain, &mount] {
            work(top);
        }
        let before = (state(&fixture, &plain), state(&fixture, &mount));
        assert_eq!(before.0, before.1, "{what}: before the switch");
        let mut git = fixture.git(&plain);
        git.args(["switch", "-q", "next"]);
        let wanted = run(git, COMMAND_LIMIT);
        let found = fixture.run(&["switch", text(&mount), "next"]);
        let refused = wanted.code != Some(0);
        let said = format!("{what}\ngit: {:?} {}\nlarder: {:?} {}", wanted.code, wanted.err(), found.code, found.err());
        assert_eq!(found.code, Some(if refused { exit::REFUSED } else { 0 }), "{said}");
        *(if refused { &mut outcomes.1 } else { &mut outcomes.0 }) += 1;
        let after = (state(&fixture, &plain), state(&fixture, &mount));
        assert_eq!(after.0.0, after.1.0, "{said}: the working tree");
        assert_eq!(after.0.1, after.1.1, "{said}: status, index and HEAD");
        assert!(!refused || after == before, "{said}: refused, so nothing changes");
        fixture.ok(&["unmount", text(&mount), "--purge", "--force"]);
    }
    assert!(outcomes.0 > 10 && outcomes.1 > 5, "both are seen: {outcomes:?}");
}

// ---------------------------------------------------------------- readers and writers during switches

/// Files that differ between the branches.
const FILES: usize = 48;

/// Contents of file `number` in one of the two branches. Sizes differ, and reach over several pages and read-aheads.
fn version(number: usize, next: bool) -> Vec<u8> {
    let size = [10, 5_000, 70_000, 300_000][number % 4] + number * 13;
    noise((number * 2 + usize::from(next)) as u64, if next { size * 2 + 7 } else { size })
}

fn file_name(number: usize) -> String {
    format!("many/d{}/f{number:02}", number % 5)
}

/// A mount of a repository in which `main` and `next` differ in [`FILES`] files, both already fetched.
struct Busy {
    fixture: Fixture,
    mount: PathBuf,
}

impl Busy {
    fn new() -> Option<Self> {
        let fixture = Fixture::new()?;
        let source = fixture.path("source");
        repos::init(&source, "sha1");
        write(&source, "same", "same\n");
        for next in [false, true] {
            for number in 0..FILES {
                write(&source, file_name(number), version(number, next));
            }
            commit_all(&source, "one");
            if !next {
                git_out(&source, &["switch", "-q", "-c", "next"]);
            }
        }
        git_out(&source, &["switch", "-q", "main"]);
        let mount = fixture.mount(text(&source), "m");
        fixture.ok(&["switch", text(&mount), "next"]);
        fixture.ok(&["switch", text(&mount), "main"]);
        Some(Self { fixture, mount })
    }

    fn switch(&self, to: &str) -> common::Outcome {
        self.fixture.run(&["switch", text(&self.mount), to])
    }

    /// Switches back and forth until `until`, with a breath in between; tells how often.
    fn switch_until(&self, until: Instant) -> usize {
        let mut count = 0;
        while Instant::now() < until {
            self.switch(if count % 2 == 0 { "next" } else { "main" }).success();
            count += 1;
            thread::sleep(Duration::from_millis(5 * (count as u64 % 4)));
        }
        count
    }
}

/// Reads a path as a program does, and wants one version as a whole. Tells which.
fn read_whole(path: &Path, versions: &[Vec<u8>; 2]) -> Result<usize, String> {
    let mut file = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let before = file.metadata().map_err(|error| format!("fstat: {error}"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| format!("read {}: {error}", path.display()))?;
    let after = file.metadata().map_err(|error| format!("fstat: {error}"))?;
    let Some(which) = versions.iter().position(|version| *version == bytes) else {
        let common = |version: &Vec<u8>| version.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        return Err(format!(
            "{}: {} bytes that are neither version ({} and {} bytes; {} and {} of them alike), stat said {} and {}",
            path.display(),
            bytes.len(),
            versions[0].len(),
            versions[1].len(),
            common(&versions[0]),
            common(&versions[1]),
            before.len(),
            after.len()
        ));
    };
    if before.len() != bytes.len() as u64 || after.len() != before.len() || after.ino() != before.ino() {
        let (before, after, read) = (before.len(), after.len(), bytes.len());
        return Err(format!("{}: stat says {before}, then {after}, and {read} bytes were read", path.display()));
    }
    Ok(which)
}

/// A descriptor that is kept: it shows what it showed first.
fn read_kept(file: &mut File, wanted: &[u8], path: &Path) -> Result<(), String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(|error| format!("seek: {error}"))?;
    file.read_to_end(&mut bytes).map_err(|error| format!("{} kept open: {error}", path.display()))?;
    let size = file.metadata().map_err(|error| format!("{} kept open, fstat: {error}", path.display()))?.len();
    if bytes != wanted || size != wanted.len() as u64 {
        let (read, wanted) = (bytes.len(), wanted.len());
        return Err(format!("{} kept open had {wanted} bytes, now {read}, size {size}", path.display()));
    }
    Ok(())
}

/// Reads one path after the other until told to stop, some through descriptors that stay open over several switches.
fn reader(number: usize, mount: &Path, stop: &AtomicBool, found: &[AtomicU64; 2]) -> Result<(), String> {
    let versions: Vec<[Vec<u8>; 2]> =
        (0..FILES).map(|number| [version(number, false), version(number, true)]).collect();
    let mut kept: Vec<(File, Vec<u8>, PathBuf)> = Vec::new();
    let mut turn = number * 7;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let file_number = (turn * 31 + number) % FILES;
        let path = mount.join(file_name(file_number));
        let which = read_whole(&path, &versions[file_number])?;
        found[which].fetch_add(1, Ordering::Relaxed);
        let size = fs::metadata(&path).map_err(|error| format!("stat {}: {error}", path.display()))?.len();
        if !versions[file_number].iter().any(|version| version.len() as u64 == size) {
            return Err(format!("{}: a size of {size}, which neither version has", path.display()));
        }
        if turn.is_multiple_of(5) {
            let mut file = File::open(&path).map_err(|error| format!("open: {error}"))?;
            let mut bytes = Vec::new();
            // Half of them are read for the first time much later, when the branch may be another one.
            if turn.is_multiple_of(2) {
                file.read_to_end(&mut bytes).map_err(|error| format!("read {}: {error}", path.display()))?;
            } else {
                let size = file.metadata().map_err(|error| format!("fstat: {error}"))?.len();
                bytes = versions[file_number]
                    .iter()
                    .find(|version| version.len() as u64 == size)
                    .cloned()
                    .unwrap_or_default();
            }
            if !versions[file_number].contains(&bytes) {
                return Err(format!("{}: {} bytes that are neither version", path.display(), bytes.len()));
            }
            kept.push((file, bytes, path));
        }
        if kept.len() > 24 {
            let at = turn % kept.len();
            let (mut file, bytes, path) = kept.swap_remove(at);
            read_kept(&mut file, &bytes, &path)?;
        }
        for (file, bytes, path) in kept.iter_mut().rev().take(1) {
            read_kept(file, bytes, path)?;
        }
    }
    kept.into_iter().try_for_each(|(mut file, bytes, path)| read_kept(&mut file, &bytes, &path))
}

/// Lists directories: every name is there, once, whatever the branch.
fn lister(mount: &Path, stop: &AtomicBool) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        for directory in 0..5 {
            let path = mount.join(format!("many/d{directory}"));
            let listed = fs::read_dir(&path).and_then(|entries| {
                entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect::<io::Result<_>>()
            });
            let mut names: Vec<String> = listed.map_err(|error| format!("{}: {error}", path.display()))?;
            names.sort();
            let wanted: Vec<_> =
                (0..FILES).filter(|number| number % 5 == directory).map(|number| format!("f{number:02}")).collect();
            // A writer's own files are among them.
            names.retain(|name| name.starts_with('f'));
            if names != wanted {
                return Err(format!("{}: lists {names:?}", path.display()));
            }
        }
    }
    Ok(())
}

/// Overwrites files of its own beside those that the branches change, and finds in them what it wrote last.
fn writer(seed: usize, mount: &Path, stop: &AtomicBool) -> Result<(), String> {
    let directory = mount.join(format!("many/d{}", seed % 5));
    let path = directory.join(format!("own{seed}"));
    let (temporary, appended) = (directory.join(format!("own{seed}~")), directory.join(format!("own{seed}.log")));
    let mut log = Vec::new();
    let fail = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let bytes = noise((round + 1000 * seed) as u64, 100 + (round * 977) % 60_000);
        if round.is_multiple_of(2) {
            fs::write(&temporary, &bytes).map_err(fail("write"))?;
            fs::rename(&temporary, &path).map_err(fail("rename"))?;
        } else {
            fs::write(&path, &bytes).map_err(fail("overwrite"))?;
        }
        let line = format!("round {round}\n");
        let append = OpenOptions::new().create(true).append(true).open(&appended);
        append.and_then(|mut file| file.write_all(line.as_bytes())).map_err(fail("append"))?;
        log.extend_from_slice(line.as_bytes());
        if fs::read(&path).map_err(fail("read back"))? != bytes {
            return Err(format!("{}: not what was written in round {round}", path.display()));
        }
        if fs::read(&appended).map_err(fail("read back"))? != log {
            return Err(format!("{}: not what was appended until round {round}", appended.display()));
        }
        if round % 7 == 6 {
            fs::remove_file(&path).map_err(fail("remove"))?;
        }
    }
    Ok(())
}

/// Readers, and writers if there are any, while the branch changes; none of them may notice anything but whole versions.
fn hammer(busy: &Busy, readers: usize, writers: usize, duration: Duration) {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let mut threads = Vec::new();
    for seed in 0..readers {
        let (mount, stop, seen) = (busy.mount.clone(), Arc::clone(&stop), Arc::clone(&seen));
        threads.push(thread::spawn(move || reader(seed, &mount, &stop, &seen)));
    }
    let (mount, flag) = (busy.mount.clone(), Arc::clone(&stop));
    threads.push(thread::spawn(move || lister(&mount, &flag)));
    for seed in 0..writers {
        let (mount, stop) = (busy.mount.clone(), Arc::clone(&stop));
        threads.push(thread::spawn(move || writer(seed, &mount, &stop)));
    }
    let switches = busy.switch_until(Instant::now() + duration);
    stop.store(true, Ordering::Relaxed);
    let outcomes = within(COMMAND_LIMIT, "readers and writers", move || {
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    for outcome in outcomes {
        if let Err(what) = outcome {
            panic!("{what} ({switches} switches)");
        }
    }
    let seen = [&seen[0], &seen[1]].map(|count| count.load(Ordering::Relaxed));
    assert!(switches >= 8, "only {switches} switches");
    assert!(seen.iter().all(|count| *count > 10), "both versions were read: {seen:?}");
}

#[test]
fn readers_during_switches_see_one_version_or_the_other() {
    let Some(busy) = Busy::new() else { return };
    hammer(&busy, 4, 0, Duration::from_secs(6));
    assert_eq!(busy.fixture.git_out(&busy.mount, &["status", "--porcelain"]), "");
    assert_eq!(busy.fixture.git_out(&busy.mount, &["-c", "core.fsmonitor=false", "status", "--porcelain"]), "");
}

#[test]
fn readers_and_writers_during_switches() {
    let Some(busy) = Busy::new() else { return };
    hammer(&busy, 3, 3, Duration::from_secs(6));
    let git = |args: &[&str]| busy.fixture.git_out(&busy.mount, args);
    let scanned = ["-c", "core.fsmonitor=false", "status", "--porcelain", "-uall"];
    assert_eq!(git(&["status", "--porcelain", "-uall"]), git(&scanned));
    git(&["clean", "-fdq"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
}

#[test]
fn a_rewrite_of_the_same_size_right_after_a_switch_is_seen() {
    let Some(busy) = Busy::new() else { return };
    for round in 0..4 {
        busy.switch("next").success();
        let name = file_name(4 + round);
        let mut file = OpenOptions::new().write(true).open(busy.mount.join(&name)).expect("opens");
        file.write_all(b"!").expect("writes");
        let (monitored, scanned) = busy.statuses();
        assert!(monitored.contains(&name), "{name} was changed: {monitored}");
        assert_eq!(scanned, monitored);
        busy.fixture.git_out(&busy.mount, &["reset", "-q", "--hard"]);
        // The same of what was staged just before: the switch writes an index that is younger than both.
        write(&busy.mount, "same", "SAME\n");
        busy.fixture.git_out(&busy.mount, &["add", "same"]);
        write(&busy.mount, "same", "EMAS\n");
        busy.switch("main").success();
        assert_eq!(busy.fixture.git_out(&busy.mount, &["status", "--porcelain"]), "MM same");
        assert_eq!(
            busy.fixture.git_out(&busy.mount, &["-c", "core.fsmonitor=false", "status", "--porcelain"]),
            "MM same"
        );
        busy.fixture.git_out(&busy.mount, &["reset", "-q", "--hard"]);
    }
}

#[test]
fn what_is_saved_while_a_switch_runs_is_kept() {
    let Some(busy) = Busy::new() else { return };
    let git = |args: &[&str]| busy.fixture.git_out(&busy.mount, args);
    let saved = busy.mount.join(file_name(1));
    let (mut refused, mut happened) = (0, 0);
    let mut branch = "main";
    for round in 0..60_u64 {
        let to = if branch == "main" { "next" } else { "main" };
        let mut command = busy.fixture.larder();
        command.args(["switch", text(&busy.mount), to]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut switching = command.spawn().expect("started");
        thread::sleep(Duration::from_micros(1000 + 1500 * round));
        // As editors save: the new file takes the place of the old one at once.
        let bytes = noise(round + 500, 3000);
        let temporary = saved.with_file_name("saved~");
        fs::write(&temporary, &bytes).expect("writes");
        fs::rename(&temporary, &saved).expect("renames");
        let status = common::wait_for(&mut switching, COMMAND_LIMIT).expect("ended");
        assert!(fs::read(&saved).expect("reads") == bytes, "round {round}: the switch ended with {:?}", status.code());
        let code = status.code();
        assert!([Some(0), Some(exit::REFUSED)].contains(&code), "{code:?}");
        if code == Some(0) {
            branch = to;
            happened += 1;
        } else {
            refused += 1;
        }
        assert_eq!(git(&["branch", "--show-current"]), branch);
        let changed = format!("M {}", file_name(1));
        assert_eq!(git(&["status", "--porcelain"]).trim_start(), changed);
        git(&["reset", "-q", "--hard"]);
        assert_eq!(git(&["-c", "core.fsmonitor=false", "status", "--porcelain"]), "", "round {round}");
    }
    assert!(refused > 0 && happened > 0, "saved both before and after: {refused} refused, {happened} happened");
}

// ---------------------------------------------------------------- a daemon that dies

impl Busy {
    /// Kills the daemon and has another one mount the workspace again.
    fn crash(&self) {
        self.fixture.crash_daemon();
        let started = || self.fixture.run(&["daemon"]).code == Some(0);
        eventually(Duration::from_secs(10), "a new daemon", started);
        eventually(Duration::from_secs(10), "mounted again", || self.fixture.is_mounted(&self.mount));
    }

    /// Status by the monitor and by a scan that believes nothing.
    fn statuses(&self) -> (String, String) {
        let ask = |args: &[&str]| self.fixture.git_out(&self.mount, args);
        let scan = ["-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false"];
        let status = ["status", "--porcelain=v2", "-uall"];
        let monitored = ask(&[&["--no-optional-locks"], &status[..]].concat());
        (monitored, ask(&[&["--no-optional-locks"], &scan[..], &status[..]].concat()))
    }
}

#[test]
fn a_daemon_killed_while_git_writes_leaves_files_and_status_true() {
    let Some(busy) = Busy::new() else { return };
    let git = |args: &[&str]| busy.fixture.git_out(&busy.mount, args);
    git(&["config", "user.name", "Ann"]);
    let mine = busy.mount.join("mine/untracked");
    let admin = PathBuf::from(git(&["rev-parse", "--absolute-git-dir"]));
    let mut interrupted = 0;
    for round in 0..30_u64 {
        git(&["switch", "-q", "-f", if round.is_multiple_of(2) { "main" } else { "next" }]);
        let base = round % 2 != 0;
        write(&busy.mount, "mine/untracked", format!("untracked {round}\n"));
        write(&busy.mount, "same", format!("edited {round}\n"));
        let operations: [&[&str]; 4] = [
            &["commit", "-q", "-a", "-m", "a commit"],
            &["reset", "-q", "--hard", "HEAD~0"],
            &["checkout", "-q", "-f", if base { "main" } else { "next" }],
            &["stash", "push", "-q", "--", "same"],
        ];
        let operation = operations[usize::try_from(round / 2).expect("small") % 4];
        let mut command = busy.fixture.git(&busy.mount);
        command.args(operation).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = busy.fixture.daemon();
        let mut working = command.spawn().expect("git runs");
        thread::sleep(Duration::from_micros(1500 * (round * 13 % 40)));
        common::kill(daemon, Signal::KILL);
        let status = common::wait_for(&mut working, COMMAND_LIMIT).expect("git ends when its files are gone");
        interrupted += u32::from(!status.success());
        eventually(Duration::from_secs(5), "a killed daemon is gone", || !busy.fixture.daemons().contains(&daemon));
        eventually(Duration::from_secs(10), "a new daemon", || busy.fixture.run(&["daemon"]).code == Some(0));
        eventually(Duration::from_secs(10), "mounted again", || busy.fixture.is_mounted(&busy.mount));
        let what = format!("round {round}, {operation:?}, git ended with {status}");
        // Git takes its locks away, unless it dies of a mapped file that is gone (SIGBUS).
        let lock = admin.join("index.lock");
        assert!(status.signal().is_some() || !lock.exists(), "{what}");
        drop(fs::remove_file(lock));
        let (monitored, scanned) = busy.statuses();
        assert_eq!(monitored, scanned, "{what}");
        assert_eq!(fs::read(&mine).expect("reads"), format!("untracked {round}\n").as_bytes(), "{what}");
        check_versions(&busy.mount, &what);
        // And it stays so, as it is all acknowledged.
        let before = compare::tree(&busy.mount);
        busy.crash();
        assert_eq!(compare::tree(&busy.mount), before, "{what}");
        assert_eq!(busy.statuses(), (monitored, scanned), "{what}");
        git(&["reset", "-q", "--hard"]);
        git(&["clean", "-q", "-fd"]);
        let (monitored, scanned) = busy.statuses();
        assert_eq!((monitored.as_str(), scanned.as_str()), ("", ""), "{what}, put in order");
    }
    assert!(interrupted > 3, "kills came in time: {interrupted} of 30");
}

/// Every file is as Git had it, has it, or was about to write it: absent, or the first bytes of a version.
fn check_versions(mount: &Path, what: &str) {
    for number in 0..FILES {
        let path = mount.join(file_name(number));
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.unwrap_or_else(|error| panic!("{what}: {}: {error}", path.display())),
        };
        assert_eq!(fs::metadata(&path).expect("stat").len(), bytes.len() as u64, "{what}: {}", path.display());
        let fits = [false, true].into_iter().any(|next| version(number, next).starts_with(&bytes));
        assert!(fits, "{what}: {} holds {} bytes that nobody wrote", path.display(), bytes.len());
    }
}

#[test]
fn an_overlay_is_empty_after_everything_is_committed() {
    let Some(busy) = Busy::new() else { return };
    let (git, mount) = (|args: &[&str]| busy.fixture.git_out(&busy.mount, args), &busy.mount);
    let entries = || busy.fixture.status(mount)["overlay_entries"].as_u64().expect("a number");
    let becomes = |wanted: u64, what: &str| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match entries() {
                found if found == wanted => return,
                found => assert!(Instant::now() < until, "{what}: {found} entries, not {wanted}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!(entries(), 0);
    write(mount, "same", "mine\n");
    write(mount, "mine/deep/file", "mine\n");
    fs::remove_file(mount.join(file_name(0))).expect("removes");
    fs::rename(mount.join("many/d1"), mount.join("many/renamed")).expect("renames");
    fs::rename(mount.join("many/d2"), mount.join("moved")).expect("renames");
    fs::set_permissions(mount.join(file_name(3)), fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink("same", mount.join("link")).expect("links");
    fs::remove_dir_all(mount.join("many/d4")).expect("removes");
    symlink("d0", mount.join("many/d4")).expect("links");
    assert!(entries() >= 8, "{}", entries());
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "all of it"]);
    becomes(0, "a commit of everything");
    let committed = compare::tree(mount);
    git(&["reset", "-q", "--hard", "HEAD~1"]);
    becomes(0, "a reset");
    git(&["reset", "-q", "--hard", "HEAD@{1}"]);
    becomes(0, "a reset back");
    assert_eq!(compare::tree(mount), committed);
    write(mount, "same", "for later\n");
    write(mount, "new", "for later\n");
    becomes(2, "two files");
    git(&["stash", "-q", "-u"]);
    becomes(0, "a stash");
    git(&["stash", "pop", "-q"]);
    becomes(2, "a stash that came back");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "those too"]);
    becomes(0, "a second commit");
    git(&["checkout", "-q", "next"]);
    becomes(0, "a checkout");
    git(&["checkout", "-q", "main"]);
    becomes(0, "a checkout back");
    busy.crash();
    becomes(0, "a new daemon");
    assert_eq!(busy.statuses(), (String::new(), String::new()));
    let commit = git(&["rev-parse", "HEAD~1"]);
    git(&["checkout", "-q", &commit]);
    assert_eq!(compare::tree(mount), committed);
    // What is copied up and left alone is no change.
    let touched = OpenOptions::new().append(true).open(mount.join("same")).expect("opens");
    touched.set_modified(std::time::SystemTime::now()).expect("touches");
    becomes(0, "a touch");
}

#[test]
fn open_files_of_running_programs_when_the_daemon_dies() {
    let Some(busy) = Busy::new() else { return };
    let (path, log) = (busy.mount.join(file_name(2)), busy.mount.join("program.log"));
    let reading = File::open(&path).expect("opens");
    let mut writing = OpenOptions::new().create(true).append(true).open(&log).expect("opens");
    let mut changed = OpenOptions::new().write(true).open(busy.mount.join(file_name(5))).expect("opens");
    changed.write_all(b"changed, not synced").expect("writes");
    // Written until the daemon is gone; what was acknowledged is counted.
    let gate = Arc::new(Barrier::new(2));
    let begun = Arc::clone(&gate);
    let program = thread::spawn(move || {
        let mut acknowledged = 0_u32;
        loop {
            if acknowledged == 50 {
                begun.wait();
            }
            match writing.write_all(format!("{acknowledged:08}\n").as_bytes()) {
                Ok(()) => acknowledged += 1,
                Err(error) => return (acknowledged, error, writing),
            }
        }
    });
    gate.wait();
    thread::sleep(Duration::from_millis(30));
    busy.fixture.crash_daemon();
    let gone = Some(rustix::io::Errno::NOTCONN.raw_os_error());
    let (acknowledged, error, mut writing) =
        within(COMMAND_LIMIT, "the program notices", move || program.join().expect("no panic"));
    assert!([gone, Some(libc::ECONNABORTED)].contains(&error.raw_os_error()), "the write under way: {error}");
    assert!(acknowledged >= 50);
    let is_gone = |what: &str, error: Option<io::Error>| {
        let error = error.unwrap_or_else(|| panic!("{what}: works without a daemon"));
        assert_eq!(error.raw_os_error(), gone, "{what}: {error}");
    };
    let check_descriptors = |writing: &mut File, when: &str| {
        is_gone(when, writing.write_all(b"lost").err());
        is_gone(when, writing.sync_all().err());
        is_gone(when, writing.set_len(0).err());
        // What the kernel has in its cache it may still give.
        let mut byte = [0];
        if let Err(error) = reading.read_exact_at(&mut byte, 60_000) {
            is_gone(when, Some(error));
        }
    };
    check_descriptors(&mut writing, "without a daemon");
    is_gone("a path", fs::metadata(&log).err());
    busy.fixture.ok(&["daemon"]);
    eventually(Duration::from_secs(10), "mounted again", || busy.fixture.is_mounted(&busy.mount));
    check_descriptors(&mut writing, "with another daemon");
    let logged = fs::read_to_string(&log).expect("opens anew");
    let wanted = (0..acknowledged).map(|number| format!("{number:08}\n")).collect::<Vec<_>>().concat();
    // The one that failed may have arrived; none that succeeded may be missing.
    assert!(logged.starts_with(&wanted), "{} acknowledged bytes, {} found", wanted.len(), logged.len());
    assert!(logged.len() <= wanted.len() + 9, "{} acknowledged bytes, {} found", wanted.len(), logged.len());
    let changed = fs::read(busy.mount.join(file_name(5))).expect("opens anew");
    let mut wanted = version(5, false);
    wanted[..19].copy_from_slice(b"changed, not synced");
    assert!(changed == wanted, "a write over the base's bytes");
    assert!(fs::read(&path).expect("opens anew") == version(2, false));
    let (monitored, scanned) = busy.statuses();
    assert_eq!(monitored, scanned);
    assert!(monitored.contains("program.log") && monitored.contains(&file_name(5)), "{monitored}");
    let mut again = OpenOptions::new().append(true).open(&log).expect("opens anew");
    again.write_all(b"and on it goes\n").expect("writes");
    assert!(fs::read_to_string(&log).expect("reads").ends_with("and on it goes\n"));
}
