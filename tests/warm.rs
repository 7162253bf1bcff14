//! `larder warm`: what is named is fetched, once, whatever happens to the network, the client or the daemon.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::compare::{assert_same, tree};
use common::proxy::{ALWAYS, Fault, Proxy, wide_behind_proxy};
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, eventually, exit, git_out, kill, read, repos, rows, run, text, wait_for, within};
use rustix::process::Signal;
use serde_json::Value;

/// Short times, and batches small enough that a warm of these repositories has several.
const HASTY: &str = "[network]\ntimeout = \"1s\"\n[hydrate]\nretries = 2\nwarm_objects = 256\n";

/// Bytes a second of a line on which a warm of [`WIDE`] files takes some seconds.
const SLOW: u64 = 600 << 10;

/// Files of 4 KiB in the repositories that are warmed over a slow line.
const WIDE: usize = 500;

/// Distinct blobs at `rev`, with their sizes; only those `pathspecs` name.
fn blobs(repository: &Path, rev: &str, pathspecs: &[&str]) -> BTreeMap<String, u64> {
    // `ls-tree` knows no pathspecs but plain ones.
    git_out(repository, &["checkout", "-q", rev]);
    let listed = git_out(repository, &[&["ls-files", "-s", "--"], pathspecs].concat());
    git_out(repository, &["checkout", "-q", "main"]);
    let ids = listed.lines().filter(|line| !line.starts_with("160000")).filter_map(|line| line.split(' ').nth(1));
    let mut sizes: BTreeMap<String, u64> = ids.map(|id| (id.to_owned(), 0)).collect();
    let all = git_out(repository, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objectsize)"]);
    for (id, size) in all.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(known) = sizes.get_mut(id) {
            *known = size.parse().expect("a number");
        }
    }
    sizes
}

fn warm(fixture: &Fixture, mount: &Path, arguments: &[&str]) -> Value {
    fixture.json(&[&["warm", text(mount)], arguments].concat())
}

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {report}"))
}

/// Wanted, fetched, cached already, left out.
fn counts(report: &Value) -> [u64; 4] {
    ["objects_wanted", "objects_fetched", "objects_already_cached", "objects_left_out"]
        .map(|field| number(report, field))
}

/// A `larder` in the background that ^C ends, whoever runs the tests: those started in the background may have had
/// SIGINT ignored, which is inherited.
fn start(fixture: &Fixture, arguments: &[&str]) -> Child {
    let plain = fixture.larder();
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(plain.get_program()).args(arguments).current_dir(fixture.path(""));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("env runs")
}

fn hydrated(fixture: &Fixture, mount: &Path) -> u64 {
    number(&fixture.status(mount), "hydrated_objects")
}

/// Waits until `bytes` more have come through.
fn flows(proxy: &Proxy, bytes: u64) {
    let until = proxy.bytes_down() + bytes;
    eventually(Duration::from_secs(10), "the warm is under way", || proxy.bytes_down() >= until);
}

fn assert_equals_git(mount: &Path, source: &Path, clone: &Path) {
    let clone = repos::clone(source, None, clone);
    let mount = mount.to_owned();
    let (wanted, found) = within(COMMAND_LIMIT, "comparing", move || (tree(&clone), tree(&mount)));
    assert_same(&wanted, &found);
}

/// Fetched by mounting: the `.gitattributes` of the generated repository.
const ATTRIBUTES: u64 = 1;
const ATTRIBUTES_BYTES: u64 = "*.bin binary\n".len() as u64;

#[test]
fn what_is_named_is_fetched_once() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repos::generated(&source, "sha1");
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("source"), "m");
    let some = blobs(&source, "main", &["sources", "*.txt", ":!sources/d3"]);
    let report = warm(&fixture, &mount, &["sources", "*.txt", ":!sources/d3"]);
    assert_eq!(counts(&report), [some.len() as u64, some.len() as u64, 0, 0], "{report}");
    assert_eq!(number(&report, "bytes_fetched"), some.values().sum::<u64>());
    assert!((1..=3).contains(&number(&report, "requests")), "{report}");
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0) && report["background"] == false);
    assert_eq!(report.as_object().expect("an object").len(), 8, "{report}");
    let all = blobs(&source, "main", &[]);
    let rest = (all.len() - some.len()) as u64 - ATTRIBUTES;
    let report = warm(&fixture, &mount, &[]);
    assert_eq!(counts(&report), [all.len() as u64, rest, some.len() as u64 + ATTRIBUTES, 0], "{report}");
    // By name, and by a path inside; what is here takes no request.
    let requests = fixture.metric("larder_remote_requests_total");
    let name = fixture.status(&mount)["workspace"].as_str().expect("a name").to_owned();
    for target in [name.as_str(), text(&mount.join("sources/d1")), text(&mount)] {
        let report = fixture.json(&["warm", target]);
        assert_eq!(counts(&report), [all.len() as u64, 0, all.len() as u64, 0], "{report}");
        assert_eq!(number(&report, "requests"), 0);
    }
    assert_eq!(counts(&warm(&fixture, &mount, &["names"]))[1], 0);
    assert_eq!(counts(&warm(&fixture, &mount, &["no/such/path"])), [0; 4]);
    let human = fixture.ok(&["warm", text(&mount)]).out();
    assert!(human.contains("were cached already") && human.lines().count() == 1, "{human}");
    assert_eq!(fixture.metric("larder_remote_requests_total"), requests);
    drop(server);
    assert_equals_git(&mount, &source, &fixture.path("clone"));
}

#[test]
fn large_files_are_left_out() {
    for sizes in [true, false] {
        let Some(fixture) = Fixture::new() else { return };
        let source = fixture.path("served/source");
        repos::generated(&source, "sha1");
        if sizes {
            repos::advertise_sizes(&source);
        }
        let server = GitDaemon::serve(&fixture.path("served"));
        let mount = fixture.mount(&server.url("source"), "m");
        let all = blobs(&source, "main", &[]);
        let large = all.values().filter(|size| **size > 65_536).count() as u64;
        assert_eq!(large, 6);
        let report = warm(&fixture, &mount, &["--limit", "64KiB"]);
        let small = all.len() as u64 - large;
        assert_eq!(
            counts(&report),
            [all.len() as u64, small - ATTRIBUTES, ATTRIBUTES, large],
            "sizes {sizes}: {report}"
        );
        let exact = all.values().filter(|size| **size <= 65_536).sum::<u64>() - ATTRIBUTES_BYTES;
        assert_eq!(number(&report, "bytes_fetched"), exact, "sizes {sizes}");
        let again = warm(&fixture, &mount, &["--limit", "64KiB"]);
        assert_eq!(counts(&again), [all.len() as u64, 0, small, large], "sizes {sizes}: {again}");
        assert_eq!(counts(&warm(&fixture, &mount, &[]))[1], large, "without a limit they come");
    }
}

#[test]
fn a_branch_that_is_not_mounted() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/source");
    repos::generated(&source, "sha1");
    let server = GitDaemon::serve(&fixture.path("served"));
    let url = server.url("source");
    let mount = fixture.mount(&url, "m");
    let next = blobs(&source, "next", &[]);
    let report = warm(&fixture, &mount, &["--rev", "next"]);
    assert_eq!(counts(&report), [next.len() as u64, next.len() as u64 - ATTRIBUTES, ATTRIBUTES, 0], "{report}");
    assert_eq!(counts(&warm(&fixture, &mount, &["--rev", "annotated", "only-in-next"])), [0; 4], "another revision");
    let other = fixture.path("next");
    fixture.ok(&["mount", &url, text(&other), "--rev", "next"]);
    drop(server);
    assert_eq!(read(&other.join("only-in-next")).expect("it is here"), b"next\n");
    assert_eq!(read(&mount.join("README.md")).expect("both have it"), b"# generated, second commit\n");
}

#[test]
fn wrong_words_are_told_by_their_exit_code() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.fails(&[exit::NOT_FOUND], &["warm", "no-such-workspace"]);
    repos::small(&fixture.path("served/small"));
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("small"), "m");
    let target = text(&mount);
    for pathspec in ["", "/absolute", "../out", ":(nonsense)x", ":(attr:x)y"] {
        fixture.fails(&[exit::USAGE], &["warm", target, pathspec]);
    }
    for rev in ["no-such-branch", repos::NO_COMMIT] {
        fixture.fails(&[exit::NOT_FOUND], &["warm", target, "--rev", rev]);
    }
    fixture.fails(&[exit::NOT_FOUND], &["warm", "no-such-workspace"]);
    fixture.fails(&[exit::NOT_FOUND], &["warm", text(&fixture.path("elsewhere"))]);
    fixture.ok(&["unmount", target]);
    fixture.fails(&[exit::NOT_FOUND], &["warm", target]);
}

#[test]
fn in_the_background_it_goes_on_alone() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, WIDE);
    let all = WIDE as u64 + 2;
    proxy.set_rate(SLOW);
    let outcome = fixture.ok(&["warm", text(&mount), "--background", "--json"]);
    assert!(outcome.took < Duration::from_secs(1), "--background took {:?}", outcome.took);
    let report: Value = serde_json::from_slice(&outcome.stdout).expect("JSON");
    assert_eq!(report["background"], true, "{report}");
    assert!(hydrated(&fixture, &mount) < all);
    eventually(Duration::from_secs(20), "it completes", || hydrated(&fixture, &mount) == all);
    // Nothing of it is left to do for the next daemon.
    eventually(Duration::from_secs(5), "it is over", || rows(fixture.json(&["waits"])).is_empty());
    thread::sleep(Duration::from_millis(100));
    fixture.ok(&["shutdown"]);
    let connections = proxy.connections();
    fixture.ok(&["daemon"]);
    eventually(Duration::from_secs(10), "the mount is back", || fixture.is_mounted(&mount));
    assert_eq!(counts(&warm(&fixture, &mount, &[])), [all, 0, all, 0]);
    assert_eq!(proxy.connections(), connections);
}

#[test]
fn unmounting_ends_it_for_good() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, WIDE);
    proxy.set_rate(SLOW / 4);
    fixture.ok(&["warm", text(&mount), "--background"]);
    flows(&proxy, 20_000);
    let took = fixture.ok(&["unmount", text(&mount)]).took;
    assert!(took < Duration::from_secs(5), "unmounting took {took:?}");
    eventually(Duration::from_secs(5), "nothing is in flight", || fixture.metric("larder_inflight_objects") == 0);
    fixture.crash_daemon();
    let connections = proxy.connections();
    fixture.ok(&["daemon"]);
    fixture.ok(&["mount", &git_url(proxy.port(), "wide"), text(&mount)]);
    thread::sleep(Duration::from_millis(500));
    assert!(rows(fixture.json(&["waits"])).is_empty(), "it is resumed");
    assert!(hydrated(&fixture, &mount) < WIDE as u64);
    assert!(proxy.connections() <= connections + 1, "only the mount may have asked");
}

#[test]
fn a_killed_daemon_resumes_by_itself() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, WIDE);
    let all = WIDE as u64 + 2;
    proxy.set_rate(SLOW);
    fixture.ok(&["warm", text(&mount), "--background"]);
    eventually(Duration::from_secs(10), "some of it is here", || hydrated(&fixture, &mount) > 50);
    fixture.crash_daemon();
    fixture.ok(&["daemon"]);
    eventually(Duration::from_secs(10), "the mount is back", || fixture.is_mounted(&mount));
    assert!(hydrated(&fixture, &mount) < all, "killed in the middle");
    eventually(Duration::from_secs(20), "it completes by itself", || hydrated(&fixture, &mount) == all);
    proxy.set_offline(true);
    assert_equals_git(&mount, &fixture.path("served/wide"), &fixture.path("clone"));
}

#[test]
fn interrupting_the_client_ends_it() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, WIDE);
    proxy.set_rate(SLOW / 2);
    let mut client = start(&fixture, &["warm", text(&mount)]);
    eventually(Duration::from_secs(10), "some of it is here", || hydrated(&fixture, &mount) > 20);
    assert!(fixture.metric("larder_inflight_objects") > 0);
    assert!(!rows(fixture.json(&["waits"])).is_empty(), "a warm is somebody who waits");
    kill(i32::try_from(client.id()).expect("process ids fit"), Signal::INT);
    assert!(wait_for(&mut client, Duration::from_secs(2)).is_some(), "^C does not end the client");
    let asked = Instant::now();
    eventually(Duration::from_secs(3), "the daemon stops", || fixture.metric("larder_inflight_objects") == 0);
    assert!(rows(fixture.json(&["waits"])).is_empty());
    let here = hydrated(&fixture, &mount);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(hydrated(&fixture, &mount), here, "it goes on {:?} after ^C", asked.elapsed());
    proxy.set_rate(0);
    let report = warm(&fixture, &mount, &[]);
    let all = WIDE as u64 + 2;
    assert_eq!(counts(&report), [all, all - here, here, 0], "what arrived stays: {report}");
}

#[test]
fn a_cold_read_passes_a_warm_by() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, WIDE);
    proxy.set_rate(SLOW);
    let mut client = start(&fixture, &["warm", text(&mount), "many"]);
    flows(&proxy, 60_000);
    for path in ["a.txt", "many/f00000", "many/f00250", "many/f00499"] {
        let begun = Instant::now();
        read(&mount.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(begun.elapsed() < Duration::from_millis(800), "{path} took {:?}", begun.elapsed());
    }
    assert!(wait_for(&mut client, Duration::ZERO).is_none(), "the warm ended before the reads");
    let status = wait_for(&mut client, Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

/// A mount through a proxy of directories `c0`, `c1`… of 40 files, everything cold.
fn cold_behind_proxy(fixture: &Fixture, directories: u64) -> (GitDaemon, Proxy, PathBuf) {
    let source = fixture.path("served/cold");
    repos::init(&source, "sha1");
    for directory in 0..directories {
        for file in 0..40 {
            repos::write(&source, format!("c{directory}/f{file}"), repos::noise(directory * 40 + file, 3000));
        }
    }
    repos::commit_all(&source, "cold");
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&git_url(proxy.port(), "cold"), "m");
    (server, proxy, mount)
}

/// Where faults strike, of the 120,000 bytes of a warm: in the acknowledgement, in the pack's header, in the pack.
const CASES: [(Fault, u64, u64); 19] = [
    (Fault::Cut, 0, 1),
    (Fault::Cut, 9, 1),
    (Fault::Cut, 500, 1),
    (Fault::Cut, 60_000, 1),
    (Fault::Cut, 119_000, 1),
    (Fault::Cut, 0, ALWAYS),
    (Fault::Cut, 13, ALWAYS),
    (Fault::Cut, 60_000, ALWAYS),
    (Fault::Flip, 2, 1),
    (Fault::Flip, 17, 1),
    (Fault::Flip, 1000, 1),
    (Fault::Flip, 60_000, 1),
    (Fault::Flip, 5, ALWAYS),
    (Fault::Flip, 1000, ALWAYS),
    (Fault::Flip, 60_000, ALWAYS),
    (Fault::Stall, 0, 1),
    (Fault::Stall, 1000, 1),
    (Fault::Stall, 60_000, 1),
    (Fault::Stall, 60_000, ALWAYS),
];

#[test]
fn faults_cost_time_or_an_error_and_nothing_else() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = cold_behind_proxy(&fixture, CASES.len() as u64 + 1);
    for ((fault, after, strikes), number) in CASES.into_iter().zip(0..) {
        proxy.arm(fault, after, strikes);
        let mut command = fixture.larder();
        command.args(["warm", text(&mount), &format!("c{number}")]);
        let outcome = run(command, Duration::from_secs(20));
        let case = format!("{fault:?} at {after}, {strikes} times: {:?} after {:?}", outcome.code, outcome.took);
        assert!(matches!(outcome.code, Some(0 | exit::REMOTE | exit::CORRUPT)), "{case}: {}", outcome.err());
        assert!(outcome.took < Duration::from_secs(10), "{case}");
        assert!(strikes == ALWAYS || proxy.strikes_left() == 0, "{case}: it never struck");
        if outcome.code != Some(0) {
            common::assert_clear(&outcome.err(), &case);
        }
        if fault == Fault::Cut && strikes == 1 {
            assert_eq!(outcome.code, Some(0), "one cut is survived; {case}: {}", outcome.err());
        }
        proxy.disarm();
    }
    assert!(rows(fixture.json(&["waits"])).is_empty());
    assert_eq!(fixture.metric("larder_inflight_objects"), 0);
    let report = warm(&fixture, &mount, &[]);
    assert_eq!(number(&report, "objects_wanted"), 40 * (CASES.len() as u64 + 1));
    proxy.set_offline(true);
    assert_equals_git(&mount, &fixture.path("served/cold"), &fixture.path("clone"));
}

#[test]
fn a_network_that_goes_away_is_told_and_comes_back() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, WIDE);
    proxy.set_rate(SLOW);
    let offline = thread::scope(|scope| {
        let going = scope.spawn(|| {
            flows(&proxy, 100_000);
            proxy.set_offline(true);
        });
        let outcome = fixture.fails(&[exit::REMOTE], &["warm", text(&mount)]);
        going.join().expect("it went");
        outcome
    });
    assert!(offline.took < Duration::from_secs(10), "told after {:?}", offline.took);
    assert!(offline.err().contains("stay in the cache"), "{}", offline.err());
    fixture.fails(&[exit::REMOTE], &["warm", text(&mount), "many"]);
    proxy.set_rate(0);
    proxy.set_offline(false);
    let report = warm(&fixture, &mount, &[]);
    assert_eq!(number(&report, "objects_wanted"), WIDE as u64 + 2);
    proxy.set_offline(true);
    assert_equals_git(&mount, &fixture.path("served/wide"), &fixture.path("clone"));
}

#[test]
fn when_many_are_under_way_the_next_waits_or_is_refused() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 50);
    let url = git_url(proxy.port(), "wide");
    let other = fixture.mount(&url, "other");
    fixture.ok(&["unmount", text(&other)]);
    proxy.set_offline(true);
    for number in 0..16 {
        // The same again would be the same warm.
        fixture.ok(&["warm", text(&mount), "a.txt", &format!(":!z{number}"), "--background"]);
    }
    fixture.fails(&[exit::REFUSED], &["warm", text(&mount)]);
    fixture.fails(&[exit::REFUSED], &["warm", text(&mount), "--background"]);
    // Nobody can refuse this one, for nobody waits for an answer.
    fixture.ok(&["mount", &url, text(&other), "--warm"]);
    thread::sleep(Duration::from_millis(200));
    proxy.set_offline(false);
    eventually(Duration::from_secs(20), "all of it is here", || hydrated(&fixture, &other) == 52);
}

#[test]
fn a_mount_can_be_warmed_as_it_is_made() {
    let Some(fixture) = Fixture::with_settings(HASTY) else { return };
    repos::wide(&fixture.path("served/wide"), 50);
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.path("m");
    fixture.ok(&["mount", &server.url("wide"), text(&mount), "--warm"]);
    eventually(Duration::from_secs(10), "all of it is here", || hydrated(&fixture, &mount) == 52);
    drop(server);
    assert_equals_git(&mount, &fixture.path("served/wide"), &fixture.path("clone"));
}
