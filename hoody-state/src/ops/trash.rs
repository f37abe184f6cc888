//! Deleted containers in the trash: recovers one, or deletes it for good.
//!
//! A container in the trash is a row with all that its own rows said, and its home under a name in the pool's trash that follows from its id ([`place_of`]). So
//! either end is one rename or one deletion, which may be repeated.

use super::observed::drop_unlisted;
use super::{Begun, Claim, Op, Operation, Recovery, Want};
use crate::catalog::containers::{ContainerRow, ContainerState, Desired};
use crate::catalog::trash::{self, TrashRow};
use crate::catalog::{Durability, Tx, projects, time};
use crate::error::{Code, Result};
use crate::id::{ContainerId, OperationId, ProjectId};
use crate::model::{DatabaseScope, RecoverRequest, Recovered, Status};
use crate::name::ContainerName;
use crate::op::Caller;
use crate::snapshot::Deleted;
use crate::units::Age;
use crate::world::World;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a container is kept where its policy does not say it.
const KEPT: Age = Age::days(7);

/// Under which name a container's home is in the pool's trash while it can be recovered. No operation has such an id.
///
/// # Errors
/// None: an id with digits added is the id of an operation in form.
pub(crate) fn place_of(id: &ContainerId) -> Result<OperationId> {
    format!("{id}{:0>8}", 0).parse()
}

/// Until when a container that is deleted now is kept.
pub(super) fn until(now: Timestamp, max_age: Option<Age>) -> Timestamp {
    max_age.unwrap_or(KEPT).after(now)
}

/// The intent of a recovery: from when it is journalled it is finished, not undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recover {
    pub container: ContainerId,
    pub row: Box<TrashRow>,
    pub project: ProjectId,
    /// What the answer says of what it has lost.
    pub not_recovered: Vec<String>,
    pub by: String,
}

impl Operation for Recover {
    type World = World;
    type Answer = Recovered;
    const TAG: &'static str = "recover";

    fn kind(&self) -> &'static str {
        "trash.recover"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("trash.recover", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<Recovered> {
        let world = op.world.clone();
        op.step("home")?;
        self.bring_back(&world)?;
        let answer = op.finish(Durability::Disk, |tx| self.note(&world, tx))?;
        self.follow_up(&world);
        Ok(answer)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        self.bring_back(r.world)?;
        r.finished(|tx| self.note(r.world, tx))?;
        self.follow_up(r.world);
        Ok(())
    }
}

impl Recover {
    fn bring_back(&self, world: &World) -> Result<()> {
        world.store.recover_home(&self.container, &place_of(&self.container)?)?;
        world.limits.apply_to(&self.container)
    }

    fn note(&self, world: &World, tx: &mut Tx<'_>) -> Result<Recovered> {
        tx.recover_snapshots(&self.row, &self.project)?;
        let r = tx.change_container(&self.container, &self.by, Some(json!({ "recovered": true })), |r| {
            r.status = Status::Stopped;
            r.state.head.clone_from(&self.row.content.state.head);
        })?;
        tx.emit_container("container.recovered", &r, json!({}))?;
        Ok(Recovered {
            container: world.view.container(tx.conn, &r)?,
            snapshot_count: self.row.content.snapshots.len() as u64,
            not_recovered: self.not_recovered.clone(),
        })
    }

    /// What is left to do is done again by the next expiry or `check --repair`, if it fails.
    fn follow_up(&self, world: &World) {
        // A snapshot that was being deleted when the container was.
        match drop_unlisted(world, &self.container) {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => {
                let what = format!("snapshots of container {}", self.container);
                if let Err(e) = world.write(Durability::Process, |tx| tx.add_reclaim(&gone, &what)) {
                    tracing::warn!(container = %self.container, error = %e, "cannot note what is being reclaimed");
                }
                world.upkeep.reclaim();
            }
            Err(e) => tracing::warn!(container = %self.container, error = %e, "could not delete volumes that are in no list"),
        }
        world.upkeep.expiry();
        world.policies.ring();
    }
}

/// See [`crate::Host::recover_trashed`].
pub(crate) fn recover(world: &World, caller: &Caller, id: &ContainerId, request: RecoverRequest) -> Result<Recovered> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let name = request.name.as_deref().map(ContainerName::for_creation).transpose()?;
    world.read(|c| trash::get(c, id))?;
    let held = world.engine.lock(caller, Claim::short("trash.recover", vec![Want::container(id)]))?;
    let row = world.read(|c| trash::get(c, id))?;
    let project = request.project_id.unwrap_or_else(|| row.project.clone());
    let joining = world.engine.lock(caller, super::create::joining("trash.recover", &project))?;
    world.read(|c| {
        projects::get(c, world.catalog.user(), &project).map_err(|e| match row.project == project {
            true => e.context("its project was deleted: say with `project_id` into which project to recover it"),
            false => e,
        })
    })?;
    let key_taken = row.content.ssh_public_key.is_some() && world.read(|c| has_key(c, row.content.ssh_public_key.as_deref()))?;
    let not_recovered = losses(&row, &project, key_taken);
    let new = new_row(&row, &project, name.unwrap_or_else(|| row.name.clone()), key_taken, world.now());
    let intent = Recover { container: id.clone(), row: Box::new(row), project: project.clone(), not_recovered, by: caller.by.clone() };
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&project), |tx| {
        world.limits.check_count(tx.conn, &project)?;
        tx.take_from_trash(id)?;
        tx.insert_container(&new, &caller.by).map_err(|e| match e.code() {
            Code::ContainerNameInUse => e.context("recover it with another `name`"),
            _ => e,
        })
    })?;
    drop(joining);
    begun.run_here()
}

fn has_key(c: &rusqlite::Connection, key: Option<&str>) -> Result<bool> {
    Ok(c.query_row("SELECT EXISTS(SELECT 1 FROM containers WHERE ssh_public_key = ?1)", [key], |r| r.get(0))?)
}

/// Its row until its home is back: it is there, and nothing can be done with it.
fn new_row(row: &TrashRow, project: &ProjectId, name: ContainerName, key_taken: bool, now: Timestamp) -> ContainerRow {
    let c = &row.content;
    let state = ContainerState { desired: Desired::Stopped, run: None, started_ms: None, message: None, handover: None, ..c.state.clone() };
    ContainerRow {
        id: row.id.clone(),
        project: project.clone(),
        name,
        status: Status::Creating,
        status_since: now,
        ssh_public_key: c.ssh_public_key.clone().filter(|_| !key_taken),
        spec: c.spec.clone(),
        state,
        created: time(c.created_ms),
        updated: now,
    }
}

/// What a recovered container has not any more, a sentence each.
fn losses(row: &TrashRow, project: &ProjectId, key_taken: bool) -> Vec<String> {
    let c = &row.content;
    let mut lost = Vec::new();
    match c.shares {
        0 => {}
        1 => lost.push("One share ended when it was deleted: offer it again.".to_owned()),
        n => lost.push(format!("{n} shares ended when it was deleted: offer them again.")),
    }
    if key_taken {
        lost.push("Its SSH public key belongs to another container now: give it another one.".to_owned());
    }
    if c.spec.databases == DatabaseScope::Project {
        lost.push(if row.project == *project {
            "It uses the databases of its project as they are now; its snapshots have them as they were.".to_owned()
        } else {
            "It uses the databases of its new project; its snapshots have those of the old one as they were.".to_owned()
        });
    }
    lost
}

/// The intent of a deletion for good. The container has left the trash with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EmptyTrash {
    pub container: ContainerId,
    /// The project that it was in.
    pub project: ProjectId,
}

impl Operation for EmptyTrash {
    type World = World;
    type Answer = ();
    const TAG: &'static str = "empty_trash";

    fn kind(&self) -> &'static str {
        "trash.delete"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::long("trash.delete", vec![Want::container(&self.container)])
    }

    fn run(self, op: &mut Op) -> Result<()> {
        let world = op.world.clone();
        op.step("empty")?;
        let progress = std::sync::Arc::clone(&op.progress);
        let gone = world.store.empty_trash(&place_of(&self.container)?, &mut |done, total| {
            progress.done.store(done, Ordering::Relaxed);
            progress.total.store(total, Ordering::Relaxed);
        })?;
        op.finish(Durability::Process, |tx| self.note(tx, &gone))?;
        world.upkeep.reclaim();
        Ok(())
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let gone = r.world.store.empty_trash(&place_of(&self.container)?, &mut |_, _| {})?;
        r.finished(|tx| self.note(tx, &gone))?;
        r.world.upkeep.reclaim();
        Ok(())
    }

    fn continues(&self, _: &World) -> Result<bool> {
        Ok(true)
    }
}

impl EmptyTrash {
    fn note(&self, tx: &mut Tx<'_>, gone: &Deleted) -> Result<()> {
        tx.forget_trashed(&self.container, &self.project)?;
        tx.add_reclaim(&gone.volumes, &format!("container {}", self.container))
    }
}

/// See [`crate::Host::delete_trashed`].
pub(crate) fn delete(world: &World, caller: &Caller, id: &ContainerId) -> Result<()> {
    if world.engine.replay::<()>(caller)?.is_some() {
        return Ok(());
    }
    delete_if(world, caller, id, |_| true)
}

/// The same for one that has expired, if it is still there.
pub(crate) fn expire(world: &World, caller: &Caller, id: &ContainerId) -> Result<()> {
    let now = world.now().as_millisecond();
    delete_if(world, caller, id, |row| row.expires_ms <= now)
}

fn delete_if(world: &World, caller: &Caller, id: &ContainerId, wanted: impl Fn(&TrashRow) -> bool) -> Result<()> {
    world.read(|c| trash::get(c, id))?;
    let held = world.engine.lock(caller, Claim::long("trash.delete", vec![Want::container(id)]))?;
    let row = world.read(|c| trash::get(c, id))?;
    if !wanted(&row) {
        return Ok(());
    }
    let intent = EmptyTrash { container: id.clone(), project: row.project.clone() };
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |tx| {
        tx.take_from_trash(id)?;
        let payload = json!({ "container_id": id, "project_id": row.project, "name": row.name });
        tx.emit("container.trash.deleted", "container", id.as_str(), Some(&row.project), payload)?;
        tx.answer_key(caller.idempotency.as_ref(), &())
    })?;
    match begun.in_background(Duration::ZERO) {
        // Whatever keeps it from being deleted now is tried again.
        Err(e) if e.code() != Code::Crashed => Ok(()),
        ended => ended.map(drop),
    }
}

/// Deletes for good what was deleted first of this project, because the pool had no room for something in it; whether there was anything.
pub(crate) fn make_room(world: &World, caller: &Caller, project: &ProjectId) -> Result<bool> {
    let Some(id) = world.read(|c| trash::oldest(c, project))? else { return Ok(false) };
    tracing::warn!(%project, container = %id, "the pool is full: the container that has been in the trash of the project for the longest time is deleted for good");
    match delete(world, caller, &id) {
        Err(e) if e.is_not_found() => Ok(true),
        done => done.map(|()| true),
    }
}
