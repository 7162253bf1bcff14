//! `larder warm`: what will be read is fetched ahead of use.
//!
//! The daemon selects and fetches; here the arguments are checked and the
//! report is shown. A client that is interrupted just ends: the daemon notices
//! that it hung up and stops, unless it was told to go on in the background.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::{Output, counted, grouped, name};
use super::progress::Display;
use super::{client, config, environment, mount, target};
use crate::config::quantity::{human_bytes, parse_bytes};
use crate::daemon::client::unexpected;
use crate::daemon::protocol::{Answer, Failure, Request, WarmReport, WarmRequest};

/// Fetch files ahead of use, in a few large requests
///
/// Returns when everything that was selected is in the cache. ^C stops it; what arrived stays, and the next warm goes
/// on from there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder warm work                                          everything
  larder warm work src docs --limit 1MiB                    two directories, without what is larger
  larder warm work --rev v1.0 -- '*.rs' ':!src/step1.rs'    of another commit, what pathspecs select
  larder warm work --background                             without waiting for it")]
pub(super) struct Arguments {
    /// A mount path or a workspace name
    target: String,

    /// Git pathspecs, relative to the workspace's root [default: everything]
    #[arg(value_name = "PATHSPEC", value_parser = pathspec)]
    pathspecs: Vec<String>,

    /// Warm this branch, tag, full ref or commit id [default: what the workspace shows]
    #[arg(long, value_parser = mount::rev)]
    rev: Option<String>,

    /// Leave out files larger than this, like 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    limit: Option<u64>,

    /// Return at once; it goes on without this command, and after the daemon was killed
    #[arg(long)]
    background: bool,
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let target = arguments.target.clone();
    let limit = arguments.limit;
    let config = config()?;
    let progress = Display::new(output);
    let client = client(&config, || target::unknown(&target))?;
    let request = WarmRequest { target: target::resolve(&client, &target)?, ..request(arguments) };
    let answer = client.call(Request::Warm(request), &mut |report| progress.report(report));
    drop(progress);
    match answer? {
        Answer::Warmed(report) => output.done(&report, || human(&report, &target, limit)),
        other => Err(unexpected(&other)),
    }
}

fn request(arguments: Arguments) -> WarmRequest {
    WarmRequest {
        target: arguments.target,
        pathspecs: arguments.pathspecs,
        rev: arguments.rev,
        limit: arguments.limit,
        background: arguments.background,
        environment: environment::for_daemon(),
    }
}

/// An empty pathspec would select everything; Git refuses it because it is more likely a variable that was not set.
pub(super) fn pathspec(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty; `.` is everything".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn human(report: &WarmReport, target: &str, limit: Option<u64>) -> String {
    let mut parts = Vec::new();
    if report.objects_fetched > 0 {
        let (bytes, requests) = (human_bytes(report.bytes_fetched), counted(report.requests, "request"));
        parts.push(format!("{} fetched ({bytes} in {requests})", grouped(report.objects_fetched)));
    }
    if report.objects_already_cached > 0 {
        let verb = if report.objects_already_cached == 1 { "was" } else { "were" };
        parts.push(format!("{} {verb} cached already", grouped(report.objects_already_cached)));
    }
    if report.objects_left_out > 0 {
        let above = limit.map_or_else(String::new, |limit| format!(" (over {})", human_bytes(limit)));
        parts.push(format!("{} left out{above}", grouped(report.objects_left_out)));
    }
    if !report.background {
        parts.push(time(report.seconds));
    }
    let text = format!("{}: {}", counted(report.objects_wanted, "object"), parts.join(", "));
    let text = text.trim_end_matches([':', ' ']);
    if report.background {
        let target = name(target);
        return format!("{text}\nit goes on in the background; `larder status {target}` shows how far it is\n");
    }
    format!("{text}\n")
}

pub(super) fn time(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time >= Duration::from_mins(1) => {
            humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
        }
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn read(words: &[&str]) -> Result<WarmRequest, clap::Error> {
        let all = std::iter::once("warm").chain(words.iter().copied());
        Line::try_parse_from(all).map(|line| request(line.arguments))
    }

    #[test]
    fn arguments_become_a_request() {
        let words = ["w", "src", ":!*.png", "--limit", "1MiB", "--rev", "v1", "--background"];
        let full = read(&words).expect("right");
        assert_eq!((full.target.as_str(), full.limit, full.background), ("w", Some(1 << 20), true));
        assert_eq!((full.pathspecs, full.rev.as_deref()), (vec!["src".to_owned(), ":!*.png".to_owned()], Some("v1")));
        let plain = read(&["w"]).expect("right");
        assert_eq!((plain.pathspecs.len(), plain.rev, plain.limit, plain.background), (0, None, None, false));
        assert_eq!(read(&["w", "--limit", "0"]).expect("right").limit, Some(0));
        for wrong in [&[][..], &["w", ""], &["w", "--limit", "1.5M"], &["w", "--rev", "HEAD~1"], &["w", "--limit"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_report_says_what_there_is_to_say() {
        let report = WarmReport {
            objects_wanted: 78_225,
            objects_fetched: 70_000,
            objects_already_cached: 8_225,
            bytes_fetched: 1_181_116_006,
            requests: 3,
            seconds: 6.21,
            ..WarmReport::default()
        };
        assert_eq!(
            human(&report, "w", None),
            "78,225 objects: 70,000 fetched (1.1 GiB in 3 requests), 8,225 were cached already, 6.2 s\n"
        );
        let cached = WarmReport { objects_wanted: 1, objects_already_cached: 1, ..WarmReport::default() };
        assert_eq!(human(&cached, "w", None), "1 object: 1 was cached already, 0.0 s\n");
        let limited = WarmReport { objects_wanted: 12, objects_left_out: 12, seconds: 75.9, ..WarmReport::default() };
        assert_eq!(human(&limited, "w", Some(1 << 20)), "12 objects: 12 left out (over 1 MiB), 1m 15s\n");
        let begun = WarmReport { objects_wanted: 7, background: true, ..WarmReport::default() };
        assert_eq!(
            human(&begun, "w", None),
            "7 objects\nit goes on in the background; `larder status w` shows how far it is\n"
        );
    }

    #[test]
    fn the_json_document_has_exactly_the_promised_fields() {
        let value = serde_json::to_value(WarmReport::default()).expect("serializable");
        let fields: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut promised = vec![
            "objects_wanted",
            "objects_fetched",
            "objects_already_cached",
            "objects_left_out",
            "bytes_fetched",
            "requests",
            "seconds",
            "background",
        ];
        promised.sort_unstable();
        let mut fields = fields;
        fields.sort_unstable();
        assert_eq!(fields, promised);
    }
}
