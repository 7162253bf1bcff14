//! The client's end of the control socket: finding the daemon, starting it, asking it.
//!
//! `socket` holds what both ends share, `start` how a daemon comes to be.
//! Refuses sockets of other users, lines longer than [`MAX_LINE_BYTES`] and
//! daemons of another protocol version. Invariant: no call waits for ever;
//! each request has a longest silence.

mod objects;
mod socket;
mod start;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::protocol::{
    Answer, Envelope, Failure, FailureClass, MAX_LINE_BYTES, PROTOCOL_VERSION, Progress, Reply, Request,
};
use crate::config::{Config, ConfigError};
pub use objects::ObjectStream;
pub use socket::{bind, connect, is_deserted, trusted};
pub use start::{DETACHED, is_about_one_repository, leave_start_failure};

/// A ping needs no work at all.
const PING_SILENCE: Duration = Duration::from_secs(5);
/// Git waits for this answer before every command; a scan is the better choice beyond.
const FSMONITOR_SILENCE: Duration = Duration::from_secs(2);
/// Facts come from memory or the store.
const FACTS_SILENCE: Duration = Duration::from_mins(1);
/// Preparations report progress; between two reports lie at most a few network time-outs with their retries.
const PREPARE_SILENCE: Duration = Duration::from_mins(30);

/// A daemon that may be asked. Every call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon behind `socket`, without looking whether it is there.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The running daemon, or `None`. Never starts one.
    pub fn running(config: &Config) -> Result<Option<Self>, Failure> {
        let client = Self::at(config.socket.clone());
        Ok(client.ping()?.map(|_| client))
    }

    /// The daemon's version and process id, or `None` when none listens.
    pub fn ping(&self) -> Result<Option<(String, u32)>, Failure> {
        let stream = match connect(&self.socket) {
            Ok(stream) => stream,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.failed("connect to", &error)),
        };
        match self.exchange(&stream, Request::Ping, &mut |_| ())? {
            Some(Answer::Pong { version, pid }) => Ok(Some((version, pid))),
            Some(other) => Err(unexpected(&other)),
            // It is ending: its socket is still there, but nobody answers any more.
            None => Ok(None),
        }
    }

    /// Sends one request and waits for its result, handing on every progress report before it.
    pub fn call(&self, request: Request, on_progress: &mut dyn FnMut(&Progress)) -> Result<Answer, Failure> {
        let stream = connect(&self.socket).map_err(|error| self.failed("connect to", &error))?;
        self.exchange(&stream, request, on_progress)?.ok_or_else(|| self.broken("it ended before answering"))
    }

    /// [`Self::call`] for requests that are answered at once.
    pub fn ask(&self, request: Request) -> Result<Answer, Failure> {
        self.call(request, &mut |_| ())
    }

    /// The answer, or `None` when the other end hung up without any.
    fn exchange(
        &self,
        stream: &UnixStream,
        request: Request,
        on_progress: &mut dyn FnMut(&Progress),
    ) -> Result<Option<Answer>, Failure> {
        self.begin(stream, request)?;
        self.result(&mut BufReader::new(stream), on_progress)
    }

    /// Sends the request.
    fn begin(&self, mut stream: &UnixStream, request: Request) -> Result<(), Failure> {
        if !trusted(stream).map_err(|error| self.failed("look at", &error))? {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("cannot use the daemon at {}: it runs as another user", self.socket.display()),
            )
            .hint("check who owns that directory, or set LARDER_HOME to a directory of your own"));
        }
        let silence = longest_silence(&request);
        let limited = stream.set_read_timeout(Some(silence)).and_then(|()| stream.set_write_timeout(Some(silence)));
        limited.map_err(|error| self.failed("limit the wait for", &error))?;
        let mut line = serde_json::to_vec(&Envelope { version: PROTOCOL_VERSION, request }).map_err(|error| {
            Failure::new(FailureClass::Usage, format!("cannot put the request into words: {error}"))
                .hint("paths and names have to be valid UTF-8")
        })?;
        line.push(b'\n');
        if line.len() > MAX_LINE_BYTES {
            return Err(Failure::new(FailureClass::Usage, "cannot send the request: it is too long"));
        }
        // A daemon that refuses early closes its end; what it said is still there to read.
        match stream.write_all(&line) {
            Err(error) if !is_hang_up(&error) => Err(self.failed("send a request to", &error)),
            _ => Ok(()),
        }
    }

    /// The answer, after whatever progress is reported before it.
    fn result<S: AsFd + Read>(
        &self,
        replies: &mut BufReader<S>,
        on_progress: &mut dyn FnMut(&Progress),
    ) -> Result<Option<Answer>, Failure> {
        loop {
            match self.reply(replies)? {
                Some(Reply::Progress(progress)) => on_progress(&progress),
                Some(Reply::Done(answer)) => return Ok(Some(answer)),
                Some(Reply::Failed(failure)) => return Err(failure),
                None => return Ok(None),
            }
        }
    }

    fn reply<S: AsFd + Read>(&self, replies: &mut BufReader<S>) -> Result<Option<Reply>, Failure> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_LINE_BYTES).expect("a mebibyte fits");
        match replies.take(limit).read_until(b'\n', &mut line) {
            Err(error) if !is_hang_up(&error) => return Err(self.failed("hear from", &error)),
            _ => {}
        }
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            let cut = if line.len() == MAX_LINE_BYTES { "is too long" } else { "was cut short" };
            return Err(self.broken(&format!("its answer {cut}")));
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            let by = replies.get_ref();
            let pid = rustix::net::sockopt::socket_peercred(by).map(|peer| peer.pid.as_raw_nonzero());
            let failure = self.broken(&format!("its answer is of another version ({error})"));
            match pid {
                Ok(pid) => failure.hint(format!("stop it with `kill {pid}`; the next command starts one that fits")),
                Err(_) => failure,
            }
        })
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::new(FailureClass::Other, format!("cannot hear from the daemon at {}: {why}", self.socket.display()))
            .hint("`larder doctor` looks for the cause")
    }

    fn failed(&self, operation: &str, error: &io::Error) -> Failure {
        if is_absent(error) {
            return Failure::new(FailureClass::NotFound, "cannot ask the daemon: none is running")
                .hint("start it with `larder daemon`");
        }
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return self.broken("it does not answer");
        }
        let class = match error.kind() {
            io::ErrorKind::PermissionDenied => FailureClass::Refused,
            _ => FailureClass::Other,
        };
        let socket = self.socket.display();
        Failure::new(class, format!("cannot {operation} the daemon at {socket}: {error}"))
            .hint("`larder doctor` looks for the cause")
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (class, hint) = match &error {
            ConfigError::NoHome => (FailureClass::Usage, "set LARDER_HOME to a directory of your own"),
            ConfigError::NotUtf8 { .. } => (FailureClass::Usage, "set LARDER_HOME to a path that is valid UTF-8"),
            ConfigError::Syntax { .. } => (FailureClass::Usage, "correct that line, or move the file away"),
            ConfigError::UnknownKey { .. } => {
                (FailureClass::Usage, "correct or remove the key; `larder config show` has all")
            }
            ConfigError::Value { .. } => (FailureClass::Usage, "correct the value, or remove it to have the default"),
            ConfigError::Variable { .. } => (FailureClass::Usage, "correct the variable, or unset it"),
            ConfigError::Foreign { .. } => (FailureClass::Refused, "set LARDER_HOME to a directory of your own"),
            ConfigError::Io { .. } => (FailureClass::Other, "check the path and its permissions"),
        };
        Self::new(class, error.to_string()).hint(hint)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory)
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn longest_silence(request: &Request) -> Duration {
    match request {
        Request::Ping => PING_SILENCE,
        Request::Fsmonitor { .. } => FSMONITOR_SILENCE,
        Request::Mount(_)
        | Request::Prepare { .. }
        | Request::Warm(_)
        | Request::Switch(_)
        | Request::Refresh(_)
        | Request::Gc(_)
        | Request::OfflineReady { .. }
        | Request::Pin(_)
        | Request::Unpin(_)
        | Request::Facts(_)
        | Request::Verify(_)
        | Request::Export(_)
        | Request::Import { .. }
        | Request::Objects { .. } => PREPARE_SILENCE,
        _ => FACTS_SILENCE,
    }
}

/// What a client says to an answer that belongs to another request.
pub fn unexpected(answer: &Answer) -> Failure {
    let kind = match answer {
        Answer::Pong { .. } => "a pong",
        Answer::Ok => "a bare success",
        Answer::Workspaces(_) => "workspaces",
        Answer::OfflineReady(_) => "what is missing",
        Answer::Warmed(_) => "a warming report",
        Answer::Switched(_) => "a switch",
        Answer::Refreshed(_) => "a refresh",
        Answer::Collected(_) => "a collection",
        Answer::Carried(_) => "a report of an export or import",
        Answer::Pinned(_) => "a pin",
        Answer::Pins(_) => "pins",
        Answer::Facts(_) => "facts",
        Answer::Verified(_) => "a report of a verification",
        Answer::Waits(_) => "waits",
        Answer::Text(_) => "text",
        Answer::Objects => "objects",
        Answer::Changes { .. } => "changes",
    };
    Failure::new(
        FailureClass::Other,
        format!("cannot use the daemon's answer: it sent {kind}, which was not asked for"),
    )
    .hint("stop it with `larder shutdown`; the next command starts one that fits")
}
