//! Directory listings: the base's names with what was changed among them, then what was added.
//!
//! A place in a listing (a cookie, for `telldir(3)`) is the base's position, or the number that a name was bound with: both
//! stay the same while others come and go, so removing files while listing skips nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Ground, Outcome, Overlay};
use crate::index::ino::Ino;
use crate::index::view::{Directory, View};
use crate::store::overlay::{Binding, Name};

/// Merged listings kept; each is as large as its directory.
const KEPT: usize = 8;

/// Cookies of added names begin here, after every position in a base.
const ADDED: u64 = 1 << 33;

/// One name of a changed directory.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place; the next row's is greater.
    pub cookie: u64,
    /// What it is.
    pub what: RowKind,
}

/// Where a row comes from.
#[derive(Clone, Debug)]
pub enum RowKind {
    /// The base, at that position.
    Base(usize),
    /// The overlay.
    Bound {
        /// The name.
        name: Name,
        /// Inode.
        ino: Ino,
        /// `st_mode >> 12`.
        kind: u8,
    },
}

/// A changed directory's listing.
pub struct Rows {
    /// The base's part.
    pub base: Option<Arc<Directory>>,
    /// All names, by cookie.
    pub rows: Vec<Row>,
}

#[derive(Default)]
pub(super) struct Cache(Mutex<VecDeque<(Ino, u64, Arc<Rows>)>>);

impl Cache {
    pub(super) fn remove(&self, ino: Ino) {
        self.0.lock().retain(|(at, ..)| *at != ino);
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Overlay {
    /// The listing of directory `ino`; `None`: nothing in it was changed.
    pub fn rows(&self, view: &View, ground: &dyn Ground, ino: Ino) -> Outcome<Option<Arc<Rows>>> {
        let state = self.state.read();
        if state.log.is_pristine() {
            return Ok(None);
        }
        let generation = view.generation().generation.0;
        if let Some((.., rows)) = state.listings.0.lock().iter().find(|(at, of, _)| (*at, *of) == (ino, generation)) {
            return Ok(Some(Arc::clone(rows)));
        }
        let mut bindings = state.log.bindings(ino.0)?;
        if bindings.is_empty() {
            return Ok(None);
        }
        let base = state.base(view, ground, ino)?;
        let mut rows = Vec::new();
        for (position, entry) in base.iter().flat_map(|directory| directory.listing().iter().enumerate()) {
            let cookie = position as u64;
            match bindings.remove(entry.name) {
                None => rows.push(Row { cookie, what: RowKind::Base(position) }),
                Some(Binding::Whiteout) => {}
                Some(Binding::Inode { ino, kind, .. }) => {
                    let what = RowKind::Bound { name: Box::from(entry.name), ino: Ino(ino), kind };
                    rows.push(Row { cookie, what });
                }
            }
        }
        let added = rows.len();
        for (name, binding) in bindings {
            if let Binding::Inode { ino, kind, cookie } = binding {
                rows.push(Row { cookie: ADDED + cookie, what: RowKind::Bound { name, ino: Ino(ino), kind } });
            }
        }
        rows[added..].sort_by_key(|row| row.cookie);
        let rows = Arc::new(Rows { base, rows });
        let mut kept = state.listings.0.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((ino, generation, Arc::clone(&rows)));
        Ok(Some(rows))
    }
}
