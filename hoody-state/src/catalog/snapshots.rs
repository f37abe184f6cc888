use super::{Tx, json, ms, time, to_json};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{Consistency, Snapshot};
use crate::name::{Alias, SnapshotName};
use crate::units::{Bytes, Generation};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// A snapshot and what only the catalog needs of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRow {
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// The transaction that made it: what the next one's size is counted from.
    pub generation: Generation,
}

const COLUMNS: &str = "name, alias, created_ms, last_used_ms, expires_ms, size, generation, parent, description, labels, pinned, consistency, \
    trigger, schedule, scheduled_ms, missed, replaced_alias";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<SnapshotRow>> {
    let (name, alias, created): (String, Option<String>, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
    let (last_used, expires, size, generation): (Option<i64>, Option<i64>, u64, u64) = (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?);
    let (parent, description, labels): (Option<String>, Option<String>, String) = (r.get(7)?, r.get(8)?, r.get(9)?);
    let (pinned, consistency): (Option<String>, String) = (r.get(10)?, r.get(11)?);
    let (trigger, schedule, scheduled, missed): (String, Option<String>, Option<i64>, Option<u64>) = (r.get(12)?, r.get(13)?, r.get(14)?, r.get(15)?);
    let replaced: Option<String> = r.get(16)?;
    Ok((|| {
        Ok(SnapshotRow {
            snapshot: Snapshot {
                databases: None,
                frees_bytes: None,
                name: name.parse()?,
                alias: alias.map(|a| a.parse::<Alias>()).transpose()?,
                replaced_alias: replaced.map(|a| a.parse::<Alias>()).transpose()?,
                created_at: time(created),
                last_used_at: last_used.map(time),
                expires_at: expires.map(time),
                stateful: false,
                size: Bytes(size),
                parent: parent.map(|p| p.parse::<SnapshotName>()).transpose()?,
                description,
                labels: if labels == "{}" { std::collections::BTreeMap::new() } else { json(&labels, "snapshot")? },
                pinned,
                consistency: if consistency == "crash" { Consistency::Crash } else { Consistency::DatabasesQuiesced },
                trigger: trigger.parse()?,
                schedule,
                scheduled_for: scheduled.map(time),
                missed,
            },
            generation: Generation(generation),
        })
    })())
}

/// Newest first.
pub(crate) fn all(c: &Connection, id: &ContainerId) -> Result<Vec<SnapshotRow>> {
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshots WHERE container_id = ?1 ORDER BY created_ms DESC, generation DESC, name DESC"))?;
    s.query_map([id.as_str()], row)?.map(|r| r?).collect()
}

pub(crate) fn count(c: &Connection, id: &ContainerId) -> Result<u64> {
    Ok(c.prepare_cached("SELECT count(*) FROM snapshots WHERE container_id = ?1")?.query_row([id.as_str()], |r| r.get(0))?)
}

pub(crate) fn by_name(c: &Connection, id: &ContainerId, name: &str) -> Result<Option<SnapshotRow>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshots WHERE container_id = ?1 AND name = ?2"))?
        .query_row([id.as_str(), name], row)
        .optional()?
        .transpose()
}

pub(crate) fn by_alias(c: &Connection, id: &ContainerId, alias: &str) -> Result<Option<SnapshotRow>> {
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM snapshots WHERE container_id = ?1 AND alias = ?2"))?
        .query_row([id.as_str(), alias], row)
        .optional()?
        .transpose()
}

/// The newest snapshot that a schedule of the container has taken.
pub(crate) fn newest_of_schedule(c: &Connection, id: &ContainerId, schedule: &str) -> Result<Option<SnapshotRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM snapshots WHERE container_id = ?1 AND schedule = ?2 AND trigger = 'schedule' ORDER BY created_ms DESC, generation DESC LIMIT 1"
    );
    c.prepare_cached(&sql)?.query_row([id.as_str(), schedule], row).optional()?.transpose()
}

/// A pinned snapshot of the container, if it has one.
pub(crate) fn pinned(c: &Connection, id: &ContainerId) -> Result<Option<SnapshotRow>> {
    let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE container_id = ?1 AND pinned IS NOT NULL ORDER BY name LIMIT 1");
    c.prepare_cached(&sql)?.query_row([id.as_str()], row).optional()?.transpose()
}

/// The snapshot that shows this name: that which has it as its alias, or has no alias and has it as its canonical name.
///
/// No two snapshots of a container show the same name: who gives one asks here first.
pub(crate) fn showing(c: &Connection, id: &ContainerId, name: &str) -> Result<Option<SnapshotRow>> {
    if let Some(r) = by_alias(c, id, name)? {
        return Ok(Some(r));
    }
    Ok(by_name(c, id, name)?.filter(|r| r.snapshot.alias.is_none()))
}

/// Whether a new snapshot may have this canonical name: no other has it as its canonical name or as its alias.
pub(crate) fn is_free(c: &Connection, id: &ContainerId, name: &str) -> Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM snapshots WHERE container_id = ?1 AND (name = ?2 OR alias = ?2))";
    Ok(!c.prepare_cached(sql)?.query_row([id.as_str(), name], |r| r.get::<_, bool>(0))?)
}

/// By alias, else by canonical name: a name that was given last wins over one that a snapshot once had.
pub(crate) fn get(c: &Connection, id: &ContainerId, name: &str) -> Result<SnapshotRow> {
    let found = by_alias(c, id, name)?.map_or_else(|| by_name(c, id, name), |r| Ok(Some(r)))?;
    found.ok_or_else(|| {
        let shown: String = name.chars().take(100).collect();
        Error::new(Code::SnapshotNotFound, format!("container {id} has no snapshot with the name or alias {shown:?}"))
    })
}

/// As [`get`], for what cannot be undone. Error: `snapshot_ambiguous` when the alias of one snapshot is the canonical name of another: a caller who took
/// the name from a list means the other one.
pub(crate) fn get_unambiguous(c: &Connection, id: &ContainerId, name: &str) -> Result<SnapshotRow> {
    let found = get(c, id, name)?;
    if found.snapshot.name.as_str() == name {
        return Ok(found);
    }
    let Some(other) = by_name(c, id, name)? else { return Ok(found) };
    let other = other.snapshot.alias.map_or_else(|| other.snapshot.name.to_string(), |a| a.to_string());
    let message = format!(
        "{name:?} is the alias of snapshot {} and the canonical name of snapshot {other}: say {} or {other}; nothing was changed",
        found.snapshot.name, found.snapshot.name
    );
    Err(Error::new(Code::SnapshotAmbiguous, message))
}

/// A snapshot that has expired.
pub(crate) type Due = (ContainerId, SnapshotName);

/// How many [`expired`] looks at.
pub(crate) const EXPIRED_AT_ONCE: usize = 1000;

/// The first of those that have expired by `now` and are not pinned, and when the next one will.
pub(crate) fn expired(c: &Connection, now: Timestamp) -> Result<(Vec<Due>, Option<Timestamp>)> {
    let mut s =
        c.prepare_cached("SELECT container_id, name, expires_ms FROM snapshots WHERE expires_ms IS NOT NULL AND pinned IS NULL ORDER BY expires_ms LIMIT ?1")?;
    let mut due = Vec::new();
    let mut next = None;
    let mut rows = s.query([EXPIRED_AT_ONCE])?;
    while let Some(r) = rows.next()? {
        let (id, name, at): (String, String, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
        if at <= ms(now) {
            due.push((id.parse()?, name.parse()?));
        } else {
            next = Some(time(at));
            break;
        }
    }
    Ok((due, next))
}

impl Tx<'_> {
    /// Writes a snapshot's row. A snapshot that is new gets its node in the history.
    pub(crate) fn put_snapshot(&mut self, id: &ContainerId, r: &SnapshotRow) -> Result<()> {
        let s = &r.snapshot;
        self.conn
            .prepare_cached(
                "INSERT INTO snapshots(container_id, name, alias, created_ms, last_used_ms, expires_ms, size, generation, parent, description, labels, pinned, consistency,
                 trigger, schedule, scheduled_ms, missed, replaced_alias)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
                 ON CONFLICT(container_id, name) DO UPDATE SET alias = excluded.alias, last_used_ms = excluded.last_used_ms, expires_ms = excluded.expires_ms,
                 size = excluded.size, generation = excluded.generation, parent = excluded.parent, description = excluded.description, labels = excluded.labels,
                 pinned = excluded.pinned, replaced_alias = excluded.replaced_alias",
            )?
            .execute(params![
                id.as_str(),
                s.name.as_str(),
                s.alias.as_ref().map(Alias::as_str),
                ms(s.created_at),
                s.last_used_at.map(ms),
                s.expires_at.map(ms),
                s.size.0,
                r.generation.0,
                s.parent.as_ref().map(SnapshotName::as_str),
                s.description,
                to_json(&s.labels)?,
                s.pinned,
                if s.consistency == Consistency::Crash { "crash" } else { "databases_quiesced" },
                s.trigger.as_str(),
                s.schedule,
                s.scheduled_for.map(ms),
                s.missed,
                s.replaced_alias.as_ref().map(Alias::as_str)
            ])
            .map_err(|e| {
                if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
                    alias_in_use(s.alias.as_ref())
                } else {
                    e.into()
                }
            })?;
        self.record_snapshot(id, r)
    }

    /// Takes a snapshot out of the list and hands its children to its parent.
    pub(crate) fn remove_snapshot(&mut self, id: &ContainerId, r: &SnapshotRow) -> Result<()> {
        let s = &r.snapshot;
        self.conn.execute("DELETE FROM snapshots WHERE container_id = ?1 AND name = ?2", [id.as_str(), s.name.as_str()])?;
        self.conn.execute(
            "UPDATE snapshots SET parent = ?3 WHERE container_id = ?1 AND parent = ?2",
            params![id.as_str(), s.name.as_str(), s.parent.as_ref().map(SnapshotName::as_str)],
        )?;
        self.forget_snapshot(id, &s.name)
    }

    /// Takes the alias from a snapshot, for another that is to have it.
    pub(crate) fn take_alias(&mut self, id: &ContainerId, name: &SnapshotName) -> Result<()> {
        let sql = "UPDATE snapshots SET replaced_alias = alias, alias = NULL WHERE container_id = ?1 AND name = ?2 AND alias IS NOT NULL";
        self.conn.execute(sql, [id.as_str(), name.as_str()])?;
        Ok(())
    }

    pub(crate) fn set_snapshot_size(&mut self, id: &ContainerId, name: &SnapshotName, size: Bytes) -> Result<()> {
        self.conn.execute("UPDATE snapshots SET size = ?3 WHERE container_id = ?1 AND name = ?2", params![id.as_str(), name.as_str(), size.0])?;
        Ok(())
    }
}

/// The error for an alias that is taken.
pub(crate) fn alias_in_use(alias: Option<&Alias>) -> Error {
    let shown = alias.map_or("", Alias::as_str);
    Error::new(
        Code::AliasInUse,
        format!("another snapshot of this container is called {shown:?}: choose another alias, or create it with on_alias_conflict: replace"),
    )
}
