//! `larder status`: how one workspace is, or all of them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{Output, counted, grouped, name, sheet};
use super::{config, failure, history, resting, target, warm};
use crate::config::Config;
use crate::config::quantity::human_bytes;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::gc::LastGc;
use crate::daemon::protocol::{Answer, Failure, FailureClass, ReadyReport, Request, WorkspaceStatus, rfc3339};
use crate::store::WorkspaceState;

/// Show generation, commit, hydration, queue, remote and last error
///
/// What is hydrated is counted when it is first asked for (of more than 200,000 files: at mount, and until that is done it
/// says so), and kept up to date from then on. With no daemon running all trees are walked; `larder list` does without.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder status                         the workspace this is called in, else all
  larder status work --json             one, for a program
  larder status work --offline-ready    whether all of it can be read without a network")]
pub(super) struct Arguments {
    /// A path in a mount, a mount path or a workspace name [default: the mount this is called in, else all]
    target: Option<String>,

    /// Tell what can't be read without a network, and how much that is; exit with 4 if there is anything
    #[arg(long)]
    offline_ready: bool,

    /// With --offline-ready: Git pathspecs, relative to the workspace's root [default: everything]
    #[arg(value_name = "PATHSPEC", value_parser = warm::pathspec, requires = "offline_ready")]
    pathspecs: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [WorkspaceStatus],
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    if arguments.offline_ready {
        return ready(arguments.target.as_deref().unwrap_or("."), &arguments.pathspecs, output);
    }
    let one = match &arguments.target {
        Some(target) => Some(one(target)?),
        None => None,
    };
    if let Some(one) = one {
        return output.facts(&one, || human(&one));
    }
    let workspaces = all(Request::Status { target: None })?;
    let here = std::env::current_dir().ok().and_then(|directory| containing(&workspaces, &directory));
    if let Some(here) = here.filter(|status| status.state != WorkspaceState::Unmounted) {
        return output.facts(here, || human(here));
    }
    output.facts(&Document { rows: &workspaces }, || {
        if workspaces.is_empty() {
            return "no workspaces; `larder mount REPO DIR` makes one\n".to_owned();
        }
        workspaces.iter().map(human).collect::<Vec<_>>().join("\n")
    })
}

/// `--offline-ready`.
fn ready(target: &str, pathspecs: &[String], output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let Some(client) = daemon(&config)? else { return Err(target::unknown(target)) };
    let request = |target| Request::OfflineReady { target, pathspecs: pathspecs.to_vec() };
    match target::call(&client, target, request, &mut |_| ())? {
        Answer::OfflineReady(report) => {
            let printed = output.facts(&report, || missing(&report))?;
            Ok(if report.ready { printed } else { failure::exit_code(FailureClass::Remote) })
        }
        other => Err(unexpected(&other)),
    }
}

fn missing(report: &ReadyReport) -> String {
    let workspace = name(&report.workspace);
    if report.ready {
        return format!("{workspace} is ready: all of it can be read without a network\n");
    }
    let count = report.paths.len() as u64 + report.paths_left_out;
    let unknown = match report.unknown_sizes {
        0 => String::new(),
        files => format!(", and {} of unknown size", grouped(files)),
    };
    let mut text = format!(
        "{workspace} is not ready: {} can't be read without a network; missing {} {}, {}{unknown}\n",
        counted(count, "file"),
        if report.missing_objects == 1 { "is" } else { "are" },
        counted(report.missing_objects, "object"),
        human_bytes(report.missing_bytes),
    );
    for path in &report.paths {
        text.push_str("  ");
        text.push_str(&name(path));
        text.push('\n');
    }
    if report.paths_left_out > 0 {
        let _ = writeln!(text, "  … and {} more", grouped(report.paths_left_out));
    }
    text
}

/// The daemon: the one that runs, or a new one when the last one died and left its mounts behind.
fn daemon(config: &Config) -> Result<Option<Client>, Failure> {
    match Client::running(config)? {
        None if resting::orphaned(config) => Client::start(config).map(Some),
        running => Ok(running),
    }
}

/// What `request` says of all workspaces: from the daemon, or with none running from the store.
pub(super) fn all(request: Request) -> Result<Vec<WorkspaceStatus>, Failure> {
    let config = config()?;
    let Some(client) = daemon(&config)? else {
        return resting::workspaces(&config, !matches!(request, Request::List));
    };
    match client.ask(request)? {
        Answer::Workspaces(workspaces) => Ok(workspaces),
        other => Err(unexpected(&other)),
    }
}

/// The workspace that `wanted` means.
pub(super) fn one(wanted: &str) -> Result<WorkspaceStatus, Failure> {
    let config = config()?;
    let Some(client) = daemon(&config)? else {
        let workspaces = resting::workspaces(&config, true)?;
        let found = target::meanings(wanted)?.find_map(|meaning| {
            let named = workspaces.iter().find(|status| status.workspace == meaning);
            named.or_else(|| containing(&workspaces, Path::new(&meaning))).cloned()
        });
        return found.ok_or_else(|| target::unknown(wanted));
    };
    let request = |target| Request::Status { target: Some(target) };
    match target::call(&client, wanted, request, &mut |_| ())? {
        Answer::Workspaces(workspaces) => match <[_; 1]>::try_from(workspaces) {
            Ok([one]) => Ok(one),
            Err(_) => {
                Err(Failure::new(FailureClass::Other, "cannot show one workspace: the daemon named another number"))
            }
        },
        other => Err(unexpected(&other)),
    }
}

/// The workspace whose mount `path` is in: the innermost, since mounts can lie in each other.
fn containing<'a>(workspaces: &'a [WorkspaceStatus], path: &Path) -> Option<&'a WorkspaceStatus> {
    let within = workspaces.iter().filter(|status| path.starts_with(&status.path));
    within.max_by_key(|status| status.path.as_os_str().len())
}

/// The first digits of a commit id, as Git shortens it.
pub(super) fn short(commit: Option<&str>) -> String {
    commit.map_or_else(|| "-".to_owned(), |commit| commit.chars().take(12).collect())
}

/// The state's name.
pub(super) const fn state(state: WorkspaceState) -> &'static str {
    match state {
        WorkspaceState::Preparing => "preparing",
        WorkspaceState::Ready => "ready",
        WorkspaceState::Failed => "failed",
        WorkspaceState::Unmounted => "unmounted",
    }
}

/// A workspace on a sheet.
pub(super) fn human(status: &WorkspaceStatus) -> String {
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), name);
    sheet(&[
        ("workspace", name(&status.workspace)),
        ("path", name(&status.path.to_string_lossy())),
        ("state", state(status.state).to_owned()),
        ("repository", name(&status.repository)),
        ("revision", or_none(status.rev.as_deref())),
        ("commit", or_none(status.commit.as_deref())),
        ("generation", status.generation.map_or_else(|| "-".to_owned(), |number| number.to_string())),
        ("files", grouped(status.files)),
        ("hydrated", hydrated(status)),
        ("history", history::sentence(&status.history)),
        ("overlay", counted(status.overlay_entries, "entry")),
        ("queue", format!("{} waiting, {} in flight", grouped(status.queue_depth), grouped(status.inflight_objects))),
        ("offline", offline(status).to_owned()),
        ("tidied", status.last_gc.as_ref().map_or_else(|| "never".to_owned(), tidied)),
        ("last error", or_none(status.last_error.as_deref())),
        ("gitdir", status.gitdir.as_ref().map_or_else(|| "-".to_owned(), |dir| name(&dir.to_string_lossy()))),
    ])
}

fn hydrated(status: &WorkspaceStatus) -> String {
    let counting = if status.counting { " so far: they are still being counted" } else { "" };
    format!("{}, {}{counting}", counted(status.hydrated_objects, "object"), human_bytes(status.hydrated_bytes))
}

fn offline(status: &WorkspaceStatus) -> &'static str {
    match (status.stays_offline, status.offline) {
        (true, _) => "yes, until it is mounted without --offline",
        (false, true) => "yes",
        (false, false) => "no",
    }
}

/// When the cache was tidied, and what that did.
fn tidied(last: &LastGc) -> String {
    format!(
        "{} by {}: {} in {}, {}",
        rfc3339(last.at),
        last.started_by,
        human_bytes(last.freed_bytes),
        counted(last.freed_objects, "object"),
        counted(last.generations_dropped, "generation")
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::daemon::protocol::HistoryStatus;

    pub(in crate::cli) fn sample(workspace: &str, path: &str) -> WorkspaceStatus {
        WorkspaceStatus {
            workspace: workspace.to_owned(),
            path: path.into(),
            state: WorkspaceState::Ready,
            repository: "git://host/linux.git".to_owned(),
            rev: Some("main".to_owned()),
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            generation: Some(1),
            files: 78_635,
            hydrated_objects: 12,
            hydrated_bytes: 3 << 20,
            counting: false,
            overlay_entries: 0,
            queue_depth: 1,
            inflight_objects: 2,
            offline: false,
            stays_offline: false,
            last_error: None,
            gitdir: None,
            history: HistoryStatus::default(),
            last_gc: None,
        }
    }

    #[test]
    fn json_has_every_promised_field() {
        let promised = "workspace path state repository rev commit generation files hydrated_objects hydrated_bytes \
                        overlay_entries queue_depth inflight_objects offline last_error";
        let value = serde_json::to_value(sample("a", "/a")).expect("serializable");
        for field in promised.split_whitespace() {
            assert!(value.get(field).is_some(), "{field}");
        }
        for each in
            [WorkspaceState::Preparing, WorkspaceState::Ready, WorkspaceState::Failed, WorkspaceState::Unmounted]
        {
            assert_eq!(serde_json::to_value(each).expect("serializable"), state(each));
        }
    }

    #[test]
    fn the_innermost_mount_contains_a_path() {
        let all = [sample("outer", "/m"), sample("inner", "/m/sub"), sample("other", "/mm")];
        let name = |path: &str| containing(&all, Path::new(path)).map(|status| status.workspace.as_str());
        assert_eq!(name("/m/sub/x"), Some("inner"));
        assert_eq!(name("/m/subway"), Some("outer"));
        assert_eq!(name("/mm"), Some("other"));
        assert_eq!(name("/"), None);
    }

    #[test]
    fn a_sheet_is_aligned() {
        let text = human(&sample("linux", "/mnt/linux"));
        assert!(text.contains("workspace   linux\n") && text.contains("files       78,635\n"), "{text}");
        assert!(text.contains("hydrated    12 objects, 3 MiB\n") && text.contains("last error  -\n"), "{text}");
    }
}
