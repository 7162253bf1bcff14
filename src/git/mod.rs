//! Everything that speaks Git.
//!
//! To the outside: addresses ([`url`]), byte streams to servers (`transport`),
//! protocol v2 (`protocol`), the pack stream ([`pack`]), and on top of them the
//! remote that hydration uses ([`remote`]) and what `mount` fetches once
//! ([`fetch_commit`]) and what follows later ([`fetch_tips`], [`fetch_history`]). To stock Git on this machine: the
//! [`gitdir`], the [`index_file`], the [`fsmonitor`] hook and the object [`door`]; [`convert`] does what its checkout
//! does to files. To people: [`pathspec`].
//!
//! It refuses to speak older protocols, to write credentials anywhere, and to
//! hand on an object it did not hash itself.

pub mod convert;
pub mod door;
pub mod environment;
pub mod error;
pub mod fetch_commit;
pub mod fetch_history;
pub mod fetch_tips;
pub mod fsmonitor;
pub mod gitdir;
pub mod index_file;
mod nearby;
pub mod pack;
pub mod pathspec;
mod protocol;
pub mod remote;
mod transport;
pub mod url;
mod wanted;
