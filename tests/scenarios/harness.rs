//! The comparison notices: each kind of difference is made on one side of two plain clones, and must be named.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::Pair;
use crate::common::git_out;

/// Makes one difference, wants it named, and takes it back.
fn noticed(pair: &Pair, named: &str, make: impl Fn(&Path), take_back: impl Fn(&Path)) {
    let top = pair.second().to_owned();
    make(&top);
    let difference = pair.compare().expect_err(named);
    assert!(difference.contains(named), "{named} expected, the comparison says: {difference}");
    take_back(&top);
    if let Err(left) = pair.compare() {
        panic!("{named} was taken back, and yet: {left}");
    }
}

#[test]
fn every_difference_is_noticed() {
    let Some(mut pair) = Pair::both_plain("harness") else { return };
    pair.append("README.md", "the same on both sides\n");
    let git = |args: &'static [&'static str]| move |top: &Path| drop(git_out(top, args));
    let write = |name: &'static str, content: &'static str| {
        move |top: &Path| fs::write(top.join(name), content).expect("writable")
    };
    let remove = |name: &'static str| move |top: &Path| fs::remove_file(top.join(name)).expect("there");
    let chmod = |mode: u32| {
        move |top: &Path| fs::set_permissions(top.join("answer"), fs::Permissions::from_mode(mode)).expect("there")
    };
    noticed(&pair, "answer: Some(File", write("answer", "evil\n"), git(&["checkout", "-q", "answer"]));
    noticed(&pair, "answer: Some(File", chmod(0o600), chmod(0o644));
    noticed(&pair, "built.o: None", write("built.o", "ignored\n"), remove("built.o"));
    noticed(&pair, "answer: Some(File", remove("answer"), git(&["checkout", "-q", "answer"]));
    let relink = |target: &'static str| {
        move |top: &Path| {
            fs::remove_file(top.join("link")).expect("there");
            symlink(target, top.join("link")).expect("writable");
        }
    };
    noticed(&pair, "link: Some(Symlink", relink("src/b.c"), relink("src/a.c"));
    noticed(
        &pair,
        "empty: None",
        |top| fs::create_dir(top.join("empty")).expect("writable"),
        |top| fs::remove_dir(top.join("empty")).expect("there"),
    );
    noticed(&pair, "status differs", git(&["add", "README.md"]), git(&["reset", "-q"]));
    noticed(&pair, "refs differs", git(&["tag", "extra"]), git(&["tag", "-d", "extra"]));
    noticed(
        &pair,
        "index differs",
        git(&["update-index", "--skip-worktree", "answer"]),
        git(&["update-index", "--no-skip-worktree", "answer"]),
    );
    noticed(&pair, "status differs", git(&["checkout", "-q", "--detach"]), git(&["checkout", "-q", "main"]));
    let branch_of_the_remote = |args: &'static [&'static str]| {
        let bare = pair.sides[1].bare.clone();
        move |_: &Path| drop(git_out(&bare, args))
    };
    noticed(
        &pair,
        "refs of the remote differs",
        branch_of_the_remote(&["branch", "extra"]),
        branch_of_the_remote(&["branch", "-D", "extra"]),
    );
}

#[test]
fn a_status_that_hides_a_change_is_noticed() {
    let Some(mut pair) = Pair::both_plain("harness-hook") else { return };
    // A monitor that says that nothing ever changes.
    let hook = pair.fixture().path("blind-hook");
    fs::write(&hook, "#!/bin/sh\nprintf 'token\\0'\n").expect("writable");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("just written");
    for setting in [["core.fsmonitor", hook.to_str().expect("UTF-8")], ["core.fsmonitorHookVersion", "2"]] {
        git_out(pair.second(), &[&["config"][..], &setting].concat());
    }
    pair.git(&["status"]);
    let hidden = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.append("answer", "not seen\n")));
    let message = *hidden.expect_err("the comparison fails").downcast::<String>().expect("a message");
    assert!(message.contains("status differs"), "{message}");
}

#[test]
fn an_output_or_an_exit_code_that_differs_is_noticed() {
    let Some(mut pair) = Pair::both_plain("harness-output") else { return };
    let fails = |pair: &mut Pair, script: &str| {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.sh(script)));
        *failed.expect_err(script).downcast::<String>().expect("a message")
    };
    let here = "[ \"${PWD%-mount}\" = \"$PWD\" ]";
    assert!(fails(&mut pair, &format!("{here} || echo other")).contains("stdout differs"));
    assert!(fails(&mut pair, &format!("{here} || echo other >&2")).contains("stderr differs"));
    let code = fails(&mut pair, here);
    assert!(code.contains("harness-output-mount"), "{code}");
}
