//! Disk limits, as BTRFS simple quotas (Linux 6.7).
//!
//! Each subvolume has a group of its own, `0/ID`, to which the kernel counts what is written in it, for as long as anything refers to it: a snapshot
//! itself adds next to nothing. Above are the container's group `1/N`, with all its volumes and snapshots, and the project's, `2/N`, with its
//! containers and databases. N is made of the last 48 bits of the id, which are random. A subvolume made inside a volume joins its groups by itself.
//!
//! A copy with nested volumes joins the group when it is finished, so that a container at its limit can still be snapshotted, copied and restored.

use super::{BtrfsStore, nested};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::{ContainerId, ProjectId};
use crate::snapshot::{DiskUse, Volume};
use crate::units::Bytes;
use btrfs_uapi::quota::{self, QgroupLimitFlags};
use btrfs_uapi::raw::{BTRFS_QGROUP_RELATION_KEY, BTRFS_QUOTA_TREE_OBJECTID};
use btrfs_uapi::tree_search::{SearchFilter, tree_search};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// Whether a pool counts what containers write, and if not, why.
#[derive(Debug, Clone)]
pub(super) enum Quotas {
    /// It counts. The directory in which the kernel shows the groups.
    On(PathBuf),
    /// It does not count, for this reason.
    Off(String),
}

const LEVEL: u32 = 48;

fn numbered(level: u64, id: &str) -> u64 {
    let digits = &id[id.len().saturating_sub(12)..];
    (level << LEVEL) | u64::from_str_radix(digits, 16).unwrap_or(0)
}

fn of_container(id: &ContainerId) -> u64 {
    numbered(1, id.as_str())
}

fn of_project(id: &ProjectId) -> u64 {
    numbered(2, id.as_str())
}

/// Turns counting on, if the kernel supports it.
pub(super) fn enable(mount: BorrowedFd<'_>) -> Result<Quotas> {
    let id = btrfs_uapi::filesystem::filesystem_info(mount).io(|| "ask for the pool's id")?.uuid;
    let dir = PathBuf::from(format!("/sys/fs/btrfs/{id}/qgroups"));
    if !std::path::Path::new("/sys/fs/btrfs/features/simple_quota").exists() {
        return Ok(Quotas::Off("this kernel has no simple quotas of BTRFS: they need Linux 6.7".into()));
    }
    let mode = || std::fs::read_to_string(dir.join("mode")).unwrap_or_default();
    if !mode().starts_with("squota") {
        match quota::quota_enable(mount, true) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Ok(Quotas::Off(format!("the kernel does not turn simple quotas on for this pool: {e}"))),
        }
        if !mode().starts_with("squota") {
            return Ok(Quotas::Off("the pool has quotas of another kind: turn them off (btrfs quota disable) and start the server again".into()));
        }
    }
    Ok(Quotas::On(dir))
}

fn gone<T>(r: nix::Result<T>) -> nix::Result<Option<T>> {
    match r {
        Ok(t) => Ok(Some(t)),
        Err(Errno::EEXIST | Errno::ENOENT | Errno::EBUSY | Errno::ENOTCONN) => Ok(None),
        Err(e) => Err(e),
    }
}

impl BtrfsStore {
    fn shown_groups(&self) -> Option<&PathBuf> {
        match &self.quotas {
            Quotas::On(dir) => Some(dir),
            Quotas::Off(_) => None,
        }
    }

    /// Why nothing is counted, if nothing is.
    pub(super) fn uncounted(&self) -> Option<String> {
        match &self.quotas {
            Quotas::On(_) => None,
            Quotas::Off(why) => Some(why.clone()),
        }
    }

    fn read(&self, group: u64, what: &str) -> Option<u64> {
        let name = format!("{}_{}", group >> LEVEL, group & ((1 << LEVEL) - 1));
        std::fs::read_to_string(self.shown_groups()?.join(name).join(what)).ok()?.trim().parse().ok()
    }

    fn limit_of(&self, group: u64) -> Option<Bytes> {
        self.read(group, "limit_flags").filter(|f| f & QgroupLimitFlags::MAX_RFER.bits() != 0)?;
        self.read(group, "max_referenced").map(Bytes)
    }

    fn limit(&self, group: u64, to: Option<Bytes>) -> Result<()> {
        // The largest number clears a limit. On some kernels, removing the flag alone leaves the old limit in force.
        let (flags, max) = to.map_or((QgroupLimitFlags::MAX_RFER, u64::MAX), |b| (QgroupLimitFlags::MAX_RFER, b.0));
        quota::qgroup_limit(self.mount(), group, flags, max, 0).io(|| "set a disk limit")
    }

    fn usage(&self, group: u64) -> Option<DiskUse> {
        Some(DiskUse { used: Bytes(self.read(group, "referenced")?), limit: self.limit_of(group).filter(|l| l.0 != u64::MAX) })
    }

    fn make_group(&self, group: u64) -> Result<bool> {
        if self.read(group, "referenced").is_some() {
            return Ok(false);
        }
        gone(quota::qgroup_create(self.mount(), group)).io(|| "make a quota group").map(|m| m.is_some())
    }

    fn put_in(&self, member: u64, group: u64) -> Result<()> {
        gone(quota::qgroup_assign(self.mount(), member, group)).io(|| "put a volume into its quota group").map(drop)
    }

    /// The groups directly above a group.
    fn above(&self, group: u64) -> Result<Vec<u64>> {
        self.related(group, |other| other >> LEVEL > group >> LEVEL)
    }

    fn below(&self, group: u64) -> Result<Vec<u64>> {
        self.related(group, |other| other >> LEVEL < group >> LEVEL)
    }

    fn related(&self, group: u64, wanted: impl Fn(u64) -> bool) -> Result<Vec<u64>> {
        let filter = SearchFilter::for_objectid_range(u64::from(BTRFS_QUOTA_TREE_OBJECTID), BTRFS_QGROUP_RELATION_KEY, group, group);
        let mut found = Vec::new();
        tree_search(self.mount(), filter, |item, _| {
            if item.item_type == BTRFS_QGROUP_RELATION_KEY && item.objectid == group && wanted(item.offset) {
                found.push(item.offset);
            }
            Ok(())
        })
        .io(|| "look at quota groups")?;
        Ok(found)
    }

    /// The groups that a volume made at `to` belongs to. `from` is what it is a copy of.
    pub(super) fn groups_for(&self, to: &Volume, from: Option<BorrowedFd<'_>>) -> Result<Vec<u64>> {
        if self.shown_groups().is_none() {
            return Ok(Vec::new());
        }
        let group = match to {
            Volume::Live(c) | Volume::Next(c) | Volume::Snapshot(c, _) => of_container(c),
            Volume::Databases(p) => of_project(p),
            // It belongs to the project whose databases it is a copy of.
            Volume::SnapshotDatabases(..) | Volume::NextDatabases(_) => {
                return from.map_or(Ok(Vec::new()), |fd| self.above(nested::id_of(fd)?));
            }
            Volume::Image(_) | Volume::Staging(_) => return Ok(Vec::new()),
        };
        self.make_group(group)?;
        Ok(vec![group])
    }

    /// Adds a finished volume and its nested volumes to the groups of its place.
    pub(super) fn join_groups(&self, volume: &Volume, from: Option<BorrowedFd<'_>>) -> Result<()> {
        let groups = self.groups_for(volume, from)?;
        let Some(fd) = self.find(volume)?.filter(|_| !groups.is_empty()) else { return Ok(()) };
        let top = nested::id_of(fd.as_fd())?;
        for id in nested::tree(self.mount(), top)?.iter().map(|n| n.id).chain([top]) {
            groups.iter().try_for_each(|g| self.put_in(id, *g))?;
        }
        Ok(())
    }

    /// Runs work that may write into a container's volumes. If the container or its project is at its limit, the limits are lifted meanwhile. A crash in between is
    /// corrected by the next start, which sets all limits.
    pub(super) fn beyond_limits<T>(&self, container: Option<&ContainerId>, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        let first = f();
        let c = match (container, &first) {
            (Some(c), Err(e)) if e.code() == Code::DiskLimitReached && self.shown_groups().is_some() => c,
            _ => return first,
        };
        let own = of_container(c);
        let groups: Vec<u64> = self.above(own)?.into_iter().chain([own]).collect();
        let limits: Vec<(u64, Bytes)> = groups.into_iter().filter_map(|g| Some((g, self.limit_of(g)?))).collect();
        limits.iter().try_for_each(|(g, _)| self.limit(*g, None))?;
        let out = f();
        limits.iter().try_for_each(|(g, l)| self.limit(*g, Some(*l)))?;
        out
    }

    pub(super) fn limit_container(&self, container: &ContainerId, project: &ProjectId, limit: Option<Bytes>) -> Result<()> {
        let Some(why) = self.uncounted() else {
            let (own, projects) = (of_container(container), of_project(project));
            self.make_group(projects)?;
            let is_new = self.make_group(own)?;
            self.put_in(own, projects)?;
            if self.usage(own).is_none_or(|u| u.limit != limit) {
                self.limit(own, limit)?;
            }
            if is_new {
                // A container from a version that did not count: what it writes from now on is counted.
                for v in crate::snapshot::SnapshotStore::list(self, Some(container))? {
                    self.join_groups(&v, None)?;
                }
            }
            return Ok(());
        };
        if limit.is_some() { Err(unsupported(&why)) } else { Ok(()) }
    }

    pub(super) fn limit_project(&self, project: &ProjectId, limit: Option<Bytes>) -> Result<()> {
        let Some(why) = self.uncounted() else {
            let group = of_project(project);
            self.make_group(group)?;
            if self.usage(group).is_none_or(|u| u.limit != limit) {
                self.limit(group, limit)?;
            }
            let databases = Volume::Databases(project.clone());
            if let Some(fd) = self.find(&databases)?
                && self.above(nested::id_of(fd.as_fd())?)?.is_empty()
            {
                self.join_groups(&databases, None)?;
            }
            return Ok(());
        };
        if limit.is_some() { Err(unsupported(&why)) } else { Ok(()) }
    }

    pub(super) fn container_use(&self, container: &ContainerId) -> Option<DiskUse> {
        self.usage(of_container(container))
    }

    pub(super) fn project_use(&self, project: &ProjectId) -> Option<DiskUse> {
        self.usage(of_project(project))
    }

    /// Removes the groups of deleted containers and projects. Groups with data that copies still refer to stay until that ends.
    pub(super) fn drop_groups(&self, containers: &[ContainerId], projects: &[ProjectId]) -> Result<()> {
        if self.shown_groups().is_none() {
            return Ok(());
        }
        let kept: std::collections::HashSet<u64> = containers.iter().map(of_container).chain(projects.iter().map(of_project)).collect();
        let all = quota::qgroup_list(self.mount()).io(|| "list quota groups")?.qgroups;
        for level in 0..=2 {
            for g in all.iter().filter(|g| g.qgroupid >> LEVEL == level && !kept.contains(&g.qgroupid) && g.rfer == 0) {
                let alive = level == 0 && (g.qgroupid < 256 || nested::open_root(self.mount(), g.qgroupid)?.is_some());
                if !alive && (level == 0 || self.below(g.qgroupid)?.is_empty()) {
                    // In use again, or not quite gone: the next time.
                    gone(quota::qgroup_destroy(self.mount(), g.qgroupid)).io(|| "remove a quota group")?;
                }
            }
        }
        Ok(())
    }
}

fn unsupported(why: &str) -> Error {
    Error::new(Code::DiskLimitUnsupported, format!("no disk limit can be set here: {why}"))
}
