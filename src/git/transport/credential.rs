//! Credentials for HTTP: from the address, a netrc file, or Git's credential
//! helpers, in this order.
//!
//! Owns asking, approving and rejecting through `git credential`. Credentials
//! live in memory only, go to the helper through a pipe and to the server in a
//! header; no type here prints them.

use std::collections::HashMap;

use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::netrc;
use crate::git::environment::Environment;
use crate::git::url::RepoUrl;

/// Credentials that worked or are about to be tried, by `scheme://host:port`.
#[derive(Default)]
pub(crate) struct Keyring {
    /// Never held while a helper runs.
    keys: Mutex<HashMap<String, Key>>,
    /// Helpers are asked, and hear nothing of what came of it.
    silent: bool,
}

/// A value of the `Authorization` header, and what the helper needs to hear about it.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) header: HeaderValue,
    /// What `git credential approve` and `reject` read; empty when no helper gave it.
    description: Vec<u8>,
    approved: bool,
}

impl Keyring {
    /// One that has no helper store or forget anything.
    pub(crate) fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// Where the credentials in use came from; `None`: there are none.
    pub(crate) fn source(&self) -> Option<&'static str> {
        let keys = self.keys.lock();
        let key = keys.values().next()?;
        Some(if key.description.is_empty() { "~/.netrc" } else { "Git's credential helper" })
    }

    /// The credentials for `url`, without asking anybody.
    pub(super) fn known(&self, url: &Url, given: &RepoUrl, environment: &Environment) -> Option<Key> {
        let origin = origin(url);
        if let Some(key) = self.keys.lock().get(&origin) {
            return Some(key.clone());
        }
        let same_host = url.host_str().is_some_and(|host| host.trim_matches(['[', ']']) == given.host());
        let same_port = url.port_or_known_default() == Some(given.port_or_default());
        let same = same_host && same_port && url.scheme() == given.scheme().name();
        let in_address = given.user().zip(given.password()).filter(|_| same);
        let in_address = in_address.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let (user, password) = in_address.or_else(|| {
            let home = environment.get("HOME")?;
            let text = std::fs::read_to_string(std::path::Path::new(&home).join(".netrc")).ok()?;
            netrc::find(&text, url.host_str()?)
        })?;
        let key = Key { header: basic(&user, &password)?, description: Vec::new(), approved: true };
        self.keys.lock().insert(origin, key.clone());
        Some(key)
    }

    /// Asks Git's helpers. `challenges` are the values of the server's `WWW-Authenticate` headers.
    pub(super) fn ask(
        &self,
        url: &Url,
        given: &RepoUrl,
        challenges: &[String],
        environment: &Environment,
    ) -> Option<Key> {
        let path = url.path().trim_start_matches('/');
        let mut lines = vec![
            "capability[]=authtype".to_owned(),
            format!("protocol={}", url.scheme()),
            format!("host={}", host_port(url)),
            format!("path={path}"),
        ];
        lines.extend(given.user().map(|user| format!("username={user}")));
        lines.extend(challenges.iter().map(|challenge| format!("wwwauth[]={challenge}")));
        // A line break in a value would be a line of its own to the helper.
        lines.retain(|line| !line.contains(['\n', '\r', '\0']));
        let question = lines.join("\n") + "\n\n";
        let mut command = environment.git();
        command.args(["credential", "fill"]);
        let answer = environment.run(command, question.as_bytes()).ok()??;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let header = match (field("authtype"), field("credential")) {
            (Some(kind), Some(credential)) => secret(&format!("{kind} {credential}"))?,
            _ => basic(field("username")?, field("password")?)?,
        };
        let key = Key { header, description: answer, approved: false };
        self.keys.lock().insert(origin(url), key.clone());
        Some(key)
    }

    /// The server took `key`: the helper may keep it.
    pub(super) fn approve(&self, url: &Url, key: &Key, environment: &Environment) {
        if key.approved {
            return;
        }
        self.keys.lock().insert(origin(url), Key { approved: true, ..key.clone() });
        self.tell("approve", key, environment);
    }

    /// The server refused `key`: it is forgotten, here and by the helper.
    pub(super) fn reject(&self, url: &Url, key: &Key, environment: &Environment) {
        self.keys.lock().remove(&origin(url));
        self.tell("reject", key, environment);
    }

    fn tell(&self, verdict: &str, key: &Key, environment: &Environment) {
        if key.description.is_empty() || self.silent {
            return;
        }
        let mut command = environment.git();
        command.args(["credential", verdict]);
        if environment.run(command, &key.description).is_err() {
            tracing::debug!("git credential {verdict} did not run");
        }
    }
}

/// Scheme, host and port: what credentials belong to.
pub(super) fn origin(url: &Url) -> String {
    format!("{}://{}:{}", url.scheme(), url.host_str().unwrap_or(""), url.port_or_known_default().unwrap_or(0))
}

fn host_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret(&format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

/// A header value that no debug output shows.
pub(super) fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place) & 63) as usize;
            out.push(if place <= group.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]
        );
    }

    #[test]
    fn headers_with_credentials_do_not_print() {
        let header = basic("me", "secret").expect("plain text");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
