//! The broker against an oracle, against a model of SQLite's own protocol, and rule by rule.

mod clients;
mod crowds;
mod properties;
mod rules;

use super::{FileId, Stamp, View};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

/// Files as the tests say they are.
#[derive(Default)]
pub(super) struct World {
    pub wal: HashSet<FileId>,
    pub hot: HashSet<FileId>,
    pub stamps: RefCell<HashMap<FileId, Stamp>>,
    /// How often it was asked.
    pub looks: Cell<usize>,
}

impl World {
    pub fn commit(&self, file: FileId) {
        *self.stamps.borrow_mut().entry(file).or_default() += 1;
    }
}

impl View for World {
    fn is_wal(&self, file: FileId) -> bool {
        self.looks.set(self.looks.get() + 1);
        self.wal.contains(&file)
    }

    fn has_hot_journal(&self, file: FileId) -> bool {
        self.looks.set(self.looks.get() + 1);
        self.hot.contains(&file)
    }

    fn stamp(&self, file: FileId) -> Stamp {
        self.stamps.borrow().get(&file).copied().unwrap_or(0)
    }
}
