//! Deleted containers that can be recovered.

use super::containers::{self, ContainerRow, ContainerSpec, ContainerState, EndedShares};
use super::snapshots::{self, SnapshotRow};
use super::{Tx, json, ms, time, to_json};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::model::{PageRequest, TrashedContainer};
use crate::name::ContainerName;
use crate::units::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is kept of a deleted container's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub ssh_public_key: Option<String>,
    pub spec: ContainerSpec,
    pub state: ContainerState,
    pub created_ms: i64,
    pub snapshots: Vec<SnapshotRow>,
    /// How many shares ended with it.
    #[serde(default)]
    pub shares: u64,
}

/// A deleted container that can be recovered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrashRow {
    pub id: ContainerId,
    pub project: ProjectId,
    pub name: ContainerName,
    pub content: Content,
    pub size: Option<Bytes>,
    pub deleted_ms: i64,
    pub expires_ms: i64,
}

impl TrashRow {
    pub(crate) fn view(&self) -> TrashedContainer {
        let c = &self.content;
        TrashedContainer {
            id: self.id.clone(),
            project_id: self.project.clone(),
            name: self.name.clone(),
            container_image: c.spec.image.clone(),
            created_at: time(c.created_ms),
            deleted_at: time(self.deleted_ms),
            expires_at: time(self.expires_ms),
            snapshot_count: c.snapshots.len() as u64,
            size: self.size,
            databases: c.spec.databases,
            network: c.spec.network,
        }
    }
}

const COLUMNS: &str = "id, project_id, name, content, size, deleted_ms, expires_ms";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<TrashRow>> {
    let (id, project, name, content): (String, String, String, String) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
    let (size, deleted_ms, expires_ms): (Option<u64>, i64, i64) = (r.get(4)?, r.get(5)?, r.get(6)?);
    Ok((|| {
        Ok(TrashRow {
            id: id.parse()?,
            project: project.parse()?,
            name: name.parse()?,
            content: json(&content, "trash")?,
            size: size.map(Bytes),
            deleted_ms,
            expires_ms,
        })
    })())
}

/// Error: `trash_not_found`.
pub(crate) fn get(c: &Connection, id: &ContainerId) -> Result<TrashRow> {
    let found = c.prepare_cached(&format!("SELECT {COLUMNS} FROM trash WHERE id = ?1"))?.query_row([id.as_str()], row).optional()?.transpose()?;
    found.ok_or_else(|| Error::new(Code::TrashNotFound, format!("there is no container {id} in the trash: GET /trash lists what is there")))
}

/// A page, the last deleted first, of these projects; `None`: of all.
pub(crate) fn page(c: &Connection, req: &PageRequest, only: Option<&[ProjectId]>) -> Result<(Vec<TrashRow>, u64)> {
    let column = match &req.sort_by {
        None => "deleted_ms",
        Some(_) => super::projects::sort(req, &[("id", "id"), ("name", "name"), ("deleted_at", "deleted_ms"), ("expires_at", "expires_ms"), ("size", "size")])?,
    };
    let wanted = super::projects::scope("project_id", only);
    let total: u64 = c.query_row(&format!("SELECT count(*) FROM trash WHERE {wanted}"), [], |r| r.get(0))?;
    let mut s = c.prepare(&format!("SELECT {COLUMNS} FROM trash WHERE {wanted} {}", super::projects::order(column, "id", req)))?;
    Ok((s.query_map([], row)?.map(|r| r?).collect::<Result<_>>()?, total))
}

fn ids_of(c: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<ContainerId>> {
    let mut s = c.prepare_cached(sql)?;
    s.query_map(params, |r| r.get::<_, String>(0))?.map(|id| id?.parse()).collect()
}

/// All that are in the trash.
pub(crate) fn ids(c: &Connection) -> Result<Vec<ContainerId>> {
    ids_of(c, "SELECT id FROM trash", [])
}

/// The one of this project that was deleted first.
pub(crate) fn oldest(c: &Connection, project: &ProjectId) -> Result<Option<ContainerId>> {
    Ok(ids_of(c, "SELECT id FROM trash WHERE project_id = ?1 ORDER BY deleted_ms, id LIMIT 1", [project.as_str()])?.pop())
}

/// Those that have expired by `now`, and when the next one will.
pub(crate) fn expired(c: &Connection, now: Timestamp) -> Result<(Vec<ContainerId>, Option<Timestamp>)> {
    let due = ids_of(c, "SELECT id FROM trash WHERE expires_ms <= ?1 ORDER BY expires_ms", [ms(now)])?;
    let next: Option<i64> = c.query_row("SELECT min(expires_ms) FROM trash WHERE expires_ms > ?1", [ms(now)], |r| r.get(0))?;
    Ok((due, next.map(time)))
}

impl Tx<'_> {
    /// Moves the rows of a container that has been deleted into the trash. Its status log and its history stay, unseen. The receivers of the shares that end
    /// with it are to be brought in line after the commit. Of its project more than `most` expire at once, the first deleted first.
    pub(crate) fn put_into_trash(&mut self, r: &ContainerRow, size: Option<Bytes>, shares: u64, expires: Timestamp, most: Option<u32>) -> Result<EndedShares> {
        let id = &r.id;
        let ended = self.delete_shares_of(id)?;
        let content = Content {
            ssh_public_key: r.ssh_public_key.clone(),
            spec: r.spec.clone(),
            state: r.state.clone(),
            created_ms: ms(r.created),
            snapshots: snapshots::all(self.conn, id)?,
            shares: shares + ended.len() as u64,
        };
        self.conn.execute(
            "INSERT OR REPLACE INTO trash(id, project_id, name, content, size, deleted_ms, expires_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![id.as_str(), r.project.as_str(), r.name.as_str(), to_json(&content)?, size.map(|b| b.0), ms(self.now), ms(expires)],
        )?;
        if let Some(most) = most {
            self.conn.execute(
                "UPDATE trash SET expires_ms = min(expires_ms, ?3) WHERE id IN
                   (SELECT id FROM trash WHERE project_id = ?1 ORDER BY deleted_ms DESC, id = ?4 DESC, id DESC LIMIT -1 OFFSET ?2)",
                params![r.project.as_str(), most, ms(self.now), id.as_str()],
            )?;
        }
        // Its policy stays, for when it is recovered.
        self.keep_schedules(id, &BTreeSet::new())?;
        self.hide_history(id, r.name.as_str())?;
        for sql in ["DELETE FROM snapshots WHERE container_id = ?1", "DELETE FROM containers WHERE id = ?1"] {
            self.conn.execute(sql, [id.as_str()])?;
        }
        Ok(EndedShares(ended))
    }

    /// The history of a container in the trash stays, and timelines show of it what they show of a deleted container: what others come from.
    fn hide_history(&mut self, id: &ContainerId, name: &str) -> Result<()> {
        self.conn.execute(
            "UPDATE history SET deleted_ms = coalesce(deleted_ms, ?2), container_name = ?3,
               project_id = CASE WHEN seq IN (SELECT e.parent FROM history_edges e JOIN history c ON c.seq = e.child WHERE c.container_id IS NOT ?1)
                                   OR seq IN (SELECT c.copy_of FROM history c WHERE c.copy_of IS NOT NULL AND c.container_id IS NOT ?1) THEN project_id END
             WHERE container_id = ?1",
            params![id.as_str(), ms(self.now), name],
        )?;
        Ok(())
    }

    fn show_history(&mut self, row: &TrashRow, project: &ProjectId) -> Result<()> {
        let names: Vec<&str> = row.content.snapshots.iter().map(|s| s.snapshot.name.as_str()).collect();
        self.conn.execute(
            "UPDATE history SET deleted_ms = NULL, container_name = NULL
             WHERE container_id = ?1 AND deleted_ms = ?2 AND (snapshot IS NULL OR snapshot IN (SELECT value FROM json_each(?3)))",
            params![row.id.as_str(), row.deleted_ms, to_json(&names)?],
        )?;
        self.conn.execute("UPDATE history SET project_id = ?2 WHERE container_id = ?1", [row.id.as_str(), project.as_str()])?;
        Ok(())
    }

    /// Takes a row out of the trash. Error: `trash_not_found`.
    pub(crate) fn take_from_trash(&mut self, id: &ContainerId) -> Result<TrashRow> {
        let found = get(self.conn, id)?;
        self.conn.execute("DELETE FROM trash WHERE id = ?1", [id.as_str()])?;
        Ok(found)
    }

    /// Puts the snapshots of a recovered container back into the list. The time in the trash does not count for those that expire.
    pub(crate) fn recover_snapshots(&mut self, row: &TrashRow, project: &ProjectId) -> Result<()> {
        let away = jiff::SignedDuration::from_millis((ms(self.now) - row.deleted_ms).max(0));
        self.show_history(row, project)?;
        // The oldest first: their nodes are the parents of later ones, where these are not in the history any more.
        for s in row.content.snapshots.iter().rev() {
            let mut s = s.clone();
            s.snapshot.expires_at = s.snapshot.expires_at.map(|at| at.checked_add(away).unwrap_or(at));
            self.put_snapshot(&row.id, &s)?;
        }
        Ok(())
    }

    /// Forgets a container of the trash for good.
    pub(crate) fn forget_trashed(&mut self, id: &ContainerId, project: &ProjectId) -> Result<()> {
        // It may be there again: recovered, and deleted anew while this one was tried again.
        if containers::find(self.conn, id)?.is_some() {
            return Ok(());
        }
        let name: Option<String> = self
            .conn
            .query_row("SELECT container_name FROM history WHERE container_id = ?1 AND container_name IS NOT NULL LIMIT 1", [id.as_str()], |r| r.get(0))
            .optional()?;
        self.conn.execute("UPDATE history SET project_id = ?2 WHERE container_id = ?1", [id.as_str(), project.as_str()])?;
        self.forget_container(id)?;
        // That took its name from its row, which has gone already.
        self.conn.execute("UPDATE history SET container_name = ?2 WHERE container_id = ?1", params![id.as_str(), name])?;
        self.conn.execute("DELETE FROM status_logs WHERE container_id = ?1", [id.as_str()])?;
        self.forget_policies_of(id)
    }
}
