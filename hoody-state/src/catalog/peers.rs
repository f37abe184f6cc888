//! Other servers, and the copies that were made there.

use super::{Tx, ms, time};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId, ServerId};
use crate::model::Peer;
use crate::transfer::PeerAddress;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A peer and what is never shown of it.
pub(crate) struct PeerRow {
    pub peer: Peer,
    pub address: PeerAddress,
}

const COLUMNS: &str = "id, server_id, name, server_name, url, token, ca, created_ms";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<PeerRow>> {
    let (id, server, name, server_name): (String, String, String, String) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
    let (url, token, ca, created): (String, String, Option<String>, i64) = (r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?);
    Ok((|| {
        Ok(PeerRow {
            peer: Peer {
                id: id.parse()?,
                name: name.clone(),
                url: url.clone(),
                server_id: server.parse()?,
                server_name,
                pinned: ca.is_some(),
                created_at: time(created),
            },
            address: PeerAddress { name, url, token, ca },
        })
    })())
}

pub(crate) fn all(c: &Connection) -> Result<Vec<PeerRow>> {
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM peers ORDER BY created_ms, id"))?;
    s.query_map([], row)?.map(|r| r?).collect()
}

/// The peer that is this server.
pub(crate) fn of_server(c: &Connection, server: &ServerId) -> Result<Option<PeerRow>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM peers WHERE server_id = ?1"))?.query_row([server.as_str()], row).optional()?.transpose()
}

/// Where a container that was copied from here is.
pub(crate) fn copy_elsewhere(c: &Connection, id: &ContainerId) -> Result<Option<(ServerId, ProjectId)>> {
    let found: Option<(String, String)> = c
        .prepare_cached("SELECT server_id, project_id FROM copies_elsewhere WHERE container_id = ?1")?
        .query_row([id.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    found.map(|(s, p)| Ok((s.parse()?, p.parse()?))).transpose()
}

/// What is known of a copy that was ordered from here on another server.
pub(crate) enum Ordered {
    /// It is of this container.
    Of(ContainerId),
    /// It was ordered before sources were kept.
    Unknown,
}

/// The copy `id` on `server`, if it was ordered from here.
pub(crate) fn ordered_copy(c: &Connection, id: &ContainerId, server: &ServerId) -> Result<Option<Ordered>> {
    let found: Option<Option<String>> = c
        .prepare_cached("SELECT source_id FROM copies_elsewhere WHERE container_id = ?1 AND server_id = ?2")?
        .query_row([id.as_str(), server.as_str()], |r| r.get(0))
        .optional()?;
    found.map(|source| source.map_or(Ok(Ordered::Unknown), |s| Ok(Ordered::Of(s.parse()?)))).transpose()
}

/// A server by what a person calls it: a peer's name or id, or a server's id.
pub(crate) fn server_called(c: &Connection, which: &str) -> Result<Option<ServerId>> {
    let found: Option<String> =
        c.prepare_cached("SELECT server_id FROM peers WHERE id = ?1 OR server_id = ?1 OR name = ?1")?.query_row([which], |r| r.get(0)).optional()?;
    found.map(|s| s.parse()).transpose()
}

impl Tx<'_> {
    /// Makes a peer known, or known anew: a server has one entry.
    pub(crate) fn put_peer(&mut self, p: &PeerRow) -> Result<()> {
        let (peer, address) = (&p.peer, &p.address);
        self.conn.execute("DELETE FROM peers WHERE server_id = ?1", [peer.server_id.as_str()])?;
        self.conn
            .execute(
                &format!("INSERT INTO peers({COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
                params![peer.id.as_str(), peer.server_id.as_str(), peer.name, peer.server_name, address.url, address.token, address.ca, ms(peer.created_at)],
            )
            .map_err(|e| match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::ConstraintViolation) => {
                    Error::new(Code::PeerNameInUse, format!("another peer is called {:?}: give this one another name", peer.name))
                }
                _ => e.into(),
            })?;
        Ok(())
    }

    /// Forgets a peer by its id, its server's id or its name.
    pub(crate) fn delete_peer(&mut self, which: &str) -> Result<()> {
        let deleted = self.conn.execute("DELETE FROM peers WHERE id = ?1 OR server_id = ?1 OR name = ?1", [which])?;
        let shown: String = which.chars().take(100).collect();
        if deleted > 1 {
            // The transaction is rolled back.
            let m = format!("{shown:?} is the id of one peer and the name of another: delete the other one by its id first");
            return Err(Error::new(Code::NameAmbiguous, m));
        }
        if deleted == 0 {
            return Err(Error::new(Code::PeerNotFound, format!("there is no peer with the id or name {shown:?}")));
        }
        Ok(())
    }

    pub(crate) fn put_copy_elsewhere(&mut self, id: &ContainerId, source: &ContainerId, server: &ServerId, project: &ProjectId) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO copies_elsewhere(container_id, source_id, server_id, project_id, created_ms) VALUES(?1, ?2, ?3, ?4, ?5)";
        self.conn.execute(sql, params![id.as_str(), source.as_str(), server.as_str(), project.as_str(), ms(self.now)])?;
        Ok(())
    }

    /// Forgets a copy that was refused there.
    pub(crate) fn remove_copy_elsewhere(&mut self, id: &ContainerId) -> Result<()> {
        self.conn.execute("DELETE FROM copies_elsewhere WHERE container_id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Notes the source of a copy that was ordered before sources were kept.
    pub(crate) fn set_copy_source(&mut self, id: &ContainerId, source: &ContainerId) -> Result<()> {
        self.conn.execute("UPDATE copies_elsewhere SET source_id = ?1 WHERE container_id = ?2 AND source_id IS NULL", [source.as_str(), id.as_str()])?;
        Ok(())
    }
}
