//! `larder inspect`: show where the bytes of a path come from, or what the cache knows of an object.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::bounded::bounded;
use super::facts::{Desk, mixed_up};
use super::output::{Output, grouped, name, sheet};
use super::{config, target};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::inspect::{Checksum, Fetched, InspectReport, InspectRequest, Source};
use crate::daemon::facts::names::NamedBy;
use crate::daemon::facts::place::{DIGITS_MIN, Subject};
use crate::daemon::facts::{Finding, Question};
use crate::daemon::protocol::{Failure, FailureClass};

/// Digits of the longest object id.
const DIGITS_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples:
  larder inspect work/src/step1.rs                  a file of a mount
  larder inspect work/src/step1.rs --generation 1   the same in an older generation
  larder inspect 18bb5b55                           an object, by the first digits of its id
  larder inspect 18bb5b55 --names --json            with every path that names it, for scripts";

/// Show where the bytes of a path come from, or what the cache knows of an object
///
/// Tells the object, its sizes, how it is stored, whether the stored bytes are whole, which paths of which generations
/// name it, and who fetched it when. Nothing is fetched for it. Works without a daemon.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A path in a mount, or an object id or the first four or more digits of one; ./NAME is always a path
    #[arg(value_name = "PATH|OID")]
    subject: OsString,

    /// Look at this generation of the path's workspace instead of what is shown
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,

    /// Search all generations, all records of fetches, and check the largest objects too: walks all trees
    #[arg(long)]
    names: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let desk = Desk::open(config()?)?;
    let (generation, all) = (arguments.generation, arguments.names);
    let question = |subject| Question::Inspect(InspectRequest { subject, generation, all });
    match ask(&desk, &arguments.subject, question)? {
        Finding::Inspect(report) => output.facts(&*report, || human(&report)),
        _ => Err(mixed_up()),
    }
}

/// Asks about an argument under each of its meanings until one is known.
pub(super) fn ask(desk: &Desk, argument: &OsStr, question: impl Fn(Subject) -> Question) -> Result<Finding, Failure> {
    let mut first = None;
    for subject in meanings(argument)? {
        match desk.ask(question(subject)) {
            Err(failure) if failure.class == FailureClass::NotFound => {
                first.get_or_insert(failure);
            }
            other => return other,
        }
    }
    Err(first.unwrap_or_else(|| Failure::new(FailureClass::NotFound, "cannot find the current directory")))
}

/// What an argument may mean, likeliest first. The last is looked up only if nothing is known under those before it.
fn meanings(argument: &OsStr) -> Result<impl Iterator<Item = Subject>, Failure> {
    if argument.is_empty() {
        let failure = Failure::new(FailureClass::Usage, "cannot inspect nothing: the argument is empty");
        return Err(failure.hint("give a path in a mount, or an object id"));
    }
    let digits = |text: &&str| {
        (DIGITS_MIN..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let object = argument.to_str().filter(digits).map(|text| Subject::Object(text.to_owned()));
    let path = if argument.as_bytes().starts_with(b"/") {
        Some(target::plain(Path::new(argument)))
    } else {
        std::env::current_dir().ok().map(|directory| target::plain(&directory.join(argument)))
    };
    let bytes = |path: PathBuf| Subject::Path(path.into_os_string().into_vec());
    let plain = path.clone().map(bytes);
    let resolved = std::iter::once_with(move || {
        let path = path?;
        let asked = path.clone();
        let resolved = bounded(move || target::canonical(&asked).ok())??;
        (resolved != path).then(|| bytes(resolved))
    });
    Ok(object.into_iter().chain(plain).chain(resolved.flatten()))
}

fn human(report: &InspectReport) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let mut tell = |label: &'static str, value: Option<String>| pairs.extend(value.map(|value| (label, value)));
    let bytes = |bytes: u64| match bytes {
        0..1024 => format!("{bytes} bytes"),
        _ => format!("{} bytes ({})", grouped(bytes), human_bytes(bytes)),
    };
    let path = report.path.as_deref().map(|path| if path.is_empty() { "." } else { path });
    tell("path", path.map(name));
    tell("workspace", report.workspace.as_deref().map(name));
    tell("repository", report.repository.as_deref().map(name));
    tell(
        "generation",
        report.generation.map(|number| {
            let commit = report.commit.as_deref().unwrap_or("-");
            format!("{number}, commit {commit}")
        }),
    );
    tell("source", report.source.map(|source| source_name(source).to_owned()));
    tell("object", report.oid.clone());
    tell("in the base", report.base_oid.clone());
    tell("kind", report.kind.clone());
    tell("mode", report.mode.clone());
    tell("size", report.size.map(bytes));
    tell("entries", report.entries.map(grouped));
    tell("made of", report.converted_from.as_ref().map(|id| format!("{id}, by a checkout conversion")));
    tell("hydrated", Some(if report.hydrated { "yes" } else { "no" }.to_owned()));
    tell(
        "stored",
        report.stored_bytes.map(|stored| {
            let ratio = report.ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} to 1"));
            format!("{} as {}{ratio}", bytes(stored), report.codec.as_deref().unwrap_or("-"))
        }),
    );
    tell("frames", report.frames.zip(report.chunk).map(|(frames, chunk)| format!("{frames}, from chunk {chunk} on")));
    tell(
        "checksum",
        report.checksum.filter(|found| *found != Checksum::NotStored).map(|found| checksum(found).to_owned()),
    );
    tell("blake3", report.blake3.clone());
    tell("stored at", report.stored.clone());
    tell("last used", report.last_used.clone());
    tell("fetched", report.fetched.as_ref().map(fetched));
    let mut text = sheet(&pairs);
    if let Some(named) = &report.named_by {
        text.push_str(&names(named));
    }
    text
}

const fn source_name(source: Source) -> &'static str {
    match source {
        Source::Base => "base: what the commit has",
        Source::Overlay => "overlay: local changes",
        Source::Gitlink => "gitlink: a commit of another repository",
    }
}

const fn checksum(found: Checksum) -> &'static str {
    match found {
        Checksum::Ok => "ok: all stored bytes were checked now",
        Checksum::Damaged => "damaged: `larder verify --repair` fetches it again",
        Checksum::Unchecked => "not checked: it is large; --names checks it, `larder verify` checks everything",
        Checksum::NotStored => "nothing is stored",
    }
}

fn fetched(fetched: &Fetched) -> String {
    // Serialised as they are named, in one word.
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let (operation, class) = (word(serde_json::to_value(fetched.operation)), word(serde_json::to_value(fetched.class)));
    let process = if fetched.process.is_empty() { "an unknown process" } else { &fetched.process };
    let wait =
        if fetched.wait_us > 0 { format!(", waited {} ms", fetched.wait_us.div_ceil(1000)) } else { String::new() };
    let likely = if fetched.certain {
        String::new()
    } else {
        format!("; likely: it came with {} objects at that time", grouped(fetched.objects))
    };
    let (process, path) = (name(process), name(&fetched.path));
    format!("{} by {process} (pid {}): {operation} of {path}, as {class}{wait}{likely}", fetched.at, fetched.pid)
}

fn names(named: &NamedBy) -> String {
    let mut text = String::new();
    for row in &named.rows {
        let mut numbers: Vec<String> = row.generations.iter().take(8).map(u64::to_string).collect();
        if row.generations.len() > numbers.len() {
            numbers.push("…".to_owned());
        }
        let path = if row.path.is_empty() { "." } else { &row.path };
        let _ = writeln!(text, "  {}@{}: {}", name(&row.workspace), numbers.join(","), name(path));
    }
    if named.left_out > 0 {
        let _ = writeln!(text, "  … and {} more", grouped(named.left_out));
    }
    if !named.complete {
        let searched = grouped(named.trees_searched);
        let _ = writeln!(text, "  searched {searched} directories alone: --names searches all generations");
    } else if named.rows.is_empty() {
        text.push_str("  nothing: no path of any generation\n");
    }
    format!("named by\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_an_object_first_and_then_a_path() {
        let all = |argument: &str| -> Vec<Subject> { meanings(OsStr::new(argument)).expect("not empty").collect() };
        assert!(matches!(&all("beef")[..2], [Subject::Object(id), Subject::Path(_)] if id == "beef"));
        for path in ["bee", "./beef", "/x/beef", "beeg"] {
            assert!(matches!(all(path)[0], Subject::Path(_)), "{path}");
        }
        assert!(matches!(&all("/a/./b/../c")[0], Subject::Path(path) if path == b"/a/c"));
        assert!(meanings(OsStr::new("")).is_err());
    }
}
