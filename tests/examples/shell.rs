//! A shell that runs one command after the other, as a reader of the documents would.
//!
//! Owns the process: it is ended, with all that it started and that did not
//! leave its group, when the handle is dropped. No command is waited for
//! longer than a bound.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::wait_for;

/// Longest a command may take.
pub const LIMIT: Duration = Duration::from_mins(1);
/// Stands before the exit status of a command; no command prints it.
const MARK: &str = "\u{1}ended\u{1}";

/// A running `bash`.
pub struct Shell {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// What a command left behind, standard output and error together.
pub struct Outcome {
    pub status: i32,
    pub printed: Vec<String>,
}

impl Shell {
    /// Starts a shell with the environment and working directory of `model`.
    pub fn new(model: &Command) -> Self {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).process_group(0);
        if let Some(directory) = model.get_current_dir() {
            command.current_dir(directory);
        }
        for (name, value) in model.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("bash is there");
        let input = process.stdin.take().expect("piped");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line);
                if send.send(text.trim_end_matches('\n').to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Self { process, input, lines }
    }

    /// Runs a command; an error is why it did not come to its end.
    pub fn run(&mut self, command: &str) -> Result<Outcome, String> {
        let quoted = command.replace('\'', r"'\''");
        // `eval`, so that `cd` and variables stay; the mark gets a line of its own whatever was printed last.
        let script = format!("eval '{quoted}' </dev/null 2>&1\nprintf '\\n%s%s\\n' '{MARK}' $?\n");
        self.input.write_all(script.as_bytes()).map_err(|error| format!("the shell is gone: {error}"))?;
        let until = Instant::now() + LIMIT;
        let mut printed = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                return Err(format!("it did not end within {LIMIT:?}, or the shell ended; it printed {printed:#?}"));
            };
            if let Some(status) = line.strip_prefix(MARK) {
                let status = status.parse().map_err(|_| format!("no exit status: {status:?}"))?;
                // The empty line is the mark's.
                if printed.last().is_some_and(String::is_empty) {
                    printed.pop();
                }
                return Ok(Outcome { status, printed });
            }
            printed.push(line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = wait_for(&mut self.process, Duration::from_secs(5));
    }
}
