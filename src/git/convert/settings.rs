//! The user's own configuration of conversions.
//!
//! Reads what `git config --list` says with the client's environment and the
//! workspace's entry in the gitdir: system, global, the gitdir's own and
//! `-c` settings. Nothing in the repository's tree is looked at, so a driver
//! that only the repository describes does not exist here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::git::environment::Environment;

/// Attributes of the whole machine, where Git's packages put them.
const SYSTEM_ATTRIBUTES: &str = "/etc/gitattributes";

/// `core.autocrlf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AutoCrlf {
    #[default]
    Off,
    Input,
    On,
}

/// `filter.<name>.*`, as far as a checkout uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DriverSettings {
    pub(super) smudge: String,
    pub(super) process: String,
    pub(super) required: bool,
}

impl DriverSettings {
    /// Whether a checkout has anything to do with it: one that is required and has no command fails.
    pub(super) fn matters(&self) -> bool {
        self.required || !self.smudge.is_empty() || !self.process.is_empty()
    }
}

/// What decides conversions beside the attributes of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) auto_crlf: AutoCrlf,
    /// Whether `core.eol` is `crlf`.
    pub(super) eol_crlf: bool,
    pub(super) ignore_case: bool,
    pub(super) drivers: BTreeMap<String, DriverSettings>,
    /// Files of attributes below those of the tree, least important first.
    pub(super) attribute_files: Vec<PathBuf>,
}

impl Settings {
    /// Reads them. Without a `git` there are none, and then nobody would run a driver either.
    pub(super) fn read(environment: &Environment) -> Self {
        let listed = environment.git_config(&["--list"]).unwrap_or_default();
        let home = environment.get("HOME").map(PathBuf::from);
        let config_home = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let config_home = config_home.or_else(|| home.as_ref().map(|home| home.join(".config")));
        let (mut settings, named) = Self::parse(&listed);
        let no_system = environment.get("GIT_ATTR_NOSYSTEM").is_some_and(|value| truth(&value));
        let user = match named.as_deref() {
            None => config_home.map(|home| home.join("git/attributes")),
            Some(path) => match path.strip_prefix("~/") {
                Some(below) => home.map(|home| home.join(below)),
                None => Some(PathBuf::from(path)),
            },
        };
        let system = (!no_system).then(|| PathBuf::from(SYSTEM_ATTRIBUTES));
        settings.attribute_files = system.into_iter().chain(user).collect();
        settings
    }

    /// From the output of `git config -z --list`, and what it has for `core.attributesFile`.
    fn parse(listed: &str) -> (Self, Option<String>) {
        let mut settings = Self::default();
        let mut named = None;
        for entry in listed.split_terminator('\0') {
            // A key without a value is true.
            let (key, value) = entry.split_once('\n').unwrap_or((entry, "true"));
            match key {
                "core.autocrlf" if value.eq_ignore_ascii_case("input") => settings.auto_crlf = AutoCrlf::Input,
                "core.autocrlf" => settings.auto_crlf = if truth(value) { AutoCrlf::On } else { AutoCrlf::Off },
                "core.eol" => settings.eol_crlf = value.eq_ignore_ascii_case("crlf"),
                "core.ignorecase" => settings.ignore_case = truth(value),
                "core.attributesfile" => named = Some(value.to_owned()),
                _ => settings.driver(key, value),
            }
        }
        (settings, named)
    }

    fn driver(&mut self, key: &str, value: &str) {
        let Some((name, variable)) = key.strip_prefix("filter.").and_then(|rest| rest.rsplit_once('.')) else { return };
        let driver = self.drivers.entry(name.to_owned()).or_default();
        match variable {
            "smudge" => value.clone_into(&mut driver.smudge),
            "process" => value.clone_into(&mut driver.process),
            "required" => driver.required = truth(value),
            _ => {}
        }
    }

    /// Whether text gets CRLF where no attribute says which.
    pub(super) fn text_is_crlf(&self) -> bool {
        match self.auto_crlf {
            AutoCrlf::On => true,
            AutoCrlf::Input => false,
            AutoCrlf::Off => self.eol_crlf,
        }
    }
}

/// Git's booleans.
fn truth(value: &str) -> bool {
    match value.to_ascii_lowercase().as_str() {
        "" | "false" | "no" | "off" => false,
        "true" | "yes" | "on" => true,
        other => other.parse::<i64>().is_ok_and(|number| number != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_git_lists() {
        let listed = "core.autocrlf\nInput\0filter.a.b.smudge\nx %f\nsecond line\0filter.a.b.required\0\
            filter.lfs.process\nold\0filter.lfs.process\nnew\0filter.lfs.clean\nc\0core.eol\nCRLF\0\
            core.attributesfile\n~/attributes\0filter.empty.clean\nc\0";
        let (settings, named) = Settings::parse(listed);
        assert_eq!(settings.auto_crlf, AutoCrlf::Input);
        assert!(settings.eol_crlf && !settings.text_is_crlf(), "autocrlf=input wins over core.eol");
        assert_eq!(named.as_deref(), Some("~/attributes"));
        let dotted = &settings.drivers["a.b"];
        assert_eq!((dotted.smudge.as_str(), dotted.required), ("x %f\nsecond line", true));
        assert_eq!(settings.drivers["lfs"].process, "new", "the last one counts");
        assert!(!settings.drivers["empty"].matters(), "a checkout has no use for a clean command");
        assert_eq!(Settings::parse("").0, Settings::default());
    }
}
