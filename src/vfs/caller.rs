//! Who asks: known to whatever runs on behalf of a request, without being handed down.

use std::sync::Arc;

use super::ops::{Fs, Shown};
use crate::hydrate::cause::{Cause, Process};
use crate::index::ino::Ino;
use crate::store::Operation;

/// A request's thread, and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Its id; 0 where it is the kernel's, or outside our pid namespace.
    pub thread: u32,
    pub operation: Operation,
}

tokio::task_local! {
    /// Set around everything that is done for a request.
    pub(super) static CALLER: Caller;
}

impl Fs {
    /// Why something is to be fetched that `ino` shows. Finds out the caller's name, which costs two reads of `/proc`: only
    /// for what is not here.
    pub(super) fn cause(&self, shown: &Shown, ino: Ino) -> Arc<Cause> {
        let caller = CALLER.try_with(|caller| *caller).ok();
        let label = self.label(shown, ino);
        let path_at = shown.root.as_os_str().len() + 1;
        let operation = caller.map_or(Operation::Read, |caller| caller.operation);
        let process = match caller {
            Some(Caller { thread, .. }) if thread != 0 && self.store.keeps_fetches() => Process::of_thread(thread),
            _ => Process::default(),
        };
        Arc::new(Cause { path_at, process, ..Cause::new(shown.owner, &label, operation) })
    }
}
