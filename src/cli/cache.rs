//! `larder cache`: objects in the cache (`objects.rs`), and carrying them to a machine without a network.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::{Output, grouped, name};
use super::progress::Display;
use super::{client, config, mount, objects, status, target, warm};
use crate::config::quantity::human_bytes;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::protocol::{Answer, CarryReport, ExportRequest, Failure, Request};

/// List and print objects in the cache, or carry a commit and its files to a machine without a network
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Ls(objects::Ls),
    Cat(objects::Cat),

    /// Write what a workspace shows into one compressed file: its commit, all trees, and the files
    ///
    /// What is not in the cache is fetched first. Local changes are left out: commit them, or carry a patch. Until the
    /// file is whole it is called FILE.part; interrupted, the same command goes on where it ended.
    Export(Export),

    /// Take in a file that `larder cache export` wrote; every object is verified
    ///
    /// Then `larder mount REPO DIR --offline` works with the address that the report shows, without any network.
    /// Interrupted, the same command goes on where it ended.
    Import(Import),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder cache export all.larder work          everything the workspace shows
  larder cache export docs.larder work docs    its directories, and the files below docs")]
struct Export {
    /// The file to write; it must not exist
    file: PathBuf,

    /// A mount path or a workspace name
    target: String,

    /// Git pathspecs, relative to the workspace's root [default: everything]
    #[arg(value_name = "PATHSPEC", value_parser = warm::pathspec)]
    pathspecs: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder cache import notes.larder    takes it in; the report says how to mount it")]
struct Import {
    /// The file
    file: PathBuf,
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    match arguments.action {
        Action::Ls(arguments) => objects::ls(&arguments, output),
        Action::Cat(arguments) => objects::cat(&arguments, output),
        Action::Export(arguments) => export(arguments, output),
        Action::Import(arguments) => import(&arguments, output),
    }
}

fn export(arguments: Export, output: Output) -> Result<ExitCode, Failure> {
    let Export { file, target, pathspecs } = arguments;
    // The daemon has another current directory.
    let file = mount::absolute(&file, "FILE")?;
    let config = config()?;
    let progress = Display::new(output);
    let client = client(&config, || target::unknown(&target))?;
    let request = ExportRequest { file, target: target::resolve(&client, &target)?, pathspecs };
    let answer = client.call(Request::Export(request), &mut |report| progress.report(report));
    drop(progress);
    match answer? {
        Answer::Carried(report) => output.done(&*report, || exported(&report)),
        other => Err(unexpected(&other)),
    }
}

fn import(arguments: &Import, output: Output) -> Result<ExitCode, Failure> {
    let file = mount::absolute(&arguments.file, "FILE")?;
    let config = config()?;
    let progress = Display::new(output);
    let client = Client::start(&config)?;
    let answer = client.call(Request::Import { file }, &mut |report| progress.report(report));
    drop(progress);
    match answer? {
        Answer::Carried(report) => output.done(&*report, || imported(&report)),
        other => Err(unexpected(&other)),
    }
}

fn exported(report: &CarryReport) -> String {
    let mut text = format!("{} to {}: {}", what(report), name(&report.file.to_string_lossy()), amounts(report));
    if report.fetched > 0 {
        let _ = write!(text, ", {} fetched first", grouped(report.fetched));
    }
    if report.skipped > 0 {
        let _ = write!(text, ", {} were there already", grouped(report.skipped));
    }
    let _ = writeln!(text, ", {}", warm::time(report.seconds));
    text
}

fn imported(report: &CarryReport) -> String {
    let mut text = format!("{}: {}", what(report), amounts(report));
    if report.skipped > 0 {
        let _ = write!(text, ", {} were cached already", grouped(report.skipped));
    }
    let (repository, rev) = (name(&report.repository), name(short(report).unwrap_or(&report.commit)));
    let _ = writeln!(text, ", {}", warm::time(report.seconds));
    let _ = writeln!(text, "mount it with `larder mount {repository} DIR --rev {rev} --offline`");
    text
}

/// `main 0123456789ab of URL`
fn what(report: &CarryReport) -> String {
    let commit = status::short(Some(&report.commit));
    let reference = short(report).map_or_else(String::new, |reference| format!("{} ", name(reference)));
    format!("{reference}{commit} of {}", name(&report.repository))
}

/// The branch or tag as people write it.
fn short(report: &CarryReport) -> Option<&str> {
    let full = report.reference.as_deref()?;
    full.strip_prefix("refs/heads/").or_else(|| full.strip_prefix("refs/tags/"))
}

fn amounts(report: &CarryReport) -> String {
    let (files, directories) = (grouped(report.objects), grouped(report.trees));
    let (raw, stored) = (human_bytes(report.raw_bytes), human_bytes(report.file_bytes));
    format!("{files} files and {directories} directories, {raw} in {stored}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_say_what_there_is_to_say() {
        let report = CarryReport {
            file: "/tmp/linux.larder".into(),
            repository: "https://example.org/linux.git".into(),
            reference: Some("refs/heads/main".into()),
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            objects: 78_225,
            trees: 4873,
            skipped: 40_000,
            fetched: 12,
            raw_bytes: 1_181_116_006,
            file_bytes: 266_338_304,
            seconds: 12.34,
            ..CarryReport::default()
        };
        assert_eq!(
            exported(&report),
            "main 0123456789ab of https://example.org/linux.git to /tmp/linux.larder: 78,225 files and 4,873 \
             directories, 1.1 GiB in 254 MiB, 12 fetched first, 40,000 were there already, 12.3 s\n"
        );
        let detached = CarryReport { reference: None, skipped: 0, ..report };
        assert_eq!(
            imported(&detached),
            "0123456789ab of https://example.org/linux.git: 78,225 files and 4,873 directories, 1.1 GiB in 254 MiB, \
             12.3 s\nmount it with `larder mount https://example.org/linux.git DIR --rev \
             0123456789abcdef0123456789abcdef01234567 --offline`\n"
        );
    }
}
