//! Whether this process may mount: capabilities, user namespaces, containers.
//!
//! Read from `/proc` alone; nothing is mounted to find out.

use std::env;
use std::fs;
use std::path::Path;

use super::finding::Finding;
use super::machine;

/// `CAP_SYS_ADMIN`, which mount(2) asks for (capabilities(7)).
const SYS_ADMIN: u64 = 1 << 21;
/// Ids that the first user namespace maps: all of them (`user_namespaces(7)`).
const ALL_IDS: u64 = u32::MAX as u64;
const CONTAINER_FLAGS: &str = "--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined";

pub(super) fn findings() -> Vec<Finding> {
    let here = Confinement::read();
    let mut found = vec![here.mounting()];
    found.push(here.namespace());
    found.push(here.container());
    found
}

/// Where this process is shut in.
#[derive(Clone, Debug, Default)]
struct Confinement {
    root: bool,
    effective: u64,
    bounding: u64,
    no_new_privs: bool,
    /// Lines of `/proc/self/uid_map`: first id inside, first outside, how many.
    uid_map: Vec<(u64, u64, u64)>,
    /// What holds it, by name.
    container: Option<String>,
    /// A profile of `AppArmor` that is enforced.
    profile: Option<String>,
    /// `fusermount3` is installed set-user-id root.
    helper: bool,
}

impl Confinement {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field =
            |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
        let mask = |name: &str| field(name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
        let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        Self {
            root: rustix::process::geteuid().is_root(),
            effective: mask("CapEff"),
            bounding: mask("CapBnd"),
            no_new_privs: field("NoNewPrivs") == Some("1"),
            uid_map: parse_map(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default()),
            container: container(),
            profile: profile.trim_end_matches(['\n', '\0']).strip_suffix(" (enforce)").map(str::to_owned),
            helper: machine::helper_works(),
        }
    }

    /// Whether it is in a user namespace of its own.
    fn is_namespaced(&self) -> bool {
        !self.uid_map.is_empty() && self.uid_map != [(0, 0, ALL_IDS)]
    }

    /// Whether it may mount, and by which way.
    fn mounting(&self) -> Finding {
        const NAME: &str = "permission to mount";
        if self.effective & SYS_ADMIN != 0 {
            // Whose the mount namespace is can't be read from /proc.
            let only =
                if self.is_namespaced() { ", which counts where the mount namespace is its own too" } else { "" };
            return Finding::ok(NAME, format!("this process has CAP_SYS_ADMIN{only}"));
        }
        if self.root {
            let fix = format!("give it the capability; a container with `{CONTAINER_FLAGS}`");
            return Finding::error(NAME, "this process is root without CAP_SYS_ADMIN: mount(2) refuses", fix);
        }
        if !self.helper {
            let fix = "install fusermount3, set-user-id root";
            return Finding::error(NAME, "only root can mount, and there is no fusermount3 that helps", fix);
        }
        if self.no_new_privs {
            let fix = "start this shell without no_new_privs (`NoNewPrivileges=` of systemd, `--security-opt`)";
            return Finding::error(NAME, "no_new_privs is set: fusermount3 does not become root", fix);
        }
        if self.bounding & SYS_ADMIN == 0 {
            let fix = format!("start the container with `{CONTAINER_FLAGS}`");
            return Finding::error(NAME, "CAP_SYS_ADMIN is out of reach here, for fusermount3 too", fix);
        }
        // The helper belongs to the root of outside; inside it is nobody's.
        if self.is_namespaced() && !self.uid_map.iter().any(|(_, outside, _)| *outside == 0) && self.container.is_none()
        {
            let fix = "mount from outside of this user namespace, or become its root: `unshare -Urm`";
            return Finding::warning(NAME, "in this user namespace fusermount3 may not become root", fix);
        }
        Finding::ok(NAME, "through fusermount3")
    }

    fn namespace(&self) -> Finding {
        const NAME: &str = "user namespace";
        match self.uid_map.as_slice() {
            _ if !self.is_namespaced() => Finding::ok(NAME, "the first one: ids mean what they mean everywhere"),
            [(inside, outside, 1)] => {
                let detail = format!("user {inside} here is {outside} outside, and nobody else has an id");
                Finding::ok(NAME, format!("{detail}; mounts are seen in this namespace alone"))
            }
            map => {
                let ids: u64 = map.iter().map(|(_, _, count)| count).sum();
                Finding::ok(NAME, format!("{ids} ids are mapped; mounts are seen in this namespace alone"))
            }
        }
    }

    fn container(&self) -> Finding {
        const NAME: &str = "container";
        let Some(kind) = &self.container else { return Finding::ok(NAME, "none") };
        let profile = self.profile.as_deref().filter(|profile| *profile != "unconfined");
        if let Some(profile) = profile.filter(|profile| profile.contains("default")) {
            let detail = format!("{kind}, whose AppArmor profile {profile} may refuse mount(2)");
            return Finding::warning(NAME, detail, format!("start it with `{CONTAINER_FLAGS}`"));
        }
        let detail = "mounts are seen inside alone; state lives as long as the volume it is on";
        Finding::ok(NAME, format!("{kind}: {detail}"))
    }
}

fn parse_map(text: &str) -> Vec<(u64, u64, u64)> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    text.lines().filter_map(line).collect()
}

/// What holds this process, by the marks that container managers leave.
pub(super) fn container() -> Option<String> {
    let mark = |path: &str| Path::new(path).exists();
    if let Some(named) = env::var("container").ok().filter(|name| !name.is_empty()) {
        return Some(named);
    }
    if mark("/run/.containerenv") {
        return Some("podman".to_owned());
    }
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("kubernetes".to_owned());
    }
    if mark("/.dockerenv") {
        return Some("docker".to_owned());
    }
    let groups = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    of_cgroup(&groups).map(str::to_owned)
}

fn of_cgroup(groups: &str) -> Option<&'static str> {
    ["docker", "kubepods", "libpod", "containerd", "lxc"].into_iter().find(|name| {
        let within = |path: &str| path.split('/').any(|part| part.starts_with(name));
        groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(within)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn user() -> Confinement {
        Confinement { bounding: u64::MAX, uid_map: vec![(0, 0, ALL_IDS)], helper: true, ..Confinement::default() }
    }

    #[test]
    fn who_may_mount_is_told_from_who_may_not() {
        let severity = |here: Confinement| here.mounting().severity;
        assert_eq!(severity(user()), Severity::Ok);
        assert_eq!(severity(Confinement { root: true, effective: SYS_ADMIN, helper: false, ..user() }), Severity::Ok);
        assert_eq!(severity(Confinement { root: true, ..user() }), Severity::Error);
        assert_eq!(severity(Confinement { helper: false, ..user() }), Severity::Error);
        assert_eq!(severity(Confinement { no_new_privs: true, ..user() }), Severity::Error);
        assert_eq!(severity(Confinement { bounding: 0, ..user() }), Severity::Error);
        assert_eq!(severity(Confinement { uid_map: vec![(1000, 1000, 1)], ..user() }), Severity::Warning);
    }

    #[test]
    fn namespaces_and_containers_are_recognized() {
        assert_eq!(parse_map("         0          0 4294967295\n"), [(0, 0, ALL_IDS)]);
        assert!(!user().is_namespaced());
        let alone = Confinement { uid_map: parse_map("0 1000 1\n"), ..user() };
        assert!(alone.is_namespaced() && alone.namespace().detail.contains("user 0 here is 1000 outside"));
        assert_eq!(of_cgroup("0::/\n"), None);
        assert_eq!(of_cgroup("12:pids:/docker/0123abc\n"), Some("docker"));
        assert_eq!(of_cgroup("0::/system.slice/ssh.service\n"), None);
        let docker =
            Confinement { container: Some("docker".to_owned()), profile: Some("docker-default".to_owned()), ..user() };
        assert_eq!(docker.container().severity, Severity::Warning);
    }
}
