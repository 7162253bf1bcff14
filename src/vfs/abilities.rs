//! What the kernel's FUSE can do of what Larder asks for.
//!
//! Told by the kernel at each mount, and then true of all of them; before the
//! first mount the kernel's release tells what to expect. What is lacking only
//! makes mounts slower.

use std::sync::OnceLock;

use serde::Serialize;

/// Something the kernel may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// Its name, without the kernel's prefix.
    pub flag: &'static str,
    /// The first Linux that has it.
    pub since: (u32, u32),
    /// What is slow without it.
    pub without: &'static str,
}

const fn ability(flag: &'static str, since: (u32, u32), without: &'static str) -> Ability {
    Ability { flag, since, without }
}

pub(super) const NO_OPEN: Ability = ability("no-open", (3, 15), "each open of a file asks the daemon");
pub(super) const NO_OPENDIR: Ability = ability("no-opendir", (5, 1), "each listing asks the daemon");
pub(super) const PARALLEL_DIROPS: Ability =
    ability("parallel-dirops", (4, 7), "look-ups in a directory wait for each other");
pub(super) const CACHE_SYMLINKS: Ability = ability("cache-symlinks", (4, 20), "each symbolic link asks the daemon");
pub(super) const READDIRPLUS: Ability = ability("readdirplus", (3, 9), "a listing with attributes asks for each file");
pub(super) const KILLPRIV: Ability = ability("killpriv-v2", (5, 11), "each write asks for attributes first");

/// All that is asked for.
pub const ALL: [Ability; 6] = [NO_OPEN, NO_OPENDIR, PARALLEL_DIROPS, CACHE_SYMLINKS, READDIRPLUS, KILLPRIV];

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// FUSE protocol version.
    pub version: (u32, u32),
    /// What it can't do.
    pub lacking: Vec<Ability>,
}

/// One kernel serves all mounts of a process, so the first answer stands.
static NEGOTIATED: OnceLock<Negotiated> = OnceLock::new();

pub(super) fn note(negotiated: Negotiated) {
    let _ = NEGOTIATED.set(negotiated);
}

/// What the kernel said when this process mounted; `None`: it did not yet.
pub fn negotiated() -> Option<&'static Negotiated> {
    NEGOTIATED.get()
}
