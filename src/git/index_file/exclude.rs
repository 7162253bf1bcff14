//! What the untracked cache remembers of ignore files outside the tree, and of those Git converts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use gix::ObjectId;
use gix::hash::Kind;
use gix::objs::Kind as ObjectKind;

use super::Stat;

/// Git refuses larger pattern files.
const PATTERN_BYTES: u64 = 100 << 20;

/// An ignore file outside the working tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExcludeFile {
    /// What Git computes from its content; `None` when Git finds no such file.
    pub id: Option<ObjectId>,
    /// Its stat data.
    pub stat: Stat,
}

impl ExcludeFile {
    /// Looks at a file; one that can't be read is absent, as it is for Git.
    pub fn read(path: &Path, kind: Kind) -> Self {
        Self::try_read(path, kind).unwrap_or_default()
    }

    fn try_read(path: &Path, kind: Kind) -> Option<Self> {
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let mut content = Vec::new();
        file.take(PATTERN_BYTES + 1).read_to_end(&mut content).ok()?;
        if content.len() as u64 > PATTERN_BYTES {
            return None;
        }
        Some(Self { id: converted_exclude_id(kind, &content), stat: Stat::from_metadata(&metadata) })
    }
}

/// The id Git computes for an ignore file it read from disk, rather than taking it from the index: it hashes its
/// buffer after adding a newline (`dir.c`, `add_patterns`), but an empty file is the empty blob.
pub fn converted_exclude_id(kind: Kind, content: &[u8]) -> Option<ObjectId> {
    if content.is_empty() {
        return Some(ObjectId::empty_blob(kind));
    }
    // A failure means colliding content: no id, so that Git decides for itself.
    gix::objs::compute_hash(kind, ObjectKind::Blob, &[content, b"\n"].concat()).ok()
}
