//! A bulk batch: the part of a warm that travels in one request.
//!
//! Far larger than a reader's batch, since nobody waits for it: the server
//! then sends the deltas it has on disk instead of searching new ones. Where
//! nearly all of a tree is wanted it asks for the tree, which is one line for
//! thousands of objects; what was asked for and did not come is asked for by
//! its own id.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gix::ObjectId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cause::Cause;
use super::queue::Want;
use super::remote::{Extent, RemoteError};

/// A tree is asked for whole when no more than one in so many of its objects would come in vain.
const VAIN_SHARE: usize = 4;

/// A tree, and the places in [`Cargo::wants`] of the blobs below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// The tree.
    pub tree: ObjectId,
    /// Where its blobs are.
    pub wants: Range<usize>,
    /// It is asked for even if that brings much in vain: only the server can tell which blobs are small enough.
    pub always: bool,
}

/// What a bulk batch is to bring.
#[derive(Clone, Debug, Default)]
pub struct Cargo {
    /// Objects, each once, in the order of the walk.
    pub wants: Vec<Want>,
    /// Trees among whose blobs they are, in order of their places; none inside another.
    pub subtrees: Vec<Subtree>,
    /// The wants are trees, and every tree below them is welcome too.
    pub trees: bool,
    /// Blobs above this many bytes are not wanted.
    pub max_blob_bytes: Option<u64>,
}

impl Cargo {
    /// Ids to ask for so that all that is `open` (one a want) comes, and what may come with them.
    pub(super) fn request(&self, open: &[bool]) -> (Vec<ObjectId>, Extent) {
        let some = |places: Range<usize>| {
            let wants = self.wants.get(places.clone()).unwrap_or_default().iter();
            wants.zip(open.get(places).unwrap_or_default()).filter(|(_, open)| **open).map(|(want, _)| want.id)
        };
        if self.trees {
            return (some(0..self.wants.len()).collect(), Extent::Trees);
        }
        let mut blobs = Vec::new();
        let mut trees = Vec::new();
        let mut at = 0;
        for subtree in &self.subtrees {
            let wanted = some(subtree.wants.clone()).count();
            let few = wanted * VAIN_SHARE < subtree.wants.len() * (VAIN_SHARE - 1);
            if wanted > 0 && (subtree.always || !few) {
                blobs.extend(some(at..subtree.wants.start));
                trees.push(subtree.tree);
                at = subtree.wants.end;
            }
        }
        blobs.extend(some(at..self.wants.len()));
        let extent =
            if trees.is_empty() { Extent::Exact } else { Extent::Everything { max_blob_bytes: self.max_blob_bytes } };
        // With a filter, Git forgets a wanted blob that it met in a tree wanted before it.
        blobs.append(&mut trees);
        (blobs, extent)
    }

    /// Forgets `tree`, so that its blobs are asked for one by one. False: it is none of these.
    pub(super) fn forget_tree(&mut self, tree: &ObjectId) -> bool {
        let before = self.subtrees.len();
        self.subtrees.retain(|subtree| subtree.tree != *tree);
        self.subtrees.len() < before
    }
}

/// What became of a bulk batch.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// Objects that came.
    pub objects: u64,
    /// Their raw bytes.
    pub bytes: u64,
    /// Requests it took.
    pub requests: u64,
    /// Objects the remote does not have.
    pub missing: Vec<ObjectId>,
    /// Why it ended early.
    pub error: Option<RemoteError>,
    /// Everything it brought is stored once this many arrivals are.
    pub(super) arrivals: u64,
}

/// A bulk batch, queued or under way.
pub(super) struct Bulk {
    pub(super) number: u64,
    pub(super) cargo: Cargo,
    /// What is warmed, and by whom.
    pub(super) cause: Arc<Cause>,
    pub(super) since: Instant,
    /// Set when nobody wants it any more.
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
    pub(super) tell: oneshot::Sender<Brought>,
    /// Its place in the bound on bulk batches.
    pub(super) place: OwnedSemaphorePermit,
}

impl Bulk {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Known raw bytes of what it is to bring.
    pub(super) fn known_bytes(&self) -> u64 {
        self.cargo.wants.iter().filter_map(|want| want.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[byte; 20])
    }

    fn cargo() -> Cargo {
        let wants = (0..10).map(|byte| Want { id: id(byte), size: None }).collect();
        let subtree = |tree, wants| Subtree { tree: id(tree), wants, always: false };
        Cargo { wants, subtrees: vec![subtree(100, 1..5), subtree(101, 6..10)], ..Cargo::default() }
    }

    #[test]
    fn whole_trees_are_asked_for_by_their_own_id() {
        let everything = Extent::Everything { max_blob_bytes: None };
        assert_eq!(cargo().request(&[true; 10]), (vec![id(0), id(5), id(100), id(101)], everything));
    }

    #[test]
    fn a_tree_of_which_much_is_here_is_not() {
        let open: Vec<bool> = (0..10).map(|number| number < 7).collect();
        let everything = Extent::Everything { max_blob_bytes: None };
        assert_eq!(cargo().request(&open), (vec![id(0), id(5), id(6), id(100)], everything));
        let open: Vec<bool> = (0..10).map(|number| number % 2 == 0).collect();
        assert_eq!(cargo().request(&open), (vec![id(0), id(2), id(4), id(6), id(8)], Extent::Exact));
    }

    #[test]
    fn a_tree_the_remote_lacks_is_asked_for_in_pieces() {
        let mut cargo = cargo();
        assert!(cargo.forget_tree(&id(100)) && !cargo.forget_tree(&id(1)));
        let wanted: Vec<ObjectId> = [0, 1, 2, 3, 4, 5, 101].into_iter().map(id).collect();
        assert_eq!(cargo.request(&[true; 10]).0, wanted);
    }
}
