//! Every metric's name, unit and meaning.
//!
//! One [`Metrics`] lives in the daemon and is handed down; [`Metrics::render`]
//! gives the text that `larder metrics` prints (the `OpenMetrics` text format,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>). What is only
//! counted when somebody asks is a [`Snapshot`]. docs/metrics.md has them all
//! in a table, which a test compares with what is exported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A gauge with one label.
type Labelled = Family<[(&'static str, &'static str); 1], Gauge>;

/// The daemon's counters, gauges and histograms.
#[derive(Debug)]
pub struct Metrics {
    /// `larder_remote_requests_total`: requests sent to remotes (fetches and size queries, not ref listings).
    pub remote_requests: Counter,
    /// `larder_remote_objects_total`: objects received and verified.
    pub remote_objects: Counter,
    /// `larder_remote_bytes_total`: raw bytes of those objects.
    pub remote_bytes: Counter,
    /// `larder_remote_failures_total`: requests that failed, retried ones included.
    pub remote_failures: Counter,
    /// `larder_hits_total`: reads answered from the cache.
    pub hits: Counter,
    /// `larder_misses_total`: reads that had to wait for a remote.
    pub misses: Counter,
    /// `larder_read_failures_total`: reads and questions for sizes that failed because the object could not be had.
    pub read_failures: Counter,
    /// `larder_evicted_total`: objects taken out to make room.
    pub evicted_objects: Counter,
    /// `larder_evicted_bytes_total`: bytes they took as stored.
    pub evicted_bytes: Counter,
    /// `larder_metrics_listening`: whether the address that the settings name is served.
    pub listening: Gauge,
    /// `larder_read_seconds`: time to answer a read of the kernel's.
    pub read_seconds: Latency,
    /// `larder_hydration_seconds`: time a reader waited for an object.
    pub hydration_seconds: Latency,
    counted: Counted,
    registry: Registry,
}

/// Where a [`Snapshot`] is kept for rendering.
#[derive(Debug, Default)]
struct Counted {
    queue_depth: Gauge,
    queue_objects: Labelled,
    inflight_objects: Gauge,
    waiters: Gauge,
    tasks: Gauge,
    mounts: Gauge,
    workspaces: Labelled,
    remotes_offline: Gauge,
    cache_objects: Gauge,
    cache_trees: Gauge,
    cache_raw_bytes: Gauge,
    cache_stored_bytes: Gauge,
    cache_file_bytes: Gauge,
    cache_limit_bytes: Gauge,
    disk_free_bytes: Gauge,
    damaged: Counter,
    fetch_records_lost: Counter,
}

/// What is counted only when somebody asks.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Wants waiting for a connection.
    pub queue_depth: usize,
    /// Of these, by class.
    pub queue_objects: Vec<(&'static str, usize)>,
    /// Objects asked for on a connection and not yet here.
    pub inflight_objects: usize,
    /// Readers and warms that wait for a remote now.
    pub waiters: usize,
    /// Tasks of the daemon's runtime that are alive; the same when nothing goes on.
    pub tasks: usize,
    /// Mounts of this daemon.
    pub mounts: usize,
    /// Workspaces, by state.
    pub workspaces: Vec<(&'static str, usize)>,
    /// Repositories whose remote could not be reached when it was last asked.
    pub remotes_offline: usize,
    /// Blobs in the cache.
    pub cache_objects: u64,
    /// Trees in the cache.
    pub cache_trees: u64,
    /// Raw bytes of the blobs.
    pub cache_raw_bytes: u64,
    /// Bytes they take as stored.
    pub cache_stored_bytes: u64,
    /// Bytes of the store's file on disk.
    pub cache_file_bytes: u64,
    /// Most bytes it may have.
    pub cache_limit_bytes: u64,
    /// Bytes free on its disk.
    pub disk_free_bytes: u64,
    /// Cached objects dropped because their checksum was wrong, since the start.
    pub damaged: u64,
    /// Records of fetches that were not kept, since the start.
    pub fetch_records_lost: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            remote_requests: Counter::default(),
            remote_objects: Counter::default(),
            remote_bytes: Counter::default(),
            remote_failures: Counter::default(),
            hits: Counter::default(),
            misses: Counter::default(),
            read_failures: Counter::default(),
            evicted_objects: Counter::default(),
            evicted_bytes: Counter::default(),
            listening: Gauge::default(),
            read_seconds: Latency::default(),
            hydration_seconds: Latency::default(),
            counted: Counted::default(),
            registry: Registry::with_prefix("larder"),
        };
        metrics.register_events();
        metrics.register_counted();
        metrics
    }
}

impl Metrics {
    /// The current values as Prometheus text.
    pub fn render(&self, now: &Snapshot) -> String {
        self.counted.take(now);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn register_events(&mut self) {
        let r = &mut self.registry;
        r.register("build", "The daemon's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let started = Gauge::<i64>::default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        started.set(since.try_into().unwrap_or(i64::MAX));
        r.register_with_unit("start_time", "When the daemon started, since 1970 UTC", Unit::Seconds, started);
        r.register("remote_requests", "Requests sent to remotes", self.remote_requests.clone());
        r.register("remote_objects", "Objects received and verified", self.remote_objects.clone());
        r.register_with_unit("remote", "Raw bytes of objects received", Unit::Bytes, self.remote_bytes.clone());
        r.register("remote_failures", "Requests to remotes that failed", self.remote_failures.clone());
        r.register("hits", "Reads answered from the cache", self.hits.clone());
        r.register("misses", "Reads that waited for a remote", self.misses.clone());
        let help = "Reads and questions for sizes that failed because an object could not be had";
        r.register("read_failures", help, self.read_failures.clone());
        r.register("evicted", "Objects taken out to make room", self.evicted_objects.clone());
        let help = "Stored bytes of objects taken out to make room";
        r.register_with_unit("evicted", help, Unit::Bytes, self.evicted_bytes.clone());
        let help = "1 while metrics are served at the address that metrics.listen names";
        r.register("metrics_listening", help, self.listening.clone());
        r.register_with_unit("read", "Time to answer a read", Unit::Seconds, self.read_seconds.exported.clone());
        let help = "Time a reader waited for an object";
        r.register_with_unit("hydration", help, Unit::Seconds, self.hydration_seconds.exported.clone());
    }

    fn register_counted(&mut self) {
        let (r, c) = (&mut self.registry, &self.counted);
        r.register("queue_depth", "Wants waiting for a connection", c.queue_depth.clone());
        r.register("queue_objects", "Wants waiting for a connection, by class", c.queue_objects.clone());
        r.register("inflight_objects", "Objects asked for and not yet here", c.inflight_objects.clone());
        r.register("waiters", "Readers and warms that wait for a remote now", c.waiters.clone());
        r.register("tasks", "Tasks of the runtime that are alive", c.tasks.clone());
        r.register("mounts", "Mounts of this daemon", c.mounts.clone());
        r.register("workspaces", "Workspaces, by state", c.workspaces.clone());
        let help = "Repositories whose remote could not be reached when it was last asked";
        r.register("remotes_offline", help, c.remotes_offline.clone());
        r.register("cache_objects", "Blobs in the cache", c.cache_objects.clone());
        r.register("cache_trees", "Trees in the cache", c.cache_trees.clone());
        r.register_with_unit("cache_raw", "Raw bytes of the blobs", Unit::Bytes, c.cache_raw_bytes.clone());
        let help = "Bytes that the blobs take as stored";
        r.register_with_unit("cache_stored", help, Unit::Bytes, c.cache_stored_bytes.clone());
        let help = "Bytes of the store's file on disk";
        r.register_with_unit("cache_file", help, Unit::Bytes, c.cache_file_bytes.clone());
        let help = "Most bytes that the store's file may have";
        r.register_with_unit("cache_limit", help, Unit::Bytes, c.cache_limit_bytes.clone());
        r.register_with_unit("disk_free", "Bytes free on the store's disk", Unit::Bytes, c.disk_free_bytes.clone());
        r.register("damaged", "Cached objects dropped because their checksum was wrong", c.damaged.clone());
        let help = "Records of fetches that were not kept because too many came at once";
        r.register("fetch_records_lost", help, c.fetch_records_lost.clone());
    }
}

impl Counted {
    fn take(&self, now: &Snapshot) {
        let count = |gauge: &Gauge, count: usize| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        let amount = |gauge: &Gauge, amount: u64| gauge.set(i64::try_from(amount).unwrap_or(i64::MAX));
        count(&self.queue_depth, now.queue_depth);
        for (class, objects) in &now.queue_objects {
            count(&self.queue_objects.get_or_create(&[("class", class)]), *objects);
        }
        count(&self.inflight_objects, now.inflight_objects);
        count(&self.waiters, now.waiters);
        count(&self.tasks, now.tasks);
        count(&self.mounts, now.mounts);
        for (state, workspaces) in &now.workspaces {
            count(&self.workspaces.get_or_create(&[("state", state)]), *workspaces);
        }
        count(&self.remotes_offline, now.remotes_offline);
        amount(&self.cache_objects, now.cache_objects);
        amount(&self.cache_trees, now.cache_trees);
        amount(&self.cache_raw_bytes, now.cache_raw_bytes);
        amount(&self.cache_stored_bytes, now.cache_stored_bytes);
        amount(&self.cache_file_bytes, now.cache_file_bytes);
        amount(&self.cache_limit_bytes, now.cache_limit_bytes);
        amount(&self.disk_free_bytes, now.disk_free_bytes);
        self.damaged.inner().store(now.damaged, Ordering::Relaxed);
        self.fetch_records_lost.inner().store(now.fetch_records_lost, Ordering::Relaxed);
    }
}

/// Buckets of [`Latency::counts`]: four to each power of two microseconds, up to a minute.
const LATENCY_BUCKETS: usize = 104;

/// A histogram of times: exported in few buckets, and counted in finer ones, since the exported one can't be read back.
#[derive(Debug)]
pub struct Latency {
    exported: Histogram,
    counts: Box<[AtomicU64; LATENCY_BUCKETS]>,
}

impl Default for Latency {
    fn default() -> Self {
        // 10 us … 40 s in steps of four: spans a cached read and the time-out.
        let exported = Histogram::new(exponential_buckets(1e-5, 4.0, 12));
        Self { exported, counts: Box::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }
}

impl Latency {
    /// Counts something that took `seconds`.
    pub fn observe(&self, seconds: f64) {
        self.exported.observe(seconds);
        // What is no number is 0, what is beyond is the most there is: both are counted.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and microseconds do")]
        let microseconds = (seconds * 1e6) as u64;
        self.counts[Self::bucket(microseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// The buckets that counted anything: the microseconds all that is in it stayed below (`None`: there is no such
    /// bound), and how many that were since the start.
    pub fn counts(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(bucket, count)| (Self::below(bucket), count))
    }

    fn bucket(microseconds: u64) -> usize {
        let Some(octave @ 2..) = microseconds.checked_ilog2() else {
            return usize::try_from(microseconds).expect("less than four");
        };
        let quarter = usize::try_from(microseconds >> (octave - 2) & 3).expect("less than four");
        ((octave as usize - 1) * 4 + quarter).min(LATENCY_BUCKETS - 1)
    }

    /// The first time that is no longer in `bucket`.
    fn below(bucket: usize) -> Option<u64> {
        match (bucket / 4, bucket as u64 % 4) {
            (0, quarter) => Some(quarter + 1),
            _ if bucket == LATENCY_BUCKETS - 1 => None,
            (octave, quarter) => Some((4 + quarter + 1) << (octave - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_counted_below_its_bound() {
        let times = (0..5_000).chain((0..64).map(|bit| 1 << bit)).chain([u64::MAX]);
        for time in times {
            let bucket = Latency::bucket(time);
            assert!(Latency::below(bucket).is_none_or(|below| time < below), "{time} in {bucket}");
            let before = bucket.checked_sub(1).and_then(Latency::below);
            assert!(before.is_none_or(|below| below <= time), "{time} in {bucket}");
        }
        let latency = Latency::default();
        for seconds in [0.0, 3.5e-6, 1e-3, 1e-3, 1e9, f64::NAN, -1.0] {
            latency.observe(seconds);
        }
        let counts: Vec<_> = latency.counts().collect();
        assert_eq!(counts, [(Some(1), 3), (Some(4), 1), (Some(1_024), 2), (None, 1)]);
    }

    #[test]
    fn names_are_those_scripts_rely_on() {
        let metrics = Metrics::default();
        metrics.remote_requests.inc();
        metrics.evicted_bytes.inc_by(7);
        let now = Snapshot { queue_objects: vec![("read", 3)], fetch_records_lost: 2, ..Snapshot::default() };
        let text = metrics.render(&now);
        for name in [
            "larder_remote_requests_total 1",
            "larder_remote_objects_total 0",
            "larder_remote_bytes_total 0",
            "larder_evicted_total 0",
            "larder_evicted_bytes_total 7",
            "larder_hits_total 0",
            "larder_misses_total 0",
            "larder_queue_depth 0",
            "larder_queue_objects{class=\"read\"} 3",
            "larder_fetch_records_lost_total 2",
            "# TYPE larder_read_seconds histogram",
            "# TYPE larder_hydration_seconds histogram",
        ] {
            assert!(text.lines().any(|line| line == name), "{name} in\n{text}");
        }
    }
}
