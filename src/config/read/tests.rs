//! What a settings file and the environment say, and what is wrong with them.

use std::time::Duration;

use super::super::settings::{
    Cache, Fuse, Gc, Generations, Git, Hydrate, Log, MetricsSettings, Network, Otlp, Store, Verify, Why,
};
use super::super::value::PATTERN_LIMIT;
use super::super::words::{HistoryMode, LogFormat, LogLevel, Prefetch};
use super::*;

fn read(text: &str) -> Result<Settings, String> {
    let mut reading = Reading::default();
    reading.take_text(text, Path::new("c.toml"));
    reading.whole().map_err(|error| error.to_string())
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
        format = "json"
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
        [verify]
        rate = "3MiB"
        [why]
        records = 9
        [metrics]
        listen = "127.0.0.1:9478"
        [otlp]
        endpoint = "http://127.0.0.1:4318"
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
        log: Log { level: LogLevel::Trace, format: LogFormat::Json, max_bytes: 1_000_000, files: 2 },
        verify: Verify { rate: 3 << 20 },
        why: Why { records: 9 },
        git: Git { max_unfiltered_bytes: 0, history: HistoryMode::Off, filter_timeout: Duration::from_secs(7) },
        cache: Cache { max_size: Some(2 << 30), min_free: Some(0) },
        generations: Generations { keep: 3, max_age: Duration::from_hours(48) },
        gc: Gc { interval: Duration::ZERO, grace: Duration::from_hours(1) },
        metrics: MetricsSettings { listen: Some("127.0.0.1:9478".parse().expect("a loopback address")) },
        otlp: Otlp { endpoint: Some("http://127.0.0.1:4318".parse().expect("an address")) },
    };
    assert_eq!(read(text), Ok(expected));
    let mentioned = keys().all(|key| text.contains(key.name().split_once('.').expect("dotted").1));
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
    assert_eq!(error, "cannot use c.toml, line 2: there is no setting \"colour.scheme\"");
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
        "[log]\nformat = \"xml\"",
        "[metrics]\nlisten = \"0.0.0.0:80\"",
        "[metrics]\nlisten = 9478",
        "[otlp]\nendpoint = \"collector\"",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn a_wrong_pattern_is_named_with_its_key() {
    let error = read("[hydrate]\nsources = [\"*.rs\", \"a[\"]").expect_err("an open class");
    assert!(error.starts_with("cannot use c.toml, line 2: hydrate.sources has the pattern \"a[\", which "), "{error}");
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

fn reading(text: &str, variables: &[(&str, &str)]) -> Reading {
    let mut reading = Reading::default();
    reading.take_text(text, Path::new("c.toml"));
    reading.take_environment(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()));
    reading
}

#[test]
fn every_mistake_is_told_in_order_and_the_rest_is_read() {
    let text = "[network]\ntimeout = \"9h\"\nconnections = 3\ncolour = 1\n\n[gc]\ngrace = 1\n[a]\n";
    let reading = reading(text, &[]);
    let told: Vec<_> = reading.mistakes.iter().map(|mistake| (mistake.line(), mistake.key())).collect();
    let expected = [(2, "network.timeout"), (4, "network.colour"), (7, "gc.grace"), (8, "a")]
        .map(|(line, key)| (Some(line), Some(key)));
    assert_eq!(told, expected);
    assert_eq!(reading.settings.network, Network { connections: 3, ..Network::default() });
}

#[test]
fn values_know_where_they_come_from() {
    let text = "network.connections = 3\n[log]\nlevel = \"debug\"\nformat = \"json\"\n";
    let reading = reading(text, &[("LARDER_LOG_LEVEL", "warn"), ("LARDER_LOG_FORMAT", "")]);
    assert!(reading.mistakes.is_empty());
    let origin = |name| reading.origin(keys().find(|key| key.name() == name).expect("a key"));
    assert_eq!(origin("network.connections"), Origin::Line(1));
    assert_eq!(origin("log.level"), Origin::Variable("LARDER_LOG_LEVEL"));
    assert_eq!(origin("log.format"), Origin::Line(4));
    assert_eq!(origin("log.files"), Origin::Default);
    assert_eq!((reading.settings.log.level, reading.settings.log.format), (LogLevel::Warn, LogFormat::Json));
}

#[test]
fn a_wrong_variable_is_a_mistake_if_it_is_ours() {
    let reading = reading("", &[("LARDER_LOG_FORMAT", "xml"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://x")]);
    let told: Vec<_> = reading.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["cannot use the environment variable LARDER_LOG_FORMAT: log.format must be one of text, json"]);
    assert_eq!(reading.settings, Settings::default());
}

#[test]
fn what_is_shown_is_read_as_the_same() {
    let changed = reading(
        "[network]\ntimeout = \"1500ms\"\n[hydrate]\nlast = [\"a\\\"b\", \"*.x\"]\n[cache]\nmax_size = 100000000\n\
         [metrics]\nlisten = \"unix:/a b/m.sock\"\n[git]\nhistory = \"off\"",
        &[],
    );
    assert!(changed.mistakes.is_empty(), "{:?}", changed.mistakes);
    for settings in [Settings::default(), changed.settings] {
        let shown: Vec<String> =
            keys().filter_map(|key| Some(format!("{} = {}\n", key.name(), key.show(&settings)?))).collect();
        assert_eq!(read(&shown.concat()), Ok(settings));
    }
}

#[test]
fn the_table_of_keys_is_complete_and_names_are_unique() {
    let mut names = std::collections::BTreeSet::new();
    for key in keys() {
        assert!(names.insert(key.name()), "{} is there twice", key.name());
        assert_eq!(key.name().split('.').count(), 2, "{}", key.name());
        assert!(!key.meaning().is_empty() && !key.default().is_empty(), "{}", key.name());
        let shown = key.show(&Settings::default());
        assert_eq!(shown.is_none(), !key.unset().is_empty(), "{}", key.name());
    }
}
