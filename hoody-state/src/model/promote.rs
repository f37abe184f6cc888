use super::Snapshot;
use crate::id::{ContainerId, OperationId};
use crate::name::SnapshotName;
use serde::{Deserialize, Serialize};

/// Whose version is taken where a fork and its target contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// The fork's.
    Fork,
    /// The target's.
    Target,
}

/// How the changes of a fork are taken over.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromoteRequest {
    /// The id of the container that takes them; absent: the one that the fork came from. It must share a branch point with the fork.
    pub into: Option<String>,
    /// Whose version is taken where both changed the same differently; absent: nothing is changed then, and the conflicts are listed.
    pub prefer: Option<Prefer>,
}

/// What a fork or its target did to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SideChange {
    /// It has something at a name that was free.
    Added,
    /// It put another file or directory there.
    Replaced,
    /// It changed the content.
    Modified,
    /// It changed owner, mode or attributes.
    Metadata,
    /// It gave it another name.
    Renamed,
    /// It deleted it.
    Deleted,
    /// It changed something in the directory, or a part of the database.
    ChangedWithin,
}

/// Something that the fork and its target changed differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromoteConflict {
    /// Where it is. Bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// The bytes of `path`, percent-encoded, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// What the fork did.
    pub fork: SideChange,
    /// What the target did.
    pub target: SideChange,
}

/// The snapshot from which a fork branched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BranchPoint {
    /// The container whose snapshot it is.
    pub container_id: ContainerId,
    /// Its name there.
    pub snapshot: SnapshotName,
}

/// A promotion's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Promoted {
    /// True: a failure is an error.
    pub success: bool,
    /// For people.
    pub message: String,
    /// The fork, which stays as it is.
    pub fork_id: ContainerId,
    /// The container that took its changes over.
    pub target_id: ContainerId,
    /// What both grew from.
    pub branch_point: BranchPoint,
    /// How many names and objects were changed in the target; null while it goes on.
    pub changes: Option<u64>,
    /// How many conflicts were resolved as `prefer` says; null while it goes on.
    pub conflict_count: Option<u64>,
    /// Those conflicts, at most 100.
    pub conflicts: Vec<PromoteConflict>,
    /// The target's snapshot that keeps what it was before; null if nothing had to be changed.
    pub undo: Option<SnapshotName>,
    /// The operation, if it had not ended when the answer was given (`Prefer: wait`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// What a fork goes back to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetTo {
    /// The state in which it branched off, or that of its last sync.
    #[default]
    BranchPoint,
    /// What its source is now.
    Source,
}

/// How a fork is reset.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResetRequest {
    /// Default `branch_point`.
    #[serde(default)]
    pub to: Option<ResetTo>,
    /// Boot afterwards; default: if it ran or was paused before.
    pub start: Option<bool>,
}

/// A reset's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResetAnswer {
    /// True: a failure is an error.
    pub success: bool,
    /// For people.
    pub message: String,
    /// The fork.
    pub container_id: ContainerId,
    /// What it goes back to.
    pub to: ResetTo,
    /// The fork's own snapshot of that state; null while it goes on.
    pub snapshot: Option<Snapshot>,
    /// What was kept of the state before; null while it goes on.
    pub undo: Option<SnapshotName>,
    /// The operation, if it had not ended when the answer was given (`Prefer: wait`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}
