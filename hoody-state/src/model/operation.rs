use crate::clock::rfc3339;
use crate::id::OperationId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OperationStatus {
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Undone, or as far as the error says.
    Failed,
    /// Undone because someone asked.
    Cancelled,
}

/// A change that is under way or was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Such as `container.create`.
    pub kind: String,
    /// `container`, `project` or `image`.
    pub resource_type: String,
    /// Id or name of what it changes.
    pub resource_id: String,
    /// How far it is.
    pub status: OperationStatus,
    /// The step it is at, while it runs.
    pub step: Option<String>,
    /// Bytes or pieces done.
    pub done: Option<u64>,
    /// In all, where known.
    pub total: Option<u64>,
    /// Whether `total` is a guess: of a transfer it is, until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_is_estimate: Option<bool>,
    /// Bytes that went over the network, compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Bytes a second, of `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Why it failed.
    pub error: Option<OperationError>,
    /// When it began.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(with = "rfc3339::option")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationError {
    /// The stable word.
    pub code: String,
    /// For people.
    pub message: String,
}
