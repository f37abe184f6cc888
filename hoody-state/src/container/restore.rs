use super::snapshots::{free_name, fresh};
use crate::catalog::containers::Desired;
use crate::catalog::snapshots::{SnapshotRow, alias_in_use};
use crate::catalog::{Durability, Tx, containers, ms, snapshots};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, RunId};
use crate::model::{RestoreOptions, Restored, Snapshot, Status};
use crate::name::{Alias, SnapshotName};
use crate::op::{DatabasesPlan, Intent, Op};
use crate::snapshot::Volume;
use crate::units::Generation;
use jiff::Timestamp;
use serde_json::json;

/// The row of the snapshot in which a restore keeps the state before.
pub(super) fn kept_row(
    name: SnapshotName,
    alias: Option<Alias>,
    now: Timestamp,
    expires_at: Option<Timestamp>,
    parent: Option<SnapshotName>,
    why: String,
) -> SnapshotRow {
    let snapshot = Snapshot { expires_at, parent, description: Some(why), ..fresh(name, alias, now) };
    SnapshotRow { snapshot, generation: Generation(0) }
}

impl Host {
    /// Puts a snapshot in the place of a container's live volume and boots it fresh, if it ran or was paused before (or `options.start` says so). The
    /// state before is kept: under `keep_current`, else as an undo snapshot that expires by itself. Other snapshots are untouched.
    ///
    /// Steps: kill, clone the snapshot beside `live`, exchange the two by one rename, boot, keep the old one. Until the exchange everything can be
    /// undone, after it everything can be finished; a crash ends in one of the two.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `invalid_alias`, `alias_in_use`, `pool_full`, `operation_in_progress`, `operation_state_conflict`;
    /// `start_failed` when the restored state does not boot: the restore itself stands then, and the undo snapshot is there.
    pub fn restore(&self, caller: &Caller, id: &ContainerId, name: &str, options: RestoreOptions) -> Result<Restored> {
        self.restore_found(caller, id, options, |c| snapshots::get(c, id, name))
    }

    fn restore_found(
        &self,
        caller: &Caller,
        id: &ContainerId,
        options: RestoreOptions,
        find: impl Fn(&rusqlite::Connection) -> Result<SnapshotRow>,
    ) -> Result<Restored> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        self.0.catalog.read(|c| containers::get(c, id).and_then(|_| find(c)))?;
        let keep_alias = options.keep_current.as_deref().map(str::parse::<Alias>).transpose()?;
        let lock = self.0.locks.take(id.as_str(), "snapshot.restore")?;
        self.guard_space()?;
        let now = self.0.clock.now();
        let (row, target, undo_name) = self.0.catalog.read(|c| {
            let row = containers::get(c, id)?;
            if matches!(row.status, Status::Creating | Status::Copying | Status::Deleting | Status::Deleted) {
                return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: nothing can be restored into it", row.status)));
            }
            super::copy::whole(&row)?;
            if let Some(a) = &keep_alias
                && snapshots::showing(c, id, a.as_str())?.is_some()
            {
                return Err(alias_in_use(Some(a)));
            }
            let target = find(c)?;
            let wanted = match &keep_alias {
                Some(a) => SnapshotName::canonical(Some(a), now),
                None => now.strftime("undo-%Y%m%d-%H%M%S").to_string().parse()?,
            };
            Ok((row, target, free_name(c, id, wanted)?))
        })?;
        let live = self
            .0
            .store
            .info(&Volume::Live(id.clone()))?
            .ok_or_else(|| Error::new(crate::Code::CatalogCorrupt, format!("container {id} has no live volume: run `check`")))?;
        let expires_at = match &keep_alias {
            Some(_) => None,
            None => now.checked_add(self.0.settings.undo_expiry).ok(),
        };
        let why = format!("the state before {} was restored", target.snapshot.name);
        let keep = kept_row(undo_name, keep_alias, now, expires_at, row.state.head.clone(), why);
        let databases = self.databases_plan(&row, &target.snapshot.name, options.databases)?;
        let was_running = matches!(row.status, Status::Running | Status::Paused);
        let run = RunId::generate();
        let intent = Intent::Restore {
            container: id.clone(),
            snapshot: target.snapshot.name,
            keep: Box::new(keep),
            live: live.id,
            boot: options.start.unwrap_or(was_running),
            was_running,
            run,
            by: caller.by.clone(),
            databases,
            discard: false,
            told: None,
        };
        let op = self.begin(caller, lock, Durability::Disk, intent, Some(&row.project), |_| Ok(()))?;
        let (restored, failed) = self.perform(op, |op| self.restore_steps(op))?;
        self.0.upkeep.expiry();
        failed.map_or(Ok(restored), Err)
    }

    /// The error beside the answer is that of the boot: the restore itself has ended well then, and there is nothing for recovery to do.
    pub(super) fn restore_steps(&self, op: &mut Op) -> Result<(Restored, Option<Error>)> {
        let Intent::Restore { container: id, snapshot, keep, boot, run, was_running, databases, discard, told, .. } = op.intent.clone() else {
            return Err(Error::internal("not a restore"));
        };
        let (live, next) = (Volume::Live(id.clone()), Volume::Next(id.clone()));
        op.step("kill")?;
        if was_running {
            self.0.runtime.kill(&id)?;
        }
        self.forget_private_databases(&id)?;
        op.step("clone")?;
        self.0.store.clone_volume(&Volume::Snapshot(id.clone(), snapshot.clone()), &next, &op.id)?;
        let row = self.0.catalog.read(|c| containers::get(c, &id))?;
        if databases != DatabasesPlan::Keep {
            op.step("clone databases")?;
            self.prepare_databases(&row, &snapshot, &keep.snapshot.name, &databases, &op.id)?;
        }
        op.step("exchange")?;
        self.0.store.exchange(&live, &next)?;
        let mut unreverted = Vec::new();
        if databases != DatabasesPlan::Keep {
            op.step("exchange databases")?;
            unreverted = self.restore_databases(&id, &snapshot, &databases, &op.id)?;
        }
        self.owner_exchanged(&id);
        // From here on it is only a matter of finishing: the new state boots while the old one is put away.
        op.step("boot")?;
        let (started, kept) = std::thread::scope(|s| {
            let put_away = || -> Result<Option<SnapshotRow>> {
                op.step("seal")?;
                self.put_away(&id, &keep, discard, &databases, || op.step("sync"))
            };
            let beside = std::thread::Builder::new().spawn_scoped(s, put_away);
            let started = if boot { Some(self.boot(&row, &run)) } else { None };
            let kept = match beside {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the restore ended badly"))),
                Err(_) => put_away(),
            };
            (started, kept)
        });
        let kept = kept?;
        let started = started.transpose();
        let failed = started.as_ref().err().map(|e| e.message().to_owned());
        let at = started.as_ref().ok().and_then(Option::as_ref).map(|r| ms(r.started_at));
        let out = op.finish(Durability::Process, |tx| {
            if let Some(told) = &told {
                tx.answer_key_of(&op.id, told)?;
            }
            self.note_restore(tx, &op.intent, kept.as_ref(), boot.then_some((at, failed)))
        })?;
        self.note_exit(&id)?;
        let before = kept.as_ref().map_or_else(String::new, |k| format!(" (the state before is kept as {})", k.snapshot.name));
        let failed = started.err().map(|e| e.context(format!("{snapshot} is restored, but it does not boot{before}")));
        let left = unreverted.into_iter().reduce(|a, b| a.context(b.message().to_owned()));
        let left = left.map(|e| e.context(format!("{snapshot} is restored, but not all databases could be reverted (restore it again to try again)")));
        Ok((out, failed.or(left)))
    }

    /// After the exchange: keeps what was live under its name, or lets it go; durable when it returns. May be repeated.
    pub(crate) fn put_away(
        &self,
        id: &ContainerId,
        keep: &SnapshotRow,
        discard: bool,
        databases: &DatabasesPlan,
        before_sync: impl FnOnce() -> Result<()>,
    ) -> Result<Option<SnapshotRow>> {
        if discard {
            let mut gone = self.0.store.delete(&Volume::Next(id.clone()))?;
            gone.volumes.extend(self.0.store.delete(&Volume::NextDatabases(id.clone()))?.volumes);
            before_sync()?;
            self.0.store.sync()?;
            self.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, &format!("what container {id} was before")))?;
            self.0.upkeep.reclaim();
            return Ok(None);
        }
        self.0.store.seal(&Volume::Next(id.clone()), &Volume::Snapshot(id.clone(), keep.snapshot.name.clone()))?;
        self.keep_databases(id, &keep.snapshot.name, databases)?;
        before_sync()?;
        self.0.store.sync()?;
        self.measured(id, keep.clone()).map(Some)
    }

    /// Writes down what a restore came to. `boot` is nothing if it was not to boot, else when it started and why it did not.
    pub(crate) fn note_restore(
        &self,
        tx: &mut Tx<'_>,
        intent: &Intent,
        kept: Option<&SnapshotRow>,
        boot: Option<(Option<i64>, Option<String>)>,
    ) -> Result<Restored> {
        let Intent::Restore { container: id, snapshot, run, by, .. } = intent else { return Err(Error::internal("not a restore")) };
        if let Some(kept) = kept {
            tx.put_snapshot(id, kept)?;
        }
        let undo = kept.map(|k| k.snapshot.name.clone());
        let mut target = snapshots::by_name(tx.conn, id, snapshot.as_str())?.ok_or_else(|| Error::internal(format!("snapshot {snapshot} has gone")))?;
        target.snapshot.last_used_at = Some(tx.now);
        tx.put_snapshot(id, &target)?;
        let now = ms(tx.now);
        let c = tx.change_container(id, by, Some(json!({ "restored": snapshot, "undo": undo })), |c| {
            c.state.head = Some(snapshot.clone());
            c.state.since_ms = now;
            c.state.last_used = Some(snapshot.clone());
            c.state.undo.clone_from(&undo);
            match boot {
                None => {
                    c.status = Status::Stopped;
                    c.state.desired = Desired::Stopped;
                    c.state.message = None;
                }
                Some((started, failed)) => {
                    c.status = if failed.is_some() { Status::Failed } else { Status::Running };
                    c.state.run = Some(run.clone());
                    c.state.desired = Desired::Running;
                    c.state.started_ms = started.or(c.state.started_ms);
                    c.state.message = failed;
                }
            }
        })?;
        tx.emit_container("container.snapshot.restored", &c, json!({ "snapshot": target.snapshot, "undo": undo }))?;
        Ok(Restored {
            success: true,
            message: undo.as_ref().map_or_else(|| format!("{snapshot} is restored"), |u| format!("{snapshot} is restored; the state before is kept as {u}")),
            snapshot: Some(target.snapshot),
            undo,
        })
    }

    /// Undoes the last restore, by restoring what it kept. That is a restore too, so it can be undone again.
    ///
    /// # Errors
    /// `nothing_to_undo`, and as for [`Host::restore`].
    pub fn undo(&self, caller: &Caller, id: &ContainerId) -> Result<Restored> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let row = self.0.catalog.read(|c| containers::get(c, id))?;
        let Some(undo) = row.state.undo else {
            return Err(Error::new(
                Code::NothingToUndo,
                format!("container {id} has no undo snapshot: nothing was restored, or it has expired or been deleted"),
            ));
        };
        // By its canonical name: another snapshot may have been given it as an alias.
        self.restore_found(caller, id, RestoreOptions::default(), |c| {
            snapshots::by_name(c, id, undo.as_str())?
                .ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {undo} has gone: nothing is left to undo")))
        })
    }

    /// Whether a restore's exchange has taken place: the volume that was live is no longer at `live`.
    pub(crate) fn exchanged(&self, id: &ContainerId, was: crate::units::VolumeId) -> Result<bool> {
        Ok(self.0.store.info(&Volume::Live(id.clone()))?.is_some_and(|i| i.id != was))
    }
}
