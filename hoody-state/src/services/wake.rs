//! How the rest of the library wakes the upkeep thread. Nothing wakes while nothing is due.

use crate::error::Result;
use crate::id::ProjectId;
use crate::sys::alarm::{Alarm, Woken};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

#[derive(Default)]
struct State {
    closed: bool,
    expiry: bool,
    reclaim: bool,
    room: BTreeSet<ProjectId>,
    /// A thread watches the pool reclaim space.
    reclaiming: bool,
}

/// What the upkeep has to do.
pub(crate) struct Due {
    /// The host ends: nothing more is done.
    pub closed: bool,
    /// An expiry may have come nearer.
    pub expiry: bool,
    /// Something was deleted, and no thread watches the pool reclaim space yet.
    pub reclaim: bool,
    /// The projects in which something was refused because the pool is full.
    pub room: BTreeSet<ProjectId>,
}

/// Wakes the upkeep thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Wake(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    alarm: Alarm,
    /// For the thread that watches the pool reclaim space.
    changed: Condvar,
}

impl Wake {
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new() -> Result<Self> {
        Ok(Wake(Arc::new(Shared { state: Mutex::default(), alarm: Alarm::new()?, changed: Condvar::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state());
        self.0.changed.notify_all();
        self.0.alarm.ring();
    }

    /// An expiry may have come nearer, or something has to be tried again.
    pub(crate) fn expiry(&self) {
        self.set(|s| s.expiry = true);
    }

    /// Something was deleted.
    pub(crate) fn reclaim(&self) {
        self.set(|s| s.reclaim = true);
    }

    /// Something in this project was refused because the pool is full.
    pub(crate) fn no_room(&self, project: ProjectId) {
        self.set(|s| {
            s.room.insert(project);
        });
    }

    /// The host ends.
    pub(crate) fn close(&self) {
        self.set(|s| s.closed = true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until the host's clock shows `until`, or until somebody wakes the upkeep.
    pub(crate) fn wait(&self, until: Option<SystemTime>) -> Result<Woken> {
        self.0.alarm.wait(until)
    }

    /// Takes out what is due now. After `reclaim` the caller must call [`Wake::reclaim_ended`] or [`Wake::reclaim_not_started`].
    pub(crate) fn take(&self) -> Due {
        let mut s = self.state();
        let reclaim = s.reclaim && !s.reclaiming;
        if reclaim {
            s.reclaim = false;
            s.reclaiming = true;
        }
        Due { closed: s.closed, expiry: std::mem::take(&mut s.expiry), reclaim, room: std::mem::take(&mut s.room) }
    }

    /// For the thread that watches the pool: waits for this long, for the next deletion, or for the end of the host. Whether something was deleted meanwhile,
    /// which that thread then has to watch as well.
    pub(crate) fn wait_for_reclaim(&self, timeout: Duration) -> bool {
        let waiting = self.0.changed.wait_timeout_while(self.state(), timeout, |s| !s.closed && !s.reclaim);
        let (mut state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.reclaim)
    }

    /// The thread that watched the pool has ended: what was deleted meanwhile is due.
    pub(crate) fn reclaim_ended(&self) {
        self.set(|s| s.reclaiming = false);
    }

    /// There was no thread to be had. Rings nobody: that would only bring the same failure at once.
    pub(crate) fn reclaim_not_started(&self) {
        self.state().reclaiming = false;
    }
}
