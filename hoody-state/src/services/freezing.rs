//! Freezing containers whose tasks may wait for locks on their databases.

use super::databases::{Databases, SnapshotHold};
use crate::catalog::containers::ContainerRow;
use crate::error::Result;
use crate::freeze::{FreezeGuard, FreezeState, Freezer};
use crate::id::ContainerId;
use std::sync::Arc;
use std::time::Duration;

/// Freezes containers. What their tasks wait for at the databases does not put that off: see [`LockedDb::park`](crate::locked_db::LockedDb::park).
pub(crate) struct Freezing {
    freezer: Arc<dyn Freezer>,
    databases: Arc<Databases>,
    /// How long a freeze may take before it is undone.
    timeout: Duration,
}

impl Freezing {
    pub(crate) fn new(freezer: Arc<dyn Freezer>, databases: Arc<Databases>, timeout: Duration) -> Self {
        Freezing { freezer, databases, timeout }
    }

    /// Freezes a container; its state before. Error: `freeze_timeout`.
    pub(crate) fn freeze(&self, id: &ContainerId) -> Result<FreezeState> {
        self.freezer.freeze_waking(id, self.timeout, &|pids| self.databases.end_lock_waits(pids))
    }

    /// Freezes a container until the guard is dropped. Error: `freeze_timeout`.
    pub(crate) fn stand_still(&self, id: &ContainerId) -> Result<FreezeGuard<'_>> {
        FreezeGuard::waking(&*self.freezer, id, self.timeout, &|pids| self.databases.end_lock_waits(pids))
    }

    /// Holds what must not move while a container is snapshotted, in the order that [`Databases::hold_for_snapshot`] explains. `nested`: volumes are nested in
    /// the container's. Error: `freeze_timeout`.
    pub(crate) fn hold_for_snapshot(&self, r: &ContainerRow, nested: bool) -> Result<SnapshotHold<'_>> {
        self.databases.hold_for_snapshot(r, nested, &*self.freezer, self.timeout)
    }
}
