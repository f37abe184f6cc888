//! Shares: what owners offer, what receivers say to it, and the mounts that follow in containers that run.
//!
//! The catalog says what each container is to see. Every change of it is followed by bringing the receivers in line ([`sync`]). A receiver that could not be
//! brought in line is tried again with growing pauses until it is ([`retry`]): a share that has ended must not stay readable.

mod expiry;
pub(crate) mod incoming;
mod offers;
mod retry;
mod source;
mod sync;

use super::databases::Databases;
use super::wake::Wake;
use crate::catalog::records::Records;
use crate::id::ContainerId;
use crate::runtime::Runtime;
use crate::share::ShareMount;
use crate::snapshot::SnapshotStore;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the shares of all containers need, and their state.
pub(crate) struct Shares {
    mounts: Arc<dyn ShareMount>,
    store: Arc<dyn SnapshotStore>,
    runtime: Arc<dyn Runtime>,
    databases: Arc<Databases>,
    records: Records,
    wake: Wake,
    /// Counts changes, so that a start knows whether something changed while it mounted.
    changes: AtomicU64,
    /// One look at what a receiver sees, and the change that follows, at a time.
    gates: Mutex<HashMap<ContainerId, Arc<Mutex<()>>>>,
    /// Receivers that could not be brought in line.
    behind: Mutex<retry::Behind>,
}

impl Shares {
    pub(crate) fn new(
        mounts: Arc<dyn ShareMount>,
        store: Arc<dyn SnapshotStore>,
        runtime: Arc<dyn Runtime>,
        databases: Arc<Databases>,
        records: Records,
        wake: Wake,
    ) -> Self {
        Shares { mounts, store, runtime, databases, records, wake, changes: AtomicU64::new(0), gates: Mutex::default(), behind: Mutex::default() }
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

    fn seconds(&self) -> i64 {
        self.records.now().as_second()
    }
}
