//! Checking what is stored: every byte, and whether the tables agree.
//!
//! Nothing is changed by looking: what a read would drop is only reported here. `mend` has the repairs, each a short
//! transaction of its own that looks once more before it changes anything. Invariants:
//!
//! * No transaction lasts longer than a page of rows or a megabyte of stored bytes, but for the count of the totals: redb
//!   keeps freed pages as long as somebody may read them.
//! * What two transactions saw is never compared: others write meanwhile.
//! * Memory does not grow with what is stored, nor with the size of a blob.
//!
//! In reading order: `objects` (blobs), `trees`, `tables` (everything else, one with another), `chunks` (those that no
//! blob has), `mend`.

mod chunks;
mod mend;
mod objects;
mod tables;
mod trees;

use gix::ObjectId;

use super::record::WorkspaceId;
pub use chunks::Orphans;
pub use mend::{Dropped, Mended};
pub use tables::TABLES;

/// Rows looked at in one transaction.
const PAGE_ROWS: usize = 1024;

/// Bytes read in one transaction, about.
const PAGE_BYTES: usize = 1 << 20;

/// What something is wrong with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A blob, or a converted file that is kept like one.
    Blob(ObjectId),
    /// A tree.
    Tree(ObjectId),
    /// A row of another table.
    Row {
        /// The table.
        table: &'static str,
        /// Its key.
        key: Key,
    },
    /// A running total or a next free number.
    Counter(&'static str),
    /// A plain file of local changes, or a row about one.
    Local(u64),
}

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// An object id, or another name that is bytes.
    Bytes(Vec<u8>),
    /// A number.
    Number(u64),
    /// What only people have to understand.
    Words(String),
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// With what.
    pub subject: Subject,
    /// What it is.
    pub text: String,
    /// In which workspace, where that is known.
    pub workspace: Option<WorkspaceId>,
    /// Under which path there, where that is known.
    pub path: Option<Vec<u8>>,
    /// A tree whose row is whole, and whose id does not follow from it: it is damaged, or the object was written in a way
    /// that Git has not written for long, which a listing does not keep.
    pub odd: bool,
}

impl Problem {
    /// A problem of the store itself.
    pub fn new(subject: Subject, text: impl Into<String>) -> Self {
        Self { subject, text: text.into(), workspace: None, path: None, odd: false }
    }

    /// The same, in a workspace.
    #[must_use]
    pub fn at(mut self, workspace: WorkspaceId, path: Option<Vec<u8>>) -> Self {
        (self.workspace, self.path) = (Some(workspace), path);
        self
    }

    fn row(table: &'static str, key: Key, text: impl Into<String>) -> Self {
        Self::new(Subject::Row { table, key }, text)
    }
}

/// Who hears of a check while it runs, from several threads at once.
pub trait Watch: Sync {
    /// So many stored bytes were read. May wait. False: stop.
    fn go_on(&self, bytes: u64) -> bool;
    /// An object of so many stored bytes was checked.
    fn checked(&self, bytes: u64);
    /// Something is wrong.
    fn found(&self, problem: Problem);
    /// Something that harms nobody.
    fn note(&self, text: String);
}
