use super::{Tx, ms, time};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OverrideId, ProjectId, ShareId, UserId};
use crate::model::{Share, ShareMode, ShareOverride, ShareStatus, ShareTarget};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "s.id, s.source_container_id, s.source_path, s.target_container_id, s.target_project_id, s.readwrite, s.alias, s.label, s.description, \
    s.enabled, s.message, s.expires_at, s.expiry_notified, s.created_by, s.created_ms, s.updated_ms";

fn row(r: &Row<'_>) -> rusqlite::Result<Result<Share>> {
    let (id, source, path, container, project): (String, String, String, Option<String>, Option<String>) =
        (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?);
    let (readwrite, alias, label, description, enabled): (bool, Option<String>, Option<String>, Option<String>, bool) =
        (r.get(5)?, r.get(6)?, r.get(7)?, r.get(8)?, r.get(9)?);
    let (message, expires_at, expiry_notified, by): (Option<String>, Option<u64>, bool, String) = (r.get(10)?, r.get(11)?, r.get(12)?, r.get(13)?);
    let (created, updated): (i64, i64) = (r.get(14)?, r.get(15)?);
    Ok((|| {
        let target_type = if project.is_some() { ShareTarget::Project } else { ShareTarget::Container };
        let wanted = alias.clone().unwrap_or_else(|| crate::share::path::base(&path).to_owned());
        Ok(Share {
            id: id.parse()?,
            source_container_id: source.parse()?,
            source_path: path,
            target_container_id: container.map(|c| c.parse()).transpose()?,
            target_project_id: project.map(|p| p.parse()).transpose()?,
            target_type,
            mode: if readwrite { ShareMode::Readwrite } else { ShareMode::Readonly },
            alias,
            label,
            description,
            enabled,
            status: if message.is_some() { ShareStatus::Failed } else { ShareStatus::Active },
            status_message: message,
            expires_at,
            expiry_notified,
            created_by: by.parse::<UserId>()?,
            realm_ids: Vec::new(),
            held_by: Vec::new(),
            mount_path: format!("{}/{}", crate::share::RECEIVED, crate::share::consent::name(&wanted, &id, &std::collections::BTreeSet::new())),
            created_at: time(created),
            updated_at: time(updated),
        })
    })())
}

fn select(c: &Connection, wanted: &str, args: impl rusqlite::Params) -> Result<Vec<Share>> {
    let mut s = c.prepare_cached(&format!("SELECT {COLUMNS} FROM shares s WHERE {wanted} ORDER BY s.created_ms, s.id"))?;
    s.query_map(args, row)?.map(|r| r?).collect()
}

pub(crate) fn get(c: &Connection, id: &ShareId) -> Result<Share> {
    let found = select(c, "s.id = ?1", [id.as_str()])?.pop();
    found.ok_or_else(|| Error::new(Code::ShareNotFound, format!("there is no share {id}: it may have been deleted or have expired")))
}

/// Those of a container, or of all containers of some projects, oldest first.
pub(crate) fn of_owner(c: &Connection, container: Option<&ContainerId>, only: Option<&[ProjectId]>) -> Result<Vec<Share>> {
    let scope = super::projects::scope("project_id", only);
    match container {
        Some(id) => select(c, "s.source_container_id = ?1", [id.as_str()]),
        None => select(c, &format!("s.source_container_id IN (SELECT id FROM containers WHERE {scope})"), []),
    }
}

/// Those made for a container or for its project, oldest first, with its word on each. Its own are left out.
pub(crate) fn for_receiver(c: &Connection, container: &ContainerId, project: &ProjectId) -> Result<Vec<(Share, Option<bool>)>> {
    let mut s = c.prepare_cached(&format!(
        "SELECT {COLUMNS}, o.mount FROM shares s LEFT JOIN share_overrides o ON o.share_id = s.id AND o.container_id = ?1
         WHERE (s.target_container_id = ?1 OR s.target_project_id = ?2) AND s.source_container_id <> ?1 ORDER BY s.created_ms, s.id"
    ))?;
    s.query_map([container.as_str(), project.as_str()], |r| Ok((row(r)?, r.get::<_, Option<bool>>(16)?)))?
        .map(|r| {
            let (share, wanted) = r?;
            Ok((share?, wanted))
        })
        .collect()
}

/// Those whose end has come by `now`, and when the next one's comes, in Unix seconds.
pub(crate) fn expired(c: &Connection, now: i64) -> Result<(Vec<Share>, Option<i64>)> {
    let due = select(c, "s.expires_at IS NOT NULL AND s.expires_at <= ?1", [now])?;
    let next = c.query_row("SELECT min(expires_at) FROM shares WHERE expires_at > ?1", [now], |r| r.get(0))?;
    Ok((due, next))
}

/// Those that end by `until` and of which that was not said yet; and when the next one's turn comes.
pub(crate) fn ending(c: &Connection, until: i64) -> Result<(Vec<Share>, Option<i64>)> {
    let due = select(c, "s.expires_at IS NOT NULL AND s.expires_at <= ?1 AND s.expiry_notified = 0", [until])?;
    let next = c.query_row("SELECT min(expires_at) FROM shares WHERE expires_at > ?1 AND expiry_notified = 0", [until], |r| r.get(0))?;
    Ok((due, next))
}

/// Whether anything at all is shared with a container: a cheap question before each start.
pub(crate) fn any(c: &Connection) -> Result<bool> {
    Ok(c.query_row("SELECT EXISTS(SELECT 1 FROM shares)", [], |r| r.get(0))?)
}

/// How many shares a container offers or is offered by name.
pub(crate) fn count_of(c: &Connection, container: &ContainerId) -> Result<u64> {
    let sql = "SELECT count(*) FROM shares WHERE source_container_id = ?1 OR target_container_id = ?1";
    Ok(c.prepare_cached(sql)?.query_row([container.as_str()], |r| r.get(0))?)
}

impl Tx<'_> {
    /// Writes a share, new or changed. Error: `share_already_exists`.
    pub(crate) fn put_share(&mut self, s: &Share) -> Result<()> {
        let put = self.conn.execute(
            "INSERT INTO shares(id, source_container_id, source_path, target_container_id, target_project_id, readwrite, alias, label, description, enabled,
               message, expires_at, expiry_notified, created_by, created_ms, updated_ms)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             ON CONFLICT(id) DO UPDATE SET readwrite = ?6, alias = ?7, label = ?8, description = ?9, enabled = ?10, message = ?11, expires_at = ?12,
               expiry_notified = ?13, updated_ms = ?16",
            params![
                s.id.as_str(),
                s.source_container_id.as_str(),
                s.source_path,
                s.target_container_id.as_ref().map(ContainerId::as_str),
                s.target_project_id.as_ref().map(ProjectId::as_str),
                s.mode == ShareMode::Readwrite,
                s.alias,
                s.label,
                s.description,
                s.enabled,
                s.status_message,
                s.expires_at,
                s.expiry_notified,
                s.created_by.as_str(),
                ms(s.created_at),
                ms(s.updated_at),
            ],
        );
        match put {
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => Err(Error::new(
                crate::error::Code::ShareAlreadyExists,
                format!("{} is shared with that target already: change that share, or delete it first", s.source_path),
            )),
            r => r.map(drop).map_err(Into::into),
        }
    }

    /// Notes why a share cannot be mounted, or that it can.
    pub(crate) fn set_share_message(&mut self, id: &ShareId, message: Option<&str>) -> Result<()> {
        self.conn.execute("UPDATE shares SET message = ?2 WHERE id = ?1", params![id.as_str(), message])?;
        Ok(())
    }

    pub(crate) fn delete_share(&mut self, id: &ShareId) -> Result<()> {
        self.conn.execute("DELETE FROM share_overrides WHERE share_id = ?1", [id.as_str()])?;
        self.conn.execute("DELETE FROM shares WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Everything that a container shares, or that is shared with it alone, ends with it.
    pub(crate) fn delete_shares_of(&mut self, container: &ContainerId) -> Result<Vec<Share>> {
        let gone = select(self.conn, "s.source_container_id = ?1 OR s.target_container_id = ?1", [container.as_str()])?;
        gone.iter().try_for_each(|s| self.delete_share(&s.id))?;
        self.conn.execute("DELETE FROM share_overrides WHERE container_id = ?1", [container.as_str()])?;
        Ok(gone)
    }

    /// What was shared with a project as a whole ends with it.
    pub(crate) fn delete_shares_with(&mut self, project: &ProjectId) -> Result<Vec<Share>> {
        let gone = select(self.conn, "s.target_project_id = ?1", [project.as_str()])?;
        gone.iter().try_for_each(|s| self.delete_share(&s.id))?;
        Ok(gone)
    }

    /// A receiver's word on a share.
    pub(crate) fn put_override(&mut self, share: &ShareId, container: &ContainerId, mount: bool) -> Result<ShareOverride> {
        let now = ms(self.now);
        let before: Option<(String, i64)> = self
            .conn
            .query_row("SELECT id, created_ms FROM share_overrides WHERE share_id = ?1 AND container_id = ?2", [share.as_str(), container.as_str()], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .optional()?;
        let (id, created) = match before {
            Some((id, created)) => (id.parse()?, created),
            None => (OverrideId::generate(), now),
        };
        self.conn.execute(
            "INSERT INTO share_overrides(share_id, container_id, id, mount, created_ms, updated_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(share_id, container_id) DO UPDATE SET mount = ?4, updated_ms = ?6",
            params![share.as_str(), container.as_str(), id.as_str(), mount, created, now],
        )?;
        Ok(ShareOverride { id, share_id: share.clone(), container_id: container.clone(), mount, created_at: time(created), updated_at: self.now })
    }
}
