//! What a container is found doing, and how recovery writes that down.

use super::Recovery;
use crate::catalog::containers::{self, ContainerRow, Desired};
use crate::catalog::{Tx, ms};
use crate::error::Result;
use crate::freeze::FreezeState;
use crate::id::{ContainerId, RunId};
use crate::model::{LifecycleAnswer, Status, Verb};
use crate::snapshot::Volume;
use crate::units::VolumeId;
use crate::world::World;
use serde_json::json;

/// What a container was found doing.
pub(crate) enum Observed {
    /// Its init runs, since when.
    Running(Option<i64>, RunId),
    /// The same, frozen.
    Frozen(Option<i64>, RunId),
    Nothing,
}

/// Looks what a container does, and adopts its init if there is one.
pub(crate) fn observe(world: &World, container: &ContainerId) -> Result<Observed> {
    let Some(r) = world.runtime.adopt(container)? else { return Ok(Observed::Nothing) };
    let at = Some(ms(r.started_at));
    Ok(match is_frozen(world, container)? {
        true => Observed::Frozen(at, r.run),
        false => Observed::Running(at, r.run),
    })
}

fn is_frozen(world: &World, container: &ContainerId) -> Result<bool> {
    match world.freezer.state(container) {
        Ok(s) => Ok(s == FreezeState::Frozen),
        Err(e) if e.is_not_found() => Ok(false),
        Err(e) => Err(e),
    }
}

/// Thaws a container, if there is anything to thaw.
pub(crate) fn thaw(world: &World, container: &ContainerId) -> Result<()> {
    match world.freezer.thaw(container) {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Thaws a container that was frozen for a moment only.
pub(crate) fn thaw_unless_paused(world: &World, container: &ContainerId) -> Result<()> {
    let paused = world.read(|c| containers::find(c, container))?.is_some_and(|r| r.status == Status::Paused);
    if paused { Ok(()) } else { thaw(world, container) }
}

/// Boots a container whose start or run was cut short. The error is for its status.
pub(crate) fn boot_again(world: &World, container: &ContainerId, run: &RunId) -> Result<Observed, String> {
    let row = world.read(|c| containers::get(c, container)).map_err(|e| e.message().to_owned())?;
    match world.starter.start(&row, run) {
        Ok(r) => Ok(Observed::Running(Some(ms(r.started_at)), r.run)),
        Err(e) => Err(e.message().to_owned()),
    }
}

/// Recovers an operation that was to start `run`: what runs already is adopted, else it is started.
pub(crate) fn recover_start(
    r: &Recovery<'_>,
    container: &ContainerId,
    run: &RunId,
    answer: impl FnOnce(&Tx<'_>, &ContainerRow) -> Result<serde_json::Value>,
) -> Result<()> {
    let world = r.world;
    let observed = match r.error {
        None => observe(world, container)?,
        Some(_) => Observed::Nothing,
    };
    let started = match observed {
        // Another run than the one that was to start is what a restart had not stopped yet.
        Observed::Running(_, ref found) | Observed::Frozen(_, ref found) if found == run => Ok(observed),
        _ => {
            world.runtime.kill(container)?;
            match r.error {
                Some(e) => Err(e.message().to_owned()),
                None => boot_again(world, container, run),
            }
        }
    };
    match started {
        Ok(observed) => {
            r.finished(|tx| {
                note_observed(tx, container, &observed)?;
                let row = containers::get(tx.conn, container)?;
                answer(tx, &row)
            })?;
            world.exits.note(container)
        }
        Err(why) => r.undone(|tx| note_failed(tx, container, &why)),
    }
}

/// Writes down what a container was found doing.
pub(crate) fn note_observed(tx: &mut Tx<'_>, id: &ContainerId, observed: &Observed) -> Result<()> {
    tx.change_container(id, "system", None, |r| {
        let (status, at, run) = match observed {
            Observed::Running(at, run) => (Status::Running, *at, Some(run)),
            Observed::Frozen(at, run) => (Status::Paused, *at, Some(run)),
            Observed::Nothing => (Status::Stopped, None, None),
        };
        r.status = status;
        r.state.message = None;
        r.state.started_ms = at.or(r.state.started_ms);
        r.state.desired = if run.is_some() { Desired::Running } else { Desired::Stopped };
        if let Some(run) = run {
            r.state.run = Some(run.clone());
        }
    })
    .map(|_| ())
}

/// Writes down why a container failed.
pub(crate) fn note_failed(tx: &mut Tx<'_>, id: &ContainerId, why: &str) -> Result<()> {
    tx.change_container(id, "system", Some(json!({ "error": why })), |r| {
        r.status = Status::Failed;
        r.state.message = Some(why.to_owned());
    })
    .map(|_| ())
}

/// What a lifecycle verb is answered with by recovery.
pub(crate) fn lifecycle_answer(r: &ContainerRow, verb: Verb, op: &crate::id::OperationId) -> LifecycleAnswer {
    LifecycleAnswer {
        error: false,
        operation: verb,
        container_id: r.id.clone(),
        project_id: r.project.clone(),
        message: format!("the container is {}", r.status),
        status: r.status,
        operation_id: Some(op.clone()),
    }
}

/// Undoes the making of a container that has no volume yet.
pub(crate) fn undo_unmade(r: &Recovery<'_>, container: &ContainerId) -> Result<()> {
    let world = r.world;
    world.runtime.remove(container)?;
    world.store.delete(&Volume::Staging(r.id.clone()))?;
    world.store.trash_home(container, r.id)?;
    let gone = world.store.empty_trash(r.id, &mut |_, _| {})?;
    let mut ended = Vec::new();
    r.undone(|tx| {
        ended = tx.delete_container(container)?.0;
        tx.add_reclaim(&gone.volumes, &format!("container {container}"))
    })?;
    world.shares.ended(&ended);
    world.upkeep.reclaim();
    Ok(())
}

/// Deletes volumes of a container's snapshots that are in no list: what was received or copied and not written down.
pub(crate) fn drop_unlisted(world: &World, container: &ContainerId) -> Result<Vec<VolumeId>> {
    let mut gone = Vec::new();
    for v in world.store.list(Some(container))? {
        if matches!(v, Volume::Snapshot(..) | Volume::SnapshotDatabases(..)) && !world.lists(&v)? {
            gone.extend(world.store.delete(&v)?.volumes);
        }
    }
    Ok(gone)
}
