//! `larder verify`: what is damaged in the file is found and nothing else, nothing is changed by looking, and a repair
//! fetches it again.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use common::proxy::Proxy;
use common::repos::{self, commit_all, noise, write};
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, Outcome, exit, git_out, kill, read, run, text, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const FILES: u64 = 30;
/// More than one frame, and more than one transaction of a check.
const LARGE: usize = 2 << 20;

/// A mount of files that do not compress, all of them in the cache, behind a proxy.
struct Scene {
    fixture: Fixture,
    source: PathBuf,
    mount: PathBuf,
    proxy: Proxy,
    _server: GitDaemon,
}

impl Scene {
    fn new(format: &str, settings: &str) -> Option<Self> {
        let fixture =
            Fixture::with_settings(&format!("[git]\nhistory = \"off\"\n[gc]\ninterval = \"0s\"\n{settings}"))?;
        let source = fixture.path("remote/project");
        repos::init(&source, format);
        for number in 0..FILES {
            write(&source, format!("d{}/f{number:02}", number % 3), noise(number, 6000));
        }
        write(&source, "large", noise(1000, LARGE));
        write(&source, "text", "a line\n".repeat(5000));
        write(&source, "empty", "");
        commit_all(&source, "main");
        let server = GitDaemon::serve(&fixture.path("remote"));
        let proxy = Proxy::to(server.port());
        let mount = fixture.mount(&git_url(proxy.port(), "project"), "mount");
        fixture.ok(&["warm", text(&mount)]);
        Some(Self { fixture, source, mount, proxy, _server: server })
    }

    fn store(&self) -> PathBuf {
        self.fixture.home().join("store.redb")
    }

    fn file(number: u64) -> String {
        format!("d{}/f{number:02}", number % 3)
    }

    fn oid(&self, path: &str) -> String {
        git_out(&self.source, &["rev-parse", &format!("HEAD:{path}")])
    }

    /// Flips a bit of stored bytes that are those of `content`, which does not compress; also in pages of the file that are
    /// not in use any more, since nothing tells those apart from here.
    fn damage(&self, content: &[u8], at: usize) {
        let stored = fs::read(self.store()).expect("the store is there");
        let part = &content[at..at + 64];
        let places = stored.windows(64).enumerate().filter(|(_, window)| *window == part);
        let places: Vec<u64> = places.map(|(place, _)| place as u64).collect();
        assert!(!places.is_empty(), "stored as it is");
        let file = File::options().write(true).open(self.store()).expect("opens");
        for place in places {
            file.write_all_at(&[part[7] ^ 8], place + 7).expect("written");
        }
    }

    fn shows_everything(&self) {
        for number in 0..FILES {
            assert!(read(&self.mount.join(Self::file(number))).expect("readable") == noise(number, 6000), "{number}");
        }
        assert!(read(&self.mount.join("large")).expect("readable") == noise(1000, LARGE));
    }
}

/// Runs `larder verify --json`, which must end with `code`.
#[track_caller]
fn verify(fixture: &Fixture, code: i32, arguments: &[&str]) -> Value {
    let outcome = fixture.run(&[&["verify", "--json"], arguments].concat());
    parsed(&outcome, code)
}

#[track_caller]
fn parsed(outcome: &Outcome, code: i32) -> Value {
    assert_eq!(outcome.code, Some(code), "stdout: {}\nstderr: {}", outcome.out(), outcome.err());
    serde_json::from_slice(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.out()))
}

#[track_caller]
fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {report}"))
}

/// Ids of the rows of this kind, sorted.
fn ids(report: &Value, kind: &str) -> Vec<String> {
    let rows = report["rows"].as_array().expect("rows");
    let mut ids: Vec<String> = rows
        .iter()
        .filter(|row| row["kind"] == kind)
        .map(|row| row["id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

#[test]
fn damage_is_found_told_and_fetched_again() {
    for format in ["sha1", "sha256"] {
        let Some(scene) = Scene::new(format, "") else { return };
        let fixture = &scene.fixture;
        // With the daemon, while mounted.
        let report = verify(fixture, 0, &[]);
        assert_eq!((number(&report, "corrupt"), number(&report, "repaired")), (0, 0), "{report}");
        assert_eq!(number(&report, "objects_checked"), FILES + 3 + 4, "{report}");
        assert!(number(&report, "bytes_checked") > FILES * 6000 + LARGE as u64, "{report}");
        assert_eq!(report["opens_read_only"], Value::Null, "{report}");
        assert!(number(&report, "tables_checked") > 15 && report["seconds"].as_f64().is_some(), "{report}");

        // Without, nothing is there to hold the file.
        fixture.ok(&["shutdown"]);
        let report = verify(fixture, 0, &[]);
        assert_eq!(report["opens_read_only"], true, "{report}");
        assert!(fixture.daemons().is_empty(), "looking needs no daemon");
        scene.damage(&noise(7, 6000), 3000);
        scene.damage(&noise(8, 6000), 100);
        scene.damage(&noise(1000, LARGE), LARGE - 1000);
        let before = fs::read(scene.store()).expect("readable");
        let report = verify(fixture, exit::CORRUPT, &[]);
        let mut expected = vec![scene.oid(&Scene::file(7)), scene.oid(&Scene::file(8)), scene.oid("large")];
        expected.sort();
        assert_eq!(ids(&report, "blob"), expected, "{report}");
        assert_eq!((number(&report, "corrupt"), number(&report, "blobs")), (3, 3), "{report}");
        let paths: Vec<&str> =
            report["rows"].as_array().expect("rows").iter().filter_map(|row| row["path"].as_str()).collect();
        assert!(paths.contains(&"large") && paths.contains(&Scene::file(7).as_str()), "{report}");
        assert!(fs::read(scene.store()).expect("readable") == before, "looking changes nothing");
        let told = fixture.run(&["verify"]);
        assert_eq!(told.code, Some(exit::CORRUPT));
        assert!(told.out().contains("3 damaged") && told.out().contains("--repair"), "{}", told.out());

        // A daemon that looks changes nothing either.
        fixture.ok(&["daemon"]);
        for _ in 0..2 {
            assert_eq!(ids(&verify(fixture, exit::CORRUPT, &[]), "blob"), expected);
        }
        let report = verify(fixture, 0, &["--repair"]);
        assert_eq!((number(&report, "corrupt"), number(&report, "repaired")), (3, 3), "{report}");
        assert!(report["rows"].as_array().expect("rows").iter().all(|row| row["repaired"] == true), "{report}");
        assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);
        scene.proxy.set_offline(true);
        scene.shows_everything();
        fixture.ok(&["shutdown"]);
        let report = verify(fixture, 0, &[]);
        assert_eq!((number(&report, "corrupt"), number(&report, "wasted_chunks")), (0, 0), "{report}");
    }
}

#[test]
fn a_repair_starts_the_daemon_and_without_the_remote_says_what_stays_broken() {
    let Some(scene) = Scene::new("sha1", "[network]\ntimeout = \"2s\"\n[hydrate]\nretries = 0\n") else { return };
    let fixture = &scene.fixture;
    fixture.ok(&["shutdown"]);
    scene.damage(&noise(7, 6000), 3000);
    scene.proxy.set_offline(true);
    let report = verify(fixture, exit::CORRUPT, &["--repair"]);
    assert_eq!((number(&report, "corrupt"), number(&report, "repaired")), (1, 0), "{report}");
    let row = &report["rows"][0];
    assert_eq!(row["id"], scene.oid(&Scene::file(7)).as_str(), "{report}");
    assert!(row["failure"].as_str().is_some_and(|why| why.contains("could not be fetched")), "{report}");
    assert!(fixture.is_mounted(&scene.mount), "the daemon mounts again what was mounted");
    scene.proxy.set_offline(false);
    scene.shows_everything();
    assert_eq!(number(&verify(fixture, 0, &["--repair"]), "corrupt"), 0);
}

#[test]
fn a_damaged_tree_is_put_back_and_a_copy_of_the_cache_can_be_checked() {
    let Some(scene) = Scene::new("sha1", "") else { return };
    let fixture = &scene.fixture;
    fixture.ok(&["shutdown"]);
    let id = scene.oid(&Scene::file(4));
    let raw: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).expect("hex")).collect();
    // In a listing the name follows the id.
    let named = [&raw[..], b"f04"].concat();
    let stored = fs::read(scene.store()).expect("readable");
    let places: Vec<usize> =
        stored.windows(named.len()).enumerate().filter(|(_, part)| *part == named).map(|(at, _)| at).collect();
    let file = File::options().write(true).open(scene.store()).expect("opens");
    for at in places {
        file.write_all_at(b"x", at as u64 + 20).expect("written");
    }
    let copy = Fixture::new().expect("fuse is there");
    fs::create_dir_all(copy.home()).expect("made");
    fs::copy(scene.store(), copy.home().join("store.redb")).expect("copied");
    for checked in [fixture, &copy] {
        let report = verify(checked, exit::CORRUPT, &[]);
        assert_eq!(ids(&report, "tree"), [scene.oid("d1")], "{report}");
        assert_eq!(number(&report, "corrupt"), 1, "{report}");
        assert_eq!((&report["rows"][0]["path"], &report["rows"][0]["workspace"]), (&"d1".into(), &"mount".into()));
    }
    assert!(copy.daemons().is_empty());
    // The gitdir has it.
    scene.proxy.set_offline(true);
    let report = verify(fixture, 0, &["--repair"]);
    assert_eq!((number(&report, "corrupt"), number(&report, "repaired")), (1, 1), "{report}");
    scene.shows_everything();
}

#[test]
fn reads_go_on_while_it_checks_and_repairs() {
    let Some(scene) = Scene::new("sha1", "[verify]\nrate = \"8MiB\"\n") else { return };
    let fixture = &scene.fixture;
    fixture.ok(&["shutdown"]);
    for file in [3, 9, 20] {
        scene.damage(&noise(file, 6000), 2000);
    }
    fixture.ok(&["daemon"]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for number in 0..FILES {
                    let file = File::open(scene.mount.join(Scene::file(number))).expect("opens");
                    // Past the kernel's cache.
                    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                    let mut found = vec![0; 6000];
                    file.read_exact_at(&mut found, 0).expect("readable");
                    assert!(found == noise(number, 6000), "file {number}");
                }
            }
        });
        for _ in 0..3 {
            let report = verify(fixture, 0, &["--repair"]);
            assert_eq!(number(&report, "corrupt"), number(&report, "repaired"), "{report}");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);
}

#[test]
fn a_check_that_is_interrupted_ends_and_another_can_begin() {
    let Some(scene) = Scene::new("sha1", "") else { return };
    let fixture = &scene.fixture;
    let mut child = slow(fixture);
    let refused = fixture.fails(&[exit::REFUSED], &["verify"]);
    assert!(refused.err().contains("under way"), "{}", refused.err());
    kill(i32::try_from(child.id()).expect("fits"), Signal::INT);
    assert!(wait_for(&mut child, COMMAND_LIMIT).is_some(), "^C ends it");
    common::eventually(COMMAND_LIMIT, "the daemon notices that nobody waits", || {
        fixture.run(&["verify"]).code == Some(0)
    });
    fixture.ok(&["shutdown"]);
    let mut child = slow(fixture);
    kill(i32::try_from(child.id()).expect("fits"), Signal::INT);
    assert!(wait_for(&mut child, COMMAND_LIMIT).is_some(), "^C ends it without a daemon too");
}

/// A check that would take an hour, and has begun.
fn slow(fixture: &Fixture) -> Child {
    let mut command = fixture.larder();
    command.args(["verify", "--rate", "1KiB"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("larder runs");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("it tells how far it is");
    assert!(line.contains("checking objects"), "{line}");
    child
}

#[test]
fn files_of_local_changes_are_compared_with_their_entries() {
    let Some(scene) = Scene::new("sha1", "") else { return };
    let fixture = &scene.fixture;
    let path = |name: &str| scene.mount.join(name);
    File::options().write(true).open(path("d0/f00")).and_then(|file| file.write_all_at(b"more", 0)).expect("writes");
    fs::write(path("made"), "by hand\n").expect("writes");
    fs::write(path("nothing"), "").expect("writes");
    fs::create_dir(path("dir")).expect("made");
    fs::rename(path("d1/f01"), path("dir/moved")).expect("renames");
    fs::remove_file(path("d1/f04")).expect("removes");
    fs::rename(path("d2"), path("dir/d2")).expect("renames");
    // In use, with nothing folded, and closed.
    assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);
    fixture.crash_daemon();
    let report = verify(fixture, 0, &[]);
    assert_eq!(number(&report, "corrupt"), 0, "{report}");
    fixture.ok(&["daemon"]);
    assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);

    let files = fixture.home().join("overlay/1/files");
    let plain: Vec<PathBuf> = listed(&files).iter().flat_map(|part| listed(part)).collect();
    let of = |content: &[u8]| {
        let is_it = |path: &&PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(content));
        plain.iter().find(is_it).unwrap_or_else(|| panic!("none of {plain:?} has it")).clone()
    };
    let (changed, made) = (of(b"more"), of(b"by hand"));
    // One that nobody has an entry for. A fresh one may be a copy in the making.
    let stray = files.join("07/7777777");
    fs::create_dir_all(files.join("07")).expect("made");
    fs::write(&stray, "work").expect("written");
    assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);
    let old = SystemTime::now() - Duration::from_hours(2);
    File::options().write(true).open(&stray).and_then(|file| file.set_modified(old)).expect("stamped");
    let report = verify(fixture, exit::CORRUPT, &["--repair"]);
    assert_eq!(ids(&report, "local"), ["7777777"], "{report}");
    assert_eq!((number(&report, "corrupt"), number(&report, "repaired")), (1, 0), "{report}");
    assert_eq!(fs::read(&stray).expect("a repair removes nothing"), b"work");
    fixture.ok(&["shutdown"]);
    let aside = fixture.path("aside");
    fs::rename(&changed, &aside).expect("moved");
    fs::rename(&made, fixture.path("made")).expect("moved");
    let report = verify(fixture, exit::CORRUPT, &[]);
    assert_eq!(ids(&report, "local").len(), 3, "{report}");
    let rows = report["rows"].as_array().expect("rows");
    for path in ["d0/f00", "made"] {
        assert!(rows.iter().any(|row| row["path"] == path && row["workspace"] == "mount"), "{path}: {report}");
    }
    fs::rename(&aside, &changed).expect("moved back");
    fs::rename(fixture.path("made"), &made).expect("moved back");
    fs::remove_file(&stray).expect("removed");
    assert_eq!(number(&verify(fixture, 0, &[]), "corrupt"), 0);
}

fn listed(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).expect("readable").map(|entry| entry.expect("readable").path()).collect()
}

#[test]
fn without_a_cache_it_says_so() {
    let Some(fixture) = Fixture::new() else { return };
    let failed = fixture.fails(&[exit::NOT_FOUND], &["verify"]);
    assert!(failed.err().contains("larder mount"), "{}", failed.err());
    fixture.fails(&[exit::NOT_FOUND], &["verify", "--repair"]);
    fixture.fails(&[exit::USAGE], &["verify", "--rate", "fast"]);
    fs::create_dir_all(fixture.home()).expect("made");
    fs::write(fixture.home().join("store.redb"), vec![7; 10_000]).expect("written");
    let mut command = fixture.larder();
    command.arg("verify");
    let outcome = run(command, COMMAND_LIMIT);
    assert_eq!(outcome.code, Some(exit::CORRUPT), "{}", outcome.err());
}
