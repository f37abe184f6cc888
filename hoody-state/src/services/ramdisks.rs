//! `/ramdisk`: the memory disks of containers and projects.

use super::dirs::ContainerDirs;
use crate::catalog::containers::ContainerRow;
use crate::error::{IoContext, Result};
use crate::id::{ContainerId, ProjectId};
use crate::model::mount::Mount;
use crate::model::{RamdiskScope, RamdiskStats, RamdiskUsage};
use crate::ramdisk::RamDisks;
use crate::units::Bytes;
use std::sync::Arc;

/// Where a container's RAM disk is.
const RAMDISK: &str = "/ramdisk";
/// The disk of its project, in it.
const PROJECT_RAMDISK: &str = "/ramdisk/project";

/// The name of a project's disk.
pub(crate) fn project_disk(p: &ProjectId) -> String {
    format!("project-{p}")
}

/// The RAM disks of all containers.
pub(crate) struct Ramdisks {
    /// Nothing: containers have none.
    disks: Option<Arc<dyn RamDisks>>,
    dirs: ContainerDirs,
}

impl Ramdisks {
    pub(crate) fn new(disks: Option<Arc<dyn RamDisks>>, dirs: ContainerDirs) -> Self {
        Ramdisks { disks, dirs }
    }

    /// Who makes them, if containers have any.
    pub(crate) fn backend(&self) -> Option<&dyn RamDisks> {
        self.disks.as_deref()
    }

    /// Makes the disks of a container that is about to start; what is mounted of them. A container that is to have none loses the one it had.
    pub(crate) fn mounts_for(&self, r: &ContainerRow) -> Result<Vec<Mount>> {
        let Some(disks) = &self.disks else { return Ok(Vec::new()) };
        if !r.spec.ramdisk {
            return disks.remove(r.id.as_str()).map(|()| Vec::new());
        }
        let limit = r.spec.memory_mib.map_or(Bytes(u64::MAX), Bytes::mib);
        let Some(own) = disks.ensure(r.id.as_str(), half_of_memory().min(limit))? else { return Ok(Vec::new()) };
        let mut mounts = vec![Mount::new(own.clone(), RAMDISK)];
        if r.spec.ramdisk_scope == RamdiskScope::Project
            && let Some(project) = disks.ensure(&project_disk(&r.project), half_of_memory())?
        {
            if let Some(disk) = own.open().io(|| "open the RAM disk")? {
                self.dirs.open_or_make_in(disk, "the RAM disk", &["project"])?;
            }
            mounts.push(Mount::new(project, PROJECT_RAMDISK));
        }
        Ok(mounts)
    }

    /// Where a container has RAM disks.
    pub(crate) fn paths(&self, r: &ContainerRow) -> &'static [&'static str] {
        match r.spec.ramdisk_scope {
            _ if self.disks.is_none() || !r.spec.ramdisk => &[],
            RamdiskScope::Container => &[RAMDISK],
            RamdiskScope::Project => &[RAMDISK, PROJECT_RAMDISK],
        }
    }

    /// What a container's RAM disks hold.
    pub(crate) fn stats(&self, r: &ContainerRow) -> Result<RamdiskStats> {
        let mut stats = RamdiskStats { scope: r.spec.ramdisk_scope, shared_pool_maximum: None, capacity_reserved: false, usage: None };
        let Some(disks) = &self.disks else { return Ok(stats) };
        if let Some(own) = disks.filled(r.id.as_str())? {
            let project = match r.spec.ramdisk_scope {
                RamdiskScope::Project => disks.filled(&project_disk(&r.project))?,
                RamdiskScope::Container => None,
            };
            stats.shared_pool_maximum = Some(project.map_or(own.size, |p| p.size));
            stats.usage = Some(RamdiskUsage { private: own.used, secrets: None, project: project.map(|p| p.used) });
        }
        Ok(stats)
    }

    /// Removes the disk of a deleted container.
    pub(crate) fn remove(&self, id: &ContainerId) -> Result<()> {
        self.disks.as_ref().map_or(Ok(()), |d| d.remove(id.as_str()))
    }

    /// Removes the disk of a deleted project.
    pub(crate) fn remove_project(&self, id: &ProjectId) -> Result<()> {
        self.disks.as_ref().map_or(Ok(()), |d| d.remove(&project_disk(id)))
    }
}

/// The most that a RAM disk may hold.
fn half_of_memory() -> Bytes {
    Bytes(crate::cgroup::host_memory().0 / 2)
}
