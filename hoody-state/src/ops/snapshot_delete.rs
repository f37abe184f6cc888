//! Deletes a snapshot: it leaves the list in the transaction that journals this; its volumes are deleted after that.

use super::discarded;
use super::own::require_own;
use super::snapshot_row::measured;
use super::{Begun, Claim, Held, Op, Operation, Recovery, Want};
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, containers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{Snapshot, SnapshotDeleted};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::units::Generation;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeleteSnapshot {
    pub container: ContainerId,
    pub name: SnapshotName,
    /// What the snapshot grew from and when it was made, to measure those that grew from it.
    #[serde(default)]
    pub parent: Option<SnapshotName>,
    #[serde(default)]
    pub generation: Option<Generation>,
}

impl DeleteSnapshot {
    pub(super) fn of(container: &ContainerId, row: &SnapshotRow) -> Self {
        let s = &row.snapshot;
        DeleteSnapshot { container: container.clone(), name: s.name.clone(), parent: s.parent.clone(), generation: Some(row.generation) }
    }

    fn volumes(&self) -> [Volume; 2] {
        let (id, name) = (&self.container, &self.name);
        [Volume::Snapshot(id.clone(), name.clone()), Volume::SnapshotDatabases(id.clone(), name.clone())]
    }

    fn what(&self) -> String {
        format!("snapshot {} of container {}", self.name, self.container)
    }
}

impl Operation for DeleteSnapshot {
    type World = World;
    type Answer = ();
    const TAG: &'static str = "delete_snapshot";

    fn kind(&self) -> &'static str {
        "snapshot.delete"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("snapshot.delete", vec![Want::container(&self.container)])
    }

    /// It is in no list any more: while it is being sent to another server, others may change the container.
    fn keeps_locks(&self) -> bool {
        false
    }

    fn run(self, op: &mut Op) -> Result<()> {
        discarded::delete(op, &self.volumes(), &self.what())?;
        remeasure_children_or_warn(&op.world, &self);
        Ok(())
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        // Another snapshot of the same name may have been taken since: the volume is that one's then.
        if r.world.read(|c| snapshots::by_name(c, &self.container, self.name.as_str()))?.is_some() {
            return r.finished(|_| Ok(()));
        }
        discarded::recover(r, &self.volumes(), &self.what())?;
        remeasure_children_or_warn(r.world, self);
        Ok(())
    }
}

/// Takes a snapshot out of the list and journals that its volume is to be deleted. Its children grow from its parent from now on.
pub(super) fn remove_from_list(tx: &mut Tx<'_>, deletion: &Begun<DeleteSnapshot>) -> Result<()> {
    let (id, name) = (&deletion.intent().container, &deletion.intent().name);
    let Some(row) = snapshots::by_name(tx.conn, id, name.as_str())? else { return Ok(()) };
    tx.remove_snapshot(id, &row)?;
    let c = tx.change_container(id, "user", None, |c| {
        if c.state.head.as_ref() == Some(name) {
            c.state.head.clone_from(&row.snapshot.parent);
        }
        if c.state.undo.as_ref() == Some(name) {
            c.state.undo = None;
        }
    })?;
    deletion.journal_in(tx, Some(&c.project))?;
    tx.emit_container("container.snapshot.deleted", &c, json!({ "snapshot": { "name": name, "alias": row.snapshot.alias } }))
}

/// See [`crate::Host::delete_snapshot`].
pub(crate) fn delete(world: &World, caller: &Caller, id: &ContainerId, name: &str) -> Result<SnapshotDeleted> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    world.read(|c| containers::get(c, id).and_then(|_| snapshots::get_unambiguous(c, id, name)))?;
    delete_found(world, caller, id, |c| {
        let row = snapshots::get_unambiguous(c, id, name)?;
        require_own(c, caller, id, &row)?;
        Ok(row)
    })
}

/// Deletes a snapshot that has expired, if it still exists and its expiry has not been put off meanwhile. It is found by its name alone: its alias may be
/// another's by now.
pub(crate) fn expire(world: &World, caller: &Caller, id: &ContainerId, name: &SnapshotName) -> Result<()> {
    let found = |c: &rusqlite::Connection| {
        let row = snapshots::by_name(c, id, name.as_str())?.filter(|r| r.snapshot.expires_at.is_some_and(|at| at <= world.now()));
        row.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {name} of container {id} does not expire any more")))
    };
    delete_found(world, caller, id, found).map(drop)
}

fn delete_found(world: &World, caller: &Caller, id: &ContainerId, find: impl Fn(&rusqlite::Connection) -> Result<SnapshotRow>) -> Result<SnapshotDeleted> {
    let held = world.engine.lock(caller, Claim::short("snapshot.delete", vec![Want::container(id)]))?;
    delete_within(world, caller, &held, id, find)
}

/// Deletes a snapshot within an operation that holds the container's lock.
pub(super) fn delete_within(
    world: &World,
    caller: &Caller,
    held: &Held,
    id: &ContainerId,
    find: impl Fn(&rusqlite::Connection) -> Result<SnapshotRow>,
) -> Result<SnapshotDeleted> {
    world.engine.step("snapshot.delete", "intent")?;
    // Under the lock the row is the same within the transaction.
    let row = world.read(&find)?;
    let deletion = Begun::planned(world, held.clone(), DeleteSnapshot::of(id, &row));
    let answer = world.write(Durability::Disk, |tx| {
        unpinned(&find(tx.conn)?.snapshot)?;
        tx.claim_key(caller.idempotency.as_ref(), None)?;
        remove_from_list(tx, &deletion)?;
        let answer = SnapshotDeleted { container_id: id.clone(), project_id: containers::get(tx.conn, id)?.project, snapshot_name: row.snapshot.name.clone() };
        tx.answer_key(caller.idempotency.as_ref(), &answer)?;
        Ok(answer)
    })?;
    deletion.run_here_or_later()?;
    Ok(answer)
}

/// Deletes a snapshot by its name within an operation that holds the container's lock. One that has gone or is pinned is left as it is.
pub(super) fn delete_named(world: &World, held: &Held, id: &ContainerId, name: &SnapshotName) -> Result<()> {
    delete_unpinned(world, held, id, name, "sync")
}

/// The same, by somebody else than a sync.
pub(super) fn delete_unpinned(world: &World, held: &Held, id: &ContainerId, name: &SnapshotName, by: &str) -> Result<()> {
    let found = |c: &rusqlite::Connection| {
        snapshots::by_name(c, id, name.as_str())?.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("there is no snapshot {name}")))
    };
    match delete_within(world, &Caller { by: by.into(), ..Caller::default() }, held, id, found) {
        Err(e) if e.is_not_found() || e.code() == Code::SnapshotPinned => Ok(()),
        r => r.map(drop),
    }
}

/// Refuses to delete a pinned snapshot.
pub(super) fn unpinned(s: &Snapshot) -> Result<()> {
    match &s.pinned {
        None => Ok(()),
        Some(why) => Err(Error::new(Code::SnapshotPinned, format!("snapshot {} is pinned ({why}): unpin it first", s.name))),
    }
}

fn remeasure_children_or_warn(world: &World, gone: &DeleteSnapshot) {
    if let Err(e) = remeasure_children(world, gone) {
        tracing::warn!(container = %gone.container, error = %e, "could not measure the snapshots that grew from a deleted one");
    }
}

/// What a deleted snapshot had added and its children still hold counts as theirs now.
fn remeasure_children(world: &World, gone: &DeleteSnapshot) -> Result<()> {
    let Some(generation) = gone.generation else { return Ok(()) };
    let id = &gone.container;
    let rows: Vec<SnapshotRow> = world.read(|c| snapshots::all(c, id))?;
    for child in rows.into_iter().filter(|s| s.snapshot.parent == gone.parent && s.generation > generation) {
        let name = child.snapshot.name.clone();
        let row = measured(world, id, child.clone())?;
        if row.snapshot.size != child.snapshot.size {
            world.write(Durability::Process, |tx| tx.set_snapshot_size(id, &name, row.snapshot.size))?;
        }
    }
    Ok(())
}
