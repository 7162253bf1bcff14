//! One question: what do putting and getting a blob cost?
//!
//! Synthetic sources of the linux corpus' mean size; `store_corpus` asks the same of the corpus itself.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gix::ObjectId;
use larder::store::{Batch, FRAME_BYTES, Store, StoreOptions};

/// Mean file of the linux corpus.
const FILE_BYTES: usize = 16_600;
/// What hydration commits at once.
const BATCH: u64 = 256;
/// Blobs to get at random from: more than redb's cache holds decoded.
const STORED: u64 = 8 * BATCH;
const LARGE_BYTES: usize = 64 << 20;

fn id(number: u64) -> ObjectId {
    ObjectId::from_bytes_or_panic(&blake3::hash(&number.to_le_bytes()).as_bytes()[..20])
}

/// Text that compresses about as sources do: one in five.
fn source(number: u64, len: usize) -> Vec<u8> {
    let mut text = String::with_capacity(len + 80);
    let mut state = number;
    while text.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (name, value) = ((state >> 33) % 997, state >> 52);
        writeln!(text, "\tif (!priv->field_{name})\n\t\treturn dev_err(dev, {value}, \"no field\\n\");")
            .expect("memory");
    }
    text.truncate(len);
    text.into_bytes()
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn batch(first: u64, raws: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::default();
    for (number, raw) in (first..).zip(raws) {
        batch.blob(id(number), raw);
    }
    batch
}

fn put(criterion: &mut Criterion) {
    let raws: Vec<Vec<u8>> = (0..BATCH).map(|number| source(number, FILE_BYTES)).collect();
    let home = tempfile::tempdir_in(".").expect("a directory on a disk");
    let store = Store::open(&home.path().join("store.redb"), &StoreOptions::default()).expect("a new store");
    let mut group = criterion.benchmark_group("put");
    group.throughput(Throughput::Elements(BATCH)).sample_size(20);
    group.bench_function("compress a batch of 256", |bencher| bencher.iter(|| batch(0, &raws)));
    let mut first = 0;
    group.bench_function("commit a batch of 256, as shipped", |bencher| {
        bencher.iter_batched(
            || {
                first += BATCH;
                batch(first, &raws)
            },
            |batch| store.commit(batch).expect("room on the disk"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("commit a batch of 256, durable", |bencher| {
        bencher.iter_batched(
            || {
                first += BATCH;
                batch(first, &raws)
            },
            |batch| store.commit_durably(batch).expect("room on the disk"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn get(criterion: &mut Criterion) {
    let home = tempfile::tempdir_in(".").expect("a directory on a disk");
    let store = Store::open(&home.path().join("store.redb"), &StoreOptions::default()).expect("a new store");
    for first in (0..STORED).step_by(256) {
        let raws: Vec<Vec<u8>> = (first..first + BATCH).map(|number| source(number, FILE_BYTES)).collect();
        store.commit(batch(first, &raws)).expect("room on the disk");
    }
    let plain: Vec<Vec<u8>> = (0..BATCH).map(|number| noise(3300 + usize::try_from(number).expect("small"))).collect();
    store.commit(batch(STORED, &plain)).expect("room on the disk");
    store.flush().expect("room on the disk");
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut group = criterion.benchmark_group("get");
    group.bench_function("row of a random blob", |bencher| {
        bencher.iter(|| black_box(store.blob_info(&id(random(STORED))).expect("readable").expect("stored")));
    });
    group.bench_function("random blob of 3.4 KB kept raw: everything but decompression", |bencher| {
        bencher.iter(|| black_box(store.read(&id(STORED + random(BATCH))).expect("readable").expect("stored")));
    });
    group.throughput(Throughput::Bytes(FILE_BYTES as u64));
    group.bench_function("random blob of 16.6 KB", |bencher| {
        bencher.iter(|| black_box(store.read(&id(random(STORED))).expect("readable").expect("stored")));
    });
    group.finish();
}

fn large(criterion: &mut Criterion) {
    let home = tempfile::tempdir_in(".").expect("a directory on a disk");
    let store = Store::open(&home.path().join("store.redb"), &StoreOptions::default()).expect("a new store");
    let mut group = criterion.benchmark_group("large");
    group.sample_size(10);
    for (number, (name, raw)) in (0..).zip([("text", source(1, LARGE_BYTES)), ("noise", noise(LARGE_BYTES))]) {
        let mut large = store.large_blob(raw.len() as u64).expect("started");
        large.write_all(&raw).expect("room on the disk");
        large.finish(id(number)).expect("room on the disk");
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function(format!("64 MiB of {name} in order"), |bencher| {
            bencher.iter(|| {
                for at in (0..LARGE_BYTES).step_by(FRAME_BYTES) {
                    black_box(store.read_at(&id(number), at as u64, FRAME_BYTES).expect("readable").expect("stored"));
                }
            });
        });
        let mut turn = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("4 KiB anywhere in 64 MiB of {name}"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 7919 * 4096) % (LARGE_BYTES as u64 - 4096);
                black_box(store.read_at(&id(number), turn, 4096).expect("readable").expect("stored"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, put, get, large);
criterion_main!(benches);
