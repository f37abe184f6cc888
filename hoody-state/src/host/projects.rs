use super::{Caller, Host};
use crate::catalog::projects;
use crate::error::{Code, Error, Result};
use crate::id::ProjectId;
use crate::model::validate;
use crate::model::{PageRequest, Paged, Project, ProjectInput};
use crate::name::ProjectAlias;

fn quota(v: Option<i64>) -> Result<Option<u32>> {
    v.map(|n| {
        u32::try_from(n).map_err(|_| Error::new(Code::InvalidQuotaValue, format!("max_containers {n} is out of range: at least 0, or null for no limit")))
    })
    .transpose()
}

fn alias(input: &ProjectInput) -> Result<ProjectAlias> {
    input.alias.as_deref().ok_or_else(|| Error::new(Code::ValidationError, "alias is missing: a project needs one"))?.parse()
}

impl Host {
    /// A page of projects; `only` those, if given.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn projects(&self, page: &PageRequest, only: Option<&[ProjectId]>) -> Result<Paged<Project>> {
        let (rows, total) = self.0.catalog.read(|c| projects::page(c, self.0.catalog.user(), page, only))?;
        Ok(Paged::new(rows, total, page))
    }

    /// One project.
    ///
    /// # Errors
    /// `project_not_found`.
    pub fn project(&self, id: &ProjectId) -> Result<Project> {
        self.0.catalog.read(|c| projects::get(c, self.0.catalog.user(), id))
    }

    /// Makes a project.
    ///
    /// # Errors
    /// `invalid_alias_format`, `invalid_color_format`, `invalid_quota_value`, `duplicate_alias`, `disk_limit_unsupported`.
    pub fn create_project(&self, caller: &Caller, input: ProjectInput) -> Result<Project> {
        let now = self.0.clock.now();
        let p = Project {
            id: ProjectId::generate(),
            user_id: self.user(),
            alias: alias(&input)?,
            color: input.color.as_deref().map_or_else(|| Ok(validate::random_color()), validate::color)?,
            max_containers: quota(input.max_containers.flatten())?,
            disk: self.0.limits.check_disk(input.disk.flatten())?,
            is_default: false,
            realm_ids: Vec::new(),
            created_at: now,
            updated_at: now,
        };
        let made = self.change(caller, |tx| {
            tx.insert_project(&p)?;
            tx.emit("project.created", "project", p.id.as_str(), Some(&p.id), serde_json::json!({ "project_id": p.id, "project": p }))?;
            Ok(p)
        })?;
        self.0.store.limit_project(&made.id, made.disk)?;
        Ok(made)
    }

    /// Changes a project; what is absent stays.
    ///
    /// # Errors
    /// As for [`Host::create_project`], and `project_not_found`.
    pub fn update_project(&self, caller: &Caller, id: &ProjectId, input: ProjectInput) -> Result<Project> {
        let disk = input.disk.map(|d| self.0.limits.check_disk(d)).transpose()?;
        let changed = self.change(caller, |tx| {
            let mut p = projects::get(tx.conn, self.0.catalog.user(), id)?;
            if input.alias.is_some() {
                p.alias = alias(&input)?;
            }
            if let Some(c) = &input.color {
                p.color = validate::color(c)?;
            }
            if let Some(m) = input.max_containers {
                p.max_containers = quota(m)?;
            }
            if let Some(d) = disk {
                p.disk = d;
            }
            p.updated_at = tx.now;
            tx.update_project(&p)?;
            tx.emit("project.updated", "project", p.id.as_str(), Some(&p.id), serde_json::json!({ "project_id": p.id, "project": p }))?;
            Ok(p)
        })?;
        self.0.store.limit_project(&changed.id, changed.disk)?;
        Ok(changed)
    }
}
