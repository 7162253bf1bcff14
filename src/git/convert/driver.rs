//! Filter drivers: programs of the user that convert files.
//!
//! Owns their processes. A `process` driver runs once and is given file after
//! file (`gitprotocol-common(5)`, "long running process"); a `smudge` command
//! runs once a file. Both run outside of the mount, with `GIT_DIR` set to the
//! workspace's entry in the gitdir. Their output is gathered in memory up to
//! [`MEMORY_BYTES`] and goes to a file beyond it, so its size is bounded by the
//! disk alone. What a driver writes to standard error goes to the log.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gix::bstr::BString;
use gix::filter::plumbing::driver::process::{Client, Status};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::settings::DriverSettings;
use super::watch::{FAREWELL, Watch};
use crate::git::environment::Environment;
use crate::index::convert::{ConvertError, ConvertErrorKind, Output, Source};

/// Output held in memory; more is spooled.
pub(super) const MEMORY_BYTES: usize = 8 << 20;

/// Bytes read from a driver at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Lines of one process's standard error that are logged: enough to say why it failed.
const LOGGED_LINES: usize = 64;

/// Longest part of such a line.
const LOGGED_BYTES: u64 = 1024;

/// What all drivers of a workspace share.
pub(super) struct Host {
    pub(super) environment: Environment,
    /// The workspace's entry in the gitdir.
    pub(super) gitdir: PathBuf,
    /// Where drivers run and output is spooled: outside of every mount.
    pub(super) directory: PathBuf,
    /// Longest silence of a driver.
    pub(super) timeout: Duration,
    /// Told to process drivers, as a checkout does.
    pub(super) reference: Option<String>,
    pub(super) commit: String,
    pub(super) closed: AtomicBool,
}

impl Host {
    /// `command` as Git runs it: by the shell.
    fn command(&self, command: &str) -> Command {
        let mut shell = self.environment.command("sh");
        shell.arg("-c").arg(command).env("GIT_DIR", &self.gitdir).current_dir(&self.directory);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    }
}

struct Running {
    client: Option<Client>,
    watch: Arc<Watch>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // This closes its pipes: a process that keeps to the protocol ends.
            self.watch.end(client.into_child(), FAREWELL);
        }
    }
}

/// The process of a `process` driver, while there is one.
type Slot = Arc<Mutex<Option<Running>>>;

/// One configured driver.
pub(super) struct Driver {
    name: String,
    settings: DriverSettings,
    host: Arc<Host>,
    /// One file at a time: a process driver has one process, and smudge commands would only compete.
    pub(super) lane: Arc<Semaphore>,
    // Held while a file is converted; the lane comes first.
    slot: Slot,
    // What `close` kills; guards itself, held for a moment.
    watch: Mutex<Option<Arc<Watch>>>,
    /// It said `abort`: it converts nothing any more.
    aborted: AtomicBool,
}

/// Why a driver did not convert a file.
enum Failed {
    TimedOut,
    Full(io::Error),
    Other(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull { Self::Full(error) } else { Self::Other(error.to_string()) }
    }
}

impl Driver {
    pub(super) fn new(name: &str, settings: DriverSettings, host: Arc<Host>) -> Self {
        Self {
            name: name.to_owned(),
            settings,
            host,
            lane: Arc::new(Semaphore::new(1)),
            slot: Slot::default(),
            watch: Mutex::default(),
            aborted: AtomicBool::new(false),
        }
    }

    /// What tells its results from those of any other driver.
    pub(super) fn key(&self) -> String {
        let DriverSettings { smudge, process, required } = &self.settings;
        let command = if process.is_empty() { format!("smudge\0{smudge}") } else { format!("process\0{process}") };
        format!("{}\0{required}\0{command}", self.name)
    }

    /// Converts `input`, made of `source`. One that is not required and fails gives [`Output::Same`], as in Git.
    pub(super) fn smudge(&self, source: &Source<'_>, input: &[u8]) -> Result<Output, ConvertError> {
        let outcome = if self.host.closed.load(Ordering::SeqCst) {
            Err(Failed::Other("the workspace is being unmounted".into()))
        } else if !self.settings.process.is_empty() {
            self.by_process(source, input)
        } else if !self.settings.smudge.is_empty() {
            self.by_command(source, input)
        } else {
            Err(Failed::Other("it has no smudge command".into()))
        };
        let (kind, reason) = match outcome {
            Ok(output) => return Ok(output),
            Err(Failed::TimedOut) => {
                let text = format!("silent for {}, killed", humantime::format_duration(self.host.timeout));
                (ConvertErrorKind::TimedOut, text)
            }
            Err(Failed::Full(error)) => (ConvertErrorKind::Full, error.to_string()),
            Err(Failed::Other(reason)) => (ConvertErrorKind::Driver, reason),
        };
        let path = String::from_utf8_lossy(source.path);
        let message = format!("{path}: smudge filter {} failed: {reason}", self.name);
        // What ends with the workspace, or for want of room, is no answer of the driver's.
        if self.host.closed.load(Ordering::SeqCst) {
            return Err(ConvertError::new(ConvertErrorKind::Closed, message));
        }
        if self.settings.required || kind == ConvertErrorKind::Full {
            return Err(ConvertError::new(kind, message));
        }
        tracing::warn!("{message}; it is not required, so the file is shown unfiltered");
        Ok(Output::Same)
    }

    /// Ends its process, and whatever it is doing.
    pub(super) fn close(&self) {
        if let Some(watch) = self.watch.lock().take() {
            watch.kill();
        }
    }

    fn spawn(&self, command: &str, retire: impl Fn() -> bool + Send + 'static) -> Result<(Child, Arc<Watch>), Failed> {
        let mut child = self.host.command(command).spawn()?;
        if let Some(stderr) = child.stderr.take() {
            log_lines(stderr, self.name.clone());
        }
        let watch = match Watch::start(&child, self.host.timeout, retire) {
            Ok(watch) => watch,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        *self.watch.lock() = Some(Arc::clone(&watch));
        if self.host.closed.load(Ordering::SeqCst) {
            watch.kill();
        }
        Ok((child, watch))
    }

    fn by_command(&self, source: &Source<'_>, input: &[u8]) -> Result<Output, Failed> {
        let command = with_path(&self.settings.smudge, source.path);
        let (mut child, watch) = self.spawn(&command, || true)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let gathered = std::thread::scope(|scope| {
            let watch = &watch;
            scope.spawn(move || {
                let Some(mut stdin) = stdin else { return };
                for piece in input.chunks(PIECE_BYTES) {
                    // A filter need not read what it does not want.
                    if stdin.write_all(piece).is_err() {
                        break;
                    }
                    watch.moved();
                }
            });
            let mut stdout = stdout.ok_or_else(|| Failed::Other("no output".into()))?;
            let gathered = gather(&mut stdout, watch, &self.host);
            if gathered.is_err() {
                // The writer may be waiting for it.
                watch.kill();
            }
            gathered
        });
        let ended_well = watch.end(child, self.host.timeout);
        if watch.timed_out() {
            return Err(Failed::TimedOut);
        }
        if ended_well { gathered } else { Err(Failed::Other("it ended with a failure".into())) }
    }

    fn by_process(&self, source: &Source<'_>, input: &[u8]) -> Result<Output, Failed> {
        if self.aborted.load(Ordering::Relaxed) {
            return Err(Failed::Other("it asked not to be used any more".into()));
        }
        let mut slot = self.slot.lock();
        let running = match &mut *slot {
            Some(running) => running,
            empty => empty.insert(self.start()?),
        };
        let watch = Arc::clone(&running.watch);
        watch.moved();
        let outcome = match &mut running.client {
            Some(client) => self.ask(client, &watch, source, input),
            None => Err(Asked::Broken(Failed::Other("no process".into()))),
        };
        match outcome {
            Ok(output) => {
                watch.rest();
                Ok(output)
            }
            Err(Asked::Refused(reason)) => {
                watch.rest();
                Err(Failed::Other(reason))
            }
            Err(Asked::Broken(failed)) => {
                // The next file starts it anew.
                watch.kill();
                *slot = None;
                Err(if watch.timed_out() { Failed::TimedOut } else { failed })
            }
        }
    }

    fn start(&self) -> Result<Running, Failed> {
        let slot = Arc::downgrade(&self.slot);
        let retire = move || {
            let Some(slot) = slot.upgrade() else { return true };
            let Some(mut held) = slot.try_lock() else { return false };
            // Whoever held it before may have used it.
            if held.as_ref().is_none_or(|running| !running.watch.is_idle()) {
                return held.is_none();
            }
            let running = held.take();
            drop(held);
            drop(running);
            true
        };
        let (child, watch) = self.spawn(&self.settings.process, retire)?;
        match Client::handshake(child, "git-filter", &[2], &["clean", "smudge"]) {
            Ok(client) => Ok(Running { client: Some(client), watch }),
            Err(error) => {
                let timed_out = watch.timed_out();
                watch.reap();
                Err(if timed_out { Failed::TimedOut } else { Failed::Other(format!("handshake: {error}")) })
            }
        }
    }

    fn ask(&self, client: &mut Client, watch: &Watch, source: &Source<'_>, input: &[u8]) -> Result<Output, Asked> {
        if !client.capabilities().contains("smudge") {
            return Err(Asked::Refused("it can't smudge".into()));
        }
        let blob = source.id.to_string();
        let reference = self.host.reference.as_deref().map(|reference| ("ref", BString::from(reference)));
        let mut meta = [("pathname", BString::from(source.path))]
            .into_iter()
            .chain(reference)
            .chain([("treeish", BString::from(self.host.commit.as_str())), ("blob", BString::from(blob))]);
        let mut input = Moving { inner: input, watch };
        let broken = |error: &dyn std::fmt::Display| Asked::Broken(Failed::Other(error.to_string()));
        let status = client.invoke("smudge", &mut meta, &mut input).map_err(|error| broken(&error))?;
        if status.is_success() {
            return gather(&mut client.as_read(), watch, &self.host).map_err(Asked::Broken);
        }
        match &status {
            Status::Named(name) if name == "error" => Err(Asked::Refused("status error".into())),
            Status::Named(name) if name == "abort" => {
                self.aborted.store(true, Ordering::Relaxed);
                Err(Asked::Refused("status abort".into()))
            }
            other => Err(broken(&format!("unexpected status {:?}", other.message().unwrap_or("(none)")))),
        }
    }
}

/// Why a running process did not convert a file.
enum Asked {
    /// It can go on with others.
    Refused(String),
    /// It can't.
    Broken(Failed),
}

/// Input on its way to a driver: each piece that was taken is a sign of life.
struct Moving<'a> {
    inner: &'a [u8],
    watch: &'a Watch,
}

impl Read for Moving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.moved();
        self.inner.read(buffer)
    }
}

/// Reads all output; what memory should not hold goes to a file without a name.
fn gather(output: &mut dyn Read, watch: &Watch, host: &Host) -> Result<Output, Failed> {
    let mut bytes = Vec::new();
    let mut spool: Option<(File, u64)> = None;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = match output.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        watch.moved();
        if let Some((file, size)) = &mut spool {
            file.write_all(&piece[..count])?;
            *size += count as u64;
            continue;
        }
        bytes.extend_from_slice(&piece[..count]);
        if bytes.len() > MEMORY_BYTES {
            let mut file = tempfile::tempfile_in(&host.directory)?;
            file.write_all(&bytes)?;
            spool = Some((file, bytes.len() as u64));
            bytes = Vec::new();
        }
    }
    match spool {
        Some((mut file, size)) => {
            file.rewind()?;
            Ok(Output::Spooled(file, size))
        }
        None => Ok(Output::Bytes(bytes)),
    }
}

/// `command` with `%f` replaced by the quoted path and `%%` by a percent sign.
fn with_path(command: &str, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let quoted = format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"));
    let mut out = String::with_capacity(command.len());
    let mut rest = command;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        rest = match after.as_bytes().first() {
            Some(b'f') => {
                out.push_str(&quoted);
                &after[1..]
            }
            Some(b'%') => {
                out.push('%');
                &after[1..]
            }
            _ => {
                out.push('%');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

/// Logs what a driver complains about, on a thread that ends with the pipe.
fn log_lines(stderr: ChildStderr, driver: String) {
    let log = move || {
        let mut lines = BufReader::new(stderr);
        for logged in 0.. {
            let mut line = Vec::new();
            match (&mut lines).take(LOGGED_BYTES).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if logged < LOGGED_LINES => {
                    tracing::warn!(filter = driver, "{}", String::from_utf8_lossy(&line).trim_end());
                }
                // Read on, so that it is not stopped by a full pipe.
                Ok(_) => {}
            }
        }
    };
    // Without the thread the pipe closes, and its messages are lost: no reason to fail the file.
    let _ = std::thread::Builder::new().name("filter-log".into()).spawn(log);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        assert_eq!(with_path("x %f y %% %d %", b"a b"), "x 'a b' y % %d %");
        assert_eq!(with_path("x %f", b"it's; rm -rf $HOME"), "x 'it'\\''s; rm -rf $HOME'");
    }
}
