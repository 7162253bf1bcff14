//! `larder mount`: a repository becomes a directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::bounded::bounded;
use super::output::{Output, counted, name};
use super::progress::Display;
use super::{config, environment, target};
use crate::daemon::client::{Client, unexpected};
use crate::daemon::prepare::CACHED_NOTICE;
use crate::daemon::protocol::{Answer, Failure, FailureClass, MountRequest, Request, WorkspaceStatus};
use crate::store::{Depth, WorkspaceState};

/// Longest workspace name: it becomes the name of a directory and of a log field.
const MAX_NAME_BYTES: usize = 100;
/// Longest revision: Git's own limit for a ref's path.
const MAX_REV_BYTES: usize = 4096;
/// A remote is not asked more often: each time is a connection, for nothing most of the time.
const LEAST_REFRESH_SECONDS: u64 = 10;
/// Schemes Git clones from, and so does Larder.
const SCHEMES: [&str; 7] = ["file", "git", "ssh", "git+ssh", "ssh+git", "http", "https"];

/// Mount a repository as a working tree; its files are fetched when they are touched
///
/// Starts the daemon when none runs, and returns when names can be listed and `git status` works.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(after_help = "\
Examples:
  larder mount git://127.0.0.1:9427/notes.git work    what the remote's HEAD names
  larder mount git://127.0.0.1:9427/notes.git work --rev v1.0 --read-only
  larder mount git://127.0.0.1:9427/notes.git work --async --warm")]
pub(super) struct Arguments {
    /// What `git clone` takes: a path, or a file, git, ssh, http or https URL, or user@host:path
    #[arg(value_parser = repository)]
    repo: String,

    /// Where to mount: an empty directory, or one that is created
    dir: PathBuf,

    /// Branch, tag, full ref or commit id [default: the remote's HEAD]
    #[arg(long, value_parser = rev)]
    rev: Option<String>,

    /// Name of the workspace [default: from DIR]
    #[arg(long, value_parser = workspace_name)]
    name: Option<String>,

    /// How many commits of history to fetch, or `full` for all [default: one, and the rest in the background]
    #[arg(long, value_name = "N|full", value_parser = depth)]
    depth: Option<Depth>,

    /// Refuse writes: they give EROFS
    #[arg(long)]
    read_only: bool,

    /// Return at once; the mount point exists, and whoever uses it waits until it is ready
    #[arg(long = "async")]
    in_background: bool,

    /// Mount nothing unless the revision is exactly this commit
    #[arg(long, value_name = "OID", value_parser = commit)]
    require_commit: Option<String>,

    /// Use and fetch into this gitdir, prepared elsewhere; it is never overwritten
    #[arg(long, value_name = "DIR")]
    gitdir: Option<PathBuf>,

    /// Take everything from a server that cannot leave file contents out, however much it is
    #[arg(long)]
    allow_full: bool,

    /// Fetch everything in the background once it is mounted, as `larder warm --background` does
    #[arg(long)]
    warm: bool,

    /// Ask the remote for nothing, now and as long as it is mounted: show what was fetched before
    #[arg(long, conflicts_with_all = ["warm", "allow_full"])]
    offline: bool,

    /// How often to fetch the remote's refs, such as `10m`, or `never`; nothing but `refs/remotes` moves
    #[arg(long, value_name = "DURATION|never", default_value = "never", value_parser = period)]
    refresh: Period,
}

/// Time between two fetches, in seconds; `None` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period(Option<u64>);

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let mut request = request(arguments)?;
    let config = config()?;
    let progress = Display::new(output);
    let client;
    (client, request.started) = Client::start_or_find(&config)?;
    let answer = client.call(Request::Mount(request), &mut |report| progress.report(report));
    drop(progress);
    let workspaces = match answer? {
        Answer::Workspaces(workspaces) => workspaces,
        other => return Err(unexpected(&other)),
    };
    let [mounted] = workspaces.as_slice() else {
        return Err(Failure::new(FailureClass::Other, "cannot tell what was mounted: the daemon named no workspace"));
    };
    if let Some(notice) = mounted.last_error.as_ref().filter(|notice| notice.starts_with(CACHED_NOTICE)) {
        output.complain(&format!("larder: warning: {notice}"));
    }
    output.done(mounted, || confirmation(mounted))
}

/// What has become of a workspace, in a line; `prepare` says the same.
pub(super) fn confirmation(mounted: &WorkspaceStatus) -> String {
    let (workspace, path) = (name(&mounted.workspace), name(&mounted.path.to_string_lossy()));
    match (mounted.state, &mounted.commit) {
        (WorkspaceState::Ready, Some(commit)) => {
            let commit: String = commit.chars().take(12).collect();
            // A workspace that was mounted by object id has that for a revision.
            let rev = mounted.rev.as_deref().filter(|rev| mounted.commit.as_deref() != Some(rev));
            let rev = rev.map_or_else(String::new, |rev| format!("{} ", name(rev)));
            let files = counted(mounted.files, "file");
            let offline = if mounted.stays_offline { "; offline, as last fetched" } else { "" };
            format!("{workspace} is mounted at {path}: {rev}{commit}, {files}{offline}\n")
        }
        (WorkspaceState::Preparing, _) => format!("{workspace} is being prepared at {path}\n"),
        _ => format!("{workspace} is known at {path}\n"),
    }
}

fn request(arguments: Arguments) -> Result<MountRequest, Failure> {
    Ok(MountRequest {
        repository: located(&arguments.repo)?,
        path: absolute(&arguments.dir, "DIR")?,
        rev: arguments.rev,
        name: arguments.name,
        depth: arguments.depth.unwrap_or(Depth::Commits(1)),
        history: arguments.depth.is_none(),
        r#async: arguments.in_background,
        require_commit: arguments.require_commit,
        gitdir: arguments.gitdir.as_deref().map(|dir| absolute(dir, "--gitdir")).transpose()?,
        allow_full: arguments.allow_full,
        warm: arguments.warm,
        read_only: arguments.read_only,
        refresh_seconds: arguments.refresh.0,
        offline: arguments.offline,
        started: false,
        environment: environment::for_daemon(),
    })
}

fn repository(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.contains(['\0', '\n', '\r']) {
        return Err("it contains a control character".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            return Err(format!("{scheme:?} is not one of {}", SCHEMES.join(", ")));
        }
        if rest.is_empty() || (scheme != "file" && rest.starts_with('/')) {
            return Err("the URL names no host".to_owned());
        }
    }
    Ok(text.to_owned())
}

/// `repo` as the daemon, which has another current directory, can use it.
fn located(repo: &str) -> Result<String, Failure> {
    // As git clone has it: what exists is a path, and a colon before any slash makes a host.
    let remote = repo.contains("://") || repo.find(':').is_some_and(|colon| !repo[..colon].contains('/'));
    let exists = || {
        let path = PathBuf::from(repo);
        bounded(move || path.exists()).unwrap_or(false)
    };
    if remote && (repo.contains("://") || !exists()) {
        return Ok(repo.to_owned());
    }
    let path = std::path::absolute(repo).map_err(|error| {
        Failure::new(FailureClass::Usage, format!("cannot use the repository {repo:?}: {error}"))
            .hint("give a full path")
    })?;
    path.into_os_string().into_string().map_err(|path| not_utf8("the repository", Path::new(&path)))
}

/// `dir` absolute, with the links before it resolved; it is not looked at itself, since it may be a dead mount.
pub(super) fn absolute(dir: &Path, what: &str) -> Result<PathBuf, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(FailureClass::Usage, format!("cannot use {what} {}: {why}", dir.display()))
            .hint("give a path in a directory that is yours")
    };
    if dir.as_os_str().is_empty() {
        return Err(wrong(&"it is empty"));
    }
    let path = std::path::absolute(dir).map_err(|error| wrong(&error))?;
    let path = bounded(move || target::canonical(&path))
        .ok_or_else(|| wrong(&"a file system on the way to it does not answer"))?
        .map_err(|error| wrong(&error))?;
    if path.to_str().is_none() {
        return Err(not_utf8(what, &path));
    }
    if path.parent().is_none() {
        return Err(wrong(&"it is the root of the file system"));
    }
    Ok(path)
}

fn not_utf8(what: &str, path: &Path) -> Failure {
    Failure::new(FailureClass::Usage, format!("cannot use {what} {}: the path is not valid UTF-8", path.display()))
        .hint("use a path that is")
}

/// A revision the remote can be asked for.
pub(super) fn rev(text: &str) -> Result<String, String> {
    let wrong = text.is_empty()
        || text.len() > MAX_REV_BYTES
        || text.starts_with('-')
        || text.contains("..")
        || text.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c));
    if wrong { Err("it is neither a ref's name nor a full commit id".to_owned()) } else { Ok(text.to_owned()) }
}

fn workspace_name(text: &str) -> Result<String, String> {
    let wrong = text.is_empty()
        || text.len() > MAX_NAME_BYTES
        || text.starts_with(['-', '.'])
        || text.contains(|c: char| c == '/' || c.is_control());
    if wrong {
        return Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes, no slash, and starts with neither . nor -"));
    }
    Ok(text.to_owned())
}

fn commit(text: &str) -> Result<String, String> {
    if matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("a full commit id has 40 or 64 hexadecimal digits".to_owned())
}

fn period(text: &str) -> Result<Period, String> {
    if text == "never" {
        return Ok(Period(None));
    }
    match humantime::parse_duration(text).map(|period| period.as_secs()) {
        Ok(seconds) if seconds >= LEAST_REFRESH_SECONDS => Ok(Period(Some(seconds))),
        Ok(_) => Err(format!("it is less than {LEAST_REFRESH_SECONDS} seconds")),
        Err(_) => Err("it is neither a duration such as 10m nor `never`".to_owned()),
    }
}

fn depth(text: &str) -> Result<Depth, String> {
    match text {
        "full" => Ok(Depth::Full),
        _ => match text.parse() {
            Ok(commits) if commits > 0 => Ok(Depth::Commits(commits)),
            _ => Err("it is neither a number from 1 nor `full`".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_paths_as_git_does() {
        let here = std::env::current_dir().expect("a directory");
        for url in ["https://h/r", "git@host:repo.git", "host:a/b", "ssh://h/r", "file:///x"] {
            assert_eq!(repository(url).and_then(|url| located(&url).map_err(|e| e.message)).as_deref(), Ok(url));
        }
        for path in ["some/repo", "./with:colon", "some/with:colon"] {
            let expected = std::path::absolute(here.join(path)).expect("absolute");
            assert_eq!(located(path).map_err(|e| e.message).as_deref(), Ok(expected.to_str().expect("UTF-8")));
        }
        for text in ["", "ftp://h/r", "gopher://h", "https://", "https:///r", "a\nb"] {
            assert!(repository(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mount_is_confirmed_without_saying_anything_twice() {
        let oid = "0123456789abcdef0123456789abcdef01234567";
        let mut status: WorkspaceStatus = serde_json::from_value(serde_json::json!({
            "workspace": "w", "path": "/w", "state": "ready", "repository": "r", "rev": "main", "commit": oid,
            "generation": 1, "files": 2, "hydrated_objects": 0, "hydrated_bytes": 0, "overlay_entries": 0,
            "queue_depth": 0, "inflight_objects": 0, "offline": false, "last_error": null, "gitdir": null,
        }))
        .expect("a status");
        assert_eq!(confirmation(&status), "w is mounted at /w: main 0123456789ab, 2 files\n");
        (status.rev, status.files) = (Some(oid.to_owned()), 1);
        assert_eq!(confirmation(&status), "w is mounted at /w: 0123456789ab, 1 file\n");
    }

    #[test]
    fn what_can_be_seen_to_be_wrong_is_refused() {
        assert!(commit(&"a".repeat(40)).is_ok() && commit(&"F".repeat(64)).is_ok_and(|oid| oid == "f".repeat(64)));
        for text in ["", "abc", &"g".repeat(40), &"a".repeat(41)] {
            assert!(commit(text).is_err(), "{text}");
        }
        assert_eq!(depth("full"), Ok(Depth::Full));
        assert_eq!(depth("7"), Ok(Depth::Commits(7)));
        for text in ["0", "-1", "", "all", "4294967296"] {
            assert!(depth(text).is_err(), "{text}");
        }
        assert_eq!(period("never"), Ok(Period(None)));
        assert_eq!(period("10m"), Ok(Period(Some(600))));
        for text in ["", "1s", "soon", "-1m"] {
            assert!(period(text).is_err(), "{text}");
        }
        for text in ["", "-x", "a..b", "a b", "HEAD~1", "x\u{1b}"] {
            assert!(rev(text).is_err(), "{text:?}");
        }
        assert!(rev("refs/heads/main").is_ok() && rev("v1.2-rc+3").is_ok());
        for text in ["", ".", "..", "a/b", "-a", "a\tb", &"x".repeat(101)] {
            assert!(workspace_name(text).is_err(), "{text:?}");
        }
        assert!(workspace_name("linux-next").is_ok());
    }

    #[test]
    fn a_mount_point_is_absolute_and_not_the_root() {
        assert!(absolute(Path::new("/"), "DIR").is_err());
        assert!(absolute(Path::new(""), "DIR").is_err());
        let path = absolute(Path::new("larder-none"), "DIR").map_err(|e| e.message).expect("resolvable");
        assert!(path.is_absolute() && path.ends_with("larder-none"));
    }
}
