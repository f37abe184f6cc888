//! Moves a container to a peer: copied while it runs, brought up to date while it stands still, started there, stopped here.
//!
//! **Which of the two runs.** Until the peer may have been asked to take over, the container runs here, and whatever fails is undone by running on here. From
//! then on (which is written down before the peer is asked) the peer decides: it takes the container over once, durably, or refuses for ever. While it
//! cannot be asked, the container here stays paused and is asked about again, also by the next start of this server. So the two never run at the same time,
//! and the one that must not run never does.

use super::copied::{copy_name, copyable};
use super::observed::{Observed, boot_again, note_failed, note_observed, observe, thaw};
use super::order::{check_order, order, place_order};
use super::persistence::{is_unclear, persistently, sleep, wait_or_end};
use super::snapshot::take_within;
use super::snapshot_delete::delete_named;
use super::synced::{LABEL, taken_for};
use super::{Begun, Claim, Ended, Lane, Op, Operation, Recovery, Want};
use crate::catalog::containers::{self, Desired};
use crate::catalog::history::{self, Entry, Parent};
use crate::catalog::{Durability, Tx};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, ProjectId, RunId, ServerId};
use crate::model::{MoveRequest, Moved, NewSnapshot, NodeKind, NodeSource, OperationStatus, Status, Trigger};
use crate::name::{ContainerName, SnapshotName};
use crate::op::Caller;
use crate::services::peers::wrong_answer;
use crate::snapshot::Volume;
use crate::transfer::{Answer, PeerAddress, Request};
use crate::units::Bytes;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often the peer is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// How long is waited between two questions to the peer, once it decides.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Move {
    pub container: ContainerId,
    pub server: ServerId,
    pub copy: ContainerId,
    pub was_running: bool,
    /// Whether the peer may have been asked to take over: then it decides which of the two runs.
    pub handing_over: bool,
    /// Whether it has taken over: then the container is only to be stopped here.
    #[serde(default)]
    pub given: bool,
    /// What the copy must hold to take over.
    #[serde(default)]
    pub identity: Option<Uuid>,
    /// What the copy is to be. Nothing in the journal of an earlier version: there, a move is never run on before it hands over.
    #[serde(default)]
    pub order: Option<Wanted>,
}

/// What the copy is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub project: ProjectId,
    pub name: ContainerName,
    /// Bytes a second.
    pub limit: Option<Bytes>,
}

/// What a move ended with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Relocated {
    /// For how long neither of the two ran, if it ran at all.
    pub downtime_ms: Option<u64>,
}

impl Operation for Move {
    type World = World;
    type Answer = Relocated;
    const TAG: &'static str = "move";

    fn kind(&self) -> &'static str {
        "container.move"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("container.move", vec![Want::container(&self.container)])
    }

    fn lane(&self) -> Lane {
        Lane::Own
    }

    fn run(self, op: &mut Op) -> Result<Relocated> {
        if self.handing_over {
            return self.hand_over(op, None);
        }
        let world = op.world.clone();
        let (id, copy) = (self.container.clone(), self.copy.clone());
        op.progress.cancellable.store(true, Ordering::Relaxed);
        let peer = world.peers.address_of(&self.server)?;
        let wanted = self.order.clone().ok_or_else(|| Error::internal("a move without an order"))?;
        let row = world.read(|c| containers::get(c, &id))?;
        op.step("snapshot")?;
        let first = self.snapshot(op, "taken to move it")?;
        op.step("copy")?;
        let mut order = order(&world, &row, copy.clone(), wanted.project, wanted.name, row.ssh_public_key.clone(), false, wanted.limit)?;
        (order.snapshot, order.handover) = (first, Some(op.id.clone()));
        order.identity = row.state.identity.clone();
        place_order(&world, &peer, &self.server, order)?;
        await_copy(op, &peer, &copy)?;
        op.progress.cancellable.store(false, Ordering::Relaxed);
        if !self.was_running {
            self.finish(op, &peer, false)?;
            return Ok(Relocated { downtime_ms: None });
        }
        op.step("pause")?;
        world.freezing.freeze(&id)?;
        let stood_still = Instant::now();
        world.write(Durability::Process, |tx| tx.change_container(&id, "move", None, |r| r.status = Status::Paused))?;
        op.step("last snapshot")?;
        let last = self.snapshot(op, "taken to move it, while it stood still")?;
        op.step("advance")?;
        let identity = world.store.identity(&Volume::Snapshot(id, last.clone()))?;
        let request = Request::Advance { copy: copy.clone(), snapshot: last, handover: op.id.clone() };
        persistently(op, || world.peers.ask(&peer, &request))?;
        await_copy(op, &peer, &copy)?;
        let handing_over = Move { handing_over: true, identity, ..self };
        let this = op.id.clone();
        op.amend(Durability::Disk, &handing_over, |tx| handing_over.answer_key(tx, &this))?;
        handing_over.hand_over(op, Some(stood_still))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        if self.given {
            return self.stop_here(r);
        }
        // The peer refused, or was never asked: the container runs on here.
        if self.handing_over && r.error.is_none() {
            return Err(Error::internal("a move that the peer decides on is run on"));
        }
        let (world, id) = (r.world, &self.container);
        thaw(world, id)?;
        let observed = match observe(world, id)? {
            Observed::Nothing if self.was_running => boot_again(world, id, &RunId::generate()),
            observed => Ok(observed),
        };
        self.discard(r);
        r.undone(|tx| {
            match &observed {
                Ok(Observed::Nothing) => {}
                Ok(observed) => note_observed(tx, id, observed)?,
                Err(why) => note_failed(tx, id, why)?,
            }
            let row = containers::get(tx.conn, id)?;
            let why = r.error.map_or("the server ended in the middle of it", Error::message);
            let note = json!({ "operation_id": r.id, "operation": "move", "error": why, "copy": self.copy });
            tx.emit_container("container.operation.failed", &row, note)
        })?;
        world.upkeep.reclaim();
        Ok(())
    }

    fn continues(&self, _: &World) -> Result<bool> {
        Ok(self.handing_over)
    }
}

impl Move {
    fn begun(&self, op: &OperationId, status: Status) -> Moved {
        Moved {
            container_id: self.container.clone(),
            target_container_id: self.copy.clone(),
            target_server_id: self.server.clone(),
            status,
            operation_id: op.clone(),
            downtime_ms: None,
        }
    }

    /// The caller's key is answered by that the move has begun: how it ends is the operation's.
    fn answer_key(&self, tx: &mut Tx<'_>, op: &OperationId) -> Result<()> {
        let status = if self.was_running { Status::Running } else { Status::Stopped };
        let begun = serde_json::to_value(self.begun(op, status)).map_err(|e| Error::internal(e.to_string()))?;
        tx.answer_key_of(op, &begun)
    }

    fn snapshot(&self, op: &Op, why: &str) -> Result<SnapshotName> {
        let labels = BTreeMap::from([(LABEL.to_owned(), self.copy.to_string())]);
        let new = NewSnapshot { description: Some(why.to_owned()), labels: Some(labels), ..Default::default() };
        let caller = Caller { by: "move".into(), ..Caller::default() };
        Ok(take_within(&op.world, &caller, op.held()?, &self.container, new, Trigger::Copy)?.snapshot.name)
    }

    /// Asks the peer to take over, and acts on its answer. May be repeated.
    fn hand_over(self, op: &mut Op, stood_still: Option<Instant>) -> Result<Relocated> {
        op.step("hand over")?;
        let peer = match self.decision(op)? {
            Decision::TakenOver(peer) => peer,
            Decision::Refused(peer, why) => {
                return Err(why.context(format!("container {} runs on here: server {} did not take it over", self.container, peer.name)));
            }
        };
        let downtime_ms = stood_still.map(|t| u64::try_from(t.elapsed().as_millis()).unwrap_or(u64::MAX));
        let given = if self.given { self } else { self.note_given(op)? };
        given.finish(op, &peer, true)?;
        Ok(Relocated { downtime_ms })
    }

    /// From here on nothing that fails may let the container run on here.
    fn note_given(self, op: &mut Op) -> Result<Self> {
        let given = Move { given: true, ..self };
        loop {
            match op.amend(Durability::Disk, &given, |_| Ok(())) {
                Err(e) if e.code() != Code::Crashed => {
                    tracing::error!(error = %e, "cannot write down that a container was moved; trying again");
                    wait_or_end(op, BETWEEN_QUESTIONS)?;
                }
                done => break done.map(|()| given),
            }
        }
    }

    fn decision(&self, op: &Op) -> Result<Decision> {
        let (world, id) = (&op.world, &self.container);
        let mut wanted = true;
        let mut why = None;
        loop {
            // Looked up anew each time: forgetting the peer is the operator's statement that it is gone for good.
            let peer = match world.peers.address_of(&self.server) {
                Err(e) if e.code() == Code::UnknownServer && !self.given => return Err(e),
                Err(e) => {
                    tracing::warn!(container = %id, error = %e, "the other server cannot be looked up");
                    wait_or_end(op, BETWEEN_QUESTIONS)?;
                    continue;
                }
                Ok(p) => p,
            };
            if self.given {
                return Ok(Decision::TakenOver(peer));
            }
            let request = Request::HandOver { copy: self.copy.clone(), handover: op.id.clone(), start: wanted, identity: self.identity };
            match world.peers.ask(&peer, &request) {
                Ok(Answer::Copy(_)) if wanted => return Ok(Decision::TakenOver(peer)),
                Ok(Answer::Copy(_)) => {
                    let why = why.unwrap_or_else(|| Error::new(Code::PeerFailed, format!("server {} did not take it", peer.name)));
                    return Ok(Decision::Refused(peer, why));
                }
                // Refused for ever, or nothing is there that could take it.
                Err(e) if matches!(e.code(), Code::HandoverRefused | Code::ContainerNotFound) => return Ok(Decision::Refused(peer, why.unwrap_or(e))),
                Err(e) if !wanted && e.code() == Code::HandoverTaken => {
                    wanted = true;
                    wait_or_end(op, BETWEEN_QUESTIONS)?;
                }
                // It says itself that it cannot: then it can be called off, if it was not taken all the same.
                Err(e) if wanted && !is_unclear(&e) => {
                    why = Some(e);
                    wanted = false;
                }
                // Anything else says nothing of what was done.
                unclear => {
                    let error = unclear.err().unwrap_or_else(|| wrong_answer(&peer));
                    tracing::warn!(container = %id, error = %error, "paused until the other server says which of the two runs");
                    wait_or_end(op, BETWEEN_QUESTIONS)?;
                }
            }
        }
    }

    fn finish(&self, op: &mut Op, peer: &PeerAddress, ran: bool) -> Result<()> {
        let world = op.world.clone();
        if ran {
            op.step("stop")?;
            world.runtime.kill(&self.container)?;
        }
        op.finish(Durability::Disk, |tx| {
            self.answer_key(tx, &op.id)?;
            self.note_moved(tx, &op.id, &peer.name, ran)
        })?;
        world.exits.note(&self.container)
    }

    /// What remains of a move once the peer has taken over.
    fn stop_here(&self, r: &Recovery<'_>) -> Result<()> {
        let world = r.world;
        world.runtime.kill(&self.container)?;
        let name = world.peers.address_of(&self.server).map_or_else(|_| self.server.to_string(), |p| p.name);
        r.finished(|tx| {
            self.answer_key(tx, r.id)?;
            self.note_moved(tx, r.id, &name, true)
        })?;
        world.exits.note(&self.container)
    }

    fn note_moved(&self, tx: &mut Tx<'_>, op: &OperationId, peer: &str, ran: bool) -> Result<()> {
        let Move { container, server, copy, .. } = self;
        let r = tx.change_container(container, "move", Some(json!({ "moved_to": server, "container_id": copy })), |r| {
            if ran {
                r.status = Status::Stopped;
            }
            r.state.desired = Desired::Stopped;
            r.state.message = Some(format!("moved to server {peer} as container {copy}"));
        })?;
        let there = NodeSource { is_target: true, ..history::source(Some(server), Some(peer), copy, None) };
        tx.record(&Entry::new(NodeKind::Move, container).from(Parent::Present(container)).source(there))?;
        let note = json!({ "operation_id": op, "operation": "move", "target_server_id": server, "target_container_id": copy });
        tx.emit_container("container.operation.completed", &r, note)
    }

    /// Deletes what was made for a move that came to nothing. Best effort: a copy of the same name would be in the way of the next try.
    fn discard(&self, r: &Recovery<'_>) {
        let (world, id, copy) = (r.world, &self.container, &self.copy);
        let request = Request::Discard { copy: copy.clone(), handover: r.id.clone() };
        if let Err(e) = world.peers.address_of(&self.server).and_then(|peer| world.peers.ask_briefly(&peer, &request)) {
            tracing::info!(container = %id, copy = %copy, error = %e, "the copy that was made for the move stays there");
        }
        let drop_taken = || -> Result<()> {
            let held = r.held()?;
            taken_for(world, id, copy)?.iter().try_for_each(|name| delete_named(world, &held, id, name))
        };
        if let Err(e) = drop_taken() {
            tracing::info!(container = %id, error = %e, "a snapshot that was taken for the move stays");
        }
    }
}

/// What the peer has decided.
enum Decision {
    TakenOver(PeerAddress),
    Refused(PeerAddress, Error),
}

/// Waits until no operation is under way on the copy, and says what went wrong with it.
fn await_copy(op: &Op, peer: &PeerAddress, copy: &ContainerId) -> Result<()> {
    loop {
        let ask = || op.world.peers.ask(peer, &Request::State { copy: copy.clone() });
        let Answer::Copy(state) = persistently(op, ask)? else { return Err(wrong_answer(peer)) };
        if let Some(o) = &state.operation {
            op.progress.done.store(o.done.unwrap_or(0), Ordering::Relaxed);
            op.progress.total.store(o.total.unwrap_or(0), Ordering::Relaxed);
        }
        match state.operation.map(|o| (o.status, o.error)) {
            Some((OperationStatus::Running, _)) => sleep(op, LOOK)?,
            None | Some((OperationStatus::Succeeded, _)) => return Ok(()),
            Some((_, error)) => {
                let why = error.map_or_else(|| "it was cancelled there".to_owned(), |e| e.message);
                return Err(Error::new(Code::PeerFailed, format!("server {} could not make the copy: {why}", peer.name)));
            }
        }
    }
}

/// See [`crate::Host::move_container`].
pub(crate) fn relocate(world: &World, caller: &Caller, id: &ContainerId, request: &MoveRequest) -> Result<Moved> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let server: ServerId = request.target_server_id.as_deref().ok_or_else(|| Error::new(Code::ValidationError, "target_server_id is missing"))?.parse()?;
    if server == world.server.id {
        return Err(Error::new(Code::ValidationError, "target_server_id: the container is on this server already"));
    }
    let peer = world.peers.address_of(&server)?;
    let held = world.engine.lock(caller, Claim::long("container.move", vec![Want::container(id)]))?;
    super::room::check(world, caller, id)?;
    let row = copyable(world, id)?;
    if !matches!(row.status, Status::Running | Status::Stopped | Status::Failed) {
        return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: it can be moved while it runs or is stopped", row.status)));
    }
    let project = request.target_project_id.as_deref().map_or_else(|| Ok(row.project.clone()), str::parse)?;
    let name = request.name.as_deref().map_or_else(|| Ok(row.name.clone()), |n| copy_name(Some(n)))?;
    let copy = ContainerId::generate();
    // Whatever the peer refuses, it refuses before anything is changed here.
    let (key, limit) = (row.ssh_public_key.clone(), request.rate_limit);
    check_order(world, &peer, &server, order(world, &row, copy.clone(), project.clone(), name.clone(), key, false, limit)?)?;
    let intent = Move {
        container: id.clone(),
        server,
        copy,
        was_running: row.status == Status::Running,
        handing_over: false,
        given: false,
        identity: None,
        order: Some(Wanted { project, name, limit }),
    };
    let mut begun = Begun::journal(world, caller, held, Durability::Disk, intent.clone(), Some(&row.project), |_| Ok(()))?;
    let mut moved = intent.begun(&begun.op.id, row.status);
    begun.op.keep_key_open();
    let ended = begun.in_background(caller.wait)?;
    let value = serde_json::to_value(&moved).map_err(|e| Error::internal(e.to_string()))?;
    world.write(Durability::Process, |tx| tx.answer_key_of(&moved.operation_id, &value))?;
    match ended {
        Ended::Done(done) => {
            moved.status = world.container(id)?.status;
            moved.downtime_ms = done.downtime_ms;
            Ok(moved)
        }
        Ended::Running(_) => Ok(moved),
        Ended::Failed(e) => Err(e),
    }
}
