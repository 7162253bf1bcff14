//! Starting the daemon, once however many clients want it at the same time.
//!
//! Invariant: a client that returns from here has heard the daemon answer, or
//! says why it cannot: the daemon's own words if it left any, else the end of
//! its log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Client;
use crate::config::Config;
use crate::daemon::protocol::{Failure, FailureClass, MAX_LINE_BYTES};
use crate::git::environment::REPOSITORY_VARIABLES;

/// A daemon starts in milliseconds; restoring many mounts does not come before its first answer.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often a starting daemon is asked whether it is there.
const START_POLL: Duration = Duration::from_millis(5);
/// How much of a dead daemon's log is shown.
const LOG_TAIL_BYTES: u64 = 4096;
/// How many lines of it.
const LOG_TAIL_LINES: usize = 5;
/// The file in which a daemon that cannot start leaves its [`Failure`] for the client that started it.
const START_FAILURE: &str = "start-failure.json";

/// The arguments by which a process knows that a client has started it to be the daemon.
pub const DETACHED: [&str; 2] = ["daemon", "--detached"];

impl Client {
    /// The running daemon; starts one when there is none and waits until it answers.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        Self::start_or_find(config).map(|(client, _)| client)
    }

    /// [`Self::start`], and whether this call has started it.
    pub fn start_or_find(config: &Config) -> Result<(Self, bool), Failure> {
        if let Some(client) = Self::running(config)? {
            return Ok((client, false));
        }
        config.create_directories()?;
        let _one_starter = start_lock(config)?;
        let client = Self::at(config.socket.clone());
        if client.ping()?.is_some() {
            return Ok((client, false));
        }
        let failure = config.run_dir.join(START_FAILURE);
        remove_if_there(&failure)?;
        let log_start = fs::metadata(&config.log_path).map_or(0, |meta| meta.len());
        let mut child = spawn(config)?;
        let began = Instant::now();
        loop {
            if client.ping()?.is_some() {
                return Ok((client, true));
            }
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                return Err(left_behind(&failure).unwrap_or_else(|| died(config, log_start)));
            }
            if began.elapsed() > START_LIMIT {
                return Err(not_started(config, &format!("it did not answer within {} s", START_LIMIT.as_secs())));
            }
            thread::sleep(START_POLL);
        }
    }
}

/// Leaves why this daemon could not start where [`Client::start`] looks for it.
pub fn leave_start_failure(config: &Config, failure: &Failure) -> io::Result<()> {
    let text = serde_json::to_vec(failure)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(config.run_dir.join(START_FAILURE))?;
    file.write_all(&text)
}

fn start_lock(config: &Config) -> Result<File, Failure> {
    let wrong = |error: io::Error| {
        Failure::new(FailureClass::Other, format!("cannot lock {}: {error}", config.start_lock.display()))
            .hint("check the directory's permissions")
    };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&config.start_lock);
    let file = file.map_err(wrong)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // Whoever holds it waits no longer than this for the daemon it starts.
            Err(TryLockError::WouldBlock) if began.elapsed() < 2 * START_LIMIT => thread::sleep(START_POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(not_started(config, "another client has been starting it for too long"));
            }
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
    }
}

fn spawn(config: &Config) -> Result<Child, Failure> {
    let wrong = |error: io::Error| not_started(config, &error.to_string());
    let program = std::env::current_exe().map_err(wrong)?;
    let mut command = Command::new(program);
    command.args(DETACHED).current_dir("/");
    // Whatever this client was told; the file it reads itself.
    command.env("LARDER_LOG_FORMAT", config.settings.log.format.as_str());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A client may run inside a Git hook or alias; what Git says there is about that repository alone.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_one_repository) {
            command.env_remove(name);
        }
    }
    #[expect(unsafe_code, reason = "only the child may leave the client's session and close what it inherited")]
    // SAFETY: between fork and exec only system calls run: no allocation, no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            let (first, last) = (3_u32, u32::MAX);
            // Marked, not closed: the standard library reports a failed exec through a descriptor of its own.
            match libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    command.spawn().map_err(wrong)
}

/// Whether a variable of Git's binds a command to one repository or index.
pub fn is_about_one_repository(name: &str) -> bool {
    REPOSITORY_VARIABLES.contains(&name)
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(FailureClass::Other, format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn left_behind(path: &Path) -> Option<Failure> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_LINE_BYTES).expect("a mebibyte fits");
    File::open(path).ok()?.take(limit).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn died(config: &Config, log_start: u64) -> Failure {
    match log_tail(&config.log_path, log_start) {
        Some(tail) => not_started(config, &format!("it ended at once; its log says: {tail}")),
        None => not_started(config, "it ended at once and logged nothing"),
    }
}

fn not_started(config: &Config, why: &str) -> Failure {
    Failure::new(FailureClass::Other, format!("cannot start the daemon: {why}"))
        .hint(format!("`larder daemon --foreground` shows what it does; its log is {}", config.log_path.display()))
}

/// The last lines written after `start`, joined into one.
pub(super) fn log_tail(path: &Path, start: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let end = file.metadata().ok()?.len();
    // Rotated meanwhile: everything in it is new.
    let start = if end < start { 0 } else { start };
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES)))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" | ");
    (!tail.is_empty()).then_some(tail)
}
