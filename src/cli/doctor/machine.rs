//! Kernel, FUSE and the programs Larder calls.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::finding::{Finding, as_root, quoted};
use crate::cli::bounded::bounded;
use crate::vfs::abilities;

/// From 5.1 on the kernel keeps directory listings without asking who opens them (`FUSE_NO_OPENDIR_SUPPORT`).
const KERNEL: (u32, u32) = (5, 1);
/// From 2.40 on Git has what the gitdirs Larder writes rely on.
const GIT: (u32, u32) = (2, 40);
const DEVICE: &str = "/dev/fuse";
/// Mounts that `fusermount3` makes for a user who is not root, unless `/etc/fuse.conf` says another number.
const MOUNT_MAX: usize = 1000;

pub(super) fn findings() -> Vec<Finding> {
    let mut found = vec![kernel(), driver(), device(), fusermount()];
    found.extend(fuse_conf());
    found.push(git());
    found
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn kernel() -> Finding {
    let release = release();
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

/// Whether the kernel has FUSE at all.
fn driver() -> Finding {
    const NAME: &str = "fuse module";
    let Ok(systems) = fs::read_to_string("/proc/filesystems") else {
        return Finding::warning(NAME, "/proc/filesystems cannot be read", "mount /proc");
    };
    let known = systems.lines().any(|line| line.split_whitespace().next_back() == Some("fuse"));
    if known {
        return Finding::ok(NAME, "the kernel knows the file system type fuse");
    }
    let fix = "load the module; in a container or virtual machine, on its host";
    Finding::error(NAME, "the kernel does not know the file system type fuse", fix).run(as_root("modprobe fuse"))
}

/// What the kernel's FUSE can do: what it `said` at a mount, else what is to be expected of its release.
pub(super) fn abilities(said: Option<(u32, u32)>, lacks: &[String]) -> Finding {
    const NAME: &str = "fuse abilities";
    let release = release();
    let lacking: Vec<_> = match (said, version(&release)) {
        (Some(_), _) => abilities::ALL.iter().filter(|ability| lacks.iter().any(|flag| flag == ability.flag)).collect(),
        (None, Some(found)) => abilities::ALL.iter().filter(|ability| found < ability.since).collect(),
        (None, None) => Vec::new(),
    };
    let protocol = match said {
        Some((major, minor)) => format!("FUSE {major}.{minor}"),
        None => format!("nothing was mounted yet; Linux {release}"),
    };
    if lacking.is_empty() {
        let all: Vec<_> = abilities::ALL.iter().map(|ability| ability.flag).collect();
        return Finding::ok(NAME, format!("{protocol} has all that is asked for: {}", all.join(", ")));
    }
    let without: Vec<_> = lacking.iter().map(|ability| format!("{} ({})", ability.flag, ability.without)).collect();
    let newest = lacking.iter().map(|ability| ability.since).max().unwrap_or(KERNEL);
    let fix = format!("use Linux {}.{} or newer; everything works without, only slower", newest.0, newest.1);
    Finding::warning(NAME, format!("{protocol} lacks {}", without.join(", ")), fix)
}

fn device() -> Finding {
    let fix = "load the module, or give the container the device: `--device /dev/fuse --cap-add SYS_ADMIN`";
    let broken = |detail: String| Finding::error(DEVICE, detail, fix).run(as_root("modprobe fuse"));
    match fs::metadata(DEVICE) {
        Ok(meta) if !meta.file_type().is_char_device() => {
            let fix = "remove it, then make the device";
            let command = as_root("sh -c 'rm -r /dev/fuse && mknod -m 666 /dev/fuse c 10 229'");
            return Finding::error(DEVICE, "it is not a device", fix).run(command);
        }
        Err(error) => return broken(format!("it cannot be found: {error}")),
        Ok(_) => {}
    }
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::ok(DEVICE, "it can be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::error(DEVICE, format!("it cannot be opened: {error}"), "let users open it")
                .run(as_root("chmod 666 /dev/fuse"))
        }
        // A container's device rules answer EPERM.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let fix = "start the container with `--device /dev/fuse --cap-add SYS_ADMIN`";
            Finding::error(DEVICE, format!("its use is forbidden here: {error}"), fix)
        }
        Err(error) => broken(format!("it cannot be opened: {error}")),
    }
}

fn fusermount() -> Finding {
    const NAME: &str = "fusermount3";
    let root = rustix::process::geteuid().is_root();
    match program(NAME) {
        Some(path) if root => Finding::ok(NAME, format!("{}, not needed by root", path.display())),
        Some(path) if !is_setuid_root(&path) => Finding::warning(
            NAME,
            format!("{} is not set-user-id root; mounting may be refused", path.display()),
            "make it so, or install your system's package again",
        )
        .run(as_root(&format!(
            "sh -c {}",
            quoted(Path::new(&format!("chown root {0} && chmod u+s {0}", quoted(&path))))
        ))),
        Some(path) => Finding::ok(NAME, path.display().to_string()),
        None if root => Finding::ok(NAME, "it is not installed; root does not need it"),
        None => Finding::error(NAME, "it is not installed; only root can mount without it", "install FUSE 3")
            .run(as_root(install("fuse3"))),
    }
}

/// Whether `fusermount3` is there and would run as root.
pub(super) fn helper_works() -> bool {
    program("fusermount3").is_some_and(|path| is_setuid_root(&path))
}

fn is_setuid_root(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0 && meta.uid() == 0)
}

/// How the system at hand installs a package.
fn install(package: &'static str) -> &'static str {
    let of = |apt, dnf, pacman, apk| {
        [("apt-get", apt), ("dnf", dnf), ("pacman", pacman), ("apk", apk)]
            .into_iter()
            .find(|(name, _)| program(name).is_some())
            .map_or(apt, |(_, command)| command)
    };
    match package {
        "fuse3" => of("apt-get install fuse3", "dnf install fuse3", "pacman -S fuse3", "apk add fuse3"),
        _ => of("apt-get install git", "dnf install git", "pacman -S git", "apk add git"),
    }
}

/// `/etc/fuse.conf` matters to who mounts through `fusermount3`: only the number of mounts, since Larder asks for
/// `allow_other` as root alone.
fn fuse_conf() -> Option<Finding> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts =
        table.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("fuse"))).count();
    Some(judge_fuse_conf(&text, mounts))
}

fn judge_fuse_conf(text: &str, mounts: usize) -> Finding {
    const NAME: &str = "/etc/fuse.conf";
    let set = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("mount_max")?.trim().strip_prefix('=')?.trim().parse().ok());
    let most: usize = set.unwrap_or(MOUNT_MAX);
    let detail = format!("{mounts} FUSE mounts of {most} allowed (mount_max)");
    if mounts + 1 >= most {
        let fix = "allow more, or unmount some";
        let command = format!("sh -c 'echo mount_max = {} >> /etc/fuse.conf'", 2 * most.max(MOUNT_MAX / 2));
        return Finding::warning(NAME, detail, fix).run(as_root(&command));
    }
    Finding::ok(NAME, format!("{detail}; user_allow_other is not needed"))
}

fn git() -> Finding {
    let fix = format!("install Git {}.{} or newer", GIT.0, GIT.1);
    let install = as_root(install("git"));
    let all = programs("git");
    let Some(path) = all.first().cloned() else {
        return Finding::error("git", "it is not installed", fix).run(install);
    };
    let asked = path.clone();
    let text = bounded(move || {
        let output = Command::new(asked).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    let Some(text) = text.flatten().filter(|text| !text.is_empty()) else {
        return Finding::error("git", format!("{} does not say its version", path.display()), fix);
    };
    let behind: Vec<String> = all.iter().skip(1).map(|path| path.display().to_string()).collect();
    let behind = if behind.is_empty() { String::new() } else { format!(", before {} on PATH", behind.join(", ")) };
    let detail = format!("{text}, {}{behind}", path.display());
    match version(text.trim_start_matches("git version ")) {
        Some(found) if found >= GIT => Finding::ok("git", detail),
        Some(_) => Finding::error("git", format!("{detail} is too old"), fix).run(install),
        None => Finding::warning("git", format!("{detail} has a version I cannot read"), fix),
    }
}

/// `needed`: a repository is reached over ssh.
pub(super) fn ssh(needed: bool) -> Finding {
    if let Some(own) = ["GIT_SSH_COMMAND", "GIT_SSH"].into_iter().find(|name| env::var_os(name).is_some()) {
        return Finding::ok("ssh", format!("{own} says what is run"));
    }
    match program("ssh") {
        Some(path) => Finding::ok("ssh", path.display().to_string()),
        None if needed => Finding::error(
            "ssh",
            "it is not installed, and a repository here is reached over ssh",
            "install an OpenSSH client",
        ),
        None => Finding::ok("ssh", "it is not installed; no repository here needs it"),
    }
}

/// Where `PATH` has an executable of this name.
fn program(name: &str) -> Option<PathBuf> {
    programs(name).into_iter().next()
}

/// All places where `PATH` has one, the one that runs first; the same file by two names is one.
fn programs(name: &str) -> Vec<PathBuf> {
    let Some(path) = env::var_os("PATH") else { return Vec::new() };
    let mut seen = Vec::new();
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .filter(|file| {
            let Ok(meta) = fs::metadata(file) else { return false };
            let new = !seen.contains(&(meta.dev(), meta.ino()));
            seen.push((meta.dev(), meta.ino()));
            new && meta.is_file() && meta.permissions().mode() & 0o111 != 0
        })
        .collect()
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
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

    #[test]
    fn what_the_kernel_lacks_is_named_with_what_it_costs() {
        let all = abilities(Some((7, 45)), &[]);
        assert!(all.severity == Severity::Ok && all.detail.starts_with("FUSE 7.45 has all"), "{}", all.detail);
        let old = abilities(Some((7, 27)), &["killpriv-v2".to_owned(), "no-opendir".to_owned()]);
        assert_eq!(old.severity, Severity::Warning);
        assert!(old.detail.contains("no-opendir (each listing asks the daemon)"), "{}", old.detail);
        assert!(old.fix.expect("one").contains("Linux 5.11 or newer"));
    }

    #[test]
    fn mounts_of_users_are_counted_against_fuse_conf() {
        assert_eq!(judge_fuse_conf("#mount_max = 3\nuser_allow_other\n", 7).severity, Severity::Ok);
        assert_eq!(judge_fuse_conf(" mount_max = 8\n", 7).severity, Severity::Warning);
        assert_eq!(judge_fuse_conf("", 999).severity, Severity::Warning);
    }
}
