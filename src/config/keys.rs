//! Which keys `config.toml` may have, and within which bounds.
//!
//! One table says so; nothing else reads the file. A key that is not in it is
//! an error that names the nearest one.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::ConfigError;
use super::pattern;
use super::quantity::{human_bytes, parse_bytes, parse_duration};
use super::settings::{HistoryMode, LogLevel, Prefetch, Settings};

/// Most patterns in one list of names: every name of a listing is matched against all of them.
const PATTERN_LIMIT: usize = 1_024;

/// Longest age and interval: as good as never.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

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
    ("hydrate.prefetch", |s, v| {
        s.hydrate.prefetch = word(v, &Prefetch::ALL, Prefetch::as_str)?;
        Ok(())
    }),
    ("hydrate.queue_objects", |s, v| {
        s.hydrate.queue_objects = count(v, 1_024..=1 << 22)?;
        Ok(())
    }),
    ("hydrate.inflight_objects", |s, v| {
        s.hydrate.inflight_objects = count(v, 1..=1 << 22)?;
        Ok(())
    }),
    ("hydrate.inflight_bytes", |s, v| {
        s.hydrate.inflight_bytes = bytes(v, 1 << 20..=1 << 40)?;
        Ok(())
    }),
    ("hydrate.memory_bytes", |s, v| {
        s.hydrate.memory_bytes = bytes(v, 16 << 20..=16 << 30)?;
        Ok(())
    }),
    ("hydrate.warm_objects", |s, v| {
        s.hydrate.warm_objects = count(v, 256..=1 << 20)?;
        Ok(())
    }),
    ("hydrate.watchdog", |s, v| {
        s.hydrate.watchdog = duration(v, Duration::from_millis(100)..=Duration::from_hours(1))?;
        Ok(())
    }),
    ("hydrate.manifests", |s, v| {
        s.hydrate.manifests = patterns(v)?;
        Ok(())
    }),
    ("hydrate.sources", |s, v| {
        s.hydrate.sources = patterns(v)?;
        Ok(())
    }),
    ("hydrate.texts", |s, v| {
        s.hydrate.texts = patterns(v)?;
        Ok(())
    }),
    ("hydrate.last", |s, v| {
        s.hydrate.last = patterns(v)?;
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
        s.log.level = word(v, &LogLevel::ALL, LogLevel::as_str)?;
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
    ("git.history", |s, v| {
        s.git.history = word(v, &HistoryMode::ALL, HistoryMode::as_str)?;
        Ok(())
    }),
    ("git.filter_timeout", |s, v| {
        s.git.filter_timeout = duration(v, Duration::from_secs(1)..=Duration::from_hours(24))?;
        Ok(())
    }),
    ("cache.max_size", |s, v| {
        s.cache.max_size = Some(bytes(v, 32 << 20..=1 << 50)?);
        Ok(())
    }),
    ("cache.min_free", |s, v| {
        s.cache.min_free = Some(bytes(v, 0..=1 << 50)?);
        Ok(())
    }),
    ("generations.keep", |s, v| {
        s.generations.keep = count(v, 0..=100_000)?;
        Ok(())
    }),
    ("generations.max_age", |s, v| {
        s.generations.max_age = duration(v, Duration::ZERO..=LONGEST)?;
        Ok(())
    }),
    ("gc.interval", |s, v| {
        s.gc.interval = duration(v, Duration::ZERO..=LONGEST)?;
        Ok(())
    }),
    ("gc.grace", |s, v| {
        s.gc.grace = duration(v, Duration::ZERO..=LONGEST)?;
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

fn word<T: Copy>(value: &Value, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let found = value.as_str().and_then(|text| all.iter().copied().find(|one| name(*one) == text));
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn patterns(value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list: Option<Vec<String>> = value.as_array().and_then(|all| all.iter().map(text).collect());
    let list = list.ok_or("must be a list of patterns like [\"*.nix\"]")?;
    if list.len() > PATTERN_LIMIT {
        return Err(format!("must have at most {PATTERN_LIMIT} patterns"));
    }
    pattern::set(&list)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Cache, Fuse, Gc, Generations, Git, Hydrate, Log, Network, Store};
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
            prefetch = "on-list"
            queue_objects = 1024
            inflight_objects = 1
            inflight_bytes = "1MiB"
            memory_bytes = "16MiB"
            warm_objects = 256
            watchdog = "100ms"
            manifests = ["BUILD.*"]
            sources = ["*.nix", "*.star"]
            texts = ["*.{log,out}"]
            last = []
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
            history = "off"
            filter_timeout = "7s"
            [cache]
            max_size = "2GiB"
            min_free = 0
            [generations]
            keep = 3
            max_age = "2d"
            [gc]
            interval = "0s"
            grace = "1h"
        "#;
        let expected = Settings {
            network: Network { timeout: Duration::from_secs(5), connections: 3 },
            hydrate: Hydrate {
                coalesce: Duration::from_millis(1),
                batch_objects: 7,
                batch_bytes: 1 << 20,
                prefetch: Prefetch::OnList,
                queue_objects: 1_024,
                inflight_objects: 1,
                inflight_bytes: 1 << 20,
                memory_bytes: 16 << 20,
                warm_objects: 256,
                watchdog: Duration::from_millis(100),
                manifests: vec!["BUILD.*".to_owned()],
                sources: vec!["*.nix".to_owned(), "*.star".to_owned()],
                texts: vec!["*.{log,out}".to_owned()],
                last: Vec::new(),
                retries: 0,
            },
            store: Store { cache_bytes: 2 << 20 },
            fuse: Fuse { threads: 1 },
            log: Log { level: LogLevel::Trace, max_bytes: 1_000_000, files: 2 },
            git: Git { max_unfiltered_bytes: 0, history: HistoryMode::Off, filter_timeout: Duration::from_secs(7) },
            cache: Cache { max_size: Some(2 << 30), min_free: Some(0) },
            generations: Generations { keep: 3, max_age: Duration::from_hours(48) },
            gc: Gc { interval: Duration::ZERO, grace: Duration::from_hours(1) },
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
            "[hydrate]\nprefetch = true",
            "[hydrate]\nprefetch = \"on\"",
            "[hydrate]\nqueue_objects = 1023",
            "[hydrate]\ninflight_objects = 0",
            "[hydrate]\ninflight_bytes = \"1023KiB\"",
            "[hydrate]\nmemory_bytes = \"17GiB\"",
            "[hydrate]\nwarm_objects = 2000000",
            "[hydrate]\nwatchdog = \"99ms\"",
            "[hydrate]\nmanifests = \"*.nix\"",
            "[hydrate]\nsources = [1]",
            "[log]\nlevel = \"loud\"",
            "[log.level]\nx = 1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_pattern_is_named_with_its_key() {
        let error = read("[hydrate]\nsources = [\"*.rs\", \"a[\"]").expect_err("an open class");
        assert!(error.starts_with("cannot use c.toml: hydrate.sources has the pattern \"a[\", which "), "{error}");
        let many = |count| format!("[hydrate]\nlast = [{}]", "\"*.x\",".repeat(count));
        assert!(read(&many(PATTERN_LIMIT)).is_ok());
        assert!(read(&many(PATTERN_LIMIT + 1)).is_err());
    }

    #[test]
    fn syntax_errors_name_their_line() {
        let error = read("[network]\n\ntimeout = = 3\n").expect_err("not TOML");
        assert!(error.starts_with("cannot read c.toml, line 3: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
