//! Takes a fork back to where it branched off, or to what its source is now. What it was is kept as an undo snapshot.
//!
//! First the state to go back to is made a snapshot of the fork, if it is none yet: the source's present state is brought as a sync brings it. From then on
//! the operation is a restore of that snapshot.

use super::branch_point;
use super::copied::copy_snapshot;
use super::exchange::{Exchange, Kept};
use super::observed::{drop_unlisted, thaw_unless_paused};
use super::restore::{Cause, Restore, require_changeable};
use super::snapshot_row::free_name;
use super::sync::own_databases;
use super::synced::{Advance, Brought, bring_local, bring_over, drop_older};
use super::{Begun, Claim, Ended, Key, Op, Operation, Recovery, Want};
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{ResetAnswer, ResetRequest, ResetTo, Restored};
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a reset waits for another change of the databases that it is to exchange.
const DATABASES_PATIENCE: Duration = Duration::from_secs(60);

/// The intent. Once the state to go back to is a snapshot of the fork, the intent becomes a restore's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reset {
    pub container: ContainerId,
    pub to: ResetTo,
    /// Whether it boots afterwards; nothing: if it ran.
    pub start: Option<bool>,
    pub by: String,
}

impl Operation for Reset {
    type World = World;
    type Answer = Restored;
    const TAG: &'static str = "reset";

    fn kind(&self) -> &'static str {
        "container.reset"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        let wants = vec![Want::container(&self.container)];
        match self.to {
            ResetTo::BranchPoint => Claim::short("container.reset", wants),
            ResetTo::Source => Claim::long("container.reset", wants),
        }
    }

    fn run(self, op: &mut Op) -> Result<Restored> {
        let world = op.world.clone();
        let row = world.read(|c| containers::get(c, &self.container))?;
        op.step("state")?;
        let brought = match self.to {
            ResetTo::BranchPoint => branch(op, &row)?,
            ResetTo::Source if row.spec.origin.is_some() => bring_over(op, &row, Advance { to: None, limit: None })?,
            ResetTo::Source => bring_local(op, &row)?,
        };
        let (restored, failed) = self.put_in_place(op, &row, brought)?;
        world.upkeep.expiry();
        failed.map_or(Ok(restored), Err)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        thaw_unless_paused(world, id)?;
        let mut gone = world.store.delete(&Volume::Staging(r.id.clone()))?;
        gone.volumes.extend(drop_unlisted(world, id)?);
        r.undone(|tx| tx.add_reclaim(&gone.volumes, "what a reset had begun to bring"))?;
        world.upkeep.reclaim();
        Ok(())
    }
}

impl Reset {
    fn put_in_place(&self, op: &mut Op, row: &ContainerRow, brought: Brought) -> Result<(Restored, Option<Error>)> {
        let world = op.world.clone();
        let id = &self.container;
        let Brought { name, at, .. } = brought;
        if row.state.follows_databases {
            // No container that would use them can be added before they are exchanged.
            op.lock_also(Claim::short("container.reset", vec![Key::Databases(row.project.clone()).into()]), DATABASES_PATIENCE)?;
        }
        let row = world.read(|c| containers::get(c, id))?;
        let kept = Kept::for_undo(&world, id, format!("the state before the reset to {name}"))?;
        let databases = own_databases(&world, &row, &name)?;
        let exchange = Exchange::plan(&world, &row, kept, self.start, databases, &self.by)?;
        let restore = Restore { snapshot: name.clone(), exchange, cause: Cause::Reset, key_answer: None };
        op.amend(Durability::Disk, &restore, |tx| {
            let change = |r: &mut ContainerRow| {
                r.state.synced = Some(name.clone());
                r.state.at = at.or(r.state.at);
            };
            tx.change_container(id, &self.by, None, change).map(drop)
        })?;
        let ended = restore.steps(op)?;
        // The restore has ended the operation; the lock is still held.
        let live = world.store.info(&Volume::Live(id.clone()))?.map(|i| i.id);
        world.write(Durability::Process, |tx| tx.change_container(id, &self.by, None, |r| r.state.synced_live = live).map(drop))?;
        if self.to == ResetTo::Source {
            drop_older(&world, &op.held()?, id, id, &name, None)?;
        }
        Ok(ended)
    }
}

/// The fork's own snapshot of its branch point. One that only the source has is copied once more.
fn branch(op: &Op, row: &ContainerRow) -> Result<Brought> {
    let (world, id) = (&op.world, &row.id);
    let at = branch_point::of(world, row)?;
    if at.container == *id {
        return Ok(Brought { name: at.snapshot.snapshot.name, changed: false, at: None });
    }
    op.step("copy")?;
    let name = world.read(|c| free_name(c, id, at.snapshot.snapshot.name.clone()))?;
    let copied = copy_snapshot(op, 0, &at.container, id, &at.snapshot, Some(&name))?;
    let mut copied = copied.ok_or_else(|| Error::new(Code::BranchPointNotFound, "the snapshot of the source was deleted meanwhile: reset to the source"))?;
    (copied.snapshot.parent, copied.snapshot.alias, copied.snapshot.expires_at) = (row.state.head.clone(), None, None);
    world.write(Durability::Process, |tx| tx.put_snapshot(id, &copied))?;
    Ok(Brought { name, changed: true, at: None })
}

/// See [`crate::Host::reset_container`].
pub(crate) fn reset(world: &World, caller: &Caller, id: &ContainerId, request: &ResetRequest) -> Result<ResetAnswer> {
    let to = request.to.unwrap_or_default();
    if let Some(t) = world.engine.replay::<Restored>(caller)? {
        return Ok(answer(id, to, t));
    }
    let intent = Reset { container: id.clone(), to, start: request.start, by: caller.by.clone() };
    let held = world.engine.lock(caller, intent.claim())?;
    super::room::check(world, caller, id)?;
    let row = world.read(|c| containers::get(c, id))?;
    require_changeable(&row)?;
    match (to, &row.spec.origin) {
        (ResetTo::BranchPoint, _) => drop(branch_point::of(world, &row)?),
        (ResetTo::Source, Some(server)) => drop(world.peers.address_of(server)?),
        (ResetTo::Source, None) => super::copied::require_complete(&branch_point::source(world, &row)?)?,
    }
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |_| Ok(()))?;
    let operation = begun.op.id.clone();
    match begun.in_background(caller.wait)? {
        Ended::Done(restored) => Ok(answer(id, to, restored)),
        Ended::Failed(e) => Err(e),
        Ended::Running(_) => {
            let message = format!("container {id} is being reset: GET /operations/{operation} says how it ends");
            Ok(ResetAnswer { success: true, message, container_id: id.clone(), to, snapshot: None, undo: None, operation_id: Some(operation) })
        }
    }
}

fn answer(id: &ContainerId, to: ResetTo, restored: Restored) -> ResetAnswer {
    let what = match to {
        ResetTo::BranchPoint => "its branch point",
        ResetTo::Source => "what its source was",
    };
    let before = restored.undo.as_ref().map_or_else(String::new, |u| format!("; the state before is kept as {u}"));
    let message = format!("container {id} is back at {what}{before}");
    let Restored { snapshot, undo, operation_id, .. } = restored;
    ResetAnswer { success: true, message, container_id: id.clone(), to, snapshot, undo, operation_id }
}
