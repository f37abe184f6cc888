//! Merging equal data of the pool.

use crate::clock::rfc3339;
use crate::id::{OperationId, ProjectId};
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where equal data are looked for, besides all images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DedupePool {
    /// The live states of this project's containers alone; absent: of all containers.
    #[serde(default)]
    pub project_id: Option<String>,
    /// Only of these containers, by their ids. Not more than 10,000.
    #[serde(default)]
    pub containers: Option<Vec<String>>,
    /// Smaller files are left out, as a number of bytes or as `"1M"`. Default: 4 KiB, below which files take no space of their own.
    #[serde(default, deserialize_with = "super::present_size", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub min_size: Option<Option<Bytes>>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolDeduped {
    /// The operation.
    pub operation_id: OperationId,
    /// The project, if it was about one.
    pub project_id: Option<ProjectId>,
    /// Space on the disk that came back: counted in the file system after a commit, as data are stored.
    pub gained_bytes: Bytes,
    /// Bytes of files that lie where equal ones lie now.
    pub merged_bytes: Bytes,
    /// Bytes that were read.
    pub read_bytes: Bytes,
    /// Bytes of equal data that stay as they are because something else holds them too: a snapshot, or a container that was not named. Counted by blocks, so about right.
    pub held_bytes: Bytes,
    /// Whether it was cancelled before its end. What was merged until then stays merged.
    pub cancelled: bool,
    /// When it ended.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub finished_at: Timestamp,
}

/// The answer to a request to merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DedupeAnswer {
    /// For people.
    pub message: String,
    /// The operation: `GET /operations/{id}` shows how far it is, `DELETE` ends it.
    pub operation_id: OperationId,
    /// What came of it. Null: it is still under way; `GET /pool/dedupe` has it afterwards.
    pub result: Option<PoolDeduped>,
}

/// The last run that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastDedupe {
    /// What came of it. Null: there was none that the caller may see.
    pub last: Option<PoolDeduped>,
}
