//! Why there is no configuration, or no whole one.

use std::io;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither `LARDER_HOME`, `XDG_DATA_HOME` nor a home directory says where to keep things.
    #[error("cannot tell where to keep the cache: LARDER_HOME, XDG_DATA_HOME and HOME are not set")]
    NoHome,
    /// A path that has to be named in JSON is not UTF-8.
    #[error("cannot use {path:?}: the path is not valid UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// The file is not TOML.
    #[error("cannot read {}, line {line}: {message}", .file.display())]
    Syntax {
        /// The configuration file.
        file: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// There is no such setting.
    #[error("cannot use {}, line {line}: there is no setting {key:?}{}", .file.display(), nearest(.suggestion.unwrap_or_default()))]
    UnknownKey {
        /// The configuration file.
        file: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The key, dotted.
        key: String,
        /// The known key nearest to it.
        suggestion: Option<&'static str>,
    },
    /// A setting's value has the wrong type or is out of range.
    #[error("cannot use {}, line {line}: {key} {message}", .file.display())]
    Value {
        /// The configuration file.
        file: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with the value.
        message: String,
    },
    /// An environment variable's value has the wrong type or is out of range.
    #[error("cannot use the environment variable {variable}: {key} {message}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// The key it stands for, dotted.
        key: &'static str,
        /// What is wrong with the value.
        message: String,
    },
    /// A directory belongs to somebody else.
    #[error("cannot use {}: it belongs to user {owner}", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ConfigError {
    /// The line of the settings file it is about.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Syntax { line, .. } | Self::UnknownKey { line, .. } | Self::Value { line, .. } => Some(*line),
            _ => None,
        }
    }

    /// The key it is about, as it was written.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { key, .. } => Some(key),
            Self::Value { key, .. } | Self::Variable { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The key that may have been meant.
    pub fn suggestion(&self) -> Option<&'static str> {
        match self {
            Self::UnknownKey { suggestion, .. } => *suggestion,
            _ => None,
        }
    }
}

fn nearest(suggestion: &str) -> String {
    if suggestion.is_empty() { String::new() } else { format!("; did you mean {suggestion:?}?") }
}
