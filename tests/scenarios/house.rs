//! More than one tree, less than all of it, and keeping house.

use std::fs;

use super::Pair;
use crate::common::repos::noise;

#[test]
fn worktree_add() {
    let Some(mut pair) = Pair::new("worktree") else { return };
    // Beside the tree, where the walk of this one does not see it: what it holds is printed instead.
    let see = "cd ../\"$(basename \"$PWD\")\".next && git status --porcelain=v2 --branch && git ls-files -s && \
               find . -name .git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
    pair.sh("git worktree add -q ../\"$(basename \"$PWD\")\".next next");
    pair.sh(see);
    pair.git_fails(128, &["switch", "next"]);
    pair.sh("cd ../\"$(basename \"$PWD\")\".next && echo more >>README.md && git commit -qam 'in the other tree'");
    pair.sh(see);
    pair.git(&["merge", "next", "-m", "from the other tree"]);
    pair.sh("git worktree remove ../\"$(basename \"$PWD\")\".next && git worktree prune");
    pair.git(&["switch", "next"]);
}

#[test]
fn gc_and_fsck() {
    let Some(mut pair) = Pair::new("gc") else { return };
    pair.write("src/a.c", "something new\n");
    pair.write("big", noise(77, 300_000));
    pair.git(&["add", "."]);
    pair.git(&["commit", "-m", "mine"]);
    pair.git_unequal(&["fsck", "--no-dangling"]);
    pair.git_unequal(&["gc", "-q"]);
    pair.git(&["log", "-p", "-2", "--stat"]);
    pair.git(&["reset", "--hard", "HEAD~1"]);
    pair.git_unequal(&["reflog", "expire", "--expire=now", "--all"]);
    pair.git_unequal(&["gc", "-q", "--prune=now"]);
    pair.git(&["switch", "next"]);
    pair.git_unequal(&["repack", "-adq"]);
    pair.git_unequal(&["maintenance", "run", "--task=gc", "--task=commit-graph", "--quiet"]);
    pair.git(&["switch", "main"]);
    pair.git_unequal(&["prune"]);
    pair.git_unequal(&["fsck", "--full", "--no-dangling", "--connectivity-only"]);
    pair.git(&["log", "-p", "--all"]);
}

#[test]
fn sparse_checkout() {
    let Some(mut pair) = Pair::new("sparse") else { return };
    // A mount's index has no sizes of files that were never looked at, and a sparse checkout leaves alone what it takes
    // for changed: Git looks once.
    pair.git(&["-c", "core.fsmonitor=false", "status"]);
    pair.git(&["sparse-checkout", "set", "src/deep"]);
    pair.git(&["sparse-checkout", "list"]);
    pair.git(&["sparse-checkout", "add", "notes"]);
    pair.append("notes/today", "tomorrow\n");
    pair.git(&["commit", "-am", "in a part"]);
    pair.git(&["switch", "next"]);
    pair.git(&["switch", "main"]);
    pair.write("bin/left", "untracked, outside\n");
    pair.git(&["sparse-checkout", "set", "--no-cone", "/*", "!/src/", "*.bin"]);
    pair.git(&["merge", "origin/feature", "-m", "merged"]);
    pair.git(&["sparse-checkout", "reapply"]);
    pair.git(&["sparse-checkout", "disable"]);
    pair.git(&["ls-files", "-t"]);
}

#[test]
fn submodules() {
    let Some(mut pair) = Pair::of("whole", "submodule") else { return };
    pair.git(&["submodule", "status"]);
    pair.git_unequal(&["submodule", "update", "--init"]);
    pair.git(&["submodule", "status"]);
    pair.sh("cat lib/part/part.txt && git -C lib/part log --format='%h %s'");
    pair.git(&["-C", "lib/part", "checkout", "-q", "origin/main"]);
    pair.git(&["diff", "--submodule=log"]);
    pair.git(&["commit", "-am", "a later part"]);
    pair.append("lib/part/part.txt", "changed inside\n");
    pair.git(&["diff", "--submodule=diff"]);
    pair.git_unequal(&["submodule", "update", "--force"]);
    pair.git(&["checkout", "-q", "HEAD~1"]);
    pair.git_unequal(&["submodule", "update"]);
    pair.git_unequal(&["submodule", "deinit", "-f", "lib/part"]);
    // With any monitor Git believes its answer of before it rewrote .gitmodules, and stages nothing of that (2.47).
    pair.git(&["-c", "core.fsmonitor=false", "rm", "-q", "lib/part"]);
    pair.git(&["commit", "-m", "whole without a part"]);
}

#[test]
fn filter_drivers() {
    let Some(mut pair) = Pair::of("converted", "filters") else { return };
    // The trees were compared already; here is what both must hold.
    let shown = fs::read(pair.second().join("pointed.dat")).expect("it reads");
    assert!(shown == noise(9, 50_000), "the content and not its pointer: {} bytes", shown.len());
    let stored = pair.git(&["show", "HEAD:pointed.dat"]);
    assert!(stored.starts_with("pointer to sha256 "), "{stored}");
    pair.write("pointed.dat", noise(11, 70_000));
    pair.git(&["diff"]);
    pair.write("new.dat", noise(12, 30_000));
    pair.git(&["add", "-A"]);
    pair.git(&["diff", "--cached"]);
    pair.git(&["commit", "-m", "other contents"]);
    pair.git(&["switch", "-c", "before", "HEAD~1"]);
    pair.git(&["switch", "next"]);
    pair.append("secret.rot", "in clear\n");
    pair.git(&["diff"]);
    pair.git(&["stash"]);
    pair.git(&["stash", "pop"]);
    pair.git(&["commit", "-am", "hidden"]);
    pair.git(&["cat-file", "-p", "HEAD:secret.rot"]);
    pair.remove("pointed.dat");
    pair.git(&["checkout", "pointed.dat"]);
    pair.git(&["mv", "pointed.dat", "moved.dat"]);
    pair.git(&["commit", "-m", "moved"]);
}

#[test]
fn line_ends_idents_and_encodings() {
    let Some(mut pair) = Pair::of("converted", "converted") else { return };
    let shown = |pair: &Pair, name: &str| fs::read(pair.second().join(name)).expect("it reads");
    assert_eq!(shown(&pair, "windows.crlf"), b"one\r\ntwo\r\n");
    assert!(shown(&pair, "about.id").starts_with(b"$Id: "));
    pair.git(&["cat-file", "-p", "HEAD:windows.crlf"]);
    pair.append("windows.crlf", "three\r\n");
    pair.git(&["diff"]);
    pair.append("about.id", "more\n");
    pair.git(&["commit", "-am", "more"]);
    pair.git(&["switch", "next"]);
    pair.git(&["checkout", "main", "--", "about.id", "wide.u16"]);
    pair.git(&["reset", "--hard"]);
    // Git notices other attributes only of files it has a reason to look at.
    pair.sh("printf '*.crlf -text\n' >.gitattributes && git ls-files -z | xargs -0 touch");
    pair.git(&["add", "--renormalize", "."]);
    pair.git(&["reset", "--hard"]);
}
