//! What containers use: disk, memory, processor time.

use super::ramdisks::Ramdisks;
use crate::catalog::containers::{ContainerRow, ContainerState};
use crate::catalog::records::Records;
use crate::catalog::{containers, snapshots, time};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{AllSnapshotsUsage, ContainerStats, CpuStats, DiskStats, DiskUsage, MemoryStats, SnapshotUsage, Status, Usage, UsageReport};
use crate::runtime::Runtime;
use crate::snapshot::{SnapshotStore, Volume};
use crate::units::{Bytes, Generation};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How old the usage in a container's answer may be. [`Meters::report`] always looks.
const USAGE_AGE: Duration = Duration::from_secs(10);
/// A look at a container's processor time is compared with the one before, if that is not older than this.
const CPU_AGE: Duration = Duration::from_secs(60);
/// How long the first look waits for a second one.
const CPU_WAIT: Duration = Duration::from_millis(50);

/// The last looks at containers, by container: when, and what was seen.
type Looks<T> = Mutex<HashMap<ContainerId, (Instant, T)>>;

fn locked<T>(looks: &Looks<T>) -> MutexGuard<'_, HashMap<ContainerId, (Instant, T)>> {
    looks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Measures what containers use, and remembers the last measurements.
pub(crate) struct Meters {
    store: Arc<dyn SnapshotStore>,
    runtime: Arc<dyn Runtime>,
    ramdisks: Arc<Ramdisks>,
    records: Records,
    /// What volumes held.
    volumes: Looks<Usage>,
    /// Processor time used, in nanoseconds.
    cpu: Looks<u64>,
}

impl Meters {
    pub(crate) fn new(store: Arc<dyn SnapshotStore>, runtime: Arc<dyn Runtime>, ramdisks: Arc<Ramdisks>, records: Records) -> Self {
        Meters { store, runtime, ramdisks, records, volumes: Looks::default(), cpu: Looks::default() }
    }

    /// The generation from which the live volume differs from what it grew from.
    fn base(&self, id: &ContainerId, state: &ContainerState) -> Result<Generation> {
        let head = self.records.read(|c| state.head.as_ref().map(|h| snapshots::by_name(c, id, h.as_str())).transpose())?.flatten();
        Ok(head.map_or(state.origin, |h| h.generation))
    }

    /// What the live volume holds, as it was at most [`USAGE_AGE`] ago: a look walks the volume's tree, and clients poll.
    pub(crate) fn recent(&self, id: &ContainerId, state: &ContainerState) -> Result<Usage> {
        let seen = locked(&self.volumes).get(id).filter(|(at, _)| at.elapsed() < USAGE_AGE).map(|(_, u)| *u);
        if let Some(u) = seen {
            return Ok(u);
        }
        let u = self.volume(id, state)?;
        let mut all = locked(&self.volumes);
        all.retain(|_, (at, _)| at.elapsed() < USAGE_AGE);
        all.insert(id.clone(), (Instant::now(), u));
        Ok(u)
    }

    fn volume(&self, id: &ContainerId, state: &ContainerState) -> Result<Usage> {
        let live = Volume::Live(id.clone());
        let gone = |r: Result<Bytes>| match r {
            Err(e) if e.is_not_found() => Ok(Bytes(0)),
            r => r,
        };
        let referenced = gone(self.store.delta(&live, None))?;
        let exclusive = gone(self.store.delta(&live, Some(self.base(id, state)?)))?;
        Ok(Usage { referenced, exclusive, shared: referenced - exclusive })
    }

    /// What a container keeps on disk. `max_nested_volumes`: how many volumes may be nested in it. Error: `container_not_found`.
    pub(crate) fn report(&self, id: &ContainerId, max_nested_volumes: u32) -> Result<UsageReport> {
        let (state, list) = self.records.read(|c| Ok((containers::get(c, id)?.state, snapshots::all(c, id)?)))?;
        let live = self.volume(id, &state)?;
        let snapshots: Vec<SnapshotUsage> =
            list.into_iter().map(|s| SnapshotUsage { name: s.snapshot.name, alias: s.snapshot.alias, size: s.snapshot.size, frees_bytes: None }).collect();
        let all_snapshots = AllSnapshotsUsage { count: snapshots.len(), size: snapshots.iter().map(|s| s.size).sum(), frees_bytes: None };
        let total = live.exclusive + all_snapshots.size;
        let nested_volumes = self.store.info(&Volume::Live(id.clone()))?.map_or(0, |i| i.nested);
        Ok(UsageReport { live, snapshots, all_snapshots, total, disk: self.store.container_use(id), nested_volumes, max_nested_volumes })
    }

    /// What a container uses now. Cost: two looks at the processor time, [`CPU_WAIT`] apart, if nobody has asked in the last minute.
    pub(crate) fn stats(&self, r: &ContainerRow, server_name: &str) -> Result<ContainerStats> {
        let (began, id) = (Instant::now(), &r.id);
        let s = self.runtime.stats(id)?;
        let space = self.store.space()?;
        let usage = self.recent(id, &r.state)?;
        let started = r.state.started_ms.map_or(r.created, time);
        let percent = |part: f64, total: f64| (part / total * 1000.0).round() / 10.0;
        let total = r.spec.memory_mib.map_or_else(crate::cgroup::host_memory, Bytes::mib);
        let (status, status_code) = shown_status(r.status);
        Ok(ContainerStats {
            id: id.clone(),
            project_id: r.project.clone(),
            server_name: server_name.to_owned(),
            status: status.into(),
            status_code,
            processes: s.processes,
            tasks: s.tasks,
            started_at: started,
            cpu: s.cpu_ns.map(|ns| CpuStats { usage: ns, usage_percent: if r.status == Status::Running { self.cpu_percent(id, ns) } else { 0.0 } }),
            memory: s.memory.map(|m| MemoryStats { usage: m, total, usage_percent: percent(m.0 as f64, total.0.max(1) as f64) }),
            disk: DiskStats { root: DiskUsage { total: space.total, usage: usage.referenced, counted: self.store.container_use(id) } },
            ramdisk: self.ramdisks.stats(r)?,
            network: Vec::new(),
            processing_time: format!("{}ms", began.elapsed().as_millis()),
        })
    }

    /// Processor time since the last look, in percent of one processor.
    fn cpu_percent(&self, id: &ContainerId, ns: u64) -> f64 {
        let mut now = (Instant::now(), ns);
        let before = locked(&self.cpu).get(id).filter(|(at, n)| at.elapsed() < CPU_AGE && at.elapsed() >= CPU_WAIT && *n <= ns).copied();
        let before = before.unwrap_or_else(|| {
            std::thread::sleep(CPU_WAIT);
            let again = self.runtime.stats(id).ok().and_then(|s| s.cpu_ns).unwrap_or(ns);
            std::mem::replace(&mut now, (Instant::now(), again))
        });
        let mut all = locked(&self.cpu);
        all.retain(|_, (at, _)| at.elapsed() < CPU_AGE);
        all.insert(id.clone(), now);
        let elapsed = now.0.duration_since(before.0).as_nanos().max(1) as f64;
        (now.1.saturating_sub(before.1) as f64 / elapsed * 1000.0).round() / 10.0
    }
}

/// A status in the words and numbers of the published contract's statistics.
fn shown_status(status: Status) -> (&'static str, u32) {
    match status {
        Status::Running => ("Running", 103),
        Status::Paused => ("Frozen", 110),
        Status::Failed => ("Error", 112),
        Status::Creating => ("Starting", 106),
        Status::Deleting | Status::Deleted => ("Stopping", 107),
        _ => ("Stopped", 102),
    }
}
