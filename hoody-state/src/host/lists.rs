//! Snapshots and images, as they are listed.

use super::Host;
use crate::catalog::{containers, images, snapshots};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{Image, PageRequest, Paged, SnapshotAnswer, SnapshotFilter, SnapshotList};
use std::time::Duration;

impl Host {
    /// All snapshots of a container, newest first. Cost: one read of the catalog; the pool is not asked.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn snapshots(&self, id: &ContainerId) -> Result<SnapshotList> {
        self.snapshots_matching(id, &SnapshotFilter::default())
    }

    /// Those that match, newest first. `snapshot_count` is their number.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn snapshots_matching(&self, id: &ContainerId, filter: &SnapshotFilter) -> Result<SnapshotList> {
        let (row, mut list) = self.0.catalog.read(|c| Ok((containers::get(c, id)?, snapshots::all(c, id)?)))?;
        list.retain(|r| filter.matches(&r.snapshot));
        Ok(SnapshotList {
            container_id: id.clone(),
            project_id: row.project,
            snapshot_count: list.len() as u64,
            max_snapshots: self.0.settings.max_snapshots,
            snapshots: list.into_iter().map(|r| r.snapshot).collect(),
        })
    }

    /// One snapshot, by its alias, else by its canonical name.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`.
    pub fn snapshot(&self, id: &ContainerId, name: &str) -> Result<SnapshotAnswer> {
        self.0.catalog.read(|c| {
            let project_id = containers::get(c, id)?.project;
            Ok(SnapshotAnswer { container_id: id.clone(), project_id, snapshot: snapshots::get(c, id, name)?.snapshot })
        })
    }

    /// The same, with the databases that are in it and what they take, and with what its deletion would free, if that is known after waiting up to `wait`.
    ///
    /// # Errors
    /// As for [`Host::snapshot`].
    pub fn snapshot_detail(&self, id: &ContainerId, name: &str, wait: Duration) -> Result<SnapshotAnswer> {
        let mut answer = self.snapshot(id, name)?;
        let name = answer.snapshot.name.clone();
        answer.snapshot.frees_bytes = self.frees(id, std::slice::from_ref(&name), wait)?.remove(&name);
        answer.snapshot.databases = Some(self.0.databases.in_snapshot(id, &answer.snapshot.name)?);
        Ok(answer)
    }

    /// A page of images.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn images(&self, page: &PageRequest) -> Result<Paged<Image>> {
        let (rows, total) = self.0.catalog.read(|c| images::page(c, page))?;
        Ok(Paged::new(rows, total, page))
    }

    /// One image, by its name or as the clients write it.
    ///
    /// # Errors
    /// `image_not_found`.
    pub fn image(&self, name: &str) -> Result<Image> {
        self.0.catalog.read(|c| images::resolve(c, Some(name)))
    }
}
