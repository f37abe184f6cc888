use crate::clock::rfc3339;
use crate::id::{ContainerId, ProjectId, UserId};
use crate::name::{ContainerName, ProjectAlias};
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A group of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is: the server has one user.
    pub user_id: UserId,
    /// Its name.
    pub alias: ProjectAlias,
    /// `#RRGGBB`, upper case.
    pub color: String,
    /// How many containers it may have.
    pub max_containers: Option<u32>,
    /// Bytes that its containers and databases may hold together; null: no limit.
    #[serde(default)]
    pub disk: Option<Bytes>,
    /// Never, here.
    pub is_default: bool,
    /// Always empty: this server has no realms.
    pub realm_ids: Vec<String>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
}

/// A project to be made, or what to change of one (the alias always given, absent fields unchanged).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectInput {
    /// 1–100 characters, unique. Required.
    pub alias: Option<String>,
    /// `#RGB` or `#RRGGBB`, with or without `#`; made up when absent.
    pub color: Option<String>,
    /// At least 0; null: no limit.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub max_containers: Option<Option<i64>>,
    /// Bytes that its containers and databases may hold together, as a number or as `"20G"`; null: no limit.
    #[serde(default, deserialize_with = "super::present_size", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub disk: Option<Option<Bytes>>,
}

/// What went with a project.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectDeleted {
    /// How many of each.
    pub deleted: DeletedCounts,
    /// Which, if asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_items: Option<DeletedItems>,
}

/// How many of each went.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedCounts {
    /// Containers.
    pub containers: u64,
    /// Always 0.
    pub permissions: u64,
    /// Always 0.
    pub aliases: u64,
}

/// What went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedItems {
    /// Containers.
    pub containers: Vec<DeletedContainer>,
}

/// A container that went.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
}
