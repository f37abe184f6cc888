//! Brings a copy up to its source: one way, by increments on what both have.
//!
//! The source takes a snapshot, unless nothing has changed since the last one that the copy has. That is brought here, and put in the place of the copy's
//! live volume as a restore does it. What the copy changed of its own is kept as a snapshot first.

use super::copied::require_complete;
use super::exchange::{Exchange, Kept};
use super::observed::{drop_unlisted, thaw_unless_paused};
use super::receive::Receive;
use super::restore::{Cause, Restore};
use super::snapshot_row::free_name;
use super::synced::{Advance, Brought, bring_local, bring_over, drop_older, has_own_changes};
use super::{Begun, Claim, Ended, Held, Key, Op, Operation, Recovery, Want};
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow, Desired};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, RunId};
use crate::model::{Status, SyncAnswer, SyncRequest};
use crate::name::SnapshotName;
use crate::op::Caller;
use crate::services::databases::DatabasesPlan;
use crate::snapshot::Volume;
use crate::units::Bytes;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a sync waits for another change of the databases that it is to exchange.
const DATABASES_PATIENCE: Duration = Duration::from_secs(60);

/// The intent. Once the source's state has been brought here, the intent becomes a restore's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sync {
    pub container: ContainerId,
    pub force: bool,
    /// Bytes a second.
    pub limit: Option<Bytes>,
    /// The snapshot to bring it up to, in a move; nothing: the source as it is.
    pub advance: Option<SnapshotName>,
}

/// What a sync came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Synced {
    pub changed: bool,
    /// Where the copy's own changes are kept.
    pub kept: Option<SnapshotName>,
}

impl Operation for Sync {
    type World = World;
    type Answer = Synced;
    const TAG: &'static str = "sync";

    fn kind(&self) -> &'static str {
        "container.sync"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("container.sync", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<Synced> {
        let world = op.world.clone();
        let id = &self.container;
        op.progress.cancellable.store(true, Ordering::Relaxed);
        let row = world.read(|c| containers::get(c, id))?;
        op.step("compare")?;
        let mut own = has_own_changes(op, &row)?;
        self.allow(own)?;
        op.step("fresh")?;
        let advance = Advance { to: self.advance.clone(), limit: self.limit };
        let brought = if row.spec.origin.is_some() { bring_over(op, &row, advance)? } else { bring_local(op, &row)? };
        op.progress.cancellable.store(false, Ordering::Relaxed);
        let begun = begun_value(&op.id, id, row.spec.source.clone().unwrap_or_else(|| id.clone()))?;
        if !brought.changed && !own {
            op.finish(Durability::Process, |tx| {
                tx.answer_key_of(&op.id, &begun)?;
                tx.emit_container("container.operation.completed", &row, json!({ "operation_id": op.id, "operation": "sync", "changed": false }))
            })?;
            return Ok(Synced { changed: false, kept: None });
        }
        // It may have gone on writing while the transfer was under way: it is compared once more, and stands still until it is replaced.
        let mut _still = None;
        if row.status == Status::Running && !own {
            op.step("stand still")?;
            match world.freezing.stand_still(id) {
                Ok(guard) => {
                    _still = Some(guard);
                    own = has_own_changes(op, &row)?;
                }
                // Then it is taken for changed: what is kept for nothing expires by itself.
                Err(e) => {
                    tracing::warn!(container = %id, error = %e, "could not be made to stand still: what it was is kept");
                    own = true;
                }
            }
            self.allow(own)?;
        }
        self.put_in_place(op, &row, brought, own, begun)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        thaw_unless_paused(world, id)?;
        let mut gone = world.store.delete(&Volume::Next(id.clone()))?;
        gone.volumes.extend(world.store.delete(&Volume::NextDatabases(id.clone()))?.volumes);
        gone.volumes.extend(world.store.delete(&Volume::Staging(r.id.clone()))?.volumes);
        gone.volumes.extend(drop_unlisted(world, id)?);
        r.undone(|tx| {
            tx.add_reclaim(&gone.volumes, "what a sync compared and received in part")?;
            let row = containers::get(tx.conn, id)?;
            let why = r.error.map_or("the server ended in the middle of it", Error::message);
            tx.emit_container("container.operation.failed", &row, json!({ "operation_id": r.id, "operation": "sync", "error": why }))
        })?;
        world.upkeep.reclaim();
        Ok(())
    }
}

impl Sync {
    fn allow(&self, own: bool) -> Result<()> {
        if !own || self.force {
            return Ok(());
        }
        let id = &self.container;
        let message = format!("container {id} was changed since it was last brought up to its source: say force: true to keep that as a snapshot and go on");
        Err(Error::new(Code::CopyHasChanges, message))
    }

    /// Restores what was brought, and deletes what earlier syncs have left.
    fn put_in_place(&self, op: &mut Op, row: &ContainerRow, brought: Brought, own: bool, begun: Value) -> Result<Synced> {
        let world = op.world.clone();
        let id = &self.container;
        let Brought { name: to, changed, at } = brought;
        if row.state.follows_databases {
            // No container that would use them can be added before they are exchanged.
            op.lock_also(Claim::short("container.sync", vec![Key::Databases(row.project.clone()).into()]), DATABASES_PATIENCE)?;
        }
        let restore = self.restore(&world, to.clone(), own, begun)?;
        let kept = own.then(|| restore.exchange.keep.snapshot.name.clone());
        op.amend(Durability::Disk, &restore, |tx| {
            let change = |r: &mut ContainerRow| {
                r.state.synced = Some(to.clone());
                r.state.at = at;
                // It stands by for its source, unless it is what the source becomes.
                if r.state.handover.is_none() {
                    r.state.identity = None;
                }
            };
            tx.change_container(id, "sync", None, change).map(drop)
        })?;
        let (_, failed) = restore.steps(op)?;
        // The restore has ended the operation; the lock is still held.
        let live = world.store.info(&Volume::Live(id.clone()))?.map(|i| i.id);
        drop_older(&world, &op.held()?, id, id, &to, None)?;
        world.write(Durability::Process, |tx| {
            let r = tx.change_container(id, "sync", None, |r| r.state.synced_live = live)?;
            let note = json!({ "operation_id": op.id, "operation": "sync", "changed": changed, "kept": kept, "sent": op.progress.sent_bytes() });
            tx.emit_container("container.operation.completed", &r, note)
        })?;
        failed.map_or(Ok(Synced { changed, kept }), Err)
    }

    /// What puts the snapshot `to` in the place of the copy's live volume.
    fn restore(&self, world: &World, to: SnapshotName, own: bool, begun: Value) -> Result<Restore> {
        let id = &self.container;
        let now = world.now();
        let row = world.read(|c| containers::get(c, id))?;
        let kept = Kept {
            name: world.read(|c| free_name(c, id, now.strftime("before-sync-%Y%m%d-%H%M%S").to_string().parse()?))?,
            alias: None,
            expires_at: now.checked_add(world.settings.undo_expiry).ok(),
            why: format!("what this copy was before it was brought up to {to}"),
        };
        let databases = own_databases(world, &row, &to)?;
        let start = self.advance.is_some().then_some(false);
        let exchange = Exchange { discard: !own, ..Exchange::plan(world, &row, kept, start, databases, "sync")? };
        Ok(Restore { snapshot: to, exchange, cause: Cause::Sync, key_answer: Some(begun) })
    }
}

/// What becomes of the databases of a copy that goes to its snapshot `to`: those that came with it and that nobody else uses go there too, others stay. Plan it
/// under a lock of the project's databases if the copy follows them.
pub(super) fn own_databases(world: &World, row: &ContainerRow, to: &SnapshotName) -> Result<DatabasesPlan> {
    if !row.state.follows_databases {
        return Ok(DatabasesPlan::Keep);
    }
    match world.databases.plan(row, to, None) {
        // Others of the project use them by now: they are not the copy's alone to exchange.
        Err(e) if e.code() == Code::DatabasesShared => Ok(DatabasesPlan::Keep),
        plan => plan,
    }
}

/// The answer that a sync has begun.
fn begun_answer(op: &OperationId, id: &ContainerId, source: ContainerId) -> SyncAnswer {
    SyncAnswer { container_id: id.clone(), source_container_id: source, status: Status::Copying, operation_id: op.clone(), changed: None, kept: None }
}

fn begun_value(op: &OperationId, id: &ContainerId, source: ContainerId) -> Result<Value> {
    serde_json::to_value(begun_answer(op, id, source)).map_err(|e| Error::internal(e.to_string()))
}

/// See [`crate::Host::sync_container`].
pub(crate) fn sync(world: &World, caller: &Caller, id: &ContainerId, request: &SyncRequest) -> Result<SyncAnswer> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let intent = Sync { container: id.clone(), force: request.force.unwrap_or(true), limit: request.rate_limit, advance: None };
    let held = world.engine.lock(caller, intent.claim())?;
    super::room::check(world, caller, id)?;
    let row = world.read(|c| containers::get(c, id))?;
    let Some(source) = row.spec.source.clone() else {
        return Err(Error::new(Code::NotACopy, format!("container {id} is not a copy: there is nothing to sync it with")));
    };
    if matches!(row.status, Status::Deleting | Status::Deleted) {
        return Err(super::delete::deleting(id));
    }
    match &row.spec.origin {
        Some(server) => drop(world.peers.address_of(server)?),
        None => {
            let gone = || Error::new(Code::SourceContainerNotFound, format!("container {source}, of which {id} is a copy, is no longer here"));
            let source = world.read(|c| containers::find(c, &source))?.filter(|s| s.status != Status::Deleting).ok_or_else(gone)?;
            require_complete(&source)?;
        }
    }
    if row.state.partial {
        return resume_copy(world, caller, held, &row, source, request.rate_limit);
    }
    begin(world, caller, held, &row, source, intent)
}

/// Brings a copy up to its source under locks that are held.
pub(super) fn begin(world: &World, caller: &Caller, held: Held, row: &ContainerRow, source: ContainerId, intent: Sync) -> Result<SyncAnswer> {
    let id = &row.id;
    let mut begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |tx| {
        tx.emit_container("container.copying", row, json!({ "triggered_by": caller.by }))
    })?;
    let answer = begun_answer(&begun.op.id, id, source);
    begun.op.keep_key_open();
    let ended = begun.in_background(caller.wait)?;
    answered(world, id, answer, ended, |s| (s.changed, s.kept))
}

/// A sync of a copy that was not finished goes on with the copy.
fn resume_copy(world: &World, caller: &Caller, held: Held, row: &ContainerRow, source: ContainerId, limit: Option<Bytes>) -> Result<SyncAnswer> {
    let id = &row.id;
    if row.spec.origin.is_none() {
        return Err(Error::new(Code::OperationStateConflict, format!("container {id} is a copy that was not finished: delete it and copy again")));
    }
    let snapshot = row.state.head.clone().ok_or_else(|| Error::internal(format!("which snapshot copy {id} was to begin from is not known")))?;
    let run = row.state.run.clone().unwrap_or_else(RunId::generate);
    let start = row.state.desired == Desired::Running;
    let intent = Receive { container: id.clone(), snapshot, run, start, limit, resumes: true };
    let mut begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |tx| {
        tx.change_container(id, &caller.by, None, |r| {
            r.status = Status::Copying;
            r.state.message = None;
        })
        .map(drop)
    })?;
    let answer = begun_answer(&begun.op.id, id, source.clone());
    begun.op.keep_key_open();
    // What it ends with is a copy's answer, not a sync's.
    let value = begun_value(&begun.op.id, id, source)?;
    world.write(Durability::Process, |tx| tx.answer_key_of(&begun.op.id, &value))?;
    let ended = begun.in_background(caller.wait)?;
    answered(world, id, answer, ended, |_| (true, None))
}

/// The answer to a sync, whose key is answered by that it has begun: how it ends is the operation's.
fn answered<A>(
    world: &World,
    id: &ContainerId,
    mut answer: SyncAnswer,
    ended: Ended<A>,
    result: impl FnOnce(A) -> (bool, Option<SnapshotName>),
) -> Result<SyncAnswer> {
    let value = serde_json::to_value(&answer).map_err(|e| Error::internal(e.to_string()))?;
    world.write(Durability::Process, |tx| tx.answer_key_of(&answer.operation_id, &value))?;
    match ended {
        Ended::Done(a) => {
            let (changed, kept) = result(a);
            answer.status = world.container(id)?.status;
            answer.changed = Some(changed);
            answer.kept = kept;
            Ok(answer)
        }
        Ended::Running(_) => Ok(answer),
        Ended::Failed(e) => Err(e),
    }
}

/// See [`crate::Host::source_of_copy`].
pub(crate) fn source_of_copy(world: &World, id: &ContainerId) -> Result<Option<(ContainerId, bool)>> {
    let row = world.read(|c| containers::get(c, id))?;
    Ok(row.spec.source.map(|s| (s, row.spec.origin.is_none())))
}
