//! Branches: switch, merge, rebase, pick, revert, bisect.

use super::Pair;
use super::repos::lines;

#[test]
fn switch() {
    let Some(mut pair) = Pair::new("switch") else { return };
    pair.git(&["switch", "next"]);
    pair.git(&["switch", "main"]);
    pair.git(&["switch", "-"]);
    pair.git(&["switch", "--detach", "v1"]);
    pair.git(&["switch", "-c", "mine"]);
    pair.append("README.md", "mine\n");
    pair.git(&["commit", "-am", "mine"]);
    pair.git(&["checkout", "feature"]);
    pair.git(&["checkout", "-b", "other", "origin/conflict"]);
    pair.git(&["checkout", "light"]);
    pair.git(&["checkout", "main"]);
    pair.git(&["branch", "-vv"]);
    pair.git(&["branch", "-m", "mine", "yours"]);
    pair.git(&["branch", "-D", "yours"]);
    pair.git_fails(128, &["switch", "nowhere"]);
    pair.git(&["switch", "--orphan", "empty"]);
    pair.write("first", "first\n");
    pair.git(&["add", "."]);
    pair.git(&["commit", "-m", "a new root"]);
    pair.git(&["switch", "next"]);
}

#[test]
fn switch_with_changes() {
    let Some(mut pair) = Pair::new("switch-dirty") else { return };
    // Carried along: no branch touches it.
    pair.append("README.md", "carried\n");
    pair.write("untracked", "carried\n");
    pair.git(&["switch", "next"]);
    pair.git(&["switch", "main"]);
    // In the way: next changes or removes these.
    pair.append("src/c.c", "local\n");
    pair.git_fails(1, &["switch", "next"]);
    pair.git(&["switch", "-m", "next"]);
    pair.git(&["reset", "--hard"]);
    pair.git(&["switch", "main"]);
    pair.write("new/er/file", "untracked, in the way\n");
    pair.git_fails(1, &["switch", "next"]);
    pair.git(&["switch", "-f", "next"]);
    pair.git(&["switch", "main"]);
    pair.append("src/a.c", "local\n");
    pair.git_fails(1, &["checkout", "v1"]);
    pair.git(&["checkout", "-m", "v1"]);
    pair.git(&["switch", "--discard-changes", "main"]);
    pair.write("gone/untracked", "keeps the directory\n");
    pair.git(&["switch", "next"]);
}

#[test]
fn merge_clean() {
    let Some(mut pair) = Pair::new("merge") else { return };
    pair.git(&["merge", "origin/main"]);
    pair.git(&["merge", "origin/feature", "-m", "merged"]);
    pair.git(&["log", "--graph", "--oneline"]);
    pair.git(&["switch", "-c", "old", "light"]);
    pair.git(&["merge", "v1"]);
    pair.git(&["merge", "--no-ff", "-m", "not forwarded", "origin/main"]);
    pair.git(&["merge", "--squash", "origin/feature"]);
    pair.git(&["commit", "-m", "squashed"]);
    pair.append("README.md", "uncommitted\n");
    pair.git(&["merge", "--no-commit", "origin/next"]);
    pair.git(&["merge", "--abort"]);
    pair.git(&["merge", "origin/next", "-m", "with changes"]);
    pair.git(&["merge-base", "HEAD", "origin/conflict"]);
}

#[test]
fn merge_conflicting() {
    let Some(mut pair) = Pair::new("merge-conflict") else { return };
    pair.git_fails(1, &["merge", "origin/conflict"]);
    pair.git(&["diff"]);
    pair.git(&["diff", "--ours"]);
    pair.git(&["ls-files", "-u"]);
    pair.git_fails(128, &["commit", "-m", "too early"]);
    pair.git(&["merge", "--abort"]);
    pair.git_fails(1, &["-c", "merge.conflictStyle=diff3", "merge", "origin/conflict"]);
    pair.git(&["checkout", "--theirs", "src/a.c"]);
    pair.git(&["checkout", "--merge", "src/a.c"]);
    pair.write("src/a.c", lines("a", &[(1, "both"), (10, "second's line")]));
    pair.git(&["add", "src/a.c"]);
    pair.git(&["commit", "--no-edit"]);
    pair.git(&["show", "--cc"]);
    // Deleted here, changed there; a file here, a directory there.
    pair.git(&["switch", "-c", "deleted", "origin/next"]);
    pair.git(&["rm", "-q", "src/e.c"]);
    pair.git(&["commit", "-m", "no e"]);
    pair.git_fails(1, &["merge", "origin/conflict"]);
    pair.git(&["rm", "src/e.c"]);
    pair.git(&["checkout", "--ours", "src/a.c"]);
    pair.git(&["commit", "-a", "--no-edit"]);
    pair.git(&["merge", "-X", "theirs", "origin/feature", "-m", "theirs"]);
    pair.git(&["merge", "-s", "ours", "light", "-m", "ours"]);
}

#[test]
fn rebase() {
    let Some(mut pair) = Pair::new("rebase") else { return };
    pair.git(&["switch", "feature"]);
    pair.append("README.md", "uncommitted\n");
    pair.git_fails(1, &["rebase", "origin/main"]);
    pair.git(&["-c", "rebase.autoStash=true", "rebase", "origin/main"]);
    pair.git(&["checkout", "README.md"]);
    pair.git(&["rebase", "--onto", "v1", "HEAD~2"]);
    pair.git(&["-c", "sequence.editor=sed -i 1s/pick/edit/", "rebase", "-i", "HEAD~2"]);
    pair.append("README.md", "in the middle\n");
    pair.git(&["commit", "-a", "--amend", "--no-edit"]);
    pair.git(&["rebase", "--continue"]);
    pair.git(&["-c", "sequence.editor=sed -i 2s/pick/squash/", "rebase", "-i", "HEAD~2"]);
    pair.git(&["-c", "sequence.editor=sed -i 1s/pick/drop/", "rebase", "-i", "HEAD~2"]);
    pair.git(&["rebase", "--root", "-x", "test -f README.md"]);
    pair.git(&["log", "--format=%h %s"]);
}

#[test]
fn rebase_conflicting() {
    let Some(mut pair) = Pair::new("rebase-conflict") else { return };
    pair.git(&["switch", "conflict"]);
    pair.git_fails(1, &["rebase", "origin/main"]);
    pair.git(&["rebase", "--show-current-patch"]);
    pair.git(&["rebase", "--abort"]);
    pair.git_fails(1, &["rebase", "origin/main"]);
    pair.write("src/a.c", lines("a", &[(1, "both"), (10, "second's line")]));
    pair.git_fails(1, &["rebase", "--continue"]);
    pair.git(&["add", "src/a.c"]);
    pair.git(&["rebase", "--continue"]);
    pair.git(&["log", "-p", "-2"]);
    pair.git(&["reset", "--hard", "origin/conflict"]);
    pair.git_fails(1, &["rebase", "--apply", "origin/main"]);
    pair.git(&["rebase", "--skip"]);
    pair.git(&["range-diff", "origin/main", "origin/conflict", "HEAD"]);
}

#[test]
fn cherry_pick() {
    let Some(mut pair) = Pair::new("cherry-pick") else { return };
    pair.git(&["cherry-pick", "origin/feature~2", "origin/feature"]);
    pair.git(&["cherry-pick", "-x", "origin/feature~1"]);
    pair.git(&["cherry-pick", "-n", "origin/conflict"]);
    pair.git(&["commit", "-m", "picked without a commit"]);
    pair.git_fails(1, &["cherry-pick", "origin/conflict~1"]);
    pair.git(&["cherry-pick", "--abort"]);
    pair.git_fails(1, &["cherry-pick", "origin/conflict~1", "v1"]);
    pair.git(&["checkout", "--theirs", "src/a.c"]);
    pair.git(&["add", "src/a.c"]);
    pair.git_fails(1, &["cherry-pick", "--continue"]);
    pair.git(&["cherry-pick", "--quit"]);
    pair.git(&["reset", "--hard"]);
    pair.git(&["log", "--stat", "-4"]);
}

#[test]
fn revert() {
    let Some(mut pair) = Pair::new("revert") else { return };
    pair.git(&["revert", "--no-edit", "HEAD"]);
    pair.git(&["revert", "--no-edit", "HEAD~2", "HEAD~4"]);
    pair.git(&["revert", "-n", "HEAD"]);
    pair.git(&["revert", "--abort"]);
    pair.write("src/a.c", lines("a", &[(10, "neither")]));
    pair.git(&["commit", "-am", "in the way of the next"]);
    pair.git_fails(1, &["revert", "--no-edit", "v1"]);
    pair.git(&["revert", "--abort"]);
    pair.git(&["merge", "origin/feature", "-m", "merged"]);
    pair.git(&["revert", "--no-edit", "-m", "1", "HEAD"]);
}

#[test]
fn bisect() {
    let Some(mut pair) = Pair::new("bisect") else { return };
    pair.git(&["bisect", "start", "HEAD", "light"]);
    pair.git(&["bisect", "good"]);
    pair.git(&["bisect", "skip"]);
    pair.git(&["bisect", "log"]);
    pair.git(&["bisect", "reset"]);
    pair.git(&["bisect", "start", "HEAD", "light"]);
    let found = pair.git(&["bisect", "run", "grep", "-q", "good", "answer"]);
    assert!(found.contains("fourth breaks the answer"), "{found}");
    pair.git(&["bisect", "visualize", "--oneline"]);
    pair.git(&["bisect", "reset"]);
}
