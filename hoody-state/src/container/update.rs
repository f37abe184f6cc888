//! Changes of a container's settings, and how many containers there may be.

use super::validate;
use crate::catalog::{containers, projects};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, ProjectId};
use crate::model::{Container, ContainerUpdate, Status};
use crate::name::ContainerName;

impl Host {
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
        let disk = update.disk.map(|d| self.0.limits.check_disk(d)).transpose()?;
        let changed = self.change(caller, |tx| {
            let before = containers::get(tx.conn, id)?;
            if before.status == Status::Deleting {
                return Err(crate::ops::delete::deleting(id));
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
            self.0.limits.apply_to(id)?;
        }
        Ok(changed)
    }

    pub(crate) fn check_limits(&self, c: &rusqlite::Connection, project: &ProjectId) -> Result<()> {
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
}
