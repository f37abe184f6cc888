//! Merging equal data of different volumes.

use super::Volume;
use crate::error::Result;
use crate::units::Bytes;

/// What to merge, and who asks to stop or watches.
pub struct DedupeRequest<'a> {
    /// Live volumes and images. Data are looked for and merged in them alone. What another volume holds too, such as a snapshot, cannot be gained, and stays where it is.
    pub volumes: &'a [Volume],
    /// Smaller files are left out.
    pub min_size: Bytes,
    /// Whether to end. Asked often. What was merged until then stays merged.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Called with the bytes of files that were dealt with, and how many there are to deal with, as far as that is known.
    pub progress: &'a (dyn Fn(Bytes, Bytes) + Sync),
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deduped {
    /// Space on the disk that came back: the extents that were there before and are not any more, by their stored length. Counted after a commit.
    pub gained: Bytes,
    /// Bytes of files that now lie where equal ones lie.
    pub merged: Bytes,
    /// Bytes that were read to find equal ones.
    pub read: Bytes,
    /// Bytes of equal data that were left as they are because something else holds them too: a snapshot, or a volume that was not named.
    pub held: Bytes,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// Merges equal data. What a [`SnapshotStore`](super::SnapshotStore) gives whose volumes can share data that were written twice.
///
/// **Guarantees.** No content changes, at no instant, whoever writes meanwhile. Read-only volumes other than images keep their data where they are. A volume that is
/// deleted or becomes read-only meanwhile is left out. A crash at any time leaves some data merged and the rest as it was.
pub trait Dedupe: Send + Sync {
    /// Merges what can be gained. Bounded memory; what does not fit goes to a temporary file without a name.
    ///
    /// # Errors
    /// Of the pool and of the temporary file.
    fn merge_equal(&self, request: &DedupeRequest<'_>) -> Result<Deduped>;
}
