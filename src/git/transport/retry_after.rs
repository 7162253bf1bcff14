//! `Retry-After`: how long a server asks to be left alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

/// The longest wait taken from a server, which may ask for days: a person may be waiting for the file.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

/// The wait that `value` asks for at the time `now`: seconds, or a date in the form of today's HTTP.
pub(super) fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time.
        value.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = rfc2822::parse(value).ok()?.timestamp();
        let wait = date.duration_since(now).max(SignedDuration::ZERO);
        wait.unsigned_abs()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_bounded() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().expect("a time");
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("86400", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(300)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(parse(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
