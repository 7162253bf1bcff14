//! The journal: which paths changed since.

use std::collections::BTreeSet;

use super::super::error::StoreError;
use super::super::schema::JOURNAL;
use super::OverlayLog;
use super::record::Name;

impl OverlayLog {
    /// The sequence that the next change gets: whoever knows this one knows all before it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Which history the sequences count.
    pub fn epoch(&self) -> u64 {
        self.folded.epoch
    }

    /// Paths changed at `since` or later; `None` when the journal does not reach back that far.
    pub fn changed_since(&self, since: u64) -> Result<Option<BTreeSet<Name>>, StoreError> {
        if since < self.folded.floor || since > self.sequence {
            return Ok(None);
        }
        let mut paths: BTreeSet<Name> = BTreeSet::new();
        for memory in self.memories() {
            paths.extend(memory.journal.iter().filter(|(at, _)| *at >= since).map(|(_, path)| path.clone()));
        }
        if since < self.folded.sequence && self.rows {
            let folded = self.store.inner.read("reading the journal", |txn| {
                let table = txn.open_table(JOURNAL)?;
                let mut paths = Vec::new();
                for row in table.range((self.workspace.0, since)..=(self.workspace.0, u64::MAX))? {
                    paths.push(Name::from(row?.1.value()));
                }
                Ok(paths)
            })?;
            paths.extend(folded);
        }
        Ok(Some(paths))
    }
}
