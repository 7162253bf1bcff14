//! One worktree entry a workspace: `worktrees/NAME` in the common gitdir.
//!
//! A branch is checked out in at most one worktree, as Git has it: `git commit`
//! in one would otherwise make every file of the other look changed. A second
//! workspace of that branch gets a detached HEAD at the same commit.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::ByteSlice;

use super::GitdirError;
use super::config::{ConfigText, append as append_config, read_config, worktree_config};
use super::files::{LockedFile, read_small, rename_to_free_name};
use super::refs::{RefValue, check_name, parse_ref, read_ref};
use crate::git::fsmonitor::{self, HookTarget};

/// Longest `HEAD`, `gitdir` or `head-name` that is read.
const SMALL_BYTES: u64 = 64 << 10;

/// Names tried for one worktree: NAME, NAME1, NAME2…
const NAME_ATTEMPTS: u32 = 10_000;

/// Why the entry stays when its mount is away; `git worktree prune` leaves locked entries alone.
const LOCK_REASON: &str = "a larder workspace; remove it with `larder unmount --purge`\n";

/// The configuration of an entry that is kept offline, beside its `config.worktree`.
const OFFLINE_FILE: &str = "larder-offline.config";

/// What a workspace's HEAD is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadSpec {
    /// A branch, by its short name, expected at `commit`.
    Branch {
        /// For example `main`.
        name: String,
        /// The commit the mount shows.
        commit: ObjectId,
    },
    /// A commit: what a tag or an object id was resolved to.
    Detached(ObjectId),
}

/// What HEAD became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadState {
    /// On that branch.
    Branch(String),
    /// At the commit itself.
    Detached(DetachedBecause),
}

/// Why HEAD is on no branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetachedBecause {
    /// A commit or tag was asked for.
    Asked,
    /// The branch is checked out in this working tree.
    CheckedOut(PathBuf),
    /// The local branch is somewhere else (or, in a gitdir prepared elsewhere, absent).
    BranchElsewhere(Option<ObjectId>),
}

/// A workspace's entry.
#[derive(Clone, Debug)]
pub struct WorktreeSpec<'a> {
    /// Wished name; made fit for Git and unique.
    pub name: &'a str,
    /// Where the working tree is mounted: absolute, symbolic links resolved.
    pub mount: &'a Path,
    /// Its HEAD.
    pub head: &'a HeadSpec,
    /// The larder binary and whose hook it is, for `core.fsmonitor`; `None` leaves fsmonitor off.
    pub hook: Option<(&'a Path, &'a HookTarget)>,
}

/// What [`add_worktree`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedWorktree {
    /// `worktrees/NAME`, where the index goes and the mount's `.git` points.
    pub admin: PathBuf,
    /// What HEAD became.
    pub head: HeadState,
    /// Whether Git will read `config.worktree`: false in a gitdir prepared elsewhere without
    /// `extensions.worktreeConfig`; then fsmonitor is off and `git status` looks at every file.
    pub config_applies: bool,
}

/// The content of the mount's `.git` file.
pub fn gitfile(admin: &Path) -> Vec<u8> {
    [b"gitdir: ", admin.as_os_str().as_bytes(), b"\n"].concat()
}

/// Adds a worktree entry without its index, whole or not at all; changes nothing else in the gitdir.
pub fn add_worktree(common: &Path, spec: &WorktreeSpec<'_>) -> Result<AddedWorktree, GitdirError> {
    let common = fs::canonicalize(common).map_err(GitdirError::io(common))?;
    let config = read_config(&common.join("config"))?;
    if config.string("extensions.refStorage").is_some_and(|storage| storage != "files") {
        return Err(GitdirError::Unsupported { path: common, feature: "a ref storage other than files".into() });
    }
    if !spec.mount.is_absolute() || spec.mount.as_os_str().as_bytes().contains(&b'\n') {
        return Err(GitdirError::invalid("working tree path", spec.mount.as_os_str().as_bytes()));
    }
    let (head, head_text) = resolve_head(&common, spec.head)?;
    let worktrees = common.join("worktrees");
    fs::create_dir_all(&worktrees).map_err(GitdirError::io(&worktrees))?;
    let new =
        tempfile::Builder::new().prefix("larder-worktree-").tempdir_in(&common).map_err(GitdirError::io(&common))?;
    let put = |name: &str, content: &[u8]| {
        let path = new.path().join(name);
        fs::write(&path, content).map_err(GitdirError::io(&path))
    };
    put("HEAD", &head_text)?;
    put("commondir", b"../..\n")?;
    put("gitdir", &[spec.mount.join(".git").as_os_str().as_bytes(), b"\n"].concat())?;
    put("locked", LOCK_REASON.as_bytes())?;
    if let Some((binary, target)) = spec.hook {
        fsmonitor::install(new.path(), binary, target).map_err(GitdirError::io(new.path()))?;
    }
    let name = sanitized_name(spec.name);
    for attempt in 0..NAME_ATTEMPTS {
        let name = if attempt == 0 { name.clone() } else { format!("{name}{attempt}") };
        let admin = worktrees.join(name);
        if admin.symlink_metadata().is_ok() {
            continue;
        }
        put("config.worktree", &own_config(&config, spec, &admin)?)?;
        match rename_to_free_name(new.path(), &admin) {
            Err(GitdirError::Exists(_)) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                let _ = new.keep();
                open_to_owner(&admin)?;
                return Ok(AddedWorktree { admin, head, config_applies: worktree_config(&config) });
            }
        }
    }
    Err(GitdirError::Exists(worktrees.join(name)))
}

/// The temporary directory was made for its owner alone; Git gives entries the user's usual mode.
fn open_to_owner(admin: &Path) -> Result<(), GitdirError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(admin, fs::Permissions::from_mode(0o755)).map_err(GitdirError::io(admin))
}

fn own_config(common: &gix::config::File, spec: &WorktreeSpec<'_>, admin: &Path) -> Result<Vec<u8>, GitdirError> {
    let mut text = ConfigText::default();
    // With worktreeConfig on, a bare gitdir's `core.bare` would hold for this worktree too.
    text.section("core", None)?.value("bare", "false")?;
    if common.string("core.worktree").is_some() {
        text.value("worktree", spec.mount.as_os_str().as_bytes())?;
    }
    // Nothing is hashed again when only times the mount can't keep differ.
    text.value("checkStat", "minimal")?.value("trustCtime", "false")?.value("untrackedCache", "true")?;
    if spec.hook.is_some() {
        text.value("fsmonitor", fsmonitor::hook_command(&admin.join(fsmonitor::HOOK_NAME)))?
            .value("fsmonitorHookVersion", "2")?;
    }
    text.section("index", None)?.value("version", "4")?;
    Ok(text.into_bytes())
}

fn resolve_head(common: &Path, head: &HeadSpec) -> Result<(HeadState, Vec<u8>), GitdirError> {
    let detached = |because, id: &ObjectId| (HeadState::Detached(because), format!("{id}\n").into_bytes());
    let (name, commit) = match head {
        HeadSpec::Detached(id) => return Ok(detached(DetachedBecause::Asked, id)),
        HeadSpec::Branch { name, commit } => (name, commit),
    };
    let full = format!("refs/heads/{name}");
    check_name(&full)?;
    let at = read_ref(common, &full)?;
    if at != Some(*commit) {
        return Ok(detached(DetachedBecause::BranchElsewhere(at), commit));
    }
    Ok(match checked_out_at(common, name, None)? {
        Some(place) => detached(DetachedBecause::CheckedOut(place), commit),
        None => (HeadState::Branch(name.clone()), format!("ref: {full}\n").into_bytes()),
    })
}

/// Keeps Git from asking a remote over a network in the worktree of the entry `admin`, or ends that.
///
/// What a worktree needs from elsewhere comes through the object door, which is a program on this machine.
pub fn keep_offline(admin: &Path, offline: bool) -> Result<(), GitdirError> {
    let path = admin.join(OFFLINE_FILE);
    if !offline {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GitdirError::io(&path)(error)),
            _ => Ok(()),
        };
    }
    // Git passes an included file by that is not there.
    let mut include = ConfigText::default();
    include.section("include", None)?.value("path", OFFLINE_FILE)?;
    append_config(&admin.join("config.worktree"), include, |config| {
        config.strings("include.path").unwrap_or_default().iter().any(|path| path.as_bytes() == OFFLINE_FILE.as_bytes())
    })?;
    let mut text = ConfigText::default();
    text.section("protocol", None)?.value("allow", "never")?;
    text.section("protocol", Some(b"file"))?.value("allow", "always")?;
    LockedFile::take(&path)?.commit(&text.into_bytes())
}

/// The other working tree that has `branch` (short name) checked out, or is rebasing it; `admin` is not asked.
pub fn branch_in_use(common: &Path, branch: &str, admin: &Path) -> Result<Option<PathBuf>, GitdirError> {
    checked_out_at(common, branch, Some(admin))
}

/// The working tree that has `branch` checked out, or is rebasing it; `except` is not asked.
pub(super) fn checked_out_at(
    common: &Path,
    branch: &str,
    except: Option<&Path>,
) -> Result<Option<PathBuf>, GitdirError> {
    let full = format!("refs/heads/{branch}");
    let main = common.to_owned();
    for admin in std::iter::once(main).chain(entries(common)?) {
        if Some(admin.as_path()) != except && holds(&admin, &full)? {
            return Ok(Some(if admin == common { admin } else { mount_of(&admin)?.unwrap_or(admin) }));
        }
    }
    Ok(None)
}

fn holds(admin: &Path, full: &str) -> Result<bool, GitdirError> {
    let head = read_small(&admin.join("HEAD"), SMALL_BYTES)?.and_then(|content| parse_ref(&content));
    if matches!(head, Some(RefValue::Symbolic(target)) if target == full.as_bytes()) {
        return Ok(true);
    }
    for file in ["rebase-merge/head-name", "rebase-apply/head-name"] {
        if read_small(&admin.join(file), SMALL_BYTES)?.is_some_and(|name| name.trim_end() == full.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The entries of `common`.
pub(super) fn entries(common: &Path) -> Result<Vec<PathBuf>, GitdirError> {
    let worktrees = common.join("worktrees");
    let failed = || GitdirError::io(&worktrees);
    match fs::read_dir(&worktrees) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed()(error)),
        Ok(found) => found.map(|entry| entry.map(|entry| entry.path()).map_err(failed())).collect(),
    }
}

/// The mount an entry belongs to, from its `gitdir` file.
fn mount_of(admin: &Path) -> Result<Option<PathBuf>, GitdirError> {
    let Some(content) = read_small(&admin.join("gitdir"), SMALL_BYTES)? else {
        return Ok(None);
    };
    let gitfile = PathBuf::from(OsString::from_vec(content.trim_end().to_vec()));
    Ok(gitfile.parent().map(Path::to_owned))
}

/// The entry of the workspace mounted at `mount`, with its index and HEAD, if there is one.
pub fn find_worktree(common: &Path, mount: &Path) -> Result<Option<PathBuf>, GitdirError> {
    for admin in entries(common)? {
        if mount_of(&admin)?.as_deref() == Some(mount) {
            return Ok(Some(admin));
        }
    }
    Ok(None)
}

/// Removes an entry made by [`add_worktree`], with its index and anything staged in it.
///
/// Branches and objects stay. An entry that is gone is no error; a path that is no entry of `common` is refused.
pub fn remove_worktree(common: &Path, admin: &Path) -> Result<(), GitdirError> {
    let worktrees = fs::canonicalize(common).map_err(GitdirError::io(common))?.join("worktrees");
    let is_entry = admin.file_name().is_some() && admin.parent().is_some_and(|parent| parent == worktrees);
    if !is_entry {
        return Err(GitdirError::not_a_gitdir(admin, format!("not an entry of {}", worktrees.display())));
    }
    // Out of Git's sight in one step; what a crash leaves behind then is only litter.
    let away =
        tempfile::Builder::new().prefix("larder-removed-").tempdir_in(common).map_err(GitdirError::io(common))?;
    match fs::rename(admin, away.path().join("entry")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(GitdirError::io(admin)(error)),
        Ok(()) => {}
    }
    let path = away.path().to_owned();
    away.close().map_err(GitdirError::io(&path))
}

/// A wished name as one ref-name component, as `git worktree add` makes it.
fn sanitized_name(wished: &str) -> String {
    let mut name = String::with_capacity(wished.len());
    for character in wished.rsplit('/').next().unwrap_or_default().chars() {
        let fits = !character.is_ascii_control() && !" ~^:?*[\\".contains(character);
        let dots = character == '.' && (name.is_empty() || name.ends_with('.'));
        let braces = character == '{' && name.ends_with('@');
        name.push(if fits && !dots && !braces { character } else { '-' });
    }
    while let Some(shorter) = name.strip_suffix(".lock").or_else(|| name.strip_suffix('.')) {
        name.truncate(shorter.len());
    }
    // Leaves room for a number within the 255 bytes of a file name.
    while name.len() > 200 {
        name.pop();
    }
    if name.is_empty() || name == "@" { "workspace".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ref_components() {
        for (wished, name) in [
            ("linux", "linux"),
            ("a b~c^d:e?f*g[h\\i", "a-b-c-d-e-f-g-h-i"),
            (".hidden", "-hidden"),
            ("a..b", "a.-b"),
            ("x.lock.lock", "x"),
            ("end.", "end"),
            ("@", "workspace"),
            ("", "workspace"),
            ("../../etc", "etc"),
            ("..", "-"),
            ("a@{b", "a@-b"),
        ] {
            assert_eq!(sanitized_name(wished), name, "{wished:?}");
            let full = format!("refs/heads/{name}");
            assert!(gix::validate::reference::name(full.as_str().into()).is_ok(), "{name}");
        }
        assert_eq!(sanitized_name(&"é".repeat(200)).len(), 200);
    }

    #[test]
    fn removes_only_entries_of_its_gitdir() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let common = dir.path().canonicalize().expect("exists");
        let outside = common.join("outside");
        fs::create_dir_all(&outside).expect("created");
        for wrong in [outside.clone(), common.join("worktrees/.."), common.join("worktrees/a/../../outside")] {
            assert!(remove_worktree(&common, &wrong).is_err(), "{wrong:?}");
        }
        remove_worktree(&common, &common.join("worktrees/gone")).expect("nothing to do");
        assert!(outside.exists());
    }
}
