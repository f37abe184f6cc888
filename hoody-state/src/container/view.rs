use crate::catalog::containers::{ContainerRow, ContainerState};
use crate::catalog::{containers, operations, projects, snapshots, time};
use crate::error::Result;
use crate::host::Host;
use crate::id::{ContainerId, ProjectId};
use crate::model::{
    Container, ContainerDetail, ContainerStats, CpuStats, DiskStats, DiskUsage, Lineage, MemoryStats, PageRequest, Paged, SnapshotUsage, Status, StatusLog,
    Usage, UsageReport,
};
use crate::name::ProjectAlias;
use crate::runtime::{ExecOutput, ExecSpec};
use crate::snapshot::Volume;
use crate::units::{Bytes, Generation};
use rusqlite::Connection;
use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How old the usage in a container's answer may be. `GET …/usage` always looks.
const USAGE_AGE: Duration = Duration::from_secs(10);

impl Host {
    /// The row as the wire shows it.
    pub(crate) fn container_view(&self, c: &Connection, r: &ContainerRow) -> Result<Container> {
        // A container that is on its way out may have lost its project already.
        let alias = match projects::get(c, self.0.catalog.user(), &r.project) {
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
            server_id: self.0.server.id.clone(),
            server_name: self.0.server.name.clone(),
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
            operation_id: open.map(|(id, _)| id),
            created_at: r.created,
            updated_at: r.updated,
        })
    }

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
            Ok(Paged::new(rows.iter().map(|r| self.container_view(c, r)).collect::<Result<_>>()?, total, page))
        })
    }

    /// One container.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn container(&self, id: &ContainerId) -> Result<Container> {
        self.0.catalog.read(|c| self.container_view(c, &containers::get(c, id)?))
    }

    /// One container with what takes a look at its volume.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn container_detail(&self, id: &ContainerId) -> Result<ContainerDetail> {
        let (container, row) = self.0.catalog.read(|c| {
            let r = containers::get(c, id)?;
            Ok((self.container_view(c, &r)?, r))
        })?;
        let mounts = self.0.starter.paths_of(&row)?;
        let state = row.state;
        let usage = self.recent_usage(id, &state)?;
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

    /// The generation from which the live volume differs from what it grew from.
    pub(super) fn base(&self, id: &ContainerId, state: &ContainerState) -> Result<Generation> {
        let head = self.0.catalog.read(|c| state.head.as_ref().map(|h| snapshots::by_name(c, id, h.as_str())).transpose())?.flatten();
        Ok(head.map_or(state.origin, |h| h.generation))
    }

    /// [`Host::live_usage`] as it was at most [`USAGE_AGE`] ago: a look walks the volume's tree, and clients poll.
    fn recent_usage(&self, id: &ContainerId, state: &ContainerState) -> Result<Usage> {
        let seen = |all: &HashMap<ContainerId, (Instant, Usage)>| all.get(id).filter(|(at, _)| at.elapsed() < USAGE_AGE).map(|(_, u)| *u);
        if let Some(u) = seen(&self.0.usage.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(u);
        }
        let u = self.live_usage(id, state)?;
        let mut all = self.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (at, _)| at.elapsed() < USAGE_AGE);
        all.insert(id.clone(), (Instant::now(), u));
        Ok(u)
    }

    fn live_usage(&self, id: &ContainerId, state: &ContainerState) -> Result<Usage> {
        let live = Volume::Live(id.clone());
        let gone = |r: Result<Bytes>| match r {
            Err(e) if e.is_not_found() => Ok(Bytes(0)),
            r => r,
        };
        let referenced = gone(self.0.store.delta(&live, None))?;
        let exclusive = gone(self.0.store.delta(&live, Some(self.base(id, state)?)))?;
        Ok(Usage { referenced, exclusive, shared: referenced - exclusive })
    }

    /// What a container keeps on disk.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn usage(&self, id: &ContainerId) -> Result<UsageReport> {
        let (state, list) = self.0.catalog.read(|c| Ok((containers::get(c, id)?.state, snapshots::all(c, id)?)))?;
        let live = self.live_usage(id, &state)?;
        let snapshots: Vec<SnapshotUsage> = list.into_iter().map(|s| SnapshotUsage { name: s.snapshot.name, size: s.snapshot.size }).collect();
        let total = live.exclusive + snapshots.iter().map(|s| s.size).sum();
        let nested_volumes = self.0.store.info(&Volume::Live(id.clone()))?.map_or(0, |i| i.nested);
        let max_nested_volumes = self.0.settings.max_nested_volumes;
        Ok(UsageReport { live, snapshots, total, disk: self.0.store.container_use(id), nested_volumes, max_nested_volumes })
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
        let began = Instant::now();
        let r = self.0.catalog.read(|c| containers::get(c, id))?;
        let s = self.0.runtime.stats(id)?;
        let space = self.0.store.space()?;
        let usage = self.recent_usage(id, &r.state)?;
        let started = r.state.started_ms.map_or(r.created, time);
        let percent = |part: f64, whole: f64| (part / whole * 1000.0).round() / 10.0;
        let total = r.spec.memory_mib.map_or_else(crate::cgroup::host_memory, Bytes::mib);
        let (status, status_code) = match r.status {
            Status::Running => ("Running", 103),
            Status::Paused => ("Frozen", 110),
            Status::Failed => ("Error", 112),
            Status::Creating => ("Starting", 106),
            Status::Deleting | Status::Deleted => ("Stopping", 107),
            _ => ("Stopped", 102),
        };
        Ok(ContainerStats {
            id: r.id.clone(),
            project_id: r.project.clone(),
            server_name: self.0.server.name.clone(),
            status: status.into(),
            status_code,
            processes: s.processes,
            tasks: s.tasks,
            started_at: started,
            cpu: s.cpu_ns.map(|ns| CpuStats { usage: ns, usage_percent: if r.status == Status::Running { self.cpu_percent(id, ns) } else { 0.0 } }),
            memory: s.memory.map(|m| MemoryStats { usage: m, total, usage_percent: percent(m.0 as f64, total.0.max(1) as f64) }),
            disk: DiskStats { root: DiskUsage { total: space.total, usage: usage.referenced, counted: self.0.store.container_use(id) } },
            ramdisk: self.0.ramdisks.stats(&r)?,
            network: Vec::new(),
            processing_time: format!("{}ms", began.elapsed().as_millis()),
        })
    }

    /// Runs a command in a running container.
    ///
    /// # Errors
    /// `container_not_found`, `container_not_running`, `container_paused`, `validation_error`, `exec_failed`.
    pub fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecOutput> {
        super::validate::command(&spec.command)?;
        spec.env.iter().try_for_each(|(k, v)| super::validate::variable(k, v, 0, 32768))?;
        let r = self.0.catalog.read(|c| containers::get(c, id))?;
        match r.status {
            Status::Running => self.0.runtime.exec(id, spec),
            Status::Paused => Err(crate::Error::new(crate::Code::ContainerPaused, format!("container {id} is paused: resume it first"))),
            other => {
                let why = r.state.message.map_or_else(String::new, |why| format!(" ({why})"));
                Err(crate::Error::new(crate::Code::ContainerNotRunning, format!("container {id} is {other}{why}: start it first")))
            }
        }
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

/// A look at a container's processor time is compared with the one before, if that is not older than this.
const CPU_AGE: Duration = Duration::from_secs(60);
/// How long the first look waits for a second one.
const CPU_WAIT: Duration = Duration::from_millis(50);

impl Host {
    /// Processor time since the last look, in percent of one processor.
    fn cpu_percent(&self, id: &ContainerId, ns: u64) -> f64 {
        let mut now = (Instant::now(), ns);
        let last =
            |all: &HashMap<ContainerId, (Instant, u64)>| all.get(id).filter(|(at, n)| at.elapsed() < CPU_AGE && at.elapsed() >= CPU_WAIT && *n <= ns).copied();
        let before = last(&self.0.cpu.lock().unwrap_or_else(PoisonError::into_inner));
        let before = before.unwrap_or_else(|| {
            std::thread::sleep(CPU_WAIT);
            let again = self.0.runtime.stats(id).ok().and_then(|s| s.cpu_ns).unwrap_or(ns);
            std::mem::replace(&mut now, (Instant::now(), again))
        });
        let mut all = self.0.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (at, _)| at.elapsed() < CPU_AGE);
        all.insert(id.clone(), now);
        let wall = now.0.duration_since(before.0).as_nanos().max(1) as f64;
        (now.1.saturating_sub(before.1) as f64 / wall * 1000.0).round() / 10.0
    }
}
