//! Pathspecs: files named in Git's own syntax.
//!
//! gix reads the syntax; this matches paths and directories while trees are
//! walked. It refuses attributes, which no walk reads, and paths outside the
//! repository. The invariant: a walk selects what `git ls-files -- <pathspecs>`
//! would list.

use std::path::Path;

use gix::bstr::ByteSlice as _;
use gix::glob::wildmatch::Mode;
use gix::pathspec::{Defaults, MagicSignature, SearchMode};

use super::error::one_line;
use crate::hydrate::walk::{Reach, Select};

#[cfg(test)]
mod tests;

/// The bytes Git takes for wildcards outside `:(literal)`.
const WILDCARDS: &[u8] = b"*?[\\";

/// A pathspec that cannot be used, and why, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pathspec '{pathspec}' {why}")]
pub struct PathspecError {
    pathspec: String,
    why: String,
}

/// The paths that any pathspec names and no excluding one does. Without pathspecs: every path.
#[derive(Clone, Debug, Default)]
pub struct Pathspecs {
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

impl Pathspecs {
    /// Reads pathspecs relative to the root of the repository.
    pub fn parse(specs: &[String]) -> Result<Self, PathspecError> {
        let mut pathspecs = Self::default();
        for spec in specs {
            let (pattern, excludes) =
                Pattern::parse(spec).map_err(|why| PathspecError { pathspec: one_line(spec.as_bytes()), why })?;
            if excludes { &mut pathspecs.excluded } else { &mut pathspecs.included }.push(pattern);
        }
        Ok(pathspecs)
    }
}

impl Select for Pathspecs {
    fn directory(&mut self, path: &[u8]) -> Reach {
        if self.excluded.iter().any(|pattern| pattern.reach(path) == Reach::All) {
            return Reach::None;
        }
        let all = self.included.is_empty() || self.included.iter().any(|pattern| pattern.reach(path) == Reach::All);
        if all {
            let untouched = self.excluded.iter().all(|pattern| pattern.reach(path) == Reach::None);
            return if untouched { Reach::All } else { Reach::Some };
        }
        let any = self.included.iter().any(|pattern| pattern.reach(path) == Reach::Some);
        if any { Reach::Some } else { Reach::None }
    }

    fn file(&mut self, path: &[u8]) -> bool {
        let included = self.included.is_empty() || self.included.iter().any(|pattern| pattern.matches(path));
        included && !self.excluded.iter().any(|pattern| pattern.matches(path))
    }
}

/// One pathspec.
#[derive(Clone, Debug)]
struct Pattern {
    /// Without a trailing slash; empty is the whole repository.
    path: Vec<u8>,
    /// Written with a trailing slash: names no file.
    only_directory: bool,
    fold_case: bool,
    glob: Option<Glob>,
}

#[derive(Clone, Copy, Debug)]
struct Glob {
    /// Where the first wildcard stands.
    start: usize,
    mode: Mode,
    /// The most slashes a matching path has, where that is known.
    slashes: Option<usize>,
}

impl Pattern {
    /// The pattern, and whether it excludes.
    fn parse(spec: &str) -> Result<(Self, bool), String> {
        let refused = |error: &dyn std::fmt::Display| {
            format!("is not understood: {}", error.to_string().lines().next().unwrap_or_default())
        };
        let mut parsed = gix::pathspec::parse(spec.as_bytes(), Defaults::default()).map_err(|error| refused(&error))?;
        if !parsed.attributes.is_empty() {
            return Err("asks for attributes, which are not read here".to_owned());
        }
        let only_directory = parsed.signature.contains(MagicSignature::MUST_BE_DIR);
        // A lone slash was taken for the mark of a directory.
        if parsed.path().starts_with(b"/") || (only_directory && parsed.path().is_empty()) {
            return Err("is absolute; pathspecs are relative to the root of the repository".to_owned());
        }
        if leaves(parsed.path()) {
            return Err("leads out of the repository".to_owned());
        }
        let only_directory = only_directory || parsed.path().ends_with(b"/.") || parsed.path().ends_with(b"/..");
        parsed.normalize(Path::new(""), Path::new("")).map_err(|error| refused(&error))?;
        let path = if parsed.always_matches() { Vec::new() } else { parsed.path().to_vec() };
        let fold_case = parsed.signature.contains(MagicSignature::ICASE);
        let glob = Glob::of(&path, parsed.search_mode, fold_case).filter(|_| !only_directory);
        Ok((Self { path, only_directory, fold_case, glob }, parsed.is_excluded()))
    }

    /// Whether it names the file `path`.
    fn matches(&self, path: &[u8]) -> bool {
        if self.covers(path) {
            return !(self.only_directory && path.len() == self.path.len());
        }
        self.glob.is_some_and(|glob| {
            // As Git does, only what follows the literal beginning is matched as a glob: `a**` depends on it.
            let literal = &self.path[..glob.start];
            path.get(..glob.start).is_some_and(|beginning| self.same(beginning, literal))
                && gix::glob::wildmatch(self.path[glob.start..].as_bstr(), path[glob.start..].as_bstr(), glob.mode)
        })
    }

    /// How far it reaches below the directory `path`.
    fn reach(&self, path: &[u8]) -> Reach {
        if self.covers(path) {
            return Reach::All;
        }
        let leads = |literal: &[u8]| self.shares_beginning(path, literal);
        // Wildcards stand for themselves too: `[id]` may be a directory's name.
        let below = self.path.len() > path.len() && leads(&self.path);
        let matching = self.glob.is_some_and(|glob| {
            let deep = path.split(|&byte| byte == b'/').count();
            leads(&self.path[..glob.start]) && (path.is_empty() || glob.slashes.is_none_or(|slashes| deep <= slashes))
        });
        if below || matching { Reach::Some } else { Reach::None }
    }

    /// Whether `path` is what is named letter by letter, or lies below it.
    fn covers(&self, path: &[u8]) -> bool {
        let length = self.path.len();
        length == 0
            || path.get(..length).is_some_and(|beginning| self.same(beginning, &self.path))
                && path.get(length).is_none_or(|&byte| byte == b'/')
    }

    /// Whether something below the directory `path` can begin with `literal`.
    fn shares_beginning(&self, path: &[u8], literal: &[u8]) -> bool {
        let length = path.len().min(literal.len());
        let separated = path.is_empty() || literal.get(path.len()).is_none_or(|&byte| byte == b'/');
        separated && self.same(&path[..length], &literal[..length])
    }

    fn same(&self, one: &[u8], other: &[u8]) -> bool {
        if self.fold_case { one.eq_ignore_ascii_case(other) } else { one == other }
    }
}

impl Glob {
    fn of(path: &[u8], search: SearchMode, fold_case: bool) -> Option<Self> {
        let start = path.find_byteset(WILDCARDS).filter(|_| search != SearchMode::Literal)?;
        let mut mode = if fold_case { Mode::IGNORE_CASE } else { Mode::empty() };
        let mut slashes = None;
        if search == SearchMode::PathAwareGlob {
            mode |= Mode::NO_MATCH_SLASH_LITERAL;
            // Only `**` crosses slashes then.
            slashes = (!path.contains_str("**")).then(|| path.find_iter("/").count());
        }
        Some(Self { start, mode, slashes })
    }
}

/// Whether more steps lead up than down, at any point.
fn leaves(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    path.split(|&byte| byte == b'/').any(|component| {
        match component {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
        false
    })
}
