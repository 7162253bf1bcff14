//! The sessions of a Markdown document: its commands, what is shown below each, and what the test is told in comments.
//!
//! Owns the syntax. A session is an indented block with lines `$ COMMAND`;
//! what follows a command up to the next one is what it prints. A comment
//! directly above a block, which no reader sees, may tell the test:
//!
//! - `<!-- test: setup: SHELL -->`: run this first, over as many lines as it takes; it must succeed;
//! - `<!-- test: server PORT down|silent|up -->`: end, stop or start the server that the document has at PORT;
//! - `<!-- test: status N... -->`: the exit statuses of the block's commands, in order;
//! - `<!-- test: skip REASON -->`: don't run the block.
//!
//! Refuses a comment that begins with `test:` and is none of these, and one
//! above no session: what is misspelt would otherwise test nothing.

/// A command of a session, or what happens between them.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Shell commands that no reader sees.
    Setup(String),
    /// Something happens to the server at this port of the document.
    Server(u16, Condition),
    /// A command that is shown, with what it prints; `status` where the document says it.
    Command { line: usize, text: String, shown: Vec<String>, status: Option<i32> },
    /// A block that is left out.
    Skip { line: usize, reason: String },
}

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It refuses connections.
    Down,
    /// It takes connections and says nothing.
    Silent,
    /// It answers.
    Up,
}

/// What the comments above a block say.
#[derive(Default)]
struct Told {
    steps: Vec<Step>,
    statuses: Vec<i32>,
    skip: Option<String>,
}

impl Told {
    fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.statuses.is_empty() && self.skip.is_none()
    }

    fn take_in(&mut self, directive: &str, line: usize) -> Result<(), String> {
        let wrong = || format!("line {line}: {directive:?} tells the test nothing it knows");
        let (word, rest) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
        match word {
            "setup:" => self.steps.push(Step::Setup(rest.trim().to_owned())),
            "skip" if !rest.is_empty() => self.skip = Some(rest.to_owned()),
            "status" => {
                let statuses: Result<Vec<i32>, _> = rest.split_whitespace().map(str::parse).collect();
                self.statuses = statuses.map_err(|_| wrong())?;
            }
            "server" => {
                let (port, condition) = rest.split_once(' ').ok_or_else(wrong)?;
                let condition = match condition {
                    "down" => Condition::Down,
                    "silent" => Condition::Silent,
                    "up" => Condition::Up,
                    _ => return Err(wrong()),
                };
                self.steps.push(Step::Server(port.parse().map_err(|_| wrong())?, condition));
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// The steps of a document, in order.
pub fn steps(text: &str) -> Result<Vec<Step>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut steps = Vec::new();
    let mut told = Told::default();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim_start();
        if let Some(comment) = line.strip_prefix("<!--").filter(|comment| comment.trim_start().starts_with("test:")) {
            let first = at;
            let mut whole = comment.to_owned();
            while !whole.contains("-->") {
                at += 1;
                let more = lines.get(at).ok_or_else(|| format!("line {}: the comment has no end", first + 1))?;
                whole.push('\n');
                whole.push_str(more.trim());
            }
            let inside = whole.split("-->").next().unwrap_or_default().trim();
            told.take_in(inside.trim_start_matches("test:").trim(), first + 1)?;
            at += 1;
        } else if is_command(lines[at]) {
            at = block(&lines, at, std::mem::take(&mut told), &mut steps)?;
        } else if line.is_empty() || told.is_empty() {
            at += 1;
        } else {
            return Err(format!("line {}: the test is told something above what is no session", at + 1));
        }
    }
    if told.is_empty() {
        Ok(steps)
    } else {
        Err("the test is told something at the end, and nothing follows".to_owned())
    }
}

/// Takes in the block that begins at `start`; the line after it.
fn block(lines: &[&str], start: usize, told: Told, steps: &mut Vec<Step>) -> Result<usize, String> {
    let indent = width(lines[start]);
    let mut end = start;
    let mut commands: Vec<(usize, String, Vec<String>)> = Vec::new();
    while end < lines.len() && (lines[end].trim().is_empty() || width(lines[end]) >= indent) {
        let line = lines[end].get(indent..).unwrap_or_default();
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((end + 1, command.to_owned(), Vec::new())),
            (None, Some((_, _, shown))) => shown.push(line.trim_end().to_owned()),
            (None, None) => {}
        }
        end += 1;
    }
    steps.extend(told.steps);
    if let Some(reason) = told.skip {
        steps.push(Step::Skip { line: start + 1, reason });
        return Ok(end);
    }
    if told.statuses.len() > commands.len() {
        return Err(format!("line {}: more exit statuses than commands", start + 1));
    }
    let mut statuses = told.statuses.into_iter();
    for (line, text, mut shown) in commands {
        while shown.last().is_some_and(String::is_empty) {
            shown.pop();
        }
        steps.push(Step::Command { line, text, shown, status: statuses.next() });
    }
    Ok(end)
}

fn is_command(line: &str) -> bool {
    width(line) >= 4 && line.trim_start().starts_with("$ ")
}

fn width(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Everything between backticks, and every line of an indented block, that begins with `larder `, with its line.
///
/// What a session prints is left out; its commands are run.
pub fn commands_named(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut start = 0;
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let first = start + 1;
        start += paragraph.len() + 1;
        if paragraph.iter().any(|line| is_command(line)) {
            continue;
        }
        let blocks = (first..).zip(paragraph).filter(|(_, line)| width(line) >= 4);
        let synopses =
            blocks.map(|(number, line)| (number, line.trim())).filter(|(_, line)| line.starts_with("larder "));
        found.extend(synopses.map(|(number, line)| (number, line.to_owned())));
        // Joined, because text between backticks goes on in the next line.
        let joined = paragraph.join("\n");
        let mut line = first;
        for (number, part) in joined.split('`').enumerate() {
            let words = part.split_whitespace().collect::<Vec<_>>().join(" ");
            if number % 2 == 1 && words.starts_with("larder ") {
                found.push((line, words));
            }
            line += part.matches('\n').count();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: usize, text: &str, shown: &[&str], status: Option<i32>) -> Step {
        let shown = shown.iter().map(|&line| line.to_owned()).collect();
        Step::Command { line, text: text.to_owned(), shown, status }
    }

    #[test]
    fn a_block_is_its_commands_with_what_they_print() {
        let text = "Words:\n\n    $ one\n    out\n\n      more\n    $ two\n\nWords.\n\n    no session\n";
        let expected = [command(3, "one", &["out", "", "  more"], None), command(7, "two", &[], None)];
        assert_eq!(steps(text).expect("right"), expected);
    }

    #[test]
    fn a_block_in_a_list_is_indented_further() {
        assert_eq!(
            steps("- item\n\n        $ one\n        out\n- next\n").expect("right"),
            [command(3, "one", &["out"], None)]
        );
    }

    #[test]
    fn comments_tell_what_goes_before() {
        let text = "<!-- test: setup: a\n  b -->\n<!-- test: server 9427 silent -->\n<!-- test: status 4 -->\n\n    $ x\n    $ y\n";
        let expected = [
            Step::Setup("a\nb".to_owned()),
            Step::Server(9427, Condition::Silent),
            command(6, "x", &[], Some(4)),
            command(7, "y", &[], None),
        ];
        assert_eq!(steps(text).expect("right"), expected);
        let skipped = steps("<!-- test: skip it needs root -->\n    $ x\n").expect("right");
        assert_eq!(skipped, [Step::Skip { line: 2, reason: "it needs root".to_owned() }]);
    }

    #[test]
    fn what_would_test_nothing_is_refused() {
        for text in
            ["<!-- test: satup: a -->\n    $ x\n", "<!-- test: status 1 -->\nwords\n", "<!-- test: setup: a -->\n"]
        {
            assert!(steps(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn commands_are_found_in_text_and_tables() {
        let text = "Run `larder list`, `ls`, `larder\nstatus x`.\n| `larder gc --compact` | `x` |\n\n    larder warm T\n\n                        $ larder x\n    larder y\n";
        let expected = [(1, "larder list"), (1, "larder status x"), (3, "larder gc --compact"), (5, "larder warm T")];
        let found = commands_named(text);
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    }
}
