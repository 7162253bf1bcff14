//! Moving HEAD, by Git and by `larder switch` and `larder refresh`, in mounts of the program itself.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::repos::{commit_all, small, write};
use common::{Fixture, eventually, exit, git_out, text};

/// A repository with branch `next`, tags, and a mount of `main`.
struct Scene {
    fixture: Fixture,
    source: PathBuf,
    mount: PathBuf,
    main: String,
    next: String,
}

impl Scene {
    fn new() -> Option<Self> {
        let fixture = Fixture::new()?;
        let source = fixture.path("source");
        let main = small(&source);
        git_out(&source, &["switch", "-q", "-c", "next"]);
        write(&source, "a.txt", "alpha, next\n");
        write(&source, "dir/sub/new.txt", "new\n");
        fs::remove_file(source.join("dir/b.txt")).expect("removed");
        let next = commit_all(&source, "next");
        git_out(&source, &["tag", "-a", "-m", "one", "v1"]);
        git_out(&source, &["switch", "-q", "main"]);
        let mount = fixture.mount(text(&source), "m");
        Some(Self { fixture, source, mount, main, next })
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.fixture.git_out(&self.mount, arguments)
    }

    fn admin(&self) -> PathBuf {
        let gitfile = fs::read_to_string(self.mount.join(".git")).expect("a gitfile");
        Path::new(gitfile.trim_start_matches("gitdir: ").trim_end()).to_owned()
    }

    fn clean_at(&self, commit: &str) {
        assert_eq!(self.git(&["rev-parse", "HEAD"]), commit);
        assert_eq!(self.git(&["status", "--porcelain"]), "");
        assert_eq!(self.git(&["diff", "--cached", "--name-only", "HEAD"]), "");
        assert_eq!(self.fixture.status(&self.mount)["commit"], commit);
        assert!(!self.admin().join("index.lock").exists());
        // Everything looked at, nothing believed: the index and its stat data are right without the hook too.
        let mut names: Vec<String> =
            git_out(&self.source, &["ls-tree", "-r", "--name-only", commit]).lines().map(str::to_owned).collect();
        names.sort();
        assert_eq!(self.git(&["ls-files"]).lines().collect::<Vec<_>>(), names);
        for name in names.iter().filter(|name| !name.ends_with("link")) {
            let expected = git_out(&self.source, &["show", &format!("{commit}:{name}")]);
            let found = String::from_utf8(common::read(&self.mount.join(name)).expect("readable")).expect("text");
            assert_eq!(found.trim_end_matches('\n'), expected, "{name}");
        }
        assert_eq!(self.git(&["-c", "core.fsmonitor=false", "status", "--porcelain"]), "");
    }
}

#[test]
fn a_branch_only_the_remote_has_is_created_and_there_is_a_way_back() {
    let Some(scene) = Scene::new() else { return };
    let fixture = &scene.fixture;
    let report = fixture.json(&["switch", text(&scene.mount), "next"]);
    assert_eq!(report["commit"], scene.next.as_str());
    assert_eq!(report["previous_commit"], scene.main.as_str());
    assert_eq!((&report["branch"], &report["branch_created"]), (&"next".into(), &true.into()));
    assert_eq!(report["paths_changed"], 3);
    assert_eq!(report["generation"], 2);
    scene.clean_at(&scene.next);
    assert_eq!(scene.git(&["branch", "--show-current"]), "next");
    assert_eq!(scene.git(&["rev-parse", "--abbrev-ref", "next@{upstream}"]), "origin/next");
    let log = fs::read_to_string(scene.admin().join("logs/HEAD")).expect("a reflog");
    assert!(log.ends_with("\tcheckout: moving from main to next\n"), "{log}");
    assert!(log.starts_with(&format!("{} {} ", scene.main, scene.next)), "{log}");

    let report = fixture.json(&["switch", text(&scene.mount), "-"]);
    assert_eq!((&report["branch"], &report["branch_created"]), (&"main".into(), &false.into()));
    scene.clean_at(&scene.main);
    assert_eq!(scene.git(&["rev-parse", "--abbrev-ref", "@{-1}"]), "next");

    fixture.ok(&["switch", text(&scene.mount), "v1"]);
    scene.clean_at(&scene.next);
    assert_eq!(scene.git(&["branch", "--show-current"]), "");
    assert_eq!(scene.git(&["cat-file", "-t", "v1"]), "tag");
    fixture.ok(&["switch", text(&scene.mount), &scene.main]);
    scene.clean_at(&scene.main);
    fixture.ok(&["switch", text(&scene.mount), "main"]);
    assert_eq!(scene.git(&["branch", "--show-current"]), "main");
    scene.clean_at(&scene.main);
    // And again after a new daemon mounted it.
    fixture.crash_daemon();
    fixture.ok(&["list"]);
    eventually(Duration::from_secs(10), "mounted again", || fixture.is_mounted(&scene.mount));
    fixture.ok(&["switch", text(&scene.mount), &scene.next[..12]]);
    scene.clean_at(&scene.next);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let Some(scene) = Scene::new() else { return };
    let fixture = &scene.fixture;
    let target = text(&scene.mount);
    fixture.fails(&[exit::NOT_FOUND], &["switch", target, "no-such-branch"]);
    fixture.fails(&[exit::NOT_FOUND], &["switch", target, "HEAD~7"]);
    fixture.fails(&[exit::NOT_FOUND], &["switch", target, "-"]);
    fixture.fails(&[exit::NOT_FOUND], &["switch", "nobody", "main"]);
    fixture.fails(&[exit::USAGE], &["switch", target, "--force"]);
    let admin = scene.admin();
    for (file, word) in [("MERGE_HEAD", "merge"), ("BISECT_LOG", "bisect")] {
        fs::write(admin.join(file), format!("{}\n", scene.main)).expect("written");
        let outcome = fixture.fails(&[exit::REFUSED], &["switch", target, "next"]);
        assert!(outcome.err().contains(word), "{}", outcome.err());
        fs::remove_file(admin.join(file)).expect("removed");
    }
    fs::write(admin.join("index.lock"), "").expect("written");
    fixture.fails(&[exit::REFUSED], &["switch", target, "next"]);
    fs::remove_file(admin.join("index.lock")).expect("removed");
    // Staged where the branches differ.
    scene.git(&["rm", "-q", "--cached", "a.txt"]);
    let mut command = fixture.larder();
    command.args(["switch", target, "next", "--json"]);
    let outcome = common::run(command, common::COMMAND_LIMIT);
    assert_eq!(outcome.code, Some(exit::REFUSED), "{}", outcome.err());
    let document: serde_json::Value = serde_json::from_slice(&outcome.stderr).expect("a document");
    assert_eq!(document["error"]["paths"], serde_json::json!(["a.txt"]));
    assert_eq!(scene.git(&["status", "--porcelain"]), "D  a.txt\n?? a.txt");
    assert_eq!(scene.git(&["branch", "--show-current"]), "main");
    scene.git(&["reset", "-q"]);
    scene.clean_at(&scene.main);
    let other = fixture.path("other");
    fixture.ok(&["mount", text(&scene.source), text(&other), "--rev", "next"]);
    let outcome = fixture.fails(&[exit::REFUSED], &["switch", target, "next"]);
    assert!(outcome.err().contains(text(&other)), "{}", outcome.err());
}

#[test]
fn what_is_staged_elsewhere_is_carried_along() {
    let Some(scene) = Scene::new() else { return };
    scene.git(&["rm", "-q", "--cached", "dir/run.sh"]);
    let id = scene.git(&["rev-parse", "HEAD:a.txt"]);
    scene.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{id},dir/staged/x")]);
    scene.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{id},zz")]);
    let before = scene.git(&["diff", "--cached", "--name-status"]);
    scene.fixture.ok(&["switch", text(&scene.mount), "next"]);
    assert_eq!(scene.git(&["diff", "--cached", "--name-status"]), before);
    assert_eq!(scene.git(&["write-tree"]).len(), 40, "the cache-tree is open where it has to be");
    assert_eq!(scene.git(&["rev-parse", "HEAD"]), scene.next);
    let status = scene.git(&["status", "--porcelain"]);
    assert_eq!(status, "D  dir/run.sh\nAD dir/staged/x\nAD zz\n?? dir/run.sh");
}

#[test]
fn git_moving_head_is_noticed_also_when_no_daemon_ran() {
    let Some(scene) = Scene::new() else { return };
    let noticed = |commit: &str| scene.fixture.status(&scene.mount)["commit"] == commit;
    let tree = scene.git(&["write-tree"]);
    let commit = |message: &str| scene.git(&["commit-tree", "-p", "HEAD", "-m", message, &tree]);
    let (first, second) = (commit("first"), commit("second"));
    scene.git(&["update-ref", "refs/heads/main", &first]);
    eventually(Duration::from_secs(2), "an update of the branch", || noticed(&first));
    scene.fixture.crash_daemon();
    let admin = scene.admin();
    fs::write(admin.join("HEAD"), format!("{second}\n")).expect("written");
    scene.fixture.ok(&["list"]);
    eventually(Duration::from_secs(10), "a HEAD that moved meanwhile", || noticed(&second));
    assert_eq!(scene.git(&["status", "--porcelain"]), "");
    assert_eq!(scene.git(&["-c", "core.fsmonitor=false", "status", "--porcelain"]), "");
    scene.fixture.ok(&["switch", text(&scene.mount), "next"]);
    scene.clean_at(&scene.next);
}

#[test]
fn a_refresh_fetches_and_moves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let fixture = &scene.fixture;
    let nothing = fixture.json(&["refresh", text(&scene.mount)]);
    assert_eq!(nothing["rows"][0]["updated"], serde_json::json!([]), "{nothing}");
    write(&scene.source, "deep/er/file", "deeper\n");
    let newer = commit_all(&scene.source, "newer");
    git_out(&scene.source, &["tag", "-a", "-m", "two", "v2"]);
    let report = fixture.json(&["refresh"]);
    let names: Vec<_> =
        report["rows"][0]["updated"].as_array().expect("a list").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["refs/remotes/origin/main", "refs/tags/v2"]);
    assert_eq!(scene.git(&["rev-parse", "origin/main", "main", "HEAD"]), format!("{newer}\n{0}\n{0}", scene.main));
    scene.clean_at(&scene.main);
    // The tip is here: the remote is not needed any more.
    fs::rename(&scene.source, fixture.path("away")).expect("renamed");
    fixture.ok(&["switch", text(&scene.mount), "origin/main"]);
    assert_eq!(scene.git(&["rev-parse", "HEAD"]), newer);
    assert_eq!(scene.git(&["status", "--porcelain"]), "");
    fixture.fails(&[exit::REMOTE, exit::NOT_FOUND], &["refresh"]);
}

#[test]
fn a_switch_that_was_killed_has_happened_or_not() {
    let Some(scene) = Scene::new() else { return };
    let fixture = &scene.fixture;
    // Both branches are here, so that all the time goes into the moves.
    fixture.ok(&["switch", text(&scene.mount), "next"]);
    let (mut before, mut finished) = ("next", 0);
    for attempt in 0..24_u64 {
        let to = if before == "next" { "main" } else { "next" };
        let daemon = fixture.daemon();
        let mut command = fixture.larder();
        command.args(["switch", text(&scene.mount), to]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut switching = command.spawn().expect("started");
        std::thread::sleep(Duration::from_millis(8 + attempt * 2));
        common::kill(daemon, rustix::process::Signal::KILL);
        common::wait_for(&mut switching, common::COMMAND_LIMIT).expect("ended");
        // The store's lock outlives what can be seen of a killed process by a moment.
        let started = || fixture.run(&["daemon"]).code == Some(0);
        eventually(Duration::from_secs(5), "a new daemon", started);
        eventually(Duration::from_secs(10), "mounted again", || fixture.is_mounted(&scene.mount));
        let branch = scene.git(&["branch", "--show-current"]);
        assert!([before, to].contains(&branch.as_str()), "{branch}");
        scene.clean_at(if branch == "next" { &scene.next } else { &scene.main });
        assert!(!scene.admin().join("larder-switch-index").exists());
        finished += u32::from(branch == to);
        before = if branch == "next" { "next" } else { "main" };
    }
    assert!((1..24).contains(&finished), "kills came both before and after: {finished} of 24 had happened");
}

#[test]
fn a_refresh_comes_by_itself_when_it_is_asked_for() {
    let Some(scene) = Scene::new() else { return };
    let other = scene.fixture.path("regular");
    scene.fixture.fails(&[exit::USAGE], &["mount", text(&scene.source), text(&other), "--refresh", "1s"]);
    scene.fixture.ok(&["mount", text(&scene.source), text(&other), "--refresh", "10s"]);
    write(&scene.source, "later", "later\n");
    let newer = commit_all(&scene.source, "later");
    eventually(Duration::from_secs(20), "a refresh", || scene.git(&["rev-parse", "origin/main"]) == newer);
    scene.clean_at(&scene.main);
}
