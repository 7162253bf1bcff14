//! The page: what was gathered, as HTML.

use std::fmt::Write as _;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::gather::Gathered;
use super::html::{self, embed, fill, percent, text, time};
use super::tree::{STATES, Sum, Sums, Tree, slot, whole};
use super::{lanes, tables};
use crate::cli::output::grouped;
use crate::config::quantity::human_bytes;
use crate::daemon::facts::area::AreaState;
use crate::daemon::protocol::Failure;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How a report begins: what is overwritten without being asked to.
pub(super) const MARK: &str = "<!doctype html>\n<!-- larder report -->\n";

/// Rows of the table of a directory, as in script.js.
const INSIDE_ROWS: usize = 40;

/// What the template has places for.
#[cfg(test)]
pub(super) const KEYS: [&str; 22] = [
    "policy",
    "version",
    "title",
    "style",
    "facts",
    "notes",
    "tiles",
    "legend",
    "root",
    "inside",
    "inside_more",
    "timeline",
    "biggest",
    "slowest",
    "processes",
    "directories",
    "repositories",
    "ages",
    "generations",
    "made",
    "data",
    "script",
];

/// Makes the page.
pub(super) fn page(found: &Gathered) -> Result<String, Failure> {
    let sums = found.tree.sums();
    let all = whole(&sums[0]);
    let data = embed(&data(found, all)?);
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; \
         form-action 'none'",
        base64(&Sha256::digest(SCRIPT))
    );
    let (inside, inside_more) = inside(&found.tree, &sums);
    let why = &found.why;
    Ok(fill(
        TEMPLATE,
        &[
            ("policy", &policy),
            ("version", env!("CARGO_PKG_VERSION")),
            ("title", &text(&found.head.workspace)),
            ("root", &text(&found.head.workspace)),
            ("style", STYLE),
            ("facts", &facts(found)),
            ("notes", &notes(found, all)),
            ("tiles", &tiles(&sums[0])),
            ("legend", &legend()),
            ("inside", &inside),
            ("inside_more", &inside_more),
            ("timeline", &lanes::lanes(why)),
            ("biggest", &tables::fetches(&why.biggest)),
            ("slowest", &tables::slowest(&why.slowest)),
            ("processes", &tables::processes(found)),
            ("directories", &tables::directories(found)),
            ("repositories", &tables::shares(&found.repositories.rows, "Repository")),
            ("ages", &tables::shares(&found.ages.rows, "Last used")),
            ("generations", &tables::generations(found)),
            ("made", &time(&found.made)),
            ("data", &data),
            ("script", SCRIPT),
        ],
    ))
}

/// What the script reads.
fn data(found: &Gathered, all: Sum) -> Result<String, Failure> {
    // Where most sizes are not known yet, areas that stand for sizes would be made up.
    let area = if all.unknown * 2 > all.files { "files" } else { "bytes" };
    let document = json!({
        "workspace": found.head.workspace,
        "generation": found.generation,
        "commit": found.head.commit,
        "files": found.tree.files,
        "average": Tree::average(all),
        "area": area,
        "start": found.tree.at(crate::daemon::facts::area::path_bytes(&found.head.place)),
    });
    let directories = serde_json::to_string(&found.tree.compact()).map_err(|error| {
        Failure::new(crate::daemon::protocol::FailureClass::Other, format!("cannot write the page's data: {error}"))
    })?;
    let mut text = document.to_string();
    text.pop();
    let _ = write!(text, ",\"dirs\":{directories}}}");
    Ok(text)
}

fn facts(found: &Gathered) -> String {
    let head = &found.head;
    let commit = head.commit.get(..12).unwrap_or(&head.commit);
    let mut pairs = vec![
        ("Repository", format!("<bdi>{}</bdi>", text(&head.repository))),
        ("Mounted at", format!("<bdi>{}</bdi>", text(&head.path))),
        ("Generation", format!("{} at <code>{}</code>", found.generation, text(commit))),
    ];
    if let Some(rev) = &head.rev {
        pairs.push(("Revision", format!("<bdi>{}</bdi>", text(rev))));
    }
    pairs.push(("Cache on disk", human_bytes(found.repositories.disk.store.file_bytes)));
    pairs.push(("Made", time(&found.made)));
    pairs.iter().fold(String::new(), |mut out, (term, told)| {
        let _ = write!(out, "<div><dt>{term}</dt><dd>{told}</dd></div>");
        out
    })
}

fn notes(found: &Gathered, all: Sum) -> String {
    let mut notes = Vec::new();
    if !found.head.live {
        notes
            .push("The workspace is not mounted: these are the files of its commit, without local changes.".to_owned());
    }
    if found.beyond {
        notes.push(format!("Only the first {} files are in this report.", grouped(found.tree.files)));
    }
    if found.passed_by > 0 {
        notes.push(format!(
            "{} directories are left out: their tree is not in the cache, or their path too long.",
            grouped(found.passed_by)
        ));
    }
    if all.unknown > 0 {
        notes.push(format!(
            "The sizes of {} files are not known yet; the map draws them at the average of the others.",
            grouped(all.unknown)
        ));
    }
    if !found.why.recording {
        notes.push("Fetches are not recorded (setting why.records is 0).".to_owned());
    }
    notes.iter().fold(String::new(), |mut out, note| {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", text(note));
        out
    })
}

const fn word(state: AreaState) -> &'static str {
    match state {
        AreaState::Hydrated => "Read",
        AreaState::Cached => "Cached",
        AreaState::Untouched => "Not fetched",
        AreaState::Overlay => "Changed",
    }
}

fn tiles(sums: &Sums) -> String {
    let all = whole(sums);
    let tile = |state: AreaState| {
        let at = slot(state);
        let Sum { files, bytes, unknown } = sums[at];
        let size = match (bytes, unknown) {
            (0, 1..) => "size not known".to_owned(),
            (_, 0) => human_bytes(bytes),
            _ => format!("over {}", human_bytes(bytes)),
        };
        let share =
            if files > 0 && files * 1000 < all.files { "under 0.1".to_owned() } else { percent(files, all.files) };
        format!(
            "<div class=\"tile s{at}\"><p class=\"what\">{}</p><p class=\"big\">{}</p><p class=\"small\">{size}, {share} % of the files</p></div>",
            word(state),
            grouped(files)
        )
    };
    STATES.map(tile).concat()
}

fn legend() -> String {
    let key = |state: AreaState| {
        format!(
            "<button type=\"button\" class=\"key s{}\" disabled><span class=\"swatch\"></span><span>{}</span></button>",
            slot(state),
            word(state)
        )
    };
    STATES.map(key).concat()
}

/// Shares of states as a bar.
fn states(sums: &Sums) -> String {
    let all = whole(sums).files;
    let told: Vec<String> = STATES
        .iter()
        .filter(|state| sums[slot(**state)].files > 0)
        .map(|state| format!("{} {}", grouped(sums[slot(*state)].files), word(*state).to_lowercase()))
        .collect();
    let told = told.join(", ");
    let mut out = format!("<span class=\"shares\" role=\"img\" title=\"{told}\" aria-label=\"{told}\">");
    for (at, sum) in sums.iter().enumerate().filter(|(_, sum)| sum.files > 0) {
        let _ = write!(out, "<span class=\"part s{at}\" style=\"width:{}%\"></span>", percent(sum.files, all));
    }
    out.push_str("</span>");
    out
}

/// The root's table, and what is said of the rest; the script replaces both.
fn inside(tree: &Tree, sums: &[Sums]) -> (String, String) {
    let below = tree.directories.iter().enumerate().skip(1).filter(|(_, one)| one.parent == 0);
    let mut rows: Vec<(String, Sums)> =
        below.map(|(at, one)| (format!("{}/", html::name(&one.name)), sums[at])).collect();
    rows.extend(tree.directories.first().into_iter().flat_map(|root| &root.files).map(|file| {
        let mut sums = Sums::default();
        sums[slot(file.state)] =
            Sum { files: 1, bytes: file.size.unwrap_or(0), unknown: u64::from(file.size.is_none()) };
        (html::name(&file.name), sums)
    }));
    rows.sort_by_key(|(_, sums)| std::cmp::Reverse((whole(sums).bytes, whole(sums).files)));
    let more = match rows.len().checked_sub(INSIDE_ROWS) {
        Some(more @ 1..) => format!("{} more entries, all of them smaller", grouped(more as u64)),
        _ => String::new(),
    };
    let mut out = String::new();
    for (name, sums) in rows.into_iter().take(INSIDE_ROWS) {
        let all = whole(&sums);
        let size = if all.bytes == 0 && all.unknown > 0 { "unknown".to_owned() } else { human_bytes(all.bytes) };
        let share = |state| format!("{} %", percent(sums[slot(state)].files, all.files));
        let _ = write!(
            out,
            "<tr><td>{name}</td><td>{}</td><td class=\"n\">{size}</td><td class=\"n\">{}</td><td class=\"n wide\">{}</td><td class=\"n wide\">{}</td></tr>",
            states(&sums),
            grouped(all.files),
            share(AreaState::Hydrated),
            share(AreaState::Cached)
        );
    }
    (out, more)
}

/// Base 64 of a hash (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize];
            out.push(if at > three.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_written_as_policies_want_them() {
        assert_eq!([&b""[..], b"f", b"fo", b"foo", b"foob"].map(base64), ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn the_template_begins_with_the_mark() {
        assert!(TEMPLATE.starts_with(MARK));
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
    }
}
