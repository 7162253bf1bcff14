//! Edit, stage, commit.

use super::Pair;
use super::repos::lines;

#[test]
fn add() {
    let Some(mut pair) = Pair::new("add") else { return };
    pair.write("new.txt", "new\n");
    pair.write("fresh/dir/file", "fresh\n");
    pair.write("ignored.o", "object\n");
    pair.write("out/built", "built\n");
    pair.git(&["status", "--ignored", "--porcelain", "-uall"]);
    pair.git_fails(1, &["add", "ignored.o"]);
    pair.git(&["add", "new.txt"]);
    pair.git(&["add", "-f", "ignored.o"]);
    pair.append("README.md", "more\n");
    pair.git(&["add", "-u"]);
    pair.git(&["add", "-N", "fresh/dir/file"]);
    pair.git(&["diff"]);
    pair.append("new.txt", "after add\n");
    pair.git(&["add", "-A"]);
    pair.git(&["add", "--dry-run", "."]);
    pair.git(&["diff", "--cached"]);
    pair.git(&["restore", "--staged", "new.txt"]);
    pair.git(&["commit", "-m", "most of it"]);
}

#[test]
fn add_in_pieces() {
    let Some(mut pair) = Pair::new("add-p") else { return };
    pair.write("src/a.c", lines("a", &[(1, "main's first line"), (2, "one"), (20, "two"), (38, "three")]));
    pair.git_answers(&["add", "-p"], "y\nn\ny\n");
    pair.git(&["diff", "--cached"]);
    pair.git(&["diff"]);
    pair.git(&["commit", "-m", "two of three"]);
    pair.write("src/b.c", lines("b", &[(3, "close"), (6, "by")]));
    pair.git_answers(&["add", "-p", "src/b.c"], "s\nn\ny\n");
    pair.git_answers(&["reset", "-p"], "n\n");
    pair.git_answers(&["checkout", "-p"], "y\nn\n");
    pair.git_answers(&["stash", "push", "-p"], "y\nn\n");
    pair.git(&["stash", "pop"]);
    pair.git_answers(&["add", "-i"], "u\n1\n\nq\n");
}

#[test]
fn commit() {
    let Some(mut pair) = Pair::new("commit") else { return };
    pair.append("README.md", "one\n");
    pair.git_fails(1, &["commit", "-m", "nothing staged"]);
    pair.git(&["commit", "-a", "-m", "one"]);
    pair.append("README.md", "two\n");
    pair.append("src/b.c", "two\n");
    pair.git(&["add", "README.md"]);
    pair.git(&["commit", "-m", "only b", "--", "src/b.c"]);
    pair.git(&["commit", "-m", "the staged rest"]);
    pair.git(&["commit", "--allow-empty", "-m", "empty"]);
    pair.append("src/b.c", "three\n");
    pair.git(&["commit", "-a", "--dry-run"]);
    pair.git(&["commit", "-a", "-m", "three"]);
    pair.git(&["log", "-p", "-5"]);
    pair.git(&["tag", "mine"]);
    pair.git(&["describe", "--tags", "HEAD"]);
}

#[test]
fn amend() {
    let Some(mut pair) = Pair::new("amend") else { return };
    pair.append("README.md", "one\n");
    pair.git(&["commit", "-a", "-m", "one"]);
    pair.git(&["commit", "--amend", "-m", "one, other words"]);
    pair.append("README.md", "two\n");
    pair.write("added", "added\n");
    pair.git(&["add", "."]);
    pair.git(&["commit", "--amend", "--no-edit"]);
    pair.remove("added");
    pair.git(&["commit", "-a", "--amend", "--no-edit"]);
    pair.git(&["log", "--stat", "-2"]);
    pair.git(&["commit", "--amend", "--no-edit", "--date=@1700000000 +0000"]);
    pair.git(&["reset", "--hard", "HEAD@{1}"]);
}

#[test]
fn rename() {
    let Some(mut pair) = Pair::new("rename") else { return };
    pair.git(&["mv", "src/a.c", "src/z.c"]);
    pair.git(&["mv", "src", "code"]);
    pair.git(&["diff", "--cached", "-M", "--stat"]);
    pair.git(&["commit", "-m", "code"]);
    pair.rename("code/deep", "shallow");
    pair.rename("large.txt", "notes/large.txt");
    pair.git(&["status", "--porcelain", "-uall"]);
    pair.git(&["add", "-A"]);
    pair.git(&["commit", "-m", "moved"]);
    pair.rename("notes", "notes2");
    pair.rename("notes2", "notes");
    pair.git_fails(1, &["commit", "-a", "-m", "nothing"]);
    pair.rename("README.md", "data.bin");
    pair.git(&["commit", "-a", "-m", "over another"]);
    // A directory under its old name holds nothing of what moved away.
    pair.sh("mv code moved; mkdir code; ls -A code; echo new >code/b.c");
    pair.git(&["add", "-A"]);
    pair.git(&["commit", "-m", "a directory takes a name"]);
    pair.git(&["log", "--follow", "--format=%h %s", "--", "moved/z.c"]);
    pair.git_fails(128, &["mv", "nothing", "something"]);
}

#[test]
fn delete() {
    let Some(mut pair) = Pair::new("delete") else { return };
    pair.remove("README.md");
    pair.git(&["rm", "-q", "src/a.c"]);
    pair.git(&["rm", "-r", "gone"]);
    pair.git(&["rm", "--cached", "answer"]);
    pair.sh("rm -r src/deep");
    pair.git(&["commit", "-a", "-m", "fewer"]);
    pair.append("data.bin", "x");
    pair.git_fails(1, &["rm", "data.bin"]);
    pair.git(&["rm", "-f", "data.bin"]);
    pair.write("data.bin/now", "a directory\n");
    pair.git(&["add", "-A"]);
    pair.git(&["commit", "-m", "a file became a directory"]);
    pair.sh("rm -r src && mkdir src");
    pair.git(&["commit", "-a", "-m", "an empty directory stays"]);
    pair.git(&["checkout", "HEAD~3", "--", "."]);
}

#[test]
fn mode_change() {
    let Some(mut pair) = Pair::new("mode") else { return };
    pair.chmod("README.md", 0o755);
    pair.git(&["diff"]);
    pair.git(&["commit", "-a", "-m", "executable"]);
    pair.chmod("bin/tool", 0o644);
    pair.git(&["add", "-u"]);
    pair.chmod("bin/tool", 0o755);
    pair.git(&["diff"]);
    pair.git(&["reset", "-q"]);
    // Git knows one bit.
    pair.chmod("README.md", 0o700);
    pair.chmod("answer", 0o600);
    pair.git(&["update-index", "--chmod=+x", "answer"]);
    pair.git(&["commit", "-m", "only in the index"]);
    pair.git(&["diff", "--summary", "HEAD~2"]);
    pair.git(&["checkout", "answer"]);
    pair.chmod("src", 0o700);
    pair.git(&["switch", "next"]);
}

#[test]
fn symbolic_links() {
    let Some(mut pair) = Pair::new("symlink") else { return };
    pair.link("nowhere", "dangling");
    pair.link("src", "linked dir");
    pair.git(&["add", "-A"]);
    pair.git(&["commit", "-m", "links"]);
    pair.remove("dangling");
    pair.link("somewhere else", "dangling");
    pair.git(&["diff"]);
    pair.git(&["commit", "-a", "-m", "another target"]);
    pair.remove("link");
    pair.write("link", "a file\n");
    pair.remove("answer");
    pair.link("README.md", "answer");
    pair.git(&["status", "--porcelain"]);
    pair.git(&["commit", "-a", "-m", "kinds swapped"]);
    pair.sh("mv src elsewhere && ln -s elsewhere src && cat src/b.c | wc -l");
    pair.git(&["add", "-A"]);
    pair.git(&["commit", "-m", "a link for a directory"]);
    pair.git(&["checkout", "-q", "HEAD~1"]);
}
