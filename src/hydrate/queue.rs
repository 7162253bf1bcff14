//! The bounded queue of wants, most urgent first.
//!
//! Owns the order in which objects are asked for. It holds each object once:
//! a later want of higher urgency moves the queued one forward. Reads are
//! always taken (the kernel bounds how many there are); anything less urgent
//! is refused when the queue is full.

use std::collections::{BTreeMap, HashMap};

use gix::ObjectId;

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

impl Class {
    /// All of them, most urgent first.
    pub const ALL: [Self; 6] = [Self::Read, Self::Sibling, Self::Manifest, Self::Source, Self::Text, Self::Last];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Sibling => "sibling",
            Self::Manifest => "manifest",
            Self::Source => "source",
            Self::Text => "text",
            Self::Last => "last",
        }
    }
}

/// How many wants of each class, as in [`Class::ALL`].
pub type ByClass = [usize; Class::ALL.len()];

/// One object to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The object.
    pub id: ObjectId,
    /// Its raw size in bytes, where known.
    pub size: Option<u64>,
}

/// For whom something is prefetched: a workspace's number. What nobody waits for leaves the queue with its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub u64);

#[derive(Debug)]
struct Queued {
    want: Want,
    owner: Owner,
}

/// Wants in order of urgency, then of arrival.
#[derive(Debug)]
pub struct Queue {
    order: BTreeMap<(Class, u64), Queued>,
    places: HashMap<ObjectId, (Class, u64)>,
    /// Wants queued of each class, as in [`Class::ALL`].
    depths: ByClass,
    arrivals: u64,
    limit: usize,
}

impl Queue {
    /// An empty queue that takes prefetch up to `limit` wants.
    pub fn new(limit: usize) -> Self {
        Self { order: BTreeMap::new(), places: HashMap::new(), depths: [0; Class::ALL.len()], arrivals: 0, limit }
    }

    /// Queues `want`, or moves it forward when it is queued with less urgency.
    /// Returns false when the queue is full and the want is not a read.
    pub fn push(&mut self, want: Want, class: Class, owner: Owner) -> bool {
        if let Some(&place) = self.places.get(&want.id) {
            if class < place.0 {
                self.take_out(&place);
                self.insert(want, class, owner);
            }
            return true;
        }
        if class > Class::Read && self.places.len() >= self.limit {
            return false;
        }
        self.insert(want, class, owner);
        true
    }

    /// As [`Self::push`] for something that somebody waits for: it is taken however full the queue is.
    pub fn push_awaited(&mut self, want: Want, class: Class, owner: Owner) {
        match self.places.get(&want.id) {
            Some(place) if place.0 <= class => {}
            Some(&place) => {
                self.take_out(&place);
                self.insert(want, class, owner);
            }
            None => self.insert(want, class, owner),
        }
    }

    /// Takes the most urgent wants, none less urgent than `least`: at most `objects` of them and, past the first, at
    /// most `bytes` of known raw size.
    pub fn take(&mut self, least: Class, objects: usize, bytes: u64) -> Vec<Want> {
        let mut taken = Vec::new();
        let mut known = 0_u64;
        while taken.len() < objects {
            let Some(entry) = self.order.first_entry().filter(|entry| entry.key().0 <= least) else { break };
            known = known.saturating_add(entry.get().want.size.unwrap_or(0));
            if known > bytes && !taken.is_empty() {
                break;
            }
            self.depths[entry.key().0 as usize] -= 1;
            let want = entry.remove().want;
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
            self.take_out(&place);
        }
    }

    /// What is prefetched for `owner` alone.
    pub fn owned_by(&self, owner: Owner) -> Vec<ObjectId> {
        let prefetch = self.order.range((Class::Sibling, 0)..);
        prefetch.filter(|(_, queued)| queued.owner == owner).map(|(_, queued)| queued.want.id).collect()
    }

    /// Wants queued.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Wants queued of each class, as in [`Class::ALL`].
    pub fn depths(&self) -> ByClass {
        self.depths
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn insert(&mut self, want: Want, class: Class, owner: Owner) {
        let place = (class, self.arrivals);
        self.arrivals += 1;
        self.places.insert(want.id, place);
        self.depths[class as usize] += 1;
        self.order.insert(place, Queued { want, owner });
    }

    fn take_out(&mut self, place: &(Class, u64)) {
        if self.order.remove(place).is_some() {
            self.depths[place.0 as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Owner = Owner(1);

    fn want(byte: u8, size: u64) -> Want {
        Want { id: ObjectId::from_bytes_or_panic(&[byte; 20]), size: Some(size) }
    }

    #[test]
    fn the_more_urgent_overtake_and_are_moved_forward() {
        let mut queue = Queue::new(10);
        assert!(queue.push(want(1, 1), Class::Last, ME));
        assert!(queue.push(want(2, 1), Class::Text, ME));
        assert!(queue.push(want(3, 1), Class::Sibling, ME));
        assert!(queue.push(want(1, 1), Class::Read, ME));
        assert!(queue.push(want(2, 1), Class::Last, ME), "a want of less urgency changes nothing");
        assert_eq!(queue.depths(), [1, 1, 0, 0, 1, 0]);
        assert_eq!(queue.take(Class::Read, 10, 100), [want(1, 1)]);
        assert_eq!(queue.take(Class::Last, 10, 100), [want(3, 1), want(2, 1)]);
        assert!(queue.is_empty());
        queue.push_awaited(want(4, 1), Class::Last, ME);
        queue.push_awaited(want(4, 1), Class::Manifest, ME);
        assert_eq!(queue.depths(), [0, 0, 1, 0, 0, 0]);
        queue.remove(&want(4, 1).id);
        assert_eq!(queue.depths(), [0; 6]);
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut queue = Queue::new(10);
        for byte in 0..10 {
            queue.push(want(byte, 60), Class::Read, ME);
        }
        assert_eq!(queue.take(Class::Last, 100, 10).len(), 1);
        assert_eq!(queue.take(Class::Last, 100, 120).len(), 2);
        assert_eq!(queue.take(Class::Last, 3, 1_000).len(), 3);
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_full_queue_refuses_prefetch_and_takes_reads() {
        let mut queue = Queue::new(2);
        assert!(queue.push(want(1, 1), Class::Sibling, ME) && queue.push(want(2, 1), Class::Sibling, ME));
        assert!(!queue.push(want(3, 1), Class::Sibling, ME));
        assert!(queue.push(want(3, 1), Class::Read, ME));
        assert!(queue.push(want(2, 1), Class::Read, ME), "moving forward takes no room");
    }

    #[test]
    fn an_owners_prefetch_is_found_and_reads_are_nobodys() {
        let mut queue = Queue::new(10);
        queue.push(want(1, 1), Class::Sibling, ME);
        queue.push(want(2, 1), Class::Last, ME);
        queue.push(want(3, 1), Class::Text, Owner(2));
        queue.push(want(2, 1), Class::Read, ME);
        assert_eq!(queue.owned_by(ME), [want(1, 1).id]);
    }
}
