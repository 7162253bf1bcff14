//! Refs and the shallow file, in Git's plain-file format.
//!
//! Local branches belong to the user: one is moved only from exactly where the
//! remote's branch was, that is, when it holds no commit of the user's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice};

use super::config::{ConfigText, append};
use super::files::{LockedFile, read_small};
use super::worktree::checked_out_at;
use super::{GitdirError, REMOTE};

/// A ref's file holds an id or the name of another ref.
const REF_BYTES: u64 = 64 << 10;

/// How many symbolic refs are followed, as in Git.
const SYMBOLIC_DEPTH: usize = 5;

/// Largest `shallow` file that is read: 100,000 ids.
const SHALLOW_BYTES: u64 = 8 << 20;

/// What a ref's file says.
pub(super) enum RefValue {
    /// An object.
    Id(ObjectId),
    /// Another ref.
    Symbolic(Vec<u8>),
}

/// Parses the content of a ref's file.
pub(super) fn parse_ref(content: &[u8]) -> Option<RefValue> {
    let content = content.trim_end();
    if let Some(target) = content.strip_prefix(b"ref:") {
        let target = target.trim_start();
        return gix::validate::reference::name(target.as_bstr()).is_ok().then(|| RefValue::Symbolic(target.to_vec()));
    }
    ObjectId::from_hex(content.get(..64).or(content.get(..40))?).ok().map(RefValue::Id)
}

/// Whether `name` is a full ref name that Git would take.
pub fn is_ref_name(name: &str) -> bool {
    check_name(name).is_ok()
}

pub(super) fn check_name(name: &str) -> Result<(), GitdirError> {
    let valid = name.starts_with("refs/") && gix::validate::reference::name(name.into()).is_ok();
    if valid { Ok(()) } else { Err(GitdirError::invalid("ref name", name.as_bytes())) }
}

/// The object a full ref name leads to; `None` when there is no such ref.
pub fn read_ref(common: &Path, name: &str) -> Result<Option<ObjectId>, GitdirError> {
    read_ref_from(common, common, name)
}

/// [`read_ref`] for a ref whose own file is in `place`, as it is for those that belong to one worktree.
pub(super) fn read_ref_from(place: &Path, common: &Path, name: &str) -> Result<Option<ObjectId>, GitdirError> {
    check_name(name)?;
    let mut name = name.as_bytes().to_vec();
    for depth in 0..SYMBOLIC_DEPTH {
        let place = if depth == 0 { place } else { common };
        let path = place.join(name.to_path().map_err(|_| GitdirError::invalid("ref name", &name))?);
        let Some(content) = read_small(&path, REF_BYTES)? else {
            return packed_ref(common, name.as_bstr());
        };
        match parse_ref(&content) {
            Some(RefValue::Id(id)) => return Ok(Some(id)),
            Some(RefValue::Symbolic(target)) => name = target,
            None => return Err(GitdirError::not_a_gitdir(&path, "not a ref")),
        }
    }
    Err(GitdirError::invalid("chain of symbolic refs", &name))
}

fn packed_ref(common: &Path, name: &BStr) -> Result<Option<ObjectId>, GitdirError> {
    let path = common.join("packed-refs");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(GitdirError::io(&path)(error)),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(GitdirError::io(&path))?;
        if let Some((id, found)) = line.split_once_str(" ")
            && found == name.as_bytes()
        {
            return ObjectId::from_hex(id).map(Some).map_err(|_| GitdirError::not_a_gitdir(&path, "damaged line"));
        }
    }
    Ok(None)
}

/// All refs of `place` that name an object themselves, by their full names: of a common gitdir, or those of one worktree
/// entry alone.
pub(super) fn all_refs(place: &Path) -> Result<BTreeMap<String, ObjectId>, GitdirError> {
    let mut found = BTreeMap::new();
    let path = place.join("packed-refs");
    let packed = match std::fs::read(&path) {
        Ok(packed) => packed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(GitdirError::io(&path)(error)),
    };
    for (id, name) in ByteSlice::lines(packed.as_slice()).filter_map(|line| line.split_once_str(" ")) {
        // The first line is a comment.
        if let (Ok(id), Ok(name)) = (ObjectId::from_hex(id), name.to_str()) {
            found.insert(name.to_owned(), id);
        }
    }
    let mut directories = vec!["refs".to_owned()];
    while let Some(directory) = directories.pop() {
        let path = place.join(&directory);
        let listed = match std::fs::read_dir(&path) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(GitdirError::io(&path)(error)),
        };
        for entry in listed {
            let entry = entry.map_err(GitdirError::io(&path))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{directory}/{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(name);
            } else if check_name(&name).is_ok()
                && let Some(content) = read_small(&entry.path(), REF_BYTES)?
            {
                match parse_ref(&content) {
                    Some(RefValue::Id(id)) => drop(found.insert(name, id)),
                    Some(RefValue::Symbolic(_)) => {}
                    None => return Err(GitdirError::not_a_gitdir(&entry.path(), "not a ref")),
                }
            }
        }
    }
    Ok(found)
}

/// Whether packed refs have names beneath `name`.
pub(super) fn packed_beneath(common: &Path, name: &str) -> Result<bool, GitdirError> {
    let path = common.join("packed-refs");
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(GitdirError::io(&path)(error)),
    };
    let beneath = format!("{name}/");
    Ok(ByteSlice::lines(content.as_slice())
        .filter_map(|line| line.split_once_str(" "))
        .any(|(_, found)| found.starts_with(beneath.as_bytes())))
}

/// Sets a full ref name to `id`.
pub fn set_ref(common: &Path, name: &str, id: ObjectId) -> Result<(), GitdirError> {
    check_name(name)?;
    LockedFile::take(&common.join(name))?.commit(format!("{id}\n").as_bytes())
}

/// Records which branch is the remote's default, as `git clone` does.
pub fn set_remote_head(common: &Path, branch: &str) -> Result<(), GitdirError> {
    let target = format!("refs/remotes/{REMOTE}/{branch}");
    check_name(&target)?;
    LockedFile::take(&common.join(format!("refs/remotes/{REMOTE}/HEAD")))?.commit(format!("ref: {target}\n").as_bytes())
}

/// Where the local branch is after [`record_branch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchRecorded {
    /// At the commit that was recorded.
    AtCommit,
    /// Left where the user has it, at this commit.
    Kept(ObjectId),
}

/// Records that the remote's `branch` is at `commit`: moves `refs/remotes/origin/<branch>`, creates the local
/// branch with its upstream, or moves it if it was where the remote's was and no worktree has it checked out.
pub fn record_branch(common: &Path, branch: &str, commit: ObjectId) -> Result<BranchRecorded, GitdirError> {
    let remote = format!("refs/remotes/{REMOTE}/{branch}");
    let local = format!("refs/heads/{branch}");
    check_name(&local)?;
    let remote_was = read_ref(common, &remote)?;
    if remote_was != Some(commit) {
        set_ref(common, &remote, commit)?;
    }
    let recorded = match read_ref(common, &local)? {
        Some(id) if id == commit => BranchRecorded::AtCommit,
        Some(id) if Some(id) != remote_was || checked_out_at(common, branch, None)?.is_some() => {
            BranchRecorded::Kept(id)
        }
        _ => {
            set_ref(common, &local, commit)?;
            BranchRecorded::AtCommit
        }
    };
    let mut text = ConfigText::default();
    text.section("branch", Some(branch.as_bytes()))?.value("remote", REMOTE)?.value("merge", &local)?;
    append(&common.join("config"), text, |config| config.string_by("branch", Some(branch.into()), "merge").is_some())?;
    Ok(recorded)
}

/// The commits whose parents are absent by intent.
pub fn shallow(common: &Path) -> Result<Vec<ObjectId>, GitdirError> {
    let path = common.join("shallow");
    let content = read_small(&path, SHALLOW_BYTES)?.unwrap_or_default();
    let ids: Result<Vec<_>, _> = ByteSlice::lines(content.as_slice()).map(ObjectId::from_hex).collect();
    ids.map_err(|_| GitdirError::not_a_gitdir(&path, "damaged line"))
}

/// Takes commits out of the list of those whose parents are absent, and adds others.
pub fn update_shallow(common: &Path, remove: &[ObjectId], add: &[ObjectId]) -> Result<(), GitdirError> {
    let path = common.join("shallow");
    let lock = LockedFile::take(&path)?;
    let before = shallow(common)?;
    let remove: std::collections::HashSet<&ObjectId> = remove.iter().collect();
    let kept = before.iter().filter(|id| !remove.contains(id));
    let after: Vec<ObjectId> = kept.chain(add).copied().collect();
    replace_shallow(&path, lock, &after)
}

/// Replaces the list of commits whose parents are absent; an empty list removes the file.
pub fn set_shallow(common: &Path, commits: &[ObjectId]) -> Result<(), GitdirError> {
    let path = common.join("shallow");
    let lock = LockedFile::take(&path)?;
    replace_shallow(&path, lock, commits)
}

fn replace_shallow(path: &Path, lock: LockedFile, commits: &[ObjectId]) -> Result<(), GitdirError> {
    if !commits.is_empty() {
        return lock.commit(&shallow_text(commits));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(GitdirError::io(path)(error)),
        _ => Ok(()),
    }
}

/// The shallow file's content: sorted, each id once.
pub(super) fn shallow_text(commits: &[ObjectId]) -> Vec<u8> {
    let sorted: std::collections::BTreeSet<_> = commits.iter().collect();
    sorted.iter().flat_map(|id| format!("{id}\n").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[byte; 20])
    }

    #[test]
    fn a_local_branch_with_commits_of_its_own_stays() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let common = dir.path();
        assert_eq!(record_branch(common, "a/b", id(1)).expect("new"), BranchRecorded::AtCommit);
        assert_eq!(record_branch(common, "a/b", id(2)).expect("follows"), BranchRecorded::AtCommit);
        set_ref(common, "refs/heads/a/b", id(9)).expect("the user's commit");
        assert_eq!(record_branch(common, "a/b", id(3)).expect("kept"), BranchRecorded::Kept(id(9)));
        assert_eq!(read_ref(common, "refs/remotes/origin/a/b").expect("readable"), Some(id(3)));
        let config = std::fs::read_to_string(common.join("config")).expect("readable");
        assert_eq!(config.matches("[branch \"a/b\"]").count(), 1);
    }

    #[test]
    fn reads_packed_and_symbolic_refs_and_refuses_loops() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let common = dir.path();
        let line = format!("# pack-refs with: peeled\n{} refs/heads/x\n^{}\n", id(4), id(5));
        std::fs::write(common.join("packed-refs"), line).expect("written");
        assert_eq!(read_ref(common, "refs/heads/x").expect("packed"), Some(id(4)));
        assert_eq!(read_ref(common, "refs/heads/y").expect("absent"), None);
        std::fs::create_dir_all(common.join("refs/remotes/origin")).expect("created");
        set_remote_head(common, "x").expect("written");
        assert_eq!(read_ref(common, "refs/remotes/origin/HEAD").expect("dangling"), None);
        std::fs::write(common.join("refs/loop"), "ref: refs/loop\n").expect("written");
        assert!(read_ref(common, "refs/loop").is_err());
    }

    #[test]
    fn refuses_names_that_leave_the_gitdir() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["refs/heads/../../x", "HEAD", "refs/heads/a.lock", "refs/heads/a b", "refs/heads/", "/etc/x"] {
            assert!(matches!(set_ref(dir.path(), name, id(1)), Err(GitdirError::Invalid { .. })), "{name}");
        }
        assert!(record_branch(dir.path(), "..", id(1)).is_err());
    }

    #[test]
    fn shallow_is_a_sorted_set() {
        let dir = tempfile::tempdir().expect("temporary directory");
        set_shallow(dir.path(), &[id(2), id(1), id(2)]).expect("written");
        assert_eq!(shallow(dir.path()).expect("readable"), [id(1), id(2)]);
        set_shallow(dir.path(), &[]).expect("removed");
        assert!(!dir.path().join("shallow").exists() && !dir.path().join("shallow.lock").exists());
    }
}
