//! Opening: files of other versions, held files, files that are no store.

use std::os::unix::fs::PermissionsExt;

use redb::TableDefinition;

use super::*;
use crate::store::error::Failure;

#[test]
fn files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("home/deep/store.redb");
    let store = Store::open(&path, &StoreOptions::default()).expect("the store opens");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("nested")), 0o700);
    drop(store);
}

#[test]
fn a_held_file_is_busy() {
    let mut scratch = Scratch::new();
    for error in
        [Store::open(&scratch.path(), &StoreOptions::default()).err(), Store::open_read_only(&scratch.path()).err()]
    {
        let error = error.expect("the file is held");
        assert_eq!(error.kind, StoreErrorKind::Busy);
        assert!(error.message.contains("in use by another process"), "{error}");
    }
    scratch.reopen();
}

#[test]
fn a_newer_schema_is_refused_untouched() {
    let mut scratch = Scratch::new();
    scratch.close();
    let set = |version: u64| {
        let txn = scratch.database().begin_write().expect("write");
        txn.open_table(schema::META).expect("table").insert("schema", version).expect("inserted");
        txn.commit().expect("committed");
    };
    set(99);
    for error in
        [Store::open(&scratch.path(), &StoreOptions::default()).err(), Store::open_read_only(&scratch.path()).err()]
    {
        let error = error.expect("version 99 is not known");
        assert_eq!(error.kind, StoreErrorKind::Newer);
        assert!(error.message.contains("newer Larder (schema 99"), "{error}");
    }
    set(0);
    let error = Store::open(&scratch.path(), &StoreOptions::default()).err().expect("no such version");
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}

#[test]
fn an_older_schema_is_brought_up_to_date_step_by_step() {
    const ADDED: TableDefinition<u64, u64> = TableDefinition::new("added");
    const STEPS: &[schema::Step] = &[
        |txn| {
            txn.open_table(ADDED)?.insert(1, 10)?;
            Ok(())
        },
        |txn| {
            // Relies on the step before it.
            let mut table = txn.open_table(ADDED)?;
            let value = table.remove(1)?.map_or(0, |value| value.value());
            table.insert(2, value + 1)?;
            Ok(())
        },
        |_| Ok(()),
        |_| Ok(()),
        |_| Ok(()),
        // One more than what ships.
        |_| Ok(()),
    ];
    let mut scratch = Scratch::new();
    let id = put(scratch.store(), b"kept");
    scratch.close();
    let db = scratch.database();
    set_version(&db, 1);
    let failing: &[schema::Step] = &[STEPS[0], |_| Err(Failure::from(StoreError::corrupt("the step fails half-way")))];
    assert!(schema::prepare(&db, failing).is_err());
    assert!(schema::check(&db, STEPS).is_err(), "reading alone can't bring it up to date");
    schema::prepare(&db, STEPS).expect("the second step goes on where the first ended");
    schema::prepare(&db, STEPS).expect("nothing left to do");
    let added = db.begin_read().expect("read").open_table(ADDED).expect("table");
    assert_eq!(redb::ReadableTable::get(&added, 2).expect("readable").map(|value| value.value()), Some(11));
    assert_eq!(added.len().expect("counted"), 1);
    schema::prepare(&db, schema::STEPS).expect_err("schema 7 is newer than what ships");
    schema::check(&db, STEPS).expect("up to date");
    drop(added);
    drop(db);
    let error = Store::open(&scratch.path(), &StoreOptions::default()).err().expect("schema 7");
    assert_eq!(error.kind, StoreErrorKind::Newer);
    let _ = id;
}

fn set_version(db: &redb::Database, version: u64) {
    let txn = db.begin_write().expect("write");
    txn.open_table(schema::META).expect("table").insert("schema", version).expect("inserted");
    txn.commit().expect("committed");
}

#[test]
fn a_store_from_before_warms_gets_their_table() {
    let mut scratch = Scratch::new();
    let id = put(scratch.store(), b"kept");
    scratch.close();
    let db = scratch.database();
    set_version(&db, 1);
    let txn = db.begin_write().expect("write");
    txn.delete_table(schema::WANTS).expect("deleted");
    txn.delete_table(schema::WARMED).expect("deleted");
    txn.commit().expect("committed");
    drop(db);
    let store = Store::open(&scratch.path(), &StoreOptions::default()).expect("brought up to date");
    assert!(store.warms().expect("readable").is_empty());
    assert_eq!(store.warmed(&WarmedKey([1; 32])).expect("readable"), None);
    assert_eq!(store.read(&id).expect("readable").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("other");
    std::fs::write(&path, vec![7; 100_000]).expect("written");
    for error in [Store::open(&path, &StoreOptions::default()).err(), Store::open_read_only(&path).err()] {
        assert_eq!(error.expect("not redb's").kind, StoreErrorKind::Corrupt);
    }
    std::fs::remove_file(&path).expect("removed");
    let db = redb::Database::create(&path).expect("created");
    let txn = db.begin_write().expect("write");
    txn.open_table(TableDefinition::<u64, u64>::new("other")).expect("table");
    txn.commit().expect("committed");
    drop(db);
    let error = Store::open(&path, &StoreOptions::default()).err().expect("not a store");
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(Store::open_read_only(&directory.path().join("missing")).is_err());
}

#[test]
fn reading_only_reads() {
    let mut scratch = Scratch::new();
    let id = put(scratch.store(), b"content");
    scratch.close();
    let store = Store::open_read_only(&scratch.path()).expect("opens");
    assert_eq!(store.read(&id).expect("readable").as_deref(), Some(&b"content"[..]));
    let mut batch = Batch::default();
    batch.blob(id_of(b"other"), b"other");
    assert!(store.commit(batch).is_err());
    assert!(store.large_blob(1).is_err());
    let second = Store::open_read_only(&scratch.path()).expect("readers share");
    assert!(second.contains(&id).expect("readable"));
}
