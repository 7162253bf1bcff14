//! Checking: whatever is damaged is noticed, once and by its name, and nothing else is; repairs mend what they may.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gix::hash::Kind as HashKind;
use parking_lot::Mutex;
use redb::{ReadableTable, TableDefinition};

use super::*;
use crate::store::overlay::{Binding, Change, Content, Node, OverlayLog, Stamp};
use crate::store::verify::{Dropped, Mended, Problem, Subject, Watch};

/// Hears everything.
#[derive(Default)]
struct Ear {
    problems: Mutex<Vec<Problem>>,
    notes: Mutex<Vec<String>>,
    objects: AtomicU64,
    read: AtomicU64,
    stop: AtomicBool,
}

impl Watch for Ear {
    fn go_on(&self, bytes: u64) -> bool {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }

    fn checked(&self, _bytes: u64) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    fn found(&self, problem: Problem) {
        self.problems.lock().push(problem);
    }

    fn note(&self, text: String) {
        self.notes.lock().push(text);
    }
}

fn check(store: &Store) -> Ear {
    let ear = Ear::default();
    store.check_objects(2, &ear).expect("objects");
    store.check_tables(&ear).expect("tables");
    store.check_overlays(&ear).expect("overlays");
    ear
}

/// What is wrong, and nothing twice.
fn subjects(ear: &Ear) -> Vec<Subject> {
    let all: Vec<Subject> = ear.problems.lock().iter().map(|problem| problem.subject.clone()).collect();
    for (place, subject) in all.iter().enumerate() {
        assert!(!all[..place].contains(subject), "told twice: {:?}", ear.problems.lock());
    }
    all
}

fn tree_id(kind: HashKind, raw: &[u8]) -> ObjectId {
    gix::objs::compute_hash(kind, Kind::Tree, raw).expect("no collision")
}

fn raw_tree(entries: &[(&str, &str, ObjectId)]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (mode, name, id) in entries {
        raw.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        raw.extend_from_slice(id.as_bytes());
    }
    raw
}

fn put_tree(store: &Store, raw: &[u8], kind: HashKind) -> ObjectId {
    let id = tree_id(kind, raw);
    let mut batch = Batch::default();
    batch.tree(id, &listing_from_git(&id, raw).expect("a tree"));
    store.commit(batch).expect("stored");
    id
}

impl Full {
    /// The file as it is now, closed, to begin with again and again.
    fn closed(&mut self) -> Vec<u8> {
        self.scratch.close();
        std::fs::read(self.scratch.path()).expect("readable")
    }

    fn again(&mut self, file: &[u8]) {
        self.scratch.close();
        std::fs::write(self.scratch.path(), file).expect("written");
    }
}

/// A store with a row in every table.
struct Full {
    scratch: Scratch,
    small: ObjectId,
    run: ObjectId,
    root: ObjectId,
    converted: ObjectId,
}

fn full() -> Full {
    let scratch = Scratch::new();
    let store = scratch.store();
    let raws: Vec<Vec<u8>> = (0..40).map(|seed| text(seed, 200 + 50 * usize::try_from(seed).expect("small"))).collect();
    let mut batch = Batch::default();
    for raw in raws.iter().chain([&noise(1, 3 * FRAME_BYTES + 5), &Vec::new()]) {
        batch.blob(id_of(raw), raw);
    }
    let (small, run) = (id_of(&raws[7]), id_of(&noise(1, 3 * FRAME_BYTES + 5)));
    let elsewhere = ObjectId::from_bytes_or_panic(&[9; 20]);
    batch.size(elsewhere, 77);
    let converted = converted_id(&small, b"rule");
    batch.blob(converted, b"made of it");
    batch.converted(converted, Converted { source: small, size: 10, changed: true });
    store.commit(batch).expect("stored");
    put_large(store, &text(3, 2 << 20));
    let raw256 = b"sha-256";
    let id256 = gix::objs::compute_hash(HashKind::Sha256, Kind::Blob, raw256).expect("no collision");
    let mut batch = Batch::default();
    batch.blob(id256, raw256);
    store.commit(batch).expect("stored");
    put_tree(store, &raw_tree(&[("100644", "a", id256)]), HashKind::Sha256);
    let below = put_tree(store, &raw_tree(&[("100755", "x", small), ("120000", "y", run)]), HashKind::Sha1);
    let root = put_tree(
        store,
        &raw_tree(&[("100644", "d.c", small), ("40000", "d", below), ("100644", "e", elsewhere)]),
        HashKind::Sha1,
    );
    put_tree(store, &raw_tree(&[("040000", "old", below)]), HashKind::Sha1);
    store.note_tree_sizes(&below, vec![raws[7].len() as u64, 3 * FRAME_BYTES as u64 + 5]);
    store.touch(&small);
    people(store, root);
    store.note("hello", &"world").expect("noted");
    store.note_warmed(&WarmedKey([3; 32]), Warmed { selected: 1, left_out: 0 }, store.losses()).expect("noted");
    store.keep_fetches(10).expect("on");
    store.note_fetch(Fetch {
        at_ms: 1,
        workspace: Some(WorkspaceId(1)),
        id: None,
        path: Box::from(&b"a"[..]),
        process: "cat".into(),
        pid: 1,
        operation: Operation::Read,
        class: FetchClass::Read,
        objects: 1,
        bytes: 1,
        wait_us: 1,
    });
    changes(&scratch);
    scratch.store().flush().expect("flushed");
    Full { scratch, small, run, root, converted }
}

fn people(store: &Store, root: ObjectId) {
    let id = store.next_repository_id().expect("number");
    let repository = Repository { id, url: "/x".into(), gitdir: "/g".into(), external_gitdir: false };
    store.put_repository(&repository).expect("written");
    let tree = ObjectIdText(root);
    let workspace = Workspace {
        id: store.next_workspace_id().expect("number"),
        name: "one".into(),
        path: "/mnt".into(),
        repository: id,
        rev: None,
        require_commit: None,
        depth: Depth::Commits(1),
        state: WorkspaceState::Ready,
        current: Some(Generation(1)),
        last_error: None,
        uid: 1,
        gid: 1,
        allow_full: false,
        admin: None,
        reference: None,
        mounted: false,
        read_only: false,
        base_time: Some(5),
        switching: None,
        refresh_seconds: None,
        offline: false,
    };
    let generation = GenerationRecord {
        workspace: workspace.id,
        generation: Generation(1),
        commit: tree,
        tree,
        commit_time: 5,
        files: 3,
        created: 4,
        origin: "mount".into(),
    };
    store.publish(&generation, &workspace).expect("published");
    let pin = Pin {
        id: store.next_pin_id().expect("number"),
        workspace: workspace.id,
        commit: tree,
        tree,
        pathspecs: Vec::new(),
        created: 1,
    };
    store.put_pin(&pin).expect("pinned");
    let warm = PendingWarm {
        id: store.next_warm_id().expect("number"),
        workspace: workspace.id,
        root: tree,
        pathspecs: Vec::new(),
        max_blob_bytes: None,
    };
    store.put_warm(&warm).expect("written");
}

/// Local changes: a directory of the base with a file made in it, and a file of the base that was changed.
fn changes(scratch: &Scratch) {
    let directory = scratch.directory.path().join("overlay/1");
    let mut log = OverlayLog::open(scratch.store(), WorkspaceId(1), &directory).expect("opened");
    let time = Stamp { seconds: 5, nanos: 0 };
    let node = |mode: u32, content, links| Node {
        mode,
        uid: 0,
        gid: 0,
        atime: time,
        mtime: time,
        ctime: time,
        rdev: 0,
        content,
        links,
        subdirectories: 0,
        xattrs: Vec::new(),
        origin: Box::default(),
    };
    let name = |name: &str| Box::<[u8]>::from(name.as_bytes());
    let bound = |ino, kind| Some(Binding::Inode { ino, kind, cookie: 1 });
    let change = Change {
        bindings: vec![
            (1, name("d"), bound(100, 4)),
            (100, name("new"), bound((1 << 62) | 7, 8)),
            (1, name("e"), bound(200, 8)),
            (1, name("gone"), Some(Binding::Whiteout)),
        ],
        nodes: vec![
            (1, Some(node(libc::S_IFDIR, Content::Base, Vec::new()))),
            (100, Some(node(libc::S_IFDIR, Content::Base, vec![(1, name("d"))]))),
            ((1 << 62) | 7, Some(node(libc::S_IFREG, Content::File(7), vec![(100, name("new"))]))),
            (200, Some(node(libc::S_IFREG, Content::File(8), vec![(1, name("e"))]))),
        ],
        paths: vec![name("d/new"), name("e"), name("gone")],
        ..Change::default()
    };
    log.apply(change).expect("applied");
    log.close().expect("closed");
}

/// Flips a bit in the last byte of the first row of a table.
fn flip<K: redb::Key + 'static>(db: &redb::Database, table: TableDefinition<'_, K, &'static [u8]>) {
    let txn = db.begin_write().expect("write");
    {
        let mut table = txn.open_table(table).expect("table");
        let (key, mut row) = {
            let (key, row) = table.first().expect("readable").expect("a row");
            (K::as_bytes(&key.value()).as_ref().to_vec(), row.value().to_vec())
        };
        *row.last_mut().expect("not empty") ^= 4;
        table.insert(K::from_bytes(&key), row.as_slice()).expect("inserted");
    }
    txn.commit().expect("committed");
}

/// The table that a problem is about.
fn table_of(subject: &Subject) -> &'static str {
    match subject {
        Subject::Blob(_) => "blobs",
        Subject::Tree(_) => "trees",
        Subject::Row { table, .. } => table,
        Subject::Counter(_) => "counters",
        Subject::Local(_) => "local",
    }
}

#[test]
fn a_whole_store_has_no_problem_and_every_object_is_looked_at() {
    let Full { mut scratch, .. } = full();
    let stats = scratch.store().stats().expect("readable");
    for _ in 0..2 {
        let ear = check(scratch.store());
        assert_eq!(subjects(&ear), [], "{:?}", ear.problems.lock());
        assert_eq!(ear.objects.load(Ordering::Relaxed), stats.blobs + stats.trees);
        assert!(ear.read.load(Ordering::Relaxed) >= stats.stored_bytes, "each stored byte is read");
        assert!(ear.notes.lock().is_empty(), "{:?}", ear.notes.lock());
        let orphans = scratch.store().orphan_chunks(true, &ear).expect("looked");
        assert_eq!(orphans.chunks, [0_u64; 0]);
        assert_eq!(scratch.store().orphan_chunks(false, &ear).expect("looked"), orphans);
        scratch.reopen();
    }
    scratch.close();
    let read_only = Store::open_read_only(&scratch.path()).expect("opens");
    assert_eq!(subjects(&check(&read_only)), []);
}

#[test]
fn each_tables_damage_is_noticed() {
    type Damage = Box<dyn Fn(&redb::Database)>;
    let cases: Vec<(&str, Damage)> = vec![
        ("blobs", Box::new(|db| flip(db, schema::CHUNKS))),
        ("trees", Box::new(|db| flip(db, schema::TREES))),
        ("sizes", Box::new(|db| flip(db, schema::SIZES))),
        ("tree_sizes", Box::new(|db| flip(db, schema::TREE_SIZES))),
        ("generations", Box::new(|db| flip(db, schema::GENERATIONS))),
        ("workspaces", Box::new(|db| flip(db, schema::WORKSPACES))),
        ("repositories", Box::new(|db| flip(db, schema::REPOSITORIES))),
        ("pins", Box::new(|db| flip(db, schema::PINS))),
        ("notes", Box::new(|db| flip(db, schema::NOTES))),
        ("wants", Box::new(|db| flip(db, schema::WANTS))),
        ("warmed", Box::new(|db| flip(db, schema::WARMED))),
        ("overlay", Box::new(|db| flip(db, schema::OVERLAY))),
        ("overlay_nodes", Box::new(|db| flip(db, schema::NODES))),
        ("overlay_folded", Box::new(|db| flip(db, schema::FOLDED))),
        ("fetches", Box::new(|db| flip(db, schema::FETCHES))),
        ("journal", Box::new(|db| flip(db, schema::JOURNAL))),
        (
            "counters",
            Box::new(|db| {
                let txn = db.begin_write().expect("write");
                txn.open_table(schema::COUNTERS).expect("table").insert("raw_bytes", 3).expect("inserted");
                txn.commit().expect("committed");
            }),
        ),
        (
            "counters",
            Box::new(|db| {
                let txn = db.begin_write().expect("write");
                txn.open_table(schema::COUNTERS).expect("table").insert("next_chunk", 1).expect("inserted");
                txn.commit().expect("committed");
            }),
        ),
    ];
    let mut full = full();
    let good = full.closed();
    for (table, damage) in cases {
        full.again(&good);
        let scratch = &full.scratch;
        damage(&scratch.database());
        let before = std::fs::read(scratch.path()).expect("readable");
        let store = Store::open_read_only(&scratch.path()).expect("opens");
        let ear = Ear::default();
        // `next_chunk` also says which chunks there are.
        store.check_objects(2, &ear).expect("objects");
        store.check_tables(&ear).expect("tables");
        store.check_overlays(&ear).expect("overlays");
        let found = subjects(&ear);
        assert!(found.iter().any(|subject| table_of(subject) == table), "{table}: {:?}", ear.problems.lock());
        drop(store);
        assert!(std::fs::read(scratch.path()).expect("readable") == before, "{table}: looking changed the file");
    }
}

/// A row of `blobs` is damaged, or its chunk gone: that blob is told, and no total is called wrong for it.
#[test]
fn a_damaged_blob_is_told_by_its_id_alone() {
    let mut full = full();
    let good = full.closed();
    for case in 0..3 {
        full.again(&good);
        let Full { scratch, small, run, .. } = &mut full;
        let db = scratch.database();
        let txn = db.begin_write().expect("write");
        let wanted = {
            let mut blobs = txn.open_table(schema::BLOBS).expect("table");
            let mut chunks = txn.open_table(schema::CHUNKS).expect("table");
            let id = if case == 2 { *run } else { *small };
            let mut row = blobs.get(id.as_bytes()).expect("readable").expect("row").value().to_vec();
            match case {
                0 => {
                    row[20] ^= 1;
                    blobs.insert(id.as_bytes(), row.as_slice()).expect("inserted");
                }
                // Its frame table.
                2 => {
                    *row.last_mut().expect("not empty") ^= 1;
                    blobs.insert(id.as_bytes(), row.as_slice()).expect("inserted");
                }
                _ => {
                    let chunk = u64::from_le_bytes(row[5..13].try_into().expect("eight bytes"));
                    let offset = u32::from_le_bytes(row[13..17].try_into().expect("four bytes")) as usize;
                    let mut value = chunks.get(chunk).expect("readable").expect("chunk").value().to_vec();
                    value[offset + 3] ^= 16;
                    chunks.insert(chunk, value.as_slice()).expect("inserted");
                }
            }
            id
        };
        txn.commit().expect("committed");
        drop(db);
        scratch.open();
        let ear = check(scratch.store());
        assert_eq!(subjects(&ear), [Subject::Blob(wanted)], "case {case}: {:?}", ear.problems.lock());
        assert_eq!(scratch.store().damaged(), 0, "looking drops nothing");
        assert!(scratch.store().contains(&wanted).expect("readable"));
        assert!(matches!(scratch.store().check_blob(&wanted), Ok(Some(Err(_)))));
        assert_eq!(scratch.store().drop_if_damaged(&wanted).expect("dropped"), Dropped::Gone);
        assert_eq!(scratch.store().drop_if_damaged(&wanted).expect("looked"), Dropped::Gone);
        // What a damaged row had is not known when it goes.
        scratch.store().mend(&Problem::new(Subject::Counter(""), "")).expect("counted");
        let orphans = scratch.store().orphan_chunks(false, &ear).expect("looked");
        scratch.store().remove_orphans(&orphans.chunks, &|| true).expect("removed");
        assert_eq!(subjects(&check(scratch.store())), [], "case {case}");
        assert_eq!(scratch.store().orphan_chunks(false, &ear).expect("looked").chunks, [0_u64; 0]);
    }
}

#[test]
fn bytes_that_are_not_the_ids_are_noticed_though_every_checksum_holds() {
    let mut scratch = Scratch::new();
    let (a, b) = (id_of(b"one"), id_of(&noise(4, 2 * FRAME_BYTES)));
    let mut batch = Batch::default();
    batch.blob(a, b"two");
    batch.blob(b, &noise(5, 2 * FRAME_BYTES));
    let tree = ObjectId::from_bytes_or_panic(&[8; 20]);
    let entry = Entry { name: b"a", kind: EntryKind::File, mode: 0o100_644, id: a };
    batch.tree(tree, &Listing::pack(20, vec![entry]).expect("valid"));
    scratch.store().commit(batch).expect("stored");
    scratch.reopen();
    let mut found = subjects(&check(scratch.store()));
    let mut expected = vec![Subject::Blob(a), Subject::Blob(b), Subject::Tree(tree)];
    found.sort_by_key(|subject| format!("{subject:?}"));
    expected.sort_by_key(|subject| format!("{subject:?}"));
    assert_eq!(found, expected);
}

#[test]
fn tables_that_disagree_are_noticed_and_mended() {
    let Full { mut scratch, small, root, converted, .. } = full();
    let mut batch = Batch::default();
    batch.size(small, 1);
    batch.converted(converted, Converted { source: small, size: 11, changed: true });
    scratch.store().commit(batch).expect("stored");
    scratch.store().note_tree_sizes(&root, vec![1, 0, 77]);
    scratch.store().flush().expect("written");
    scratch.reopen();
    let ear = check(scratch.store());
    let mut tables: Vec<&str> = subjects(&ear).iter().map(table_of).collect();
    tables.sort_unstable();
    // The converted file's id is no Git object's, and its row does not vouch for it any more.
    assert_eq!(tables, ["blobs", "converted", "sizes", "tree_sizes"], "{:?}", ear.problems.lock());
    for problem in ear.problems.lock().iter().filter(|problem| !matches!(problem.subject, Subject::Blob(_))) {
        assert_eq!(scratch.store().mend(problem).expect("mended"), Mended::Yes, "{problem:?}");
    }
    scratch.store().drop_if_damaged(&converted).expect("dropped");
    assert_eq!(subjects(&check(scratch.store())), []);
}

#[test]
fn rows_of_people_are_never_removed() {
    let mut full = full();
    let good = full.closed();
    for table in ["generations", "workspaces", "overlay", "overlay_nodes", "pins", "repositories"] {
        full.again(&good);
        let scratch = &mut full.scratch;
        let db = scratch.database();
        match table {
            "generations" => flip(&db, schema::GENERATIONS),
            "workspaces" => flip(&db, schema::WORKSPACES),
            "overlay" => flip(&db, schema::OVERLAY),
            "overlay_nodes" => flip(&db, schema::NODES),
            "pins" => flip(&db, schema::PINS),
            _ => flip(&db, schema::REPOSITORIES),
        }
        drop(db);
        scratch.open();
        let before = subjects(&check(scratch.store()));
        assert!(!before.is_empty(), "{table}");
        for problem in check(scratch.store()).problems.lock().iter() {
            assert_eq!(scratch.store().mend(problem).expect("looked"), Mended::No, "{problem:?}");
        }
        assert_eq!(subjects(&check(scratch.store())), before, "{table}");
    }
}

#[test]
fn missing_rows_of_people_are_noticed() {
    let mut full = full();
    let good = full.closed();
    let mut remove = |which: &str| {
        full.again(&good);
        let scratch = &mut full.scratch;
        let db = scratch.database();
        let txn = db.begin_write().expect("write");
        match which {
            "generation" => drop(txn.open_table(schema::GENERATIONS).expect("table").remove((1, 1)).expect("removed")),
            "repository" => drop(txn.open_table(schema::REPOSITORIES).expect("table").remove(1).expect("removed")),
            "workspace" => drop(txn.open_table(schema::WORKSPACES).expect("table").remove(1).expect("removed")),
            "node" => drop(txn.open_table(schema::NODES).expect("table").remove((1, 200)).expect("removed")),
            _ => drop(txn.open_table(schema::OVERLAY).expect("table").remove((1, 1, &b"e"[..])).expect("removed")),
        }
        txn.commit().expect("committed");
        drop(db);
        scratch.open();
        let ear = check(scratch.store());
        let mut tables: Vec<&str> = subjects(&ear).iter().map(table_of).collect();
        tables.sort_unstable();
        tables
    };
    assert_eq!(remove("generation"), ["workspaces"]);
    assert_eq!(remove("repository"), ["workspaces"]);
    assert_eq!(remove("workspace"), ["generations", "pins"]);
    assert_eq!(remove("node"), ["overlay"]);
    assert_eq!(remove("binding"), ["overlay_nodes"]);
}

#[test]
fn chunks_that_no_blob_has_are_found_and_removed() {
    let Full { mut scratch, .. } = full();
    scratch.close();
    let db = scratch.database();
    let txn = db.begin_write().expect("write");
    {
        let mut counters = txn.open_table(schema::COUNTERS).expect("table");
        let next = counters.get("next_chunk").expect("readable").expect("set").value();
        let mut chunks = txn.open_table(schema::CHUNKS).expect("table");
        chunks.insert(next + 2, &[1; 500][..]).expect("inserted");
        counters.insert("next_chunk", next + 3).expect("inserted");
    }
    txn.commit().expect("committed");
    drop(db);
    scratch.open();
    // One that is being written is no orphan.
    let mut large = scratch.store().large_blob(5 << 20).expect("started");
    large.write_all(&noise(6, 3 << 20)).expect("written");
    let ear = check(scratch.store());
    assert_eq!(subjects(&ear), [], "room that is wasted is no damage");
    let orphans = scratch.store().orphan_chunks(true, &ear).expect("looked");
    assert_eq!((orphans.chunks.len(), orphans.bytes), (1, 500));
    assert_eq!(scratch.store().remove_orphans(&orphans.chunks, &|| true).expect("removed"), 1);
    large.write_all(&noise(7, 2 << 20)).expect("written");
    let id = id_of(&[noise(6, 3 << 20), noise(7, 2 << 20)].concat());
    large.finish(id).expect("finished");
    assert_eq!(scratch.store().orphan_chunks(true, &ear).expect("looked").chunks, [0_u64; 0]);
    assert_eq!(subjects(&check(scratch.store())), []);
}

#[test]
fn a_damaged_tree_is_replaced_in_place() {
    let Full { mut scratch, root, .. } = full();
    let listing = scratch.store().tree(&root).expect("readable").expect("there");
    scratch.close();
    let db = scratch.database();
    let txn = db.begin_write().expect("write");
    {
        let mut trees = txn.open_table(schema::TREES).expect("table");
        let mut row = trees.get(root.as_bytes()).expect("readable").expect("row").value().to_vec();
        row[11] ^= 1;
        trees.insert(root.as_bytes(), row.as_slice()).expect("inserted");
    }
    txn.commit().expect("committed");
    drop(db);
    scratch.open();
    let store = scratch.store();
    assert_eq!(subjects(&check(store)), [Subject::Tree(root)]);
    assert_eq!(store.look_at_tree(&root).expect("looked").good(), None);
    assert!(store.lacks_tree(&root).expect("looked"));
    store.replace_tree(&root, &listing).expect("replaced");
    assert_eq!(store.look_at_tree(&root).expect("looked").good(), Some(listing));
    assert_eq!(subjects(&check(store)), []);
    assert_eq!(store.damaged(), 0);
}

#[test]
fn a_check_that_is_stopped_ends() {
    let Full { scratch, .. } = full();
    let ear = Ear::default();
    ear.stop.store(true, Ordering::Relaxed);
    scratch.store().check_objects(4, &ear).expect("ended");
    scratch.store().check_tables(&ear).expect("ended");
    scratch.store().orphan_chunks(false, &ear).expect("ended");
    assert!(ear.objects.load(Ordering::Relaxed) < 100);
    assert_eq!(subjects(&ear), []);
}

/// Others store and take out while it looks: nothing is wrong, so nothing is told.
#[test]
fn a_check_beside_writers_finds_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..30_u64 {
                let mut batch = Batch::default();
                let raws: Vec<Vec<u8>> = (0..50).map(|seed| noise(1000 * round + seed, 900)).collect();
                for raw in &raws {
                    batch.blob(id_of(raw), raw);
                }
                store.commit(batch).expect("stored");
                put_large(store, &noise(round, 2 * FRAME_BYTES));
                let gone = store.blobs_where(|blob| blob.id.as_bytes()[0] % 3 == 0).expect("listed");
                let gone = gone.into_iter().map(|blob| (blob, KeepSize::Yes)).collect();
                store.remove_blobs(gone, &mut || true).expect("removed");
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            let ear = check(store);
            assert_eq!(subjects(&ear), [], "{:?}", ear.problems.lock());
            assert_eq!(store.orphan_chunks(true, &ear).expect("looked").chunks, [0_u64; 0]);
        }
    });
}

#[test]
fn local_changes_tell_which_files_they_need() {
    let Full { scratch, .. } = full();
    let directory = scratch.directory.path().join("overlay/1");
    let referred = scratch.store().referred(WorkspaceId(1), Some(&directory), 5).expect("readable");
    let files: Vec<(u64, &[u8], bool)> =
        referred.files.iter().map(|(number, holder)| (*number, &holder.path[..], holder.written)).collect();
    assert_eq!(files, [(7, &b"d/new"[..], false), (8, &b"e"[..], true)]);
    assert_eq!(scratch.store().stray_overlays().expect("looked"), [0_u64; 0]);
}
