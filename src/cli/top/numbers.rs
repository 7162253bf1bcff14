//! From counts that only grow to what happened in between.
//!
//! Owns the arithmetic between two answers of the daemon, and the bounded past
//! that sparklines show. Invariant: answers of two daemons are never compared,
//! and nothing is said of times but the bounds that are known.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::super::output::grouped;
use crate::config::quantity::human_bytes;
use crate::daemon::facts::top::{Bucket, TopReport};

/// Intervals remembered: more than the widest screen shows.
const PAST_MAX: usize = 512;

/// What happened between two answers, each field a second: `rates` of `larder top --json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Milliseconds between the two.
    pub(super) interval_ms: u64,
    /// Reads answered from the cache.
    pub(super) hits: f64,
    /// Reads that waited for a remote.
    pub(super) misses: f64,
    /// Requests sent to remotes.
    pub(super) requests: f64,
    /// Objects received.
    pub(super) objects: f64,
    /// Their raw bytes.
    pub(super) bytes: f64,
    /// How long reads took.
    pub(super) reads: Times,
    /// How long readers waited for an object.
    pub(super) hydrations: Times,
}

/// How long something took: bounds, since that is what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Times {
    /// How many there were.
    pub(super) count: u64,
    /// Half of them took less than so many microseconds; `None`: there were none, or there is no bound.
    pub(super) p50_below_us: Option<u64>,
    /// 95 % of them did.
    pub(super) p95_below_us: Option<u64>,
    /// 99 % of them did.
    pub(super) p99_below_us: Option<u64>,
    /// All of them did.
    pub(super) max_below_us: Option<u64>,
}

impl Times {
    /// Of what was counted in `buckets` and not yet `before`.
    fn between(before: &[Bucket], buckets: &[Bucket]) -> Self {
        let earlier: HashMap<_, _> = before.iter().map(|bucket| (bucket.below_us, bucket.count)).collect();
        let new = |bucket: &Bucket| bucket.count.saturating_sub(earlier.get(&bucket.below_us).copied().unwrap_or(0));
        let count: u64 = buckets.iter().map(new).sum();
        let below = |percent: u64| {
            // The first bucket that has so many at or before it.
            let wanted = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = buckets.iter().find(|bucket| {
                seen += new(bucket);
                seen >= wanted
            });
            found.and_then(|bucket| bucket.below_us)
        };
        Self {
            count,
            p50_below_us: below(50),
            p95_below_us: below(95),
            p99_below_us: below(99),
            max_below_us: below(100),
        }
    }

    /// One of the bounds for people.
    pub(super) fn text(&self, bound: Option<u64>) -> String {
        match bound {
            _ if self.count == 0 => "-".to_owned(),
            Some(microseconds) => format!("<{}", duration(microseconds)),
            None => "over 1m".to_owned(),
        }
    }
}

/// The latest answer, what happened before it, and the past.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    report: Option<TopReport>,
    /// What the next answer is compared with.
    base: Option<TopReport>,
    rates: Option<Rates>,
    workspaces: HashMap<String, (f64, f64)>,
    past: VecDeque<Rates>,
}

impl Numbers {
    /// Takes an answer. One that comes less than `least` after the one before, because somebody wants to see something
    /// else, changes no rates.
    pub(super) fn take(&mut self, report: TopReport, least: Duration) {
        let same = |base: &&TopReport| base.pid == report.pid && base.uptime_ms <= report.uptime_ms;
        match self.base.as_ref().filter(same) {
            Some(base) => {
                let interval_ms = report.uptime_ms - base.uptime_ms;
                if interval_ms == 0 || Duration::from_millis(interval_ms) < least {
                    self.report = Some(report);
                    return;
                }
                let rates = rates(base, &report, interval_ms);
                self.workspaces = by_workspace(base, &report, interval_ms);
                self.rates = Some(rates);
                if self.past.len() >= PAST_MAX {
                    self.past.pop_front();
                }
                self.past.push_back(rates);
            }
            None => *self = Self::default(),
        }
        self.base = Some(report.clone());
        self.report = Some(report);
    }

    /// The daemon ended: what it said is of the past.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// The latest answer.
    pub(super) fn report(&self) -> Option<&TopReport> {
        self.report.as_ref()
    }

    /// What happened before it; `None` after the first.
    pub(super) fn rates(&self) -> Option<&Rates> {
        self.rates.as_ref()
    }

    /// Hits and misses a second of a workspace.
    pub(super) fn of_workspace(&self, name: &str) -> (f64, f64) {
        self.workspaces.get(name).copied().unwrap_or_default()
    }

    /// The last `count` intervals as `what` has them, the oldest first; those before the first are 0.
    pub(super) fn past(&self, count: usize, what: impl Fn(&Rates) -> f64) -> Vec<u64> {
        let known = self.past.iter().rev().take(count).map(|rates| whole(what(rates)));
        let mut past: Vec<u64> = known.chain(std::iter::repeat(0)).take(count).collect();
        past.reverse();
        past
    }
}

fn rates(before: &TopReport, after: &TopReport, interval_ms: u64) -> Rates {
    let (a, b) = (&before.counters, &after.counters);
    let rate = |before, after| per_second(before, after, interval_ms);
    Rates {
        interval_ms,
        hits: rate(a.hits, b.hits),
        misses: rate(a.misses, b.misses),
        requests: rate(a.remote_requests, b.remote_requests),
        objects: rate(a.remote_objects, b.remote_objects),
        bytes: rate(a.remote_bytes, b.remote_bytes),
        reads: Times::between(&before.reads, &after.reads),
        hydrations: Times::between(&before.hydrations, &after.hydrations),
    }
}

fn by_workspace(before: &TopReport, after: &TopReport, interval_ms: u64) -> HashMap<String, (f64, f64)> {
    let earlier: HashMap<_, _> = before.workspaces.iter().map(|row| (&row.workspace, (row.hits, row.misses))).collect();
    let of = |row: &crate::daemon::facts::top::WorkspaceRow| {
        let (hits, misses) = earlier.get(&row.workspace).copied().unwrap_or_default();
        (per_second(hits, row.hits, interval_ms), per_second(misses, row.misses, interval_ms))
    };
    after.workspaces.iter().map(|row| (row.workspace.clone(), of(row))).collect()
}

/// A workspace that was mounted again counts from 0.
#[expect(clippy::cast_precision_loss, reason = "a rate is told with three digits")]
fn per_second(before: u64, after: u64, interval_ms: u64) -> f64 {
    after.saturating_sub(before) as f64 * 1_000.0 / interval_ms as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive, and it saturates")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// A rate for people: a decimal where it is small.
pub(super) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { grouped(whole(rate)) }
}

/// Bytes a second for people.
pub(super) fn byte_rate(rate: f64) -> String {
    format!("{}/s", human_bytes(whole(rate)))
}

/// Of reads, how many were answered from the cache; nothing where there were none.
pub(super) fn hit_share(hits: f64, misses: f64) -> Option<String> {
    let all = hits + misses;
    // What is not all is never told as all.
    (all > 0.0).then(|| format!("{:.1}%", (hits / all * 1_000.0).floor() / 10.0))
}

/// A time for people, rounded up, so that a bound stays one.
pub(super) fn duration(microseconds: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = microseconds.div_ceil(unit / 10);
        if tenths.is_multiple_of(10) || tenths >= 100 {
            tenths.div_ceil(10).to_string()
        } else {
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    };
    match microseconds {
        0..1_000 => format!("{microseconds}us"),
        1_000..1_000_000 => format!("{}ms", tenths(1_000)),
        1_000_000..60_000_000 => format!("{}s", tenths(1_000_000)),
        _ => span(microseconds / 1_000),
    }
}

/// A time in its two largest units.
pub(super) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::facts::top::Counters;

    fn bucket(below: u64, count: u64) -> Bucket {
        Bucket { below_us: Some(below), count }
    }

    fn report(uptime_ms: u64, remote_bytes: u64) -> TopReport {
        let counters = Counters { remote_bytes, ..Counters::default() };
        TopReport { pid: 7, uptime_ms, counters, ..TopReport::default() }
    }

    #[test]
    fn percentiles_are_of_the_interval_alone() {
        let before = [bucket(10, 1_000), bucket(40, 5)];
        let after =
            [bucket(10, 1_090), bucket(20, 8), bucket(40, 5), bucket(80, 1), Bucket { below_us: None, count: 1 }];
        let times = Times::between(&before, &after);
        assert_eq!(times.count, 100);
        assert_eq!((times.p50_below_us, times.p95_below_us), (Some(10), Some(20)));
        assert_eq!((times.p99_below_us, times.max_below_us), (Some(80), None));
        assert_eq!(
            (times.text(times.p95_below_us), times.text(times.max_below_us)),
            ("<20us".into(), "over 1m".into())
        );
        let none = Times::between(&after, &after);
        assert_eq!((none.count, none.text(none.p50_below_us).as_str()), (0, "-"));
    }

    #[test]
    fn rates_are_differences_of_one_daemon() {
        let mut numbers = Numbers::default();
        let take = |numbers: &mut Numbers, report| numbers.take(report, Duration::from_millis(400));
        take(&mut numbers, report(1_000, 5_000));
        assert!(numbers.rates().is_none());
        take(&mut numbers, report(3_000, 9_000));
        let bytes = |numbers: &Numbers| numbers.rates().map(|rates| rates.bytes.to_string());
        assert_eq!(bytes(&numbers).as_deref(), Some("2000"));
        take(&mut numbers, report(3_100, 9_000));
        assert_eq!(bytes(&numbers).as_deref(), Some("2000"), "too soon to say");
        take(&mut numbers, report(4_000, 9_500));
        assert_eq!(numbers.past(3, |rates| rates.bytes), [0, 2_000, 500]);
        take(&mut numbers, report(500, 1));
        assert!(numbers.rates().is_none(), "another daemon");
    }

    #[test]
    fn bounds_are_rounded_up() {
        let told: Vec<_> = [0, 999, 1_000, 1_001, 1_280, 12_100, 1_048_576, 61_000_000].map(duration).into();
        assert_eq!(told, ["0us", "999us", "1ms", "1.1ms", "1.3ms", "13ms", "1.1s", "1m 1s"]);
        assert_eq!([5, 65, 3_700, 90_000].map(|seconds| span(seconds * 1_000)), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn rates_are_short() {
        assert_eq!([0.0, 0.44, 9.96, 12_345.6].map(rate), ["0", "0.4", "10", "12,346"]);
        assert_eq!(hit_share(99_999.0, 1.0).as_deref(), Some("99.9%"));
        assert_eq!(hit_share(0.0, 0.0), None);
    }
}
