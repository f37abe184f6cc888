//! Snapshots that a container's policy asks for at an event (`on`): when it stops, when the kernel kills something in it for lack of memory, when a command
//! fails.
//!
//! What keeps one from being taken (no room in the pool, another operation) is said by an event, and is no error of what it follows. Each kind has an age and a
//! number of its own, so these snapshots never fill the pool.

use super::event_limits::limits;
use super::snapshot::take_within;
use super::snapshot_delete::delete_unpinned;
use super::{Claim, Held, Want};
use crate::catalog::containers::ContainerRow;
use crate::catalog::{Durability, containers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{AutomaticEvent, AutomaticLimits, NewSnapshot, Status, Trigger};
use crate::op::Caller;
use crate::runtime::Exit;
use crate::world::World;
use nix::libc::SIGKILL;
use std::time::Duration;

/// How long an automatic snapshot waits for other operations of the container and of its databases.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why an automatic snapshot is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occasion<'a> {
    pub event: AutomaticEvent,
    /// The snapshot's description.
    pub why: &'a str,
}

fn trigger(event: AutomaticEvent) -> Trigger {
    match event {
        AutomaticEvent::Stop => Trigger::Stop,
        AutomaticEvent::Oom => Trigger::Oom,
        AutomaticEvent::Restore => Trigger::Restore,
        AutomaticEvent::ExecFailure => Trigger::ExecFailure,
        AutomaticEvent::BeforeDelete => Trigger::BeforeDelete,
    }
}

/// Whether the container's policy asks for a snapshot at an event.
pub(super) fn is_wanted(world: &World, id: &ContainerId, event: AutomaticEvent) -> Result<bool> {
    Ok(world.read(|c| limits(c, id, event))?.is_some())
}

/// Takes snapshots in the background, one after the other, for those events for which the policy asks for one.
fn in_background(world: &World, id: &ContainerId, occasions: Vec<Occasion<'static>>) {
    let wanted: Vec<_> = occasions
        .into_iter()
        .filter(|o| {
            is_wanted(world, id, o.event).unwrap_or_else(|e| {
                tracing::warn!(container = %id, error = %e, "could not read what policy it has");
                false
            })
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    let (weak, id) = (world.downgrade(), id.clone());
    world.engine.background(move || {
        for occasion in wanted {
            let Some(world) = weak.upgrade() else { return };
            drop(take(&world, &id, occasion));
        }
    });
}

/// The kernel kills something in a container that runs, because its memory is used up. Called on the runtime's thread.
pub(crate) fn at_oom(world: &World, id: &ContainerId) {
    let why = "taken when the kernel killed a process of the container for lack of memory";
    in_background(world, id, vec![Occasion { event: AutomaticEvent::Oom, why }]);
}

/// The init of a container has ended by itself. If the kernel has killed it for lack of memory, that was noticed before only where the kernel notifies of it.
pub(crate) fn at_end(world: &World, id: &ContainerId, exit: &Exit) {
    let killed = exit.killed_for_memory > 0 && (exit.signal == Some(SIGKILL) || exit.code == Some(128 + SIGKILL));
    let oom = Occasion { event: AutomaticEvent::Oom, why: "taken after the kernel had killed a process of the container for lack of memory" };
    let stop = Occasion { event: AutomaticEvent::Stop, why: "taken when the container's init had ended" };
    in_background(world, id, if killed { vec![oom, stop] } else { vec![stop] });
}

/// The init of a container has ended while no server ran.
pub(crate) fn at_unseen_end(world: &World, id: &ContainerId) {
    in_background(world, id, vec![Occasion { event: AutomaticEvent::Stop, why: "taken after the container's init had ended while no server ran" }]);
}

/// Takes a snapshot, if the policy asks for one.
///
/// # Errors
/// Only what stands for a crash.
pub(crate) fn take(world: &World, id: &ContainerId, occasion: Occasion<'_>) -> Result<()> {
    let taken = || {
        if !is_wanted(world, id, occasion.event)? {
            return Ok(());
        }
        let held = world.engine.lock(&caller(), Claim::short("snapshot.create", vec![Want::container(id)]))?;
        attempt(world, &held, id, occasion)
    };
    note_failure(world, id, occasion.event, taken())
}

/// The same within an operation that holds the container's lock.
///
/// # Errors
/// Only what stands for a crash.
pub(super) fn take_under(world: &World, held: &Held, id: &ContainerId, occasion: Occasion<'_>) -> Result<()> {
    note_failure(world, id, occasion.event, attempt(world, held, id, occasion))
}

fn caller() -> Caller {
    Caller { by: "policy".into(), patience: PATIENCE, ..Caller::default() }
}

fn attempt(world: &World, held: &Held, id: &ContainerId, occasion: Occasion<'_>) -> Result<()> {
    let row = world.read(|c| containers::get(c, id))?;
    // Under the lock the policy may be another one than when it was asked before.
    let limits = world.read(|c| limits(c, id, occasion.event))?;
    let Some(AutomaticLimits { max_age, keep }) = limits.filter(|_| !matches!(row.status, Status::Deleting | Status::Deleted)) else { return Ok(()) };
    if occasion.event == AutomaticEvent::Stop && was_taken_in_this_run(world, &row)? {
        return Ok(());
    }
    if !world.automatic.may(id, occasion.event) {
        return Ok(());
    }
    let trigger = trigger(occasion.event);
    let new = NewSnapshot { description: Some(occasion.why.to_owned()), expires_in: max_age, ..NewSnapshot::default() };
    take_within(world, &caller(), held.clone(), id, new, trigger)?;
    let Some(keep) = keep else { return Ok(()) };
    let of_kind = world.read(|c| snapshots::all(c, id))?.into_iter().filter(|s| s.snapshot.trigger == trigger && s.snapshot.pinned.is_none());
    for old in of_kind.skip(keep as usize) {
        delete_unpinned(world, held, id, &old.snapshot.name, "policy")?;
    }
    Ok(())
}

/// Whether this run's stop has its snapshot: the stop may have been cut short after it.
fn was_taken_in_this_run(world: &World, row: &ContainerRow) -> Result<bool> {
    let Some(started) = row.state.started_ms else { return Ok(false) };
    let all = world.read(|c| snapshots::all(c, &row.id))?;
    Ok(all.iter().any(|s| s.snapshot.trigger == Trigger::Stop && s.snapshot.created_at.as_millisecond() >= started))
}

fn note_failure(world: &World, id: &ContainerId, event: AutomaticEvent, result: Result<()>) -> Result<()> {
    let Err(e) = result else { return Ok(()) };
    if e.code() == Code::Crashed {
        return Err(e);
    }
    tracing::warn!(container = %id, event = event.as_str(), error = %e, "an automatic snapshot was not taken");
    if let Err(e) = note_skipped(world, id, event, &e) {
        tracing::warn!(container = %id, error = %e, "could not note that an automatic snapshot was not taken");
    }
    Ok(())
}

fn note_skipped(world: &World, id: &ContainerId, event: AutomaticEvent, e: &Error) -> Result<()> {
    world.write(Durability::Process, |tx| {
        let Some(r) = containers::find(tx.conn, id)? else { return Ok(()) };
        let extra = serde_json::json!({ "trigger": trigger(event), "error": e.code().as_str(), "message": e.message() });
        tx.emit_container("container.snapshot.skipped", &r, extra)
    })
}
