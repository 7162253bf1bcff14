//! Git's settings for HTTP: proxy, certificates, extra headers.
//!
//! Owns reading them from Git's configuration (scoped by `http.<url>.*` as Git
//! does) and the client's environment, and building the HTTP client from them.
//! Refuses proxies it cannot speak to rather than going round them.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Certificate, Client, Identity, NoProxy, Proxy, Url};

use super::Dial;
use super::credential::secret;
use crate::git::environment::Environment;
use crate::git::error::local;
use crate::hydrate::remote::{FailureKind, RemoteError};

/// Some servers send people to a web page unless the client says it is Git.
const USER_AGENT: &str = concat!("git/2.0 (larder ", env!("CARGO_PKG_VERSION"), ")");

/// An idle connection kept for the next request.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// Whether redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirects {
    Never,
    /// In the first exchange only: where it leads is where everything else goes.
    Initial,
}

/// What configuration says about one address.
pub(super) struct HttpSettings {
    pub(super) redirects: Redirects,
    single: Vec<(String, String)>,
    /// Scope (a URL prefix or nothing) and line.
    headers: Vec<(Option<String>, String)>,
}

impl HttpSettings {
    pub(super) fn read(environment: &Environment, address: &str) -> Self {
        let pairs = |text: Option<String>| -> Vec<(String, String)> {
            let text = text.unwrap_or_default();
            let pair = |item: &str| {
                // A key without a value is a true switch.
                let (key, value) = item.split_once('\n').unwrap_or((item, "true"));
                (key.to_owned(), value.to_owned())
            };
            text.split('\0').filter(|item| !item.is_empty()).map(pair).collect()
        };
        let single = pairs(environment.git_config(&["--get-urlmatch", "http", address]));
        let headers = pairs(environment.git_config(&["--get-regexp", r"^http\.(.+\.)?extraheader$"]));
        let scope = |key: String| {
            let inner = key.strip_prefix("http.")?.strip_suffix("extraheader")?.strip_suffix('.')?.to_owned();
            Some(inner)
        };
        let headers = headers.into_iter().map(|(key, line)| (scope(key), line)).collect();
        let mut settings = Self { redirects: Redirects::Initial, single, headers };
        if settings.get("followredirects").is_some_and(is_false) {
            settings.redirects = Redirects::Never;
        }
        settings
    }

    /// The setting `http.<name>` for this address.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.single.iter().rfind(|(key, _)| key.rsplit('.').next() == Some(name));
        found.map(|(_, value)| value.as_str())
    }

    /// `http.extraHeader` lines that apply to `url`; an empty one takes back those before it. Lines
    /// without a scope often hold tokens: they stay `at_home`, where the user pointed us.
    pub(super) fn extra_headers(&self, url: &Url, at_home: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (scope, line) in &self.headers {
            if !scope.as_deref().map_or(at_home, |scope| covers(scope, url)) {
                continue;
            }
            if line.is_empty() {
                headers.clear();
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            if let (Ok(name), Some(value)) = (name.trim().parse::<HeaderName>(), secret(value.trim())) {
                headers.append(name, value);
            }
        }
        headers
    }

    /// A client for this address. It follows no redirect by itself.
    pub(super) fn client(&self, dial: &Dial) -> Result<Client, RemoteError> {
        let environment = &dial.environment;
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(dial.timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(1)
            .tcp_nodelay(true)
            .referer(false)
            .no_proxy()
            .user_agent(self.get("useragent").unwrap_or(USER_AGENT));
        if let Some(proxy) = self.proxy(dial)? {
            builder = builder.proxy(proxy);
        }
        let file = |variable: &str, name: &str| {
            environment.get(variable).or_else(|| self.get(name).map(str::to_owned)).filter(|path| !path.is_empty())
        };
        let read = |path: &str| {
            let path = match (path.strip_prefix("~/"), environment.get("HOME")) {
                (Some(rest), Some(home)) => format!("{home}/{rest}"),
                _ => path.to_owned(),
            };
            std::fs::read(&path).map_err(|error| local(&format!("cannot read {path}"), &error))
        };
        let refuse = |what: &str, error: &reqwest::Error| {
            RemoteError::new(FailureKind::Local, format!("{what} cannot be used: {error}"))
        };
        if environment.get("GIT_SSL_NO_VERIFY").is_some() || self.get("sslverify").is_some_and(is_false) {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else if let Some(path) = file("GIT_SSL_CAINFO", "sslcainfo") {
            let bundle = Certificate::from_pem_bundle(&read(&path)?).map_err(|error| refuse(&path, &error))?;
            builder = builder.tls_certs_only(bundle);
        }
        if let Some(path) = file("GIT_SSL_CERT", "sslcert") {
            let mut pem = read(&path)?;
            if let Some(key) = file("GIT_SSL_KEY", "sslkey") {
                pem.push(b'\n');
                pem.extend(read(&key)?);
            }
            builder = builder.identity(Identity::from_pem(&pem).map_err(|error| refuse(&path, &error))?);
        }
        builder.build().map_err(|error| refuse("the HTTP settings", &error))
    }

    /// The proxy for this address: `http.proxy`, else the client's variables, as curl reads them.
    fn proxy(&self, dial: &Dial) -> Result<Option<Proxy>, RemoteError> {
        let environment = &dial.environment;
        let variables: &[&str] = match dial.url.scheme() {
            // Upper case HTTP_PROXY is left alone as curl does: a CGI server sets it from a request's header.
            crate::git::url::Scheme::Http => &["http_proxy", "all_proxy", "ALL_PROXY"],
            _ => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        };
        let configured = self.get("proxy").map(str::to_owned);
        let address = configured.or_else(|| variables.iter().find_map(|name| environment.get(name)));
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let unusable = |why: &str| RemoteError::new(FailureKind::Unsupported, format!("the proxy setting {why}"));
        if address.to_ascii_lowercase().starts_with("socks") {
            return Err(unusable("names a SOCKS proxy; only http and https proxies are supported"));
        }
        let none = environment.get("no_proxy").or_else(|| environment.get("NO_PROXY"));
        let proxy = Proxy::all(&address).map_err(|_| unusable("is not an address"))?;
        Ok(Some(proxy.no_proxy(none.and_then(|hosts| NoProxy::from_string(&hosts)))))
    }
}

fn is_false(value: &str) -> bool {
    ["false", "no", "off", "0", ""].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether the scope of an `http.<scope>.*` setting covers `url`.
fn covers(scope: &str, url: &Url) -> bool {
    let Ok(scope) = Url::parse(scope) else { return false };
    let hosts = match (scope.host_str(), url.host_str()) {
        (Some(pattern), Some(host)) => {
            let (pattern, host): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
            pattern.len() == host.len() && pattern.iter().zip(&host).all(|(p, h)| *p == "*" || p == h)
        }
        _ => false,
    };
    let prefix = scope.path().trim_end_matches('/');
    let path = url.path();
    hosts
        && scope.scheme() == url.scheme()
        && scope.port_or_known_default() == url.port_or_known_default()
        && path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_cover_what_git_says_they_cover() {
        let url = Url::parse("https://git.example.com/team/x.git/info/refs").expect("valid");
        for scope in ["https://git.example.com", "https://git.example.com/team/", "https://*.example.com/"] {
            assert!(covers(scope, &url), "{scope}");
        }
        for scope in ["http://git.example.com", "https://example.com", "https://git.example.com/tea", "garbage"] {
            assert!(!covers(scope, &url), "{scope}");
        }
    }
}
