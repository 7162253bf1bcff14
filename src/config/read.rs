//! Reads settings: the defaults, the file over them, the environment over both.
//!
//! Refuses keys that are not in the table, naming the nearest one. It goes on after a mistake, so that all of them are
//! told at once. Invariant: a key whose value is wrong keeps the value it had.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{Key, keys};
use super::settings::Settings;

/// Longest configuration file read; settings take a few hundred bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Most mistakes told of one file.
const MISTAKES_MAX: usize = 100;

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// This line of the settings file, counted from one.
    Line(usize),
    /// This environment variable.
    Variable(&'static str),
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    /// The settings.
    pub settings: Settings,
    /// What is wrong with the file or the environment, in this order.
    pub mistakes: Vec<ConfigError>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Reading {
    /// The settings of `file`, which need not exist, and of the environment.
    pub(super) fn of(file: &Path, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut reading = Self::of_file(file, false);
        reading.take_environment(variable);
        reading
    }

    /// The settings of `file` alone; with `must_exist` it is a mistake that there is none.
    pub fn of_file(file: &Path, must_exist: bool) -> Self {
        let mut reading = Self::default();
        match text_of(file) {
            Ok(text) => reading.take_text(&text, file),
            Err(error)
                if !must_exist && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => {
                reading.mistakes.push(ConfigError::Io { operation: "read", path: file.to_owned(), source });
            }
        }
        reading
    }

    /// Where the value of `key` comes from.
    pub fn origin(&self, key: &dyn Key) -> Origin {
        self.origins.get(key.name()).copied().unwrap_or(Origin::Default)
    }

    /// The settings, or the first mistake.
    pub(super) fn whole(self) -> Result<Settings, ConfigError> {
        match self.mistakes.into_iter().next() {
            Some(mistake) => Err(mistake),
            None => Ok(self.settings),
        }
    }

    /// `text` of `file`, which is named in mistakes.
    pub(super) fn take_text(&mut self, text: &str, file: &Path) {
        let line_at = |at: usize| 1 + text.get(..at).unwrap_or_default().matches('\n').count();
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let line = line_at(error.span().map_or(0, |span| span.start));
                let message = error.message().replace('\n', " ");
                return self.mistakes.push(ConfigError::Syntax { file: file.to_owned(), line, message });
            }
        };
        // By place, not by name: the first mistake told is the first there is.
        let mut sections: Vec<_> = table.get_ref().iter().collect();
        sections.sort_by_key(|(name, _)| name.span().start);
        for (section, value) in sections {
            let line = line_at(section.span().start);
            let known =
                || keys().any(|key| key.name().split_once('.').is_some_and(|(name, _)| name == section.get_ref()));
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() || known() => {
                    self.take_section(section.get_ref(), inner, file, &line_at);
                }
                _ => self.mistakes.push(unknown(file, line, section.get_ref().to_string())),
            }
        }
        self.mistakes.truncate(MISTAKES_MAX);
    }

    fn take_section(
        &mut self,
        section: &str,
        inner: &toml::map::Map<Spanned<Cow<'_, str>>, Spanned<DeValue<'_>>>,
        file: &Path,
        line_at: &dyn Fn(usize) -> usize,
    ) {
        let mut entries: Vec<_> = inner.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let line = line_at(name.span().start);
            let written = format!("{section}.{}", name.get_ref());
            let Some(key) = keys().find(|key| key.name() == written) else {
                self.mistakes.push(unknown(file, line, written));
                continue;
            };
            match key.set(&mut self.settings, value.get_ref()) {
                Ok(()) => drop(self.origins.insert(key.name(), Origin::Line(line))),
                Err(message) => {
                    let file: PathBuf = file.to_owned();
                    self.mistakes.push(ConfigError::Value { file, line, key: key.name(), message });
                }
            }
        }
    }

    fn take_environment(&mut self, variable: &dyn Fn(&str) -> Option<OsString>) {
        for key in keys() {
            let Some(name) = key.variable() else { continue };
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { continue };
            let text = text.to_string_lossy();
            match key.set(&mut self.settings, &DeValue::String(Cow::Borrowed(&text))) {
                Ok(()) => drop(self.origins.insert(key.name(), Origin::Variable(name))),
                // A variable that other programs share is no reason to refuse everything.
                Err(_) if !name.starts_with("LARDER_") => {}
                Err(message) => {
                    self.mistakes.push(ConfigError::Variable { variable: name, key: key.name(), message });
                }
            }
        }
    }
}

fn text_of(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(file)
}

fn unknown(file: &Path, line: usize, key: String) -> ConfigError {
    let suggestion = nearest(&key);
    ConfigError::UnknownKey { file: file.to_owned(), line, key, suggestion }
}

/// The key that may be meant by `written`, which is none.
pub fn nearest(written: &str) -> Option<&'static str> {
    // A third of a word wrong is a slip; more is another word.
    let within = (written.len() / 3).max(2);
    keys()
        .map(|key| {
            let known = key.name();
            let bare = known.split_once('.').map_or(known, |(_, name)| name);
            (distance(written, known).min(distance(written, bare)), known)
        })
        .filter(|(edits, _)| *edits <= within)
        .min()
        .map(|(_, known)| known)
}

/// Edits that turn one word into the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests;
