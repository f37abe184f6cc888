//! Names of volumes.

use crate::id::{ContainerId, OperationId, ProjectId};
use crate::name::{ImageName, SnapshotName};
use std::fmt;

/// A place for a volume in the pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Volume {
    /// `images/<name>`: a golden image, read-only once sealed.
    Image(ImageName),
    /// `containers/<id>/live`: what the container runs from.
    Live(ContainerId),
    /// `containers/<id>/next`: what a restore is about to exchange with `live`; after the exchange, what was live.
    Next(ContainerId),
    /// `containers/<id>/snapshots/<name>`.
    Snapshot(ContainerId, SnapshotName),
    /// `projects/<id>/databases`.
    Databases(ProjectId),
    /// `containers/<id>/databases/<name>`: the project's databases as they were when the snapshot `name` was taken.
    SnapshotDatabases(ContainerId, SnapshotName),
    /// `containers/<id>/next-databases`: what a restore is about to exchange with the project's databases; after the exchange, what they were.
    NextDatabases(ContainerId),
    /// `staging/<operation>`: half-made things; whatever lies there at start is garbage unless its operation is open.
    Staging(OperationId),
}

impl Volume {
    /// Whether nobody but this program ever writes to it, and it is read-only. Whoever is root in a container owns the roots of the other volumes, and of what
    /// is nested in them: nothing that is written there, nor the read-only flag, can be relied on.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self, Volume::Image(_) | Volume::Snapshot(..) | Volume::SnapshotDatabases(..))
    }
}

impl fmt::Display for Volume {
    /// For people: `live volume of container 65f0…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Volume::Image(n) => write!(f, "volume of image {n}"),
            Volume::Live(c) => write!(f, "live volume of container {c}"),
            Volume::Next(c) => write!(f, "next volume of container {c}"),
            Volume::Snapshot(c, n) => write!(f, "snapshot {n} of container {c}"),
            Volume::Databases(p) => write!(f, "database volume of project {p}"),
            Volume::SnapshotDatabases(c, n) => write!(f, "databases in snapshot {n} of container {c}"),
            Volume::NextDatabases(c) => write!(f, "next database volume for container {c}"),
            Volume::Staging(o) => write!(f, "staging volume of operation {o}"),
        }
    }
}
