//! Every metric's name, unit and meaning.
//!
//! One [`Metrics`] lives in the daemon and is handed down; [`Metrics::render`]
//! gives the text that `larder metrics` prints (the `OpenMetrics` text format,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

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
    /// `larder_damaged_total`: cached objects dropped because their checksum was wrong.
    pub damaged: Counter,
    /// `larder_evicted_total`: objects taken out to make room.
    pub evicted_objects: Counter,
    /// `larder_evicted_bytes_total`: bytes they took as stored.
    pub evicted_bytes: Counter,
    /// `larder_queue_depth`: wants waiting for a connection.
    pub queue_depth: Gauge,
    /// `larder_inflight_objects`: objects asked for on a connection and not yet here.
    pub inflight_objects: Gauge,
    /// `larder_waiters`: readers and warms that wait for a remote now.
    pub waiters: Gauge,
    /// `larder_tasks`: tasks of the daemon's runtime that are alive; the same when nothing goes on.
    pub tasks: Gauge,
    /// `larder_read_seconds`: time to answer a read of the kernel's.
    pub read_seconds: Histogram,
    /// `larder_hydration_seconds`: time a reader waited for an object.
    pub hydration_seconds: Histogram,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        // 10 us … 40 s in steps of four: spans a cached read and the time-out.
        let seconds = || Histogram::new(exponential_buckets(1e-5, 4.0, 12));
        let mut metrics = Self {
            remote_requests: Counter::default(),
            remote_objects: Counter::default(),
            remote_bytes: Counter::default(),
            remote_failures: Counter::default(),
            hits: Counter::default(),
            misses: Counter::default(),
            damaged: Counter::default(),
            evicted_objects: Counter::default(),
            evicted_bytes: Counter::default(),
            queue_depth: Gauge::default(),
            inflight_objects: Gauge::default(),
            waiters: Gauge::default(),
            tasks: Gauge::default(),
            read_seconds: seconds(),
            hydration_seconds: seconds(),
            registry: Registry::with_prefix("larder"),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// The current values as Prometheus text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("remote_requests", "Requests sent to remotes", self.remote_requests.clone());
        r.register("remote_objects", "Objects received and verified", self.remote_objects.clone());
        r.register("remote_bytes", "Raw bytes of objects received", self.remote_bytes.clone());
        r.register("remote_failures", "Requests to remotes that failed", self.remote_failures.clone());
        r.register("hits", "Reads answered from the cache", self.hits.clone());
        r.register("misses", "Reads that waited for a remote", self.misses.clone());
        r.register("damaged", "Cached objects dropped because their checksum was wrong", self.damaged.clone());
        r.register("evicted", "Objects taken out to make room", self.evicted_objects.clone());
        r.register("evicted_bytes", "Stored bytes of objects taken out to make room", self.evicted_bytes.clone());
        r.register("queue_depth", "Wants waiting for a connection", self.queue_depth.clone());
        r.register("inflight_objects", "Objects asked for and not yet here", self.inflight_objects.clone());
        r.register("waiters", "Readers and warms that wait for a remote now", self.waiters.clone());
        r.register("tasks", "Tasks of the runtime that are alive", self.tasks.clone());
        r.register("read_seconds", "Time to answer a read", self.read_seconds.clone());
        r.register("hydration_seconds", "Time a reader waited for an object", self.hydration_seconds.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_scripts_rely_on() {
        let metrics = Metrics::default();
        metrics.remote_requests.inc();
        let text = metrics.render();
        for name in [
            "larder_remote_requests_total 1",
            "larder_remote_objects_total 0",
            "larder_hits_total 0",
            "larder_misses_total 0",
            "larder_queue_depth 0",
        ] {
            assert!(text.lines().any(|line| line == name), "{name} in\n{text}");
        }
    }
}
