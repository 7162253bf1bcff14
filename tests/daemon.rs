//! The daemon: starts by itself, keeps its mounts through restarts and crashes, keeps its secrets.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::proxy::{ALWAYS, Fault, Proxy};
use common::servers::{GitDaemon, HttpOptions, HttpServer, git_url};
use common::{COMMAND_LIMIT, Fixture, eventually, exit, kill, names, read, repos, rows, run, text, within};
use rustix::process::Signal;

/// A short time-out, for servers that will not answer.
const HASTY: &str = "[network]\ntimeout = \"2s\"\n";
const SECRET: &str = "s3cr3t-Kx92mQ";

/// Every file below `dir`, symlinks and mounts left alone.
fn files(dir: &Path, skip: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("it stats"));
        if kind.is_dir() && !skip.contains(&path) {
            found.extend(files(&path, skip));
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found
}

fn socket(fixture: &Fixture) -> PathBuf {
    let run = fixture.home().join("run");
    let sockets = fs::read_dir(&run).expect("the run directory is there").flatten();
    let mut sockets = sockets.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.next().expect("a control socket in run/").path()
}

#[test]
fn starts_by_itself_and_lists_what_it_serves() {
    let Some(fixture) = Fixture::new() else { return };
    let (first, second) = (fixture.path("first"), fixture.path("second"));
    let commit = repos::small(&first);
    repos::wide(&second, 3);
    assert!(fixture.daemons().is_empty());
    let one = fixture.mount(text(&first), "one");
    let pid = fixture.daemon();
    let two = fixture.mount(text(&second), "two");
    let again = fixture.path("again");
    fixture.ok(&["mount", text(&first), text(&again), "--name", "mine"]);
    assert_eq!(fixture.daemon(), pid, "one daemon serves all");
    let listed = rows(fixture.json(&["list"]));
    let paths: BTreeSet<&str> = listed.iter().filter_map(|row| row["path"].as_str()).collect();
    assert_eq!(paths, [text(&one), text(&two), text(&again)].into_iter().collect());
    let status = fixture.status(&one);
    for field in [
        "workspace",
        "path",
        "state",
        "repository",
        "rev",
        "commit",
        "generation",
        "files",
        "hydrated_objects",
        "hydrated_bytes",
        "overlay_entries",
        "queue_depth",
        "inflight_objects",
        "offline",
        "last_error",
    ] {
        assert!(status.get(field).is_some(), "status has no {field}: {status}");
    }
    assert_eq!(status["state"], "ready");
    assert_eq!(status["commit"], commit.as_str());
    assert_eq!(status["path"], text(&one));
    assert_eq!(status["files"], 4);
    assert_eq!(status["rev"], "main");
    assert_eq!(status["overlay_entries"], 0);
    assert_eq!(status["offline"], false);
    assert!(status["last_error"].is_null());
    assert!(status["generation"].as_u64().is_some_and(|generation| generation > 0));
    // By name, by mount path and by a path inside.
    let by_name = common::first(fixture.json(&["status", "mine"]));
    assert_eq!(by_name["path"], text(&again));
    let inside = common::first(fixture.json(&["status", text(&one.join("dir"))]));
    assert_eq!(inside["path"], text(&one));
    // For people.
    let human = fixture.ok(&["list"]).out();
    assert!(human.contains("mine") && human.contains(text(&again)), "{human}");
    fixture.fails(&[exit::NOT_FOUND], &["status", "no-such-workspace"]);
    fixture.fails(&[exit::NOT_FOUND], &["unmount", "no-such-workspace"]);
}

#[test]
fn reading_shows_in_status_and_metrics() {
    let Some(fixture) = Fixture::new() else { return };
    repos::wide(&fixture.path("served/wide"), 10);
    let daemon = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&daemon.url("wide"), "m");
    let before = fixture.status(&mount);
    read(&mount.join("alone/file")).expect("it reads");
    let after = fixture.status(&mount);
    let gained = |field: &str| after[field].as_u64().expect("a number") - before[field].as_u64().expect("a number");
    assert_eq!(gained("hydrated_objects"), 1);
    assert_eq!(gained("hydrated_bytes"), 300 << 10);
    for name in ["larder_remote_requests_total", "larder_remote_objects_total", "larder_remote_bytes_total"] {
        assert!(fixture.metric(name) > 0, "{name}");
    }
    assert!(fixture.metric("larder_misses_total") > 0);
    fixture.metric("larder_hits_total");
}

#[test]
fn names_are_unique_and_come_back_after_purge() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let (one, two) = (fixture.path("one"), fixture.path("two"));
    fixture.ok(&["mount", text(&source), text(&one), "--name", "same"]);
    fixture.fails(&[exit::REFUSED], &["mount", text(&source), text(&two), "--name", "same"]);
    assert_eq!(fixture.mounts(), [one.as_path()]);
    fixture.ok(&["unmount", "same", "--purge"]);
    assert!(fixture.mounts().is_empty());
    assert!(rows(fixture.json(&["list"])).is_empty(), "a purged workspace is forgotten");
    fixture.ok(&["mount", text(&source), text(&two), "--name", "same"]);
    // Two directories of one name make two workspaces.
    let (left, right) = (fixture.path("left/src"), fixture.path("right/src"));
    for path in [&left, &right] {
        fixture.ok(&["mount", text(&source), text(path)]);
    }
    let listed = rows(fixture.json(&["list"]));
    let named: BTreeSet<&str> = listed.iter().filter_map(|row| row["workspace"].as_str()).collect();
    assert_eq!(named.len(), 3, "{listed:?}");
}

#[test]
fn restart_brings_the_mounts_back() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let (stays, goes) = (fixture.mount(text(&source), "stays"), fixture.mount(text(&source), "goes"));
    fixture.ok(&["unmount", text(&goes)]);
    let old = fixture.daemon();
    fixture.ok(&["shutdown"]);
    eventually(Duration::from_secs(5), "the daemon ends at shutdown", || fixture.daemons().is_empty());
    assert!(fixture.mounts().is_empty(), "shutdown unmounts");
    fixture.ok(&["daemon"]);
    eventually(Duration::from_secs(10), "the mount is back", || fixture.is_mounted(&stays));
    assert_ne!(fixture.daemon(), old);
    assert_eq!(read(&stays.join("a.txt")).expect("it reads"), b"alpha\n");
    assert!(!fixture.is_mounted(&goes), "what was unmounted stays unmounted");
    fixture.ok(&["shutdown"]);
    assert_eq!(fixture.processes(), Vec::<i32>::new(), "shutdown leaves no process");
}

#[test]
fn a_killed_daemon_comes_back_without_repair() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/wide");
    repos::wide(&source, 50);
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("wide"), "m");
    read(&mount.join("alone/file")).expect("it reads");
    for _ in 0..3 {
        fixture.crash_daemon();
        // The stale mount is in the way of nobody: any command brings it back.
        let started = Instant::now();
        fixture.ok(&["list"]);
        assert!(started.elapsed() < Duration::from_secs(5), "recovery took {:?}", started.elapsed());
        eventually(Duration::from_secs(5), "the mount answers", || names(&mount).is_ok_and(|names| names.len() > 2));
        assert_eq!(fixture.mounts(), [mount.as_path()], "one mount, not one on top of a stale one");
        assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
        assert!(read(&mount.join("many/f00007")).expect("it reads") == repos::noise(14, 4007));
    }
    assert!(read(&mount.join("alone/file")).expect("it reads") == repos::noise(1, 300 << 10));
    // Killed in the middle of a fetch.
    let reader = thread::spawn({
        let many = mount.join("many");
        move || (0..50).try_for_each(|number| fs::read(many.join(format!("f{number:05}"))).map(drop))
    });
    thread::sleep(Duration::from_millis(15));
    fixture.crash_daemon();
    let _ = within(COMMAND_LIMIT, "a reader of a killed daemon ends", move || reader.join());
    fixture.ok(&["list"]);
    for number in [0, 25, 49] {
        let bytes = read(&mount.join(format!("many/f{number:05}"))).expect("it reads");
        assert!(bytes == repos::noise(number as u64 + 7, 4000 + number), "f{number:05}");
    }
}

#[test]
fn mounting_over_a_stale_mount_works() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    fixture.crash_daemon();
    let outcome = fixture.run(&["mount", text(&source), text(&mount)]);
    // Either the mount was restored first and is therefore already there, or it was made anew.
    assert!(matches!(outcome.code, Some(0 | exit::REFUSED)), "{}", outcome.err());
    assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
    assert_eq!(fixture.mounts(), [mount.as_path()]);
}

#[test]
fn async_mounts_at_once_and_waits() {
    let Some(fixture) = Fixture::new() else { return };
    repos::wide(&fixture.path("served/wide"), 10);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    proxy.set_rtt(Duration::from_millis(600));
    let mount = fixture.path("m");
    let took = fixture.ok(&["mount", &git_url(proxy.port(), "wide"), text(&mount), "--async"]).took;
    assert!(fixture.is_mounted(&mount), "the mount point exists at once");
    assert!(took < Duration::from_millis(1500), "--async took {took:?} over a slow network");
    assert_eq!(fixture.status(&mount)["state"], "preparing");
    assert_eq!(names(&mount).expect("it waits, then lists"), [".git", "a.txt", "alone", "many"]);
    assert_eq!(fixture.status(&mount)["state"], "ready");
    assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
}

#[test]
fn a_failed_preparation_is_an_error_until_prepare_succeeds() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    repos::wide(&fixture.path("served/wide"), 10);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    proxy.set_offline(true);
    let mount = fixture.path("m");
    fixture.ok(&["mount", &git_url(proxy.port(), "wide"), text(&mount), "--async"]);
    names(&mount).expect_err("a directory that could not be prepared gives an error, not an empty list");
    let status = fixture.status(&mount);
    assert_eq!(status["state"], "failed");
    assert!(status["last_error"].as_str().is_some_and(|error| !error.is_empty()), "{status}");
    fixture.fails(&[exit::REMOTE], &["prepare", text(&mount)]);
    names(&mount).expect_err("still not prepared");
    proxy.set_offline(false);
    fixture.ok(&["prepare", text(&mount)]);
    assert_eq!(names(&mount).expect("prepared now").len(), 4);
    assert_eq!(fixture.status(&mount)["state"], "ready");
    assert!(fixture.status(&mount)["last_error"].is_null());
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
    // Preparing what is prepared fetches nothing and breaks nothing.
    let connections = proxy.connections();
    fixture.ok(&["prepare", text(&mount)]);
    assert_eq!(proxy.connections(), connections);
}

#[test]
fn a_preparing_mount_can_be_unmounted() {
    let Some(fixture) = Fixture::new() else { return };
    repos::small(&fixture.path("served/small"));
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    proxy.arm(Fault::Stall, 0, ALWAYS);
    let mount = fixture.path("m");
    fixture.ok(&["mount", &git_url(proxy.port(), "small"), text(&mount), "--async"]);
    let waiting = thread::spawn({
        let mount = mount.clone();
        move || fs::read_dir(mount)?.next().expect("a listing that fails, not an empty one").map(drop)
    });
    thread::sleep(Duration::from_millis(300));
    let took = fixture.ok(&["unmount", text(&mount), "--force"]).took;
    assert!(took < Duration::from_secs(10), "unmounting took {took:?}");
    assert!(fixture.mounts().is_empty());
    within(Duration::from_secs(10), "who waited for it gets an error", move || waiting.join())
        .expect("the reader lives")
        .expect_err("nothing was ever there");
}

#[test]
fn require_commit_publishes_that_commit_or_nothing() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    let commit = repos::small(&source);
    let mount = fixture.path("m");
    let other = repos::NO_COMMIT;
    let failed = fixture.fails(&[exit::REFUSED], &["mount", text(&source), text(&mount), "--require-commit", other]);
    assert!(failed.err().contains(&commit[..7]), "the error says what was found: {}", failed.err());
    assert!(fixture.mounts().is_empty(), "nothing is published");
    assert!(rows(fixture.json(&["list"])).is_empty(), "nothing is remembered");
    fixture.fails(&[exit::USAGE], &["mount", text(&source), text(&mount), "--require-commit", "main"]);
    fixture.ok(&["mount", text(&source), text(&mount), "--require-commit", &commit]);
    assert_eq!(fixture.git_out(&mount, &["rev-parse", "HEAD"]), commit);
}

#[test]
fn a_busy_mount_is_unmounted_by_force_only() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    let open = fs::File::open(mount.join("a.txt")).expect("it opens");
    fixture.fails(&[exit::REFUSED], &["unmount", text(&mount)]);
    assert_eq!(read(&mount.join("dir/b.txt")).expect("still mounted"), b"beta\n");
    assert_eq!(fixture.status(&mount)["state"], "ready");
    fixture.ok(&["unmount", text(&mount), "--force"]);
    assert!(fixture.mounts().is_empty());
    drop(open);
    let listed = rows(fixture.json(&["list"]));
    assert_eq!(listed[0]["state"], "unmounted");
    fixture.ok(&["mount", text(&source), text(&mount)]);
    assert_eq!(read(&mount.join("a.txt")).expect("mounted again"), b"alpha\n");
}

#[test]
fn a_prepared_gitdir_is_used_and_never_overwritten() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    let commit = repos::small(&source);
    let gitdir = fixture.path("prepared.git");
    common::git_out(&fixture.path(""), &["clone", "-q", "--bare", "--no-local", text(&source), text(&gitdir)]);
    fs::write(gitdir.join("mine"), "untouched").expect("writable");
    common::git_out(&gitdir, &["config", "user.nickname", "kept"]);
    let mount = fixture.path("m");
    fixture.ok(&["mount", text(&source), text(&mount), "--gitdir", text(&gitdir)]);
    assert_eq!(fixture.git_out(&mount, &["rev-parse", "HEAD"]), commit);
    assert_eq!(read(&mount.join("dir/b.txt")).expect("it reads"), b"beta\n");
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
    assert_eq!(fs::read_to_string(gitdir.join("mine")).expect("still there"), "untouched");
    assert_eq!(common::git_out(&gitdir, &["config", "user.nickname"]), "kept");
    let common_dir =
        PathBuf::from(fixture.git_out(&mount, &["rev-parse", "--path-format=absolute", "--git-common-dir"]));
    assert_eq!(fs::canonicalize(common_dir).expect("a directory"), fs::canonicalize(&gitdir).expect("a directory"));
    let elsewhere = fixture.path("nothing-here");
    let other = fixture.path("other");
    fixture
        .fails(&[exit::USAGE, exit::NOT_FOUND], &["mount", text(&source), text(&other), "--gitdir", text(&elsewhere)]);
    assert!(!elsewhere.exists(), "a gitdir prepared elsewhere is never made");
}

#[test]
fn state_is_private() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    fixture.mount(text(&source), "m");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.home()), 0o700);
    assert_eq!(mode(&fixture.home().join("run")), 0o700);
    assert_eq!(mode(&socket(&fixture)), 0o600);
}

#[test]
fn garbage_on_the_socket_is_survived() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    let pid = fixture.daemon();
    let mut endless = vec![b'x'; 4 << 20];
    endless.push(b'\n');
    let deep = format!("{}\n", "[".repeat(500_000)).into_bytes();
    for garbage in [
        b"".to_vec(),
        b"\n\n\n".to_vec(),
        repos::noise(3, 5000),
        b"\xff\xfe\xfd\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"{\"version\":999,\"request\":\"ping\"}\n".to_vec(),
        b"{\"version\":1,\"request\":{\"no_such_request\":{}}}\n".to_vec(),
        b"{\"version\":1,\"request\":{\"unmount\":{\"target\":7}}}\n".to_vec(),
        b"{\"version\":1".to_vec(),
        deep,
        endless,
    ] {
        let path = socket(&fixture);
        within(Duration::from_secs(20), "the daemon hangs up on garbage", move || {
            let mut stream = UnixStream::connect(path).expect("the daemon listens");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
            // The daemon may hang up before all of it is written.
            let _ = stream.write_all(&garbage);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.len() < 1 << 20, "an answer of {} bytes to garbage", answer.len());
        });
        assert_eq!(fixture.daemon(), pid);
    }
    // Connections that say nothing hold nobody up.
    let silent: Vec<UnixStream> =
        (0..50).map(|_| UnixStream::connect(socket(&fixture)).expect("the daemon listens")).collect();
    assert_eq!(fixture.status(&mount)["state"], "ready");
    drop(silent);
    assert_eq!(fixture.daemon(), pid);
}

#[test]
fn no_credential_is_written_anywhere() {
    let Some(mut fixture) = Fixture::with_settings(HASTY) else { return };
    repos::wide(&fixture.path("served/wide"), 20);
    let login = Some(("ann".to_owned(), SECRET.to_owned()));
    let server = HttpServer::serve(
        &fixture.path("served"),
        &fixture.path("http"),
        &HttpOptions { login, ..HttpOptions::default() },
    );
    fixture.set_env("LARDER_LOG", "trace");
    fixture.set_env("RUST_LOG", "trace");
    // Once in the address, once from a helper of git's.
    let in_url = fixture.path("in-url");
    mount_watching(&fixture, &server.url_with(&format!("ann:{SECRET}@"), "wide"), &in_url);
    let vault = fixture.path("vault");
    fs::write(&vault, format!("http://ann:{SECRET}@127.0.0.1:{}\n", server.port())).expect("writable");
    let helper = format!("[credential]\n\thelper = store --file={}\n", vault.display());
    fs::write(fixture.gitconfig(), helper).expect("writable");
    let by_helper = fixture.path("by-helper");
    mount_watching(&fixture, &server.url("wide"), &by_helper);
    for mount in [&in_url, &by_helper] {
        assert!(read(&mount.join("many/f00003")).expect("it reads") == repos::noise(10, 4003), "{}", mount.display());
        let told = fixture.git_out(mount, &["remote", "-v"]) + &fixture.json(&["status", text(mount)]).to_string();
        assert!(!told.contains(SECRET), "{told}");
    }
    // A failure must not quote it either.
    let failed = fixture.fails(
        &[exit::NOT_FOUND, exit::REMOTE],
        &["mount", &server.url_with(&format!("ann:{SECRET}@"), "no-such-repository"), text(&fixture.path("fails"))],
    );
    assert!(!failed.err().contains(SECRET), "{}", failed.err());
    assert_in_no_file(&fixture);
    fixture.ok(&["shutdown"]);
    assert_in_no_file(&fixture);
}

fn assert_in_no_file(fixture: &Fixture) {
    let found = files(&fixture.home(), &[]);
    assert!(found.len() > 3, "a home of {} files", found.len());
    for path in found {
        let bytes = fs::read(&path).unwrap_or_default();
        let seen = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!seen, "a password in {}", path.display());
    }
}

/// Mounts while looking at the arguments of every other process.
fn mount_watching(fixture: &Fixture, url: &str, mount: &Path) {
    let mut command = fixture.larder();
    command.args(["mount", url, text(mount)]).stdin(Stdio::null()).stdout(Stdio::null());
    let done = Arc::new(AtomicBool::new(false));
    let watcher = thread::spawn({
        let done = Arc::clone(&done);
        // What the user typed is in the arguments of the user's own command, which runs this URL as given.
        let typed = url.to_owned();
        move || {
            let mut leaks = BTreeSet::new();
            while !done.load(SeqCst) {
                for pid in common::processes() {
                    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    let own = line.contains(&format!("mount {typed}")) || line.contains("http_server.py");
                    if line.contains(SECRET) && !own {
                        leaks.insert(line);
                    }
                }
            }
            leaks
        }
    });
    let outcome = run(command, COMMAND_LIMIT);
    done.store(true, SeqCst);
    let leaks = watcher.join().expect("the watcher lives");
    assert_eq!(outcome.code, Some(0), "{}", outcome.err());
    assert_eq!(leaks, BTreeSet::new(), "a password in a process list");
}

#[test]
fn two_homes_never_touch_each_other() {
    let (Some(ours), Some(theirs)) = (Fixture::new(), Fixture::new()) else { return };
    let source = ours.path("source");
    repos::small(&source);
    let (here, there) = (ours.mount(text(&source), "m"), theirs.mount(text(&source), "m"));
    assert_ne!(ours.daemon(), theirs.daemon());
    assert_eq!(rows(ours.json(&["list"])).len(), 1);
    ours.fails(&[exit::NOT_FOUND], &["unmount", text(&there)]);
    ours.ok(&["shutdown"]);
    assert!(!ours.is_mounted(&here));
    assert_eq!(read(&there.join("a.txt")).expect("the other still serves"), b"alpha\n");
}

#[test]
fn a_terminated_daemon_unmounts() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    for signal in [Signal::TERM, Signal::INT] {
        let mount = fixture.path("m");
        if !fixture.is_mounted(&mount) {
            fixture.run(&["mount", text(&source), text(&mount)]);
        }
        kill(fixture.daemon(), signal);
        eventually(Duration::from_secs(10), "the daemon ends", || fixture.daemons().is_empty());
        assert!(fixture.mounts().is_empty(), "{signal:?} leaves a dead mount");
    }
}

#[test]
fn commands_that_need_no_daemon_start_none() {
    let Some(fixture) = Fixture::new() else { return };
    for args in [&["--help"][..], &["--version"], &["mount", "--help"], &["completions", "bash"]] {
        assert!(!fixture.ok(args).stdout.is_empty(), "{args:?}");
    }
    fixture.fails(&[exit::USAGE], &["mount"]);
    fixture.fails(&[exit::USAGE], &["no-such-command"]);
    fixture.ok(&["shutdown"]);
    assert!(fixture.daemons().is_empty());
    let doctor = fixture.run(&["doctor"]);
    assert!(doctor.out().contains("fuse"), "{}", doctor.out());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for wrong in ["[network]\ntimeout = \"soon\"\n", "[network\n", "[netwrok]\ntimeout = \"2s\"\n"] {
        let Some(fixture) = Fixture::with_settings(wrong) else { return };
        let source = fixture.path("source");
        repos::small(&source);
        let failed = fixture.fails(&[1, exit::USAGE], &["mount", text(&source), text(&fixture.path("m"))]);
        assert!(failed.err().contains("config.toml"), "the error names the file: {}", failed.err());
        assert!(fixture.mounts().is_empty());
    }
}

#[test]
fn a_remount_stays_and_the_log_says_what_happened() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    fixture.ok(&["unmount", text(&mount)]);
    fixture.ok(&["mount", text(&source), text(&mount)]);
    // Longer than the daemon's housekeeping takes to let go of the first session.
    thread::sleep(Duration::from_secs(7));
    assert_eq!(fs::read(mount.join("a.txt")).expect("still mounted"), b"alpha\n");
    let log = fs::read_to_string(fixture.path("home/daemon.log")).expect("there is a log");
    assert!(log.contains("daemon started"), "{log}");
}

#[test]
fn an_unmounted_workspace_can_be_purged_and_a_failed_one_leaves_nothing() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    fixture.ok(&["unmount", text(&mount)]);
    fixture.fails(&[exit::NOT_FOUND], &["unmount", text(&mount)]);
    fixture.ok(&["unmount", "m", "--purge"]);
    assert!(rows(fixture.json(&["list"])).is_empty());
    fixture.fails(&[exit::NOT_FOUND], &["mount", text(&source), text(&mount), "--rev", "no-such-branch"]);
    assert!(rows(fixture.json(&["list"])).is_empty());
}

/// Branches stay in the gitdir for the repository's other workspaces; a detached HEAD does not, and nothing does with the
/// last of them.
#[test]
fn purging_refuses_to_lose_commits() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let one = fixture.mount(text(&source), "one");
    let two = fixture.mount(text(&source), "two");
    let commit = |place: &Path, message: &str| {
        fixture.git_out(place, &["commit", "-q", "--allow-empty", "-m", message]);
    };
    fixture.git_out(&one, &["switch", "-qc", "topic"]);
    commit(&one, "on a branch");
    commit(&one, "another");
    fixture.ok(&["unmount", text(&one), "--purge"]);
    assert_eq!(fixture.git_out(&two, &["rev-list", "--count", "origin/main..topic"]), "2", "the branch stays");
    // The last workspace, mounted and not.
    let refused = fixture.fails(&[exit::REFUSED], &["unmount", text(&two), "--purge"]).err();
    assert!(refused.contains("2 commits that were never pushed (on topic)"), "{refused}");
    assert!(refused.contains("push them, or add --force"), "{refused}");
    assert!(fixture.is_mounted(&two), "a refused purge changes nothing");
    fixture.ok(&["unmount", text(&two)]);
    fixture.fails(&[exit::REFUSED], &["unmount", "two", "--purge"]);
    // Git keeps no note of this push: a mount fetches one branch.
    let two = fixture.mount(text(&source), "two");
    fixture.git_out(&two, &["push", "-q", "origin", "topic"]);
    let one = fixture.mount(text(&source), "one");
    fixture.git_out(&one, &["switch", "-q", "--detach"]);
    commit(&one, "on no branch");
    fs::write(one.join("a.txt"), "changed\n").expect("writes");
    let refused = fixture.fails(&[exit::REFUSED], &["unmount", text(&one), "--purge"]).err();
    assert!(
        refused.contains("1 local change and 1 commit that was never pushed (on detached HEAD of one)"),
        "{refused}"
    );
    fixture.git_out(&one, &["restore", "a.txt"]);
    let refused = fixture.fails(&[exit::REFUSED], &["unmount", text(&one), "--purge"]).err();
    assert!(refused.contains("git branch NAME"), "{refused}");
    fixture.git_out(&one, &["branch", "kept"]);
    fixture.ok(&["unmount", text(&one), "--purge"]);
    fixture.fails(&[exit::REFUSED], &["unmount", text(&two), "--purge"]);
    fixture.git_out(&two, &["push", "-q", "origin", "kept"]);
    fixture.ok(&["unmount", text(&two), "--purge"]);
    let three = fixture.mount(text(&source), "three");
    commit(&three, "thrown away");
    fixture.ok(&["unmount", text(&three), "--purge", "--force"]);
    assert!(rows(fixture.json(&["list"])).is_empty());
}

/// Not where it is converted either, nor when somebody else unmounted.
#[test]
fn a_change_that_was_undone_does_not_hold_a_purge_up() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    repos::write(&source, ".gitattributes", "*.bat text eol=crlf\n");
    repos::write(&source, "run.bat", "one\ntwo\n");
    repos::commit_all(&source, "a script");
    for by_hand in [false, true] {
        let mount = fixture.mount(text(&source), "undone");
        for name in ["a.txt", "run.bat"] {
            let before = read(&mount.join(name)).expect("readable");
            fs::write(mount.join(name), "changed\n").expect("writes");
            assert!(fixture.git_out(&mount, &["status", "--short"]).contains(name), "{name}");
            fs::write(mount.join(name), before).expect("writes");
        }
        if by_hand {
            let mut umount = Command::new("umount");
            umount.arg(&mount);
            assert_eq!(run(umount, COMMAND_LIMIT).code, Some(0));
            eventually(Duration::from_secs(15), "the daemon notes it", || {
                fs::read_to_string(fixture.path("home/daemon.log"))
                    .is_ok_and(|log| log.contains("unmounted from outside"))
            });
        } else {
            fixture.ok(&["unmount", text(&mount)]);
        }
        fixture.ok(&["unmount", "undone", "--purge"]);
    }
    let mount = fixture.mount(text(&source), "undone");
    fs::write(mount.join("run.bat"), "changed\n").expect("writes");
    fixture.ok(&["unmount", text(&mount)]);
    let refused = fixture.fails(&[exit::REFUSED], &["unmount", "undone", "--purge"]).err();
    assert!(refused.contains("1 local change"), "{refused}");
    fixture.ok(&["unmount", "undone", "--purge", "--force"]);
}

#[test]
fn a_mount_that_the_started_daemon_made_again_is_what_was_asked_for() {
    let Some(fixture) = Fixture::new() else { return };
    let (source, other) = (fixture.path("source"), fixture.path("other"));
    repos::small(&source);
    repos::small(&other);
    let mount = fixture.mount(text(&source), "m");
    let before = fixture.status(&mount);
    fs::write(mount.join("a.txt"), "changed\n").expect("writes");
    let refused = fixture.fails(&[exit::REFUSED], &["mount", text(&source), text(&mount)]).err();
    assert!(refused.contains("is already mounted"), "a running daemon could be asked: {refused}");
    let zeros = "0".repeat(40);
    let contradicting: [&[&str]; 6] = [
        &["--name", "another"],
        &["--rev", "other"],
        &["--read-only"],
        &["--offline"],
        &["--refresh", "10m"],
        &["--require-commit", &zeros],
    ];
    for options in contradicting {
        fixture.ok(&["shutdown"]);
        let all = [&["mount", text(&source), text(&mount)], options].concat();
        let refused = fixture.fails(&[exit::REFUSED], &all).err();
        assert!(refused.contains("is already mounted"), "{options:?}: {refused}");
        assert!(fixture.is_mounted(&mount), "{options:?}");
    }
    fixture.ok(&["shutdown"]);
    fixture.fails(&[exit::REFUSED], &["mount", text(&other), text(&mount)]);
    let commit = before["commit"].as_str().expect("a commit");
    let agreeing: [&[&str]; 4] = [
        &[],
        &["--name", "m", "--rev", "main"],
        &["--rev", "refs/heads/main"],
        &["--require-commit", commit, "--async"],
    ];
    for options in agreeing {
        fixture.ok(&["shutdown"]);
        let said = fixture.ok(&[&["mount", text(&source), text(&mount)], options].concat()).out();
        assert!(said.starts_with("m is mounted at "), "{options:?}: {said}");
        assert_eq!(fixture.status(&mount)["generation"], before["generation"], "{options:?}");
        assert_eq!(read(&mount.join("a.txt")).expect("readable"), b"changed\n", "{options:?}");
    }
    assert_eq!(rows(fixture.json(&["list"])).len(), 1);
}
