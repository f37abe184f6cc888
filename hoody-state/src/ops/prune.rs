//! Removes the snapshots that a container's schedules do not keep. Which these are is decided by [`crate::retention`] alone.

use super::Held;
use super::snapshot_delete::delete_within;
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, containers, operations, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{Action, Trigger};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::retention::{Plan, Stamp, decide, holds_back};
use crate::world::World;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// How long a run waits for a short operation before it makes room for runs of other containers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who takes and removes snapshots of schedules, in logs and in the history.
pub(super) fn caller() -> Caller {
    Caller { by: "schedule".into(), patience: PATIENCE, ..Caller::default() }
}

/// Removes what the schedules of `plan` do not keep, each by the operation that deletes a snapshot; how many. `held`: the container's lock.
pub(super) fn prune(world: &World, held: &Held, id: &ContainerId, plan: &Plan) -> Result<usize> {
    let rows = world.read(|c| snapshots::all(c, id))?;
    let now = world.now();
    let stamps = stamps(world, id, &rows)?;
    let doomed: Vec<SnapshotName> = decide(&stamps, plan, now).into_iter().filter(|d| d.action == Action::Remove).map(|d| d.snapshot).collect();
    if doomed.is_empty() {
        return Ok(0);
    }
    let own = |s: &Stamp| s.trigger == Trigger::Schedule && s.taken <= now && s.schedule.as_deref().is_some_and(|name| plan.schedule(name).is_some());
    let decided = stamps.iter().filter(|s| own(s)).count();
    let moved = world.policies.clock_moved()?;
    if holds_back(doomed.len(), decided, moved) {
        if world.policies.is_first_held_back(id) {
            let payload = json!({ "would_remove": doomed.len(), "of": decided, "clock_moved_seconds": moved.as_secs() });
            world.write(Durability::Process, |tx| emit(tx, id, "container.snapshot.prune_held_back", payload))?;
        }
        world.policies.counts.held_back.add(1);
        return Ok(0);
    }
    let mut removed = 0;
    for name in &doomed {
        match remove(world, held, id, name) {
            Ok(()) => {
                removed += 1;
                world.policies.counts.pruned.add(1);
            }
            // It was pinned or deleted meanwhile.
            Err(e) if e.is_not_found() || e.code() == Code::SnapshotPinned => {}
            Err(e) => return Err(e),
        }
    }
    Ok(removed)
}

fn remove(world: &World, held: &Held, id: &ContainerId, name: &SnapshotName) -> Result<()> {
    let found = |c: &rusqlite::Connection| {
        let row = snapshots::by_name(c, id, name.as_str())?.filter(|r| r.snapshot.trigger == Trigger::Schedule);
        row.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("container {id} has no scheduled snapshot {name} any more")))
    };
    delete_within(world, &caller(), held, id, found).map(drop)
}

/// What a decision needs to know of the snapshots of a container.
pub(crate) fn stamps(world: &World, id: &ContainerId, rows: &[SnapshotRow]) -> Result<Vec<Stamp>> {
    let bases = bases(world, id)?;
    Ok(rows
        .iter()
        .map(|r| &r.snapshot)
        .map(|s| Stamp {
            name: s.name.clone(),
            taken: s.created_at,
            trigger: s.trigger,
            schedule: s.schedule.clone(),
            pinned: s.pinned.is_some(),
            expires_at: s.expires_at,
            is_base: bases.contains(s.name.as_str()),
            // Only complete snapshots are in the list.
            complete: true,
        })
        .collect())
}

/// The snapshots of a container that an operation under way starts from, here or on another server. More may be named: an operation that mentions the container
/// protects every name in its intent.
fn bases(world: &World, id: &ContainerId) -> Result<HashSet<String>> {
    let mut names = world.peers.sending.needed(id);
    for row in world.read(operations::open)?.into_iter().filter(|row| row.intent.contains(id.as_str())) {
        if let Ok(intent) = serde_json::from_str(&row.intent) {
            texts(&intent, &mut names);
        }
    }
    Ok(names)
}

/// Announces what happened to a container; nothing if it has gone.
pub(super) fn emit(tx: &mut Tx<'_>, id: &ContainerId, event: &str, payload: serde_json::Value) -> Result<()> {
    match containers::find(tx.conn, id)? {
        Some(row) => tx.emit_container(event, &row, payload),
        None => Ok(()),
    }
}

fn texts(value: &Value, into: &mut HashSet<String>) {
    match value {
        Value::String(s) => drop(into.insert(s.clone())),
        Value::Array(all) => all.iter().for_each(|v| texts(v, into)),
        Value::Object(fields) => fields.values().for_each(|v| texts(v, into)),
        _ => {}
    }
}
