//! The remote that stands for Larder in a gitdir: `larder`, a promisor Git asks before all others.
//!
//! `origin` stays the user's remote. It is a promisor as well, the last one
//! (`extensions.partialClone` names it): what `git fetch` brings from it then
//! counts as promised, without which Git's connectivity check refuses a fetch
//! into a gitdir that lacks the trees of old commits, and blobs are left out of
//! it. Objects are asked of it only when the door fails.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use gix::bstr::ByteSlice;

use super::config::{ConfigText, read_config, rewrite};
use super::{GitdirError, REMOTE};
use crate::git::door::link::{self, DoorTarget};
use crate::git::fsmonitor::hook_command;

/// The remote's name.
pub const DOOR_REMOTE: &str = "larder";

/// Makes sure that Git asks the door of `common` for what it lacks; changes nothing where it does already. A gitdir
/// that lacks nothing (its server could not filter) needs no door. Only for gitdirs that Larder made.
pub fn ensure_door(common: &Path, binary: &Path, target: &DoorTarget) -> Result<(), GitdirError> {
    let path = common.join("config");
    let config = read_config(&path)?;
    if config.string("extensions.partialClone").is_none() {
        return Ok(());
    }
    let door = link::install(common, binary, target).map_err(GitdirError::io(common))?;
    let values: [(&str, Vec<u8>); 7] = [
        ("url", common.as_os_str().as_bytes().to_vec()),
        ("uploadPack", hook_command(&door)),
        ("promisor", b"true".to_vec()),
        ("partialCloneFilter", b"blob:none".to_vec()),
        ("tagOpt", b"--no-tags".to_vec()),
        // `git fetch --all` and `git remote update` are for remotes that have refs.
        ("skipFetchAll", b"true".to_vec()),
        ("skipDefaultUpdate", b"true".to_vec()),
    ];
    let same = |config: &gix::config::File| {
        let is = |key: &str, value: &[u8]| {
            config.string_by("remote", Some(DOOR_REMOTE.into()), key).is_some_and(|found| found.as_bytes() == value)
        };
        values.iter().all(|(key, value)| is(key, value))
            && config.string("extensions.partialClone").is_some_and(|name| name == REMOTE)
    };
    if same(&config) {
        return Ok(());
    }
    let mut text = ConfigText::default();
    text.section("remote", Some(DOOR_REMOTE.as_bytes()))?;
    for (key, value) in &values {
        text.value(key, value)?;
    }
    rewrite(&path, text, same, |config| while config.remove_section("remote", Some(DOOR_REMOTE.into())).is_some() {})
}
