//! How anything changes: operation lock → journal intent → steps → catalog and journal closed in one transaction.
//!
//! An `Intent` is on the disk before its first side effect and holds all that recovery needs. Recovery is a function of the
//! intent and of what is found in the world, not of a recorded position: it may run after any step, any number of times. A failed
//! operation takes the same way as a crashed one, so that the code that undoes is the code that is tested by crashing.

mod caller;
#[cfg(feature = "crash-hooks")]
pub(crate) mod crash;
mod lock;
mod run;
pub mod step;

pub use caller::Caller;
pub(crate) use lock::{LockGuard, Locks};
pub(crate) use run::{Op, Progress, Registry, cancelled};

pub(crate) use crate::services::databases::DatabasesPlan;

use crate::catalog::snapshots::SnapshotRow;
use crate::id::{ContainerId, OperationId, RunId, ServerId};
use crate::model::{Image, Verb};
use crate::name::SnapshotName;
use crate::units::{Bytes, VolumeId};
use serde::{Deserialize, Serialize};

/// What is about to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Intent {
    /// Clone the image, boot. `cloned` once the volume exists and the caller may have been told.
    Create { container: ContainerId, image: Image, run: RunId, cloned: bool },
    /// Start, stop, restart, pause or resume.
    Lifecycle { container: ContainerId, verb: Verb, run: RunId },
    /// Kill, put the home into the trash, forget.
    Delete { container: ContainerId },
    /// Take a snapshot; then, if `replace` is given, let the one that had the alias go.
    Snapshot {
        container: ContainerId,
        row: Box<SnapshotRow>,
        replace: Option<SnapshotName>,
        /// Whether the project's databases come along.
        #[serde(default)]
        databases: bool,
    },
    /// Let a snapshot go; it is no longer in the list.
    DeleteSnapshot { container: ContainerId, name: SnapshotName },
    /// Put `snapshot` in the place of the live volume, whose id is `live`, and keep that as `keep`.
    Restore {
        container: ContainerId,
        snapshot: SnapshotName,
        keep: Box<SnapshotRow>,
        live: VolumeId,
        boot: bool,
        was_running: bool,
        run: RunId,
        by: String,
        #[serde(default)]
        databases: DatabasesPlan,
        /// The state before is not kept: it is in a snapshot already.
        #[serde(default)]
        discard: bool,
        /// What the caller's key is answered with in the end, where it is not the restore that was asked for.
        #[serde(default)]
        told: Option<serde_json::Value>,
    },
    /// Clone a snapshot of another container, bring its snapshots along, boot. From when its live volume exists the caller may have been told.
    Copy { container: ContainerId, source: ContainerId, snapshot: SnapshotName, run: RunId, start: bool },
    /// Bring a peer's container over and boot it; what it is a copy of is in its row.
    Receive {
        container: ContainerId,
        snapshot: SnapshotName,
        run: RunId,
        start: bool,
        limit: Option<Bytes>,
        /// A sync that goes on with an unfinished copy: cancelling it keeps what is there.
        #[serde(default)]
        resumes: bool,
    },
    /// Bring a copy up to its source; once that has come over, the intent becomes a restore's.
    Sync {
        container: ContainerId,
        force: bool,
        limit: Option<Bytes>,
        /// The snapshot to bring it up to, in a move; nothing: the source as it is.
        advance: Option<SnapshotName>,
    },
    /// Copy a container to a peer, let that one go on and stop here.
    Move {
        container: ContainerId,
        server: ServerId,
        copy: ContainerId,
        was_running: bool,
        /// Whether the peer may have been told to go on: then it decides which of the two runs.
        handing_over: bool,
        /// Whether it has taken it: then it is only to be stopped here.
        #[serde(default)]
        given: bool,
        /// What the copy must hold to go on.
        #[serde(default)]
        identity: Option<uuid::Uuid>,
    },
    /// Fill a staging volume from a stream and make it an image.
    Import { image: Image },
    /// Make an image of a snapshot.
    ImageFromSnapshot { image: Image, container: ContainerId, snapshot: SnapshotName },
    /// Let an image go; it is no longer in the list.
    DeleteImage { image: Image },
}

/// Whether `staging` is where the operation `op` puts half-made things: under its id, or one of its threads'.
pub(crate) fn works_in(op: &OperationId, staging: &OperationId) -> bool {
    op.as_str()[..26] == staging.as_str()[..26]
}

impl Intent {
    /// Its word in `GET /operations`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Intent::Create { .. } => "container.create",
            Intent::Lifecycle { verb, .. } => match verb {
                Verb::Start => "container.start",
                Verb::Stop => "container.stop",
                Verb::ForceStop => "container.force-stop",
                Verb::Restart => "container.restart",
                Verb::Pause => "container.pause",
                Verb::Resume => "container.resume",
            },
            Intent::Delete { .. } => "container.delete",
            Intent::Snapshot { .. } => "snapshot.create",
            Intent::DeleteSnapshot { .. } => "snapshot.delete",
            Intent::Restore { .. } => "snapshot.restore",
            Intent::Copy { .. } | Intent::Receive { .. } => "container.copy",
            Intent::Sync { .. } => "container.sync",
            Intent::Move { .. } => "container.move",
            Intent::Import { .. } => "image.import",
            Intent::ImageFromSnapshot { .. } => "image.from-snapshot",
            Intent::DeleteImage { .. } => "image.delete",
        }
    }

    /// What it changes: the kind of thing and its id.
    pub(crate) fn resource(&self) -> (&'static str, &str) {
        match self {
            Intent::Create { container, .. }
            | Intent::Lifecycle { container, .. }
            | Intent::Delete { container }
            | Intent::Snapshot { container, .. }
            | Intent::DeleteSnapshot { container, .. }
            | Intent::Restore { container, .. }
            | Intent::Copy { container, .. }
            | Intent::Receive { container, .. }
            | Intent::Sync { container, .. }
            | Intent::Move { container, .. } => ("container", container.as_str()),
            Intent::Import { image } | Intent::ImageFromSnapshot { image, .. } | Intent::DeleteImage { image } => ("image", image.name.as_str()),
        }
    }
}
