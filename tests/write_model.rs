//! A mount is a file system: random operations on it and on a plain directory have the same results and leave the same
//! tree, through remounts, restarts and kills of the daemon.
//!
//! `PROPTEST_CASES` runs more than the usual number. With
//! `LARDER_TEST_STAND_IN=1` a second plain directory takes the mount's part.

mod common;

#[path = "write_model/base.rs"]
mod base;
#[path = "write_model/ops.rs"]
mod ops;
#[path = "write_model/side.rs"]
mod side;
#[path = "write_model/whole.rs"]
mod whole;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use common::place::{Place, stand_in};
use common::servers::GitDaemon;
use common::{COMMAND_LIMIT, Fixture, run, within};
use ops::{Op, Outage};
use side::Side;

/// Sequences that are tried when nobody says how many.
const CASES: u32 = 24;
const LONGEST: usize = 120;
/// Operations between two comparisons of the whole trees.
const CHECK_EVERY: usize = 25;
/// Longest that a sequence may take.
const LIMIT: Duration = Duration::from_mins(2);

fn config() -> ProptestConfig {
    let defaults = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { defaults.cases } else { CASES };
    // Each try of a shorter sequence mounts again.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 300, ..defaults }
}

#[test]
fn a_mount_is_a_file_system() {
    let Some(shared) = Fixture::new() else { return };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    base::repository(&shared.path("served/base"));
    let server = GitDaemon::serve(&shared.path("served"));
    let (url, source) = (server.url("base"), shared.path("served/base"));
    let outcome = TestRunner::new(config()).run(&prop::collection::vec(ops::op(), 1..LONGEST), |ops| {
        let (url, source) = (url.clone(), source.clone());
        within(LIMIT, "a sequence of operations", move || sequence(&url, &source, &ops)).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// A fresh mount and a fresh plain copy go through the same operations.
fn sequence(url: &str, source: &Path, ops: &[Op]) -> Result<(), String> {
    let fixture = Fixture::new().expect("there was one a moment ago");
    let place = Place::new(&fixture, url, "m", &[]);
    let plain = fixture.path("plain");
    base::plain_copy(source, &place.root, &plain);
    if stand_in() {
        fs::remove_dir_all(&place.root).expect("removable");
        base::plain_copy(source, &plain, &place.root);
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    // The kernel's clock of files may be a tick behind.
    let start = i64::try_from(start).expect("it fits") - 1;
    let mut sides = [Side::new(&plain), Side::new(&place.root)];
    for (number, op) in ops.iter().enumerate() {
        let in_step = |difference: String| format!("operation {number}, {op:?}: {difference}");
        if let Op::Outage(outage) = op {
            suffer(*outage, &mut sides, &place, &fixture);
        } else {
            let [wanted, found] = sides.each_mut().map(|side| side.apply(op));
            if wanted != found {
                return Err(in_step(format!("{} | {}", short(&wanted), short(&found))));
            }
        }
        if number % CHECK_EVERY == CHECK_EVERY - 1 || matches!(op, Op::Outage(_)) {
            whole::difference(sides[0].root(), sides[1].root(), start).map_err(in_step)?;
        }
    }
    let at_the_end = |difference| format!("at the end: {difference}");
    whole::difference(sides[0].root(), sides[1].root(), start).map_err(at_the_end)?;
    if stand_in() { Ok(()) } else { status_agrees(&fixture, &place).map_err(at_the_end) }
}

/// What programs have open ends with the daemon, so it is closed: before the mount is taken down, after a crash.
fn suffer(outage: Outage, sides: &mut [Side; 2], place: &Place, fixture: &Fixture) {
    let mut close = || sides.iter_mut().for_each(Side::close_all);
    match outage {
        Outage::Remount => {
            close();
            place.remount(fixture);
        }
        Outage::Restart => {
            close();
            place.restart(fixture);
        }
        Outage::Crash => {
            place.crash(fixture);
            close();
        }
    }
}

/// Git says the same with and without the monitor.
fn status_agrees(fixture: &Fixture, place: &Place) -> Result<(), String> {
    let status = |more: &[&str]| {
        let mut command = fixture.git(&place.root);
        command.args(more).args(["status", "--porcelain", "-uall", "--no-renames"]);
        run(command, COMMAND_LIMIT).out()
    };
    let monitored = status(&["--no-optional-locks"]);
    let scanned = status(&["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false"]);
    if monitored == scanned { Ok(()) } else { Err(format!("git status:\n{monitored}without fsmonitor:\n{scanned}")) }
}

/// A result without most of its bytes.
fn short(result: &Result<side::Seen, i32>) -> String {
    match result {
        Ok(side::Seen::Bytes(bytes)) if bytes.len() > 64 => {
            format!("{} bytes, BLAKE3 {}", bytes.len(), blake3::hash(bytes))
        }
        Err(number) => std::io::Error::from_raw_os_error(*number).to_string(),
        other => format!("{other:?}"),
    }
}

/// A change of one tree, and what it is.
type Change = (&'static str, fn(&Path));

fn changes() -> [Change; 9] {
    use std::os::unix::fs::{PermissionsExt, symlink};
    [
        ("a byte", |root| fs::write(root.join("a.txt"), "alphA\n").expect("writable")),
        ("a mode", |root| fs::set_permissions(root.join("d"), PermissionsExt::from_mode(0o700)).expect("permitted")),
        ("an attribute", |root| {
            let none = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(root.join("big"), "user.one", b"1", none).expect("xattrs work here");
        }),
        ("a hard link", |root| {
            fs::remove_file(root.join("cold/f1")).expect("removable");
            fs::hard_link(root.join("cold/f0"), root.join("cold/f1")).expect("links");
        }),
        ("a target", |root| {
            fs::remove_file(root.join("link")).expect("removable");
            symlink("other", root.join("link")).expect("links");
        }),
        ("an empty directory", |root| fs::create_dir(root.join("d/new")).expect("writable")),
        ("a missing file", |root| fs::remove_file(root.join("d/two")).expect("removable")),
        ("a time of later", |root| {
            let file = fs::File::options().append(true).open(root.join("run.sh")).expect("opens");
            file.set_modified(SystemTime::now() + Duration::from_hours(2)).expect("a time can be set");
        }),
        ("a time", |root| {
            let file = fs::File::options().append(true).open(root.join("run.sh")).expect("opens");
            file.set_modified(UNIX_EPOCH + Duration::from_nanos(1_000_000_001)).expect("a time can be set");
        }),
    ]
}

/// The comparison of whole trees sees what operations can do.
#[test]
fn every_difference_is_noticed() {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let [source, one, two] = ["source", "one", "two"].map(|name| dir.path().join(name));
    base::repository(&source);
    common::repos::clone(&source, None, &one);
    let three = dir.path().join("three");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let start = i64::try_from(now).expect("it fits") + 3600;
    for (what, change) in changes() {
        for copy in [&two, &three] {
            let _ = fs::remove_dir_all(copy);
            base::plain_copy(&source, &one, copy);
        }
        whole::difference(&three, &two, start).expect("nothing was changed");
        change(&two);
        whole::difference(&three, &two, start).expect_err(what);
    }
}
