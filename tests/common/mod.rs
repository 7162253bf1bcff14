//! What the black-box tests share: a private larder with its own home, and a clean-up that always runs.
//!
//! Owns: [`Fixture`] (one `LARDER_HOME` and everything started under it),
//! [`run`] and [`within`] (nothing waits for ever). It refuses to leave
//! anything behind: dropping a [`Fixture`] ends its daemon and detaches its
//! mounts, also while a test panics. It knows only the built program and
//! CLI.md, nothing of the crate inside.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub mod compare;
pub mod fake_remote;
pub mod place;
pub mod proxy;
pub mod repos;
pub mod servers;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest a single command may take before its test fails; generous, since CI machines are shared.
pub const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// Exit codes of CLI.md.
pub mod exit {
    pub const USAGE: i32 = 2;
    pub const NOT_FOUND: i32 = 3;
    pub const REMOTE: i32 = 4;
    pub const CORRUPT: i32 = 5;
    pub const REFUSED: i32 = 6;
}

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl Outcome {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.out(), self.err());
        self
    }
}

/// Runs a command to its end with nothing on stdin; fails the test when it, or whoever holds its output, takes longer.
#[track_caller]
pub fn run(mut command: Command, limit: Duration) -> Outcome {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = drain(child.stdout.take().expect("stdout is piped"));
    let stderr = drain(child.stderr.take().expect("stderr is piped"));
    let Some(status) = wait_for(&mut child, limit) else {
        kill_hard(&mut child);
        let seen = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        panic!("{command:?} did not end within {limit:?}; stderr: {}", String::from_utf8_lossy(&seen));
    };
    let took = started.elapsed();
    let rest = |stream: mpsc::Receiver<Vec<u8>>| {
        stream
            .recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|_| panic!("{command:?} ended, but a process it started keeps its output open"))
    };
    Outcome { code: status.code(), stdout: rest(stdout), stderr: rest(stderr), took }
}

fn drain(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A read error ends the stream as its end does: what arrived is what the test judges.
        let _ = stream.read_to_end(&mut bytes);
        let _ = send.send(bytes);
    });
    receive
}

/// Waits for a child, at most `limit`.
pub fn wait_for(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(3)),
            _ => return None,
        }
    }
}

/// Kills a child without waiting for one that the kernel will not let die.
pub fn kill_hard(child: &mut Child) {
    let _ = child.kill();
    let _ = wait_for(child, Duration::from_secs(2));
}

/// Runs `work` on a thread of its own and fails the test when it takes longer than `limit`.
#[track_caller]
pub fn within<T: Send + 'static>(limit: Duration, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _ = send.send(work());
    });
    match receive.recv_timeout(limit) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: not done within {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a worker that returned has sent its value"),
        },
    }
}

/// Asks `ready` until it says yes, at most `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !ready() {
        assert!(Instant::now() < until, "{what}: not so within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A `git` that sees no configuration but the repository's own, and fixed authors and dates.
pub fn git(dir: &Path) -> Command {
    let mut command = git_program(Path::new("git"));
    command.arg("-C").arg(dir);
    command
}

/// One of git's programs, in the same environment.
pub fn git_program(program: &Path) -> Command {
    let mut command = Command::new(program);
    plain_environment(&mut command);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// Runs git and returns what it printed, without the last newline.
#[track_caller]
pub fn git_out(dir: &Path, args: &[&str]) -> String {
    let mut command = git(dir);
    command.args(args);
    let outcome = run(command, COMMAND_LIMIT);
    assert_eq!(outcome.code, Some(0), "git {args:?}: {}", outcome.err());
    outcome.out().trim_end_matches('\n').to_owned()
}

/// Takes away what the machine's own environment would change.
fn plain_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let upper = text.to_ascii_uppercase();
        if upper.starts_with("GIT_")
            || upper.starts_with("LARDER_")
            || upper.starts_with("XDG_")
            || upper.ends_with("_PROXY")
        {
            command.env_remove(&name);
        }
    }
    for (who, name) in [("AUTHOR", "Ann Author"), ("COMMITTER", "Carl Committer")] {
        command.env(format!("GIT_{who}_NAME"), name).env(format!("GIT_{who}_EMAIL"), "someone@example.org");
        command.env(format!("GIT_{who}_DATE"), "2024-03-01T12:00:00Z");
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .env_remove("SSH_ASKPASS");
}

/// One `LARDER_HOME` with everything started under it.
pub struct Fixture {
    dir: TempDir,
    extra: Vec<(OsString, OsString)>,
}

impl Fixture {
    /// A fresh home; `None` where `LARDER_TEST_NO_FUSE=1` excuses a machine without `/dev/fuse`.
    pub fn new() -> Option<Self> {
        Self::with_settings("")
    }

    /// The same with a settings file.
    pub fn with_settings(toml: &str) -> Option<Self> {
        if std::env::var_os("LARDER_TEST_NO_FUSE").is_some_and(|value| value == "1") {
            return None;
        }
        assert!(
            Path::new("/dev/fuse").exists(),
            "/dev/fuse is missing: these tests mount for real. In a container run with `--device /dev/fuse \
             --cap-add SYS_ADMIN`; LARDER_TEST_NO_FUSE=1 leaves them out"
        );
        let dir = tempfile::Builder::new().prefix("larder-t").tempdir().expect("the temporary directory is writable");
        for sub in ["user", "config/larder"] {
            fs::create_dir_all(dir.path().join(sub)).expect("a fresh directory is writable");
        }
        fs::write(dir.path().join("config/larder/config.toml"), toml).expect("a fresh directory is writable");
        fs::write(dir.path().join("gitconfig"), "").expect("a fresh directory is writable");
        Some(Self { dir, extra: Vec::new() })
    }

    /// Adds a variable to the environment of every later `larder`.
    pub fn set_env(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.extra.push((name.into(), value.as_ref().to_owned()));
    }

    /// A path in the fixture's own directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The user's git configuration, as larder and its helpers see it.
    pub fn gitconfig(&self) -> PathBuf {
        self.path("gitconfig")
    }

    /// A `larder` command of this home.
    pub fn larder(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        plain_environment(&mut command);
        command.current_dir(self.dir.path());
        command.env("LARDER_HOME", self.home()).env("HOME", self.path("user"));
        command.env("XDG_CONFIG_HOME", self.path("config")).env("GIT_CONFIG_GLOBAL", self.gitconfig());
        command.envs(self.extra.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `larder` with these arguments.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        let mut command = self.larder();
        command.args(args);
        run(command, COMMAND_LIMIT)
    }

    /// Runs `larder`, which must succeed.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[S]) -> Outcome {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(0), "larder {args:?}\nstdout: {}\nstderr: {}", outcome.out(), outcome.err());
        outcome
    }

    /// Runs `larder`, which must fail with one of these codes and say why in one clear line.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr> + std::fmt::Debug>(&self, codes: &[i32], args: &[S]) -> Outcome {
        let outcome = self.run(args);
        let error = outcome.err();
        assert!(
            outcome.code.is_some_and(|code| codes.contains(&code)),
            "larder {args:?} ended with {:?}, wanted one of {codes:?}; stderr: {error}",
            outcome.code
        );
        assert_clear(&error, &format!("larder {args:?}"));
        outcome
    }

    /// Runs `larder … --json` and parses its one document.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        let outcome = self.ok(&all);
        serde_json::from_slice(&outcome.stdout)
            .unwrap_or_else(|error| panic!("larder {all:?}: not one JSON document ({error}): {}", outcome.out()))
    }

    /// The `status` document of one workspace.
    #[track_caller]
    pub fn status(&self, target: &Path) -> Value {
        first(self.json(&["status", text(target)]))
    }

    /// Mounts `repository` at the fixture's `name` and returns the mount point.
    #[track_caller]
    pub fn mount(&self, repository: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        self.ok(&["mount", repository, text(&path)]);
        assert!(self.is_mounted(&path), "`larder mount` succeeded and {} is no mount", path.display());
        path
    }

    /// A `git` of this fixture's user in `dir`. It knows no `LARDER_HOME`, like a shell opened later.
    pub fn git(&self, dir: &Path) -> Command {
        let mut command = git(dir);
        command.env("GIT_CONFIG_GLOBAL", self.gitconfig()).env("HOME", self.path("user"));
        command
    }

    /// Runs git in a mount; it must succeed.
    #[track_caller]
    pub fn git_out(&self, dir: &Path, args: &[&str]) -> String {
        let mut command = self.git(dir);
        command.args(args);
        let outcome = run(command, COMMAND_LIMIT);
        assert_eq!(outcome.code, Some(0), "git {args:?}: {}", outcome.err());
        outcome.out().trim_end_matches('\n').to_owned()
    }

    /// The sum of a metric over its labels; 0 when it was never counted.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.ok(&["metrics"]).out();
        assert!(text.contains(name), "`larder metrics` does not name {name}:\n{text}");
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .map(|value| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "counters are small and positive"
                )]
                let whole = value as u64;
                whole
            })
            .sum()
    }

    pub fn is_mounted(&self, path: &Path) -> bool {
        mounts_under(self.dir.path()).iter().any(|mounted| mounted == path)
    }

    /// Everything mounted under this fixture.
    pub fn mounts(&self) -> Vec<PathBuf> {
        mounts_under(self.dir.path())
    }

    /// Process ids of this home's daemon: those that run the program under test with this `LARDER_HOME`.
    pub fn daemons(&self) -> Vec<i32> {
        let program = fs::canonicalize(env!("CARGO_BIN_EXE_larder")).expect("cargo built the program");
        self.processes()
            .into_iter()
            .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
            .collect()
    }

    /// The one daemon of this home.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        let daemons = self.daemons();
        assert_eq!(daemons.len(), 1, "one daemon a home, found {daemons:?}");
        daemons[0]
    }

    /// Every process whose environment names this `LARDER_HOME`.
    pub fn processes(&self) -> Vec<i32> {
        let mut wanted = b"LARDER_HOME=".to_vec();
        wanted.extend_from_slice(self.home().as_os_str().as_bytes());
        let own = i32::try_from(std::process::id()).expect("process ids fit");
        processes()
            .filter(|pid| *pid != own)
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == wanted))
            })
            .collect()
    }

    /// Kills the daemon as a crash would, and waits until it is gone.
    #[track_caller]
    pub fn crash_daemon(&self) {
        let pid = self.daemon();
        kill(pid, Signal::KILL);
        eventually(Duration::from_secs(5), "a killed daemon is gone", || !self.daemons().contains(&pid));
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let mut command = self.larder();
        command.arg("shutdown").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !self.daemons().is_empty()
            && let Ok(mut child) = command.spawn()
            && wait_for(&mut child, Duration::from_secs(10)).is_none()
        {
            kill_hard(&mut child);
        }
        for pid in self.processes() {
            kill(pid, Signal::KILL);
        }
        // Innermost first: a mount inside a mount would keep the outer one busy.
        for path in self.mounts().iter().rev() {
            for (program, flags) in [("umount", "-l"), ("fusermount3", "-uz")] {
                let _ = Command::new(program).arg(flags).arg(path).stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
        }
    }
}

/// Sends a signal; a process already gone is what was wanted.
pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// All process ids.
pub fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").expect("/proc is mounted").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A path as an argument; every path a test makes is UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// The one document of an answer that may be a list.
#[track_caller]
pub fn first(value: Value) -> Value {
    match value {
        Value::Array(mut rows) if rows.len() == 1 => rows.remove(0),
        Value::Object(mut fields) if fields.get("workspaces").is_some_and(Value::is_array) => {
            first(fields.remove("workspaces").expect("just seen"))
        }
        Value::Object(_) => value,
        other => panic!("one document expected: {other}"),
    }
}

/// The rows of an answer that is a list, or a document that holds one.
#[track_caller]
pub fn rows(value: Value) -> Vec<Value> {
    match value {
        Value::Array(rows) => rows,
        Value::Object(mut fields) => ["workspaces", "rows"]
            .iter()
            .find_map(|key| fields.remove(*key).and_then(|rows| rows.as_array().cloned()))
            .expect("a document with rows"),
        other => panic!("a list expected: {other}"),
    }
}

/// Fails unless an error is what a person can use: a first line that says something, few lines, no panic, no Rust.
#[track_caller]
pub fn assert_clear(error: &str, what: &str) {
    let lines: Vec<&str> = error.lines().filter(|line| !line.trim().is_empty()).collect();
    assert!(!lines.is_empty(), "{what}: failed without a word");
    assert!(lines.len() <= 6, "{what}: an error of {} lines:\n{error}", lines.len());
    for bad in ["panicked", "RUST_BACKTRACE", "Os {", "Error {", "Err(", "Some(", "\u{1b}["] {
        assert!(!error.contains(bad), "{what}: {bad:?} in an error for people: {error}");
    }
}

/// Mount points at or under `dir`, outermost first.
pub fn mounts_under(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsString::from_vec(unescape(point))))
        .filter(|point| point.starts_with(dir))
        .collect()
}

/// Undoes mountinfo's `\040`.
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    plain
}

/// Reads a whole file on a thread of its own, so that a hanging mount fails a test instead of stopping it.
#[track_caller]
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    within(COMMAND_LIMIT, &format!("reading {}", path.display()), move || fs::read(path))
}

/// The names in a directory, sorted.
#[track_caller]
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let path = path.to_owned();
    within(COMMAND_LIMIT, &format!("listing {}", path.display()), move || {
        let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    })
}
