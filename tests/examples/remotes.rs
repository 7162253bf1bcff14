//! The repositories that the documents and the examples of the help show.
//!
//! Owns their contents. Authors and dates are always the same, so commit ids
//! are too, and the documents can name them. Whoever changes a file here
//! changes ids there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::git_out;
use crate::common::repos::{commit_all, init, noise, write};

/// Makes all of them, bare, in `base`; `scratch` is for working trees.
pub fn make(base: &Path, scratch: &Path) {
    let makers: [(&str, fn(&Path)); 5] =
        [("site", site), ("notes", notes), ("nofilter", nofilter), ("win", win), ("kernel", kernel)];
    fs::create_dir_all(base).expect("the fixture is writable");
    for (name, maker) in makers {
        let tree = scratch.join(name);
        init(&tree, "sha1");
        maker(&tree);
        let bare = base.join(format!("{name}.git"));
        git_out(base, &["clone", "-q", "--bare", path(&tree), path(&bare)]);
        for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "transfer.advertiseObjectInfo"] {
            git_out(&bare, &["config", setting, if name == "nofilter" { "false" } else { "true" }]);
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn executable(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("just written");
}

/// What is built with `make`: `main` of nine commits, and `topic`, which changes two files and adds one.
fn site(tree: &Path) {
    write(tree, ".gitignore", "all.txt\n");
    write(tree, "Makefile", "all.txt: src/*.rs\n\tcat src/*.rs > all.txt\n");
    write(tree, "README.md", "# Notes\n");
    write(tree, "run.sh", "#!/bin/sh\nexec make -s\n");
    executable(&tree.join("run.sh"));
    for name in ["guide.txt", "licence.txt", "links.txt"] {
        write(tree, format!("docs/{name}"), format!("This is {name}.\n"));
    }
    write(tree, "src/step6.rs", "// step 6\n");
    commit_all(tree, "Begin");
    for step in 1..=5 {
        write(tree, format!("src/step{step}.rs"), format!("// step {step}\n"));
        commit_all(tree, &format!("Add step {step}"));
    }
    for (number, line) in ["Steps follow each other.", "There are six.", "Each is short."].iter().enumerate() {
        write(tree, "README.md", format!("# Notes\n\n{line}\n"));
        commit_all(tree, &format!("Say more ({})", number + 1));
    }
    git_out(tree, &["checkout", "-q", "-b", "topic"]);
    write(tree, "README.md", "# Notes\n\nThere are seven steps.\n");
    write(tree, "docs/guide.txt", "Seven steps.\n");
    write(tree, "src/step7.rs", "// step 7\n");
    commit_all(tree, "Add step 7");
    git_out(tree, &["checkout", "-q", "main"]);
}

/// Two commits of ten files: `main`; the first is `topic`, and tagged `v1.0`.
fn notes(tree: &Path) {
    write(tree, "Makefile", "all:\n\t./run.sh\n");
    write(tree, "README.md", "# Notes\n");
    write(tree, "docs/guide.txt", "Begin with step 1.\n");
    write(tree, "docs/licence.txt", "Do as you like.\n");
    write(tree, "run.sh", "#!/bin/sh\ncat src/*.rs\n");
    executable(&tree.join("run.sh"));
    for step in 1..=5 {
        write(tree, format!("src/step{step}.rs"), format!("fn step_{step}() {{\n    println!(\"step {step}\");\n}}\n"));
    }
    commit_all(tree, "First notes");
    git_out(tree, &["tag", "v1.0"]);
    git_out(tree, &["branch", "topic"]);
    write(tree, "README.md", "# Notes\n\nFive steps, and a guide.\n");
    write(tree, "docs/guide.txt", "Begin with step 1, end with step 5.\n");
    commit_all(tree, "Say more");
}

/// A repository of ten files, on a server that leaves nothing out.
fn nofilter(tree: &Path) {
    for number in 1..=10 {
        write(tree, format!("part{number}.txt"), format!("Part {number} of what is sent as a whole.\n"));
    }
    commit_all(tree, "All of it");
}

/// Files with conversions: `a.bat` has other line ends in a checkout, `t.txt` goes through the filter `up`.
fn win(tree: &Path) {
    write(tree, ".gitattributes", "*.bat text eol=crlf\nt.txt filter=up\n");
    write(tree, "a.bat", "echo one\n");
    write(tree, "b.txt", "plain\n");
    write(tree, "t.txt", "through a filter\n");
    commit_all(tree, "Line ends and a filter");
    git_out(tree, &["checkout", "-q", "-b", "other"]);
    write(tree, "a.bat", "echo other\n");
    commit_all(tree, "Another a.bat");
    git_out(tree, &["checkout", "-q", "main"]);
}

/// A little of a kernel: `next` replaces what lies in `mm` and `net/ipv4`.
fn kernel(tree: &Path) {
    let files = ["mm/slub.c", "mm/shmem.c", "mm/swapfile.c", "mm/vmscan.c", "net/ipv4/tcp.c", "net/ipv4/ipmr.c"];
    let fill = |seed: u64| {
        for (number, name) in (seed..).zip(files) {
            write(tree, name, noise(number, 4_000 + 1_000 * usize::from(name.len() as u8)));
        }
    };
    for number in 0..20 {
        write(tree, format!("drivers/net/card{number}.c"), noise(1_000 + number, 20_000));
    }
    fill(0);
    commit_all(tree, "Linux");
    git_out(tree, &["checkout", "-q", "-b", "next"]);
    fill(100);
    commit_all(tree, "What comes next");
    git_out(tree, &["checkout", "-q", "main"]);
}
