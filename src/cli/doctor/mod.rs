//! `larder doctor`: what on this machine keeps Larder from working, and what to do about it.
//!
//! Looks, changes nothing and starts nothing; `--fix` then mends what is safe to mend (`mend`) and looks again.
//! Invariant: a look ends within [`LIMIT`] whatever hangs, since whatever could is asked on a thread of its own.

mod cache;
mod confinement;
mod finding;
mod leftovers;
mod limits;
mod machine;
mod mend;
mod mounts;
mod remotes;
mod section;
mod settings;
mod state;
mod surroundings;
mod text;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::output::Output;
use super::{status, target};
use crate::config::{Config, ConfigError};
use crate::daemon::facts::health::{HealthReport, HealthRepository, HealthWorkspace};
use crate::daemon::protocol::Failure;
use crate::daemon::reach;
use crate::store::WorkspaceState;
use cache::Cache;
use finding::{Finding, Severity};
use section::Section;

/// Longest look; the last second is for what is printed and for the process to end.
const LIMIT: Duration = Duration::from_secs(9);
/// A settings file is read at once, unless its file system hangs.
const READ_SETTINGS: Duration = Duration::from_secs(1);

/// Check environment, kernel, permissions, mounts, remotes and cache
///
/// Each finding is `ok`, a `warning` or an `error`, with what mends it below. Exits with 1 if an error is left, which is
/// something that keeps Larder from working; a remote that is only out of reach is a warning. Looks, changes nothing and
/// starts no daemon. Remotes are asked as your shell would ask them, for five seconds at most, and without questions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder doctor                     the machine, every workspace and every remote
  larder doctor work                one workspace and its remote, besides the machine
  larder doctor --fix               also mend what is safe to mend, and look again
  larder doctor --json              one document for scripts")]
pub(super) struct Arguments {
    /// Check this workspace and its remote only, besides the machine [default: all]
    target: Option<String>,

    /// Mend what is safe to mend: take down mounts whose daemon is gone, remove sockets nobody listens on, close Larder's
    /// directories to others, replace a daemon of an older version that nobody uses
    #[arg(long)]
    fix: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    rows: &'a [Finding],
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let wanted = arguments.target.as_deref();
    let (mut findings, config) = look(wanted)?;
    if arguments.fix {
        let outcomes = mend::all(&findings, &config);
        if !outcomes.is_empty() {
            findings = look(wanted)?.0;
        }
        mend::enter(&mut findings, outcomes);
    }
    let healthy = findings.iter().all(|finding| finding.severity != Severity::Error);
    let printed = output.facts(&Document { healthy, rows: &findings }, || text::of(&findings, columns()))?;
    Ok(if healthy { printed } else { ExitCode::FAILURE })
}

/// Columns of the terminal, if the output goes to one.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| io::stdout().is_terminal())?;
    Some(if size.ws_col == 0 { 80 } else { usize::from(size.ws_col) })
}

/// Looks at everything once.
fn look(wanted: Option<&str>) -> Result<(Vec<Finding>, Config), Failure> {
    let begun = Instant::now();
    let until = begun + LIMIT;
    let machine = Section::begin(|| [machine::findings(), confinement::findings(), surroundings::findings()].concat());
    let (config, broken) = configuration(begun + READ_SETTINGS)?;
    let Cache { pid, health: whole, absent, daemon, store } = cache::look(&config);
    let known = whole.clone().unwrap_or_default();
    let (workspaces, repositories) = chosen(wanted, absent, whole.as_ref())?;

    let limits = Section::begin(move || limits::findings(pid));
    let state = section(&config, state::findings);
    let settings = section(&config, move |config| settings::findings(config, pid.is_some()));
    let leftovers = section(&config, {
        let whole = whole.clone();
        move |config| leftovers::findings(config, whole.as_ref())
    });
    let mounts = Section::begin({
        let rows = known.workspaces.clone();
        move || mounts::findings(&rows, pid.is_some())
    });
    let remotes = section(&config, {
        let (repositories, rows) = (repositories.clone(), known.workspaces.clone());
        move |config| remotes::findings(&repositories, &rows, config, until)
    });

    let mut found = machine.findings("machine", until);
    found.push(machine::abilities(known.fuse, &known.fuse_lacks));
    found.push(machine::ssh(repositories.iter().any(|repository| reach::is_over_ssh(&repository.url))));
    found.extend(limits.findings("limits", until));
    found.push(limits::clock(known.newest));
    match broken {
        Some(error) => found.push(Finding::failed("settings", error.into())),
        None => found.extend(settings.findings("settings", until)),
    }
    found.push(daemon);
    found.extend(state.findings("state directory", until));
    found.push(store);
    found.extend(leftovers.findings("leftovers", until));
    found.extend(mounts.findings("mounts", until));
    // A little more, so that they can tell which of them did not answer.
    found.extend(remotes.findings("remotes", until + Duration::from_millis(500)));
    match (wanted, &whole) {
        (Some(wanted), None) => found.push(unknowable(wanted)),
        _ => found.extend(workspaces.iter().map(workspace)),
    }
    Ok((found, config))
}

fn section(config: &Config, look: impl FnOnce(&Config) -> Vec<Finding> + Send + 'static) -> Section<Vec<Finding>> {
    let config = config.clone();
    Section::begin(move || look(&config))
}

/// The settings, or the defaults and what is wrong with the file: what it says does not move any directory.
fn configuration(until: Instant) -> Result<(Config, Option<ConfigError>), Failure> {
    match Section::begin(Config::load).by(until) {
        Some(Ok(config)) => Ok((config, None)),
        Some(Err(error)) => Ok((Config::with_defaults()?, Some(error))),
        None => {
            let path = Config::with_defaults()?.config_file;
            let source = io::Error::from(io::ErrorKind::TimedOut);
            Ok((Config::with_defaults()?, Some(ConfigError::Io { operation: "read", path, source })))
        }
    }
}

/// The workspaces and repositories that are to be looked at.
fn chosen(
    wanted: Option<&str>,
    absent: bool,
    known: Option<&HealthReport>,
) -> Result<(Vec<HealthWorkspace>, Vec<HealthRepository>), Failure> {
    let (Some(wanted), Some(known)) = (wanted, known) else {
        return match (wanted, known) {
            (_, Some(known)) => Ok((known.workspaces.clone(), known.repositories.clone())),
            (Some(wanted), None) if absent => Err(target::unknown(wanted)),
            _ => Ok((Vec::new(), Vec::new())),
        };
    };
    let mut meanings = target::meanings(wanted)?;
    let found = meanings.find_map(|meaning| {
        let named = known.workspaces.iter().find(|row| row.name == meaning);
        let around = known.workspaces.iter().filter(|row| Path::new(&meaning).starts_with(&row.path));
        // Mounts can lie in each other.
        named.or_else(|| around.max_by_key(|row| row.path.as_os_str().len()))
    });
    let one = found.ok_or_else(|| target::unknown(wanted))?;
    let repository = known.repositories.iter().filter(|repository| repository.id == one.repository);
    Ok((vec![one.clone()], repository.cloned().collect()))
}

/// The finding for a target of which nobody can say whether it is one.
fn unknowable(wanted: &str) -> Finding {
    let detail = "nothing is known of it: neither the daemon nor the store tells of any workspace";
    Finding::error(format!("workspace {wanted}"), detail, "mend the daemon or the store first")
}

fn workspace(row: &HealthWorkspace) -> Finding {
    let name = format!("workspace {}", row.name);
    let state = status::state(row.state);
    let why = row.last_error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    let detail = format!("{state}{why}");
    if row.state == WorkspaceState::Failed {
        let command = format!("larder prepare {}", finding::quoted(Path::new(&row.name)));
        let fix = format!("remove the cause, then `{command}`");
        return Finding::warning(name, detail, fix).run(command);
    }
    if row.stays_offline {
        return Finding::ok(name, format!("{state}, with --offline"));
    }
    if row.offline {
        return Finding::warning(name, format!("{state}, offline{why}"), "check the network and the repository's host");
    }
    Finding::ok(name, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_workspace_names_its_cure() {
        let mut row = HealthWorkspace {
            id: 1,
            name: "w".to_owned(),
            path: "/w".into(),
            repository: 1,
            state: WorkspaceState::Ready,
            offline: false,
            stays_offline: false,
            last_error: None,
            admin: None,
        };
        assert_eq!(workspace(&row).severity, Severity::Ok);
        row.state = WorkspaceState::Failed;
        row.last_error = Some("no route".to_owned());
        let finding = workspace(&row);
        assert_eq!((finding.severity, finding.detail.as_str()), (Severity::Warning, "failed: no route"));
        assert!(finding.fix.expect("a cure").ends_with("`larder prepare w`"));
        assert_eq!(finding.command.as_deref(), Some("larder prepare w"));
    }
}
