//! Why something is fetched: who wanted it, where, and by doing what.
//!
//! A cause is made once a request and shared by all that is fetched for it, so
//! that what came along is put down to whoever set it off.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gix::ObjectId;
use parking_lot::Mutex;

use super::queue::{Class, Owner};
use crate::store::{Fetch, FetchClass, ObjectIdText, Operation, WorkspaceId};

/// A process, as `proc_pid_comm(5)` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its id; 0 where there is none.
    pub id: u32,
    /// Its name; empty where it is not known any more.
    pub name: Box<str>,
}

impl Process {
    /// The process that the thread `id` belongs to.
    pub fn of_thread(id: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let id = leader.unwrap_or(id);
        let name = std::fs::read(format!("/proc/{id}/comm")).unwrap_or_default();
        Self { id, name: String::from_utf8_lossy(name.trim_ascii_end()).into() }
    }

    /// This very process, on behalf of the command `name`.
    pub fn own(name: &str) -> Self {
        Self { id: std::process::id(), name: Box::from(name) }
    }
}

/// Why something is fetched.
#[derive(Debug)]
pub struct Cause {
    /// For whom: what nobody waits for leaves the queue with its owner.
    pub owner: Owner,
    /// The workspace it is for, where there is one.
    pub workspace: Option<WorkspaceId>,
    /// The path as a waiter's is shown; the pathspecs of a warm.
    pub label: Box<[u8]>,
    /// Where in it the path in the workspace begins.
    pub path_at: usize,
    /// Who.
    pub process: Process,
    /// What it did.
    pub operation: Operation,
    /// When something last arrived for it. Held for a moment, under no other lock but the flights'.
    pub served: Mutex<Option<Instant>>,
}

impl Cause {
    /// `operation` on `label` for the workspace that `owner` is, by nobody known.
    pub fn new(owner: Owner, label: &[u8], operation: Operation) -> Self {
        Self {
            owner,
            workspace: Some(WorkspaceId(owner.0)),
            label: Box::from(label),
            path_at: 0,
            process: Process::default(),
            operation,
            served: Mutex::new(None),
        }
    }

    /// The path in the workspace.
    pub fn path(&self) -> &[u8] {
        self.label.get(self.path_at..).unwrap_or_default()
    }

    /// How long whoever waits since `since` waited for what arrives now. Who waits for many objects at once waits for each
    /// of them only since the one before arrived, so these add up to the time it took.
    pub(super) fn wait_ends(&self, since: Instant) -> Duration {
        let now = Instant::now();
        let before = self.served.lock().replace(now);
        now.saturating_duration_since(before.map_or(since, |before| before.max(since)))
    }

    /// The record of what was fetched for it: `id` or many objects.
    pub(super) fn record(
        &self,
        id: Option<ObjectId>,
        class: FetchClass,
        brought: (u64, u64),
        waited: Duration,
    ) -> Fetch {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Fetch {
            at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            workspace: self.workspace,
            id: id.map(ObjectIdText),
            path: Box::from(self.path()),
            process: self.process.name.clone(),
            pid: self.process.id,
            operation: self.operation,
            class,
            objects: brought.0,
            bytes: brought.1,
            wait_us: u64::try_from(waited.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl From<Class> for FetchClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Read => Self::Read,
            Class::Sibling => Self::Sibling,
            Class::Manifest | Class::Source | Class::Text | Class::Last => Self::Prefetch,
        }
    }
}

/// What a flight tells of itself when it lands: the record of its fetch.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub cause: Arc<Cause>,
    pub class: FetchClass,
    pub waited: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_put_down_to_its_process() {
        let own = std::thread::scope(|scope| {
            let thread =
                scope.spawn(|| Process::of_thread(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()));
            thread.join().expect("reads two files")
        });
        assert_eq!(own.id, std::process::id());
        assert!(!own.name.is_empty());
        assert_eq!(Process::of_thread(u32::MAX), Process { id: u32::MAX, name: Box::default() });
    }

    #[test]
    fn waits_at_the_same_time_are_counted_once() {
        let cause = Cause::new(Owner(7), b"a", Operation::Git);
        let since = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        let all: Duration = (0..3).map(|_| cause.wait_ends(since)).sum();
        assert!(all <= since.elapsed() && all >= Duration::from_millis(5), "{all:?}");
    }

    #[test]
    fn a_record_has_the_path_in_the_workspace() {
        let cause = Cause { path_at: 3, ..Cause::new(Owner(7), b"/m/a/b", Operation::Read) };
        let fetch = cause.record(None, FetchClass::Sibling, (2, 10), Duration::from_micros(5));
        assert_eq!((&*fetch.path, fetch.objects, fetch.bytes, fetch.wait_us), (&b"a/b"[..], 2, 10, 5));
        assert_eq!(fetch.workspace, Some(WorkspaceId(7)));
    }
}
