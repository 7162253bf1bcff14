//! Where words go: facts to standard output, errors and confirmations to standard error.
//!
//! Invariant: a reader that hangs up ends the command quietly, and names from
//! repositories cannot steer a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::failure::exit_code;
use crate::daemon::protocol::{Failure, FailureClass};

/// How this command speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    error: &'a Failure,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Whether progress is wanted.
    pub(super) fn shows_progress(self) -> bool {
        !self.json && !self.quiet
    }

    /// Prints facts: `value` with `--json`, else what `human` makes of them.
    pub(super) fn facts(self, value: &impl Serialize, human: impl FnOnce() -> String) -> Result<ExitCode, Failure> {
        if !self.json {
            return self.text(&human());
        }
        let mut text = serde_json::to_string(value).map_err(|error| {
            Failure::new(FailureClass::Other, format!("cannot print as JSON: {error}"))
                .hint("a path that is not valid UTF-8 cannot be written as JSON")
        })?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints a confirmation for people, and with `--json` the `value` that says the same.
    pub(super) fn done(self, value: &impl Serialize, human: impl FnOnce() -> String) -> Result<ExitCode, Failure> {
        if self.quiet && !self.json { Ok(ExitCode::SUCCESS) } else { self.facts(value, human) }
    }

    /// Prints `text` to standard output as it is.
    pub(super) fn text(self, text: &str) -> Result<ExitCode, Failure> {
        self.bytes(text.as_bytes())
    }

    /// Prints `bytes` to standard output as they are.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<ExitCode, Failure> {
        // `| head` has seen enough.
        self.part(bytes).map(|_| ExitCode::SUCCESS)
    }

    /// Prints a part of what is too long to be held at once. False: the reader has seen enough.
    #[expect(clippy::unused_self, reason = "whoever prints holds an Output")]
    pub(super) fn part(self, bytes: &[u8]) -> Result<bool, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(unwritten(&error)),
            Ok(()) => Ok(true),
        }
    }

    /// Prints a line to standard error; there is nowhere left to report that it failed.
    #[expect(clippy::unused_self, reason = "whoever prints holds an Output")]
    pub(super) fn complain(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Prints a failure and says which exit code it has.
    pub(super) fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            let document = serde_json::to_string(&ErrorDocument { error: failure });
            self.complain(&document.expect("two strings and a class"));
        } else {
            self.complain(&format!("larder: {}", escape(&failure.message)));
            if let Some(hint) = &failure.hint {
                self.complain(&format!("hint: {}", escape(hint)));
            }
        }
        exit_code(failure.class)
    }
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::new(FailureClass::Other, format!("cannot write to standard output: {error}"))
        .hint("check the disk or the program that reads it")
}

/// A name for people: on a terminal with everything escaped that could steer it, else as it is.
pub(super) fn name(text: &str) -> String {
    if io::stdout().is_terminal() { escape(text) } else { text.to_owned() }
}

/// `text` with control characters and those that turn the direction of writing escaped.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// `rows` under `head`, columns aligned; the last column is not padded.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(head.get(column).map(|cell| cell.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `pairs` one a line, values aligned.
pub(super) fn sheet(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut out, (label, value)| {
        let _ = writeln!(out, "{label:<width$}  {value}");
        out
    })
}

/// `number` with its thousands set apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `number` and what there is that many of: `1 path`, `2,000 entries`.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {}", grouped(number), plural(number, what))
}

/// `what`, an English noun, as it follows `number`.
pub(super) fn plural(number: u64, what: &str) -> String {
    match what.strip_suffix('y') {
        _ if number == 1 => what.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_singular() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "path")), ["0 paths", "1 path", "2 paths"]);
        assert_eq!([1, 1234].map(|number| counted(number, "local entry")), ["1 local entry", "1,234 local entries"]);
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(escape("a\x1b[2Jb\nc\td\u{9b}e\x7f"), "a\\x1b[2Jb\\nc\\td\\x9be\\x7f");
        assert_eq!(escape("gpj\u{202e}exe"), "gpj\\u{202e}exe");
        assert_eq!(escape("Grüße 漢字 \u{1f980}"), "Grüße 漢字 \u{1f980}");
    }

    #[test]
    fn columns_are_aligned_and_lines_not_padded() {
        let text = table(&["NAME", "STATE"], &[vec!["a".into(), "ready".into()], vec!["longer".into(), "x".into()]]);
        assert_eq!(text, "NAME    STATE\na       ready\nlonger  x\n");
        assert_eq!(sheet(&[("a", "1".into()), ("bcd", "2".into())]), "a    1\nbcd  2\n");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (78_635, "78,635"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn an_error_document_has_its_three_fields() {
        let failure = Failure::new(FailureClass::NotFound, "cannot find x").hint("look elsewhere");
        assert_eq!(
            serde_json::to_string(&ErrorDocument { error: &failure }).expect("serializable"),
            r#"{"error":{"class":"not_found","message":"cannot find x","hint":"look elsewhere"}}"#
        );
    }
}
