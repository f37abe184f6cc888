//! Copy-on-write volumes and their snapshots.
//!
//! **Vocabulary.** A *volume* is one copy-on-write tree with a fixed place in the pool ([`Volume`]) and an id that is never
//! used again ([`VolumeId`]). A *snapshot* is a read-only volume made from another in constant time; a *clone* is a writable one.
//! Subvolumes that were made *inside* a volume (by a tool in the container) are its *nested* volumes and go wherever it goes.
//!
//! **Guarantees**, tested by `suite` (feature `conformance`) on every backend:
//! 1. After `snapshot` or `clone_volume` returns, the target holds exactly what the source held at one instant of the call, and is durable. (Each
//!    nested volume is captured at an instant of its own; where they must agree with each other, freeze or stop what writes to them first.)
//!    If it fails or the process dies, the target does not exist under its own place; what is left lies under a [`Volume::Staging`] name.
//! 2. `exchange` is atomic: at every instant both places hold a whole volume.
//! 3. A deleted volume is gone from its place when `delete` returns; its space comes back behind.
//! 4. A read-only volume never changes.
//! 5. Nothing here starts a process.
//!
//! The shape follows containerd's snapshotter (a page that is the specification, one suite for all backends).

#[cfg(feature = "btrfs")]
pub mod btrfs;
mod dedupe;
#[cfg(any(feature = "btrfs", feature = "host"))]
pub mod memory;
mod mergeable;
#[cfg(feature = "btrfs")]
mod staged_files;
#[cfg(any(test, feature = "conformance"))]
pub mod suite;
mod transferable;

pub use crate::model::space::{DiskUse, Space};
pub use crate::model::volume::Volume;

pub use dedupe::{Dedupe, DedupeRequest, Deduped};
pub use mergeable::Mergeable;
#[cfg(feature = "btrfs")]
pub use staged_files::{FilesRequest, StagedFiles};
pub use transferable::Transferable;

use crate::diff::options::{Compared, Options, Sink};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, ProjectId};
use crate::units::{Bytes, Generation, VolumeId};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Never used again in this pool.
    pub id: VolumeId,
    /// The transaction of its last change.
    pub generation: Generation,
    /// The transaction in which it was made.
    pub created: Generation,
    /// Whether it is sealed.
    pub read_only: bool,
    /// How many volumes are nested in it, at any depth.
    pub nested: u32,
}

/// What a delete left to be reclaimed behind: the ids of the volume and of those nested in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Ids to give to [`SnapshotStore::reclaimed`].
    pub volumes: Vec<VolumeId>,
}

/// A question about data that only some volumes hold. See [`SnapshotStore::exclusive`].
pub struct ExclusiveQuery<'a> {
    /// Volumes that would be deleted together. Of each, only what was written after a generation is looked at: all that is older must be held by another volume
    /// that stays. 0: all of it is looked at.
    pub volumes: &'a [(Volume, Generation)],
    /// Volumes that probably share data with them, and the generation after which they got what they share: nothing older is looked for in them. They make
    /// the answer faster, and do not change it.
    pub likely: &'a [(Volume, Generation)],
    /// Whether to give up. Asked often.
    pub stop: &'a dyn Fn() -> bool,
}

/// Data that only some volumes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusive {
    /// What comes back when they are deleted, as it is stored (compressed data by its compressed length). File data alone, without the file system's own.
    pub bytes: Bytes,
    /// While all of these are as they were, and no copy of the volumes is made, the answer holds: the volumes themselves, and for each piece of data that comes
    /// not back one other volume that holds it.
    pub witnesses: Vec<Witness>,
}

/// A volume at a point of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Witness {
    /// The volume, which may be nested in another.
    pub volume: VolumeId,
    /// What [`SnapshotStore::generation_of`] said of it.
    pub generation: Generation,
}

/// Two volumes to compare.
#[derive(Debug, Clone, Copy)]
pub struct VolumePair<'a> {
    /// `None`: all of the new one was added.
    pub old: Option<&'a Volume>,
    /// `None`: all of the old one was deleted.
    pub new: Option<&'a Volume>,
    /// The path of their roots in the records. Only a root at the empty path has a record itself.
    pub prefix: &'a [u8],
    /// A read-only volume that both are known to have grown from, or one of them if the other grew from it. It helps where volumes between them were deleted.
    pub ancestor: Option<&'a Volume>,
    /// Whether they hold so little that they may be read completely without [`Options::walk`].
    pub small: bool,
}

/// Copy-on-write volumes. See the [module](self) for the vocabulary and the guarantees.
pub trait SnapshotStore: Send + Sync {
    /// Makes the empty directories of a container (`containers/<id>/snapshots`). Does nothing if they are there. The default is that of a store without
    /// directories.
    fn create_home(&self, _container: &ContainerId) -> Result<()> {
        Ok(())
    }

    /// Takes a container's whole home out of sight in one rename, under the name of `op`, for [`SnapshotStore::empty_trash`]. Does
    /// nothing if there is none. Constant cost, durable when it returns.
    fn trash_home(&self, container: &ContainerId, op: &OperationId) -> Result<()>;

    /// Puts the home that `trash_home` took away under `op` back in its place, in one rename. Does nothing if there is none. Error: `volume_exists` if the
    /// container has a home already. Constant cost, durable when it returns.
    fn recover_home(&self, container: &ContainerId, op: &OperationId) -> Result<()>;

    /// Deletes what `trash_home` put away under `op`, calling `progress(done, total)` after each volume. Cost: a fraction of a
    /// millisecond a volume. May be repeated after a crash.
    fn empty_trash(&self, op: &OperationId, progress: &mut dyn FnMut(u64, u64)) -> Result<Deleted>;

    /// The operations that have something in the trash.
    fn trash(&self) -> Result<Vec<OperationId>>;

    /// Makes an empty writable volume. Error: `volume_exists`.
    fn create(&self, volume: &Volume) -> Result<VolumeInfo>;

    /// Makes a read-only copy of `from`, nested volumes included, at `to`. `staging` names the place for what is half-made.
    /// Errors: `volume_not_found`, `volume_exists`. Cost: one transaction commit.
    fn snapshot(&self, from: &Volume, to: &Volume, staging: &OperationId) -> Result<VolumeInfo>;

    /// The same, writable.
    fn clone_volume(&self, from: &Volume, to: &Volume, staging: &OperationId) -> Result<VolumeInfo>;

    /// Exchanges two writable volumes in one step. Errors: `volume_not_found`, `volume_read_only`. Not durable until [`SnapshotStore::sync`].
    fn exchange(&self, a: &Volume, b: &Volume) -> Result<()>;

    /// Moves a writable volume to `to` and makes it, and what is nested in it, read-only. If it was moved already, only seals. Not durable until `sync`.
    /// Errors: `volume_not_found`, `volume_exists`, `volume_read_only`.
    fn seal(&self, from: &Volume, to: &Volume) -> Result<VolumeInfo>;

    /// Deletes a volume and what is nested in it. A volume that is not there is no error. Durable at the next `sync` or transaction. Of
    /// [`Volume::Staging`] it deletes whatever that operation left half-made, wherever that is. Error: `volume_in_use` (being sent, active swap file).
    fn delete(&self, volume: &Volume) -> Result<Deleted>;

    /// What is known of a volume, or nothing if it is not there.
    fn info(&self, volume: &Volume) -> Result<Option<VolumeInfo>>;

    /// The volumes of one container, or all volumes of the pool (without nested ones and without the trash).
    fn list(&self, container: Option<&ContainerId>) -> Result<Vec<Volume>>;

    /// Bytes of file data in `volume` that were written after `since` (`None`: all data in it). Cost follows what changed.
    fn delta(&self, volume: &Volume, since: Option<Generation>) -> Result<Bytes>;

    /// Bytes of file data that no volume but these holds: what comes back when they are deleted. `None`: it cannot be said, or not in time. Never an estimate.
    /// Cost follows what was written, and what of it is still shared: tens of microseconds an extent. The default is that of a store that cannot say.
    fn exclusive(&self, _query: &ExclusiveQuery<'_>) -> Result<Option<Exclusive>> {
        Ok(None)
    }

    /// The transaction of the last change of a volume that the store can see without waiting; nothing if the volume is gone. Cost: microseconds.
    fn generation_of(&self, _volume: VolumeId) -> Result<Option<Generation>> {
        Ok(None)
    }

    /// Whether a file of a volume was changed after a generation, be it only where its data lie. A volume that is not there has changed.
    /// Cost: tens of microseconds if nothing was.
    fn has_changed_since(&self, volume: &Volume, since: Generation) -> Result<bool> {
        Ok(self.info(volume)?.is_none_or(|i| i.generation > since))
    }

    /// Gives every name in which read-only volumes differ, nested volumes included, to `sink`, in the order of the paths. See [`crate::diff`] for what the records
    /// mean. Cost follows what changed since the two parted; memory is bounded, and what does not fit goes to a temporary file without a name. Nothing is locked:
    /// a volume that is deleted meanwhile ends it with an error.
    /// Errors: `volume_not_found`, `volume_writable`, `diff_needs_walk` (see [`Options::walk`]), `diff_too_large`, `path_too_long`, `diff_unsupported` from a store that
    /// cannot compare, `operation_cancelled`, and those of the sink.
    fn compare(&self, _pairs: &[VolumePair<'_>], _options: &Options<'_>, _sink: Sink<'_>) -> Result<Compared> {
        Err(Error::new(Code::DiffUnsupported, "the volumes of this server cannot be compared"))
    }

    /// Makes everything done so far through this trait durable. What somebody wrote into files is durable by their own fsync, or once the volume
    /// was copied or sealed.
    fn sync(&self) -> Result<()>;

    /// Waits up to `timeout` until the space of a deleted volume has come back; whether it has. The default is that of a store whose space comes back with
    /// the deletion.
    fn reclaimed(&self, _volume: VolumeId, _timeout: Duration) -> Result<bool> {
        Ok(true)
    }

    /// How full the pool is. Cheap: asked before every change.
    fn space(&self) -> Result<Space>;

    /// Sends volumes to other servers and receives theirs, if this store can.
    fn transfer(&self) -> Option<&dyn Transferable> {
        None
    }

    /// Takes changes of one volume over into another, if this store can.
    fn merging(&self) -> Option<&dyn Mergeable> {
        None
    }

    /// Merges data that were written twice, if this store can.
    fn dedupe(&self) -> Option<&dyn Dedupe> {
        None
    }

    /// Why this store does not count what containers write, if it does not: then no limit can be set.
    fn uncounted(&self) -> Option<String> {
        Some("this store does not count".into())
    }

    /// Sets how much a container may write, which counts to its project too. Makes it counted, if it is not yet. Without counting, no limit is no error.
    /// Error: `disk_limit_unsupported`.
    fn limit_container(&self, _container: &ContainerId, _project: &ProjectId, limit: Option<Bytes>) -> Result<()> {
        uncounted_limit(limit)
    }

    /// The same for a project: its containers and databases together.
    fn limit_project(&self, _project: &ProjectId, limit: Option<Bytes>) -> Result<()> {
        uncounted_limit(limit)
    }

    /// What a container has written, if it is counted. Cheap.
    fn container_use(&self, _container: &ContainerId) -> Option<DiskUse> {
        None
    }

    /// The same for a project.
    fn project_use(&self, _project: &ProjectId) -> Option<DiskUse> {
        None
    }

    /// Forgets what was counted of containers and projects other than these, as far as none of it is left.
    fn drop_groups(&self, _containers: &[ContainerId], _projects: &[ProjectId]) -> Result<()> {
        Ok(())
    }

    /// The root directory of a volume, open: whoever has it reads on when the volume is deleted or exchanged. Errors: `volume_not_found`,
    /// `files_unsupported` (the default: a store without files).
    fn open(&self, volume: &Volume) -> Result<OwnedFd> {
        Err(crate::error::Error::new(crate::error::Code::FilesUnsupported, format!("the {volume} is in a store without files: nothing in it can be read")))
    }

    /// Begins to bring names of one volume into another that is in use, in two stages (see [`StagedFiles`]). Error: `files_unsupported` (the default: a store
    /// without files), `volume_not_found`.
    #[cfg(feature = "btrfs")]
    fn stage_files<'a>(&'a self, request: FilesRequest<'a>) -> Result<Box<dyn StagedFiles + 'a>> {
        Err(crate::error::Error::new(crate::error::Code::FilesUnsupported, format!("nothing can be put into the {}: this store has no files", request.into)))
    }

    /// Finishes what [`StagedFiles::place`] has begun in the volume `into` under `staging`, and removes everything else that is staged there. May be repeated;
    /// does nothing if there is nothing, or no such volume. Not durable until `sync`.
    #[cfg(feature = "btrfs")]
    fn settle_files(&self, _into: &Volume, _staging: &OperationId) -> Result<()> {
        Ok(())
    }

    /// A directory in which each snapshot of the container stands under its name for as long as it exists, to be mounted read-only in that container. Every id of
    /// containers may list it; on the host nobody else reaches it. Nothing in it is another container's. `None` with stores without files, and for a container
    /// without a home.
    ///
    /// # Errors
    /// Of the system calls.
    fn snapshots_dir(&self, _container: &ContainerId) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    /// The directory at which the volume's tree can be reached on this host, where there is one.
    fn path(&self, _volume: &Volume) -> Option<PathBuf> {
        None
    }
}

fn uncounted_limit(limit: Option<Bytes>) -> Result<()> {
    match limit {
        None => Ok(()),
        Some(_) => Err(Error::new(Code::DiskLimitUnsupported, "no disk limit can be set here: this store does not count what containers write")),
    }
}
