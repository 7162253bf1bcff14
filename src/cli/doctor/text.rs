//! Findings for people: one a line, wrapped to the terminal.

use std::fmt::Write as _;

use super::finding::Finding;
use crate::cli::output::escape;

/// Below this many columns nothing is indented: there is no room for it.
const NARROW: usize = 40;
/// Columns of the word before each finding.
const LABEL: usize = 9;

/// `width`: columns of the terminal; `None`: it is none, and lines may be of any length.
pub(super) fn of(findings: &[Finding], width: Option<usize>) -> String {
    let narrow = width.is_some_and(|width| width < NARROW);
    let (label, indent) = if narrow { (0, 1) } else { (LABEL, LABEL) };
    let mut text = String::new();
    for finding in findings {
        let word = if finding.fixed == Some(true) { "fixed" } else { finding.severity.as_str() };
        let head = format!("{word:<label$}", label = label.saturating_sub(1));
        wrap(&mut text, &format!("{head} {}: {}", escape(&finding.name), escape(&finding.detail)), 0, indent, width);
        if let Some(fix) = &finding.fix {
            let note = if finding.fixable { " (--fix does it)" } else { "" };
            wrap(&mut text, &format!("fix: {}{note}", escape(fix)), indent, indent, width);
        }
        // A command is copied: the terminal wraps it without breaking it.
        let told = |command: &String| finding.fix.as_ref().is_some_and(|fix| fix.contains(&format!("`{command}`")));
        if let Some(command) = finding.command.as_ref().filter(|command| !told(command)) {
            let _ = writeln!(text, "{:indent$}run: {}", "", escape(command));
        }
    }
    text
}

/// Writes `line` in lines of at most `width` columns: the first after `first` blanks, the others after `rest`. A word that
/// is longer is cut.
fn wrap(out: &mut String, line: &str, first: usize, rest: usize, width: Option<usize>) {
    let Some(width) = width.map(|width| width.max(rest.max(first) + 8)) else {
        let _ = writeln!(out, "{:first$}{line}", "");
        return;
    };
    let mut used = first;
    out.push_str(&" ".repeat(first));
    let mut begun = false;
    for word in line.split(' ') {
        let mut letters: Vec<char> = word.chars().collect();
        let blank = usize::from(begun);
        if begun && used + blank + letters.len() > width {
            out.push('\n');
            out.push_str(&" ".repeat(rest));
            used = rest;
        } else if begun {
            out.push(' ');
            used += 1;
        }
        while used + letters.len() > width {
            let room = width - used;
            out.extend(letters.drain(..room));
            out.push('\n');
            out.push_str(&" ".repeat(rest));
            used = rest;
        }
        used += letters.len();
        out.extend(letters);
        begun = true;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("kernel", "Linux 6.1"),
            Finding::warning("disk", "little is free at /a/rather/long/path/without/any/blank", "make room")
                .run("rm -r x y"),
            Finding::error("w", "x", "`larder prepare w`").run("larder prepare w"),
        ]
    }

    #[test]
    fn a_finding_is_a_line_with_its_cure_below() {
        let expected = "ok       kernel: Linux 6.1\n\
                        warning  disk: little is free at /a/rather/long/path/without/any/blank\n\
                        \x20        fix: make room\n\
                        \x20        run: rm -r x y\n\
                        error    w: x\n\
                        \x20        fix: `larder prepare w`\n";
        assert_eq!(of(&findings(), None), expected);
    }

    #[test]
    fn lines_fit_the_terminal() {
        for width in [20, 39, 40, 80] {
            let text = of(&findings(), Some(width));
            let long = text.lines().find(|line| line.chars().count() > width && !line.contains("run: "));
            assert_eq!(long, None, "{width}: {text}");
            let joined: String = text.split_whitespace().collect();
            assert!(joined.contains("/a/rather/long/path/without/any/blank"), "{text}");
        }
    }

    #[test]
    fn names_steer_no_terminal() {
        let text = of(&[Finding::warning("mount /a\x1b[2J\nb", "x\ny", "z\r")], None);
        assert!(text.contains("/a\\x1b[2J\\nb: x\\ny") && text.lines().count() == 2, "{text}");
    }
}
