//! The snapshot that a copy begins from.

use crate::catalog::snapshots::{self, SnapshotRow};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{NewSnapshot, Trigger};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::world::World;

/// The snapshot a copy begins from: the one that is named, or one of the live state.
pub(super) fn base(world: &World, caller: &Caller, id: &ContainerId, named: Option<&str>, why: &str, days: Option<u32>) -> Result<SnapshotRow> {
    if let Some(name) = named {
        return world.read(|c| snapshots::get(c, id, name));
    }
    let plain = Caller { idempotency: None, ..caller.clone() };
    let new = NewSnapshot { description: Some(why.to_owned()), expiry: days.map(Into::into), ..Default::default() };
    let taken = super::snapshot::create_for(world, &plain, id, new, Trigger::Copy)?.snapshot.name;
    world.read(|c| snapshots::get(c, id, taken.as_str()))
}

/// Deletes a snapshot that was taken for a copy which then was refused.
pub(super) fn drop_taken(world: &World, id: &ContainerId, name: &SnapshotName) {
    if let Err(e) = super::snapshot_delete::delete(world, &Caller { by: "copy".into(), ..Caller::default() }, id, name.as_str()) {
        tracing::warn!(container = %id, snapshot = %name, error = %e, "a snapshot that was taken for a copy stays");
    }
}
