//! `larder cache ls` and `larder cache cat`: the objects in the cache, and their bytes.
//!
//! Both ask page by page and print each page before the next: nothing is held, and a reader that hangs up ends them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::facts::{Desk, mixed_up};
use super::output::Output;
use super::{config, inspect};
use crate::daemon::facts::list::{Kind, ListRequest, ObjectRow, PAGE_ROWS};
use crate::daemon::facts::part::PartRequest;
use crate::daemon::facts::place::Subject;
use crate::daemon::facts::{Finding, Question};
use crate::daemon::protocol::{Failure, FailureClass};
use crate::store::ObjectIdText;

/// Rows of the first page: `| head` waits for no more.
const FIRST_ROWS: usize = 100;

const LS_EXAMPLES: &str = "\
Examples:
  larder cache ls | head                     the first objects
  larder cache ls --type blob 18bb           blobs whose ids begin with 3b18
  larder cache ls --long --json              everything known of all, for scripts";

const CAT_EXAMPLES: &str = "\
Examples:
  larder cache cat 18bb5b55                  an object, by the first digits of its id
  larder cache cat work/run.sh > run.sh      what the commit has at a path of a mount";

/// List the objects in the cache, in the order of their ids
///
/// One a line: id, kind, bytes of its content, bytes it takes, codec, last use. Works without a daemon.
#[derive(Clone, Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(super) struct Ls {
    /// First digits of their ids [default: all objects]
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,

    /// Show frames, chunk and BLAKE3 too
    #[arg(long)]
    long: bool,

    /// Only objects of this kind
    #[arg(long, value_enum)]
    r#type: Option<Type>,

    /// Their order
    #[arg(long, value_enum, default_value_t = Sort::Oid)]
    sort: Sort,
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Contents of files and symlinks
    Blob,
    /// Directories
    Tree,
}

/// Orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By object id
    Oid,
}

/// Print an object that is in the cache
///
/// Bytes as they are; a directory as `git cat-file -p` prints it. Nothing is fetched, and no byte is printed whose
/// checksum does not hold. Works without a daemon.
#[derive(Clone, Debug, Args)]
#[command(after_help = CAT_EXAMPLES)]
pub(super) struct Cat {
    /// An object id or the first four or more digits of one, or a path in a mount; ./NAME is always a path
    #[arg(value_name = "OID|PATH")]
    subject: OsString,

    /// Look at this generation of the path's workspace instead of what is shown
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
}

pub(super) fn ls(arguments: &Ls, output: Output) -> Result<ExitCode, Failure> {
    let Sort::Oid = arguments.sort;
    let kind = arguments.r#type.map(|kind| match kind {
        Type::Blob => Kind::Blob,
        Type::Tree => Kind::Tree,
    });
    let desk = Desk::open(config()?)?;
    let mut after: Option<ObjectIdText> = None;
    let mut limit = FIRST_ROWS;
    loop {
        let request = ListRequest { kind, prefix: arguments.prefix.clone(), after, limit };
        let Finding::List(page) = desk.ask(Question::List(request))? else { return Err(mixed_up()) };
        let mut text = String::new();
        if output.is_json() && after.is_none() {
            text.push_str("{\"rows\":[");
        }
        for row in &page.rows {
            if !output.is_json() {
                line(&mut text, row, arguments.long);
                continue;
            }
            if after.is_some() {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(row).expect("numbers and texts"));
            after = Some(row.oid);
        }
        after = page.rows.last().map(|row| row.oid).or(after);
        if page.last && output.is_json() {
            text.push_str("]}\n");
        }
        if !output.part(text.as_bytes())? || page.last {
            return Ok(ExitCode::SUCCESS);
        }
        limit = PAGE_ROWS;
    }
}

fn line(text: &mut String, row: &ObjectRow, long: bool) {
    let kind = match row.r#type {
        Kind::Blob => "blob",
        Kind::Tree => "tree",
    };
    if row.damaged {
        let _ = writeln!(text, "{} {kind} damaged", row.oid.0);
        return;
    }
    let used = row.last_used.as_deref().unwrap_or("-");
    let _ =
        write!(text, "{} {kind} {:>10} {:>10} {:<7} {used:<20}", row.oid.0, row.raw_bytes, row.stored_bytes, row.codec);
    if long {
        let chunk = row.chunk.map_or_else(|| "-".to_owned(), |chunk| chunk.to_string());
        let _ = write!(text, " {:>6} {chunk:>8} {}", row.frames, row.blake3.as_deref().unwrap_or("-"));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

pub(super) fn cat(arguments: &Cat, output: Output) -> Result<ExitCode, Failure> {
    let desk = Desk::open(config()?)?;
    let generation = arguments.generation;
    let first = |subject| Question::Part(PartRequest { subject, generation, offset: 0 });
    let mut finding = inspect::ask(&desk, &arguments.subject, first)?;
    let mut offset = 0;
    loop {
        let Finding::Part(part) = finding else { return Err(mixed_up()) };
        let bytes = part.bytes().ok_or_else(|| {
            Failure::new(FailureClass::Other, "cannot use the daemon's answer: it holds no bytes")
                .hint("stop it with `larder shutdown`; the next command starts one that fits")
        })?;
        offset += bytes.len() as u64;
        if !output.part(&bytes)? || part.last {
            return Ok(ExitCode::SUCCESS);
        }
        let subject = Subject::Object(part.oid.0.to_string());
        finding = desk.ask(Question::Part(PartRequest { subject, generation: None, offset }))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_one_object() {
        let id = "3b18e512dba79e4c8300dd08aeb37f8e728b8dad";
        let row = ObjectRow {
            oid: ObjectIdText(gix::ObjectId::from_hex(id.as_bytes()).expect("an id")),
            r#type: Kind::Blob,
            damaged: false,
            raw_bytes: 12,
            stored_bytes: 12,
            codec: "raw".to_owned(),
            frames: 1,
            chunk: Some(7),
            blake3: Some("ab".repeat(32)),
            last_used: Some("2026-01-02T03:00:00Z".to_owned()),
            entries: None,
        };
        let mut text = String::new();
        line(&mut text, &row, false);
        line(&mut text, &ObjectRow { last_used: None, ..row.clone() }, false);
        line(&mut text, &ObjectRow { damaged: true, ..row.clone() }, true);
        let head = format!("{id} blob         12         12 raw    ");
        assert_eq!(text, format!("{head} 2026-01-02T03:00:00Z\n{head} -\n{id} blob damaged\n"));
        text.clear();
        line(&mut text, &row, true);
        assert!(text.ends_with(&format!("      1        7 {}\n", "ab".repeat(32))), "{text}");
    }
}
