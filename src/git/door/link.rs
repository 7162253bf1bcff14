//! The name under which Git starts the larder binary as the door.
//!
//! `remote.larder.uploadpack` names a symbolic link in the common gitdir. The
//! binary sees by its `argv[0]` that it is the door and finds its repository in
//! a file beside the link, so neither the environment nor the current directory
//! of the user's `git` can send it elsewhere.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use gix::hash::Kind;

use crate::git::fsmonitor::{number, replace};
use crate::store::RepositoryId;

/// File name of the link.
pub const DOOR_NAME: &str = "larder-upload-pack";

/// File beside the link that says whose door it is.
const DOOR_FILE: &str = "larder-repository";

/// First line of [`DOOR_FILE`].
const DOOR_FILE_VERSION: &str = "larder-door 1";

/// Longest [`DOOR_FILE`] that is read: two words and one path.
const DOOR_FILE_BYTES: u64 = 16 << 10;

/// Whose door a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorTarget {
    /// The repository.
    pub repository: RepositoryId,
    /// Format of its object ids.
    pub hash: Kind,
    /// Control socket of its daemon.
    pub socket: PathBuf,
}

/// Whether the binary was started as the door.
pub fn is_door_invocation(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name().is_some_and(|name| name.as_bytes().starts_with(DOOR_NAME.as_bytes()))
}

/// Makes the link and the file beside it in `common`, unless they are there already.
pub fn install(common: &Path, binary: &Path, target: &DoorTarget) -> io::Result<PathBuf> {
    let mut content = format!("{DOOR_FILE_VERSION}\n{}\n{}\n", target.repository.0, target.hash).into_bytes();
    content.extend_from_slice(target.socket.as_os_str().as_bytes());
    let file = common.join(DOOR_FILE);
    if fs::read(&file).ok().as_deref() != Some(&content[..]) {
        replace(&file, |new| fs::write(new, &content))?;
    }
    let link = common.join(DOOR_NAME);
    if fs::read_link(&link).ok().as_deref() != Some(binary) {
        replace(&link, |new| std::os::unix::fs::symlink(binary, new))?;
    }
    Ok(link)
}

/// The repository of a door started as `argv0`: the file beside the link decides.
pub fn target_of_invocation(argv0: &OsStr) -> io::Result<DoorTarget> {
    let directory = Path::new(argv0).parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.ok_or_else(|| io::Error::other("not started by its path"))?;
    let path = directory.join(DOOR_FILE);
    let wrong = |why: &dyn std::fmt::Display| io::Error::other(format!("{}: {why}", path.display()));
    if fs::metadata(&path).map_err(|error| wrong(&error))?.len() > DOOR_FILE_BYTES {
        return Err(wrong(&"too long"));
    }
    let content = fs::read(&path).map_err(|error| wrong(&error))?;
    parse(&content).ok_or_else(|| wrong(&"not written by this version of larder"))
}

fn parse(content: &[u8]) -> Option<DoorTarget> {
    // The socket's path is the rest of the file, since a path may hold a newline.
    let mut fields = content.splitn(4, |&byte| byte == b'\n');
    if fields.next()? != DOOR_FILE_VERSION.as_bytes() {
        return None;
    }
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let repository = RepositoryId(number(text()?)?);
    let hash = text()?.parse().ok()?;
    let socket = PathBuf::from(OsString::from_vec(fields.next()?.to_vec()));
    socket.is_absolute().then_some(DoorTarget { repository, hash, socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_finds_its_repository_beside_itself() {
        let common = tempfile::tempdir().expect("temporary directory");
        for hash in [Kind::Sha1, Kind::Sha256] {
            let target = DoorTarget { repository: RepositoryId(7), hash, socket: "/run/a\nb/socket".into() };
            for _ in 0..2 {
                let link = install(common.path(), Path::new("/usr/bin/larder"), &target).expect("installed");
                assert!(is_door_invocation(link.as_os_str()));
                assert_eq!(target_of_invocation(link.as_os_str()).expect("file"), target);
            }
        }
        assert!(!is_door_invocation(OsStr::new("/usr/bin/larder")));
        assert!(target_of_invocation(OsStr::new(DOOR_NAME)).is_err());
        fs::write(common.path().join(DOOR_FILE), "larder-door 2\n1\nsha1\n/s").expect("written");
        assert!(target_of_invocation(common.path().join(DOOR_NAME).as_os_str()).is_err());
    }
}
