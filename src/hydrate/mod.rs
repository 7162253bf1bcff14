//! Hydration: bringing objects into the store, verified, many to a request.
//!
//! ```text
//! reader ── want ──► flight ──► queue ──► batch ──► connection ──► remote
//!   ▲                  │                                │
//!   └──── ticket ◄─────┴──────── landed ◄───────────────┘
//! ```
//!
//! In reading order: [`remote`] is the contract with servers; [`queue`] orders
//! wants; [`flight`] joins readers of one object; [`engine`] is the handle and
//! owns the threads of `worker`; [`memory`] is a remote for tests and benches.

pub mod class;
pub mod engine;
pub mod flight;
pub mod memory;
pub mod queue;
pub mod remote;
#[cfg(test)]
mod tests;
pub mod walk;
mod worker;

pub use engine::{HydrateSettings, Hydrator, Ticket};
pub use flight::{Landed, Place, Waiting};
pub use queue::{Class, Want};
pub use remote::{FailureKind, Remote, RemoteError};
