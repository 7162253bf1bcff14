//! What TARGET may mean: a workspace's name or a path of it.
//!
//! The daemon knows the workspaces, so it decides; here a TARGET only becomes
//! independent of the current directory. Paths are not looked up: what lies
//! behind one may be a mount that does not answer.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::bounded::bounded;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, FailureClass, Progress, Request, WorkspaceStatus};

/// Asks the daemon about `target` under each of its meanings until it knows one.
pub(super) fn call(
    client: &Client,
    target: &str,
    request: impl Fn(String) -> Request,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<Answer, Failure> {
    let mut first = None;
    for meaning in meanings(target)? {
        match client.call(request(meaning), on_progress) {
            Err(failure) if failure.class == FailureClass::NotFound => {
                first.get_or_insert(failure);
            }
            other => return other,
        }
    }
    Err(first.unwrap_or_else(|| unknown(target)))
}

/// The name of the workspace that `target` means, for requests that can fail to find something else too.
pub(super) fn resolve(client: &Client, target: &str) -> Result<String, Failure> {
    let rows = match client.ask(Request::List)? {
        Answer::Workspaces(rows) => rows,
        other => return Err(unexpected(&other)),
    };
    for meaning in meanings(target)? {
        let is_meant = |row: &&WorkspaceStatus| row.workspace == meaning || Path::new(&meaning).starts_with(&row.path);
        if let Some(row) = rows.iter().find(is_meant) {
            return Ok(row.workspace.clone());
        }
    }
    Err(unknown(target))
}

/// The failure for a TARGET that is no workspace.
pub(super) fn unknown(target: &str) -> Failure {
    Failure::new(
        FailureClass::NotFound,
        format!("cannot find the workspace {target:?}: there is none of that name or path"),
    )
    .hint("`larder list` shows all")
}

/// What `target` may mean, likeliest first: the last is looked up only if the daemon knows none before it.
pub(super) fn meanings(target: &str) -> Result<impl Iterator<Item = String>, Failure> {
    if target.is_empty() {
        return Err(Failure::new(FailureClass::Usage, "cannot use an empty TARGET").hint("give a name or a path"));
    }
    let path = if target.starts_with('/') {
        Some(plain(Path::new(target)))
    } else {
        std::env::current_dir().ok().map(|directory| plain(&directory.join(target)))
    };
    let name = (!is_path(target)).then(|| target.to_owned());
    let text = path.clone().and_then(|path| path.into_os_string().into_string().ok());
    let resolved = std::iter::once_with(move || {
        let path = path?;
        let resolved = bounded({
            let path = path.clone();
            move || canonical(&path).ok()
        })??;
        (resolved != path).then_some(resolved)?.into_os_string().into_string().ok()
    });
    Ok(name.into_iter().chain(text).chain(resolved.flatten()))
}

/// A name has no slash and is no way to say "here".
fn is_path(target: &str) -> bool {
    target.contains('/') || target == "." || target == ".."
}

/// `path` without `.` and `..`, by its words alone.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// `path` with the symbolic links before its last component resolved. The last is not touched: it may be a dead mount.
/// Directories that do not exist yet stay as they are.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.canonicalize();
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent != path => Ok(canonical(parent)?.join(name)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(target: &str) -> Vec<String> {
        meanings(target).expect("not empty").collect()
    }

    #[test]
    fn a_word_is_a_name_first_and_then_a_path() {
        let here = std::env::current_dir().expect("a directory");
        let here = here.to_str().expect("UTF-8");
        assert_eq!(all("larder-none")[..2], ["larder-none".to_owned(), format!("{here}/larder-none")]);
        assert_eq!(all("./larder-none")[0], format!("{here}/larder-none"));
        assert_eq!(all(".")[0], here);
        assert_eq!(all("/nowhere/a/./b/../c/"), ["/nowhere/a/c"]);
        assert!(meanings("").is_err());
    }

    #[test]
    fn links_before_the_mount_point_are_followed_and_missing_directories_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let real = dir.path().canonicalize().expect("exists").join("real");
        std::fs::create_dir(&real).expect("create");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        assert_eq!(canonical(&link.join("mnt")).expect("resolvable"), real.join("mnt"));
        assert_eq!(canonical(&link.join("a/b/mnt")).expect("resolvable"), real.join("a/b/mnt"));
        let text = link.join("mnt").to_str().expect("UTF-8").to_owned();
        assert_eq!(all(&text), [text.clone(), real.join("mnt").to_str().expect("UTF-8").to_owned()]);
    }
}
