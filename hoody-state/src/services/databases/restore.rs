//! What a restore does with databases, by its [`DatabasesPlan`]: plan, prepare, then exchange or revert, then keep what they were before. Each may be repeated.

use super::component::{Databases, project_volume};
use super::plan::{DatabasesPlan, Situation, decide, shared, shares_them};
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, OperationId, ProjectId};
use crate::model::DatabasesChoice;
use crate::name::SnapshotName;
use crate::snapshot::Volume;
use crate::units::VolumeId;
use std::time::Duration;

/// How long a revert waits for a database that somebody writes.
const REVERT_PATIENCE: Duration = Duration::from_secs(10);

impl Databases {
    /// What a restore is to do with the databases. It holds only as long as no other container of the project is made or changed: plan it under a lock of the
    /// project's databases. Error: `databases_shared`, naming the other containers.
    pub(crate) fn plan(&self, r: &ContainerRow, snapshot: &SnapshotName, choice: Option<DatabasesChoice>) -> Result<DatabasesPlan> {
        let taken = Volume::SnapshotDatabases(r.id.clone(), snapshot.clone());
        if choice == Some(DatabasesChoice::Keep) || self.store.info(&taken)?.is_none() {
            return Ok(DatabasesPlan::Keep);
        }
        let Some(present) = self.taken_along(r)? else { return Ok(DatabasesPlan::Keep) };
        let Some(info) = self.store.info(&present)? else { return Ok(DatabasesPlan::Keep) };
        let others = self.sharing(r)?;
        decide(&Situation { container: r, snapshot, present: info.id, choice }, &others, || self.is_empty(&taken) && self.is_empty(&present))
    }

    /// Refuses to take the project's databases back without a decision, if other containers use them too. What a later restore of a snapshot that is taken now
    /// would say. Error: `databases_shared`, naming the other containers.
    pub(crate) fn require_choice(&self, r: &ContainerRow, choice: Option<DatabasesChoice>) -> Result<()> {
        if choice.is_some() || self.taken_along(r)?.is_none_or(|v| self.is_empty(&v)) {
            return Ok(());
        }
        shared(&self.sharing(r)?).map_or(Ok(()), |(message, data)| Err(Error::new(Code::DatabasesShared, message).with_data(data)))
    }

    fn sharing(&self, r: &ContainerRow) -> Result<Vec<ContainerRow>> {
        let mut others = self.records.read(|c| containers::all(c, Some(&r.project)))?;
        others.retain(|o| shares_them(r, o));
        Ok(others)
    }

    fn is_empty(&self, v: &Volume) -> bool {
        self.store.path(v).is_some_and(|p| std::fs::read_dir(p).is_ok_and(|mut d| d.next().is_none()))
    }

    /// Before the exchange of the container's volume: clones what the databases will be, or snapshots as `keep` what they are.
    pub(crate) fn prepare(&self, r: &ContainerRow, snapshot: &SnapshotName, keep: &SnapshotName, plan: &DatabasesPlan, op: &OperationId) -> Result<()> {
        let taken = Volume::SnapshotDatabases(r.id.clone(), snapshot.clone());
        match plan {
            DatabasesPlan::Keep => Ok(()),
            DatabasesPlan::Exchange { .. } => self.store.clone_volume(&taken, &Volume::NextDatabases(r.id.clone()), op).map(drop),
            DatabasesPlan::Revert { project } => {
                let hold = self.hold_writes(r);
                let kept = self.store.snapshot(&Volume::Databases(project.clone()), &Volume::SnapshotDatabases(r.id.clone(), keep.clone()), op);
                hold.release();
                kept.map(drop)
            }
        }
    }

    /// After the exchange of the container's own volume: exchanges or reverts its databases. May be repeated. The databases that could not be reverted are
    /// no error, but returned: the rest of the restore holds.
    pub(crate) fn restore(&self, id: &ContainerId, snapshot: &SnapshotName, plan: &DatabasesPlan, op: &OperationId) -> Result<Vec<Error>> {
        match plan {
            DatabasesPlan::Keep => Ok(Vec::new()),
            DatabasesPlan::Exchange { project, was } => self.exchange(id, project, *was).map(|()| Vec::new()),
            DatabasesPlan::Revert { project } => {
                let scratch = Volume::Staging(op.clone());
                self.store.delete(&scratch)?;
                self.store.clone_volume(&Volume::SnapshotDatabases(id.clone(), snapshot.clone()), &scratch, op)?;
                let done = self.revert(&scratch, project);
                let gone = self.store.delete(&scratch)?;
                self.records.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "a copy of databases that were reverted"))?;
                done
            }
        }
    }

    /// Puts the prepared databases of `id` in the place of the project's, if those are still the volume `was`. May be repeated.
    pub(crate) fn exchange(&self, id: &ContainerId, project: &ProjectId, was: VolumeId) -> Result<()> {
        let present = Volume::Databases(project.clone());
        if self.store.info(&present)?.is_some_and(|i| i.id == was) {
            self.store.exchange(&present, &Volume::NextDatabases(id.clone()))?;
        }
        let (Some(db), Some(path)) = (&self.db, self.store.path(&present)) else { return Ok(()) };
        match db.rebind(&project_volume(project), &path) {
            Err(e) if e.code() == Code::VolumeNotFound => Ok(()),
            // Whoever opens them next would see the old ones: they are served anew at the next start of a container.
            Err(e) if e.code() == Code::DatabasesUnavailable => {
                tracing::warn!(error = %e, "the databases are exchanged, their daemon does not know yet");
                Ok(())
            }
            r => r,
        }
    }

    fn revert(&self, from: &Volume, project: &ProjectId) -> Result<Vec<Error>> {
        let present = Volume::Databases(project.clone());
        let (Some(db), Some(wanted), Some(backing)) = (&self.db, self.store.path(from), self.store.path(&present)) else { return Ok(Vec::new()) };
        db.revert(&project_volume(project), &wanted, &backing, REVERT_PATIENCE)
    }

    /// Keeps as `keep` what the databases were before an exchange. May be repeated.
    pub(crate) fn keep(&self, id: &ContainerId, keep: &SnapshotName, plan: &DatabasesPlan) -> Result<()> {
        if matches!(plan, DatabasesPlan::Exchange { .. }) {
            self.store.seal(&Volume::NextDatabases(id.clone()), &Volume::SnapshotDatabases(id.clone(), keep.clone()))?;
        }
        Ok(())
    }

    /// Deletes what [`Databases::prepare`] made; the deleted volumes.
    pub(crate) fn unprepare(&self, id: &ContainerId, keep: &SnapshotName, plan: &DatabasesPlan) -> Result<Vec<VolumeId>> {
        Ok(match plan {
            DatabasesPlan::Keep => Vec::new(),
            DatabasesPlan::Exchange { .. } => self.store.delete(&Volume::NextDatabases(id.clone()))?.volumes,
            DatabasesPlan::Revert { .. } => self.store.delete(&Volume::SnapshotDatabases(id.clone(), keep.clone()))?.volumes,
        })
    }
}
