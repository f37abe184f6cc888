use crate::clock::rfc3339;
use crate::id::{ContainerId, OverrideId, ProjectId, ShareId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a share may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ShareMode {
    /// Nobody in the receiver writes, root neither.
    Readonly,
    /// As the files' own permissions say.
    Readwrite,
}

/// Whom a share is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ShareTarget {
    /// One container, once it has said yes.
    Container,
    /// Every container of a project, present and future, unless it says no.
    Project,
}

/// Whether a share can be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ShareStatus {
    /// Its source is there.
    Active,
    /// It is not: `status_message` says why. It is looked for again at every change and every start.
    Failed,
}

/// A share, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Share {
    /// Its id.
    pub id: ShareId,
    /// The container that has the directory.
    pub source_container_id: ContainerId,
    /// The directory in it.
    pub source_path: String,
    /// The receiver, if it is one.
    pub target_container_id: Option<ContainerId>,
    /// The project whose containers receive it, if it is that.
    pub target_project_id: Option<ProjectId>,
    /// Which of the two.
    pub target_type: ShareTarget,
    /// How it may be used.
    pub mode: ShareMode,
    /// Its name in the receiver; null: the last part of the path.
    pub alias: Option<String>,
    /// A word to find it by.
    pub label: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The owner's switch.
    pub enabled: bool,
    /// Whether it can be mounted.
    pub status: ShareStatus,
    /// Why not.
    pub status_message: Option<String>,
    /// When it is deleted by itself, in Unix seconds.
    pub expires_at: Option<u64>,
    /// Whether that its end is near was announced.
    pub expiry_notified: bool,
    /// Who made it.
    pub created_by: UserId,
    /// Always empty.
    pub realm_ids: Vec<String>,
    /// Where a receiver sees it; another that is called the same gets a few digits of its id behind.
    pub mount_path: String,
    /// Receivers in which a process still has something of it open, or stands in it, after this very call has taken it from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<ContainerId>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
}

/// A share, as a receiver sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncomingShare {
    /// Its id.
    pub id: ShareId,
    /// The container that has the directory.
    pub source_container_id: ContainerId,
    /// The directory in it.
    pub source_path: String,
    /// The receiver, if it is one.
    pub target_container_id: Option<ContainerId>,
    /// The project whose containers receive it, if it is that.
    pub target_project_id: Option<ProjectId>,
    /// Which of the two.
    pub target_type: ShareTarget,
    /// How it may be used.
    pub mode: ShareMode,
    /// The owner's switch.
    pub enabled: bool,
    /// Whether it can be mounted.
    pub status: ShareStatus,
    /// Why not.
    pub status_message: Option<String>,
    /// When it is deleted by itself, in Unix seconds.
    pub expires_at: Option<u64>,
    /// Who made it.
    pub created_by: UserId,
    /// The container that receives it.
    pub container_id: ContainerId,
    /// Whether that wants it: its own word, or what holds without one (yes for a project's, no for its own).
    pub mount: bool,
    /// Whether it is mounted whenever the container runs: both sides agree and the source is there.
    pub mounted: bool,
    /// Where.
    pub mount_path: String,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
}

/// A receiver's word on a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareOverride {
    /// Its id.
    pub id: OverrideId,
    /// On which share.
    pub share_id: ShareId,
    /// Whose word.
    pub container_id: ContainerId,
    /// Yes or no.
    pub mount: bool,
    /// When it was first given.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last given.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
}

/// The answer to a receiver's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareMounted {
    /// The share.
    pub share: Share,
    /// The word.
    #[serde(rename = "override")]
    pub word: ShareOverride,
}

/// A share to be made. Unknown fields are refused.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewShare {
    /// Absolute, of `A-Za-z0-9/-_.`.
    pub source_path: String,
    /// How it may be used.
    pub mode: ShareMode,
    /// The receiver. Exactly one of the two targets.
    pub target_container_id: Option<ContainerId>,
    /// The project whose containers receive it.
    pub target_project_id: Option<ProjectId>,
    /// 3–63 of `a-z0-9_-`; its name in the receiver.
    pub alias: Option<String>,
    /// 3–63 of `a-z0-9_-`.
    pub label: Option<String>,
    /// At most 1,000 characters.
    pub description: Option<String>,
    /// Default true.
    pub enabled: Option<bool>,
    /// Unix seconds, to come.
    pub expires_at: Option<u64>,
}

/// What to change of a share; absent is unchanged, null clears. Unknown fields are refused.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ShareUpdate {
    /// How it may be used.
    pub mode: Option<ShareMode>,
    /// Its name in the receiver.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub alias: Option<Option<String>>,
    /// A word to find it by.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub label: Option<Option<String>>,
    /// Free text.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub description: Option<Option<String>>,
    /// The owner's switch.
    pub enabled: Option<bool>,
    /// When it ends, in Unix seconds.
    #[serde(default, deserialize_with = "super::present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub expires_at: Option<Option<u64>>,
}

/// A receiver's word. Unknown fields are refused.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ShareWord {
    /// Yes or no.
    pub mount: bool,
}

/// Which shares.
#[derive(Debug, Clone, Default)]
pub struct ShareFilter {
    /// For one container or for a project.
    pub target_type: Option<ShareTarget>,
    /// With this label.
    pub label: Option<String>,
    /// That can be mounted or cannot.
    pub status: Option<ShareStatus>,
    /// Switched on or off.
    pub enabled: Option<bool>,
    /// Also those whose end has come but which are not deleted yet.
    pub include_expired: bool,
}
