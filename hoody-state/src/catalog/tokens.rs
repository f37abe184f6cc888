use super::{Catalog, Durability, json, ms, time, to_json};
use crate::error::{Code, Error, Result};
use crate::id::{ProjectId, ServerId, TokenId};
use crate::model::{Rights, Token};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

fn row(r: &Row<'_>) -> rusqlite::Result<Result<Token>> {
    let (id, name, prefix): (String, String, String) = (r.get(0)?, r.get(1)?, r.get(2)?);
    let (projects, read_only, created, replication): (Option<String>, bool, i64, bool) = (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?);
    let peer: Option<String> = r.get(7)?;
    let host_network = r.get(8)?;
    Ok((|| {
        Ok(Token {
            id: id.parse()?,
            name,
            prefix,
            projects: projects.as_deref().map(|p| json(p, "token")).transpose()?,
            read_only,
            replication,
            peer: peer.as_deref().map(str::parse).transpose()?,
            host_network,
            created_at: time(created),
        })
    })())
}

const COLUMNS: &str = "id, name, prefix, projects, read_only, created_ms, replication, peer_server_id, host_network";

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

pub(crate) fn all(c: &Connection) -> Result<Vec<Token>> {
    let mut s = c.prepare(&format!("SELECT {COLUMNS} FROM tokens ORDER BY created_ms"))?;
    s.query_map([], row)?.map(|r| r?).collect()
}

pub(crate) fn get(c: &Connection, id: &TokenId) -> Result<Option<Token>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1"))?.query_row([id.as_str()], row).optional()?.transpose()
}

/// The token's row, if it is one of ours. Only the hash is stored, so the look-up tells nothing by its time.
pub(crate) fn authenticate(c: &Connection, token: &str) -> Result<Option<Token>> {
    if token.len() > 200 || !token.starts_with("hdy_") {
        return Ok(None);
    }
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1"))?.query_row([&hash(token)[..]], row).optional()?.transpose()
}

impl Catalog {
    /// Makes a token: its row, and the token itself, which is shown this once.
    pub(crate) fn create_token(
        &self,
        now: Timestamp,
        name: Option<&str>,
        projects: Option<Vec<ProjectId>>,
        rights: Rights,
        peer: Option<ServerId>,
    ) -> Result<(Token, String)> {
        let mut bytes = [0u8; 24];
        getrandom::fill(&mut bytes).map_err(|e| Error::new(Code::NoRandomness, format!("the kernel gives no random bytes: {e}")))?;
        let secret: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let token = format!("hdy_{secret}");
        let id = TokenId::generate();
        let name = match name.map(str::trim) {
            None | Some("") => format!("token-{}", &id.as_str()[16..]),
            Some(n) if n.chars().count() <= 100 && !n.chars().any(char::is_control) => n.to_owned(),
            Some(_) => return Err(Error::new(Code::InvalidTokenName, "a token's name is at most 100 characters, no control characters")),
        };
        let t = Token {
            id,
            name,
            prefix: token[..10].to_owned(),
            projects,
            read_only: rights == Rights::ReadOnly,
            replication: rights == Rights::Replication,
            peer,
            host_network: rights == Rights::FullAndHostNetwork,
            created_at: now,
        };
        self.write(Durability::Disk, now, |tx| {
            for p in t.projects.iter().flatten() {
                super::projects::get(tx.conn, self.user(), p)?;
            }
            tx.conn
                .execute(
                    "INSERT INTO tokens(id, name, hash, prefix, projects, read_only, created_ms, replication, peer_server_id, host_network) \
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    params![
                        t.id.as_str(),
                        t.name,
                        &hash(&token)[..],
                        t.prefix,
                        t.projects.as_ref().map(to_json).transpose()?,
                        t.read_only,
                        ms(now),
                        t.replication,
                        t.peer.as_ref().map(ServerId::as_str),
                        t.host_network
                    ],
                )
                .map_err(|e| match e.sqlite_error_code() {
                    Some(rusqlite::ErrorCode::ConstraintViolation) => {
                        Error::new(Code::TokenNameInUse, format!("there is a token {:?} already: choose another name or revoke it", t.name))
                    }
                    _ => e.into(),
                })?;
            Ok(())
        })?;
        Ok((t, token))
    }

    /// Revokes a token by id or name.
    pub(crate) fn revoke_token(&self, now: Timestamp, which: &str) -> Result<()> {
        self.write(Durability::Disk, now, |tx| {
            let deleted = tx.conn.execute("DELETE FROM tokens WHERE id = ?1 OR name = ?1", [which])?;
            if deleted > 1 {
                // The transaction is rolled back.
                let m = format!("{which:?} is the id of one token and the name of another: revoke the other one by its id first");
                return Err(Error::new(Code::NameAmbiguous, m));
            }
            if deleted == 0 {
                return Err(Error::new(Code::TokenNotFound, format!("there is no token with the id or name {which:?}: `token list` shows them")));
            }
            Ok(())
        })
    }
}

impl super::Tx<'_> {
    /// Gives a token that belongs to no server yet to `peer`; false if it belongs to one by now, or is revoked. Error: `peer_token_in_use` if the server has another.
    pub(crate) fn bind_token(&mut self, id: &TokenId, peer: &ServerId) -> Result<bool> {
        let other: Option<String> =
            self.conn.query_row("SELECT name FROM tokens WHERE peer_server_id = ?1 AND id <> ?2", [peer.as_str(), id.as_str()], |r| r.get(0)).optional()?;
        if let Some(name) = other {
            let message = format!(
                "server {peer} has the token {name:?} already, and this one was made for no server in particular: make a new one for it \
                 (`hoody-state-http token create --replication --peer {peer}`), or revoke the old one first"
            );
            return Err(Error::new(Code::PeerTokenInUse, message));
        }
        let changed = self
            .conn
            .execute("UPDATE tokens SET peer_server_id = ?1 WHERE id = ?2 AND replication AND peer_server_id IS NULL", [peer.as_str(), id.as_str()])?;
        Ok(changed == 1)
    }
}
