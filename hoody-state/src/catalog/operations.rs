//! The journal and its history in one table: an operation is open while its status is `running`, and its intent says all that
//! recovery needs.

use super::{Tx, ms, time};
use crate::error::{Code, Error, Result};
use crate::id::{OperationId, ProjectId};
use crate::model::{Operation, OperationError, OperationStatus, PageRequest};
use crate::units::VolumeId;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Closed operations kept.
const KEPT: u64 = 10_000;

const COLUMNS: &str = "id, kind, resource_type, resource_id, status, error_code, error_message, created_ms, finished_ms";

fn status_word(s: OperationStatus) -> &'static str {
    match s {
        OperationStatus::Running => "running",
        OperationStatus::Succeeded => "succeeded",
        OperationStatus::Failed => "failed",
        OperationStatus::Cancelled => "cancelled",
    }
}

fn row(r: &Row<'_>) -> rusqlite::Result<Result<Operation>> {
    let (id, kind, resource_type, resource_id): (String, String, String, String) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
    let (status, code, message): (String, Option<String>, Option<String>) = (r.get(4)?, r.get(5)?, r.get(6)?);
    let (created, finished): (i64, Option<i64>) = (r.get(7)?, r.get(8)?);
    Ok((|| {
        Ok(Operation {
            id: id.parse()?,
            kind,
            resource_type,
            resource_id,
            status: match status.as_str() {
                "running" => OperationStatus::Running,
                "succeeded" => OperationStatus::Succeeded,
                "cancelled" => OperationStatus::Cancelled,
                _ => OperationStatus::Failed,
            },
            step: None,
            done: None,
            total: None,
            total_is_estimate: None,
            sent: None,
            rate: None,
            error: code.map(|code| OperationError { code, message: message.unwrap_or_default() }),
            created_at: time(created),
            finished_at: finished.map(time),
        })
    })())
}

pub(crate) fn get(c: &Connection, id: &OperationId) -> Result<Operation> {
    c.query_row(&format!("SELECT {COLUMNS} FROM operations WHERE id = ?1"), [id.as_str()], row)
        .optional()?
        .unwrap_or_else(|| Err(Error::new(Code::OperationNotFound, format!("there is no operation {id}: finished ones are kept for a while only"))))
}

/// A page of the operations of these projects and of their containers; `None`: of all operations, those of images included.
pub(crate) fn page(c: &Connection, req: &PageRequest, only: Option<&[ProjectId]>) -> Result<(Vec<Operation>, u64)> {
    let column = super::projects::sort(req, &[("id", "id"), ("kind", "kind"), ("status", "status"), ("created_at", "created_ms")])?;
    let wanted = match only {
        None => "1".to_owned(),
        Some(_) => format!(
            "(resource_type = 'project' AND {} OR resource_type = 'container' AND resource_id IN (SELECT id FROM containers WHERE {}))",
            super::projects::scope("resource_id", only),
            super::projects::scope("project_id", only)
        ),
    };
    let total: u64 = c.query_row(&format!("SELECT count(*) FROM operations WHERE {wanted}"), [], |r| r.get(0))?;
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM operations WHERE {wanted} {}", super::projects::order(column, "id", req)))?;
    Ok((s.query_map([], row)?.map(|r| r?).collect::<Result<_>>()?, total))
}

/// How many operations are open.
pub(crate) fn count_open(c: &Connection) -> Result<u64> {
    Ok(c.query_row("SELECT count(*) FROM operations WHERE status = 'running'", [], |r| r.get(0))?)
}

/// A row of the journal: what was begun and has not ended.
#[derive(Debug, Clone)]
pub(crate) struct OpenRow {
    pub id: OperationId,
    pub kind: String,
    pub resource_type: String,
    pub resource_id: String,
    /// JSON that only the operation's own type can read.
    pub intent: String,
}

/// The journal, oldest first.
pub(crate) fn open(c: &Connection) -> Result<Vec<OpenRow>> {
    let mut s = c.prepare_cached("SELECT id, kind, resource_type, resource_id, intent FROM operations WHERE status = 'running' ORDER BY created_ms, id")?;
    let rows = s.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
    rows.map(|r| {
        let (id, kind, resource_type, resource_id, intent) = r?;
        Ok(OpenRow { id: id.parse()?, kind, resource_type, resource_id, intent })
    })
    .collect()
}

/// An operation that is about to begin, as the journal is to have it.
pub(crate) struct NewRow<'a> {
    pub id: &'a OperationId,
    pub kind: &'a str,
    pub resource_type: &'a str,
    pub resource: &'a str,
    pub project: Option<&'a ProjectId>,
    pub intent: &'a str,
    /// Who asked for it: the name of a token, or what acts by itself (`expiry`).
    pub author: Option<&'a str>,
}

/// Who asked for an operation, if that is known.
pub(crate) fn author(c: &Connection, id: &OperationId) -> Result<Option<String>> {
    Ok(c.prepare_cached("SELECT author FROM operations WHERE id = ?1")?.query_row([id.as_str()], |r| r.get(0)).optional()?.flatten())
}

/// The open operation of a thing, and its kind.
pub(crate) fn open_of(c: &Connection, resource: &str) -> Result<Option<(OperationId, String)>> {
    let found: Option<(String, String)> = c
        .prepare_cached("SELECT id, kind FROM operations WHERE resource_id = ?1 AND status = 'running' ORDER BY created_ms DESC LIMIT 1")?
        .query_row([resource], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    found.map(|(id, kind)| Ok((id.parse()?, kind))).transpose()
}

/// The operation under way on a thing, or its last one.
pub(crate) fn latest_of(c: &Connection, resource: &str) -> Result<Option<Operation>> {
    let sql = format!("SELECT {COLUMNS} FROM operations WHERE resource_id = ?1 ORDER BY status = 'running' DESC, rowid DESC LIMIT 1");
    c.prepare_cached(&sql)?.query_row([resource], row).optional()?.transpose()
}

/// A volume that is deleted and whose space is coming back.
#[derive(Debug, Clone)]
pub(crate) struct ReclaimRow {
    pub volume: VolumeId,
    pub what: String,
}

pub(crate) fn reclaiming(c: &Connection) -> Result<Vec<ReclaimRow>> {
    let mut s = c.prepare_cached("SELECT volume_id, what FROM reclaim ORDER BY created_ms, volume_id")?;
    Ok(s.query_map([], |r| Ok(ReclaimRow { volume: VolumeId(r.get(0)?), what: r.get(1)? }))?.collect::<rusqlite::Result<_>>()?)
}

impl Tx<'_> {
    /// Writes an intent.
    pub(crate) fn open_operation(&mut self, row: &NewRow<'_>) -> Result<()> {
        self.conn
            .prepare_cached("INSERT INTO operations(id, kind, resource_type, resource_id, project_id, intent, status, created_ms, author) VALUES(?1, ?2, ?3, ?4, ?5, ?6, 'running', ?7, ?8)")?
            .execute(params![row.id.as_str(), row.kind, row.resource_type, row.resource, row.project.map(ProjectId::as_str), row.intent, ms(self.now), row.author])?;
        if self.conn.last_insert_rowid() % 1000 == 0 {
            self.prune_operations()?;
        }
        Ok(())
    }

    /// Writes an intent anew, with what has been learnt on the way.
    pub(crate) fn amend_operation(&mut self, id: &OperationId, intent: &str) -> Result<()> {
        self.conn.prepare_cached("UPDATE operations SET intent = ?2 WHERE id = ?1")?.execute(params![id.as_str(), intent])?;
        Ok(())
    }

    /// Ends an operation.
    pub(crate) fn close_operation(&mut self, id: &OperationId, status: OperationStatus, error: Option<&Error>) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE operations SET status = ?2, error_code = ?3, error_message = ?4, finished_ms = ?5 WHERE id = ?1")?
            .execute(params![id.as_str(), status_word(status), error.map(|e| e.code().as_str()), error.map(Error::message), ms(self.now)])?;
        Ok(())
    }

    /// Forgets closed operations beyond what is kept.
    pub(crate) fn prune_operations(&mut self) -> Result<()> {
        self.conn.execute(
            "DELETE FROM operations WHERE status <> 'running' AND created_ms < (SELECT created_ms FROM operations ORDER BY created_ms DESC LIMIT 1 OFFSET ?1)",
            [KEPT],
        )?;
        Ok(())
    }

    pub(crate) fn add_reclaim(&mut self, volumes: &[VolumeId], what: &str) -> Result<()> {
        for v in volumes {
            self.conn.prepare_cached("INSERT OR IGNORE INTO reclaim(volume_id, what, created_ms) VALUES(?1, ?2, ?3)")?.execute(params![
                v.0,
                what,
                ms(self.now)
            ])?;
        }
        Ok(())
    }

    pub(crate) fn end_reclaim(&mut self, volume: VolumeId) -> Result<()> {
        self.conn.prepare_cached("DELETE FROM reclaim WHERE volume_id = ?1")?.execute([volume.0])?;
        Ok(())
    }
}
