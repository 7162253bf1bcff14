//! What is known of the cache: told by its daemon, or read from the store where none runs.
//!
//! Never starts a daemon. Invariant: a daemon that does not answer costs no more than [`PING`] and [`ASK`].

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::finding::{Finding, Mend};
use super::section::Section;
use crate::cli::resting;
use crate::config::Config;
use crate::config::quantity::human_bytes;
use crate::daemon::client::{Client, connect, unexpected};
use crate::daemon::facts::health::{HealthReport, HealthRequest};
use crate::daemon::facts::{self, Question, Sources};
use crate::daemon::protocol::{Answer, Failure, Request};
use crate::store::{StoreError, StoreErrorKind};

/// A ping needs no work at all.
const PING: Duration = Duration::from_secs(2);
/// Rows and counts; a store that another process is about to let go of is waited for.
const ASK: Duration = Duration::from_secs(3);

/// What was found out.
pub(super) struct Cache {
    /// The daemon's process, when one runs.
    pub(super) pid: Option<u32>,
    /// The rows, when they could be read.
    pub(super) health: Option<HealthReport>,
    /// There is none yet.
    pub(super) absent: bool,
    pub(super) daemon: Finding,
    pub(super) store: Finding,
}

/// How the daemon answers.
enum Pulse {
    None,
    Runs(String, u32),
    Silent(Option<u32>),
    Failed(Failure),
}

pub(super) fn look(config: &Config) -> Cache {
    match pulse(config) {
        Pulse::Runs(version, pid) => {
            let asked = Section::begin({
                let client = Client::at(config.socket.clone());
                move || ask(&client)
            });
            let health = asked.by(Instant::now() + ASK);
            let path = config.store_path.display();
            let store = match &health {
                Some(Ok(health)) => {
                    Finding::ok("store", format!("{path}, schema {}, is open in the running daemon", health.schema))
                }
                Some(Err(failure)) => Finding::warning(
                    "store",
                    format!("the daemon tells nothing of {path}: {}", failure.message),
                    failure.hint.clone().unwrap_or_else(|| "look into its log".to_owned()),
                ),
                None => Finding::warning(
                    "store",
                    format!("the daemon did not tell of {path} within {} s", ASK.as_secs()),
                    "it may be busy: look again, or into its log",
                ),
            };
            Cache {
                pid: Some(pid),
                health: health.and_then(Result::ok),
                absent: false,
                daemon: running(&version, pid),
                store,
            }
        }
        Pulse::None => {
            let (health, absent, store) = at_rest(config);
            let daemon = Finding::ok("daemon", "none runs; `larder mount` starts it");
            Cache { pid: None, absent, health, daemon, store }
        }
        Pulse::Silent(pid) => {
            let store = Finding::ok("store", "it is not looked at: the daemon that has it open does not answer");
            Cache { pid, health: None, absent: false, daemon: silent(pid), store }
        }
        Pulse::Failed(failure) => {
            let store = Finding::ok("store", "it is not looked at: nobody knows whether a daemon has it open");
            Cache { pid: None, health: None, absent: false, daemon: Finding::failed("daemon", failure), store }
        }
    }
}

fn pulse(config: &Config) -> Pulse {
    let socket = config.socket.clone();
    let pinged = Section::begin(move || Client::at(socket).ping());
    match pinged.by(Instant::now() + PING) {
        Some(Ok(Some((version, pid)))) => Pulse::Runs(version, pid),
        Some(Ok(None)) => Pulse::None,
        Some(Err(failure)) => Pulse::Failed(failure),
        None => {
            let socket = config.socket.clone();
            let whose = Section::begin(move || {
                let stream = connect(&socket).ok()?;
                let peer = rustix::net::sockopt::socket_peercred(stream.as_fd()).ok()?;
                u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
            });
            Pulse::Silent(whose.by(Instant::now() + Duration::from_millis(200)).flatten())
        }
    }
}

fn ask(client: &Client) -> Result<HealthReport, Failure> {
    match client.ask(Request::Facts(Question::Health(HealthRequest {})))? {
        Answer::Facts(facts::Finding::Health(report)) => Ok(*report),
        other => Err(unexpected(&other)),
    }
}

fn running(version: &str, pid: u32) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    if version == own {
        return Finding::ok("daemon", format!("larder {version} runs as process {pid}"));
    }
    let detail = format!("process {pid} is larder {version}, this is {own}");
    if is_older(version, own) {
        let fix = "`larder shutdown`; the next command starts the new one";
        return Finding::warning("daemon", detail, fix).run("larder shutdown").mended_by(Mend::Restart(pid));
    }
    Finding::warning("daemon", detail, "use the larder that started it: an older one may not open its store")
}

fn silent(pid: Option<u32>) -> Finding {
    let wait = PING.as_secs();
    match pid {
        Some(pid) => Finding::error(
            "daemon",
            format!("process {pid} listens and does not answer within {wait} s"),
            "end it; the next command starts another, which mounts again what was mounted",
        )
        .run(format!("kill {pid}")),
        None => Finding::error(
            "daemon",
            format!("somebody listens and does not answer within {wait} s"),
            "find out who with `ss -xlp`, and end that process",
        ),
    }
}

/// Whether version `a` came before `b`, as far as their numbers tell.
fn is_older(a: &str, b: &str) -> bool {
    let numbers =
        |text: &str| text.split(['.', '-', '+']).map_while(|word| word.parse::<u64>().ok()).collect::<Vec<_>>();
    numbers(a) < numbers(b)
}

/// What the store tells, whether there is none, and how it is.
fn at_rest(config: &Config) -> (Option<HealthReport>, bool, Finding) {
    let path = config.store_path.display();
    let opened = Section::begin({
        let config = config.clone();
        move || -> Result<Option<HealthReport>, Failure> {
            if matches!(config.store_path.try_exists(), Ok(false)) {
                return Ok(None);
            }
            let store = resting::open(&config).map_err(|error| cannot_open(&error))?;
            let sources = Sources { store: &store, config: &config, daemon: None };
            match facts::answer(&sources, &Question::Health(HealthRequest {}))? {
                facts::Finding::Health(report) => Ok(Some(*report)),
                _ => Err(crate::cli::facts::mixed_up()),
            }
        }
    });
    match opened.by(Instant::now() + ASK) {
        Some(Ok(None)) => (None, true, Finding::ok("store", format!("{path} is made at the first mount"))),
        Some(Ok(Some(health))) => {
            let size = human_bytes(health.file_bytes);
            let detail = format!(
                "{path} opens: {} blobs and {} trees in {size}, schema {}",
                health.blobs, health.trees, health.schema
            );
            (Some(health), false, Finding::ok("store", detail))
        }
        Some(Err(failure)) => (None, false, not_opened(failure)),
        None => {
            let fix = "look whether its disk works (`dmesg`)";
            (None, false, Finding::error("store", format!("{path} did not open within {} s", ASK.as_secs()), fix))
        }
    }
}

/// Marks what only the kind tells.
fn cannot_open(error: &StoreError) -> Failure {
    let failure = Failure::from(error.clone());
    match error.kind {
        StoreErrorKind::Busy => failure.hint(BUSY),
        StoreErrorKind::Older => failure.hint(OLDER),
        _ => failure,
    }
}

const BUSY: &str = "another process holds it; a daemon may be starting: look again";
const OLDER: &str = "the next daemon brings it up to date";

fn not_opened(failure: Failure) -> Finding {
    match failure.hint.as_deref() {
        Some(BUSY) => Finding::warning("store", failure.message, BUSY),
        Some(OLDER) => Finding::warning("store", failure.message, OLDER).run("larder daemon"),
        _ => Finding::failed("store", failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_replaced_by_a_newer_one_alone() {
        assert!(is_older("0.0.9", "0.1.0") && is_older("0.9.0", "0.10.0") && is_older("0.1", "0.1.0"));
        assert!(!is_older("0.1.0", "0.1.0") && !is_older("1.0.0", "0.9.9"));
        assert!(running("999.0.0", 1).mend.is_none() && running("0.0.1", 1).fixable);
    }
}
