//! The overlay against plain maps: random operations, other bases in between, folds and restarts.

use std::collections::{BTreeMap, HashMap};

use gix::ObjectId;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::names::New;
use super::reconcile::Rule;
use super::rename::{At, Existing};
use super::*;
use crate::index::overlay::listing::RowKind;
use crate::store::{
    Batch, Depth, Entry, Generation, GenerationRecord, Listing, ObjectIdText, RepositoryId, StoreOptions, Workspace,
    WorkspaceState,
};

/// A working tree: path → content of a file, or `None` for a directory.
type Model = BTreeMap<String, Option<u8>>;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the kernel would know: everything that was ever looked up.
#[derive(Default)]
struct Known {
    places: Mutex<HashMap<Ino, (Ino, Name)>>,
    blobs: Mutex<HashMap<Ino, (EntryKind, ObjectId)>>,
}

impl Ground for Known {
    fn place(&self, ino: Ino) -> Option<(Ino, Name)> {
        self.places.lock().get(&ino).cloned()
    }
    fn moved(&self, ino: Ino, parent: Ino, name: &[u8]) {
        self.places.lock().insert(ino, (parent, Box::from(name)));
    }
    fn tree(&self, _: Ino, _: u64) -> Option<Option<ObjectId>> {
        None
    }
    fn note_tree(&self, _: Ino, _: u64, _: Option<ObjectId>) {}
    fn blob(&self, ino: Ino) -> Option<(EntryKind, ObjectId)> {
        self.blobs.lock().get(&ino).copied()
    }
    fn knows(&self, ino: Ino) -> bool {
        self.places.lock().contains_key(&ino)
    }
}

fn blob(content: u8) -> ObjectId {
    object_id(format!("blob 1\0{}", char::from(content)).as_bytes())
}

fn object_id(bytes: &[u8]) -> ObjectId {
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(bytes);
    hasher.try_finalize().expect("no collision")
}

/// Puts the trees of `model` below `prefix` into the store; empty directories are left out, as in Git.
fn tree(store: &Store, model: &Model, prefix: &str) -> Option<ObjectId> {
    let mut entries: Vec<(String, EntryKind, ObjectId)> = Vec::new();
    for (path, content) in model {
        let Some(name) = path.strip_prefix(prefix).filter(|name| !name.is_empty() && !name.contains('/')) else {
            continue;
        };
        match content {
            Some(content) => entries.push((name.to_owned(), EntryKind::File, blob(*content))),
            None => {
                if let Some(id) = tree(store, model, &format!("{path}/")) {
                    entries.push((name.to_owned(), EntryKind::Directory, id));
                }
            }
        }
    }
    if entries.is_empty() && !prefix.is_empty() {
        return None;
    }
    let text: Vec<String> = entries.iter().map(|(name, kind, id)| format!("{name} {kind:?} {id}\n")).collect();
    let text = text.concat();
    let id = object_id(format!("tree {text}").as_bytes());
    let packed = entries
        .iter()
        .map(|(name, kind, id)| Entry { name: name.as_bytes(), kind: *kind, mode: kind.mode(), id: *id })
        .collect();
    let mut batch = Batch::default();
    batch.tree(id, &Listing::pack(20, packed).expect("fits"));
    store.commit(batch).expect("stored");
    Some(id)
}

struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    overlay: Overlay,
    view: View,
    known: Known,
    workspace: Workspace,
}

impl Bench {
    fn new(base: &Model) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&directory.path().join("store"), &StoreOptions::default()).expect("opened");
        let workspace = Workspace {
            id: WorkspaceId(1),
            name: "w".into(),
            path: "/w".into(),
            repository: RepositoryId(1),
            rev: None,
            reference: None,
            require_commit: None,
            depth: Depth::Full,
            state: WorkspaceState::Ready,
            current: None,
            last_error: None,
            uid: 0,
            gid: 0,
            allow_full: false,
            admin: None,
            mounted: false,
            read_only: false,
            base_time: None,
            switching: None,
            refresh_seconds: None,
            offline: false,
        };
        let record = record(1, tree(&store, base, "").expect("the root"));
        let overlay = open(&store, directory.path());
        let view = View::new(store.clone(), record);
        Self { directory, store, overlay, view, known: Known::default(), workspace }
    }

    fn restart(&mut self) {
        self.overlay = open(&self.store, self.directory.path());
        self.known = Known::default();
    }

    /// Looks `path` up as the kernel would.
    fn walk(&self, path: &str) -> Option<Ino> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(Ino::ROOT, |parent, name| if self.is_directory(parent) { self.look(parent, name) } else { None })
    }

    fn look(&self, parent: Ino, name: &str) -> Option<Ino> {
        let found = match self.overlay.find(&self.view, &self.known, parent, name.as_bytes()) {
            // The kernel does not look into files.
            Err(OverlayError::NotDirectory) => return None,
            found => found.expect("found"),
        };
        let ino = found.ino()?;
        self.known.moved(ino, parent, name.as_bytes());
        if let Found::Base { kind, id, .. } = found
            && kind.is_blob()
        {
            self.known.blobs.lock().insert(ino, (kind, id));
        }
        Some(ino)
    }

    fn at<'a>(&self, path: &'a str) -> Option<(Ino, &'a str)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.walk(directory).filter(|parent| self.is_directory(*parent))?;
        Some((parent, name))
    }

    /// The visible tree.
    fn model(&self) -> Model {
        let mut model = Model::new();
        self.list(Ino::ROOT, "", &mut model);
        model
    }

    fn list(&self, directory: Ino, prefix: &str, model: &mut Model) {
        let names: Vec<String> = match self.overlay.rows(&self.view, &self.known, directory).expect("listed") {
            Some(rows) => {
                assert!(rows.rows.is_sorted_by(|a, b| a.cookie < b.cookie));
                let name = |kind: &RowKind| match kind {
                    RowKind::Bound { name, .. } => name.to_vec(),
                    RowKind::Base(at) => {
                        rows.base.as_ref().and_then(|base| base.listing().get(*at)).expect("there").name.to_vec()
                    }
                };
                rows.rows.iter().map(|row| String::from_utf8(name(&row.what)).expect("text")).collect()
            }
            None => match self.overlay.base(&self.view, &self.known, directory).expect("read") {
                Some(base) => base.listing().iter().map(|e| String::from_utf8_lossy(e.name).into_owned()).collect(),
                None => Vec::new(),
            },
        };
        let mut directories = 0;
        for name in names {
            let path = format!("{prefix}{name}");
            let found = self.overlay.find(&self.view, &self.known, directory, name.as_bytes()).expect("found");
            let ino = self.look(directory, &name).expect("listed, so there");
            if found.is_directory() {
                directories += 1;
                model.insert(path.clone(), None);
                self.list(ino, &format!("{path}/"), model);
            } else {
                model.insert(path, Some(self.content(ino)));
            }
        }
        if let Some(node) = self.overlay.node(directory).expect("read") {
            assert_eq!(node.subdirectories, directories, "of {prefix:?}");
        }
    }

    fn content(&self, ino: Ino) -> u8 {
        if let Some(bytes) = self.overlay.read(ino, 0, 9).expect("read") {
            return *bytes.first().expect("one byte");
        }
        let id = match self.overlay.node(ino).expect("read") {
            Some(node) => match node.content {
                Content::Blob(id) => id,
                ref other => panic!("{other:?}"),
            },
            None => self.known.blob(ino).expect("a blob").1,
        };
        (b'0'..=b'z').find(|content| blob(*content) == id).expect("one of ours")
    }

    fn write(&self, path: &str, content: u8) -> Result<(), OverlayError> {
        let (parent, name) = self.at(path).ok_or(OverlayError::NotFound)?;
        let ino = if let Some(ino) = self.look(parent, name) {
            ino
        } else {
            let new = New { mode: libc::S_IFREG | 0o644, uid: 0, gid: 0, rdev: 0, target: None };
            let (ino, _) = self.overlay.make(&self.view, &self.known, parent, name.as_bytes(), new)?;
            self.known.moved(ino, parent, name.as_bytes());
            ino
        };
        if self.overlay.node(ino)?.is_none_or(|node| !matches!(node.content, Content::File(_))) {
            self.overlay.empty(&self.view, &self.known, ino)?;
        }
        assert!(self.overlay.write(&self.known, ino, 0, &[content])?);
        Ok(())
    }

    fn apply(&self, operation: &Operation) -> Result<(), OverlayError> {
        match operation {
            Operation::Write(path, content) => {
                if self.walk(path).is_some_and(|ino| self.is_directory(ino)) {
                    return Err(OverlayError::IsDirectory);
                }
                self.write(path, *content)
            }
            Operation::Mkdir(path) => {
                let (parent, name) = self.at(path).ok_or(OverlayError::NotFound)?;
                let new = New { mode: libc::S_IFDIR | 0o755, uid: 0, gid: 0, rdev: 0, target: None };
                let (ino, _) = self.overlay.make(&self.view, &self.known, parent, name.as_bytes(), new)?;
                self.known.moved(ino, parent, name.as_bytes());
                Ok(())
            }
            Operation::Remove(path) => {
                let (parent, name) = self.at(path).ok_or(OverlayError::NotFound)?;
                let directory = self.look(parent, name).is_some_and(|ino| self.is_directory(ino));
                if directory {
                    self.overlay.rmdir(&self.view, &self.known, parent, name.as_bytes())
                } else {
                    self.overlay.unlink(&self.view, &self.known, parent, name.as_bytes())
                }
            }
            Operation::Rename(from, to, existing) => {
                // The kernel refuses to put a directory into itself.
                if to.starts_with(&format!("{from}/")) || from.starts_with(&format!("{to}/")) {
                    return Err(OverlayError::Invalid);
                }
                let (from, to) =
                    (self.at(from).ok_or(OverlayError::NotFound)?, self.at(to).ok_or(OverlayError::NotFound)?);
                self.look(from.0, from.1);
                self.look(to.0, to.1);
                self.overlay.rename(
                    &self.view,
                    &self.known,
                    At { parent: from.0, name: from.1.as_bytes() },
                    At { parent: to.0, name: to.1.as_bytes() },
                    *existing,
                )
            }
            _ => Ok(()),
        }
    }

    fn is_directory(&self, ino: Ino) -> bool {
        match self.overlay.node(ino).expect("read") {
            Some(node) => node.is_directory(),
            None => self.known.blob(ino).is_none(),
        }
    }

    fn reconcile(&mut self, base: &Model, rule: Rule<'_>) {
        let generation = self.view.generation().generation.0 + 1;
        let record = record(generation, tree(&self.store, base, "").expect("the root"));
        let moved =
            self.overlay.reconcile(&self.view, &self.known, rule, &record, &self.workspace).expect("reconciled");
        assert!(matches!(rule, Rule::Follow { .. }) || moved.names.is_empty(), "nothing visible changed");
        self.view = View::new(self.store.clone(), record);
    }
}

fn open(store: &Store, directory: &Path) -> Overlay {
    let defaults = Defaults { uid: 0, gid: 0, time: Stamp::default() };
    Overlay::open(store, WorkspaceId(1), &directory.join("overlay"), defaults).expect("opened")
}

fn record(generation: u64, tree: ObjectId) -> GenerationRecord {
    GenerationRecord {
        workspace: WorkspaceId(1),
        generation: Generation(generation),
        commit: ObjectIdText(tree),
        tree: ObjectIdText(tree),
        commit_time: 0,
        files: 0,
        created: 0,
        origin: "test".into(),
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Write(String, u8),
    Mkdir(String),
    Remove(String),
    Rename(String, String, Existing),
    /// Another base; nothing visible changes.
    Stay(Model),
    /// The present tree was committed.
    Commit,
    Settle,
    Fold,
    Restart,
}

/// The same on a plain map; `Err` where POSIX has an error.
fn on_model(model: &mut Model, operation: &Operation) -> Result<(), ()> {
    let parent_is_directory = |model: &Model, path: &str| {
        path.rsplit_once('/').is_none_or(|(parent, _)| matches!(model.get(parent), Some(None)))
    };
    let has_entries = |model: &Model, path: &str| model.keys().any(|key| key.starts_with(&format!("{path}/")));
    match operation {
        Operation::Write(path, content) => {
            if !parent_is_directory(model, path) || matches!(model.get(path), Some(None)) {
                return Err(());
            }
            model.insert(path.clone(), Some(*content));
        }
        Operation::Mkdir(path) => {
            if !parent_is_directory(model, path) || model.contains_key(path) {
                return Err(());
            }
            model.insert(path.clone(), None);
        }
        Operation::Remove(path) => {
            if !model.contains_key(path) || has_entries(model, path) {
                return Err(());
            }
            model.remove(path);
        }
        Operation::Rename(from, to, existing) => {
            let inside = to.starts_with(&format!("{from}/")) || from.starts_with(&format!("{to}/"));
            let (source, target) = (model.get(from).copied(), model.get(to).copied());
            let Some(source) = source.filter(|_| !inside && parent_is_directory(model, to)) else { return Err(()) };
            match (target, existing) {
                (Some(_), Existing::Refuse) | (None, Existing::Exchange) => return Err(()),
                (Some(_), _) if from == to => return Ok(()),
                (Some(target), Existing::Replace)
                    if source.is_none() != target.is_none() || (target.is_none() && has_entries(model, to)) =>
                {
                    return Err(());
                }
                _ => {}
            }
            if from == to {
                return Ok(());
            }
            let take = |model: &mut Model, path: &str| -> Model {
                let below = format!("{path}/");
                let keys: Vec<String> =
                    model.keys().filter(|key| *key == path || key.starts_with(&below)).cloned().collect();
                keys.into_iter().filter_map(|key| model.remove(&key).map(|value| (key, value))).collect()
            };
            let (moved, replaced) = (take(model, from), take(model, to));
            model.extend(moved.into_iter().map(|(key, value)| (format!("{to}{}", &key[from.len()..]), value)));
            if *existing == Existing::Exchange {
                model.extend(replaced.into_iter().map(|(key, value)| (format!("{from}{}", &key[to.len()..]), value)));
            }
        }
        _ => {}
    }
    Ok(())
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..=3).prop_map(|names| names.join("/"))
}

fn content() -> impl Strategy<Value = u8> {
    b'0'..=b'4'
}

/// A base: files, and the directories they are in.
fn base() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(path(), content(), 0..8).prop_map(|files| {
        let mut model = Model::new();
        for (path, content) in files {
            let mut above = path.as_str();
            let mut fits = !model.contains_key(&path);
            while let Some((parent, _)) = above.rsplit_once('/') {
                fits &= !matches!(model.get(parent), Some(Some(_)));
                above = parent;
            }
            if !fits {
                continue;
            }
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                model.insert(parent.to_owned(), None);
                above = parent;
            }
            model.insert(path, Some(content));
        }
        model
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let existing = prop::sample::select(vec![Existing::Replace, Existing::Refuse, Existing::Exchange]);
    prop_oneof![
        4 => (path(), content()).prop_map(|(path, content)| Operation::Write(path, content)),
        2 => path().prop_map(Operation::Mkdir),
        3 => path().prop_map(Operation::Remove),
        4 => (path(), path(), existing).prop_map(|(from, to, existing)| Operation::Rename(from, to, existing)),
        2 => base().prop_map(Operation::Stay),
        1 => Just(Operation::Commit),
        1 => Just(Operation::Settle),
        1 => Just(Operation::Fold),
        1 => Just(Operation::Restart),
    ]
}

/// What Git would keep of a tree: no empty directories.
fn committed(model: &Model) -> Model {
    let holds = |path: &str| model.iter().any(|(key, value)| value.is_some() && key.starts_with(&format!("{path}/")));
    model.iter().filter(|(path, value)| value.is_some() || holds(path)).map(|(k, v)| (k.clone(), *v)).collect()
}

fn model(entries: &[(&str, u8)]) -> Model {
    entries.iter().map(|(path, content)| ((*path).to_owned(), Some(*content))).collect()
}

impl Bench {
    fn settle(&self, view: &View, convert: &dyn Fn(&[u8], EntryKind, ObjectId) -> settle::As) {
        self.overlay.settle(&self.store, view, &self.known, convert).expect("settled");
    }

    fn count(&self) -> u64 {
        self.overlay.count(&self.view, &self.known).expect("counted")
    }
}

#[test]
fn a_generation_published_before_a_comparison_is_the_one_that_counts() {
    let mut bench = Bench::new(&model(&[("a", b'1')]));
    bench.write("a", b'2').expect("written");
    let old = View::new(bench.store.clone(), bench.view.generation().clone());
    // The working tree has no b: it is removed there.
    bench.reconcile(&model(&[("a", b'2'), ("b", b'1')]), Rule::Stay);
    bench.settle(&old, &|_, _, _| settle::As::Blob);
    assert_eq!(bench.model(), model(&[("a", b'2')]), "nothing comes back");
    bench.settle(&bench.view, &|_, _, _| settle::As::Blob);
    assert_eq!(bench.model(), model(&[("a", b'2')]));
    assert_eq!(bench.count(), 1, "b alone differs");
}

#[test]
fn a_generation_published_in_the_middle_of_a_comparison_is_the_one_that_counts() {
    let mut bench = Bench::new(&model(&[("a", b'1')]));
    bench.write("a", b'2').expect("written");
    let second = record(2, tree(&bench.store, &model(&[("a", b'2')]), "").expect("the root"));
    bench.settle(&bench.view, &|_, _, _| {
        let Bench { overlay, view, known, workspace, .. } = &bench;
        overlay.reconcile(view, known, Rule::Stay, &second, workspace).expect("reconciled");
        settle::As::Bytes(b"1".into())
    });
    bench.view = View::new(bench.store.clone(), second);
    assert_eq!(bench.count(), 1, "it was compared with the generation before");
    bench.settle(&bench.view, &|_, _, _| settle::As::Bytes(b"2".into()));
    assert_eq!(bench.count(), 0);
}

#[test]
fn bytes_of_another_generations_attributes_are_not_taken_for_the_blob() {
    let bench = Bench::new(&model(&[("a", b'1')]));
    bench.write("a", b'2').expect("written");
    let second = record(2, tree(&bench.store, &model(&[("a", b'1'), ("b", b'1')]), "").expect("the root"));
    bench.settle(&bench.view, &|_, _, _| {
        let Bench { overlay, view, known, workspace, .. } = &bench;
        overlay.reconcile(view, known, Rule::Stay, &second, workspace).expect("reconciled");
        settle::As::Bytes(b"2".into())
    });
    let ino = bench.look(Ino::ROOT, "a").expect("there");
    let node = bench.overlay.node(ino).expect("read").expect("changed");
    assert!(matches!(node.content, Content::File(_)), "{:?}", node.content);
}

#[test]
fn what_can_not_be_told_is_compared_again() {
    let bench = Bench::new(&model(&[("a", b'1')]));
    bench.write("a", b'2').expect("written");
    bench.settle(&bench.view, &|_, _, _| settle::As::Unknown);
    bench.settle(&bench.view, &|_, _, _| settle::As::Bytes(b"3".into()));
    assert_eq!(bench.count(), 1);
    // It differs, which other attributes may change.
    bench.settle(&bench.view, &|_, _, _| settle::As::Bytes(b"2".into()));
    assert_eq!(bench.count(), 1);
    bench.overlay.unsettle().expect("read");
    bench.settle(&bench.view, &|_, _, _| settle::As::Bytes(b"2".into()));
    assert_eq!(bench.count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_visible_tree_is_what_was_made(first in base(), operations in prop::collection::vec(operation(), 1..30)) {
        let mut bench = Bench::new(&first);
        let mut model = first;
        for operation in &operations {
            let expected = on_model(&mut model, operation);
            match operation {
                Operation::Stay(base) => bench.reconcile(base, Rule::Stay),
                Operation::Commit => {
                    bench.reconcile(&committed(&model), Rule::Stay);
                    bench.overlay.settle(&bench.store, &bench.view, &bench.known, &|_, _, _| settle::As::Blob).expect("settled");
                    let empty = model.len() - committed(&model).len();
                    let count = bench.overlay.count(&bench.view, &bench.known).expect("counted");
                    prop_assert_eq!(count, empty as u64, "only empty directories differ after a commit");
                    let differences = bench.overlay.differences(&bench.view, &bench.known).expect("compared");
                    prop_assert_eq!(differences.len(), empty);
                }
                Operation::Settle => bench.overlay.settle(&bench.store, &bench.view, &bench.known, &|_, _, _| settle::As::Blob).expect("settled"),
                Operation::Fold => bench.overlay.fold(true).expect("folded"),
                Operation::Restart => bench.restart(),
                operation => {
                    let outcome = bench.apply(operation);
                    prop_assert_eq!(outcome.is_ok(), expected.is_ok(), "{:?}: {:?}", operation, outcome);
                }
            }
            prop_assert_eq!(&bench.model(), &model, "after {:?}", operation);
        }
    }

    #[test]
    fn a_clean_tree_follows_and_local_files_stay(
        first in base(), second in base(), third in base(), extra in content(),
    ) {
        let mut bench = Bench::new(&first);
        bench.write("local", extra).expect("written");
        let nothing = BTreeMap::new();
        let at = Stamp { seconds: 9, nanos: 0 };
        for base in [&second, &third, &first, &second] {
            bench.model();
            bench.reconcile(base, Rule::Follow { keep: &nothing, at, planned: None });
            let mut expected = base.clone();
            expected.insert("local".into(), Some(extra));
            prop_assert_eq!(bench.model(), expected);
            prop_assert_eq!(bench.overlay.count(&bench.view, &bench.known).expect("counted"), 1);
        }
        bench.restart();
        let mut expected = second.clone();
        expected.insert("local".into(), Some(extra));
        prop_assert_eq!(bench.model(), expected);
    }
}
