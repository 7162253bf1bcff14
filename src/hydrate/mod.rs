//! Hydration: bringing objects into the store, verified, many to a request.
//!
//! ```text
//! reader ── want ──► flight ──► queue ──► batch ──► connection ──► remote
//!   ▲                  │                              ▲  │
//!   └──── ticket ◄─────┴────────── landing ◄──────────│──┘
//!                                     └──► writer ──► │ store
//! warm ──► walk ──► window ──► bulk ──────────────────┘
//! ```
//!
//! In reading order: [`remote`] is the contract with servers; [`queue`] orders
//! wants by [`class`]; [`flight`] joins readers of one object; [`engine`] is the
//! handle, [`ticket`] a reader's wait; `worker` is the thread of a connection,
//! `landing` and `writer` take what arrives; [`walk`] finds what is missing,
//! [`warm`] sends it in [`bulk`], which `carry` fetches; `sizes` asks for sizes
//! alone; [`cause`] says who set it all off; [`memory`] is a remote for tests and benches.

pub mod bulk;
mod carry;
pub mod cause;
pub mod class;
pub mod engine;
pub mod flight;
mod landing;
pub mod memory;
pub mod queue;
pub mod remote;
mod sizes;
#[cfg(test)]
mod tests;
pub mod ticket;
pub mod walk;
pub mod warm;
mod worker;
mod writer;

pub use cause::Cause;
pub use engine::{HydrateSettings, Hydrator, Load};
pub use flight::{Awaited, Landed, Place, Waiting};
pub use queue::{Class, Owner, Want};
pub use remote::{FailureKind, Remote, RemoteError};
pub use sizes::Sizes;
pub use ticket::Ticket;
pub use warm::{WarmPlan, WarmProgress};
