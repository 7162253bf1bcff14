//! Git's fsmonitor hook: the larder binary, started by Git under another name.
//!
//! Runs before everything else in `main`: Git waits for it at every command,
//! so it reads one small file and asks the daemon, nothing more. Any failure
//! makes Git look at every file itself: slow, never wrong.

use std::ffi::{OsStr, OsString};

use super::client::{Client, unexpected};
use super::protocol::{Answer, Failure, FailureClass, Request};
use crate::git::fsmonitor;

/// Whether this process was started as the hook.
pub fn is_invocation(argv0: &OsStr) -> bool {
    fsmonitor::is_hook_invocation(argv0)
}

/// The bytes Git is told, for `arguments` without `argv0`.
pub fn answer(argv0: &OsStr, arguments: &[OsString]) -> Result<Vec<u8>, Failure> {
    let failed = |error: fsmonitor::HookError| Failure::new(FailureClass::Other, error.to_string());
    let query = fsmonitor::parse_args(arguments).map_err(failed)?;
    let git_dir = std::env::var_os("GIT_DIR");
    let target = fsmonitor::workspace_of_invocation(argv0, git_dir.as_deref()).map_err(failed)?;
    let token = String::from_utf8_lossy(&query.token).into_owned();
    let request = Request::Fsmonitor { workspace: target.workspace.0, token };
    match Client::at(target.socket).ask(request)? {
        Answer::Changes { token, everything: true, .. } => {
            Ok(fsmonitor::render(&token, &fsmonitor::Answer::Everything))
        }
        Answer::Changes { token, paths, .. } => Ok(fsmonitor::render(&token, &fsmonitor::Answer::Paths(paths))),
        other => Err(unexpected(&other)),
    }
}
