//! One question: does the store keep up with a real repository?
//!
//! Stores every blob and tree of a commit the way hydration does (batches of
//! 256 in tree order) and prints the figures of `docs/performance.md`:
//!
//! ```text
//! LARDER_CORPUS=/tmp/corpus/linux.git cargo bench --bench store_corpus
//! ```
//!
//! `LARDER_CORPUS_REVS` names two commits (`main next`): the second one's new trees are the second generation. Without
//! `LARDER_CORPUS` there is nothing to measure and it says so.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gix::ObjectId;
use larder::store::{Batch, Entry, EntryKind, Listing, Store, StoreOptions};

/// What hydration puts in a batch.
const BATCH: usize = 256;

fn main() {
    let Some(corpus) = std::env::var_os("LARDER_CORPUS") else {
        return say("LARDER_CORPUS is not set: nothing to measure");
    };
    let corpus = Path::new(&corpus);
    let revs = std::env::var("LARDER_CORPUS_REVS").unwrap_or_else(|_| "main next".to_owned());
    let generations: Vec<(Vec<ObjectId>, Vec<ObjectId>)> = revs.split(' ').map(|rev| list(corpus, rev)).collect();
    let home = tempfile::tempdir_in(std::env::var_os("LARDER_BENCH_DIR").unwrap_or_else(|| ".".into()))
        .expect("a directory to write to");
    publish(corpus, &generations, &home.path().join("trees.redb"));
    for durable in [false, true] {
        let path = home.path().join(format!("blobs-{durable}.redb"));
        insert(corpus, &generations[0].0, &path, durable);
        if !durable {
            read_back(&generations[0].0, &path);
        }
        std::fs::remove_file(path).expect("its own file");
    }
}

fn publish(corpus: &Path, generations: &[(Vec<ObjectId>, Vec<ObjectId>)], path: &Path) {
    let store = Store::open(path, &StoreOptions::default()).expect("a new store");
    let mut seen = HashSet::new();
    for (number, (_, trees)) in generations.iter().enumerate() {
        let new: Vec<ObjectId> = trees.iter().copied().filter(|tree| seen.insert(*tree)).collect();
        let mut listings = Vec::new();
        objects(corpus, &new, |id, raw| listings.push((id, raw.to_vec())));
        let start = Instant::now();
        let mut batch = Batch::default();
        let mut entries = 0;
        for (id, raw) in &listings {
            let listing = parse(raw);
            entries += listing.len();
            batch.tree(*id, &listing);
        }
        let packed = start.elapsed();
        store.commit_durably(batch).expect("room on the disk");
        let all = start.elapsed();
        say(&format!(
            "generation {}: {} new trees, {entries} entries: pack {packed:.1?}, with durable commit {all:.1?}",
            number + 1,
            new.len()
        ));
    }
    let trees = &generations[0].1;
    let start = Instant::now();
    for id in trees {
        store.tree(id).expect("readable").expect("just stored");
    }
    say(&format!("tree by id, all once: {:.2?} each", each(start.elapsed(), trees.len())));
}

fn insert(corpus: &Path, blobs: &[ObjectId], path: &Path, durable: bool) {
    let store = Store::open(path, &StoreOptions::default()).expect("a new store");
    let (mut fill, mut commit) = (Duration::ZERO, Duration::ZERO);
    for ids in blobs.chunks(BATCH) {
        let mut raws = Vec::new();
        objects(corpus, ids, |id, raw| raws.push((id, raw.to_vec())));
        let mut batch = Batch::default();
        let start = Instant::now();
        for (id, raw) in &raws {
            batch.blob(*id, raw);
        }
        fill += start.elapsed();
        let start = Instant::now();
        if durable { store.commit_durably(batch) } else { store.commit(batch) }.expect("room on the disk");
        commit += start.elapsed();
    }
    let start = Instant::now();
    store.flush().expect("room on the disk");
    commit += start.elapsed();
    let stats = store.stats().expect("readable");
    let start = Instant::now();
    store.compact().expect("room on the disk");
    let compacting = start.elapsed();
    drop(store);
    let length = std::fs::metadata(path).expect("still there").len();
    say(&format!(
        "insert, {}: {} blobs; compress {fill:.2?}; commit {commit:.2?} = {:.0} blobs/s",
        if durable { "every batch durable" } else { "as shipped" },
        stats.blobs,
        stats.blobs as f64 / commit.as_secs_f64()
    ));
    say(&format!(
        "  raw {}, stored {}, file {} on disk, {} long after compacting in {compacting:.2?}: {:.4} of raw, {:.4} of stored",
        stats.raw_bytes,
        stats.stored_bytes,
        stats.file_bytes,
        length,
        stats.file_bytes as f64 / stats.raw_bytes as f64,
        stats.file_bytes as f64 / stats.stored_bytes as f64
    ));
}

fn read_back(blobs: &[ObjectId], path: &Path) {
    let mut shuffled = blobs.to_vec();
    // Fisher–Yates with a fixed stream: every run asks in the same order.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in (1..shuffled.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        shuffled.swap(index, (state >> 33) as usize % (index + 1));
    }
    for (what, cache_bytes) in [("shipped cache", StoreOptions::default().cache_bytes), ("1 GiB cache", 1 << 30)] {
        let store = Store::open(path, &StoreOptions { cache_bytes }).expect("just written");
        for pass in ["first", "second"] {
            for (order, ids) in [("random", &shuffled[..]), ("tree order", blobs)] {
                let start = Instant::now();
                let infos = ids.iter().filter(|id| store.blob_info(id).expect("readable").is_some()).count();
                let looked = start.elapsed();
                let start = Instant::now();
                let mut raw = 0;
                for id in ids {
                    raw += store.read(id).expect("readable").expect("just stored").len();
                }
                let took = start.elapsed();
                say(&format!(
                    "read, {what}, {pass} pass, {order}: {:.2?} each, {:.0} MB/s raw; row alone {:.2?} ({infos})",
                    each(took, ids.len()),
                    raw as f64 / took.as_secs_f64() / 1e6,
                    each(looked, ids.len())
                ));
            }
        }
    }
}

fn each(all: Duration, count: usize) -> Duration {
    all / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

/// Unique blobs and trees of a commit, in tree order.
fn list(corpus: &Path, rev: &str) -> (Vec<ObjectId>, Vec<ObjectId>) {
    let out = git(corpus, &["ls-tree", "-r", "-t", "--full-tree", rev]).output().expect("git runs").stdout;
    let root = git(corpus, &["rev-parse", &format!("{rev}^{{tree}}")]).output().expect("git runs").stdout;
    let (mut blobs, mut trees, mut seen) = (Vec::new(), vec![id(root.trim_ascii())], HashSet::new());
    for line in out.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|&byte| byte == b' ' || byte == b'\t');
        let (kind, id) = (fields.nth(1), id(fields.next().expect("ls-tree's format")));
        match kind {
            _ if !seen.insert(id) => {}
            Some(b"blob") => blobs.push(id),
            Some(b"tree") => trees.push(id),
            _ => {}
        }
    }
    (blobs, trees)
}

fn objects(corpus: &Path, ids: &[ObjectId], mut each: impl FnMut(ObjectId, &[u8])) {
    let mut child = git(corpus, &["cat-file", "--batch", "--buffer"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut input = child.stdin.take().expect("piped");
    let wanted = ids.iter().fold(String::new(), |mut wanted, id| {
        writeln!(wanted, "{id}").expect("memory");
        wanted
    });
    let feeder = std::thread::spawn(move || input.write_all(wanted.as_bytes()));
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let (mut head, mut raw) = (String::new(), Vec::new());
    loop {
        head.clear();
        if output.read_line(&mut head).expect("readable") == 0 {
            break;
        }
        let mut fields = head.split_ascii_whitespace();
        let id = id(fields.next().expect("cat-file's format").as_bytes());
        let size: usize = fields.nth(1).and_then(|size| size.parse().ok()).expect("cat-file's format");
        raw.resize(size + 1, 0);
        output.read_exact(&mut raw).expect("a whole object");
        each(id, &raw[..size]);
    }
    feeder.join().expect("no panic").expect("git reads its input");
    assert!(child.wait().expect("git ends").success());
}

fn parse(raw: &[u8]) -> Listing {
    let mut entries = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() {
        let space = rest.iter().position(|&byte| byte == b' ').expect("a tree");
        let nul = rest.iter().position(|&byte| byte == 0).expect("a tree");
        let mode = rest[..space].iter().fold(0, |mode, digit| mode * 8 + u16::from(digit - b'0'));
        let kind = EntryKind::from_mode(mode).expect("Git's own mode");
        let id = ObjectId::from_bytes_or_panic(&rest[nul + 1..nul + 21]);
        entries.push(Entry { name: &rest[space + 1..nul], kind, mode, id });
        rest = &rest[nul + 21..];
    }
    Listing::pack(20, entries).expect("Git's own tree")
}

fn git(corpus: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(corpus).args(arguments);
    command
}

fn id(hex: &[u8]) -> ObjectId {
    ObjectId::from_hex(hex).expect("an object id")
}

fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("standard output");
}
