//! Makes a container from an image and boots it.

use super::observed::{recover_start, undo_unmade};
use super::{Begun, Claim, Ended, Key, Lane, Op, Operation, Recovery, Want};
use crate::catalog::containers::{ContainerRow, ContainerSpec, ContainerState, Desired};
use crate::catalog::history::{Entry, Parent};
use crate::catalog::{Durability, containers, images, ms, projects};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId, RunId};
use crate::model::validate;
use crate::model::{Container, Filesystem, Image, NewContainer, NodeKind, Status};
use crate::name::ContainerName;
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::units::Generation;
use crate::world::World;
use serde::{Deserialize, Serialize};

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Create {
    pub container: ContainerId,
    pub image: Image,
    pub run: RunId,
    /// Set once the volume exists and the caller may know the container's id: from then on it is finished, before that it is undone.
    pub cloned: bool,
    /// Who asked, for the status log.
    #[serde(default = "user")]
    pub by: String,
}

fn user() -> String {
    "user".into()
}

impl Operation for Create {
    type World = World;
    type Answer = Container;
    const TAG: &'static str = "create";
    const ACKNOWLEDGES: bool = true;

    fn kind(&self) -> &'static str {
        "container.create"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("container.create", vec![Want::container(&self.container)])
    }

    fn lane(&self) -> Lane {
        Lane::Short
    }

    fn run(self, op: &mut Op) -> Result<Container> {
        let world = op.world.clone();
        let id = &self.container;
        op.step("home")?;
        world.store.create_home(id)?;
        world.limits.apply_to(id)?;
        op.step("clone")?;
        let info = world.roots.create(id, &Volume::Image(self.image.name.clone()), &op.id)?;
        op.acknowledge_amended(Durability::Disk, &Create { cloned: true, ..self.clone() }, |tx| {
            let r = tx.change_container(id, &self.by, None, |r| r.state.origin = info.created)?;
            let image = self.image.name.as_str();
            tx.record_origin(&Entry::new(NodeKind::Create, id).from(Parent::Image(image)).image(image))?;
            world.view.container(tx.conn, &r)
        })?;
        let row = world.read(|c| containers::get(c, id))?;
        op.step("boot")?;
        let running = world.starter.start(&row, &self.run)?;
        let view = op.finish(Durability::Process, |tx| {
            let r = tx.change_container(id, &self.by, None, |r| {
                r.status = Status::Running;
                r.state.started_ms = Some(ms(running.started_at));
                r.state.message = None;
            })?;
            world.view.container(tx.conn, &r)
        })?;
        world.exits.note(id)?;
        Ok(view)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        if !self.cloned {
            return undo_unmade(r, &self.container);
        }
        recover_start(r, &self.container, &self.run, |tx, row| Ok(serde_json::to_value(r.world.view.container(tx.conn, row)?).unwrap_or_default()))
    }
}

/// The locks under which a row is added to a project: nobody decides at the same time what its databases are used by, or deletes it.
pub(super) fn joining(kind: &'static str, project: &ProjectId) -> Claim {
    Claim::short(kind, vec![Want::shared(Key::Databases(project.clone())), Want::shared(Key::Project(project.clone()))])
}

/// See [`crate::Host::create_container`].
pub(crate) fn create(world: &World, caller: &Caller, project: &ProjectId, new: NewContainer) -> Result<Container> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let (row, image) = new_container(world, project, new)?;
    super::room::check_in(world, caller, project)?;
    let Some(run) = row.state.run.clone() else { return Err(Error::internal("a new container has no run")) };
    let intent = Create { container: row.id.clone(), image: image.clone(), run, cloned: false, by: caller.by.clone() };
    let held = world.engine.lock(caller, intent.claim())?;
    let joining = world.engine.lock(caller, joining("container.create", project))?;
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(project), |tx| {
        world.limits.check_count(tx.conn, project)?;
        // Asked again inside the transaction: an image that is being deleted is no longer in the list.
        if images::by_name(tx.conn, &image.name)?.is_none_or(|i| i.id != image.id) {
            return Err(Error::new(Code::ImageNotFound, format!("image {} has just been deleted", image.name)));
        }
        tx.insert_container(&row, &caller.by)
    })?;
    drop(joining);
    world.policies.ring();
    created(world, &row.id, begun, caller)
}

/// What the caller of an operation that makes a container is answered with.
pub(super) fn created<O: Operation<World = World, Answer = Container>>(world: &World, id: &ContainerId, begun: Begun<O>, caller: &Caller) -> Result<Container> {
    match begun.in_background(caller.wait)? {
        Ended::Done(view) | Ended::Running(Some(view)) => Ok(view),
        Ended::Failed(e) if e.code() == Code::Crashed => Err(e),
        // The volume is there and the caller must learn its id: what failed is in the container's status.
        Ended::Failed(_) | Ended::Running(None) => world.container(id),
    }
}

fn new_container(world: &World, project: &ProjectId, new: NewContainer) -> Result<(ContainerRow, Image)> {
    let name = match new.name.as_deref() {
        None | Some("rand") => ContainerName::made_up(),
        Some(n) => ContainerName::for_creation(n)?,
    };
    let env = new.environment_vars.unwrap_or_default();
    validate::environment(&env)?;
    validate::text("comment", new.comment.as_deref(), 16_000)?;
    validate::text("ssh_public_key", new.ssh_public_key.as_deref(), 16_384)?;
    validate::cpu(new.cpu)?;
    validate::memory(new.memory)?;
    if let Some(argv) = &new.command {
        validate::command(argv)?;
    }
    if new.filesystem == Some(Filesystem::Ext4) {
        return Err(Error::new(Code::ValidationError, "filesystem: ext4 is not available yet; leave it out or say btrfs"));
    }
    if let Some(s) = &new.server_id
        && s != world.server.id.as_str()
    {
        s.parse::<crate::id::ServerId>()?;
        return Err(Error::new(Code::UnknownServer, format!("server {s} is not known here: this server is {}", world.server.id)));
    }
    world.settings.host_network.check(new.network.unwrap_or_default(), false)?;
    world.api_sockets.check(new.api_socket)?;
    let disk = match new.disk {
        Some(asked) => world.limits.check_disk(asked)?,
        None => world.settings.default_disk.filter(|_| world.store.uncounted().is_none()),
    };
    let image = world.read(|c| {
        projects::get(c, world.catalog.user(), project)?;
        world.limits.check_count(c, project)?;
        images::resolve(c, new.container_image.as_deref())
    })?;
    let now = world.now();
    let spec = ContainerSpec {
        color: new.color.as_deref().map_or_else(|| Ok(validate::random_color()), validate::color)?,
        image: image.name.to_string(),
        ai: new.ai.unwrap_or(false),
        autostart: new.autostart.unwrap_or(true),
        ramdisk: new.ramdisk.unwrap_or(true),
        ramdisk_scope: new.ramdisk_scope.unwrap_or_default(),
        env,
        comment: new.comment,
        source: None,
        origin: None,
        command: new.command.unwrap_or_default(),
        cpu: new.cpu,
        memory_mib: new.memory,
        disk,
        databases: new.databases.unwrap_or_default(),
        filesystem: Filesystem::Btrfs,
        network: new.network.unwrap_or_default(),
        api_socket: new.api_socket.unwrap_or(false),
    };
    let row = ContainerRow {
        id: ContainerId::generate(),
        project: project.clone(),
        name,
        status: Status::Creating,
        status_since: now,
        ssh_public_key: new.ssh_public_key,
        spec,
        state: new_state(world, Desired::Running, false),
        created: now,
        updated: now,
    };
    Ok((row, image))
}

/// What is known of a container before anything of it is there. `partial`: its snapshots have still to be brought over.
pub(super) fn new_state(world: &World, desired: Desired, partial: bool) -> ContainerState {
    ContainerState {
        desired,
        run: Some(RunId::generate()),
        started_ms: None,
        head: None,
        since_ms: ms(world.now()),
        origin: Generation(0),
        last_used: None,
        undo: None,
        message: None,
        partial,
        follows_databases: false,
        at: None,
        synced: None,
        synced_live: None,
        handover: None,
        identity: None,
    }
}
