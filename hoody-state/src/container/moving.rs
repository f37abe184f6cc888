//! Moving a container to a peer: copied while it runs, brought up to date while it stands still, started there, stopped here.
//!
//! **Which of the two runs.** Until the peer may have been told to go on, it runs here, and whatever fails is undone by letting it go on. From then on (which
//! is written down before the peer is told) the peer decides: it takes the container over once, durably, or refuses for ever. While it cannot be
//! asked, the container here stays paused and is asked about again, also by the next start of this server. So never do both run, and never does
//! the one that should not.

use super::copy::copy_name;
use super::receive::wrong_answer;
use super::sync::{LABEL, handover_of};
use crate::catalog::containers::{Desired, Handover};
use crate::catalog::{Durability, containers};
use crate::error::{Code, Error, Kind, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, OperationId, ServerId};
use crate::model::{CopyState, MoveRequest, Moved, NewSnapshot, OperationStatus, Status, Verb};
use crate::name::SnapshotName;
use crate::op::{Intent, LockGuard, Op};
use crate::snapshot::Volume;
use crate::transfer::{Answer, PeerAddress, Request};
use crate::units::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often the peer is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// How long the target waits for a start before it says that it is under way.
const START_TIME: Duration = Duration::from_secs(40);
/// How long the peer's word is waited for between two questions, once it decides.
const WORD: Duration = Duration::from_secs(1);

impl Host {
    /// Moves a container to a peer, where it gets a new id; here it ends up stopped, with all its snapshots. A container that does not run is copied and not
    /// started. The rest is waited for up to `caller.wait`. Neither runs for as long as one increment takes.
    ///
    /// # Errors
    /// `container_not_found`, `unknown_server`, `container_name_in_use`, `id_base_differs`, `pool_full`, `operation_in_progress`,
    /// `operation_state_conflict`, `peer_unreachable`, and what the peer says.
    pub fn move_container(&self, caller: &Caller, id: &ContainerId, request: &MoveRequest) -> Result<Moved> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let server: ServerId = request.target_server_id.as_deref().ok_or_else(|| Error::new(Code::ValidationError, "target_server_id is missing"))?.parse()?;
        if server == self.0.server.id {
            return Err(Error::new(Code::ValidationError, "target_server_id: the container is on this server already"));
        }
        let peer = self.peer_of(&server)?;
        let lock = self.0.locks.take(id.as_str(), "container.move")?;
        self.guard_space()?;
        let row = self.copyable(id)?;
        if !matches!(row.status, Status::Running | Status::Stopped | Status::Failed) {
            return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: it can be moved while it runs or is stopped", row.status)));
        }
        let project = request.target_project_id.as_deref().map_or_else(|| Ok(row.project.clone()), str::parse)?;
        let name = request.name.as_deref().map_or_else(|| Ok(row.name.clone()), |n| copy_name(Some(n)))?;
        let copy = ContainerId::generate();
        let was_running = row.status == Status::Running;
        // Whatever the peer refuses, it refuses before anything is changed here.
        let key = row.ssh_public_key.clone();
        self.check_order(&peer, &server, self.order(&row, copy.clone(), project.clone(), name.clone(), key, false, request.rate_limit)?)?;
        let intent =
            Intent::Move { container: id.clone(), server: server.clone(), copy: copy.clone(), was_running, handing_over: false, given: false, identity: None };
        let mut op = self.begin(caller, lock, Durability::Disk, intent, Some(&row.project), |_| Ok(()))?;
        let mut moved = Moved {
            container_id: id.clone(),
            target_container_id: copy.clone(),
            target_server_id: server.clone(),
            status: row.status,
            operation_id: op.id.clone(),
            downtime_ms: None,
        };
        op.forget_key();
        let begun = serde_json::to_value(&moved).map_err(|e| Error::internal(e.to_string()))?;
        let limit = request.rate_limit;
        let answer = begun.clone();
        let done = self.behind(op, caller.wait, move |host, op| host.move_steps(op, project, name, limit, &answer))?;
        self.write(Durability::Process, |tx| tx.answer_key_of(&moved.operation_id, &begun))?;
        if let Some(downtime) = done {
            moved.status = self.container(id)?.status;
            moved.downtime_ms = downtime;
        }
        Ok(moved)
    }

    /// The downtime in milliseconds, if there was one.
    fn move_steps(
        &self,
        op: &mut Op,
        project: crate::id::ProjectId,
        name: crate::name::ContainerName,
        limit: Option<Bytes>,
        begun: &serde_json::Value,
    ) -> Result<Option<u64>> {
        let Intent::Move { container: id, server, copy, was_running, .. } = op.intent.clone() else { return Err(Error::internal("not a move")) };
        op.progress.cancellable.store(true, std::sync::atomic::Ordering::Relaxed);
        let peer = self.peer_of(&server)?;
        let row = self.0.catalog.read(|c| containers::get(c, &id))?;
        op.step("snapshot")?;
        let first = self.move_snapshot(&id, &copy, "taken to move it")?;
        op.step("copy")?;
        let mut order = self.order(&row, copy.clone(), project, name, row.ssh_public_key.clone(), false, limit)?;
        (order.snapshot, order.handover) = (first, Some(op.id.clone()));
        self.place_order(&peer, &server, order)?;
        self.await_copy(op, &peer, &copy)?;
        op.progress.cancellable.store(false, std::sync::atomic::Ordering::Relaxed);
        if !was_running {
            self.finish_move(op, &peer, false, begun)?;
            return Ok(None);
        }
        op.step("pause")?;
        self.freeze(&id)?;
        let stood_still = Instant::now();
        self.write(Durability::Process, |tx| tx.change_container(&id, "move", None, |r| r.status = Status::Paused))?;
        op.step("last snapshot")?;
        let last = self.move_snapshot(&id, &copy, "taken to move it, while it stood still")?;
        op.step("advance")?;
        let identity = self.0.store.identity(&Volume::Snapshot(id.clone(), last.clone()))?;
        let request = Request::Advance { copy: copy.clone(), snapshot: last, handover: op.id.clone() };
        self.persistently(op, || self.ask(&peer, &request))?;
        self.await_copy(op, &peer, &copy)?;
        let intent = Intent::Move { container: id.clone(), server, copy, was_running, handing_over: true, given: false, identity };
        let this = op.id.clone();
        op.amend(Durability::Disk, intent, |tx| tx.answer_key_of(&this, begun))?;
        self.hand_over(op, Some(stood_still), begun)
    }

    fn move_snapshot(&self, id: &ContainerId, copy: &ContainerId, why: &str) -> Result<SnapshotName> {
        let new = NewSnapshot { description: Some(why.to_owned()), labels: Some(BTreeMap::from([(LABEL.to_owned(), copy.to_string())])), ..Default::default() };
        let caller = Caller { by: "move".into(), ..Caller::default() };
        Ok(self.take_snapshot(&caller, Ok(LockGuard::of_another(&self.0.locks)), id, new)?.snapshot.name)
    }

    /// Waits until nothing is being done to the copy, and says what went wrong with it.
    fn await_copy(&self, op: &Op, peer: &PeerAddress, copy: &ContainerId) -> Result<()> {
        loop {
            let Answer::Copy(state) = self.persistently(op, || self.ask(peer, &Request::State { copy: copy.clone() }))? else { return Err(wrong_answer(peer)) };
            if let Some(o) = &state.operation {
                use std::sync::atomic::Ordering::Relaxed;
                op.progress.done.store(o.done.unwrap_or(0), Relaxed);
                op.progress.total.store(o.total.unwrap_or(0), Relaxed);
            }
            match state.operation.map(|o| (o.status, o.error)) {
                Some((OperationStatus::Running, _)) => self.sleep(op, LOOK)?,
                None | Some((OperationStatus::Succeeded, _)) => return Ok(()),
                Some((_, error)) => {
                    let why = error.map_or_else(|| "it was cancelled there".to_owned(), |e| e.message);
                    return Err(Error::new(Code::PeerFailed, format!("server {} could not make the copy: {why}", peer.name)));
                }
            }
        }
    }

    /// Lets the peer go on, and acts by its word. May be repeated.
    pub(crate) fn hand_over(&self, op: &mut Op, stood_still: Option<Instant>, begun: &serde_json::Value) -> Result<Option<u64>> {
        let Intent::Move { container: id, server, copy, was_running, given, identity, .. } = op.intent.clone() else {
            return Err(Error::internal("not a move"));
        };
        op.step("hand over")?;
        let mut wanted = true;
        let mut why = None;
        let (runs_there, peer) = loop {
            // Asked anew each time: forgetting the peer is the operator's word that it is gone for good.
            let peer = match self.peer_of(&server) {
                Err(e) if e.code() == Code::UnknownServer && !given => return Err(e),
                Err(e) => {
                    tracing::warn!(container = %id, error = %e, "the other server cannot be looked up");
                    self.wait_or_end(WORD)?;
                    continue;
                }
                Ok(p) => p,
            };
            if given {
                break (true, peer);
            }
            let request = Request::HandOver { copy: copy.clone(), handover: op.id.clone(), start: wanted, identity };
            match self.ask(&peer, &request) {
                Ok(Answer::Copy(_)) => break (wanted, peer),
                // Refused for ever, or nothing is there that could take it.
                Err(e) if matches!(e.code(), Code::HandoverRefused | Code::ContainerNotFound) => {
                    why.get_or_insert(e);
                    break (false, peer);
                }
                Err(e) if !wanted && e.code() == Code::HandoverTaken => {
                    wanted = true;
                    self.wait_or_end(WORD)?;
                }
                // It says itself that it cannot: then it can be called off, if it was not taken all the same.
                Err(e) if wanted && !unclear(&e) => {
                    why = Some(e);
                    wanted = false;
                }
                // Anything else says nothing of what was done.
                unclear => {
                    let error = unclear.err().unwrap_or_else(|| wrong_answer(&peer));
                    tracing::warn!(container = %id, error = %error, "paused until the other server says which of the two goes on");
                    self.wait_or_end(WORD)?;
                }
            }
        };
        if !runs_there {
            let why = why.unwrap_or_else(|| Error::new(Code::PeerFailed, format!("server {} did not take it", peer.name)));
            return Err(why.context(format!("container {id} goes on here: server {} did not take it over", peer.name)));
        }
        let downtime = stood_still.map(|t| u64::try_from(t.elapsed().as_millis()).unwrap_or(u64::MAX));
        if !given {
            // From here on nothing that fails may let it go on here.
            let intent = Intent::Move { container: id, server, copy, was_running, handing_over: true, given: true, identity };
            loop {
                match op.amend(Durability::Disk, intent.clone(), |_| Ok(())) {
                    Err(e) if e.code() != Code::Crashed => {
                        tracing::error!(error = %e, "cannot write down that a container was moved; trying again");
                        self.wait_or_end(WORD)?;
                    }
                    done => break done?,
                }
            }
        }
        self.finish_move(op, &peer, true, begun)?;
        Ok(downtime)
    }

    /// Like a sleep, but for the end of the host: then the next one asks.
    fn wait_or_end(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.0.upkeep.is_closed() {
                return Err(Error::new(Code::Crashed, "the server ended; the next start asks again"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn finish_move(&self, op: &mut Op, peer: &PeerAddress, ran: bool, begun: &serde_json::Value) -> Result<()> {
        let Intent::Move { container: id, server, copy, .. } = op.intent.clone() else { return Err(Error::internal("not a move")) };
        if ran {
            op.step("stop")?;
            self.0.runtime.kill(&id)?;
        }
        let this = op.id.clone();
        op.finish(Durability::Disk, |tx| {
            if !begun.is_null() {
                tx.answer_key_of(&this, begun)?;
            }
            let r = tx.change_container(&id, "move", Some(json!({ "moved_to": server, "container_id": copy })), |r| {
                if ran {
                    r.status = Status::Stopped;
                }
                r.state.desired = Desired::Stopped;
                r.state.message = Some(format!("moved to server {} as container {copy}", peer.name));
            })?;
            let note = json!({ "operation_id": op.id, "operation": "move", "target_server_id": server, "target_container_id": copy });
            tx.emit_container("container.operation.completed", &r, note)
        })?;
        self.note_exit(&id)
    }

    /// The target's side: brings a copy up to a snapshot of its source, for a move.
    pub(crate) fn advance_copy(&self, id: &ContainerId, snapshot: SnapshotName, handover: &OperationId) -> Result<CopyState> {
        let lock = self.0.locks.take(id.as_str(), "container.sync")?;
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        super::copy::whole(&row)?;
        let (source, _) = self.source_of(&row)?;
        let word = handover_of(&row, handover)?;
        if word.taken || word.called_off {
            return Err(decided(id, &word));
        }
        let caller = Caller { by: "move".into(), wait: Duration::ZERO, ..Caller::default() };
        let intent = Intent::Sync { container: id.clone(), force: true, limit: None, advance: Some(snapshot) };
        self.sync_behind(&caller, lock, &row, source, intent)?;
        self.copy_state(id)
    }

    /// The target's side: takes a moving container over, or refuses to for ever. Once taken it stays taken, unless it cannot be started at all.
    pub(crate) fn take_over(&self, id: &ContainerId, handover: &OperationId, start: bool, identity: Option<Uuid>) -> Result<CopyState> {
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        if !start {
            // Nothing to call off is no error.
            if row.state.handover.is_some() {
                self.note_handover(id, handover, Word::CallOff)?;
            }
            return self.copy_state(id);
        }
        if !handover_of(&row, handover)?.taken {
            let synced = row.state.synced.as_ref().map(|s| self.0.store.identity(&Volume::Snapshot(id.clone(), s.clone()))).transpose()?.flatten();
            if synced.is_none() || synced != identity {
                let message = format!("container {id} was not brought up to what it is to go on from");
                return Err(Error::new(Code::OperationStateConflict, message));
            }
        }
        self.note_handover(id, handover, Word::Take)?;
        if !matches!(row.status, Status::Running | Status::Paused) {
            let caller = Caller { by: "move".into(), wait: START_TIME, ..Caller::default() };
            let started = self.lifecycle(&caller, id, Verb::Start, None);
            match (self.container(id)?.status, started) {
                (Status::Running | Status::Paused, _) => {}
                (_, Err(e)) if e.code() == Code::Crashed || e.kind() == Kind::Busy => return Err(e),
                (_, Err(e)) => {
                    // It does not start here: then it goes on there.
                    tracing::warn!(container = %id, "a container that was moved here does not start; it goes on where it was");
                    self.note_handover(id, handover, Word::GiveBack)?;
                    return Err(e);
                }
                (status, Ok(_)) => {
                    return Err(Error::new(Code::OperationInProgress, format!("container {id} is still {status}: ask again")));
                }
            }
        }
        self.copy_state(id)
    }

    /// The target's side: deletes a copy that was made for a move which came to nothing. Another copy is not deleted by the server that it comes from.
    pub(crate) fn discard_copy(&self, id: &ContainerId, handover: &OperationId) -> Result<CopyState> {
        let state = self.copy_state(id)?;
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        if handover_of(&row, handover)?.taken || matches!(row.status, Status::Running | Status::Paused) {
            return Err(Error::new(Code::HandoverTaken, format!("container {id} goes on here: it is not discarded")));
        }
        if let Some(op) = state.operation.as_ref().filter(|o| o.status == OperationStatus::Running) {
            // Cancelled, a copy that is being made goes by itself.
            self.cancel_operation(&op.id)?;
        } else {
            self.delete_container(&Caller { by: "move".into(), ..Caller::default() }, id)?;
        }
        Ok(state)
    }

    /// Notes the source's word on a move. Under one transaction with a look at what was said before, so that a word is never overwritten.
    fn note_handover(&self, id: &ContainerId, handover: &OperationId, word: Word) -> Result<()> {
        self.write(Durability::Disk, |tx| {
            let before = handover_of(&containers::get(tx.conn, id)?, handover)?;
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
            Ok(())
        })
    }

    /// Deletes what was taken for a move that came to nothing. Best effort: whatever is in use stays, and is deleted by hand.
    pub(crate) fn drop_move_snapshots(&self, id: &ContainerId, copy: &ContainerId) -> Result<()> {
        for s in self.0.catalog.read(|c| crate::catalog::snapshots::all(c, id))? {
            if s.snapshot.labels.get(LABEL).is_some_and(|of| of == copy.as_str()) && s.snapshot.pinned.is_none() {
                self.drop_row(id, &s.snapshot.name)?;
            }
        }
        Ok(())
    }
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

/// Whether an error says nothing of what the peer did, or will do when it is asked again.
pub(super) fn unclear(e: &Error) -> bool {
    matches!(e.code(), Code::PeerUnreachable | Code::PeerRefused | Code::PeerFailed)
        || matches!(e.kind(), Kind::Busy | Kind::Timeout | Kind::Internal | Kind::Io)
}
