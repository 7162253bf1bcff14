//! The plan of a switch against `git switch` itself: random trees, staged changes, local changes.
//!
//! Where Git goes, the plan goes to the same index and working tree; where Git
//! refuses, so does the plan. It may refuse alone only in the cases its header names.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use gix::ObjectId;
use larder::index::diff::{Leaf, Sides};
use larder::index::switching::{Kept, Local, Plan, Situation, Staged, plan};
use larder::store::EntryKind;
use proptest::prelude::*;

/// Few names and contents, so that everything meets.
const PATHS: [&str; 9] = ["a", "a/x", "a/y", "b", "b/x", "c", "d/e", "d/e/f", "d/g"];
const CONTENTS: [&str; 3] = ["one\n", "two\n", "three\n"];

type Tree = BTreeMap<Vec<u8>, Leaf>;

/// What a test puts at a path.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Put {
    Nothing,
    File(usize),
    Executable(usize),
    Link(usize),
}

/// One step of a user.
#[derive(Clone, Debug)]
enum Step {
    /// Changes the working tree.
    Work(usize, Put),
    /// `git add` or `git rm --cached`, whatever is there.
    Stage(usize),
    /// `git rm --cached`.
    Unstage(usize),
}

fn put() -> impl Strategy<Value = Put> {
    prop_oneof![
        3 => Just(Put::Nothing),
        5 => (0..CONTENTS.len()).prop_map(Put::File),
        1 => (0..CONTENTS.len()).prop_map(Put::Executable),
        1 => (0..CONTENTS.len()).prop_map(Put::Link),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..PATHS.len(), put()).prop_map(|(path, put)| Step::Work(path, put)),
        2 => (0..PATHS.len()).prop_map(Step::Stage),
        1 => (0..PATHS.len()).prop_map(Step::Unstage),
    ]
}

struct Repo(tempfile::TempDir);

impl Repo {
    fn new() -> Self {
        let repo = Self(tempfile::tempdir().expect("temporary directory"));
        repo.git(&["init", "-q", "-b", "old"]);
        repo
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn try_git(&self, arguments: &[&str]) -> (bool, Vec<u8>, String) {
        let mut command = Command::new("git");
        command
            .current_dir(self.path())
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("PATH"));
        command.env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "T").env(format!("GIT_{who}_EMAIL"), "t@example.org");
        }
        let output = command.output().expect("git is installed");
        (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn git(&self, arguments: &[&str]) -> Vec<u8> {
        let (succeeded, out, error) = self.try_git(arguments);
        assert!(succeeded, "git {arguments:?}: {error}");
        out
    }

    /// Puts something at a path, pushing aside what stands in the way.
    fn put(&self, name: &str, put: Put) {
        let path = self.path().join(name);
        let clear = |path: &Path| match path.symlink_metadata() {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("removed"),
            Ok(_) => fs::remove_file(path).expect("removed"),
            Err(_) => {}
        };
        if put == Put::Nothing {
            if self.real_parent(name) {
                clear(&path);
            }
            return;
        }
        let mut at = self.path().to_owned();
        for part in Path::new(name).parent().expect("relative").components() {
            at.push(part);
            if at.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
                clear(&at);
            }
        }
        fs::create_dir_all(path.parent().expect("inside")).expect("created");
        clear(&path);
        match put {
            Put::File(content) | Put::Executable(content) => {
                fs::write(&path, CONTENTS[content]).expect("written");
                if matches!(put, Put::Executable(_)) {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
                }
            }
            Put::Link(content) => symlink(CONTENTS[content].trim_end(), &path).expect("link"),
            Put::Nothing => {}
        }
    }

    fn real_parent(&self, name: &str) -> bool {
        let parent = Path::new(name).parent().expect("relative");
        let mut at = self.path().to_owned();
        parent.components().all(|part| {
            at.push(part);
            at.symlink_metadata().is_ok_and(|found| found.is_dir())
        })
    }

    fn commit(&self, puts: &[Put], branch: &str) {
        for name in fs::read_dir(self.path()).expect("listed") {
            let path = name.expect("entry").path();
            if path.ends_with(".git") {
                continue;
            }
            if path.symlink_metadata().expect("there").is_dir() {
                fs::remove_dir_all(path).expect("removed");
            } else {
                fs::remove_file(path).expect("removed");
            }
        }
        for (name, put) in PATHS.iter().zip(puts).filter(|(_, put)| **put != Put::Nothing) {
            self.put(name, *put);
        }
        self.git(&["checkout", "-q", "--orphan", branch]);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", branch]);
    }

    fn tree(&self, rev: &str) -> Tree {
        let out = self.git(&["ls-tree", "-r", "-z", rev]);
        out.split(|byte| *byte == 0)
            .filter(|line| !line.is_empty())
            .map(|line| {
                let tab = line.iter().position(|byte| *byte == b'\t').expect("a tab");
                let words: Vec<&[u8]> = line[..tab].split(|byte| *byte == b' ').collect();
                (line[tab + 1..].to_vec(), leaf(words[0], words[2]))
            })
            .collect()
    }

    fn index(&self) -> Tree {
        let out = self.git(&["ls-files", "-s", "-z"]);
        out.split(|byte| *byte == 0)
            .filter(|line| !line.is_empty())
            .map(|line| {
                let tab = line.iter().position(|byte| *byte == b'\t').expect("a tab");
                let words: Vec<&[u8]> = line[..tab].split(|byte| *byte == b' ').collect();
                (line[tab + 1..].to_vec(), leaf(words[0], words[1]))
            })
            .collect()
    }

    /// What is in the working tree, `None` for directories.
    fn work(&self) -> BTreeMap<Vec<u8>, Option<Leaf>> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("listed") {
                let path = entry.expect("entry").path();
                let name = path.strip_prefix(self.path()).expect("inside").to_str().expect("ASCII").as_bytes().to_vec();
                if name == b".git" {
                    continue;
                }
                let kind = path.symlink_metadata().expect("there");
                let hash = |bytes: &[u8]| {
                    gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, bytes).expect("hashed")
                };
                let leaf = if kind.is_dir() {
                    open.push(path);
                    None
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    Some(Leaf { kind: EntryKind::Symlink, id: hash(target.to_str().expect("ASCII").as_bytes()) })
                } else {
                    let executable = kind.permissions().mode() & 0o100 != 0;
                    let kind = if executable { EntryKind::Executable } else { EntryKind::File };
                    Some(Leaf { kind, id: hash(&fs::read(&path).expect("readable")) })
                };
                found.insert(name, leaf);
            }
        }
        found
    }
}

fn leaf(mode: &[u8], id: &[u8]) -> Leaf {
    let mode = u16::from_str_radix(std::str::from_utf8(mode).expect("digits"), 8).expect("a mode");
    Leaf { kind: EntryKind::from_mode(mode).expect("known"), id: ObjectId::from_hex(id).expect("an id") }
}

fn files(work: &BTreeMap<Vec<u8>, Option<Leaf>>) -> Tree {
    work.iter().filter_map(|(path, leaf)| Some((path.clone(), (*leaf)?))).collect()
}

/// The user's changes as an overlay would tell them.
fn local(base: &Tree, work: &BTreeMap<Vec<u8>, Option<Leaf>>) -> BTreeMap<Vec<u8>, Local> {
    let mut found = BTreeMap::new();
    for (path, leaf) in base {
        match work.get(path) {
            Some(Some(now)) if now == leaf => {}
            Some(Some(now)) => drop(found.insert(path.clone(), Local::Leaf(*now))),
            Some(None) => drop(found.insert(path.clone(), Local::Directory)),
            None => drop(found.insert(path.clone(), Local::Absent)),
        }
    }
    for (path, leaf) in work {
        let in_base =
            base.contains_key(path) || base.keys().any(|known| known.starts_with(&[path, &b"/"[..]].concat()));
        match leaf {
            Some(leaf) if !base.contains_key(path) => drop(found.insert(path.clone(), Local::Leaf(*leaf))),
            None if !in_base => drop(found.insert(path.clone(), Local::Directory)),
            _ => {}
        }
    }
    found
}

fn differences(a: &Tree, b: &Tree) -> Vec<(Vec<u8>, Option<Leaf>, Option<Leaf>)> {
    let paths: std::collections::BTreeSet<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    let all = paths.into_iter().map(|path| (path.clone(), a.get(path).copied(), b.get(path).copied()));
    all.filter(|(_, a, b)| a != b).collect()
}

/// The working tree's files after the plan was carried out.
fn carried_out(plan: &Plan, new: &Tree, work: &Tree) -> Tree {
    let mut result = new.clone();
    for (path, kept) in &plan.keep {
        result.remove(path);
        match kept {
            Kept::AsItIs => drop(work.get(path).map(|leaf| result.insert(path.clone(), *leaf))),
            Kept::OldBase(leaf) => drop(result.insert(path.clone(), *leaf)),
            Kept::Absent => {}
        }
    }
    result
}

fn compare(old: &[Put], new: &[Put], steps: &[Step]) -> Result<bool, TestCaseError> {
    let repo = Repo::new();
    repo.commit(new, "new");
    repo.commit(old, "old");
    for step in steps {
        match step {
            Step::Work(path, put) => repo.put(PATHS[*path], *put),
            Step::Stage(path) => drop(repo.try_git(&["add", "-A", "--", PATHS[*path]])),
            Step::Unstage(path) => drop(repo.try_git(&["rm", "-rqf", "--cached", "--", PATHS[*path]])),
        }
    }
    let (head, target, index, work) = (repo.tree("old"), repo.tree("new"), repo.index(), repo.work());
    let changed: BTreeMap<_, _> =
        differences(&head, &target).into_iter().map(|(path, old, new)| (path, Sides { old, new })).collect();
    let staged: BTreeMap<_, _> =
        differences(&head, &index).into_iter().map(|(path, head, index)| (path, Staged { head, index })).collect();
    let local = local(&head, &work);
    let plan = plan(&Situation { changed: &changed, staged: &staged, local: &local });
    let (switched, _, error) = repo.try_git(&["switch", "-q", "new"]);
    let what = format!("local {local:?}\nstaged {staged:?}\nplan {plan:?}\ngit: {error}");
    if !switched {
        prop_assert!(!plan.refused.is_empty(), "Git refuses and the plan does not\n{}", what);
        return Ok(false);
    }
    if !plan.refused.is_empty() {
        let linked = local.values().any(|l| matches!(l, Local::Leaf(l) if l.kind == EntryKind::Symlink));
        let result = repo.index();
        let pushed_out = staged.iter().any(|(path, s)| s.index.is_some() && result.get(path) != s.index.as_ref());
        prop_assert!(linked || pushed_out, "the plan refuses and Git does not\n{}", what);
        return Ok(false);
    }
    let mut expected = target.clone();
    for (path, leaf) in &plan.staged {
        match leaf {
            Some(leaf) => drop(expected.insert(path.clone(), *leaf)),
            None => drop(expected.remove(path)),
        }
    }
    prop_assert_eq!(&repo.index(), &expected, "index\n{}", what);
    prop_assert_eq!(&files(&repo.work()), &carried_out(&plan, &target, &files(&work)), "working tree\n{}", what);
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_does_what_git_switch_does(
        old in proptest::collection::vec(put(), PATHS.len()),
        new in proptest::collection::vec(put(), PATHS.len()),
        same in proptest::collection::vec(any::<bool>(), PATHS.len()),
        steps in proptest::collection::vec(step(), 0..5),
    ) {
        // Half of the paths are alike on both sides: that is what a user's changes survive.
        let new: Vec<Put> = new.iter().zip(&old).zip(&same).map(|((n, o), same)| if *same { *o } else { *n }).collect();
        compare(&old, &new, &steps)?;
    }
}

#[test]
fn a_change_elsewhere_is_carried_along_and_one_in_the_way_is_not() {
    let mut old = [Put::Nothing; PATHS.len()];
    (old[0], old[3], old[5]) = (Put::File(0), Put::File(0), Put::File(0));
    let mut new = old;
    new[0] = Put::File(1);
    for (step, goes) in [
        (Step::Work(3, Put::File(2)), true),
        (Step::Work(0, Put::File(2)), false),
        (Step::Work(0, Put::Nothing), true),
        (Step::Unstage(5), true),
        (Step::Unstage(0), false),
    ] {
        let went = compare(&old, &new, std::slice::from_ref(&step)).expect("as Git does");
        assert_eq!(went, goes, "{step:?}");
    }
}
