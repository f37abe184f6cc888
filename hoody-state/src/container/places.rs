//! What a container has besides its own volume: `/hoody/databases`, `/ramdisk`, `/hoody/shares`, made ready before it starts; and `/hoody/storage` in it.

use crate::catalog::containers::{self, ContainerRow};
use crate::error::{IoContext, Result};
use crate::host::Host;
use crate::id::{ContainerId, ProjectId};
use crate::model::mount::{Mount, RECEIVED};
use crate::model::{RamdiskScope, RamdiskStats, RamdiskUsage, Status};
use crate::services::databases::{DATABASES, IfServed, Served};
use crate::services::dirs::ContainerDirs;
use crate::units::Bytes;
use std::path::Path;

/// Where its RAM disk is.
pub(crate) const RAMDISK: &str = "/ramdisk";
/// The disk of its project, in it.
const PROJECT_RAMDISK: &str = "/ramdisk/project";

/// What a start mounts.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub mounts: Vec<Mount>,
    pub shares: Option<Vec<Mount>>,
    pub databases: Option<Served>,
}

pub(crate) fn project_disk(p: &ProjectId) -> String {
    format!("project-{p}")
}

impl Host {
    pub(super) fn dirs(&self) -> ContainerDirs {
        ContainerDirs { id_base: self.0.id_base }
    }

    /// Makes ready what a container is about to start with. `root`: its volume, with backends that have files.
    pub(crate) fn places(&self, r: &ContainerRow, root: Option<&Path>) -> Result<Places> {
        let mut mounts = Vec::new();
        if let Some(root) = root {
            self.dirs().open_or_make(root, &["hoody", "storage"])?;
        }
        let databases = self.0.databases.serve_and_wait(r, root, IfServed::Exchange)?;
        mounts.extend(databases.as_ref().map(|d| Mount::new(d.at.clone(), DATABASES)));
        if let Some(disks) = &self.0.ramdisks {
            let name = r.id.as_str();
            if r.spec.ramdisk {
                let limit = r.spec.memory_mib.map_or(Bytes(u64::MAX), Bytes::mib);
                if let Some(source) = disks.ensure(name, half_of_memory().min(limit))? {
                    mounts.push(Mount::new(source.clone(), RAMDISK));
                    if r.spec.ramdisk_scope == RamdiskScope::Project
                        && let Some(project) = disks.ensure(&project_disk(&r.project), half_of_memory())?
                    {
                        if let Some(disk) = source.open().io(|| "open the RAM disk")? {
                            self.dirs().open_or_make_in(disk, "the RAM disk", &["project"])?;
                        }
                        mounts.push(Mount::new(project, PROJECT_RAMDISK));
                    }
                }
            } else {
                disks.remove(name)?;
            }
        }
        Ok(Places { mounts, shares: Some(self.0.shares.mounts_for(r)?), databases })
    }

    /// The paths of its own that a container has, by kind, as they are now.
    pub(crate) fn mounts_of(&self, r: &ContainerRow) -> Result<Vec<crate::model::Mount>> {
        let mount = |path: &str, kind: &str| crate::model::Mount { path: path.into(), kind: kind.into() };
        let mut all = vec![mount("/hoody/storage", "storage")];
        if self.0.databases.backend().is_some() {
            all.push(mount(DATABASES, "databases"));
        }
        if self.0.ramdisks.is_some() && r.spec.ramdisk {
            all.push(mount(RAMDISK, "ramdisk"));
            if r.spec.ramdisk_scope == RamdiskScope::Project {
                all.push(mount(PROJECT_RAMDISK, "ramdisk"));
            }
        }
        if matches!(r.status, Status::Running | Status::Paused) {
            all.extend(self.0.shares.seen_by(&r.id)?.into_iter().map(|name| mount(&format!("{RECEIVED}/{name}"), "share")));
        }
        Ok(all)
    }

    /// What its RAM disks hold.
    pub(crate) fn ramdisk_stats(&self, r: &ContainerRow) -> Result<RamdiskStats> {
        let mut stats = RamdiskStats { scope: r.spec.ramdisk_scope, shared_pool_maximum: None, capacity_reserved: false, usage: None };
        let Some(disks) = &self.0.ramdisks else { return Ok(stats) };
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

    /// Lets go of what a deleted container had beside its volume.
    pub(crate) fn drop_places(&self, id: &ContainerId) -> Result<()> {
        self.0.shares.forget(id);
        self.0.databases.forget_private(id)?;
        if let Some(disks) = &self.0.ramdisks {
            disks.remove(id.as_str())?;
        }
        Ok(())
    }

    /// Lets go of what a deleted project had. What cannot be deleted now goes at the next start.
    pub(crate) fn drop_project_places(&self, id: &ProjectId) -> Result<()> {
        if let Some(disks) = &self.0.ramdisks {
            disks.remove(&project_disk(id))?;
        }
        self.0.databases.delete_project(id)?;
        self.0.upkeep.reclaim();
        Ok(())
    }

    /// After the databases' daemon was started again: everything is served and mounted as it was, in containers that run. One that is being started looks
    /// by itself once it runs.
    pub(crate) fn serve_databases_again(&self) {
        if self.0.databases.backend().is_none() {
            return;
        }
        let rows = match self.0.catalog.read(|c| containers::all(c, None)) {
            Ok(rows) => rows,
            Err(e) => return tracing::error!(error = %e, "cannot read which containers have databases"),
        };
        let running: Vec<&ContainerRow> = rows.iter().filter(|r| self.0.runtime.running(&r.id).is_ok_and(|r| r.is_some())).collect();
        running.iter().for_each(|r| self.0.databases.remount(r, &*self.0.runtime));
        // What is shared of them is another mount.
        self.0.shares.sync_each(&running.iter().map(|r| &r.id).collect::<Vec<_>>());
    }
}

/// The most that a RAM disk may hold.
fn half_of_memory() -> Bytes {
    Bytes(crate::cgroup::host_memory().0 / 2)
}
