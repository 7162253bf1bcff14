//! A mount holds what a clone of the same commit holds, and reads like any file system.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::compare::{assert_same, identities, tree};
use common::proxy::Proxy;
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, names, read, repos, run, text, within};

const LONG: Duration = Duration::from_mins(2);

/// Mounts `url` and compares it with the clone.
fn compare(fixture: &Fixture, url: &str, name: &str, clone: &Path) {
    let mount = fixture.mount(url, name);
    let (clone, seen) = (clone.to_owned(), mount.clone());
    let (wanted, found) = within(LONG, "comparing the mount with a clone", move || (tree(&clone), tree(&seen)));
    assert_same(&wanted, &found);
    assert!(wanted.len() > 150, "the generated repository has shrunk to {} paths", wanted.len());
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "", "a mount is clean");
}

#[test]
fn equals_a_clone_over_every_local_transport() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repos::generated(&source, "sha1");
    let clone = repos::clone(&source, None, &fixture.path("clone"));
    let bare = fixture.path("served/bare.git");
    common::git_out(&source, &["clone", "-q", "--bare", ".", text(&bare)]);
    compare(&fixture, text(&source), "by-path", &clone);
    compare(&fixture, text(&bare), "by-bare-path", &clone);
    compare(&fixture, &format!("file://{}", source.display()), "by-file", &clone);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    compare(&fixture, &daemon.url("source"), "by-git", &clone);
}

#[test]
fn equals_a_clone_fetched_over_the_network_alone() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repos::generated(&source, "sha1");
    repos::advertise_sizes(&source);
    let clone = repos::clone(&source, None, &fixture.path("clone"));
    let daemon = GitDaemon::serve(&fixture.path("served"));
    compare(&fixture, &daemon.url("source"), "m", &clone);
}

#[test]
fn equals_a_clone_of_a_sha256_repository() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repos::generated(&source, "sha256");
    let clone = repos::clone(&source, None, &fixture.path("clone"));
    let daemon = GitDaemon::serve(&fixture.path("served"));
    compare(&fixture, &daemon.url("source"), "m", &clone);
}

#[test]
fn every_way_to_name_a_revision_gives_its_commit() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::generated(&source, "sha1");
    let commit = |rev: &str| common::git_out(&source, &["rev-parse", &format!("{rev}^{{commit}}")]);
    let full = commit("next");
    let cases = [
        ("main", "main"),
        ("heads/main", "main"),
        ("refs/heads/main", "main"),
        ("next", "next"),
        ("light", "light"),
        ("annotated", "annotated"),
        ("tags/annotated", "annotated"),
        ("refs/tags/annotated", "annotated"),
        (full.as_str(), "next"),
    ];
    for (number, (rev, same_as)) in cases.into_iter().enumerate() {
        let mount = fixture.path(format!("m{number}"));
        fixture.ok(&["mount", text(&source), text(&mount), "--rev", rev]);
        let wanted = commit(same_as);
        assert_eq!(fixture.git_out(&mount, &["rev-parse", "HEAD"]), wanted, "--rev {rev}");
        assert_eq!(fixture.status(&mount)["commit"], wanted.as_str(), "--rev {rev}");
        assert_eq!(mount.join("only-in-next").exists(), same_as == "next", "--rev {rev}");
    }
}

#[test]
fn stock_git_works_inside() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::generated(&source, "sha1");
    let mount = fixture.path("m");
    fixture.ok(&["mount", text(&source), text(&mount), "--depth", "1"]);
    let same = |args: &[&str]| {
        assert_eq!(fixture.git_out(&mount, args), common::git_out(&source, args), "git {args:?}");
    };
    for args in [
        &["rev-parse", "HEAD"][..],
        &["rev-parse", "--abbrev-ref", "HEAD"],
        &["ls-files", "--stage"],
        &["ls-tree", "-r", "HEAD"],
        &["log", "-1", "--format=%H %an %s"],
        &["show", "-s", "--format=%T", "HEAD"],
    ] {
        same(args);
    }
    assert!(mount.join(".git").is_file(), ".git is a gitfile");
    assert_eq!(fixture.git_out(&mount, &["log", "--format=%s"]), "second", "depth 1 is one commit");
    assert!(fixture.git_out(&mount, &["branch"]).contains("main"));
    assert!(fixture.git_out(&mount, &["remote", "-v"]).contains(text(&source)));
    for _ in 0..2 {
        assert_eq!(fixture.git_out(&mount, &["status", "--porcelain", "--ignored"]), "");
    }
    assert_eq!(fixture.git_out(&mount, &["diff", "HEAD"]), "");
    // Without any hook, from stat data alone, status is clean too.
    assert_eq!(fixture.git_out(&mount, &["-c", "core.fsmonitor=false", "status", "--porcelain"]), "");
    assert_eq!(fixture.git_out(&mount.join("sub"), &["rev-parse", "--show-prefix"]), "sub/");
}

#[test]
fn status_fetches_no_content() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/wide");
    repos::wide(&source, 400);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("wide"), "m");
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
    let objects = fixture.status(&mount)["hydrated_objects"].as_u64().expect("a number");
    assert!(objects <= 3, "mount and `git status` fetched {objects} blobs of files nobody read");
}

#[test]
fn depth_brings_that_much_history() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::generated(&source, "sha1");
    for (name, depth, subjects) in [("two", "2", "next\nsecond"), ("full", "full", "next\nsecond\nfirst")] {
        let mount = fixture.path(name);
        fixture.ok(&["mount", text(&source), text(&mount), "--rev", "next", "--depth", depth]);
        assert_eq!(fixture.git_out(&mount, &["log", "--format=%s"]), subjects, "--depth {depth}");
    }
}

#[test]
fn numbers_and_times_outlive_remount_and_restart() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::generated(&source, "sha1");
    let mount = fixture.mount(text(&source), "m");
    let look = |mount: &Path| {
        let mount = mount.to_owned();
        within(LONG, "lstat of everything", move || identities(&mount))
    };
    let before = look(&mount);
    let inodes: std::collections::BTreeSet<u64> = before.values().map(|identity| identity.ino).collect();
    assert_eq!(inodes.len(), before.len(), "every path has an inode of its own");
    assert!(before.values().all(|identity| identity.mtime.0 > 1_000_000_000), "times are real times");
    fixture.ok(&["unmount", text(&mount)]);
    assert!(!fixture.is_mounted(&mount));
    fixture.ok(&["mount", text(&source), text(&mount)]);
    assert_same(&before, &look(&mount));
    fixture.crash_daemon();
    fixture.ok(&["list"]);
    assert_same(&before, &look(&mount));
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
}

#[test]
fn belongs_to_the_user_and_cannot_be_written_when_mounted_so() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.path("m");
    fixture.ok(&["mount", text(&source), text(&mount), "--read-only"]);
    let file = mount.join("a.txt");
    let meta = fs::metadata(&file).expect("the file is there");
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    assert_eq!((meta.uid(), meta.gid()), (uid, gid));
    assert_eq!(fs::metadata(&mount).expect("the root is there").uid(), uid);
    let refused = |what: &str, result: io::Result<()>| {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    };
    refused("create", File::create(mount.join("new")).map(drop));
    refused("write", OpenOptions::new().write(true).open(&file).map(drop));
    refused("append", OpenOptions::new().append(true).open(&file).map(drop));
    refused("truncate", OpenOptions::new().write(true).truncate(true).open(&file).map(drop));
    refused("unlink", fs::remove_file(&file));
    refused("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o600)));
    refused("rename", fs::rename(&file, mount.join("b.txt")));
    refused("mkdir", fs::create_dir(mount.join("newdir")));
    refused("rmdir", fs::remove_dir(mount.join("dir")));
    refused("symlink", std::os::unix::fs::symlink("a.txt", mount.join("link")));
    refused("link", fs::hard_link(&file, mount.join("hard")));
    refused("utimes", File::open(&file).and_then(|file| file.set_modified(std::time::SystemTime::now())));
    assert_eq!(fs::read(&file).expect("still there"), b"alpha\n");
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
}

#[test]
fn tells_about_the_file_system_and_the_objects() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/wide");
    repos::wide(&source, 20);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.path("m");
    // Without the rest of the history, which would be fetched while this counts.
    fixture.ok(&["mount", &daemon.url("wide"), text(&mount), "--depth", "1"]);
    let stat = rustix::fs::statvfs(&mount).expect("statfs answers");
    assert_eq!(stat.f_namemax, 255);
    assert!(stat.f_bsize > 0 && stat.f_blocks > 0, "{} blocks of {}", stat.f_blocks, stat.f_bsize);
    let file = mount.join("alone/file");
    let attribute = |name: &str| {
        let mut value = [0; 128];
        let length =
            rustix::fs::lgetxattr(&file, name, &mut value[..]).unwrap_or_else(|error| panic!("{name}: {error}"));
        String::from_utf8(value[..length].to_vec()).expect("plain text")
    };
    let oid = common::git_out(&source, &["rev-parse", "HEAD:alone/file"]);
    let before = fixture.metric("larder_remote_objects_total");
    assert_eq!(attribute("user.larder.oid"), oid);
    let cold = attribute("user.larder.hydrated");
    assert_eq!(attribute("user.larder.hydrated"), cold, "asking hydrates nothing");
    assert_eq!(fixture.metric("larder_remote_objects_total"), before);
    read(&file).expect("the file reads");
    assert_ne!(attribute("user.larder.hydrated"), cold, "reading hydrates");
    let mut none = [0; 8];
    let missing = rustix::fs::lgetxattr(&file, "user.something", &mut none[..]);
    assert_eq!(missing, Err(rustix::io::Errno::NODATA));
}

#[test]
fn concurrent_readers_of_a_cold_file_fetch_it_once() {
    let Some(fixture) = Fixture::new() else { return };
    repos::wide(&fixture.path("served/wide"), 4);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(daemon.port());
    let mount = fixture.mount(&git_url(proxy.port(), "wide"), "m");
    proxy.set_rtt(Duration::from_millis(100));
    let before = fixture.metric("larder_remote_objects_total");
    let gate = Arc::new(Barrier::new(16));
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let (gate, file) = (Arc::clone(&gate), mount.join("alone/file"));
            thread::spawn(move || {
                gate.wait();
                read(&file).expect("a cold file reads")
            })
        })
        .collect();
    for reader in readers {
        assert!(reader.join().expect("the reader lives") == repos::noise(1, 300 << 10), "every reader sees every byte");
    }
    assert_eq!(fixture.metric("larder_remote_objects_total") - before, 1, "one fetch, sixteen readers");
}

#[test]
fn a_directory_comes_in_few_requests_and_a_second_mount_in_none() {
    let Some(fixture) = Fixture::new() else { return };
    repos::wide(&fixture.path("served/wide"), 200);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let url = daemon.url("wide");
    let mount = fixture.mount(&url, "m");
    let requests = fixture.metric("larder_remote_requests_total");
    let many = mount.join("many");
    for name in names(&many).expect("it lists") {
        read(&many.join(name)).expect("it reads");
    }
    let asked = fixture.metric("larder_remote_requests_total") - requests;
    assert!(asked <= 2, "{asked} requests for one directory of 200 small files");
    let objects = fixture.metric("larder_remote_objects_total");
    let second = fixture.mount(&url, "second");
    for name in names(&second.join("many")).expect("it lists") {
        let number: usize = name.to_str().and_then(|name| name[1..].parse().ok()).expect("f00000");
        let bytes = read(&second.join("many").join(&name)).expect("it reads");
        assert!(bytes == repos::noise(number as u64 + 7, 4000 + number % 200), "{name:?}");
    }
    let new_blobs = fixture.metric("larder_remote_objects_total") - objects;
    assert_eq!(new_blobs, 0, "what one mount fetched the other has");
}

#[test]
fn sizes_are_true_before_contents_are_there() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/wide");
    repos::wide(&source, 300);
    repos::advertise_sizes(&source);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("wide"), "m");
    let many = mount.join("many");
    let sizes = within(COMMAND_LIMIT, "lstat of 300 cold files", move || {
        fs::read_dir(many)
            .expect("it lists")
            .map(|entry| {
                let entry = entry.expect("it lists");
                (entry.file_name(), entry.metadata().expect("it stats").len())
            })
            .collect::<BTreeMap<OsString, u64>>()
    });
    assert_eq!(sizes.len(), 300);
    for (name, size) in &sizes {
        let number: u64 = name.to_str().and_then(|name| name[1..].parse().ok()).expect("f00000");
        assert_eq!(*size, 4000 + number % 200, "{name:?}");
    }
    let hydrated = fixture.status(&mount)["hydrated_objects"].as_u64().expect("a number");
    assert!(hydrated <= 3, "a server that tells sizes was asked for {hydrated} contents");
}

#[test]
fn a_large_directory_lists_whole_and_seeks() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::init(&source, "sha1");
    for number in 0..5000 {
        repos::write(&source, format!("big/entry-with-a-longish-name-{number}"), "same\n");
    }
    repos::commit_all(&source, "big");
    let mount = fixture.mount(text(&source), "m");
    let wanted = names(&source.join("big")).expect("it lists");
    for _ in 0..2 {
        assert_eq!(names(&mount.join("big")).expect("it lists"), wanted);
    }
    let big = mount.join("big");
    within(COMMAND_LIMIT, "seeking in a directory", move || {
        let mut dir = rustix::fs::Dir::new(File::open(big).expect("it opens")).expect("it lists");
        let mut all = Vec::new();
        let mut offsets = Vec::new();
        while let Some(entry) = dir.read() {
            let entry = entry.expect("it lists");
            all.push(entry.file_name().to_owned());
            offsets.push(entry.offset());
        }
        assert_eq!(all.len(), 5002, "the entries, `.` and `..`");
        for at in [0, 1, 17, 2500, 4998] {
            dir.seek(offsets[at]).expect("it seeks");
            let next = dir.read().expect("not the end").expect("it lists");
            assert_eq!(next.file_name().to_owned(), all[at + 1], "seekdir to what telldir said after entry {at}");
        }
        dir.rewind();
        assert_eq!(dir.read().expect("not the end").expect("it lists").file_name().to_owned(), all[0]);
    });
}

#[test]
fn maps_seeks_and_runs() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    repos::write(&source, "noise", repos::noise(5, 3 << 20));
    repos::commit_all(&source, "noise");
    let mount = fixture.mount(text(&source), "m");
    let wanted = repos::noise(5, 3 << 20);
    let path = mount.join("noise");
    within(COMMAND_LIMIT, "reading in pieces", move || {
        let mut file = File::open(&path).expect("it opens");
        let mut piece = vec![0; 5000];
        for offset in [2_000_001_usize, 131_071, 0, 3_140_000] {
            file.read_exact_at(&mut piece, offset as u64).expect("it reads");
            assert!(piece == wanted[offset..offset + 5000], "5,000 bytes at {offset}");
        }
        file.seek(SeekFrom::End(-10)).expect("it seeks");
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).expect("it reads");
        assert_eq!(tail, wanted[wanted.len() - 10..]);
        assert_eq!(file.read_at(&mut piece, 3 << 20).expect("it reads"), 0, "nothing after the end");
        #[expect(unsafe_code, reason = "the base of a mount never changes under a mapping")]
        let map = unsafe { memmap2::Mmap::map(&file) }.expect("it maps");
        assert!(map[..] == wanted[..], "the mapping holds every byte");
    });
    let mut script = Command::new(mount.join("dir/run.sh"));
    script.arg("well");
    assert_eq!(run(script, COMMAND_LIMIT).success().out(), "it runs well\n");
    assert_eq!(fs::read_link(mount.join("dir/link")).expect("a link"), PathBuf::from("b.txt"));
    assert_eq!(read(&mount.join("dir/link")).expect("a link to a file"), b"beta\n");
}

#[test]
fn everyday_programs_see_what_they_see_in_a_clone() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::generated(&source, "sha1");
    let clone = repos::clone(&source, None, &fixture.path("clone"));
    let mount = fixture.mount(text(&source), "m");
    let output = |dir: &Path, script: &str| {
        let mut shell = Command::new("sh");
        shell.env("LC_ALL", "C").arg("-c").arg(script).current_dir(dir);
        run(shell, LONG).success().stdout
    };
    for script in [
        "find . -path ./.git -prune -o -printf '%y %m %P\\0' | sort -z",
        "find . -path ./.git -prune -o -type f -printf '%s %P\\0' | sort -z",
        "grep -rc 'int f1' sources | sort",
        "tar c --exclude=./.git --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner . | sha256sum",
        "cat sources/*/* | sha256sum",
    ] {
        assert!(output(&mount, script) == output(&clone, script), "{script}");
    }
    let copy = fixture.path("copy");
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(&mount).arg(&copy);
    run(cp, LONG).success();
    assert_same(&tree(&clone), &tree(&copy));
}
