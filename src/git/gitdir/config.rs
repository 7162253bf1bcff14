//! Git configuration: written with every value quoted, read through gix.

use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice;

use super::GitdirError;
use super::files::{LockedFile, read_small};

/// Largest configuration file of a gitdir that is read.
pub(super) const CONFIG_BYTES: u64 = 4 << 20;

/// Configuration text under construction.
#[derive(Default)]
pub(super) struct ConfigText(Vec<u8>);

impl ConfigText {
    /// Starts `[name]` or `[name "subsection"]`.
    pub(super) fn section(&mut self, name: &str, subsection: Option<&[u8]>) -> Result<&mut Self, GitdirError> {
        self.0.extend_from_slice(format!("[{name}").as_bytes());
        if let Some(subsection) = subsection {
            if subsection.contains(&0) || subsection.contains(&b'\n') {
                return Err(GitdirError::invalid("configuration section", subsection));
            }
            self.0.extend_from_slice(b" \"");
            for &byte in subsection {
                if byte == b'"' || byte == b'\\' {
                    self.0.push(b'\\');
                }
                self.0.push(byte);
            }
            self.0.push(b'"');
        }
        self.0.extend_from_slice(b"]\n");
        Ok(self)
    }

    /// Adds `key = "value"` to the section started last.
    pub(super) fn value(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<&mut Self, GitdirError> {
        let value = value.as_ref();
        self.0.extend_from_slice(format!("\t{key} = \"").as_bytes());
        for &byte in value {
            match byte {
                0 => return Err(GitdirError::invalid("configuration value", value)),
                b'"' => self.0.extend_from_slice(b"\\\""),
                b'\\' => self.0.extend_from_slice(b"\\\\"),
                b'\n' => self.0.extend_from_slice(b"\\n"),
                b'\t' => self.0.extend_from_slice(b"\\t"),
                other => self.0.push(other),
            }
        }
        self.0.extend_from_slice(b"\"\n");
        Ok(self)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Parses a configuration file without following its includes; a missing one is empty.
pub(super) fn read_config(path: &Path) -> Result<gix::config::File, GitdirError> {
    let content = read_small(path, CONFIG_BYTES)?.unwrap_or_default();
    parse(&content).map_err(|reason| GitdirError::not_a_gitdir(path, reason))
}

fn parse(content: &[u8]) -> Result<gix::config::File, String> {
    gix::config::File::from_bytes_no_includes(
        content,
        gix::config::file::Metadata::from(gix::config::Source::Local),
        gix::config::file::init::Options::default(),
    )
    .map_err(|error| error.to_string())
}

/// Appends `text` to a configuration file under its lock, unless `unless` finds it there already.
pub(super) fn append(
    path: &Path,
    text: ConfigText,
    unless: impl FnOnce(&gix::config::File) -> bool,
) -> Result<(), GitdirError> {
    let lock = LockedFile::take(path)?;
    let mut content = read_small(path, CONFIG_BYTES)?.unwrap_or_default();
    if unless(&parse(&content).map_err(|reason| GitdirError::not_a_gitdir(path, reason))?) {
        return Ok(());
    }
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    content.extend_from_slice(&text.into_bytes());
    lock.commit(&content)
}

/// Changes a configuration file under its lock with `change`, and appends `text`, unless `unless` finds it in order.
pub(super) fn rewrite(
    path: &Path,
    text: ConfigText,
    unless: impl FnOnce(&gix::config::File) -> bool,
    change: impl FnOnce(&mut gix::config::File),
) -> Result<(), GitdirError> {
    let lock = LockedFile::take(path)?;
    let content = read_small(path, CONFIG_BYTES)?.unwrap_or_default();
    let mut config = parse(&content).map_err(|reason| GitdirError::not_a_gitdir(path, reason))?;
    if unless(&config) {
        return Ok(());
    }
    change(&mut config);
    let mut content = config.to_bstring().to_vec();
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    content.extend_from_slice(&text.into_bytes());
    lock.commit(&content)
}

/// Turns `extensions.worktreeConfig` on in a gitdir prepared elsewhere, as `git sparse-checkout` does.
///
/// Without it Git ignores what [`super::add_worktree`] writes to `config.worktree`, so `git status` asks no
/// fsmonitor and looks at every file. Call it only when the owner agreed: it changes the owner's file.
/// The main worktree's `core.bare` stays where it is; Larder's worktrees override it.
pub fn enable_worktree_config(common: &Path) -> Result<(), GitdirError> {
    let mut text = ConfigText::default();
    text.section("extensions", None)?.value("worktreeConfig", "true")?;
    append(&common.join("config"), text, worktree_config)
}

/// Whether `extensions.worktreeConfig` is on.
pub(super) fn worktree_config(config: &gix::config::File) -> bool {
    matches!(config.boolean("extensions.worktreeConfig"), Ok(Some(true)))
}

/// What of the user's own configuration decides the untracked cache's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSettings {
    /// `core.excludesFile`, or its default; `None` when it can't be known (no home directory).
    pub excludes_file: Option<PathBuf>,
    /// Whether `status.showUntrackedFiles` is `all`.
    pub show_all_untracked: bool,
}

/// Reads the user's and the system's Git configuration and, over it, the gitdir's.
///
/// Unreadable configuration counts as absent: the untracked cache is then built anew by Git, once.
pub fn user_settings(common: &Path) -> UserSettings {
    let mut config = gix::config::File::from_globals().unwrap_or_default();
    if let Ok(local) = read_config(&common.join("config")) {
        // Fails only for a file that includes itself, and includes were not followed.
        let _ = config.append(local);
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let default = || {
        let xdg = std::env::var_os("XDG_CONFIG_HOME").filter(|xdg| !xdg.is_empty()).map(PathBuf::from);
        xdg.or_else(|| home.as_ref().map(|home| home.join(".config"))).map(|xdg| xdg.join("git/ignore"))
    };
    let excludes_file = match config.string("core.excludesFile") {
        Some(value) => match value.strip_prefix(b"~/") {
            Some(rest) => home.as_ref().and_then(|home| Some(home.join(rest.to_path().ok()?))),
            None => value.to_path().ok().map(Path::to_owned),
        },
        None => default(),
    };
    let show_all_untracked = config.string("status.showUntrackedFiles").is_some_and(|value| value == "all");
    UserSettings { excludes_file, show_all_untracked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_reads_back_as_it_was() {
        let values: [&[u8]; 6] =
            [b"plain", b" spaces ", b"a;b#c", b"quote\" back\\slash", b"new\nline\ttab", b"\xff not utf8"];
        for value in values {
            let mut text = ConfigText::default();
            text.section("remote", Some(b"a\"b\\c")).expect("valid").value("url", value).expect("valid");
            let parsed = parse(&text.into_bytes()).expect("own text");
            let read = parsed.string_by("remote", Some("a\"b\\c".into()), "url").expect("there");
            assert_eq!(read.as_bytes(), value);
        }
    }

    #[test]
    fn refuses_what_the_syntax_cannot_hold() {
        let mut text = ConfigText::default();
        assert!(text.section("branch", Some(b"a\nb")).is_err());
        assert!(text.value("url", b"a\0b").is_err());
    }

    #[test]
    fn the_gitdir_decides_over_the_user() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let text = "[core]\n\texcludesFile = /x/ignore\n[status]\n\tshowUntrackedFiles = all\n";
        std::fs::write(dir.path().join("config"), text).expect("written");
        let expected = UserSettings { excludes_file: Some("/x/ignore".into()), show_all_untracked: true };
        assert_eq!(user_settings(dir.path()), expected);
    }

    #[test]
    fn appends_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("config");
        std::fs::write(&path, "[core]\n\tbare = true").expect("written");
        for _ in 0..2 {
            enable_worktree_config(dir.path()).expect("enabled");
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(text.matches("worktreeConfig").count(), 1);
        assert!(text.starts_with("[core]\n\tbare = true\n"));
        let _held = LockedFile::take(&path).expect("free");
        assert!(matches!(enable_worktree_config(dir.path()), Err(GitdirError::Locked(_))));
    }
}
