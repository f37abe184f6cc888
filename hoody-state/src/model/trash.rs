//! Deleted containers that can still be recovered.

use super::run::Network;
use super::{Container, DatabaseScope, Pagination};
use crate::clock::rfc3339;
use crate::id::{ContainerId, ProjectId};
use crate::name::ContainerName;
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A deleted container in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrashedContainer {
    /// Its id, which it keeps when it is recovered.
    pub id: ContainerId,
    /// The project that it was in.
    pub project_id: ProjectId,
    /// Its name. Another container may have that name by now.
    pub name: ContainerName,
    /// The image that it was created from.
    pub container_image: String,
    /// When it was created.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was deleted.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub deleted_at: Timestamp,
    /// When it is deleted for good.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
    /// How many snapshots it has.
    pub snapshot_count: u64,
    /// What it had written when it was deleted, if this server counts that. About as much comes back when it is deleted for good.
    pub size: Option<Bytes>,
    /// Where its databases are. Private ones are in the trash with it.
    pub databases: DatabaseScope,
    /// Its network.
    pub network: Network,
}

/// A page of the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrashPage {
    /// The containers, the last deleted first.
    pub containers: Vec<TrashedContainer>,
    /// Where they stand.
    pub pagination: Pagination,
}

/// How a container is recovered from the trash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoverRequest {
    /// Its new name. Absent: the name that it had.
    pub name: Option<String>,
    /// The project to put it into. Absent: the one that it was in.
    pub project_id: Option<ProjectId>,
}

/// A recovered container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recovered {
    /// It, stopped, with the id that it had.
    pub container: Container,
    /// How many snapshots it has, which are all that it had.
    pub snapshot_count: u64,
    /// What it had before and has not now, a sentence each. Empty: nothing.
    pub not_recovered: Vec<String>,
}

/// How a container or a project is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// For good, whatever the policy of the container says.
    pub permanently: bool,
}
