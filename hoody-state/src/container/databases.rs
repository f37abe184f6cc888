//! What snapshots and restores do with `/hoody/databases`.
//!
//! A snapshot takes the project's databases along (private ones lie in the container's own volume), while the lock broker holds every write: both are of
//! one moment, and no transaction is half in them. A restore of a container that is alone on them exchanges them as it does its own volume. Where others use
//! them they are not exchanged but written, each database in one transaction of SQLite's backup API, so that open connections stay good.

use super::places::{project_volume, volume_name};
use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::id::{ContainerId, OperationId, ProjectId};
use crate::locked_db::merge::{Trees, merge};
use crate::locked_db::{Quiesced, copy_database};
use crate::model::{Consistency, DatabaseScope, DatabasesChoice, SnapshotDatabase, Status};
use crate::name::SnapshotName;
use crate::op::DatabasesPlan;
use crate::snapshot::Volume;
use crate::sys::mount::{Access, in_root_of};
use crate::units::Bytes;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a snapshot waits for write transactions that are under way; after that it is taken all the same, as a power cut would leave things.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same when only the processes of a paused container could end theirs.
const PAUSED_PATIENCE: Duration = Duration::from_millis(20);
/// A hold ends by itself after this, should this process hang.
const LEASE: Duration = Duration::from_secs(10);
/// How long a revert waits for a database that somebody writes.
const REVERT_PATIENCE: Duration = Duration::from_secs(10);

/// The moment in which nobody writes.
pub(super) struct Moment {
    held: Option<Box<dyn Quiesced>>,
    quiet: bool,
    since: Instant,
}

impl Moment {
    /// Ends it: what a snapshot that was taken in it promises.
    pub fn end(self) -> Consistency {
        let since = self.since;
        let whole = match self.held {
            Some(held) => held.release().unwrap_or_else(|e| {
                tracing::warn!(error = %e, "the hold on databases was lost");
                false
            }),
            None => self.quiet,
        };
        tracing::debug!(held_us = since.elapsed().as_micros(), whole, "databases were held");
        if whole { Consistency::DatabasesQuiesced } else { Consistency::Crash }
    }
}

impl Host {
    /// Holds the writes to a container's databases.
    pub(super) fn quiet_moment(&self, r: &ContainerRow) -> Moment {
        let Some(db) = &self.0.databases else { return Moment { held: None, quiet: false, since: Instant::now() } };
        let name = volume_name(r);
        let patience = if r.status == Status::Paused && r.spec.databases == DatabaseScope::Private { PAUSED_PATIENCE } else { PATIENCE };
        match db.quiesce(&[&name], patience, LEASE) {
            Ok(held) => Moment { held: Some(held), quiet: true, since: Instant::now() },
            // Nobody has it open: no container that uses it has been started.
            Err(e) if e.code() == "volume_not_found" => Moment { held: None, quiet: true, since: Instant::now() },
            Err(e) => {
                tracing::warn!(container = %r.id, error = %e, "the snapshot is taken without waiting for the databases");
                Moment { held: None, quiet: false, since: Instant::now() }
            }
        }
    }

    /// The project's databases, if a snapshot of this container takes them along.
    pub(super) fn databases_along(&self, r: &ContainerRow) -> Result<Option<Volume>> {
        if self.0.databases.is_none() || r.spec.databases != DatabaseScope::Project {
            return Ok(None);
        }
        let volume = Volume::Databases(r.project.clone());
        Ok(self.0.store.info(&volume)?.map(|_| volume))
    }

    /// What a restore is to do with the databases. Error: `databases_shared`, naming the other containers.
    pub(super) fn databases_plan(&self, r: &ContainerRow, snapshot: &SnapshotName, choice: Option<DatabasesChoice>) -> Result<DatabasesPlan> {
        let taken = Volume::SnapshotDatabases(r.id.clone(), snapshot.clone());
        if choice == Some(DatabasesChoice::Keep) || self.0.store.info(&taken)?.is_none() {
            return Ok(DatabasesPlan::Keep);
        }
        let Some(present) = self.databases_along(r)? else { return Ok(DatabasesPlan::Keep) };
        let others: Vec<ContainerRow> = self
            .0
            .catalog
            .read(|c| containers::all(c, Some(&r.project)))?
            .into_iter()
            .filter(|o| o.id != r.id && o.spec.databases == DatabaseScope::Project && !matches!(o.status, Status::Deleting | Status::Deleted))
            .collect();
        if others.is_empty() {
            let was = self.0.store.info(&present)?.ok_or_else(|| Error::internal("the databases have gone"))?.id;
            return Ok(DatabasesPlan::Exchange { project: r.project.clone(), was });
        }
        if choice == Some(DatabasesChoice::Revert) {
            return Ok(DatabasesPlan::Revert { project: r.project.clone() });
        }
        let empty = |v: &Volume| self.0.store.path(v).is_some_and(|p| std::fs::read_dir(p).is_ok_and(|mut d| d.next().is_none()));
        if empty(&taken) && empty(&present) {
            return Ok(DatabasesPlan::Keep);
        }
        let names: Vec<&str> = others.iter().map(|o| o.name.as_str()).collect();
        let message = format!(
            "the databases of snapshot {snapshot} are used by {} too: say databases: \"revert\" to take them back for all, or \"keep\" to leave them as they are; nothing was changed",
            names.join(", ")
        );
        let data = json!({ "containers": others.iter().map(|o| json!({ "id": o.id, "name": o.name })).collect::<Vec<_>>() });
        Err(Error::conflict("databases_shared", message).with_data(data))
    }

    /// Before the exchange: what the databases will be, and what they are, as volumes.
    pub(super) fn prepare_databases(
        &self,
        r: &ContainerRow,
        snapshot: &SnapshotName,
        keep: &SnapshotName,
        plan: &DatabasesPlan,
        op: &OperationId,
    ) -> Result<()> {
        let taken = Volume::SnapshotDatabases(r.id.clone(), snapshot.clone());
        match plan {
            DatabasesPlan::Keep => Ok(()),
            DatabasesPlan::Exchange { .. } => self.0.store.clone_volume(&taken, &Volume::NextDatabases(r.id.clone()), op).map(drop),
            DatabasesPlan::Revert { project } => {
                let moment = self.quiet_moment(r);
                let kept = self.0.store.snapshot(&Volume::Databases(project.clone()), &Volume::SnapshotDatabases(r.id.clone(), keep.clone()), op);
                moment.end();
                kept.map(drop)
            }
        }
    }

    /// After the exchange of the container's own volume: that of its databases, or what stands for it. May be repeated. What could not be reverted is
    /// said, but no reason to stop: the rest of the restore holds.
    pub(crate) fn restore_databases(&self, id: &ContainerId, snapshot: &SnapshotName, plan: &DatabasesPlan, op: &OperationId) -> Result<Vec<Error>> {
        match plan {
            DatabasesPlan::Keep => Ok(Vec::new()),
            DatabasesPlan::Exchange { project, was } => {
                let present = Volume::Databases(project.clone());
                if self.0.store.info(&present)?.is_some_and(|i| i.id == *was) {
                    self.0.store.exchange(&present, &Volume::NextDatabases(id.clone()))?;
                }
                if let (Some(db), Some(path)) = (&self.0.databases, self.0.store.path(&present)) {
                    match db.rebind(&project_volume(project), &path) {
                        Err(e) if e.code() == "volume_not_found" => {}
                        // Who comes next would see the old ones: served anew at the next start of a container.
                        Err(e) if e.code() == "databases_unavailable" => {
                            tracing::warn!(error = %e, "the databases are exchanged, their daemon does not know yet")
                        }
                        r => r?,
                    }
                }
                Ok(Vec::new())
            }
            DatabasesPlan::Revert { project } => {
                let scratch = Volume::Staging(op.clone());
                self.0.store.delete(&scratch)?;
                self.0.store.clone_volume(&Volume::SnapshotDatabases(id.clone(), snapshot.clone()), &scratch, op)?;
                let done = self.revert(&scratch, project);
                let gone = self.0.store.delete(&scratch)?;
                self.write(crate::catalog::Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "a copy of databases that were reverted"))?;
                done
            }
        }
    }

    fn revert(&self, from: &Volume, project: &ProjectId) -> Result<Vec<Error>> {
        let seen = Volume::Databases(project.clone());
        let (Some(db), Some(from), Some(seen)) = (&self.0.databases, self.0.store.path(from), self.0.store.path(&seen)) else { return Ok(Vec::new()) };
        let to = db.path(&project_volume(project));
        // In a root of its own: links in the databases lead to nothing of the host.
        let shown = [("source", &*from, Access::Write), ("seen", &*seen, Access::Read), ("target", &*to, Access::Write)];
        let trees = Trees { from: Path::new("/source"), seen: Path::new("/seen"), to: Path::new("/target") };
        in_root_of(&shown, || merge(trees, REVERT_PATIENCE)).io(|| format!("revert the databases of project {project}"))
    }

    /// Puts away what the databases were before an exchange.
    pub(crate) fn keep_databases(&self, id: &ContainerId, keep: &SnapshotName, plan: &DatabasesPlan) -> Result<()> {
        if matches!(plan, DatabasesPlan::Exchange { .. }) {
            self.0.store.seal(&Volume::NextDatabases(id.clone()), &Volume::SnapshotDatabases(id.clone(), keep.clone()))?;
        }
        Ok(())
    }

    /// Undoes what [`Host::prepare_databases`] made.
    pub(crate) fn unprepare_databases(&self, id: &ContainerId, keep: &SnapshotName, plan: &DatabasesPlan) -> Result<Vec<crate::units::VolumeId>> {
        Ok(match plan {
            DatabasesPlan::Keep => Vec::new(),
            DatabasesPlan::Exchange { .. } => self.0.store.delete(&Volume::NextDatabases(id.clone()))?.volumes,
            DatabasesPlan::Revert { .. } => self.0.store.delete(&Volume::SnapshotDatabases(id.clone(), keep.clone()))?.volumes,
        })
    }

    /// The databases in a snapshot, with their sizes (log included). Cost: a look at the first bytes of each file.
    pub(super) fn databases_in(&self, id: &ContainerId, name: &SnapshotName) -> Result<Vec<SnapshotDatabase>> {
        let along = Volume::SnapshotDatabases(id.clone(), name.clone());
        let root = if self.0.store.info(&along)?.is_some() {
            self.0.store.path(&along)
        } else {
            self.0.store.path(&Volume::Snapshot(id.clone(), name.clone())).and_then(|p| {
                let root = std::fs::File::open(p).ok()?;
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
                let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
                let dir = rustix::fs::openat2(root, "hoody/databases", flags, rustix::fs::Mode::empty(), resolve).ok()?;
                std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir))).ok()
            })
        };
        let Some(root) = root else { return Ok(Vec::new()) };
        let found = copy_database::list(&root).io(|| format!("look for databases in snapshot {name} of container {id}"))?;
        let shown = |p: &Path| format!("{}/{}", super::places::DATABASES, p.strip_prefix(&root).unwrap_or(p).display());
        Ok(found.iter().map(|(path, size)| SnapshotDatabase { path: shown(path), size: Bytes(*size) }).collect())
    }
}
