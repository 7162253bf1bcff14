//! What a checkout makes of a file: the contract with whoever knows Git's attributes.
//!
//! Owns the words: [`Conversions`] says which files of a generation are
//! converted, a [`Conversion`] does it. Both are implemented in `git`. A file
//! that no conversion applies to is shown as its blob is; one that a
//! conversion applies to is never shown, nor its size told, before it was
//! converted.

use std::fs::File;
use std::sync::Arc;

use gix::ObjectId;
use tokio::sync::Semaphore;

use super::IndexError;
use super::view::View;
use super::walk;
use crate::store::{EntryKind, Store};

/// The name that attributes have in a tree.
pub const ATTRIBUTES: &[u8] = b".gitattributes";

/// A `.gitattributes` of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttributesFile {
    /// The directory it is in, relative to the root; empty for the root.
    pub directory: Vec<u8>,
    /// Its blob.
    pub id: ObjectId,
}

/// A file that may be converted.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its blob.
    pub id: ObjectId,
    /// Its path from the root of the working tree.
    pub path: &'a [u8],
    /// All its bytes.
    pub raw: &'a [u8],
}

/// What a conversion made.
#[derive(Debug)]
pub enum Output {
    /// The same bytes.
    Same,
    /// Other bytes.
    Bytes(Vec<u8>),
    /// More bytes than should be in memory, in a file without a name, to be read from its start.
    Spooled(File, u64),
}

/// The class of a failed conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertErrorKind {
    /// The driver failed, or is not there, and is required.
    Driver,
    /// The driver was silent for too long and was killed.
    TimedOut,
    /// The file is larger than what is converted.
    TooLarge,
    /// The workspace is being unmounted.
    Closed,
    /// The disk is full.
    Full,
    /// This machine refused something else.
    Local,
}

/// Why a file could not be converted.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConvertError {
    /// The class.
    pub kind: ConvertErrorKind,
    /// What failed and why, in one line.
    pub message: String,
}

impl ConvertError {
    /// An error of `kind`.
    pub fn new(kind: ConvertErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Why it is not known which conversions apply.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// These attribute files are not in the store.
    #[error("attribute files that are not in the cache: {}", .0.len())]
    Missing(Vec<ObjectId>),
    /// The view or the store failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// One way to convert files. Equal ids mean equal bytes: whatever the result depends on is in the id.
pub trait Conversion: Send + Sync {
    /// The id under which the result of converting the blob `source` at `path` is kept.
    fn id(&self, source: &ObjectId, path: &[u8]) -> ObjectId;

    /// Who runs a driver takes a place here first; `None`: no driver is run.
    fn lane(&self) -> Option<&Arc<Semaphore>>;

    /// Converts. Blocks as long as its driver does something, and a bounded time when it does not.
    fn convert(&self, source: &Source<'_>) -> Result<Output, ConvertError>;
}

/// Which conversion, if any, each entry of a directory has: in the listing's order.
pub type Rules = Vec<Option<Arc<dyn Conversion>>>;

/// The conversions of one generation, as a checkout of it by its user would apply them.
pub trait Conversions: Send + Sync + 'static {
    /// Which conversions the entries of `directory` have, where `chain` are the attribute files from the root down to
    /// it. `None`: none has any.
    fn rules(
        &self,
        directory: &[u8],
        chain: &[AttributesFile],
        entries: &mut dyn Iterator<Item = (&[u8], EntryKind)>,
    ) -> Result<Option<Rules>, RulesError>;

    /// Ends what runs; conversions fail from now on.
    fn close(&self);
}

/// The blobs of all attribute files below `root`: names alone are read, each distinct tree once.
pub fn attribute_blobs(store: &Store, root: ObjectId) -> Result<Vec<ObjectId>, IndexError> {
    let mut found = Vec::new();
    walk::distinct(store, root, |listing| -> Result<(), IndexError> {
        found.extend(listing.find(ATTRIBUTES).filter(|entry| is_file(entry.kind)).map(|entry| entry.id));
        Ok(())
    })?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The tree at `directory` and the attribute files from the root down to it. `None`: there is no such directory.
pub fn chain(view: &View, directory: &[u8]) -> Result<Option<(ObjectId, Vec<AttributesFile>)>, IndexError> {
    let (tree, files) = descend(view, directory)?;
    Ok(tree.map(|tree| (tree, files)))
}

/// The attribute files above a directory that the generation may not have.
pub fn attribute_chain(view: &View, directory: &[u8]) -> Result<Vec<AttributesFile>, IndexError> {
    Ok(descend(view, directory)?.1)
}

/// The tree of `directory`, if there is one, and the attribute files on the way, as far as it goes.
fn descend(view: &View, directory: &[u8]) -> Result<(Option<ObjectId>, Vec<AttributesFile>), IndexError> {
    let mut tree = view.generation().tree.0;
    let mut found = Vec::new();
    let mut end = 0;
    loop {
        let here = view.directory(&tree)?;
        if let Some((_, entry)) = here.find(ATTRIBUTES).filter(|(_, entry)| is_file(entry.kind)) {
            found.push(AttributesFile { directory: directory[..end].to_vec(), id: entry.id });
        }
        let rest = &directory[end..];
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        if rest.is_empty() {
            return Ok((Some(tree), found));
        }
        let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
        end = directory.len() - rest.len() + name.len();
        match here.find(name) {
            Some((_, entry)) if entry.kind == EntryKind::Directory => tree = entry.id,
            _ => return Ok((None, found)),
        }
    }
}

/// Symbolic links give no attributes.
fn is_file(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::File | EntryKind::Executable)
}
