//! `larder doctor`: what on this machine keeps Larder from working, and what to do about it.
//!
//! Looks, changes nothing and starts nothing. Invariant: it ends within
//! seconds whatever hangs, since whatever could is asked with a limit.

mod machine;
mod mounts;
mod state;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, name};
use super::status;
use crate::config::Config;
use crate::daemon::client::Client;
use crate::daemon::protocol::{Answer, Failure, Request, WorkspaceStatus};
use crate::store::WorkspaceState;

/// Check environment, kernel, permissions, mounts and cache; exit with 1 if something keeps Larder from working
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Check this workspace only, besides the machine [default: all]
    target: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Ok,
    Warning,
    Error,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    severity: Severity,
    /// What was found.
    detail: String,
    /// What to do about it; nothing when all is well.
    fix: Option<String>,
}

impl Finding {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), severity: Severity::Ok, detail: detail.into(), fix: None }
    }

    fn warning(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), severity: Severity::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn error(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), severity: Severity::Error, detail: detail.into(), fix: Some(fix.into()) }
    }

    /// An error from a failure and its hint.
    fn failed(name: impl Into<String>, failure: Failure) -> Self {
        let fix = failure.hint.unwrap_or_else(|| "see the message".to_owned());
        Self::error(name, failure.message, fix)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    rows: &'a [Finding],
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let mut findings = machine::findings();
    let config = match Config::load() {
        Ok(config) => {
            findings.push(settings(&config));
            config
        }
        Err(error) => {
            findings.push(Finding::failed("settings", error.into()));
            // What the file says does not move any directory.
            Config::with_defaults()?
        }
    };
    let (daemon, client) = daemon(&config);
    findings.push(daemon);
    findings.extend(state::findings(&config, client.is_some()));
    let workspaces = client.as_ref().map(|client| client.ask(Request::List));
    let known = match &workspaces {
        Some(Ok(Answer::Workspaces(known))) => known.as_slice(),
        _ => &[],
    };
    findings.extend(mounts::findings(known));
    match &arguments.target {
        Some(target) => findings.push(workspace(&status::one(target)?)),
        None => findings.extend(known.iter().map(workspace)),
    }

    let healthy = findings.iter().all(|finding| finding.severity != Severity::Error);
    let printed = output.facts(&Document { healthy, rows: &findings }, || human(&findings))?;
    Ok(if healthy { printed } else { ExitCode::FAILURE })
}

fn settings(config: &Config) -> Finding {
    let file = config.config_file.display();
    let detail = if config.config_file.exists() { format!("{file}") } else { format!("defaults; there is no {file}") };
    Finding::ok("settings", detail)
}

fn daemon(config: &Config) -> (Finding, Option<Client>) {
    let client = Client::at(config.socket.clone());
    let own = env!("CARGO_PKG_VERSION");
    match client.ping() {
        Ok(Some((version, pid))) if version == own => {
            (Finding::ok("daemon", format!("larder {version} runs as process {pid}")), Some(client))
        }
        Ok(Some((version, pid))) => (
            Finding::warning(
                "daemon",
                format!("process {pid} is larder {version}, this is {own}"),
                "`larder shutdown`; the next command starts the new one",
            ),
            Some(client),
        ),
        Ok(None) => (Finding::ok("daemon", "none runs; `larder mount` starts it"), None),
        Err(failure) => (Finding::failed("daemon", failure), None),
    }
}

fn workspace(status: &WorkspaceStatus) -> Finding {
    let name = format!("workspace {}", status.workspace);
    let state = status::state(status.state);
    let why = status.last_error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    let detail = format!("{state}{why}");
    if status.state == WorkspaceState::Failed {
        let fix = format!("remove the cause, then `larder prepare {}`", status.workspace);
        return Finding::warning(name, detail, fix);
    }
    if status.offline {
        return Finding::warning(name, format!("{state}, offline{why}"), "check the network and the repository's host");
    }
    Finding::ok(name, detail)
}

fn human(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = finding.severity.as_str();
        let _ = writeln!(text, "{severity:<8} {}: {}", name(&finding.name), name(&finding.detail));
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "         fix: {}", name(fix));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::sample;

    #[test]
    fn a_failed_workspace_names_its_cure() {
        let mut status = sample("w", "/w");
        assert_eq!(workspace(&status).severity, Severity::Ok);
        status.state = WorkspaceState::Failed;
        status.last_error = Some("no route".to_owned());
        let finding = workspace(&status);
        assert_eq!((finding.severity, finding.detail.as_str()), (Severity::Warning, "failed: no route"));
        assert!(finding.fix.expect("a cure").ends_with("`larder prepare w`"));
    }

    #[test]
    fn findings_have_four_fields() {
        let finding = serde_json::to_value(Finding::warning("a", "b", "c")).expect("serializable");
        assert_eq!(finding, serde_json::json!({ "name": "a", "severity": "warning", "detail": "b", "fix": "c" }));
    }
}
