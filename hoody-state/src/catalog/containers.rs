use super::{Tx, json, ms, time, to_json};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, LogId, OperationId, ProjectId, RunId, ServerId};
use crate::model::{CopiedIdentity, DatabaseScope, Filesystem, PageRequest, RamdiskScope, Share, Status, StatusLog};
use crate::name::{ContainerName, SnapshotName};
use crate::runtime::Network;
use crate::transfer::CopiedSpec;
use crate::units::{Bytes, Generation, VolumeId};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the caller asked a container to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub color: String,
    pub image: String,
    pub ai: bool,
    pub autostart: bool,
    pub ramdisk: bool,
    pub ramdisk_scope: RamdiskScope,
    pub env: BTreeMap<String, String>,
    pub comment: Option<String>,
    pub source: Option<ContainerId>,
    /// The server that `source` is on; nothing: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ServerId>,
    pub command: Vec<String>,
    pub cpu: Option<f64>,
    pub memory_mib: Option<u64>,
    /// Bytes its volumes and snapshots may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    pub databases: DatabaseScope,
    pub filesystem: Filesystem,
    pub network: Network,
    /// Whether it has a socket for a part of the API, from its next start on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub api_socket: bool,
}

impl From<ContainerSpec> for CopiedSpec {
    fn from(spec: ContainerSpec) -> Self {
        let ContainerSpec {
            color,
            image,
            ai,
            autostart,
            ramdisk,
            ramdisk_scope,
            env,
            comment,
            source,
            origin,
            command,
            cpu,
            memory_mib,
            disk,
            databases,
            filesystem,
            network,
            api_socket,
        } = spec;
        CopiedSpec {
            color,
            image,
            ai,
            autostart,
            ramdisk,
            ramdisk_scope,
            env,
            comment,
            source,
            origin,
            command,
            cpu,
            memory_mib,
            disk,
            databases,
            filesystem,
            network,
            api_socket,
        }
    }
}

impl From<CopiedSpec> for ContainerSpec {
    fn from(spec: CopiedSpec) -> Self {
        let CopiedSpec {
            color,
            image,
            ai,
            autostart,
            ramdisk,
            ramdisk_scope,
            env,
            comment,
            source,
            origin,
            command,
            cpu,
            memory_mib,
            disk,
            databases,
            filesystem,
            network,
            api_socket,
        } = spec;
        ContainerSpec {
            color,
            image,
            ai,
            autostart,
            ramdisk,
            ramdisk_scope,
            env,
            comment,
            source,
            origin,
            command,
            cpu,
            memory_mib,
            disk,
            databases,
            filesystem,
            network,
            api_socket,
        }
    }
}

/// What the operator last wanted a container to do; what a boot of the host goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Desired {
    Running,
    Stopped,
}

/// What is true of a container beside its status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub desired: Desired,
    /// The run under way, or the last one.
    pub run: Option<RunId>,
    pub started_ms: Option<i64>,
    /// The snapshot the live volume grew from, if it is still there.
    pub head: Option<SnapshotName>,
    /// Since when it grows from there.
    pub since_ms: i64,
    /// The generation at which the live volume was cloned from its image: what a first snapshot's size is counted from.
    pub origin: Generation,
    /// The last snapshot restored.
    pub last_used: Option<SnapshotName>,
    /// What the last restore kept of the state before.
    pub undo: Option<SnapshotName>,
    /// Why it failed.
    pub message: Option<String>,
    /// A copy that has no live volume yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partial: bool,
    /// A copy whose project got its databases from it: a sync brings them along.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follows_databases: bool,
    /// Of a copy on its source's host: the source's snapshot that it was last brought up to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<VolumeId>,
    /// Of a copy: its own snapshot that it was last brought up to its source with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<SnapshotName>,
    /// The live volume that grew from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced_live: Option<VolumeId>,
    /// The move that may boot it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// Of a copy that is a machine of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<CopiedIdentity>,
}

/// A container that is moving here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The move, by its operation at the source.
    pub id: OperationId,
    /// Whether the source has given it away: from then on it runs here or nowhere.
    pub taken: bool,
    /// Whether it was called off: then it is never taken.
    #[serde(default, skip_serializing_if = "is_false")]
    pub called_off: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(b: &bool) -> bool {
    !*b
}

/// A container's row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerRow {
    pub id: ContainerId,
    pub project: ProjectId,
    pub name: ContainerName,
    pub status: Status,
    pub status_since: Timestamp,
    pub ssh_public_key: Option<String>,
    pub spec: ContainerSpec,
    pub state: ContainerState,
    pub created: Timestamp,
    pub updated: Timestamp,
}

const COLUMNS: &str = "id, project_id, name, status, status_ms, ssh_public_key, spec, state, created_ms, updated_ms";

pub(crate) fn status(word: &str) -> Result<Status> {
    serde_json::from_value(serde_json::Value::String(word.to_owned()))
        .map_err(|_| Error::new(Code::CatalogCorrupt, format!("the catalog has a status {word:?}, which is none")))
}

fn row(r: &Row<'_>) -> rusqlite::Result<Result<ContainerRow>> {
    let (id, project, name, st): (String, String, String, String) = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?);
    let (since, ssh_public_key, spec, state): (i64, Option<String>, String, String) = (r.get(4)?, r.get(5)?, r.get(6)?, r.get(7)?);
    let (created, updated): (i64, i64) = (r.get(8)?, r.get(9)?);
    Ok((|| {
        Ok(ContainerRow {
            id: id.parse()?,
            project: project.parse()?,
            name: name.parse()?,
            status: status(&st)?,
            status_since: time(since),
            ssh_public_key,
            spec: json(&spec, "container")?,
            state: json(&state, "container")?,
            created: time(created),
            updated: time(updated),
        })
    })())
}

fn unknown(id: &ContainerId) -> Error {
    Error::new(Code::ContainerNotFound, format!("there is no container {id}"))
}

pub(crate) fn find(c: &Connection, id: &ContainerId) -> Result<Option<ContainerRow>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE id = ?1"))?.query_row([id.as_str()], row).optional()?.transpose()
}

pub(crate) fn get(c: &Connection, id: &ContainerId) -> Result<ContainerRow> {
    find(c, id)?.ok_or_else(|| unknown(id))
}

/// All of them, or those of a project, without order.
pub(crate) fn all(c: &Connection, project: Option<&ProjectId>) -> Result<Vec<ContainerRow>> {
    let wanted = super::projects::scope("project_id", project.map(std::slice::from_ref));
    let mut s = c.prepare(&format!("SELECT {COLUMNS} FROM containers WHERE {wanted}"))?;
    s.query_map([], row)?.map(|r| r?).collect()
}

pub(crate) fn page(c: &Connection, req: &PageRequest, project: Option<&ProjectId>, only: Option<&[ProjectId]>) -> Result<(Vec<ContainerRow>, u64)> {
    let column =
        super::projects::sort(req, &[("id", "id"), ("name", "name"), ("status", "status"), ("created_at", "created_ms"), ("updated_at", "updated_ms")])?;
    let wanted = format!("{} AND {}", super::projects::scope("project_id", project.map(std::slice::from_ref)), super::projects::scope("project_id", only));
    let total: u64 = c.query_row(&format!("SELECT count(*) FROM containers WHERE {wanted}"), [], |r| r.get(0))?;
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE {wanted} {}", super::projects::order(column, "id", req)))?;
    let rows = s.query_map([], row)?.map(|r| r?).collect::<Result<Vec<_>>>()?;
    Ok((rows, total))
}

pub(crate) fn count(c: &Connection, project: Option<&ProjectId>) -> Result<u64> {
    let wanted = super::projects::scope("project_id", project.map(std::slice::from_ref));
    Ok(c.query_row(&format!("SELECT count(*) FROM containers WHERE {wanted} AND status <> 'deleting'"), [], |r| r.get(0))?)
}

/// How many containers have each status, as [`Container::status`](crate::model::Container) shows it: one that is being synced is `copying`.
pub(crate) fn by_status(c: &Connection) -> Result<BTreeMap<&'static str, u64>> {
    let mut s = c.prepare_cached(
        "SELECT CASE WHEN status <> 'deleting' AND EXISTS(SELECT 1 FROM operations o WHERE o.resource_id = containers.id AND o.status = 'running'
                                                          AND o.kind = 'container.sync')
                THEN 'copying' ELSE status END AS shown, count(*)
         FROM containers GROUP BY shown",
    )?;
    let rows = s.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))?;
    rows.map(|row| {
        let (word, count) = row?;
        Ok((status(&word)?.as_str(), count))
    })
    .collect()
}

pub(crate) fn logs(c: &Connection, id: &ContainerId, req: &PageRequest) -> Result<(Vec<StatusLog>, u64)> {
    let column = match &req.sort_by {
        None => "seq",
        Some(_) => super::projects::sort(
            req,
            &[("transition_time", "transition_ms"), ("created_at", "transition_ms"), ("to_status", "to_status"), ("from_status", "from_status")],
        )?,
    };
    let total: u64 = c.query_row("SELECT count(*) FROM status_logs WHERE container_id = ?1", [id.as_str()], |r| r.get(0))?;
    let mut s = c.prepare_cached(&format!(
        "SELECT id, from_status, to_status, transition_ms, duration_ms, triggered_by, metadata FROM status_logs WHERE container_id = ?1 {}",
        super::projects::order(column, "seq", req)
    ))?;
    let rows = s.query_map([id.as_str()], |r| {
        let (log, from, to): (String, Option<String>, String) = (r.get(0)?, r.get(1)?, r.get(2)?);
        let (at, duration_ms, triggered_by, metadata): (i64, Option<u64>, String, Option<String>) = (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?);
        Ok((|| {
            Ok(StatusLog {
                id: log.parse()?,
                container_id: id.clone(),
                from_status: from.as_deref().map(status).transpose()?,
                to_status: status(&to)?,
                transition_time: time(at),
                duration_ms,
                triggered_by,
                metadata: metadata.as_deref().map(|m| json(m, "status log")).transpose()?,
            })
        })())
    })?;
    Ok((rows.map(|r| r?).collect::<Result<_>>()?, total))
}

/// Why a row could not be written: another container has its name or its SSH key.
fn taken(c: &Connection, e: rusqlite::Error, r: &ContainerRow) -> Error {
    if e.sqlite_error_code() != Some(rusqlite::ErrorCode::ConstraintViolation) {
        return e.into();
    }
    let has_key = "SELECT EXISTS(SELECT 1 FROM containers WHERE ssh_public_key = ?1 AND id <> ?2)";
    if c.query_row(has_key, params![r.ssh_public_key, r.id.as_str()], |r| r.get(0)).unwrap_or(false) {
        Error::new(Code::SshPublicKeyInUse, "another container has this SSH public key: use another or clear it there")
    } else {
        Error::new(Code::ContainerNameInUse, format!("there is a container {:?} in this project already: choose another name", r.name.as_str()))
    }
}

/// Shares that ended with their owner or their receiver.
#[must_use = "receivers still see them: hand them to `Shares::ended` after the commit"]
pub(crate) struct EndedShares(pub Vec<Share>);

impl Tx<'_> {
    /// Adds a container. The schedules of the policy that applies to it begin: after the commit their runner is to be told (`world.policies.ring()`).
    pub(crate) fn insert_container(&mut self, r: &ContainerRow, by: &str) -> Result<()> {
        self.conn
            .execute(
                "INSERT INTO containers(id, project_id, name, status, status_ms, ssh_public_key, spec, state, created_ms, updated_ms)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    r.id.as_str(),
                    r.project.as_str(),
                    r.name.as_str(),
                    r.status.as_str(),
                    ms(r.status_since),
                    r.ssh_public_key,
                    to_json(&r.spec)?,
                    to_json(&r.state)?,
                    ms(r.created),
                    ms(r.updated)
                ],
            )
            .map_err(|e| taken(self.conn, e, r))?;
        self.align_schedules(&r.id)?;
        self.log_status(r, None, by, None)
    }

    /// Reads the row as it is now, changes it, writes it back; a change of status goes into the log and is announced.
    pub(crate) fn change_container(
        &mut self,
        id: &ContainerId,
        by: &str,
        meta: Option<serde_json::Value>,
        f: impl FnOnce(&mut ContainerRow),
    ) -> Result<ContainerRow> {
        let before = get(self.conn, id)?;
        let mut r = before.clone();
        f(&mut r);
        let moved = r.status != before.status;
        if moved {
            r.status_since = self.now;
        }
        r.updated = self.now;
        self.conn
            .execute(
                "UPDATE containers SET name = ?2, status = ?3, status_ms = ?4, ssh_public_key = ?5, spec = ?6, state = ?7, updated_ms = ?8 WHERE id = ?1",
                params![
                    id.as_str(),
                    r.name.as_str(),
                    r.status.as_str(),
                    ms(r.status_since),
                    r.ssh_public_key,
                    to_json(&r.spec)?,
                    to_json(&r.state)?,
                    ms(r.updated)
                ],
            )
            .map_err(|e| taken(self.conn, e, &r))?;
        if moved {
            self.log_status(&r, Some(&before), by, meta)?;
        }
        Ok(r)
    }

    fn log_status(&mut self, r: &ContainerRow, before: Option<&ContainerRow>, by: &str, meta: Option<serde_json::Value>) -> Result<()> {
        let duration = before.map(|b| (ms(self.now) - ms(b.status_since)).max(0));
        self.conn.execute(
            "INSERT INTO status_logs(id, container_id, from_status, to_status, transition_ms, duration_ms, triggered_by, metadata) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                LogId::generate().as_str(),
                r.id.as_str(),
                before.map(|b| b.status.as_str()),
                r.status.as_str(),
                ms(self.now),
                duration,
                by,
                meta.as_ref().map(to_json).transpose()?
            ],
        )?;
        let mut extra = serde_json::json!({ "triggered_by": by });
        if let (Some(extra), Some(serde_json::Value::Object(meta))) = (extra.as_object_mut(), meta) {
            extra.extend(meta);
        }
        self.emit_container(&format!("container.{}", r.status.as_str()), r, extra)
    }

    /// Deletes the row of a container with everything that is of it alone: snapshots, status log, shares, policy. The receivers of the shares that end with it are to
    /// be brought in line after the commit: `world.shares.ended(&shares)`.
    pub(crate) fn delete_container(&mut self, id: &ContainerId) -> Result<EndedShares> {
        let ended = self.delete_shares_of(id)?;
        self.forget_container(id)?;
        self.forget_policies_of(id)?;
        for sql in ["DELETE FROM snapshots WHERE container_id = ?1", "DELETE FROM status_logs WHERE container_id = ?1", "DELETE FROM containers WHERE id = ?1"]
        {
            self.conn.execute(sql, [id.as_str()])?;
        }
        Ok(EndedShares(ended))
    }
}
