//! Random sequences of switching, pinning, reading, writing, collecting and dying, against a plain map.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::repos::{self, commit_all, noise, write};
use common::{Fixture, kill, text};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::Signal;

const FILES: usize = 24;

#[derive(Clone, Copy, Debug)]
enum Op {
    Switch(bool),
    Pin,
    Unpin,
    Warm,
    Read(usize),
    Write(usize, u8),
    Remove(usize),
    Collect { generations: usize, all: bool, compact: bool },
    Kill,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<bool>().prop_map(Op::Switch),
        1 => Just(Op::Pin),
        1 => Just(Op::Unpin),
        2 => Just(Op::Warm),
        4 => (0..FILES).prop_map(Op::Read),
        2 => (0..FILES, any::<u8>()).prop_map(|(file, seed)| Op::Write(file, seed)),
        1 => (0..FILES).prop_map(Op::Remove),
        4 => (0..3_usize, any::<bool>(), any::<bool>())
            .prop_map(|(generations, all, compact)| Op::Collect { generations, all, compact }),
        1 => Just(Op::Kill),
        1 => Just(Op::Restart),
    ]
}

fn name(file: usize) -> String {
    format!("d{}/f{file:02}", file % 3)
}

/// What a branch has in a file: every other one differs.
fn content(next: bool, file: usize) -> Vec<u8> {
    noise(file as u64 + if next && file.is_multiple_of(2) { 1000 } else { 0 }, 3000 + 100 * file)
}

struct Model {
    next: bool,
    /// What the user made of files; `None`: removed.
    changed: BTreeMap<usize, Option<Vec<u8>>>,
}

impl Model {
    fn expected(&self, file: usize) -> Option<Vec<u8>> {
        self.changed.get(&file).cloned().unwrap_or_else(|| Some(content(self.next, file)))
    }
}

fn check(mount: &Path, model: &Model, file: usize) {
    assert!(fs::read(mount.join(name(file))).ok() == model.expected(file), "{}", name(file));
}

fn perform(fixture: &Fixture, mount: &Path, model: &mut Model, op: Op) {
    match op {
        Op::Switch(next) => {
            // What was changed and differs between the branches refuses the switch; what was only removed comes back, as
            // with `git switch`.
            let rev = if next { "next" } else { "main" };
            let blocked =
                model.next != next && model.changed.iter().any(|(file, now)| file.is_multiple_of(2) && now.is_some());
            let done = fixture.run(&["switch", text(mount), rev]);
            assert_eq!(done.code, Some(if blocked { 6 } else { 0 }), "{}", done.err());
            if !blocked && model.next != next {
                model.next = next;
                model.changed.retain(|file, _| !file.is_multiple_of(2));
            }
        }
        Op::Pin => drop(fixture.ok(&["pin", text(mount)])),
        Op::Unpin => drop(fixture.run(&["unpin", "--all", text(mount)])),
        Op::Warm => drop(fixture.ok(&["warm", text(mount)])),
        Op::Read(file) => check(mount, model, file),
        Op::Write(file, seed) => {
            let bytes = noise(5000 + u64::from(seed), 2000);
            fs::write(mount.join(name(file)), &bytes).expect("writes");
            model.changed.insert(file, Some(bytes));
        }
        Op::Remove(file) => {
            let _ = fs::remove_file(mount.join(name(file)));
            model.changed.insert(file, None);
        }
        Op::Collect { generations, all, compact } => {
            let keep = generations.to_string();
            let mut arguments = vec!["gc", "--generations", &keep];
            arguments.extend(if all { &["--max-age", "0s"][..] } else { &[] });
            arguments.extend(if compact { &["--compact"][..] } else { &[] });
            fixture.ok(&arguments);
        }
        Op::Kill => {
            for daemon in fixture.daemons() {
                kill(daemon, Signal::KILL);
            }
            fixture.ok(&["warm", text(mount)]);
        }
        Op::Restart => {
            fixture.ok(&["shutdown"]);
            fixture.ok(&["warm", text(mount)]);
        }
    }
}

#[test]
fn every_file_is_right_whatever_is_collected() {
    let config = Config { cases: 10, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(op(), 5..25), |ops| {
        let Some(fixture) = Fixture::with_settings("[git]\nhistory = \"off\"\n[gc]\ninterval = \"0s\"\n") else {
            return Ok(());
        };
        let source = fixture.path("source");
        repos::init(&source, "sha1");
        for next in [false, true] {
            if next {
                common::git_out(&source, &["switch", "-q", "-c", "next"]);
            }
            (0..FILES).for_each(|file| write(&source, name(file), content(next, file)));
            commit_all(&source, "a branch");
        }
        common::git_out(&source, &["switch", "-q", "main"]);
        let mount = fixture.mount(text(&source), "mount");
        let mut model = Model { next: false, changed: BTreeMap::new() };
        for op in ops {
            perform(&fixture, &mount, &mut model, op);
        }
        (0..FILES).for_each(|file| check(&mount, &model, file));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
