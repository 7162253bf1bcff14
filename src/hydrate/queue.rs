//! The bounded queue of wants, most urgent first.
//!
//! Owns the order in which objects are asked for. It holds each object once:
//! a later want of higher urgency moves the queued one forward. Reads are
//! always taken (the kernel bounds how many there are); anything less urgent
//! is refused when the queue is full.

use std::collections::{BTreeMap, HashMap};

use gix::ObjectId;

/// Most wants queued at once. At about 200 bytes each this bounds the queue to 13 MB.
pub const QUEUE_LIMIT: usize = 65_536;

/// How urgent a want is; smaller is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for it.
    Read,
    /// Beside something that is read: rides along in the same request.
    Sibling,
    /// Prefetch of what tools open first: manifests, build and lock files, READMEs.
    Manifest,
    /// Prefetch of source code.
    Source,
    /// Prefetch of other text, and of what nothing is known about.
    Text,
    /// Prefetch of what is large or binary.
    Last,
}

/// One object to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The object.
    pub id: ObjectId,
    /// Its raw size in bytes, where known.
    pub size: Option<u64>,
}

/// Wants in order of urgency, then of arrival.
#[derive(Debug, Default)]
pub struct Queue {
    order: BTreeMap<(Class, u64), Want>,
    places: HashMap<ObjectId, (Class, u64)>,
    arrivals: u64,
}

impl Queue {
    /// Queues `want`, or moves it forward when it is queued with less urgency.
    /// Returns false when the queue is full and the want is not a read.
    pub fn push(&mut self, want: Want, class: Class) -> bool {
        if let Some(&place) = self.places.get(&want.id) {
            if class < place.0 {
                self.order.remove(&place);
                self.insert(want, class);
            }
            return true;
        }
        if class > Class::Read && self.places.len() >= QUEUE_LIMIT {
            return false;
        }
        self.insert(want, class);
        true
    }

    /// Takes the most urgent wants: at most `objects` of them and, past the
    /// first, at most `bytes` of known raw size.
    pub fn take(&mut self, objects: usize, bytes: u64) -> Vec<Want> {
        let mut taken = Vec::new();
        let mut known = 0_u64;
        while taken.len() < objects {
            let Some(entry) = self.order.first_entry() else { break };
            known = known.saturating_add(entry.get().size.unwrap_or(0));
            if known > bytes && !taken.is_empty() {
                break;
            }
            let want = entry.remove();
            self.places.remove(&want.id);
            taken.push(want);
        }
        taken
    }

    /// The class of the most urgent want.
    pub fn first_class(&self) -> Option<Class> {
        self.order.first_key_value().map(|(place, _)| place.0)
    }

    /// Takes `id` out.
    pub fn remove(&mut self, id: &ObjectId) {
        if let Some(place) = self.places.remove(id) {
            self.order.remove(&place);
        }
    }

    /// Wants queued.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn insert(&mut self, want: Want, class: Class) {
        let place = (class, self.arrivals);
        self.arrivals += 1;
        self.places.insert(want.id, place);
        self.order.insert(place, want);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(byte: u8, size: u64) -> Want {
        Want { id: ObjectId::from_bytes_or_panic(&[byte; 20]), size: Some(size) }
    }

    #[test]
    fn reads_overtake_siblings_and_upgrade_them() {
        let mut queue = Queue::default();
        assert!(queue.push(want(1, 1), Class::Sibling));
        assert!(queue.push(want(2, 1), Class::Sibling));
        assert!(queue.push(want(2, 1), Class::Read));
        assert_eq!(queue.take(10, 100), [want(2, 1), want(1, 1)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut queue = Queue::default();
        for byte in 0..10 {
            queue.push(want(byte, 60), Class::Read);
        }
        assert_eq!(queue.take(100, 10).len(), 1);
        assert_eq!(queue.take(100, 120).len(), 2);
        assert_eq!(queue.take(3, 1_000).len(), 3);
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_full_queue_refuses_prefetch_and_takes_reads() {
        let mut queue = Queue::default();
        for number in 0..QUEUE_LIMIT as u64 {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            assert!(queue.push(Want { id: ObjectId::from_bytes_or_panic(&bytes), size: None }, Class::Sibling));
        }
        let late = ObjectId::from_bytes_or_panic(&[0xff; 20]);
        assert!(!queue.push(Want { id: late, size: None }, Class::Sibling));
        assert!(queue.push(Want { id: late, size: None }, Class::Read));
    }
}
