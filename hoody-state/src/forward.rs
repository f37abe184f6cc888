//! Former methods of [`Host`] that files not yet moved still call. Goes when nobody does.

use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Error, Result};
use crate::freeze::{FreezeGuard, FreezeState};
use crate::host::Host;
use crate::id::{ContainerId, OperationId, ProjectId, RunId};
use crate::model::{DatabasesChoice, Share, SnapshotDatabase};
use crate::name::SnapshotName;
use crate::runtime::Running;
use crate::services::databases::DatabasesPlan;
use crate::snapshot::Volume;
use crate::units::{Bytes, VolumeId};

impl Host {
    pub(crate) fn guard_space(&self) -> Result<()> {
        self.0.limits.check_space()
    }

    pub(crate) fn guard_nested(&self, volume: &Volume) -> Result<()> {
        self.0.limits.check_nested(volume)
    }

    pub(crate) fn disk_limit(&self, limit: Option<Bytes>) -> Result<Option<Bytes>> {
        self.0.limits.check_disk(limit)
    }

    pub(crate) fn apply_disk_limit_of(&self, id: &ContainerId) -> Result<()> {
        self.0.limits.apply_to(id)
    }

    pub(crate) fn apply_all_disk_limits(&self) -> Result<()> {
        self.0.limits.apply_all()
    }

    pub(crate) fn note_exit(&self, id: &ContainerId) -> Result<()> {
        self.0.exits.note(id)
    }

    pub(crate) fn databases_along(&self, r: &ContainerRow) -> Result<Option<Volume>> {
        self.0.databases.taken_along(r)
    }

    pub(crate) fn databases_plan(&self, r: &ContainerRow, snapshot: &SnapshotName, choice: Option<DatabasesChoice>) -> Result<DatabasesPlan> {
        self.0.databases.plan(r, snapshot, choice)
    }

    pub(crate) fn prepare_databases(
        &self,
        r: &ContainerRow,
        snapshot: &SnapshotName,
        keep: &SnapshotName,
        plan: &DatabasesPlan,
        op: &OperationId,
    ) -> Result<()> {
        self.0.databases.prepare(r, snapshot, keep, plan, op)
    }

    pub(crate) fn restore_databases(&self, id: &ContainerId, snapshot: &SnapshotName, plan: &DatabasesPlan, op: &OperationId) -> Result<Vec<Error>> {
        self.0.databases.restore(id, snapshot, plan, op)
    }

    pub(crate) fn keep_databases(&self, id: &ContainerId, keep: &SnapshotName, plan: &DatabasesPlan) -> Result<()> {
        self.0.databases.keep(id, keep, plan)
    }

    pub(crate) fn unprepare_databases(&self, id: &ContainerId, keep: &SnapshotName, plan: &DatabasesPlan) -> Result<Vec<VolumeId>> {
        self.0.databases.unprepare(id, keep, plan)
    }

    pub(crate) fn databases_in(&self, id: &ContainerId, name: &SnapshotName) -> Result<Vec<SnapshotDatabase>> {
        self.0.databases.in_snapshot(id, name)
    }

    pub(crate) fn forget_private_databases(&self, id: &ContainerId) -> Result<()> {
        self.0.databases.forget_private(id)
    }

    pub(crate) fn shares_ended(&self, gone: &[Share]) {
        self.0.shares.ended(gone);
    }

    pub(crate) fn owner_exchanged(&self, owner: &ContainerId) {
        self.0.shares.owner_exchanged(owner);
    }

    pub(crate) fn sync_all_shares(&self) -> Result<()> {
        self.0.shares.sync_all()
    }

    pub(crate) fn boot(&self, r: &ContainerRow, run: &RunId) -> Result<Running> {
        self.0.starter.start(r, run)
    }

    pub(crate) fn freeze(&self, id: &ContainerId) -> Result<FreezeState> {
        self.0.freezing.freeze(id)
    }

    pub(crate) fn stand_still(&self, id: &ContainerId) -> Result<FreezeGuard<'_>> {
        self.0.freezing.stand_still(id)
    }

    pub(crate) fn drop_places(&self, id: &ContainerId) -> Result<()> {
        self.0.starter.forget(id)
    }

    pub(crate) fn drop_project_places(&self, id: &ProjectId) -> Result<()> {
        self.0.ramdisks.remove_project(id)?;
        self.0.databases.delete_project(id)?;
        self.0.upkeep.reclaim();
        Ok(())
    }

    pub(crate) fn serve_databases_again(&self) {
        match self.0.catalog.read(|c| containers::all(c, None)) {
            Ok(rows) => self.0.starter.remount_databases(&rows),
            Err(e) => tracing::error!(error = %e, "cannot read which containers have databases"),
        }
    }
}
