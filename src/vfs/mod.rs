//! The filesystem: what the kernel asks, answered from the view.
//!
//! In reading order: [`attr`] and [`errno`] are the vocabulary; [`inode`] maps
//! numbers to files; [`ops`] holds every operation as a plain function,
//! testable without a mount, [`mod@write`] those that change something; [`fuse`] is the one place that speaks FUSE;
//! [`convert`] is where files that a checkout converts get their bytes and sizes;
//! `mount` attaches a connection to a directory; `latency` keeps CPUs awake during bursts; [`interrupt`] notices that a waiting reader was killed.
//!
//! No operation waits: what needs the network comes back as a future.

pub mod abilities;
mod ahead;
pub mod attr;
mod caller;
pub mod convert;
mod converted;
pub mod errno;
mod failed;
pub mod fuse;
pub mod inode;
pub mod interrupt;
mod latency;
mod mount;
pub mod ops;
pub mod write;

pub use errno::Errno;
pub use ops::{Fs, Gate, Shown};
