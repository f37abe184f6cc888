//! Takes a snapshot of a container's disk, whatever the container is doing, with the databases of its project.

use super::observed::thaw_unless_paused;
use super::own::require_own;
use super::snapshot_delete::{DeleteSnapshot, remove_from_list, unpinned};
use super::snapshot_row::{free_name, measured, unmeasured};
use super::{Begun, Claim, Held, Key, Op, Operation, Recovery, Want};
use crate::catalog::containers::ContainerRow;
use crate::catalog::snapshots::{SnapshotRow, alias_in_use};
use crate::catalog::{Durability, Tx, containers, ms, operations, snapshots};
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::validate;
use crate::model::{Consistency, DatabaseScope, NewSnapshot, OnAliasConflict, Snapshot, SnapshotAnswer, Status, Trigger};
use crate::name::{Alias, SnapshotName};
use crate::op::Caller;
use crate::snapshot::Volume;
use crate::units::Generation;
use crate::world::World;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TakeSnapshot {
    pub container: ContainerId,
    /// What the list is to have, but for what is only known once the volume exists.
    pub row: Box<SnapshotRow>,
    /// The snapshot that has the alias until then. It is deleted afterwards, unless it is among the `keep_replaced`.
    pub replace: Option<SnapshotName>,
    /// How many of those that had the alias are kept, without it.
    #[serde(default)]
    pub keep_replaced: u32,
    /// Whether the project's databases come along.
    #[serde(default)]
    pub databases: bool,
}

impl Operation for TakeSnapshot {
    type World = World;
    type Answer = SnapshotAnswer;
    const TAG: &'static str = "snapshot";

    fn kind(&self) -> &'static str {
        "snapshot.create"
    }

    fn resource(&self) -> (&'static str, &str) {
        ("container", self.container.as_str())
    }

    fn claim(&self) -> Claim {
        Claim::short("snapshot.create", vec![Want::container(&self.container)])
    }

    fn run(mut self, op: &mut Op) -> Result<SnapshotAnswer> {
        let world = op.world.clone();
        let id = self.container.clone();
        op.step("snapshot")?;
        self.row.snapshot.consistency = take_volumes(&world, op, &id, &self.row.snapshot.name, self.databases)?;
        let row = measured(&world, &id, (*self.row).clone())?;
        let gone = self.replaced(&world, &op.held()?)?;
        // The intent is on the disk and the snapshot too: after a power cut recovery comes to the same row.
        let answer = op.finish(Durability::Process, |tx| self.insert(tx, &row, &gone))?;
        for deletion in gone {
            deletion.run_here_or_later()?;
        }
        Ok(answer)
    }

    fn recover(&self, r: &Recovery<'_>) -> Result<()> {
        let (world, id) = (r.world, &self.container);
        let name = &self.row.snapshot.name;
        let (volume, along) = (Volume::Snapshot(id.clone(), name.clone()), Volume::SnapshotDatabases(id.clone(), name.clone()));
        let complete = |v: &Volume| Ok::<_, Error>(world.store.info(v)?.is_some_and(|i| i.read_only) && !world.store.claims_identity(v)?);
        let all_there = complete(&volume)? && (!self.databases || complete(&along)?);
        thaw_unless_paused(world, id)?;
        world.store.delete(&Volume::Staging(r.id.clone()))?;
        if all_there && r.error.is_none() {
            let row = measured(world, id, (*self.row).clone())?;
            let gone = self.replaced(world, &r.held()?)?;
            // What it replaces is deleted by the operations that this journals.
            return r.finished(|tx| self.insert(tx, &row, &gone));
        }
        let mut gone = world.store.delete(&volume)?;
        gone.volumes.extend(world.store.delete(&along)?.volumes);
        r.undone(|tx| tx.add_reclaim(&gone.volumes, &format!("snapshot {name} of container {id}")))?;
        world.upkeep.reclaim();
        Ok(())
    }
}

impl TakeSnapshot {
    /// The deletions of what it replaces, to be journalled with its end.
    fn replaced(&self, world: &World, held: &Held) -> Result<Vec<Begun<DeleteSnapshot>>> {
        let Some(name) = &self.replace else { return Ok(Vec::new()) };
        let rows = world.read(|c| match self.keep_replaced {
            0 => Ok(snapshots::by_name(c, &self.container, name.as_str())?.into_iter().collect()),
            keep => beyond(snapshots::all(c, &self.container)?, name, self.row.snapshot.alias.as_ref(), keep),
        })?;
        Ok(rows.iter().map(|row| Begun::planned(world, held.clone(), DeleteSnapshot::of(&self.container, row))).collect())
    }

    /// Puts the snapshot into the list, as what the live volume grows from now on. What it replaces leaves the list, or loses its alias.
    fn insert(&self, tx: &mut Tx<'_>, row: &SnapshotRow, gone: &[Begun<DeleteSnapshot>]) -> Result<SnapshotAnswer> {
        let id = &self.container;
        let before = match &self.replace {
            Some(name) if self.keep_replaced > 0 => snapshots::by_name(tx.conn, id, name.as_str())?,
            _ => None,
        };
        let (Some(mut old), Some(alias)) = (before, &row.snapshot.alias) else { return insert(tx, id, row, gone.first()) };
        old.snapshot.alias = alias_of_replaced(tx.conn, id, &old.snapshot, alias)?;
        old.snapshot.replaced_alias = Some(alias.clone());
        tx.put_snapshot(id, &old)?;
        let answer = insert(tx, id, row, None)?;
        // The new one may grow from one of them.
        gone.iter().try_for_each(|d| remove_from_list(tx, d))?;
        let listed = snapshots::by_name(tx.conn, id, row.snapshot.name.as_str())?;
        Ok(SnapshotAnswer { snapshot: listed.map_or(answer.snapshot, |r| r.snapshot), ..answer })
    }
}

/// Puts a snapshot into the list, as what the live volume grows from now on. The one it replaces leaves the list.
pub(super) fn insert(tx: &mut Tx<'_>, id: &ContainerId, row: &SnapshotRow, replaced: Option<&Begun<DeleteSnapshot>>) -> Result<SnapshotAnswer> {
    if let Some(replaced) = replaced {
        remove_from_list(tx, replaced)?;
    }
    tx.put_snapshot(id, row)?;
    let c = tx.change_container(id, "user", None, |c| {
        c.state.head = Some(row.snapshot.name.clone());
        c.state.since_ms = ms(row.snapshot.created_at);
    })?;
    tx.emit_container("container.snapshot.created", &c, json!({ "snapshot": row.snapshot }))?;
    Ok(SnapshotAnswer { container_id: id.clone(), project_id: c.project, snapshot: row.snapshot.clone() })
}

/// Of all snapshots, the newest first: those that had the alias, beyond the newest `keep`. `name` has it still. Pinned ones stay and do not count.
fn beyond(all: Vec<SnapshotRow>, name: &SnapshotName, alias: Option<&Alias>, keep: u32) -> Result<Vec<SnapshotRow>> {
    let had = |s: &Snapshot| s.name == *name || (s.replaced_alias.is_some() && s.replaced_alias.as_ref() == alias);
    Ok(all.into_iter().filter(|r| had(&r.snapshot) && r.snapshot.pinned.is_none()).skip(keep as usize).collect())
}

/// What a replaced snapshot is called from now on: by its name, or by an alias with its time if it would be confused with another then.
fn alias_of_replaced(c: &rusqlite::Connection, id: &ContainerId, old: &Snapshot, alias: &Alias) -> Result<Option<Alias>> {
    let confused = old.name.as_str() == alias.as_str() || snapshots::by_alias(c, id, old.name.as_str())?.is_some_and(|o| o.snapshot.name != old.name);
    if !confused {
        return Ok(None);
    }
    let short: String = alias.as_str().chars().take(70).collect();
    let dated = format!("{short}-{}", old.created_at.strftime("%Y%m%d-%H%M%S"));
    let mut wanted = dated.clone();
    let mut n = 2;
    while !snapshots::is_free(c, id, &wanted)? {
        wanted = format!("{dated}-{n}");
        n += 1;
    }
    wanted.parse().map(Some)
}

/// Makes the volumes of a snapshot, while nobody writes the databases. `databases`: whether the project's come along.
pub(super) fn take_volumes(world: &World, op: &Op, id: &ContainerId, name: &SnapshotName, databases: bool) -> Result<Consistency> {
    let live = Volume::Live(id.clone());
    // Several volumes are snapshotted one after the other: only a container that stands still has them all at one instant.
    let nested = world.store.info(&live)?.is_some_and(|i| i.nested > 0);
    let container = world.read(|c| containers::get(c, id))?;
    let hold = world.freezing.hold_for_snapshot(&container, nested)?;
    let still = world.roots.hold(id)?;
    let own = || world.store.snapshot(&live, &Volume::Snapshot(id.clone(), name.clone()), &op.id);
    if databases {
        // Side by side: the two share a transaction of the pool.
        let along = || {
            let to = Volume::SnapshotDatabases(id.clone(), name.clone());
            world.store.snapshot(&Volume::Databases(container.project.clone()), &to, &op.id)
        };
        let (a, b) = std::thread::scope(|s| match std::thread::Builder::new().spawn_scoped(s, along) {
            Ok(thread) => (own(), thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the snapshot panicked")))),
            Err(_) => (own(), along()),
        });
        a.and(b)?;
    } else {
        own()?;
    }
    drop(still);
    Ok(hold.release())
}

/// The locks of a snapshot: the databases that it takes along are only read, so snapshots of one project go on side by side.
pub(super) fn claim_of(c: &ContainerRow) -> Claim {
    let mut wants = vec![Want::container(&c.id)];
    if c.spec.databases == DatabaseScope::Project {
        wants.push(Want::shared(Key::Databases(c.project.clone())));
    }
    Claim::short("snapshot.create", wants)
}

/// See [`crate::Host::create_snapshot`].
pub(crate) fn create(world: &World, caller: &Caller, id: &ContainerId, new: NewSnapshot) -> Result<SnapshotAnswer> {
    create_for(world, caller, id, new, Trigger::Manual)
}

/// As [`create`], for another reason than that somebody asked for a snapshot.
pub(crate) fn create_for(world: &World, caller: &Caller, id: &ContainerId, new: NewSnapshot, trigger: Trigger) -> Result<SnapshotAnswer> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    // What is wrong with the request is said before that another operation is under way.
    let wanted = Wanted::of(new, trigger, world.now())?;
    let row = world.read(|c| containers::get(c, id))?;
    let held = world.engine.lock(caller, claim_of(&row))?;
    take_under(world, caller, held, id, wanted)
}

/// Recovers a snapshot that an operation had begun when it was cut short, before that operation goes on: another one could get its name.
pub(super) fn recover_inner(r: &Recovery<'_>, id: &ContainerId) -> Result<()> {
    let world = r.world;
    for row in world.read(operations::open)?.into_iter().filter(|o| o.resource_id == id.as_str() && o.id != *r.id) {
        let Ok(inner) = serde_json::from_str::<Tagged>(&row.intent) else { continue };
        if inner.kind == TakeSnapshot::TAG && world.engine.registry.get(&row.id).is_none() {
            inner.intent.recover(&r.of_inner(&row.id))?;
        }
    }
    Ok(())
}

/// A row of the journal.
#[derive(Deserialize)]
struct Tagged {
    kind: String,
    #[serde(flatten)]
    intent: TakeSnapshot,
}

/// Takes a snapshot within an operation that holds the container's lock.
pub(super) fn take_within(world: &World, caller: &Caller, held: Held, id: &ContainerId, new: NewSnapshot, trigger: Trigger) -> Result<SnapshotAnswer> {
    let wanted = Wanted::of(new, trigger, world.now())?;
    let mut claim = claim_of(&world.read(|c| containers::get(c, id))?);
    // Its own lock is held already.
    claim.wants.retain(|w| *w != Want::container(id));
    let _databases = world.engine.locks.take(claim, caller.patience)?;
    take_under(world, caller, held, id, wanted)
}

/// A request for a snapshot that says nothing wrong by itself.
struct Wanted {
    now: Timestamp,
    alias: Option<Alias>,
    on_alias_conflict: OnAliasConflict,
    keep_replaced: u32,
    expires_at: Option<Timestamp>,
    description: Option<String>,
    labels: BTreeMap<String, String>,
    trigger: Trigger,
}

impl Wanted {
    fn of(new: NewSnapshot, trigger: Trigger, now: Timestamp) -> Result<Self> {
        let alias = new.alias.as_deref().map(str::parse::<Alias>).transpose()?;
        let expires_at = expires_at(&new, now)?;
        let keep_replaced = keep_replaced(&new)?;
        validate::text("description", new.description.as_deref(), 16_000)?;
        Ok(Wanted {
            now,
            alias,
            on_alias_conflict: new.on_alias_conflict,
            keep_replaced,
            expires_at,
            description: new.description,
            labels: labels(new.labels)?,
            trigger,
        })
    }
}

fn take_under(world: &World, caller: &Caller, held: Held, id: &ContainerId, wanted: Wanted) -> Result<SnapshotAnswer> {
    // What nobody asked for costs nothing in the trash.
    let room = match wanted.trigger {
        Trigger::Manual | Trigger::Exec => super::room::check(world, caller, id),
        _ => world.limits.check_space(),
    };
    let room = room.and_then(|()| world.limits.check_nested(&Volume::Live(id.clone())));
    let Wanted { now, alias, on_alias_conflict, keep_replaced, expires_at, description, labels, trigger } = wanted;
    if caller.inside && keep_replaced > 0 {
        // What has had the alias before may be another's.
        return Err(Error::new(Code::ValidationError, "keep_replaced: a container cannot ask for it by its own socket; replace alone is possible"));
    }
    let (container, name, parent, replaced) = world.read(|c| {
        let r = containers::get(c, id)?;
        room?;
        may_be_snapshotted(world, c, &r)?;
        let holder = alias.as_ref().map(|a| snapshots::showing(c, id, a.as_str())).transpose()?.flatten();
        let replaced = match (holder, on_alias_conflict) {
            (None, _) => None,
            (Some(_), OnAliasConflict::Error) => return Err(alias_in_use(alias.as_ref())),
            (Some(old), OnAliasConflict::Replace) => {
                if keep_replaced == 0 {
                    unpinned(&old.snapshot)?;
                }
                require_own(c, caller, id, &old)?;
                Some(old)
            }
        };
        // The new one cannot grow from one that is about to be deleted.
        let parent = match &replaced {
            Some(old) if keep_replaced == 0 && r.state.head.as_ref() == Some(&old.snapshot.name) => old.snapshot.parent.clone(),
            _ => r.state.head.clone(),
        };
        Ok((r, free_name(c, id, SnapshotName::canonical(alias.as_ref(), now))?, parent, replaced))
    })?;
    let snapshot = Snapshot { expires_at, parent, description, labels, trigger, ..unmeasured(name, alias, now) };
    let replace = replaced.map(|old| old.snapshot.name);
    let replaces = replace.is_some();
    let databases = world.databases.taken_along(&container)?.is_some();
    let row = Box::new(SnapshotRow { snapshot, generation: Generation(0) });
    let intent = TakeSnapshot { container: id.clone(), row, replace, keep_replaced, databases };
    let answer = Begun::journal(world, caller, held, Durability::Disk, intent, Some(&container.project), |_| Ok(()))?.run_here();
    if expires_at.is_some() || replaces {
        world.upkeep.expiry();
    }
    answer
}

pub(super) fn may_be_snapshotted(world: &World, c: &rusqlite::Connection, r: &ContainerRow) -> Result<()> {
    let id = &r.id;
    if matches!(r.status, Status::Creating | Status::Copying | Status::Deleting | Status::Deleted) {
        return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: it cannot be snapshotted", r.status)));
    }
    super::copied::require_complete(r)?;
    let n = snapshots::count(c, id)?;
    if let Some(max) = world.settings.max_snapshots.filter(|max| n >= *max) {
        let message = format!("container {id} has {n} snapshots and may have {max}: delete one first");
        let data = json!({ "field": "snapshots", "container_id": id, "server_id": world.server.id, "current_count": n, "limit": max });
        return Err(Error::new(Code::ContainerSnapshotLimit, message).with_data(data));
    }
    Ok(())
}

/// When a new snapshot expires.
fn expires_at(new: &NewSnapshot, now: Timestamp) -> Result<Option<Timestamp>> {
    match (&new.expiry, new.expires_in) {
        (Some(_), Some(_)) => Err(Error::new(Code::InvalidExpiry, "expiry and expires_in are two words for one thing: give one of them; nothing was created")),
        (None, Some(age)) => Ok(Some(age.after(now))),
        (days, None) => expiry(days.as_ref(), now),
    }
}

/// How many replaced snapshots are kept.
fn keep_replaced(new: &NewSnapshot) -> Result<u32> {
    let keep = new.keep_replaced.unwrap_or(0);
    if keep > 1000 {
        return Err(Error::new(Code::ValidationError, format!("keep_replaced {keep} is out of range: 0 to 1000")));
    }
    if new.keep_replaced.is_some() && new.on_alias_conflict != OnAliasConflict::Replace {
        return Err(Error::new(Code::ValidationError, "keep_replaced has no meaning without on_alias_conflict: replace"));
    }
    Ok(keep)
}

/// Whole days, 1–3650, as a time.
fn expiry(days: Option<&serde_json::Number>, now: Timestamp) -> Result<Option<Timestamp>> {
    let Some(n) = days else { return Ok(None) };
    let days = n.as_i64().filter(|d| (1..=3650).contains(d));
    let days = days.ok_or_else(|| Error::new(Code::InvalidExpiry, format!("expiry {n} is out of range: whole days, 1 to 3650; nothing was created")))?;
    now.checked_add((days * 24).hours()).map(Some).map_err(|e| Error::new(Code::InvalidExpiry, format!("expiry {n}: {e}")))
}

fn labels(l: Option<BTreeMap<String, String>>) -> Result<BTreeMap<String, String>> {
    let l = l.unwrap_or_default();
    if l.len() > 64 || l.iter().any(|(k, v)| k.is_empty() || k.len() > 128 || v.len() > 1024) {
        return Err(Error::new(Code::ValidationError, "labels: at most 64, keys of 1 to 128 bytes, values of at most 1,024"));
    }
    Ok(l)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn expiry_is_whole_days_from_1_to_3650() {
        let now = "2026-11-23T10:05:00Z".parse().unwrap();
        let n = |s: &str| serde_json::from_str::<serde_json::Number>(s).unwrap();
        assert_eq!(expiry(Some(&n("7")), now).unwrap().unwrap(), "2026-11-30T10:05:00Z".parse::<Timestamp>().unwrap());
        for bad in ["0", "-1", "0.5", "1.0", "3651", "1e3", "18446744073709551615"] {
            assert_eq!(expiry(Some(&n(bad)), now).unwrap_err().code(), Code::InvalidExpiry, "{bad}");
        }
    }
}
