//! What one call sees of the files: each looked at once, however many waiters it is asked about.

use super::{FileId, LockKind, Range, Stamp, View};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// A [`View`] that remembers for the length of one call. A look may be a read of the file, and a queue of a thousand asks a thousand times.
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
        // Asked once a grant, and must not be older than it.
        self.view.stamp(file)
    }
    fn keep_others_out(&self, file: FileId, range: Range, kind: LockKind) -> bool {
        let asked = (file, range, kind);
        // A queue may ask for the same again and again: who was in the way a moment ago is still.
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

    fn let_others_in(&self, file: FileId, range: Range, left: &[(Range, LockKind)]) {
        self.view.let_others_in(file, range, left);
    }
}
