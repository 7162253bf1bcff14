//! Stock Git over what `larder::git` writes: gitdir, worktree entry, index, fsmonitor hook.
//!
//! No mount is needed: the working tree is an ordinary checkout whose `.git`
//! was replaced, and the stat closure is `lstat`.

mod common_git;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use common_git::{Extension, Fixture, count, extension, git, git_in};
use gix::ObjectId;
use gix::hash::Kind;
use larder::git::gitdir::{
    self, DetachedBecause, GitdirError, HeadSpec, HeadState, Loss, WorktreeSpec, add_worktree, find_worktree, probe,
    unpushed,
};
use larder::store::Listing;

#[test]
fn status_is_clean_and_looks_at_nothing() {
    for format in ["sha1", "sha256"] {
        let fixture = Fixture::nasty(format);
        let workspace = fixture.workspace("main");
        let written = workspace.write_index();
        assert_eq!(written.omitted, 0);
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "", "{format}");
        let trace = workspace.trace(&["status", "--porcelain"]);
        for counter in ["opendir", "gitignore-invalidation", "directory-invalidation", "node-creation"] {
            assert_eq!(count(&trace, counter), Some(0), "{counter} ({format})\n{trace}");
        }
        assert_eq!(count(&trace, "query/response-length"), Some(2), "the hook was asked\n{trace}");
        let looked = count(&trace, "refresh/sum_lstat").unwrap_or(0) + count(&trace, "preload/sum_lstat").unwrap_or(0);
        assert!(looked <= 1, "only the gitlink is looked at, not {looked}\n{trace}");
        assert_eq!(git(&workspace, &["diff", "--cached", "--name-only"]), "");
        assert_eq!(git(&workspace, &["ls-files", "-s"]), git(&fixture.source, &["ls-files", "-s"]), "{format}");
        assert_eq!(git(&workspace, &["update-index", "--refresh"]), "");
        assert_eq!(git(&workspace, &["ls-files", "-v"]).lines().find(|line| !line.starts_with("H ")), None);
    }
}

#[test]
fn the_everyday_commands_work() {
    let fixture = Fixture::nasty("sha1");
    let workspace = fixture.workspace("main");
    workspace.write_index();
    let head = git(&fixture.source, &["rev-parse", "HEAD"]);
    assert_eq!(git(&workspace, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&workspace, &["rev-parse", "--abbrev-ref", "HEAD@{upstream}"]), "origin/main\n");
    assert_eq!(git(&workspace, &["rev-parse", "--is-bare-repository", "--is-inside-work-tree"]), "false\ntrue\n");
    let top = git(&workspace, &["rev-parse", "--show-toplevel"]);
    assert_eq!(top.trim_end(), workspace.path.to_str().expect("test path"));
    assert_eq!(git(&workspace, &["branch"]), "* main\n");
    assert!(git(&workspace, &["status"]).contains("Your branch is up to date with 'origin/main'"));
    let url = format!("file://{}", fixture.source.display());
    assert_eq!(git(&workspace, &["remote", "get-url", "origin"]).trim_end(), url);
    assert!(git(&workspace, &["log", "--oneline"]).ends_with("first\n"));
    git(&workspace, &["fsck", "--connectivity-only"]);
    git(&workspace, &["fsck", "--no-dangling"]);
    git(&workspace, &["fetch"]);
    git(&workspace, &["worktree", "prune"]);
    assert!(workspace.admin.join("index").exists());
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
}

#[test]
fn changes_are_seen_when_the_hook_reports_them() {
    let fixture = Fixture::nasty("sha1");
    let workspace = fixture.workspace("main");
    workspace.write_index();
    fs::write(workspace.path.join("sub/deep/file"), "other").expect("written");
    fs::write(workspace.path.join("sub/deep/new.ignored"), "x").expect("written");
    fs::write(workspace.path.join("sub/new"), "x").expect("written");
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "", "what is not reported is not seen");
    workspace.answer(b"t1\0sub/deep/file\0sub/deep/new.ignored\0sub/new\0");
    assert_eq!(git(&workspace, &["status", "--porcelain"]), " M sub/deep/file\n?? sub/new\n");
    fs::remove_file(workspace.path.join("a.b")).expect("removed");
    workspace.answer(b"t2\0/\0");
    assert_eq!(git(&workspace, &["status", "--porcelain"]), " D a.b\n M sub/deep/file\n?? sub/new\n");
}

#[test]
fn git_rewrites_the_index_and_commits_from_it() {
    for format in ["sha1", "sha256"] {
        let fixture = Fixture::nasty(format);
        let workspace = fixture.workspace("main");
        workspace.write_index();
        fs::write(workspace.path.join("sub/added"), "added").expect("written");
        workspace.answer(b"t1\0sub/added\0");
        git(&workspace, &["add", "sub/added"]);
        let read = Extension::all(&fs::read(workspace.admin.join("index")).expect("index"), format);
        assert!(read.iter().any(|e| e.name == *b"UNTR") && read.iter().any(|e| e.name == *b"FSMN"));
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "A  sub/added\n");
        git(&workspace, &["commit", "-qm", "second"]);
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
        assert_eq!(git(&workspace, &["diff", "--name-status", "HEAD^", "HEAD"]), "A\tsub/added\n");
        git(&workspace, &["fsck", "--no-dangling"]);
        git(&workspace, &["rm", "-q", "--cached", "a"]);
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "D  a\n?? a\n");
    }
}

/// Git, left to build the same state itself, writes the same bytes.
#[test]
fn entries_and_extensions_equal_those_git_writes() {
    for format in ["sha1", "sha256"] {
        let fixture = Fixture::nasty(format);
        // Git leaves directories out of the untracked cache that hold tracked files and are ignored all the same.
        // To do so takes reading patterns; a surplus directory does no harm, as the other tests show.
        git(&fixture.source, &["rm", "-rq", "ignored-dir"]);
        git(&fixture.source, &["commit", "-qm", "no ignored directory"]);
        let workspace = fixture.workspace("main");
        workspace.write_index();
        let index = workspace.admin.join("index");
        let ours = fs::read(&index).expect("our index");
        fs::remove_file(&index).expect("removed");
        git(&workspace, &["read-tree", "HEAD"]);
        git(&workspace, &["update-index", "--index-version", "4", "--untracked-cache"]);
        for _ in 0..3 {
            git(&workspace, &["status"]);
        }
        let theirs = fs::read(&index).expect("Git's index");
        for name in [*b"TREE", *b"UNTR"] {
            let (ours, theirs) = (extension(&ours, format, name), extension(&theirs, format, name));
            assert_same(&ours, &theirs, &format!("{} ({format})", name.escape_ascii()));
        }
        let first = Extension::all(&theirs, format)[0].offset;
        assert_eq!(first, Extension::all(&ours, format)[0].offset, "{format}");
        assert_same(&ours[..first], &theirs[..first], format);
    }
}

fn assert_same(ours: &[u8], theirs: &[u8], what: &str) {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| bytes[at.saturating_sub(16)..bytes.len().min(at + 48)].escape_ascii().to_string();
    assert_eq!(near(ours), near(theirs), "{what}: differs at {at} of {} and {}", ours.len(), theirs.len());
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

#[test]
fn a_converted_gitignore_keeps_the_cache_valid_with_the_converted_id() {
    let fixture = Fixture::nasty("sha1");
    fs::write(fixture.source.join(".gitattributes"), "* text=auto\n").expect("written");
    fs::write(fixture.source.join("crlf.txt"), "a\nb\n").expect("written");
    git(&fixture.source, &["add", ".gitattributes", "crlf.txt"]);
    git(&fixture.source, &["commit", "-qm", "attributes"]);
    let workspace = fixture.workspace("main");
    workspace.write_index_with(&|path, _| {
        let content = fs::read(workspace.path.join(std::ffi::OsStr::from_bytes(path))).expect("checked out");
        larder::git::index_file::converted_exclude_id(Kind::Sha1, &content)
    });
    let trace = workspace.trace(&["status", "--porcelain"]);
    assert_eq!(count(&trace, "opendir"), Some(0), "{trace}");
    assert_eq!(count(&trace, "gitignore-invalidation"), Some(0), "{trace}");
}

#[test]
fn without_ids_git_reads_no_gitignore_and_is_still_right_after_a_change() {
    let fixture = Fixture::nasty("sha1");
    let workspace = fixture.workspace("main");
    workspace.write_index_with(&|_, _| None);
    assert_eq!(count(&workspace.trace(&["status", "--porcelain"]), "opendir"), Some(0));
    fs::write(workspace.path.join("sub/deep/x.ignored"), "x").expect("written");
    fs::write(workspace.path.join("sub/deep/x"), "x").expect("written");
    workspace.answer(b"t1\0sub/deep/x.ignored\0sub/deep/x\0");
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "?? sub/deep/x\n");
}

#[test]
fn a_tree_five_thousand_deep_and_paths_beyond_the_flags_are_clean() {
    let fixture = Fixture::deep(5_000);
    let workspace = fixture.bare_workspace("main");
    let written = workspace.write_index();
    assert_eq!((written.entries, written.directories), (2, 5_001));
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
    assert_eq!(git(&workspace, &["diff", "--cached", "--name-only"]), "");
    let paths = git(&workspace, &["ls-files"]);
    assert_eq!(paths.lines().map(str::len).collect::<Vec<_>>(), [10_001, 1]);
    git(&workspace, &["update-index", "--force-write-index"]);
    assert_eq!(git(&workspace, &["ls-files"]), paths);
}

#[test]
fn an_empty_tree_is_clean() {
    let fixture = Fixture::deep(0);
    git(&fixture.source, &["checkout", "-q", "--orphan", "empty"]);
    git(&fixture.source, &["rm", "-rqf", "--cached", "."]);
    git(&fixture.source, &["commit", "-qm", "empty", "--allow-empty"]);
    let workspace = fixture.bare_workspace("empty");
    assert_eq!(workspace.write_index().entries, 0);
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
}

#[test]
fn one_branch_is_checked_out_once() {
    let fixture = Fixture::nasty("sha1");
    let first = fixture.workspace("main");
    first.write_index();
    assert_eq!(first.head, HeadState::Branch("main".into()));
    let second = fixture.workspace("main");
    second.write_index();
    assert_eq!(second.head, HeadState::Detached(DetachedBecause::CheckedOut(first.path.clone())));
    assert_ne!(first.admin, second.admin);
    assert_eq!(git(&second, &["status", "--porcelain"]), "");
    assert_eq!(git(&first, &["status", "--porcelain"]), "");
    let list = git(&first, &["worktree", "list", "--porcelain"]);
    assert_eq!(list.matches("branch refs/heads/main").count(), 1, "{list}");
    git(&second, &["switch", "-qc", "topic"]);
    git(&first, &["switch", "-qc", "other"]);
    git(&second, &["switch", "-q", "main"]);
    let common = gitdir::find_worktree(&fixture.common, &second.path).expect("readable").expect("known");
    assert_eq!(common, second.admin);
    gitdir::remove_worktree(&fixture.common, &second.admin).expect("removed");
    assert_eq!(find_worktree(&fixture.common, &second.path).expect("readable"), None);
    assert_eq!(git(&first, &["status", "--porcelain"]), "");
    git(&first, &["switch", "-q", "main"]);
}

#[test]
fn a_lock_held_by_git_is_respected() {
    let fixture = Fixture::nasty("sha1");
    let workspace = fixture.workspace("main");
    workspace.write_index();
    let before = fs::read(workspace.admin.join("index")).expect("index");
    fs::write(workspace.admin.join("index.lock"), "").expect("written");
    let error = workspace.try_write_index(&|_, id| Some(*id)).expect_err("locked");
    assert!(matches!(error, larder::git::index_file::IndexFileError::Locked(_)), "{error}");
    assert_eq!(fs::read(workspace.admin.join("index")).expect("index"), before);
    let litter: Vec<_> =
        fs::read_dir(&workspace.admin).expect("listed").map(|e| e.expect("entry").file_name()).collect();
    assert!(!litter.iter().any(|name| name.as_bytes().starts_with(b"larder-index")), "{litter:?}");
}

#[test]
fn gitdirs_prepared_elsewhere_serve_and_stay_as_they_were() {
    let fixture = Fixture::nasty("sha1");
    let head = fixture.head();
    for bare in [true, false] {
        let clone = fixture.root.path().join(format!("external-{bare}"));
        let url = format!("file://{}", fixture.source.display());
        let path = clone.to_str().expect("test path");
        let mut arguments = vec!["clone", "-q", "--filter=blob:none", "-c", "protocol.file.allow=always", &url, path];
        if bare {
            arguments.push("--bare");
        }
        git_in(fixture.root.path(), &arguments);
        let found = probe(&clone).expect("a gitdir");
        assert_eq!(found.origin_url.as_deref(), Some(url.as_bytes()));
        assert!(found.partial && !found.worktree_config);
        assert_eq!(found.object_format, Kind::Sha1);
        let config = fs::read(found.common.join("config")).expect("config");
        let refs = git_in(&found.common, &["for-each-ref"]);
        assert!(gitdir::has_commit(&found.common, &head).expect("readable"));
        assert!(!gitdir::has_commit(&found.common, &ObjectId::null(Kind::Sha1)).expect("readable"));
        let workspace = fixture.workspace_in(&found.common, &format!("mount-{bare}"), "main");
        assert!(!workspace.config_applies);
        assert!(matches!(workspace.head, HeadState::Detached(DetachedBecause::CheckedOut(_))), "{:?}", workspace.head);
        workspace.write_index();
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
        assert_eq!(fs::read(found.common.join("config")).expect("config"), config);
        assert_eq!(git_in(&found.common, &["for-each-ref"]), refs);
        gitdir::enable_worktree_config(&found.common).expect("enabled");
        let trace = workspace.trace(&["status", "--porcelain"]);
        assert_eq!(count(&trace, "query/response-length"), Some(2), "{trace}");
        assert_eq!(git(&workspace, &["rev-parse", "--is-bare-repository"]), "false\n");
        assert_eq!(git_in(&found.common, &["rev-parse", "--is-bare-repository"]), format!("{bare}\n"));
        gitdir::remove_worktree(&found.common, &workspace.admin).expect("removed");
        assert_eq!(git_in(&found.common, &["for-each-ref"]), refs);
    }
    for wrong in [fixture.root.path().to_owned(), "/nonexistent".into(), "/etc/passwd".into()] {
        assert!(probe(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn trees_are_read_from_loose_objects_packs_and_alternates() {
    for (format, kind) in [("sha1", Kind::Sha1), ("sha256", Kind::Sha256)] {
        let fixture = Fixture::nasty(format);
        let head = fixture.head();
        let read = |common: &Path| {
            let trees = RefCell::new(HashMap::new());
            let found = gitdir::read_commit_and_trees(common, &head, |id, listing: Listing| {
                assert!(trees.borrow_mut().insert(id, listing).is_none(), "each tree once");
                Ok::<_, std::io::Error>(())
            })
            .expect("readable");
            assert!(found.missing.is_empty());
            assert_eq!(found.trees, trees.borrow().len() as u64);
            (found, trees.into_inner())
        };
        let source = fixture.source.join(".git");
        let (loose, trees) = read(&source);
        let expected = git(&fixture.source, &["rev-parse", "HEAD^{tree}"]);
        assert_eq!(loose.info.tree.to_string(), expected.trim_end());
        assert_eq!(gitdir::commit_info(&source, &head).expect("commit"), loose.info);
        assert_eq!(loose.info.time.to_string(), git(&fixture.source, &["log", "-1", "--format=%ct"]).trim_end());
        git(&fixture.source, &["repack", "-qad"]);
        git(&fixture.source, &["prune-packed"]);
        assert_eq!(read(&source).1, trees);
        assert_eq!(read(&fixture.common).1, trees, "through alternates");
        fixture.fails_on_damage(kind, &head);
    }
}

#[test]
fn missing_trees_are_told() {
    let fixture = Fixture::nasty("sha1");
    let missing = git(&fixture.source, &["rev-parse", "HEAD:sub/deep"]);
    let missing = ObjectId::from_hex(missing.trim_end().as_bytes()).expect("an id");
    let hex = missing.to_string();
    fs::remove_file(fixture.source.join(".git/objects").join(&hex[..2]).join(&hex[2..])).expect("a loose tree");
    let found = gitdir::read_commit_and_trees(&fixture.common, &fixture.head(), |_, _| Ok::<_, std::io::Error>(()));
    assert_eq!(found.expect("readable").missing, [missing]);
    let none = ObjectId::from_bytes_or_panic(&[7; 20]);
    assert!(matches!(gitdir::commit_info(&fixture.common, &none), Err(GitdirError::Missing(_))));
}

#[test]
fn a_detached_head_and_a_branch_that_moved() {
    let fixture = Fixture::nasty("sha1");
    let commit = fixture.head();
    let mount = fixture.root.path().join("elsewhere");
    let spec = |head| WorktreeSpec { name: "x y", mount: &mount, head, hook: None };
    let commit_only = HeadSpec::Detached(commit);
    let asked = add_worktree(&fixture.common, &spec(&commit_only)).expect("added");
    assert_eq!(asked.head, HeadState::Detached(DetachedBecause::Asked));
    assert!(asked.admin.ends_with("worktrees/x-y"));
    let absent = HeadSpec::Branch { name: "absent".into(), commit };
    let added = add_worktree(&fixture.common, &spec(&absent)).expect("added");
    assert_eq!(added.head, HeadState::Detached(DetachedBecause::BranchElsewhere(None)));
    assert!(added.admin.ends_with("worktrees/x-y1"));
    let hostile = HeadSpec::Branch { name: "../../config".into(), commit };
    assert!(matches!(add_worktree(&fixture.common, &spec(&hostile)), Err(GitdirError::Invalid { .. })));
    let left: Vec<_> = fs::read_dir(&fixture.common).expect("listed").map(|e| e.expect("entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.as_bytes().starts_with(b"larder-worktree")), "{left:?}");
}

/// Times the writer and Git's first look on a large checkout:
/// `LARDER_CHECKOUT=<files without .git> LARDER_SOURCE=<its gitdir> cargo test --release --test git_worktree -- \
/// --ignored --nocapture large`.
#[test]
#[ignore = "needs a large checkout"]
fn a_large_checkout_is_clean_at_the_first_look() {
    use std::io::Write;
    use std::time::Instant;
    let variable = |name| fs::canonicalize(std::env::var_os(name).expect("set")).expect("exists");
    let (checkout, source) = (variable("LARDER_CHECKOUT"), variable("LARDER_SOURCE"));
    let fixture = Fixture::around(&source);
    for n in 0..3 {
        let started = Instant::now();
        let common = fixture.root.path().join(format!("timed-{n}"));
        fixture.create_at(&common, &[]);
        let created = started.elapsed();
        gitdir::record_branch(&common, "main", fixture.head()).expect("recorded");
        writeln!(std::io::stderr(), "create {created:?}, with branch {:?}", started.elapsed()).expect("stderr");
    }
    let started = Instant::now();
    let workspace = fixture.attach(&fixture.common, &checkout, "main");
    let mut out = std::io::stderr();
    writeln!(out, "worktree entry {:?}", started.elapsed()).expect("stderr");
    let started = Instant::now();
    let trees = workspace.trees();
    writeln!(out, "reading {} trees {:?}", trees.1.len(), started.elapsed()).expect("stderr");
    for exclude_id in
        [&(|_: &[u8], id: &ObjectId| Some(*id)) as &dyn Fn(&[u8], &ObjectId) -> Option<ObjectId>, &|_, _| None]
    {
        for _ in 0..5 {
            let started = Instant::now();
            let written = workspace.write_from(&trees, false, exclude_id).expect("written");
            let (entries, bytes) = (written.entries, written.bytes);
            writeln!(out, "writer, constant stat: {entries} entries, {bytes} B {:?}", started.elapsed())
                .expect("stderr");
        }
        let started = Instant::now();
        let written = workspace.write_from(&trees, true, exclude_id).expect("written");
        writeln!(out, "with lstat {:?}, {} read first", started.elapsed(), written.read_first.len()).expect("stderr");
        for _ in 0..6 {
            let started = Instant::now();
            assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
            writeln!(out, "git status {:?}", started.elapsed()).expect("stderr");
        }
        let trace = workspace.trace(&["status", "--porcelain"]);
        assert_eq!(count(&trace, "opendir"), Some(0), "{trace}");
    }
}

/// What `git rev-list` counts, and where it is.
fn lost(common: &Path, loss: Loss<'_>) -> (usize, Vec<String>) {
    let found = unpushed(common, Kind::Sha1, loss, &[]).expect("readable");
    assert!(!found.more);
    assert_eq!(found.is_empty(), found.names.is_empty(), "{found:?}");
    (found.commits, found.names)
}

fn commits(place: &Path, count: usize) {
    for number in 0..count {
        git(place, &["commit", "-q", "--allow-empty", "-m", &format!("own {number} in {}", place.display())]);
    }
}

#[test]
fn commits_that_exist_only_here_are_counted() {
    let fixture = Fixture::nasty("sha1");
    git(&fixture.source, &["tag", "-m", "told", "v1"]);
    git(&fixture.source, &["config", "receive.denyCurrentBranch", "ignore"]);
    commits(&fixture.source, 3);
    let url = format!("file://{}", fixture.source.display());
    let root = fixture.root.path();
    let none = (0, Vec::new());
    for (name, how) in [("plain", &["--no-local"][..]), ("partial", &["--filter=blob:none"]), ("depth", &["--depth=2"])]
    {
        git(root, &[&["clone", "-q"], how, &[&url, name]].concat());
        let place = root.join(name);
        let common = place.join(".git");
        assert_eq!(lost(&common, Loss::Gitdir), none, "{name}");
        // A branch, what is on top of it, and a stash of two.
        git(&place, &["switch", "-qc", "topic"]);
        commits(&place, 2);
        git(&place, &["pack-refs", "--all"]);
        git(&place, &["branch", "a/b"]);
        commits(&place, 1);
        assert_eq!(lost(&common, Loss::Gitdir), (3, vec!["a/b".into(), "topic".into()]), "{name}");
        for text in ["one", "two"] {
            fs::write(place.join("a.b"), text).expect("written");
            git(&place, &["stash", "-q"]);
        }
        let (count, names) = lost(&common, Loss::Gitdir);
        // Each is a commit on one of the index, and both indexes are the same.
        assert_eq!((count, names.join(" ").as_str()), (6, "a/b stash topic"), "{name}");
        git(&place, &["stash", "clear"]);
        // Another working tree loses what no ref leads to.
        let other = root.join(format!("{name}-other"));
        git(&place, &["worktree", "add", "-q", "--detach", other.to_str().expect("UTF-8"), "a/b"]);
        let admin = common.join("worktrees").join(format!("{name}-other"));
        assert_eq!(lost(&common, Loss::Entry(&admin)), none, "{name}: the branch stays");
        commits(&other, 4);
        let names = vec![format!("detached HEAD of {name}-other")];
        assert_eq!(lost(&common, Loss::Entry(&admin)), (4, names), "{name}");
        assert_eq!(lost(&common, Loss::Gitdir).0, 7, "{name}");
        git(&other, &["switch", "-qc", "kept"]);
        assert_eq!(lost(&common, Loss::Entry(&admin)), none, "{name}: a branch again");
        // What was pushed is elsewhere, and what the remote is known to have.
        git(&place, &["push", "-q", "origin", "topic"]);
        let tip = git(&other, &["rev-parse", "HEAD"]);
        let tip = ObjectId::from_hex(tip.trim_end().as_bytes()).expect("an id");
        if name != "depth" {
            assert_eq!(lost(&common, Loss::Gitdir), (4, vec!["kept".into()]), "{name}");
        }
        let told = git(&place, &["rev-parse", "topic"]);
        let told = ObjectId::from_hex(told.trim_end().as_bytes()).expect("an id");
        let known = unpushed(&common, Kind::Sha1, Loss::Gitdir, &[tip, told]).expect("readable");
        assert!(known.is_empty(), "{name}: {known:?}");
        git(&place, &["push", "-q", "-d", "origin", "topic"]);
    }
}

#[test]
fn what_a_merge_of_the_remote_reaches_is_elsewhere() {
    let fixture = Fixture::nasty("sha1");
    let url = format!("file://{}", fixture.source.display());
    git(fixture.root.path(), &["clone", "-q", "--filter=blob:none", &url, "clone"]);
    let place = fixture.root.path().join("clone");
    git(&place, &["switch", "-qc", "topic"]);
    commits(&place, 2);
    git(&place, &["push", "-q", "origin", "topic"]);
    git(&fixture.source, &["merge", "-q", "--no-ff", "-m", "merged", "topic"]);
    git(&fixture.source, &["branch", "-D", "topic"]);
    git(&place, &["fetch", "-q", "--prune"]);
    assert_eq!(lost(&place.join(".git"), Loss::Gitdir), (0, Vec::new()));
}

#[test]
fn many_commits_are_more_than_are_counted() {
    let fixture = Fixture::nasty("sha1");
    let place = &fixture.source;
    let mut stream = String::new();
    for number in 1..=10_002 {
        let from = if number == 1 { "from refs/heads/main\n" } else { "" };
        let time = number * 60;
        stream.extend([
            "commit refs/heads/many\ncommitter T <t@e> ",
            &time.to_string(),
            " +0000\ndata 1\nx\n",
            from,
            "\n",
        ]);
    }
    let file = fixture.root.path().join("stream");
    fs::write(&file, stream).expect("written");
    let input = fs::File::open(&file).expect("readable");
    let mut import = std::process::Command::new("git");
    import.arg("-C").arg(place).args(["fast-import", "--quiet"]).stdin(input);
    assert!(import.status().expect("runs").success());
    git(place, &["update-ref", "refs/remotes/origin/main", "main"]);
    let found = unpushed(&place.join(".git"), Kind::Sha1, Loss::Gitdir, &[]).expect("readable");
    assert!(found.more && found.commits == 10_000, "{found:?}");
    assert_eq!(found.describe(), "more than 10000 commits that were never pushed (on many)");
}
