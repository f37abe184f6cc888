use super::{Tx, ms, time};
use crate::error::{Code, Error, Result};
use crate::id::{ProjectId, UserId};
use crate::model::{PageRequest, PolicyTarget, Project};
use crate::name::ProjectAlias;
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, alias, color, max_containers, created_ms, updated_ms, disk";

fn row(user: &UserId) -> impl Fn(&Row<'_>) -> rusqlite::Result<Result<Project>> + '_ {
    move |r| {
        let (id, alias): (String, String) = (r.get(0)?, r.get(1)?);
        let (color, max_containers, created, updated) = (r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?);
        let disk: Option<u64> = r.get(6)?;
        Ok((|| {
            Ok(Project {
                id: id.parse()?,
                user_id: user.clone(),
                alias: alias.parse::<ProjectAlias>()?,
                color,
                max_containers,
                disk: disk.map(crate::units::Bytes),
                is_default: false,
                realm_ids: Vec::new(),
                created_at: time(created),
                updated_at: time(updated),
            })
        })())
    }
}

pub(crate) fn get(c: &Connection, user: &UserId, id: &ProjectId) -> Result<Project> {
    c.query_row(&format!("SELECT {COLUMNS} FROM projects WHERE id = ?1"), [id.as_str()], row(user))
        .optional()?
        .unwrap_or_else(|| Err(Error::new(Code::ProjectNotFound, format!("there is no project {id}"))))
}

/// The ids of all.
pub(crate) fn ids(c: &Connection) -> Result<Vec<ProjectId>> {
    let mut s = c.prepare("SELECT id FROM projects")?;
    s.query_map([], |r| r.get::<_, String>(0))?.map(|id| id?.parse()).collect()
}

/// Whether there is one.
pub(crate) fn exists(c: &Connection, id: &ProjectId) -> Result<bool> {
    Ok(c.query_row("SELECT count(*) FROM projects WHERE id = ?1", [id.as_str()], |r| r.get::<_, u64>(0))? > 0)
}

/// Whether a project has this alias.
pub(crate) fn alias_taken(c: &Connection, alias: &ProjectAlias) -> Result<bool> {
    Ok(c.query_row("SELECT count(*) FROM projects WHERE alias = ?1", [alias.as_str()], |r| r.get::<_, u64>(0))? > 0)
}

/// SQL that keeps the rows whose `column` is among the scope's ids. Ids are hex: nothing to quote.
pub(crate) fn scope(column: &str, only: Option<&[ProjectId]>) -> String {
    match only {
        None => "1".to_owned(),
        Some(ids) => format!("{column} IN ({})", ids.iter().map(|i| format!("'{i}'")).collect::<Vec<_>>().join(",")),
    }
}

/// The sort column of a list: a word of its set, or the default.
pub(crate) fn sort<'a>(req: &PageRequest, columns: &[(&str, &'a str)]) -> Result<&'a str> {
    let Some(wanted) = &req.sort_by else { return Ok("created_ms") };
    columns.iter().find(|(w, _)| w == wanted).map(|(_, c)| *c).ok_or_else(|| {
        let known: Vec<&str> = columns.iter().map(|(w, _)| *w).collect();
        Error::new(Code::InvalidPage, format!("sort_by {wanted:?} is none of {}", known.join(", ")))
    })
}

/// `ORDER BY … LIMIT … OFFSET …` for a page; the id makes the order total.
pub(crate) fn order(column: &str, tie: &str, req: &PageRequest) -> String {
    let dir = if req.ascending { "ASC" } else { "DESC" };
    format!("ORDER BY {column} {dir}, {tie} {dir} LIMIT {} OFFSET {}", req.limit, (u64::from(req.page) - 1) * u64::from(req.limit))
}

pub(crate) fn page(c: &Connection, user: &UserId, req: &PageRequest, only: Option<&[ProjectId]>) -> Result<(Vec<Project>, u64)> {
    let column = sort(req, &[("id", "id"), ("alias", "alias"), ("created_at", "created_ms"), ("updated_at", "updated_ms")])?;
    let wanted = scope("id", only);
    let total: u64 = c.query_row(&format!("SELECT count(*) FROM projects WHERE {wanted}"), [], |r| r.get(0))?;
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM projects WHERE {wanted} {}", order(column, "id", req)))?;
    let rows = s.query_map([], row(user))?.map(|r| r?).collect::<Result<Vec<_>>>()?;
    Ok((rows, total))
}

fn taken(e: rusqlite::Error, alias: &ProjectAlias) -> Error {
    if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
        return Error::new(crate::Code::DuplicateAlias, format!("there is a project {:?} already: choose another alias", alias.as_str()));
    }
    e.into()
}

impl Tx<'_> {
    pub(crate) fn insert_project(&mut self, p: &Project) -> Result<()> {
        self.conn
            .execute(
                "INSERT INTO projects(id, alias, color, max_containers, created_ms, updated_ms, disk) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![p.id.as_str(), p.alias.as_str(), p.color, p.max_containers, ms(p.created_at), ms(p.updated_at), p.disk.map(|b| b.0)],
            )
            .map_err(|e| taken(e, &p.alias))?;
        Ok(())
    }

    pub(crate) fn update_project(&mut self, p: &Project) -> Result<()> {
        self.conn
            .execute(
                "UPDATE projects SET alias = ?2, color = ?3, max_containers = ?4, updated_ms = ?5, disk = ?6 WHERE id = ?1",
                params![p.id.as_str(), p.alias.as_str(), p.color, p.max_containers, ms(p.updated_at), p.disk.map(|b| b.0)],
            )
            .map_err(|e| taken(e, &p.alias))?;
        Ok(())
    }

    /// Deletes the row of a project and its snapshot policy.
    pub(crate) fn delete_project(&mut self, id: &ProjectId) -> Result<()> {
        self.conn.execute("DELETE FROM projects WHERE id = ?1", [id.as_str()])?;
        self.delete_policy(&PolicyTarget::Project(id.clone()))?;
        Ok(())
    }
}
