//! What could not be had: counted, and told in the log with what it belongs to.

use gix::ObjectId;

use super::errno::Errno;
use super::ops::{Fs, Shown};
use crate::hydrate::RemoteError;

impl Fs {
    /// Notes that `id`, needed for `path`, could not be had. Its span is made only now: reads that succeed cost nothing for
    /// it.
    pub(super) fn failed(&self, shown: &Shown, path: &[u8], id: ObjectId, error: &RemoteError) -> Errno {
        self.metrics.read_failures.inc();
        let generation = shown.view.generation().generation.0;
        tracing::error_span!("hydrating", workspace = &*shown.workspace, generation, object = %id).in_scope(|| {
            tracing::warn!(path = %String::from_utf8_lossy(path), kind = ?error.kind, "{error}");
        });
        error.into()
    }
}
