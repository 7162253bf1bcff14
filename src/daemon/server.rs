//! The control socket: who may speak, and what each request does.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::Daemon;
use super::protocol::{Answer, Envelope, Failure, FailureClass, MAX_LINE_BYTES, PROTOCOL_VERSION, Reply, Request};
use super::{client, facts, lifecycle, objects};
use crate::config::Config;

/// Clients served at once; a further one waits.
const CLIENT_LIMIT: usize = 64;

/// A client says what it wants within this time.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Binds the control socket, mode 0600, in place of one whose daemon is gone.
/// The store's lock was taken before: no second daemon can be alive here.
pub fn bind(config: &Config) -> Result<UnixListener, Failure> {
    let failed = |error: io::Error| {
        Failure::new(FailureClass::Other, format!("control socket {}: {error}", config.socket.display()))
    };
    let listener: StdListener = client::bind(&config.socket).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

/// Removes the control socket.
pub fn remove(config: &Config) {
    if let Err(error) = std::fs::remove_file(&config.socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("control socket: {error}");
    }
}

/// Serves clients until it is aborted.
pub async fn accept(daemon: Arc<Daemon>, listener: UnixListener) {
    let clients = Arc::new(Semaphore::new(CLIENT_LIMIT));
    loop {
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move {
                    if let Err(error) = serve(&daemon, stream).await {
                        tracing::debug!("client: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: some will come back.
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(daemon: &Arc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd())?.uid;
    let (read, mut write) = stream.into_split();
    if peer != rustix::process::geteuid() && !peer.is_root() {
        let failure = Failure::new(FailureClass::Refused, "this daemon belongs to another user");
        return send(&mut write, &Reply::Failed(failure)).await;
    }
    let mut read = BufReader::new(read);
    let request = match tokio::time::timeout(REQUEST_LIMIT, receive(&mut read)).await {
        Ok(request) => request?,
        Err(_) => Err(Failure::new(FailureClass::Usage, "no request arrived in time")),
    };
    if let Ok(Request::Objects { repository, ids }) = request {
        let ids = ids.into_iter().map(|id| id.0).collect();
        return objects::answer(daemon, repository, ids, &mut read, &mut write).await;
    }
    let reply = match request {
        Ok(request) => match handle(daemon, request, &mut read, &mut write).await {
            Ok(answer) => Reply::Done(answer),
            Err(failure) => Reply::Failed(failure),
        },
        Err(failure) => Reply::Failed(failure),
    };
    send(&mut write, &reply).await
}

/// What every version's request has.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
    request: serde_json::Value,
}

impl Version {
    /// What is understood from every version, so that a newer Larder can take over.
    fn of_any_version(&self) -> Option<Request> {
        match self.request.as_str()? {
            "ping" => Some(Request::Ping),
            "shutdown" => Some(Request::Shutdown),
            _ => None,
        }
    }
}

/// One request line, checked.
async fn receive(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Result<Request, Failure>> {
    let usage = |text: String| Ok(Err(Failure::new(FailureClass::Usage, text)));
    let mut line = Vec::new();
    read.take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line).await?;
    if line.len() > MAX_LINE_BYTES {
        return usage("the request is too long".into());
    }
    // The version first: a request of another version may not parse.
    match serde_json::from_slice::<Version>(&line) {
        Ok(envelope) if let Some(request) = envelope.of_any_version() => return Ok(Ok(request)),
        Ok(Version { version, .. }) if version != PROTOCOL_VERSION => {
            return usage(format!(
                "this daemon speaks protocol {PROTOCOL_VERSION}, the client {version}: end it with `larder shutdown`; the next command starts one that fits"
            ));
        }
        Err(error) => return usage(format!("the request is not understood: {error}")),
        Ok(_) => {}
    }
    match serde_json::from_slice::<Envelope>(&line) {
        Ok(envelope) => Ok(Ok(envelope.request)),
        Err(error) => usage(format!("the request is not understood: {error}")),
    }
}

pub(super) async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

async fn handle(
    daemon: &Arc<Daemon>,
    request: Request,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> Result<Answer, Failure> {
    match request {
        Request::Ping => Ok(Answer::Pong { version: env!("CARGO_PKG_VERSION").into(), pid: std::process::id() }),
        Request::Mount(request) => daemon.mount(request, read, write).await,
        Request::Prepare { target } => daemon.prepare_again(&target, read, write).await,
        Request::Unmount { target, force, purge } => {
            blocking(daemon, move |daemon| daemon.unmount(&target, force, purge)).await
        }
        Request::List => blocking(daemon, |daemon| Ok(Answer::Workspaces(daemon.list()?))).await,
        Request::Status { target } => {
            blocking(daemon, move |daemon| Ok(Answer::Workspaces(daemon.status(target.as_deref())?))).await
        }
        Request::OfflineReady { target, pathspecs } => {
            blocking(daemon, move |daemon| Ok(Answer::OfflineReady(daemon.offline_ready(&target, &pathspecs)?))).await
        }
        Request::History { target, action } => blocking(daemon, move |daemon| daemon.history(&target, action)).await,
        Request::Warm(request) => daemon.warm(request, read, write).await,
        Request::Switch(request) => daemon.switch(request, read, write).await,
        Request::Refresh(request) => blocking(daemon, move |daemon| daemon.refresh(&request)).await,
        Request::Gc(request) => blocking(daemon, move |daemon| daemon.gc(&request)).await,
        Request::Export(request) => daemon.export(request, read, write).await,
        Request::Import { file } => daemon.import(file, read, write).await,
        Request::Pin(request) => daemon.pin(request, read, write).await,
        Request::Unpin(request) => blocking(daemon, move |daemon| daemon.unpin(&request)).await,
        Request::Facts(question) => {
            blocking(daemon, move |daemon| Ok(Answer::Facts(facts::answer(&daemon.sources(), &question)?))).await
        }
        Request::Verify(request) => daemon.verify(request, read, write).await,
        Request::Waits => Ok(Answer::Waits(daemon.waits())),
        Request::Metrics => blocking(daemon, |daemon| Ok(Answer::Text(daemon.rendered_metrics()))).await,
        Request::Fsmonitor { workspace, token, writer } => {
            blocking(daemon, move |daemon| daemon.changes(workspace, &token, writer)).await
        }
        Request::Objects { .. } => Err(Failure::new(FailureClass::Other, "objects are answered in frames")),
        Request::Shutdown => {
            daemon.stop.notify_one();
            Ok(Answer::Ok)
        }
    }
}

async fn blocking(
    daemon: &Arc<Daemon>,
    act: impl FnOnce(&Arc<Daemon>) -> Result<Answer, Failure> + Send + 'static,
) -> Result<Answer, Failure> {
    let daemon = Arc::clone(daemon);
    lifecycle::blocking(move || act(&daemon)).await
}

/// Sends progress while `work` runs. When the client hangs up, `cancel` is called and the work's end awaited.
pub async fn with_progress<T>(
    mut progress: tokio::sync::watch::Receiver<super::protocol::Progress>,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    cancel: impl Fn(),
    work: impl Future<Output = T>,
) -> T {
    // Ten lines a second are plenty for a bar, and never fill a slow client's socket.
    const PERIOD: Duration = Duration::from_millis(100);
    tokio::pin!(work);
    let mut tick = tokio::time::interval(PERIOD);
    let mut gone = false;
    let mut byte = [0_u8; 1];
    loop {
        tokio::select! {
            done = &mut work => return done,
            received = read.read(&mut byte), if !gone => {
                if !matches!(received, Ok(count) if count > 0) {
                    gone = true;
                    cancel();
                }
            }
            _ = tick.tick(), if !gone => {
                if progress.has_changed().unwrap_or(false) {
                    let now = progress.borrow_and_update().clone();
                    if send(write, &Reply::Progress(now)).await.is_err() {
                        gone = true;
                        cancel();
                    }
                }
            }
        }
    }
}
