//! Takes the snapshot of a run of a schedule.
//!
//! The intent holds the run. The snapshot enters the list in the transaction that ends the run and says when the next one is due, so a crash neither repeats a
//! run nor loses one: either the volume is complete and wanted, and recovery ends the run with it; or it is deleted, and the run is still due.

use super::observed::thaw_unless_paused;
use super::snapshot::take_volumes;
use super::snapshot_row::measured;
use super::synced::snapshots_differ;
use super::{Claim, Op, Operation, Recovery, Want};
use crate::catalog::policies::Slot;
use crate::catalog::snapshots::SnapshotRow;
use crate::catalog::{Durability, Tx, ms};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::model::Snapshot;
use crate::name::SnapshotName;
use crate::snapshot::Volume;
use crate::units::VolumeId;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScheduledSnapshot {
    pub container: ContainerId,
    /// What the list is to have, apart from what is only known once the volume exists.
    pub row: Box<SnapshotRow>,
    /// Whether the project's databases come along.
    #[serde(default)]
    pub databases: bool,
    /// The run, and when the next one is due.
    pub slot: Slot,
    /// The snapshot is not kept if it equals this one.
    #[serde(default)]
    pub unless_equal_to: Option<SnapshotName>,
    /// The schedule's snapshot that has the alias now, and loses it to the new one.
    #[serde(default)]
    pub alias_of: Option<SnapshotName>,
}

impl Operation for ScheduledSnapshot {
    type World = World;
    /// The snapshot; nothing if nothing had changed.
    type Answer = Option<Snapshot>;
    const TAG: &'static str = "scheduled_snapshot";

    fn kind(&self) -> &'static str {
        "snapshot.schedule"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("snapshot.schedule", vec![Want::container(&self.container)])
    }

    fn run(mut self, op: &mut Op) -> Result<Option<Snapshot>> {
        let world = op.world.clone();
        op.step("snapshot")?;
        self.row.snapshot.consistency = take_volumes(&world, op, &self.container, &self.row.snapshot.name, self.databases)?;
        if self.equals_the_last(&world) {
            op.step("delete")?;
            let gone = self.delete_volumes(&world)?;
            op.finish(Durability::Process, |tx| {
                tx.add_reclaim(&gone, &self.what())?;
                tx.end_run(&self.container, &self.slot)
            })?;
            world.upkeep.reclaim();
            return Ok(None);
        }
        let row = measured(&world, &self.container, (*self.row).clone())?;
        op.finish(Durability::Process, |tx| self.end(tx, &row).map(Some))
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let world = r.world;
        let [own, along] = self.volumes();
        let complete = |v: &Volume| Ok::<_, Error>(world.store.info(v)?.is_some_and(|i| i.read_only) && !world.store.claims_identity(v)?);
        let all_there = complete(&own)? && (!self.databases || complete(&along)?);
        thaw_unless_paused(world, &self.container)?;
        world.store.delete(&Volume::Staging(r.id.clone()))?;
        if all_there && r.error.is_none() && !self.equals_the_last(world) {
            let row = measured(world, &self.container, (*self.row).clone())?;
            return r.finished(|tx| self.end(tx, &row).map(Some));
        }
        let gone = self.delete_volumes(world)?;
        // The run stays due.
        r.undone(|tx| tx.add_reclaim(&gone, &self.what()))?;
        world.upkeep.reclaim();
        Ok(())
    }
}

impl ScheduledSnapshot {
    fn volumes(&self) -> [Volume; 2] {
        let (id, name) = (&self.container, &self.row.snapshot.name);
        [Volume::Snapshot(id.clone(), name.clone()), Volume::SnapshotDatabases(id.clone(), name.clone())]
    }

    fn what(&self) -> String {
        format!("snapshot {} of container {}", self.row.snapshot.name, self.container)
    }

    fn delete_volumes(&self, world: &World) -> Result<Vec<VolumeId>> {
        let mut gone = Vec::new();
        for volume in self.volumes() {
            gone.extend(world.store.delete(&volume)?.volumes);
        }
        Ok(gone)
    }

    /// Whether the new snapshot has what the schedule's last one has. One that cannot be compared counts as different: it is kept.
    fn equals_the_last(&self, world: &World) -> bool {
        let Some(last) = &self.unless_equal_to else { return false };
        snapshots_differ(world, &self.container, last, &self.row.snapshot.name).is_ok_and(|differ| !differ)
    }

    /// Puts the snapshot into the list and ends the run.
    fn end(&self, tx: &mut Tx<'_>, row: &SnapshotRow) -> Result<Snapshot> {
        if let Some(before) = &self.alias_of {
            tx.take_alias(&self.container, before)?;
        }
        tx.end_run(&self.container, &self.slot)?;
        tx.put_snapshot(&self.container, row)?;
        let c = tx.change_container(&self.container, "schedule", None, |c| {
            c.state.head = Some(row.snapshot.name.clone());
            c.state.since_ms = ms(row.snapshot.created_at);
        })?;
        tx.emit_container("container.snapshot.created", &c, json!({ "snapshot": row.snapshot }))?;
        Ok(row.snapshot.clone())
    }
}
