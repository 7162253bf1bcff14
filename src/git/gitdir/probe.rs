//! What a gitdir prepared elsewhere is, without changing it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice;
use gix::hash::Kind;

use super::config::{read_config, worktree_config};
use super::files::read_small;
use super::{GitdirError, REMOTE};

/// Longest `.git` or `commondir` file that is read.
const POINTER_BYTES: u64 = 64 << 10;

/// A usable gitdir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalGitdir {
    /// The common gitdir, symbolic links resolved.
    pub common: PathBuf,
    /// Format of its object ids.
    pub object_format: Kind,
    /// Address of `origin`, as its configuration has it; may hold credentials, so not for logs.
    pub origin_url: Option<Vec<u8>>,
    /// Whether `origin` promises what is missing (a partial clone).
    pub partial: bool,
    /// Whether Git reads `config.worktree` there.
    pub worktree_config: bool,
}

/// Looks at `dir`: a bare gitdir, a `.git` directory, a working tree holding one, or a worktree's gitfile.
pub fn probe(dir: &Path) -> Result<ExternalGitdir, GitdirError> {
    let gitdir = locate(dir)?;
    let common = match pointer(&gitdir.join("commondir"), b"")? {
        Some(target) => gitdir.join(target),
        None => gitdir,
    };
    let common = fs::canonicalize(&common).map_err(GitdirError::io(&common))?;
    for needed in ["objects", "refs"] {
        if !common.join(needed).is_dir() {
            return Err(GitdirError::not_a_gitdir(dir, format!("not a Git directory: {needed} is missing")));
        }
    }
    let config = read_config(&common.join("config"))?;
    let unsupported = |feature: String| GitdirError::Unsupported { path: common.clone(), feature };
    let object_format = match config.string("extensions.objectFormat") {
        None => Kind::Sha1,
        Some(name) => name.to_string().parse().map_err(|_| unsupported(format!("object format {name}")))?,
    };
    if let Some(storage) = config.string("extensions.refStorage").filter(|storage| storage != "files") {
        return Err(unsupported(format!("ref storage {storage}")));
    }
    if let Ok(Some(version @ 2..)) = config.integer("core.repositoryFormatVersion") {
        return Err(unsupported(format!("repository format {version}")));
    }
    let remote = |key: &str| config.string_by("remote", Some(REMOTE.into()), key);
    let promisor = config.boolean_by("remote", Some(REMOTE.into()), "promisor");
    Ok(ExternalGitdir {
        object_format,
        origin_url: remote("url").map(|url| url.to_vec()),
        partial: matches!(promisor, Ok(Some(true))) || config.string("extensions.partialClone").is_some(),
        worktree_config: worktree_config(&config),
        common,
    })
}

fn locate(dir: &Path) -> Result<PathBuf, GitdirError> {
    let metadata = fs::metadata(dir).map_err(GitdirError::io(dir))?;
    if metadata.is_file() {
        return follow_gitfile(dir);
    }
    if dir.join("HEAD").symlink_metadata().is_ok() {
        return Ok(dir.to_owned());
    }
    let inside = dir.join(".git");
    match fs::metadata(&inside) {
        Ok(metadata) if metadata.is_dir() => Ok(inside),
        Ok(_) => follow_gitfile(&inside),
        Err(_) => Err(GitdirError::not_a_gitdir(dir, "not a Git directory")),
    }
}

fn follow_gitfile(file: &Path) -> Result<PathBuf, GitdirError> {
    let target = pointer(file, b"gitdir: ")?.ok_or_else(|| GitdirError::not_a_gitdir(file, "not a gitfile"))?;
    Ok(file.parent().unwrap_or(Path::new("/")).join(target))
}

/// The path a one-line file holds after `prefix`; `None` when there is no such file.
fn pointer(file: &Path, prefix: &[u8]) -> Result<Option<PathBuf>, GitdirError> {
    let Some(content) = read_small(file, POINTER_BYTES)? else {
        return Ok(None);
    };
    let target = content.strip_prefix(prefix).map(|rest| rest.trim_end_with(|c| c == '\n' || c == '\r'));
    match target {
        Some(target) if !target.is_empty() => Ok(Some(PathBuf::from(OsString::from_vec(target.to_vec())))),
        _ => Err(GitdirError::not_a_gitdir(file, "names no directory")),
    }
}
