//! Asking a remote whether it can be reached and what it can, without a store: `larder doctor` does that.
//!
//! Runs in the client, with the client's environment, so that it tells what the user's own shell would find. Nothing is
//! kept of what the remote sends, and credential helpers are not told what came of their credentials. Invariants: who
//! waits does so no longer than they said, and no text of an answer holds a credential.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use crate::git::remote::{CancelHandle, ConnectOptions, GitRemote};
use crate::git::url::{RepoUrl, Scheme};
use crate::hydrate::remote::{Connection, Extent, FailureKind, LargeSink, RemoteError, Sink};

/// What a cancelled connection gets to end its child processes.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Which remote, and as whom.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The repository's address.
    pub url: String,
    /// Its gitdir, whose configuration counts.
    pub gitdir: PathBuf,
    /// The client's environment.
    pub environment: Vec<(String, String)>,
    /// A small blob that the remote is asked for by its id.
    pub probe: Option<ObjectId>,
}

/// What a remote can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Able {
    /// It leaves files out that nobody reads.
    pub filter: bool,
    /// It tells sizes without contents.
    pub object_info: bool,
    /// Whether it gives an object by its id alone, or why not; `None`: nothing was there to ask for.
    pub any_object: Option<Result<(), String>>,
    /// Where the credentials came from that it took.
    pub credentials: Option<&'static str>,
    /// Until it had told what it can and listed its HEAD.
    pub took: Duration,
}

/// Why a remote can't be used.
#[derive(Clone, Debug)]
pub struct Unable {
    /// The class.
    pub kind: FailureKind,
    /// What failed and why, in one line.
    pub message: String,
    /// Names of the credential helpers, where credentials are the trouble.
    pub helpers: Vec<String>,
}

/// A remote that is being asked.
pub struct Reaching {
    answer: mpsc::Receiver<Result<Able, Unable>>,
    cancel: CancelHandle,
}

/// Asks on a thread of its own; `limit` is the longest silence of the remote and of helpers.
pub fn begin(asked: Asked, limit: Duration) -> Reaching {
    let cancel = CancelHandle::default();
    let (tell, answer) = mpsc::channel();
    let own = cancel.clone();
    let started = std::thread::Builder::new().name("reach".to_owned()).spawn({
        let tell = tell.clone();
        move || drop(tell.send(reach(&asked, limit, own)))
    });
    if let Err(error) = started {
        let message = format!("cannot start a thread: {error}");
        let _ = tell.send(Err(Unable { kind: FailureKind::Local, message, helpers: Vec::new() }));
    }
    Reaching { answer, cancel }
}

impl Reaching {
    /// The answer, waited for until `until`; `None`: none came, and the question is taken back.
    pub fn wait(self, until: Instant) -> Option<Result<Able, Unable>> {
        if let Ok(answer) = self.answer.recv_timeout(until.saturating_duration_since(Instant::now())) {
            return Some(answer);
        }
        self.cancel.cancel();
        // Its children are killed when it gives up. Of many that are silent only the first is waited for.
        let end = until + LAST_WORDS;
        let _ = self.answer.recv_timeout(end.saturating_duration_since(Instant::now()));
        None
    }
}

/// Whether the repository at `url` is reached over ssh.
pub fn is_over_ssh(url: &str) -> bool {
    RepoUrl::parse(url).is_ok_and(|url| url.scheme() == Scheme::Ssh)
}

/// `url` as people may see it.
pub fn shown(url: &str) -> String {
    RepoUrl::parse(url).map_or_else(|_| "an address that cannot be read".to_owned(), |url| url.display())
}

fn reach(asked: &Asked, limit: Duration, cancel: CancelHandle) -> Result<Able, Unable> {
    let begun = Instant::now();
    let unable = |error: &RemoteError| Unable { kind: error.kind, message: error.message.clone(), helpers: Vec::new() };
    let url = RepoUrl::parse(&asked.url).map_err(|error| Unable {
        kind: FailureKind::Missing,
        message: error.to_string(),
        helpers: Vec::new(),
    })?;
    let gitdir = asked.gitdir.join("HEAD").exists().then(|| asked.gitdir.clone());
    let options = ConnectOptions { timeout: limit, environment: asked.environment.clone(), gitdir, scratch: None };
    let remote = GitRemote::new(url, options).looking_only();
    let opened = remote.open_with(cancel).and_then(|mut connection| {
        // Listing HEAD proves that the repository may be read; one without commits can be.
        match connection.resolve(None) {
            Err(error) if error.kind != FailureKind::Missing || !error.message.contains("no commits") => Err(error),
            _ => Ok(connection),
        }
    });
    let mut connection = opened.map_err(|error| {
        let helpers = if error.kind == FailureKind::Denied { remote.credential_helpers() } else { Vec::new() };
        Unable { helpers, ..unable(&error) }
    })?;
    let took = begun.elapsed();
    let abilities = connection.abilities();
    let any_object = asked.probe.map(|id| {
        let fetched = connection.fetch(&[id], Extent::Exact, &mut Nowhere);
        fetched.map_err(|error| error.message)
    });
    let credentials = remote.credentials();
    Ok(Able { filter: abilities.filter, object_info: abilities.object_info, any_object, credentials, took })
}

/// Takes what was asked for only to see whether it comes.
struct Nowhere;

impl Sink for Nowhere {
    fn object(&mut self, _: ObjectId, _: Kind, _: Bytes) -> Result<(), RemoteError> {
        Ok(())
    }

    fn large(&mut self, _: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Ok(Box::new(std::io::sink()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Asked {
        Asked { url: url.to_owned(), gitdir: "/nonexistent".into(), environment: Vec::new(), probe: None }
    }

    #[test]
    fn a_listener_that_says_nothing_is_given_up() {
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let port = silent.local_addr().expect("bound").port();
        let reaching = begin(asked(&format!("git://127.0.0.1:{port}/x")), Duration::from_mins(1));
        assert!(reaching.wait(Instant::now() + Duration::from_millis(100)).is_none());
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(shown("https://me:secret@host/x"), "https://host/x");
        assert!(!shown("https://me:secret@/").contains("secret"));
        assert!(is_over_ssh("git@host:x") && !is_over_ssh("https://host/x"));
        let failed = begin(asked("https://me:secret@:0/"), Duration::from_secs(1));
        let unable = failed.wait(Instant::now() + Duration::from_secs(5)).expect("at once").expect_err("no address");
        assert!(!unable.message.contains("secret"), "{}", unable.message);
    }
}
