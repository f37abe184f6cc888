//! The broker against an oracle, against a model of SQLite's own protocol, and rule by rule.

mod clients;
mod properties;
mod rules;

use super::{FileId, Stamp, View};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Files as the tests say they are.
#[derive(Default)]
pub(super) struct World {
    pub wal: HashSet<FileId>,
    pub hot: HashSet<FileId>,
    pub stamps: RefCell<HashMap<FileId, Stamp>>,
}

impl World {
    pub fn commit(&self, file: FileId) {
        *self.stamps.borrow_mut().entry(file).or_default() += 1;
    }
}

impl View for World {
    fn is_wal(&self, file: FileId) -> bool {
        self.wal.contains(&file)
    }

    fn has_hot_journal(&self, file: FileId) -> bool {
        self.hot.contains(&file)
    }

    fn stamp(&self, file: FileId) -> Stamp {
        self.stamps.borrow().get(&file).copied().unwrap_or(0)
    }
}
