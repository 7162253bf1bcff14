//! Larder mounts a remote Git repository as a working tree and keeps what it
//! fetched in one cache shared by every mount on the machine.
//!
//! ```text
//!  kernel ── /dev/fuse ── vfs      names, inodes, attributes, errno; no policy
//!                          │
//!                         index    view of a generation; packed trees
//!                          │
//!                         hydrate  queue → flight → batch → remote
//!                          │
//!                         store    one redb file: objects, trees, sizes, generations
//!  edges: git (protocol, gitdir, index file, fsmonitor) · daemon · cli
//! ```
//!
//! Imports point down: `cli → daemon → vfs → index → hydrate → store`. `git`
//! implements traits that `hydrate` owns, and only `daemon` wires it in.
//! `tests/layers.rs` fails on an upward import.
//!
//! Invariants:
//!
//! * Nothing is stored or served that was not verified against its Git object id.
//! * Bytes from disk, network, kernel or a client are checked, never trusted.
//! * No thread that answers the kernel waits for the network.
//!
//! Modules in reading order: [`store`], [`hydrate`], [`index`], [`vfs`],
//! [`git`], [`daemon`], [`cli`]; [`config`] and [`metrics`] serve all of them.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod git;
pub mod hydrate;
pub mod index;
pub mod metrics;
pub mod store;
pub mod vfs;
