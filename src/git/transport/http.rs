//! Smart HTTP: a GET for the greeting, then one POST a request on a pooled
//! connection.
//!
//! Owns status codes, redirects and authentication. Credentials travel in the
//! `Authorization` header of their own origin only; a redirect never takes
//! them along, and never leads from https to http.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Request, Response, StatusCode, Url};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::credential::{Key, origin};
use super::http_settings::{HttpSettings, Redirects};
use super::{CancelHandle, Dial, Transport, retry_after};
use crate::git::error::{local, one_line, silent};
use crate::hydrate::remote::{FailureKind, RemoteError};

const GREETING: &str = "/info/refs?service=git-upload-pack";
const SERVICE: &str = "/git-upload-pack";

/// Redirects followed one after another, as many as curl and Git allow in practice.
const REDIRECTS: usize = 10;

/// The slowest upload of a request that is waited for, in bytes a second.
const UPLOAD_BYTES_A_SECOND: u64 = 32 << 10;

/// Left over of an answer that is read so that its connection can be used again.
const DRAIN_BYTES: usize = 64 << 10;

/// One client with one pooled connection.
pub(super) struct HttpTransport {
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
    client: Client,
    settings: HttpSettings,
    dial: Dial,
    /// The origin the user named.
    home: String,
    /// Without a trailing slash; where the first exchange's redirects led.
    base: Url,
    response: Option<Response>,
    chunk: Bytes,
    cancelled: Arc<Notify>,
}

/// Gets the greeting.
pub(super) fn open(dial: &Dial) -> Result<HttpTransport, RemoteError> {
    let settings = HttpSettings::read(&dial.environment, &dial.address);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| local("cannot start the HTTP client", &error))?;
    let client = {
        let _inside = runtime.enter();
        settings.client(dial)?
    };
    let base = dial.address.trim_end_matches('/');
    let base = Url::parse(base)
        .map_err(|error| RemoteError::new(FailureKind::Missing, format!("{base} is not an address: {error}")))?;
    let mut transport = HttpTransport {
        runtime: Some(runtime),
        client,
        settings,
        dial: dial.clone(),
        home: origin(&base),
        base,
        response: None,
        chunk: Bytes::new(),
        cancelled: Arc::default(),
    };
    transport.greet()?;
    Ok(transport)
}

impl HttpTransport {
    fn greet(&mut self) -> Result<(), RemoteError> {
        let mut url = Self::at(&self.base, GREETING)?;
        for _ in 0..REDIRECTS {
            let response = self.exchange(&url, None)?;
            if !response.status().is_redirection() {
                self.base = self.base_of(&url)?;
                let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
                if !kind.starts_with("application/x-git-upload-pack-advertisement") {
                    return Err(self.no_git_server(kind));
                }
                self.response = Some(response);
                return Ok(());
            }
            url = self.redirect(&url, &response)?;
        }
        Err(RemoteError::new(FailureKind::Missing, format!("{} redirects without end", self.dial.address)))
    }

    fn no_git_server(&self, kind: &str) -> RemoteError {
        let address = &self.dial.address;
        if kind.starts_with("text/plain") {
            let why = "serves plain files only (dumb HTTP); Git's smart protocol, version 2, is needed";
            return RemoteError::new(FailureKind::Unsupported, format!("{address} {why}"));
        }
        RemoteError::new(FailureKind::Missing, format!("there is no Git repository at {address}"))
    }

    fn at(base: &Url, suffix: &str) -> Result<Url, RemoteError> {
        let text = format!("{}{suffix}", base.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|_| RemoteError::new(FailureKind::Missing, format!("{text} is not an address")))
    }

    /// The repository's address, given where its greeting was found.
    fn base_of(&self, url: &Url) -> Result<Url, RemoteError> {
        let base = url.as_str().strip_suffix(GREETING).and_then(|base| Url::parse(base).ok());
        let why = "redirects to an address that is not a repository's";
        base.ok_or_else(|| RemoteError::new(FailureKind::Missing, format!("{} {why}", self.dial.address)))
    }

    fn redirect(&self, from: &Url, response: &Response) -> Result<Url, RemoteError> {
        let refuse =
            |why: &str| RemoteError::new(FailureKind::Missing, format!("{} redirects {why}", self.dial.address));
        if self.settings.redirects == Redirects::Never {
            return Err(refuse("and http.followRedirects forbids it"));
        }
        let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
        let mut target = target.and_then(|target| from.join(target).ok()).ok_or_else(|| refuse("to nowhere"))?;
        if target.scheme() != "https" && target.scheme() != from.scheme() {
            return Err(refuse("from https to something else"));
        }
        // An address that came from a server brings no credentials.
        let stripped = target.set_username("").and_then(|()| target.set_password(None));
        stripped.map_err(|()| refuse("to nowhere"))?;
        Ok(target)
    }

    /// One request, with credentials where they are asked for. A redirection is handed back as it is.
    fn exchange(&self, url: &Url, body: Option<&Bytes>) -> Result<Response, RemoteError> {
        let (keyring, environment) = (&self.dial.keyring, &self.dial.environment);
        let mut key = keyring.known(url, &self.dial.url, environment);
        let mut asked = false;
        loop {
            let response = self.once(url, body.cloned(), key.as_ref())?;
            if response.status() != StatusCode::UNAUTHORIZED {
                if let (Some(key), true) = (&key, response.status().is_success()) {
                    keyring.approve(url, key, environment);
                }
                return self.checked(response);
            }
            if let Some(key) = &key {
                keyring.reject(url, key, environment);
            }
            let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenges: Vec<_> = challenges.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
            let had_key = key.is_some();
            key = if asked {
                None
            } else {
                keyring.ask(&Self::repository_of(url), &self.dial.url, &challenges, environment)
            };
            asked = true;
            if key.is_none() {
                let why =
                    if had_key { "refused the credentials" } else { "asks for credentials and no helper has any" };
                return Err(RemoteError::new(FailureKind::Denied, format!("{} {why}", self.dial.address)));
            }
        }
    }

    /// The repository's address in that of a request: what a credential helper is asked about.
    fn repository_of(url: &Url) -> Url {
        let text = url.as_str();
        let base = text.strip_suffix(GREETING).or_else(|| text.strip_suffix(SERVICE));
        base.and_then(|base| Url::parse(base).ok()).unwrap_or_else(|| url.clone())
    }

    fn once(&self, url: &Url, body: Option<Bytes>, key: Option<&Key>) -> Result<Response, RemoteError> {
        let mut headers: HeaderMap = self.settings.extra_headers(url, origin(url) == self.home);
        headers.insert("git-protocol", reqwest::header::HeaderValue::from_static("version=2"));
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, key.header.clone());
        }
        let mut wait = self.dial.timeout;
        let request = match body {
            None => self.client.get(url.clone()).header("cache-control", "no-cache"),
            Some(body) => {
                wait += Duration::from_secs(body.len() as u64 / UPLOAD_BYTES_A_SECOND);
                let request = self.client.post(url.clone()).body(body);
                request
                    .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
                    .header(ACCEPT, "application/x-git-upload-pack-result")
            }
        };
        let request: Request = request.headers(headers).build().map_err(|error| self.failed(error))?;
        tracing::debug!(method = %request.method(), origin = origin(url), "http request");
        self.wait(wait, self.client.execute(request))
    }

    /// Turns a status that is neither success nor redirection into its class.
    fn checked(&self, response: Response) -> Result<Response, RemoteError> {
        use FailureKind as K;
        let status = response.status();
        let address = &self.dial.address;
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        let later = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = later.and_then(|later| retry_after::parse(later, Timestamp::now()));
        let later = later.map_or_else(String::new, |later| format!(", retry after {}", one_line(later.as_bytes())));
        let (kind, why) = match status.as_u16() {
            403 => (K::Denied, "access is forbidden"),
            407 => (K::Denied, "the proxy asks for credentials"),
            404 | 410 => (K::Missing, "there is no such repository"),
            413 => (K::Unsupported, "the server takes no request of this length"),
            408 | 425 | 429 => (K::Transient, "the server is busy"),
            500.. => (K::Transient, "the server failed"),
            _ => (K::Unsupported, "the server refused the request"),
        };
        let mut error = RemoteError::new(kind, format!("{address}: {why} (HTTP {}{later})", status.as_u16()));
        error.retry_after = wait.filter(|_| kind == K::Transient);
        Err(error)
    }

    /// Waits for `work` no longer than `limit`, and not at all once cancelled.
    fn wait<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, RemoteError> {
        let runtime = self.runtime.as_ref().expect("present until dropped");
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.cancelled.notified() => Err(CancelHandle::error()),
                done = tokio::time::timeout(limit, work) => match done {
                    Ok(result) => result.map_err(|error| self.failed(error)),
                    Err(_) => Err(silent(&self.dial.address, limit)),
                },
            }
        })
    }

    fn failed(&self, error: reqwest::Error) -> RemoteError {
        let (connect, late) = (error.is_connect(), error.is_timeout());
        // The innermost cause says most; reqwest's own text repeats the URL.
        let error = error.without_url();
        let mut causes = vec![error.to_string()];
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        let innermost = causes.last().map_or("", String::as_str);
        let innermost = one_line(innermost.as_bytes());
        let address = &self.dial.address;
        if causes.iter().any(|cause| cause.contains("certificate") || cause.contains("Certificate")) {
            let hint = "http.sslCAInfo names further certificates";
            return RemoteError::new(FailureKind::Denied, format!("{address} is not trusted: {innermost}; {hint}"));
        }
        if connect || late {
            return RemoteError::new(FailureKind::Offline, format!("cannot reach {address}: {innermost}"));
        }
        RemoteError::new(FailureKind::Transient, format!("connection to {address} failed: {innermost}"))
    }

    /// Reads what is left of an answer, when that is little, so that its connection serves again.
    fn drain(&mut self) {
        let mut left = DRAIN_BYTES;
        while let Some(response) = self.response.as_mut() {
            let runtime = self.runtime.as_ref().expect("present until dropped");
            let chunk =
                runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), response.chunk()).await });
            match chunk {
                Ok(Ok(Some(chunk))) if chunk.len() <= left => left -= chunk.len(),
                _ => self.response = None,
            }
        }
        self.chunk = Bytes::new();
    }
}

impl Transport for HttpTransport {
    fn send(&mut self, request: Vec<u8>) -> Result<(), RemoteError> {
        self.drain();
        let url = Self::at(&self.base, SERVICE)?;
        let response = self.exchange(&url, Some(&Bytes::from(request)))?;
        if response.status().is_redirection() {
            let why = "redirects in the middle of a conversation, which is not followed";
            return Err(RemoteError::new(FailureKind::Unsupported, format!("{} {why}", self.dial.address)));
        }
        self.response = Some(response);
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RemoteError> {
        while self.chunk.is_empty() {
            let Some(mut response) = self.response.take() else {
                return Ok(0);
            };
            match self.wait(self.dial.timeout, response.chunk())? {
                Some(chunk) => {
                    self.chunk = chunk;
                    self.response = Some(response);
                }
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }

    fn is_stale(&self) -> bool {
        false
    }

    fn reason_of_end(&mut self) -> Option<RemoteError> {
        None
    }

    fn canceller(&self) -> Result<Box<dyn Fn() + Send + Sync>, RemoteError> {
        let cancelled = Arc::clone(&self.cancelled);
        Ok(Box::new(move || cancelled.notify_one()))
    }
}

impl Drop for HttpTransport {
    fn drop(&mut self) {
        self.response = None;
        if let Some(runtime) = self.runtime.take() {
            // A name look-up may still be under way on a thread that cannot be interrupted.
            runtime.shutdown_background();
        }
    }
}
