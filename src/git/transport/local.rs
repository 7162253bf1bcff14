//! Repositories of this machine: a `git upload-pack` child each.
//!
//! Filters and wants by id are switched on for the child whatever the
//! repository's own configuration says: who may read the directory may read
//! all of it. Git's own ownership check (`safe.directory`) stays in force.

use super::socket::SocketTransport;
use super::{Dial, RemoteError};
use crate::hydrate::remote::FailureKind;

/// Starts upload-pack for the repository at a path: bare, with a `.git` directory or
/// file inside, or `x` for `x.git`.
pub(super) fn open(dial: &Dial) -> Result<SocketTransport, RemoteError> {
    let path = dial.url.local_path().expect("a local address has a path");
    let mut dotted = path.clone().into_os_string();
    dotted.push(".git");
    if !path.exists() && !std::path::Path::new(&dotted).exists() {
        return Err(RemoteError::new(FailureKind::Missing, format!("there is no repository at {}", dial.address)));
    }
    let mut command = dial.environment.command("git");
    command
        .args(["-c", "uploadpack.allowFilter=true", "-c", "uploadpack.allowAnySHA1InWant=true"])
        .args(["-c", "transfer.advertiseObjectInfo=true", "upload-pack"])
        .arg(path)
        .env("GIT_PROTOCOL", "version=2")
        // Its complaints are classed by their words.
        .env("LC_ALL", "C");
    SocketTransport::child(command, dial)
}
