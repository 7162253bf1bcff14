//! Every transport, every way to prove who one is, and a network that fails while files are read.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::compare::{assert_same, tree};
use common::proxy::{ALWAYS, Fault, Proxy, wide_behind_proxy};
use common::servers::{FakeSsh, GitDaemon, HttpOptions, HttpServer, eventually_logged, git_url};
use common::{COMMAND_LIMIT, Fixture, exit, kill, names, read, repos, text, wait_for, within};
use rustix::process::Signal;

const HASTY: &str = "[network]\ntimeout = \"2s\"\n";

/// A repository of everything under `served/source`, and its clone.
fn everything(fixture: &Fixture) -> (PathBuf, PathBuf) {
    let source = fixture.path("served/source");
    repos::generated(&source, "sha1");
    let clone = repos::clone(&source, None, &fixture.path("clone"));
    (source, clone)
}

fn assert_equal(mount: &Path, clone: &Path) {
    let (mount, clone) = (mount.to_owned(), clone.to_owned());
    let (wanted, found) = within(Duration::from_mins(2), "comparing", move || (tree(&clone), tree(&mount)));
    assert_same(&wanted, &found);
}

fn http(fixture: &Fixture, options: &HttpOptions) -> HttpServer {
    HttpServer::serve(&fixture.path("served"), &fixture.path("http"), options)
}

fn login() -> (String, String) {
    ("ann".to_owned(), "open sesame".to_owned())
}

#[test]
fn http_equals_a_clone_and_keeps_its_connection_busy() {
    let Some(fixture) = Fixture::new() else { return };
    let (_, clone) = everything(&fixture);
    let server = http(&fixture, &HttpOptions::default());
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&format!("http://127.0.0.1:{}/source", proxy.port()), "m");
    assert_equal(&mount, &clone);
    assert!(proxy.connections() <= 8, "{} connections for one mount", proxy.connections());
    let posts = server.requests().iter().filter(|line| line.starts_with("POST")).count();
    assert!(posts < 80, "{posts} requests for 60 directories");
}

#[test]
fn https_with_an_authority_of_ones_own() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    repos::small(&fixture.path("served/small"));
    let server = http(&fixture, &HttpOptions { tls: true, ..HttpOptions::default() });
    let refused = fixture.path("refused");
    fixture.fails(&[exit::REMOTE], &["mount", &server.url("small"), text(&refused)]);
    assert!(fixture.mounts().is_empty());
    fs::write(fixture.gitconfig(), format!("[http]\n\tsslCAInfo = {}\n", server.authority().display()))
        .expect("writable");
    let mount = fixture.mount(&server.url("small"), "m");
    assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
}

#[test]
fn credentials_come_from_helpers_and_are_asked_for_once() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    repos::wide(&fixture.path("served/wide"), 5);
    let server = http(&fixture, &HttpOptions { login: Some(login()), ..HttpOptions::default() });
    let failed = fixture.fails(&[exit::REMOTE], &["mount", &server.url("wide"), text(&fixture.path("none"))]);
    let error = failed.err().to_lowercase();
    assert!(error.contains("credential") || error.contains("authenticat") || error.contains("401"), "{error}");
    assert!(fixture.mounts().is_empty());
    let asked = fixture.path("asked");
    let helper = format!(
        "[credential]\n\thelper = \"!f() {{ echo \\\"$1\\\" >>{}; test \\\"$1\\\" = get && printf 'username=ann\\\\npassword=open sesame\\\\n'; }}; f\"\n",
        asked.display()
    );
    fs::write(fixture.gitconfig(), helper).expect("writable");
    let mount = fixture.mount(&server.url("wide"), "m");
    assert!(read(&mount.join("alone/file")).expect("it reads") == repos::noise(1, 300 << 10));
    let gets = fs::read_to_string(&asked).expect("the helper ran").lines().filter(|line| *line == "get").count();
    assert!((1..=2).contains(&gets), "the helper was asked {gets} times");
    // Wrong ones are refused, and the helper is told to forget them.
    let helper = "[credential]\n\thelper = \"!f() { test \\\"$1\\\" = get && printf 'username=ann\\\\npassword=wrong\\\\n'; }; f\"\n";
    fs::write(fixture.gitconfig(), helper).expect("writable");
    let Some(other) = Fixture::with_settings(HASTY) else { return };
    fs::write(other.gitconfig(), helper).expect("writable");
    other.fails(&[exit::REMOTE], &["mount", &server.url("wide"), text(&other.path("m"))]);
}

#[test]
fn extra_headers_and_proxies_of_git_are_used() {
    let Some(mut fixture) = Fixture::with_settings(HASTY) else { return };
    repos::small(&fixture.path("served/small"));
    let header = Some(("X-Token".to_owned(), "abc123".to_owned()));
    let server = http(&fixture, &HttpOptions { header, ..HttpOptions::default() });
    fixture.fails(&[exit::REMOTE], &["mount", &server.url("small"), text(&fixture.path("none"))]);
    fs::write(fixture.gitconfig(), "[http]\n\textraHeader = X-Token: abc123\n").expect("writable");
    let mount = fixture.mount(&server.url("small"), "m");
    assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
    // The server stands in as the proxy of a host that does not exist.
    let proxy = format!("http://127.0.0.1:{}", server.port());
    let config = format!("[http]\n\textraHeader = X-Token: abc123\n\tproxy = {proxy}\n");
    fs::write(fixture.gitconfig(), config).expect("writable");
    let mount = fixture.mount("http://behind.invalid/small", "configured");
    assert_eq!(read(&mount.join("dir/b.txt")).expect("it reads"), b"beta\n");
    fs::write(fixture.gitconfig(), "[http]\n\textraHeader = X-Token: abc123\n").expect("writable");
    fixture.set_env("http_proxy", &proxy);
    let mount = fixture.mount("http://elsewhere.invalid/small", "from-environment");
    assert_eq!(read(&mount.join("dir/b.txt")).expect("it reads"), b"beta\n");
    eventually_logged(&server, "requests for other hosts", |lines| {
        ["behind.invalid", "elsewhere.invalid"].iter().all(|host| lines.iter().any(|line| line.contains(host)))
    });
}

#[test]
fn a_server_that_is_busy_at_first_is_asked_again() {
    let Some(fixture) = Fixture::new() else { return };
    repos::small(&fixture.path("served/small"));
    let server = http(&fixture, &HttpOptions { fail_first: 2, ..HttpOptions::default() });
    let mount = fixture.mount(&server.url("small"), "m");
    assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
    assert!(server.requests().iter().filter(|line| line.contains(" 503 ")).count() == 2);
}

#[test]
fn ssh_is_the_users_own() {
    let Some(mut fixture) = Fixture::with_settings(HASTY) else { return };
    let (source, clone) = everything(&fixture);
    let ssh = FakeSsh::new(&fixture.path("bin"));
    fixture.set_env("GIT_SSH_COMMAND", ssh.program());
    let mount = fixture.mount(&format!("ssh://ann@somewhere.invalid:2222{}", source.display()), "m");
    assert_equal(&mount, &clone);
    let calls = ssh.calls();
    assert!(calls.iter().any(|call| call.contains("-p 2222") && call.contains("ann@somewhere.invalid")), "{calls:?}");
    assert!(calls.len() < 10, "{} connections for one mount", calls.len());
    let scp_like = fixture.mount(&format!("ann@elsewhere.invalid:{}", source.display()), "scp");
    assert_eq!(names(&scp_like).expect("it lists"), names(&mount).expect("it lists"));
    let failed = fixture.fails(&[exit::REMOTE], &["mount", "ann@refused.invalid:/x", text(&fixture.path("no"))]);
    assert!(failed.err().contains("Permission denied"), "what ssh said is passed on: {}", failed.err());
}

#[test]
fn an_interrupted_reader_returns_at_once_and_others_read_on() {
    let Some(fixture) = Fixture::new() else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 20);
    assert_eq!(read(&mount.join("a.txt")).expect("it reads"), b"alpha\n");
    // The same commit again: contents in the store, nothing in the kernel.
    let fresh = fixture.mount(&git_url(proxy.port(), "wide"), "fresh");
    proxy.arm(Fault::Stall, 0, ALWAYS);
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        // Whoever runs the tests in the background may have had SIGINT ignored, which is inherited.
        let mut reader = Command::new("env")
            .args(["--default-signal", "cat"])
            .arg(mount.join("alone/file"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cat runs");
        assert!(wait_for(&mut reader, Duration::from_millis(500)).is_none(), "the server is stalled, and cat ended");
        let started = Instant::now();
        assert_eq!(names(&fresh.join("many")).expect("names need no network").len(), 20);
        assert_eq!(read(&fresh.join("a.txt")).expect("what is cached needs no network"), b"alpha\n");
        assert_eq!(read(&mount.join("a.txt")).expect("what is cached needs no network"), b"alpha\n");
        assert!(started.elapsed() < Duration::from_secs(2), "cached reads waited {:?}", started.elapsed());
        kill(i32::try_from(reader.id()).expect("process ids fit"), signal);
        assert!(wait_for(&mut reader, Duration::from_secs(2)).is_some(), "{signal:?} does not end a blocked reader");
    }
    // Whoever still waits is told within the time-out once the network is back.
    proxy.disarm();
    proxy.set_offline(true);
    proxy.set_offline(false);
    assert!(read(&mount.join("alone/file")).expect("the network is back") == repos::noise(1, 300 << 10));
}

#[test]
fn a_stalled_server_times_out() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 20);
    proxy.arm(Fault::Stall, 1000, ALWAYS);
    let started = Instant::now();
    let error = read(&mount.join("alone/file")).expect_err("the server is stalled");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?} with a time-out of 2 s", started.elapsed());
    assert!(error.raw_os_error().is_some(), "{error}");
    proxy.disarm();
    assert!(read(&mount.join("alone/file")).expect("one more try works") == repos::noise(1, 300 << 10));
}

#[test]
fn without_a_network_what_is_here_works() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (server, proxy, mount) = wide_behind_proxy(&fixture, 20);
    let bytes = read(&mount.join("alone/file")).expect("it reads");
    proxy.set_offline(true);
    drop(server);
    let error = read(&mount.join("many/f00001")).expect_err("nothing to fetch it from");
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{error}");
    assert_eq!(fixture.status(&mount)["offline"], true);
    assert_eq!(names(&mount.join("many")).expect("names are here").len(), 20);
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
    fixture.ok(&["unmount", text(&mount)]);
    // What is prepared and cached mounts again without a network.
    fixture.ok(&["mount", &git_url(proxy.port(), "wide"), text(&mount)]);
    assert!(read(&mount.join("alone/file")).expect("it is in the store") == bytes);
    fixture.crash_daemon();
    fixture.ok(&["list"]);
    assert!(read(&mount.join("alone/file")).expect("it is in the store") == bytes);
}

/// A mount through a proxy of 20 directories, each holding one file of [`COLD_BYTES`], everything cold.
fn cold_behind_proxy(fixture: &Fixture) -> (GitDaemon, Proxy, PathBuf) {
    let source = fixture.path("served/cold");
    repos::init(&source, "sha1");
    for number in 0..20 {
        repos::write(&source, format!("c{number}/file"), repos::noise(number, COLD_BYTES));
    }
    repos::commit_all(&source, "cold");
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&git_url(proxy.port(), "cold"), "m");
    (server, proxy, mount)
}

const COLD_BYTES: usize = 300 << 10;

#[test]
fn one_fault_is_survived() {
    // Otherwise the first files would bring those of the next directories along.
    let Some(fixture) = Fixture::with_settings(&format!("{HASTY}[hydrate]\nprefetch = \"off\"\n")) else { return };
    let (_server, proxy, mount) = cold_behind_proxy(&fixture);
    let cases = [
        (Fault::Cut, 0),
        (Fault::Cut, 9),
        (Fault::Cut, 3000),
        (Fault::Cut, 200_000),
        (Fault::Flip, 2000),
        (Fault::Flip, 200_000),
    ];
    for ((fault, after), number) in cases.into_iter().zip(0..) {
        proxy.arm(fault, after, 1);
        let bytes = read(&mount.join(format!("c{number}/file")));
        let bytes = bytes.unwrap_or_else(|error| panic!("one {fault:?} at {after}: {error}"));
        assert!(bytes == repos::noise(number, COLD_BYTES), "{fault:?} at {after}");
        assert_eq!(proxy.strikes_left(), 0, "{fault:?} at {after} never struck");
        proxy.disarm();
    }
}

#[test]
fn lasting_faults_while_reading_never_give_wrong_bytes() {
    let Some(fixture) = Fixture::with_settings("[network]\ntimeout = \"1s\"\n[hydrate]\nprefetch = \"off\"\n") else {
        return;
    };
    let (_server, proxy, mount) = cold_behind_proxy(&fixture);
    let cases = [
        (Fault::Cut, 0),
        (Fault::Cut, 1),
        (Fault::Cut, 4),
        (Fault::Cut, 13),
        (Fault::Cut, 100),
        (Fault::Cut, 70_000),
        (Fault::Flip, 3),
        (Fault::Flip, 5),
        (Fault::Flip, 17),
        (Fault::Flip, 22),
        (Fault::Flip, 30),
        (Fault::Flip, 1000),
        (Fault::Flip, 150_000),
        (Fault::Stall, 0),
        (Fault::Stall, 50),
        (Fault::Stall, 200_000),
    ];
    for ((fault, after), number) in cases.into_iter().zip(0..) {
        proxy.arm(fault, after, ALWAYS);
        let started = Instant::now();
        let result = read(&mount.join(format!("c{number}/file")));
        assert!(started.elapsed() < Duration::from_secs(20), "{fault:?} at {after} took {:?}", started.elapsed());
        // A flip that only touches progress or padding may do no harm; wrong bytes are never right.
        match result {
            Ok(bytes) => {
                let right = bytes == repos::noise(number, COLD_BYTES);
                assert!(fault == Fault::Flip && right, "{fault:?} at {after} went unnoticed");
            }
            Err(error) => assert!(error.raw_os_error().is_some_and(|code| code != libc::ENOENT), "{fault:?}: {error}"),
        }
        assert_eq!(names(&mount).expect("names are here").len(), 21);
    }
    proxy.disarm();
    for number in 0..20 {
        let bytes = read(&mount.join(format!("c{number}/file"))).expect("the network is well again");
        assert!(bytes == repos::noise(number, COLD_BYTES), "c{number}/file");
    }
    assert_eq!(fixture.git_out(&mount, &["status", "--porcelain"]), "");
}

#[test]
fn cold_reads_over_a_long_way_take_few_round_trips() {
    let Some(fixture) = Fixture::new() else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 250);
    // Warms the connection.
    read(&mount.join("a.txt")).expect("it reads");
    proxy.set_rtt(Duration::from_millis(40));
    let started = Instant::now();
    read(&mount.join("alone/file")).expect("it reads");
    let took = started.elapsed();
    assert!(took < Duration::from_millis(400), "one cold file over 40 ms took {took:?}");
    let many = mount.join("many");
    let started = Instant::now();
    within(COMMAND_LIMIT, "reading a cold directory", move || {
        thread::scope(|scope| {
            let readers: Vec<_> = (0..250)
                .map(|number| {
                    let path = many.join(format!("f{number:05}"));
                    scope.spawn(move || fs::read(path).expect("it reads").len())
                })
                .collect();
            let lengths: Vec<usize> =
                readers.into_iter().map(|reader| reader.join().expect("the reader lives")).collect();
            assert!(lengths.iter().enumerate().all(|(number, length)| *length == 4000 + number % 200));
        });
    });
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "250 cold files of one directory took {took:?} over 40 ms");
}
