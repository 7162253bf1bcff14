//! Imports point down, and each dependency has one door.
//!
//! Reads every source file as text: `crate::x` paths (also `super::super::x`
//! that reach the root), the names of the crates that only one layer may know,
//! and macros that print. The last test shows the check failing on samples.

use std::fs;
use std::path::{Path, PathBuf};

/// What may import what, lowest first. `git` stands beside them and is known to `daemon` alone.
const LAYERS: [&str; 6] = ["store", "hydrate", "index", "vfs", "daemon", "cli"];
/// What `git` may know.
const UNDER_GIT: [&str; 3] = ["store", "hydrate", "index"];
/// Known to all, knowing none.
const COMMON: [&str; 2] = ["config", "metrics"];
/// A crate and the one folder that names it.
const DOORS: [(&str, &str); 8] = [
    ("redb", "store"),
    ("fuser", "vfs"),
    ("clap", "cli"),
    ("clap_complete", "cli"),
    ("clap_mangen", "cli"),
    ("gix", "git"),
    ("hyper", "daemon"),
    ("ratatui", "cli"),
];
/// Plain vocabulary of gix that every layer may use.
const GIX_WORDS: [&str; 3] = ["gix::ObjectId", "gix::hash", "gix::objs::Kind"];
/// Parses tree objects, and so may use more of gix.
const TREE_PARSER: &str = "store/git_tree.rs";
const TREE_PARSER_WORDS: [&str; 2] = ["gix::objs", "gix::validate"];

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "only {} files under src: is this the right place?", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let name = path.strip_prefix(&root).expect("found under src").to_str().expect("UTF-8").to_owned();
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        wrong.extend(violations(&name, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_can_fail() {
    for (file, text) in [
        ("store/db.rs", "use crate::hydrate::Want;"),
        ("store/db.rs", "use crate::{config::Settings, vfs};"),
        ("hydrate/queue.rs", "fn f() { crate::daemon::start(); }"),
        ("index/view.rs", "use super::super::vfs::Errno;"),
        ("vfs/mod.rs", "use crate::git::Door;"),
        ("cli/mount.rs", "use crate::git::Door;"),
        ("git/fetch.rs", "use crate::vfs::Ino;"),
        ("config.rs", "use crate::store::Depth;"),
        ("index/mod.rs", "use redb::Database;"),
        ("daemon/mount.rs", "let s: fuser::Session;"),
        ("store/db.rs", "use gix::Repository;"),
        ("store/db.rs", "use gix::{ObjectId, objs::Tree};"),
        ("index/view.rs", "use gix::objs::TreeRefIter;"),
        ("daemon/mod.rs", "fn f() { println!(\"x\"); }"),
        ("vfs/mod.rs", "fn f() { dbg!(1); }"),
    ] {
        assert_eq!(violations(file, text).len(), 1, "{file}: {text}: {:?}", violations(file, text));
    }
    for (file, text) in [
        ("store/db.rs", "use crate::config::Settings; use crate::store::row; use gix::{ObjectId, hash::Kind};"),
        ("cli/mount.rs", "use crate::{daemon::protocol::{Request, Reply}, store::Depth}; fn f() { println!(); }"),
        ("daemon/mod.rs", "use crate::git::Door; // crate::cli::run, fuser::Session\nlet s = \"crate::cli::x\";"),
        ("store/git_tree.rs", "use gix::objs::TreeRefIter; use gix::validate::path;"),
        ("store/tests/crash.rs", "use gix::objs::compute_hash; fn f() { println!(); }"),
        ("git/index/mod.rs", "use super::index::Row; use crate::hydrate::Remote;"),
        ("main.rs", "use larder::cli; fn main() { crate::cli::run() }"),
    ] {
        assert_eq!(violations(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn violations(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let own = file.split('/').next().expect("not empty").trim_end_matches(".rs");
    let mut wrong = Vec::new();
    if !["main", "lib"].contains(&own) {
        for path in paths(&code, "crate").into_iter().chain(paths_to_root(&code, module_depth(file))) {
            let target = path.split("::").nth(1).unwrap_or_default().to_owned();
            if !may_import(own, &target) {
                wrong.push(format!("src/{file}: `{own}` may not import `{target}` ({path})"));
            }
        }
    }
    for (krate, door) in DOORS {
        if own != door && own != "main" && !is_test(file) {
            let misused = paths(&code, krate).into_iter().filter(|path| !allowed_word(file, path));
            wrong.extend(misused.map(|path| format!("src/{file}: only src/{door} names {krate} ({path})")));
        }
    }
    if own != "cli" && !is_test(file) {
        for print in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
            if words(&code, print.trim_end_matches('!')).any(|end| code[end..].starts_with('!')) {
                wrong.push(format!("src/{file}: only src/cli prints ({print})"));
            }
        }
    }
    wrong
}

/// Test modules in files of their own may make objects and tell their parent process things.
fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs")
}

fn may_import(own: &str, target: &str) -> bool {
    let place = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let known = place(target).is_some() || target == "git" || COMMON.contains(&target);
    // Macros and items at the crate root have no layer.
    if !known || target == own || COMMON.contains(&target) {
        return true;
    }
    match (own, target) {
        ("daemon", "git") => true,
        (_, "git") => false,
        ("git", _) => UNDER_GIT.contains(&target),
        _ => place(own) > place(target),
    }
}

fn allowed_word(file: &str, path: &str) -> bool {
    let under = |word: &&str| path == *word || path.strip_prefix(*word).is_some_and(|rest| rest.starts_with("::"));
    GIX_WORDS.iter().any(under) || (file == TREE_PARSER && TREE_PARSER_WORDS.iter().any(under))
}

/// How many `super::` lead from a file to the crate root.
fn module_depth(file: &str) -> usize {
    file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count()
}

/// The text without comments, string and character literals.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest, code.chars().next_back()) {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&close).map_or(rest.len(), |end| start + end + close.len())
        } else if rest.starts_with('"') {
            string_end(rest.as_bytes(), b'"')
        } else if rest.starts_with("'\\") {
            string_end(rest.as_bytes(), b'\'')
        } else if rest.starts_with('\'') && rest.chars().nth(2) == Some('\'') {
            rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end)
        } else {
            let character = rest.chars().next().expect("not at the end");
            code.push(character);
            at += character.len_utf8();
            continue;
        };
        code.push(' ');
        at += skipped;
    }
    code
}

/// The number of `#` of a raw string that starts here.
fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    let inside_word = before.is_some_and(|character| is_word(character) && character != 'b');
    let after = rest.strip_prefix('r').filter(|_| !inside_word)?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Where a literal that starts here ends.
fn string_end(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Ends of the places where `word` stands alone.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).filter_map(move |(start, found)| {
        let end = start + found.len();
        let alone =
            !code[..start].chars().next_back().is_some_and(is_word) && !code[end..].chars().next().is_some_and(is_word);
        alone.then_some(end)
    })
}

/// Every path that starts with `root::`, groups taken apart.
fn paths(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for end in words(code, root) {
        // A module of that name inside another path is not the crate.
        let start = end - root.len();
        if code[..start].trim_end().ends_with("::") && code[..start].trim_end() != "::" {
            continue;
        }
        if let Some(rest) = code[end..].trim_start().strip_prefix("::") {
            expand(rest, root, &mut found);
        } else if code[..start].trim_end().ends_with("use") {
            found.push(root.to_owned());
        }
    }
    found
}

/// Paths of `super::super::…` long enough to leave every module, as `crate::…`.
fn paths_to_root(code: &str, depth: usize) -> Vec<String> {
    let chain = vec!["super"; depth].join("::");
    let mut found = Vec::new();
    for (start, _) in code.match_indices(&chain) {
        if code[..start].ends_with("::") {
            continue;
        }
        let mut rest = &code[start + chain.len()..];
        while let Some(longer) = rest.strip_prefix("::super") {
            rest = longer;
        }
        if let Some(rest) = rest.strip_prefix("::") {
            expand(rest, "crate", &mut found);
        }
    }
    found
}

/// Adds the paths that `rest`, what follows `prefix::`, names. Returns what is left of the text.
fn expand<'a>(rest: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut group) = rest.strip_prefix('{') {
        loop {
            group = group.trim_start().trim_start_matches(',').trim_start();
            if let Some(after) = group.strip_prefix('}') {
                return after;
            }
            if group.is_empty() {
                return group;
            }
            let left = expand(group, prefix, found);
            // `a as b` and anything unforeseen: on to the next item, and never twice the same place.
            let next = left.find([',', '}']).map_or("", |at| &left[at..]);
            group = if next.len() < group.len() { next } else { "" };
        }
    }
    let length = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
    let (segment, after) = rest.split_at(length);
    let path = format!("{prefix}::{segment}");
    match after.trim_start().strip_prefix("::") {
        Some(more) if !segment.is_empty() && more.trim_start().starts_with(|first| is_word(first) || first == '{') => {
            expand(more, &path, found)
        }
        _ => {
            found.push(path);
            after
        }
    }
}
