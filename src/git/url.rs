//! Addresses of repositories: everything `git clone` takes.
//!
//! Owns the parsing of paths, `file://`, `git://`, `ssh://`, `user@host:path`
//! and `http(s)://`, the form shown to people and the identity used to tell
//! repositories apart. It refuses hosts and paths that a child process could
//! take for an option, control characters, and helpers such as `ext::`.
//! Invariant: [`RepoUrl::display`] and `Debug` never contain a password.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use percent::{decode, encode};

mod percent;

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing was given.
    #[error("the repository address is empty")]
    Empty,
    /// A scheme or remote helper that is not spoken here.
    #[error("repository addresses of the form {0:?} are not supported; use a path, file, git, ssh or http(s)")]
    Scheme(String),
    /// No host where one is needed.
    #[error("the repository address {0:?} names no host")]
    Host(String),
    /// No path where one is needed.
    #[error("the repository address {0:?} names no path")]
    Path(String),
    /// A port that is not a number from 1 to 65535.
    #[error("the repository address {0:?} has no usable port")]
    Port(String),
    /// Control characters, or a part that begins with `-`.
    #[error("the repository address {0:?} holds characters that are refused")]
    Characters(String),
}

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// A directory of this machine.
    Local,
    /// Git's own daemon.
    Git,
    /// The user's `ssh`.
    Ssh,
    /// Smart HTTP in the clear.
    Http,
    /// Smart HTTP over TLS.
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "file",
            Self::Git => "git",
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Local => 0,
            Self::Git => 9418,
            Self::Ssh => 22,
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The address of a repository.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RepoUrl {
    scheme: Scheme,
    user: Option<String>,
    password: Option<String>,
    /// Lower case, IPv6 without brackets; empty for local paths.
    host: String,
    port: Option<u16>,
    /// Raw bytes: for ssh and git as the server gets them, for http as in the URL.
    path: Vec<u8>,
    /// `user@host:path`, shown as it was given.
    scp: bool,
}

impl fmt::Debug for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepoUrl({:?})", self.display())
    }
}

impl RepoUrl {
    /// Parses an address. Relative paths are taken from the current directory.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, UrlError> {
        let bytes = text.as_ref().as_bytes();
        if bytes.is_empty() {
            return Err(UrlError::Empty);
        }
        let colon = bytes.iter().position(|&b| b == b':');
        let slash = bytes.iter().position(|&b| b == b'/');
        let url = match colon {
            Some(at) if bytes[at..].starts_with(b"://") => Self::parse_scheme(bytes, at)?,
            Some(at) if bytes[at..].starts_with(b"::") && bytes[0].is_ascii_alphanumeric() => {
                return Err(UrlError::Scheme(head(bytes, at)));
            }
            // Like Git: a colon before the first slash means host:path, unless such a file is here.
            Some(at) if slash.is_none_or(|slash| at < slash) && !Path::new(text.as_ref()).exists() => {
                Self::parse_scp(bytes)?
            }
            _ => Self::local(Path::new(text.as_ref())),
        };
        url.checked()
    }

    fn parse_scheme(bytes: &[u8], colon: usize) -> Result<Self, UrlError> {
        let name = head(bytes, colon).to_ascii_lowercase();
        let rest = &bytes[colon + 3..];
        let scheme = match name.as_str() {
            "file" => Scheme::Local,
            "git" => Scheme::Git,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(UrlError::Scheme(format!("{name}://"))),
        };
        if scheme == Scheme::Local {
            let rest = rest.strip_prefix(b"localhost").filter(|rest| rest.starts_with(b"/")).unwrap_or(rest);
            return Ok(Self::local(Path::new(OsStr::from_bytes(&decode(rest)))));
        }
        let slash = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let (user, password, host_port) = split_user(authority);
        let shown = || format!("{name}://{}", String::from_utf8_lossy(host_port));
        let (host, port) = split_port(host_port).ok_or_else(|| UrlError::Port(shown()))?;
        let path = match scheme {
            Scheme::Http | Scheme::Https => path.to_vec(),
            _ => decode(path),
        };
        // As Git does: `ssh://host/~user/x` means the path `~user/x`.
        let path = if path.starts_with(b"/~") { path[1..].to_vec() } else { path };
        if path.is_empty() || path == b"/" && matches!(scheme, Scheme::Ssh) {
            return Err(UrlError::Path(shown()));
        }
        if host.is_empty() {
            return Err(UrlError::Host(shown()));
        }
        let port = port.filter(|port| *port != scheme.default_port());
        Ok(Self { scheme, user, password, host, port, path, scp: false })
    }

    fn parse_scp(bytes: &[u8]) -> Result<Self, UrlError> {
        let shown = || head(bytes, bytes.len());
        // The host may be an IPv6 address in brackets, with colons of its own.
        let search = bytes.iter().position(|&b| b == b']').filter(|_| bytes.contains(&b'[')).unwrap_or(0);
        let colon = search + bytes[search..].iter().position(|&b| b == b':').ok_or_else(|| UrlError::Path(shown()))?;
        let (authority, path) = (&bytes[..colon], &bytes[colon + 1..]);
        let at = authority.iter().rposition(|&b| b == b'@');
        let user = at.map(|at| String::from_utf8_lossy(&authority[..at]).into_owned());
        let host = String::from_utf8_lossy(&authority[at.map_or(0, |at| at + 1)..]).to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(UrlError::Host(shown()));
        }
        if path.is_empty() {
            return Err(UrlError::Path(shown()));
        }
        Ok(Self { scheme: Scheme::Ssh, user, password: None, host, port: None, path: path.to_vec(), scp: true })
    }

    fn local(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = std::fs::canonicalize(&path).unwrap_or(path).into_os_string().into_vec();
        Self { scheme: Scheme::Local, user: None, password: None, host: String::new(), port: None, path, scp: false }
    }

    fn checked(self) -> Result<Self, UrlError> {
        let dash = |part: &[u8]| part.first() == Some(&b'-');
        let control = |part: &[u8]| part.iter().any(u8::is_ascii_control);
        let user = self.user.as_deref().unwrap_or_default().as_bytes();
        let host = self.host.as_bytes();
        let remote = self.scheme != Scheme::Local;
        let spaced = host.iter().any(|b| b.is_ascii_whitespace() || b"/\\@<>\"'".contains(b));
        if remote && (dash(host) || dash(user) || dash(&self.path) || control(host) || control(user) || spaced)
            || self.path.contains(&0)
            || remote && control(&self.path)
        {
            return Err(UrlError::Characters(self.display()));
        }
        Ok(self)
    }

    /// The address as shown to people: without credentials.
    pub fn display(&self) -> String {
        let path = String::from_utf8_lossy(&self.path);
        // A user name over http may be a token; over ssh it is part of the address.
        let user = match (&self.user, self.scheme) {
            (Some(user), Scheme::Ssh) => format!("{user}@"),
            _ => String::new(),
        };
        let host = self.host_in_url();
        match (self.scheme, self.scp) {
            (Scheme::Local, _) => path.into_owned(),
            (_, true) => format!("{user}{host}:{path}"),
            (scheme, false) => {
                let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
                let slash = if path.starts_with('/') { "" } else { "/" };
                let path = if self.is_http() { path.into_owned() } else { encode(&self.path) };
                format!("{}://{user}{host}{port}{slash}{path}", scheme.name())
            }
        }
    }

    /// The address as Git itself can use it: as [`RepoUrl::display`], but lossless for local paths.
    pub fn to_git(&self) -> std::ffi::OsString {
        match self.scheme {
            Scheme::Local => std::ffi::OsString::from_vec(self.path.clone()),
            _ => self.display().into(),
        }
    }

    /// Whether it is a directory of this machine.
    pub fn is_local(&self) -> bool {
        self.scheme == Scheme::Local
    }

    /// The directory, when [`RepoUrl::is_local`].
    pub fn local_path(&self) -> Option<PathBuf> {
        self.is_local().then(|| PathBuf::from(OsStr::from_bytes(&self.path)))
    }

    /// The identity: one repository given in several spellings has one key.
    /// Default ports, letter case of hosts, a trailing slash, credentials and
    /// the two spellings of ssh make no difference; `.git` at the end makes
    /// none where hosting services serve (elsewhere `x` and `x.git` may be two
    /// repositories, and showing the wrong one is worse than a second gitdir).
    pub fn key(&self) -> String {
        if let Some(path) = self.local_path() {
            // What upload-pack would open: `x` is `x.git` when there is no `x`.
            let mut dotted = path.clone().into_os_string();
            dotted.push(".git");
            let path = if path.exists() || !Path::new(&dotted).exists() { path } else { dotted.into() };
            let path = encode(path.as_os_str().as_bytes());
            return format!("file://{}", path.strip_suffix("/.git").unwrap_or(&path));
        }
        let mut path = self.path.as_slice();
        while path.len() > 1 && path.ends_with(b"/") {
            path = &path[..path.len() - 1];
        }
        if self.is_http() || self.scheme == Scheme::Ssh && self.user() == Some("git") {
            path = path.strip_suffix(b".git").filter(|rest| !rest.is_empty() && !rest.ends_with(b"/")).unwrap_or(path);
        }
        let user = match (&self.user, self.scheme) {
            (Some(user), Scheme::Ssh) => format!("{user}@"),
            _ => String::new(),
        };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let slash = match path.first() {
            Some(b'/') => "",
            Some(b'~') => "/",
            // Relative to the home directory on the server: not the same as from the root.
            _ => "/~/",
        };
        format!("{}://{user}{}{port}{slash}{}", self.scheme.name(), self.host_in_url(), encode(path))
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(crate) fn is_http(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    fn host_in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// `user:password@` of an authority, decoded, and the rest.
fn split_user(authority: &[u8]) -> (Option<String>, Option<String>, &[u8]) {
    let Some(at) = authority.iter().rposition(|&b| b == b'@') else {
        return (None, None, authority);
    };
    let (info, rest) = (&authority[..at], &authority[at + 1..]);
    let text = |part: &[u8]| String::from_utf8_lossy(&decode(part)).into_owned();
    match info.iter().position(|&b| b == b':') {
        Some(colon) => (Some(text(&info[..colon])), Some(text(&info[colon + 1..])), rest),
        None => (Some(text(info)).filter(|user| !user.is_empty()), None, rest),
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; `None` when the port is no port.
fn split_port(host_port: &[u8]) -> Option<(String, Option<u16>)> {
    let text = String::from_utf8_lossy(host_port).to_ascii_lowercase();
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host.to_owned(), rest.strip_prefix(':').map(str::to_owned)),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port.to_owned())),
            None => (text, None),
        },
    };
    match port.as_deref() {
        None | Some("") => Some((host, None)),
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port != 0)?))),
    }
}

/// The first `end` bytes for an error message, without what stands before an `@`.
fn head(bytes: &[u8], end: usize) -> String {
    let bytes = &bytes[..end];
    let start = bytes.iter().rposition(|&b| b == b'@').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

#[cfg(test)]
mod tests;
