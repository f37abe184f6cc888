//! Limits: space in the pool, disk limits of containers and projects, and how many volumes may be nested in one container.

use super::pool_watch::read_only_error;
use crate::catalog::containers::ContainerRow;
use crate::catalog::records::Records;
use crate::catalog::{containers, projects};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::settings::Settings;
use crate::snapshot::{SnapshotStore, Volume};
use crate::units::Bytes;
use std::sync::Arc;

/// The smallest disk limit: a container with less could not even start.
const LEAST: Bytes = Bytes::mib(16);

/// Checks limits before a change, and sets them in the store.
pub(crate) struct Limits {
    store: Arc<dyn SnapshotStore>,
    records: Records,
    max_nested_volumes: u32,
    max_containers: Option<u64>,
}

impl Limits {
    pub(crate) fn new(store: Arc<dyn SnapshotStore>, records: Records, settings: &Settings) -> Self {
        Limits { store, records, max_nested_volumes: settings.max_nested_volumes, max_containers: settings.max_containers }
    }

    /// Refuses what would fill the pool, before anything is changed. Errors: `pool_full`, `pool_read_only`.
    pub(crate) fn check_space(&self) -> Result<()> {
        let space = self.store.space()?;
        if space.read_only {
            return Err(read_only_error(space.image.as_ref()));
        }
        crate::model::space::check_space(&space, Bytes(0))
    }

    /// Refuses to copy a volume with too many others in it: each takes a transaction, in which the container stands still. Error: `too_many_nested_volumes`.
    pub(crate) fn check_nested(&self, volume: &Volume) -> Result<()> {
        let (nested, most) = (self.store.info(volume)?.map_or(0, |i| i.nested), self.max_nested_volumes);
        if nested <= most {
            return Ok(());
        }
        Err(Error::new(Code::TooManyNestedVolumes,
            format!("{nested} subvolumes were made inside the {volume}, and a snapshot may hold {most} at most: delete some, or start the server with a larger --max-nested-volumes"),
        )
        .with_data(serde_json::json!({ "nested_volumes": nested, "limit": most })))
    }

    /// Refuses a container that would be one too many in its project or on this server. Errors: `project_container_limit`, `server_container_limit`.
    pub(crate) fn check_count(&self, c: &rusqlite::Connection, project: &ProjectId) -> Result<()> {
        let p = projects::get(c, self.records.catalog.user(), project)?;
        let n = containers::count(c, Some(project))?;
        if let Some(max) = p.max_containers.filter(|max| n >= u64::from(*max)) {
            return Err(Error::new(
                Code::ProjectContainerLimit,
                format!("project {project} has {n} containers and may have {max}: delete one or raise max_containers"),
            )
            .with_data(serde_json::json!({ "field": "max_containers", "current_count": n, "limit": max })));
        }
        if let Some(max) = self.max_containers {
            let n = containers::count(c, None)?;
            if n >= max {
                return Err(Error::new(Code::ServerContainerLimit, format!("this server has {n} containers and may have {max}"))
                    .with_data(serde_json::json!({ "field": "server_id", "current_count": n, "limit": max })));
            }
        }
        Ok(())
    }

    /// A disk limit that was asked for: large enough, and possible here. Errors: `validation_error`, `disk_limit_unsupported`.
    pub(crate) fn check_disk(&self, limit: Option<Bytes>) -> Result<Option<Bytes>> {
        let Some(limit) = limit else { return Ok(None) };
        if limit < LEAST || limit.0 > i64::MAX as u64 {
            return Err(Error::new(Code::ValidationError, format!("disk {limit} is out of range: at least {LEAST}, or null for no limit")));
        }
        match self.store.uncounted() {
            None => Ok(Some(limit)),
            Some(why) => Err(Error::new(Code::DiskLimitUnsupported, format!("no disk limit can be set here: {why}"))),
        }
    }

    /// Brings the limits of a container in the store to what its row says.
    pub(crate) fn apply(&self, row: &ContainerRow) -> Result<()> {
        self.store.limit_container(&row.id, &row.project, row.spec.disk)
    }

    /// As [`Limits::apply`], for a container whose volume is about to be made. Error: `container_not_found`.
    pub(crate) fn apply_to(&self, id: &ContainerId) -> Result<()> {
        self.apply(&self.records.read(|c| containers::get(c, id))?)
    }

    /// Brings all limits to what the catalog says, and forgets those of deleted containers and projects. One that cannot be set is logged.
    pub(crate) fn apply_all(&self) -> Result<()> {
        if self.store.uncounted().is_some() {
            return Ok(());
        }
        let rows = self.records.read(|c| containers::all(c, None))?;
        let ids = self.records.read(projects::ids)?;
        for id in &ids {
            let disk = self.records.read(|c| projects::get(c, self.records.catalog.user(), id))?.disk;
            if let Err(e) = self.store.limit_project(id, disk) {
                tracing::warn!(project = %id, error = %e, "could not set its disk limit");
            }
        }
        for row in &rows {
            if let Err(e) = self.apply(row) {
                tracing::warn!(container = %row.id, error = %e, "could not set its disk limit");
            }
        }
        let known: Vec<ContainerId> = rows.into_iter().map(|r| r.id).collect();
        self.store.drop_groups(&known, &ids)
    }

    /// Forgets what was counted of deleted containers and projects.
    pub(crate) fn forget_deleted(&self) {
        let known = self.records.read(|c| Ok((containers::all(c, None)?.into_iter().map(|r| r.id).collect::<Vec<ContainerId>>(), projects::ids(c)?)));
        if let Err(e) = known.and_then(|(c, p)| self.store.drop_groups(&c, &p)) {
            tracing::warn!(error = %e, "could not forget what was counted of deleted containers; the next start tries again");
        }
    }
}
