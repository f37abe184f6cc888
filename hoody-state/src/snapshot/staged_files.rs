//! Bringing names of one volume into another that is in use.

use crate::error::Result;
use crate::id::OperationId;
use crate::snapshot::Volume;
use crate::tree::TreePath;
use crate::tree::staged::{Allow, Options};

/// What is brought where.
pub struct FilesRequest<'a> {
    /// A volume that nobody changes.
    pub from: &'a Volume,
    /// A volume that may be in use.
    pub into: &'a Volume,
    /// Under which name what is half-made is found again.
    pub staging: &'a OperationId,
    /// Where to, and what becomes of names that are not in `from`.
    pub options: Options,
    /// Refuses places of `into` that nothing is brought to.
    pub allow: Allow<'a>,
    /// Asked before each name that is copied: an error ends the copy.
    pub go_on: &'a dyn Fn() -> Result<()>,
}

/// Names on their way into a volume.
///
/// **Guarantees.** While a path is staged, nothing in the volume changes but what is set aside for it. [`place`](StagedFiles::place) puts a path in its place in
/// one step; only a directory whose content goes into one that is there is placed name by name. After a crash
/// [`settle_files`](crate::snapshot::SnapshotStore::settle_files) finishes a path that had begun to be placed so and forgets all that had not: each path is
/// before or after.
pub trait StagedFiles {
    /// Copies what is to be at `path`; its number, for [`StagedFiles::place`].
    ///
    /// # Errors
    /// `file_not_found`: there is no such path in the source, or in the volume no directory for it; `not_a_directory`; `invalid_path` for the root;
    /// `volume_read_only` for a read-only nested volume; `pool_full`, `disk_limit_reached`; what `allow` and `go_on` say. Nothing of the path is left then.
    fn stage(&mut self, path: &TreePath) -> Result<usize>;

    /// Puts what was staged under a number in its place. Not durable until [`sync`](crate::snapshot::SnapshotStore::sync). A power cut before that leaves the
    /// path before or after too, also if somebody syncs single files or directories of the volume meanwhile.
    ///
    /// # Errors
    /// `file_not_found` when its directory was removed meanwhile; those of the system calls.
    fn place(&mut self, number: usize) -> Result<()>;
}
