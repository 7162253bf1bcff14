//! The repositories that scenarios start from.
//!
//! Owns their content. `base` has the history that everyday work needs;
//! `converted` what a checkout converts; `whole` holds `part` as a submodule.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::common::repos::{init, noise, write};
use crate::common::{COMMAND_LIMIT, git, git_out, run, text};

/// Lines of the source files of `base`.
const LINES: usize = 40;

/// Configuration of two filter drivers: one that is a process, one that is a command.
pub fn filter_config(driver: &str, kept: &Path) -> String {
    let kept = text(kept);
    format!(
        "[filter \"store\"]\n\tprocess = python3 '{driver}' '{kept}'\n\trequired = true\n\
         [filter \"rot\"]\n\tclean = tr a-z n-za-m\n\tsmudge = tr n-za-m a-z\n\trequired = true\n"
    )
}

/// Every template as a bare repository that allows partial clones.
pub fn make_all(dir: &Path, gitconfig: &Path) {
    for (name, make) in [("base", base as fn(&Author)), ("converted", converted), ("part", part), ("whole", whole)] {
        let work = dir.join(name);
        init(&work, "sha1");
        // The drivers of the user who mounts.
        git_out(&work, &["config", "include.path", text(gitconfig)]);
        make(&Author { dir: &work });
        let bare = dir.join(format!("{name}.git"));
        git_out(&work, &["clone", "-q", "--bare", ".", text(&bare)]);
        for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "transfer.advertiseObjectInfo"] {
            git_out(&bare, &["config", setting, "true"]);
        }
        git_out(&bare, &["config", "daemon.receivepack", "true"]);
        git_out(&bare, &["remote", "remove", "origin"]);
    }
}

/// Whoever makes a template's history, one commit a day.
struct Author<'a> {
    dir: &'a Path,
}

impl Author<'_> {
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write(self.dir, name, content);
    }

    fn git(&self, args: &[&str]) {
        git_out(self.dir, args);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.dir.join(name), fs::Permissions::from_mode(mode)).expect("just written");
    }

    fn remove(&self, name: &str) {
        self.git(&["rm", "-q", "-r", name]);
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A", "-f", "."]);
        let count = git_out(self.dir, &["rev-list", "--all", "--count"]).parse::<u32>().expect("a number");
        let mut command = git(self.dir);
        let date = format!("2024-01-{:02}T12:00:00Z", count + 1);
        command.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        command.args(["commit", "-q", "-m", message]);
        run(command, COMMAND_LIMIT).success();
    }
}

/// Numbered lines, some of them with other words.
pub fn lines(subject: &str, changed: &[(usize, &str)]) -> String {
    (1..=LINES)
        .map(|number| match changed.iter().find(|(at, _)| *at == number) {
            Some((_, words)) => format!("{words}\n"),
            None => format!("line {number} of {subject}\n"),
        })
        .collect()
}

fn base(author: &Author) {
    author.write("README.md", "# base\n");
    author.write(".gitignore", "*.o\n/out/\n");
    for name in ["a", "b", "c", "d", "e", "f"] {
        author.write(&format!("src/{name}.c"), lines(name, &[]));
    }
    author.write("src/deep/er/x.txt", "x\n");
    author.write("gone/one", "one\n");
    author.write("gone/two", "two\n");
    author.write("flat", "a file\n");
    author.write("bin/tool", "#!/bin/sh\necho tool\n");
    author.mode("bin/tool", 0o755);
    symlink("src/a.c", author.dir.join("link")).expect("the fixture is writable");
    author.write("with space.txt", "space\n");
    author.write("\u{fc}mlaut.txt", "\u{fc}\n");
    author.write("data.bin", noise(3, 20_000));
    author.write("large.txt", "a line of a large file\n".repeat(10_000));
    author.write("answer", "good\n");
    author.commit("first");
    author.git(&["tag", "light"]);
    author.write("src/a.c", lines("a", &[(10, "second's line")]));
    author.commit("second");
    author.git(&["tag", "-a", "-m", "version one", "v1"]);
    author.git(&["branch", "fork"]);
    author.write("src/a.c", lines("a", &[(1, "main's first line"), (10, "second's line")]));
    author.commit("third, on main");
    author.write("answer", "bad\n");
    author.commit("fourth breaks the answer");
    author.write("src/f.c", lines("f", &[(5, "fifth")]));
    author.commit("fifth");
    author.write("notes/today", "today\n");
    author.commit("sixth adds a directory");
    feature(author);
    conflict(author);
    next(author);
    author.git(&["checkout", "-q", "main"]);
}

/// Merges with main without a conflict.
fn feature(author: &Author) {
    author.git(&["checkout", "-q", "-b", "feature", "fork"]);
    author.write("src/b.c", lines("b", &[(38, "feature's line")]));
    author.commit("feature one");
    author.write("feature/new.c", "new\n");
    author.commit("feature two");
    author.write("src/b.c", lines("b", &[(2, "feature again"), (38, "feature's line")]));
    author.commit("feature three");
}

/// Conflicts with main in its first commit; the second is clean.
fn conflict(author: &Author) {
    author.git(&["checkout", "-q", "-b", "conflict", "fork"]);
    author.write("src/a.c", lines("a", &[(1, "the other first line"), (10, "second's line")]));
    author.commit("conflict one");
    author.write("src/e.c", lines("e", &[(20, "clean")]));
    author.commit("conflict two");
}

/// Everything that one tree can do to another.
fn next(author: &Author) {
    author.git(&["checkout", "-q", "-b", "next", "main"]);
    author.git(&["mv", "src/c.c", "src/moved.c"]);
    author.write("src/moved.c", lines("c", &[(3, "moved")]));
    author.remove("src/d.c");
    author.remove("gone");
    author.remove("src/deep");
    author.write("src/deep", "was a directory\n");
    author.remove("flat");
    author.write("flat/inner", "was a file\n");
    author.mode("bin/tool", 0o644);
    author.mode("src/e.c", 0o755);
    author.remove("link");
    symlink("README.md", author.dir.join("link")).expect("the fixture is writable");
    author.remove("with space.txt");
    symlink("src", author.dir.join("with space.txt")).expect("the fixture is writable");
    author.write("new/er/file", "new\n");
    author.commit("next");
}

fn converted(author: &Author) {
    author.write(
        ".gitattributes",
        "*.crlf text eol=crlf\n*.auto text=auto\n*.id ident\n*.u16 text working-tree-encoding=UTF-16\n\
         *.dat filter=store -text\n*.rot filter=rot\n",
    );
    author.write("windows.crlf", "one\r\ntwo\r\n");
    author.write("some.auto", "unix\nlines\n");
    author.write("about.id", "$Id$\n");
    // UTF-16 with a byte order mark, as iconv writes it.
    let wide: Vec<u8> = "\u{feff}wide\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    author.write("wide.u16", wide);
    author.write("secret.rot", "plain words\n");
    author.write("pointed.dat", noise(9, 50_000));
    author.write("dir/pointed.dat", b"small\n");
    author.commit("converted");
    author.git(&["checkout", "-q", "-b", "next"]);
    author.write("pointed.dat", noise(10, 60_000));
    author.write("windows.crlf", "one\r\ntwo\r\nthree\r\n");
    author.write("secret.rot", "other words\n");
    author.commit("converted again");
    author.git(&["checkout", "-q", "main"]);
}

fn part(author: &Author) {
    author.write("part.txt", "part\n");
    author.commit("part");
    author.write("part.txt", "part, later\n");
    author.commit("part again");
}

fn whole(author: &Author) {
    author.write("whole.txt", "whole\n");
    let part = author.dir.with_file_name("part");
    author.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", text(&part), "lib/part"]);
    // Both sides' remotes are served beside it.
    author.git(&["config", "-f", ".gitmodules", "submodule.lib/part.url", "../part.git"]);
    author.git(&["-C", "lib/part", "checkout", "-q", "HEAD~1"]);
    author.commit("whole");
}
