//! The target's side of a move: takes a container over once, or refuses for ever.

use super::Operation;
use super::copied::require_complete;
use super::receive::state;
use super::received::Source;
use super::sync::Sync;
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow, Desired, Handover};
use crate::catalog::history::{self, Entry, Parent};
use crate::error::{Code, Error, Kind, Result};
use crate::id::{ContainerId, OperationId};
use crate::model::{CopyState, DeleteOptions, NodeKind, OperationStatus, Status, Verb};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::world::World;
use std::time::Duration;
use uuid::Uuid;

/// How long the target waits for a start before it says that it is under way.
const START_TIME: Duration = Duration::from_secs(40);

/// The target's side: brings a copy up to a snapshot of its source, for a move.
pub(crate) fn advance_copy(world: &World, id: &ContainerId, snapshot: SnapshotName, handover: &OperationId) -> Result<CopyState> {
    let caller = Caller { by: "move".into(), wait: Duration::ZERO, ..Caller::default() };
    let intent = Sync { container: id.clone(), force: true, limit: None, advance: Some(snapshot) };
    let held = world.engine.lock(&caller, intent.claim())?;
    let row = world.read(|c| containers::get(c, id))?;
    require_complete(&row)?;
    let source = Source::of(world, &row)?.container;
    let word = handover_of(&row, handover)?;
    if word.taken || word.called_off {
        return Err(decided(id, &word));
    }
    super::sync::begin(world, &caller, held, &row, source, intent)?;
    state(world, id)
}

/// The target's side: takes a moving container over, or refuses to for ever. Once taken it stays taken, unless it cannot be started at all.
pub(crate) fn take_over(world: &World, id: &ContainerId, handover: &OperationId, start: bool, identity: Option<Uuid>) -> Result<CopyState> {
    let row = world.read(|c| containers::get(c, id))?;
    if !start {
        // Nothing to call off is no error.
        if row.state.handover.is_some() {
            note_handover(world, id, handover, Word::CallOff)?;
        }
        return state(world, id);
    }
    if !handover_of(&row, handover)?.taken {
        let synced = row.state.synced.as_ref().map(|s| world.store.identity(&Volume::Snapshot(id.clone(), s.clone()))).transpose()?.flatten();
        if synced.is_none() || synced != identity {
            let message = format!("container {id} was not brought up to what it is to go on from");
            return Err(Error::new(Code::OperationStateConflict, message));
        }
    }
    note_handover(world, id, handover, Word::Take)?;
    if !matches!(row.status, Status::Running | Status::Paused) {
        let caller = Caller { by: "move".into(), wait: START_TIME, ..Caller::default() };
        let started = super::lifecycle::lifecycle(world, &caller, id, Verb::Start, None);
        match (world.container(id)?.status, started) {
            (Status::Running | Status::Paused, _) => {}
            (_, Err(e)) if e.code() == Code::Crashed || e.kind() == Kind::Busy => return Err(e),
            (_, Err(e)) => {
                // It does not start here: then it goes on there.
                tracing::warn!(container = %id, "a container that was moved here does not start; it goes on where it was");
                note_handover(world, id, handover, Word::GiveBack)?;
                return Err(e);
            }
            (status, Ok(_)) => {
                return Err(Error::new(Code::OperationInProgress, format!("container {id} is still {status}: ask again")));
            }
        }
    }
    state(world, id)
}

/// The target's side: deletes a copy that was made for a move which came to nothing. Another copy is not deleted by the server that it comes from.
pub(crate) fn discard_copy(world: &World, id: &ContainerId, handover: &OperationId) -> Result<CopyState> {
    let state = state(world, id)?;
    let row = world.read(|c| containers::get(c, id))?;
    if handover_of(&row, handover)?.taken || matches!(row.status, Status::Running | Status::Paused) {
        return Err(Error::new(Code::HandoverTaken, format!("container {id} goes on here: it is not discarded")));
    }
    if let Some(op) = state.operation.as_ref().filter(|o| o.status == OperationStatus::Running) {
        // Cancelled, a copy that is being made goes by itself.
        world.engine.cancel(&op.id)?;
    } else {
        super::delete::delete(world, &Caller { by: "move".into(), ..Caller::default() }, id, DeleteOptions { permanently: true })?;
    }
    Ok(state)
}

/// Notes the source's word on a move. Under one transaction with a look at what was said before, so that a word is never overwritten.
fn note_handover(world: &World, id: &ContainerId, handover: &OperationId, word: Word) -> Result<()> {
    let origin = world.read(|c| containers::get(c, id))?.spec.origin;
    let peer = origin.and_then(|server| world.peers.address_of(&server).ok()).map(|p| p.name);
    world.write(Durability::Disk, |tx| {
        let row = containers::get(tx.conn, id)?;
        let before = handover_of(&row, handover)?;
        if (before.called_off && word == Word::Take) || (before.taken && word == Word::CallOff) {
            return Err(decided(id, &before));
        }
        let after = Handover { id: handover.clone(), taken: word == Word::Take, called_off: word != Word::Take };
        tx.change_container(id, "move", None, |r| {
            r.state.handover = Some(after);
            if word == Word::Take {
                r.state.desired = Desired::Running;
            } else if !matches!(r.status, Status::Running | Status::Paused) {
                // What goes on elsewhere is not to start here at the next boot.
                r.state.desired = Desired::Stopped;
            }
        })?;
        if let (Word::Take, false, Some(source)) = (word, before.taken, &row.spec.source) {
            let there = history::source(row.spec.origin.as_ref(), peer.as_deref(), source, None);
            tx.record(&Entry::new(NodeKind::Move, id).from(Parent::Present(id)).source(there).author("move"))?;
        }
        Ok(())
    })
}

/// What is said of a move to the server that it goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It goes on there.
    Take,
    /// It goes on here.
    CallOff,
    /// It does not start there, so it goes on here.
    GiveBack,
}

/// A move on which the last word was said.
fn decided(id: &ContainerId, word: &Handover) -> Error {
    if word.taken {
        return Error::new(Code::HandoverTaken, format!("container {id} goes on here: it was taken over"));
    }
    Error::new(Code::HandoverRefused, format!("the move that container {id} was made for was called off"))
}

/// The move that an operation on a copy belongs to.
fn handover_of(row: &ContainerRow, id: &OperationId) -> Result<Handover> {
    match &row.state.handover {
        Some(h) if h.id == *id => Ok(h.clone()),
        _ => {
            let message = format!("container {} is not waiting for this move: it was made for another one, or for none", row.id);
            Err(Error::new(Code::HandoverRefused, message))
        }
    }
}
