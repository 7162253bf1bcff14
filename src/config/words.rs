//! Settings that are one of a few words.

/// What takes a directory's missing files along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing: only what is read is fetched.
    Off,
    /// Reading a file of it.
    OnRead,
    /// Listing it, or reading a file of it.
    OnList,
}

impl Prefetch {
    pub(super) const ALL: [Self; 3] = [Self::Off, Self::OnRead, Self::OnList];

    /// The name `config.toml` has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::OnRead => "on-read",
            Self::OnList => "on-list",
        }
    }
}

/// What becomes of the history that a mount left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryMode {
    /// It follows in the background, commits only.
    Background,
    /// It stays out.
    Off,
}

impl HistoryMode {
    pub(super) const ALL: [Self; 2] = [Self::Background, Self::Off];

    /// The name `config.toml` has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Off => "off",
        }
    }
}

/// Severity of a log event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what went wrong.
    Error,
    /// And what may go wrong.
    Warn,
    /// And what was done.
    Info,
    /// And how.
    Debug,
    /// And every step of it.
    Trace,
}

impl LogLevel {
    pub(super) const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The level's name, as `config.toml` and `tracing` have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    pub(super) const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The name `config.toml` has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
