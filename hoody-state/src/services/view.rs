//! Containers as the wire shows them.

use crate::catalog::containers::ContainerRow;
use crate::catalog::{operations, projects, snapshots};
use crate::error::Result;
use crate::id::UserId;
use crate::model::{Container, Server, Status};
use crate::name::ProjectAlias;
use rusqlite::Connection;

/// Shows rows of the catalog of this server.
pub(crate) struct View {
    pub(crate) server: Server,
    pub(crate) user: UserId,
}

impl View {
    /// A container's row as the wire shows it. Error: that of the catalog.
    pub(crate) fn container(&self, c: &Connection, r: &ContainerRow) -> Result<Container> {
        // A container that is being deleted may have lost its project already.
        let alias = match projects::get(c, &self.user, &r.project) {
            Ok(p) => p.alias,
            Err(e) if e.is_not_found() => "deleted".parse::<ProjectAlias>()?,
            Err(e) => return Err(e),
        };
        let open = operations::open_of(c, r.id.as_str())?;
        // While it is brought up to its source it may go on running, and be replaced at any moment.
        let syncs = open.as_ref().is_some_and(|(_, kind)| kind == "container.sync") && r.status != Status::Deleting;
        Ok(Container {
            id: r.id.clone(),
            project_id: r.project.clone(),
            project_alias: alias,
            server_id: self.server.id.clone(),
            server_name: self.server.name.clone(),
            name: r.name.clone(),
            color: r.spec.color.clone(),
            container_image: r.spec.image.clone(),
            status: if syncs { Status::Copying } else { r.status },
            status_message: r.state.message.clone(),
            ai: r.spec.ai,
            hoody_kit: false,
            dev_kit: false,
            kvm: false,
            autostart: r.spec.autostart,
            ramdisk: r.spec.ramdisk,
            ramdisk_scope: r.spec.ramdisk_scope,
            environment_vars: r.spec.env.clone(),
            comment: r.spec.comment.clone(),
            ssh_public_key: r.ssh_public_key.clone(),
            source_container_id: r.spec.source.clone(),
            snapshot_count: snapshots::count(c, &r.id)?,
            last_used_snapshot: r.state.last_used.clone(),
            realm_ids: Vec::new(),
            command: r.spec.command.clone(),
            cpu: r.spec.cpu,
            memory: r.spec.memory_mib,
            disk: r.spec.disk,
            databases: r.spec.databases,
            filesystem: r.spec.filesystem,
            network: r.spec.network,
            api_socket: r.spec.api_socket,
            identity: r.state.identity.as_ref().map(Into::into),
            operation_id: open.map(|(id, _)| id),
            created_at: r.created,
            updated_at: r.updated,
        })
    }
}
