//! What the runner of schedules keeps in memory: which containers have a run under way, which wait for another operation, and what was counted. What must survive
//! a restart is in the catalog.

mod clocks;
mod counts;
mod line;
mod plans;

pub(crate) use counts::Counts;
pub(crate) use line::Turn;

use crate::catalog::records::Records;
use crate::error::Result;
use crate::id::ContainerId;
use crate::retention::Plan;
use crate::sys::alarm::{Alarm, Woken};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// How many containers have a run under way at once, so that one that takes long does not hold up the others. Runs are hardly quicker for it: each waits for the disk
/// until its intent is there, one after the other (docs/benchmarks.md).
pub(crate) const AT_ONCE: usize = 8;

/// See the [module](self).
pub(crate) struct Policies {
    alarm: Alarm,
    records: Records,
    /// Marks this uptime of the machine: the boot clock counts from it.
    boot: String,
    pub(crate) line: line::Line,
    plans: plans::Plans,
    held_back: Mutex<HashSet<ContainerId>>,
    /// Until when the runner sleeps, in milliseconds; `i64::MAX` while it looks at what is due, and if nothing is.
    sleeps_until: AtomicI64,
    pub(crate) counts: Counts,
}

impl Policies {
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new(records: Records, boot: String) -> Result<Self> {
        Ok(Policies {
            alarm: Alarm::new()?,
            records,
            boot,
            line: line::Line::default(),
            plans: plans::Plans::default(),
            held_back: Mutex::default(),
            sleeps_until: AtomicI64::new(i64::MAX),
            counts: Counts::default(),
        })
    }

    /// A run may have come nearer, or can go on: the runner looks.
    pub(crate) fn ring(&self) {
        self.alarm.ring();
    }

    /// The runner begins to look at what is due: what changes from now on wakes it.
    pub(crate) fn looks(&self) {
        self.sleeps_until.store(i64::MAX, Ordering::SeqCst);
    }

    /// The runner has looked, and goes to sleep until then.
    pub(crate) fn sleeps(&self, until: Option<Timestamp>) {
        self.sleeps_until.store(until.map_or(i64::MAX, |t| t.as_millisecond()), Ordering::SeqCst);
    }

    /// The next run of a container is written down: wakes the runner if it sleeps for longer.
    pub(crate) fn next_run(&self, at: Option<Timestamp>) {
        if at.is_some_and(|at| at.as_millisecond() < self.sleeps_until.load(Ordering::SeqCst)) {
            self.ring();
        }
    }

    /// Waits until the host's clock shows `until`, or until somebody rings.
    pub(crate) fn wait(&self, until: Option<SystemTime>) -> Result<Woken> {
        self.alarm.wait(until)
    }

    /// The host ends: what has not begun is left to the next start.
    pub(crate) fn close(&self) {
        self.line.close();
        self.ring();
    }

    /// The locks of a container, or of a project's databases, are free.
    pub(crate) fn lock_freed(&self, container: Option<&ContainerId>) {
        if self.line.lock_freed(container) {
            self.ring();
        }
    }

    /// The policy that applies to a container, checked; nothing if none does. Error: `validation_error` for one that this version cannot read.
    pub(crate) fn plan_of(&self, id: &ContainerId) -> Result<Option<Arc<Plan>>> {
        let applies = self.records.read(|c| crate::catalog::policies::effective(c, id))?;
        applies.map(|(policy, _)| self.plans.of(policy)).transpose()
    }

    /// How far the wall clock has moved beside the boot clock since it was last believed. See [`clocks`].
    pub(crate) fn clock_moved(&self) -> Result<SignedDuration> {
        let moved = clocks::moved(&self.records, &self.boot)?;
        if moved.is_zero() {
            self.held_back.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Ok(moved)
    }

    /// Whether a container's snapshots are held back for the first time since the clock has moved.
    pub(crate) fn is_first_held_back(&self, id: &ContainerId) -> bool {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }
}
