use super::validate;
use crate::catalog::containers::{ContainerRow, ContainerSpec, ContainerState, Desired};
use crate::catalog::{Durability, containers, images, ms, projects};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, ProjectId, RunId};
use crate::model::{Container, ContainerUpdate, Filesystem, Image, NewContainer, Status};
use crate::name::ContainerName;
use crate::op::{Intent, Op};
use crate::snapshot::Volume;
use crate::units::Generation;

impl Host {
    /// Makes a container from an image and boots it. Returns when its volume exists and is durable; the boot continues in the background and is waited for up to
    /// `caller.wait`. Cost: one transaction of the pool.
    ///
    /// # Errors
    /// `project_not_found`, `image_not_found`, `invalid_container_name`, `container_name_in_use`, `ssh_public_key_in_use`, `validation_error`,
    /// `project_container_limit`, `server_container_limit`, `pool_full`, `unknown_server`. Nothing is left then. A boot that fails is no error here: the
    /// container's status is `failed` and says why.
    pub fn create_container(&self, caller: &Caller, project: &ProjectId, new: NewContainer) -> Result<Container> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let (row, image) = self.new_container(project, new)?;
        self.guard_space()?;
        let id = row.id.clone();
        let lock = self.0.locks.take(id.as_str(), "container.create")?;
        let Some(run) = row.state.run.clone() else { return Err(Error::internal("a new container has no run")) };
        let intent = Intent::Create { container: id.clone(), image: image.clone(), run: run.clone(), cloned: false };
        let op = self.begin(caller, lock, Durability::Disk, intent, Some(project), |tx| {
            self.check_limits(tx.conn, project)?;
            // Asked again inside the transaction: an image that is being deleted is no longer in the list.
            if images::by_name(tx.conn, &image.name)?.is_none_or(|i| i.id != image.id) {
                return Err(Error::new(Code::ImageNotFound, format!("image {} has just been deleted", image.name)));
            }
            tx.insert_container(&row, &caller.by)
        })?;
        let wait = caller.wait;
        // The clone runs here, the boot on a thread of its own: the caller is told when the volume is there.
        let mut op = op;
        let cloned = self.clone_steps(&mut op, &id, &image, &run);
        let told = match cloned {
            Ok(view) => view,
            Err(e) => return self.perform(op, |_| Err(e)),
        };
        let by = caller.by.clone();
        match self.behind(op, wait, move |host, op| host.boot_steps(op, &by)) {
            Ok(Some(view)) => Ok(view),
            Ok(None) => Ok(told),
            // The volume is there and the caller must learn its id: what failed is in the container's status.
            Err(e) if e.code() == Code::Crashed => Err(e),
            Err(_) => self.container(&id),
        }
    }

    fn clone_steps(&self, op: &mut Op, id: &ContainerId, image: &Image, run: &RunId) -> Result<Container> {
        op.step("home")?;
        self.0.store.create_home(id)?;
        self.apply_disk_limit_of(id)?;
        op.step("clone")?;
        let info = self.0.store.clone_volume(&Volume::Image(image.name.clone()), &Volume::Live(id.clone()), &op.id)?;
        let intent = Intent::Create { container: id.clone(), image: image.clone(), run: run.clone(), cloned: true };
        op.amend(Durability::Disk, intent, |tx| {
            let r = tx.change_container(id, "user", None, |r| r.state.origin = info.created)?;
            self.container_view(tx.conn, &r)
        })
    }

    /// Boots a new container and ends its operation.
    pub(crate) fn boot_steps(&self, op: &mut Op, by: &str) -> Result<Container> {
        let Intent::Create { container, run, .. } = op.intent.clone() else { return Err(Error::internal("not a create")) };
        let row = self.0.catalog.read(|c| containers::get(c, &container))?;
        op.step("boot")?;
        let running = self.boot(&row, &run)?;
        let view = op.finish(Durability::Process, |tx| {
            let r = tx.change_container(&container, by, None, |r| {
                r.status = Status::Running;
                r.state.started_ms = Some(ms(running.started_at));
                r.state.message = None;
            })?;
            self.container_view(tx.conn, &r)
        })?;
        self.note_exit(&container)?;
        Ok(view)
    }

    pub(super) fn check_limits(&self, c: &rusqlite::Connection, project: &ProjectId) -> Result<()> {
        let p = projects::get(c, self.0.catalog.user(), project)?;
        let n = containers::count(c, Some(project))?;
        if let Some(max) = p.max_containers.filter(|max| n >= u64::from(*max)) {
            return Err(Error::new(
                Code::ProjectContainerLimit,
                format!("project {project} has {n} containers and may have {max}: delete one or raise max_containers"),
            )
            .with_data(serde_json::json!({ "field": "max_containers", "current_count": n, "limit": max })));
        }
        if let Some(max) = self.0.settings.max_containers {
            let n = containers::count(c, None)?;
            if n >= max {
                return Err(Error::new(Code::ServerContainerLimit, format!("this server has {n} containers and may have {max}"))
                    .with_data(serde_json::json!({ "field": "server_id", "current_count": n, "limit": max })));
            }
        }
        Ok(())
    }

    fn new_container(&self, project: &ProjectId, new: NewContainer) -> Result<(ContainerRow, Image)> {
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
            && s != self.0.server.id.as_str()
        {
            s.parse::<crate::id::ServerId>()?;
            return Err(Error::new(Code::UnknownServer, format!("server {s} is not known here: this server is {}", self.0.server.id)));
        }
        self.0.settings.host_network.check(new.network.unwrap_or_default(), false)?;
        let disk = match new.disk {
            Some(asked) => self.disk_limit(asked)?,
            None => self.0.settings.default_disk.filter(|_| self.0.store.uncounted().is_none()),
        };
        let (image, now) = self.0.catalog.read(|c| {
            projects::get(c, self.0.catalog.user(), project)?;
            self.check_limits(c, project)?;
            Ok((images::resolve(c, new.container_image.as_deref())?, self.0.clock.now()))
        })?;
        let spec = ContainerSpec {
            color: new.color.as_deref().map_or_else(|| Ok(crate::host::made_up_color()), crate::host::color)?,
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
        };
        let state = ContainerState {
            desired: Desired::Running,
            run: Some(RunId::generate()),
            started_ms: None,
            head: None,
            since_ms: ms(now),
            origin: Generation(0),
            last_used: None,
            undo: None,
            message: None,
            partial: false,
            follows_databases: false,
            at: None,
            synced: None,
            synced_live: None,
            handover: None,
        };
        let row = ContainerRow {
            id: ContainerId::generate(),
            project: project.clone(),
            name,
            status: Status::Creating,
            status_since: now,
            ssh_public_key: new.ssh_public_key,
            spec,
            state,
            created: now,
            updated: now,
        };
        Ok((row, image))
    }

    /// Changes what a container is called and how it starts; what is absent stays.
    ///
    /// # Errors
    /// `container_not_found`, `validation_error`, `invalid_container_name`, `container_name_in_use`, `ssh_public_key_in_use`, `container_deleting`.
    pub fn update_container(&self, caller: &Caller, id: &ContainerId, update: ContainerUpdate) -> Result<Container> {
        let name = update.name.as_deref().map(str::parse::<ContainerName>).transpose()?;
        let color = update.color.as_deref().map(crate::host::color).transpose()?;
        if let Some(env) = &update.environment_vars {
            validate::environment(env)?;
        }
        validate::text("comment", update.comment.as_ref().and_then(|c| c.as_deref()), 16_000)?;
        validate::text("ssh_public_key", update.ssh_public_key.as_ref().and_then(|c| c.as_deref()), 16_384)?;
        let disk = update.disk.map(|d| self.disk_limit(d)).transpose()?;
        let changed = self.change(caller, |tx| {
            let before = containers::get(tx.conn, id)?;
            if before.status == Status::Deleting {
                return Err(super::delete::deleting(id));
            }
            let r = tx.change_container(id, &caller.by, None, |r| {
                r.name = name.unwrap_or_else(|| r.name.clone());
                r.spec.color = color.unwrap_or_else(|| r.spec.color.clone());
                r.spec.ai = update.ai.unwrap_or(r.spec.ai);
                r.spec.autostart = update.autostart.unwrap_or(r.spec.autostart);
                r.spec.ramdisk = update.ramdisk.unwrap_or(r.spec.ramdisk);
                r.spec.ramdisk_scope = update.ramdisk_scope.unwrap_or(r.spec.ramdisk_scope);
                if let Some(env) = update.environment_vars {
                    r.spec.env = env;
                }
                if let Some(limit) = disk {
                    r.spec.disk = limit;
                }
                if let Some(key) = update.ssh_public_key {
                    r.ssh_public_key = key;
                }
                if let Some(comment) = update.comment {
                    r.spec.comment = comment;
                }
            })?;
            if r.name != before.name {
                tx.emit_container("container.renamed", &r, serde_json::json!({ "from": before.name }))?;
            }
            if r.spec.autostart != before.spec.autostart {
                let what = if r.spec.autostart { "container.autostart_enabled" } else { "container.autostart_disabled" };
                tx.emit_container(what, &r, serde_json::json!({}))?;
            }
            tx.emit_container("container.resource_updated", &r, serde_json::json!({}))?;
            self.container_view(tx.conn, &r)
        })?;
        if disk.is_some() {
            self.apply_disk_limit_of(id)?;
        }
        Ok(changed)
    }
}
