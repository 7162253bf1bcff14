//! Every setting there is: its name, bounds and meaning, and where its value is kept.
//!
//! One table; reading a file, `larder config show` and the table in docs/configuration.md follow from it. A new setting is
//! a field in `settings` with its default, an entry here and a row in that table, which a test compares with the entry.

use std::time::Duration;

use toml::de::DeValue;

use super::settings::Settings;
use super::value::Kind;

/// Longest age and interval: as good as never.
const LONGEST: Duration = years(100);

/// Every setting, by section.
static KEYS: &[&dyn Key] = &[
    &entry("network.timeout", secs(1)..=hours(1), |s| &mut s.network.timeout)
        .means("longest silence of a remote before it counts as gone"),
    &entry("network.connections", 1..=16, |s| &mut s.network.connections).means("connections kept for each repository"),
    &entry("hydrate.coalesce", secs(0)..=secs(1), |s| &mut s.hydrate.coalesce)
        .means("prefetch waits this long for company; a read leaves at once when a connection is free"),
    &entry("hydrate.batch_objects", 1..=65_536, |s| &mut s.hydrate.batch_objects).means("most objects in a request"),
    &entry("hydrate.batch_bytes", 64 << 10..=1 << 30, |s| &mut s.hydrate.batch_bytes)
        .means("most bytes of known size in a request"),
    &entry("hydrate.prefetch", (), |s| &mut s.hydrate.prefetch)
        .means("what takes the missing files of a directory along"),
    &entry("hydrate.manifests", (), |s| &mut s.hydrate.manifests).means("names of files that are prefetched first"),
    &entry("hydrate.sources", (), |s| &mut s.hydrate.sources).means("names of files that are prefetched second"),
    &entry("hydrate.texts", (), |s| &mut s.hydrate.texts).means("names of files that are prefetched third"),
    &entry("hydrate.last", (), |s| &mut s.hydrate.last).means("names of files that are prefetched last"),
    &entry("hydrate.queue_objects", 1_024..=1 << 22, |s| &mut s.hydrate.queue_objects)
        .means("most objects queued; beyond it prefetch waits or is refused"),
    &entry("hydrate.inflight_objects", 1..=1 << 22, |s| &mut s.hydrate.inflight_objects)
        .means("most objects asked for and not yet here, for each repository"),
    &entry("hydrate.inflight_bytes", 1 << 20..=1 << 40, |s| &mut s.hydrate.inflight_bytes)
        .means("most bytes of known size among those"),
    &entry("hydrate.memory_bytes", 16 << 20..=16 << 30, |s| &mut s.hydrate.memory_bytes)
        .means("most bytes arrived and not yet in the store; beyond it reading from the network waits"),
    &entry("hydrate.warm_objects", 256..=1 << 20, |s| &mut s.hydrate.warm_objects)
        .means("most objects in a request of `larder warm`"),
    &entry("hydrate.watchdog", millis(100)..=hours(1), |s| &mut s.hydrate.watchdog)
        .means("whoever waits longer is written to the log"),
    &entry("hydrate.retries", 0..=100, |s| &mut s.hydrate.retries)
        .means("further attempts after a failure that may pass"),
    &entry("store.cache_bytes", 1 << 20..=1 << 40, |s| &mut s.store.cache_bytes).means("memory for redb's page cache"),
    &entry("fuse.threads", 1..=64, |s| &mut s.fuse.threads).means("threads of each mount"),
    &entry("log.level", (), |s| &mut s.log.level).means("least severe events in the log").or_from("LARDER_LOG_LEVEL"),
    &entry("log.format", (), |s| &mut s.log.format)
        .means("lines for people, or a JSON object a line")
        .or_from("LARDER_LOG_FORMAT"),
    &entry("log.max_bytes", 64 << 10..=1 << 30, |s| &mut s.log.max_bytes).means("size at which the log is rotated"),
    &entry("log.files", 1..=100, |s| &mut s.log.files).means("log files kept, the current one included"),
    &entry("git.max_unfiltered_bytes", 0..=1 << 50, |s| &mut s.git.max_unfiltered_bytes)
        .means("most bytes taken from a server without filters"),
    &entry("git.history", (), |s| &mut s.git.history).means("whether the rest of the history follows after a mount"),
    &entry("git.filter_timeout", secs(1)..=hours(24), |s| &mut s.git.filter_timeout)
        .means("longest silence of a filter driver before it is killed"),
    &entry("cache.max_size", 32 << 20..=1 << 50, |s| &mut s.cache.max_size)
        .means("most bytes of the store's file")
        .if_unset("a tenth of the disk, at least 10GiB"),
    &entry("cache.min_free", 0..=1 << 50, |s| &mut s.cache.min_free)
        .means("space left free on the store's disk, whatever the cache may take")
        .if_unset("1GiB, at most a twentieth of the disk"),
    &entry("generations.keep", 0..=100_000, |s| &mut s.generations.keep)
        .means("generations kept of a workspace beside the one it shows"),
    &entry("generations.max_age", secs(0)..=LONGEST, |s| &mut s.generations.max_age).means("older ones are dropped"),
    &entry("gc.interval", secs(0)..=LONGEST, |s| &mut s.gc.interval)
        .means("time between two collections the daemon starts by itself; `\"0s\"`: never"),
    &entry("gc.grace", secs(0)..=LONGEST, |s| &mut s.gc.grace)
        .means("what no generation names stays so long after its last use, as far as the daemon decides"),
    &entry("verify.rate", 0..=1 << 40, |s| &mut s.verify.rate)
        .means("most bytes a second that `larder verify` reads while something is mounted; `\"0B\"`: no limit"),
    &entry("why.records", 0..=10_000_000, |s| &mut s.why.records)
        .means("most records of fetches kept for `larder why`, the newest; `0`: nothing is recorded"),
    &entry("metrics.listen", (), |s| &mut s.metrics.listen)
        .means("where the daemon answers `GET /metrics` over HTTP")
        .if_unset("nowhere"),
    &entry("otlp.endpoint", (), |s| &mut s.otlp.endpoint)
        .means("OpenTelemetry collector that spans are sent to; needs a build with the feature `otlp`")
        .if_unset("none")
        .or_from("OTEL_EXPORTER_OTLP_ENDPOINT"),
];

/// Every setting there is.
pub fn keys() -> impl Iterator<Item = &'static dyn Key> {
    KEYS.iter().copied()
}

/// One setting.
pub trait Key: Sync {
    /// Its dotted name.
    fn name(&self) -> &'static str;

    /// What kind of value it has: `count`, `size`, `duration`, `word`, `patterns` or `address`.
    fn kind(&self) -> &'static str;

    /// Its bounds, for people.
    fn range(&self) -> String;

    /// What it is for, in a line.
    fn meaning(&self) -> &'static str;

    /// What holds while it is not set, where that is no value; else empty.
    fn unset(&self) -> &'static str;

    /// The environment variable that comes before the file.
    fn variable(&self) -> Option<&'static str>;

    /// Sets it, or says what is wrong with the value.
    fn set(&self, settings: &mut Settings, value: &DeValue<'_>) -> Result<(), String>;

    /// Its value in `settings` as TOML; `None`: it is not set.
    fn show(&self, settings: &Settings) -> Option<String>;

    /// Its value in `settings` for programs: sizes in bytes, durations in seconds, null where it is not set.
    fn json(&self, settings: &Settings) -> serde_json::Value;

    /// Its default as [`Self::show`] writes it, or in words.
    fn default(&self) -> String {
        self.show(&Settings::default()).unwrap_or_else(|| self.unset().to_owned())
    }
}

struct Entry<T: Kind> {
    name: &'static str,
    bounds: T::Bounds,
    place: fn(&mut Settings) -> &mut T,
    meaning: &'static str,
    unset: &'static str,
    variable: Option<&'static str>,
}

const fn entry<T: Kind>(name: &'static str, bounds: T::Bounds, place: fn(&mut Settings) -> &mut T) -> Entry<T> {
    Entry { name, bounds, place, meaning: "", unset: "", variable: None }
}

impl<T: Kind> Entry<T> {
    const fn means(mut self, meaning: &'static str) -> Self {
        self.meaning = meaning;
        self
    }

    const fn if_unset(mut self, what: &'static str) -> Self {
        self.unset = what;
        self
    }

    const fn or_from(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn hours(count: u64) -> Duration {
    Duration::from_hours(count)
}

/// Years as durations are written with, a leap day in four of them.
const fn years(count: u64) -> Duration {
    Duration::from_hours(count * 8766)
}

impl<T: Kind> Key for Entry<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> &'static str {
        T::NAME
    }

    fn range(&self) -> String {
        T::range(&self.bounds)
    }

    fn meaning(&self) -> &'static str {
        self.meaning
    }

    fn unset(&self) -> &'static str {
        self.unset
    }

    fn variable(&self) -> Option<&'static str> {
        self.variable
    }

    fn set(&self, settings: &mut Settings, value: &DeValue<'_>) -> Result<(), String> {
        *(self.place)(settings) = T::read(value, &self.bounds)?;
        Ok(())
    }

    fn show(&self, settings: &Settings) -> Option<String> {
        (self.place)(&mut settings.clone()).show()
    }

    fn json(&self, settings: &Settings) -> serde_json::Value {
        (self.place)(&mut settings.clone()).json()
    }
}
