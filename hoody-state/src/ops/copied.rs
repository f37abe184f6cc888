//! What all ways of making a copy share: its row, its snapshots, its databases, and how it ends.

use super::create::new_state;
use super::snapshot_row::copied_trigger;
use super::{Claim, Key, Op};
use crate::catalog::containers::{self, ContainerRow, Desired};
use crate::catalog::snapshots::{self, SnapshotRow};
use crate::catalog::{Durability, ms};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, ProjectId, RunId};
use crate::model::validate;
use crate::model::{Container, CopiedIdentity, CopyRequest, DatabaseScope, Status};
use crate::name::{ContainerName, SnapshotName};
use crate::runtime::Running;
use crate::services::databases::DatabasesPlan;
use crate::snapshot::Volume;
use crate::world::World;
use serde_json::json;
use std::time::Duration;

/// How long the end of a copy waits for a restore that changes the same databases.
const DATABASES_PATIENCE: Duration = Duration::from_secs(60);

/// Refuses to change a copy of which only a part exists.
pub(crate) fn require_complete(r: &ContainerRow) -> Result<()> {
    if r.state.partial && r.status != Status::Creating {
        let message = format!("container {} is a copy that was not finished: sync goes on with it, delete removes it", r.id);
        return Err(Error::new(Code::OperationStateConflict, message));
    }
    Ok(())
}

/// A container that can be copied.
pub(super) fn copyable(world: &World, id: &ContainerId) -> Result<ContainerRow> {
    let row = world.read(|c| containers::get(c, id)).map_err(|e| source_missing(e, id))?;
    if matches!(row.status, Status::Deleting | Status::Deleted) {
        return Err(super::delete::deleting(id));
    }
    require_complete(&row)?;
    Ok(row)
}

fn source_missing(e: Error, id: &ContainerId) -> Error {
    if e.code() == Code::ContainerNotFound {
        return Error::new(Code::SourceContainerNotFound, format!("there is no container {id} to copy"));
    }
    e
}

/// The name of a copy.
pub(super) fn copy_name(name: Option<&str>) -> Result<ContainerName> {
    match name {
        None | Some("rand") => Ok(ContainerName::made_up()),
        Some(n) => ContainerName::for_creation(n),
    }
}

/// Which project a copy belongs to, and its name, if nothing in the request is wrong.
pub(super) fn target(request: &CopyRequest) -> Result<(ProjectId, ContainerName)> {
    let Some(project) = request.target_project_id.as_deref() else {
        return Err(Error::new(Code::ValidationError, "target_project_id is missing: say which project the copy belongs to"));
    };
    let target = (project.parse()?, copy_name(request.name.as_deref())?);
    validate::text("ssh_public_key", request.ssh_public_key.as_deref(), 16_384)?;
    Ok(target)
}

/// The row of a copy that is about to be made on the source's own host.
pub(super) fn copy_row(
    world: &World,
    source: &ContainerRow,
    project: ProjectId,
    name: ContainerName,
    ssh_public_key: Option<String>,
    start: bool,
    own_identity: bool,
) -> ContainerRow {
    let now = world.now();
    let mut spec = source.spec.clone();
    spec.source = Some(source.id.clone());
    spec.origin = None;
    let mut state = new_state(world, if start { Desired::Running } else { Desired::Stopped }, true);
    state.identity = own_identity.then(CopiedIdentity::default);
    let id = ContainerId::generate();
    ContainerRow { id, project, name, status: Status::Copying, status_since: now, ssh_public_key, spec, state, created: now, updated: now }
}

/// Clones one snapshot with its databases into the copy, under `name` or its own; nothing if it was deleted meanwhile. `number`: which of the operation's
/// threads does it; each has a staging place of its own.
pub(super) fn copy_snapshot(
    op: &Op,
    number: usize,
    source: &ContainerId,
    id: &ContainerId,
    s: &SnapshotRow,
    name: Option<&SnapshotName>,
) -> Result<Option<SnapshotRow>> {
    let world = &op.world;
    let (theirs, ours) = (s.snapshot.name.clone(), name.unwrap_or(&s.snapshot.name).clone());
    let staging = if number == 0 { op.id.clone() } else { staging_of(&op.id, number)? };
    let pairs = [
        (Volume::SnapshotDatabases(source.clone(), theirs.clone()), Volume::SnapshotDatabases(id.clone(), ours.clone())),
        (Volume::Snapshot(source.clone(), theirs), Volume::Snapshot(id.clone(), ours.clone())),
    ];
    for (from, to) in &pairs {
        let own = matches!(from, Volume::Snapshot(..));
        match world.store.snapshot(from, to, &staging) {
            Ok(_) => {}
            Err(e) if e.code() == Code::VolumeExists => {}
            Err(e) if e.is_not_found() && !own => {}
            Err(e) if e.is_not_found() => {
                world.store.delete(&pairs[0].1)?;
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
    }
    let info = world.store.info(&pairs[1].1)?.ok_or_else(|| Error::internal(format!("snapshot {ours} does not exist")))?;
    let mut row = s.clone();
    row.generation = info.created;
    row.snapshot.name = ours;
    row.snapshot.last_used_at = None;
    // A pin keeps a container from being deleted. It was set on the source, not on the copy.
    row.snapshot.pinned = None;
    row.snapshot.trigger = copied_trigger(row.snapshot.trigger);
    Ok(Some(row))
}

/// Where one of an operation's threads puts half-made things: the operation's id with its last digits exchanged. What a crash leaves there is deleted at
/// the next start.
pub(super) fn staging_of(op: &OperationId, number: usize) -> Result<OperationId> {
    format!("{}{:06x}", &op.as_str()[..26], number % 0x100_0000).parse()
}

/// Whether `staging` is where the operation `op`, or one of its threads, puts half-made things.
pub(crate) fn is_staging_of(op: &OperationId, staging: &OperationId) -> bool {
    op.as_str()[..26] == staging.as_str()[..26]
}

/// Databases, boot, and the end of a copy whose live volume and snapshots exist.
pub(super) fn finish_copy(op: &mut Op, id: &ContainerId, snapshot: &SnapshotName, run: &RunId, start: bool) -> Result<Container> {
    let world = op.world.clone();
    op.step("databases")?;
    let row = world.read(|c| containers::get(c, id))?;
    let seeded = {
        let databases = Claim::short("container.copy", vec![Key::Databases(row.project.clone()).into()]);
        let _held = world.engine.locks.take(databases, DATABASES_PATIENCE)?;
        seed_databases(&world, &row, snapshot, &op.id)?
    };
    let running = if start {
        op.step("boot")?;
        Some(start_copy(&world, &row, run)?)
    } else {
        None
    };
    let live = world.store.info(&Volume::Live(id.clone()))?.map(|i| i.id);
    let view = op.finish(Durability::Process, |tx| {
        let head = snapshots::by_name(tx.conn, id, snapshot.as_str())?.map(|s| s.snapshot.name);
        let r = tx.change_container(id, "copy", None, |r| {
            r.status = if running.is_some() { Status::Running } else { Status::Stopped };
            r.state.started_ms = running.as_ref().map(|s| ms(s.started_at));
            r.state.head.clone_from(&head);
            r.state.partial = false;
            r.state.synced.clone_from(&head);
            r.state.synced_live = live;
            r.state.follows_databases = seeded == Seeded::Copied;
            r.state.message = match &seeded {
                Seeded::Left => Some(format!("project {} has databases of its own: they were left as they are, and the copy sees them", r.project)),
                _ => None,
            };
        })?;
        let note = json!({
            "operation_id": op.id,
            "operation": "copy",
            "source_container_id": r.spec.source,
            "databases": seeded.word(),
            "sent": op.progress.sent_bytes(),
        });
        tx.emit_container("container.operation.completed", &r, note)?;
        world.view.container(tx.conn, &r)
    })?;
    world.exits.note(id)?;
    Ok(view)
}

/// Boots a copy. A crash may have come after the boot and before it was written down: then what runs is adopted.
fn start_copy(world: &World, row: &ContainerRow, run: &RunId) -> Result<Running> {
    match world.runtime.adopt(&row.id)? {
        Some(found) if found.run == *run => return Ok(found),
        Some(_) => world.runtime.kill(&row.id)?,
        None => {}
    }
    world.starter.start(row, run)
}

/// What became of the project's databases.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seeded {
    /// There was nothing to do.
    Nothing,
    /// The project has those of the snapshot now.
    Copied,
    /// The project has its own, which were left as they are.
    Left,
}

impl Seeded {
    fn word(self) -> &'static str {
        match self {
            Seeded::Nothing => "none",
            Seeded::Copied => "copied",
            Seeded::Left => "left",
        }
    }
}

/// Gives the copy's project the databases that the snapshot took along, if it has none yet.
fn seed_databases(world: &World, r: &ContainerRow, snapshot: &SnapshotName, op: &OperationId) -> Result<Seeded> {
    let taken = Volume::SnapshotDatabases(r.id.clone(), snapshot.clone());
    if world.databases.backend().is_none() || r.spec.databases != DatabaseScope::Project {
        return Ok(Seeded::Nothing);
    }
    if world.store.info(&taken)?.is_none() {
        return Ok(Seeded::Nothing);
    }
    let source = r.spec.source.as_ref().map(|s| world.read(|c| containers::find(c, s))).transpose()?.flatten();
    if r.spec.origin.is_none() && source.is_some_and(|s| s.project == r.project) {
        // The same project on the same host: it sees the same ones.
        return Ok(Seeded::Nothing);
    }
    let present = Volume::Databases(r.project.clone());
    let follows = |yes: bool| world.write(Durability::Disk, |tx| tx.change_container(&r.id, "copy", None, |r| r.state.follows_databases = yes).map(drop));
    let seeded = match world.store.info(&present)? {
        // Cut short after they were brought along.
        Some(_) if !is_empty(world, &present) => r.state.follows_databases,
        None => {
            follows(true)?;
            match world.store.clone_volume(&taken, &present, op) {
                Ok(_) => true,
                // Another container of the project was first.
                Err(e) if e.code() == Code::VolumeExists => false,
                Err(e) => return Err(e),
            }
        }
        Some(info) => {
            follows(true)?;
            exchange_empty(world, r, snapshot, info.id, op)?
        }
    };
    if !seeded {
        follows(false)?;
    }
    Ok(if seeded { Seeded::Copied } else { Seeded::Left })
}

/// Puts the snapshot's databases in the place of the project's, which were empty; whether they stayed empty until then.
fn exchange_empty(world: &World, r: &ContainerRow, snapshot: &SnapshotName, was: crate::units::VolumeId, op: &OperationId) -> Result<bool> {
    let (present, next) = (Volume::Databases(r.project.clone()), Volume::NextDatabases(r.id.clone()));
    let mut gone = world.store.delete(&next)?;
    let exchange = |was| world.databases.restore(&r.id, snapshot, &DatabasesPlan::Exchange { project: r.project.clone(), was }, op);
    world.store.clone_volume(&Volume::SnapshotDatabases(r.id.clone(), snapshot.clone()), &next, op)?;
    exchange(was)?;
    // A process may have made the first database just before the exchange: then the project keeps its own.
    let made_meanwhile = !is_empty(world, &next);
    if let (true, Some(ours)) = (made_meanwhile, world.store.info(&present)?.map(|i| i.id)) {
        exchange(ours)?;
    }
    gone.volumes.extend(world.store.delete(&next)?.volumes);
    world.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "the empty databases of a project"))?;
    Ok(!made_meanwhile)
}

fn is_empty(world: &World, v: &Volume) -> bool {
    world.store.path(v).is_some_and(|p| std::fs::read_dir(p).is_ok_and(|mut d| d.next().is_none()))
}
