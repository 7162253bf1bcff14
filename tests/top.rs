//! `larder top` in a real terminal (tmux), and as lines on a pipe.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::proxy::Proxy;
use common::repos::{self, commit_all, noise, write};
use common::servers::{GitDaemon, git_url};
use common::{COMMAND_LIMIT, Fixture, eventually, exit, kill, run, text};
use rustix::process::Signal;
use serde_json::Value;

/// A name that would clear the screen and ring the bell.
const EVIL: &str = "odd\x1b[2J/evil\x07name";
/// Bytes of a file that takes a while over the narrow line.
const LARGE: usize = 200_000;
/// A line so narrow that whoever reads such a file is seen waiting.
const NARROW: u64 = 20_000;

/// Terminals so far.
static SCREENS: AtomicU64 = AtomicU64::new(0);

/// A mount behind a line that can be made narrow.
struct Scene {
    fixture: Fixture,
    mount: PathBuf,
    proxy: Proxy,
    _server: GitDaemon,
}

impl Scene {
    fn new() -> Option<Self> {
        let fixture = Fixture::with_settings("[git]\nhistory = \"off\"\n[hydrate]\nprefetch = \"off\"")?;
        let source = fixture.path("remote/project");
        repos::init(&source, "sha1");
        for (number, name) in ["alone/file", EVIL, "other/file"].into_iter().enumerate() {
            write(&source, name, noise(number as u64, LARGE));
        }
        for number in 0..50 {
            write(&source, format!("many/f{number:02}"), noise(100 + number, 2_000));
        }
        commit_all(&source, "first");
        repos::advertise_sizes(&source);
        let server = GitDaemon::serve(&fixture.path("remote"));
        let proxy = Proxy::to(server.port());
        let mount = fixture.mount(&git_url(proxy.port(), "project"), "mount");
        Some(Self { fixture, mount, proxy, _server: server })
    }

    /// Has `program` read a file of the mount.
    fn reads(&self, program: &str, arguments: &[&str]) -> JoinHandle<()> {
        let mut command = Command::new(program);
        command.current_dir(&self.mount).args(arguments);
        thread::spawn(move || drop(run(command, COMMAND_LIMIT).success()))
    }
}

/// A terminal with a shell in it.
struct Screen {
    socket: String,
    /// Where tmux keeps it: goes with the fixture.
    directory: PathBuf,
}

impl Screen {
    fn new(scene: &Scene) -> Self {
        // Tests of one process run side by side.
        let number = SCREENS.fetch_add(1, Ordering::Relaxed);
        let socket = format!("larder-test-{}-{number}", std::process::id());
        let screen = Self { socket, directory: scene.fixture.path("") };
        let mut command = screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "sh"]);
        for (name, value) in scene.fixture.larder().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("LC_ALL", "C.UTF-8").env_remove("ENV").env_remove("TMUX");
        run(command, COMMAND_LIMIT).success();
        screen.eventually("a prompt", |screen| !screen.trim().is_empty());
        // A prompt that nothing else prints, whoever's shell this is.
        screen.types(&["PS1='ready> '", "Enter"]);
        screen.eventually("the shell", |screen| screen.lines().any(|line| line.trim_end() == "ready>"));
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.env("TMUX_TMPDIR", &self.directory).args(["-u", "-L", &self.socket]).args(arguments);
        command
    }

    fn told(&self, arguments: &[&str]) -> String {
        run(self.tmux(arguments), COMMAND_LIMIT).success().out()
    }

    fn types(&self, keys: &[&str]) {
        self.told(&[&["send-keys"], keys].concat());
    }

    fn now(&self) -> String {
        self.told(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn eventually(&self, what: &str, seen: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(Duration::from_secs(20), what, || {
                last = self.now();
                seen(&last)
            });
        }));
        assert!(outcome.is_ok(), "{what}; the screen:\n{last}");
    }

    #[track_caller]
    fn shows(&self, what: &str, parts: &[&str]) {
        self.eventually(what, |screen| parts.iter().all(|part| screen.contains(part)));
    }

    /// Types the command line that shows the screen.
    fn top(&self, arguments: &str) {
        let line = format!("{} top {arguments}", env!("CARGO_BIN_EXE_larder"));
        self.types(&["-l", &line]);
        self.types(&["Enter"]);
    }

    /// The terminal is a shell's again, as it was.
    #[track_caller]
    fn is_clean(&self, status: &str) {
        eventually(Duration::from_secs(20), "the alternate screen is left", || {
            self.told(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"]).trim() == "0 1 0"
        });
        self.eventually("the prompt", |screen| screen.trim_end().ends_with("\nready>"));
        self.types(&["echo status $? and $((40 + 2))", "Enter"]);
        // Echoed and ended with a newline: raw mode is over.
        self.shows("the shell echoes", &["ready> echo status $? and", &format!("\nstatus {status} and 42\n")]);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_terminal_shows_what_goes_on_and_obeys_keys() {
    let Some(scene) = Scene::new() else { return };
    let screen = Screen::new(&scene);
    screen.top("--interval 200ms");
    screen.shows("a quiet screen", &["Waiters (0)", "nobody waits", "Workspaces (1)", "mount ", "0 misses/s"]);

    // Who waits is seen while they do, and afterwards who that was.
    for (name, shown) in [("alone/file", "alone/file"), (EVIL, r"odd\x1b[2J/evil\x07name")] {
        scene.proxy.set_rate(NARROW);
        let reading = scene.reads("head", &["-c1", name]);
        screen.shows("who waits", &["Waiters (1)", "object", "on connection", shown]);
        scene.proxy.set_rate(0);
        reading.join().expect("read");
    }
    screen.shows("who fetched", &["nobody waits", " head ", "mount:/alone", r"mount:/odd\x1b[2J"]);

    screen.types(&["p"]);
    screen.shows("the pause", &["paused", "p go on"]);
    let paused = screen.now();
    scene.reads("dd", &["if=other/file", "of=/dev/null", "status=none"]).join().expect("read");
    thread::sleep(Duration::from_millis(600));
    assert_eq!(screen.now(), paused, "nothing moves");
    screen.types(&["p"]);
    screen.shows("it goes on", &[" dd "]);

    screen.types(&["Tab", "Tab", "s", "s", "s"]);
    screen.shows("the sort", &["▶ Processes", "PROCESS▲"]);
    let at = |screen: &str, name: &str| screen.find(&format!(" {name} "));
    screen.eventually("words in their order", |screen| at(screen, "dd") < at(screen, "head"));
    screen.types(&["r"]);
    screen.eventually("and the other way round", |screen| {
        screen.contains("PROCESS▼") && at(screen, "dd") > at(screen, "head")
    });
    screen.types(&["w"]);
    screen.shows("one workspace", &["only mount"]);
    screen.types(&["?"]);
    screen.shows("help", &["sort it the other way round"]);
    screen.types(&["Escape"]);
    screen.eventually("no help", |screen| !screen.contains("sort it the other way round"));

    screen.told(&["resize-window", "-x", "20", "-y", "5"]);
    screen.eventually("a small screen", |screen| {
        screen.contains("▶ Processes") && screen.lines().all(|line| line.chars().count() <= 20)
    });
    screen.told(&["resize-window", "-x", "120", "-y", "40"]);
    screen.shows("a large one", &["Directories, last", "Latency", "Queue"]);

    let daemons = || -> Vec<i32> { scene.fixture.daemons().into_iter().filter(|pid| !is_top(*pid)).collect() };
    assert_eq!(daemons().len(), 1);
    kill(daemons()[0], Signal::KILL);
    screen.shows("no daemon", &["no daemon runs; waiting for one"]);
    assert_eq!(daemons(), [0; 0], "watching starts none");
    scene.fixture.ok(&["daemon"]);
    screen.shows("the next daemon", &["up ", "Workspaces (1)", "mount "]);
    screen.types(&["q"]);
    screen.is_clean("0");
}

#[test]
fn lines_are_printed_where_there_is_no_terminal() {
    let Some(scene) = Scene::new() else { return };
    let fixture = &scene.fixture;
    scene.reads("head", &["-c1", EVIL]).join().expect("read");
    let out = fixture.ok(&["top", "--interval", "100ms", "--count", "2"]).out();
    assert_eq!(out.matches("\n  queued    read 0, sibling 0, ").count(), 2, "{out}");
    assert!(out.contains("  workspace mount  ready") && out.contains("  head  mount:/odd"), "{out}");

    let report = fixture.json(&["top", "--once", "--interval", "100ms"]);
    for (pointer, is) in [
        ("/time", Value::is_string as fn(&Value) -> bool),
        ("/home", Value::is_string),
        ("/pid", Value::is_u64),
        ("/uptime_ms", Value::is_u64),
        ("/counters/hits", Value::is_u64),
        ("/counters/misses", Value::is_u64),
        ("/counters/remote_bytes", Value::is_u64),
        ("/counters/evicted_objects", Value::is_u64),
        ("/counters/damaged", Value::is_u64),
        ("/reads/0/below_us", Value::is_u64),
        ("/reads/0/count", Value::is_u64),
        ("/hydrations", Value::is_array),
        ("/queue/read", Value::is_u64),
        ("/queue/bulk", Value::is_u64),
        ("/queue/inflight", Value::is_u64),
        ("/waiters", Value::is_u64),
        ("/waits", Value::is_array),
        ("/warms", Value::is_array),
        ("/workspaces/0/workspace", Value::is_string),
        ("/workspaces/0/state", Value::is_string),
        ("/workspaces/0/offline", Value::is_boolean),
        ("/workspaces/0/hits", Value::is_u64),
        ("/workspaces/0/fetched/bytes", Value::is_u64),
        ("/window_ms", Value::is_u64),
        ("/recording", Value::is_boolean),
        ("/fetched/objects", Value::is_u64),
        ("/processes/0/process", Value::is_string),
        ("/processes/0/mostly_in/path", Value::is_string),
        ("/directories/0/path", Value::is_string),
        ("/rates/interval_ms", Value::is_u64),
        ("/rates/bytes", Value::is_f64),
        ("/rates/reads/p99_below_us", Value::is_null),
    ] {
        assert!(report.pointer(pointer).is_some_and(is), "{pointer} in {report:#}");
    }
    assert_eq!(report["workspaces"][0]["misses"], 1, "this mount's own");
    assert_eq!(report["directories"][0]["path"], "odd\u{1b}[2J", "as it is");
    let out = fixture.ok(&["top", "--json", "--interval", "100ms", "--count", "3", "mount"]).out();
    let documents: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(documents.len(), 3);

    // A reader that has seen enough ends it, and it says nothing about that.
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" top --interval 100ms | head -3", env!("CARGO_BIN_EXE_larder")]);
    for (name, value) in fixture.larder().get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let outcome = run(shell, COMMAND_LIMIT).success();
    assert_eq!((outcome.out().lines().count(), outcome.err().as_str()), (3, ""), "{}", outcome.out());

    for (arguments, code) in [
        (vec!["top", "--interval", "1ms"], exit::USAGE),
        (vec!["top", "--once", "--count", "2"], exit::USAGE),
        (vec!["top", "--count", "0"], exit::USAGE),
        (vec!["top", "--once", "nowhere"], exit::NOT_FOUND),
    ] {
        fixture.fails(&[code], &arguments);
    }
    fixture.ok(&["shutdown"]);
    fixture.fails(&[exit::NOT_FOUND], &["top", "--once"]);
    fixture.fails(&[exit::NOT_FOUND], &["top"]);
    assert!(fixture.daemons().is_empty(), "watching starts none");
}

#[test]
fn a_signal_leaves_a_clean_terminal_and_a_dumb_one_gets_lines() {
    let Some(scene) = Scene::new() else { return };
    let screen = Screen::new(&scene);
    screen.top("--interval 100ms");
    screen.shows("the screen", &["Workspaces (1)"]);
    let tops: Vec<i32> = scene.fixture.processes().into_iter().filter(|pid| is_top(*pid)).collect();
    assert_eq!(tops.len(), 1, "{tops:?}");
    kill(tops[0], Signal::TERM);
    screen.is_clean("143");
    // What was there before is there again, and nothing of the screen.
    assert!(!screen.now().contains("Workspaces (1)"), "{}", screen.now());
    screen.types(&["clear; export TERM=dumb", "Enter"]);
    screen.top("--interval 100ms");
    screen.shows("lines", &["  queued    read 0", "  waiters   0"]);
    screen.types(&["C-c"]);
    screen.is_clean("130");
}

/// Whether a process is `larder top`.
fn is_top(pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    words.next() == Some(text(&PathBuf::from(env!("CARGO_BIN_EXE_larder"))).as_bytes()) && words.next() == Some(b"top")
}
