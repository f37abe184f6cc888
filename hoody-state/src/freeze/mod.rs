//! Freezing: a container's processes are stopped in place, their memory kept, and go on where they were.
//!
//! **Guarantees**, tested by [`suite`] on every backend:
//! 1. When `freeze` returns, no task of the group runs. When it fails (a task does not freeze in time), the group is as it was before.
//! 2. `freeze` and `thaw` tell the state before; doing twice what is done already changes nothing.
//! 3. Freezing costs well under a millisecond for ordinary processes, waits by poll (never by sleeping in a loop where the kernel can tell), and leaves no
//!    state outside the kernel: after a crash of this process, `state` tells the truth.

pub mod cgroup1;
pub mod cgroup2;
pub mod memory;
pub mod suite;

use crate::error::Result;
use crate::id::ContainerId;
use std::time::Duration;

/// Whether a group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FreezeState {
    /// Its tasks run.
    Thawed,
    /// None of its tasks runs.
    Frozen,
}

/// Stops and continues all tasks of a container. See the [module](self).
pub trait Freezer: Send + Sync {
    /// Freezes; the state before. Errors: `freeze_timeout` (undone), `cgroup_not_found`.
    fn freeze(&self, container: &ContainerId, timeout: Duration) -> Result<FreezeState>;

    /// Thaws; the state before. Error: `cgroup_not_found`.
    fn thaw(&self, container: &ContainerId) -> Result<FreezeState>;

    /// The state now. Error: `cgroup_not_found`.
    fn state(&self, container: &ContainerId) -> Result<FreezeState>;
}

/// A container held frozen for a moment. Dropping it puts back the state before: one that was paused stays paused.
pub struct FreezeGuard<'a> {
    freezer: &'a dyn Freezer,
    container: ContainerId,
    before: FreezeState,
}

impl<'a> FreezeGuard<'a> {
    /// Freezes until dropped.
    ///
    /// # Errors
    /// Those of [`Freezer::freeze`].
    pub fn new(freezer: &'a dyn Freezer, container: &ContainerId, timeout: Duration) -> Result<Self> {
        let before = freezer.freeze(container, timeout)?;
        Ok(FreezeGuard { freezer, container: container.clone(), before })
    }
}

impl Drop for FreezeGuard<'_> {
    fn drop(&mut self) {
        if self.before == FreezeState::Thawed
            && let Err(e) = self.freezer.thaw(&self.container)
        {
            tracing::error!(container = %self.container, error = %e, "could not thaw after a moment's freeze");
        }
    }
}
