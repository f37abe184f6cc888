//! Copies a peer's container, on the server where the copy is made.
//!
//! Snapshot after snapshot, each as an increment on one that is here already. Then the live volume is a clone of the snapshot that the copy begins from. What
//! is here completely is not asked for again, so everything may be repeated: after a cut, after a crash, by a sync that goes on with an unfinished copy.

use super::copied::finish_copy;
use super::create::{joining, new_state};
use super::observed::{drop_unlisted, note_failed, undo_unmade};
use super::persistence::persistently;
use super::received::{Source, identities, receive_snapshot};
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::containers::{self, ContainerRow, Desired, Handover};
use crate::catalog::history::{self, Entry, Parent};
use crate::catalog::snapshots;
use crate::catalog::{Durability, Tx, operations, projects};
use crate::error::{Code, Error, Kind, Result};
use crate::id::{ContainerId, ProjectId, RunId};
use crate::model::validate;
use crate::model::{Container, CopyState, NodeKind, Project, Status};
use crate::name::{ProjectAlias, SnapshotName};
use crate::op::Caller;
use crate::services::peers::wrong_answer;
use crate::snapshot::Volume;
use crate::transfer::{Answer, CopyOrder, Offered, Request};
use crate::units::Bytes;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The intent. What the container is a copy of is in its row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receive {
    pub container: ContainerId,
    /// The snapshot that it begins from.
    pub snapshot: SnapshotName,
    pub run: RunId,
    pub start: bool,
    /// Bytes a second.
    pub limit: Option<Bytes>,
    /// A sync that goes on with an unfinished copy: cancelling it keeps what is there.
    #[serde(default)]
    pub resumes: bool,
}

impl Operation for Receive {
    type World = World;
    type Answer = Container;
    const TAG: &'static str = "receive";

    fn kind(&self) -> &'static str {
        "container.copy"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("container.copy", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<Container> {
        let world = op.world.clone();
        let id = &self.container;
        op.progress.cancellable.store(true, Ordering::Relaxed);
        // What an earlier start has left of this operation.
        world.store.delete(&Volume::Staging(op.id.clone()))?;
        op.step("inventory")?;
        let row = world.read(|c| containers::get(c, id))?;
        let source = Source::of(&world, &row)?;
        let ask = || match world.peers.ask(&source.peer, &Request::Inventory { container: source.container.clone(), copy: id.clone() })? {
            Answer::Inventory { snapshots } => Ok(snapshots),
            _ => Err(wrong_answer(&source.peer)),
        };
        let offered = persistently(op, ask)?;
        world.store.create_home(id)?;
        world.limits.apply_to(id)?;
        let snapshot = self.receive_all(op, &row, &source, &offered)?;
        // From here on it is a matter of moments.
        op.progress.cancellable.store(false, Ordering::Relaxed);
        let from = Volume::Snapshot(id.clone(), snapshot.clone());
        let live = Volume::Live(id.clone());
        op.step("clone")?;
        let info = match world.store.info(&live)? {
            Some(cloned_before_a_crash) => cloned_before_a_crash,
            None => world.store.clone_volume(&from, &live, &op.id)?,
        };
        op.step("note clone")?;
        world.write(Durability::Process, |tx| {
            tx.change_container(id, "copy", None, |r| {
                r.state.origin = info.created;
                r.state.partial = false;
            })?;
            tx.operation = Some(op.id.clone());
            let there = history::source(row.spec.origin.as_ref(), Some(&source.peer.name), &source.container, Some(&self.snapshot));
            tx.record_origin(&Entry::new(NodeKind::Copy, id).from(Parent::Snapshot(id, &snapshot)).source(there))
        })?;
        finish_copy(op, id, &snapshot, &self.run, self.start)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        let error = r.error.ok_or_else(|| Error::internal("a copy from a peer is run on"))?;
        world.store.delete(&Volume::Staging(r.id.clone()))?;
        if error.kind() == Kind::Cancelled && !self.resumes {
            return undo_unmade(r, id);
        }
        world.runtime.kill(id)?;
        let gone = drop_unlisted(world, id)?;
        let exists = world.store.info(&Volume::Live(id.clone()))?.is_some();
        let hint = if exists { "" } else { "; the snapshots that were received stay: sync goes on with the copy, delete removes it" };
        r.undone(|tx| {
            tx.add_reclaim(&gone, "what was received in part")?;
            note_failed(tx, id, &format!("{}{hint}", error.message()))
        })?;
        world.upkeep.reclaim();
        Ok(())
    }

    fn continues(&self, _: &World) -> Result<bool> {
        Ok(true)
    }
}

impl Receive {
    /// Receives every snapshot that is offered and not here yet; the name here of the one that the copy begins from.
    fn receive_all(&self, op: &Op, row: &ContainerRow, source: &Source, offered: &[Offered]) -> Result<SnapshotName> {
        let world = &op.world;
        let (id, snapshot) = (&self.container, &self.snapshot);
        let mut have = identities(world, id)?;
        let missing = |o: &Offered| !have.iter().any(|(_, u)| *u == o.identity);
        op.progress.total.store(offered.iter().filter(|o| missing(o)).map(|o| o.bytes.0).sum(), Ordering::Relaxed);
        op.progress.begin_transfer();
        let mut here = world.read(|c| snapshots::by_name(c, id, snapshot.as_str()))?.map(|s| s.snapshot.name);
        if here.is_none() && !offered.iter().any(|o| o.snapshot.name == *snapshot) {
            return Err(Error::new(Code::SnapshotNotFound, format!("snapshot {snapshot} is no longer at server {}: copy again", source.peer.name)));
        }
        for o in offered {
            let wanted = o.snapshot.name == *snapshot;
            match receive_snapshot(op, row, source, o, offered, &mut have, self.limit, None) {
                // Deleted at the source since it was listed.
                Err(e) if e.code() == Code::SnapshotNotFound && !wanted => {
                    tracing::info!(container = %id, snapshot = %o.snapshot.name, "was deleted at the source meanwhile");
                }
                r => {
                    let name = r?;
                    if wanted {
                        here = Some(name);
                    }
                }
            }
        }
        here.ok_or_else(|| Error::internal(format!("snapshot {snapshot} of copy {id} was not received")))
    }
}

/// Whether an order for a copy would be accepted now: nothing is changed by asking. The copy, if this very order was accepted before.
pub(crate) fn check(world: &World, order: &CopyOrder) -> Result<Answer> {
    if let Ok(state) = state(world, &order.copy) {
        return Ok(Answer::Copy(Box::new(state)));
    }
    let row = ordered_row(world, order)?;
    world.engine.would(|tx| insert_ordered(world, tx, order, &row))?;
    Ok(Answer::Possible {})
}

/// Accepts an order for a copy. The same order again is answered with the copy as it is.
pub(crate) fn accept(world: &World, order: CopyOrder) -> Result<CopyState> {
    if let Ok(state) = state(world, &order.copy) {
        return Ok(state);
    }
    let row = ordered_row(world, &order)?;
    let caller = Caller { by: "copy".into(), wait: Duration::ZERO, ..Caller::default() };
    let Some(run) = row.state.run.clone() else { return Err(Error::internal("a new container has no run")) };
    let intent = Receive { container: order.copy.clone(), snapshot: order.snapshot.clone(), run, start: order.start, limit: order.rate_limit, resumes: false };
    let held = world.engine.lock(&caller, intent.claim())?;
    let joining = world.engine.lock(&caller, joining("container.copy", &order.project))?;
    let begun = Begun::journal(world, &caller, held, Durability::Disk, intent, Some(&order.project), |tx| insert_ordered(world, tx, &order, &row))?;
    drop(joining);
    world.policies.ring();
    begun.in_background(Duration::ZERO)?;
    state(world, &order.copy)
}

fn insert_ordered(world: &World, tx: &mut Tx<'_>, order: &CopyOrder, row: &ContainerRow) -> Result<()> {
    ensure_project(world, tx, &order.project, order.project_alias.clone())?;
    world.limits.check_count(tx.conn, &order.project)?;
    tx.insert_container(row, "copy")
}

/// The row of a copy that was ordered, if nothing in the order is wrong.
fn ordered_row(world: &World, order: &CopyOrder) -> Result<ContainerRow> {
    world.peers.address_of(&order.server)?;
    world.settings.host_network.check(order.spec.network, true)?;
    validate::environment(&order.spec.env)?;
    validate::cpu(order.spec.cpu)?;
    validate::memory(order.spec.memory_mib)?;
    validate::text("comment", order.spec.comment.as_deref(), 16_000)?;
    validate::text("ssh_public_key", order.ssh_public_key.as_deref(), 16_384)?;
    if !order.spec.command.is_empty() {
        validate::command(&order.spec.command)?;
    }
    validate::color(&order.spec.color)?;
    world.limits.check_space()?;
    let now = world.now();
    let mut row = ContainerRow {
        id: order.copy.clone(),
        project: order.project.clone(),
        name: order.name.clone(),
        status: Status::Copying,
        status_since: now,
        ssh_public_key: order.ssh_public_key.clone(),
        spec: order.spec.clone().into(),
        state: new_state(world, if order.start { Desired::Running } else { Desired::Stopped }, true),
        created: now,
        updated: now,
    };
    row.state.head = Some(order.snapshot.clone());
    row.state.identity = order.identity.clone();
    row.state.handover = order.handover.clone().map(|id| Handover { id, taken: false, called_off: false });
    row.spec.source = Some(order.source.clone());
    row.spec.origin = Some(order.server.clone());
    Ok(row)
}

fn ensure_project(world: &World, tx: &mut Tx<'_>, id: &ProjectId, named: Option<(ProjectAlias, String)>) -> Result<()> {
    if projects::exists(tx.conn, id)? {
        return Ok(());
    }
    let missing = || Error::new(Code::ProjectNotFound, format!("there is no project {id} on server {}", world.server.name));
    let (alias, color) = named.ok_or_else(missing)?;
    let mut project = Project {
        id: id.clone(),
        user_id: world.catalog.user().clone(),
        alias,
        color,
        max_containers: None,
        disk: None,
        is_default: false,
        realm_ids: Vec::new(),
        created_at: tx.now,
        updated_at: tx.now,
    };
    if projects::alias_taken(tx.conn, &project.alias)? {
        // Another project has the name here: this one gets its own by its id.
        project.alias = format!("{}-{}", project.alias.as_str().chars().take(80).collect::<String>(), &id.as_str()[16..]).parse()?;
    }
    tx.insert_project(&project)?;
    tx.emit("project.created", "project", id.as_str(), Some(id), json!({ "project": project }))
}

/// A copy and the operation on it, for the server it comes from.
pub(crate) fn state(world: &World, id: &ContainerId) -> Result<CopyState> {
    world.read(|c| {
        let row = containers::get(c, id)?;
        if row.spec.origin.is_none() {
            return Err(Error::new(Code::ContainerNotFound, format!("there is no container {id} that was copied from another server")));
        }
        let operation = operations::latest_of(c, id.as_str())?;
        Ok(CopyState { container: world.view.container(c, &row)?, operation })
    })
}
