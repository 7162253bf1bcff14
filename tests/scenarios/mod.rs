//! Two working trees that go through the same steps.
//!
//! Owns [`World`] (one daemon and one server for all scenarios that run at the
//! same time) and [`Pair`] (the two trees, the clock, the comparison). Each
//! scenario has a remote of its own on each side: workspaces of one remote
//! share their branches, and a scenario may push.

mod branch;
mod edit;
mod harness;
mod house;
mod look;
mod put_back;
mod remote;
mod repos;
mod state;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::common::place::{Place, stand_in};
use crate::common::servers::GitDaemon;
use crate::common::{COMMAND_LIMIT, Fixture, Outcome, git_out, run, text, within};
use state::State;

/// The first second of every scenario; each step is a minute later.
const EPOCH: u64 = 1_710_000_000;
const STEP_SECONDS: u64 = 60;

/// What the scenarios share: the fixture with its daemon, and the server of their remotes.
pub struct World {
    fixture: Fixture,
    server: GitDaemon,
}

/// The world, as long as a scenario lives in it. A static would never be dropped, and its daemon would stay.
static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());

impl World {
    fn shared() -> Option<Arc<Self>> {
        let mut shared = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = shared.upgrade() {
            return Some(world);
        }
        let world = Arc::new(Self::new()?);
        *shared = Arc::downgrade(&world);
        Some(world)
    }

    fn new() -> Option<Self> {
        // Git's 644 and 755 are what both trees must hold, whoever runs the tests.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let fixture = Fixture::new()?;
        fs::create_dir_all(fixture.path("served")).expect("the fixture is writable");
        let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/store_filter.py");
        let mut config = String::from("[advice]\n\tdetachedHead = false\n[protocol \"file\"]\n\tallow = always\n");
        config.push_str(&repos::filter_config(driver, &fixture.path("filtered")));
        fs::write(fixture.gitconfig(), config).expect("the fixture is writable");
        repos::make_all(&fixture.path("templates"), &fixture.gitconfig());
        copy(&fixture.path("templates/part.git"), &fixture.path("served/part.git"));
        let server = GitDaemon::serve(&fixture.path("served"));
        Some(Self { fixture, server })
    }
}

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.args(["-a", text(from), text(to)]);
    run(cp, COMMAND_LIMIT).success();
}

/// One of the two trees.
pub struct Side {
    pub top: PathBuf,
    /// The bare repository it was made from.
    pub bare: PathBuf,
    origin: String,
}

impl Side {
    /// What must differ between the sides, replaced by what must not.
    fn normalised(&self, output: &[u8]) -> String {
        let output = String::from_utf8_lossy(output);
        output.replace(text(&self.top), "<top>").replace(&self.origin, "<origin>")
    }
}

/// A plain clone and a mount.
pub struct Pair {
    world: Arc<World>,
    sides: [Side; 2],
    steps: u64,
}

impl Pair {
    /// The everyday repository; `None` on a machine excused from mounting.
    pub fn new(name: &str) -> Option<Self> {
        Self::of("base", name)
    }

    /// A pair from one of the templates of `repos.rs`, compared once.
    pub fn of(template: &str, name: &str) -> Option<Self> {
        Self::start(template, name, stand_in())
    }

    /// Two plain clones, to see what the comparison notices.
    pub fn both_plain(name: &str) -> Option<Self> {
        Self::start("base", name, true)
    }

    fn start(template: &str, name: &str, both_plain: bool) -> Option<Self> {
        let world = World::shared()?;
        let sides = ["plain", "mount"].map(|kind| {
            let bare = world.fixture.path(format!("served/{name}-{kind}.git"));
            copy(&world.fixture.path(format!("templates/{template}.git")), &bare);
            let top = world.fixture.path(format!("{name}-{kind}"));
            let origin = world.server.url(&format!("{name}-{kind}.git"));
            if kind == "plain" || both_plain {
                let mut clone = world.fixture.git(Path::new("/"));
                clone.args(["clone", "-q", &origin, text(&top)]);
                run(clone, COMMAND_LIMIT).success();
            } else {
                Place::new(&world.fixture, &origin, &top, &["--depth", "full"]);
            }
            Side { top, bare, origin }
        });
        let mut pair = Self { world, sides, steps: 0 };
        // A mount knows the branch it shows. From here on both know all branches and tags.
        pair.git_unequal(&["fetch", "-q", "--tags", "origin"]);
        Some(pair)
    }

    pub fn fixture(&self) -> &Fixture {
        &self.world.fixture
    }

    /// Only the second tree, for differences made on purpose.
    pub fn second(&self) -> &Path {
        &self.sides[1].top
    }

    /// Runs git on both sides; it must succeed and say the same.
    #[track_caller]
    pub fn git(&mut self, args: &[&str]) -> String {
        self.step(&format!("git {}", args.join(" ")), 0, true, |_| git_arguments(args))
    }

    /// Runs git on both sides; it must fail with this code and say the same.
    #[track_caller]
    pub fn git_fails(&mut self, code: i32, args: &[&str]) -> String {
        self.step(&format!("git {}", args.join(" ")), code, true, |_| git_arguments(args))
    }

    /// Runs git on both sides; it must succeed, whatever it says.
    #[track_caller]
    pub fn git_unequal(&mut self, args: &[&str]) {
        self.step(&format!("git {}", args.join(" ")), 0, false, |_| git_arguments(args));
    }

    /// Runs git on both sides with these answers on its standard input.
    #[track_caller]
    pub fn git_answers(&mut self, args: &[&str], answers: &str) -> String {
        let script = format!("printf '{}' | git \"$@\"", answers.replace('\n', "\\n"));
        let mut all = vec!["sh".to_owned(), "-c".to_owned(), script, "git".to_owned()];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        self.step(&format!("git {} < {answers:?}", args.join(" ")), 0, true, move |_| all.clone())
    }

    /// Runs a shell script on both sides; it must succeed and say the same.
    #[track_caller]
    pub fn sh(&mut self, script: &str) -> String {
        self.step(script, 0, true, |_| ["sh", "-ec", script].map(str::to_owned).to_vec())
    }

    /// Changes both trees without git.
    #[track_caller]
    pub fn edit(&mut self, what: &str, change: impl Fn(&Path)) {
        self.steps += 1;
        for side in &self.sides {
            change(&side.top);
        }
        self.compare_or_panic(what);
    }

    #[track_caller]
    pub fn write(&mut self, name: &str, content: impl AsRef<[u8]>) {
        self.edit(&format!("write {name}"), |top| crate::common::repos::write(top, name, content.as_ref()));
    }

    #[track_caller]
    pub fn append(&mut self, name: &str, content: &str) {
        self.sh(&format!("printf '%s' '{content}' >>'{name}'"));
    }

    #[track_caller]
    pub fn remove(&mut self, name: &str) {
        self.edit(&format!("rm {name}"), |top| fs::remove_file(top.join(name)).expect("the file is there"));
    }

    #[track_caller]
    pub fn chmod(&mut self, name: &str, mode: u32) {
        self.edit(&format!("chmod {mode:o} {name}"), |top| {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).expect("the file is there");
        });
    }

    #[track_caller]
    pub fn link(&mut self, target: &str, name: &str) {
        self.edit(&format!("ln -s {target} {name}"), |top| symlink(target, top.join(name)).expect("nothing is there"));
    }

    #[track_caller]
    pub fn rename(&mut self, from: &str, to: &str) {
        self.edit(&format!("mv {from} {to}"), |top| fs::rename(top.join(from), top.join(to)).expect("it renames"));
    }

    /// Somebody else's work arrives in both remotes: `change` is made in a clone, committed and pushed.
    #[track_caller]
    pub fn upstream(&mut self, branch: &str, change: impl Fn(&Path)) {
        self.steps += 1;
        for (number, side) in self.sides.iter().enumerate() {
            let name = format!("upstream-{}-{number}", self.steps);
            let clone = side.bare.with_file_name(format!("{name}-{}", side.top.file_name().expect("named").display()));
            git_out(Path::new("/"), &["clone", "-q", "-b", branch, text(&side.bare), text(&clone)]);
            change(&clone);
            git_out(&clone, &["add", "-A"]);
            git_out(&clone, &["commit", "-q", "-m", "somebody else's"]);
            git_out(&clone, &["push", "-q", "origin", branch]);
        }
        self.compare_or_panic(&format!("upstream {branch}"));
    }

    /// One step: the same command on both sides, then everything compared. Returns what it printed.
    #[track_caller]
    fn step(&mut self, what: &str, code: i32, equal: bool, command: impl Fn(&Side) -> Vec<String>) -> String {
        self.steps += 1;
        let [plain, mount] = [0, 1].map(|number| {
            let side = &self.sides[number];
            self.run(side, &command(side))
        });
        for (side, outcome) in self.sides.iter().zip([&plain, &mount]) {
            let said = format!("{}{}", outcome.out(), outcome.err());
            let name = side.top.file_name().expect("it has a name").display();
            assert_eq!(outcome.code, Some(code), "step {}, {what}, in {name}:\n{said}", self.steps);
        }
        let outputs = |outcome: &Outcome, side: &Side| {
            [("stdout", side.normalised(&outcome.stdout)), ("stderr", side.normalised(&outcome.stderr))]
        };
        let (wanted, found) = (outputs(&plain, &self.sides[0]), outputs(&mount, &self.sides[1]));
        if equal {
            for ((stream, wanted), (_, found)) in wanted.iter().zip(&found) {
                let difference = state::lines_that_differ(wanted, found).unwrap_or_default();
                assert!(wanted == found, "step {}, {what}: {stream} differs\n{difference}", self.steps);
            }
        }
        self.compare_or_panic(what);
        let [(_, printed), _] = wanted;
        printed
    }

    fn run(&self, side: &Side, arguments: &[String]) -> Outcome {
        let git = self.world.fixture.git(&side.top);
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]).current_dir(&side.top);
        for (name, value) in git.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let now = format!("@{} +0000", EPOCH + STEP_SECONDS * self.steps);
        command.env("GIT_AUTHOR_DATE", &now).env("GIT_COMMITTER_DATE", &now);
        // The message that is offered is taken.
        command.env("GIT_EDITOR", ":").env("GIT_PAGER", "cat").env("TZ", "UTC");
        run(command, COMMAND_LIMIT)
    }

    /// What differs between the two sides now, if anything.
    pub fn compare(&self) -> Result<(), String> {
        let [plain, mount] = [0, 1].map(|number| {
            let side = &self.sides[number];
            State::of(&self.world.fixture, side)
        });
        plain.same_as(&mount)
    }

    #[track_caller]
    fn compare_or_panic(&self, what: &str) {
        if let Err(difference) = self.compare() {
            panic!("after step {}, {what}: {difference}", self.steps);
        }
    }
}

fn git_arguments(args: &[&str]) -> Vec<String> {
    std::iter::once("git").chain(args.iter().copied()).map(str::to_owned).collect()
}

/// Walks a tree on a thread of its own, so that a hanging mount fails the test.
fn walk(top: &Path) -> std::collections::BTreeMap<Vec<u8>, crate::common::compare::Entry> {
    let top = top.to_owned();
    within(COMMAND_LIMIT, &format!("walking {}", top.display()), move || crate::common::compare::tree(&top))
}
