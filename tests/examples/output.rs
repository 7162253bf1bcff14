//! Whether a command printed what a document shows.
//!
//! Owns what may differ: times, durations, process ids, sizes after
//! compression, counts of requests, and how far columns are apart. All else
//! must be the same, commit ids too. `…` in what is shown stands for
//! anything in a line; alone on a line for any number of lines.

use std::sync::LazyLock;

use regex::Regex;

/// What may differ, and what is compared in its place.
static VARIABLE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"\b\d+(\.\d+)?(ms|us|s|m|h)( \d+(ms|us|s|m|h))*\b", "DURATION"),
        (r"\b\d+(\.\d+)? (s|ms)\b", "DURATION"),
        (r"\b(process|pid) \d+", "$1 ID"),
        (r"\b\d+ requests?\b", "N requests"),
        (r"\bbyte \d+", "byte N"),
        (r"\b\d+(\.\d+)? (KiB|MiB|GiB)\b", "SIZE"),
        // How much was taken along that nobody asked for.
        (r"\bhydrated +[\d,]+ objects, [\d.,]+ \w+", "hydrated N objects"),
        (r"\s+", " "),
    ];
    rules.into_iter().map(|(rule, instead)| (Regex::new(rule).expect("written here"), instead)).collect()
});

/// A line in which all that may differ is the same.
fn plain(line: &str) -> String {
    let mut plain = line.trim().to_owned();
    for (rule, instead) in VARIABLE.iter() {
        plain = rule.replace_all(&plain, *instead).into_owned();
    }
    plain
}

/// A line about progress, as a command prints it that takes longer than a second; on a slow machine any may.
static PROGRESS: LazyLock<Regex> = LazyLock::new(|| {
    let phases = "waiting for the daemon|connecting|looking at what is here|writing the index|asking the remote|\
                  fetching commits|fetching trees|exporting|importing|warming|pinning";
    Regex::new(&format!("^({phases})(, [0-9].*)?$")).expect("written here")
});

/// What was printed, without lines about progress.
pub fn without_progress(printed: Vec<String>) -> Vec<String> {
    printed.into_iter().filter(|line| !PROGRESS.is_match(line)).collect()
}

/// Whether `printed` is what `shown` says.
pub fn agrees(shown: &[String], printed: &[String]) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (None, _) => printed.is_empty(),
        (Some((any, rest)), _) if any.trim() == "…" => (0..=printed.len()).any(|skip| agrees(rest, &printed[skip..])),
        (Some(_), None) => false,
        (Some((one, rest)), Some((line, more))) => line_agrees(one, line) && agrees(rest, more),
    }
}

fn line_agrees(shown: &str, printed: &str) -> bool {
    let parts: Vec<String> = plain(shown).split('…').map(regex::escape).collect();
    let pattern = Regex::new(&format!("^{}$", parts.join(".*"))).expect("escaped");
    pattern.is_match(&plain(printed))
}

/// Whether what is shown of `command` says that it fails.
pub fn fails(command: &str, shown: &[String]) -> bool {
    let program = command.split_whitespace().next().unwrap_or_default();
    let says = |line: &String| {
        let (who, what) = line.split_once(": ").unwrap_or_default();
        !what.starts_with("warning: ") && (who == program || ["larder", "fatal", "error"].contains(&who))
    };
    shown.iter().any(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(shown: &str, printed: &str) -> bool {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        agrees(&lines(shown), &lines(printed))
    }

    #[test]
    fn what_varies_may_differ_and_nothing_else() {
        assert!(agree("1s 301ms  object  st", "20ms object  st"));
        assert!(agree("7 fetched (5.8 KiB in 1 request), 0.0 s", "7 fetched (6 KiB in 2 requests), 0.3 s"));
        assert!(!agree("7 fetched (5.8 KiB in 1 request), 0.0 s", "8 fetched (6 KiB in 2 requests), 0.3 s"));
        assert!(!agree("main 70d08760e6a3", "main 70d08760e6a4"));
        assert!(!agree("a", "a\nb") && !agree("a\nb", "a") && !agree("", "a"));
    }

    #[test]
    fn dots_stand_for_anything() {
        assert!(agree("a … c\n…\nz", "a b c\nd\ne\nz"));
        assert!(agree("…", "") && !agree("…\nz", "a\nb"));
    }

    #[test]
    fn errors_are_known_by_who_says_them() {
        let fails = |command, line: &str| super::fails(command, &[line.to_owned()]);
        assert!(fails("cat a", "cat: a: Input/output error") && fails("git fetch", "fatal: no"));
        assert!(!fails("larder mount x y", "larder: warning: mounted as last fetched") && !fails("ls", "fix: this"));
    }
}
