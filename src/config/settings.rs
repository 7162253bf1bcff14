//! The settings, each a documented default that `config.toml` may replace.
//!
//! One table says which keys exist and within which bounds; nothing else reads
//! the file. A key that is not in it is an error that names the nearest one.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::ConfigError;
use super::quantity::{human_bytes, parse_bytes, parse_duration};

/// A remote that sends nothing for this long is given up: longer than any pause of a healthy server packing objects,
/// short enough that a reader is not left hanging.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);
/// Two connections hide one's latency behind the other's transfer; more only make the server search deltas in parallel.
const NETWORK_CONNECTIONS: usize = 2;
/// Wants are collected this long: under a tenth of a common round trip, long enough for a burst of readers to share one.
const HYDRATE_COALESCE: Duration = Duration::from_millis(2);
/// From 256 objects on, a request's own cost is lost in theirs (measured; FACTS: 4,096 blobs in 0.95 s).
const HYDRATE_BATCH_OBJECTS: usize = 256;
/// Bytes of known size in one request: what a slow line carries within the time-out, and what may be in memory at once.
const HYDRATE_BATCH_BYTES: u64 = 8 << 20;
/// Four more attempts, with backoff, outlast a server's restart and stay within a reader's patience.
const HYDRATE_RETRIES: u32 = 4;
/// Holds the rows of a 78k workspace and the chunks in use; the operating system's page cache holds the rest.
const STORE_CACHE_BYTES: u64 = 32 << 20;
/// Two session threads: one answers while the other is in the kernel; four measured slower.
const FUSE_THREADS: usize = 2;
/// A log file is rotated at this size: a day of `info`, and still opened at once by an editor.
const LOG_MAX_BYTES: u64 = 8 << 20;
/// Rotated files kept, the current one included: with [`LOG_MAX_BYTES`] at most 32 MiB of log.
const LOG_FILES: usize = 4;
/// Largest pack taken in one go from a server without filters; beyond it the user is asked (`--allow-full`).
const GIT_MAX_UNFILTERED_BYTES: u64 = 256 << 20;

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
    /// How long wants are collected before a batch leaves.
    pub coalesce: Duration,
    /// Most objects in a batch.
    pub batch_objects: usize,
    /// Most bytes of known size in a batch.
    pub batch_bytes: u64,
    /// Whether a read takes the unhydrated siblings of its directory along.
    pub siblings: bool,
    /// Further attempts after a transient failure.
    pub retries: u32,
}

/// The redb file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// redb's page cache.
    pub cache_bytes: usize,
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
            siblings: true,
            retries: HYDRATE_RETRIES,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { cache_bytes: usize::try_from(STORE_CACHE_BYTES).expect("32 MiB fits every usize Linux has") }
    }
}

impl Default for Fuse {
    fn default() -> Self {
        Self { threads: FUSE_THREADS }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, max_bytes: LOG_MAX_BYTES, files: LOG_FILES }
    }
}

impl Default for Git {
    fn default() -> Self {
        Self { max_unfiltered_bytes: GIT_MAX_UNFILTERED_BYTES }
    }
}

/// Severity of a log event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what went wrong.
    Error,
    /// And what may go wrong.
    Warn,
    /// And what was done.
    Info,
    /// And how.
    Debug,
    /// And every step of it.
    Trace,
}

impl LogLevel {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The level's name, as `config.toml` and `tracing` have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Stores a value into the settings, or says what is wrong with it.
type Set = fn(&mut Settings, &Value) -> Result<(), String>;

/// Every key there is, with its bounds.
const KEYS: &[(&str, Set)] = &[
    ("network.timeout", |s, v| {
        s.network.timeout = duration(v, Duration::from_secs(1)..=Duration::from_hours(1))?;
        Ok(())
    }),
    ("network.connections", |s, v| {
        s.network.connections = count(v, 1..=16)?;
        Ok(())
    }),
    ("hydrate.coalesce", |s, v| {
        s.hydrate.coalesce = duration(v, Duration::ZERO..=Duration::from_secs(1))?;
        Ok(())
    }),
    ("hydrate.batch_objects", |s, v| {
        s.hydrate.batch_objects = count(v, 1..=65_536)?;
        Ok(())
    }),
    ("hydrate.batch_bytes", |s, v| {
        s.hydrate.batch_bytes = bytes(v, 64 << 10..=1 << 30)?;
        Ok(())
    }),
    ("hydrate.siblings", |s, v| {
        s.hydrate.siblings = v.as_bool().ok_or("must be true or false")?;
        Ok(())
    }),
    ("hydrate.retries", |s, v| {
        s.hydrate.retries = u32::try_from(count(v, 0..=100)?).expect("at most 100");
        Ok(())
    }),
    ("store.cache_bytes", |s, v| {
        s.store.cache_bytes = usize::try_from(bytes(v, 1 << 20..=1 << 40)?).map_err(|_| "is too large")?;
        Ok(())
    }),
    ("fuse.threads", |s, v| {
        s.fuse.threads = count(v, 1..=64)?;
        Ok(())
    }),
    ("log.level", |s, v| {
        s.log.level = level(v)?;
        Ok(())
    }),
    ("log.max_bytes", |s, v| {
        s.log.max_bytes = bytes(v, 64 << 10..=1 << 30)?;
        Ok(())
    }),
    ("log.files", |s, v| {
        s.log.files = count(v, 1..=100)?;
        Ok(())
    }),
    ("git.max_unfiltered_bytes", |s, v| {
        s.git.max_unfiltered_bytes = bytes(v, 0..=1 << 50)?;
        Ok(())
    }),
];

/// The settings `text` asks for; `file` is named in errors.
pub(super) fn parse(text: &str, file: &Path) -> Result<Settings, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        ConfigError::Syntax { file: file.to_owned(), line, message: error.message().replace('\n', " ") }
    })?;
    let mut settings = Settings::default();
    for (section, value) in &table {
        let Value::Table(keys) = value else {
            return Err(unknown(file, section.clone()));
        };
        if !KEYS.iter().any(|(key, _)| key.split_once('.').is_some_and(|(name, _)| name == section)) && keys.is_empty()
        {
            return Err(unknown(file, section.clone()));
        }
        for (name, value) in keys {
            let key = format!("{section}.{name}");
            let Some((_, set)) = KEYS.iter().find(|(known, _)| *known == key) else {
                return Err(unknown(file, key));
            };
            set(&mut settings, value).map_err(|message| ConfigError::Value { file: file.to_owned(), key, message })?;
        }
    }
    Ok(settings)
}

fn unknown(file: &Path, key: String) -> ConfigError {
    // A third of a word wrong is a slip; more is another word.
    let within = (key.len() / 3).max(2);
    let suggestion = KEYS
        .iter()
        .map(|(known, _)| {
            let bare = known.split_once('.').map_or(*known, |(_, name)| name);
            (distance(&key, known).min(distance(&key, bare)), *known)
        })
        .filter(|(edits, _)| *edits <= within)
        .min()
        .map(|(_, known)| known);
    ConfigError::UnknownKey { file: file.to_owned(), key, suggestion }
}

/// Edits that turn one word into the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

fn count(value: &Value, within: RangeInclusive<usize>) -> Result<usize, String> {
    value
        .as_integer()
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| within.contains(number))
        .ok_or_else(|| format!("must be a whole number from {} to {}", within.start(), within.end()))
}

fn bytes(value: &Value, within: RangeInclusive<u64>) -> Result<u64, String> {
    let size = match value {
        Value::Integer(number) => u64::try_from(*number).map_err(|_| "must not be negative".to_owned())?,
        Value::String(text) => parse_bytes(text)?,
        _ => return Err("must be a size like \"8MiB\"".to_owned()),
    };
    if within.contains(&size) {
        return Ok(size);
    }
    Err(format!("must be from {} to {}", human_bytes(*within.start()), human_bytes(*within.end())))
}

fn duration(value: &Value, within: RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = parse_duration(value.as_str().ok_or("must be a duration like \"30s\"")?)?;
    if within.contains(&time) {
        return Ok(time);
    }
    let text = |time: &Duration| humantime::format_duration(*time).to_string();
    Err(format!("must be from {} to {}", text(within.start()), text(within.end())))
}

fn level(value: &Value) -> Result<LogLevel, String> {
    value
        .as_str()
        .and_then(|name| LogLevel::ALL.into_iter().find(|level| level.as_str() == name))
        .ok_or_else(|| format!("must be one of {}", LogLevel::ALL.map(LogLevel::as_str).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_can_be_set() {
        let text = r#"
            [network]
            timeout = "5s"
            connections = 3
            [hydrate]
            coalesce = "1ms"
            batch_objects = 7
            batch_bytes = "1MiB"
            siblings = false
            retries = 0
            [store]
            cache_bytes = 2097152
            [fuse]
            threads = 1
            [log]
            level = "trace"
            max_bytes = "1MB"
            files = 2
            [git]
            max_unfiltered_bytes = "0"
        "#;
        let expected = Settings {
            network: Network { timeout: Duration::from_secs(5), connections: 3 },
            hydrate: Hydrate {
                coalesce: Duration::from_millis(1),
                batch_objects: 7,
                batch_bytes: 1 << 20,
                siblings: false,
                retries: 0,
            },
            store: Store { cache_bytes: 2 << 20 },
            fuse: Fuse { threads: 1 },
            log: Log { level: LogLevel::Trace, max_bytes: 1_000_000, files: 2 },
            git: Git { max_unfiltered_bytes: 0 },
        };
        assert_eq!(read(text), Ok(expected));
        let mentioned = KEYS.iter().all(|(key, _)| text.contains(key.split_once('.').expect("dotted").1));
        assert!(mentioned, "a key is missing from this test");
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(read(""), Ok(Settings::default()));
        assert_eq!(read("[network]\n"), Ok(Settings::default()));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        for (text, nearest) in [
            ("[network]\ntimout = \"3s\"", "network.timeout"),
            ("[netwrk]\ntimeout = \"3s\"", "network.timeout"),
            ("retries = 3", "hydrate.retries"),
            ("[store]\ncache-bytes = 1", "store.cache_bytes"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.ends_with(&format!("did you mean {nearest:?}?")), "{error}");
        }
        let error = read("[colour]\nscheme = 1").expect_err("unknown");
        assert_eq!(error, "cannot use c.toml: there is no setting \"colour.scheme\"");
        assert!(read("[colour]").is_err());
    }

    #[test]
    fn values_of_the_wrong_type_or_size_are_refused() {
        for text in [
            "[network]\ntimeout = 30",
            "[network]\ntimeout = \"0s\"",
            "[network]\ntimeout = \"2h\"",
            "[network]\nconnections = 0",
            "[network]\nconnections = -1",
            "[hydrate]\nbatch_bytes = \"1\"",
            "[hydrate]\nbatch_bytes = -5",
            "[hydrate]\nsiblings = \"yes\"",
            "[log]\nlevel = \"loud\"",
            "[log.level]\nx = 1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn syntax_errors_name_their_line() {
        let error = read("[network]\n\ntimeout = = 3\n").expect_err("not TOML");
        assert!(error.starts_with("cannot read c.toml, line 3: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
