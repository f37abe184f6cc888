//! Whether the event loops take requests. While a loop is busy with a slow request, such as an unlink, it cannot receive that a connection asks to write. That
//! time does not count for the rules that treat a connection as a reader because it has only read so far.

use super::{LockService, Tick};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A request that takes longer than this delays others, in microseconds.
const SLOW: Tick = 5_000;

/// The event loops that are busy with a request.
#[derive(Debug, Default)]
pub(super) struct Loops {
    busy: AtomicU32,
    /// When the last of them became busy.
    since: AtomicU64,
}

/// Held while an event loop is busy with a request.
#[derive(Debug)]
pub struct Busy<'a> {
    service: &'a LockService,
    since: Tick,
}

impl Busy<'_> {
    /// Since when the loop is busy, in microseconds.
    #[must_use]
    pub fn since(&self) -> Tick {
        self.since
    }
}

impl LockService {
    /// Notes that an event loop begins with a request.
    #[must_use]
    pub fn busy(&self) -> Busy<'_> {
        let since = self.now();
        self.loops.since.store(since, Ordering::Relaxed);
        self.loops.busy.fetch_add(1, Ordering::Relaxed);
        Busy { service: self, since }
    }

    /// Whether a request has been running for long, and none was begun since.
    pub(super) fn is_unresponsive(&self, now: Tick) -> bool {
        self.loops.busy.load(Ordering::Relaxed) > 0 && now.saturating_sub(self.loops.since.load(Ordering::Relaxed)) > SLOW
    }

    /// Whether somebody waits for a lock, so that the event loop should not wait for the disk.
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
