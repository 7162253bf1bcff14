//! Keeps idle CPUs awake while the kernel asks much.
//!
//! Each request crosses to a session thread and back, and an idle CPU takes
//! tens of microseconds to wake: more than answering takes. During a burst of
//! requests this holds `/dev/cpu_dma_latency` at 0 (Documentation/power/
//! `pm_qos_interface`), so that idle CPUs poll instead of halting; it lets go
//! within [`PERIOD`] of the burst's end. Without the right to open that file
//! nothing is done, and cold look-ups are slower.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

/// Time between looks at whether the burst goes on.
const PERIOD: Duration = Duration::from_millis(10);

/// Requests within [`PERIOD`] that keep CPUs awake: what a directory walk sends, not what an editor does.
const BURST: u64 = 32;

static KEEPER: OnceLock<Option<Keeper>> = OnceLock::new();

/// One for the whole process: the file is the machine's.
struct Keeper {
    requests: Arc<AtomicU64>,
    awake: Arc<AtomicBool>,
    thread: Thread,
}

/// Counts a request of the kernel's.
pub fn request() {
    let Some(keeper) = KEEPER.get_or_init(Keeper::start) else { return };
    let count = keeper.requests.fetch_add(1, Ordering::Relaxed);
    if count.is_multiple_of(BURST) && !keeper.awake.load(Ordering::Relaxed) {
        keeper.thread.unpark();
    }
}

impl Keeper {
    fn start() -> Option<Self> {
        // Opened once here to find out whether it can be.
        hold()?;
        let (requests, awake) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, flag) = (Arc::clone(&requests), Arc::clone(&awake));
        let keeping = thread::Builder::new().name("keep-awake".into()).spawn(move || keep(&counted, &flag)).ok()?;
        Some(Self { requests, awake, thread: keeping.thread().clone() })
    }
}

fn keep(requests: &AtomicU64, awake: &AtomicBool) -> ! {
    loop {
        thread::park();
        // At once: a walk is over in a few hundred milliseconds, and requests that were no burst cost one period.
        let held = hold();
        awake.store(true, Ordering::Relaxed);
        let mut before = requests.load(Ordering::Relaxed);
        loop {
            thread::sleep(PERIOD);
            let now = requests.load(Ordering::Relaxed);
            if now - before < BURST {
                break;
            }
            before = now;
        }
        awake.store(false, Ordering::Relaxed);
        drop(held);
    }
}

/// The request to the kernel's power management; closing the file withdraws it.
fn hold() -> Option<File> {
    let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency").ok()?;
    file.write_all(&0_i32.to_ne_bytes()).ok()?;
    Some(file)
}
