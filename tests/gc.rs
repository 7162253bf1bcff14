//! Garbage collection and the quota: what goes, what stays whatever is asked for, and what a death in between leaves.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::compare::{assert_same, tree};
use common::proxy::Proxy;
use common::repos::{self, commit_all, noise, write};
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, first, git_out, kill, read, rows, text, within};
use rustix::process::Signal;
use serde_json::Value;

/// Files in each directory of the repository.
const FILES: usize = 60;

/// `main` and `next`: every file of `changed/` differs, `same/` is the same.
fn versions(dir: &Path) {
    repos::init(dir, "sha1");
    for number in 0..FILES {
        write(dir, format!("same/f{number:02}"), noise(number as u64, 6000));
        write(dir, format!("changed/f{number:02}"), noise(1000 + number as u64, 6000));
    }
    commit_all(dir, "main");
    git_out(dir, &["switch", "-q", "-c", "next"]);
    for number in 0..FILES {
        write(dir, format!("changed/f{number:02}"), noise(2000 + number as u64, 6000));
    }
    commit_all(dir, "next");
    git_out(dir, &["switch", "-q", "main"]);
}

/// A mount of it behind a proxy, with everything of `main` and of `next` in the cache, showing `next`.
struct Scene {
    fixture: Fixture,
    source: PathBuf,
    mount: PathBuf,
    proxy: Proxy,
    _server: GitDaemon,
}

impl Scene {
    fn new(settings: &str) -> Option<Self> {
        let fixture =
            Fixture::with_settings(&format!("[git]\nhistory = \"off\"\n[gc]\ninterval = \"0s\"\n{settings}"))?;
        let source = fixture.path("remote/project");
        versions(&source);
        let server = GitDaemon::serve(&fixture.path("remote"));
        let proxy = Proxy::to(server.port());
        let mount = fixture.mount(&git_url(proxy.port(), "project"), "mount");
        fixture.ok(&["warm", text(&mount)]);
        fixture.ok(&["switch", text(&mount), "next"]);
        fixture.ok(&["warm", text(&mount)]);
        Some(Self { fixture, source, mount, proxy, _server: server })
    }

    fn gc(&self, arguments: &[&str]) -> Value {
        first(self.fixture.json(&[&["gc"], arguments].concat()))
    }

    fn generations(&self) -> Vec<Value> {
        rows(self.fixture.json(&["generations", text(&self.mount)]))
    }

    /// Everything in the mount is what Git has at `rev`, read without the network.
    fn shows(&self, rev: &str, offline: bool) {
        self.proxy.set_offline(offline);
        let clone = repos::clone(&self.source, Some(rev), &self.fixture.path(format!("clone-{rev}-{offline}")));
        let mount = self.mount.clone();
        let (wanted, found) = within(COMMAND_LIMIT, "comparing", move || (tree(&clone), tree(&mount)));
        assert_same(&wanted, &found);
        self.proxy.set_offline(false);
    }
}

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {report}"))
}

#[test]
fn a_dropped_generation_frees_what_only_it_has() {
    let Some(scene) = Scene::new("") else { return };
    let listed = scene.generations();
    assert_eq!(listed.len(), 2);
    let [next, main] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(
        (&next["current"], &next["state"], &next["origin"]),
        (&true.into(), &"current".into(), &"switch".into())
    );
    assert_eq!((&main["current"], &main["state"], &main["origin"]), (&false.into(), &"kept".into(), &"mount".into()));
    assert_eq!(number(main, "frees_objects"), FILES as u64, "{main}");
    let freed = number(main, "frees_bytes");

    // Kept by default: nothing goes.
    let report = scene.gc(&[]);
    assert_eq!((number(&report, "freed_objects"), number(&report, "generations_dropped")), (0, 0), "{report}");

    let plan = scene.gc(&["--generations", "0", "--dry-run"]);
    assert_eq!((number(&plan, "generations_dropped"), number(&plan, "freed_bytes")), (1, freed), "{plan}");
    let row = &plan["rows"][0];
    assert_eq!((&row["directory"], number(row, "objects")), (&"changed".into(), FILES as u64), "{plan}");
    assert!(row["of"].as_str().is_some_and(|of| of.starts_with("generation 1 of ")), "{plan}");
    let told = scene.fixture.ok(&["gc", "--generations", "0", "--dry-run"]).out();
    assert!(told.contains("generation 1") && told.contains("changed"), "{told}");
    assert_eq!(scene.generations().len(), 2, "a dry run changes nothing");

    let report = scene.gc(&["--generations", "0"]);
    for field in ["generations_dropped", "freed_bytes", "freed_objects"] {
        assert_eq!(report[field], plan[field], "what was planned was done: {field}");
    }
    assert_eq!(scene.generations().len(), 1);
    scene.shows("next", true);
    let last = &scene.fixture.status(&scene.mount)["last_gc"];
    assert_eq!((&last["started_by"], &last["freed_bytes"]), (&"larder gc".into(), &freed.into()), "{last}");

    // Back: what is gone is fetched again.
    scene.fixture.ok(&["switch", text(&scene.mount), "main"]);
    scene.shows("main", false);
}

#[test]
fn what_is_in_use_stays_whatever_is_asked_for() {
    let Some(scene) = Scene::new("") else { return };
    let path = |name: &str| scene.mount.join(name);
    // A change, whose original Git compares with; a clean file that was moved; an open file.
    OpenOptions::new()
        .append(true)
        .open(path("changed/f00"))
        .and_then(|mut file| file.write_all(b"more"))
        .expect("writes");
    fs::rename(path("changed/f01"), path("moved")).expect("renames");
    let open = File::open(path("changed/f02")).expect("opens");
    let report = scene.gc(&["--generations", "0", "--max-age", "0s", "--max-size", "0"]);
    assert!(number(&report, "freed_objects") > 100, "{report}");
    assert_eq!(number(&report, "kept_objects"), 3, "{report}");
    scene.proxy.set_offline(true);
    let mut bytes = vec![0; 6000];
    open.read_exact_at(&mut bytes, 0).expect("an open file stays");
    assert_eq!(bytes, noise(2002, 6000));
    assert_eq!(read(&path("moved")).expect("a moved file stays"), noise(2001, 6000));
    let diff = scene.fixture.git_out(&scene.mount, &["diff", "--stat"]);
    assert!(diff.contains("changed/f00"), "{diff}");
    let size = path("changed/f50").metadata().expect("a size stays known").size();
    assert_eq!(size, 6000);
    let error = within(COMMAND_LIMIT, "reading", {
        let path = path("changed/f50");
        move || read(&path).expect_err("it went")
    });
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{error}");
    scene.proxy.set_offline(false);
    assert_eq!(read(&path("changed/f50")).expect("it is fetched again"), noise(2050, 6000));
}

#[test]
fn space_is_given_back() {
    let Some(scene) = Scene::new("") else { return };
    let before = number(&scene.gc(&["--dry-run"]), "file_bytes_before");
    let report = scene.gc(&["--generations", "0", "--compact"]);
    let after = number(&report, "file_bytes_after");
    assert!(after < before, "{report}");
    let kept = number(&report, "kept_bytes");
    assert!(after < kept + kept / 2 + (1 << 20), "{report}");
    scene.shows("next", true);
}

#[test]
fn a_collection_that_is_killed_leaves_a_whole_store() {
    let Some(scene) = Scene::new("") else { return };
    for round in 0..6_u64 {
        let mut command = scene.fixture.larder();
        command.args(["gc", "--generations", "0", "--max-age", "0s", "--compact"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("larder runs");
        thread::sleep(Duration::from_millis(7 * round));
        // The command may have begun to start another, which waits for the first to let go.
        for daemon in scene.fixture.daemons() {
            kill(daemon, Signal::KILL);
        }
        let _ = child.wait();
        // The next command starts a daemon, which mounts again.
        scene.fixture.ok(&["warm", text(&scene.mount)]);
        assert_eq!(scene.generations().iter().filter(|row| row["current"] == true).count(), 1);
    }
    scene.shows("next", true);
}

#[test]
fn readers_and_a_warm_go_on_during_collections() {
    let Some(scene) = Scene::new("") else { return };
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for round in 0..5 {
                for number in 0..FILES {
                    let found = fs::read(scene.mount.join(format!("changed/f{number:02}"))).expect("readable");
                    assert!(found == noise(2000 + number as u64, 6000), "file {number} in round {round}");
                }
            }
        });
        while !reading.is_finished() {
            scene.gc(&["--generations", "0", "--max-age", "0s"]);
            scene.fixture.ok(&["warm", text(&scene.mount)]);
        }
    });
    scene.shows("next", false);
}

#[test]
fn the_cache_stays_within_its_quota() {
    let Some(fixture) = Fixture::with_settings("[git]\nhistory = \"off\"\n[cache]\nmax_size = \"32MiB\"\n") else {
        return;
    };
    let source = fixture.path("project");
    repos::init(&source, "sha1");
    let files = 1_600_u64;
    for number in 0..files {
        write(&source, format!("d{}/f{number:04}", number / 80), noise(number, 40_000));
    }
    commit_all(&source, "64 MB that do not compress");
    let mount = fixture.mount(text(&source), "mount");
    let stored = || fs::metadata(fixture.home().join("store.redb")).expect("the store is there").blocks() * 512;
    let mut most = 0;
    for number in 0..files {
        let found = fs::read(mount.join(format!("d{}/f{number:04}", number / 80))).expect("readable");
        assert!(found == noise(number, 40_000), "file {number}");
        most = most.max(stored());
    }
    // A warm says that it can't be.
    let failed = fixture.fails(&[1], &["warm", "--quiet", text(&mount)]);
    assert!(failed.err().contains("cache.max_size"), "{}", failed.err());
    most = most.max(stored());
    assert!(most <= (32 << 20) + (32 << 20) / 50, "the store grew to {most} bytes");
    assert!(fixture.metric("larder_evicted_total") > 0);
    assert_eq!(fixture.status(&mount)["state"], "ready");
}
