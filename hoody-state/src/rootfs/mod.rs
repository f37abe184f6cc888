//! What a container boots from: the layer between a volume and a runtime.
//!
//! **Vocabulary.** A container's *root* is the file system that its processes see as `/`. It is kept in the container's live volume, as the volume's own
//! tree ([`subvolume`]) or in another form, and *mounted* while the container may run: then it is a directory of this host.
//!
//! **Guarantees** of a [`RootFs`]:
//! 1. `mount` and `release` may be repeated. A restart of this process changes nothing; after a reboot nothing is mounted, and `mount` mounts again.
//! 2. While a [`Held`] lives, the live volume holds a root that can be booted from after a snapshot of the volume, without a repair by hand.
//! 3. After `release` nothing of the live volume is in use by the root: the volume can be exchanged, trashed or deleted.
//!
//! Snapshots, clones and sizes stay with the volumes ([`SnapshotStore`](crate::snapshot::SnapshotStore)): a root is copied by copying its volume.

pub mod subvolume;

use crate::error::Result;
use crate::id::{ContainerId, OperationId};
use crate::snapshot::{Volume, VolumeInfo};
use std::path::PathBuf;

/// Makes and mounts the roots of containers. See the [module](self).
pub trait RootFs: Send + Sync {
    /// Makes the live volume of a container, with a root that holds what `from` holds: an image, or a snapshot of another container with a root of the same
    /// form. `op` names the place for what is half-made. Errors: `volume_not_found`, `volume_exists`. Cost: that of a clone of the volume.
    fn create(&self, container: &ContainerId, from: &Volume, op: &OperationId) -> Result<VolumeInfo>;

    /// Mounts the root, if it is not mounted; the directory that a runtime boots from. `None` with stores without files. Error: that of mounting.
    fn mount(&self, container: &ContainerId) -> Result<Option<PathBuf>>;

    /// The directory of a root that is mounted, without mounting it; whether the container still exists is not looked at.
    fn path(&self, container: &ContainerId) -> Option<PathBuf>;

    /// Makes the root hold still for a snapshot of the live volume, until the value is dropped. Processes of the container that write wait meanwhile. Does
    /// nothing if the root is not mounted.
    fn hold(&self, container: &ContainerId) -> Result<Box<dyn Held + '_>>;

    /// Takes the root out of use. Nothing of the container runs. One that is not mounted is no error. Error: `volume_in_use`.
    fn release(&self, container: &ContainerId) -> Result<()>;
}

/// A root holds still while this lives.
pub trait Held: Send {}
