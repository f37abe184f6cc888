//! What the shares of all containers need, and their state.

use super::behind::Behind;
use crate::catalog::records::Records;
use crate::id::ContainerId;
use crate::rootfs::RootFs;
use crate::runtime::Runtime;
use crate::services::databases::Databases;
use crate::services::wake::Wake;
use crate::share::ShareMount;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the shares of all containers need, and their state.
pub(crate) struct Shares {
    pub(super) mounts: Arc<dyn ShareMount>,
    pub(super) roots: Arc<dyn RootFs>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) databases: Arc<Databases>,
    pub(super) records: Records,
    pub(super) wake: Wake,
    /// Counts changes, so that a start knows whether something changed while it mounted.
    pub(super) changes: AtomicU64,
    /// One look at what a receiver sees, and the change that follows, at a time.
    pub(super) gates: Mutex<HashMap<ContainerId, Arc<Mutex<()>>>>,
    /// Receivers that could not be brought in line.
    behind: Mutex<Behind>,
}

impl Shares {
    pub(crate) fn new(
        mounts: Arc<dyn ShareMount>,
        roots: Arc<dyn RootFs>,
        runtime: Arc<dyn Runtime>,
        databases: Arc<Databases>,
        records: Records,
        wake: Wake,
    ) -> Self {
        Shares { mounts, roots, runtime, databases, records, wake, changes: AtomicU64::new(0), gates: Mutex::default(), behind: Mutex::default() }
    }

    /// How shares are mounted.
    pub(crate) fn backend(&self) -> &dyn ShareMount {
        &*self.mounts
    }

    /// How often something changed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Forgets a deleted container.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(super) fn seconds(&self) -> i64 {
        self.records.now().as_second()
    }

    pub(super) fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This receiver does not see what it should: the upkeep tries again.
    pub(super) fn note_behind(&self, id: &ContainerId) {
        self.behind().add(id);
        self.wake.expiry();
    }

    /// This receiver sees what it should.
    pub(super) fn note_in_line(&self, id: &ContainerId) {
        self.behind().receivers.remove(id);
    }

    /// Some receivers do not see what they should, and it could not be learnt which: the upkeep tries all.
    pub(super) fn note_all_behind(&self) {
        self.behind().add_all();
        self.wake.expiry();
    }
}
