//! Deletes a container with all its snapshots. There is no way back from it: what fails is tried again until it succeeds.

use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::{Durability, Tx, containers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{Share, Status};
use crate::op::Caller;
use crate::op::Progress;
use crate::snapshot::Deleted;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The intent. From when it is journalled the container is `deleting` for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delete {
    pub container: ContainerId,
}

impl Operation for Delete {
    type World = World;
    type Answer = ();
    const TAG: &'static str = "delete";

    fn kind(&self) -> &'static str {
        "container.delete"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("container.delete", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<()> {
        let world = op.world.clone();
        let gone = clear_away(&world, &self.container, &op.id, &op.progress, &|step| op.step(step))?;
        let mut ended = Vec::new();
        op.finish(Durability::Disk, |tx| {
            ended = note_deleted(tx, &self.container, &gone)?;
            Ok(())
        })?;
        world.shares.ended(&ended);
        world.upkeep.reclaim();
        Ok(())
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let gone = clear_away(r.world, &self.container, r.id, r.progress, &|_| Ok(()))?;
        let mut ended = Vec::new();
        r.finished(|tx| {
            ended = note_deleted(tx, &self.container, &gone)?;
            Ok(())
        })?;
        r.world.shares.ended(&ended);
        r.world.upkeep.reclaim();
        Ok(())
    }

    fn continues(&self, _: &World) -> Result<bool> {
        Ok(true)
    }
}

/// Ends what runs and empties the trash of the container's volumes. May be repeated from its beginning.
fn clear_away(world: &World, id: &ContainerId, op: &crate::id::OperationId, progress: &Progress, step: &dyn Fn(&'static str) -> Result<()>) -> Result<Deleted> {
    step("kill")?;
    world.runtime.kill(id)?;
    world.starter.forget(id)?;
    world.roots.release(id)?;
    step("trash")?;
    world.store.trash_home(id, op)?;
    step("runtime")?;
    world.runtime.remove(id)?;
    step("empty")?;
    // A snapshot that is being sent to another server is in use until that has ended: the next try meets it again.
    let gone = world.store.empty_trash(op, &mut |done, total| {
        progress.done.store(done, Ordering::Relaxed);
        progress.total.store(total, Ordering::Relaxed);
    })?;
    step("sync")?;
    world.store.sync()?;
    Ok(gone)
}

/// The shares that ended with it: those that were made while it was being deleted.
fn note_deleted(tx: &mut Tx<'_>, id: &ContainerId, gone: &Deleted) -> Result<Vec<Share>> {
    let mut ended = Vec::new();
    if let Some(mut r) = containers::find(tx.conn, id)? {
        r.status = Status::Deleted;
        ended = tx.delete_container(id)?.0;
        tx.emit_container("container.deleted", &r, serde_json::json!({}))?;
    }
    tx.add_reclaim(&gone.volumes, &format!("container {id}"))?;
    Ok(ended)
}

/// The error for a change of a container that is being deleted.
pub(crate) fn deleting(id: &ContainerId) -> Error {
    Error::new(Code::OperationStateConflict, format!("container {id} is being deleted"))
}

/// What makes a container `deleting`, within the change of the catalog that journals it: the shares that end with it.
pub(super) fn mark_deleting(tx: &mut Tx<'_>, id: &ContainerId, by: &str) -> Result<Vec<Share>> {
    none_pinned(tx.conn, id)?;
    tx.change_container(id, by, None, |r| r.status = Status::Deleting)?;
    tx.delete_shares_of(id)
}

/// Refuses to delete a container that has a pinned snapshot.
fn none_pinned(c: &rusqlite::Connection, id: &ContainerId) -> Result<()> {
    let pinned = snapshots::pinned(c, id)?;
    pinned.map_or(Ok(()), |s| super::snapshot_delete::unpinned(&s.snapshot).map_err(|e| e.context(format!("container {id} cannot be deleted"))))
}

/// See [`crate::Host::delete_container`].
pub(crate) fn delete(world: &World, caller: &Caller, id: &ContainerId) -> Result<()> {
    if world.engine.replay::<()>(caller)?.is_some() {
        return Ok(());
    }
    if world.read(|c| containers::get(c, id))?.status == Status::Deleting {
        return Ok(());
    }
    let intent = Delete { container: id.clone() };
    let held = world.engine.lock(caller, intent.claim())?;
    let row = world.read(|c| containers::get(c, id))?;
    let mut ended = Vec::new();
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |tx| {
        ended = mark_deleting(tx, id, &caller.by)?;
        tx.answer_key(caller.idempotency.as_ref(), &())
    })?;
    world.shares.ended(&ended);
    match begun.in_background(Duration::ZERO) {
        // Whatever keeps it from being deleted now is tried again.
        Err(e) if e.code() != Code::Crashed => Ok(()),
        ended => ended.map(drop),
    }
}
