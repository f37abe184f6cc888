use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A part of what makes a machine a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityPart {
    /// `/etc/machine-id`.
    MachineId,
    /// `/etc/ssh/ssh_host_*_key`.
    SshHostKeys,
    /// What the random numbers of the next boot begin from.
    RandomSeed,
}

impl IdentityPart {
    /// All parts.
    pub const ALL: [IdentityPart; 3] = [IdentityPart::MachineId, IdentityPart::SshHostKeys, IdentityPart::RandomSeed];
}

/// What a copy has of an identity of its own. A copy without it is to stay what its source is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedIdentity {
    /// What the source's files of that kind held: path without a slash in front, and SHA-256. Nothing: it has not booted yet.
    #[serde(default)]
    pub inherited: Option<BTreeMap<String, String>>,
    /// The files that were exchanged for new ones.
    #[serde(default)]
    pub renewed: Vec<String>,
    /// Those that were removed.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// What makes a copy a machine of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContainerIdentity {
    /// True: the copy has not booted yet, and gets its own identity before it does.
    pub pending: bool,
    /// The files that have a new content: machine id, SSH host key, random seed, host name.
    pub renewed: Vec<String>,
    /// The files that were removed: SSH host keys of other kinds. The new key is an Ed25519 key.
    pub removed: Vec<String>,
}

impl From<&CopiedIdentity> for ContainerIdentity {
    fn from(c: &CopiedIdentity) -> Self {
        ContainerIdentity { pending: c.inherited.is_none(), renewed: c.renewed.clone(), removed: c.removed.clone() }
    }
}
