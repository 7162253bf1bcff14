//! The repositories that the documents and the examples of the help show.
//!
//! Owns their contents. Authors and dates are always the same, so commit ids
//! are too, and the documents can name them. Whoever changes a file here
//! changes ids there.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use crate::common::git_program;
use crate::common::repos::noise;

/// Who wrote everything, and when.
const WHO: &str = "author Ann Author <someone@example.org> 1709294400 +0000\n\
                   committer Carl Committer <someone@example.org> 1709294400 +0000\n";

/// The repositories, all bare, in a directory that is there as long as somebody holds this.
pub struct Remotes(TempDir);

impl Remotes {
    /// Those that another test made, else new ones.
    pub fn get() -> Arc<Self> {
        static MADE: Mutex<Weak<Remotes>> = Mutex::new(Weak::new());
        // What a test that panicked left in it is whole.
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::make());
            *made = Arc::downgrade(&new);
            new
        })
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn make() -> Self {
        let dir =
            tempfile::Builder::new().prefix("larder-remotes").tempdir().expect("the temporary directory is there");
        let stories =
            [("site", site()), ("notes", notes()), ("nofilter", nofilter()), ("win", win()), ("kernel", kernel())];
        for (name, story) in stories {
            story.tell(&dir.path().join(format!("{name}.git")), name != "nofilter");
        }
        Self(dir)
    }
}

/// What `git fast-import` reads.
#[derive(Default)]
struct Story(Vec<u8>);

impl Story {
    /// A commit on `branch` that replaces and adds these files. One that begins with `#!` is executable.
    fn commit(&mut self, branch: &str, message: &str, files: &[(String, Vec<u8>)]) {
        let length = message.len() + 1;
        let head = format!("commit refs/heads/{branch}\n{WHO}data {length}\n{message}\n\n");
        self.0.extend_from_slice(head.as_bytes());
        for (name, bytes) in files {
            let mode = if bytes.starts_with(b"#!") { "100755" } else { "100644" };
            self.0.extend_from_slice(format!("M {mode} inline {name}\ndata {}\n", bytes.len()).as_bytes());
            self.0.extend_from_slice(bytes);
            self.0.push(b'\n');
        }
    }

    /// Points a ref to where a branch is now.
    fn point(&mut self, name: &str, branch: &str) {
        self.0.extend_from_slice(format!("reset {name}\nfrom refs/heads/{branch}\n\n").as_bytes());
    }

    /// Makes a bare repository of it.
    fn tell(self, bare: &Path, filters: bool) {
        git(&["init", "-q", "--bare", "--template=", "--initial-branch=main", &bare.to_string_lossy()], bare, &[]);
        let settings = format!("[uploadpack]\nallowFilter={filters}\nallowAnySHA1InWant={filters}\n");
        let settings = settings + &format!("[transfer]\nadvertiseObjectInfo={filters}\n");
        let config: PathBuf = bare.join("config");
        let before = fs::read_to_string(&config).expect("git init wrote it");
        fs::write(config, before + &settings).expect("it is ours");
        git(&["fast-import", "--quiet"], bare, &self.0);
    }
}

fn git(arguments: &[&str], bare: &Path, input: &[u8]) {
    let mut command: Command = git_program(Path::new("git"));
    let mut child = command.args(arguments).env("GIT_DIR", bare).stdin(Stdio::piped()).spawn().expect("git is there");
    let mut stdin = child.stdin.take().expect("piped");
    // Git may end without reading all; its exit status tells.
    let _ = stdin.write_all(input);
    drop(stdin);
    assert!(child.wait().expect("a child").success(), "git {arguments:?} for {}", bare.display());
}

fn file(name: impl Into<String>, text: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.into(), text.into())
}

/// What is built with `make`: `main` of nine commits, and `topic`, which changes two files and adds one.
fn site() -> Story {
    let mut story = Story::default();
    let mut files = vec![
        file(".gitignore", "all.txt\n"),
        file("Makefile", "all.txt: src/*.rs\n\tcat src/*.rs > all.txt\n"),
        file("README.md", "# Notes\n"),
        file("run.sh", "#!/bin/sh\nexec make -s\n"),
        file("src/step6.rs", "// step 6\n"),
    ];
    let documents = ["guide.txt", "licence.txt", "links.txt"];
    files.extend(documents.map(|name| file(format!("docs/{name}"), format!("This is {name}.\n"))));
    story.commit("main", "Begin", &files);
    for step in 1..=5 {
        let added = file(format!("src/step{step}.rs"), format!("// step {step}\n"));
        story.commit("main", &format!("Add step {step}"), &[added]);
    }
    for (number, line) in ["Steps follow each other.", "There are six.", "Each is short."].iter().enumerate() {
        let readme = file("README.md", format!("# Notes\n\n{line}\n"));
        story.commit("main", &format!("Say more ({})", number + 1), &[readme]);
    }
    story.point("refs/heads/topic", "main");
    let changed = [
        file("README.md", "# Notes\n\nThere are seven steps.\n"),
        file("docs/guide.txt", "Seven steps.\n"),
        file("src/step7.rs", "// step 7\n"),
    ];
    story.commit("topic", "Add step 7", &changed);
    story
}

/// Two commits of ten files: `main`; the first is `topic`, and tagged `v1.0`.
fn notes() -> Story {
    let mut story = Story::default();
    let mut files = vec![
        file("Makefile", "all:\n\t./run.sh\n"),
        file("README.md", "# Notes\n"),
        file("docs/guide.txt", "Begin with step 1.\n"),
        file("docs/licence.txt", "Do as you like.\n"),
        file("run.sh", "#!/bin/sh\ncat src/*.rs\n"),
    ];
    let step = |step| format!("fn step_{step}() {{\n    println!(\"step {step}\");\n}}\n");
    files.extend((1..=5).map(|number| file(format!("src/step{number}.rs"), step(number))));
    story.commit("main", "First notes", &files);
    story.point("refs/tags/v1.0", "main");
    story.point("refs/heads/topic", "main");
    let changed = [
        file("README.md", "# Notes\n\nFive steps, and a guide.\n"),
        file("docs/guide.txt", "Begin with step 1, end with step 5.\n"),
    ];
    story.commit("main", "Say more", &changed);
    story
}

/// Ten files, on a server that leaves nothing out.
fn nofilter() -> Story {
    let mut story = Story::default();
    let part = |number| file(format!("part{number}.txt"), format!("Part {number} of what is sent as a whole.\n"));
    story.commit("main", "All of it", &(1..=10).map(part).collect::<Vec<_>>());
    story
}

/// Files with conversions: `a.bat` has other line ends in a checkout, `t.txt` goes through the filter `up`.
fn win() -> Story {
    let mut story = Story::default();
    let files = [
        file(".gitattributes", "*.bat text eol=crlf\nt.txt filter=up\n"),
        file("a.bat", "echo one\n"),
        file("b.txt", "plain\n"),
        file("t.txt", "through a filter\n"),
    ];
    story.commit("main", "Line ends and a filter", &files);
    story.point("refs/heads/other", "main");
    story.commit("other", "Another a.bat", &[file("a.bat", "echo other\n")]);
    story
}

/// A little of a kernel: `next` replaces what lies in `mm` and `net/ipv4`.
fn kernel() -> Story {
    let mut story = Story::default();
    let names = ["mm/slub.c", "mm/shmem.c", "mm/swapfile.c", "mm/vmscan.c", "net/ipv4/tcp.c", "net/ipv4/ipmr.c"];
    let filled =
        |seed: u64| (seed..).zip(names).map(|(seed, name)| file(name, noise(seed, 4_000 + 1_000 * name.len())));
    let cards = (0..20).map(|card| file(format!("drivers/net/card{card}.c"), noise(1_000 + card, 20_000)));
    story.commit("main", "Linux", &filled(0).chain(cards).collect::<Vec<_>>());
    story.point("refs/heads/next", "main");
    story.commit("next", "What comes next", &filled(100).collect::<Vec<_>>());
    story
}
