//! The remote: fetch, pull, push.

use super::Pair;
use crate::common::repos::write;

#[test]
fn pull() {
    let Some(mut pair) = Pair::new("pull") else { return };
    pair.git_unequal(&["pull", "-q"]);
    pair.upstream("main", |clone| write(clone, "theirs", "theirs\n"));
    pair.git_unequal(&["fetch", "-q"]);
    pair.git(&["diff", "HEAD", "origin/main"]);
    pair.git_unequal(&["pull", "-q"]);
    pair.upstream("main", |clone| write(clone, "theirs", "theirs again\n"));
    pair.append("README.md", "mine\n");
    pair.git(&["commit", "-am", "mine"]);
    // The message that is offered names the address.
    pair.sh("git pull -q --no-rebase --no-edit && git commit -q --amend -m merged");
    pair.upstream("main", |clone| write(clone, "src/theirs.c", "third\n"));
    pair.git_unequal(&["pull", "-q", "--rebase"]);
    pair.upstream("main", |clone| write(clone, "README.md", "in conflict\n"));
    pair.git_unequal(&["fetch", "-q", "origin"]);
    pair.git_fails(1, &["merge", "origin/main"]);
    pair.git(&["merge", "--abort"]);
    pair.append("src/b.c", "not committed\n");
    pair.git_fails(2, &["pull", "-q", "--no-rebase", "--no-edit", "origin", "feature"]);
    pair.git(&["checkout", "src/b.c"]);
    pair.append("src/c.c", "not committed, not in the way\n");
    pair.sh("git pull -q --no-rebase --no-edit origin feature && git commit -q --amend -m 'merged again'");
}

#[test]
fn push() {
    let Some(mut pair) = Pair::new("push") else { return };
    pair.append("README.md", "mine\n");
    pair.git(&["commit", "-am", "mine"]);
    pair.git_unequal(&["push", "-q"]);
    pair.git(&["switch", "-c", "topic"]);
    pair.write("topic", "topic\n");
    pair.git(&["add", "topic"]);
    pair.git(&["commit", "-m", "topic"]);
    pair.git_unequal(&["push", "-q", "-u", "origin", "topic"]);
    pair.git(&["commit", "--amend", "-m", "another topic"]);
    pair.git_fails(1, &["push", "-q"]);
    pair.git_unequal(&["push", "-q", "--force-with-lease"]);
    pair.git(&["tag", "released"]);
    pair.git_unequal(&["push", "-q", "--tags"]);
    pair.git_unequal(&["push", "-q", "origin", "--delete", "topic"]);
    pair.git_unequal(&["fetch", "-q", "--prune"]);
    pair.git(&["branch", "-vv"]);
    // Nothing that was not fetched is missing in what is pushed.
    pair.git(&["switch", "-c", "merged", "origin/next"]);
    pair.git(&["merge", "origin/feature", "-m", "merged"]);
    pair.git_unequal(&["push", "-q", "origin", "merged"]);
}
