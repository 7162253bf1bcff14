//! Answers `GET /metrics` over HTTP, at the loopback port or Unix socket that `metrics.listen` names.
//!
//! Whoever may use the machine may use the port; the socket is for its user and root alone. Everything has a bound: the
//! request, the time for it and how many are answered at once. Invariant: nothing that happens here keeps the daemon from
//! working; an address that cannot be had is tried again later.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::{Daemon, client};
use crate::config::Listen;

/// Requests answered at once; a further one waits. One is from a collector of metrics, a few from people.
const CLIENT_LIMIT: usize = 16;

/// The head of a request has arrived within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// A connection is over within this time, whatever the other end does.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);

/// Bytes of a request's head at most; the least that the HTTP library takes.
const HEAD_BYTES: usize = 8 << 10;

/// Time between two attempts to have an address that somebody else has.
const RETRY: Duration = Duration::from_mins(1);

/// Pause after a connection that could not be accepted: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

enum Listener {
    Port(TcpListener),
    /// And what removes it.
    Socket(UnixListener, #[expect(dead_code, reason = "kept for what it does when it is dropped")] Bound),
}

/// A socket in the file system; removed when this is dropped, if it is still the one that was made.
struct Bound {
    path: PathBuf,
    place: Option<(u64, u64)>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if place(&self.path).is_some_and(|now| self.place == Some(now)) {
            // Nobody is left to be told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn place(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Serves metrics at `listen` until it is aborted.
pub(super) async fn serve(daemon: Arc<Daemon>, listen: Listen) {
    let mut told = false;
    let listener = loop {
        match bind(&listen).await {
            Ok(listener) => break listener,
            Err(error) if !told => tracing::error!("metrics are not served at {listen}: {error}"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(RETRY).await;
    };
    tracing::info!("metrics are served at {listen}");
    daemon.metrics.listening.set(1);
    let places = Arc::new(Semaphore::new(CLIENT_LIMIT));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = match &listener {
            Listener::Port(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(answer(Arc::clone(&daemon), stream, place));
            }),
            Listener::Socket(listener, _) => listener.accept().await.map(|(stream, _)| {
                // Nothing is said to a process of another user.
                if stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid())) {
                    tokio::spawn(answer(Arc::clone(&daemon), stream, place));
                }
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!("metrics: accept: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn bind(listen: &Listen) -> io::Result<Listener> {
    match listen {
        Listen::Port(address) => Ok(Listener::Port(TcpListener::bind(address).await?)),
        Listen::Socket(path) => {
            may_replace(path)?;
            let listener = client::bind(path)?;
            let bound = Bound { path: path.clone(), place: place(path) };
            listener.set_nonblocking(true)?;
            Ok(Listener::Socket(UnixListener::from_std(listener)?, bound))
        }
    }
}

/// Whether what is at `path` may make way: nothing, or a socket of this user.
fn may_replace(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket"));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("the socket there belongs to user {}", meta.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Answers one request.
async fn answer(
    daemon: Arc<Daemon>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: tokio::sync::OwnedSemaphorePermit,
) {
    let service = service_fn(|request| {
        let daemon = Arc::clone(&daemon);
        async move { Ok::<_, Infallible>(respond(&request, || render(daemon)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIMIT, connection).await {
        Ok(Err(error)) => tracing::debug!("metrics: {error}"),
        Err(_) => tracing::debug!("metrics: a client took too long"),
        Ok(Ok(())) => {}
    }
    drop(place);
}

async fn render(daemon: Arc<Daemon>) -> Option<String> {
    tokio::task::spawn_blocking(move || daemon.rendered_metrics()).await.ok()
}

async fn respond<R: Future<Output = Option<String>>>(
    request: &Request<Incoming>,
    metrics: impl FnOnce() -> R,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return said(StatusCode::NOT_FOUND, TEXT_TYPE, "metrics are at /metrics\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "only GET is answered\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match metrics().await {
        Some(text) => said(StatusCode::OK, METRICS_TYPE, text),
        None => said(StatusCode::INTERNAL_SERVER_ERROR, TEXT_TYPE, "the daemon failed; its log says why\n".to_owned()),
    }
}

fn said(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    #[tokio::test]
    async fn only_a_deserted_socket_of_ones_own_makes_way() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("m.sock");
        let listen = Listen::Socket(path.clone());
        drop(StdListener::bind(&path).expect("bound"));
        let first = bind(&listen).await.expect("a leftover is replaced");
        assert!(bind(&listen).await.is_err(), "one that is served is not");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        drop(first);
        assert!(!path.exists(), "it is removed at the end");
        fs::write(&path, b"precious").expect("written");
        assert!(bind(&listen).await.is_err(), "a file is left alone");
        assert_eq!(fs::read(&path).expect("there"), b"precious");
    }

    #[tokio::test]
    async fn a_socket_that_somebody_else_made_is_left_at_the_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("m.sock");
        let bound = bind(&Listen::Socket(path.clone())).await.expect("bound");
        fs::remove_file(&path).expect("removed");
        let _other = StdListener::bind(&path).expect("bound");
        drop(bound);
        assert!(path.exists());
    }
}
