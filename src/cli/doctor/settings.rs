//! Settings that contradict each other, the machine, or what the running daemon has read.
//!
//! A setting counts as set where it differs from its default.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::finding::{Finding, quoted};
use crate::config::quantity::human_bytes;
use crate::config::{Config, Prefetch, Settings};

/// What the machine has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    /// Bytes of the disk of the cache.
    pub(super) disk: Option<u64>,
    /// Bytes free on it.
    pub(super) free: Option<u64>,
    /// Bytes of memory.
    pub(super) memory: Option<u64>,
}

impl Machine {
    /// Looks at the disk that `home` is on, or will be.
    pub(super) fn of(home: &Path) -> Self {
        let existing = home.ancestors().find(|path| path.exists()).unwrap_or(home);
        let disk = rustix::fs::statvfs(existing).ok();
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            disk: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
            free: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            memory: memory.map(|kib| kib.saturating_mul(1024)),
        }
    }
}

/// `serving`: a daemon runs, which read the settings when it started.
pub(super) fn findings(config: &Config, serving: bool) -> Vec<Finding> {
    let file = config.config_file.display();
    let detail = if config.config_file.exists() { format!("{file}") } else { format!("defaults; there is no {file}") };
    let mut found = vec![Finding::ok("settings", detail)];
    found.extend(stray_file(config));
    found.extend(writable(config));
    if serving {
        found.extend(not_read_yet(config));
    }
    found.extend(contradictions(&config.settings, Machine::of(&config.home)));
    found
}

/// A settings file where nobody reads it.
fn stray_file(config: &Config) -> Option<Finding> {
    let stray = config.home.join("config.toml");
    if stray == config.config_file || !stray.exists() {
        return None;
    }
    let detail = format!("{} has no effect: nobody reads it", stray.display());
    let fix = format!("put what it says into {}", config.config_file.display());
    Some(Finding::warning("settings file", detail, fix))
}

/// A settings file that others may change.
fn writable(config: &Config) -> Option<Finding> {
    let mode = fs::metadata(&config.config_file).ok()?.mode() & 0o7777;
    if mode & 0o022 == 0 {
        return None;
    }
    let detail = format!("others may write {}: mode {mode:04o}", config.config_file.display());
    let command = format!("chmod go-w {}", quoted(&config.config_file));
    Some(Finding::warning("settings file", detail, "let nobody else write it").run(command))
}

/// Settings that were changed after the daemon started.
fn not_read_yet(config: &Config) -> Option<Finding> {
    let changed = fs::metadata(&config.config_file).ok()?.modified().ok()?;
    // Made when the daemon starts to listen.
    let started = fs::symlink_metadata(&config.socket).ok()?.modified().ok()?;
    if changed <= started {
        return None;
    }
    let detail = "the file was changed after the daemon started: what changed has no effect yet";
    let fix = "end the daemon; the next command starts one that reads them, and mounts again what was mounted";
    Some(Finding::warning("settings changed", detail, fix).run("larder shutdown"))
}

/// Settings without effect, or with one that nobody can want.
fn contradictions(settings: &Settings, machine: Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |key: &str, detail: String, fix: &str| {
        found.push(Finding::warning(format!("setting {key}"), detail, fix));
    };
    cache(settings, machine, &mut warn);
    hydrate(settings, machine, &mut warn);
    kept(settings, &mut warn);
    found
}

fn cache(settings: &Settings, machine: Machine, warn: &mut dyn FnMut(&str, String, &str)) {
    let Some(disk) = machine.disk else { return };
    if let Some(most) = settings.cache.max_size.filter(|most| *most > disk) {
        let detail =
            format!("{} is more than its disk has, {}: it limits nothing", human_bytes(most), human_bytes(disk));
        warn("cache.max_size", detail, "set it below the size of the disk, or remove it: then it is a tenth of that");
    }
    let spared = settings.cache.spared(disk);
    if spared >= disk {
        let detail = format!(
            "{} are to stay free, and the disk has {}: nothing can be cached",
            human_bytes(spared),
            human_bytes(disk)
        );
        warn("cache.min_free", detail, "set it below the size of the disk, or remove it");
    } else if let Some(free) = machine.free.filter(|free| *free < spared) {
        let detail =
            format!("{} are to stay free, and {} are: the cache can't grow", human_bytes(spared), human_bytes(free));
        warn("cache.min_free", detail, "make room on that disk, or set it lower");
    }
}

fn hydrate(settings: &Settings, machine: Machine, warn: &mut dyn FnMut(&str, String, &str)) {
    let (wanted, default) = (&settings.hydrate, &Settings::default().hydrate);
    if wanted.prefetch != Prefetch::OnList {
        let lists = [("sources", &wanted.sources), ("texts", &wanted.texts), ("last", &wanted.last)];
        for (name, _) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            let now = wanted.prefetch.as_str();
            let detail =
                format!("no effect: it orders what listing a directory prefetches, and hydrate.prefetch is {now:?}");
            warn(&format!("hydrate.{name}"), detail, "set hydrate.prefetch = \"on-list\", or remove it");
        }
    }
    if wanted.prefetch == Prefetch::Off && wanted.coalesce != default.coalesce {
        let detail = "no effect: only prefetch waits for company, and hydrate.prefetch is \"off\"".to_owned();
        warn("hydrate.coalesce", detail, "remove it, or let something prefetch");
    }
    if settings.network.connections == 1 && wanted.warm_objects != default.warm_objects {
        let detail = "no effect: with network.connections = 1 a warm asks for hydrate.batch_objects at once".to_owned();
        warn("hydrate.warm_objects", detail, "remove it, or allow two connections");
    }
    if settings.network.connections > 1 && wanted.warm_objects > wanted.inflight_objects {
        let detail = format!(
            "{} is more than hydrate.inflight_objects, {}: such a request goes out only when nothing else is under way",
            wanted.warm_objects, wanted.inflight_objects
        );
        warn("hydrate.warm_objects", detail, "set it to at most half of hydrate.inflight_objects");
    }
    if wanted.batch_objects > wanted.inflight_objects {
        let detail = format!(
            "{} is more than hydrate.inflight_objects, {}: one batch at a time is under way",
            wanted.batch_objects, wanted.inflight_objects
        );
        warn("hydrate.batch_objects", detail, "set it to at most half of hydrate.inflight_objects");
    }
    let attempts = u32::try_from(wanted.retries).unwrap_or(u32::MAX).saturating_add(1);
    let longest = settings.network.timeout.saturating_mul(attempts);
    if wanted.watchdog > longest {
        let detail = format!(
            "hardly any effect: who waits for a silent remote is given up after {}, before {} are over",
            humantime::format_duration(longest),
            humantime::format_duration(wanted.watchdog)
        );
        warn("hydrate.watchdog", detail, "set it below network.timeout");
    }
    let Some(memory) = machine.memory else { return };
    let large = [("hydrate.memory_bytes", wanted.memory_bytes), ("store.cache_bytes", settings.store.cache_bytes)];
    for (key, bytes) in large.into_iter().filter(|(_, bytes)| *bytes > memory / 2) {
        let detail = format!("{} of {} of memory: the daemon may be killed", human_bytes(bytes), human_bytes(memory));
        warn(key, detail, "set it to a small part of the memory");
    }
}

fn kept(settings: &Settings, warn: &mut dyn FnMut(&str, String, &str)) {
    let (kept, default) = (&settings.generations, &Settings::default());
    if settings.gc.interval.is_zero() {
        let detail =
            "0: the daemon never tidies by itself; only `larder gc` and a full cache let anything go".to_owned();
        warn("gc.interval", detail, "set it to some hours, or call `larder gc` now and then");
        if settings.gc.grace != default.gc.grace {
            let detail = "no effect: it is for the tidying that gc.interval = \"0s\" switches off".to_owned();
            warn("gc.grace", detail, "remove it, or set gc.interval");
        }
    }
    if kept.keep == 0 && kept.max_age != default.generations.max_age {
        let detail = "no effect: with generations.keep = 0 no generation is kept, however young".to_owned();
        warn("generations.max_age", detail, "remove it, or keep some");
    }
    if kept.max_age.is_zero() && kept.keep != default.generations.keep && kept.keep != 0 {
        let detail = "no effect: with generations.max_age = \"0s\" every generation is too old".to_owned();
        warn("generations.keep", detail, "remove it, or set generations.max_age");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MACHINE: Machine = Machine { disk: Some(100 << 30), free: Some(50 << 30), memory: Some(8 << 30) };

    fn keys(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut settings = Settings::default();
        change(&mut settings);
        let found = contradictions(&settings, MACHINE);
        found.into_iter().map(|finding| finding.name.trim_start_matches("setting ").to_owned()).collect()
    }

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(keys(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn each_setting_without_effect_is_named() {
        assert_eq!(keys(|s| s.cache.max_size = Some(200 << 30)), ["cache.max_size"]);
        assert_eq!(keys(|s| s.cache.min_free = Some(100 << 30)), ["cache.min_free"]);
        assert_eq!(keys(|s| s.cache.min_free = Some(60 << 30)), ["cache.min_free"]);
        assert_eq!(keys(|s| s.hydrate.sources = vec!["*.nix".into()]), ["hydrate.sources"]);
        let listed = |s: &mut Settings| (s.hydrate.prefetch, s.hydrate.last) = (Prefetch::OnList, vec!["*.x".into()]);
        assert_eq!(keys(listed), Vec::<String>::new());
        let off = |s: &mut Settings| (s.hydrate.prefetch, s.hydrate.coalesce) = (Prefetch::Off, Duration::ZERO);
        assert_eq!(keys(off), ["hydrate.coalesce"]);
        let alone = |s: &mut Settings| (s.network.connections, s.hydrate.warm_objects) = (1, 4096);
        assert_eq!(keys(alone), ["hydrate.warm_objects"]);
        assert_eq!(keys(|s| s.hydrate.inflight_objects = 512), ["hydrate.warm_objects"]);
        assert_eq!(keys(|s| s.hydrate.inflight_objects = 1), ["hydrate.warm_objects", "hydrate.batch_objects"]);
        assert_eq!(keys(|s| s.hydrate.watchdog = Duration::from_hours(1)), ["hydrate.watchdog"]);
        assert_eq!(keys(|s| s.hydrate.memory_bytes = 7 << 30), ["hydrate.memory_bytes"]);
        let never = |s: &mut Settings| (s.gc.interval, s.gc.grace) = (Duration::ZERO, Duration::ZERO);
        assert_eq!(keys(never), ["gc.interval", "gc.grace"]);
        let none = |s: &mut Settings| (s.generations.keep, s.generations.max_age) = (0, Duration::from_secs(9));
        assert_eq!(keys(none), ["generations.max_age"]);
        let old = |s: &mut Settings| (s.generations.keep, s.generations.max_age) = (3, Duration::ZERO);
        assert_eq!(keys(old), ["generations.keep"]);
    }
}
