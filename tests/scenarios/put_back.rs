//! Put aside, take back, throw away.

use super::Pair;

/// Something of every kind: staged, changed, deleted, untracked, ignored.
fn disorder(pair: &mut Pair) {
    pair.append("README.md", "staged\n");
    pair.git(&["add", "README.md"]);
    pair.append("README.md", "and changed\n");
    pair.append("src/b.c", "changed\n");
    pair.remove("src/d.c");
    pair.write("untracked", "untracked\n");
    pair.write("un/tracked/file", "untracked\n");
    pair.write("built.o", "ignored\n");
}

#[test]
fn restore() {
    let Some(mut pair) = Pair::new("restore") else { return };
    disorder(&mut pair);
    pair.git(&["restore", "src/d.c"]);
    pair.git(&["restore", "--staged", "README.md"]);
    pair.git(&["restore", "."]);
    pair.git(&["restore", "--source=HEAD~3", "answer", "src"]);
    pair.git(&["restore", "--source=origin/next", "--staged", "--worktree", ":/"]);
    pair.git(&["restore", "--staged", "--worktree", ":/"]);
    pair.git_fails(1, &["restore", "no such file"]);
    pair.append("src/a.c", "x\n");
    pair.git(&["checkout", "--", "src"]);
    pair.git(&["checkout", "v1", "src/a.c"]);
    pair.git(&["checkout", "HEAD", "src/a.c"]);
}

#[test]
fn reset_soft_mixed_hard() {
    let Some(mut pair) = Pair::new("reset") else { return };
    disorder(&mut pair);
    pair.git(&["reset", "--soft", "HEAD~2"]);
    pair.git(&["reset", "--mixed", "HEAD~1"]);
    pair.git(&["reset", "--", "src/a.c"]);
    pair.git(&["add", "-A"]);
    pair.git(&["reset", "--hard", "origin/main"]);
    pair.git(&["reset", "--hard", "origin/next"]);
    pair.git(&["reset", "--mixed", "v1"]);
    pair.git(&["reset", "--hard"]);
    pair.append("src/f.c", "kept\n");
    pair.git(&["reset", "--keep", "origin/feature"]);
    pair.git(&["add", "src/f.c"]);
    pair.git(&["reset", "--merge", "v1"]);
    pair.git_fails(128, &["reset", "--hard", "no-such-revision"]);
    pair.git(&["reset", "--hard", "ORIG_HEAD"]);
}

#[test]
fn stash() {
    let Some(mut pair) = Pair::new("stash") else { return };
    pair.git(&["stash"]);
    disorder(&mut pair);
    pair.git(&["stash", "push", "-m", "tracked"]);
    pair.git(&["stash", "list"]);
    pair.git(&["stash", "show", "-p"]);
    pair.git(&["stash", "pop"]);
    pair.git(&["stash", "push", "-u"]);
    pair.git(&["stash", "show", "--include-untracked", "--stat"]);
    pair.git(&["stash", "apply"]);
    pair.git(&["stash", "drop"]);
    pair.git(&["stash", "push", "--all"]);
    pair.git(&["stash", "pop", "--index"]);
    pair.git(&["add", "README.md"]);
    pair.git(&["stash", "push", "--keep-index"]);
    pair.git(&["stash", "push", "-m", "a second"]);
    pair.git(&["switch", "-q", "next"]);
    pair.git(&["stash", "list"]);
    pair.git(&["stash", "pop", "stash@{1}"]);
    pair.git(&["reset", "--hard"]);
    pair.git(&["clean", "-qfd"]);
    pair.git(&["stash", "branch", "from-stash"]);
    pair.git(&["stash", "clear"]);
}

#[test]
fn stash_paths() {
    let Some(mut pair) = Pair::new("stash-paths") else { return };
    disorder(&mut pair);
    pair.git(&["stash", "push", "--", "src"]);
    pair.git(&["add", "README.md"]);
    pair.git(&["stash", "push", "--staged"]);
    pair.git(&["stash", "pop", "stash@{1}"]);
    pair.write("src/d.c", "in the way\n");
    pair.git(&["reset", "-q", "--hard"]);
    pair.git(&["stash", "pop"]);
}

#[test]
fn clean() {
    let Some(mut pair) = Pair::new("clean") else { return };
    disorder(&mut pair);
    pair.write("un/tracked/built.o", "ignored\n");
    pair.write("out/deep/built", "ignored\n");
    pair.write("keep.me", "kept\n");
    pair.sh("mkdir -p empty/er src/empty");
    pair.git(&["clean", "-n"]);
    pair.git(&["clean", "-nfdx"]);
    pair.git(&["clean", "-f", "-e", "keep.me"]);
    pair.git(&["clean", "-fdX"]);
    pair.git(&["clean", "-fd", "-e", "keep.me"]);
    pair.git(&["reset", "-q", "--hard"]);
    disorder(&mut pair);
    pair.git(&["clean", "-fdx"]);
    pair.git(&["status", "--porcelain", "--ignored"]);
    pair.git_fails(128, &["clean"]);
}
