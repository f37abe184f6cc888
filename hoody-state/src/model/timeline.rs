//! The commit graph: where the states of containers come from.

use crate::clock::rfc3339;
use crate::error::{Error, Result};
use crate::id::{ContainerId, OperationId, ProjectId, ServerId};
use crate::name::{Alias, SnapshotName};
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What made a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A container was made from an image.
    Create,
    /// A snapshot: of the live state, or one that was copied along with a container (`copy_of`, `source`).
    Snapshot,
    /// A snapshot was restored.
    Restore,
    /// The last restore was undone.
    Undo,
    /// Single files were restored.
    RestoreFiles,
    /// A container was made as one of several copies.
    Fork,
    /// A container was copied, from this server or another.
    Copy,
    /// A copy was brought up to its source.
    Sync,
    /// A container went on on another server, or came from one.
    Move,
    /// The changes of a fork were taken over.
    Promote,
    /// A fork went back to its branch point or to its source's state.
    Reset,
    /// An image was imported.
    ImageImport,
    /// An image was made from a snapshot.
    ImageFromSnapshot,
    /// The live state of a container.
    Now,
}

impl NodeKind {
    /// Its word, as the wire and the catalog have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            NodeKind::Create => "create",
            NodeKind::Snapshot => "snapshot",
            NodeKind::Restore => "restore",
            NodeKind::Undo => "undo",
            NodeKind::RestoreFiles => "restore_files",
            NodeKind::Fork => "fork",
            NodeKind::Copy => "copy",
            NodeKind::Sync => "sync",
            NodeKind::Move => "move",
            NodeKind::Promote => "promote",
            NodeKind::Reset => "reset",
            NodeKind::ImageImport => "image_import",
            NodeKind::ImageFromSnapshot => "image_from_snapshot",
            NodeKind::Now => "now",
        }
    }

    /// The kind with this word.
    ///
    /// # Errors
    /// For a word of a later version.
    pub fn of(word: &str) -> Result<Self> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|_| Error::internal(format!("the history has a node of kind {word:?}")))
    }
}

/// The other container of a copy, a sync or a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeSource {
    /// The server that has it; null: this one.
    pub server_id: Option<ServerId>,
    /// The name of that server when it happened.
    #[serde(default)]
    pub server_name: Option<String>,
    /// The container there.
    pub container_id: ContainerId,
    /// Of a move: whether it goes on there. Else it comes from there.
    #[serde(default)]
    pub is_target: bool,
    /// The snapshot of that container, if there was one.
    #[serde(default)]
    pub snapshot: Option<SnapshotName>,
}

/// A state that existed, or the present one. What is null is left out of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineNode {
    /// Its id. It never changes and is never used again.
    pub id: String,
    /// What made it. Null: the caller may not see it (`hidden`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NodeKind>,
    /// The nodes that it comes from. Each is in this timeline (on this page or an older one) or in `outside`.
    pub parents: Vec<String>,
    /// The container; null: an image, or hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<ContainerId>,
    /// The name of the container: of a deleted one, its last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The container's project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// When it was made. A node is never dated before its parents.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Who asked for it: the name of a token, `root`, or what acts by itself (`sync`, `expiry`). Null: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The operation that made it. Operations are kept for a while only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// Of a snapshot: its name. Of a restore: what was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// Of a snapshot: its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// Of a snapshot: its description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of an image, and of a container that was made from one: the image's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Of a snapshot: bytes of file data it added since the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Of a snapshot: bytes of file data on the disk that come back when it is deleted. Null: not known (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frees_bytes: Option<Bytes>,
    /// Of "now": bytes of file data written since the newest snapshot of its line. Null: not known (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved_bytes: Option<Bytes>,
    /// Of a snapshot: why it must be kept; null: it need not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// Of a snapshot: the tier of the policy that took it. Always null: there are no policies yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Of a snapshot: when it will be deleted.
    #[serde(default, with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Timestamp>,
    /// Of a restore, and of what else replaces the live state: the node of the snapshot that keeps the state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrote: Option<String>,
    /// Of a snapshot that was copied along with a container: the node it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// The other container of a copy, a sync or a move, which may be on another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<NodeSource>,
    /// When it was deleted: it is only a placeholder, because others come from it.
    #[serde(default, with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub deleted_at: Option<Timestamp>,
    /// It belongs to a project that the caller may not see. Nothing but its id is said of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// How two nodes belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// `to` comes from `from`.
    Parent,
    /// `to` replaced the state that `from` keeps.
    Overwrote,
    /// `to` is a copy of `from`.
    Copy,
}

/// An edge of the graph, from the older node to the younger one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineEdge {
    /// The older node.
    pub from: String,
    /// The younger one, which is on this page.
    pub to: String,
    /// How they belong together.
    pub kind: EdgeKind,
}

/// A page of the commit graph of a container or a project, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeline {
    /// Newest first; a node comes before its parents. The first page begins with "now" of each container.
    pub nodes: Vec<TimelineNode>,
    /// The edges that lead to nodes of this page.
    pub edges: Vec<TimelineEdge>,
    /// Nodes that nodes of this page refer to and that are not in this timeline: of other containers, or hidden.
    pub outside: Vec<TimelineNode>,
    /// What to ask with for the next, older page; null: this is the last one.
    pub next_cursor: Option<String>,
}

/// Which part of a timeline is asked for.
#[derive(Debug, Clone, Default)]
pub struct TimelineRequest {
    /// The `next_cursor` of the page before; `None`: from now on.
    pub cursor: Option<String>,
    /// At most so many nodes beside "now": 1 to 10,000.
    pub limit: u32,
    /// Whether snapshots that were copied along with a container are in it.
    pub copies: bool,
    /// How long to wait for sizes that have still to be measured.
    pub wait: std::time::Duration,
}

impl TimelineNode {
    /// A node of which nothing is known.
    pub(crate) fn blank() -> Self {
        TimelineNode {
            id: String::new(),
            kind: None,
            parents: Vec::new(),
            container_id: None,
            container_name: None,
            project_id: None,
            created_at: Timestamp::UNIX_EPOCH,
            author: None,
            operation_id: None,
            snapshot: None,
            alias: None,
            description: None,
            image: None,
            size: None,
            frees_bytes: None,
            unsaved_bytes: None,
            pinned: None,
            tier: None,
            expires_at: None,
            overwrote: None,
            copy_of: None,
            source: None,
            deleted_at: None,
            hidden: false,
        }
    }
}
