//! The environment child processes of this layer run in, and Git's
//! configuration as that environment sees it.
//!
//! Owns the rule that a child gets the client's environment (not the daemon's)
//! without the variables that would point Git at another repository. Children
//! never prompt, never outlive their time-out and share no descriptor.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// Output of a helper that is read at most: far above any configuration or credential.
const OUTPUT_BYTES: u64 = 4 << 20;

/// Variables by which a hook or alias binds Git to one repository; `git rev-parse --local-env-vars`
/// without the ones that carry `git -c` settings, which are the user's wish.
pub const REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Where children run and configuration is read.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// The client's variables; empty means those of this process.
    variables: Vec<(String, String)>,
    gitdir: Option<PathBuf>,
    timeout: Duration,
}

impl Environment {
    pub(crate) fn new(variables: Vec<(String, String)>, gitdir: Option<PathBuf>, timeout: Duration) -> Self {
        Self { variables, gitdir, timeout }
    }

    /// A variable of the client; empty ones count as unset.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let value = if self.variables.is_empty() {
            std::env::var(name).ok()
        } else {
            self.variables.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        value.filter(|value| !value.is_empty())
    }

    /// A command that runs as the client would run it, in a process group of its own.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if !self.variables.is_empty() {
            command.env_clear().envs(self.variables.iter().map(|(key, value)| (key, value)));
        }
        for name in REPOSITORY_VARIABLES {
            command.env_remove(name);
        }
        command.env("GIT_TERMINAL_PROMPT", "0").current_dir("/").process_group(0);
        command
    }

    /// A setting as `git config` gives it; `None` when unset or Git fails.
    pub(crate) fn config(&self, key: &str) -> Option<String> {
        let value = self.git_config(&["--get", key])?;
        let value = value.strip_suffix('\0').unwrap_or(&value);
        Some(value.to_owned())
    }

    /// Runs `git config -z` with `arguments`; `None` when there is no such setting.
    pub(crate) fn git_config(&self, arguments: &[&str]) -> Option<String> {
        let mut command = self.command("git");
        if let Some(gitdir) = &self.gitdir {
            command.arg("--git-dir").arg(gitdir);
        }
        command.args(["config", "-z"]).args(arguments);
        let output = self.run(command, b"").ok()??;
        Some(String::from_utf8_lossy(&output).into_owned())
    }

    /// `git` with the client's configuration, to which arguments are added.
    pub(crate) fn git(&self) -> Command {
        let mut command = self.command("git");
        if let Some(gitdir) = &self.gitdir {
            command.arg("--git-dir").arg(gitdir);
        }
        command
    }

    /// Runs `command` with `input`; its output, or `None` when it exits with a failure.
    pub(crate) fn run(&self, mut command: Command, input: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(self.timeout))?;
        ours.set_write_timeout(Some(self.timeout))?;
        let theirs_too = theirs.try_clone()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(OwnedFd::from(theirs_too)));
        let mut child = OwnedChild(command.stderr(Stdio::null()).spawn()?);
        // The command holds the child's ends of the socket; while it lives, the child's end is never seen.
        drop(command);
        match ours.write_all(input) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        ours.shutdown(Shutdown::Write).ok();
        let mut output = Vec::new();
        ours.take(OUTPUT_BYTES).read_to_end(&mut output)?;
        Ok(child.0.wait()?.success().then_some(output))
    }
}

/// A child that is killed with its process group, and waited for, when dropped.
#[derive(Debug)]
pub(crate) struct OwnedChild(pub(crate) Child);

impl Drop for OwnedChild {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // The group exists as long as its leader was not waited for.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
