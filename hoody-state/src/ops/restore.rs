//! Puts a snapshot in the place of a container's live volume and boots it fresh.
//!
//! Steps: kill, clone the snapshot beside `live`, exchange the two by one rename, boot, keep the old one. Until the exchange everything can be undone, after
//! it everything can be finished. A crash ends in one of the two.

use super::exchange::{Boot, Exchange, Kept};
use super::snapshot_row::free_name;
use super::{Begun, Claim, Ended, Key, Op, Operation, Recovery, Want};
use crate::catalog::containers::ContainerRow;
use crate::catalog::history::{Entry, Parent};
use crate::catalog::snapshots::{SnapshotRow, alias_in_use};
use crate::catalog::{Durability, Tx, containers, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{DatabasesChoice, NodeKind, RestoreOptions, Restored, Status};
use crate::name::{Alias, SnapshotName};
use crate::op::Caller;
use crate::services::databases::DatabasesPlan;
use crate::snapshot::Volume;
use crate::world::World;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Restore {
    pub snapshot: SnapshotName,
    #[serde(flatten)]
    pub exchange: Exchange,
    /// What the history calls it.
    #[serde(default, skip_serializing_if = "Cause::is_restore")]
    pub cause: Cause,
    /// What the caller's key is answered with in the end, where the caller did not ask for a restore.
    #[serde(default, rename = "told")]
    pub key_answer: Option<serde_json::Value>,
}

/// Why a snapshot is put in the place of the live state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// Somebody restores it.
    #[default]
    Restore,
    /// Somebody undoes a restore.
    Undo,
    /// A copy is brought up to its source.
    Sync,
    /// A fork goes back.
    Reset,
}

impl Cause {
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_restore(&self) -> bool {
        *self == Cause::Restore
    }

    fn node(self) -> NodeKind {
        match self {
            Cause::Restore => NodeKind::Restore,
            Cause::Undo => NodeKind::Undo,
            Cause::Sync => NodeKind::Sync,
            Cause::Reset => NodeKind::Reset,
        }
    }
}

impl Operation for Restore {
    type World = World;
    type Answer = Restored;
    const TAG: &'static str = "restore";

    fn kind(&self) -> &'static str {
        "snapshot.restore"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.exchange.container.as_str())
    }

    fn claim(&self) -> Claim {
        let mut wants = vec![Want::container(&self.exchange.container)];
        if let DatabasesPlan::Exchange { project, .. } | DatabasesPlan::Revert { project } = &self.exchange.databases {
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
        if self.exchange.took_place(r.world)? { self.finish_later(r) } else { self.exchange.undo(r, "a restore", Vec::new()) }
    }
}

impl Restore {
    /// The error beside the answer is that of the boot or of a database: the restore itself has ended well then, and nothing is left for recovery to do.
    pub(super) fn steps(&self, op: &mut Op) -> Result<(Restored, Option<Error>)> {
        let world = op.world.clone();
        let (id, snapshot, databases) = (&self.exchange.container, &self.snapshot, &self.exchange.databases);
        op.step("kill")?;
        self.exchange.stop(&world)?;
        op.step("clone")?;
        world.store.clone_volume(&Volume::Snapshot(id.clone(), snapshot.clone()), &self.exchange.next(), &op.id)?;
        let row = world.read(|c| containers::get(c, id))?;
        if *databases != DatabasesPlan::Keep {
            op.step("clone databases")?;
            world.databases.prepare(&row, snapshot, &self.exchange.keep.snapshot.name, databases, &op.id)?;
        }
        op.step("exchange")?;
        self.exchange.swap(&world)?;
        let mut not_reverted = Vec::new();
        if *databases != DatabasesPlan::Keep {
            op.step("exchange databases")?;
            not_reverted = world.databases.restore(id, snapshot, databases, &op.id)?;
        }
        world.shares.owner_exchanged(id);
        let (started, kept) = self.exchange.boot_and_keep(op, &row)?;
        let booted = self.exchange.boot_result(&started);
        let restored = op.finish(Durability::Process, |tx| {
            if let Some(answer) = &self.key_answer {
                tx.answer_key_of(&op.id, answer)?;
            }
            self.note(tx, kept.as_ref(), booted)
        })?;
        world.exits.note(id)?;
        let before = kept.as_ref().map_or_else(String::new, |k| format!(" (the state before is kept as {})", k.snapshot.name));
        let failed = started.err().map(|e| e.context(format!("{snapshot} is restored, but it does not boot{before}")));
        let left = not_reverted.into_iter().reduce(|a, b| a.context(b.message().to_owned()));
        let left = left.map(|e| e.context(format!("{snapshot} is restored, but not all databases could be reverted (restore it again to try again)")));
        Ok((restored, failed.or(left)))
    }

    /// Writes down the result of a restore. `boot` is nothing if it was not to boot.
    fn note(&self, tx: &mut Tx<'_>, kept: Option<&SnapshotRow>, boot: Option<Boot>) -> Result<Restored> {
        let (id, snapshot) = (&self.exchange.container, &self.snapshot);
        if let Some(kept) = kept {
            tx.put_snapshot(id, kept)?;
        }
        let undo = kept.map(|k| k.snapshot.name.clone());
        let mut target = snapshots::by_name(tx.conn, id, snapshot.as_str())?.ok_or_else(|| Error::internal(format!("snapshot {snapshot} has gone")))?;
        target.snapshot.last_used_at = Some(tx.now);
        tx.put_snapshot(id, &target)?;
        let node = Entry::new(self.cause.node(), id).restored(snapshot).overwrote(undo.as_ref());
        tx.record(&match (self.cause, &undo) {
            // A copy that had no changes of its own goes on from what it was.
            (Cause::Sync, None) => node.from(Parent::Original(id, snapshot)).from(Parent::Present(id)),
            (Cause::Sync, Some(_)) => node.from(Parent::Original(id, snapshot)),
            _ => node.from(Parent::Snapshot(id, snapshot)),
        })?;
        let now = tx.now;
        let c = tx.change_container(id, &self.exchange.by, Some(json!({ "restored": snapshot, "undo": undo })), |c| {
            c.state.last_used = Some(snapshot.clone());
            self.exchange.note(c, now, Some(snapshot.clone()), undo.clone(), boot);
        })?;
        tx.emit_container("container.snapshot.restored", &c, json!({ "snapshot": target.snapshot, "undo": undo }))?;
        let message = undo.as_ref().map_or_else(|| format!("{snapshot} is restored"), |u| format!("{snapshot} is restored; the state before is kept as {u}"));
        Ok(Restored { success: true, message, snapshot: Some(target.snapshot), undo, operation_id: None })
    }

    fn finish_later(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.exchange.container);
        for e in world.databases.restore(id, &self.snapshot, &self.exchange.databases, r.id)? {
            tracing::error!(container = %id, error = %e, "a database could not be reverted; restore the snapshot again");
        }
        let kept = self.exchange.keep_old(world, || Ok(()))?;
        world.shares.owner_exchanged(id);
        let booted = self.exchange.boot_if_needed(world)?;
        r.finished(|tx| {
            let restored = self.note(tx, kept.as_ref(), booted)?;
            match &self.key_answer {
                Some(answer) => Ok(answer.clone()),
                None => serde_json::to_value(restored).map_err(|e| Error::internal(e.to_string())),
            }
        })
    }
}

/// See [`crate::Host::restore`].
pub(crate) fn restore(world: &World, caller: &Caller, id: &ContainerId, name: &str, options: RestoreOptions) -> Result<Restored> {
    restore_found(world, caller, id, options, Cause::Restore, |c| snapshots::get(c, id, name))
}

/// See [`crate::Host::undo`].
pub(crate) fn undo(world: &World, caller: &Caller, id: &ContainerId, options: RestoreOptions) -> Result<Restored> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let row = world.read(|c| containers::get(c, id))?;
    let Some(undo) = row.state.undo else {
        let message = format!("container {id} has no undo snapshot: nothing was restored, or it has expired or been deleted");
        return Err(Error::new(Code::NothingToUndo, message));
    };
    // By its canonical name: another snapshot may have been given it as an alias.
    restore_found(world, caller, id, options, Cause::Undo, |c| {
        snapshots::by_name(c, id, undo.as_str())?
            .ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {undo} has gone: nothing is left to undo")))
    })
}

fn restore_found(
    world: &World,
    caller: &Caller,
    id: &ContainerId,
    options: RestoreOptions,
    cause: Cause,
    find: impl Fn(&rusqlite::Connection) -> Result<SnapshotRow>,
) -> Result<Restored> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let seen = world.read(|c| containers::get(c, id).and_then(|r| Ok((r, find(c)?))))?;
    let keep_alias = options.keep_current.as_deref().map(str::parse::<Alias>).transpose()?;
    let held = world.engine.lock(caller, claim_of(world, &seen.0, &seen.1, options.databases)?)?;
    super::room::check(world, caller, id)?;
    let now = world.now();
    let (row, target, kept_alias) = world.read(|c| {
        let row = containers::get(c, id)?;
        require_changeable(&row)?;
        let Some(a) = &keep_alias else { return Ok((row, find(c)?, None)) };
        if snapshots::showing(c, id, a.as_str())?.is_some() {
            return Err(alias_in_use(Some(a)));
        }
        Ok((row, find(c)?, Some(free_name(c, id, SnapshotName::canonical(Some(a), now))?)))
    })?;
    let why = format!("the state before {} was restored", target.snapshot.name);
    let kept = match kept_alias {
        Some(name) => Kept { name, alias: keep_alias, expires_at: None, why },
        None => Kept::for_undo(world, id, why)?,
    };
    // Under the databases' lock: no container that would use them can be added before they are exchanged.
    let databases = world.databases.plan(&row, &target.snapshot.name, options.databases)?;
    let exchange = Exchange::plan(world, &row, kept, options.start, databases, &caller.by)?;
    let intent = Restore { snapshot: target.snapshot.name, exchange, cause, key_answer: None };
    let (snapshot, undo) = (intent.snapshot.clone(), intent.exchange.keep.snapshot.name.clone());
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

/// Refuses to put anything in the place of what a container is now, if it is being made or deleted.
pub(super) fn require_changeable(row: &ContainerRow) -> Result<()> {
    if matches!(row.status, Status::Creating | Status::Copying | Status::Deleting | Status::Deleted) {
        let message = format!("container {} is {}: nothing can be restored into it", row.id, row.status);
        return Err(Error::new(Code::OperationStateConflict, message));
    }
    super::copied::require_complete(row)
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
