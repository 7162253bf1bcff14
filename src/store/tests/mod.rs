//! The store as a whole, against plain maps, damaged files, failing disks and killed processes.

mod crash;
mod cut;
mod damage;
mod failure;
mod model;
mod open;
mod verify;

use std::io::Write;
use std::path::PathBuf;

use gix::ObjectId;
use gix::objs::Kind;
use redb::{ReadableDatabase, ReadableTableMetadata};
use tempfile::TempDir;

use super::*;

/// A store in a directory of its own.
struct Scratch {
    directory: TempDir,
    store: Option<Store>,
}

impl Scratch {
    fn new() -> Self {
        let mut scratch = Self { directory: tempfile::tempdir().expect("a temporary directory"), store: None };
        scratch.open();
        scratch
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.redb")
    }

    fn open(&mut self) {
        self.store = Some(Store::open(&self.path(), &StoreOptions::default()).expect("the store opens"));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn reopen(&mut self) {
        self.close();
        self.open();
    }

    /// The file in redb's own terms, while the store is closed.
    fn database(&self) -> redb::Database {
        assert!(self.store.is_none(), "closed before");
        redb::Database::open(self.path()).expect("a redb file")
    }

    fn chunks(&mut self) -> u64 {
        self.close();
        let chunks = self.database().begin_read().expect("read").open_table(schema::CHUNKS).expect("table").len();
        self.open();
        chunks.expect("counted")
    }
}

fn id_of(raw: &[u8]) -> ObjectId {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, raw).expect("no collision")
}

/// Bytes that don't compress, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Bytes that compress as sources do.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 32);
    let mut line = seed;
    while out.len() < len {
        writeln!(out, "static int f{:x}(void);", line % 100_003).expect("memory");
        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    out.truncate(len);
    out
}

fn put(store: &Store, raw: &[u8]) -> ObjectId {
    let mut batch = Batch::default();
    let id = id_of(raw);
    batch.blob(id, raw);
    store.commit(batch).expect("stored");
    id
}

fn put_large(store: &Store, raw: &[u8]) -> ObjectId {
    let mut large = store.large_blob(raw.len() as u64).expect("started");
    large.write_all(raw).expect("written");
    large.finish(id_of(raw)).expect("finished");
    id_of(raw)
}

#[test]
fn blobs_of_every_shape_come_back() {
    let mut scratch = Scratch::new();
    let shapes: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"x".to_vec(),
        text(1, 5000),
        noise(2, 5000),
        text(3, FRAME_BYTES),
        noise(4, FRAME_BYTES),
        noise(5, FRAME_BYTES - 1),
        text(6, FRAME_BYTES + 1),
        noise(7, 3 * FRAME_BYTES + 17),
        [text(8, 2 * FRAME_BYTES), noise(9, 2 * FRAME_BYTES)].concat(),
    ];
    let mut batch = Batch::default();
    for raw in &shapes {
        batch.blob(id_of(raw), raw);
    }
    assert_eq!(batch.raw_bytes(), shapes.iter().map(|raw| raw.len() as u64).sum::<u64>());
    scratch.store().commit(batch).expect("stored");
    let large: Vec<Vec<u8>> = shapes.iter().map(|raw| [&raw[..], b"large"].concat()).collect();
    for raw in &large {
        put_large(scratch.store(), raw);
    }
    for _ in 0..2 {
        let store = scratch.store();
        for raw in shapes.iter().chain(&large) {
            let id = id_of(raw);
            assert!(store.contains(&id).expect("readable"));
            assert!(store.read(&id).expect("readable").as_ref() == Some(raw), "{} bytes", raw.len());
            for (offset, len) in [(0, 1), (1, 4096), (FRAME_BYTES - 3, 7), (FRAME_BYTES, FRAME_BYTES), (raw.len(), 9)] {
                let expected = &raw[offset.min(raw.len())..(offset + len).min(raw.len())];
                let read = store.read_at(&id, offset as u64, len).expect("readable").expect("here");
                assert!(read == expected, "{len} at {offset} of {}", raw.len());
            }
            assert_eq!(store.read_at(&id, u64::MAX, usize::MAX).expect("readable"), Some(Vec::new()));
            let info = store.blob_info(&id).expect("readable").expect("here");
            assert_eq!(info.raw_size, raw.len() as u64);
            assert_eq!(info.codec == "raw", info.raw_size == info.stored_size);
        }
        let stats = store.stats().expect("readable");
        assert_eq!(stats.blobs, 2 * shapes.len() as u64);
        assert_eq!(stats.raw_bytes, shapes.iter().chain(&large).map(|raw| raw.len() as u64).sum::<u64>());
        scratch.reopen();
    }
    assert_eq!(scratch.store().damaged(), 0);
}

#[test]
fn what_is_stored_already_is_not_stored_twice() {
    let mut scratch = Scratch::new();
    let raw = text(1, 300_000);
    put(scratch.store(), &raw);
    put(scratch.store(), &raw);
    put_large(scratch.store(), &raw);
    put_large(scratch.store(), &noise(1, 3 << 20));
    let (chunks, stats) = (scratch.chunks(), scratch.store().stats().expect("readable"));
    put_large(scratch.store(), &noise(1, 3 << 20));
    let mut batch = Batch::default();
    batch.blob(id_of(&raw), &raw);
    batch.blob(id_of(&raw), &raw);
    assert_eq!(batch.len(), 1);
    scratch.store().commit(batch).expect("stored");
    assert_eq!(scratch.chunks(), chunks);
    let again = scratch.store().stats().expect("readable");
    assert_eq!((again.blobs, again.raw_bytes, again.stored_bytes), (2, stats.raw_bytes, stats.stored_bytes));
}

#[test]
fn sha256_objects_live_beside_sha1_objects() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let raw = text(1, 2000);
    let long = ObjectId::from_bytes_or_panic(&[9; 32]);
    let short = ObjectId::from_bytes_or_panic(&[9; 20]);
    let mut batch = Batch::default();
    batch.blob(long, &raw);
    batch.size(short, 77);
    let entry = Entry { name: b"a", kind: EntryKind::File, mode: 0o100_644, id: long };
    batch.tree(ObjectId::from_bytes_or_panic(&[8; 32]), &Listing::pack(32, vec![entry]).expect("valid"));
    store.commit(batch).expect("stored");
    assert_eq!(store.read(&long).expect("readable"), Some(raw));
    assert_eq!(store.read(&short).expect("readable"), None);
    assert_eq!(store.sizes(&[short, long]).expect("readable"), [Some(77), Some(2000)]);
    let tree = store.tree(&ObjectId::from_bytes_or_panic(&[8; 32])).expect("readable").expect("here");
    assert_eq!(tree.get(0), Some(entry));
    let missing = store.missing_blobs(&[short, long]).expect("readable");
    assert_eq!(missing, [short]);
    assert_eq!(store.missing_trees(&[long]).expect("readable"), [long]);
}

#[test]
fn an_unfinished_large_blob_leaves_nothing() {
    let mut scratch = Scratch::new();
    let raw = noise(1, 5 << 20);
    let mut large = scratch.store().large_blob(raw.len() as u64).expect("started");
    large.write_all(&raw[..4 << 20]).expect("written");
    assert_eq!(scratch.store().stats().expect("readable").blobs, 0);
    drop(large);
    assert_eq!(scratch.chunks(), 0);

    let mut short = scratch.store().large_blob(raw.len() as u64).expect("started");
    short.write_all(&raw[..3 << 20]).expect("written");
    let error = short.finish(id_of(&raw)).expect_err("two MiB are missing");
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    let mut long = scratch.store().large_blob(10).expect("started");
    assert!(long.write_all(&raw[..11]).is_err());
    drop(long);
    assert_eq!(scratch.chunks(), 0);
    assert!(!scratch.store().contains(&id_of(&raw)).expect("readable"));
}

#[test]
fn a_read_in_the_middle_of_a_large_blob_decodes_one_frame() {
    let mut scratch = Scratch::new();
    let raw = noise(1, 40 * FRAME_BYTES);
    let id = put_large(scratch.store(), &raw);
    // Every other frame's chunks are gone: a read that touched them would fail.
    scratch.close();
    let at = 20 * FRAME_BYTES;
    let keep = at as u64 / u64::from(pack::UNIT)..=(at + FRAME_BYTES - 1) as u64 / u64::from(pack::UNIT);
    let txn = scratch.database().begin_write().expect("write");
    txn.open_table(schema::CHUNKS).expect("table").retain(|chunk, _| keep.contains(&chunk)).expect("retained");
    txn.commit().expect("committed");
    scratch.open();
    let read = scratch.store().read_at(&id, at as u64 + 70_000, 4096).expect("readable");
    assert!(read.as_deref() == Some(&raw[at + 70_000..at + 74_096]));
}

#[test]
fn last_uses_are_kept_to_the_hour() {
    let mut scratch = Scratch::new();
    let id = put(scratch.store(), b"used");
    let hour = u64::from(access::hour_now()) * 3600;
    assert!(scratch.store().last_used(&id).expect("readable").is_some_and(|at| at >= hour));
    scratch.store().inner.access.lock().insert(id, u32::MAX);
    scratch.store().flush().expect("flushed");
    assert!(scratch.store().inner.access.lock().is_empty());
    scratch.reopen();
    assert_eq!(scratch.store().last_used(&id).expect("readable"), Some(u64::from(u32::MAX) * 3600));
    scratch.store().touch(&id);
    scratch.store().flush().expect("flushed");
    assert_eq!(scratch.store().last_used(&ObjectId::from_bytes_or_panic(&[1; 20])).expect("readable"), None);
}

#[test]
fn workspaces_and_generations_are_rows() {
    let mut scratch = Scratch::new();
    let store = scratch.store();
    assert_eq!(store.next_repository_id().expect("number"), RepositoryId(1));
    assert_eq!(store.next_repository_id().expect("number"), RepositoryId(2));
    let repository = Repository { id: RepositoryId(2), url: "/x".into(), gitdir: "/g".into(), external_gitdir: false };
    store.put_repository(&repository).expect("written");
    let commit = ObjectIdText(ObjectId::from_bytes_or_panic(&[5; 20]));
    let mut workspaces = Vec::new();
    for name in ["one", "two"] {
        let mut workspace = Workspace {
            id: store.next_workspace_id().expect("number"),
            name: name.into(),
            path: "/mnt".into(),
            repository: RepositoryId(2),
            rev: None,
            require_commit: Some(commit),
            depth: Depth::Commits(1),
            state: WorkspaceState::Preparing,
            current: None,
            last_error: None,
            uid: 1,
            gid: 1,
            allow_full: false,
            admin: None,
            reference: None,
            mounted: true,
            read_only: false,
            base_time: None,
            switching: None,
            refresh_seconds: None,
            offline: false,
        };
        for number in [1, 2, 300] {
            workspace.current = Some(Generation(number));
            let generation = GenerationRecord {
                workspace: workspace.id,
                generation: Generation(number),
                commit,
                tree: commit,
                commit_time: -1,
                files: 3,
                created: 4,
                origin: "mount".into(),
            };
            store.publish(&generation, &workspace).expect("published");
        }
        workspaces.push(workspace);
    }
    scratch.reopen();
    let store = scratch.store();
    assert_eq!(store.repositories().expect("readable"), [repository]);
    assert_eq!(store.workspaces().expect("readable"), workspaces);
    let numbers: Vec<u64> =
        store.generations(WorkspaceId(1)).expect("readable").iter().map(|row| row.generation.0).collect();
    assert_eq!(numbers, [1, 2, 300]);
    store.remove_workspace(WorkspaceId(1)).expect("removed");
    assert_eq!(store.generations(WorkspaceId(1)).expect("readable"), []);
    assert_eq!(store.generation(WorkspaceId(1), Generation(2)).expect("readable"), None);
    assert_eq!(store.generation(WorkspaceId(2), Generation(2)).expect("readable").map(|row| row.files), Some(3));
    assert_eq!(store.next_workspace_id().expect("number"), WorkspaceId(3), "numbers are given once");
}

#[test]
fn compacting_cuts_the_file_and_keeps_the_content() {
    let scratch = Scratch::new();
    let raws: Vec<Vec<u8>> = (0..400).map(|seed| noise(seed, 30_000)).collect();
    for raw in &raws {
        put(scratch.store(), raw);
    }
    let length = || std::fs::metadata(scratch.path()).expect("there").len();
    let before = length();
    assert!(scratch.store().compact().expect("compacted"));
    let held = scratch.store().stats().expect("readable").stored_bytes;
    assert!(length() < before && length() < held * 3 / 2, "{before} bytes became {}, holding {held}", length());
    for raw in &raws {
        assert!(scratch.store().read(&id_of(raw)).expect("readable").as_ref() == Some(raw));
    }
    put(scratch.store(), b"more");
}
