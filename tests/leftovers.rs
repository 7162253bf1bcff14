//! `larder gc` and files that nothing belongs to: told, removed, and never what somebody still needs.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{COMMAND_LIMIT, Fixture, exit, repos, run, text};
use serde_json::Value;

/// Makes everything look untouched for two hours; what is inside first, since that touches what is around.
fn age(path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("listed") {
            age(&entry.expect("listed").path());
        }
    }
    let mut touch = Command::new("touch");
    touch.args(["-h", "-d", "2 hours ago"]).arg(path);
    run(touch, COMMAND_LIMIT).success();
}

fn make(path: &Path) {
    fs::create_dir_all(path.parent().expect("inside")).expect("created");
    fs::write(path, [7; 1000]).expect("written");
}

/// Path and size of each leftover.
fn leftovers(report: &Value) -> BTreeMap<PathBuf, u64> {
    let rows = report["leftovers"].as_array().expect("a list");
    rows.iter()
        .map(|row| (row["path"].as_str().expect("a path").into(), row["bytes"].as_u64().expect("bytes")))
        .collect()
}

fn notes(report: &Value) -> String {
    report["notes"].to_string()
}

fn common_dir(fixture: &Fixture, mount: &Path) -> PathBuf {
    fixture.git_out(mount, &["rev-parse", "--path-format=absolute", "--git-common-dir"]).into()
}

#[test]
fn what_nothing_belongs_to_is_told_and_removed() {
    let Some(fixture) = Fixture::new() else { return };
    let sources = ["a", "b", "c"].map(|name| fixture.path(format!("source-{name}")));
    for source in &sources {
        repos::small(source);
    }
    let a = fixture.mount(text(&sources[0]), "a");
    let (gitdir, home) = (common_dir(&fixture, &a), fixture.home());
    fs::write(a.join("a.txt"), "mine\n").expect("writes");
    // A repository of which no workspace is left, and one with a commit that is nowhere else.
    let b = fixture.mount(text(&sources[1]), "b");
    let unused = common_dir(&fixture, &b);
    fixture.ok(&["unmount", "b", "--purge"]);
    let c = fixture.mount(text(&sources[2]), "c");
    let kept = common_dir(&fixture, &c);
    fixture.git_out(&c, &["commit", "-q", "--allow-empty", "-m", "nowhere else"]);
    fixture.ok(&["unmount", "c", "--purge", "--force"]);

    let old = [
        home.join("overlay/77"),
        home.join("repositories/55.git"),
        home.join("repositories/.gitdir-old"),
        gitdir.join("larder-worktree-old"),
        gitdir.join("larder-removed-old"),
        gitdir.join("objects/pack/tmp_pack_old"),
        gitdir.join("objects/ab/tmp_obj_old"),
        gitdir.join("worktrees/a/larder-index-old"),
        home.join("run/dead.sock"),
    ];
    let young = [
        home.join("repositories/.gitdir-young/HEAD"),
        gitdir.join("larder-worktree-young/HEAD"),
        gitdir.join("objects/pack/tmp_pack_young"),
        // Not what Larder or Git makes there.
        home.join("overlay/notes/file"),
        home.join("repositories/mine/file"),
    ];
    for path in &old {
        if path.ends_with("dead.sock") {
            drop(UnixListener::bind(path).expect("bound"));
        } else if path.ends_with("tmp_pack_old") || path.ends_with("tmp_obj_old") || path.ends_with("larder-index-old")
        {
            make(path);
        } else {
            make(&path.join("inside/file"));
        }
        age(path);
    }
    for path in &young {
        make(path);
    }
    let living = home.join("run/living.sock");
    let _listener = UnixListener::bind(&living).expect("bound");
    age(&living);

    let told = fixture.json(&["gc", "--dry-run"]);
    let listed = leftovers(&told);
    for path in &old {
        let bytes = listed.get(path).unwrap_or_else(|| panic!("{} is not told: {told}", path.display()));
        assert_eq!(*bytes, if path.ends_with("dead.sock") { 0 } else { 1000 }, "{}", path.display());
        assert!(path.symlink_metadata().is_ok(), "a dry run removes nothing");
    }
    assert!(listed.contains_key(&unused) && unused.join("HEAD").exists(), "{told}");
    assert_eq!(listed.len(), old.len() + 1, "{told}");
    let note = notes(&told);
    assert!(note.contains("1 commit that was never pushed (on main)") && note.contains(text(&kept)), "{note}");

    let done = fixture.json(&["gc"]);
    assert_eq!(leftovers(&done), listed, "what was told went");
    for path in old.iter().chain([&unused]) {
        assert!(path.symlink_metadata().is_err(), "{} is still there", path.display());
    }
    for path in young.iter().chain([&living, &kept.join("HEAD")]) {
        assert!(path.symlink_metadata().is_ok(), "{} went", path.display());
    }
    assert!(leftovers(&fixture.json(&["gc"])).is_empty());
    assert_eq!(fs::read(a.join("a.txt")).expect("reads"), b"mine\n");
    assert_eq!(fixture.git_out(&a, &["status", "--short"]), " M a.txt");
    fixture.git_out(&a, &["fsck", "--connectivity-only"]);

    // Both repositories can be mounted again, and the commit is still there to be pushed.
    let b = fixture.mount(text(&sources[1]), "b");
    assert_eq!(fs::read(b.join("a.txt")).expect("reads"), b"alpha\n");
    let c = fixture.mount(text(&sources[2]), "c");
    assert_eq!(fixture.git_out(&c, &["rev-list", "--count", "origin/main..main"]), "1");
    fixture.fails(&[exit::REFUSED], &["unmount", "c", "--purge"]);
    fixture.git_out(&c, &["push", "-q", "origin", "main:pushed"]);
    fixture.git_out(&c, &["fetch", "-q", "origin", "pushed:refs/remotes/origin/pushed"]);
    fixture.ok(&["unmount", "c", "--purge"]);
    assert!(leftovers(&fixture.json(&["gc"])).contains_key(&kept));
    assert!(!kept.exists());
}

#[test]
fn a_gitdir_made_elsewhere_is_never_touched() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let gitdir = repos::clone(&source, None, &fixture.path("elsewhere")).join(".git");
    make(&gitdir.join("objects/pack/tmp_pack_old"));
    age(&gitdir.join("objects/pack/tmp_pack_old"));
    fixture.ok(&["mount", text(&source), text(&fixture.path("m")), "--gitdir", text(&gitdir)]);
    let before = gitdir.join("objects/pack/tmp_pack_old");
    for _ in 0..2 {
        let done = fixture.json(&["gc"]);
        assert!(leftovers(&done).is_empty(), "{done}");
        assert!(before.exists() && gitdir.join("HEAD").exists());
        let _ = fixture.run(&["unmount", "m", "--purge"]);
    }
}

#[test]
fn packs_that_repeat_the_store_are_told_and_go() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::wide(&source, 50);
    let mount = fixture.mount(text(&source), "m");
    let packs = common_dir(&fixture, &mount).join("objects/pack");
    // Housekeeping removes them too and may be first.
    for attempt in 0..5 {
        let tree = fixture.path(format!("tree-{attempt}"));
        fixture.git_out(&mount, &["worktree", "add", "-q", "--detach", text(&tree)]);
        age(&packs);
        let told = leftovers(&fixture.json(&["gc", "--dry-run"]));
        let done = leftovers(&fixture.json(&["gc"]));
        if done.get(&packs).is_some_and(|bytes| *bytes > 50 * 4000) {
            assert_eq!(told, done);
            assert!(leftovers(&fixture.json(&["gc", "--dry-run"])).is_empty());
            fixture.git_out(&mount, &["fsck", "--connectivity-only"]);
            return;
        }
    }
    panic!("no pack that only repeats the store was removed");
}

/// Mounting and forgetting the same repository over and over, while it is collected.
#[test]
fn collecting_does_not_disturb_mounts_being_prepared() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    fixture.ok(&["daemon"]);
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            for _ in 0..15 {
                let mount = fixture.mount(text(&source), "m");
                assert_eq!(fs::read(mount.join("dir/b.txt")).expect("reads"), b"beta\n");
                fixture.git_out(&mount, &["status"]);
                fixture.ok(&["unmount", "m", "--purge"]);
            }
        });
        while !mounting.is_finished() {
            let outcome = fixture.run(&["gc"]);
            assert_eq!(outcome.code, Some(0), "{}", outcome.err());
        }
        mounting.join().expect("mounts are not disturbed");
    });
}
