//! What the list says of a snapshot: its name, and what is known of it before and after its volume exists.

use crate::catalog::containers;
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::model::{Consistency, LIVE, Snapshot, Trigger};
use crate::name::{Alias, SnapshotName};
use crate::snapshot::Volume;
use crate::units::{Bytes, Generation};
use crate::world::World;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The row of a snapshot that exists, with its generation and its size.
pub(super) fn measured(world: &World, id: &ContainerId, mut row: SnapshotRow) -> Result<SnapshotRow> {
    let volume = Volume::Snapshot(id.clone(), row.snapshot.name.clone());
    let info = world.store.info(&volume)?.ok_or_else(|| Error::internal(format!("snapshot {} does not exist", row.snapshot.name)))?;
    row.generation = info.created;
    row.snapshot.size = world.store.delta(&volume, Some(parent_generation(world, id, row.snapshot.parent.as_ref())?))?;
    Ok(row)
}

fn parent_generation(world: &World, id: &ContainerId, parent: Option<&SnapshotName>) -> Result<Generation> {
    world.read(|c| {
        let parent = parent.map(|p| snapshots::by_name(c, id, p.as_str())).transpose()?.flatten();
        Ok(match parent {
            Some(p) => p.generation,
            None => containers::get(c, id)?.state.origin,
        })
    })
}

/// A name that finds no snapshot of the container yet, neither as canonical name nor as alias: the wanted one, or it with a number. Never `live`, which means
/// the present state in paths of files.
pub(super) fn free_name(c: &rusqlite::Connection, id: &ContainerId, wanted: SnapshotName) -> Result<SnapshotName> {
    let mut name = wanted.clone();
    let mut n = 2;
    while name.as_str() == LIVE || !snapshots::is_free(c, id, name.as_str())? {
        name = wanted.numbered(n);
        n += 1;
    }
    Ok(name)
}

/// A snapshot of which only the name and the time are known.
pub(super) fn unmeasured(name: SnapshotName, alias: Option<Alias>, now: Timestamp) -> Snapshot {
    Snapshot {
        name,
        alias,
        replaced_alias: None,
        created_at: now,
        last_used_at: None,
        expires_at: None,
        stateful: false,
        size: Bytes(0),
        parent: None,
        description: None,
        labels: BTreeMap::new(),
        pinned: None,
        // Until it is known better.
        consistency: Consistency::Crash,
        trigger: Trigger::Manual,
        schedule: None,
        scheduled_for: None,
        missed: None,
        databases: None,
        frees_bytes: None,
    }
}

/// The trigger of a snapshot that came with a copy. No schedule of the copy has taken it, so none removes it.
pub(super) fn copied_trigger(trigger: Trigger) -> Trigger {
    if trigger == Trigger::Schedule { Trigger::Copy } else { trigger }
}
