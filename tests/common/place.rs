//! A working tree to test in: a mount, or a plain clone that stands in for it.
//!
//! Owns what happens to the mount from outside: remount, restart, crash.
//! `LARDER_TEST_STAND_IN=1` puts a plain clone on the ordinary file system
//! where the mount would be. What a suite expects must hold there first: a
//! test that fails on ext4 tests the wrong thing.

use std::path::{Path, PathBuf};

use super::{COMMAND_LIMIT, Fixture, repos, run, text};

/// Whether plain clones stand in for mounts.
pub fn stand_in() -> bool {
    std::env::var_os("LARDER_TEST_STAND_IN").is_some_and(|value| value == "1")
}

/// One working tree of one repository.
pub struct Place {
    pub root: PathBuf,
    repository: String,
}

impl Place {
    /// Mounts `repository` at the fixture's `name`, with these further arguments.
    #[track_caller]
    pub fn new(fixture: &Fixture, repository: &str, name: impl AsRef<Path>, more: &[&str]) -> Self {
        let root = fixture.path(name);
        if stand_in() {
            let plain = repos::clone(Path::new(repository), None, &root);
            return Self { root: plain, repository: repository.to_owned() };
        }
        fixture.ok(&[&["mount", repository, text(&root)], more].concat());
        assert!(fixture.is_mounted(&root), "`larder mount` succeeded and {} is no mount", root.display());
        Self { root, repository: repository.to_owned() }
    }

    /// Unmounts and mounts again.
    #[track_caller]
    pub fn remount(&self, fixture: &Fixture) {
        if !stand_in() {
            fixture.ok(&["unmount", text(&self.root)]);
            assert!(!fixture.is_mounted(&self.root), "unmounted");
            fixture.ok(&["mount", &self.repository, text(&self.root)]);
        }
    }

    /// Ends the daemon in good order and starts another.
    #[track_caller]
    pub fn restart(&self, fixture: &Fixture) {
        if !stand_in() {
            fixture.ok(&["shutdown"]);
            self.started(fixture);
        }
    }

    /// Kills the daemon and starts another.
    #[track_caller]
    pub fn crash(&self, fixture: &Fixture) {
        if !stand_in() {
            fixture.crash_daemon();
            self.started(fixture);
        }
    }

    /// A daemon mounts what was mounted.
    #[track_caller]
    fn started(&self, fixture: &Fixture) {
        fixture.ok(&["daemon"]);
        let log = || std::fs::read_to_string(fixture.home().join("daemon.log")).unwrap_or_default();
        assert!(
            fixture.is_mounted(&self.root),
            "{} is mounted again; the daemon's log: {}",
            self.root.display(),
            log()
        );
    }

    /// Runs the fixture's git here; it must succeed.
    #[track_caller]
    pub fn git(&self, fixture: &Fixture, args: &[&str]) -> String {
        let mut command = fixture.git(&self.root);
        command.args(args);
        let outcome = run(command, COMMAND_LIMIT);
        assert_eq!(outcome.code, Some(0), "git {args:?}: {}{}", outcome.out(), outcome.err());
        outcome.out()
    }
}
