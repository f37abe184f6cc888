//! Tokens of a pool, without a host.

use super::HostConfig;
use super::inspect::with_pool;
use crate::catalog::Catalog;
use crate::clock::{Clock, SystemClock};
use crate::error::{Code, Error, Result};
use crate::host::Host;
use crate::id::ProjectId;
use crate::model::{Rights, Token};
use crate::pool::layout;

/// The tokens of a pool, beside a running server or without one.
pub struct TokenStore {
    catalog: Catalog,
}

impl TokenStore {
    /// Makes a token; the token itself is shown this once.
    ///
    /// # Errors
    /// `invalid_token_name`, `token_name_in_use`, `project_not_found`.
    pub fn create(&self, name: Option<&str>, projects: Option<Vec<ProjectId>>, rights: Rights) -> Result<(Token, String)> {
        self.catalog.create_token(SystemClock.now(), name, projects, rights, None)
    }

    /// Makes a replication token. `peer` is the server it is for: a peer's name or id, or a server's id; without it, the token belongs to the first server that
    /// uses it. Without `projects` the server may copy containers of all projects and into all of them.
    ///
    /// # Errors
    /// `peer_not_found`, and as for [`TokenStore::create`].
    pub fn create_for_peer(&self, name: Option<&str>, projects: Option<Vec<ProjectId>>, peer: Option<&str>) -> Result<(Token, String)> {
        let server = |which: &str| {
            let known = self.catalog.read(|c| crate::catalog::peers::server_called(c, which))?;
            let missing = || {
                let message = format!(
                    "there is no peer {which:?}: give its server's id (`GET /servers` there), or leave --peer out, and the token belongs to the first server that uses it"
                );
                Error::new(Code::PeerNotFound, message)
            };
            known.map_or_else(|| which.parse().map_err(|_| missing()), Ok)
        };
        self.catalog.create_token(SystemClock.now(), name, projects, Rights::Replication, peer.map(server).transpose()?)
    }

    /// All tokens.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn list(&self) -> Result<Vec<Token>> {
        self.catalog.read(crate::catalog::tokens::all)
    }

    /// Revokes a token by id or name.
    ///
    /// # Errors
    /// `token_not_found`.
    pub fn revoke(&self, which: &str) -> Result<()> {
        self.catalog.revoke_token(SystemClock.now(), which)
    }
}

impl Host {
    /// The tokens of a pool, whether a server runs on it or not.
    ///
    /// # Errors
    /// `pool_not_found`, and those of `f`.
    pub fn with_tokens<T>(config: &HostConfig, f: impl FnOnce(&TokenStore) -> Result<T>) -> Result<T> {
        with_pool(config, |root, _| f(&TokenStore { catalog: Catalog::open(&root.join(layout::CATALOG))? }))
    }
}
