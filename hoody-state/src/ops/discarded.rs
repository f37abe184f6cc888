//! Volumes that have left their list and are to be deleted: what the deletion of a snapshot and of an image share.

use super::{Op, Recovery};
use crate::catalog::Durability;
use crate::error::Result;
use crate::snapshot::Volume;
use crate::units::VolumeId;
use crate::world::World;

/// Deletes them and ends the operation.
pub(super) fn delete(op: &mut Op, volumes: &[Volume], what: &str) -> Result<()> {
    let world = op.world.clone();
    world.engine.step("volume.delete", "delete")?;
    let gone = delete_all(&world, volumes)?;
    op.finish(Durability::Process, |tx| tx.add_reclaim(&gone, what))?;
    world.upkeep.reclaim();
    Ok(())
}

/// The same for an operation that was cut short, or could not delete them before.
pub(super) fn recover(r: &Recovery<'_>, volumes: &[Volume], what: &str) -> Result<()> {
    let gone = delete_all(r.world, volumes)?;
    r.finished(|tx| tx.add_reclaim(&gone, what))?;
    r.world.upkeep.reclaim();
    Ok(())
}

fn delete_all(world: &World, volumes: &[Volume]) -> Result<Vec<VolumeId>> {
    let mut gone = Vec::new();
    for v in volumes {
        gone.extend(world.store.delete(v)?.volumes);
    }
    Ok(gone)
}
