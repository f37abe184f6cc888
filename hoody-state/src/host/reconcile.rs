//! After a crash, a restart or a reboot: every open operation is finished or undone, then every container is compared with what runs.

use super::{Caller, Host};
use crate::catalog::containers::{ContainerRow, Desired};
use crate::catalog::{Durability, containers, operations, trash};
use crate::error::Result;
use crate::id::{ContainerId, OperationId};
use crate::model::{Status, Verb};
use crate::op::{Claim, Want, take_up_all};
use crate::ops::observed::{Observed, note_observed, observe, thaw};
use crate::ops::{self, copied::is_staging_of, trash::place_of};
use crate::snapshot::Volume;
use crate::units::VolumeId;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

/// The names in the pool's trash of what can be recovered, or is being put there or taken from there.
pub(crate) fn kept_in_trash(c: &rusqlite::Connection) -> Result<HashSet<OperationId>> {
    let under_way = operations::open(c)?.into_iter().filter(|r| r.resource_type == "container").filter_map(|r| r.resource_id.parse::<ContainerId>().ok());
    trash::ids(c)?.into_iter().chain(under_way).map(|id| place_of(&id)).collect()
}

impl Host {
    /// Brings catalog and world together. Called once, before anything else may change either.
    pub(crate) fn reconcile(&self) -> Result<()> {
        let rebooted = self.0.catalog.meta("boot")?.as_deref() != Some(self.0.boot.as_str());
        let open = self.0.read(operations::open)?;
        if !open.is_empty() {
            tracing::info!(operations = open.len(), "finishing or undoing what was under way");
        }
        take_up_all(&self.0, &ops::all::ALL)?;
        self.sweep()?;
        self.0.limits.apply_all()?;
        let mut all = true;
        for row in self.0.catalog.read(|c| containers::all(c, None))? {
            if let Err(e) = self.reconcile_container(&row, rebooted) {
                all = false;
                tracing::error!(container = %row.id, error = %e, "could not compare the container with what runs; the next start tries again");
            }
        }
        let running = self.0.catalog.read(|c| containers::all(c, None))?.into_iter();
        let running: HashSet<ContainerId> =
            running.filter(|r| r.spec.api_socket && matches!(r.status, Status::Running | Status::Paused)).map(|r| r.id).collect();
        self.0.api_sockets.take_up(|id| running.contains(id));
        self.0.shares.sync_all()?;
        self.write(Durability::Disk, |tx| {
            if all {
                tx.set_meta("boot", &self.0.boot)?;
            }
            tx.prune_operations()
        })
    }

    /// Half-made and thrown-away things that no open operation speaks of, and deleted ones that are back.
    fn sweep(&self) -> Result<()> {
        let gone: HashSet<VolumeId> = self.0.catalog.read(operations::reclaiming)?.into_iter().map(|r| r.volume).collect();
        let open: HashSet<OperationId> = self.0.catalog.read(operations::open)?.into_iter().map(|r| r.id).collect();
        for v in self.0.store.list(None)? {
            let stray = match &v {
                Volume::Staging(op) => !open.iter().any(|o| is_staging_of(o, op)),
                Volume::Databases(_) => !self.0.lists(&v)?,
                _ => false,
            };
            // What is said to be deleted and is there came back by a power cut; unless it is in a list: then it only got an id that was free again.
            let back = if gone.is_empty() { None } else { self.0.store.info(&v)?.map(|i| i.id).filter(|id| gone.contains(id)) };
            match back {
                Some(id) if self.0.lists(&v)? => self.write(Durability::Process, |tx| tx.end_reclaim(id))?,
                None if !stray => {}
                _ => match &v {
                    // What its daemon still serves, and the disk of its project, are taken away too.
                    Volume::Databases(p) => {
                        self.0.databases.delete_project(p)?;
                        self.0.ramdisks.remove_project(p)?;
                    }
                    _ => drop(self.0.store.delete(&v)?),
                },
            }
        }
        let kept = self.0.read(kept_in_trash)?;
        for op in self.0.store.trash()?.into_iter().filter(|op| !open.contains(op) && !kept.contains(op)) {
            let gone = self.0.store.empty_trash(&op, &mut |_, _| {})?;
            self.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "a deleted container"))?;
        }
        Ok(())
    }

    fn autostart(&self, id: &ContainerId) -> Result<()> {
        let caller = Caller { by: "autostart".into(), wait: Duration::ZERO, patience: Duration::ZERO, ..Caller::default() };
        self.lifecycle(&caller, id, Verb::Start, None).map(|_| ())
    }

    fn reconcile_container(&self, row: &ContainerRow, rebooted: bool) -> Result<()> {
        let id = &row.id;
        // Held, so that an init that ends meanwhile is taken note of after what is written here. What is locked already is being seen to.
        let Ok(lock) = self.0.engine.locks.take(Claim::short("container.recovery", vec![Want::container(id)]), Duration::ZERO) else { return Ok(()) };
        let observed = observe(&self.0, id)?;
        let again = rebooted && row.spec.autostart && row.state.desired == Desired::Running;
        match (row.status, observed) {
            (Status::Running, Observed::Frozen(..)) => {
                tracing::warn!(container = %id, "was left frozen; it goes on");
                thaw(&self.0, id)
            }
            (Status::Running, observed @ Observed::Running(..)) if row.state.run.is_none() => {
                self.write(Durability::Process, |tx| note_observed(tx, id, &observed))
            }
            (Status::Running, Observed::Running(..)) | (Status::Paused, Observed::Frozen(..)) | (Status::Deleting | Status::Deleted, _) => Ok(()),
            (Status::Paused, observed @ Observed::Running(..)) => self.write(Durability::Process, |tx| note_observed(tx, id, &observed)),
            (Status::Stopped | Status::Failed, Observed::Running(..) | Observed::Frozen(..)) => self.0.runtime.kill(id),
            // A start after a reboot that was cut short before it was journalled.
            (Status::Stopped, Observed::Nothing) if again => {
                drop(lock);
                self.autostart(id)
            }
            (Status::Stopped | Status::Failed, Observed::Nothing) => Ok(()),
            (_, Observed::Nothing) => {
                let why = if rebooted { "the host was restarted" } else { "the container's init ended while no server ran" };
                self.0.runtime.kill(id)?;
                self.write(Durability::Process, |tx| {
                    tx.change_container(id, "system", Some(json!({ "reason": why })), |r| {
                        r.status = Status::Stopped;
                        r.state.message = Some(why.to_owned());
                        if !rebooted {
                            r.state.desired = Desired::Stopped;
                        }
                    })?;
                    Ok(())
                })?;
                drop(lock);
                if !rebooted {
                    ops::automatic::at_unseen_end(&self.0, id);
                }
                if again { self.autostart(id) } else { Ok(()) }
            }
            (_, observed) => self.write(Durability::Process, |tx| note_observed(tx, id, &observed)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::name::ImageName;

    #[test]
    fn a_deleted_volume_that_a_power_cut_brings_back_goes_at_the_next_start() {
        let host = Host::in_memory().unwrap();
        let image = |name: &str| Volume::Image(name.parse::<ImageName>().unwrap());
        let staging = Volume::Staging(OperationId::generate());
        host.0.store.create(&staging).unwrap();
        host.0.store.seal(&staging, &image("back")).unwrap();
        let ids = ["back", "debian/13"].map(|n| host.0.store.info(&image(n)).unwrap().unwrap().id);
        host.write(Durability::Process, |tx| tx.add_reclaim(&ids, "a test")).unwrap();
        host.sweep().unwrap();
        assert!(host.0.store.info(&image("back")).unwrap().is_none());
        assert!(host.0.store.info(&image("debian/13")).unwrap().is_some(), "it is in the list");
    }
}
