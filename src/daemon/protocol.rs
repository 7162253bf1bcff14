//! What goes over the control socket: one JSON document a line.
//!
//! A client sends one [`Envelope`]; the daemon answers with any number of
//! [`Reply::Progress`] lines and then exactly one [`Reply::Done`] or
//! [`Reply::Failed`]. A line is at most [`MAX_LINE_BYTES`] long. Both ends
//! refuse a peer of another [`PROTOCOL_VERSION`], so that nothing is misread.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::store::{Depth, ObjectIdText, WorkspaceState};

/// Changes whenever a field changes its meaning.
pub const PROTOCOL_VERSION: u32 = 4;

/// Longest line either side accepts; a request names a few paths, no more.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Objects in one [`Request::Objects`] at most: with SHA-256 they take half of a line.
pub const OBJECTS_LIMIT: usize = 8192;
/// Paths in a failure, so that its line stays short enough.
const PATHS_MAX: usize = 1000;

/// A request with the protocol version its sender speaks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What a client can ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Whether a daemon is there: answered by [`Answer::Pong`].
    Ping,
    /// Mount a repository.
    Mount(MountRequest),
    /// Unmount a workspace.
    Unmount {
        /// A mount path or a workspace name.
        target: String,
        /// Detach even while files are open.
        force: bool,
        /// Forget the workspace as well.
        purge: bool,
    },
    /// All workspaces.
    List,
    /// One workspace, or all of them.
    Status {
        /// A path in a mount, a mount path or a workspace name.
        target: Option<String>,
    },
    /// What of a workspace can't be read without a network.
    OfflineReady {
        /// A path in a mount, a mount path or a workspace name.
        target: String,
        /// Git pathspecs relative to the workspace's root; none means everything.
        pathspecs: Vec<String>,
    },
    /// Retry a preparation that failed.
    Prepare {
        /// A mount path or a workspace name.
        target: String,
    },
    /// Fetch what a generation, a revision or a pathspec names, ahead of use.
    Warm(WarmRequest),
    /// A workspace's history: how it is, or whether more is to be fetched. Answered by [`Answer::Workspaces`].
    History {
        /// A mount path or a workspace name.
        target: String,
        /// What is to change.
        action: Option<HistoryAction>,
    },
    /// Move a workspace to another commit without writing files.
    Switch(SwitchRequest),
    /// Fetch the remote's refs.
    Refresh(RefreshRequest),
    /// Take out what nothing keeps.
    Gc(GcRequest),
    /// Write a commit and its files into a file, for a machine without a network.
    Export(ExportRequest),
    /// Take such a file in.
    Import {
        /// The file, absolute.
        file: PathBuf,
    },
    /// Fetch what a commit's pathspecs select, and keep it.
    Pin(PinRequest),
    /// Keep it no longer. Answered by [`Answer::Pins`] with those that were taken away.
    Unpin(UnpinRequest),
    /// Something that only reads (`daemon/facts`).
    Facts(super::facts::Question),
    /// Check every stored byte.
    Verify(super::verify::VerifyRequest),
    /// Everyone who waits for an object now.
    Waits,
    /// All metrics as Prometheus text.
    Metrics,
    /// What changed in a workspace since `token` (the fsmonitor hook asks).
    Fsmonitor {
        /// The workspace's number.
        workspace: u64,
        /// The token Git kept from the last answer.
        token: String,
        /// The process of the Git command, if it is one that writes trees.
        #[serde(default)]
        writer: Option<u32>,
    },
    /// Objects of a repository, of whatever kind (the object door asks): [`Answer::Objects`], then frames.
    Objects {
        /// The repository's number.
        repository: u64,
        /// Which ones, each once, [`OBJECTS_LIMIT`] at most.
        ids: Vec<ObjectIdText>,
    },
    /// End the daemon after unmounting everything; workspaces stay known and are mounted again at the next start.
    Shutdown,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
/// `larder mount`, arguments checked by the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountRequest {
    /// The repository, as given; relative paths were made absolute by the client.
    pub repository: String,
    /// The mount point, absolute.
    pub path: PathBuf,
    /// Branch, tag, full ref or commit id; `None` is the remote's HEAD.
    pub rev: Option<String>,
    /// Workspace name; `None` derives it from the path.
    pub name: Option<String>,
    /// History to fetch.
    pub depth: Depth,
    /// Whether the rest of it is to follow in the background.
    #[serde(default)]
    pub history: bool,
    /// Return at once; the mount waits until it is ready.
    pub r#async: bool,
    /// Publish nothing unless the revision is exactly this commit (hexadecimal).
    pub require_commit: Option<String>,
    /// Use this gitdir, prepared elsewhere.
    pub gitdir: Option<PathBuf>,
    /// Accept everything from a server without filters, whatever its size.
    pub allow_full: bool,
    /// Warm all of it in the background once it is mounted.
    pub warm: bool,
    /// Refuse writing.
    #[serde(default)]
    pub read_only: bool,
    /// Seconds between two fetches from the remote; `None`: only when asked to.
    #[serde(default)]
    pub refresh_seconds: Option<u64>,
    /// Ask the remote for nothing, now and later.
    #[serde(default)]
    pub offline: bool,
    /// The daemon was started for this: what it mounted again by itself may be what is asked for.
    #[serde(default)]
    pub started: bool,
    /// Environment of the client that credential helpers and ssh need (`SSH_AUTH_SOCK`, `*_proxy`, `GIT_*`, `HOME`, `PATH`…).
    pub environment: Vec<(String, String)>,
}

/// `larder warm`, arguments checked by the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WarmRequest {
    /// A mount path or a workspace name.
    pub target: String,
    /// Git pathspecs relative to the workspace's root; none means everything.
    pub pathspecs: Vec<String>,
    /// Branch, tag, full ref or commit id; `None` is what the workspace shows.
    pub rev: Option<String>,
    /// Files above this many raw bytes are left out.
    pub limit: Option<u64>,
    /// Return at once; go on after the client left, and after the daemon was killed.
    pub background: bool,
    /// As in [`MountRequest::environment`]; needed for `rev` alone.
    pub environment: Vec<(String, String)>,
}

/// What can't be read without a network: the fields of `larder status --offline-ready --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyReport {
    /// The workspace.
    pub workspace: String,
    /// Whether everything that was selected can be read.
    pub ready: bool,
    /// Distinct blobs that are nowhere on this machine.
    pub missing_objects: u64,
    /// Raw bytes of those whose size is known.
    pub missing_bytes: u64,
    /// How many of them have a size that is not known.
    pub unknown_sizes: u64,
    /// Files that can't be read, lossy, in the order of the walk.
    pub paths: Vec<String>,
    /// Further ones.
    pub paths_left_out: u64,
}

/// `larder pin`: what the words mean is for the daemon to find out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinRequest {
    /// A mount path or a workspace name.
    pub target: String,
    /// The words before `--`: a revision first, perhaps, and pathspecs.
    pub words: Vec<String>,
    /// The words after `--`, which are pathspecs.
    pub only_pathspecs: Vec<String>,
    /// As in [`MountRequest::environment`].
    pub environment: Vec<(String, String)>,
}

/// `larder unpin`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnpinRequest {
    /// These pins; none goes unless all of them are there.
    Numbers(Vec<u64>),
    /// All pins of these workspaces.
    AllOf(Vec<String>),
}

/// What pinning did: the fields of `larder pin --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PinReport {
    /// The pin's number.
    pub number: u64,
    /// Its workspace.
    pub workspace: String,
    /// The commit.
    pub commit: String,
    /// Git pathspecs; none means everything.
    pub pathspecs: Vec<String>,
    /// It was there already, and was completed.
    pub existed: bool,
    /// What was fetched for it.
    #[serde(flatten)]
    pub warmed: WarmReport,
}

/// A pin: a row of `larder pins --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRow {
    /// Its number.
    pub number: u64,
    /// Its workspace.
    pub workspace: String,
    /// The commit.
    pub commit: String,
    /// Git pathspecs; none means everything.
    pub pathspecs: Vec<String>,
    /// When it was pinned, RFC 3339.
    pub created: String,
    /// Distinct blobs it selects.
    pub objects: u64,
    /// Those of them in the cache.
    pub cached_objects: u64,
    /// Raw bytes of those.
    pub raw_bytes: u64,
    /// Bytes those take in the store.
    pub stored_bytes: u64,
    /// Whether all of them are in the cache, and all trees.
    pub complete: bool,
}

/// `larder switch`, arguments checked by the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SwitchRequest {
    /// A mount path or a workspace name.
    pub target: String,
    /// Branch, tag, commit id, `-`, or any other revision the gitdir can tell.
    pub rev: String,
    /// As in [`MountRequest::environment`].
    pub environment: Vec<(String, String)>,
}

/// What a switch did: the fields of `larder switch --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SwitchReport {
    /// The workspace.
    pub workspace: String,
    /// The commit it was at.
    pub previous_commit: String,
    /// The commit it is at.
    pub commit: String,
    /// The branch HEAD is on; `None` when it is detached.
    pub branch: Option<String>,
    /// Whether that branch was created.
    pub branch_created: bool,
    /// The generation it shows.
    pub generation: u64,
    /// Paths that are not the same in both commits.
    pub paths_changed: u64,
    /// Paths with local changes that were kept.
    pub paths_kept: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
}

/// `larder refresh`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefreshRequest {
    /// A mount path or a workspace name; `None`: the repositories of all mounted workspaces.
    pub target: Option<String>,
    /// As in [`MountRequest::environment`].
    pub environment: Vec<(String, String)>,
}

/// What a refresh of one repository did: a row of `larder refresh --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RefreshReport {
    /// Where it was fetched from, without credentials.
    pub repository: String,
    /// Refs that are new or moved.
    pub updated: Vec<UpdatedRef>,
    /// Time it took, in seconds.
    pub seconds: f64,
}

/// A ref that a refresh moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatedRef {
    /// Its full local name.
    pub name: String,
    /// Where it was; `None`: it is new.
    pub from: Option<String>,
    /// Where it is.
    pub to: String,
}

/// What warming did: the fields of `larder warm --json` (CLI.md). Objects are distinct blobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WarmReport {
    /// Those that were selected: fetched, cached already or left out.
    pub objects_wanted: u64,
    /// Those that were fetched.
    pub objects_fetched: u64,
    /// Those that were in the cache before.
    pub objects_already_cached: u64,
    /// Those above the limit.
    pub objects_left_out: u64,
    /// Raw bytes of those that were fetched.
    pub bytes_fetched: u64,
    /// Requests sent to the remote.
    pub requests: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// It goes on in the background; the other fields say how far it is.
    pub background: bool,
}

/// `larder gc`, arguments checked by the client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GcRequest {
    /// Only tell what would go.
    pub dry_run: bool,
    /// Stored bytes of all blobs at most.
    pub max_size: Option<u64>,
    /// What was not used for so many seconds goes.
    pub max_age_seconds: Option<u64>,
    /// Generations kept of a workspace beside the one it shows; `None`: as set.
    pub generations: Option<usize>,
    /// Give freed space back to the file system.
    pub compact: bool,
}

/// What a collection did, or would do: the fields of `larder gc --json` (CLI.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GcReport {
    /// Nothing was done.
    pub dry_run: bool,
    /// Blobs and trees that went.
    pub freed_objects: u64,
    /// Stored bytes of those blobs.
    pub freed_bytes: u64,
    /// Of those objects, trees.
    pub trees: u64,
    /// Blobs that stay.
    pub kept_objects: u64,
    /// Their stored bytes.
    pub kept_bytes: u64,
    /// Generations that went.
    pub generations_dropped: u64,
    /// Bytes the store's file occupied before.
    pub file_bytes_before: u64,
    /// Bytes it occupies now.
    pub file_bytes_after: u64,
    /// Whether freed space was given back to the file system.
    pub compacted: bool,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Those generations.
    pub generations: Vec<GcGeneration>,
    /// Where the blobs were, the largest directories first.
    pub rows: Vec<GcRow>,
    /// Directories that are not among them.
    pub rows_left_out: u64,
    /// Files and directories of Larder's that nothing belonged to.
    pub leftovers: Vec<GcLeftover>,
    /// What could not be done, and why.
    pub notes: Vec<String>,
}

/// A generation that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcGeneration {
    /// Its workspace.
    pub workspace: String,
    /// Its number.
    pub generation: u64,
    /// Its commit.
    pub commit: String,
    /// Why it went.
    pub why: String,
}

/// A directory from which blobs went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRow {
    /// Why.
    pub why: String,
    /// The generation that named them; `None`: none that is known did (history that was read, for one).
    pub of: Option<String>,
    /// The directory, lossy; the root is empty.
    pub directory: String,
    /// Blobs.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// The largest of them, by name, lossy.
    pub files: Vec<String>,
}

/// A file or directory that nothing belonged to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcLeftover {
    /// Where.
    pub path: PathBuf,
    /// What it is, and why it can go.
    pub why: String,
    /// Its size in bytes, with everything in it.
    pub bytes: u64,
}

/// `larder cache export`, arguments checked by the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExportRequest {
    /// The file to write, absolute.
    pub file: PathBuf,
    /// A mount path or a workspace name.
    pub target: String,
    /// Git pathspecs relative to the workspace's root; none means everything.
    pub pathspecs: Vec<String>,
}

/// What was carried: the fields of `larder cache export --json` and `larder cache import --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarryReport {
    /// The file.
    pub file: PathBuf,
    /// Where the repository is fetched from, without credentials.
    pub repository: String,
    /// The branch or tag at the commit, by its full name.
    pub reference: Option<String>,
    /// The commit.
    pub commit: String,
    /// Its root tree.
    pub tree: String,
    /// What was selected; empty is everything.
    pub pathspecs: Vec<String>,
    /// Blobs in the file.
    pub objects: u64,
    /// Trees in the file.
    pub trees: u64,
    /// Of those blobs and trees, the ones that were there before: in the unfinished file, or in the cache.
    pub skipped: u64,
    /// Blobs that the export fetched from the remote first.
    pub fetched: u64,
    /// Bytes of everything in the file before it was compressed.
    pub raw_bytes: u64,
    /// Bytes of the same in the file.
    pub stored_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
}

/// A generation: a row of `larder generations --json` (CLI.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRow {
    /// Its number.
    pub generation: u64,
    /// Its commit.
    pub commit: String,
    /// When it was published, RFC 3339.
    pub created: String,
    /// What published it: `mount`, `switch`, `commit`, `refresh`.
    pub origin: String,
    /// `current`, `kept`, or `expired`: the next collection drops it.
    pub state: String,
    /// Whether the workspace shows it.
    pub current: bool,
    /// Whether a pin holds its tree.
    pub pinned: bool,
    /// Files in it.
    pub files: u64,
    /// What keeps it, in words.
    pub kept_by: Vec<String>,
    /// Blobs in the cache that would go with it; `None`: nobody asked for it.
    pub frees_objects: Option<u64>,
    /// Their stored bytes.
    pub frees_bytes: Option<u64>,
}

/// Seconds since 1970 UTC as RFC 3339.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Milliseconds since 1970 UTC as RFC 3339.
pub fn rfc3339_ms(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(|_| String::new(), |time| time.to_string())
}

/// What the daemon sends back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A preparation is under way.
    Progress(Progress),
    /// The request was carried out.
    Done(Answer),
    /// It was not.
    Failed(Failure),
}

/// How far a preparation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for people: `connecting`, `fetching trees`, `writing index`…
    pub phase: String,
    /// Objects received.
    pub objects: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Objects in all, once that is known.
    pub total_objects: Option<u64>,
}

/// A result.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Ping`].
    Pong {
        /// Larder's version.
        version: String,
        /// The daemon's process id.
        pid: u32,
    },
    /// To requests that only succeed.
    Ok,
    /// To [`Request::Mount`], [`Request::Status`], [`Request::List`], [`Request::Prepare`].
    Workspaces(Vec<WorkspaceStatus>),
    /// To [`Request::OfflineReady`].
    OfflineReady(ReadyReport),
    /// To [`Request::Warm`].
    Warmed(WarmReport),
    /// To [`Request::Switch`].
    Switched(SwitchReport),
    /// To [`Request::Refresh`].
    Refreshed(Vec<RefreshReport>),
    /// To [`Request::Gc`].
    Collected(Box<GcReport>),
    /// To [`Request::Export`] and [`Request::Import`].
    Carried(Box<CarryReport>),
    /// To [`Request::Pin`].
    Pinned(PinReport),
    /// To [`Request::Unpin`].
    Pins(Vec<PinRow>),
    /// To [`Request::Facts`].
    Facts(super::facts::Finding),
    /// To [`Request::Verify`].
    Verified(Box<super::verify::VerifyReport>),
    /// To [`Request::Waits`].
    Waits(Vec<Wait>),
    /// To [`Request::Metrics`]: Prometheus text.
    Text(String),
    /// To [`Request::Objects`]: they follow in frames (`daemon/objects.rs`).
    Objects,
    /// To [`Request::Fsmonitor`].
    Changes {
        /// The token to ask with next time.
        token: String,
        /// Everything may have changed.
        everything: bool,
        /// Changed paths, relative to the workspace, as bytes.
        paths: Vec<Vec<u8>>,
    },
}

/// The fields of `larder status --json` (CLI.md).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkspaceStatus {
    /// Name.
    pub workspace: String,
    /// Mount path.
    pub path: PathBuf,
    /// State.
    pub state: WorkspaceState,
    /// Where it is fetched from, without credentials.
    pub repository: String,
    /// The revision asked for, or the branch the remote's HEAD named.
    pub rev: Option<String>,
    /// Current commit.
    pub commit: Option<String>,
    /// Current generation.
    pub generation: Option<u64>,
    /// Files in it.
    pub files: u64,
    /// Of this generation's distinct blobs, those in the cache.
    pub hydrated_objects: u64,
    /// Their raw bytes.
    pub hydrated_bytes: u64,
    /// Whether these two are still being counted, and are what was seen so far.
    #[serde(default)]
    pub counting: bool,
    /// Local changes.
    pub overlay_entries: u64,
    /// Wants waiting for a connection.
    pub queue_depth: u64,
    /// Objects on a connection now.
    pub inflight_objects: u64,
    /// Whether the last exchange with the remote failed for want of a network.
    pub offline: bool,
    /// Whether it was mounted with `--offline`, and so asks its remote for nothing.
    #[serde(default)]
    pub stays_offline: bool,
    /// Why the last preparation or fetch failed.
    pub last_error: Option<String>,
    /// The worktree's gitdir.
    pub gitdir: Option<PathBuf>,
    /// How much of the repository's history is here.
    #[serde(default)]
    pub history: HistoryStatus,
    /// When the cache was last tidied, and what that did.
    #[serde(default)]
    pub last_gc: Option<super::gc::LastGc>,
}

/// How much of a repository's history is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// Whether it is whole, or what goes on.
    pub state: HistoryState,
    /// Commits here, where they were fetched in the background.
    pub commits: Option<u64>,
    /// Why it is off, or did not go on.
    pub reason: Option<String>,
}

/// Whether a history is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryState {
    /// All of it is here.
    Complete,
    /// The rest is being fetched, or will be when a daemon runs and the remote answers.
    Fetching,
    /// Not now.
    Paused,
    /// Nobody wants more than there is.
    #[default]
    Off,
    /// It can't be.
    Failed,
}

/// What `larder history` changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryAction {
    /// Fetch no more for now.
    Pause,
    /// Go on.
    Resume,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitKind {
    /// An object's bytes: a read.
    Object,
    /// Sizes without contents.
    Sizes,
    /// A warm, for objects ahead of use or for a place in the queue.
    Warm,
}

/// One waiter (`larder waits`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wait {
    /// What is waited for.
    pub kind: WaitKind,
    /// Workspace name.
    pub workspace: String,
    /// The object; empty where it is many.
    pub oid: String,
    /// The path it was wanted under, lossy; the pathspecs of a warm.
    pub path: String,
    /// Milliseconds it has waited.
    pub waited_ms: u64,
    /// Where it is: `queued` or `batch N on connection M`.
    pub behind: String,
    /// Failed attempts so far.
    pub retries: u32,
}

/// Why a request was not carried out; the kind decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Exit 2.
    Usage,
    /// Exit 3.
    NotFound,
    /// Exit 4: offline, or the remote failed or refused.
    Remote,
    /// Exit 5: corrupt or hostile data.
    Corrupt,
    /// Exit 6: busy, denied, would lose work.
    Refused,
    /// Exit 1.
    Other,
}

/// A failed request.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class.
    pub class: FailureClass,
    /// What failed and why, one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The paths in the workspace it is about, where there are any; lossy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, paths: Vec::new() }
    }

    /// The same failure with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with the paths it is about.
    #[must_use]
    pub fn paths<'a>(mut self, paths: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        self.paths = paths.take(PATHS_MAX).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        self
    }
}
