//! The kinds of values that settings have: how each is read from TOML, bounded, and written as people write it.
//!
//! Refuses what is outside its bounds with a sentence that follows the key's name. Invariant: what [`Kind::show`] writes,
//! [`Kind::read`] reads as the same value.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;
use toml::de::DeValue;

use super::endpoint::{Endpoint, Listen};
use super::pattern;
use super::quantity::{exact_bytes, exact_duration, parse_bytes, parse_duration};
use super::words::{HistoryMode, LogFormat, LogLevel, Prefetch};

/// Most patterns in one list of names: every name of a listing is matched against all of them.
pub(super) const PATTERN_LIMIT: usize = 1_024;

/// A type that settings have.
pub(super) trait Kind: Sized + 'static {
    /// What limits its values.
    type Bounds: Sync + 'static;
    /// What people call it.
    const NAME: &'static str;

    /// The value TOML has, or what is wrong with it.
    fn read(value: &DeValue<'_>, bounds: &Self::Bounds) -> Result<Self, String>;

    /// The value as TOML; `None`: it is not set.
    fn show(&self) -> Option<String>;

    /// The value for programs: sizes in bytes, durations in seconds.
    fn json(&self) -> serde_json::Value;

    /// The bounds, for people.
    fn range(bounds: &Self::Bounds) -> String;
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
}

impl Kind for usize {
    type Bounds = RangeInclusive<Self>;
    const NAME: &'static str = "count";

    fn read(value: &DeValue<'_>, within: &Self::Bounds) -> Result<Self, String> {
        integer(value)
            .and_then(|number| Self::try_from(number).ok())
            .filter(|number| within.contains(number))
            .ok_or_else(|| format!("must be a whole number from {} to {}", within.start(), within.end()))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }

    fn range(within: &Self::Bounds) -> String {
        format!("{} – {}", within.start(), within.end())
    }
}

/// Bytes.
impl Kind for u64 {
    type Bounds = RangeInclusive<Self>;
    const NAME: &'static str = "size";

    fn read(value: &DeValue<'_>, within: &Self::Bounds) -> Result<Self, String> {
        let size = match (integer(value), value.as_str()) {
            (Some(number), _) => Self::try_from(number).map_err(|_| "must not be negative".to_owned())?,
            (None, Some(text)) => parse_bytes(text)?,
            (None, None) => return Err("must be a size like \"8MiB\"".to_owned()),
        };
        if within.contains(&size) {
            return Ok(size);
        }
        Err(format!("must be from {} to {}", exact_bytes(*within.start()), exact_bytes(*within.end())))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&exact_bytes(*self)))
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }

    fn range(within: &Self::Bounds) -> String {
        format!("{} – {}", exact_bytes(*within.start()), exact_bytes(*within.end()))
    }
}

impl Kind for Duration {
    type Bounds = RangeInclusive<Self>;
    const NAME: &'static str = "duration";

    fn read(value: &DeValue<'_>, within: &Self::Bounds) -> Result<Self, String> {
        let time = parse_duration(value.as_str().ok_or("must be a duration like \"30s\"")?)?;
        if within.contains(&time) {
            return Ok(time);
        }
        Err(format!("must be from {} to {}", exact_duration(*within.start()), exact_duration(*within.end())))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&exact_duration(*self)))
    }

    fn json(&self) -> serde_json::Value {
        json!(self.as_secs_f64())
    }

    fn range(within: &Self::Bounds) -> String {
        format!("{} – {}", exact_duration(*within.start()), exact_duration(*within.end()))
    }
}

/// What need not be set.
impl<T: Kind> Kind for Option<T> {
    type Bounds = T::Bounds;
    const NAME: &'static str = T::NAME;

    fn read(value: &DeValue<'_>, bounds: &Self::Bounds) -> Result<Self, String> {
        T::read(value, bounds).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }

    fn json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, T::json)
    }

    fn range(bounds: &Self::Bounds) -> String {
        T::range(bounds)
    }
}

/// Patterns of file names.
impl Kind for Vec<String> {
    type Bounds = ();
    const NAME: &'static str = "patterns";

    fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
        let text = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().as_str().map(str::to_owned);
        let list: Option<Self> = value.as_array().and_then(|all| all.iter().map(text).collect());
        let list = list.ok_or("must be a list of patterns like [\"*.nix\"]")?;
        if list.len() > PATTERN_LIMIT {
            return Err(format!("must have at most {PATTERN_LIMIT} patterns"));
        }
        pattern::set(&list)?;
        Ok(list)
    }

    fn show(&self) -> Option<String> {
        let all: Vec<String> = self.iter().map(|text| quoted(text)).collect();
        Some(format!("[{}]", all.join(", ")))
    }

    fn json(&self) -> serde_json::Value {
        json!(self)
    }

    fn range((): &()) -> String {
        format!("at most {PATTERN_LIMIT}")
    }
}

/// One of a few words.
macro_rules! words {
    ($($word:ty),*) => {$(
        impl Kind for $word {
            type Bounds = ();
            const NAME: &'static str = "word";

            fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
                let found = value.as_str().and_then(|text| Self::ALL.into_iter().find(|one| one.as_str() == text));
                found.ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::as_str).join(", ")))
            }

            fn show(&self) -> Option<String> {
                Some(quoted(self.as_str()))
            }

            fn json(&self) -> serde_json::Value {
                json!(self.as_str())
            }

            fn range((): &()) -> String {
                Self::ALL.map(Self::as_str).join(", ")
            }
        }
    )*};
}

words!(HistoryMode, LogFormat, LogLevel, Prefetch);

/// Text that has a form of its own.
macro_rules! texts {
    ($($text:ty),*) => {$(
        impl Kind for $text {
            type Bounds = ();
            const NAME: &'static str = "address";

            fn read(value: &DeValue<'_>, (): &()) -> Result<Self, String> {
                value.as_str().ok_or_else(|| Self::EXPECTED.to_owned()).and_then(str::parse)
            }

            fn show(&self) -> Option<String> {
                Some(quoted(&self.to_string()))
            }

            fn json(&self) -> serde_json::Value {
                json!(self.to_string())
            }

            fn range((): &()) -> String {
                Self::RANGE.to_owned()
            }
        }
    )*};
}

texts!(Endpoint, Listen);

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
