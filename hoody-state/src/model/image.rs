use crate::clock::rfc3339;
use crate::id::ImageId;
use crate::name::ImageName;
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A golden image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its name.
    pub name: ImageName,
    /// The same, as the published lists call it.
    pub alias: ImageName,
    /// The same, as the published lists call it.
    pub image_name: ImageName,
    /// Bytes of file data.
    pub size: Bytes,
    /// Files, directories and the rest; null where not counted (from a snapshot).
    pub files: Option<u64>,
    /// `import` or `snapshot`.
    pub source: String,
    /// Whether it is taken when a container names none.
    pub is_default: bool,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
}

/// The snapshot to make an image of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageFromSnapshot {
    /// Of which container.
    pub container_id: String,
    /// Name or alias.
    pub snapshot: String,
}
