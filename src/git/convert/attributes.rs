//! Which attributes a file has: those of the tree from the root to its
//! directory, over the user's and the system's, under `info/attributes`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use gix::attrs::search::{MetadataCollection, Outcome};
use gix::attrs::{Search, State, StateRef};
use gix::bstr::ByteSlice;
use gix::glob::pattern::Case;

use super::builtin::{Encoding, Eol};
use super::settings::{AutoCrlf, Settings};
use crate::index::IndexError;
use crate::index::convert::{AttributesFile, RulesError};
use crate::store::Store;

/// Larger attribute files Git ignores too.
const FILE_BYTES: u64 = 100 << 20;

/// Longer lines Git ignores too.
const LINE_BYTES: usize = 2048;

/// Those that a checkout heeds.
const NAMES: [&str; 6] = ["crlf", "ident", "filter", "eol", "text", "working-tree-encoding"];

/// What a file's attributes ask for, once the configuration was asked too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Spec {
    pub(super) eol: Eol,
    pub(super) ident: bool,
    pub(super) encoding: Option<Encoding>,
    /// A driver that is configured.
    pub(super) driver: Option<String>,
}

/// Attribute files outside of the tree, as they were when the workspace was prepared.
pub(super) struct Outside {
    /// Below the tree's, least important first.
    below: Vec<(PathBuf, Vec<u8>)>,
    /// `info/attributes`, over the tree's.
    info: Vec<u8>,
}

impl Outside {
    pub(super) fn read(settings: &Settings, common: &Path) -> Self {
        let read = |path: &Path| match std::fs::metadata(path) {
            Ok(found) if found.len() <= FILE_BYTES => std::fs::read(path).unwrap_or_default(),
            _ => Vec::new(),
        };
        let below = settings.attribute_files.iter().map(|path| (path.clone(), read(path))).collect();
        Self { below, info: read(&common.join("info/attributes")) }
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.below.iter().map(|(_, content)| content.as_slice()).chain([self.info.as_slice()])
    }

    /// Whether anything outside the tree converts files.
    pub(super) fn may_convert(&self, settings: &Settings) -> bool {
        settings.auto_crlf == AutoCrlf::On || self.all().any(|content| may_convert(content, settings))
    }
}

/// Whether attributes in `content` could change what a checkout writes.
pub(super) fn may_convert(content: &[u8], settings: &Settings) -> bool {
    let heeded = short_lines(content);
    let converts = |assignment: gix::attrs::AssignmentRef<'_>| match (assignment.name.as_str(), assignment.state) {
        ("eol", StateRef::Value(value)) => value.as_bstr() == "crlf",
        ("text" | "crlf", StateRef::Set | StateRef::Value(_)) => settings.text_is_crlf(),
        ("ident", StateRef::Set) | ("working-tree-encoding", StateRef::Value(_)) => true,
        ("filter", StateRef::Value(name)) => driver(settings, name.as_bstr()).is_some(),
        _ => false,
    };
    gix::attrs::parse(&heeded)
        .filter_map(Result::ok)
        .any(|(_, assignments, _)| assignments.filter_map(Result::ok).any(converts))
}

/// The driver's name, if it is configured and a checkout has to do with it.
fn driver(settings: &Settings, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    settings.drivers.get(name).filter(|driver| driver.matters()).map(|_| name.to_owned())
}

/// `content` without the lines that Git ignores for their length.
fn short_lines(content: &[u8]) -> Vec<u8> {
    content.split_inclusive(|byte| *byte == b'\n').filter(|line| line.len() < LINE_BYTES).flatten().copied().collect()
}

/// What the attribute file `id` says. One that is too large reads as empty.
pub(super) fn content(store: &Store, id: ObjectId) -> Result<Vec<u8>, RulesError> {
    let size = store.stored_sizes(&[id]).map_err(IndexError::from)?.into_iter().next().flatten();
    if size.is_some_and(|size| size > FILE_BYTES) {
        return Ok(Vec::new());
    }
    store.read(&id).map_err(IndexError::from)?.ok_or_else(|| RulesError::Missing(vec![id]))
}

/// The attribute files that decide about one directory, least important first.
///
/// Kept as text: gix parses them into values that one thread alone may have (its feature `parallel` is off), and parsing
/// the files of one directory costs less than matching its names.
pub(super) struct Chain {
    parts: Vec<Part>,
    /// Whether any file can have a conversion.
    pub(super) converts: bool,
}

struct Part {
    content: Vec<u8>,
    path: PathBuf,
    /// Whether it is one of the tree's, and so speaks of paths below its directory.
    in_tree: bool,
    /// Macros count in the tree's root and outside of it.
    macros: bool,
}

impl Chain {
    pub(super) fn new(
        store: &Store,
        outside: &Outside,
        settings: &Settings,
        files: &[AttributesFile],
    ) -> Result<Arc<Self>, RulesError> {
        let ids: Vec<ObjectId> = files.iter().map(|file| file.id).collect();
        let missing = store.missing_blobs(&ids).map_err(IndexError::from)?;
        if !missing.is_empty() {
            return Err(RulesError::Missing(missing));
        }
        let contents: Vec<Vec<u8>> = ids.iter().map(|id| content(store, *id)).collect::<Result<_, _>>()?;
        let converts = outside.may_convert(settings) || contents.iter().any(|content| may_convert(content, settings));
        let part =
            |content: &[u8], path: PathBuf| Part { content: short_lines(content), path, in_tree: false, macros: true };
        let mut parts = vec![part(b"[attr]binary -diff -merge -text", "[builtin]".into())];
        parts.extend(outside.below.iter().map(|(path, content)| part(content, path.clone())));
        parts.extend(files.iter().zip(&contents).map(|(file, content)| Part {
            in_tree: true,
            macros: file.directory.is_empty(),
            ..part(content, Path::new(OsStr::from_bytes(&file.directory)).join(".gitattributes"))
        }));
        parts.push(part(&outside.info, "info/attributes".into()));
        Ok(Arc::new(Self { parts, converts }))
    }

    /// What each of `paths` asks for.
    pub(super) fn specs<'a>(
        &self,
        settings: &Settings,
        paths: impl Iterator<Item = Option<&'a [u8]>>,
        complain: impl Fn(&[u8], &str),
    ) -> Result<Vec<Spec>, RulesError> {
        let mut names = MetadataCollection::default();
        let mut search = Search::default();
        for part in &self.parts {
            let root = part.in_tree.then_some(Path::new(""));
            search
                .add_patterns_buffer(&part.content, part.path.clone(), root, &mut names, part.macros)
                .map_err(|error| RulesError::Index(IndexError::Attributes(error.to_string())))?;
        }
        let mut outcome = Outcome::default();
        outcome.initialize_with_selection(&names, NAMES);
        let case = if settings.ignore_case { Case::Fold } else { Case::Sensitive };
        let spec = |path: Option<&[u8]>| {
            let Some(path) = path else { return Spec::default() };
            outcome.reset();
            search.pattern_matching_relative_path(path.as_bstr(), case, Some(false), &mut outcome);
            let states: Vec<State> = outcome.iter_selected().map(|found| found.assignment.state.to_owned()).collect();
            spec(&states, settings, |reason| complain(path, reason))
        };
        Ok(paths.map(spec).collect())
    }
}

/// Git's `convert_attrs`, for the way out. `states` are those of [`NAMES`].
fn spec(states: &[State], settings: &Settings, complain: impl Fn(&str)) -> Spec {
    let [crlf, ident, filter, eol, text, encoding] = states else { return Spec::default() };
    let encoding = match encoding {
        State::Value(name) => Encoding::named(&name.as_ref().as_bstr().to_str_lossy()).unwrap_or_else(|reason| {
            complain(&format!("working-tree-encoding: {reason}; shown as it is stored"));
            None
        }),
        _ => None,
    };
    let filter = match filter {
        State::Value(name) => driver(settings, name.as_ref().as_bstr()),
        _ => None,
    };
    Spec { eol: line_endings(crlf, text, eol, settings), ident: *ident == State::Set, encoding, driver: filter }
}

fn line_endings(crlf: &State, text: &State, eol: &State, settings: &Settings) -> Eol {
    #[derive(Clone, Copy, PartialEq)]
    enum Content {
        Binary,
        Text,
        Auto,
        Input,
    }
    let value = |state: &State| match state {
        State::Set => Some(Content::Text),
        State::Unset => Some(Content::Binary),
        State::Value(value) if value.as_ref().as_bstr() == "input" => Some(Content::Input),
        State::Value(value) if value.as_ref().as_bstr() == "auto" => Some(Content::Auto),
        State::Value(_) | State::Unspecified => None,
    };
    let of_text = value(crlf).or_else(|| value(text));
    let of_eol = match eol {
        State::Value(value) if value.as_ref().as_bstr() == "crlf" => Some(true),
        State::Value(value) if value.as_ref().as_bstr() == "lf" => Some(false),
        _ => None,
    };
    match (of_text, of_eol) {
        (Some(Content::Binary), _) | (_, Some(false)) | (Some(Content::Input), None) => Eol::Keep,
        (Some(Content::Auto), Some(true)) => Eol::AutoCrlf,
        (_, Some(true)) => Eol::Crlf,
        (Some(Content::Text), None) if settings.text_is_crlf() => Eol::Crlf,
        (Some(Content::Auto), None) if settings.text_is_crlf() => Eol::AutoCrlf,
        (None, None) if settings.auto_crlf == AutoCrlf::On => Eol::AutoCrlf,
        _ => Eol::Keep,
    }
}
