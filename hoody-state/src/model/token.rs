use crate::clock::rfc3339;
use crate::id::{ProjectId, ServerId, TokenId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is known of a token; the token itself is shown once, at its making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Its name.
    pub name: String,
    /// Its first characters, to tell it by.
    pub prefix: String,
    /// The projects it reaches; `None`: all.
    pub projects: Option<Vec<ProjectId>>,
    /// May only read.
    pub read_only: bool,
    /// Is another server's, and good for copying containers between the two only.
    pub replication: bool,
    /// Of a replication token: the server that it belongs to, which is the one it was made for, or else the first that used it.
    pub peer: Option<ServerId>,
    /// May make containers that use the host's network.
    pub host_network: bool,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created_at: Timestamp,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rights {
    /// Everything in its projects.
    #[default]
    Full,
    /// Everything in its projects, and containers there that use the host's network.
    FullAndHostNetwork,
    /// Look.
    ReadOnly,
    /// What another server needs to copy containers, and nothing else.
    Replication,
}

impl Token {
    /// Whether it reaches a project.
    #[must_use]
    pub fn reaches(&self, project: &ProjectId) -> bool {
        self.projects.as_ref().is_none_or(|p| p.contains(project))
    }
}
