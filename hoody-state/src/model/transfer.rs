use super::{Container, Operation};
use crate::clock::rfc3339;
use crate::error::Error;
use crate::id::{ContainerId, OperationId, PeerId, ServerId};
use crate::units::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A copy to be made. Fields of no meaning here are ignored.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyRequest {
    /// The project it belongs to. On another server it is made there, if that has none of this id.
    pub target_project_id: Option<String>,
    /// This server, or a peer; absent: this one.
    pub target_server_id: Option<String>,
    /// 3–100 of `[A-Za-z0-9_-]`; absent or `rand`: made up.
    pub name: Option<String>,
    /// Name or alias of the snapshot it begins from; absent: the live state, of which a snapshot is taken.
    pub source_snapshot: Option<String>,
    /// Unique on its server.
    pub ssh_public_key: Option<String>,
    /// Whether it boots when it is there; default true.
    pub start: Option<bool>,
    /// Bytes a second that a copy to another server may take; absent: no limit.
    pub rate_limit: Option<Bytes>,
    /// Whether the copy gets a machine id, SSH host key and random seed of its own before its first boot; default true. False for a copy that stands by for
    /// its source. A sync makes it false.
    pub new_identity: Option<bool>,
}

/// Several copies at once.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForkRequest {
    /// How many: 1–100.
    pub count: Option<u32>,
    /// Name or alias of the snapshot they begin from; absent: the live state, of which one snapshot is taken.
    pub source_snapshot: Option<String>,
    /// Their names are this and a number; absent: the container's name.
    pub name_prefix: Option<String>,
    /// Whether they boot; default true.
    pub start: Option<bool>,
    /// Whether each gets a machine id, SSH host key and random seed of its own before its first boot; default true.
    pub new_identity: Option<bool>,
    /// Whether they have the socket `/run/hoody.sock`; absent: as the container. Forks that a container makes by its own socket have none.
    pub api_socket: Option<bool>,
}

/// What became of each copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Forked {
    /// The container they were copied from.
    pub source_container_id: ContainerId,
    /// The snapshot they begin from.
    pub source_snapshot: crate::name::SnapshotName,
    /// One entry a copy, in order.
    pub results: Vec<ForkResult>,
}

/// What became of one copy: a container, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForkResult {
    /// The name it has or should have had.
    pub name: String,
    /// The copy.
    pub container: Option<Container>,
    /// Why there is none.
    pub error: Option<super::OperationError>,
}

/// How a copy is brought up to its source.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncRequest {
    /// False: a copy that was changed is left alone, with 409. Default true: what it changed is kept as a snapshot.
    pub force: Option<bool>,
    /// Bytes a second that it may take; absent: no limit.
    pub rate_limit: Option<Bytes>,
}

/// A sync that has begun, or is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncAnswer {
    /// The copy.
    pub container_id: ContainerId,
    /// What it is a copy of.
    pub source_container_id: ContainerId,
    /// `copying` while it goes on, then what the copy is doing.
    pub status: super::Status,
    /// The operation.
    pub operation_id: OperationId,
    /// Whether anything had to be brought over; null while it goes on.
    pub changed: Option<bool>,
    /// The snapshot in which changes of the copy's own are kept.
    pub kept: Option<crate::name::SnapshotName>,
}

/// A container to be moved.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveRequest {
    /// The peer it goes to.
    pub target_server_id: Option<String>,
    /// The project there; absent: that of the same id, which is made if there is none.
    pub target_project_id: Option<String>,
    /// Its name there; absent: the same.
    pub name: Option<String>,
    /// Bytes a second that it may take; absent: no limit.
    pub rate_limit: Option<Bytes>,
}

/// A move that has begun, or is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Moved {
    /// The container here; stopped once the move is done.
    pub container_id: ContainerId,
    /// The container there.
    pub target_container_id: ContainerId,
    /// The server it goes to.
    pub target_server_id: ServerId,
    /// What the container here is doing.
    pub status: super::Status,
    /// The operation.
    pub operation_id: OperationId,
    /// How long neither ran, in milliseconds; null while it goes on.
    pub downtime_ms: Option<u64>,
}

/// Another server that this one knows. Its token is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Peer {
    /// Its id in this list.
    pub id: PeerId,
    /// What it is called here.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// Its own id.
    pub server_id: ServerId,
    /// Its own name.
    pub server_name: String,
    /// Whether a certificate, or that of an authority, is pinned.
    pub pinned: bool,
    /// When it was made known.
    #[serde(with = "rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
}

/// A server to be made known.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPeer {
    /// What it is to be called here; absent: its own name.
    pub name: Option<String>,
    /// `https://host:port`; `http://` only to this very machine (loopback).
    pub url: String,
    /// A replication token of that server: `hoody-state-http token create --replication`.
    pub token: String,
    /// PEM: its certificate, or that of the authority that signed it. Absent: the public authorities.
    pub ca: Option<String>,
}

/// A container on a peer that was copied from here, as the peer says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyState {
    /// The copy.
    pub container: Container,
    /// What is being done to it, or was done last.
    pub operation: Option<Operation>,
}

impl ForkResult {
    pub(crate) fn of(name: String, made: Result<Container, Error>) -> Self {
        match made {
            Ok(c) => ForkResult { name, container: Some(c), error: None },
            Err(e) => ForkResult { name, container: None, error: Some(super::OperationError { code: e.code().to_string(), message: e.message().into() }) },
        }
    }
}
