//! Containers: queries, settings, and what is done in them.

use super::{Caller, Executed, Host};
use crate::catalog::{containers, projects, time};
use crate::error::Result;
use crate::id::{ContainerId, ProjectId};
use crate::model::validate;
use crate::model::{
    Container, ContainerDetail, ContainerStats, ContainerUpdate, DiffLine, DiffRequest, EnvironmentChange, ExecDiff, ExecRecord, LIVE, Lineage, PageRequest,
    Paged, Status, StatusLog, UsageReport,
};
use crate::name::{ContainerName, SnapshotName};
use crate::ops;
use crate::runtime::{ExecOutput, ExecSpec};
use crate::units::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many names the answer to a command shows of what changed.
const RECORDS: u64 = 1000;

impl Host {
    /// A page of containers, of one project or of all, within `only`.
    ///
    /// # Errors
    /// `invalid_page`, `project_not_found`.
    pub fn containers(&self, page: &PageRequest, project: Option<&ProjectId>, only: Option<&[ProjectId]>) -> Result<Paged<Container>> {
        self.0.catalog.read(|c| {
            if let Some(p) = project {
                projects::get(c, self.0.catalog.user(), p)?;
            }
            let (rows, total) = containers::page(c, page, project, only)?;
            Ok(Paged::new(rows.iter().map(|r| self.0.view.container(c, r)).collect::<Result<_>>()?, total, page))
        })
    }

    /// One container.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn container(&self, id: &ContainerId) -> Result<Container> {
        self.0.catalog.read(|c| self.0.view.container(c, &containers::get(c, id)?))
    }

    /// One container with what takes a look at its volume.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn container_detail(&self, id: &ContainerId) -> Result<ContainerDetail> {
        let (container, row) = self.0.catalog.read(|c| {
            let r = containers::get(c, id)?;
            Ok((self.0.view.container(c, &r)?, r))
        })?;
        let mounts = self.0.starter.paths_of(&row)?;
        let state = row.state;
        let usage = self.0.meters.recent(id, &state)?;
        Ok(ContainerDetail {
            lineage: Lineage {
                snapshot: state.head.clone(),
                image: container.container_image.clone(),
                source_container_id: container.source_container_id.clone(),
                since: time(state.since_ms),
            },
            usage,
            mounts,
            container,
        })
    }

    /// What a container keeps on disk.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn usage(&self, id: &ContainerId) -> Result<UsageReport> {
        self.0.meters.report(id, self.0.settings.max_nested_volumes)
    }

    /// The same with what the deletion of each snapshot would free, and of all together, as far as that is known after waiting up to `wait`.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn usage_with_frees(&self, id: &ContainerId, wait: Duration) -> Result<UsageReport> {
        let mut report = self.usage(id)?;
        let names: Vec<_> = report.snapshots.iter().map(|s| s.name.clone()).collect();
        let (mut frees, all) = self.frees_each_and_all(id, &names, wait)?;
        for s in &mut report.snapshots {
            s.frees_bytes = frees.remove(&s.name);
        }
        report.all_snapshots.frees_bytes = all;
        Ok(report)
    }

    /// A page of a container's status log, newest first.
    ///
    /// # Errors
    /// `container_not_found`, `invalid_page`.
    pub fn status_logs(&self, id: &ContainerId, page: &PageRequest) -> Result<Paged<StatusLog>> {
        let (rows, total) = self.0.catalog.read(|c| {
            containers::get(c, id)?;
            containers::logs(c, id, page)
        })?;
        Ok(Paged::new(rows, total, page))
    }

    /// What a container uses now.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        let r = self.0.catalog.read(|c| containers::get(c, id))?;
        self.0.meters.stats(&r, &self.0.server.name)
    }

    /// The environment that init gets at the next start.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn environment(&self, id: &ContainerId) -> Result<BTreeMap<String, String>> {
        Ok(self.0.catalog.read(|c| containers::get(c, id))?.spec.env)
    }

    /// Changes the environment that init gets at the next start; the environment after the change.
    ///
    /// # Errors
    /// `container_not_found`, `validation_error`, `environment_variable_not_found`.
    pub fn set_environment(&self, caller: &Caller, id: &ContainerId, change: EnvironmentChange) -> Result<BTreeMap<String, String>> {
        self.change(caller, |tx| {
            let env = change.apply(containers::get(tx.conn, id)?.spec.env)?;
            let r = tx.change_container(id, &caller.by, None, |r| r.spec.env = env)?;
            tx.emit_container("container.resource_updated", &r, json!({ "changed": ["environment_vars"] }))?;
            Ok(r.spec.env)
        })
    }

    /// Changes what a container is called and how it starts; what is absent stays.
    ///
    /// # Errors
    /// `container_not_found`, `validation_error`, `invalid_container_name`, `container_name_in_use`, `ssh_public_key_in_use`, `container_deleting`,
    /// `api_socket_unsupported`.
    pub fn update_container(&self, caller: &Caller, id: &ContainerId, update: ContainerUpdate) -> Result<Container> {
        let name = update.name.as_deref().map(str::parse::<ContainerName>).transpose()?;
        let color = update.color.as_deref().map(validate::color).transpose()?;
        if let Some(env) = &update.environment_vars {
            validate::environment(env)?;
        }
        validate::text("comment", update.comment.as_ref().and_then(|c| c.as_deref()), 16_000)?;
        validate::text("ssh_public_key", update.ssh_public_key.as_ref().and_then(|c| c.as_deref()), 16_384)?;
        self.0.api_sockets.check(update.api_socket)?;
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
                if let Some(wanted) = update.api_socket {
                    r.spec.api_socket = wanted;
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
                tx.emit_container("container.renamed", &r, json!({ "from": before.name }))?;
            }
            if r.spec.autostart != before.spec.autostart {
                let what = if r.spec.autostart { "container.autostart_enabled" } else { "container.autostart_disabled" };
                tx.emit_container(what, &r, json!({}))?;
            }
            tx.emit_container("container.resource_updated", &r, json!({}))?;
            self.0.view.container(tx.conn, &r)
        })?;
        if disk.is_some() {
            self.0.limits.apply_to(id)?;
        }
        if let (Some(false), Some(number)) = (update.api_socket, self.0.api_sockets.number(id)) {
            self.0.api_sockets.close(id, number);
        }
        Ok(changed)
    }

    /// Runs a command in a running container.
    ///
    /// # Errors
    /// `container_not_found`, `container_not_running`, `container_paused`, `validation_error`, `exec_failed`.
    pub fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        ops::exec::exec(&self.0, id, spec)
    }

    /// The same with a snapshot before the command, and, if that was asked for and the command fails, with the restore of that snapshot. No lock is held while
    /// the command runs. If this process ends before the command does, nothing is undone; the snapshot is there.
    ///
    /// # Errors
    /// Those of [`Host::exec`], [`Host::create_snapshot`] and [`Host::restore`]; `databases_shared` before the command runs.
    pub fn exec_recorded(&self, caller: &Caller, id: &ContainerId, spec: &ExecSpec, record: &ExecRecord) -> Result<Executed> {
        ops::exec::recorded(&self.0, caller, id, spec, record, &|before| self.changes_since(id, before))
    }

    fn changes_since(&self, id: &ContainerId, before: &SnapshotName) -> Result<ExecDiff> {
        let request = DiffRequest { to: LIVE.into(), limit: Some(RECORDS), ..DiffRequest::default() };
        let mut records = Vec::new();
        let summary = self.diff(id, before.as_str(), &request, &|| false, &mut |line| {
            if let DiffLine::Record(r) = line {
                records.push(r);
            }
            Ok(())
        })?;
        Ok(ExecDiff { records, summary })
    }

    /// The last bytes of the console of init; `None`: all that is kept.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn console(&self, id: &ContainerId, last: Option<Bytes>) -> Result<Vec<u8>> {
        self.0.catalog.read(|c| containers::get(c, id))?;
        self.0.runtime.console(id, last)
    }
}
