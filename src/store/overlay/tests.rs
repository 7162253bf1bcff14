use super::*;
use crate::store::StoreOptions;

const WORKSPACE: WorkspaceId = WorkspaceId(3);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn store(&self) -> Store {
        Store::open(&self.0.path().join("store"), &StoreOptions::default()).expect("opened")
    }

    fn open(&self, store: &Store) -> OverlayLog {
        OverlayLog::open(store, WORKSPACE, &self.0.path().join("overlay")).expect("opened")
    }
}

fn node(seconds: i64) -> Node {
    let time = Stamp { seconds, nanos: 5 };
    Node {
        mode: libc::S_IFREG | 0o644,
        uid: 1,
        gid: 2,
        atime: time,
        mtime: time,
        ctime: time,
        rdev: 0,
        content: Content::Blob(ObjectIdOf::some()),
        links: vec![(1, Box::from(&b"a"[..]))],
        subdirectories: 0,
        xattrs: Vec::new(),
        origin: Box::default(),
    }
}

struct ObjectIdOf;

impl ObjectIdOf {
    fn some() -> gix::ObjectId {
        gix::ObjectId::from_bytes_or_panic(&[7; 20])
    }
}

fn bind(ino: u64) -> Binding {
    Binding::Inode { ino, kind: 8, cookie: ino }
}

fn change(name: &str, ino: Option<u64>) -> Change {
    Change {
        bindings: vec![(1, Box::from(name.as_bytes()), ino.map(bind))],
        nodes: ino.map(|ino| (ino, Some(node(1)))).into_iter().collect(),
        paths: vec![Box::from(name.as_bytes())],
        ..Change::default()
    }
}

fn names(log: &OverlayLog) -> Vec<String> {
    let bindings = log.bindings(1).expect("listed");
    bindings.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn fold(log: &mut OverlayLog) {
    let fold = log.begin().expect("begun").expect("something");
    let outcome = fold.run();
    log.finish(fold, &outcome);
    outcome.expect("folded");
}

#[test]
fn a_log_that_was_never_closed_has_everything_that_was_applied() {
    let place = Place::new();
    let store = place.store();
    let epoch = {
        let mut log = place.open(&store);
        assert!(log.is_pristine());
        log.apply(change("folded", Some(20))).expect("applied");
        log.apply(change("removed", Some(21))).expect("applied");
        fold(&mut log);
        log.apply(change("removed", None)).expect("applied");
        let number = log.take_number();
        log.apply(change("pending", Some(22))).expect("applied");
        assert_eq!(number, 1);
        assert_eq!(names(&log), ["folded", "pending"]);
        log.epoch()
    };
    for _ in 0..2 {
        let mut log = place.open(&store);
        assert_eq!(names(&log), ["folded", "pending"]);
        assert_eq!(log.node(22).expect("read").expect("there").mtime.seconds, 1);
        assert_eq!(log.binding(1, b"folded").expect("read"), Some(bind(20)));
        assert_eq!(log.epoch(), epoch, "a killed process lost nothing");
        assert!(log.take_number() > 1, "numbers are not given twice");
        assert_eq!(log.inodes().expect("listed"), [20, 21, 22]);
    }
}

#[test]
fn a_fold_hides_nothing_while_it_runs_and_after_it_failed() {
    let place = Place::new();
    let store = place.store();
    let mut log = place.open(&store);
    log.apply(change("a", Some(20))).expect("applied");
    log.apply(change("b", Some(21))).expect("applied");
    let begun = log.begin().expect("begun").expect("something");
    log.apply(change("a", None)).expect("applied");
    log.apply(change("c", Some(22))).expect("applied");
    assert_eq!(names(&log), ["b", "c"]);
    assert!(log.begin().expect("asked").is_none(), "one at a time");
    let failed = Err(StoreError::corrupt("for the test"));
    log.finish(begun, &failed);
    assert_eq!(names(&log), ["b", "c"]);
    fold(&mut log);
    assert_eq!(names(&log), ["b", "c"]);
    drop(log);
    assert_eq!(names(&place.open(&store)), ["b", "c"]);
}

#[test]
fn the_journal_tells_what_changed_since() {
    let place = Place::new();
    let store = place.store();
    let mut log = place.open(&store);
    let begin = log.sequence();
    log.apply(change("a", Some(20))).expect("applied");
    let middle = log.sequence();
    log.apply(change("b", Some(21))).expect("applied");
    let told = |log: &OverlayLog, since| {
        let paths = log.changed_since(since).expect("read")?;
        Some(paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>())
    };
    for round in 0..2 {
        assert_eq!(told(&log, begin), Some(vec!["a".into(), "b".into()]), "round {round}");
        assert_eq!(told(&log, middle), Some(vec!["b".into()]));
        assert_eq!(told(&log, log.sequence()), Some(vec![]));
        assert_eq!(told(&log, log.sequence() + 1), None, "nobody was told that");
        if round == 0 {
            fold(&mut log);
        }
    }
    log.apply(change("a", None)).expect("applied");
    fold(&mut log);
    assert_eq!(told(&log, middle), Some(vec!["a".into(), "b".into()]));
}

#[test]
fn a_power_cut_starts_a_new_epoch_and_an_orderly_end_does_not() {
    let place = Place::new();
    let store = place.store();
    let mut log = place.open(&store);
    log.apply(change("a", Some(20))).expect("applied");
    log.close().expect("closed");
    let epoch = log.epoch();
    drop(log);
    let elsewhere = |closed: bool| {
        let folded = fold::read(&store, WORKSPACE).expect("read").expect("there");
        let folded = Folded { boot: "another".into(), closed: closed && folded.closed, ..folded };
        fold::write(&store, WORKSPACE, &folded).expect("written");
    };
    elsewhere(true);
    assert_eq!(place.open(&store).epoch(), epoch);
    elsewhere(false);
    assert_ne!(place.open(&store).epoch(), epoch);
}

#[test]
fn removing_an_overlay_leaves_nothing() {
    let place = Place::new();
    let store = place.store();
    let mut log = place.open(&store);
    log.apply(change("a", Some(20))).expect("applied");
    log.close().expect("closed");
    drop(log);
    store.remove_overlay(WORKSPACE, &place.0.path().join("overlay")).expect("removed");
    let log = place.open(&store);
    assert!(log.is_pristine());
    assert!(names(&log).is_empty());
}
