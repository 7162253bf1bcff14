//! Git's fsmonitor hook, protocol version 2: what Git asks, what Larder answers.
//!
//! Git runs `<core.fsmonitor> 2 <token>` in the working tree before it looks at
//! a file. The answer on standard output is a new token, a NUL, then every path
//! that may have changed since the old token, each ended by a NUL. The single
//! path `/` means "anything may have changed". An exit code other than zero
//! makes Git look at everything: slow, but never wrong. A change left out of
//! the answer is a change Git does not see, so whatever can't be expressed
//! becomes `/` here.
//!
//! `core.fsmonitor` names a symbolic link to the larder binary in the worktree's
//! admin directory. The binary sees by its `argv[0]` that it is the hook
//! ([`is_hook_invocation`]) and finds its workspace in a file beside the link
//! ([`workspace_of_invocation`]), so neither the environment nor the current
//! directory of the user's `git` can send it to another daemon.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::store::{Generation, WorkspaceId};

/// File name of the link `core.fsmonitor` names, in the worktree's admin directory.
pub const HOOK_NAME: &str = "larder-fsmonitor";

/// File beside the link that says whose hook it is.
pub const HOOK_WORKSPACE_FILE: &str = "larder-workspace";

/// First line of [`HOOK_WORKSPACE_FILE`].
const HOOK_FILE_VERSION: &str = "larder-hook 1";

/// Longest [`HOOK_WORKSPACE_FILE`] that is read: a number and one path.
const HOOK_FILE_BYTES: u64 = 16 << 10;

/// Longest token that is parsed; Larder's own are far shorter.
const TOKEN_BYTES: usize = 256;

/// Characters that make Git run a command through a shell (`run-command.c`).
const SHELL_CHARACTERS: &[u8] = b"|&;<>()$`\\\"' \t\n*?[#~=%";

/// What Git asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The token of the last answer, as Git kept it; maybe not one of Larder's.
    pub token: Vec<u8>,
}

/// The gitfile at the top of a working tree.
const GITFILE: &str = ".git";

/// Why the hook can't answer; the caller exits with a code other than zero.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Called with something else than `2 <token>`.
    #[error("expected the arguments `2 <token>` of Git's fsmonitor protocol version 2")]
    Arguments,
    /// The file beside the hook can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file beside the hook holds something else.
    #[error("{0}: not written by this version of larder")]
    Content(PathBuf),
    /// Asked about another working tree than the mount.
    #[error("{0}: not the working tree of this hook")]
    Elsewhere(PathBuf),
}

/// Reads the hook's arguments (without `argv[0]`). Version 1 is refused: Git then looks at everything.
pub fn parse_args<I, S>(arguments: I) -> Result<Query, HookError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut arguments = arguments.into_iter();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(version), Some(token), None) if version.as_ref() == "2" => {
            Ok(Query { token: token.as_ref().as_bytes().to_vec() })
        }
        _ => Err(HookError::Arguments),
    }
}

/// A point in a workspace's history of changes.
///
/// Two tokens can be compared only when workspace and epoch are the same; then
/// changes are those with a greater sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Whose changes.
    pub workspace: WorkspaceId,
    /// Which journal: a new number whenever older sequences lost their meaning.
    pub epoch: u64,
    /// The generation shown at that point.
    pub generation: Generation,
    /// Everything up to this journal number is known to whoever holds the token.
    pub sequence: u64,
}

impl Token {
    /// Reads a token Larder wrote; `None` for anyone else's, which is answered with [`Answer::Everything`].
    pub fn parse(token: &[u8]) -> Option<Self> {
        if token.len() > TOKEN_BYTES {
            return None;
        }
        let mut parts = std::str::from_utf8(token).ok()?.strip_prefix("larder:")?.split(':').map(number);
        let token = Self {
            workspace: WorkspaceId(parts.next()??),
            epoch: parts.next()??,
            generation: Generation(parts.next()??),
            sequence: parts.next()??,
        };
        parts.next().is_none().then_some(token)
    }
}

/// One spelling a number: no sign, no leading zeros, so that equal tokens are equal bytes.
pub(super) fn number(text: &str) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "larder:{}:{}:{}:{}", self.workspace.0, self.epoch, self.generation.0, self.sequence)
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Anything may have: Git looks at every file.
    Everything,
    /// These paths, relative to the working tree; a directory's name stands for all beneath it.
    Paths(Vec<Vec<u8>>),
}

/// The bytes Git reads from the hook. A path Git can't be told about turns the answer into "everything".
pub fn render(token: &str, answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(token.len() + 64);
    // A token with a NUL would shift the list by one field. Empty, Git rejects the answer: safe.
    out.extend_from_slice(token.as_bytes().split(|&b| b == 0).next().unwrap_or_default());
    out.push(0);
    match answer {
        Answer::Paths(paths) if paths.iter().all(|path| expressible(path)) => {
            for path in paths {
                out.extend_from_slice(path);
                out.push(0);
            }
        }
        _ => out.extend_from_slice(b"/\0"),
    }
    out
}

/// Git reads before the start of an empty path and takes a leading slash for "everything".
fn expressible(path: &[u8]) -> bool {
    !path.is_empty() && path[0] != b'/' && !path.contains(&0)
}

/// The value of `core.fsmonitor` for the hook link at `hook`: the bare path, which Git starts without a shell,
/// or, where the path has a character the shell would see, quoted for it.
pub fn hook_command(hook: &Path) -> Vec<u8> {
    let path = hook.as_os_str().as_bytes();
    if !path.iter().any(|byte| SHELL_CHARACTERS.contains(byte)) {
        return path.to_vec();
    }
    let mut out = vec![b'\''];
    for &byte in path {
        if byte == b'\'' {
            out.extend_from_slice(b"'\\''");
        } else {
            out.push(byte);
        }
    }
    out.push(b'\'');
    out
}

/// Whose hook a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTarget {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Control socket of the daemon that mounts it.
    pub socket: PathBuf,
}

/// Whether the binary was started as the hook: by the file name in `argv[0]`.
pub fn is_hook_invocation(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name().is_some_and(|name| name.as_bytes().starts_with(HOOK_NAME.as_bytes()))
}

/// Creates the link and the file beside it in `admin`, replacing earlier ones; the link's path is for
/// [`hook_command`].
pub fn install(admin: &Path, binary: &Path, target: &HookTarget) -> io::Result<PathBuf> {
    let mut content = format!("{HOOK_FILE_VERSION}\n{}\n", target.workspace.0).into_bytes();
    content.extend_from_slice(target.socket.as_os_str().as_bytes());
    replace(&admin.join(HOOK_WORKSPACE_FILE), |new| fs::write(new, &content))?;
    let link = admin.join(HOOK_NAME);
    replace(&link, |new| std::os::unix::fs::symlink(binary, new))?;
    Ok(link)
}

/// Makes `path` anew in one step, so that a hook running meanwhile sees the old or the new one.
pub(super) fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => make(&new)?,
    }
    fs::rename(&new, path)
}

/// The workspace of a hook started as `argv0`: the file beside the link decides; if `argv0` carries no directory
/// (a shell found it in `PATH`), the file in `git_dir` (the environment's `GIT_DIR`) does.
pub fn workspace_of_invocation(argv0: &OsStr, git_dir: Option<&OsStr>) -> Result<HookTarget, HookError> {
    let beside = Path::new(argv0).parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = beside.or(git_dir.map(Path::new)).ok_or(HookError::Arguments)?;
    let path = directory.join(HOOK_WORKSPACE_FILE);
    let failed = |source| HookError::File { path: path.clone(), source };
    if fs::metadata(&path).map_err(failed)?.len() > HOOK_FILE_BYTES {
        return Err(HookError::Content(path));
    }
    let content = fs::read(&path).map_err(failed)?;
    parse_hook_file(&content).ok_or(HookError::Content(path))
}

/// Refuses to answer for a working tree that is not the mount. `git worktree add` copies a worktree's configuration, the
/// hook included, and Git starts the hook at the top of the working tree it asks about: there the gitfile must lead to
/// the hook's own directory.
pub fn check_working_tree(argv0: &OsStr, top: &Path) -> Result<(), HookError> {
    let elsewhere = || HookError::Elsewhere(top.to_owned());
    let Some(admin) = Path::new(argv0).parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    let gitfile = fs::read(top.join(GITFILE)).map_err(|_| elsewhere())?;
    let named = gitfile.strip_prefix(b"gitdir: ").map(<[u8]>::trim_ascii_end).ok_or_else(elsewhere)?;
    let named = top.join(OsStr::from_bytes(named));
    let same = named == admin || matches!((named.canonicalize(), admin.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same { Ok(()) } else { Err(elsewhere()) }
}

fn parse_hook_file(content: &[u8]) -> Option<HookTarget> {
    // The socket's path is the rest of the file, since a path may hold a newline.
    let mut fields = content.splitn(3, |&byte| byte == b'\n');
    if fields.next()? != HOOK_FILE_VERSION.as_bytes() {
        return None;
    }
    let workspace = WorkspaceId(number(std::str::from_utf8(fields.next()?).ok()?)?);
    let socket = PathBuf::from(OsString::from_vec(fields.next()?.to_vec()));
    socket.is_absolute().then_some(HookTarget { workspace, socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token =
        Token { workspace: WorkspaceId(3), epoch: 1_700_000_000, generation: Generation(2), sequence: 9 };

    #[test]
    fn tokens_survive_a_round_trip_and_foreign_ones_are_not_ours() {
        assert_eq!(Token::parse(TOKEN.to_string().as_bytes()), Some(TOKEN));
        for foreign in [
            "",
            "larder:",
            "larder:1:2:3",
            "larder:1:2:3:4:5",
            "larder:1:2:3:+4",
            "larder:01:2:3:4",
            "larder:1:2:3:18446744073709551616",
            "1700000000123456789",
            "builtin:fake",
        ] {
            assert_eq!(Token::parse(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(Token::parse(b"larder:1:2:3:\xff"), None);
        assert_eq!(Token::parse(&[b'1'; 4096]), None);
    }

    #[test]
    fn only_version_two_is_answered() {
        assert_eq!(parse_args(["2", "t"]).expect("version 2").token, b"t");
        for wrong in [&["1", "t"][..], &["2"], &["2", "t", "x"], &[]] {
            assert!(parse_args(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn answers_are_nul_separated_and_doubt_means_everything() {
        assert_eq!(render("t", &Answer::Paths(vec![])), b"t\0");
        assert_eq!(render("t", &Answer::Paths(vec![b"a\nb".to_vec(), b"d/".to_vec()])), b"t\0a\nb\0d/\0");
        assert_eq!(render("t", &Answer::Everything), b"t\0/\0");
        for path in [&b""[..], b"/a", b"a\0b"] {
            assert_eq!(render("t", &Answer::Paths(vec![b"x".to_vec(), path.to_vec()])), b"t\0/\0", "{path:?}");
        }
    }

    #[test]
    fn the_command_needs_a_shell_only_where_the_path_does() {
        assert_eq!(hook_command(Path::new("/home/u/x/larder-fsmonitor")), b"/home/u/x/larder-fsmonitor");
        assert_eq!(hook_command(Path::new("/my home/it's/h")), b"'/my home/it'\\''s/h'");
    }

    #[test]
    fn only_its_own_working_tree_is_answered_for() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (admin, top) = (dir.path().join("admin"), dir.path().join("top"));
        fs::create_dir(&admin).expect("made");
        fs::create_dir(&top).expect("made");
        let hook = admin.join(HOOK_NAME);
        let check = || check_working_tree(hook.as_os_str(), &top);
        assert!(check().is_err(), "no gitfile");
        fs::write(top.join(".git"), format!("gitdir: {}\n", admin.display())).expect("written");
        check().expect("its own");
        fs::write(top.join(".git"), "gitdir: ../admin\n").expect("written");
        check().expect("the same by another path");
        fs::write(top.join(".git"), format!("gitdir: {}\n", dir.path().display())).expect("written");
        assert!(matches!(check(), Err(HookError::Elsewhere(_))));
    }

    #[test]
    fn the_hook_finds_its_workspace_beside_itself() {
        let admin = tempfile::tempdir().expect("temporary directory");
        let target = HookTarget { workspace: WorkspaceId(7), socket: "/run/a\nb/socket".into() };
        for _ in 0..2 {
            let link = install(admin.path(), Path::new("/usr/bin/larder"), &target).expect("installed");
            assert!(is_hook_invocation(link.as_os_str()));
            assert_eq!(workspace_of_invocation(link.as_os_str(), None).expect("file"), target);
        }
        let bare = OsStr::new(HOOK_NAME);
        assert_eq!(workspace_of_invocation(bare, Some(admin.path().as_os_str())).expect("GIT_DIR"), target);
        assert!(matches!(workspace_of_invocation(bare, None), Err(HookError::Arguments)));
        assert!(!is_hook_invocation(OsStr::new("/usr/bin/larder")));
        fs::write(admin.path().join(HOOK_WORKSPACE_FILE), "larder-hook 2\n1\n/s").expect("written");
        assert!(matches!(workspace_of_invocation(bare, Some(admin.path().as_os_str())), Err(HookError::Content(_))));
    }
}
