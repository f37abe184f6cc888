//! Puts a snapshot in the place of a container's live volume and boots it fresh.
//!
//! Steps: kill, clone the snapshot beside `live`, exchange the two by one rename, boot, keep the old one. Until the exchange everything can be undone, after
//! it everything can be finished. A crash ends in one of the two.

use super::observed::{Observed, boot_again, note_failed, note_observed, observe, thaw_unless_paused};
use super::snapshot_row::{free_name, measured, unmeasured};
use super::{Begun, Claim, Ended, Key, Op, Operation, Recovery, Want};
use crate::catalog::containers::{ContainerRow, Desired};
use crate::catalog::snapshots::{SnapshotRow, alias_in_use};
use crate::catalog::{Durability, Tx, containers, ms, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, RunId};
use crate::model::{DatabasesChoice, RestoreOptions, Restored, Snapshot, Status};
use crate::name::{Alias, SnapshotName};
use crate::op::Caller;
use crate::runtime::Running;
use crate::services::databases::DatabasesPlan;
use crate::snapshot::Volume;
use crate::units::{Generation, VolumeId};
use crate::world::World;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Restore {
    pub container: ContainerId,
    pub snapshot: SnapshotName,
    /// Under which name the state before is kept.
    pub keep: Box<SnapshotRow>,
    /// The volume that was live: if another one is, the exchange has taken place.
    pub live: VolumeId,
    pub boot: bool,
    pub was_running: bool,
    pub run: RunId,
    pub by: String,
    #[serde(default)]
    pub databases: DatabasesPlan,
    /// The state before is not kept: it is in a snapshot already.
    #[serde(default)]
    pub discard: bool,
    /// What the caller's key is answered with in the end, where the caller did not ask for a restore.
    #[serde(default, rename = "told")]
    pub key_answer: Option<serde_json::Value>,
}

impl Operation for Restore {
    type World = World;
    type Answer = Restored;
    const TAG: &'static str = "restore";

    fn kind(&self) -> &'static str {
        "snapshot.restore"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        let mut wants = vec![Want::container(&self.container)];
        if let DatabasesPlan::Exchange { project, .. } | DatabasesPlan::Revert { project } = &self.databases {
            wants.push(Key::Databases(project.clone()).into());
        }
        Claim::short("snapshot.restore", wants)
    }

    fn run(self, op: &mut Op) -> Result<Restored> {
        let (restored, failed) = self.steps(op)?;
        op.world.upkeep.expiry();
        failed.map_or(Ok(restored), Err)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        if self.exchanged(r.world)? { self.finish_later(r) } else { self.undo(r) }
    }
}

impl Restore {
    /// The error beside the answer is that of the boot or of a database: the restore itself has ended well then, and nothing is left for recovery to do.
    pub(super) fn steps(&self, op: &mut Op) -> Result<(Restored, Option<Error>)> {
        let world = op.world.clone();
        let (id, snapshot) = (&self.container, &self.snapshot);
        let (live, next) = (Volume::Live(id.clone()), Volume::Next(id.clone()));
        op.step("kill")?;
        if self.was_running {
            world.runtime.kill(id)?;
        }
        world.databases.forget_private(id)?;
        world.roots.release(id)?;
        op.step("clone")?;
        world.store.clone_volume(&Volume::Snapshot(id.clone(), snapshot.clone()), &next, &op.id)?;
        let row = world.read(|c| containers::get(c, id))?;
        if self.databases != DatabasesPlan::Keep {
            op.step("clone databases")?;
            world.databases.prepare(&row, snapshot, &self.keep.snapshot.name, &self.databases, &op.id)?;
        }
        op.step("exchange")?;
        world.store.exchange(&live, &next)?;
        let mut not_reverted = Vec::new();
        if self.databases != DatabasesPlan::Keep {
            op.step("exchange databases")?;
            not_reverted = world.databases.restore(id, snapshot, &self.databases, &op.id)?;
        }
        world.shares.owner_exchanged(id);
        let (started, kept) = self.boot_and_keep(op, &world, &row)?;
        let failed = started.as_ref().err().map(|e| e.message().to_owned());
        let at = started.as_ref().ok().and_then(Option::as_ref).map(|r| ms(r.started_at));
        let restored = op.finish(Durability::Process, |tx| {
            if let Some(answer) = &self.key_answer {
                tx.answer_key_of(&op.id, answer)?;
            }
            self.note(tx, kept.as_ref(), self.boot.then_some((at, failed)))
        })?;
        world.exits.note(id)?;
        let before = kept.as_ref().map_or_else(String::new, |k| format!(" (the state before is kept as {})", k.snapshot.name));
        let failed = started.err().map(|e| e.context(format!("{snapshot} is restored, but it does not boot{before}")));
        let left = not_reverted.into_iter().reduce(|a, b| a.context(b.message().to_owned()));
        let left = left.map(|e| e.context(format!("{snapshot} is restored, but not all databases could be reverted (restore it again to try again)")));
        Ok((restored, failed.or(left)))
    }

    /// After the exchange it is only a matter of finishing: the new state boots while the old one is kept.
    #[allow(clippy::type_complexity)]
    fn boot_and_keep(&self, op: &Op, world: &World, row: &ContainerRow) -> Result<(Result<Option<Running>>, Option<SnapshotRow>)> {
        op.step("boot")?;
        let (started, kept) = std::thread::scope(|s| {
            let keep = || -> Result<Option<SnapshotRow>> {
                op.step("seal")?;
                self.keep_old(world, || op.step("sync"))
            };
            let beside = std::thread::Builder::new().spawn_scoped(s, keep);
            let started = if self.boot { Some(world.starter.start(row, &self.run)) } else { None };
            let kept = match beside {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the restore panicked"))),
                Err(_) => keep(),
            };
            (started, kept)
        });
        Ok((started.transpose(), kept?))
    }

    /// After the exchange: keeps what was live under its name, or deletes it. Durable when it returns. May be repeated.
    fn keep_old(&self, world: &World, before_sync: impl FnOnce() -> Result<()>) -> Result<Option<SnapshotRow>> {
        let (id, keep) = (&self.container, &self.keep.snapshot.name);
        if self.discard {
            let mut gone = world.store.delete(&Volume::Next(id.clone()))?;
            gone.volumes.extend(world.store.delete(&Volume::NextDatabases(id.clone()))?.volumes);
            before_sync()?;
            world.store.sync()?;
            world.write(Durability::Process, |tx| tx.add_reclaim(&gone.volumes, &format!("what container {id} was before")))?;
            world.upkeep.reclaim();
            return Ok(None);
        }
        world.store.seal(&Volume::Next(id.clone()), &Volume::Snapshot(id.clone(), keep.clone()))?;
        world.databases.keep(id, keep, &self.databases)?;
        before_sync()?;
        world.store.sync()?;
        measured(world, id, (*self.keep).clone()).map(Some)
    }

    /// Writes down the result of a restore. `boot` is nothing if it was not to boot, else when it started and why it did not.
    fn note(&self, tx: &mut Tx<'_>, kept: Option<&SnapshotRow>, boot: Option<(Option<i64>, Option<String>)>) -> Result<Restored> {
        let (id, snapshot) = (&self.container, &self.snapshot);
        if let Some(kept) = kept {
            tx.put_snapshot(id, kept)?;
        }
        let undo = kept.map(|k| k.snapshot.name.clone());
        let mut target = snapshots::by_name(tx.conn, id, snapshot.as_str())?.ok_or_else(|| Error::internal(format!("snapshot {snapshot} has gone")))?;
        target.snapshot.last_used_at = Some(tx.now);
        tx.put_snapshot(id, &target)?;
        let now = ms(tx.now);
        let c = tx.change_container(id, &self.by, Some(json!({ "restored": snapshot, "undo": undo })), |c| {
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
                    c.state.run = Some(self.run.clone());
                    c.state.desired = Desired::Running;
                    c.state.started_ms = started.or(c.state.started_ms);
                    c.state.message = failed;
                }
            }
        })?;
        tx.emit_container("container.snapshot.restored", &c, json!({ "snapshot": target.snapshot, "undo": undo }))?;
        let message = undo.as_ref().map_or_else(|| format!("{snapshot} is restored"), |u| format!("{snapshot} is restored; the state before is kept as {u}"));
        Ok(Restored { success: true, message, snapshot: Some(target.snapshot), undo, operation_id: None })
    }

    /// Whether the exchange has taken place: the volume that was live is no longer at `live`.
    fn exchanged(&self, world: &World) -> Result<bool> {
        Ok(world.store.info(&Volume::Live(self.container.clone()))?.is_some_and(|i| i.id != self.live))
    }

    fn finish_later(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        for e in world.databases.restore(id, &self.snapshot, &self.databases, r.id)? {
            tracing::error!(container = %id, error = %e, "a database could not be reverted; restore the snapshot again");
        }
        let kept = self.keep_old(world, || Ok(()))?;
        world.shares.owner_exchanged(id);
        let booted = if self.boot {
            Some(match observe(world, id)? {
                Observed::Running(at, _) | Observed::Frozen(at, _) => (at, None),
                Observed::Nothing => {
                    world.runtime.kill(id)?;
                    match boot_again(world, id, &self.run) {
                        Ok(Observed::Running(at, _) | Observed::Frozen(at, _)) => (at, None),
                        Ok(Observed::Nothing) => (None, Some("it did not start".to_owned())),
                        Err(why) => (None, Some(why)),
                    }
                }
            })
        } else {
            None
        };
        r.finished(|tx| {
            let restored = self.note(tx, kept.as_ref(), booted)?;
            match &self.key_answer {
                Some(answer) => Ok(answer.clone()),
                None => serde_json::to_value(restored).map_err(|e| Error::internal(e.to_string())),
            }
        })
    }

    fn undo(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        thaw_unless_paused(world, id)?;
        let mut gone = world.store.delete(&Volume::Next(id.clone()))?;
        gone.volumes.extend(world.store.delete(&Volume::Staging(r.id.clone()))?.volumes);
        gone.volumes.extend(world.databases.unprepare(id, &self.keep.snapshot.name, &self.databases)?);
        let observed = match observe(world, id)? {
            Observed::Nothing if self.was_running => boot_again(world, id, &RunId::generate()).map(Some),
            // It did not run before either, and its status says why.
            Observed::Nothing => Ok(None),
            other => Ok(Some(other)),
        };
        r.undone(|tx| {
            tx.add_reclaim(&gone.volumes, &format!("a restore of container {id} that was undone"))?;
            match &observed {
                Ok(Some(observed)) => note_observed(tx, id, observed),
                Ok(None) => Ok(()),
                Err(why) => note_failed(tx, id, why),
            }
        })?;
        world.upkeep.reclaim();
        Ok(())
    }
}

/// The row of the snapshot in which a restore keeps the state before.
pub(super) fn kept_row(
    name: SnapshotName,
    alias: Option<Alias>,
    now: Timestamp,
    expires_at: Option<Timestamp>,
    parent: Option<SnapshotName>,
    why: String,
) -> Box<SnapshotRow> {
    let snapshot = Snapshot { expires_at, parent, description: Some(why), ..unmeasured(name, alias, now) };
    Box::new(SnapshotRow { snapshot, generation: Generation(0) })
}

/// See [`crate::Host::restore`].
pub(crate) fn restore(world: &World, caller: &Caller, id: &ContainerId, name: &str, options: RestoreOptions) -> Result<Restored> {
    restore_found(world, caller, id, options, |c| snapshots::get(c, id, name))
}

/// See [`crate::Host::undo`].
pub(crate) fn undo(world: &World, caller: &Caller, id: &ContainerId) -> Result<Restored> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let row = world.read(|c| containers::get(c, id))?;
    let Some(undo) = row.state.undo else {
        let message = format!("container {id} has no undo snapshot: nothing was restored, or it has expired or been deleted");
        return Err(Error::new(Code::NothingToUndo, message));
    };
    // By its canonical name: another snapshot may have been given it as an alias.
    restore_found(world, caller, id, RestoreOptions::default(), |c| {
        snapshots::by_name(c, id, undo.as_str())?
            .ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {undo} has gone: nothing is left to undo")))
    })
}

fn restore_found(
    world: &World,
    caller: &Caller,
    id: &ContainerId,
    options: RestoreOptions,
    find: impl Fn(&rusqlite::Connection) -> Result<SnapshotRow>,
) -> Result<Restored> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let seen = world.read(|c| containers::get(c, id).and_then(|r| Ok((r, find(c)?))))?;
    let keep_alias = options.keep_current.as_deref().map(str::parse::<Alias>).transpose()?;
    let held = world.engine.lock(caller, claim_of(world, &seen.0, &seen.1, options.databases)?)?;
    world.limits.check_space()?;
    let now = world.now();
    let (row, target, undo_name) = world.read(|c| {
        let row = containers::get(c, id)?;
        if matches!(row.status, Status::Creating | Status::Copying | Status::Deleting | Status::Deleted) {
            return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: nothing can be restored into it", row.status)));
        }
        super::copied::require_complete(&row)?;
        if let Some(a) = &keep_alias
            && snapshots::showing(c, id, a.as_str())?.is_some()
        {
            return Err(alias_in_use(Some(a)));
        }
        let wanted = match &keep_alias {
            Some(a) => SnapshotName::canonical(Some(a), now),
            None => now.strftime("undo-%Y%m%d-%H%M%S").to_string().parse()?,
        };
        Ok((row, find(c)?, free_name(c, id, wanted)?))
    })?;
    let live = world.store.info(&Volume::Live(id.clone()))?;
    let live = live.ok_or_else(|| Error::new(Code::VolumeNotFound, format!("container {id} has no live volume: run `check`")))?;
    let expires_at = match &keep_alias {
        Some(_) => None,
        None => now.checked_add(world.settings.undo_expiry).ok(),
    };
    let why = format!("the state before {} was restored", target.snapshot.name);
    let was_running = matches!(row.status, Status::Running | Status::Paused);
    let intent = Restore {
        container: id.clone(),
        keep: kept_row(undo_name, keep_alias, now, expires_at, row.state.head.clone(), why),
        // Under the databases' lock: no container that would use them can be added before they are exchanged.
        databases: world.databases.plan(&row, &target.snapshot.name, options.databases)?,
        snapshot: target.snapshot.name,
        live: live.id,
        boot: options.start.unwrap_or(was_running),
        was_running,
        run: RunId::generate(),
        by: caller.by.clone(),
        discard: false,
        key_answer: None,
    };
    let (snapshot, undo) = (intent.snapshot.clone(), intent.keep.snapshot.name.clone());
    let begun = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&row.project), |_| Ok(()))?;
    let operation = begun.op.id.clone();
    match begun.in_background(caller.wait)? {
        Ended::Done(restored) => Ok(restored),
        Ended::Failed(e) => Err(e),
        Ended::Running(_) => Ok(Restored {
            success: true,
            message: format!("{snapshot} is being restored: GET /operations/{operation} says how it ends; the state before is kept as {undo}"),
            snapshot: None,
            undo: Some(undo),
            operation_id: Some(operation),
        }),
    }
}

/// The locks of a restore: the databases too, if it may change them.
fn claim_of(world: &World, row: &ContainerRow, target: &SnapshotRow, choice: Option<DatabasesChoice>) -> Result<Claim> {
    let mut wants = vec![Want::container(&row.id)];
    let taken = Volume::SnapshotDatabases(row.id.clone(), target.snapshot.name.clone());
    if choice != Some(DatabasesChoice::Keep) && world.store.info(&taken)?.is_some() {
        wants.push(Key::Databases(row.project.clone()).into());
    }
    Ok(Claim::short("snapshot.restore", wants))
}
