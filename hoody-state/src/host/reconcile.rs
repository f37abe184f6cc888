//! After a crash, a restart or a reboot: every open operation is finished or undone, then every container is compared with what runs.
//!
//! What is done with an open operation depends on its intent and on the world, never on how far it is thought to have come. So it may
//! be repeated, and a failed operation takes the same way.

use super::{Caller, Host};
use crate::catalog::containers::{ContainerRow, Desired};
use crate::catalog::{Durability, Tx, containers, images, ms, operations, projects, snapshots};
use crate::error::{Code, Error, Kind, Result};
use crate::freeze::FreezeState;
use crate::id::{ContainerId, OperationId, RunId};
use crate::model::{LifecycleAnswer, OperationStatus, Status, Verb};
use crate::op::Intent;
use crate::snapshot::Volume;
use crate::units::VolumeId;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

/// What a container was found doing.
enum Found {
    Running(Option<i64>, RunId),
    Frozen(Option<i64>, RunId),
    Nothing,
}

impl Host {
    /// Brings catalog and world together. Called once, before anything else may change either.
    pub(super) fn reconcile(&self) -> Result<()> {
        let rebooted = self.0.catalog.meta("boot")?.as_deref() != Some(self.0.boot.as_str());
        let open = self.0.catalog.read(operations::open)?;
        if !open.is_empty() {
            tracing::info!(operations = open.len(), "finishing or undoing what was under way");
        }
        for (id, intent) in &open {
            self.take_up_or_lock(id, intent);
        }
        // A replaced snapshot's deletion is journalled while its replacement is finished: once more for those.
        for (id, intent) in self.0.catalog.read(operations::open)?.iter().filter(|(id, _)| !open.iter().any(|(o, _)| o == id)) {
            self.take_up_or_lock(id, intent);
        }
        self.sweep()?;
        self.apply_all_disk_limits()?;
        let mut all = true;
        for row in self.0.catalog.read(|c| containers::all(c, None))? {
            if let Err(e) = self.reconcile_container(&row, rebooted) {
                all = false;
                tracing::error!(container = %row.id, error = %e, "could not compare the container with what runs; the next start tries again");
            }
        }
        self.sync_all_shares()?;
        self.write(Durability::Disk, |tx| {
            if all {
                tx.set_meta("boot", &self.0.boot)?;
            }
            tx.prune_operations()
        })
    }

    /// One operation that cannot be recovered keeps nobody else from being served.
    fn take_up_or_lock(&self, id: &OperationId, intent: &Intent) {
        if let Err(e) = self.take_up(id, intent) {
            tracing::error!(operation = %id, kind = intent.kind(), error = %e, "could be neither finished nor undone; its container stays locked until the next start");
            if let Ok(lock) = self.0.locks.take(&lock_of(intent), "recovery") {
                lock.keep();
            }
        }
    }

    fn take_up(&self, id: &OperationId, intent: &Intent) -> Result<()> {
        let resume = || -> Result<_> {
            let lock = self.0.locks.take(&lock_of(intent), intent.kind())?;
            Ok(self.resume(id.clone(), intent.clone(), lock))
        };
        // What may take long, or waits for another server, continues in the background. What it fails with it settles itself.
        match intent {
            Intent::Delete { .. } => drop(self.behind(resume()?, Duration::ZERO, |host, op| host.delete_steps(op))),
            Intent::Copy { container, .. } if self.0.store.info(&Volume::Live(container.clone()))?.is_some() => {
                drop(self.behind(resume()?, Duration::ZERO, |host, op| host.copy_rest(op)));
            }
            Intent::Receive { .. } => {
                self.0.store.delete(&Volume::Staging(id.clone()))?;
                drop(self.behind(resume()?, Duration::ZERO, |host, op| host.receive_steps(op)));
            }
            Intent::Move { handing_over: true, .. } => {
                drop(self.behind(resume()?, Duration::ZERO, |host, op| host.hand_over(op, None, &serde_json::Value::Null)));
            }
            _ => return self.settle(id, intent, None),
        }
        Ok(())
    }

    /// Half-made and thrown-away things that no open operation speaks of, and deleted ones that are back.
    fn sweep(&self) -> Result<()> {
        let gone: HashSet<VolumeId> = self.0.catalog.read(operations::reclaiming)?.into_iter().map(|r| r.volume).collect();
        let open: HashSet<OperationId> = self.0.catalog.read(operations::open)?.into_iter().map(|(id, _)| id).collect();
        for v in self.0.store.list(None)? {
            let stray = match &v {
                Volume::Staging(op) => !open.iter().any(|o| crate::op::works_in(o, op)),
                Volume::Databases(_) => !self.listed(&v)?,
                _ => false,
            };
            // What is said to be deleted and is there came back by a power cut; unless it is in a list: then it only got an id that was free again.
            let back = if gone.is_empty() { None } else { self.0.store.info(&v)?.map(|i| i.id).filter(|id| gone.contains(id)) };
            match back {
                Some(id) if self.listed(&v)? => self.write(Durability::Process, |tx| tx.end_reclaim(id))?,
                None if !stray => {}
                _ => drop(self.0.store.delete(&v)?),
            }
        }
        for op in self.0.store.trash()?.into_iter().filter(|op| !open.contains(op)) {
            let gone = self.0.store.empty_trash(&op, &mut |_, _| {})?;
            self.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, "a deleted container"))?;
        }
        Ok(())
    }

    /// Whether the catalog has what a volume is of.
    fn listed(&self, v: &Volume) -> Result<bool> {
        self.0.catalog.read(|c| {
            Ok(match v {
                Volume::Live(id) | Volume::Next(id) | Volume::NextDatabases(id) => containers::find(c, id)?.is_some(),
                Volume::Snapshot(id, name) | Volume::SnapshotDatabases(id, name) => snapshots::by_name(c, id, name.as_str())?.is_some(),
                Volume::Image(name) => images::by_name(c, name)?.is_some(),
                Volume::Databases(p) => projects::exists(c, p)?,
                Volume::Staging(_) => false,
            })
        })
    }

    /// Finishes or undoes one operation. `error` is why it failed, or nothing after a crash.
    pub(crate) fn settle(&self, op: &OperationId, intent: &Intent, error: Option<&Error>) -> Result<()> {
        match intent {
            Intent::Create { container, cloned: false, .. } => self.settle_unmade(op, container, error),
            Intent::Copy { container, .. } if self.0.store.info(&Volume::Live(container.clone()))?.is_none() => self.settle_unmade(op, container, error),
            Intent::Create { container, run, cloned: true, .. } => self.settle_start(op, container, run, None, error),
            Intent::Lifecycle { container, verb: verb @ (Verb::Start | Verb::Restart), run } => self.settle_start(op, container, run, Some(*verb), error),
            Intent::Lifecycle { container, verb: verb @ (Verb::Stop | Verb::ForceStop), .. } => {
                self.0.runtime.kill(container)?;
                self.done(op, |tx| {
                    let r = tx.change_container(container, "system", None, |r| {
                        r.status = Status::Stopped;
                        r.state.desired = Desired::Stopped;
                    })?;
                    Ok(lifecycle_answer(&r, *verb, op))
                })
            }
            Intent::Lifecycle { container, verb: verb @ (Verb::Pause | Verb::Resume), .. } => {
                self.thaw(container)?;
                let found = self.look(container)?;
                // A pause is undone; a resume is thereby finished, and must not be refused when it is asked for again with its key.
                if *verb == Verb::Resume && error.is_none() && matches!(found, Found::Running(..)) {
                    return self.done(op, |tx| {
                        settle_status(tx, container, &found)?;
                        Ok(lifecycle_answer(&containers::get(tx.conn, container)?, *verb, op))
                    });
                }
                self.undone(op, error, |tx| match found {
                    // Its processes ended with the host's uptime. What it is now follows when containers are compared, as for those that nobody paused.
                    Found::Nothing => Ok(()),
                    found => settle_status(tx, container, &found),
                })
            }
            Intent::Copy { container, .. } => {
                let error = error.ok_or_else(|| Error::internal("a copy that exists is only ever finished"))?;
                self.0.runtime.kill(container)?;
                for v in self.0.store.list(None)? {
                    if matches!(&v, Volume::Staging(s) if crate::op::works_in(op, s)) {
                        self.0.store.delete(&v)?;
                    }
                }
                let gone = self.drop_unlisted(container)?;
                self.undone(op, Some(error), |tx| {
                    tx.add_reclaim(&gone, "what was copied in part")?;
                    fail(tx, container, error.message())
                })
            }
            Intent::Receive { container, resumes, .. } => {
                let error = error.ok_or_else(|| Error::internal("a copy from a peer is gone on with"))?;
                self.0.store.delete(&Volume::Staging(op.clone()))?;
                if error.kind() == Kind::Cancelled && !resumes {
                    return self.settle_unmade(op, container, Some(error));
                }
                self.0.runtime.kill(container)?;
                let gone = self.drop_unlisted(container)?;
                let there = self.0.store.info(&Volume::Live(container.clone()))?.is_some();
                let hint = if there { "" } else { "; what has come over stays: sync goes on with the copy, delete removes it" };
                self.undone(op, Some(error), |tx| {
                    tx.add_reclaim(&gone, "what had come over in part")?;
                    fail(tx, container, &format!("{}{hint}", error.message()))
                })
            }
            Intent::Sync { container, .. } => {
                self.thaw_unless_paused(container)?;
                let mut gone = self.0.store.delete(&Volume::Next(container.clone()))?;
                gone.volumes.extend(self.0.store.delete(&Volume::NextDatabases(container.clone()))?.volumes);
                gone.volumes.extend(self.0.store.delete(&Volume::Staging(op.clone()))?.volumes);
                gone.volumes.extend(self.drop_unlisted(container)?);
                self.undone(op, error, |tx| {
                    tx.add_reclaim(&gone.volumes, "what a sync compared and brought over in part")?;
                    let r = containers::get(tx.conn, container)?;
                    let why = error.map_or("the server ended in the middle of it", Error::message);
                    tx.emit_container("container.operation.failed", &r, json!({ "operation_id": op, "operation": "sync", "error": why }))
                })
            }
            Intent::Move { given: true, .. } => Err(Error::internal("a container that was moved is only ever stopped here; the next start goes on with that")),
            Intent::Move { container, server, copy, was_running, handing_over, .. } => {
                // The peer's last word, or never told at all: it goes on here.
                if *handing_over && error.is_none() {
                    return Err(Error::internal("a move that the peer decides on is asked about"));
                }
                self.thaw(container)?;
                let found = match self.look(container)? {
                    Found::Nothing if *was_running => self.boot_again(container, &RunId::generate()),
                    found => Ok(found),
                };
                // Best effort: a copy of the same name would be in the way of the next try.
                if let Err(e) = self
                    .peer_of(server)
                    .and_then(|peer| self.ask_briefly(&peer, &crate::transfer::Request::Discard { copy: copy.clone(), handover: op.clone() }))
                {
                    tracing::info!(container = %container, copy = %copy, error = %e, "the copy that was made for the move stays there");
                }
                if let Err(e) = self.drop_move_snapshots(container, copy) {
                    tracing::info!(container = %container, error = %e, "a snapshot that was taken for the move stays");
                }
                self.undone(op, error, |tx| {
                    match &found {
                        Ok(Found::Nothing) => {}
                        Ok(found) => settle_status(tx, container, found)?,
                        Err(why) => fail(tx, container, why)?,
                    }
                    let r = containers::get(tx.conn, container)?;
                    let why = error.map_or("the server ended in the middle of it", Error::message);
                    tx.emit_container("container.operation.failed", &r, json!({ "operation_id": op, "operation": "move", "error": why, "copy": copy }))
                })
            }
            Intent::Delete { .. } => Err(Error::internal("a delete is only ever finished; the next start goes on with it")),
            Intent::Snapshot { container, row, replace, databases } => {
                let volume = Volume::Snapshot(container.clone(), row.snapshot.name.clone());
                let along = Volume::SnapshotDatabases(container.clone(), row.snapshot.name.clone());
                let there = |v: &Volume| Ok::<_, Error>(self.0.store.info(v)?.is_some_and(|i| i.read_only) && !self.0.store.claims_identity(v)?);
                let whole = there(&volume)? && (!databases || there(&along)?);
                self.thaw_unless_paused(container)?;
                self.0.store.delete(&Volume::Staging(op.clone()))?;
                if whole && error.is_none() {
                    let row = self.measured(container, (**row).clone())?;
                    return self.done(op, |tx| self.insert_snapshot(tx, container, &row, replace.as_ref()));
                }
                let mut gone = self.0.store.delete(&volume)?;
                gone.volumes.extend(self.0.store.delete(&along)?.volumes);
                self.undone(op, error, |tx| tx.add_reclaim(&gone.volumes, &format!("snapshot {} of container {container}", row.snapshot.name)))
            }
            Intent::DeleteSnapshot { container, name } => {
                let listed = self.0.catalog.read(|c| snapshots::by_name(c, container, name.as_str()))?.is_some();
                if listed {
                    return self.done(op, |_| Ok(()));
                }
                self.drop_volume(&Volume::Snapshot(container.clone(), name.clone()), &format!("snapshot {name} of container {container}"))
            }
            Intent::Restore { .. } => self.settle_restore(op, intent, error),
            Intent::Import { image } | Intent::ImageFromSnapshot { image, .. } => {
                let mut gone = self.0.store.delete(&Volume::Staging(op.clone()))?;
                gone.volumes.extend(self.0.store.delete(&Volume::Image(image.name.clone()))?.volumes);
                self.undone(op, error, |tx| tx.add_reclaim(&gone.volumes, &format!("image {}", image.name)))
            }
            Intent::DeleteImage { image } => {
                // An image of the same name may have been imported since: the volume is its now.
                if self.0.catalog.read(|c| images::by_name(c, &image.name))?.is_some() {
                    return self.done(op, |_| Ok(()));
                }
                self.drop_volume(&Volume::Image(image.name.clone()), &format!("image {}", image.name))
            }
        }
    }

    /// Undoes the making of a container that has no volume yet.
    fn settle_unmade(&self, op: &OperationId, container: &ContainerId, error: Option<&Error>) -> Result<()> {
        self.0.runtime.remove(container)?;
        self.0.store.delete(&Volume::Staging(op.clone()))?;
        self.0.store.trash_home(container, op)?;
        let gone = self.0.store.empty_trash(op, &mut |_, _| {})?;
        let mut ended = Vec::new();
        self.undone(op, error, |tx| {
            ended = tx.delete_container(container)?.0;
            tx.add_reclaim(&gone.volumes, &format!("container {container}"))
        })?;
        self.0.shares.ended(&ended);
        Ok(())
    }

    /// Deletes volumes of a container's snapshots that are in no list: what came over, or was copied, and was not written down.
    fn drop_unlisted(&self, container: &ContainerId) -> Result<Vec<VolumeId>> {
        let mut gone = Vec::new();
        for v in self.0.store.list(Some(container))? {
            if matches!(v, Volume::Snapshot(..) | Volume::SnapshotDatabases(..)) && !self.listed(&v)? {
                gone.extend(self.0.store.delete(&v)?.volumes);
            }
        }
        Ok(gone)
    }

    fn settle_start(&self, op: &OperationId, container: &ContainerId, run: &RunId, verb: Option<Verb>, error: Option<&Error>) -> Result<()> {
        let found = if error.is_none() { self.look(container)? } else { Found::Nothing };
        let found = match found {
            // A run other than the one wanted is what a restart had not stopped yet.
            Found::Running(_, r) | Found::Frozen(_, r) if r != *run => Found::Nothing,
            other => other,
        };
        let found = match found {
            Found::Nothing => {
                self.0.runtime.kill(container)?;
                match error {
                    Some(e) => Err(e.message().to_owned()),
                    None => self.boot_again(container, run),
                }
            }
            other => Ok(other),
        };
        match found {
            Ok(found) => {
                self.done(op, |tx| {
                    settle_status(tx, container, &found)?;
                    let r = containers::get(tx.conn, container)?;
                    // A create was answered when its volume was there; a lifecycle verb is answered now.
                    Ok(match verb {
                        Some(verb) => serde_json::to_value(lifecycle_answer(&r, verb, op)),
                        None => serde_json::to_value(self.container_view(tx.conn, &r)?),
                    }
                    .unwrap_or_default())
                })?;
                self.note_exit(container)
            }
            Err(why) => {
                let why = why.clone();
                let close = |tx: &mut Tx<'_>| fail(tx, container, &why);
                self.undone(op, error, close)
            }
        }
    }

    fn settle_restore(&self, op: &OperationId, intent: &Intent, error: Option<&Error>) -> Result<()> {
        let Intent::Restore { container, snapshot, keep, live, boot, was_running, run, databases, discard, told, .. } = intent else {
            return Err(Error::internal("not a restore"));
        };
        if self.exchanged(container, *live)? {
            for e in self.restore_databases(container, snapshot, databases, op)? {
                tracing::error!(container = %container, error = %e, "a database could not be reverted; restore the snapshot again");
            }
            let kept = self.put_away(container, keep, *discard, databases, || Ok(()))?;
            self.owner_exchanged(container);
            let booted = if *boot {
                Some(match self.look(container)? {
                    Found::Running(at, _) | Found::Frozen(at, _) => (at, None),
                    Found::Nothing => {
                        self.0.runtime.kill(container)?;
                        match self.boot_again(container, run) {
                            Ok(Found::Running(at, _) | Found::Frozen(at, _)) => (at, None),
                            Ok(Found::Nothing) => (None, Some("it did not start".to_owned())),
                            Err(why) => (None, Some(why)),
                        }
                    }
                })
            } else {
                None
            };
            return self.done(op, |tx| {
                let restored = self.note_restore(tx, intent, kept.as_ref(), booted)?;
                match told {
                    Some(told) => Ok(told.clone()),
                    None => serde_json::to_value(restored).map_err(|e| Error::internal(e.to_string())),
                }
            });
        }
        self.thaw_unless_paused(container)?;
        let mut gone = self.0.store.delete(&Volume::Next(container.clone()))?;
        gone.volumes.extend(self.0.store.delete(&Volume::Staging(op.clone()))?.volumes);
        gone.volumes.extend(self.unprepare_databases(container, &keep.snapshot.name, databases)?);
        let found = match self.look(container)? {
            Found::Nothing if *was_running => self.boot_again(container, &RunId::generate()).map(Some),
            // It did not run before either, and its status says why.
            Found::Nothing => Ok(None),
            other => Ok(Some(other)),
        };
        self.undone(op, error, |tx| {
            tx.add_reclaim(&gone.volumes, &format!("a restore of container {container} that was undone"))?;
            match &found {
                Ok(Some(found)) => settle_status(tx, container, found),
                Ok(None) => Ok(()),
                Err(why) => fail(tx, container, why),
            }
        })
    }

    /// Boots a container whose start or run was cut short. The error is for its status.
    fn boot_again(&self, container: &ContainerId, run: &RunId) -> Result<Found, String> {
        let row = self.0.catalog.read(|c| containers::get(c, container)).map_err(|e| e.message().to_owned())?;
        match self.boot(&row, run) {
            Ok(r) => Ok(Found::Running(Some(ms(r.started_at)), r.run)),
            Err(e) => Err(e.message().to_owned()),
        }
    }

    fn look(&self, container: &ContainerId) -> Result<Found> {
        let Some(r) = self.0.runtime.adopt(container)? else { return Ok(Found::Nothing) };
        let at = Some(ms(r.started_at));
        Ok(match self.frozen(container)? {
            true => Found::Frozen(at, r.run),
            false => Found::Running(at, r.run),
        })
    }

    fn frozen(&self, container: &ContainerId) -> Result<bool> {
        match self.0.freezer.state(container) {
            Ok(s) => Ok(s == FreezeState::Frozen),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn thaw(&self, container: &ContainerId) -> Result<()> {
        match self.0.freezer.thaw(container) {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn thaw_unless_paused(&self, container: &ContainerId) -> Result<()> {
        let paused = self.0.catalog.read(|c| containers::find(c, container))?.is_some_and(|r| r.status == Status::Paused);
        if paused { Ok(()) } else { self.thaw(container) }
    }

    /// Closes an operation that was finished after all.
    fn done<T: serde::Serialize>(&self, op: &OperationId, f: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<()> {
        self.write(Durability::Disk, |tx| {
            let answer = f(tx)?;
            let answer = serde_json::to_value(&answer).map_err(|e| Error::internal(e.to_string()))?;
            tx.answer_key_of(op, &answer)?;
            tx.close_operation(op, OperationStatus::Succeeded, None)
        })
    }

    /// Closes an operation that came to nothing.
    fn undone(&self, op: &OperationId, error: Option<&Error>, f: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        let interrupted = Error::new(Code::Interrupted, "the server ended in the middle of it; what it had begun was undone");
        let error = error.unwrap_or(&interrupted);
        let status = if error.kind() == Kind::Cancelled { OperationStatus::Cancelled } else { OperationStatus::Failed };
        self.write(Durability::Disk, |tx| {
            f(tx)?;
            tx.free_key_of(op)?;
            tx.close_operation(op, status, Some(error))
        })?;
        self.0.upkeep.reclaim();
        Ok(())
    }

    fn autostart(&self, id: &ContainerId) -> Result<()> {
        let caller = Caller { by: "autostart".into(), wait: Duration::ZERO, ..Caller::default() };
        self.lifecycle(&caller, id, Verb::Start, None).map(|_| ())
    }

    fn reconcile_container(&self, row: &ContainerRow, rebooted: bool) -> Result<()> {
        let id = &row.id;
        // Held, so that an init that ends meanwhile is taken note of after what is written here. What is locked already is being seen to.
        let Ok(lock) = self.0.locks.take(id.as_str(), "recovery") else { return Ok(()) };
        let found = self.look(id)?;
        let again = rebooted && row.spec.autostart && row.state.desired == Desired::Running;
        match (row.status, found) {
            (Status::Running, Found::Frozen(..)) => {
                tracing::warn!(container = %id, "was left frozen; it goes on");
                self.thaw(id)
            }
            (Status::Running, found @ Found::Running(..)) if row.state.run.is_none() => self.write(Durability::Process, |tx| settle_status(tx, id, &found)),
            (Status::Running, Found::Running(..)) | (Status::Paused, Found::Frozen(..)) | (Status::Deleting | Status::Deleted, _) => Ok(()),
            (Status::Paused, found @ Found::Running(..)) => self.write(Durability::Process, |tx| settle_status(tx, id, &found)),
            (Status::Stopped | Status::Failed, Found::Running(..) | Found::Frozen(..)) => self.0.runtime.kill(id),
            // A start after a reboot that was cut short before it was journalled.
            (Status::Stopped, Found::Nothing) if again => {
                drop(lock);
                self.autostart(id)
            }
            (Status::Stopped | Status::Failed, Found::Nothing) => Ok(()),
            (_, Found::Nothing) => {
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
                if again { self.autostart(id) } else { Ok(()) }
            }
            (_, found) => self.write(Durability::Process, |tx| settle_status(tx, id, &found)),
        }
    }
}

fn lifecycle_answer(r: &ContainerRow, verb: Verb, op: &OperationId) -> LifecycleAnswer {
    LifecycleAnswer {
        error: false,
        operation: verb,
        container_id: r.id.clone(),
        project_id: r.project.clone(),
        message: format!("the container is {}", r.status),
        status: r.status,
        operation_id: Some(op.clone()),
    }
}

pub(super) fn lock_of(intent: &Intent) -> String {
    match intent {
        Intent::Import { image } | Intent::ImageFromSnapshot { image, .. } | Intent::DeleteImage { image } => crate::image::ops::lock_name(&image.name),
        other => other.resource().1.to_owned(),
    }
}

/// Writes down what a container was found doing.
fn settle_status(tx: &mut Tx<'_>, id: &ContainerId, found: &Found) -> Result<()> {
    tx.change_container(id, "system", None, |r| {
        let (status, at, run) = match found {
            Found::Running(at, run) => (Status::Running, *at, Some(run)),
            Found::Frozen(at, run) => (Status::Paused, *at, Some(run)),
            Found::Nothing => (Status::Stopped, None, None),
        };
        r.status = status;
        r.state.message = None;
        r.state.started_ms = at.or(r.state.started_ms);
        r.state.desired = if run.is_some() { Desired::Running } else { Desired::Stopped };
        if let Some(run) = run {
            r.state.run = Some(run.clone());
        }
    })
    .map(|_| ())
}

fn fail(tx: &mut Tx<'_>, id: &ContainerId, why: &str) -> Result<()> {
    tx.change_container(id, "system", Some(json!({ "error": why })), |r| {
        r.status = Status::Failed;
        r.state.message = Some(why.to_owned());
    })
    .map(|_| ())
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
