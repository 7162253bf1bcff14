//! A full disk: writes are refused, reads go on, nothing that was acknowledged is damaged.
//!
//! `LARDER_HOME` is a small file system of its own, which only root can mount.
//! With `LARDER_TEST_STAND_IN=1` the tree itself is on that file system.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use common::place::{Place, stand_in};
use common::repos::{self, noise, write};
use common::{COMMAND_LIMIT, Fixture, git_out, run, text};

/// What the small file system holds.
const DISK_BYTES: usize = 48 << 20;

struct Small {
    fixture: Fixture,
    place: Place,
}

impl Small {
    fn new() -> Option<Self> {
        Self::on(Fixture::with_settings("[cache]\nmin_free = 0\n")?)
    }

    fn on(fixture: Fixture) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let source = fixture.path("source");
        repos::small(&source);
        for number in 0..20 {
            write(&source, format!("files/f{number:02}"), noise(number, 20_000));
        }
        repos::commit_all(&source, "files");
        let small = if stand_in() { fixture.path("disk") } else { fixture.home() };
        fs::create_dir_all(&small).expect("the fixture is writable");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]).arg(format!("size={DISK_BYTES},mode=700"));
        mount.args(["larder-test", text(&small)]);
        run(mount, COMMAND_LIMIT).success();
        let name = if stand_in() { "disk/m" } else { "m" };
        let place = Place::new(&fixture, text(&source), name, &[]);
        Some(Self { fixture, place })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.root.join(name)
    }

    fn reads(&self) {
        for number in 0..20 {
            let bytes = fs::read(self.path(&format!("files/f{number:02}"))).expect("reads go on");
            assert!(bytes == noise(number, 20_000), "files/f{number:02}");
        }
    }

    /// Writes until it is refused; how much was acknowledged.
    fn fill(&self, name: &str) -> (usize, io::Error) {
        let mut file = File::create(self.path(name)).expect("creates");
        let piece = noise(7, 64 << 10);
        for count in 0..2 * DISK_BYTES / piece.len() {
            if let Err(error) = file.write_all(&piece) {
                return (count * piece.len(), error);
            }
        }
        panic!("{} bytes went to a disk of {DISK_BYTES}", 2 * DISK_BYTES);
    }
}

#[test]
fn writes_fail_and_reads_go_on() {
    let Some(small) = Small::new() else { return };
    small.reads();
    fs::write(small.path("before"), "acknowledged\n").expect("writes");
    let (acknowledged, error) = small.fill("filler");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    small.reads();
    let filler = fs::read(small.path("filler")).expect("reads");
    assert!(filler.len() >= acknowledged, "{} of {acknowledged} acknowledged bytes", filler.len());
    let piece = noise(7, 64 << 10);
    assert!(filler.chunks(piece.len()).take(acknowledged / piece.len()).all(|chunk| chunk == piece));
    // Names go on until they too are refused, and none that was acknowledged is lost.
    let mut made = Vec::new();
    for number in 0..100_000 {
        let name = format!("many/{number}-{}", "n".repeat(200));
        let _ = fs::create_dir(small.path("many"));
        match symlink("t".repeat(4000), small.path(&name)) {
            Ok(()) => made.push(name),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                break;
            }
        }
    }
    for name in &made {
        assert_eq!(fs::read_link(small.path(name)).expect("still there").as_os_str().len(), 4000, "{name}");
    }
    small.reads();
    assert_eq!(fs::read(small.path("before")).expect("reads"), b"acknowledged\n");
    // Removing is how people make room.
    fs::remove_file(small.path("filler")).expect("a full disk lets files be removed");
    fs::write(small.path("after"), noise(8, 1 << 20)).expect("there is room again");
    small.place.crash(&small.fixture);
    small.reads();
    assert_eq!(fs::read(small.path("before")).expect("reads"), b"acknowledged\n");
    assert!(fs::read(small.path("after")).expect("reads") == noise(8, 1 << 20));
    for name in &made {
        assert!(small.path(name).symlink_metadata().is_ok(), "{name}");
    }
    assert!(!small.path("filler").exists());
}

#[test]
fn a_refused_copy_up_leaves_the_file_as_it_was() {
    let Some(small) = Small::new() else { return };
    small.reads();
    let (_, error) = small.fill("filler");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    for number in 0..20 {
        let file = OpenOptions::new().write(true).open(small.path(&format!("files/f{number:02}"))).expect("opens");
        // The same bytes again, so that it is right whether or not there was room.
        let bytes = noise(number, 20_000);
        if let Err(error) = file.write_all_at(&bytes[5000..6000], 5000) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        }
    }
    small.reads();
}

/// What was fetched and not yet durable is gone with the daemon, and can't be stored again: neither contents nor sizes.
#[test]
fn reads_go_on_after_a_crash_on_a_full_disk() {
    for sizes in ["true", "false"] {
        let Some(small) = Small::new() else { return };
        git_out(&small.fixture.path("source"), &["config", "transfer.advertiseObjectInfo", sizes]);
        small.reads();
        let (_, error) = small.fill("filler");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        small.place.crash(&small.fixture);
        small.reads();
    }
}

/// A disk smaller than what is left free of a large one.
#[test]
fn a_small_disk_is_enough_to_mount() {
    let Some(fixture) = Fixture::new() else { return };
    let Some(small) = Small::on(fixture) else { return };
    small.reads();
}
