//! Walks over trees: which blobs a generation and a selection name.

/// How far a selection reaches below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything below is selected.
    All,
    /// Something below may be: ask for each entry.
    Some,
    /// Nothing below can be.
    None,
}

/// Which paths a walk is for. Paths are relative to the root, without a leading or trailing slash; the root is empty.
pub trait Select: Send {
    /// How far it reaches below the directory `path`.
    fn directory(&mut self, path: &[u8]) -> Reach;

    /// Whether it has the file, symlink or gitlink `path`, in a directory where it reaches [`Reach::Some`].
    fn file(&mut self, path: &[u8]) -> bool;
}
