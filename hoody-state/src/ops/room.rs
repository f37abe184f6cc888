//! Refuses an operation for which the pool has no room left, and makes room from the trash of its project.

use crate::catalog::containers;
use crate::error::{Code, Result};
use crate::id::{ContainerId, ProjectId};
use crate::op::Caller;
use crate::world::World;

/// Refuses an operation of this container that would fill the pool. Then the upkeep deletes for good what was deleted first of the trash of the container's
/// project, if there is anything. The trash of other projects stays.
///
/// # Errors
/// `pool_full`, `pool_read_only`.
pub(super) fn check(world: &World, caller: &Caller, id: &ContainerId) -> Result<()> {
    make_room_after(world, caller, || Ok(world.read(|c| containers::get(c, id))?.project))
}

/// The same for an operation of this project.
///
/// # Errors
/// `pool_full`, `pool_read_only`.
pub(super) fn check_in(world: &World, caller: &Caller, project: &ProjectId) -> Result<()> {
    make_room_after(world, caller, || Ok(project.clone()))
}

fn make_room_after(world: &World, caller: &Caller, project: impl FnOnce() -> Result<ProjectId>) -> Result<()> {
    world.limits.check_space().inspect_err(|e| {
        // What a container does by its own socket costs nobody what others have deleted.
        if e.code() != Code::PoolFull || caller.inside {
            return;
        }
        match project() {
            Ok(project) => world.upkeep.no_room(project),
            Err(e) => tracing::warn!(error = %e, "the pool is full, and the trash stays: the project is not known"),
        }
    })
}
