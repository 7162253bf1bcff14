//! `larder metrics`: every counter, gauge and histogram of the daemon.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Number, Value};

use super::config;
use super::output::Output;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, Failure, FailureClass, Request};

/// Print all metrics as Prometheus text
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Some(client) = Client::running(&config()?)? else {
        return Err(Failure::new(FailureClass::NotFound, "cannot read the metrics: no daemon is running")
            .hint("start it with `larder daemon`"));
    };
    match client.ask(Request::Metrics)? {
        Answer::Text(text) => output.facts(&samples(&text), || text.clone()),
        other => Err(unexpected(&other)),
    }
}

/// Prometheus text as one object: a sample's name with its labels → its value.
fn samples(text: &str) -> Value {
    let mut samples = Map::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let whole = value.parse::<u64>().ok().map(Number::from);
        let number = whole.or_else(|| value.parse().ok().and_then(Number::from_f64));
        samples.insert(name.trim().to_owned(), number.map_or_else(|| value.into(), Value::Number));
    }
    Value::Object(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_fields() {
        let text = "# HELP larder_hits_total reads\n# TYPE larder_hits_total counter\nlarder_hits_total 12\n\
                    larder_read_seconds_bucket{le=\"0.5\"} 3\nlarder_read_seconds_sum 0.25\nodd NaN\n\n";
        assert_eq!(
            samples(text),
            serde_json::json!({
                "larder_hits_total": 12,
                "larder_read_seconds_bucket{le=\"0.5\"}": 3,
                "larder_read_seconds_sum": 0.25,
                "odd": "NaN",
            })
        );
    }
}
