//! What caused fetches is recorded and told: with the daemon, without it, and bounded.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::repos::{self, commit_all, noise, write};
use common::servers::GitDaemon;
use common::{Fixture, eventually, first, git_out, text, within};
use serde_json::Value;

/// Files in each directory: more than travel along with the first.
const FILES: usize = 8;

struct Scene {
    fixture: Fixture,
    mount: PathBuf,
    _server: GitDaemon,
}

impl Scene {
    fn new(settings: &str) -> Option<Self> {
        let fixture = Fixture::with_settings(&format!("[git]\nhistory = \"off\"\n{settings}"))?;
        let source = fixture.path("remote/project");
        repos::init(&source, "sha1");
        for number in 0..FILES {
            write(&source, format!("third_party/lib/f{number}"), noise(number as u64, 5_000));
            write(&source, format!("src/f{number}"), noise(100 + number as u64, 1_000));
        }
        std::os::unix::fs::symlink("src/f0", source.join("link")).expect("made");
        commit_all(&source, "first");
        // One that is only in history.
        write(&source, "src/f0", noise(500, 900));
        commit_all(&source, "second");
        // Else who asks for a size reads the file.
        repos::advertise_sizes(&source);
        let server = GitDaemon::serve(&fixture.path("remote"));
        let mount = fixture.mount(&server.url("project"), "mount");
        Some(Self { fixture, mount, _server: server })
    }

    fn why(&self, arguments: &[&str]) -> Value {
        first(self.fixture.json(&[&["why", "--fetches", "100"], arguments].concat()))
    }

    /// Runs `program` in the mount.
    fn runs(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.current_dir(&self.mount).args(arguments).stdout(std::process::Stdio::null());
        within(common::COMMAND_LIMIT, program, move || assert!(command.status().expect("started").success()));
    }
}

fn row<'a>(report: &'a Value, list: &str, field: &str, value: &str) -> &'a Value {
    let rows = report[list].as_array().expect("rows");
    rows.iter().find(|row| row[field] == value).unwrap_or_else(|| panic!("{field} {value} in {report:#}"))
}

#[test]
fn a_fetch_is_put_down_to_process_path_and_operation() {
    let Some(scene) = Scene::new("[hydrate]\nprefetch = \"off\"") else { return };
    scene.runs("head", &["-c1", "third_party/lib/f1"]);
    scene.runs("dd", &["if=src/f2", "of=/dev/null", "status=none"]);
    scene.runs("readlink", &["link"]);
    scene.runs("dd", &["if=/dev/zero", "of=src/f3", "bs=1", "count=1", "conv=notrunc", "status=none"]);
    let report = scene.why(&[]);
    assert_eq!(report["total"]["bytes"].as_u64(), Some(5_000 + 1_000 + 1_000 + 6), "{report:#}");
    let path = |path: &str| row(&report, "rows", "path", path).clone();
    assert_eq!((&path("third_party/lib/f1")["process"], &path("src/f2")["process"]), (&"head".into(), &"dd".into()));
    assert_eq!(path("src/f3")["operation"], "write");
    assert_eq!(path("link")["operation"], "readlink");
    for row in report["rows"].as_array().expect("rows") {
        assert_eq!(row["workspace"], "mount");
        assert!(row["pid"].as_u64().is_some_and(|pid| pid > 1) && row["waited_us"].as_u64() > Some(0), "{row}");
        let oid = git_out(&scene.mount, &["rev-parse", &format!("HEAD:{}", row["path"].as_str().expect("path"))]);
        assert_eq!(row["oid"], oid.trim());
    }
}

#[test]
fn what_comes_along_is_put_down_to_the_reader() {
    let Some(scene) = Scene::new("") else { return };
    scene.runs("cat", &["third_party/lib/f1"]);
    eventually(common::COMMAND_LIMIT, "the siblings", || {
        scene.why(&[])["total"]["bytes"].as_u64() == Some(FILES as u64 * 5_000)
    });
    let report = scene.why(&[]);
    let cat = row(&report, "processes", "process", "cat");
    assert_eq!(cat["mostly_in"]["path"], "third_party/lib");
    assert_eq!(cat["bytes"].as_u64(), Some(FILES as u64 * 5_000));
    assert_eq!(row(&report, "operations", "class", "sibling")["objects"].as_u64(), Some(FILES as u64 - 1));
    assert_eq!(row(&report, "directories", "path", "third_party/lib")["process"], "cat");
    // By place and by time.
    let within = scene.why(&[text(&scene.mount.join("src"))]);
    assert_eq!(within["total"]["fetches"].as_u64(), Some(0));
    let within = scene.why(&[text(&scene.mount.join("third_party"))]);
    assert_eq!(within["total"], report["total"]);
    assert_eq!(scene.why(&["mount", "--since", "1h"])["total"], report["total"]);
    assert_eq!(scene.why(&["--since", "2100-01-01T00:00:00Z"])["total"]["fetches"].as_u64(), Some(0));
}

#[test]
fn git_and_warms_are_named() {
    let Some(scene) = Scene::new("") else { return };
    scene.fixture.git_out(&scene.mount, &["fetch", "-q", "--unshallow", "origin"]);
    scene.fixture.git_out(&scene.mount, &["log", "-p", "--", "src/f0"]);
    scene.fixture.ok(&["warm", text(&scene.mount), "third_party"]);
    let report = scene.why(&[]);
    let git = row(&report, "processes", "process", "git log");
    assert!(git["bytes"].as_u64() > Some(0), "{report:#}");
    assert_eq!(git["workspace"], "mount");
    let warm = row(&report, "processes", "process", "larder warm");
    assert_eq!((&warm["objects"], &warm["bytes"]), (&FILES.into(), &(FILES * 5_000).into()));
    assert_eq!(row(&report, "rows", "process", "larder warm")["path"], "third_party");
}

#[test]
fn it_is_told_without_a_daemon_and_from_a_copy() {
    let Some(scene) = Scene::new("") else { return };
    scene.fixture.ok(&["warm", text(&scene.mount)]);
    scene.fixture.ok(&["unmount", text(&scene.mount)]);
    scene.fixture.ok(&["shutdown"]);
    let report = scene.why(&[]);
    assert!(report["total"]["objects"].as_u64() >= Some(2 * FILES as u64), "{report:#}");
    assert!(scene.fixture.daemons().is_empty(), "reading starts none");
    let copy = scene.fixture.path("copy");
    fs::create_dir(&copy).expect("made");
    fs::copy(scene.fixture.home().join("store.redb"), copy.join("store.redb")).expect("copied");
    let mut command = scene.fixture.larder();
    command.env("LARDER_HOME", &copy).args(["why", "--fetches", "100", "--json"]);
    let copied: Value =
        serde_json::from_str(&common::run(command, common::COMMAND_LIMIT).success().out()).expect("JSON");
    assert_eq!(copied["total"], report["total"]);
}

#[test]
fn it_is_bounded_and_can_be_off() {
    let Some(scene) = Scene::new("[why]\nrecords = 5\n[hydrate]\nprefetch = \"off\"") else { return };
    for number in 0..FILES {
        scene.runs("cat", &[&format!("src/f{number}")]);
    }
    scene.fixture.ok(&["shutdown"]);
    let report = scene.why(&[]);
    assert_eq!(report["total"]["fetches"].as_u64(), Some(5), "the newest: {report:#}");
    assert_eq!(report["rows"][0]["path"], format!("src/f{}", FILES - 1));
    let Some(scene) = Scene::new("[why]\nrecords = 0") else { return };
    scene.runs("cat", &["src/f1"]);
    let report = scene.why(&[]);
    assert_eq!((&report["recording"], &report["total"]["fetches"]), (&false.into(), &0.into()));
    let said = scene.fixture.ok(&["why"]).out();
    assert!(said.contains("why.records is 0"), "{said}");
}

#[test]
fn names_can_not_steer_a_terminal_and_targets_are_checked() {
    let Some(scene) = Scene::new("") else { return };
    for (arguments, code) in [
        (vec!["why", "nowhere"], 3),
        (vec!["why", "/"], 3),
        (vec!["why", "--since", "soon"], 2),
        (vec!["why", "--depth", "0"], 2),
    ] {
        scene.fixture.fails(&[code], &arguments);
    }
    // Records may name anything; what is told of them fits a narrow terminal's lines as text.
    let out = scene.fixture.ok(&["why"]).out();
    assert!(out.starts_with("no fetches are recorded"), "{out}");
}
