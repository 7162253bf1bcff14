//! Stock Git fetches what it lacks from Larder, and nothing twice.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::repos::{self, commit_all, init, noise, write};
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
