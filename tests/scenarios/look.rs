//! Look at history and contents.

use super::Pair;

#[test]
fn blame() {
    let Some(mut pair) = Pair::new("blame") else { return };
    pair.git(&["blame", "src/a.c"]);
    pair.append("src/a.c", "not committed\n");
    // The line that is in no commit has the time of day.
    pair.sh("git blame -s src/a.c | tail -n 3");
    pair.git(&["blame", "-L", "1,12", "--porcelain", "HEAD", "--", "src/a.c"]);
    pair.git(&["blame", "-C", "-M", "origin/next", "--", "src/moved.c"]);
    pair.git(&["annotate", "v1", "--", "src/a.c"]);
}

#[test]
fn log() {
    let Some(mut pair) = Pair::new("log") else { return };
    for args in [
        &["log", "-p"][..],
        &["log", "-p", "--all", "--date-order"],
        &["log", "--stat", "--summary", "origin/next"],
        &["log", "--follow", "-p", "origin/next", "--", "src/moved.c"],
        &["log", "-S", "second's line", "--oneline"],
        &["log", "-G", "fifth", "--name-status"],
        &["log", "-L", "1,5:src/a.c"],
        &["log", "--graph", "--all", "--format=%h %an %ad %s %D"],
        &["log", "--oneline", "origin/feature...main", "--left-right"],
        &["log", "--raw", "--no-abbrev", "-m", "--", "src"],
        &["shortlog", "-sn", "HEAD"],
        &["show", "HEAD~1"],
        &["show", "v1"],
        &["show", "HEAD:src/a.c"],
        &["rev-list", "--count", "--all"],
        &["whatchanged", "--format=%s", "-3"],
        &["name-rev", "HEAD~2"],
        &["describe", "--always", "--tags", "HEAD"],
        &["ls-tree", "-r", "-l", "HEAD"],
        &["cat-file", "-p", "HEAD^{tree}"],
        &["format-patch", "--stdout", "v1"],
        &["cherry", "-v", "main", "origin/feature"],
    ] {
        pair.git(args);
    }
    // One store has packs, the other a door: only what belongs to the repository is counted.
    pair.sh("git rev-list --objects main --not v1 | sort");
}

#[test]
fn diff_of_every_kind() {
    let Some(mut pair) = Pair::new("diff") else { return };
    pair.append("README.md", "staged\n");
    pair.write("added file", "added\n");
    pair.git(&["mv", "src/f.c", "src/g.c"]);
    pair.git(&["add", "."]);
    pair.append("README.md", "not staged\n");
    pair.append("data.bin", "binary");
    pair.chmod("answer", 0o755);
    pair.remove("flat");
    pair.link("README.md", "flat");
    pair.remove("gone/one");
    for args in [
        &["diff"][..],
        &["diff", "--cached"],
        &["diff", "HEAD"],
        &["diff", "--stat"],
        &["diff", "--stat", "--cached", "-M"],
        &["diff", "--numstat", "HEAD"],
        &["diff", "--binary", "HEAD", "--", "data.bin"],
        &["diff", "--name-status", "-M", "-C", "--find-copies-harder", "HEAD"],
        &["diff", "-M", "main", "origin/next"],
        &["diff", "--summary", "-B", "origin/next"],
        &["diff", "v1..HEAD"],
        &["diff", "origin/feature...HEAD"],
        &["diff", "-w", "--word-diff", "v1"],
        &["diff", "--dirstat", "v1"],
        &["diff", "-R", "--", "README.md"],
        &["diff", "HEAD:src/a.c", "v1:src/a.c"],
        &["diff", "--check"],
        &["diff-index", "--cached", "HEAD"],
        &["diff-tree", "-r", "HEAD", "origin/next"],
    ] {
        pair.git(args);
    }
    pair.git_fails(1, &["diff", "--quiet"]);
    pair.git_fails(1, &["diff", "--no-index", "README.md", "answer"]);
    pair.sh("git diff-files | cut -d' ' -f1,2,3,5-");
}

#[test]
fn grep() {
    let Some(mut pair) = Pair::new("grep") else { return };
    pair.append("src/b.c", "a word that is not staged\n");
    pair.write("untracked", "a word of no commit\n");
    for args in [
        &["grep", "-n", "line 1[0-9]"][..],
        &["grep", "-c", "line"],
        &["grep", "-l", "word"],
        &["grep", "--untracked", "-n", "word"],
        &["grep", "-n", "second", "v1"],
        &["grep", "-e", "moved", "origin/next", "--", "src"],
        &["grep", "-W", "-e", "line", "--and", "-e", "12"],
    ] {
        pair.git(args);
    }
    pair.git_fails(1, &["grep", "--cached", "word that"]);
}

#[test]
fn archive() {
    let Some(mut pair) = Pair::new("archive") else { return };
    pair.sh("git archive HEAD | sha256sum");
    pair.sh("git archive --prefix=p/ origin/next src bin | tar tv --utc");
    pair.sh("git archive --format=zip v1 | sha256sum");
    pair.sh("git bundle create ../\"$(basename \"$PWD\")\".bundle v1..main >/dev/null 2>&1 && git bundle verify -q ../\"$(basename \"$PWD\")\".bundle 2>/dev/null");
    pair.sh("git format-patch -q -o ../\"$(basename \"$PWD\")\".patches v1 && git switch -q -c applied v1 && git am -q ../\"$(basename \"$PWD\")\".patches/*");
    pair.sh("git diff main origin/feature | git apply --index && git status --porcelain");
    pair.git(&["notes", "add", "-m", "a note"]);
    pair.git(&["replace", "-l"]);
}
