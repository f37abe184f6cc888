//! Containers between servers: what two of them say to each other, and how bytes go.
//!
//! **Vocabulary.** The *source* has the container, the *target* makes or keeps a copy of it. Each knows the other as a *peer* (its address, a token for
//! replication, the certificate it must show). An *identity* is what a snapshot's content is known by on whichever server it is
//! ([`Transferable::identity`](crate::snapshot::Transferable::identity)).
//!
//! **The target pulls.** It asks for the source's list, then for one snapshot after the other, each as an increment on one that it has already. So the
//! side where something comes into being journals it, cleans up after itself, and goes on where it was: what is there and whole is not asked for again.
//! The source only reads; it keeps nothing about a transfer but the snapshots themselves.
//!
//! **Guarantees.** A snapshot is in the target's list when it is whole, verified (a checksum on every command of the stream, one on the compressed
//! whole, the kernel's identity at the end) and durable. Wherever a transfer ends, the source is as it was.
//!
//! [`Transport`] carries both sides' words; [`memory`] within one process, HTTP in the crate `hoody-state-http`.

pub mod memory;
mod meter;
mod spec;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[allow(clippy::panic)]
mod wire_tests;

pub(crate) use meter::{Compressor, Meter, decompressed};
pub use spec::CopiedSpec;

use crate::error::Result;
use crate::id::{ContainerId, OperationId, ProjectId, ServerId};
use crate::model::{CopiedIdentity, CopyState, Server, Snapshot, Token};
use crate::name::{ContainerName, ProjectAlias, SnapshotName};
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use std::time::Duration;
use uuid::Uuid;

/// What two servers must agree on to understand each other.
pub const VERSION: u32 = 2;

/// How a peer is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// What it is called here, for messages.
    pub name: String,
    /// `https://host:port`, or `http://` on loopback.
    pub url: String,
    /// A replication token of the peer.
    pub token: String,
    /// PEM: the certificate it shows, or of the authority that signed it.
    pub ca: Option<String>,
}

impl fmt::Debug for PeerAddress {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {} at {}", self.name, self.url)
    }
}

/// Writes the bytes of a stream that was offered to a peer.
pub type StreamWriter = Box<dyn FnOnce(&mut dyn Write) -> Result<()> + Send>;

/// A host as its peers reach it: whatever carries the requests hands them to one of these. `Host` is one.
pub trait Responder: Send + Sync {
    /// What a token may do, if it is one of this host's.
    fn authenticate(&self, token: &str) -> Result<Option<Token>>;

    /// Answers the server that `token` belongs to.
    fn answer(&self, token: &Token, request: Request) -> Result<Answer>;

    /// Finds what that server requests; the writer then sends it.
    fn offer(&self, token: &Token, request: &StreamRequest) -> Result<StreamWriter>;
}

/// Carries requests to a peer and its answers back.
pub trait Transport: Send + Sync + fmt::Debug {
    /// One request, one answer, within `timeout`. Errors: the peer's own (kind and message, with its code where this side knows it); `peer_unreachable`,
    /// which says nothing of whether the request arrived; `peer_refused` for an answer that is none.
    fn call(&self, peer: &PeerAddress, request: &Request, timeout: Duration) -> Result<Answer>;

    /// A snapshot's bytes, compressed. An end before the end shows in the bytes. Errors as for [`Transport::call`]; a peer that falls silent ends the reader.
    fn stream(&self, peer: &PeerAddress, request: &StreamRequest) -> Result<Box<dyn Read + Send>>;
}

/// What one server asks of another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Request {
    /// Who are you?
    Hello {
        /// The server that asks. A token that belongs to no server yet is this one's from then on.
        #[serde(default)]
        from: Option<ServerId>,
    },
    /// Could this copy be made? Asked before anything is changed for it.
    CheckCopy(Box<CopyOrder>),
    /// Make a copy of a container of mine: the source asks the target. The same order again is no second one.
    Copy(Box<CopyOrder>),
    /// What snapshots has this container of yours?
    Inventory {
        /// The source.
        container: ContainerId,
        /// The copy that was ordered of it.
        copy: ContainerId,
    },
    /// A snapshot of your container as it is now, unless nothing has changed since one that I have.
    Fresh {
        /// The source.
        container: ContainerId,
        /// The copy that asks.
        copy: ContainerId,
        /// Identities of the newest snapshots that the copy has.
        have: Vec<Uuid>,
    },
    /// How is this copy?
    State {
        /// The copy.
        copy: ContainerId,
    },
    /// Bring the copy up to this snapshot of mine, and do not boot it: a move's last step but one.
    Advance {
        /// The copy.
        copy: ContainerId,
        /// The snapshot, by its name at the source.
        snapshot: SnapshotName,
        /// The move.
        handover: OperationId,
    },
    /// Boot the copy, or do not ever for this move: a move's last step. Answered when it is done.
    HandOver {
        /// The copy.
        copy: ContainerId,
        /// The move.
        handover: OperationId,
        /// Whether it goes on there.
        start: bool,
        /// The identity of the snapshot that it must have been brought up to.
        identity: Option<Uuid>,
    },
    /// A move came to nothing: the copy that was made for it may go.
    Discard {
        /// The copy.
        copy: ContainerId,
        /// The move.
        handover: OperationId,
    },
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `Hello`.
    Hello {
        /// Which server.
        server: Server,
        /// Its [`VERSION`].
        version: u32,
        /// The first host id of its containers: they must agree.
        id_base: u32,
    },
    /// To `Inventory`: oldest first.
    Inventory {
        /// All snapshots.
        snapshots: Vec<Offered>,
    },
    /// To `Fresh`.
    Fresh {
        /// The snapshot to bring over; nothing: the copy's newest that both have is what the container is now.
        snapshot: Option<Box<Offered>>,
        /// The source's name of the newest snapshot that both have.
        base: Option<SnapshotName>,
        /// Its identity.
        base_identity: Option<Uuid>,
    },
    /// To `CheckCopy`: it could.
    Possible {},
    /// To `Copy`, `State`, `Advance`, `HandOver`.
    Copy(Box<CopyState>),
}

/// A snapshot that a peer has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Offered {
    /// As in its list.
    pub snapshot: Snapshot,
    /// Its content.
    pub identity: Uuid,
    /// That of the databases that it took along.
    pub databases: Option<Uuid>,
    /// About how many bytes of file data it has, or added to its parent.
    pub bytes: Bytes,
}

/// A copy to be made by the target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopyOrder {
    /// The copy's id, chosen by the source, so that the same order twice is one copy.
    pub copy: ContainerId,
    /// The source's server: a peer of the target's.
    pub server: ServerId,
    /// The source.
    pub source: ContainerId,
    /// What it begins from.
    pub snapshot: SnapshotName,
    /// Its project there.
    pub project: ProjectId,
    /// The project's name and colour, should it have to be made.
    pub project_alias: Option<(ProjectAlias, String)>,
    /// Its name.
    pub name: ContainerName,
    /// Its key.
    pub ssh_public_key: Option<String>,
    /// What it is.
    pub spec: CopiedSpec,
    /// Whether it boots.
    pub start: bool,
    /// The move that it is made for: no other may bring it up, boot or discard it.
    #[serde(default)]
    pub handover: Option<OperationId>,
    /// What it has of an identity of its own; nothing: it stays what the source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<CopiedIdentity>,
    /// Bytes a second.
    pub rate_limit: Option<Bytes>,
}

/// One snapshot's bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamRequest {
    /// The source.
    pub container: ContainerId,
    /// The copy that was ordered of it.
    pub copy: ContainerId,
    /// Its snapshot.
    pub snapshot: SnapshotName,
    /// Its databases instead of its own volume.
    pub databases: bool,
    /// The source's snapshot on which it is to be an increment.
    pub base: Option<SnapshotName>,
}
