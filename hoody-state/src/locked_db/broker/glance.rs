//! A cache of the [`View`] for one call: each file is read once, however many waiters ask about it.

use super::{FileId, LockKind, Range, Stamp, View};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// A [`View`] that caches answers for one call. An answer may cost a read of the file, and a queue of a thousand waiters asks a thousand times.
pub(super) struct Glance<'a> {
    view: &'a dyn View,
    wal: RefCell<BTreeMap<FileId, bool>>,
    hot: RefCell<BTreeMap<FileId, bool>>,
    refused: RefCell<BTreeSet<(FileId, Range, LockKind)>>,
}

impl<'a> Glance<'a> {
    pub fn new(view: &'a dyn View) -> Self {
        Glance { view, wal: RefCell::default(), hot: RefCell::default(), refused: RefCell::default() }
    }
}

impl View for Glance<'_> {
    fn is_wal(&self, file: FileId) -> bool {
        *self.wal.borrow_mut().entry(file).or_insert_with(|| self.view.is_wal(file))
    }

    fn has_hot_journal(&self, file: FileId) -> bool {
        *self.hot.borrow_mut().entry(file).or_insert_with(|| self.view.has_hot_journal(file))
    }

    fn stamp(&self, file: FileId) -> Stamp {
        // Not cached: it is asked once for each grant and must not be older than that.
        self.view.stamp(file)
    }
    fn keep_others_out(&self, file: FileId, range: Range, kind: LockKind) -> bool {
        let asked = (file, range, kind);
        // A queue may ask for the same repeatedly: a conflict of a moment ago still exists.
        if self.refused.borrow().contains(&asked) {
            return false;
        }
        let out = self.view.keep_others_out(file, range, kind);
        if !out {
            self.refused.borrow_mut().insert(asked);
        }
        out
    }

    fn others_hold(&self, file: FileId, range: Range) -> bool {
        self.view.others_hold(file, range)
    }

    fn allow_others(&self, file: FileId, range: Range, left: &[(Range, LockKind)]) {
        self.view.allow_others(file, range, left);
    }
}
