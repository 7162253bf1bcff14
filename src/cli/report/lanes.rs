//! When it was fetched: a lane for each class, drawn as SVG, which needs no script.
//!
//! Each lane has its own scale, since a warm brings a thousand times what a reader waits for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::html::{text, time};
use crate::cli::output::grouped;
use crate::config::quantity::human_bytes;
use crate::daemon::facts::why::{Timeline, WhyReport};
use crate::daemon::protocol::rfc3339_ms;
use crate::store::FetchClass;

/// Spans that a lane has room for at least: a few bars are not drawn as wide blocks.
const SPANS_MIN: i64 = 40;
/// Height of a lane in its own units.
const HEIGHT: u64 = 100;

const CLASSES: [(FetchClass, &str, &str); 5] = [
    (FetchClass::Read, "read", "Waited for"),
    (FetchClass::Sibling, "sibling", "Came along"),
    (FetchClass::Prefetch, "prefetch", "Fetched ahead"),
    (FetchClass::Warm, "warm", "Warmed"),
    (FetchClass::Sizes, "sizes", "Sizes alone"),
];

pub(super) fn lanes(why: &WhyReport) -> String {
    let Some(timeline) = why.timeline.as_ref().filter(|timeline| !timeline.buckets.is_empty()) else {
        return "<p class=\"hint\">No fetches of this workspace are recorded.</p>".to_owned();
    };
    let first = timeline.buckets.keys().next().copied().unwrap_or(0);
    let last = timeline.buckets.keys().next_back().copied().unwrap_or(0);
    let spans = last.saturating_sub(first).saturating_add(1).max(SPANS_MIN);
    let mut out = String::new();
    for (class, css, word) in CLASSES {
        out.push_str(&lane(timeline, class, css, word, first, spans));
    }
    let at = |span: i64| time(&rfc3339_ms(first.saturating_add(span).saturating_mul(timeline.width_ms)));
    let _ = write!(
        out,
        "<div class=\"axis\"><span>{}</span><span>{}</span></div><p class=\"hint\">{}; each lane has its own scale. {} fetches brought {} in {} objects; readers waited {} in all.</p>",
        at(0),
        at(spans),
        format_args!("A bar is {}", width(timeline.width_ms)),
        grouped(why.total.fetches),
        human_bytes(why.total.bytes),
        grouped(why.total.objects),
        crate::cli::why::waited(why.total.waited_us)
    );
    out
}

fn lane(timeline: &Timeline, class: FetchClass, css: &str, word: &str, first: i64, spans: i64) -> String {
    let found: BTreeMap<i64, (&str, u64, u64)> = timeline
        .buckets
        .iter()
        .filter_map(|(number, bucket)| {
            let of = bucket.classes.iter().find(|of| of.class == class)?;
            Some((*number - first, (bucket.time.as_str(), of.objects, of.bytes)))
        })
        .collect();
    let objects: u64 = found.values().map(|(_, objects, _)| objects).sum();
    let bytes: u64 = found.values().map(|(_, _, bytes)| bytes).sum();
    if objects == 0 {
        return String::new();
    }
    // Sizes bring no bytes.
    let weight = |objects: u64, of: u64| if bytes == 0 { objects } else { of };
    let most = found.values().map(|(_, objects, bytes)| weight(*objects, *bytes)).max().unwrap_or(1).max(1);
    let amount = if bytes == 0 { String::new() } else { format!("{}, ", human_bytes(bytes)) };
    let told = format!("{amount}{} objects", grouped(objects));
    let mut out = format!(
        "<div class=\"lane\"><p><b>{word}</b><br><span class=\"sub\">{told}</span></p>\
         <svg viewBox=\"0 0 {spans} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{word}: {told}\">"
    );
    for (span, (when, objects, bytes)) in &found {
        let height = u128::from(weight(*objects, *bytes)) * u128::from(HEIGHT) / u128::from(most);
        // What is there is seen.
        let height = height.max(4);
        let _ = write!(
            out,
            "<rect class=\"{css}\" x=\"{span}\" y=\"{}\" width=\".88\" height=\"{height}\"><title>{}: {}, {} objects</title></rect>",
            u128::from(HEIGHT) - height,
            text(when),
            human_bytes(*bytes),
            grouped(*objects)
        );
    }
    out.push_str("</svg></div>");
    out
}

/// A width in words.
fn width(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{}/10 of a second", ms / 100),
        _ => humantime::format_duration(std::time::Duration::from_millis(ms.unsigned_abs())).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::facts::why::{Bucket, TimelineClass};

    #[test]
    fn lanes_are_drawn_for_classes_that_are_there() {
        let of = |class, objects, bytes| TimelineClass { class, objects, bytes };
        let bucket = |time: &str, classes| Bucket { time: time.to_owned(), classes };
        let timeline = Timeline {
            width_ms: 1_000,
            buckets: BTreeMap::from([
                (10, bucket("1970-01-01T00:00:10Z", vec![of(FetchClass::Read, 1, 100), of(FetchClass::Sizes, 7, 0)])),
                (12, bucket("1970-01-01T00:00:12Z", vec![of(FetchClass::Read, 1, 50)])),
            ]),
        };
        let why = WhyReport { timeline: Some(timeline), ..WhyReport::default() };
        let html = lanes(&why);
        assert_eq!(html.matches("<svg").count(), 2, "{html}");
        assert!(html.contains("x=\"2\" y=\"50\"") && html.contains("A bar is 1s"), "{html}");
        assert!(html.contains("1970-01-01 00:00:10"), "{html}");
        assert!(lanes(&WhyReport::default()).contains("No fetches"));
    }
}
