//! What can be seen of a daemon from outside: metrics, log and settings, and that the documentation says what is so.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use common::proxy::wide_behind_proxy;
use common::{Fixture, eventually, exit, read, rows, text};
use serde_json::Value;

/// Longest wait for an answer over HTTP: more than the daemon gives a client.
const HTTP_LIMIT: Duration = Duration::from_secs(30);

/// The cells of each row of the first table in `document` whose head begins with `column`, Markdown's marks removed.
fn table(document: &str, column: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let all = fs::read_to_string(&path).expect("the document is there");
    let lines = all.lines().skip_while(|line| !line.starts_with(&format!("| {column} |")));
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_start_matches('|').trim_end().trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let found: Vec<_> = lines.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!found.is_empty(), "{document} has no table of {column}");
    found
}

/// A cell without the marks of code.
fn plain(cell: &str) -> String {
    cell.replace('`', "")
}

/// A meaning without the link at its end.
fn without_link(cell: &str) -> &str {
    cell.split_once(" ([more]").map_or(cell, |(meaning, _)| meaning)
}

/// What is exported of a metric.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    unit: String,
    labels: BTreeSet<String>,
    help: String,
}

/// Families of metrics by the name that their samples have.
fn families(exported: &str) -> BTreeMap<String, Family> {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in exported.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
            let Some(name) = name else { continue };
            name.clone_into(&mut current);
            let family = all.entry(current.clone()).or_default();
            match what {
                Some("HELP") => rest.trim_end_matches('.').clone_into(&mut family.help),
                Some("TYPE") => rest.clone_into(&mut family.kind),
                Some("UNIT") => rest.clone_into(&mut family.unit),
                other => panic!("{other:?} in {line}"),
            }
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels.split(',').filter_map(|label| label.split_once("=\"").map(|(name, _)| name.to_owned()));
            all.get_mut(&current).expect("announced").labels.extend(names.filter(|name| name != "le"));
        }
    }
    let suffix = |kind: &str| match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    all.into_iter().map(|(name, family)| (format!("{name}{}", suffix(&family.kind)), family)).collect()
}

#[test]
fn every_metric_is_documented_as_it_is_exported() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.ok(&["daemon"]);
    let exported = families(&fixture.ok(&["metrics"]).out());
    let documented: BTreeMap<String, Family> = table("metrics.md", "name")
        .into_iter()
        .map(|row| {
            let [name, kind, unit, labels, help] = &row[..] else { panic!("{row:?}") };
            let labels = plain(labels).split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
            (plain(name), Family { kind: kind.clone(), unit: unit.clone(), labels, help: help.clone() })
        })
        .collect();
    assert_eq!(exported, documented);
    for (name, family) in &exported {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}: {family:?}");
        assert!(name.starts_with("larder_"), "{name}");
    }
    let rows = rows(fixture.json(&["metrics"]));
    let told: BTreeSet<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert!(told.contains("larder_hits_total") && told.contains("larder_read_seconds_bucket"), "{told:?}");
    let ready = rows.iter().find(|row| row["labels"]["state"] == "ready").expect("workspaces by state");
    assert_eq!(
        (&ready["name"], &ready["type"], &ready["value"]),
        (&"larder_workspaces".into(), &"gauge".into(), &0.into())
    );
}

#[test]
fn metrics_tell_what_happened() {
    let Some(fixture) = Fixture::new() else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 10);
    read(&mount.join("alone/file")).expect("it reads");
    // The reader has its bytes before they are stored.
    for name in ["larder_cache_objects", "larder_cache_raw_bytes", "larder_cache_stored_bytes", "larder_cache_trees"] {
        eventually(HTTP_LIMIT, name, || fixture.metric(name) > 0);
    }
    assert!(fixture.metric("larder_cache_file_bytes") > 0 && fixture.metric("larder_disk_free_bytes") > 0);
    assert_eq!(fixture.metric("larder_mounts"), 1);
    assert_eq!(fixture.json(&["metrics"])["larder_workspaces{state=\"ready\"}"], 1);
    assert_eq!(fixture.metric("larder_read_failures_total"), 0);
    proxy.set_offline(true);
    let name = first_file(&mount.join("many"));
    read(&name).expect_err("nobody answers");
    assert!(fixture.metric("larder_read_failures_total") > 0);
    assert_eq!(fixture.metric("larder_remotes_offline"), 1);
    fixture.ok(&["unmount", text(&mount)]);
    assert_eq!(fixture.json(&["metrics"])["larder_workspaces{state=\"unmounted\"}"], 1);
    assert_eq!(fixture.metric("larder_mounts"), 0);
}

/// Some file in `directory`.
fn first_file(directory: &Path) -> std::path::PathBuf {
    let names = common::names(directory).expect("it lists");
    directory.join(names.first().expect("it has files"))
}

/// Sends `request` and returns all that is answered.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> String {
    // The daemon may answer, and hang up, before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(HTTP_LIMIT)).expect("settable");
    stream.set_write_timeout(Some(HTTP_LIMIT)).expect("settable");
    stream
}

fn listening(fixture: &Fixture) {
    eventually(HTTP_LIMIT, "metrics are served", || fixture.metric("larder_metrics_listening") == 1);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_port_is_served_whatever_clients_do() {
    let port = free_port();
    let Some(fixture) = Fixture::with_settings(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n")) else { return };
    fixture.ok(&["daemon"]);
    listening(&fixture);
    // These never finish their request; others are served meanwhile.
    let mut slow: Vec<TcpStream> = (0..8).map(|_| tcp(port)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metr").expect("it listens");
    }
    let answer = exchange(tcp(port), GET);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.lines().any(|line| line.eq_ignore_ascii_case(kind)), "{head}");
    assert!(body.ends_with("# EOF\n") && families(body).contains_key("larder_hits_total"), "{body}");
    assert_eq!(families(body), families(&fixture.ok(&["metrics"]).out()));
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let wrong: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (b"GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"HELO you\r\n\r\n", "400"),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", "400"),
        (long.as_bytes(), "431"),
    ];
    for (request, status) in wrong {
        let answer = exchange(tcp(port), request);
        // A request that is far too long may be cut off before its answer is heard.
        let cut = answer.is_empty() && status == "431";
        assert!(cut || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(!answer.contains("larder_hits_total"), "{answer}");
    }
    let head = exchange(tcp(port), b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // Those who are slow are hung up on.
    for mut stream in slow {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    assert!(exchange(tcp(port), GET).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_port_that_is_taken_keeps_no_daemon_from_starting() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("bound").port();
    let Some(fixture) = Fixture::with_settings(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n")) else { return };
    fixture.ok(&["daemon"]);
    let log = || fs::read_to_string(fixture.home().join("daemon.log")).unwrap_or_default();
    eventually(HTTP_LIMIT, "the log says so", || log().contains("metrics are not served at 127.0.0.1"));
    let told = fixture.ok(&["metrics"]);
    assert!(told.out().contains("larder_metrics_listening 0"), "{}", told.out());
    assert!(told.err().contains("metrics are not served") && told.err().contains("daemon.log"), "{}", told.err());
}

#[test]
fn a_socket_is_for_its_user_and_replaces_a_leftover() {
    let Some(fixture) = Fixture::new() else { return };
    let socket = fixture.path("m.sock");
    let settings = format!("[metrics]\nlisten = \"unix:{}\"\n", socket.display());
    fs::write(fixture.path("config/larder/config.toml"), settings).expect("writable");
    drop(UnixListener::bind(&socket).expect("bound"));
    assert!(socket.exists(), "a leftover");
    fixture.ok(&["daemon"]);
    listening(&fixture);
    assert_eq!(fs::metadata(&socket).expect("there").mode() & 0o777, 0o600);
    let stream = UnixStream::connect(&socket).expect("it listens");
    stream.set_read_timeout(Some(HTTP_LIMIT)).expect("settable");
    assert!(exchange(stream, GET).starts_with("HTTP/1.1 200 OK\r\n"));
    fixture.ok(&["shutdown"]);
    assert!(!socket.exists(), "it is removed at the end");
    fs::write(&socket, "precious").expect("writable");
    fixture.ok(&["daemon"]);
    assert!(fixture.ok(&["metrics"]).err().contains("metrics are not served"));
    assert_eq!(fs::read(&socket).expect("there"), b"precious");
}

/// The log's lines, each of which must be one JSON object.
fn logged(fixture: &Fixture) -> Vec<Value> {
    let log = fs::read_to_string(fixture.home().join("daemon.log")).expect("there is a log");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    lines
}

/// The span called `name` of an event whose message has `words`.
fn span(lines: &[Value], words: &str, name: &str) -> Value {
    let found = lines.iter().filter(|line| line["message"].as_str().is_some_and(|message| message.contains(words)));
    let mut spans = found.filter_map(|line| line["spans"].as_array()).flatten();
    spans.find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {words:?} in {name}: {lines:#?}")).clone()
}

#[test]
fn json_lines_say_what_they_are_about() {
    let Some(fixture) = Fixture::with_settings("[log]\nformat = \"json\"\n[hydrate]\nretries = 0\n") else { return };
    let (_server, proxy, mount) = wide_behind_proxy(&fixture, 10);
    fixture.ok(&["refresh", text(&mount)]);
    fs::write(mount.join("new"), "x").expect("writable");
    fixture.git_out(&mount, &["add", "new"]);
    fixture.git_out(&mount, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]);
    let generation = || fixture.status(&mount)["generation"].as_u64();
    eventually(HTTP_LIMIT, "the commit is followed", || generation() > Some(1));
    proxy.set_offline(true);
    let file = first_file(&mount.join("many"));
    read(&file).expect_err("nobody answers");
    fixture.fails(&[exit::REMOTE], &["warm", text(&mount)]);
    fixture.fails(&[1, exit::NOT_FOUND, exit::REMOTE], &["switch", text(&mount), "no-such-branch"]);
    let lines = logged(&fixture);
    let failed = span(&lines, "", "hydrating");
    assert_eq!((&failed["workspace"], failed["generation"].as_u64()), (&"m".into(), generation()), "{failed}");
    assert_eq!(failed["object"].as_str().map(str::len), Some(40), "{failed}");
    let event = lines.iter().find(|line| line["spans"][0] == failed).expect("the event in that span");
    assert_eq!((&event["level"], &event["path"]), (&"WARN".into(), &text(&file).into()), "{event}");
    assert_eq!(span(&lines, "prepared", "preparing")["workspace"], "m");
    assert_eq!(span(&lines, "refreshed", "refreshing")["workspace"], "m");
    let following = span(&lines, "followed HEAD", "following HEAD");
    assert_eq!((&following["workspace"], &following["generation"]), (&"m".into(), &1.into()), "{following}");
    assert_eq!(
        lines.iter().find(|line| line["message"] == "prepared").map(|line| &line["generation"]),
        Some(&1.into())
    );
}

#[test]
fn the_flag_decides_how_the_log_is_written() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.ok(&["daemon", "--log-format", "json"]);
    fixture.ok(&["shutdown"]);
    assert!(!logged(&fixture).is_empty());
    fs::remove_file(fixture.home().join("daemon.log")).expect("there is a log");
    fixture.ok(&["daemon"]);
    let log = fs::read_to_string(fixture.home().join("daemon.log")).expect("there is a log");
    assert!(log.contains(" INFO larder::daemon: daemon started"), "{log}");
    fixture.fails(&[exit::USAGE], &["daemon", "--log-format", "xml"]);
}

#[test]
fn every_setting_is_documented_as_it_is() {
    let Some(fixture) = Fixture::new() else { return };
    let told: Vec<Vec<String>> = rows(fixture.json(&["config", "show"]))
        .iter()
        .map(|row| {
            let field = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no {name}: {row}")).to_owned();
            ["key", "kind", "default", "range", "meaning"].map(field).to_vec()
        })
        .collect();
    let documented: Vec<Vec<String>> = table("configuration.md", "key")
        .iter()
        .map(|row| {
            let [key, kind, default, range, meaning] = &row[..] else { panic!("{row:?}") };
            let mut cells: Vec<String> = [key, kind, default, range].map(|cell| plain(cell)).to_vec();
            cells.push(without_link(meaning).to_owned());
            cells
        })
        .collect();
    for (told, documented) in told.iter().zip(&documented) {
        assert_eq!(told, documented);
    }
    assert_eq!(told.len(), documented.len(), "as many rows as settings");
    // Bounds are bounds: a value just outside of them is refused, and one on them is not.
    for row in &told {
        let [key, kind, _, range, _] = &row[..] else { panic!("{row:?}") };
        if !["count", "size", "duration"].contains(&kind.as_str()) {
            continue;
        }
        let (section, name) = key.split_once('.').expect("dotted");
        let (from, to) = range.split_once(" – ").expect("two bounds");
        let file = fixture.path("bounds.toml");
        for (value, good) in [(from, true), (to, true), ("99999999TiB", false), ("-1", false)] {
            let value = if kind == "count" { value.to_owned() } else { format!("{value:?}") };
            fs::write(&file, format!("[{section}]\n{name} = {value}\n")).expect("writable");
            let outcome = fixture.run(&["config", "check", text(&file)]);
            assert_eq!(outcome.code, Some(if good { 0 } else { exit::USAGE }), "{key} = {value}: {}", outcome.err());
        }
    }
}

#[test]
fn config_shows_values_and_where_they_come_from() {
    let settings = "[network]\ntimeout = \"90s\"\n\n[cache]\nmax_size = 1073741824\n";
    let Some(mut fixture) = Fixture::with_settings(settings) else { return };
    fixture.set_env("LARDER_LOG_LEVEL", "warn");
    let shown = fixture.ok(&["config", "show"]).out();
    let line = |start: &str| {
        let found = shown.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in {shown}")).to_owned()
    };
    assert!(line("timeout = \"1m 30s\" ").ends_with("# line 2"));
    assert!(line("max_size = \"1GiB\" ").ends_with("# line 5"));
    assert!(line("level = \"warn\" ").ends_with("# $LARDER_LOG_LEVEL"));
    assert!(line("connections = 2 ").ends_with("# default"));
    // It is a file that can be used, and says the same.
    let copy = fixture.path("copy.toml");
    fs::write(&copy, &shown).expect("writable");
    fixture.ok(&["config", "check", text(&copy)]);
    fs::copy(&copy, fixture.path("config/larder/config.toml")).expect("writable");
    let values = |shown: &str| -> Vec<String> {
        let line = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
        shown.lines().map(line).filter(|line| !line.is_empty()).collect()
    };
    assert_eq!(values(&fixture.ok(&["config", "show"]).out()), values(&shown));
    let one = fixture.json(&["config", "show", "cache.max_size"]);
    let row = &one["rows"][0];
    assert_eq!(
        (&row["value"], &row["text"], &row["origin"]),
        (&1_073_741_824.into(), &"\"1GiB\"".into(), &"file".into())
    );
    assert_eq!(rows(fixture.json(&["config", "show", "log"])).len(), 4);
    let path = fixture.ok(&["config", "path"]).out();
    assert_eq!(path.trim_end(), text(&fixture.path("config/larder/config.toml")));
    let slip = fixture.fails(&[exit::NOT_FOUND], &["config", "show", "network.timout"]);
    assert!(slip.err().contains("did you mean \"network.timeout\"?"), "{}", slip.err());
    assert!(fixture.daemons().is_empty(), "looking at settings starts nothing");
}

#[test]
fn a_wrong_file_is_told_line_by_line() {
    let settings = "[network]\ntimout = \"3s\"\nconnections = 99\n[log]\nfiles = 2\n[cache]\nmax_size = \"lots\"\n";
    let Some(fixture) = Fixture::with_settings(settings) else { return };
    for command in [&["config", "check"][..], &["config", "show"]] {
        let outcome = fixture.run(command);
        assert_eq!(outcome.code, Some(exit::USAGE));
        let error = outcome.err();
        for words in [
            "config.toml, line 2: there is no setting \"network.timout\"; did you mean \"network.timeout\"?",
            "config.toml, line 3: network.connections must be a whole number from 1 to 16",
            "config.toml, line 7: cache.max_size",
        ] {
            assert!(error.contains(words), "no {words:?} in {error}");
        }
    }
    let shown = fixture.run(&["config", "show", "log", "--json"]);
    let document: Value = serde_json::from_slice(&shown.stdout).expect("one document");
    assert_eq!(document["mistakes"].as_array().map(Vec::len), Some(3), "{document}");
    assert_eq!(document["mistakes"][0]["suggestion"], "network.timeout");
    assert_eq!(document["mistakes"][0]["line"], 2);
    assert!(rows(document).iter().any(|row| row["key"] == "log.files" && row["value"] == 2));
    let doctor = fixture.run(&["doctor"]).out();
    assert!(doctor.contains("line 2") && doctor.contains("network.timeout"), "{doctor}");
    fixture.fails(&[exit::USAGE], &["list"]);
    let other = fixture.path("other.toml");
    fixture.fails(&[1], &["config", "check", text(&other)]);
    for (content, words) in [
        ("[network", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
        ("[metrics]\nlisten = \"0.0.0.0:80\"\n", "127.0.0.1:80"),
        ("[metrics]\nlisten = \"9478\"\n", "127.0.0.1:9478"),
        ("[log]\nformat = \"xml\"\n", "text, json"),
        ("[gc]\ninterval = 5\n", "\"30s\""),
        ("[fuse]\nthreads = \"2\"\n", "whole number"),
    ] {
        fs::write(&other, content).expect("writable");
        let failed = fixture.fails(&[exit::USAGE], &["config", "check", text(&other)]);
        assert!(failed.err().contains(words), "{content}: {}", failed.err());
    }
    fs::write(&other, "").expect("writable");
    fixture.ok(&["config", "check", text(&other)]);
}
