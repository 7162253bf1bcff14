//! The rows people would recognise: repositories, workspaces, generations.
//!
//! They are few, so they are stored as JSON: readable in a dump, and a field
//! added with a default needs no migration.

use std::path::PathBuf;

use gix::ObjectId;
use serde::{Deserialize, Serialize};

/// A repository's number in this store; given once, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RepositoryId(pub u64);

/// A workspace's number in this store; given once, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkspaceId(pub u64);

/// A generation's number within its workspace: 1, 2, 3…; numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// One remote and its partial gitdir, shared by all its workspaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its number.
    pub id: RepositoryId,
    /// Where it is fetched from, as given but without credentials.
    pub url: String,
    /// The common gitdir.
    pub gitdir: PathBuf,
    /// Whether the gitdir was prepared elsewhere (`--gitdir`): never removed by Larder.
    pub external_gitdir: bool,
}

/// What a workspace is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceState {
    /// Fetching its first commit and trees.
    Preparing,
    /// Mounted and readable.
    Ready,
    /// Its preparation failed; `larder prepare` tries again.
    Failed,
    /// Known, not mounted.
    Unmounted,
}

/// How much history a preparation fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// That many commits from the tip.
    Commits(u32),
    /// All of it.
    Full,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, and a field of its own in the JSON")]
/// One mounted working tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Its number.
    pub id: WorkspaceId,
    /// Its name, unique among workspaces.
    pub name: String,
    /// Where it is mounted (absolute).
    pub path: PathBuf,
    /// Its repository.
    pub repository: RepositoryId,
    /// The revision asked for; `None` is the remote's HEAD.
    pub rev: Option<String>,
    /// The full name of the ref that `rev` turned out to be, if it was one.
    #[serde(default)]
    pub reference: Option<String>,
    /// The commit the revision must resolve to, when one was demanded.
    pub require_commit: Option<ObjectIdText>,
    /// History to fetch.
    pub depth: Depth,
    /// What it is doing.
    pub state: WorkspaceState,
    /// The generation it shows, once prepared.
    pub current: Option<Generation>,
    /// Why preparing failed, in one line.
    pub last_error: Option<String>,
    /// Owner of everything the mount shows.
    pub uid: u32,
    /// Group of everything the mount shows.
    pub gid: u32,
    /// Whether the server may send everything when it has no filters.
    pub allow_full: bool,
    /// Its entry in the gitdir: HEAD, index, hook.
    #[serde(default)]
    pub admin: Option<PathBuf>,
    /// Whether it is to be mounted again when the daemon starts.
    pub mounted: bool,
    /// Whether the mount refuses writing.
    #[serde(default)]
    pub read_only: bool,
    /// Time of everything in it that was never touched, seconds since 1970 UTC: that of its first commit, so that nothing
    /// looks changed to `make` and Git when another commit is published.
    #[serde(default)]
    pub base_time: Option<i64>,
    /// A `larder switch` that is under way: recorded before anything of it can be seen, taken back at its end.
    #[serde(default)]
    pub switching: Option<Switching>,
    /// Seconds between two fetches from the remote; `None`: only when asked to.
    #[serde(default)]
    pub refresh_seconds: Option<u64>,
    /// Whether it was mounted with `--offline`: nothing is asked of its remote until it is mounted again without that.
    #[serde(default)]
    pub offline: bool,
}

/// What is left to do of a switch once its generation is published: HEAD moves, then the prepared index takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switching {
    /// The commit it goes to. It has happened if this is what the current generation shows.
    pub commit: ObjectIdText,
    /// The branch HEAD is to be on (full name); `None` detaches it.
    pub branch: Option<String>,
    /// What the user called it.
    pub named: String,
    /// The branch HEAD was on.
    pub from_branch: Option<String>,
    /// The commit HEAD was at.
    pub from_commit: Option<ObjectIdText>,
    /// Who switches, for the reflog: name, address, seconds east of UTC.
    pub committer: (String, String, i32),
    /// When: seconds since 1970 UTC.
    pub at: i64,
}

/// One published commit's tree in one workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Its number.
    pub generation: Generation,
    /// The commit.
    pub commit: ObjectIdText,
    /// The commit's root tree.
    pub tree: ObjectIdText,
    /// Committer time, seconds since 1970 UTC.
    pub commit_time: i64,
    /// Files, symlinks and gitlinks in it.
    pub files: u64,
    /// When it was published, seconds since 1970 UTC.
    pub created: i64,
    /// What published it: `mount`, `switch`, `commit`, `refresh`.
    pub origin: String,
}

/// A warm that goes on after a restart. Not a list of objects: what the store lacks is found again by walking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWarm {
    /// Its number.
    pub id: u64,
    /// For which workspace.
    pub workspace: WorkspaceId,
    /// The tree to walk.
    pub root: ObjectIdText,
    /// Git pathspecs; none means everything.
    pub pathspecs: Vec<String>,
    /// Larger blobs are left out (raw bytes).
    pub max_blob_bytes: Option<u64>,
}

/// What garbage collection and eviction keep, whether a workspace shows it or not: a commit's trees, and of its files
/// those that pathspecs select.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its number, from 1 on.
    pub id: u64,
    /// For which workspace; it goes when that one is purged.
    pub workspace: WorkspaceId,
    /// The commit.
    pub commit: ObjectIdText,
    /// The commit's root tree.
    pub tree: ObjectIdText,
    /// Git pathspecs relative to the root; none means everything.
    pub pathspecs: Vec<String>,
    /// When it was pinned, seconds since 1970 UTC.
    pub created: i64,
}

/// An object id that is hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectIdText(pub ObjectId);

impl Serialize for ObjectIdText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ObjectIdText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        ObjectId::from_hex(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}
