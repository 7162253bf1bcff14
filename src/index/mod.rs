//! The view of a generation: names, kinds and object ids, without a kernel.
//!
//! In reading order: [`ino`] numbers inodes; [`view`] looks names up in the
//! packed trees of one generation; [`walk`] visits a whole tree; [`generation`]
//! publishes a commit; [`overlay`] is what users changed on top; [`diff`] compares two trees; [`switching`] plans the way
//! from one to the other; [`convert`] is the contract with checkout conversions; [`gc`] plans what goes.

pub mod census;
pub mod convert;
pub mod diff;
pub mod gc;
pub mod generation;
pub mod ino;
pub mod overlay;
pub mod switching;
pub mod view;
pub mod walk;

use crate::store::StoreError;
use gix::ObjectId;

/// Why the view can't answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree of the generation is not in the store.
    #[error("tree {0} is not in the cache")]
    MissingTree(ObjectId),
    /// Attributes can't be used.
    #[error("attributes: {0}")]
    Attributes(String),
}
