//! Sizes and durations as people write them: `8MiB`, `30s`.
//!
//! Refuses what is ambiguous: a duration without a unit, a fraction of a byte,
//! a number that does not fit.

use std::time::Duration;

/// Units of a size, with what they multiply by. `K`, `M`, `G` and `T` are Git's: powers of 1024.
const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// The number of bytes `text` names: digits, then a unit of 1024 (`KiB`, `M`) or 1000 (`kB`, `MB`).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write it like 8MiB");
    let text_trimmed = text.trim();
    let digits = text_trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(|| format!("{text:?} is too large"))
}

/// The duration `text` names: `30s`, `2ms`, `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| format!("{text:?} is not a duration; write it like 30s"))
}

/// `bytes` in the largest binary unit that leaves at least one, with one decimal below ten.
pub fn human_bytes(bytes: u64) -> String {
    const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < NAMES.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let one = 1_u128 << (10 * unit);
    let tenths = (u128::from(bytes) * 10 + one / 2) / one;
    if tenths.is_multiple_of(10) || tenths >= 1000 {
        format!("{} {}", (tenths + 5) / 10, NAMES[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, NAMES[unit])
    }
}

/// `bytes` so that [`parse_bytes`] reads exactly them: in the largest binary unit that divides them.
pub fn exact_bytes(bytes: u64) -> String {
    const NAMES: [&str; 5] = ["", "KiB", "MiB", "GiB", "TiB"];
    let unit = if bytes == 0 { 0 } else { (bytes.trailing_zeros() as usize / 10).min(NAMES.len() - 1) };
    format!("{}{}", bytes >> (10 * unit), NAMES[unit])
}

/// `time` so that [`parse_duration`] reads exactly it.
pub fn exact_duration(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_git_s_units_and_the_metric_ones() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("8MiB", 8 << 20), ("8 m", 8 << 20), ("2kB", 2_000), ("1GiB", 1 << 30), ("3b", 3)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "8 mebi", "99999999999999999999", "999999999999GiB", "1 0"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_exactly_is_read_as_the_same() {
        for (bytes, text) in [
            (0, "0"),
            (17, "17"),
            (1 << 20, "1MiB"),
            (1_000_000, "1000000"),
            (3 << 39, "1536GiB"),
            (1 << 50, "1024TiB"),
        ] {
            assert_eq!(exact_bytes(bytes), text);
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for time in
            [Duration::ZERO, Duration::from_millis(1_002), Duration::from_hours(36), Duration::from_hours(876_600)]
        {
            assert_eq!(parse_duration(&exact_duration(time)), Ok(time));
        }
        assert_eq!(exact_duration(Duration::from_hours(876_600)), "100years");
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration(" 2ms "), Ok(Duration::from_millis(2)));
        for text in ["", "30", "s", "-1s", "30 parsecs"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (12_900_000, "12.3 MiB"),
            (300 << 20, "300 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
