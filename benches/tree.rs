//! One question: what do a look-up and a listing of a directory cost?

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gix::ObjectId;
use larder::store::{Batch, Entry, EntryKind, Listing, Store, StoreOptions};

/// A small directory, the linux corpus' mean and its largest.
const SIZES: [usize; 3] = [4, 16, 1500];

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("driver-{:x}-{number}.c", number * 7919 % 4096)).collect()
}

fn listing(names: &[String]) -> Listing {
    let entry = |(number, name): (usize, &String)| {
        let mode = if number % 9 == 0 { 0o040_000 } else { 0o100_644 };
        let kind = EntryKind::from_mode(mode).expect("Git's modes");
        (name.clone(), mode, kind, ObjectId::from_bytes_or_panic(&[u8::try_from(number % 251).expect("small"); 20]))
    };
    let owned: Vec<_> = names.iter().enumerate().map(entry).collect();
    let entries =
        owned.iter().map(|(name, mode, kind, id)| Entry { name: name.as_bytes(), kind: *kind, mode: *mode, id: *id });
    Listing::pack(20, entries.collect()).expect("distinct names")
}

fn tree(criterion: &mut Criterion) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&home.path().join("store.redb"), &StoreOptions::default()).expect("a new store");
    let mut group = criterion.benchmark_group("tree");
    for size in SIZES {
        let names = names(size);
        let packed = listing(&names);
        let row = Bytes::copy_from_slice(packed.as_bytes());
        let id = ObjectId::from_bytes_or_panic(&[u8::try_from(size % 256).expect("below 256"); 20]);
        let mut batch = Batch::default();
        batch.tree(id, &packed);
        store.commit(batch).expect("room on the disk");

        let mut turn = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("lookup", size), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % names.len();
                black_box(packed.find(names[turn].as_bytes()))
            });
        });
        group.bench_function(BenchmarkId::new("lookup from the store", size), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % names.len();
                let listing = store.tree(&id).expect("readable").expect("stored");
                black_box(listing.find(names[turn].as_bytes()).map(|entry| entry.id))
            });
        });
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("readdir", size), |bencher| {
            bencher.iter(|| packed.iter().map(|entry| black_box(entry).name.len()).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("check a row", size), |bencher| {
            bencher.iter(|| Listing::from_row(black_box(row.clone())).expect("its own bytes"));
        });
    }
    group.finish();
}

criterion_group!(benches, tree);
criterion_main!(benches);
