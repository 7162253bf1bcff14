//! Reflogs: appended to as Git does, read from the end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use gix::ObjectId;
use gix::bstr::ByteSlice;

use super::GitdirError;
use super::config::read_config;
use super::files::read_small;

/// Largest reflog that is read: half a million moves.
const REFLOG_BYTES: u64 = 128 << 20;

/// What Git's reflog says of a checkout.
const MOVING: &[u8] = b"checkout: moving from ";

/// Who moves refs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committer {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
    /// The time zone's distance from UTC, in seconds.
    pub offset_seconds: i32,
}

impl Committer {
    /// As Git finds out who commits: the client's `environment`, the configuration, then the login name.
    pub fn find(common: &Path, environment: &[(String, String)], offset_seconds: i32) -> Self {
        let variable = |name: &str| {
            let found = environment.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.clone());
            found.or_else(|| if environment.is_empty() { std::env::var(name).ok() } else { None })
        };
        let mut config = gix::config::File::from_globals().unwrap_or_default();
        if let Ok(local) = read_config(&common.join("config")) {
            // Fails only for a file that includes itself, and includes were not followed.
            let _ = config.append(local);
        }
        let setting = |key: &str| config.string(key).map(|value| value.to_string());
        let login = || variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned());
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = variable("GIT_COMMITTER_NAME").or_else(|| setting("committer.name"));
        let name = name.or_else(|| setting("user.name")).filter(|name| !name.is_empty()).unwrap_or_else(login);
        let email = variable("GIT_COMMITTER_EMAIL").or_else(|| setting("committer.email"));
        let email = email.or_else(|| setting("user.email")).or_else(|| variable("EMAIL"));
        let email = email.unwrap_or_else(|| format!("{}@{}", login(), host()));
        Self { name: plain(&name), email: plain(&email), offset_seconds }
    }
}

/// Without what would end the field.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !"<>\n\r\0".contains(*c)).collect::<String>().trim().to_owned()
}

/// One move of a ref.
pub(super) struct Entry<'a> {
    pub(super) old: Option<ObjectId>,
    pub(super) new: ObjectId,
    pub(super) committer: &'a Committer,
    /// Seconds since 1970 UTC.
    pub(super) at: i64,
    pub(super) message: &'a str,
}

/// Appends to the reflog at `path`, unless `common` is configured to keep none.
pub(super) fn append(common: &Path, path: &Path, entry: &Entry<'_>) -> Result<(), GitdirError> {
    if !path.exists() {
        let config = read_config(&common.join("config"))?;
        if matches!(config.boolean("core.logAllRefUpdates"), Ok(Some(false))) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(GitdirError::io(parent))?;
        }
    }
    let Entry { old, new, committer, at, message } = entry;
    let old = old.unwrap_or_else(|| ObjectId::null(new.kind()));
    let minutes = committer.offset_seconds / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
    let message: String = message.chars().map(|c| if c == '\n' { ' ' } else { c }).collect();
    let who = format!("{} <{}> {at} {sign}{hours:02}{minutes:02}", committer.name, committer.email);
    let line = format!("{old} {new} {who}\t{message}\n");
    // In one write, so that two writers never mix their lines.
    let appended = OpenOptions::new().append(true).create(true).open(path);
    appended.and_then(|mut file| file.write_all(line.as_bytes())).map_err(GitdirError::io(path))
}

/// What was checked out before the `n`-th last checkout (`@{-n}`): a branch's short name, or an id.
pub fn previous_checkout(admin: &Path, n: usize) -> Result<Option<String>, GitdirError> {
    let log = read_small(&admin.join("logs/HEAD"), REFLOG_BYTES)?.unwrap_or_default();
    let moves = log.lines().rev().filter_map(|line| {
        let (_, message) = line.split_once_str("\t")?;
        let rest = message.strip_prefix(MOVING)?;
        let (from, _) = rest.split_once_str(" to ")?;
        from.to_str().ok().map(str::to_owned)
    });
    Ok(n.checked_sub(1).and_then(|skip| moves.into_iter().nth(skip)))
}

/// Where HEAD was `n` moves ago (`HEAD@{n}`).
pub(super) fn nth_last(admin: &Path, n: usize) -> Result<Option<ObjectId>, GitdirError> {
    let log = read_small(&admin.join("logs/HEAD"), REFLOG_BYTES)?.unwrap_or_default();
    let id = log.lines().rev().nth(n).and_then(|line| line.split_str(" ").nth(1).map(<[u8]>::to_vec));
    Ok(id.and_then(|id| ObjectId::from_hex(&id).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_checkouts_are_found_and_lines_are_gits() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let committer = Committer { name: plain("A <B>\n"), email: "a@b".into(), offset_seconds: -9_000 };
        let id = ObjectId::from_bytes_or_panic(&[1; 20]);
        let path = dir.path().join("logs/HEAD");
        for message in ["checkout: moving from main to next", "commit: x\ny", "checkout: moving from next to v1"] {
            let entry = Entry { old: None, new: id, committer: &committer, at: 7, message };
            append(dir.path(), &path, &entry).expect("appended");
        }
        let log = fs::read_to_string(&path).expect("readable");
        let null = "0".repeat(40);
        assert!(log.contains(&format!("{null} {id} A B <a@b> 7 -0230\tcommit: x y\n")), "{log}");
        assert_eq!(previous_checkout(dir.path(), 1).expect("read").as_deref(), Some("next"));
        assert_eq!(previous_checkout(dir.path(), 2).expect("read").as_deref(), Some("main"));
        assert_eq!(previous_checkout(dir.path(), 3).expect("read"), None);
        assert_eq!(previous_checkout(dir.path(), 0).expect("read"), None);
        assert_eq!(nth_last(dir.path(), 2).expect("read"), Some(id));
        assert_eq!(nth_last(dir.path(), 3).expect("read"), None);
    }
}
