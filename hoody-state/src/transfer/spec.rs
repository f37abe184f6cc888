//! What a container is, on the wire between servers. The catalog has a row of its own, which may change without another version of the protocol.

use crate::id::{ContainerId, ServerId};
use crate::model::run::Network;
use crate::model::{DatabaseScope, Filesystem, RamdiskScope};
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a container is, as servers tell one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopiedSpec {
    /// Its colour, for people.
    pub color: String,
    /// The image it was made of.
    pub image: String,
    /// Whether an agent works in it.
    pub ai: bool,
    /// Whether it starts with its host.
    pub autostart: bool,
    /// Whether it has a RAM disk.
    pub ramdisk: bool,
    /// Whether the RAM disk holds that of its project.
    pub ramdisk_scope: RamdiskScope,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// A text for people.
    pub comment: Option<String>,
    /// The container it was copied from.
    pub source: Option<ContainerId>,
    /// The server that `source` is on; nothing: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ServerId>,
    /// argv of its init; empty: that of the image.
    pub command: Vec<String>,
    /// How many processors it may use.
    pub cpu: Option<f64>,
    /// How many MiB of memory it may use.
    pub memory_mib: Option<u64>,
    /// Bytes its volumes and snapshots may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Whose databases it has.
    pub databases: DatabaseScope,
    /// How its root is kept.
    pub filesystem: Filesystem,
    /// Its network.
    pub network: Network,
    /// Whether it has a socket for a part of the API of its server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub api_socket: bool,
}
