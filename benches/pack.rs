//! How fast is a pack decoded and verified, a core? Megabytes a second of
//! object contents, out of a pack made by git from this repository's sources
//! or from `LARDER_BENCH_REPO` (a bare repository; its `HEAD` without history).

use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gix::ObjectId;
use gix::objs::Kind;
use larder::git::pack::{Options, decode};
use larder::hydrate::remote::{LargeSink, RemoteError, Sink};

/// Objects packed at most: what a few hundred batches bring.
const OBJECTS: usize = 20_000;

/// Counts what it is given.
#[derive(Default)]
struct Count {
    objects: u64,
    bytes: u64,
}

impl Sink for Count {
    fn object(&mut self, _id: ObjectId, _kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        self.objects += 1;
        self.bytes += data.len() as u64;
        Ok(())
    }

    fn large(&mut self, _raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Ok(Box::new(CountLarge(self)))
    }
}

struct CountLarge<'a>(&'a mut Count);

impl Write for CountLarge<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LargeSink for CountLarge<'_> {
    fn finish(self: Box<Self>, _id: ObjectId) -> Result<(), RemoteError> {
        self.0.objects += 1;
        Ok(())
    }
}

fn git(at: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .current_dir(at)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git is installed");
    let mut pipe = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let feed = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().expect("git ends");
    feed.join().expect("no panic");
    assert!(output.status.success(), "git {arguments:?} failed");
    output.stdout
}

/// A pack as upload-pack makes it: whole by itself, deltas by offset.
fn pack() -> Vec<u8> {
    let given = std::env::var_os("LARDER_BENCH_REPO").map(PathBuf::from);
    let scratch = tempfile::tempdir().expect("temporary directory");
    let repository = given.unwrap_or_else(|| {
        let at = scratch.path();
        git(at, &["init", "-q", "--bare", "."], b"");
        let sources = concat!("--work-tree=", env!("CARGO_MANIFEST_DIR"));
        git(at, &["--git-dir=.", sources, "add", "--", "src", "tests", "benches", "Cargo.lock"], b"");
        let tree = String::from_utf8(git(at, &["write-tree"], b"")).expect("an id");
        let author = ["-c", "user.name=b", "-c", "user.email=b@example.com"];
        let commit = git(at, &[&author[..], &["commit-tree", "-m", "bench", tree.trim()]].concat(), b"");
        let commit = String::from_utf8(commit).expect("an id");
        git(at, &["update-ref", "HEAD", commit.trim()], b"");
        at.to_owned()
    });
    let listed = git(&repository, &["rev-list", "--objects", "--no-object-names", "HEAD^{tree}"], b"");
    let ids: Vec<u8> = listed.split_inclusive(|&b| b == b'\n').take(OBJECTS).flatten().copied().collect();
    git(&repository, &["pack-objects", "-q", "--stdout", "--delta-base-offset"], &ids)
}

fn decoding(criterion: &mut Criterion) {
    let pack = pack();
    let run = || {
        let mut count = Count::default();
        decode(&mut black_box(&pack[..]), Options::new(gix::hash::Kind::Sha1), &mut count).expect("git's own pack");
        count
    };
    let count = run();
    let mut group = criterion.benchmark_group("pack");
    group.sample_size(10).throughput(Throughput::Bytes(count.bytes));
    group.bench_function(format!("decode {} objects", count.objects), |bencher| bencher.iter(run));
    group.finish();
}

criterion_group!(benches, decoding);
criterion_main!(benches);
