//! Variables of the environment that do harm, or nothing.
//!
//! Names are shown, values only where they are paths: others may be secret.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::cli::output::escape;
use crate::daemon::client::is_about_one_repository;

const NAME: &str = "environment";

pub(super) fn findings() -> Vec<Finding> {
    let here = env::current_dir().ok();
    let mut found: Vec<Finding> =
        env::vars_os().filter_map(|(name, value)| judge(&name, &value, here.as_deref())).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if env::var_os("HOME").is_none_or(|home| home.is_empty()) {
        let fix = "set it: without, Git and ssh find neither settings nor keys";
        found.push(Finding::warning(format!("{NAME} HOME"), "it is not set", fix));
    }
    if found.is_empty() {
        found.push(Finding::ok(NAME, "no variable is in the way"));
    }
    found
}

/// What is wrong with a variable; `here` is the current directory.
fn judge(name: &OsString, value: &OsString, here: Option<&Path>) -> Option<Finding> {
    let name = name.to_str()?;
    let path = Path::new(value);
    let shown = escape(&value.to_string_lossy());
    let warn = |detail: String, fix: &str| Some(Finding::warning(format!("{NAME} {name}"), detail, fix));
    let unset = format!("unset {name}");
    match name {
        "LARDER_HOME" if value.is_empty() => {
            warn("it is empty, which counts as not set".to_owned(), "set it to a directory, or unset it")
                .map(|finding| finding.run(unset))
        }
        "LARDER_HOME" if path.is_relative() => {
            let meant = here.map_or_else(PathBuf::new, |here| here.join(path));
            let detail =
                format!("{shown} is relative: it is another cache in each directory, here {}", meant.display());
            warn(detail, "set it to a path that begins with /")
        }
        "XDG_DATA_HOME" | "XDG_RUNTIME_DIR" | "XDG_CONFIG_HOME" if !value.is_empty() && path.is_relative() => {
            warn(format!("{shown} is relative, and so has no effect"), "set it to a path that begins with /")
                .map(|finding| finding.run(unset))
        }
        "HOME" if path.is_relative() && !value.is_empty() => warn(
            format!("{shown} is relative: settings and credentials are not found"),
            "set it to your home directory",
        ),
        "RUST_LOG" => warn("it has no effect".to_owned(), "set `log.level` in the settings instead")
            .map(|finding| finding.run(unset)),
        _ if name.starts_with("LARDER_") && !name.starts_with("LARDER_TEST_") && name != "LARDER_HOME" => warn(
            "Larder knows no such variable: it has no effect".to_owned(),
            "only LARDER_HOME is known; for the rest there are settings",
        )
        .map(|finding| finding.run(unset)),
        // Set for an instant by Git itself in hooks and aliases, where it is right.
        "GIT_PREFIX" | "GIT_INTERNAL_SUPER_PREFIX" | "GIT_IMPLICIT_WORK_TREE" => None,
        _ if is_about_one_repository(name) => {
            let detail = "Git commands of this shell use it instead of the repository they are in, in mounts too";
            warn(detail.to_owned(), "unset it").map(|finding| finding.run(unset))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> Option<Finding> {
        judge(&name.into(), &value.into(), Some(Path::new("/here")))
    }

    #[test]
    fn variables_that_harm_or_do_nothing_are_told() {
        for (name, value) in [("GIT_DIR", "/x"), ("GIT_INDEX_FILE", "i"), ("LARDER_CACHE", "1"), ("RUST_LOG", "debug")]
        {
            let finding = of(name, value).expect(name);
            assert_eq!(finding.command, Some(format!("unset {name}")));
        }
        assert!(of("LARDER_HOME", "cache").expect("relative").detail.ends_with("here /here/cache"));
        assert!(of("LARDER_HOME", "").is_some() && of("XDG_DATA_HOME", "data").is_some());
        for (name, value) in
            [("LARDER_HOME", "/x"), ("HOME", "/x"), ("GIT_SSH_COMMAND", "ssh"), ("GIT_PREFIX", ""), ("X", "")]
        {
            assert!(of(name, value).is_none(), "{name}");
        }
    }

    #[test]
    fn values_that_may_be_secret_are_not_shown() {
        let finding = of("LARDER_TOKEN", "s3cret").expect("unknown");
        assert!(!format!("{finding:?}").contains("s3cret"));
    }
}
