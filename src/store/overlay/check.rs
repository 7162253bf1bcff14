//! Whether the rows of local changes agree with each other, and which plain files they need.
//!
//! Reads tables and write-ahead files; changes nothing, so it can be asked of a workspace that nobody has open.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use redb::{ReadOnlyTable, ReadTransaction};

use super::super::Store;
use super::super::error::{Failure, StoreError};
use super::super::record::WorkspaceId;
use super::super::row::unseal;
use super::super::schema::{FOLDED, JOURNAL, JOURNAL_PATHS, NODES, OVERLAY, WORKSPACES};
use super::super::verify::{Key, Problem, Subject, Watch};
use super::record::{Binding, Content, Folded, Node};
use super::{binding_key, node_key, wal};

/// The root's inode, as the kernel numbers it.
const ROOT: u64 = 1;

/// Deepest path that is told; a longer way up is a circle.
const DEPTH_MAX: usize = 4096;

/// Nodes read in one transaction.
const PAGE_NODES: usize = 1024;

const ROW: &str = "its row is damaged";

/// Who needs a plain file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The inode.
    pub ino: u64,
    /// Its path, as far as it is known.
    pub path: Vec<u8>,
    /// Whether bytes were certainly written to the file, so that it has to be there. Where nothing was ever written it is
    /// not.
    pub written: bool,
}

/// What the rows and write-ahead files of a workspace refer to.
#[derive(Clone, Debug, Default)]
pub struct Referred {
    /// Plain files by number.
    pub files: BTreeMap<u64, Holder>,
    /// Objects that moved or touched files and directories rest on: the object, whether it is a tree, and the path.
    pub objects: Vec<(gix::ObjectId, bool, Vec<u8>)>,
}

impl Node {
    /// Whether bytes were certainly written to the plain file of inode `ino`, in a workspace whose untouched files have
    /// the time `base_seconds`.
    ///
    /// A file of the base gets its plain file when it is first changed, and keeps its time in the row; only one that was
    /// cut to nothing has none, and has a new time. A file that somebody made has a row with three equal times until bytes
    /// come, which are first noted in the row.
    pub fn has_bytes(&self, ino: u64, base_seconds: i64) -> bool {
        const LOCAL: u64 = 1 << 62;
        if !matches!(self.content, Content::File(_)) || !self.is_regular() {
            return false;
        }
        if ino < LOCAL {
            return self.mtime.seconds == base_seconds && self.mtime.nanos == 0;
        }
        self.mtime == self.ctime && self.mtime != self.atime
    }
}

impl Store {
    /// Checks the rows of local changes of all workspaces: seals, and whether names, inodes and journal agree.
    pub fn check_overlays(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        self.each(OVERLAY, watch, |txn, (workspace, parent, name), row| {
            let workspace = WorkspaceId(workspace);
            let text = match decode(&binding_key(workspace, parent, name), row) {
                None => ROW.to_owned(),
                Some(Binding::Whiteout) => return Ok(None),
                Some(Binding::Inode { ino, .. }) => {
                    if txn.open_table(NODES)?.get((workspace.0, ino))?.is_some() {
                        return Ok(None);
                    }
                    format!("it leads to inode {ino}, about which there is no row")
                }
            };
            let path = path_below(&nodes(txn)?, &HashMap::new(), workspace, parent, name)?;
            Ok(Some(Problem::new(local_row("overlay", parent), text).at(workspace, Some(path))))
        })?;
        self.each(NODES, watch, |txn, (workspace, ino), row| {
            let workspace = WorkspaceId(workspace);
            let problem = |text: String| Problem::new(local_row("overlay_nodes", ino), text);
            let Some(node) = decode::<Node>(&node_key(workspace, ino), row) else {
                return Ok(Some(problem(ROW.to_owned()).at(workspace, None)));
            };
            let bindings = txn.open_table(OVERLAY)?;
            for (parent, name) in &node.links {
                let binding = bindings.get((workspace.0, *parent, &**name))?;
                let binding = binding.and_then(|row| decode(&binding_key(workspace, *parent, name), row.value()));
                if !matches!(binding, Some(Binding::Inode { ino: there, .. }) if there == ino) {
                    let path = path_below(&nodes(txn)?, &HashMap::new(), workspace, *parent, name)?;
                    let text = format!("inode {ino} says it is called so, and the name does not lead to it");
                    return Ok(Some(problem(text).at(workspace, Some(path))));
                }
            }
            Ok(None)
        })?;
        self.each(FOLDED, watch, |_, workspace, row: &[u8]| {
            let json = unseal(&workspace.to_le_bytes(), row);
            let good = json.is_some_and(|json| serde_json::from_slice::<Folded>(json).is_ok());
            let problem = || Problem::new(local_row("overlay_folded", workspace), ROW);
            Ok((!good).then(|| problem().at(WorkspaceId(workspace), None)))
        })?;
        self.check_journals(watch)
    }

    fn check_journals(&self, watch: &dyn Watch) -> Result<(), StoreError> {
        let text = "the journal of changes and the paths in it do not agree";
        self.each(JOURNAL, watch, |txn, (workspace, sequence), path: &[u8]| {
            let last = txn.open_table(JOURNAL_PATHS)?.get((workspace, path))?.map(|last| last.value());
            let problem = || Problem::new(local_row("journal", sequence), text);
            Ok((last != Some(sequence)).then(|| problem().at(WorkspaceId(workspace), Some(path.to_vec()))))
        })?;
        self.each(JOURNAL_PATHS, watch, |txn, (workspace, path), sequence: u64| {
            let there = txn.open_table(JOURNAL)?.get((workspace, sequence))?;
            let good = there.is_some_and(|there| there.value() == path);
            let problem = || Problem::new(local_row("journal_paths", sequence), text);
            Ok((!good).then(|| problem().at(WorkspaceId(workspace), Some(path.to_vec()))))
        })
    }

    /// What the rows of `workspace` refer to, and the write-ahead files in `directory` where nobody has them open.
    pub fn referred(
        &self,
        workspace: WorkspaceId,
        directory: Option<&Path>,
        base_seconds: i64,
    ) -> Result<Referred, StoreError> {
        let mut newer: HashMap<u64, Option<Node>> = HashMap::new();
        let mut written: HashMap<u64, bool> = HashMap::new();
        if let Some(directory) = directory {
            self.replay(workspace, directory, &mut newer, &mut written)?;
        }
        let mut referred = Referred::default();
        let mut from = Some(0);
        while let Some(first) = from {
            let page = self.inner.read("reading local changes", |txn| {
                let table = nodes(txn)?;
                let mut page = Vec::new();
                for row in table.range((workspace.0, first)..=(workspace.0, u64::MAX))?.take(PAGE_NODES) {
                    let (key, row) = row?;
                    let ino = key.value().1;
                    let node = decode::<Node>(&node_key(workspace, ino), row.value());
                    let node = node.filter(|_| !newer.contains_key(&ino));
                    let path = match &node {
                        Some(node) => path_of(&table, &newer, workspace, node)?,
                        None => Vec::new(),
                    };
                    page.push((ino, node, path));
                }
                Ok(page)
            })?;
            from = page.last().and_then(|(ino, ..)| ino.checked_add(1));
            for (ino, node, path) in page {
                if let Some(node) = node {
                    referred.note(ino, &node, path, base_seconds);
                }
            }
        }
        for (ino, node) in &newer {
            let Some(node) = node else { continue };
            let path =
                self.inner.read("reading local changes", |txn| path_of(&nodes(txn)?, &newer, workspace, node))?;
            referred.note(*ino, node, path, base_seconds);
        }
        for (number, made) in written {
            if let Some(holder) = referred.files.get_mut(&number) {
                holder.written = made;
            }
        }
        Ok(referred)
    }

    /// Replays what is not folded yet. `written`: of the files that are mentioned, whether they were made.
    fn replay(
        &self,
        workspace: WorkspaceId,
        directory: &Path,
        newer: &mut HashMap<u64, Option<Node>>,
        written: &mut HashMap<u64, bool>,
    ) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::from_io(&format!("reading {}", directory.display()), &error);
        if !directory.exists() {
            return Ok(());
        }
        let folded = super::fold::read(self, workspace)?.map_or(0, |folded| folded.wal);
        for number in wal::numbers(directory).map_err(failed)?.into_iter().filter(|number| *number > folded) {
            wal::replay(directory, number, |change| {
                newer.extend(change.nodes);
                for bytes in change.bytes {
                    written.insert(bytes.number, false);
                }
                for number in change.released {
                    written.insert(number, true);
                }
            })
            .map_err(failed)?;
        }
        Ok(())
    }

    /// Workspaces that have rows of local changes and no row of their own.
    pub fn stray_overlays(&self) -> Result<Vec<u64>, StoreError> {
        self.inner.read("looking for local changes", |txn| {
            let (nodes, workspaces) = (nodes(txn)?, txn.open_table(WORKSPACES)?);
            let mut strays = Vec::new();
            let mut from = 0;
            while let Some(row) = nodes.range((from, 0)..)?.next() {
                let workspace = row?.0.value().0;
                if workspaces.get(workspace)?.is_none() {
                    strays.push(workspace);
                }
                let Some(next) = workspace.checked_add(1) else { break };
                from = next;
            }
            Ok(strays)
        })
    }
}

impl Referred {
    /// Adds what `node` refers to.
    pub fn note(&mut self, ino: u64, node: &Node, path: Vec<u8>, base_seconds: i64) {
        match &node.content {
            Content::File(number) => {
                let written = node.has_bytes(ino, base_seconds);
                self.files.insert(*number, Holder { ino, path, written });
            }
            Content::Blob(id) => self.objects.push((*id, false, path)),
            Content::Tree(id) => self.objects.push((*id, true, path)),
            Content::Base | Content::Empty | Content::Target(_) => {}
        }
    }
}

type Nodes = ReadOnlyTable<(u64, u64), &'static [u8]>;

fn nodes(txn: &ReadTransaction) -> Result<Nodes, Failure> {
    Ok(txn.open_table(NODES)?)
}

fn local_row(table: &'static str, number: u64) -> Subject {
    Subject::Row { table, key: Key::Words(number.to_string()) }
}

fn decode<T: serde::de::DeserializeOwned>(key: &[u8], row: &[u8]) -> Option<T> {
    postcard::from_bytes(unseal(key, row)?).ok()
}

/// The first path of a node; empty for the root and for what has no name.
fn path_of(
    nodes: &Nodes,
    newer: &HashMap<u64, Option<Node>>,
    workspace: WorkspaceId,
    node: &Node,
) -> Result<Vec<u8>, Failure> {
    match node.links.first() {
        Some((parent, name)) => path_below(nodes, newer, workspace, *parent, name),
        None => Ok(Vec::new()),
    }
}

/// The path of `name` in `parent`; from where it is known on, should a row above it be missing.
fn path_below(
    nodes: &Nodes,
    newer: &HashMap<u64, Option<Node>>,
    workspace: WorkspaceId,
    parent: u64,
    name: &[u8],
) -> Result<Vec<u8>, Failure> {
    let mut parts = vec![name.to_vec()];
    let mut at = parent;
    while at != ROOT && parts.len() < DEPTH_MAX {
        let node = match newer.get(&at) {
            Some(node) => node.clone(),
            None => nodes.get((workspace.0, at))?.and_then(|row| decode(&node_key(workspace, at), row.value())),
        };
        let Some((above, name)) = node.and_then(|node| node.links.into_iter().next()) else { break };
        parts.push(name.into_vec());
        at = above;
    }
    parts.reverse();
    Ok(parts.join(&b'/'))
}
