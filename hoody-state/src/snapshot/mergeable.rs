//! Taking changes of one volume over into another.

use super::Volume;
use crate::diff::merge::Step;
use crate::error::Result;

/// Takes changes of one volume over into another. What a [`SnapshotStore`](super::SnapshotStore) gives that has files.
pub trait Mergeable: Send + Sync {
    /// Whether what two volumes have at two paths is equal: type, owner, mode, attributes and content, but not times. Directories are compared without what is
    /// in them. Cost: both are read if all else is equal.
    /// Errors: `volume_not_found`, `file_not_found`.
    fn equal(&self, a: (&Volume, &[u8]), b: (&Volume, &[u8])) -> Result<bool>;

    /// Applies `steps` to the writable volume `to`; what they copy comes from the read-only volume `from`. Nobody else changes `to` meanwhile. Durable when it
    /// returns. If it fails, or the process dies, `to` is in between: it is of use to nobody then. `go_on` is asked before each step.
    /// Errors: `volume_not_found`, `file_not_found`, `path_too_long`, `pool_full`, `disk_limit_reached`, what `go_on` says. Cost: a few system calls a step; data are shared.
    fn apply(&self, steps: &[Step], from: &Volume, to: &Volume, go_on: &dyn Fn() -> Result<()>) -> Result<()>;
}
