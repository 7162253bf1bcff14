//! The settings, each a documented default that `config.toml` may replace.
//!
//! Owns the defaults and their reasons; the keys and their bounds are in `keys`.

use std::time::Duration;

use super::endpoint::{Endpoint, Listen};
use super::words::{HistoryMode, LogFormat, LogLevel, Prefetch};

/// A remote that sends nothing for this long is given up: longer than any pause of a healthy server packing objects,
/// short enough that a reader is not left hanging.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);
/// Two connections hide one's latency behind the other's transfer; more only make the server search deltas in parallel.
const NETWORK_CONNECTIONS: usize = 2;
/// Prefetch waits this long for company: under a tenth of a common round trip, long enough for a burst of wants to
/// share one. A read leaves at once when a connection is free: it would pay the wait in full.
const HYDRATE_COALESCE: Duration = Duration::from_millis(2);
/// From 256 objects on, a request's own cost is lost in theirs (measured; FACTS: 4,096 blobs in 0.95 s).
const HYDRATE_BATCH_OBJECTS: usize = 256;
/// Bytes of known size in one request: what a slow line carries within the time-out, and what may be in memory at once.
const HYDRATE_BATCH_BYTES: u64 = 8 << 20;
/// Wants queued; at about 200 bytes each they take 13 MB. Beyond it prefetch waits or is refused; reads are always
/// taken.
const HYDRATE_QUEUE_OBJECTS: usize = 65_536;
/// Asked for and not yet here: two requests of a warm, so that the server packs one while the other is sent.
const HYDRATE_INFLIGHT_OBJECTS: usize = 65_536;
/// Known raw size of those. They are on the way, not in memory; this only keeps what a lost connection throws away
/// small beside a repository.
const HYDRATE_INFLIGHT_BYTES: u64 = 2 << 30;
/// Arrived and not yet in the store: some commits' worth, so that the network does not wait for every sync of the disk,
/// and little beside what a developer's machine has.
const HYDRATE_MEMORY_BYTES: u64 = 32 << 20;
/// Objects in one request of a warm. Large ones let the server reuse the deltas it has on disk; two of this size fill
/// [`HYDRATE_INFLIGHT_OBJECTS`].
const HYDRATE_WARM_OBJECTS: usize = 32_768;
/// A waiter older than this is written to the log: longer than a slow request takes, shorter than the network's
/// time-out, so that the log says who waited before the failure says why.
const HYDRATE_WATCHDOG: Duration = Duration::from_secs(10);
/// Four more attempts, with backoff, outlast a server's restart and stay within a reader's patience.
const HYDRATE_RETRIES: usize = 4;
/// Holds the rows of a 78k workspace and the chunks in use; the operating system's page cache holds the rest.
const STORE_CACHE_BYTES: u64 = 32 << 20;
/// Two session threads: one answers while the other is in the kernel; four measured slower.
const FUSE_THREADS: usize = 2;
/// A log file is rotated at this size: a day of `info`, and still opened at once by an editor.
const LOG_MAX_BYTES: u64 = 8 << 20;
/// Rotated files kept, the current one included: with [`LOG_MAX_BYTES`] at most 32 MiB of log.
const LOG_FILES: usize = 4;
/// A filter driver that does nothing for this long is killed. Git LFS is silent while it downloads a file, so this is time
/// for a gigabyte on a slow line; its readers can be interrupted sooner.
const GIT_FILTER_TIMEOUT: Duration = Duration::from_mins(10);
/// The cache takes at most this part of its disk, but [`CACHE_LEAST_BYTES`] at least.
const CACHE_DISK_PART: u64 = 10;
/// Less would not hold what one large repository shows.
const CACHE_LEAST_BYTES: u64 = 10 << 30;
/// Space left free on the disk of the cache, whatever its size may be: builds and editors need some.
const CACHE_MIN_FREE: u64 = 1 << 30;

/// No more than this part of a small disk is left free: else nothing could be mounted there.
const CACHE_FREE_PART: u64 = 20;
/// Generations of a workspace kept beside the one it shows: what one goes back to in a day's work.
const GENERATIONS_KEEP: usize = 10;
/// Older generations go: whoever comes back after two weeks fetches again.
const GENERATIONS_MAX_AGE: Duration = Duration::from_hours(14 * 24);
/// What no generation names goes when it was not used for this long: long enough for a history that is being read.
const GC_GRACE: Duration = Duration::from_hours(7 * 24);
/// Time between two collections the daemon starts by itself.
const GC_INTERVAL: Duration = Duration::from_hours(6);
/// Largest pack taken in one go from a server without filters; beyond it the user is asked (`--allow-full`).
const GIT_MAX_UNFILTERED_BYTES: u64 = 256 << 20;
/// Bytes a second that `larder verify` reads while something is mounted: a small part of what a disk gives and of what one
/// CPU hashes, so that readers notice little, and still 200 GiB in an hour.
const VERIFY_RATE: u64 = 64 << 20;
/// Records of fetches that are kept: ten megabytes, and some days of work.
const WHY_RECORDS: usize = 65_536;

/// What `config.toml` can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[network]`
    pub network: Network,
    /// `[hydrate]`
    pub hydrate: Hydrate,
    /// `[store]`
    pub store: Store,
    /// `[fuse]`
    pub fuse: Fuse,
    /// `[log]`
    pub log: Log,
    /// `[git]`
    pub git: Git,
    /// `[cache]`
    pub cache: Cache,
    /// `[generations]`
    pub generations: Generations,
    /// `[gc]`
    pub gc: Gc,
    /// `[verify]`
    pub verify: Verify,
    /// `[why]`
    pub why: Why,
    /// `[metrics]`
    pub metrics: MetricsSettings,
    /// `[otlp]`
    pub otlp: Otlp,
}

/// `larder verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Bytes read a second while something is mounted; zero: as many as can be.
    pub rate: u64,
}

impl Default for Verify {
    fn default() -> Self {
        Self { rate: VERIFY_RATE }
    }
}

/// Records of what caused fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The newest that are kept; zero: nothing is recorded.
    pub records: usize,
}

impl Default for Why {
    fn default() -> Self {
        Self { records: WHY_RECORDS }
    }
}

/// Where metrics can be asked for, besides `larder metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// A port or socket; `None`: none.
    pub listen: Option<Listen>,
}

/// Export of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Otlp {
    /// The collector; `None`: nothing is exported.
    pub endpoint: Option<Endpoint>,
}

/// How much the cache may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// Bytes of the store's file at most; `None`: a tenth of its disk, at least 10 GiB.
    pub max_size: Option<u64>,
    /// Bytes left free on its disk; `None`: 1 GiB, on a small disk a twentieth of it.
    pub min_free: Option<u64>,
}

impl Cache {
    /// Bytes of the store's file at most, on a disk of `disk_bytes`.
    pub fn limit(&self, disk_bytes: u64) -> u64 {
        self.max_size.unwrap_or_else(|| (disk_bytes / CACHE_DISK_PART).max(CACHE_LEAST_BYTES))
    }

    /// Bytes left free on a disk of `disk_bytes`.
    pub fn spared(&self, disk_bytes: u64) -> u64 {
        self.min_free.unwrap_or_else(|| CACHE_MIN_FREE.min(disk_bytes / CACHE_FREE_PART))
    }
}

/// Which generations are kept beside the one a workspace shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generations {
    /// How many of a workspace.
    pub keep: usize,
    /// How old at most.
    pub max_age: Duration,
}

/// Garbage collection the daemon starts by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gc {
    /// Time between two; zero: never.
    pub interval: Duration,
    /// What no root names goes when it was not used for this long.
    pub grace: Duration,
}

/// Exchanges with remotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Longest silence of a remote before it counts as gone.
    pub timeout: Duration,
    /// Connections kept per repository.
    pub connections: usize,
}

/// Fetching what is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hydrate {
    /// How long prefetch waits for company; a read leaves at once when a connection is free.
    pub coalesce: Duration,
    /// Most objects in a batch.
    pub batch_objects: usize,
    /// Most bytes of known size in a batch.
    pub batch_bytes: u64,
    /// What takes a directory's missing files along.
    pub prefetch: Prefetch,
    /// Most wants queued; beyond it prefetch waits or is refused.
    pub queue_objects: usize,
    /// Most objects asked for and not yet here, over all connections of a repository.
    pub inflight_objects: usize,
    /// Most bytes of known raw size among those.
    pub inflight_bytes: u64,
    /// Most bytes arrived and not yet in the store; beyond it reading from the network waits.
    pub memory_bytes: u64,
    /// Most objects in one request of a warm.
    pub warm_objects: usize,
    /// A waiter older than this is written to the log.
    pub watchdog: Duration,
    /// Globs of file names that are prefetched as manifests, before the built-in table.
    pub manifests: Vec<String>,
    /// Globs of file names that are prefetched as source code, before the built-in table.
    pub sources: Vec<String>,
    /// Globs of file names that are prefetched as other text, before the built-in table.
    pub texts: Vec<String>,
    /// Globs of file names that are prefetched last, before the built-in table.
    pub last: Vec<String>,
    /// Further attempts after a transient failure.
    pub retries: usize,
}

/// The redb file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// redb's page cache.
    pub cache_bytes: u64,
}

/// The FUSE session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fuse {
    /// Session threads of one mount.
    pub threads: usize,
}

/// The daemon's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe events written.
    pub level: LogLevel,
    /// How they are written.
    pub format: LogFormat,
    /// Size at which the file is rotated.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub files: usize,
}

/// Git's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// Most bytes taken from a server that cannot leave blobs out.
    pub max_unfiltered_bytes: u64,
    /// Whether the history below what was mounted is fetched in the background.
    pub history: HistoryMode,
    /// Longest silence of a filter driver before it is killed.
    pub filter_timeout: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self { timeout: NETWORK_TIMEOUT, connections: NETWORK_CONNECTIONS }
    }
}

impl Default for Hydrate {
    fn default() -> Self {
        Self {
            coalesce: HYDRATE_COALESCE,
            batch_objects: HYDRATE_BATCH_OBJECTS,
            batch_bytes: HYDRATE_BATCH_BYTES,
            prefetch: Prefetch::OnRead,
            queue_objects: HYDRATE_QUEUE_OBJECTS,
            inflight_objects: HYDRATE_INFLIGHT_OBJECTS,
            inflight_bytes: HYDRATE_INFLIGHT_BYTES,
            memory_bytes: HYDRATE_MEMORY_BYTES,
            warm_objects: HYDRATE_WARM_OBJECTS,
            watchdog: HYDRATE_WATCHDOG,
            manifests: Vec::new(),
            sources: Vec::new(),
            texts: Vec::new(),
            last: Vec::new(),
            retries: HYDRATE_RETRIES,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { cache_bytes: STORE_CACHE_BYTES }
    }
}

impl Default for Fuse {
    fn default() -> Self {
        Self { threads: FUSE_THREADS }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text, max_bytes: LOG_MAX_BYTES, files: LOG_FILES }
    }
}

impl Default for Git {
    fn default() -> Self {
        Self {
            max_unfiltered_bytes: GIT_MAX_UNFILTERED_BYTES,
            history: HistoryMode::Background,
            filter_timeout: GIT_FILTER_TIMEOUT,
        }
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self { keep: GENERATIONS_KEEP, max_age: GENERATIONS_MAX_AGE }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self { interval: GC_INTERVAL, grace: GC_GRACE }
    }
}
