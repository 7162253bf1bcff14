//! Bad addresses, bad mount points, bad data: one clear line, an exit code, nothing left behind.

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use common::compare::{Entry, tree};
use common::fake_remote::{self as fake, BLOB, COMMIT, FakeRemote, OFS_DELTA, REF_DELTA, TREE};
use common::proxy::{ALWAYS, Fault, Proxy};
use common::servers::{GitDaemon, Silent, free_port, git_url};
use common::{COMMAND_LIMIT, Fixture, exit, names, read, repos, rows, text, within};
use repos::{raw_object, raw_tree, with_raw_tree};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// Impatient, so that what would hang shows soon.
const HASTY: &str = "[network]\ntimeout = \"2s\"\n";
/// What a time-out of two seconds, tried a few times with pauses, may take at most.
const PATIENCE: Duration = Duration::from_secs(25);

/// Mounting must fail with one of these codes and leave nothing behind.
#[track_caller]
fn refuses(fixture: &Fixture, codes: &[i32], repository: &str, more: &[&str]) -> String {
    let mount = fixture.path("refused");
    let mut args = vec!["mount", repository, text(&mount)];
    args.extend(more);
    let failed = fixture.fails(codes, &args);
    assert!(failed.took < PATIENCE, "{repository}: took {:?}", failed.took);
    assert!(fixture.mounts().is_empty(), "{repository}: something is mounted");
    assert!(rows(fixture.json(&["list"])).is_empty(), "{repository}: a workspace is left");
    assert!(!mount.exists(), "{repository}: the mount point that was made for it is left");
    failed.err()
}

#[test]
fn addresses_that_lead_nowhere() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let source = fixture.path("served/small");
    repos::small(&source);
    let plain = fixture.path("plain");
    repos::write(&plain, "file", "no repository\n");
    let server = GitDaemon::serve(&fixture.path("served"));
    let silent = Silent::new();
    let closed = free_port();
    let nowhere = [exit::NOT_FOUND, exit::REMOTE];
    refuses(&fixture, &nowhere, text(&fixture.path("missing")), &[]);
    refuses(&fixture, &nowhere, text(&plain), &[]);
    refuses(&fixture, &nowhere, text(&plain.join("file")), &[]);
    refuses(&fixture, &nowhere, &format!("file://{}", plain.display()), &[]);
    refuses(&fixture, &nowhere, &server.url("missing"), &[]);
    refuses(&fixture, &[exit::REMOTE], &git_url(closed, "small"), &[]);
    refuses(&fixture, &[exit::REMOTE], &format!("http://127.0.0.1:{closed}/small"), &[]);
    refuses(&fixture, &[exit::REMOTE], "http://no-such-host.invalid/small", &[]);
    refuses(&fixture, &[exit::REMOTE], "git://no-such-host.invalid/small", &[]);
    refuses(&fixture, &[exit::REMOTE], &git_url(silent.port(), "small"), &[]);
    refuses(&fixture, &[exit::REMOTE], &format!("http://127.0.0.1:{}/small", silent.port()), &[]);
    for nonsense in ["", "gopher://x/y", "ext::sh -c id", "-oProxyCommand=id", "ssh://-oProxyCommand=id/x"] {
        let failed = fixture.run(&["mount", "--", nonsense, text(&fixture.path("refused"))]);
        assert!(matches!(failed.code, Some(exit::USAGE | exit::NOT_FOUND | exit::REMOTE)), "{nonsense:?}: {failed:?}");
        common::assert_clear(&failed.err(), nonsense);
        assert!(fixture.mounts().is_empty());
    }
}

#[test]
fn revisions_that_are_not_there() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let source = fixture.path("served/small");
    repos::small(&source);
    let empty = fixture.path("served/empty");
    repos::init(&empty, "sha1");
    let server = GitDaemon::serve(&fixture.path("served"));
    for url in [text(&source), &server.url("small")] {
        let error = refuses(&fixture, &[exit::NOT_FOUND], url, &["--rev", "no-such-branch"]);
        assert!(error.contains("no-such-branch"), "{error}");
        // A server may say of an unknown commit no more than that it refuses.
        refuses(&fixture, &[exit::NOT_FOUND, exit::REMOTE], url, &["--rev", repos::NO_COMMIT]);
        let tree = common::git_out(&source, &["rev-parse", "HEAD^{tree}"]);
        refuses(&fixture, &[exit::USAGE, exit::NOT_FOUND, exit::REMOTE], url, &["--rev", &tree]);
        refuses(&fixture, &[exit::USAGE, exit::NOT_FOUND], url, &["--rev", "bad..ref name"]);
    }
    for url in [text(&empty), &server.url("empty")] {
        let error = refuses(&fixture, &[exit::NOT_FOUND], url, &[]);
        assert!(error.contains("empty") || error.contains("no commit"), "{error}");
    }
    refuses(&fixture, &[exit::USAGE], text(&source), &["--depth", "none"]);
    refuses(&fixture, &[exit::USAGE], text(&source), &["--depth", "0"]);
}

#[test]
fn mount_points() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let at = |name: &str| text(&fixture.path(name)).to_owned();
    // Missing, parents too: made.
    fixture.ok(&["mount", text(&source), &at("new/deeper/m")]);
    // Empty: used, and left when unmounted.
    fs::create_dir(fixture.path("empty")).expect("writable");
    fixture.ok(&["mount", text(&source), &at("empty")]);
    fixture.ok(&["unmount", &at("empty")]);
    assert!(fixture.path("empty").is_dir());
    // Not empty, or no directory.
    repos::write(&fixture.path("full"), "precious", "kept\n");
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), &at("full")]);
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), &at("full/precious")]);
    assert_eq!(fs::read(fixture.path("full/precious")).expect("kept"), b"kept\n");
    // Mounted already, or inside a mount.
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), &at("new/deeper/m")]);
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), &at("new/deeper/m/dir")]);
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), &at("new/deeper/m/dir/new")]);
    // Inside larder's own state.
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), &at("home/m")]);
    assert_eq!(fixture.mounts(), [fixture.path("new/deeper/m")]);
    assert_eq!(read(&fixture.path("new/deeper/m/a.txt")).expect("unharmed"), b"alpha\n");
    // Relative, and through a symlink.
    std::os::unix::fs::symlink(fixture.path("new"), fixture.path("short")).expect("writable");
    fixture.ok(&["mount", text(&source), "short/relative"]);
    assert!(fixture.is_mounted(&fixture.path("new/relative")));
    fixture.ok(&["unmount", "short/relative"]);
    assert!(!fixture.is_mounted(&fixture.path("new/relative")));
    if rustix::process::getuid().is_root() {
        fixture.fails(&[1, exit::REFUSED], &["mount", text(&source), "/proc/larder-cannot-be-here"]);
    }
}

#[test]
fn trees_with_names_that_harm() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let names: [&[u8]; 16] = [
        b".",
        b"..",
        b"",
        b"a/b",
        b"/etc",
        b".git",
        b".GIT",
        b".Git",
        b"git~1",
        b"GIT~1",
        b".git ",
        b".git.",
        b".git::$INDEX_ALLOCATION",
        ".g\u{200c}it".as_bytes(),
        "\u{feff}.git".as_bytes(),
        ".gi\u{206f}T".as_bytes(),
    ];
    let mut made = Vec::new();
    for (number, name) in names.iter().enumerate() {
        for below in [false, true] {
            let repository = fixture.path(format!("served/h{number}-{below}"));
            repos::init(&repository, "sha1");
            let blob = raw_object(&repository, "blob", b"hostile\n");
            let inner = raw_object(&repository, "tree", &raw_tree(&[("100644", b"config", blob)]));
            let harmful = raw_object(&repository, "tree", &raw_tree(&[("40000", name, inner)]));
            let root =
                if below { raw_object(&repository, "tree", &raw_tree(&[("40000", b"sub", harmful)])) } else { harmful };
            with_raw_tree(&repository, root);
            made.push((repository, name.escape_ascii().to_string()));
        }
    }
    let server = GitDaemon::serve(&fixture.path("served"));
    for (repository, name) in made {
        let url = server.url(repository.file_name().and_then(|name| name.to_str()).expect("UTF-8"));
        // An empty name the server's own git refuses to send; packs_that_lie_while_mounting sends one all the same.
        let codes: &[i32] = if name.is_empty() { &[exit::CORRUPT, exit::REMOTE] } else { &[exit::CORRUPT] };
        let error = refuses(&fixture, codes, &url, &[]);
        if name.is_empty() {
            continue;
        }
        assert!(error.contains("name") || error.contains("entry") || error.contains("tree"), "{name}: {error}");
    }
}

#[test]
fn trees_that_are_no_trees() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let repository = fixture.path("served/source");
    repos::init(&repository, "sha1");
    let blob = raw_object(&repository, "blob", b"content\n");
    let inner = raw_object(&repository, "tree", &raw_tree(&[("100644", b"x", blob)]));
    let server = GitDaemon::serve(&fixture.path("served"));
    let mut cut = raw_tree(&[("100644", b"cut", blob)]);
    cut.truncate(cut.len() - 5);
    let cases: [(&str, Vec<u8>); 9] = [
        ("duplicates", raw_tree(&[("100644", b"a", blob), ("100644", b"a", blob)])),
        (
            "a file and a directory of one name",
            raw_tree(&[("100644", b"a", blob), ("100644", b"a.b", blob), ("40000", b"a", inner)]),
        ),
        ("cut short", cut),
        ("no NUL", b"100644 nothing follows".to_vec()),
        ("no space", b"100644".to_vec()),
        ("a mode of letters", raw_tree(&[("banana", b"a", blob)])),
        ("an endless mode", raw_tree(&[("1006441006441006441006441006441006441", b"a", blob)])),
        ("a tree that is a blob", raw_tree(&[("40000", b"a", blob)])),
        ("noise", repos::noise(9, 300)),
    ];
    for (what, bytes) in cases {
        let root = raw_object(&repository, "tree", &bytes);
        with_raw_tree(&repository, root);
        // The server's own git may notice first, and refuse to send it.
        let error = refuses(&fixture, &[exit::CORRUPT, exit::REMOTE], &server.url("source"), &[]);
        assert!(!error.is_empty(), "{what}");
    }
}

#[test]
fn symlinks_of_any_length() {
    let Some(fixture) = Fixture::new() else { return };
    let repository = fixture.path("served/source");
    repos::init(&repository, "sha1");
    let link = |target: &[u8]| raw_object(&repository, "blob", target);
    let entries: [(&str, &[u8], [u8; 20]); 5] = [
        ("100644", b"a", link(b"a file\n")),
        ("120000", b"empty", link(b"")),
        ("120000", b"long", link(&[b'l'; 4095])),
        ("120000", b"nul", link(b"with\0nul")),
        ("120000", b"too-long", link(&b"l".repeat(100_000))),
    ];
    let root = raw_object(&repository, "tree", &raw_tree(&entries));
    with_raw_tree(&repository, root);
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("source"), "m");
    assert_eq!(names(&mount).expect("it lists").len(), 6);
    let target = |name: &str| {
        let path = mount.join(name);
        within(COMMAND_LIMIT, "readlink", move || fs::read_link(path))
    };
    assert_eq!(target("long").expect("as long as Linux allows").as_os_str().len(), 4095);
    for name in ["empty", "nul", "too-long"] {
        // What Linux cannot say is an error of that link alone, or said as far as it goes; never a hang.
        if let Ok(target) = target(name) {
            assert!(target.as_os_str().len() <= 4095, "{name}");
        }
    }
    assert_eq!(read(&mount.join("a")).expect("the others are well"), b"a file\n");
}

#[test]
fn a_tree_five_thousand_deep() {
    const DEPTH: usize = 5000;
    let Some(fixture) = Fixture::new() else { return };
    let repository = fixture.path("served/deep");
    repos::deep(&repository, DEPTH);
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("deep"), "m");
    assert_eq!(fixture.status(&mount)["files"], 1);
    let bytes = within(COMMAND_LIMIT, "going down", move || {
        let open = |dir: Option<&OwnedFd>, name: &Path, flags| match dir {
            Some(dir) => openat(dir, name, flags, Mode::empty()),
            None => openat(CWD, name, flags, Mode::empty()),
        };
        let mut here = open(None, &mount, OFlags::RDONLY | OFlags::DIRECTORY).expect("the root opens");
        for level in 0..DEPTH {
            here = open(Some(&here), Path::new("d"), OFlags::RDONLY | OFlags::DIRECTORY)
                .unwrap_or_else(|error| panic!("level {level}: {error}"));
        }
        let file = open(Some(&here), Path::new("bottom"), OFlags::RDONLY).expect("the bottom opens");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::from(file), &mut bytes).expect("the bottom reads");
        bytes
    });
    assert_eq!(bytes, b"bottom\n");
}

/// Offsets that meet every part of an exchange: all of its first bytes' kinds, then evenly through the rest.
fn places(total: u64, count: u64) -> Vec<u64> {
    let mut places = vec![0, 1, 3, 4, 9, 30, 70, 150, 300];
    places.extend((1..=count).map(|part| total * part / (count + 1)));
    places.extend([total.saturating_sub(25), total.saturating_sub(2)]);
    places.retain(|place| *place < total);
    places
}

#[test]
fn a_mount_through_a_failing_network_is_whole_or_nothing() {
    let Some(fixture) = Fixture::with_settings("[network]\ntimeout = \"1s\"\n") else { return };
    repos::wide(&fixture.path("served/wide"), 100);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let url = git_url(proxy.port(), "wide");
    // How many bytes a mount takes, measured in another home where nothing is cached.
    let total = {
        let Some(measured) = Fixture::new() else { return };
        measured.mount(&url, "m");
        proxy.bytes_down()
    };
    assert!(total > 1000, "a mount of {total} bytes");
    let cuts = places(total, 12).into_iter().map(|place| (Fault::Cut, place));
    let flips = places(total, 24).into_iter().map(|place| (Fault::Flip, place));
    let stalls = [0, 40, total / 2, total - 30].into_iter().map(|place| (Fault::Stall, place));
    for (number, (fault, after)) in cuts.chain(flips).chain(stalls).enumerate() {
        let mount = fixture.path(format!("m{number}"));
        proxy.arm(fault, after, ALWAYS);
        let outcome = fixture.run(&["mount", &url, text(&mount)]);
        proxy.disarm();
        assert!(outcome.took < PATIENCE, "{fault:?} at {after} of {total} took {:?}", outcome.took);
        if outcome.code == Some(0) {
            // A flip may hit a byte that says nothing, and a second attempt needs fewer bytes than the first, so that a
            // late cut misses it. What is mounted is then right.
            assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
            assert_eq!(names(&mount.join("many")).expect("it lists").len(), 100);
            fixture.ok(&["unmount", text(&mount), "--purge"]);
        } else {
            let codes = exit::NOT_FOUND..=exit::REFUSED;
            assert!(outcome.code.is_some_and(|code| codes.contains(&code)), "{fault:?} at {after}: {outcome:?}");
            common::assert_clear(&outcome.err(), &format!("{fault:?} at {after}"));
        }
        assert!(fixture.mounts().is_empty(), "{fault:?} at {after}: something is mounted");
        assert!(rows(fixture.json(&["list"])).is_empty(), "{fault:?} at {after}: a workspace is left");
    }
    let mount = fixture.mount(&url, "well");
    assert_eq!(names(&mount.join("many")).expect("it lists").len(), 100);
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
}

#[test]
fn a_mount_survives_one_fault() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let server_dir = fixture.path("served");
    for number in 0..4 {
        repos::wide(&server_dir.join(format!("w{number}")), 30);
    }
    let server = GitDaemon::serve(&server_dir);
    let proxy = Proxy::to(server.port());
    for (number, (fault, after)) in [(Fault::Cut, 0), (Fault::Cut, 60), (Fault::Cut, 900)].into_iter().enumerate() {
        proxy.arm(fault, after, 1);
        let mount = fixture.mount(&git_url(proxy.port(), &format!("w{number}")), &format!("m{number}"));
        assert_eq!(proxy.strikes_left(), 0, "{fault:?} at {after} never struck");
        assert_eq!(names(&mount.join("many")).expect("it lists").len(), 30);
    }
}

/// A commit of one tree that names `file`, and both as pack entries.
fn one_file(blob: [u8; 20]) -> ([u8; 20], Vec<Vec<u8>>) {
    let tree = raw_tree(&[("100644", b"file", blob)]);
    let commit = repos::commit_of(fake::object_id("tree", &tree));
    let entries =
        vec![fake::entry(COMMIT, commit.len() as u64, b"", &commit), fake::entry(TREE, tree.len() as u64, b"", &tree)];
    (fake::object_id("commit", &commit), entries)
}

#[test]
fn packs_that_lie_while_mounting() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let blob = fake::object_id("blob", b"content\n");
    let (head, honest) = one_file(blob);
    let zeros = vec![0; 64 << 20];
    let commit_says = |size: u64| {
        let commit = repos::commit_of([7; 20]);
        fake::pack(1, &[fake::entry(COMMIT, size, b"", &commit)])
    };
    let mut damaged = fake::pack(2, &honest);
    let end = damaged.len() - 1;
    damaged[end] ^= 1;
    let mut cut = fake::pack(2, &honest);
    cut.truncate(cut.len() / 2);
    let cases = vec![
        ("no pack", Vec::new()),
        ("noise", repos::noise(4, 5000)),
        ("a header alone", fake::pack(0, &[])[..12].to_vec()),
        ("no objects", fake::pack(0, &[])),
        ("four milliards of objects", fake::pack(u32::MAX, &honest)),
        ("a wrong trailer", damaged),
        ("half a pack", cut),
        ("no tree", fake::pack(1, &honest[..1])),
        ("a commit of another id", fake::pack(2, &[fake::entry(COMMIT, 6, b"", b"wrong\n"), honest[1].clone()])),
        ("a size too large", commit_says(1 << 50)),
        ("a size too small", commit_says(3)),
        ("an unknown type", fake::pack(1, &[fake::entry(5, 4, b"", b"what")])),
        (
            "a bomb behind a small size",
            fake::pack(3, &[honest[0].clone(), honest[1].clone(), fake::entry(TREE, 10, b"", &zeros)]),
        ),
        (
            "a tree of zeros",
            fake::pack(3, &[honest[0].clone(), honest[1].clone(), fake::entry(TREE, zeros.len() as u64, b"", &zeros)]),
        ),
        ("a delta without a base", fake::pack(1, &[fake::entry(REF_DELTA, 4, &[9; 20], &[4, 4, 0x90, 4])])),
        ("a delta before the pack", fake::pack(1, &[fake::entry(OFS_DELTA, 4, &[0xff, 0xff, 0x7f], &[4, 4, 0x90, 4])])),
        ("a delta of itself", fake::pack(1, &[fake::entry(OFS_DELTA, 4, &[0], &[4, 4, 0x90, 4])])),
    ];
    for (what, pack) in cases {
        let remote = FakeRemote::serve(head, vec![pack]);
        let started = Instant::now();
        let error = refuses(&fixture, &[exit::CORRUPT, exit::REMOTE], &remote.url(), &[]);
        assert!(started.elapsed() < PATIENCE, "{what}: {error}");
    }
    let nameless = raw_tree(&[("100644", b"", blob)]);
    let commit = repos::commit_of(fake::object_id("tree", &nameless));
    let entries =
        [(COMMIT, &commit), (TREE, &nameless)].map(|(kind, bytes)| fake::entry(kind, bytes.len() as u64, b"", bytes));
    let remote = FakeRemote::serve(fake::object_id("commit", &commit), vec![fake::pack(2, &entries)]);
    refuses(&fixture, &[exit::CORRUPT], &remote.url(), &[]);
    // The liar is believed when it does not lie, or none of the above proves anything.
    let content = fake::pack(1, &[fake::entry(BLOB, 8, b"", b"content\n")]);
    let remote = FakeRemote::serve(head, vec![fake::pack(2, &honest), content]);
    let mount = fixture.mount(&remote.url(), "honest");
    assert_eq!(read(&mount.join("file")).expect("it reads"), b"content\n");
}

#[test]
fn packs_that_lie_while_reading() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let zeros = vec![0; 200 << 20];
    let small = fake::entry(BLOB, 8, b"", b"content\n");
    // A delta whose one-byte base is copied without end.
    let mut endless = vec![8, 0x80, 0x80, 0x80, 0x80, 0x40];
    endless.extend([0xf0, 0xff, 0xff, 0xff].repeat(5000));
    let cases = vec![
        ("other content", fake::pack(1, &[fake::entry(BLOB, 8, b"", b"conTent\n")])),
        ("nothing", fake::pack(0, &[])),
        ("a bomb behind a small size", fake::pack(1, &[fake::entry(BLOB, 8, b"", &zeros)])),
        ("a bomb that says so", fake::pack(1, &[fake::entry(BLOB, zeros.len() as u64, b"", &zeros)])),
        ("a size beyond all memory", fake::pack(1, &[fake::entry(BLOB, 1 << 60, b"", b"content\n")])),
        (
            "a delta that grows",
            fake::pack(
                2,
                &[
                    small.clone(),
                    fake::entry(
                        OFS_DELTA,
                        endless.len() as u64,
                        &[u8::try_from(small.len()).expect("small")],
                        &endless,
                    ),
                ],
            ),
        ),
        ("noise", repos::noise(2, 9000)),
    ];
    for (number, (what, pack)) in cases.into_iter().enumerate() {
        // An object of its own for each, so that nothing is in the cache already.
        let salt = format!("wanted {number}\n");
        let (head, honest) = one_file(fake::object_id("blob", salt.as_bytes()));
        let remote = FakeRemote::serve(head, vec![fake::pack(2, &honest), pack]);
        let mount = fixture.mount(&remote.url(), &format!("m{number}"));
        let started = Instant::now();
        let error = read(&mount.join("file")).expect_err(what);
        assert!(started.elapsed() < PATIENCE, "{what}: {:?}", started.elapsed());
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{what}: {error}");
        assert_eq!(names(&mount).expect("names are well").len(), 2, "{what}");
    }
    let memory = peak_memory(fixture.daemon());
    assert!(memory < 512 << 20, "lies made the daemon use {} MiB", memory >> 20);
}

/// The most resident memory a process ever had, in bytes.
fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says so");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib << 10
}

#[test]
fn local_repositories_of_every_shape() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let bare = fixture.path("bare");
    common::git_out(&source, &["clone", "-q", "--bare", ".", text(&bare)]);
    let linked = fixture.path("linked");
    common::git_out(&source, &["worktree", "add", "-q", "-b", "side", text(&linked)]);
    // Names that need care on the way, and the ways git clone leaves out `.git`.
    let odd = fixture.path("odd name %20 'quoted' #1.git");
    common::git_out(&source, &["clone", "-q", "--bare", ".", text(&odd)]);
    let closed = fixture.path("closed");
    common::git_out(&source, &["clone", "-q", "--bare", ".", text(&closed)]);
    // What a local repository lets others ask does not bind its owner.
    common::git_out(&closed, &["config", "uploadpack.allowFilter", "false"]);
    let wanted = tree(&source);
    assert!(wanted.values().any(|entry| matches!(entry, Entry::Symlink { .. })));
    for (number, path) in
        [&source, &source.join(".git"), &bare, &linked, &odd, &closed, &fixture.path("odd name %20 'quoted' #1")]
            .into_iter()
            .enumerate()
    {
        let mount = fixture.mount(text(path), &format!("m{number}"));
        assert_eq!(tree(&mount).keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{}", path.display());
        assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
    }
}

#[test]
fn a_server_without_filters_says_so() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let source = fixture.path("served/small");
    repos::small(&source);
    common::git_out(&source, &["config", "uploadpack.allowFilter", "false"]);
    common::git_out(&source, &["config", "uploadpack.allowAnySHA1InWant", "false"]);
    let server = GitDaemon::serve(&fixture.path("served"));
    // Small, so everything is taken in one go.
    let mount = fixture.mount(&server.url("small"), "m");
    assert_eq!(read(&mount.join("dir/b.txt")).expect("it reads"), b"beta\n");
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
}
