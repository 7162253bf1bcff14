//! SIGKILL at any moment: the store opens, holds whole batches, and all that was acknowledged as durable.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const CHILD: &str = "LARDER_TEST_CRASH_CHILD";
const BATCH: u64 = 64;

fn members(batch: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..BATCH).map(move |index| text(batch * BATCH + index, 200 + usize::try_from(index * 37).expect("small")))
}

/// Not a test: the process that is killed. Says on standard output what is durable.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&path), &StoreOptions { cache_bytes: 4 << 20 }).expect("opens");
    let mut large = store.large_blob(1 << 40).expect("started");
    let mut out = std::io::stdout().lock();
    for number in 0.. {
        let mut batch = Batch::default();
        for raw in members(number) {
            batch.blob(id_of(&raw), &raw);
        }
        store.commit(batch).expect("stored");
        large.write_all(&noise(number, FRAME_BYTES)).expect("written");
        if number % 5 == 4 {
            store.flush().expect("flushed");
            writeln!(out, "durable {number}").expect("the parent reads");
        }
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["store::tests::crash::child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

#[test]
fn a_killed_process_leaves_a_store_that_opens_at_once() {
    let mut scratch = Scratch::new();
    scratch.close();
    for round in 0..4 {
        let mut child = spawn(&scratch.path());
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let first = lines.by_ref().find(|line| line.contains("durable")).expect("it gets that far");
        std::thread::sleep(Duration::from_millis(30 + 41 * round));
        child.kill().expect("SIGKILL");
        child.wait().expect("gone");
        let last = lines.filter(|line| line.contains("durable")).last().unwrap_or(first);
        let durable: u64 = last.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        if round == 3 {
            let store = Store::open_read_only(&scratch.path()).expect("opens for reading, too");
            assert!(store.stats().expect("readable").blobs >= (durable + 1) * BATCH);
        }
        let start = Instant::now();
        scratch.open();
        let took = start.elapsed();
        // Rebuilding redb's allocator state would read the whole file; the bound is loose for slow machines.
        assert!(took < Duration::from_secs(2), "opened in {took:?}");
        let store = scratch.store();
        let mut whole = 0;
        for number in 0.. {
            let here = members(number).filter(|raw| store.contains(&id_of(raw)).expect("readable")).count() as u64;
            assert!(here == 0 || here == BATCH, "batch {number} is torn: {here}");
            if here == 0 {
                break;
            }
            assert!(members(number).all(|raw| store.read(&id_of(&raw)).expect("readable") == Some(raw)));
            whole += 1;
        }
        assert!(whole > durable, "batch {durable} was durable, {whole} are here");
        let stats = store.stats().expect("readable");
        assert_eq!(stats.blobs, whole * BATCH);
        assert_eq!(store.damaged(), 0);
        scratch.close();
        let pending = scratch.database().begin_read().expect("read").open_table(schema::PENDING).expect("table").len();
        assert_eq!(pending.expect("counted"), 0, "the unfinished large blob was given back");
        #[expect(
            clippy::print_stdout,
            reason = "for whoever runs this by hand; the time is a measurement, not a check"
        )]
        {
            println!("killed after batch {durable}: opened in {took:?}");
        }
    }
}
