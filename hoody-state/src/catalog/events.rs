use super::containers::ContainerRow;
use super::{Tx, json, ms, time, to_json};
use crate::error::{Code, Error, Result};
use crate::id::{EventId, ProjectId, UserId};
use crate::model::{Event, EventFilter};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::{Value, json as j};
use std::collections::BTreeMap;

/// Events kept; older ones go when newer ones come.
const KEPT: u64 = 100_000;

fn row(user: &UserId) -> impl Fn(&Row<'_>) -> rusqlite::Result<Result<Event>> + '_ {
    move |r| {
        let (seq, id, event_type): (u64, String, String) = (r.get(0)?, r.get(1)?, r.get(2)?);
        let (resource_type, resource_id, payload, created): (String, String, String, i64) = (r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?);
        Ok((|| {
            Ok(Event {
                id: id.parse()?,
                event_type,
                resource_type,
                resource_id,
                user_id: user.clone(),
                payload: json(&payload, "event")?,
                realm_ids: Vec::new(),
                created_at: time(created),
                seq,
            })
        })())
    }
}

const COLUMNS: &str = "seq, id, event_type, resource_type, resource_id, payload, created_ms";

pub(crate) fn list(c: &Connection, user: &UserId, f: &EventFilter) -> Result<(Vec<Event>, u64)> {
    let mut wanted = vec!["1".to_owned()];
    let mut args: Vec<String> = Vec::new();
    for (column, value) in [("event_type", &f.event_type), ("resource_type", &f.resource_type), ("resource_id", &f.resource_id)] {
        if let Some(v) = value {
            args.push(v.clone());
            wanted.push(format!("{column} = ?{}", args.len()));
        }
    }
    wanted.extend(f.start.map(|t| format!("created_ms >= {}", ms(t))));
    wanted.extend(f.end.map(|t| format!("created_ms <= {}", ms(t))));
    wanted.extend(f.after_seq.map(|s| format!("seq > {s}")));
    if let Some(p) = &f.projects {
        let ids: Vec<ProjectId> = p.iter().filter_map(|p| p.parse().ok()).collect();
        wanted.push(super::projects::scope("project_id", Some(&ids)));
    }
    let wanted = wanted.join(" AND ");
    let args = rusqlite::params_from_iter(args.iter());
    let total: u64 = c.query_row(&format!("SELECT count(*) FROM events WHERE {wanted}"), args.clone(), |r| r.get(0))?;
    let dir = if f.ascending { "ASC" } else { "DESC" };
    let mut s = c.prepare(&format!("SELECT {COLUMNS} FROM events WHERE {wanted} ORDER BY seq {dir} LIMIT {} OFFSET {}", f.limit, f.offset))?;
    let rows = s.query_map(args, row(user))?.map(|r| r?).collect::<Result<Vec<_>>>()?;
    Ok((rows, total))
}

pub(crate) fn get(c: &Connection, user: &UserId, id: &EventId) -> Result<Event> {
    c.query_row(&format!("SELECT {COLUMNS} FROM events WHERE id = ?1"), [id.as_str()], row(user))
        .optional()?
        .unwrap_or_else(|| Err(Error::new(Code::EventNotFound, format!("there is no event {id}"))))
}

pub(crate) fn stats(c: &Connection) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>)> {
    let by = |column: &str| -> Result<BTreeMap<String, u64>> {
        let mut s = c.prepare(&format!("SELECT {column}, count(*) FROM events GROUP BY 1"))?;
        Ok(s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?)
    };
    Ok((by("event_type")?, by("resource_type")?))
}

impl Tx<'_> {
    /// Writes an event, to be announced after the commit.
    pub(crate) fn emit(&mut self, event_type: &str, resource_type: &str, resource_id: &str, project: Option<&ProjectId>, payload: Value) -> Result<()> {
        let id = EventId::generate();
        self.conn
            .prepare_cached(
                "INSERT INTO events(id, event_type, resource_type, resource_id, project_id, payload, created_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(rusqlite::params![
                id.as_str(),
                event_type,
                resource_type,
                resource_id,
                project.map(ProjectId::as_str),
                to_json(&payload)?,
                ms(self.now)
            ])?;
        let seq = u64::try_from(self.conn.last_insert_rowid()).unwrap_or(0);
        if seq.is_multiple_of(1000) {
            self.conn.execute("DELETE FROM events WHERE seq <= ?1", [seq.saturating_sub(KEPT)])?;
        }
        self.events.push(Event {
            id,
            event_type: event_type.to_owned(),
            resource_type: resource_type.to_owned(),
            resource_id: resource_id.to_owned(),
            user_id: self.user.clone(),
            payload,
            realm_ids: Vec::new(),
            created_at: self.now,
            seq,
        });
        Ok(())
    }

    /// An event of a container, with what the published clients look for in it.
    pub(crate) fn emit_container(&mut self, event_type: &str, r: &ContainerRow, extra: Value) -> Result<()> {
        let mut payload = j!({
            "resource_type": "container", "container_id": r.id, "project_id": r.project,
            "container": { "id": r.id, "name": r.name, "status": r.status, "project_id": r.project },
        });
        if let (Some(p), Value::Object(extra)) = (payload.as_object_mut(), extra) {
            p.extend(extra);
        }
        let (id, project) = (r.id.clone(), r.project.clone());
        self.emit(event_type, "container", id.as_str(), Some(&project), payload)
    }

    pub(crate) fn delete_event(&mut self, id: &EventId) -> Result<()> {
        if self.conn.execute("DELETE FROM events WHERE id = ?1", [id.as_str()])? == 0 {
            return Err(Error::new(Code::EventNotFound, format!("there is no event {id}")));
        }
        Ok(())
    }

    pub(crate) fn delete_events(&mut self, before: Option<Timestamp>) -> Result<u64> {
        let n = match before {
            Some(t) => self.conn.execute("DELETE FROM events WHERE created_ms < ?1", [ms(t)])?,
            None => self.conn.execute("DELETE FROM events", [])?,
        };
        Ok(n as u64)
    }
}
