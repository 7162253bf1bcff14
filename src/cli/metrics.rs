//! `larder metrics`: every counter, gauge and histogram of the daemon.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Number, Value, json};

use super::config;
use super::output::Output;
use crate::config::Config;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, FailureClass, Request};

/// Print all metrics as Prometheus text
///
/// Counts are since the daemon started. With --json each sample is a field of the document, and a row with its name, type,
/// unit, labels and value. The setting metrics.listen makes the daemon answer `GET /metrics` over HTTP as well, at a loopback
/// port or a Unix socket; docs/metrics.md has every metric.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  larder metrics
  larder metrics | grep '^larder_queue'
  larder metrics --json")]
pub(super) struct Arguments {}

pub(super) fn run(_: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = config()?;
    let Some(client) = Client::running(&config)? else {
        return Err(Failure::new(FailureClass::NotFound, "cannot read the metrics: no daemon is running")
            .hint("start it with `larder daemon`"));
    };
    match client.ask(Request::Metrics)? {
        Answer::Text(text) => {
            let printed = output.facts(&document(&text), || text.clone())?;
            if let Some(note) = not_served(&config, &text).filter(|_| !output.is_json()) {
                output.complain(&note);
            }
            Ok(printed)
        }
        other => Err(unexpected(&other)),
    }
}

/// What is said where the settings name an address that the daemon does not serve.
fn not_served(config: &Config, text: &str) -> Option<String> {
    let listen = config.settings.metrics.listen.as_ref()?;
    let served = text.lines().any(|line| line == "larder_metrics_listening 1");
    (!served).then(|| {
        format!(
            "larder: metrics are not served at {listen}: {} says why; `larder shutdown` where metrics.listen was set \
             since the daemon started",
            config.log_path.display()
        )
    })
}

/// A sample, as `--json` tells it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    r#type: &'a str,
    unit: Option<&'a str>,
    labels: BTreeMap<&'a str, String>,
    value: Value,
}

/// Prometheus text as one document: a sample's name with its labels → its value, and `rows` with each part of a sample.
fn document(text: &str) -> Value {
    let mut document = Map::new();
    let mut rows = Vec::new();
    // Families follow one another: what was said last is about the samples that come.
    let (mut family, mut kind, mut unit) = ("", "unknown", None);
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            match about.splitn(3, ' ').collect::<Vec<_>>()[..] {
                ["TYPE", name, of] => (family, kind, unit) = (name, of, unit.filter(|_| family == name)),
                ["UNIT", name, of] => (family, unit) = (name, Some(of)),
                ["HELP", name, _] => (family, unit) = (name, unit.filter(|_| family == name)),
                _ => {}
            }
            continue;
        }
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let whole = value.parse::<u64>().ok().map(Number::from);
        let number = whole.or_else(|| value.parse().ok().and_then(Number::from_f64));
        let value = number.map_or_else(|| value.into(), Value::Number);
        let (bare, labels) = name.split_once('{').map_or((name, ""), |(bare, labels)| (bare, labels));
        rows.push(Row {
            name: bare,
            r#type: kind,
            unit,
            labels: labels_of(labels.trim_end_matches('}')),
            value: value.clone(),
        });
        document.insert(name.trim().to_owned(), value);
    }
    document.insert("rows".to_owned(), json!(rows));
    Value::Object(document)
}

/// `le="0.5",state="a\"b"` taken apart.
fn labels_of(mut text: &str) -> BTreeMap<&str, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.extend(chars.next().map(|(_, c)| if c == 'n' { '\n' } else { c })),
                c => value.push(c),
            }
        }
        labels.insert(name.trim_start_matches(','), value);
        text = rest.get(end..).unwrap_or_default();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_fields_and_rows() {
        let text = "# HELP larder_hits reads\n# TYPE larder_hits counter\nlarder_hits_total 12\n\
                    # HELP larder_read_seconds time\n# TYPE larder_read_seconds histogram\n\
                    # UNIT larder_read_seconds seconds\n\
                    larder_read_seconds_bucket{le=\"0.5\"} 3\nlarder_read_seconds_sum 0.25\n\
                    # HELP odd x\n# TYPE odd gauge\nodd{a=\"x,\\\"=y\\\\\",b=\"\\n\"} NaN\n# EOF\n";
        let row = |name: &str, kind: &str, unit: Value, labels: Value, value: Value| {
            let mut row = json!({ "name": name, "type": kind, "unit": unit });
            (row["labels"], row["value"]) = (labels, value);
            row
        };
        assert_eq!(
            document(text),
            json!({
                "larder_hits_total": 12,
                "larder_read_seconds_bucket{le=\"0.5\"}": 3,
                "larder_read_seconds_sum": 0.25,
                "odd{a=\"x,\\\"=y\\\\\",b=\"\\n\"}": "NaN",
                "rows": [
                    row("larder_hits_total", "counter", Value::Null, json!({}), json!(12)),
                    row("larder_read_seconds_bucket", "histogram", json!("seconds"), json!({"le": "0.5"}), json!(3)),
                    row("larder_read_seconds_sum", "histogram", json!("seconds"), json!({}), json!(0.25)),
                    row("odd", "gauge", Value::Null, json!({"a": "x,\"=y\\", "b": "\n"}), json!("NaN")),
                ],
            })
        );
    }
}
