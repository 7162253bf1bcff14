//! What arrived when: records in equal spans of time, whose width grows with the time they cover.
//!
//! Invariant: never more than [`BUCKETS_MAX`] spans. Widths are those people count in, each a multiple of the one
//! before, so that growing joins whole spans.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::daemon::protocol::rfc3339_ms;
use crate::store::{Fetch, FetchClass};

/// Spans at most.
pub const BUCKETS_MAX: usize = 200;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Widths in milliseconds. The last holds more than ten thousand years in its spans.
const WIDTHS: [i64; 18] = [
    100,
    500,
    SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    7 * DAY,
    28 * DAY,
    364 * 56 * DAY,
];

/// What arrived in each span of time; spans in which nothing did are left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timeline {
    /// Width of a span in milliseconds.
    pub width_ms: i64,
    /// The spans, by the number of widths since 1970 UTC.
    #[serde(with = "as_list")]
    pub buckets: BTreeMap<i64, Bucket>,
}

/// A span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// When it begins, RFC 3339.
    pub time: String,
    /// What arrived in it, by how urgent it was.
    pub classes: Vec<TimelineClass>,
}

/// What arrived of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineClass {
    /// How urgent it was.
    pub class: FetchClass,
    /// Objects.
    pub objects: u64,
    /// Their raw bytes.
    pub bytes: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width_ms: WIDTHS[0], buckets: BTreeMap::new() }
    }
}

impl Timeline {
    /// Takes a record in.
    pub(super) fn add(&mut self, fetch: &Fetch) {
        self.put(fetch.at_ms.div_euclid(self.width_ms), fetch.class, fetch.objects, fetch.bytes);
        while self.span() > BUCKETS_MAX as u64 {
            let Some(width) = WIDTHS.into_iter().find(|width| *width > self.width_ms) else {
                // A time that is no time.
                self.buckets.pop_first();
                continue;
            };
            self.widen(width);
        }
    }

    /// Spans from the first to the last.
    fn span(&self) -> u64 {
        match (self.buckets.first_key_value(), self.buckets.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last.abs_diff(*first).saturating_add(1),
            _ => 0,
        }
    }

    fn widen(&mut self, width: i64) {
        let ratio = width / self.width_ms;
        self.width_ms = width;
        for (number, bucket) in std::mem::take(&mut self.buckets) {
            for TimelineClass { class, objects, bytes } in bucket.classes {
                self.put(number.div_euclid(ratio), class, objects, bytes);
            }
        }
    }

    fn put(&mut self, number: i64, class: FetchClass, objects: u64, bytes: u64) {
        let time = || rfc3339_ms(number.saturating_mul(self.width_ms));
        let bucket = self.buckets.entry(number).or_insert_with(|| Bucket { time: time(), classes: Vec::new() });
        match bucket.classes.iter_mut().find(|of| of.class == class) {
            Some(of) => {
                of.objects = of.objects.saturating_add(objects);
                of.bytes = of.bytes.saturating_add(bytes);
            }
            None => bucket.classes.push(TimelineClass { class, objects, bytes }),
        }
    }
}

/// The map as a list of pairs: JSON has no numbers for keys.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Bucket;

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<i64, Bucket>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<i64, Bucket>, D::Error> {
        Ok(Vec::<(i64, Bucket)>::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fetch;
    use super::*;

    #[test]
    fn each_width_is_a_multiple_of_the_one_before() {
        assert!(WIDTHS.windows(2).all(|pair| pair[1] > pair[0] && pair[1] % pair[0] == 0), "{WIDTHS:?}");
    }

    #[test]
    fn spans_grow_and_nothing_is_lost() {
        let mut timeline = Timeline::default();
        let begin = 1_767_225_600_000;
        // Newest first, as records are read: two hours, a record a second.
        for second in (0..7_200).rev() {
            let class = if second % 2 == 0 { FetchClass::Read } else { FetchClass::Warm };
            timeline.add(&Fetch { at_ms: begin + 1_000 * second, class, ..fetch("cat", "a", 3) });
        }
        assert!(timeline.buckets.len() <= BUCKETS_MAX, "{}", timeline.buckets.len());
        assert_eq!(timeline.width_ms, MINUTE);
        let sum = |class: FetchClass| -> u64 {
            let all = timeline.buckets.values().flat_map(|bucket| &bucket.classes);
            all.filter(|of| of.class == class).map(|of| of.bytes).sum()
        };
        assert_eq!((sum(FetchClass::Read), sum(FetchClass::Warm)), (3 * 3_600, 3 * 3_600));
        let first = timeline.buckets.first_key_value().expect("some");
        assert_eq!((*first.0, first.1.time.as_str()), (begin / MINUTE, "2026-01-01T00:00:00Z"));
        let text = serde_json::to_string(&timeline).expect("JSON");
        assert_eq!(serde_json::from_str::<Timeline>(&text).expect("JSON").buckets, timeline.buckets);
    }

    #[test]
    fn a_clock_that_was_wrong_is_borne() {
        let mut timeline = Timeline::default();
        for at_ms in [i64::MAX, 0, i64::MIN, 1_767_225_600_000] {
            timeline.add(&Fetch { at_ms, ..fetch("cat", "a", 1) });
        }
        assert!(!timeline.buckets.is_empty() && timeline.span() <= BUCKETS_MAX as u64);
    }
}
