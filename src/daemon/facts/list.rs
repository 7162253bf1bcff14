//! The objects in the cache, a page at a time, in the order of their ids.

use gix::ObjectId;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::daemon::protocol::{Failure, FailureClass, rfc3339};
use crate::store::{Glance, IdPrefix, ObjectIdText, ObjectKind};

/// Rows of a page at most: with SHA-256 they take half of a line.
pub const PAGE_ROWS: usize = 1_500;

/// What kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Contents of files and symlinks.
    Blob,
    /// Directories.
    Tree,
}

impl From<Kind> for ObjectKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Blob => Self::Blob,
            Kind::Tree => Self::Tree,
        }
    }
}

impl From<ObjectKind> for Kind {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Blob => Self::Blob,
            ObjectKind::Tree => Self::Tree,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListRequest {
    /// Of this kind alone.
    pub kind: Option<Kind>,
    /// First digits of the ids; empty: all.
    pub prefix: String,
    /// After this one.
    pub after: Option<ObjectIdText>,
    /// So many rows, [`PAGE_ROWS`] at most.
    pub limit: usize,
}

/// An object: a row of `larder cache ls --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Its id.
    pub oid: ObjectIdText,
    /// What it is.
    pub r#type: Kind,
    /// Its row is damaged: nothing else is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// Bytes of its content, as Git has it.
    pub raw_bytes: u64,
    /// Bytes it takes in the store.
    pub stored_bytes: u64,
    /// `zstd`, `raw`, or `listing` for trees.
    pub codec: String,
    /// Parts that can be read one by one.
    pub frames: u64,
    /// The chunk a blob begins in.
    pub chunk: Option<u64>,
    /// BLAKE3 of a blob's stored bytes.
    pub blake3: Option<String>,
    /// When a blob was last used, RFC 3339, to the hour.
    pub last_used: Option<String>,
    /// Entries of a tree.
    pub entries: Option<u64>,
}

impl From<Glance> for ObjectRow {
    fn from(glance: Glance) -> Self {
        Self {
            oid: ObjectIdText(glance.id),
            r#type: glance.kind.into(),
            damaged: glance.damaged,
            raw_bytes: glance.raw_size,
            stored_bytes: glance.stored_size,
            codec: glance.codec.to_owned(),
            frames: glance.frames,
            chunk: glance.chunk,
            blake3: glance.blake3.map(|hash| blake3::Hash::from_bytes(hash).to_hex().to_string()),
            last_used: glance.last_used.map(|seconds| rfc3339(i64::try_from(seconds).unwrap_or(i64::MAX))),
            entries: glance.entries,
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListReport {
    /// The page.
    pub rows: Vec<ObjectRow>,
    /// Whether nothing follows.
    pub last: bool,
}

pub(super) fn answer(sources: &Sources<'_>, request: &ListRequest) -> Result<ListReport, Failure> {
    let prefix = IdPrefix::parse(&request.prefix).ok_or_else(|| {
        let text = format!("{:?} cannot begin an object id: those are up to 64 digits from 0 to f", request.prefix);
        Failure::new(FailureClass::Usage, text)
    })?;
    let after: Option<ObjectId> = request.after.map(|id| id.0);
    let limit = request.limit.clamp(1, PAGE_ROWS);
    let found = sources.store.glances(request.kind.map(Into::into), &prefix, after.as_ref(), limit)?;
    Ok(ListReport { last: found.len() < limit, rows: found.into_iter().map(ObjectRow::from).collect() })
}
