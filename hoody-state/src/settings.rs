//! What an operator sets.

use crate::error::{Code, Error, Result};
use crate::model::IdentityPart;
use crate::runtime::Network;
use crate::units::Bytes;
use std::time::Duration;

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long the undo snapshot of a restore is kept. Default: 24 h.
    pub undo_expiry: Duration,
    /// Snapshots a container may have.
    pub max_snapshots: Option<u64>,
    /// Containers the server may have.
    pub max_containers: Option<u64>,
    /// The disk limit of a container that says nothing of it.
    pub default_disk: Option<Bytes>,
    /// Volumes that may be nested in one that is copied.
    pub max_nested_volumes: u32,
    /// How long a stop waits before it kills. Default: 10 s.
    pub stop_timeout: Duration,
    /// How long a freeze may take before it is undone. Default: 5 s.
    pub freeze_timeout: Duration,
    /// How long a transfer that broke off waits before it is tried again; doubled each time. Default: 0.5 s.
    pub transfer_pause: Duration,
    /// What a copy gets anew before its first boot. Default: all there is.
    pub new_identity: Vec<IdentityPart>,
    /// Whether containers may use the host's network. Default: those that are made here.
    pub host_network: HostNetwork,
}

/// Which containers may use the host's network, where whoever makes them has that right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostNetwork {
    /// None; those that there are do not start.
    Never,
    /// Those that are made on this server.
    #[default]
    Local,
    /// Also those that other servers copy or move here.
    Any,
}

impl HostNetwork {
    /// # Errors
    /// `host_network_denied`, when a container with this network may not be here.
    pub(crate) fn check(self, network: Network, from_elsewhere: bool) -> Result<()> {
        let allowed = match self {
            HostNetwork::Never => false,
            HostNetwork::Local => !from_elsewhere,
            HostNetwork::Any => true,
        };
        if network != Network::Host || allowed {
            return Ok(());
        }
        let why = match self {
            HostNetwork::Never => "containers on this server may not use the host's network (serve --host-network never): say network: none",
            _ => "this server takes no containers from other servers that use the host's network: it takes serve --host-network any there",
        };
        Err(Error::new(Code::HostNetworkDenied, why))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            undo_expiry: Duration::from_secs(24 * 3600),
            max_snapshots: None,
            max_containers: None,
            default_disk: None,
            max_nested_volumes: 256,
            stop_timeout: Duration::from_secs(10),
            freeze_timeout: Duration::from_secs(5),
            transfer_pause: Duration::from_millis(500),
            new_identity: IdentityPart::ALL.to_vec(),
            host_network: HostNetwork::default(),
        }
    }
}
