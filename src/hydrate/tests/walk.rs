//! Walks: the same objects in windows of any size, whatever the tree looks like.

use std::collections::HashSet;

use gix::ObjectId;

use super::super::class::ClassTable;
use super::super::memory::MemoryRemote;
use super::super::remote::Extent;
use super::super::walk::{Everything, Reach, Select, Tally, Walk, Window};
use super::{blobs, files, learn_trees, plant, spread, store};
use crate::store::{Batch, Store};

/// All windows of a walk, none larger than `most`; trees the store lacks are added as they are met.
fn windows(store: &Store, remote: &MemoryRemote, mut walk: Walk, most: usize) -> (Vec<Window>, Tally) {
    let mut all = Vec::new();
    loop {
        let mut window = walk.window(most, &ClassTable::default()).expect("store");
        assert!(window.cargo.wants.len() <= most, "{} in a window of {most}", window.cargo.wants.len());
        let last = window.last && window.absent.is_empty();
        let absent: HashSet<ObjectId> = window.absent.iter().map(super::super::walk::Directory::tree).collect();
        assert_eq!(absent.len(), window.absent.len(), "a tree is set aside once");
        learn_trees(store, remote, |id| absent.contains(id));
        walk.resume(std::mem::take(&mut window.absent));
        all.push(window);
        if last {
            return (all, walk.tally());
        }
        assert!(all.len() < 100_000, "it does not end");
    }
}

fn sorted(mut ids: Vec<ObjectId>) -> Vec<ObjectId> {
    ids.sort_unstable();
    ids
}

fn wanted(windows: &[Window]) -> Vec<ObjectId> {
    sorted(windows.iter().flat_map(|window| window.cargo.wants.iter().map(|want| want.id)).collect())
}

fn everything(store: &Store, root: ObjectId) -> Walk {
    Walk::new(store.clone(), root, Box::new(Everything), None)
}

#[test]
fn windows_of_every_size_give_the_same_set() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let files = spread(137);
    let root = plant(&remote, &files);
    learn_trees(&store, &remote, |_| true);
    let all = sorted(blobs(&files));
    for most in (1..=20).chain([64, 136, 137, 138, 10_000]) {
        let (windows, tally) = windows(&store, &remote, everything(&store, root), most);
        assert_eq!(wanted(&windows), all, "windows of {most}");
        assert_eq!(tally, Tally { selected: 137, left_out: 0 });
        let full = windows.iter().filter(|window| !window.last).all(|window| window.cargo.wants.len() == most);
        assert!(full, "a window of {most} that is not the last is not full");
    }
    assert_eq!(everything(&store, root).count().expect("store"), 137);
}

#[test]
fn what_the_store_has_is_counted_and_not_wanted() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let files = spread(40);
    let root = plant(&remote, &files);
    learn_trees(&store, &remote, |_| true);
    let mut batch = Batch::default();
    for ((_, data), id) in files.iter().zip(blobs(&files)).take(15) {
        batch.blob(id, data);
    }
    store.commit(batch).expect("stored");
    for most in [1, 4, 1000] {
        let (windows, tally) = windows(&store, &remote, everything(&store, root), most);
        assert_eq!(wanted(&windows), sorted(blobs(&files[15..])));
        assert_eq!(tally.selected, 40);
    }
}

#[test]
fn trees_the_store_lacks_are_set_aside_and_entered_later() {
    for most in [1, 3, 1000] {
        let (remote, (_directory, store)) = (MemoryRemote::default(), store());
        let files = spread(60);
        let inner = plant(&remote, &files);
        // One tree under two names, and a root that is not here either.
        let root = remote.insert_tree(&[("a", true, inner), ("b", true, inner)]);
        let mut walk = everything(&store, root);
        let first = walk.window(most, &ClassTable::default()).expect("store");
        assert_eq!(first.absent.iter().map(super::super::walk::Directory::tree).collect::<Vec<_>>(), [root]);
        assert!(first.last && first.cargo.wants.is_empty());
        learn_trees(&store, &remote, |id| *id == root);
        walk.resume(first.absent);
        let (windows, tally) = windows(&store, &remote, walk, most);
        assert_eq!(wanted(&windows), sorted(blobs(&files)), "windows of {most}");
        assert_eq!(tally.selected, 60);
    }
}

#[test]
fn the_same_object_is_counted_once() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let same = |name: &str| (name.to_owned(), b"the same".to_vec());
    let files = [same("a"), same("b"), same("d/a"), same("d/e/x"), ("d/other".to_owned(), b"another".to_vec())];
    let root = plant(&remote, &files);
    learn_trees(&store, &remote, |_| true);
    for most in [1, 2, 100] {
        let (windows, tally) = windows(&store, &remote, everything(&store, root), most);
        assert_eq!(wanted(&windows).len(), 2);
        assert_eq!(tally.selected, 2);
    }
}

#[test]
fn a_tree_named_ten_times_is_walked_once() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let files = spread(30);
    let inner = plant(&remote, &files);
    let names: Vec<String> = (0..10).map(|number| format!("copy{number}")).collect();
    let root = remote.insert_tree(&names.iter().map(|name| (name.as_str(), true, inner)).collect::<Vec<_>>());
    learn_trees(&store, &remote, |_| true);
    let (windows, tally) = windows(&store, &remote, everything(&store, root), 1000);
    assert_eq!((windows.len(), tally.selected), (1, 30));
    assert_eq!(wanted(&windows), sorted(blobs(&files)));
    assert_eq!(everything(&store, root).count().expect("store"), 30);
}

/// What lies below `below`, and files of this ending anywhere.
struct Below(&'static [u8], &'static [u8]);

impl Select for Below {
    fn directory(&mut self, path: &[u8]) -> Reach {
        assert!(!path.ends_with(b"/"));
        if path.starts_with(self.0) {
            Reach::All
        } else if path == b"none" {
            Reach::None
        } else {
            Reach::Some
        }
    }

    fn file(&mut self, path: &[u8]) -> bool {
        path.ends_with(self.1)
    }
}

#[test]
fn only_what_is_selected_is_wanted() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let names = ["in/a", "in/b.c", "in/deep/x", "out/a", "out/b.c", "out/in/b.c", "none/b.c", "top", "top.c"];
    let all = files(names.map(str::to_owned));
    let root = plant(&remote, &all);
    learn_trees(&store, &remote, |_| true);
    let selected = [0, 1, 2, 4, 5, 8].map(|place: usize| all[place].clone());
    for most in [1, 2, 100] {
        let walk = Walk::new(store.clone(), root, Box::new(Below(b"in", b".c")), None);
        let (windows, tally) = windows(&store, &remote, walk, most);
        assert_eq!(wanted(&windows), sorted(blobs(&selected)), "windows of {most}");
        assert_eq!(tally.selected, 6);
    }
    let walk = Walk::new(store.clone(), root, Box::new(Below(b"in", b".c")), None);
    assert_eq!(walk.count().expect("store"), 6);
    // The same tree at two paths, of which the selection has different parts.
    let inner = plant(&remote, &files(["b.c".to_owned(), "other".to_owned()]));
    let root = remote.insert_tree(&[("in", true, inner), ("out", true, inner)]);
    learn_trees(&store, &remote, |_| true);
    let walk = Walk::new(store.clone(), root, Box::new(Below(b"out", b".c")), None);
    assert_eq!(walk.count().expect("store"), 2, "part of a tree first, all of it later");
}

#[test]
fn one_large_directory_is_split_over_windows() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let files = files((0..10_000).map(|number| format!("many/f{number:05}")));
    let root = plant(&remote, &files);
    learn_trees(&store, &remote, |_| true);
    let all = sorted(blobs(&files));
    for (most, count) in [(999, 11), (1000, 10), (4096, 3), (5000, 2), (20_000, 1)] {
        let (windows, _) = windows(&store, &remote, everything(&store, root), most);
        let full = windows.iter().filter(|window| !window.cargo.wants.is_empty()).count();
        assert_eq!(full, count, "windows of {most}");
        assert_eq!(wanted(&windows), all);
        for window in &windows {
            let subtrees = &window.cargo.subtrees;
            assert!(most > 10_000 || subtrees.is_empty(), "a tree that spans windows is not asked for whole");
        }
    }
}

#[test]
fn whole_trees_are_asked_for_as_such() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let mut all = files((0..20).map(|number| format!("full/f{number}")));
    all.extend(files((0..20).map(|number| format!("half/f{number}"))));
    all.extend(files(["few/a".to_owned(), "few/b".to_owned()]));
    let root = plant(&remote, &all);
    learn_trees(&store, &remote, |_| true);
    let (some, _) = windows(&store, &remote, everything(&store, root), 1000);
    let request = some[0].cargo.request(&[true; 42]);
    assert_eq!(request, (vec![root], Extent::Everything { max_blob_bytes: None }), "all of it is one line");
    let mut batch = Batch::default();
    for ((_, data), id) in all.iter().zip(blobs(&all)).skip(20).take(14) {
        batch.blob(id, data);
    }
    store.commit(batch).expect("stored");
    let (some, _) = windows(&store, &remote, everything(&store, root), 1000);
    let (ids, extent) = some[0].cargo.request(&[true; 28]);
    let inside = all[..20].iter().map(|(name, data)| (name.trim_start_matches("full/").to_owned(), data.clone()));
    let full = plant(&MemoryRemote::default(), &inside.collect::<Vec<_>>());
    // A third of the whole would come in vain; of one directory nothing does; two files are no more lines than a tree.
    let expected = [vec![full], blobs(&all[34..])].concat();
    assert_eq!((sorted(ids), extent), (sorted(expected), Extent::Everything { max_blob_bytes: None }));
}

#[test]
fn known_sizes_leave_out_and_unknown_ones_ask_the_server() {
    let (remote, (_directory, store)) = (MemoryRemote::default(), store());
    let sized = |name: &str, size: usize| (name.to_owned(), vec![name.as_bytes()[0]; size]);
    let files = [sized("a", 10), sized("b", 100), sized("c", 101), sized("d", 1000), sized("e", 50)];
    let root = plant(&remote, &files);
    learn_trees(&store, &remote, |_| true);
    let walk = || Walk::new(store.clone(), root, Box::new(Everything), Some(100));
    let (some, tally) = windows(&store, &remote, walk(), 1000);
    assert_eq!((wanted(&some).len(), tally), (5, Tally { selected: 5, left_out: 0 }));
    let server_decides = Extent::Everything { max_blob_bytes: Some(100) };
    assert_eq!(some[0].cargo.request(&[true; 5]), (vec![root], server_decides));
    assert_eq!(some[0].cargo.request(&[true, false, false, false, false]).1, server_decides, "however little is open");
    let mut batch = Batch::default();
    for ((_, data), id) in files.iter().zip(blobs(&files)) {
        batch.size(id, data.len() as u64);
    }
    store.commit(batch).expect("stored");
    let (some, tally) = windows(&store, &remote, walk(), 1000);
    assert_eq!(tally, Tally { selected: 5, left_out: 2 });
    assert_eq!(wanted(&some), sorted(blobs(&[files[0].clone(), files[1].clone(), files[4].clone()])));
    assert_eq!(some[0].cargo.request(&[true; 3]).1, Extent::Exact, "nothing is left to the server");
}
