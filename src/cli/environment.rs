//! Which of the client's environment travels to the daemon.
//!
//! Credential helpers, ssh and proxies must work as in the user's shell, but
//! nothing else is the daemon's business, and nothing that binds Git to one
//! repository may reach it.

use crate::daemon::client::is_about_one_repository;

/// Names that programs Git starts look at.
const NAMES: &[&str] = &[
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "CURL_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GNUPGHOME",
    "GPG_AGENT_INFO",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NETRC",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The part of this process's environment that the daemon is to use for the request.
pub(super) fn for_daemon() -> Vec<(String, String)> {
    let mut chosen: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| travels(name))
        .collect();
    chosen.sort_unstable();
    chosen
}

fn travels(name: &str) -> bool {
    // Traces would be written by the daemon, to its own disadvantage, wherever the client asked for them.
    let trace = name.starts_with("GIT_TRACE");
    let git = name.starts_with("GIT_") && !trace && !is_about_one_repository(name);
    git || name.starts_with("LC_") || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_travel_and_repositories_do_not() {
        for name in ["HOME", "PATH", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "https_proxy", "LC_ALL"] {
            assert!(travels(name), "{name}");
        }
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_TRACE", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY"] {
            assert!(!travels(name), "{name}");
        }
    }
}
