//! Stock Git fetches what it lacks from Larder, and nothing twice.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::proxy::wide_behind_proxy;
use common::repos::{commit_all, init, noise, write};
use common::{COMMAND_LIMIT, Fixture, eventually, git_out, read, run, text};

/// Requests sent to the real remote so far.
fn requests(fixture: &Fixture) -> u64 {
    fixture.metric("larder_remote_requests_total")
}

/// Common gitdir of a mount.
fn common_dir(fixture: &Fixture, mount: &Path) -> PathBuf {
    fixture.git_out(mount, &["rev-parse", "--path-format=absolute", "--git-common-dir"]).into()
}

fn mounted(format: &str) -> Option<(Fixture, PathBuf, PathBuf)> {
    let fixture = Fixture::new()?;
    let source = fixture.path("source");
    init(&source, format);
    for number in 0..300_usize {
        write(&source, format!("many/f{number:03}"), noise(number as u64 + 7, 2000 + number));
    }
    write(&source, "large", noise(1, 9 << 20));
    write(&source, "empty", "");
    write(&source, "a.txt", "alpha\n");
    commit_all(&source, "first");
    let mount = fixture.mount(text(&source), "m");
    Some((fixture, source, mount))
}

/// Bytes of blobs as Git gives them, in one process that asks for one after the other.
fn cat(fixture: &Fixture, mount: &Path, ids: &[String]) -> Vec<u8> {
    let list = fixture.path("ids");
    fs::write(&list, ids.join("\n") + "\n").expect("the fixture is writable");
    let script = format!("!git cat-file --batch <'{}'", list.display());
    let mut command = fixture.git(mount);
    command.args(["-c", &format!("alias.batch={script}"), "batch"]);
    run(command, COMMAND_LIMIT).success().stdout
}

#[test]
fn what_git_checks_out_comes_in_few_requests_and_is_in_the_mount_too() {
    for format in ["sha1", "sha256"] {
        let Some((fixture, source, mount)) = mounted(format) else { return };
        let before = requests(&fixture);
        let tree = fixture.path("tree");
        fixture.git_out(&mount, &["worktree", "add", "-q", "--detach", text(&tree)]);
        let used = requests(&fixture) - before;
        assert!((1..=6).contains(&used), "{used} requests for 303 blobs ({format})");
        for name in ["many/f000", "many/f299", "large", "empty", "a.txt"] {
            let expected = fs::read(source.join(name)).expect("source");
            assert!(fs::read(tree.join(name)).expect("checked out") == expected, "{name}");
            assert!(read(&mount.join(name)).expect("readable") == expected, "{name} in the mount");
        }
        assert_eq!(requests(&fixture) - before, used, "the mount reads what Git fetched ({format})");
        assert_eq!(fixture.git_out(&tree, &["status", "--porcelain"]), "");
        fixture.git_out(&mount, &["fsck", "--no-dangling"]);
    }
}

#[test]
fn what_the_mount_read_git_does_not_fetch() {
    let Some((fixture, source, mount)) = mounted("sha1") else { return };
    for name in ["many/f000", "many/f001", "large", "a.txt"] {
        read(&mount.join(name)).expect("readable");
    }
    fixture.ok(&["warm", text(&mount)]);
    let before = requests(&fixture);
    let names = ["many/f000", "many/f123", "large", "a.txt", "empty"];
    let ids: Vec<String> = names.iter().map(|name| git_out(&source, &["rev-parse", &format!("HEAD:{name}")])).collect();
    let all = cat(&fixture, &mount, &ids);
    let mut expected = Vec::new();
    for (name, id) in names.iter().zip(&ids) {
        let bytes = fs::read(source.join(name)).expect("source");
        expected.extend_from_slice(format!("{id} blob {}\n", bytes.len()).as_bytes());
        expected.extend_from_slice(&bytes);
        expected.push(b'\n');
    }
    assert!(all == expected, "{} bytes, expected {}", all.len(), expected.len());
    assert_eq!(requests(&fixture), before, "everything was cached");
}

/// Packs of `common` that hold more than larder's own first one: stems, sorted.
fn packs(common: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(common.join("objects/pack"))
        .expect("listed")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "pack"))
        .collect();
    found.sort();
    found
}

fn is_names(pack: &Path) -> bool {
    fs::read(pack.with_extension("promisor")).is_ok_and(|text| text == b"larder names\n")
}

/// Waits until only `first` and packs of names are left.
#[track_caller]
fn wait_pruned(common: &Path, first: &[PathBuf]) {
    eventually(Duration::from_secs(40), "packs that repeat the store go", || {
        let now = packs(common);
        first.iter().all(|pack| now.contains(pack)) && now.iter().all(|pack| first.contains(pack) || is_names(pack))
    });
}

#[test]
fn packs_that_repeat_the_store_go_and_git_goes_on() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    init(&source, "sha1");
    for number in 0..40 {
        write(&source, format!("f{number}"), noise(number, 3000));
    }
    write(&source, "back", "old\n");
    let old = commit_all(&source, "old");
    write(&source, "back", "new\n");
    write(&source, "other", "other\n");
    commit_all(&source, "new");
    let bare = fixture.path("bare.git");
    let mut clone = common::git(Path::new("/"));
    clone.args(["clone", "-q", "--bare", "--no-local", text(&source), text(&bare)]);
    run(clone, COMMAND_LIMIT).success();
    let mount = fixture.mount(text(&bare), "m");
    let common = common_dir(&fixture, &mount);
    eventually(Duration::from_secs(20), "history is whole", || !common.join("shallow").exists());
    let first = packs(&common);
    // A process that holds the packs open while they go.
    let mut reader = fixture.git(&mount);
    reader.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = reader.spawn().expect("git starts");
    let mut ask = reader.stdin.take().expect("piped");
    let mut answers = BufReader::new(reader.stdout.take().expect("piped"));
    let mut get = |name: &str| {
        writeln!(ask, "HEAD:{name}").expect("git listens");
        let mut head = String::new();
        answers.read_line(&mut head).expect("git answers");
        let size: usize = head.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok()).expect(&head);
        let mut bytes = vec![0; size + 1];
        answers.read_exact(&mut bytes).expect("git answers");
        bytes.pop();
        bytes
    };
    assert_eq!(get("f0"), noise(0, 3000));
    let tree = fixture.path("tree");
    fixture.git_out(&mount, &["worktree", "add", "-q", "-b", "topic", text(&tree)]);
    // Brings a file back that only old commits have: its name must not get lost with its pack.
    fixture.git_out(&tree, &["checkout", "-q", &old, "--", "back"]);
    fixture.git_out(&tree, &["-c", "user.name=U", "-c", "user.email=u@x", "commit", "-q", "-m", "back"]);
    assert!(packs(&common).len() > first.len(), "Git kept what it fetched");
    wait_pruned(&common, &first);
    let before = requests(&fixture);
    for number in [0, 7, 39] {
        assert_eq!(get(&format!("f{number}")), noise(number, 3000), "after the packs went");
    }
    assert_eq!(requests(&fixture), before, "they are in the store");
    fixture.git_out(&tree, &["push", "-q", "origin", "topic"]);
    assert_eq!(git_out(&bare, &["show", "topic:back"]), "old");
    fixture.git_out(&mount, &["fsck", "--no-dangling"]);
    wait_pruned(&common, &first);
    fixture.git_out(&mount, &["gc", "-q", "--prune=now"]);
    fixture.git_out(&mount, &["repack", "-adq"]);
    fixture.git_out(&mount, &["fsck", "--no-dangling"]);
    assert_eq!(fixture.git_out(&tree, &["status", "--porcelain"]), "");
    assert_eq!(fixture.git_out(&tree, &["log", "-p", "--format=%s"]).lines().next(), Some("back"));
    drop(ask);
    reader.wait().expect("git ends");
}

#[test]
fn without_a_network_what_is_cached_is_given_and_what_is_not_is_named() {
    let Some(fixture) = Fixture::with_settings("[network]\ntimeout = \"2s\"\n[git]\nhistory = \"off\"\n") else {
        return;
    };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 30);
    fixture.ok(&["warm", text(&mount), "many"]);
    proxy.set_offline(true);
    let before = proxy.connections();
    let source = fixture.path("served/wide");
    let id = |name: &str| git_out(&source, &["rev-parse", &format!("HEAD:{name}")]);
    let ids: Vec<String> = (0..30).map(|number| id(&format!("many/f{number:05}"))).collect();
    let all = cat(&fixture, &mount, &ids);
    assert!(all.len() > 30 * 4000, "{} bytes", all.len());
    assert_eq!(proxy.connections(), before, "nobody looked for the network");
    let absent = id("alone/file");
    let mut command = fixture.git(&mount);
    command.args(["cat-file", "blob", &absent]);
    let outcome = run(command, COMMAND_LIMIT);
    assert_ne!(outcome.code, Some(0));
    let error = outcome.err();
    assert!(
        error.contains("remote error: larder: ") && error.contains(&format!("object {absent} is not cached")),
        "{error}"
    );
    proxy.set_offline(false);
    let mut command = fixture.git(&mount);
    command.args(["cat-file", "blob", &absent]);
    assert_eq!(run(command, COMMAND_LIMIT).success().stdout, noise(1, 300 << 10), "and again with one");
}

#[test]
fn an_older_gitdir_gets_its_door_and_a_foreign_one_stays_as_it_was() {
    let Some((fixture, source, mount)) = mounted("sha1") else { return };
    let common = common_dir(&fixture, &mount);
    fixture.ok(&["unmount", text(&mount)]);
    git_out(&common, &["config", "--remove-section", "remote.larder"]);
    git_out(&common, &["config", "remote.larder.url", "/elsewhere"]);
    git_out(&common, &["config", "user.note", "kept"]);
    fixture.ok(&["mount", text(&source), text(&mount)]);
    assert_eq!(git_out(&common, &["config", "remote.larder.url"]), text(&common));
    assert_eq!(git_out(&common, &["config", "--get-all", "remote.larder.promisor"]), "true");
    assert_eq!(git_out(&common, &["config", "user.note"]), "kept");
    let before = requests(&fixture);
    assert_eq!(fixture.git_out(&mount, &["show", "HEAD:a.txt"]), "alpha");
    assert_eq!(requests(&fixture) - before, 1, "through the door");

    let foreign = fixture.path("foreign.git");
    let url = format!("file://{}", source.display());
    let mut clone = fixture.git(Path::new("/"));
    clone.args(["clone", "-q", "--bare", "--filter=blob:none", &url, text(&foreign)]);
    run(clone, COMMAND_LIMIT).success();
    let config = fs::read(foreign.join("config")).expect("config");
    let second = fixture.path("second");
    fixture.ok(&["mount", text(&source), text(&second), "--gitdir", text(&foreign)]);
    assert_eq!(fs::read(foreign.join("config")).expect("config"), config);
    let before = requests(&fixture);
    assert_eq!(fixture.git_out(&second, &["show", "HEAD:a.txt"]), "alpha");
    assert_eq!(requests(&fixture), before, "its own remote gave it");
    assert_eq!(fixture.status(&second)["history"]["state"], "complete");
}

#[test]
fn commits_and_trees_that_are_nowhere_here_come_alone() {
    let Some(fixture) = Fixture::with_settings("[git]\nhistory = \"off\"\n") else { return };
    let source = fixture.path("source");
    init(&source, "sha1");
    let mut commits = Vec::new();
    for number in 0..20 {
        write(&source, format!("d{number}/f"), noise(number, 100));
        commits.push(commit_all(&source, "one more"));
    }
    git_out(&source, &["tag", "-a", "-m", "a tag", "v1", &commits[3]]);
    let mount = fixture.mount(text(&source), "m");
    let before = (requests(&fixture), fixture.metric("larder_remote_objects_total"));
    let tag = git_out(&source, &["rev-parse", "v1"]);
    for (id, kind) in [(&commits[10], "commit"), (&tag, "tag")] {
        assert_eq!(fixture.git_out(&mount, &["cat-file", "-t", id]), kind);
        assert_eq!(fixture.git_out(&mount, &["cat-file", "-p", id]), git_out(&source, &["cat-file", "-p", id]));
    }
    let tree = git_out(&source, &["rev-parse", &format!("{}^{{tree}}", commits[10])]);
    assert_eq!(fixture.git_out(&mount, &["cat-file", "-p", &tree]), git_out(&source, &["cat-file", "-p", &tree]));
    let after = (requests(&fixture), fixture.metric("larder_remote_objects_total"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (3, 3), "three objects, and nothing below them");
    let missing = "0123456789abcdef0123456789abcdef01234567";
    let mut command = fixture.git(&mount);
    command.args(["cat-file", "-p", missing]);
    let outcome = run(command, COMMAND_LIMIT);
    assert!(outcome.code != Some(0) && outcome.err().contains(missing), "{}", outcome.err());
}
