//! The history that a mount left out follows in the background.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::proxy::Proxy;
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, eventually, git, git_out, run, text};
use serde_json::Value;

/// Commits of [`long`].
const COMMITS: usize = 3000;

const SOON: Duration = Duration::from_mins(1);

/// A repository of [`COMMITS`] commits, with a merge every tenth, served to whoever asks.
fn long(dir: &Path) -> String {
    common::repos::init(dir, "sha1");
    let mut stream = String::new();
    let person = |number: usize| format!("A <a@example.org> {} +0000\n", 1_700_000_000 + number);
    let mut side = None;
    for number in 1..=COMMITS {
        let content = format!("{number}\n");
        writeln!(stream, "blob\nmark :{}\ndata {}\n{content}", 100_000 + number, content.len()).expect("text");
        // Every tenth commit begins a side branch, which the next one merges.
        let branch = if number % 10 == 9 { "refs/heads/side" } else { "refs/heads/main" };
        write!(stream, "commit {branch}\nmark :{number}\ncommitter {}data 2\nc\n", person(number)).expect("text");
        if number > 1 {
            let parent = if number % 10 == 0 { number - 2 } else { number - 1 };
            writeln!(stream, "from :{parent}").expect("text");
            if let Some(side) = side.take() {
                writeln!(stream, "merge :{side}").expect("text");
            }
        }
        if number % 10 == 9 {
            side = Some(number);
        }
        let (mark, place) = (100_000 + number, number % 40);
        writeln!(stream, "M 100644 :{mark} d{}/f{place}\nM 100644 :{mark} count\n", place % 5).expect("text");
    }
    let file = dir.join(".git/stream");
    fs::write(&file, stream).expect("the fixture is writable");
    git_out(dir, &["-c", &format!("alias.import=!git fast-import --quiet <'{}'", file.display()), "import"]);
    git_out(dir, &["reset", "-q", "--hard", "main"]);
    git_out(dir, &["rev-parse", "HEAD"])
}

fn history(fixture: &Fixture, mount: &Path) -> Value {
    fixture.status(mount)["history"].clone()
}

#[track_caller]
fn wait_for(fixture: &Fixture, mount: &Path, state: &str) -> Value {
    eventually(SOON, &format!("history is {state}"), || history(fixture, mount)["state"] == state);
    history(fixture, mount)
}

fn common_dir(fixture: &Fixture, mount: &Path) -> PathBuf {
    fixture.git_out(mount, &["rev-parse", "--path-format=absolute", "--git-common-dir"]).into()
}

fn fetched(fixture: &Fixture, mount: &Path) -> usize {
    fixture.git_out(mount, &["rev-list", "--count", "HEAD"]).parse().expect("a number")
}

#[test]
fn the_rest_of_history_follows_and_git_works_as_in_a_clone() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/long");
    long(&source);
    let server = GitDaemon::serve(&fixture.path("served"));
    for (name, address) in [("local", text(&source).to_owned()), ("daemon", server.url("long"))] {
        let mount = fixture.mount(&address, name);
        let whole = wait_for(&fixture, &mount, "complete");
        assert_eq!(whole["commits"], COMMITS, "{name}");
        assert!(!common_dir(&fixture, &mount).join("shallow").exists());
        assert!(fixture.ok(&["status", text(&mount)]).out().contains("complete, 3,000 commits"));
        for arguments in [
            &["log", "--format=%H %P %s"][..],
            &["log", "-8", "--stat", "-m"],
            &["log", "-5", "-p", "--", "d1"],
            &["merge-base", "HEAD", "HEAD~700^{commit}"],
            &["blame", "HEAD~20", "--", "count"],
            &["diff", "HEAD~300", "HEAD~290"],
        ] {
            assert!(fixture.git_out(&mount, arguments) == git_out(&source, arguments), "{name}: {arguments:?}");
        }
        fixture.git_out(&mount, &["fsck", "--no-dangling"]);
        let objects = fixture.git_out(&mount, &["count-objects", "-v"]);
        assert!(objects.contains("garbage: 0"), "{objects}");
    }
}

#[test]
fn an_explicit_depth_is_exactly_that_until_resumed() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    long(&source);
    let mount = fixture.path("m");
    fixture.ok(&["mount", text(&source), text(&mount), "--depth", "3"]);
    assert_eq!(history(&fixture, &mount)["state"], "off");
    std::thread::sleep(Duration::from_millis(500));
    assert!(common_dir(&fixture, &mount).join("shallow").exists(), "nobody asked for more");
    assert_eq!(fixture.json(&["history", text(&mount), "--resume"])["state"], "fetching");
    wait_for(&fixture, &mount, "complete");
    assert_eq!(fetched(&fixture, &mount), COMMITS);
}

#[test]
fn it_can_be_switched_off() {
    let Some(fixture) = Fixture::with_settings("[git]\nhistory = \"off\"\n") else { return };
    let source = fixture.path("source");
    long(&source);
    let mount = fixture.mount(text(&source), "m");
    assert_eq!(history(&fixture, &mount)["state"], "off");
    assert_eq!(fetched(&fixture, &mount), 1);
    fixture.fails(&[6], &["history", text(&mount), "--resume"]);
}

#[test]
fn it_pauses_survives_a_kill_and_goes_on() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/long");
    long(&source);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    // The first steps are fast enough to be over before anybody pauses; a slow line leaves time.
    proxy.set_rtt(Duration::from_millis(300));
    let mount = fixture.mount(&git_url(proxy.port(), "long"), "m");
    fixture.ok(&["history", text(&mount), "--pause"]);
    eventually(SOON, "the step under way ends", || history(&fixture, &mount)["state"] == "paused");
    std::thread::sleep(Duration::from_secs(1));
    let before = fetched(&fixture, &mount);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(fetched(&fixture, &mount), before, "paused");
    assert!(before < COMMITS, "it was over before it could be paused: {before}");
    fixture.git_out(&mount, &["log", "--oneline"]);
    fixture.crash_daemon();
    assert_eq!(history(&fixture, &mount)["state"], "paused", "a new daemon knows");
    fixture.ok(&["history", text(&mount), "--resume"]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        fixture.crash_daemon();
        fixture.status(&mount);
        fixture.git_out(&mount, &["log", "--oneline"]);
    }
    wait_for(&fixture, &mount, "complete");
    assert_eq!(fixture.git_out(&mount, &["log", "--format=%H"]), git_out(&source, &["log", "--format=%H"]));
    fixture.git_out(&mount, &["fsck", "--no-dangling"]);
}

#[test]
fn it_waits_for_the_network() {
    let Some(fixture) = Fixture::with_settings("[network]\ntimeout = \"1s\"\n") else { return };
    let source = fixture.path("served/long");
    long(&source);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.path("m");
    fixture.ok(&["mount", &git_url(proxy.port(), "long"), text(&mount), "--depth", "1"]);
    proxy.set_offline(true);
    fixture.ok(&["history", text(&mount), "--resume"]);
    eventually(SOON, "the failure is shown", || history(&fixture, &mount)["reason"].is_string());
    assert_eq!(history(&fixture, &mount)["state"], "fetching");
    assert_eq!(fetched(&fixture, &mount), 1);
    proxy.set_offline(false);
    wait_for(&fixture, &mount, "complete");
    assert_eq!(fetched(&fixture, &mount), COMMITS);
}

#[test]
fn a_server_without_filters_is_left_alone() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/plain");
    long(&source);
    git_out(&source, &["config", "uploadpack.allowFilter", "false"]);
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("plain"), "m");
    let failed = wait_for(&fixture, &mount, "failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains("filters")), "{failed}");
    assert_eq!(fetched(&fixture, &mount), 1);
}

#[test]
fn a_new_commit_joins_the_history_that_is_here() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    long(&source);
    let first = fixture.mount(text(&source), "first");
    wait_for(&fixture, &first, "complete");
    for number in 0..3 {
        common::repos::write(&source, "new", format!("{number}\n"));
        common::repos::commit_all(&source, "new");
    }
    let second = fixture.mount(text(&source), "second");
    wait_for(&fixture, &second, "complete");
    let head = git_out(&source, &["rev-parse", "HEAD"]);
    assert_eq!(fixture.git_out(&second, &["log", "--format=%H", &head]), git_out(&source, &["log", "--format=%H"]));
    assert_eq!(history(&fixture, &second)["commits"], COMMITS + 3, "only what was new came");
    // An old commit is mounted without cutting history off there.
    let old = git_out(&source, &["rev-parse", "HEAD~1000"]);
    let third = fixture.path("third");
    fixture.ok(&["mount", text(&source), text(&third), "--rev", &old]);
    assert_eq!(history(&fixture, &third)["state"], "complete");
    assert_eq!(fixture.git_out(&third, &["log", "--format=%H"]), git_out(&source, &["log", "--format=%H", &old]));
}

#[test]
fn fetch_and_push_work_against_a_server_that_knows_what_a_history_holds() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    long(&source);
    let bare = fixture.path("served/bare.git");
    let mut clone = git(Path::new("/"));
    clone.args(["clone", "-q", "--bare", "--no-local", text(&source), text(&bare)]);
    run(clone, COMMAND_LIMIT).success();
    git_out(&bare, &["config", "uploadpack.allowFilter", "true"]);
    // With bitmaps it leaves out all that old commits hold, which is not here.
    git_out(&bare, &["repack", "-adbq"]);
    let mount = fixture.mount(text(&bare), "m");
    wait_for(&fixture, &mount, "complete");
    let old = git_out(&source, &["show", "main~50:count"]);
    common::repos::write(&source, "count", old + "\n");
    common::repos::write(&source, "new", "new\n");
    common::repos::commit_all(&source, "a part goes back");
    git_out(&source, &["push", "-q", text(&bare), "main"]);
    git_out(&bare, &["repack", "-adbq"]);
    fixture.git_out(&mount, &["fetch", "-q", "origin"]);
    let head = git_out(&source, &["rev-parse", "main"]);
    assert_eq!(fixture.git_out(&mount, &["rev-parse", "origin/main"]), head);
    assert_eq!(fixture.git_out(&mount, &["show", "origin/main:new"]), "new");
    let tree = fixture.path("tree");
    fixture.git_out(&mount, &["worktree", "add", "-q", "-b", "topic", text(&tree), "origin/main"]);
    common::repos::write(&tree, "mine", "mine\n");
    fixture.git_out(&tree, &["add", "mine"]);
    fixture.git_out(&tree, &["-c", "user.name=U", "-c", "user.email=u@x", "commit", "-q", "-m", "mine"]);
    fixture.git_out(&tree, &["push", "-q", "origin", "topic"]);
    assert_eq!(git_out(&bare, &["rev-parse", "topic"]), fixture.git_out(&tree, &["rev-parse", "HEAD"]));
    fixture.git_out(&mount, &["gc", "-q"]);
    fixture.git_out(&mount, &["fsck", "--no-dangling"]);
    assert_eq!(fetched(&fixture, &mount), COMMITS);
}
