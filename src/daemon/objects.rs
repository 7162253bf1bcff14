//! Objects by id, for the object door.
//!
//! The answer is one JSON line and then frames, one an object, in any order:
//!
//! ```text
//! u8   kind: 1 commit, 2 tree, 3 blob, 4 tag
//! id   20 or 32 bytes
//! u64  size, little-endian; then that many bytes
//! ```
//!
//! and after the last a zero byte; or 255, a u32 of length and a
//! [`Failure`] as JSON. A stream that ends otherwise was broken off.
//!
//! Blobs come from the store, piece by piece; trees are written again from
//! their listings; what is missing is hydrated, all of a window in as few
//! requests as hydration makes. A window is found while the one before it is
//! sent, so the network and the client's disk work at the same time.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lifecycle::blocking;
use super::protocol::{Answer, Failure, FailureClass, OBJECTS_LIMIT, Reply};
use super::{Daemon, asker, prepare, server};
use crate::git::door::{Head, tree_of};
use crate::git::gitdir::Objects;
use crate::hydrate::{Cause, Hydrator, Landed, Owner, RemoteError};
use crate::store::{Operation, Repository, RepositoryId, Store, Workspace};

/// Objects looked up and hydrated together: four batches, so that a request to the remote is never the only one.
const WINDOW_OBJECTS: usize = 1024;

/// Bytes of a window that stay in memory until they are sent; what is beyond is read from the store again.
const WINDOW_BYTES: u64 = 16 << 20;

/// Bytes of commits, tags and odd trees of a window, which the store does not keep.
const STRUCTURE_BYTES: u64 = 256 << 20;

/// Bytes of a large blob read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Pieces on their way to a client.
const PIECES: usize = 4;

/// The door is no workspace.
const DOOR: Owner = Owner(u64::MAX);

/// Longest wait for the store to have what arrived.
const SETTLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// End of the frames, and of frames that failed.
pub const END: u8 = 0;
/// A failure follows.
pub const FAILED: u8 = 255;

/// A kind as a frame has it, and a pack.
pub const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    }
}

/// An object that can be given.
struct Located {
    head: Head,
    content: Content,
}

enum Content {
    /// The store has the blob.
    Blob,
    /// The store has the tree, and its listing gives the object.
    Tree,
    Bytes(Bytes),
}

/// Objects of one window, some of which stay in memory.
#[derive(Default)]
struct Window {
    located: Vec<Located>,
    kept: u64,
}

impl Window {
    fn add(&mut self, id: ObjectId, kind: Kind, size: u64, content: Content) {
        self.located.push(Located { head: Head { id, kind, size }, content });
    }

    /// Adds an object whose bytes are here, and that can be had again from the store.
    fn add_bytes(&mut self, id: ObjectId, kind: Kind, bytes: Bytes, again: Content) {
        let size = bytes.len() as u64;
        let keep = self.kept + size <= WINDOW_BYTES;
        self.kept += if keep { size } else { 0 };
        self.add(id, kind, size, if keep { Content::Bytes(bytes) } else { again });
    }
}

/// Answers a request for objects.
pub(super) async fn answer(
    daemon: &Arc<Daemon>,
    repository: u64,
    ids: Vec<ObjectId>,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let asker = write.as_ref().peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
    let shelf = match shelf(daemon, RepositoryId(repository), asker, &ids).await {
        Ok(shelf) => Arc::new(shelf),
        Err(failure) => return server::send(write, &Reply::Failed(failure)).await,
    };
    // Git refuses an object that it is told to have and can't read.
    daemon.objects_sent(&shelf.repository, &ids);
    let mut byte = [0_u8; 1];
    let serving = serve(&shelf, &ids, write);
    tokio::select! {
        served = serving => served,
        // The client has nothing more to say: it went away, and what it wanted is cancelled.
        _ = read.read(&mut byte) => Ok(()),
    }
}

/// Where objects are looked for.
struct Shelf {
    store: Store,
    repository: Repository,
    hydrator: Hydrator,
    /// Which Git command asks.
    cause: Arc<Cause>,
}

async fn shelf(
    daemon: &Arc<Daemon>,
    repository: RepositoryId,
    asker: Option<u32>,
    ids: &[ObjectId],
) -> Result<Shelf, Failure> {
    if ids.len() > OBJECTS_LIMIT {
        return Err(Failure::new(FailureClass::Usage, format!("more than {OBJECTS_LIMIT} objects in one request")));
    }
    let daemon = Arc::clone(daemon);
    blocking(move || {
        let rows = daemon.all().into_iter().map(|live| live.row()).filter(|row| row.repository == repository);
        let rows: Vec<Workspace> = rows.collect();
        let around = around(&rows, asker);
        // In none of them: only if all are.
        let offline = around.map_or(!rows.is_empty() && rows.iter().all(|row| row.offline), |row| row.offline);
        let (repository, hydrator) = prepare::hydrator_of(&daemon, repository, offline)?;
        let label = format!("{} (git)", repository.gitdir.display());
        let cause = Arc::new(Cause {
            workspace: around.map(|row| row.id),
            path_at: label.len(),
            process: asker.filter(|_| daemon.store.keeps_fetches()).map(asker::git_command).unwrap_or_default(),
            ..Cause::new(DOOR, label.as_bytes(), Operation::Git)
        });
        Ok(Shelf { store: daemon.store.clone(), repository, hydrator, cause })
    })
    .await
}

/// The workspace among `rows` that the process `asker` works in: Git starts the door at the top of the working tree.
fn around(rows: &[Workspace], asker: Option<u32>) -> Option<&Workspace> {
    let place = asker::directory(asker?)?;
    let around = rows.iter().filter(|row| place.starts_with(&row.path));
    around.max_by_key(|row| row.path.as_os_str().len())
}

async fn serve(shelf: &Arc<Shelf>, ids: &[ObjectId], write: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut windows = ids.chunks(WINDOW_OBJECTS).map(<[ObjectId]>::to_vec);
    let mut window = match locate(Arc::clone(shelf), windows.next().unwrap_or_default()).await {
        Ok(window) => window,
        Err(failure) => return server::send(write, &Reply::Failed(failure)).await,
    };
    server::send(write, &Reply::Done(Answer::Objects)).await?;
    loop {
        let ahead = windows.next().map(|ids| {
            let mut task = JoinSet::new();
            task.spawn(locate(Arc::clone(shelf), ids));
            task
        });
        if let Err(failure) = send(shelf, window, write).await? {
            return fail(write, &failure).await;
        }
        let Some(mut ahead) = ahead else { break };
        window = match ahead.join_next().await {
            Some(Ok(Ok(window))) => window,
            Some(Ok(Err(failure))) => return fail(write, &failure).await,
            _ => return Err(io::Error::other("looking objects up failed")),
        };
    }
    write.write_all(&[END]).await
}

async fn fail(write: &mut OwnedWriteHalf, failure: &Failure) -> io::Result<()> {
    let text = serde_json::to_vec(failure)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    write.write_all(&[&[FAILED], &length.to_le_bytes()[..], &text].concat()).await
}

/// Finds `ids` and hydrates what is missing.
async fn locate(shelf: Arc<Shelf>, ids: Vec<ObjectId>) -> Result<Window, Failure> {
    let looking = Arc::clone(&shelf);
    let (mut window, missing) = blocking(move || here(&looking, &ids)).await?;
    if missing.is_empty() {
        return Ok(window);
    }
    let mut waiting = JoinSet::new();
    for (id, ticket) in missing.iter().zip(shelf.hydrator.hydrate_all(&missing, &shelf.cause)) {
        let id = *id;
        waiting.spawn(async move { (id, ticket.wait().await) });
    }
    let mut stored = Vec::new();
    let mut structures = 0;
    while let Some(ended) = waiting.join_next().await {
        let (id, outcome) = ended.map_err(|error| Failure::new(FailureClass::Other, error.to_string()))?;
        match outcome.map_err(|error| absent(id, &error))? {
            Landed::Bytes(bytes) if window.kept + bytes.len() as u64 <= WINDOW_BYTES => {
                window.add_bytes(id, Kind::Blob, bytes, Content::Blob);
            }
            Landed::Bytes(_) | Landed::Stored => stored.push(id),
            Landed::Structure(kind, bytes) => {
                structures += bytes.len() as u64;
                if structures > STRUCTURE_BYTES {
                    return Err(Failure::new(FailureClass::Other, format!("object {id}: too much for one request")));
                }
                window.add(id, kind, bytes.len() as u64, Content::Bytes(bytes));
            }
        }
    }
    if !stored.is_empty() {
        let arrived = blocking(move || {
            shelf.hydrator.settle(SETTLE_LIMIT);
            let sizes = shelf.store.stored_sizes(&stored)?;
            Ok(stored.into_iter().zip(sizes).collect::<Vec<_>>())
        });
        for (id, size) in arrived.await? {
            let size = size.ok_or_else(|| lost(id))?;
            window.add(id, Kind::Blob, size, Content::Blob);
        }
    }
    Ok(window)
}

/// What store and gitdir have of `ids`, and what is in neither.
fn here(shelf: &Shelf, ids: &[ObjectId]) -> Result<(Window, Vec<ObjectId>), Failure> {
    let mut window = Window::default();
    let mut missing = Vec::new();
    for (id, size) in ids.iter().zip(shelf.store.stored_sizes(ids)?) {
        if let Some(size) = size {
            window.add(*id, Kind::Blob, size, Content::Blob);
        } else if let Some(bytes) = shelf.store.tree(id)?.and_then(|listing| tree_of(id, &listing)) {
            window.add_bytes(*id, Kind::Tree, bytes.into(), Content::Tree);
        } else {
            missing.push(*id);
        }
    }
    if let Some(first) = missing.first() {
        let objects = Objects::open(&shelf.repository.gitdir, first.kind())?;
        let mut bytes = 0;
        missing.retain(|id| match objects.structure(id) {
            // Git asks for what it lacks, so it is here only by chance.
            Ok(Some((kind, data))) if bytes < STRUCTURE_BYTES => {
                bytes += data.len() as u64;
                window.add(*id, kind, data.len() as u64, Content::Bytes(data.into()));
                false
            }
            _ => true,
        });
    }
    Ok((window, missing))
}

/// Sends a window's frames.
async fn send(shelf: &Arc<Shelf>, window: Window, write: &mut OwnedWriteHalf) -> io::Result<Result<(), Failure>> {
    let (give, mut take) = mpsc::channel::<Result<Bytes, Failure>>(PIECES);
    let store = shelf.store.clone();
    let reading = tokio::task::spawn_blocking(move || {
        for located in &window.located {
            // An error here means that nobody listens any more.
            if read_out(&store, located, &give).is_err() {
                return;
            }
        }
    });
    let mut outcome = Ok(());
    while let Some(piece) = take.recv().await {
        match piece {
            Ok(bytes) => write.write_all(&bytes).await?,
            Err(failure) => {
                outcome = Err(failure);
                break;
            }
        }
    }
    drop(take);
    reading.await.map_err(io::Error::other)?;
    Ok(outcome)
}

struct Gone;

fn read_out(store: &Store, located: &Located, give: &mpsc::Sender<Result<Bytes, Failure>>) -> Result<(), Gone> {
    let Located { head, content } = located;
    let put = |piece| give.blocking_send(piece).map_err(|_| Gone);
    // The first piece is read before the head is sent: a failure may come instead of a frame, not inside one.
    let first = match content {
        Content::Bytes(bytes) => Ok(Some(bytes.clone())),
        Content::Tree => {
            store.tree(&head.id).map(|found| found.and_then(|listing| tree_of(&head.id, &listing)).map(Bytes::from))
        }
        Content::Blob => store.read_at(&head.id, 0, PIECE_BYTES).map(|found| found.map(Bytes::from)),
    };
    let first = match first {
        Ok(Some(first)) => first,
        Ok(None) => return put(Err(lost(head.id))).and(Err(Gone)),
        Err(error) => return put(Err(error.into())).and(Err(Gone)),
    };
    let frame = [&[kind_code(head.kind)], head.id.as_bytes(), &head.size.to_le_bytes()[..], &first].concat();
    put(Ok(frame.into()))?;
    let mut at = first.len() as u64;
    while at < head.size {
        match store.read_at(&head.id, at, PIECE_BYTES) {
            Ok(Some(piece)) if !piece.is_empty() => {
                at += piece.len() as u64;
                put(Ok(piece.into()))?;
            }
            // In the middle of a frame there is only the end of the stream to tell it by.
            _ => return Err(Gone),
        }
    }
    Ok(())
}

fn lost(id: ObjectId) -> Failure {
    Failure::new(
        FailureClass::Other,
        format!("object {id} was dropped from the cache while it was asked for; try again"),
    )
}

/// The remote's failure, naming the object that was wanted.
fn absent(id: ObjectId, error: &RemoteError) -> Failure {
    let mut failure = Failure::from(error.clone());
    failure.message = format!("object {id} is not cached: {}", failure.message);
    failure
}
