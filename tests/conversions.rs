//! A mount holds what a checkout by the same user would write: line endings, `$Id$`, encodings, filter drivers.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::compare::{assert_same, identities, tree};
use common::proxy::Proxy;
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, eventually, git_out, read, repos, run, text, within};

const LONG: Duration = Duration::from_mins(2);

/// What the log says of a workspace whose files are converted.
const SET_UP: &str = "files are converted as a checkout would";

const FILTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/filter.py");

/// A repository of `files`, added before any attribute speaks of them, then of `attributes`.
fn repository(dir: &Path, files: &[(&str, &[u8])], attributes: &[(&str, &str)]) {
    repos::init(dir, "sha1");
    for (name, bytes) in files {
        repos::write(dir, name, bytes);
    }
    repos::commit_all(dir, "files");
    for (name, lines) in attributes {
        repos::write(dir, name, lines);
        git_out(dir, &["add", "-f", name]);
    }
    git_out(dir, &["commit", "-q", "--allow-empty", "-m", "attributes"]);
}

/// What the user's own git makes of `source`.
fn cloned(fixture: &Fixture, source: &Path, name: &str) -> PathBuf {
    let clone = fixture.path(name);
    let mut command = fixture.git(Path::new("/"));
    command.args(["clone", "-q", "--no-local", text(source), text(&clone)]);
    run(command, COMMAND_LIMIT).success();
    let mut restrict = std::process::Command::new("chmod");
    restrict.args(["-R", "u=rwX,go=rX", text(&clone)]);
    run(restrict, COMMAND_LIMIT).success();
    clone
}

/// Compares a mount with a clone, and with itself: sizes first, before anything is read, then everything.
#[track_caller]
fn compare(clone: &Path, mount: &Path) {
    let (clone, mount) = (clone.to_owned(), mount.to_owned());
    let sizes = |root: &Path| -> Vec<(Vec<u8>, u64)> {
        let all = identities(root).into_iter().map(|(path, identity)| (path, identity.size)).collect::<Vec<_>>();
        all.into_iter()
            .filter(|(path, _)| !root.join(std::ffi::OsStr::new(std::str::from_utf8(path).unwrap_or("."))).is_dir())
            .collect()
    };
    let ((wanted_sizes, found_sizes), (wanted, found)) = within(LONG, "comparing the mount with a clone", move || {
        ((sizes(&clone), sizes(&mount)), (tree(&clone), tree(&mount)))
    });
    assert_eq!(wanted_sizes, found_sizes);
    assert_same(&wanted, &found);
}

/// The mount is clean; and when Git reads and cleans every file, it says of the mount what it says of the clone. That is
/// not nothing: what does not convert back to its blob is modified then.
#[track_caller]
fn same_status(fixture: &Fixture, clone: &Path, mount: &Path) {
    assert_eq!(fixture.git_out(mount, &["status", "--porcelain"]), "");
    let (index, copy) = (clone.join(".git/index"), clone.join(".git/stat-free"));
    let mut command = fixture.git(clone);
    command.args(["read-tree", "HEAD"]).env("GIT_INDEX_FILE", &copy);
    run(command, COMMAND_LIMIT).success();
    fs::rename(&copy, &index).expect("the clone is writable");
    let wanted = fixture.git_out(clone, &["status", "--porcelain"]);
    assert_eq!(fixture.git_out(mount, &["-c", "core.fsmonitor=false", "status", "--porcelain"]), wanted);
}

fn configure(fixture: &Fixture, lines: &str) {
    fs::write(fixture.gitconfig(), lines).expect("the fixture is writable");
}

/// Configuration of a driver called `name`, logging to `name.log`, with files in `objects`.
fn driver(fixture: &Fixture, name: &str, process: bool, required: bool) -> String {
    let (log, store) = (fixture.path(format!("{name}.log")), fixture.path("objects"));
    fs::create_dir_all(&store).expect("the fixture is writable");
    let program = format!("python3 {FILTER}");
    let command = if process {
        format!("process = {program} process {} {}", log.display(), store.display())
    } else {
        format!("smudge = {program} smudge {} {} %f", log.display(), store.display())
    };
    // Nothing here is cleaned back: the tests look at checkouts.
    format!("[filter \"{name}\"]\n\t{command}\n\trequired = {required}\n")
}

fn log(fixture: &Fixture, name: &str) -> String {
    fs::read_to_string(fixture.path(format!("{name}.log"))).unwrap_or_default()
}

const TEXTS: &[(&str, &[u8])] = &[
    ("lf.txt", b"one\ntwo\n"),
    ("crlf.txt", b"one\r\ntwo\r\n"),
    ("mixed.txt", b"one\r\ntwo\nthree"),
    ("cr.txt", b"one\rtwo\n"),
    ("binary.txt", b"one\0two\nthree\n"),
    ("empty.txt", b""),
    ("run.bat", b"echo\n"),
    ("id.c", b"/* $Id$ */\nint x; /* $Id: 0123 $ $Id: cvs.c 1.2 me $ */\n"),
    ("noid.c", b"int y;\n"),
    ("wide.u16", b"h\xc3\xa9llo\nworld \xf0\x9f\x98\x80\n"),
    ("wide.u16le", b"h\xc3\xa9llo\n"),
    ("wide.bom", b"h\xc3\xa9llo\n"),
    ("wide.u32", b"h\xc3\xa9llo\n"),
    ("wide.l1", b"h\xc3\xa9llo\n"),
    ("wide.sjis", b"\xe3\x81\x82\n"),
    ("broken.u16", b"\xff\xfe not utf-8\n"),
    ("empty.u16", b""),
    ("dir/lf.txt", b"a\nb\n"),
    ("dir/keep.txt", b"a\nb\n"),
    ("dir/deep/lf.txt", b"a\nb\n"),
    ("dir/deep/id.c", b"$Id$\n"),
    ("other/lf.txt", b"a\nb\n"),
    ("other/macro.q", b"a\nb $Id$\n"),
];

const ATTRIBUTES: &[(&str, &str)] = &[
    (
        ".gitattributes",
        "[attr]windows text eol=crlf ident\n*.txt text=auto\n*.bat text eol=crlf\n*.c ident\n\
         *.u16 working-tree-encoding=UTF-16 text\n*.u16le working-tree-encoding=UTF-16LE text eol=crlf\n\
         *.bom working-tree-encoding=UTF-16LE-BOM\n*.u32 working-tree-encoding=UTF-32\n\
         *.l1 working-tree-encoding=ISO-8859-1\n*.sjis working-tree-encoding=SHIFT_JIS\n*.q windows\n",
    ),
    ("dir/.gitattributes", "*.txt eol=crlf\nkeep.txt -text\n"),
    ("dir/deep/.gitattributes", "*.txt eol=lf\nid.c !ident\n"),
];

#[test]
fn built_in_conversions_equal_a_clone() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repository(&source, TEXTS, ATTRIBUTES);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let info = "[attr]never -text\n";
    for (number, config) in [
        "",
        "[core]\n\tautocrlf = true\n",
        "[core]\n\tautocrlf = input\n",
        "[core]\n\teol = crlf\n",
        "[core]\n\tattributesFile = ~/attributes\n",
    ]
    .into_iter()
    .enumerate()
    {
        configure(&fixture, config);
        repos::write(&fixture.path("user"), "attributes", format!("{info}*.u16 eol=crlf\nother/* text eol=crlf\n"));
        let clone = cloned(&fixture, &source, &format!("clone{number}"));
        let mount = fixture.mount(&daemon.url("source"), &format!("m{number}"));
        compare(&clone, &mount);
        same_status(&fixture, &clone, &mount);
    }
    let crlf = read(&fixture.path("m1").join("lf.txt")).expect("readable");
    assert_eq!(crlf, b"one\r\ntwo\r\n", "core.autocrlf converts");
    let utf16 = read(&fixture.path("m0").join("wide.u16")).expect("readable");
    assert_eq!(utf16[..4], [0xff, 0xfe, b'h', 0], "UTF-16 has a mark");
}

#[test]
fn a_repository_that_converts_nothing_is_shown_as_it_is() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repository(&source, TEXTS, &[(".gitattributes", "* text=auto\n*.c diff=cpp\n*.bin binary filter=none\n")]);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("source"), "m");
    compare(&cloned(&fixture, &source, "clone"), &mount);
    let log = fs::read_to_string(fixture.home().join("daemon.log")).unwrap_or_default();
    assert!(!log.contains(SET_UP), "no conversion was set up: {log}");
}

#[test]
fn sizes_offered_by_the_server_are_not_those_of_converted_files() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repository(&source, TEXTS, ATTRIBUTES);
    repos::advertise_sizes(&source);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("source"), "m");
    let found = fs::symlink_metadata(mount.join("run.bat")).expect("there").len();
    assert_eq!(found, 6, "the blob has five bytes");
    let log = fs::read_to_string(fixture.home().join("daemon.log")).expect("there is a log");
    assert!(log.contains(SET_UP), "{log}");
    compare(&cloned(&fixture, &source, "clone"), &mount);
}

#[test]
fn drivers_of_the_user_are_run_and_others_are_not() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    let files: &[(&str, &[u8])] = &[
        ("a.single", b"one\n"),
        ("dir/b c'd.single", b"two\n"),
        ("a.many", b"three\n"),
        ("dir/b.many", b"four $Id$\n"),
        ("dir/empty.many", b""),
        ("large.lfs", b"pointer large\n"),
        ("small.lfs", b"pointer small\n"),
        ("a.theirs", b"never\n"),
        ("plain", b"plain\n"),
    ];
    repository(
        &source,
        files,
        &[
            (
                ".gitattributes",
                "*.single filter=single\n*.many filter=many ident text eol=crlf\n*.lfs filter=lfs -text\n\
                 *.theirs filter=theirs\n",
            ),
            // Configuration in a tree is nobody's configuration.
            (".gitconfig", "[filter \"theirs\"]\n\tsmudge = false\n\trequired = true\n"),
            (".lfsconfig", "[filter \"theirs\"]\n\tsmudge = false\n"),
        ],
    );
    // That of the served repository is its owner's, not the user's.
    git_out(&source, &["config", "filter.theirs.smudge", "sed s/never/EVER/"]);
    let config = [
        driver(&fixture, "single", false, true),
        driver(&fixture, "many", true, true),
        driver(&fixture, "lfs", true, true),
    ]
    .concat();
    configure(&fixture, &config);
    fs::write(fixture.path("objects/large"), repos::noise(3, 20 << 20)).expect("the fixture is writable");
    fs::write(fixture.path("objects/small"), repos::noise(4, 4000)).expect("the fixture is writable");
    let clone = cloned(&fixture, &source, "clone");
    for name in ["single", "many", "lfs"] {
        let _ = fs::remove_file(fixture.path(format!("{name}.log")));
    }
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("source"), "m");
    assert_eq!(log(&fixture, "single") + &log(&fixture, "many") + &log(&fixture, "lfs"), "", "mounting runs no driver");
    assert_eq!(fs::symlink_metadata(mount.join("large.lfs")).expect("there").len(), 20 << 20);
    compare(&clone, &mount);
    assert_eq!(read(&mount.join("a.single")).expect("readable"), b"ONE\n");
    assert_eq!(read(&mount.join("a.theirs")).expect("readable"), b"never\n");
    let many = log(&fixture, "many");
    assert_eq!(many.matches("start process").count(), 1, "one process for all files: {many}");
    assert_eq!(many.matches(" smudge ").count(), 3, "each file once: {many}");
    let head = git_out(&source, &["rev-parse", "HEAD"]);
    assert!(many.contains(&format!("treeish={head}")), "{many}");
    let admin = fs::read_to_string(mount.join(".git")).expect("readable");
    let admin = admin.trim().strip_prefix("gitdir: ").expect("a gitfile");
    assert!(many.contains(&format!("start process {admin} {}", fixture.home().join("filters").display())), "{many}");
    // Results are kept: nothing runs again, in this mount or the next.
    let before = log(&fixture, "lfs");
    fixture.ok(&["unmount", text(&mount)]);
    let again = fixture.mount(&daemon.url("source"), "m2");
    compare(&clone, &again);
    assert_eq!(log(&fixture, "lfs"), before);
}

#[test]
fn a_gitdirs_own_configuration_is_the_users_too() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repository(&source, &[("a.many", b"one\n")], &[(".gitattributes", "*.many filter=many\n")]);
    let mount = fixture.mount(text(&source), "m");
    assert_eq!(read(&mount.join("a.many")).expect("readable"), b"one\n");
    let command = format!("python3 {FILTER} process {} /", fixture.path("many.log").display());
    fixture.git_out(&mount, &["config", "--local", "filter.many.process", &command]);
    fixture.ok(&["unmount", text(&mount)]);
    let mount = fixture.mount(text(&source), "m");
    assert_eq!(read(&mount.join("a.many")).expect("readable"), b"ONE\n");
}

#[test]
fn failing_drivers_fail_their_file_alone() {
    let Some(fixture) = Fixture::with_settings("[git]\nfilter_timeout = \"2s\"\n") else { return };
    let source = fixture.path("served/source");
    let names = ["fails", "hangs", "dies", "works"];
    let files: Vec<(String, Vec<u8>)> = names
        .iter()
        .flat_map(|name| {
            ["req", "opt", "reqone", "optone"].map(|end| (format!("{name}.{end}"), format!("{name}\n").into_bytes()))
        })
        .chain([("a.nocommand".to_owned(), b"x\n".to_vec()), ("a.undefined".to_owned(), b"x\n".to_vec())])
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let ends = ["req", "opt", "reqone", "optone", "nocommand", "undefined"];
    let attributes = ends.map(|end| format!("*.{end} filter={end}\n")).concat();
    repository(&source, &files, &[(".gitattributes", &attributes)]);
    let config = [
        driver(&fixture, "req", true, true),
        driver(&fixture, "opt", true, false),
        driver(&fixture, "reqone", false, true),
        driver(&fixture, "optone", false, false),
        "[filter \"nocommand\"]\n\trequired = true\n".to_owned(),
    ]
    .concat();
    configure(&fixture, &config);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("source"), "m");
    let eio = |name: &str| {
        let path = mount.join(name);
        let error = within(LONG, name, move || read(&path)).expect_err("the driver failed and is required");
        assert_eq!(error.raw_os_error(), Some(libc_eio()), "{name}");
    };
    let is = |name: &str, wanted: &str| {
        let path = mount.join(name);
        let found = within(LONG, name, move || read(&path)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(String::from_utf8_lossy(&found), wanted, "{name}");
    };
    for end in ["req", "reqone"] {
        eio(&format!("fails.{end}"));
        is(&format!("works.{end}"), "WORKS\n");
        eio(&format!("dies.{end}"));
        eio(&format!("hangs.{end}"));
    }
    for end in ["opt", "optone"] {
        for name in ["fails", "dies", "hangs"] {
            is(&format!("{name}.{end}"), &format!("{name}\n"));
        }
        is(&format!("works.{end}"), "WORKS\n");
    }
    eio("a.nocommand");
    is("a.undefined", "x\n");
    let said = fs::read_to_string(fixture.home().join("daemon.log")).unwrap_or_default();
    for part in ["smudge filter req failed: status error", "silent for 2s, killed", "this file is refused"] {
        assert!(said.contains(part), "{part:?} is not in the log: {said}");
    }
    let left = || fixture.processes().len();
    eventually(Duration::from_secs(5), "killed drivers are gone", || left() <= 3);
    fixture.ok(&["shutdown"]);
    eventually(Duration::from_secs(5), "no driver outlives the daemon", || left() == 0);
}

fn libc_eio() -> i32 {
    rustix::io::Errno::IO.raw_os_error()
}

#[test]
fn readers_of_other_files_do_not_wait_for_a_driver() {
    let Some(fixture) = Fixture::with_settings("[git]\nfilter_timeout = \"20s\"\n") else { return };
    let source = fixture.path("source");
    repository(
        &source,
        &[("hangs.many", b"x\n"), ("text.txt", b"a\nb\n"), ("plain", b"p\n")],
        &[(".gitattributes", "*.many filter=many\n*.txt text eol=crlf\n")],
    );
    configure(&fixture, &driver(&fixture, "many", true, true));
    let mount = fixture.mount(text(&source), "m");
    let (stuck, begun) = (mount.join("hangs.many"), Instant::now());
    let reader = std::thread::spawn(move || read(&stuck));
    eventually(Duration::from_secs(10), "the driver was given the file", || log(&fixture, "many").contains("hangs"));
    let (text, plain) = (mount.join("text.txt"), mount.join("plain"));
    let found = within(Duration::from_secs(10), "other files", move || (read(&text), read(&plain)));
    assert_eq!(found.0.expect("readable"), b"a\r\nb\r\n");
    assert_eq!(found.1.expect("readable"), b"p\n");
    assert!(begun.elapsed() < Duration::from_secs(19), "they were read while the driver hung");
    // It ends with the daemon, whatever it does.
    fixture.ok(&["shutdown"]);
    assert!(begun.elapsed() < Duration::from_secs(19), "shutting down does not wait for it");
    assert!(reader.join().expect("the reader ends").is_err());
    eventually(Duration::from_secs(5), "nothing is left", || fixture.processes().is_empty());
}

#[test]
fn everything_converted_can_be_read_offline_after_a_restart() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repository(&source, TEXTS, ATTRIBUTES);
    configure(&fixture, "[core]\n\tautocrlf = true\n");
    let clone = cloned(&fixture, &source, "clone");
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(daemon.port());
    let mount = fixture.mount(&git_url(proxy.port(), "source"), "m");
    compare(&clone, &mount);
    let before = identities(&mount);
    proxy.set_offline(true);
    // Not a crash: that may lose the last seconds of a cache, which then can't be fetched again.
    fixture.ok(&["shutdown"]);
    fixture.ok(&["daemon"]);
    eventually(Duration::from_secs(10), "mounted again", || fixture.is_mounted(&mount));
    assert_same(&before, &identities(&mount));
    compare(&clone, &mount);
    fixture.ok(&["unmount", text(&mount)]);
    let mount = fixture.mount(&git_url(proxy.port(), "source"), "m");
    assert_same(&before, &identities(&mount));
    compare(&clone, &mount);
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
}

#[test]
fn nothing_is_told_of_files_whose_bytes_are_not_there() {
    let Some(fixture) = Fixture::with_settings("[network]\ntimeout = \"2s\"\n") else { return };
    let source = fixture.path("served/source");
    repository(&source, TEXTS, ATTRIBUTES);
    repos::advertise_sizes(&source);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(daemon.port());
    let mount = fixture.mount(&git_url(proxy.port(), "source"), "m");
    proxy.set_offline(true);
    let names = within(LONG, "listing", {
        let mount = mount.clone();
        move || common::names(&mount)
    });
    assert!(names.expect("names need no network").len() > 15);
    let path = mount.join("run.bat");
    let error = within(LONG, "a size", move || fs::symlink_metadata(path)).expect_err("no size is known");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NETUNREACH.raw_os_error()));
    proxy.set_offline(false);
    compare(&cloned(&fixture, &source, "clone"), &mount);
}
