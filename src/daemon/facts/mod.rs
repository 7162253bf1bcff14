//! Facts about the cache: questions that only read.
//!
//! Each is a function of the store, and of the daemon where one runs; with
//! none running the client opens the store for reading and asks the same
//! function. So the answers are the same, also on a copy of the store.
//! Invariant: an answer fits a line of the control socket: what may be long is
//! asked for a page at a time.

pub mod area;
pub mod changes;
pub mod disk;
pub mod du;
pub mod generations;
pub mod health;
pub mod inspect;
mod ledger;
pub mod list;
pub mod names;
pub mod part;
pub mod pins;
pub mod place;
pub mod top;
pub mod why;

use serde::{Deserialize, Serialize};

use super::Daemon;
use super::protocol::Failure;
use crate::config::Config;
use crate::store::Store;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What the cache takes, by repository, workspace, generation, directory, type or age.
    Du(du::DuRequest),
    /// Where the bytes of a path come from, and what the cache knows of an object.
    Inspect(inspect::InspectRequest),
    /// The objects in the cache, a page at a time.
    List(list::ListRequest),
    /// Bytes of an object in the cache, a part at a time.
    Part(part::PartRequest),
    /// Which generations a workspace has.
    Generations(generations::GenerationsRequest),
    /// What is pinned.
    Pins(pins::PinsRequest),
    /// What caused fetches.
    Why(why::WhyRequest),
    /// What goes on now.
    Top(top::TopRequest),
    /// The files of a workspace and how much of each is here, a page at a time.
    Area(area::AreaRequest),
    /// What `larder doctor` looks at.
    Health(health::HealthRequest),
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// To [`Question::Du`].
    Du(Box<du::DuReport>),
    /// To [`Question::Inspect`].
    Inspect(Box<inspect::InspectReport>),
    /// To [`Question::List`].
    List(Box<list::ListReport>),
    /// To [`Question::Part`].
    Part(Box<part::PartReport>),
    /// To [`Question::Generations`].
    Generations(Box<generations::GenerationsReport>),
    /// To [`Question::Pins`].
    Pins(Box<pins::PinsReport>),
    /// To [`Question::Why`].
    Why(Box<why::WhyReport>),
    /// To [`Question::Top`].
    Top(Box<top::TopReport>),
    /// To [`Question::Area`].
    Area(Box<area::AreaReport>),
    /// To [`Question::Health`].
    Health(Box<health::HealthReport>),
}

/// Where facts come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The cache.
    pub store: &'a Store,
    /// Its places and settings.
    pub config: &'a Config,
    /// The daemon that owns it; `None`: none runs, and nothing is mounted.
    pub daemon: Option<&'a Daemon>,
}

/// Answers `question`. May walk all there is: not for a thread that others wait for.
pub fn answer(sources: &Sources<'_>, question: &Question) -> Result<Finding, Failure> {
    Ok(match question {
        Question::Du(request) => Finding::Du(Box::new(du::answer(sources, request)?)),
        Question::Inspect(request) => Finding::Inspect(Box::new(inspect::answer(sources, request)?)),
        Question::List(request) => Finding::List(Box::new(list::answer(sources, request)?)),
        Question::Part(request) => Finding::Part(Box::new(part::answer(sources, request)?)),
        Question::Generations(request) => Finding::Generations(Box::new(generations::answer(sources, request)?)),
        Question::Pins(request) => Finding::Pins(Box::new(pins::answer(sources, request)?)),
        Question::Why(request) => Finding::Why(Box::new(why::answer(sources, request)?)),
        Question::Top(request) => Finding::Top(Box::new(top::answer(sources, request)?)),
        Question::Area(request) => Finding::Area(Box::new(area::answer(sources, request)?)),
        Question::Health(request) => Finding::Health(Box::new(health::answer(sources, request)?)),
    })
}

/// Room for one list of an answer: a third of a line of the socket.
const LIST_BYTES: usize = super::protocol::MAX_LINE_BYTES / 3;

/// As many of `rows` as fit a line of the socket with two lists beside them.
fn within_a_line<T: Serialize>(rows: Vec<T>) -> Vec<T> {
    within(LIST_BYTES, rows)
}

/// As many of `rows` as take `room` bytes.
fn within<T: Serialize>(mut room: usize, rows: Vec<T>) -> Vec<T> {
    rows.into_iter()
        .take_while(|row| {
            // What can't be written would fail the answer, not be too long for it.
            let bytes = serde_json::to_vec(row).map_or(0, |text| text.len() + 1);
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        })
        .collect()
}

/// A path for JSON: as text, and as bytes where that is not the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathText {
    /// The path; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Its bytes, where some were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
}

impl From<&[u8]> for PathText {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(path) => Self { path: path.to_owned(), path_bytes: None },
            Err(_) => Self { path: String::from_utf8_lossy(bytes).into(), path_bytes: Some(bytes.to_vec()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_bytes() {
        let text = PathText::from(&b"a\xffb"[..]);
        assert_eq!((text.path.as_str(), text.path_bytes.as_deref()), ("a\u{fffd}b", Some(&b"a\xffb"[..])));
        assert_eq!(PathText::from(&b"ab"[..]).path_bytes, None);
    }

    #[test]
    fn a_list_is_cut_where_the_line_ends() {
        let rows = vec!["x".repeat(1_000); 1_000];
        let kept = within_a_line(rows).len();
        assert!((300..400).contains(&kept), "{kept}");
    }
}
