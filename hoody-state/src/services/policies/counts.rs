use crate::model::ScheduleCounts;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened since the start of the server.
#[derive(Default)]
pub(crate) struct Counts {
    pub taken: Count,
    pub made_up: Count,
    pub unchanged: Count,
    pub not_running: Count,
    pub failed: Count,
    pub pruned: Count,
    pub prune_failed: Count,
    pub held_back: Count,
}

impl Counts {
    pub(crate) fn read(&self) -> ScheduleCounts {
        ScheduleCounts {
            taken: self.taken.get(),
            made_up: self.made_up.get(),
            unchanged: self.unchanged.get(),
            not_running: self.not_running.get(),
            failed: self.failed.get(),
            pruned: self.pruned.get(),
            prune_failed: self.prune_failed.get(),
            held_back: self.held_back.get(),
            ..ScheduleCounts::default()
        }
    }
}
