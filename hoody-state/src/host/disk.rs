//! Disk limits of containers and projects, and the limit on volumes nested in one container.

use super::Host;
use crate::catalog::containers::ContainerRow;
use crate::catalog::{containers, projects};
use crate::error::{Error, Result};
use crate::id::{ContainerId, ProjectId};
use crate::snapshot::Volume;
use crate::units::Bytes;

/// A container with less could not even start.
const LEAST: Bytes = Bytes::mib(16);

impl Host {
    /// A limit that was asked for: large enough, and possible here.
    pub(crate) fn disk_limit(&self, limit: Option<Bytes>) -> Result<Option<Bytes>> {
        let Some(limit) = limit else { return Ok(None) };
        if limit < LEAST || limit.0 > i64::MAX as u64 {
            return Err(Error::invalid("validation_error", format!("disk {limit} is out of range: at least {LEAST}, or null for no limit")));
        }
        match self.0.store.uncounted() {
            None => Ok(Some(limit)),
            Some(why) => Err(Error::conflict("disk_limit_unsupported", format!("no disk limit can be set here: {why}"))),
        }
    }

    /// Brings the limits of a container to what its row says.
    pub(crate) fn apply_disk_limit(&self, row: &ContainerRow) -> Result<()> {
        self.0.store.limit_container(&row.id, &row.project, row.spec.disk)
    }

    /// The same for what is about to be made.
    pub(crate) fn apply_disk_limit_of(&self, id: &ContainerId) -> Result<()> {
        self.apply_disk_limit(&self.0.catalog.read(|c| containers::get(c, id))?)
    }

    /// Brings all limits to what the catalog says, and forgets those of what is gone. One that fails keeps nobody from being served.
    pub(super) fn apply_all_disk_limits(&self) -> Result<()> {
        if self.0.store.uncounted().is_some() {
            return Ok(());
        }
        let rows = self.0.catalog.read(|c| containers::all(c, None))?;
        let ids = self.0.catalog.read(projects::ids)?;
        for id in &ids {
            let disk = self.0.catalog.read(|c| projects::get(c, self.0.catalog.user(), id))?.disk;
            if let Err(e) = self.0.store.limit_project(id, disk) {
                tracing::warn!(project = %id, error = %e, "could not set its disk limit");
            }
        }
        for row in &rows {
            if let Err(e) = self.apply_disk_limit(row) {
                tracing::warn!(container = %row.id, error = %e, "could not set its disk limit");
            }
        }
        let known: Vec<ContainerId> = rows.into_iter().map(|r| r.id).collect();
        self.0.store.drop_groups(&known, &ids)
    }

    /// Forgets what was counted of deleted containers and projects.
    pub(super) fn drop_old_groups(&self) {
        let known = || -> Result<(Vec<ContainerId>, Vec<ProjectId>)> {
            self.0.catalog.read(|c| Ok((containers::all(c, None)?.into_iter().map(|r| r.id).collect(), projects::ids(c)?)))
        };
        if let Err(e) = known().and_then(|(c, p)| self.0.store.drop_groups(&c, &p)) {
            tracing::warn!(error = %e, "could not forget what was counted of deleted containers; the next start tries again");
        }
    }

    /// Refuses to copy a volume with too many others in it: each takes a transaction, in which the container stands still.
    pub(crate) fn guard_nested(&self, volume: &Volume) -> Result<()> {
        let (nested, most) = (self.0.store.info(volume)?.map_or(0, |i| i.nested), self.0.settings.max_nested_volumes);
        if nested <= most {
            return Ok(());
        }
        Err(Error::conflict(
            "too_many_nested_volumes",
            format!("{nested} subvolumes were made inside the {volume}, and a snapshot may hold {most} at most: delete some, or start the server with a larger --max-nested-volumes"),
        )
        .with_data(serde_json::json!({ "nested_volumes": nested, "limit": most })))
    }
}
