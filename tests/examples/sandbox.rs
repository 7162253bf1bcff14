//! A place where commands run as the documents show them.
//!
//! Owns a home, a shell that stands in it, and a server for each port that
//! is named. What documents call [`SHOWN`] is the temporary directory here,
//! and their ports are free ones; both are put in and taken out on the way.
//! Dropping it ends everything, also while a test panics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use super::document::Condition;
use super::shell::{Outcome, Shell};
use crate::common::servers::GitDaemon;
use crate::common::{COMMAND_LIMIT, Fixture, run, text};

/// Where documents say that they are; the home directory and, at first, the working directory.
pub const SHOWN: &str = "/tmp/docs";
/// Ports of loopback that stand for a server; the lower ones stand for none.
static PORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"127\.0\.0\.1:(\d{4,5})\b").expect("written here"));

/// What a person kills is gone, with all its threads, before the next command is typed.
const KILL: &str = r#"kill() {
  builtin kill "$@" || return
  local process=/proc/${!#} turn
  for turn in {1..500}; do
    [ -e $process ] || break
    grep -q '^State:.Z' $process/status 2>&1 && [ "$(ls $process/task 2>&1 | wc -l)" = 1 ] && break
    sleep 0.01
  done
}"#;

pub struct Sandbox {
    // In the order in which they are dropped.
    shell: Shell,
    /// By the port that the document names.
    servers: BTreeMap<u16, Server>,
    fixture: Fixture,
    /// The temporary directory, as paths begin.
    root: String,
}

struct Server {
    port: u16,
    running: Option<GitDaemon>,
}

impl Sandbox {
    /// One with a copy of the repositories in `remotes`, for all that `commands` name.
    pub fn new<'a>(remotes: &Path, commands: impl Iterator<Item = &'a str>) -> Option<Self> {
        let fixture = Fixture::new()?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(remotes).arg(fixture.path("srv"));
        run(copy, COMMAND_LIMIT).success();
        let mut servers = BTreeMap::new();
        for command in commands {
            for found in PORT.captures_iter(command) {
                if let Ok(port) = found[1].parse() {
                    servers.entry(port).or_insert_with(|| {
                        let running = GitDaemon::serve(&fixture.path("srv"));
                        Server { port: running.port(), running: Some(running) }
                    });
                }
            }
        }
        let root = text(&fixture.path("")).trim_end_matches('/').to_owned();
        let mut like = fixture.larder();
        let program = Path::new(env!("CARGO_BIN_EXE_larder")).parent().expect("a file in a directory");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(PathBuf::from(program)).chain(std::env::split_paths(&path)));
        like.env("PATH", path.expect("it was one before")).env("HOME", &root);
        let mut shell = Shell::new(&like);
        shell.run(KILL).expect("bash knows functions");
        Some(Self { shell, servers, fixture, root })
    }

    /// Runs a command of a document; what it printed is as the document has it.
    pub fn run(&mut self, command: &str) -> Result<Outcome, String> {
        let command = self.inwards(command);
        let outcome = self.shell.run(&command)?;
        let printed = outcome.printed.iter().map(|line| self.outwards(line)).collect();
        Ok(Outcome { printed, ..outcome })
    }

    /// Does something to the server at this port of the document.
    pub fn server(&mut self, port: u16, condition: Condition) -> Result<(), String> {
        let base = self.fixture.path("srv");
        let server = self.servers.get_mut(&port).ok_or_else(|| format!("no command names port {port}"))?;
        match (condition, &server.running) {
            (Condition::Down, _) => server.running = None,
            (Condition::Silent, Some(daemon)) => daemon.stop(),
            (Condition::Up, Some(daemon)) => daemon.go_on(),
            (Condition::Up, None) => {
                let daemon = GitDaemon::serve_at(&base, server.port);
                server.running = Some(daemon.ok_or_else(|| format!("port {} is taken", server.port))?);
            }
            (Condition::Silent, None) => return Err(format!("the server at {port} is down and can't be silent")),
        }
        Ok(())
    }

    fn inwards(&self, command: &str) -> String {
        let mut command = command.replace(SHOWN, &self.root);
        for (shown, server) in &self.servers {
            command = command.replace(&format!("127.0.0.1:{shown}/"), &format!("127.0.0.1:{}/", server.port));
        }
        command
    }

    fn outwards(&self, line: &str) -> String {
        let mut line = line.replace(&self.root, SHOWN);
        for (shown, server) in &self.servers {
            line = line.replace(&format!("127.0.0.1:{}/", server.port), &format!("127.0.0.1:{shown}/"));
        }
        line
    }
}
