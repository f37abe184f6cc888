//! Volumes as BTRFS subvolumes, through system calls alone: no process is started.
//!
//! What a container can change (anything below a volume's root) is never reached by a path: its directories are opened by subvolume
//! id and inode number (`sys::fs::open_dir_by_id`), so nothing that it renames or links meanwhile can lead elsewhere.
//!
//! **Order and crashes.** A volume without nested volumes is copied by one `SNAP_CREATE_V2`, which commits the transaction: the copy is complete and durable,
//! or does not exist. A volume with nested volumes is copied next to its target under a name that no volume has (`~<op>`), sealed there and renamed within the
//! directory: even a read-only subvolume may be renamed so, unlike into another directory. Before that, a link `staging/<op>/pending` to it is written, so that
//! `delete` of [`Volume::Staging`] finds what a crash left. So the place of a volume never has an incomplete copy.
//!
//! **One instant.** The kernel makes a snapshot of one subvolume at a time, so nested volumes are captured at different instants of the call. If they must be
//! consistent with each other, freeze or stop the container first.

mod apply;
mod barrier;
mod compare;
#[cfg(test)]
mod compare_tests;
mod copy;
mod dedupe;
mod delta;
#[cfg(test)]
mod differential_tests;
mod exclusive;
mod files;
#[cfg(test)]
mod forged_tests;
#[doc(hidden)]
pub mod from_elsewhere;
mod identity;
mod keep_times;
mod merging;
mod nested;
mod of_pool;
mod place;
mod quota;
#[cfg(test)]
mod quota_tests;
#[cfg(test)]
pub(crate) mod random_trees;
mod reclaim;
mod send;
mod space;
mod staging;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transfer_tests;

use crate::diff::options::{Compared, Options, Sink};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::{ContainerId, OperationId, ProjectId};
use crate::name::ImageName;
use crate::pool::{Backing, layout};
use crate::snapshot::{
    Dedupe, Deleted, DiskUse, Exclusive, ExclusiveQuery, FilesRequest, Mergeable, SnapshotStore, Space, StagedFiles, Transferable, Volume, VolumeInfo,
    VolumePair,
};
use crate::sys::fs::{SUBVOLUME_ROOT_INO, open_dir_at};
use crate::units::{Bytes, Generation, VolumeId};
use btrfs_uapi::subvolume::{self, SubvolumeFlags};
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// The mode of the directory of a container's snapshots, which that container sees.
const SNAPSHOTS_MODE: u32 = 0o755;

/// The volumes of one mounted pool. Keeps the pool's root open: drop it before the pool is unmounted.
#[derive(Debug)]
pub struct BtrfsStore {
    root: OwnedFd,
    path: PathBuf,
    backing: Option<Backing>,
    quotas: quota::Quotas,
}

impl BtrfsStore {
    /// The store of the pool that is mounted at `pool_root`, whose directories exist.
    ///
    /// # Errors
    /// `pool_foreign` when `pool_root` is not the root of a BTRFS file system.
    pub fn open(pool_root: &Path) -> Result<Self> {
        let root = nix::fcntl::open(pool_root, nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC, Mode::empty())
            .io(|| format!("open pool {}", pool_root.display()))?;
        let kind = nix::sys::statfs::fstatfs(&root).io(|| format!("ask for the file system of {}", pool_root.display()))?.filesystem_type();
        if kind != nix::sys::statfs::BTRFS_SUPER_MAGIC {
            return Err(Error::new(Code::PoolForeign, format!("{} is not on BTRFS: mount the pool there first", pool_root.display())));
        }
        Ok(BtrfsStore { root, path: pool_root.to_owned(), backing: None, quotas: quota::Quotas::Off("counting was not turned on".into()) })
    }

    /// The same store, for a pool on an image: [`SnapshotStore::space`] then takes the free space beneath the image into account.
    #[must_use]
    pub fn with_backing(mut self, backing: Backing) -> Self {
        self.backing = Some(backing);
        self
    }

    /// The same store with counting of what containers write, if the kernel supports it.
    ///
    /// # Errors
    /// Of the system calls.
    pub fn with_quotas(mut self) -> Result<Self> {
        self.quotas = quota::enable(self.mount())?;
        Ok(self)
    }

    fn mount(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn info_of(&self, fd: BorrowedFd<'_>) -> Result<VolumeInfo> {
        let i = subvolume::subvolume_info(fd).io(|| "ask for a subvolume's information")?;
        let nested = if has_nested(fd)? { nested::tree(self.mount(), i.id)?.len() } else { 0 };
        Ok(VolumeInfo {
            id: VolumeId(i.id),
            generation: Generation(i.generation),
            created: Generation(i.otransid),
            // Not `i.flags`: those are the flags of the root item, whose bits differ from those of the flags call.
            read_only: nested::is_read_only(fd)?,
            nested: u32::try_from(nested).unwrap_or(u32::MAX),
        })
    }

    /// Makes every change of names and volumes so far durable, without waiting for file data that is still being written.
    ///
    /// It sets the label to its present value, which commits the transaction within this call. `START_SYNC` leaves that to the kernel's commit thread, which
    /// at times sleeps until its next turn, up to 30 s later (seen on Linux 6.18); not even SIGKILL ends the caller before that.
    fn commit(&self) -> Result<()> {
        let what = || format!("commit pool {}", self.path.display());
        let label = btrfs_uapi::filesystem::label_get(self.mount()).io(what)?;
        btrfs_uapi::filesystem::label_set(self.mount(), &label).io(what)
    }

    /// Makes a volume writable that the container's root has made read-only, which would prevent moving it.
    fn unlock(&self, v: &Volume) -> Result<()> {
        if !matches!(v, Volume::Live(_) | Volume::Next(_) | Volume::Databases(_) | Volume::NextDatabases(_)) {
            return Err(Error::new(Code::VolumeReadOnly, format!("{v} is read-only and cannot be moved: make a clone of it")));
        }
        subvolume::subvolume_flags_set(self.existing(v)?.as_fd(), SubvolumeFlags::empty()).io(|| format!("make {v} writable"))
    }
}

impl SnapshotStore for BtrfsStore {
    fn create_home(&self, container: &ContainerId) -> Result<()> {
        let home = Path::new(layout::CONTAINERS).join(container.as_str());
        let snapshots = home.join(layout::SNAPSHOTS);
        if open_dir_at(&self.root, &snapshots).is_ok() {
            return Ok(());
        }
        self.make_dir(&home)?;
        // Only the container's own root (a plain user to the host) must reach `live` in it, as for `containers` itself.
        let above = open_dir_at(&self.root, layout::CONTAINERS).io(|| format!("open {}", self.path.join(layout::CONTAINERS).display()))?;
        let dir = open_dir_at(&self.root, &home).io(|| format!("open {}", self.path.join(&home).display()))?;
        let group = nix::unistd::Gid::from_raw(fstat(&above).io(|| "stat the directory of containers")?.st_gid);
        nix::unistd::fchown(&dir, None, Some(group)).io(|| format!("give {} to group {group}", home.display()))?;
        fchmod(&dir, Mode::from_bits_truncate(0o710)).io(|| format!("set the mode of {}", home.display()))?;
        self.make_dir(&snapshots)
    }

    fn trash_home(&self, container: &ContainerId, op: &OperationId) -> Result<()> {
        let home = Path::new(layout::CONTAINERS).join(container.as_str());
        if nix::sys::stat::fstatat(&self.root, &home, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) == Err(Errno::ENOENT) {
            return Ok(());
        }
        let trash = Path::new(layout::TRASH).join(op.as_str());
        self.make_dir(&trash)?;
        match renameat2(&self.root, &home, &self.root, &trash.join(container.as_str()), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) | Err(Errno::ENOENT) => self.commit(),
            Err(e) => Err(Error::io(format!("move {} to the trash", self.path.join(&home).display()), e)),
        }
    }

    fn recover_home(&self, container: &ContainerId, op: &OperationId) -> Result<()> {
        let (home, trash) = (Path::new(layout::CONTAINERS).join(container.as_str()), Path::new(layout::TRASH).join(op.as_str()));
        match renameat2(&self.root, &trash.join(container.as_str()), &self.root, &home, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EEXIST) => return Err(Error::new(Code::VolumeExists, format!("container {container} has a home already"))),
            Err(e) => return Err(Error::io(format!("move {} out of the trash", self.path.join(&home).display()), e)),
        }
        staging::remove_empty_dir(self, &trash)?;
        self.commit()
    }

    fn empty_trash(&self, op: &OperationId, progress: &mut dyn FnMut(u64, u64)) -> Result<Deleted> {
        let of = self.names(&Path::new(layout::TRASH).join(op.as_str()))?.iter().find_map(|n| n.parse().ok());
        self.beyond_limits(of.as_ref(), || reclaim::empty_trash(self, op, progress))
    }

    fn trash(&self) -> Result<Vec<OperationId>> {
        let mut found: Vec<OperationId> = self.names(Path::new(layout::TRASH))?.iter().filter_map(|n| n.parse().ok()).collect();
        found.sort();
        Ok(found)
    }

    fn create(&self, volume: &Volume) -> Result<VolumeInfo> {
        let place = self.place_for(volume)?;
        let groups = self.groups_for(volume, None)?;
        match subvolume::subvolume_create(place.dir.as_fd(), &place.name, &groups) {
            Ok(()) => self.info_of(self.existing(volume)?.as_fd()),
            Err(Errno::EEXIST) => Err(exists(volume)),
            Err(e) => Err(Error::io(format!("make subvolume {}", self.shown(volume)), e)),
        }
    }

    fn snapshot(&self, from: &Volume, to: &Volume, staging: &OperationId) -> Result<VolumeInfo> {
        self.beyond_limits(container_of(from), || self.copy(from, to, staging, true))
    }

    fn clone_volume(&self, from: &Volume, to: &Volume, staging: &OperationId) -> Result<VolumeInfo> {
        self.beyond_limits(container_of(from), || self.copy(from, to, staging, false))
    }

    fn exchange(&self, a: &Volume, b: &Volume) -> Result<()> {
        self.existing(a)?;
        self.existing(b)?;
        let (Some(x), Some(y)) = (self.place(a)?, self.place(b)?) else { return Err(not_found(a)) };
        let exchange = || renameat2(&x.dir, x.name.as_c_str(), &y.dir, y.name.as_c_str(), RenameFlags::RENAME_EXCHANGE);
        for v in [a, b] {
            if self.info(v)?.is_some_and(|i| i.read_only) {
                self.unlock(v)?;
            }
        }
        match exchange() {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT) => Err(not_found(if self.find(a)?.is_none() { a } else { b })),
            Err(e) => Err(Error::io(format!("exchange {} and {}", self.shown(a), self.shown(b)), e)),
        }
    }

    fn seal(&self, from: &Volume, to: &Volume) -> Result<VolumeInfo> {
        self.beyond_limits(container_of(to), || self.seal_once(from, to))
    }

    fn delete(&self, volume: &Volume) -> Result<Deleted> {
        self.beyond_limits(container_of(volume), || self.delete_once(volume))
    }

    fn open(&self, volume: &Volume) -> Result<OwnedFd> {
        self.existing(volume)
    }

    fn info(&self, volume: &Volume) -> Result<Option<VolumeInfo>> {
        self.find(volume)?.map(|fd| self.info_of(fd.as_fd())).transpose()
    }

    fn list(&self, container: Option<&ContainerId>) -> Result<Vec<Volume>> {
        let mut found = Vec::new();
        let containers = match container {
            Some(c) => vec![c.clone()],
            None => self.names(Path::new(layout::CONTAINERS))?.iter().filter_map(|n| n.parse().ok()).collect(),
        };
        for c in containers {
            let home = Path::new(layout::CONTAINERS).join(c.as_str());
            found.extend([Volume::Live(c.clone()), Volume::Next(c.clone()), Volume::NextDatabases(c.clone())]);
            found.extend(self.names(&home.join(layout::SNAPSHOTS))?.iter().filter_map(|n| Some(Volume::Snapshot(c.clone(), n.parse().ok()?))));
            found.extend(self.names(&home.join(layout::DATABASES))?.iter().filter_map(|n| Some(Volume::SnapshotDatabases(c.clone(), n.parse().ok()?))));
        }
        if container.is_none() {
            found.extend(self.names(Path::new(layout::IMAGES))?.iter().filter_map(|n| Some(Volume::Image(ImageName::from_dir_name(n).ok()?))));
            found.extend(self.names(Path::new(layout::PROJECTS))?.iter().filter_map(|n| Some(Volume::Databases(n.parse().ok()?))));
        }
        found.retain(|v| self.is_volume(v));
        if container.is_none() {
            // The staging directory of an operation counts even if only an unfinished copy belongs to it.
            found.extend(self.names(Path::new(layout::STAGING))?.iter().filter_map(|n| Some(Volume::Staging(n.parse().ok()?))));
        }
        found.sort();
        Ok(found)
    }

    fn delta(&self, volume: &Volume, since: Option<Generation>) -> Result<Bytes> {
        let fd = self.existing(volume)?;
        delta::written(self.mount(), fd.as_fd(), since).map_err(|e| e.context(format!("measure {volume}")))
    }

    fn exclusive(&self, query: &ExclusiveQuery<'_>) -> Result<Option<Exclusive>> {
        exclusive::exclusive(self, query)
    }

    fn generation_of(&self, volume: VolumeId) -> Result<Option<Generation>> {
        exclusive::generation_of(self.mount(), volume.0)
    }

    fn has_changed_since(&self, volume: &Volume, since: Generation) -> Result<bool> {
        exclusive::has_changed_since(self, volume, since)
    }

    fn compare(&self, pairs: &[VolumePair<'_>], options: &Options<'_>, sink: Sink<'_>) -> Result<Compared> {
        self.compare_volumes(pairs, options, sink)
    }

    fn sync(&self) -> Result<()> {
        self.commit()
    }

    fn reclaimed(&self, volume: VolumeId, timeout: Duration) -> Result<bool> {
        reclaim::reclaimed(self.mount(), volume, timeout)
    }

    fn space(&self) -> Result<Space> {
        space::space(self.mount(), self.backing.as_ref())
    }

    fn uncounted(&self) -> Option<String> {
        self.uncounted()
    }

    fn limit_container(&self, container: &ContainerId, project: &ProjectId, limit: Option<Bytes>) -> Result<()> {
        self.limit_container(container, project, limit)
    }

    fn limit_project(&self, project: &ProjectId, limit: Option<Bytes>) -> Result<()> {
        self.limit_project(project, limit)
    }

    fn container_use(&self, container: &ContainerId) -> Option<DiskUse> {
        self.container_use(container)
    }

    fn project_use(&self, project: &ProjectId) -> Option<DiskUse> {
        self.project_use(project)
    }

    fn drop_groups(&self, containers: &[ContainerId], projects: &[ProjectId]) -> Result<()> {
        self.drop_groups(containers, projects)
    }

    fn stage_files<'a>(&'a self, request: FilesRequest<'a>) -> Result<Box<dyn StagedFiles + 'a>> {
        self.begin_files(request)
    }

    fn settle_files(&self, into: &Volume, staging: &OperationId) -> Result<()> {
        self.end_files(into, staging)
    }

    fn path(&self, volume: &Volume) -> Option<PathBuf> {
        Some(self.path.join(layout::path(volume)))
    }

    fn snapshots_dir(&self, container: &ContainerId) -> Result<Option<OwnedFd>> {
        let path = Path::new(layout::CONTAINERS).join(container.as_str()).join(layout::SNAPSHOTS);
        let what = || format!("open {}", self.path.join(&path).display());
        let dir = match open_dir_at(&self.root, &path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(what(), e)),
        };
        // It stays the host's root's: the kernel lets the owner of a directory of the pool's own subvolume do more with that subvolume than read it. The home
        // above is closed, so that everybody may read it.
        if fstat(&dir).io(what)?.st_mode & 0o7777 != SNAPSHOTS_MODE {
            fchmod(&dir, Mode::from_bits_truncate(SNAPSHOTS_MODE)).io(what)?;
        }
        Ok(Some(dir))
    }

    fn transfer(&self) -> Option<&dyn Transferable> {
        Some(self)
    }

    fn merging(&self) -> Option<&dyn Mergeable> {
        Some(self)
    }

    fn dedupe(&self) -> Option<&dyn Dedupe> {
        Some(self)
    }
}

impl Transferable for BtrfsStore {
    fn identity(&self, volume: &Volume) -> Result<Option<Uuid>> {
        self.find(volume)?.map(|fd| send::identity(fd.as_fd())).transpose()
    }

    fn send(&self, volume: &Volume, base: Option<&Volume>, out: &mut dyn Write) -> Result<()> {
        self.send_volume(volume, base, out)
    }

    fn receive(&self, to: &Volume, base: Option<&Volume>, staging: &OperationId, input: &mut dyn Read) -> Result<VolumeInfo> {
        let info = self.receive_volume(to, base, staging, input)?;
        let base = base.map(|b| self.existing(b)).transpose()?;
        self.join_groups(to, base.as_ref().map(AsFd::as_fd))?;
        Ok(info)
    }

    fn differs(&self, base: &Volume, volume: &Volume) -> Result<bool> {
        self.volumes_differ(base, volume)
    }

    fn claims_identity(&self, snapshot: &Volume) -> Result<bool> {
        self.find(snapshot)?.map_or(Ok(false), |fd| identity::has_foreign_identity(fd.as_fd()))
    }
}

impl BtrfsStore {
    fn delete_once(&self, volume: &Volume) -> Result<Deleted> {
        let mut deleted = Deleted::default();
        if let Volume::Staging(op) = volume {
            deleted.volumes.extend(nested::delete_pending(self, op)?);
        }
        if let Some(fd) = self.find(volume)? {
            let place = self.place(volume)?.ok_or_else(|| not_found(volume))?;
            deleted.volumes.extend(nested::delete_tree(self.mount(), fd, &place.dir, &place.name).map_err(|e| e.context(format!("delete {volume}")))?);
        }
        match volume {
            Volume::Staging(op) => staging::drop_staging_dir(self, op)?,
            Volume::Databases(p) => staging::remove_empty_dir(self, &Path::new(layout::PROJECTS).join(p.as_str()))?,
            _ => {}
        }
        Ok(deleted)
    }
}

/// The container whose limits apply to work on a volume.
fn container_of(v: &Volume) -> Option<&ContainerId> {
    match v {
        Volume::Live(c) | Volume::Next(c) | Volume::Snapshot(c, _) | Volume::SnapshotDatabases(c, _) | Volume::NextDatabases(c) => Some(c),
        Volume::Image(_) | Volume::Databases(_) | Volume::Staging(_) => None,
    }
}

fn is_subvolume(dir: BorrowedFd<'_>) -> nix::Result<bool> {
    Ok(fstat(dir)?.st_ino == SUBVOLUME_ROOT_INO)
}

fn has_nested(volume: BorrowedFd<'_>) -> Result<bool> {
    Ok(!subvolume::subvol_rootrefs(volume).io(|| "ask for nested subvolumes")?.is_empty())
}

pub(super) fn not_found(v: &Volume) -> Error {
    Error::new(Code::VolumeNotFound, format!("there is no {v}"))
}

pub(super) fn exists(v: &Volume) -> Error {
    Error::new(Code::VolumeExists, format!("{v} exists already"))
}
