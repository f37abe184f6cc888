//! Restoring single files, as the wire has it.

use crate::id::{ContainerId, OperationId};
use crate::name::SnapshotName;
use serde::{Deserialize, Serialize};

/// Which files are restored, and how. Paths are those of the container, absolute; links before the last name are followed inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestoreFiles {
    /// The paths. At most 1,000, those of `paths_encoded` included.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Further paths, percent-encoded: for names that are not UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths_encoded: Vec<String>,
    /// A directory of the container that they are put into, under their own names. Default: each goes to where it was.
    #[serde(default)]
    pub to: Option<String>,
    /// The same, percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_encoded: Option<String>,
    /// Names that are not in the snapshot are deleted: a directory is replaced as a whole, and a path that is not in the snapshot is removed. Default: they stay.
    #[serde(default)]
    pub delete_new: bool,
    /// `revert`: databases among the paths go back although other containers use them too. Without it such a request is refused. `keep` means nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<super::DatabasesChoice>,
}

/// What became of each path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilesRestored {
    /// The container.
    pub container_id: ContainerId,
    /// The snapshot that they come from.
    pub snapshot: SnapshotName,
    /// The paths that are as in the snapshot now.
    pub restored: Vec<PathRestored>,
    /// The paths that are as they were. Of a directory whose content goes into one that is there, the message says so if a part is restored.
    pub failed: Vec<PathFailed>,
    /// The snapshot that has the state before.
    pub undo: Option<SnapshotName>,
    /// The operation that restores them, if it had not ended when the answer was given (`Prefer: wait`). The result of each path is then known to a repeated
    /// request with the same `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// A path that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathRestored {
    /// The path; bytes that are not UTF-8 are replaced by U+FFFD.
    pub path: String,
    /// The path percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
}

/// A path that was not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathFailed {
    /// The path; bytes that are not UTF-8 are replaced by U+FFFD.
    pub path: String,
    /// The path percent-encoded, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoded: Option<String>,
    /// One of the codes of errors.
    pub code: String,
    /// For people.
    pub message: String,
}
