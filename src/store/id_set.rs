//! Sets of objects that take eight bytes each.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use gix::ObjectId;

/// Object ids, told apart by their first eight bytes. Two objects that share those count as one: whoever keeps what is in
/// the set then keeps one object too many, once in four billion sets of a hundred thousand.
#[derive(Clone, Debug, Default)]
pub struct IdSet(HashSet<u64, BuildHasherDefault<Prefix>>);

/// The key is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl IdSet {
    /// Adds `id`. False: it was there.
    pub fn insert(&mut self, id: &ObjectId) -> bool {
        self.0.insert(id_key(id))
    }

    /// Whether `id` is there, or one that can't be told from it.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.0.contains(&id_key(id))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Extend<&'a ObjectId> for IdSet {
    fn extend<T: IntoIterator<Item = &'a ObjectId>>(&mut self, ids: T) {
        self.0.extend(ids.into_iter().map(id_key));
    }
}

/// The first eight bytes of `id`, in whose order ids are.
pub fn id_key(id: &ObjectId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
