//! Deletes a container with all its snapshots, or puts it into the trash, if its policy says so (`on.before_delete`). Either is decided with the intent: what
//! fails is tried again until it succeeds.

use super::event_limits::limits;
use super::trash::{self, place_of};
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::containers::ContainerRow;
use crate::catalog::{Durability, Tx, containers, shares, snapshots};
use crate::clock::rfc3339;
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId};
use crate::model::{AutomaticEvent, DeleteOptions, Share, Status};
use crate::op::Caller;
use crate::op::Progress;
use crate::snapshot::Deleted;
use crate::world::World;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The intent. From when it is journalled the container is `deleting` for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delete {
    pub container: ContainerId,
    /// It goes to the trash; absent: it is deleted for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<Kept>,
}

/// The locks of a deletion.
pub(super) fn claim_of(id: &ContainerId) -> Claim {
    Claim::long("container.delete", vec![Want::container(id)])
}

/// How a deleted container is kept in the trash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub until: Timestamp,
    /// How many deleted containers of its project are kept; the oldest beyond that are deleted for good.
    #[serde(default)]
    pub most: Option<u32>,
    /// How many shares ended with it.
    #[serde(default)]
    pub shares: u64,
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
        claim_of(&self.container)
    }

    fn run(self, op: &mut Op) -> Result<()> {
        let world = op.world.clone();
        let gone = self.clear_away(&world, &op.id, &op.progress, &|step| op.step(step))?;
        let mut ended = Vec::new();
        op.finish(Durability::Disk, |tx| {
            ended = self.note_deleted(&world, tx, &gone)?;
            Ok(())
        })?;
        self.follow_up(&world, &ended);
        Ok(())
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let gone = self.clear_away(r.world, r.id, r.progress, &|_| Ok(()))?;
        let mut ended = Vec::new();
        r.finished(|tx| {
            ended = self.note_deleted(r.world, tx, &gone)?;
            Ok(())
        })?;
        self.follow_up(r.world, &ended);
        Ok(())
    }

    fn continues(&self, _: &World) -> Result<bool> {
        Ok(true)
    }
}

impl Delete {
    /// Ends what runs, and takes the container's home away: into the trash, or to be deleted. May be repeated from its beginning.
    fn clear_away(&self, world: &World, op: &OperationId, progress: &Progress, step: &dyn Fn(&'static str) -> Result<()>) -> Result<Deleted> {
        let id = &self.container;
        step("kill")?;
        world.runtime.kill(id)?;
        world.starter.forget(id)?;
        world.roots.release(id)?;
        step("trash")?;
        let place = if self.trash.is_some() { place_of(id)? } else { op.clone() };
        world.store.trash_home(id, &place)?;
        step("runtime")?;
        world.runtime.remove(id)?;
        let mut gone = Deleted::default();
        if self.trash.is_none() {
            step("empty")?;
            // A snapshot that is being sent to another server is in use until that has ended: the next try meets it again.
            gone = world.store.empty_trash(op, &mut |done, total| {
                progress.done.store(done, Ordering::Relaxed);
                progress.total.store(total, Ordering::Relaxed);
            })?;
        }
        step("sync")?;
        world.store.sync()?;
        Ok(gone)
    }

    /// The shares that ended with it: those that were made while it was being deleted.
    fn note_deleted(&self, world: &World, tx: &mut Tx<'_>, gone: &Deleted) -> Result<Vec<Share>> {
        let id = &self.container;
        let mut ended = Vec::new();
        if let Some(r) = containers::find(tx.conn, id)? {
            ended = match &self.trash {
                Some(kept) => tx.put_into_trash(&r, world.store.container_use(id).map(|u| u.used), kept.shares, kept.until, kept.most)?.0,
                None => tx.delete_container(id)?.0,
            };
            let extra = match &self.trash {
                Some(kept) => json!({ "recoverable_until": rfc3339::format(kept.until) }),
                None => json!({}),
            };
            tx.emit_container("container.deleted", &ContainerRow { status: Status::Deleted, ..r }, extra)?;
        }
        tx.add_reclaim(&gone.volumes, &format!("container {id}"))?;
        Ok(ended)
    }

    fn follow_up(&self, world: &World, ended: &[Share]) {
        world.shares.ended(ended);
        match self.trash {
            // It has to expire, and older ones of its project may be beyond their number.
            Some(_) => world.upkeep.expiry(),
            None => world.upkeep.reclaim(),
        }
    }
}

/// The error for a change of a container that is being deleted.
pub(crate) fn deleting(id: &ContainerId) -> Error {
    Error::new(Code::OperationStateConflict, format!("container {id} is being deleted"))
}

/// What makes a container `deleting`, within the change of the catalog that journals it: the shares that end with it.
pub(super) fn mark_deleting(tx: &mut Tx<'_>, id: &ContainerId, by: &str) -> Result<Vec<Share>> {
    none_pinned(tx.conn, id)?;
    tx.change_container(id, by, None, |r| r.status = Status::Deleting)?;
    tx.keep_schedules(id, &BTreeSet::new())?;
    tx.delete_shares_of(id)
}

/// Refuses to delete a container that has a pinned snapshot.
fn none_pinned(c: &rusqlite::Connection, id: &ContainerId) -> Result<()> {
    let pinned = snapshots::pinned(c, id)?;
    pinned.map_or(Ok(()), |s| super::snapshot_delete::unpinned(&s.snapshot).map_err(|e| e.context(format!("container {id} cannot be deleted"))))
}

/// What deletes a container, as its policy or the caller says.
pub(super) fn planned(world: &World, row: &ContainerRow, options: DeleteOptions) -> Result<Delete> {
    let kept = if options.permanently { None } else { world.read(|c| limits(c, &row.id, AutomaticEvent::BeforeDelete))? };
    // What has no live volume yet cannot be recovered.
    let made = !row.state.partial && !matches!(row.status, Status::Creating | Status::Copying);
    let trash = match kept.filter(|_| made) {
        Some(limits) => {
            Some(Kept { until: trash::until(world.now(), limits.max_age), most: limits.keep, shares: world.read(|c| shares::count_of(c, &row.id))? })
        }
        None => None,
    };
    Ok(Delete { container: row.id.clone(), trash })
}

/// See [`crate::Host::delete_container_with`].
pub(crate) fn delete(world: &World, caller: &Caller, id: &ContainerId, options: DeleteOptions) -> Result<()> {
    if world.engine.replay::<()>(caller)?.is_some() {
        return Ok(());
    }
    if world.read(|c| containers::get(c, id))?.status == Status::Deleting {
        return Ok(());
    }
    let held = world.engine.lock(caller, claim_of(id))?;
    let row = world.read(|c| containers::get(c, id))?;
    let intent = planned(world, &row, options)?;
    let mut ended = Vec::new();
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |tx| {
        ended = mark_deleting(tx, id, &caller.by)?;
        tx.answer_key(caller.idempotency.as_ref(), &())
    })?;
    world.shares.ended(&ended);
    // What goes to the trash is there when the caller is answered, unless something takes long.
    let wait = if begun.intent().trash.is_some() { caller.wait } else { Duration::ZERO };
    match begun.in_background(wait) {
        // Whatever keeps it from being deleted now is tried again.
        Err(e) if e.code() != Code::Crashed => Ok(()),
        ended => ended.map(drop),
    }
}
