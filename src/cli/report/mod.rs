//! `larder report`: one page about a workspace, for a browser.
//!
//! Reading order: `gather` asks for what is in it, `tree` holds the files, `html` is how anything gets into the page,
//! `page`, `tables` and `lanes` put it together from `page.html`, `style.css` and `script.js`. Invariants: the page loads nothing;
//! a file is replaced whole or not at all, and none that is no report unless that was asked for.

mod gather;
mod html;
mod lanes;
mod page;
mod tables;
mod tree;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tempfile::NamedTempFile;

use super::config;
use super::facts::Desk;
use super::output::{Output, grouped};
use super::progress::Display;
use crate::config::quantity::human_bytes;
use crate::daemon::protocol::{Failure, FailureClass, rfc3339};

/// Write a page about a workspace for a browser
///
/// The page has a map of the files, coloured by what was read, what is only in the cache and what was never fetched; when
/// what was fetched, the biggest fetches and the longest waits, the processes that caused them, the cache by repository and
/// by last use, and the generations. It is one file that loads nothing: it can be kept, sent and opened anywhere. It names
/// every file of the workspace.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  larder report . -o report.html                the workspace this is called in
  larder report work -o - | gzip > r.html.gz    to standard output
  larder report work -o r.html --json           what was written, for a program")]
pub(super) struct Arguments {
    /// A workspace's name, or a path in a mount: the map then begins in that directory
    target: String,

    /// The file to write; - is standard output
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,

    /// Replace FILE.html also when it is something else than an older report
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let to_stdout = arguments.output.as_os_str() == "-";
    if to_stdout && output.is_json() {
        return Err(Failure::new(FailureClass::Usage, "cannot write the page and --json to standard output")
            .hint("give -o a file"));
    }
    // Refused before the work, not after it.
    let place = if to_stdout { None } else { Some(Place::open(&arguments.output, arguments.force)?) };
    let desk = Desk::open(config()?)?;
    let progress = Display::new(output);
    let made = rfc3339(Timestamp::now().as_second());
    let found = gather::gather(&desk, &arguments.target, &made, &progress)?;
    let page = page::page(&found)?;
    drop(progress);
    let Some(place) = place else { return output.text(&page) };
    let file = place.write(page.as_bytes())?;
    let document = json!({
        "file": file,
        "bytes": page.len(),
        "files": found.tree.files,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    output.done(&document, || {
        let size = human_bytes(page.len() as u64);
        format!("wrote {}: {size}, {} files\n", super::output::name(&file.to_string_lossy()), grouped(found.tree.files))
    })
}

/// Where the page goes: a temporary file beside it until it is complete.
struct Place {
    file: PathBuf,
    temporary: NamedTempFile,
}

impl Place {
    fn open(file: &Path, force: bool) -> Result<Self, Failure> {
        let file = match fs::metadata(file) {
            Ok(found) if !found.is_file() => {
                let text = format!("cannot write {}: it is there, and no regular file", file.display());
                return Err(
                    Failure::new(FailureClass::Refused, text).hint("give another name, or - for standard output")
                );
            }
            Ok(_) => {
                if !force && !may_replace(file) {
                    let text = format!("cannot write {}: it is there, and no report", file.display());
                    return Err(Failure::new(FailureClass::Refused, text).hint("--force replaces it"));
                }
                // A link stays one.
                file.canonicalize().map_err(|error| failed(file, &error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
            Err(error) => return Err(failed(file, &error)),
        };
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".larder-report-")
            // What the umask leaves of it: a page is there to be shown.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(|error| failed(&file, &error))?;
        Ok(Self { file, temporary })
    }

    /// Puts the page in place; its path.
    fn write(mut self, page: &[u8]) -> Result<PathBuf, Failure> {
        let written = self.temporary.write_all(page).and_then(|()| self.temporary.as_file().sync_all());
        written.map_err(|error| failed(&self.file, &error))?;
        self.temporary.persist(&self.file).map_err(|error| failed(&self.file, &error.error))?;
        Ok(self.file)
    }
}

/// Whether nothing is lost when `file` is replaced: it is a report, or empty. One that can't be read may be anything.
fn may_replace(file: &Path) -> bool {
    let mut begin = Vec::new();
    let read = File::open(file).and_then(|file| file.take(page::MARK.len() as u64).read_to_end(&mut begin));
    read.is_ok() && (begin.is_empty() || begin == page::MARK.as_bytes())
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    Failure::new(FailureClass::Other, format!("cannot write {}: {error}", file.display()))
        .hint("check that its directory is there and may be written to, or give another with -o")
}
