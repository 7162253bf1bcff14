//! Working without a network: what is pinned stays, what is here works, what is not here fails at once, and everything
//! goes on when the network is back.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::proxy::{Proxy, wide_behind_proxy};
use common::servers::{GitDaemon, git_url};
use common::{Fixture, exit, git_out, read, repos, rows, text};
use serde_json::Value;

/// Short times, and nothing is fetched that was not asked for.
const HASTY: &str =
    "[network]\ntimeout = \"2s\"\n[hydrate]\nretries = 2\nprefetch = \"off\"\n[git]\nhistory = \"off\"\n";

/// A collection that takes everything that is not held.
const SWEEP: [&str; 5] = ["gc", "--generations", "0", "--max-age", "0s"];

/// Three commits on `main`, each with other content in the same files, the tags `v1` and `v2` on the first two, and
/// a branch `next` beside them.
fn versions(source: &Path) -> Vec<String> {
    repos::init(source, "sha1");
    let mut commits = Vec::new();
    for version in 1..=3 {
        for file in ["src/one.rs", "src/two.rs", "docs/guide.md", "top.txt"] {
            repos::write(source, file, content(version, file));
        }
        commits.push(repos::commit_all(source, &format!("version {version}")));
        if version < 3 {
            git_out(source, &["tag", &format!("v{version}")]);
        }
    }
    git_out(source, &["checkout", "-q", "-b", "next"]);
    repos::write(source, "src/one.rs", content(4, "src/one.rs"));
    commits.push(repos::commit_all(source, "next"));
    git_out(source, &["checkout", "-q", "main"]);
    commits
}

fn content(version: u32, file: &str) -> String {
    format!("{file} of version {version}\n")
}

struct Scene {
    proxy: Proxy,
    mount: PathBuf,
    commits: Vec<String>,
    _server: GitDaemon,
}

impl Scene {
    fn new(fixture: &Fixture) -> Self {
        let commits = versions(&fixture.path("served/source"));
        let server = GitDaemon::serve(&fixture.path("served"));
        let proxy = Proxy::to(server.port());
        let mount = fixture.mount(&git_url(proxy.port(), "source"), "m");
        Self { proxy, mount, commits, _server: server }
    }

    fn url(&self) -> String {
        git_url(self.proxy.port(), "source")
    }
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {document}"))
}

/// The document of `larder pin`; `--json` stands first, since a `--` may follow.
fn pin(fixture: &Fixture, mount: &str, arguments: &[&str]) -> Value {
    let outcome = fixture.ok(&[&["--json", "pin", mount], arguments].concat());
    serde_json::from_slice(&outcome.stdout).expect("one JSON document")
}

/// A read that must fail for want of a network, and soon.
#[track_caller]
fn unreachable(path: &Path) {
    let began = Instant::now();
    let error = read(path).expect_err("it is not in the cache");
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{}: {error}", path.display());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?} with a time-out of 2 s", began.elapsed());
}

#[track_caller]
fn reads(path: &Path, wanted: &str) {
    let bytes = read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(String::from_utf8_lossy(&bytes), wanted, "{}", path.display());
}

#[test]
fn what_is_pinned_is_fetched_listed_and_kept() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let scene = Scene::new(&fixture);
    let mount = text(&scene.mount);
    assert!(rows(fixture.json(&["pins"])).is_empty());
    let report = pin(&fixture, mount, &["--", "src"]);
    assert_eq!((number(&report, "objects_wanted"), number(&report, "objects_fetched")), (2, 2), "{report}");
    assert_eq!((report["commit"].as_str(), &report["existed"]), (Some(&*scene.commits[2]), &Value::Bool(false)));
    // Another commit, by its tag, with a pathspec.
    let tagged = pin(&fixture, mount, &["v1", "docs"]);
    assert_eq!(tagged["commit"].as_str(), Some(&*scene.commits[0]), "{tagged}");
    let again = pin(&fixture, mount, &["--", "src"]);
    assert_eq!((number(&again, "number"), &again["existed"]), (number(&report, "number"), &Value::Bool(true)));
    let all = rows(fixture.json(&["pins", "m"]));
    assert_eq!(all.len(), 2, "{all:?}");
    for (row, objects) in all.iter().zip([2, 1]) {
        assert_eq!((number(row, "objects"), number(row, "cached_objects")), (objects, objects), "{row}");
        assert!(row["complete"] == true && number(row, "raw_bytes") > 0 && number(row, "stored_bytes") > 0, "{row}");
        assert_eq!(row["workspace"], "m");
        assert!(row["created"].as_str().is_some_and(|time| time.ends_with('Z')), "{row}");
    }
    reads(&scene.mount.join("top.txt"), &content(3, "top.txt"));
    fixture.ok(&SWEEP);
    scene.proxy.set_offline(true);
    reads(&scene.mount.join("src/one.rs"), &content(3, "src/one.rs"));
    assert!(rows(fixture.json(&["pins"])).iter().all(|row| row["complete"] == true));
    scene.proxy.set_offline(false);
    // By number, and all of a workspace; what is not there takes nothing away.
    fixture.fails(&[exit::NOT_FOUND], &["unpin", &number(&report, "number").to_string(), "77"]);
    fixture.fails(&[exit::USAGE], &["unpin", "m"]);
    assert_eq!(rows(fixture.json(&["pins"])).len(), 2);
    let gone = rows(fixture.json(&["unpin", &number(&report, "number").to_string()]));
    assert_eq!(gone.len(), 1);
    assert_eq!(rows(fixture.json(&["unpin", "--all", mount])).len(), 1);
    assert!(fixture.ok(&["pins"]).out().contains("nothing is pinned"));
    fixture.ok(&SWEEP);
    assert_eq!(number(&fixture.status(&scene.mount), "hydrated_objects"), 0);
    // They go with their workspace.
    fixture.ok(&["pin", mount]);
    fixture.ok(&["unmount", "--purge", mount]);
    assert!(rows(fixture.json(&["pins"])).is_empty());
}

#[test]
fn the_first_word_of_a_pin_is_a_revision_only_where_that_is_clear() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let source = fixture.path("served/source");
    let commits = versions(&source);
    repos::write(&source, "next", "a file called like a branch\n");
    let last = repos::commit_all(&source, "next, the file");
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("source"), "m");
    let mount = text(&mount);
    let commit = |arguments: &[&str]| {
        let report = pin(&fixture, mount, arguments);
        (report["commit"].as_str().expect("a commit").to_owned(), report["pathspecs"].clone())
    };
    let paths = |words: &[&str]| Value::from(words.to_vec());
    // The branch is only known to the remote before it was fetched.
    assert_eq!(commit(&["next", "--", "src/one.rs"]), (commits[3].clone(), paths(&["src/one.rs"])));
    assert_eq!(commit(&["--", "next"]), (last.clone(), paths(&["next"])));
    fixture.ok(&["refresh", mount]);
    git_out(Path::new(mount), &["branch", "next", &last]);
    let ambiguous = fixture.fails(&[exit::USAGE], &["pin", mount, "next"]);
    assert!(ambiguous.err().contains("--"), "{}", ambiguous.err());
    assert_eq!(commit(&["src"]), (last.clone(), paths(&["src"])));
    assert_eq!(commit(&["*.md"]), (last.clone(), paths(&["*.md"])));
    assert_eq!(commit(&["HEAD", "top.txt"]), (last, paths(&["top.txt"])));
    assert_eq!(commit(&[&commits[1], "top.txt"]), (commits[1].clone(), paths(&["top.txt"])));
    for nothing in [&["nowhere"][..], &["--", "nowhere"], &["HEAD~99", "src"], &["v1", "nowhere"]] {
        fixture.fails(&[exit::NOT_FOUND], &[&["pin", mount], nothing].concat());
    }
    for wrong in [&["--", "../out"][..], &["v1", "src", "--", "docs"], &["--", ":(attr:x)y"]] {
        fixture.fails(&[exit::USAGE], &[&["pin", mount], wrong].concat());
    }
    assert_eq!(rows(fixture.json(&["pins"])).len(), 6);
}

#[test]
fn a_pin_that_was_interrupted_goes_on() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 20);
    assert!(read(&mount.join("many/f00001")).is_ok());
    proxy.set_offline(true);
    let failed = fixture.fails(&[exit::REMOTE], &["pin", text(&mount), "many"]);
    assert!(failed.err().contains("pin 1 stays") && failed.err().contains("goes on"), "{}", failed.err());
    let row = common::first(rows(fixture.json(&["pins"])).into());
    assert_eq!((number(&row, "objects"), number(&row, "cached_objects")), (20, 1), "{row}");
    assert_eq!(row["complete"], false);
    proxy.set_offline(false);
    let report = pin(&fixture, text(&mount), &["many"]);
    assert_eq!((number(&report, "number"), number(&report, "objects_fetched")), (1, 19), "{report}");
    assert_eq!(rows(fixture.json(&["pins"]))[0]["complete"], true);
}

/// Mounts `rev` of the scene's repository without a network, with these further arguments.
fn mount_again(fixture: &Fixture, scene: &Scene, name: &str, more: &[&str]) -> (PathBuf, common::Outcome) {
    let path = fixture.path(name);
    let outcome = fixture.ok(&[&["mount", &scene.url(), text(&path)], more].concat());
    assert!(fixture.is_mounted(&path), "{name}");
    (path, outcome)
}

#[test]
fn what_was_fetched_can_be_mounted_without_a_network() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let scene = Scene::new(&fixture);
    fixture.ok(&["pin", text(&scene.mount), "v1"]);
    fixture.ok(&["warm", text(&scene.mount), "src"]);
    // A commit without its trees.
    let next = "+refs/heads/next:refs/remotes/origin/next";
    fixture.git_out(&scene.mount, &["fetch", "-q", "--filter=tree:0", "--depth=1", "origin", next]);
    fixture.ok(&SWEEP);
    fixture.ok(&["warm", text(&scene.mount), "src"]);
    scene.proxy.set_offline(true);
    let last = &scene.commits[2];
    for (number, more) in
        [&[][..], &["--rev", "main"], &["--rev", "refs/heads/main"], &["--rev", last]].iter().enumerate()
    {
        let (path, outcome) = mount_again(&fixture, &scene, &format!("main-{number}"), more);
        assert!(outcome.err().contains("as last fetched"), "{}", outcome.err());
        assert_eq!(fixture.status(&path)["commit"].as_str(), Some(&**last));
        reads(&path.join("src/one.rs"), &content(3, "src/one.rs"));
        unreachable(&path.join("docs/guide.md"));
        assert_eq!(fixture.git_out(&path, &["status", "--porcelain"]), "");
    }
    for (number, rev) in ["v1", "refs/tags/v1", &scene.commits[0]].into_iter().enumerate() {
        let (path, _) = mount_again(&fixture, &scene, &format!("v1-{number}"), &["--rev", rev]);
        for file in ["src/one.rs", "src/two.rs", "docs/guide.md", "top.txt"] {
            reads(&path.join(file), &content(1, file));
        }
        assert_eq!(fixture.git_out(&path, &["rev-parse", "HEAD"]), scene.commits[0]);
    }
    // What is missing is named, and nothing is left behind.
    let none = fixture.path("none");
    for (rev, named) in
        [("next", "1 or more of its directories"), ("nowhere", "nowhere"), (&scene.commits[1], &scene.commits[1])]
    {
        for offline in [&[][..], &["--offline"]] {
            let failed = fixture
                .fails(&[exit::REMOTE], &[&["mount", &scene.url(), text(&none), "--rev", rev], offline].concat());
            assert!(failed.err().contains(named), "{}", failed.err());
            assert!(!none.exists());
        }
    }
    fixture.fails(&[exit::REMOTE], &["mount", "--offline", &git_url(scene.proxy.port(), "other"), text(&none)]);
    // The daemon mounts them again, and they fetch when the network is back.
    fixture.crash_daemon();
    fixture.ok(&["list"]);
    reads(&fixture.path("v1-0/top.txt"), &content(1, "top.txt"));
    scene.proxy.set_offline(false);
    reads(&fixture.path("main-0/docs/guide.md"), &content(3, "docs/guide.md"));
}

#[test]
fn a_workspace_that_is_kept_offline_asks_nobody() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let scene = Scene::new(&fixture);
    fixture.ok(&["warm", text(&scene.mount), "src"]);
    fixture.ok(&["unmount", text(&scene.mount)]);
    let connections = scene.proxy.connections();
    let (path, outcome) = mount_again(&fixture, &scene, "kept", &["--offline"]);
    assert!(
        outcome.out().contains("as last fetched") && outcome.err().is_empty(),
        "{}{}",
        outcome.out(),
        outcome.err()
    );
    let target = text(&path);
    let began = Instant::now();
    reads(&path.join("src/one.rs"), &content(3, "src/one.rs"));
    unreachable(&path.join("top.txt"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(fixture.git_out(&path, &["status", "--porcelain"]), "");
    // Git does not go around it.
    let mut git = fixture.git(&path);
    git.args(["cat-file", "blob", "HEAD:top.txt"]);
    assert_ne!(common::run(git, common::COMMAND_LIMIT).code, Some(0));
    let mut git = fixture.git(&path);
    git.args(["fetch", "-q", "origin"]);
    assert_ne!(common::run(git, common::COMMAND_LIMIT).code, Some(0));
    fixture.fails(&[exit::REFUSED], &["refresh", target]);
    for arguments in [&["warm", target][..], &["pin", target], &["switch", target, "next"]] {
        fixture.fails(&[exit::REMOTE], arguments);
    }
    let status = fixture.status(&path);
    assert!(status["stays_offline"] == true && status["offline"] == true, "{status}");
    // It stays so over restarts, however they come.
    fixture.crash_daemon();
    fixture.ok(&["list"]);
    unreachable(&path.join("top.txt"));
    assert_eq!(scene.proxy.connections(), connections, "somebody was asked");
    // Another workspace of the repository may fetch, also while this one may not.
    fixture.ok(&["mount", &scene.url(), text(&scene.mount)]);
    reads(&scene.mount.join("docs/guide.md"), &content(3, "docs/guide.md"));
    // Once it is in the store, a moment later.
    common::eventually(Duration::from_secs(5), "shared", || read(&path.join("docs/guide.md")).is_ok());
    unreachable(&path.join("top.txt"));
    let mut git = fixture.git(&path);
    git.args(["cat-file", "blob", "HEAD:top.txt"]);
    assert_ne!(common::run(git, common::COMMAND_LIMIT).code, Some(0));
    fixture.ok(&["unmount", target]);
    fixture.ok(&["mount", &scene.url(), target]);
    assert_eq!(fixture.status(&path)["stays_offline"], false);
    reads(&path.join("top.txt"), &content(3, "top.txt"));
    fixture.git_out(&path, &["fetch", "-q", "origin"]);
}

/// The document of `larder status --offline-ready`, whose exit code says the same.
#[track_caller]
fn ready(fixture: &Fixture, mount: &Path, pathspecs: &[&str]) -> Value {
    let outcome = fixture.run(&[&["--json", "status", text(mount), "--offline-ready"], pathspecs].concat());
    let document: Value = serde_json::from_slice(&outcome.stdout).expect("one JSON document");
    let code = if document["ready"] == true { 0 } else { exit::REMOTE };
    assert_eq!(outcome.code, Some(code), "{document}{}", outcome.err());
    document
}

fn missing(document: &Value) -> Vec<&str> {
    let paths = document["paths"].as_array().expect("a list");
    let mut paths: Vec<&str> = paths.iter().map(|path| path.as_str().expect("text")).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn what_would_fail_offline_is_told_exactly() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let source = fixture.path("served/source");
    repos::init(&source, "sha1");
    let files = ["src/one.rs", "src/deep/two.rs", "docs/guide.md", "docs/index.md", "old/a", "old/b", "top.txt"];
    for file in files {
        repos::write(&source, file, content(1, file));
    }
    repos::write(&source, ".gitattributes", "*.md text eol=crlf\n*.up filter=up\n");
    repos::write(&source, "made.up", "loud\n");
    repos::write(&source, "raw.up", "silent\n");
    repos::commit_all(&source, "everything");
    std::fs::write(fixture.gitconfig(), "[filter \"up\"]\n\tsmudge = tr a-z A-Z\n\tclean = tr A-Z a-z\n")
        .expect("writable");
    repos::advertise_sizes(&source);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&git_url(proxy.port(), "source"), "m");
    // The server tells them in the background; until then a look at a file may fetch its neighbours.
    common::eventually(Duration::from_secs(10), "all sizes are known", || {
        number(&ready(&fixture, &mount, &[]), "unknown_sizes") == 0
    });
    reads(&mount.join("docs/guide.md"), &content(1, "docs/guide.md").replace('\n', "\r\n"));
    reads(&mount.join("made.up"), "LOUD\n");
    fixture.ok(&["warm", text(&mount), "raw.up", "src/deep"]);
    std::fs::write(mount.join("new"), "mine\n").expect("writes");
    std::fs::write(mount.join("top.txt"), "mine\n").expect("replaces");
    std::fs::rename(mount.join("old"), mount.join("renamed")).expect("renames");
    std::fs::remove_file(mount.join("renamed/b")).expect("removes");
    std::fs::rename(mount.join("src/one.rs"), mount.join("renamed/one.rs")).expect("renames");
    let document = ready(&fixture, &mount, &[]);
    let wanted = ["docs/index.md", "raw.up", "renamed/a", "renamed/one.rs"];
    assert_eq!(missing(&document), wanted, "{document}");
    assert_eq!((number(&document, "missing_objects"), number(&document, "paths_left_out")), (3, 0), "{document}");
    let bytes: usize = ["docs/index.md", "old/a", "src/one.rs"].iter().map(|file| content(1, file).len()).sum();
    assert_eq!(
        (number(&document, "missing_bytes"), number(&document, "unknown_sizes")),
        (bytes as u64, 0),
        "{document}"
    );
    assert_eq!(document.as_object().expect("an object").len(), 7, "{document}");
    assert_eq!(ready(&fixture, &mount, &["src", "new"])["ready"], true);
    assert_eq!(missing(&ready(&fixture, &mount, &["*.md"])), ["docs/index.md"]);
    let shown = fixture.run(&["status", text(&mount), "--offline-ready"]);
    assert!(shown.out().contains("renamed/one.rs") && shown.code == Some(exit::REMOTE), "{}", shown.out());
    fixture.fails(&[exit::USAGE], &["status", text(&mount), "src"]);
    // It is as was told. (The driver needs no network here, but nobody knows that of a driver.)
    proxy.set_offline(true);
    for path in ["docs/index.md", "renamed/a", "renamed/one.rs"] {
        unreachable(&mount.join(path));
    }
    for path in ["docs/guide.md", "made.up", "new", "top.txt", "src/deep/two.rs", ".gitattributes"] {
        assert!(read(&mount.join(path)).is_ok(), "{path}");
    }
    proxy.set_offline(false);
    fixture.ok(&["warm", text(&mount)]);
    reads(&mount.join("raw.up"), "SILENT\n");
    reads(&mount.join("renamed/a"), &content(1, "old/a"));
    let document = ready(&fixture, &mount, &[]);
    assert_eq!((&document["ready"], number(&document, "missing_objects")), (&Value::Bool(true), 0), "{document}");
}

/// Files of [`HEAVY_BYTES`] on the branch `heavy` and, with other bytes, on `main`.
const HEAVY: u64 = 60;
const HEAVY_BYTES: usize = 8 << 10;

/// Bytes a second of a line on which a part of them takes some seconds.
const SLOW: u64 = 60 << 10;

/// Waits until `bytes` more have come through.
fn flows(proxy: &Proxy, bytes: u64) {
    let until = proxy.bytes_down() + bytes;
    common::eventually(Duration::from_secs(10), "something is under way", || proxy.bytes_down() >= until);
}

/// Takes the network away in the middle of `command`, which has to end soon.
#[track_caller]
fn cut_in_the_middle(proxy: &Proxy, mut command: Command) -> bool {
    proxy.set_rate(SLOW);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    flows(proxy, SLOW / 2);
    proxy.set_offline(true);
    proxy.set_rate(0);
    let status = common::wait_for(&mut child, Duration::from_secs(20));
    let status = status.unwrap_or_else(|| panic!("{command:?} hangs without a network"));
    status.success()
}

#[test]
fn work_goes_on_when_the_network_goes_in_the_middle() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let source = fixture.path("served/source");
    versions(&source);
    for number in 0..HEAVY {
        repos::write(&source, format!("heavy/{number}/file"), repos::noise(number, HEAVY_BYTES));
    }
    repos::write(&source, "alone/file", repos::noise(1000, 300 << 10));
    repos::commit_all(&source, "heavy files");
    git_out(&source, &["checkout", "-q", "-b", "heavy"]);
    for number in 0..HEAVY {
        repos::write(&source, format!("heavy/{number}/file"), repos::noise(100 + number, HEAVY_BYTES));
    }
    repos::commit_all(&source, "other heavy files");
    git_out(&source, &["checkout", "-q", "main"]);
    git_out(&source, &["config", "daemon.receivepack", "true"]);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&git_url(proxy.port(), "source"), "m");
    let git = |args: &[&str]| fixture.git_out(&mount, args);
    let heavy = |number: u64| mount.join(format!("heavy/{number}/file"));
    // Warmed in part, and two further commits known.
    fixture.ok(&["warm", "m", "src", "docs", "top.txt"]);
    for rev in ["heavy", "next"] {
        fixture.ok(&["switch", "m", rev]);
    }
    reads(&mount.join("src/one.rs"), &content(4, "src/one.rs"));
    fixture.ok(&["switch", "m", "main"]);

    // A read.
    proxy.set_rate(SLOW);
    let reading = std::thread::spawn({
        let path = mount.join("alone/file");
        move || (Instant::now(), read(&path))
    });
    flows(&proxy, SLOW / 2);
    proxy.set_offline(true);
    proxy.set_rate(0);
    let (began, outcome) = reading.join().expect("the reader ends");
    assert_eq!(outcome.expect_err("it was cut").raw_os_error(), Some(libc::ENETUNREACH));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

    // What is here works.
    reads(&mount.join("docs/guide.md"), &content(3, "docs/guide.md"));
    assert_eq!(git(&["status", "--porcelain"]), "");
    std::fs::write(mount.join("src/two.rs"), "mine\n").expect("writes");
    assert!(git(&["diff"]).contains("-src/two.rs of version 3"), "the base is in the cache");
    git(&["commit", "-q", "-a", "-m", "on the train"]);
    let mine = git(&["rev-parse", "HEAD"]);
    assert_eq!(git(&["log", "--format=%s", "-2"]), "on the train\nheavy files");
    fixture.ok(&["switch", "m", "next"]);
    reads(&mount.join("src/one.rs"), &content(4, "src/one.rs"));
    reads(&mount.join("src/two.rs"), &content(3, "src/two.rs"));
    fixture.ok(&["switch", "m", "main"]);
    git(&["switch", "-q", "--detach", "HEAD~1"]);
    reads(&mount.join("src/two.rs"), &content(3, "src/two.rs"));
    git(&["switch", "-q", "main"]);
    assert_eq!((git(&["rev-parse", "HEAD"]), git(&["status", "--porcelain"])), (mine.clone(), String::new()));
    reads(&mount.join("src/two.rs"), "mine\n");
    unreachable(&heavy(7));

    // A checkout, which Git gives up before it changed anything, or in the middle: nothing of ours is lost.
    proxy.set_offline(false);
    let mut checkout = fixture.git(&mount);
    checkout.args(["checkout", "-q", "heavy"]);
    assert!(!cut_in_the_middle(&proxy, checkout), "it needs what is not here");
    git(&["status", "--porcelain"]);
    assert_eq!(git(&["rev-parse", "main"]), mine);
    proxy.set_offline(false);
    git(&["checkout", "-q", "-f", "main"]);
    git(&["checkout", "-q", "heavy"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert!(read(&heavy(7)).expect("it was checked out") == repos::noise(107, HEAVY_BYTES));
    git(&["checkout", "-q", "main"]);

    // A warm, and one in the background that goes on by itself.
    let mut warm = fixture.larder();
    warm.args(["warm", "m", "heavy", "alone"]);
    assert!(!cut_in_the_middle(&proxy, warm), "it was cut");
    let left = number(&ready(&fixture, &mount, &[]), "missing_objects");
    assert!((1..=HEAVY + 1).contains(&left), "{left}");
    proxy.set_offline(false);
    fixture.ok(&["pin", "m"]);
    assert_eq!(ready(&fixture, &mount, &[])["ready"], true);

    // Everything that is pinned can be read, whatever was collected.
    proxy.set_offline(true);
    fixture.ok(&SWEEP);
    let clone = repos::clone(&source, Some("main"), &fixture.path("clone"));
    std::fs::write(clone.join("src/two.rs"), "mine\n").expect("writes");
    let (wanted, found) = (common::compare::tree(&clone), common::compare::tree(&mount));
    common::compare::assert_same(&wanted, &found);
    proxy.set_offline(false);
    git(&["push", "-q", "origin", "HEAD:refs/heads/from-the-train"]);
    fixture.ok(&["refresh", "m"]);
    assert_eq!(fixture.status(&mount)["stays_offline"], false);
}
