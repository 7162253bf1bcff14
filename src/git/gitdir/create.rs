//! A repository's common gitdir, made in one step.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use gix::ObjectId;
use gix::hash::Kind;

use super::config::ConfigText;
use super::files::rename_to_free_name;
use super::{GitdirError, REMOTE};

/// The branch the common gitdir itself stands on. It never exists: Git takes the branch of a common gitdir for
/// checked out there, and would refuse it to every workspace.
const UNBORN: &str = "ref: refs/heads/larder-unborn\n";

/// As in Git's template. Its content is part of the untracked cache, so it is never empty by accident.
const EXCLUDE: &str = "# git ls-files --others --exclude-from=.git/info/exclude\n";

/// What a new common gitdir is to hold.
#[derive(Clone, Debug)]
pub struct GitdirSpec<'a> {
    /// Format of its object ids.
    pub object_format: Kind,
    /// The remote's address, without credentials: Git's own helpers find those.
    pub url: &'a [u8],
    /// What `git fetch` fetches, see [`refspecs`].
    pub refspecs: Vec<String>,
    /// Whether blobs are left out (`blob:none`) and fetched when needed.
    pub partial: bool,
    /// Commits whose parents were not fetched.
    pub shallow: &'a [ObjectId],
}

/// The refspecs `git clone` would write: one branch for a shallow gitdir, since fetching the others would
/// bring their whole history; otherwise all of them.
pub fn refspecs(shallow: bool, branch: Option<&str>) -> Vec<String> {
    vec![match branch {
        Some(branch) if shallow => format!("+refs/heads/{branch}:refs/remotes/{REMOTE}/{branch}"),
        _ => format!("+refs/heads/*:refs/remotes/{REMOTE}/*"),
    }]
}

/// Creates the common gitdir at `common`, whole or not at all.
///
/// Its parent must exist. Nothing is overwritten: [`GitdirError::Exists`] if anything has that name.
pub fn create(common: &Path, spec: &GitdirSpec<'_>) -> Result<(), GitdirError> {
    if common.symlink_metadata().is_ok() {
        return Err(GitdirError::Exists(common.to_owned()));
    }
    let parent = common.parent().ok_or_else(|| GitdirError::invalid("gitdir path", b"/"))?;
    let new = tempfile::Builder::new().prefix(".gitdir-").tempdir_in(parent).map_err(GitdirError::io(parent))?;
    for directory in ["objects/pack", "objects/info", "refs/heads", "refs/tags", "info", "worktrees"] {
        let path = new.path().join(directory);
        DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(GitdirError::io(&path))?;
    }
    // Git refuses a gitdir without HEAD or config: these two are flushed before the name appears.
    write(&new.path().join("config"), &common_config(spec)?, true)?;
    write(&new.path().join("HEAD"), UNBORN.as_bytes(), true)?;
    // With worktreeConfig on, `core.bare` in the common file would hold for every workspace.
    let mut own = ConfigText::default();
    own.section("core", None)?.value("bare", "true")?;
    write(&new.path().join("config.worktree"), &own.into_bytes(), false)?;
    write(&new.path().join("info/exclude"), EXCLUDE.as_bytes(), false)?;
    if !spec.shallow.is_empty() {
        write(&new.path().join("shallow"), &super::refs::shallow_text(spec.shallow), false)?;
    }
    rename_to_free_name(new.path(), common)?;
    let _ = new.keep();
    Ok(())
}

fn common_config(spec: &GitdirSpec<'_>) -> Result<Vec<u8>, GitdirError> {
    let mut text = ConfigText::default();
    text.section("core", None)?
        .value("repositoryFormatVersion", "1")?
        .value("fileMode", "true")?
        .value("logAllRefUpdates", "true")?
        .value("checkStat", "minimal")?
        .value("trustCtime", "false")?;
    text.section("extensions", None)?.value("worktreeConfig", "true")?;
    if spec.object_format != Kind::Sha1 {
        text.value("objectFormat", spec.object_format.to_string())?;
    }
    if spec.partial {
        text.value("partialClone", REMOTE)?;
    }
    text.section("remote", Some(REMOTE.as_bytes()))?.value("url", spec.url)?;
    for refspec in &spec.refspecs {
        text.value("fetch", refspec)?;
    }
    if spec.partial {
        text.value("promisor", "true")?.value("partialCloneFilter", "blob:none")?;
    }
    // Lazy fetches leave many small packs; repacking them behind the user's back takes minutes.
    text.section("gc", None)?.value("auto", "0")?;
    text.section("maintenance", None)?.value("auto", "false")?;
    Ok(text.into_bytes())
}

fn write(path: &Path, content: &[u8], flush: bool) -> Result<(), GitdirError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(content)?;
        if flush { file.sync_data() } else { Ok(()) }
    });
    written.map_err(GitdirError::io(path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn spec() -> GitdirSpec<'static> {
        GitdirSpec {
            object_format: Kind::Sha1,
            url: b"https://example.org/a b.git",
            refspecs: refspecs(true, Some("main")),
            partial: true,
            shallow: &[],
        }
    }

    #[test]
    fn appears_whole_and_only_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let common = dir.path().join("git");
        create(&common, &spec()).expect("created");
        assert!(matches!(create(&common, &spec()), Err(GitdirError::Exists(_))));
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).expect("created");
        assert!(matches!(create(&empty, &spec()), Err(GitdirError::Exists(_))));
        assert!(matches!(
            create(&dir.path().join("bad"), &GitdirSpec { url: b"a\0b", ..spec() }),
            Err(GitdirError::Invalid { .. })
        ));
        let names: Vec<_> = fs::read_dir(dir.path()).expect("listed").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names.len(), 2, "nothing half made is left: {names:?}");
    }
}
