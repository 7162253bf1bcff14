use super::*;
use crate::store::{Batch, Entry, StoreOptions};

fn id(number: u32) -> ObjectId {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes_or_panic(&bytes)
}

/// A directory's listing.
fn listing(entries: &[(&[u8], EntryKind, u32)]) -> Listing {
    let entry = |(name, kind, number): &(&'static [u8], EntryKind, u32)| Entry {
        name,
        kind: *kind,
        mode: kind.mode(),
        id: id(*number),
    };
    let entries: Vec<(&'static [u8], EntryKind, u32)> =
        entries.iter().map(|(name, kind, number)| (&*name.to_vec().leak(), *kind, *number)).collect();
    Listing::pack(20, entries.iter().map(entry).collect()).expect("a listing")
}

fn store(trees: &[(u32, Listing)]) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(&directory.path().join("store"), &StoreOptions::default()).expect("opened");
    let mut batch = Batch::default();
    for (number, listing) in trees {
        batch.tree(id(*number), listing);
    }
    batch.blob(id(101), b"read");
    batch.blob(id(102), b"warmed");
    batch.size(id(103), 1_000);
    store.commit(batch).expect("stored");
    store.touch(&id(101));
    (directory, store)
}

/// All rows, asked for in pages of `limit`.
fn all(store: &Store, root: u32, limit: usize) -> Vec<(String, Option<u64>, AreaState)> {
    let walk = Walk { store, ground: None };
    let (mut rows, mut after) = (Vec::new(), None::<PathText>);
    loop {
        let mut report = AreaReport::default();
        page(&walk, id(root), after.as_ref().map(path_bytes), limit, &mut report).expect("read");
        assert!(report.rows.len() <= limit);
        assert!(serde_json::to_vec(&report).expect("JSON").len() < MAX_LINE_BYTES);
        rows.extend(report.rows.into_iter().map(|row| (row.path.path, row.size, row.state)));
        after = report.next;
        if after.is_none() {
            return rows;
        }
    }
}

#[test]
fn pages_of_any_size_have_each_file_once_and_say_what_is_here() {
    use EntryKind::{Directory, File, Gitlink, Symlink};
    let (_directory, store) = store(&[
        (1, listing(&[(b"a", Directory, 2), (b"a.b", File, 101), (b"m", Gitlink, 9), (b"z", Symlink, 104)])),
        (2, listing(&[(b"deep", Directory, 3), (b"x\xff", File, 102), (b"y", File, 103)])),
        (3, listing(&[(b"one", File, 103)])),
    ]);
    let wanted = [
        ("a/deep/one", Some(1_000), AreaState::Untouched),
        ("a/x\u{fffd}", Some(6), AreaState::Cached),
        ("a/y", Some(1_000), AreaState::Untouched),
        ("a.b", Some(4), AreaState::Hydrated),
        ("z", None, AreaState::Untouched),
    ]
    .map(|(path, size, state)| (path.to_owned(), size, state));
    for limit in 1..=6 {
        assert_eq!(all(&store, 1, limit), wanted, "pages of {limit}");
    }
}

#[test]
fn trees_that_are_missing_are_passed_by() {
    let (_directory, store) = store(&[(1, listing(&[(b"a", EntryKind::Directory, 50), (b"b", EntryKind::File, 101)]))]);
    let mut report = AreaReport::default();
    page(&Walk { store: &store, ground: None }, id(1), None, 10, &mut report).expect("read");
    assert_eq!((report.rows.len(), report.passed_by), (1, 1));
}

#[test]
fn a_bomb_of_empty_directories_ends_every_page() {
    // Ten names a level for ten levels: ten billion directories and not one file.
    let level = |number: u32| {
        let names = [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"];
        listing(&names.map(|name| (&name[..], EntryKind::Directory, number)))
    };
    let trees: Vec<_> = (1..=10).map(|number| (number, level(number + 1))).chain([(11, listing(&[]))]).collect();
    let (_directory, store) = store(&trees);
    let mut report = AreaReport::default();
    page(&Walk { store: &store, ground: None }, id(1), None, 10, &mut report).expect("read");
    assert!(report.rows.is_empty() && report.next.is_some());
}

#[test]
fn long_names_end_a_page_early() {
    let names: Vec<Vec<u8>> = (0..500).map(|number| [format!("{number:03}").as_bytes(), &[1; 250]].concat()).collect();
    let entries: Vec<_> = names.iter().map(|name| (&name[..], EntryKind::File, 103)).collect();
    let (_directory, store) = store(&[(1, listing(&entries))]);
    assert_eq!(all(&store, 1, ROWS_MAX).len(), 500);
}
