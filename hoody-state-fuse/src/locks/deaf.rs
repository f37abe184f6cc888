//! Whether requests are taken at all. An event loop that is busy with a slow unlink does not hear that a connection asks to write: until it listens again,
//! nobody is held to have only read, and the time does not count.

use super::{LockService, Tick};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A request that takes longer than this holds others up, in microseconds.
const SLOW: Tick = 5_000;

/// The event loops that are busy with a request.
#[derive(Debug, Default)]
pub(super) struct Loops {
    busy: AtomicU32,
    /// When the last of them became so.
    since: AtomicU64,
}

/// An event loop is busy with a request while this lives.
#[derive(Debug)]
pub struct Busy<'a> {
    service: &'a LockService,
    since: Tick,
}

impl Busy<'_> {
    /// Since when, in microseconds.
    #[must_use]
    pub fn since(&self) -> Tick {
        self.since
    }
}

impl LockService {
    /// An event loop begins with a request.
    #[must_use]
    pub fn busy(&self) -> Busy<'_> {
        let since = self.now();
        self.loops.since.store(since, Ordering::Relaxed);
        self.loops.busy.fetch_add(1, Ordering::Relaxed);
        Busy { service: self, since }
    }

    /// A request has been under way for long, and none was begun since.
    pub(super) fn is_deaf(&self, now: Tick) -> bool {
        self.loops.busy.load(Ordering::Relaxed) > 0 && now.saturating_sub(self.loops.since.load(Ordering::Relaxed)) > SLOW
    }

    /// Whether somebody waits for a lock, so that the event loop had better not wait for the disk.
    #[must_use]
    pub fn somebody_waits(&self) -> bool {
        self.lock().broker.needs_ticks()
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.service.loops.busy.fetch_sub(1, Ordering::Relaxed);
        let now = self.service.now();
        let took = now.saturating_sub(self.since);
        if took > SLOW {
            self.service.lock().broker.excuse(now, took);
        }
    }
}
