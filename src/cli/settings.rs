//! `larder config`: what is set, where, and what is wrong with it.
//!
//! Only looks; the file is edited by its owner. Works while the file is wrong: that is when it is needed.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{Output, escape, name};
use crate::config::{Config, ConfigError, Key, Origin, Reading, Settings, keys, nearest};
use crate::daemon::protocol::{Failure, FailureClass};

/// Longest line whose comment is aligned with the others.
const ALIGNED_MAX: usize = 48;

/// Show settings and check the file they are in
///
/// Settings come from one file, and a few from environment variables, which come before it. What neither sets has its
/// default. The daemon reads them when it starts: after a change `larder shutdown`; the next command starts it anew.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  larder config show                     every setting, as a file that could be used
  larder config show network.timeout     one of them
  larder config check                    what is wrong with the file")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    Show(Show),
    Path(PathOf),
    Check(Check),
}

/// Print each setting's value and where it comes from
///
/// The output is TOML: lines of it can be put into the file. With --json each value also has its unit, range, default and
/// meaning; sizes are in bytes, durations in seconds. Exits with 2 if something is wrong with the file; what is wrong has
/// its default then.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  larder config show
  larder config show log.level
  larder config show cache --json")]
struct Show {
    /// Only this setting, or this section [default: all]
    key: Option<String>,
}

/// Print the path of the settings file, whether there is one or not
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  larder config path
  mkdir -p \"$(dirname \"$(larder config path)\")\"")]
struct PathOf {}

/// Check a settings file; exit with 2 if something is wrong with it
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  larder config check
  larder config show > new.toml && larder config check new.toml")]
struct Check {
    /// A file to check in place of the one in use
    file: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let config = Config::with_defaults()?;
    match &arguments.action {
        Action::Show(show) => run_show(&config, show, output),
        Action::Path(PathOf {}) => {
            let path = &config.config_file;
            output.facts(&with_path("path", path, json!({ "exists": path.exists() })), || {
                format!("{}\n", name(&path.display().to_string()))
            })
        }
        Action::Check(check) => run_check(&config, check, output),
    }
}

/// A setting, as `--json` tells it.
#[derive(Serialize)]
struct Row {
    key: &'static str,
    value: Value,
    /// The value as TOML; null where it is not set.
    text: Option<String>,
    origin: &'static str,
    line: Option<usize>,
    variable: Option<&'static str>,
    kind: &'static str,
    range: String,
    default: String,
    meaning: &'static str,
}

impl Row {
    fn new(key: &dyn Key, reading: &Reading) -> Self {
        let origin = reading.origin(key);
        Self {
            key: key.name(),
            value: key.json(&reading.settings),
            text: key.show(&reading.settings),
            origin: match origin {
                Origin::Default => "default",
                Origin::Line(_) => "file",
                Origin::Variable(_) => "environment",
            },
            line: if let Origin::Line(line) = origin { Some(line) } else { None },
            variable: key.variable(),
            kind: key.kind(),
            range: key.range(),
            default: key.default(),
            meaning: key.meaning(),
        }
    }

    fn comment(&self) -> String {
        match (self.origin, self.line, self.variable) {
            ("file", Some(line), _) => format!("line {line}"),
            ("environment", _, Some(variable)) => format!("${variable}"),
            _ => "default".to_owned(),
        }
    }
}

/// Something that is wrong, as `--json` tells it.
#[derive(Serialize)]
struct Mistake {
    message: String,
    line: Option<usize>,
    key: Option<String>,
    suggestion: Option<&'static str>,
}

impl From<&ConfigError> for Mistake {
    fn from(error: &ConfigError) -> Self {
        Self {
            message: error.to_string(),
            line: error.line(),
            key: error.key().map(str::to_owned),
            suggestion: error.suggestion(),
        }
    }
}

fn run_show(config: &Config, show: &Show, output: Output) -> Result<ExitCode, Failure> {
    let reading = config.reading();
    let wanted = |key: &dyn Key| match &show.key {
        Some(wanted) => key.name() == wanted || section(key.name()) == wanted,
        None => true,
    };
    let rows: Vec<Row> = keys().filter(|key| wanted(*key)).map(|key| Row::new(key, &reading)).collect();
    if let (Some(key), true) = (&show.key, rows.is_empty()) {
        let failure = Failure::new(FailureClass::NotFound, format!("cannot show {key:?}: there is no such setting"));
        return Err(failure.hint(match nearest(key) {
            Some(known) => format!("did you mean {known:?}? `larder config show` has all"),
            None => "`larder config show` has all".to_owned(),
        }));
    }
    let file = &config.config_file;
    let mistakes: Vec<Mistake> = reading.mistakes.iter().map(Mistake::from).collect();
    let document = with_path("file", file, json!({ "exists": file.exists(), "rows": rows, "mistakes": mistakes }));
    let printed = output.facts(&document, || toml(file, &rows))?;
    told(reading.mistakes, output).map(|()| printed)
}

/// The rows as a settings file.
fn toml(file: &Path, rows: &[Row]) -> String {
    let there = if file.exists() { "" } else { ", which does not exist" };
    let mut out = format!("# settings; the file is {}{there}\n", name(&file.display().to_string()));
    let lengths = rows.iter().filter_map(line).map(|line| line.len());
    let width = lengths.filter(|length| *length <= ALIGNED_MAX).max().unwrap_or(0);
    for section in rows.chunk_by(|one, other| section(one.key) == section(other.key)) {
        let _ = writeln!(out, "\n[{}]", section.first().map_or("", |row| self::section(row.key)));
        for row in section {
            let _ = match line(row) {
                Some(line) => writeln!(out, "{line:<width$}  # {}", row.comment()),
                None => writeln!(out, "# {} is not set: {}", bare(row.key), row.default),
            };
        }
    }
    out
}

fn line(row: &Row) -> Option<String> {
    row.text.as_ref().map(|text| format!("{} = {}", bare(row.key), name(text)))
}

fn section(key: &str) -> &str {
    key.split_once('.').map_or(key, |(section, _)| section)
}

fn bare(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, bare)| bare)
}

fn run_check(config: &Config, check: &Check, output: Output) -> Result<ExitCode, Failure> {
    let (file, reading) = match &check.file {
        Some(file) => (file, Reading::of_file(file, true)),
        None => (&config.config_file, config.reading()),
    };
    let mistakes: Vec<Mistake> = reading.mistakes.iter().map(Mistake::from).collect();
    let notes = without_effect(&reading.settings);
    let shown = name(&file.display().to_string());
    let valid = mistakes.is_empty();
    let facts = json!({ "exists": file.exists(), "valid": valid, "mistakes": mistakes, "notes": notes });
    let document = with_path("file", file, facts);
    let printed = output.facts(&document, || {
        let mut text = String::new();
        if mistakes.is_empty() && file.exists() {
            let _ = writeln!(text, "{shown} can be used");
        } else if mistakes.is_empty() {
            let _ = writeln!(text, "there is no {shown}: every setting has its default");
        }
        for note in &notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    })?;
    told(reading.mistakes, output).map(|()| printed)
}

/// `document` with a path; its bytes too, where they are not UTF-8.
fn with_path(field: &str, path: &Path, mut document: Value) -> Value {
    let text = path.to_string_lossy();
    document[field] = json!(text);
    if path.to_str().is_none() {
        document[format!("{field}_bytes")] = json!(path.as_os_str().as_bytes());
    }
    document
}

/// Settings that this program does nothing with.
fn without_effect(settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.otlp.endpoint.is_some() && !crate::daemon::log::EXPORTS {
        notes.push(format!("otlp.endpoint has no effect: {}", crate::daemon::log::NO_EXPORT));
    }
    notes
}

/// Tells every mistake. One of them is the command's failure: the first, which the JSON document has too, and for people
/// the last, whose hint ends what they read.
fn told(mut mistakes: Vec<ConfigError>, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        mistakes.truncate(1);
    }
    let Some(last) = mistakes.pop() else { return Ok(()) };
    for mistake in mistakes {
        output.complain(&format!("larder: {}", escape(&mistake.to_string())));
    }
    Err(last.into())
}
