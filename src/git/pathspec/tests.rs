//! Walks with pathspecs against the lists of real git.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const NAMES: &[&[u8]] = &[
    b"README",
    b"readme",
    b".gitignore",
    b"Makefile",
    b"main.c",
    b"main.h",
    b"!important",
    b"#hash#",
    b"back\\slash",
    b" leading and trailing ",
    b"star*",
    b"a",
    b"b/a",
    b"b/b/a",
    b"b/A/b",
    b"A/b",
    b"A/B/c.C",
    b"kernel/fork.c",
    b"kernel/sched/core.c",
    b"kernel/sched/Makefile",
    b"kernel/.hidden/x",
    b"kernel2/fork.c",
    b"Kernel/FORK.C",
    b"docs/a b/c d.txt",
    b"docs/a b c.txt",
    b"docs/\xc3\xa9t\xc3\xa9/\xc3\xbc.md",
    b"docs/latin-\xe9/x",
    b"pages/[id]/index.js",
    b"pages/i/index.js",
    b"pages/[id].js",
    b"deep/1/2/3/4/f",
    b"deep/1/f",
    b"deep/f",
    b"x/*/y",
    b"x/z/y",
    b"x/**",
];

/// An index with the names above.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().expect("temporary directory"));
        for name in NAMES {
            let path = repository.0.path().join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().expect("it has one")).expect("fresh directory");
            fs::write(path, name).expect("fresh file");
        }
        repository.git(&["init", "-q", "."]).expect("git init");
        repository.git(&["add", "-Af", "."]).expect("git add");
        repository
    }

    fn git(&self, arguments: &[&str]) -> Option<Vec<u8>> {
        let path = std::env::var_os("PATH").expect("there is a PATH");
        let output = Command::new("git")
            .current_dir(self.0.path())
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git is installed");
        output.status.success().then_some(output.stdout)
    }

    /// What git says the pathspecs name; `None` when it refuses them.
    fn listed(&self, specs: &[String]) -> Option<BTreeSet<Vec<u8>>> {
        let mut arguments = vec!["ls-files", "-z", "--"];
        arguments.extend(specs.iter().map(String::as_str));
        let listed = self.git(&arguments)?;
        Some(listed.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }
}

/// What a walk selects, and how many directories it looked into.
fn walked(select: &mut Pathspecs) -> (BTreeSet<Vec<u8>>, usize) {
    let mut children: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
    for name in NAMES {
        let ends = name.find_iter("/").chain([name.len()]);
        let mut parent: &[u8] = b"";
        for end in ends {
            children.entry(parent).or_default().insert(&name[..end]);
            parent = &name[..end];
        }
    }
    let (mut found, mut opened) = (BTreeSet::new(), 0);
    let mut open: Vec<(&[u8], bool)> = vec![(b"", false)];
    while let Some((directory, all)) = open.pop() {
        let reach = if all { Reach::All } else { select.directory(directory) };
        if reach == Reach::None {
            continue;
        }
        opened += usize::from(!all);
        for child in &children[directory] {
            if children.contains_key(child) {
                open.push((child, reach == Reach::All));
            } else if reach == Reach::All || select.file(child) {
                found.insert(child.to_vec());
            }
        }
    }
    (found, opened)
}

fn parse(specs: &[&str]) -> Result<Pathspecs, PathspecError> {
    Pathspecs::parse(&specs.iter().map(ToString::to_string).collect::<Vec<_>>())
}

#[test]
fn a_walk_selects_what_git_lists() {
    let repository = Repository::new();
    let table: &[&[&str]] = &[
        &[],
        &["."],
        &[":"],
        &[":/"],
        &["README"],
        &["README/"],
        &["kernel"],
        &["kernel/"],
        &["kernel//sched/"],
        &["./kernel/../kernel/sched"],
        &["kernel/fork.c"],
        &["kernel/."],
        &["README/."],
        &["*/."],
        &["kern"],
        &["nothing"],
        &["*.c"],
        &["*"],
        &["kernel*"],
        &["kernel*/"],
        &["kernel/*"],
        &["k*/fork.?"],
        &["main.[ch]"],
        &["main.[!c]"],
        &["[[:upper:]]*"],
        &[":(glob)*.c"],
        &[":(glob)**/*.c"],
        &[":(glob)kernel/*"],
        &[":(glob)kernel/**"],
        &[":(glob)kernel/**/Makefile"],
        &[":(glob)deep/*/f"],
        &[":(glob)deep/**/f"],
        &[":(glob)d**"],
        &[":(glob)*/*/*"],
        &[":(icase)kernel"],
        &[":(icase)readme"],
        &[":(icase)KERNEL/*.c"],
        &[":(icase,glob)kernel/*.c"],
        &[":(literal)star*"],
        &[":(literal)x/*"],
        &[":(literal)pages/[id]/"],
        &["pages/[id]"],
        &["pages/[id]/"],
        &["pages/[id]*"],
        &["x/*"],
        &["x/\\*"],
        &["back\\\\slash"],
        &[":(top)a"],
        &[":/b/b"],
        &["docs/a b"],
        &["docs/été"],
        &["docs/*/?"],
        &[" leading and trailing "],
        &[":(top)!important"],
        &[":!kernel"],
        &[":^kernel/", ":!*.js"],
        &[":(exclude)*.c"],
        &[":(exclude,icase)KERNEL"],
        &[":!"],
        &[":!."],
        &["kernel", ":!kernel/sched"],
        &["kernel", ":!*Makefile"],
        &["kernel/sched", ":!kernel"],
        &["*", ":(exclude,glob)*/*"],
        &["deep", "b", "README"],
        &["b", ":(icase)B"],
        &[":(glob,top,)a"],
    ];
    for specs in table {
        let owned: Vec<_> = specs.iter().map(ToString::to_string).collect();
        let listed = repository.listed(&owned).unwrap_or_else(|| panic!("git refuses {specs:?}"));
        let mut pathspecs = parse(specs).expect("git takes it");
        assert_eq!(walked(&mut pathspecs).0, listed, "{specs:?}");
    }
}

#[test]
fn what_cannot_be_used_is_named_in_one_line() {
    let repository = Repository::new();
    for spec in [
        "",
        "/",
        "/etc",
        "//",
        ":(top)/etc",
        "..",
        "../x",
        "a/../../x",
        ":/..",
        ":(nonsense)a",
        ":(top",
        ":(glob,literal)a",
        ":(attr:text)a",
        ":(attr:-text)",
        ":(attr:)a",
        ":&a",
    ] {
        let error = parse(&["kernel", spec]).expect_err(spec).to_string();
        assert!(error.contains(&format!("'{spec}'")) && !error.contains('\n') && error.len() < 200, "{error}");
        // Git takes a path after `:(top)` as it is, and finds nothing.
        let listed = repository.listed(&[spec.to_owned()]).unwrap_or_default();
        assert!(listed.is_empty() || spec.contains("attr"), "git takes {spec:?}");
    }
    assert!(parse(&[":(attr:text)a"]).expect_err("attributes").to_string().contains("attributes"));
}

#[test]
fn walks_look_no_further_than_they_must() {
    let opened = |specs: &[&str]| walked(&mut parse(specs).expect("fine")).1;
    assert_eq!(opened(&[]), 1);
    assert_eq!(opened(&["kernel"]), 2);
    assert_eq!(opened(&["kernel/sched/core.c"]), 3);
    assert_eq!(opened(&[":(glob)*.c"]), 1);
    assert_eq!(opened(&[":(glob)deep/*/f"]), 3);
    let reach = |specs: &[&str], path: &str| parse(specs).expect("fine").directory(path.as_bytes());
    assert_eq!(reach(&[], ""), Reach::All);
    assert_eq!(reach(&["."], ""), Reach::All);
    assert_eq!(reach(&[":(icase)Kernel/"], "kernel/sched"), Reach::All);
    assert_eq!(reach(&["kernel/*"], "kernel"), Reach::Some);
    assert_eq!(reach(&["kernel", ":!x"], "kernel"), Reach::All, "what is excluded lies elsewhere");
    assert_eq!(reach(&["kernel", ":!kernel/x"], "kernel"), Reach::Some);
    assert_eq!(reach(&["kernel", ":!kernel"], "kernel/sched"), Reach::None);
    assert_eq!(reach(&["kernel"], "kernel2"), Reach::None);
    assert_eq!(reach(&["kernel2"], "kernel"), Reach::None);
    assert_eq!(reach(&["kernel*/x"], "kern"), Reach::None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pathspecs_select_what_git_lists(specs in prop::collection::vec(spec(), 1..4)) {
        thread_local!(static REPOSITORY: Repository = Repository::new());
        let Ok(mut pathspecs) = Pathspecs::parse(&specs) else { return Ok(()) };
        let listed = REPOSITORY.with(|repository| repository.listed(&specs));
        // Git may be stricter, but not of another mind. What follows `:/` it does not tidy, and then finds nothing.
        let from_top = |spec: &str| spec.starts_with(":/") || spec.starts_with(":!/");
        let untidy = |spec: &String| from_top(spec) && (spec.contains("/.") || spec.contains("//"));
        prop_assume!(!specs.iter().any(untidy));
        // Git does not fold the case of what a backslash escapes, and so finds nothing at all; gix does.
        prop_assume!(!specs.iter().any(|spec| spec.contains("icase") && spec.contains('\\')));
        if let Some(listed) = listed {
            prop_assert_eq!(walked(&mut pathspecs).0, listed);
        }
    }
}

/// Pathspecs out of pieces that occur in the names, and wildcards.
fn spec() -> impl Strategy<Value = String> {
    let magic = prop::sample::select(vec![
        "",
        "",
        "",
        "",
        ":(glob)",
        ":(glob)",
        ":(icase)",
        ":(literal)",
        ":!",
        ":(exclude,glob)",
        ":(icase,glob)",
        ":/",
    ]);
    let piece = prop::sample::select(vec![
        "*", "**", "?", "/", "/", "/", "a", "b", "A", "B", "x", "y", "[id]", "[!a]", "[a-z]", "\\*", "\\", "kernel",
        "kern", "el", "sched", ".c", "f", "1", "2", "pages", "deep", "index.js", "..", ".", "docs", " ",
    ]);
    (magic, prop::collection::vec(piece, 1..6)).prop_map(|(magic, pieces)| format!("{magic}{}", pieces.concat()))
}
