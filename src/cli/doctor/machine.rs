//! Kernel, FUSE and the programs Larder calls.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Finding;
use crate::cli::bounded::bounded;

/// From 5.1 on the kernel keeps directory listings without asking who opens them (`FUSE_NO_OPENDIR_SUPPORT`).
const KERNEL: (u32, u32) = (5, 1);
/// From 2.40 on Git has what the gitdirs Larder writes rely on.
const GIT: (u32, u32) = (2, 40);
/// Editors and build tools watch a directory each; a large tree has tens of thousands.
const WATCHES: u64 = 65_536;
const FUSE: &str = "/dev/fuse";

pub(super) fn findings() -> Vec<Finding> {
    vec![kernel(), fuse_device(), fusermount(), git(), ssh(), inotify()]
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(found) if found >= KERNEL => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::warning(
            "kernel",
            format!("Linux {release} is older than {}.{}; listings will be slow", KERNEL.0, KERNEL.1),
            "use a newer kernel",
        ),
        None => Finding::warning("kernel", format!("Linux {release} has a version I cannot read"), "check it by hand"),
    }
}

fn fuse_device() -> Finding {
    let fix = "load the module with `modprobe fuse`; a container needs `--device /dev/fuse --cap-add SYS_ADMIN`";
    match fs::metadata(FUSE) {
        Ok(meta) if !meta.file_type().is_char_device() => {
            return Finding::error(FUSE, "it is not a device", fix);
        }
        Err(error) => return Finding::error(FUSE, format!("it cannot be found: {error}"), fix),
        Ok(_) => {}
    }
    match OpenOptions::new().read(true).write(true).open(FUSE) {
        Ok(_) => Finding::ok(FUSE, "it can be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::error(FUSE, format!("it cannot be opened: {error}"), "`chmod 666 /dev/fuse`, as root")
        }
        Err(error) => Finding::error(FUSE, format!("it cannot be opened: {error}"), fix),
    }
}

fn fusermount() -> Finding {
    const NAME: &str = "fusermount3";
    let root = rustix::process::geteuid().is_root();
    let fix = "install it: `apt install fuse3` or your system's package";
    match program(NAME) {
        Some(path) if root => Finding::ok(NAME, format!("{}, not needed by root", path.display())),
        Some(path) => match fs::metadata(&path) {
            Ok(meta) if meta.permissions().mode() & 0o4000 == 0 => Finding::warning(
                NAME,
                format!("{} is not set-user-id root; mounting may be refused", path.display()),
                format!("`chmod u+s {}`, as root", path.display()),
            ),
            _ => Finding::ok(NAME, path.display().to_string()),
        },
        None if root => Finding::ok(NAME, "it is not installed; root does not need it"),
        None => Finding::error(NAME, "it is not installed; only root can mount without it", fix),
    }
}

fn git() -> Finding {
    let fix = format!("install Git {}.{} or newer", GIT.0, GIT.1);
    let Some(path) = program("git") else {
        return Finding::error("git", "it is not installed", fix);
    };
    let asked = path.clone();
    let text = bounded(move || {
        let output = Command::new(asked).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    let Some(text) = text.flatten().filter(|text| !text.is_empty()) else {
        return Finding::error("git", format!("{} does not say its version", path.display()), fix);
    };
    let detail = format!("{text}, {}", path.display());
    match version(text.trim_start_matches("git version ")) {
        Some(found) if found >= GIT => Finding::ok("git", detail),
        Some(_) => Finding::error("git", format!("{detail} is too old"), fix),
        None => Finding::warning("git", format!("{detail} has a version I cannot read"), fix),
    }
}

fn ssh() -> Finding {
    match program("ssh") {
        Some(path) => Finding::ok("ssh", path.display().to_string()),
        None => Finding::warning(
            "ssh",
            "it is not installed; repositories behind ssh cannot be mounted",
            "install an OpenSSH client if you need them",
        ),
    }
}

fn inotify() -> Finding {
    const FILE: &str = "/proc/sys/fs/inotify/max_user_watches";
    let Some(watches) = fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
        return Finding::ok("inotify", "its limits cannot be read here");
    };
    if watches < WATCHES {
        let fix = format!("`sysctl fs.inotify.max_user_watches={}`, as root", 8 * WATCHES);
        return Finding::warning("inotify", format!("{watches} watches; editors run out of them in large trees"), fix);
    }
    Finding::ok("inotify", format!("{watches} watches a user"))
}

/// Where `PATH` has an executable of this name.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("2.47.3"), Some((2, 47)));
        assert_eq!(version("2.5.GIT"), Some((2, 5)));
        assert!(version("2.9.1") < Some(GIT));
        for text in ["", "next", "6"] {
            assert_eq!(version(text), None, "{text}");
        }
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(program("sh").is_some());
        assert_eq!(program("larder-no-such-program"), None);
    }
}
