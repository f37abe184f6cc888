use crate::catalog::snapshots::{SnapshotRow, alias_in_use};
use crate::catalog::{Durability, Tx, containers, ms, snapshots};
use crate::error::{Code, Error, Result};
use crate::host::{Caller, Host};
use crate::id::{ContainerId, OperationId};
use crate::model::{Consistency, NewSnapshot, OnAliasConflict, Snapshot, SnapshotAnswer, SnapshotDeleted, SnapshotList, Status};
use crate::name::{Alias, SnapshotName};
use crate::op::{Intent, LockGuard, Op};
use crate::snapshot::Volume;
use crate::units::{Bytes, Generation};
use jiff::{Timestamp, ToSpan};
use serde_json::json;
use std::collections::BTreeMap;

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

/// A name that finds no snapshot of the container yet, neither as canonical name nor as alias: the wanted one, or it with a number.
pub(super) fn free_name(c: &rusqlite::Connection, id: &ContainerId, wanted: SnapshotName) -> Result<SnapshotName> {
    let mut name = wanted.clone();
    let mut n = 2;
    while !snapshots::is_free(c, id, name.as_str())? {
        name = wanted.numbered(n);
        n += 1;
    }
    Ok(name)
}

/// A snapshot of which nothing is known yet but what it is called and when it was asked for.
pub(super) fn fresh(name: SnapshotName, alias: Option<Alias>, now: Timestamp) -> Snapshot {
    Snapshot {
        name,
        alias,
        created_at: now,
        last_used_at: None,
        expires_at: None,
        stateful: false,
        size: Bytes(0),
        parent: None,
        description: None,
        labels: BTreeMap::new(),
        pinned: None,
        // Until it is known better.
        consistency: Consistency::Crash,
        databases: None,
    }
}

impl Host {
    /// All snapshots of a container, newest first. Cost: one read of the catalog; the pool is not asked.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn snapshots(&self, id: &ContainerId) -> Result<SnapshotList> {
        let (row, list) = self.0.catalog.read(|c| Ok((containers::get(c, id)?, snapshots::all(c, id)?)))?;
        Ok(SnapshotList {
            container_id: id.clone(),
            project_id: row.project,
            snapshot_count: list.len() as u64,
            max_snapshots: self.0.settings.max_snapshots,
            snapshots: list.into_iter().map(|r| r.snapshot).collect(),
        })
    }

    /// One snapshot, by its alias, else by its canonical name.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`.
    pub fn snapshot(&self, id: &ContainerId, name: &str) -> Result<SnapshotAnswer> {
        self.0.catalog.read(|c| {
            let project_id = containers::get(c, id)?.project;
            Ok(SnapshotAnswer { container_id: id.clone(), project_id, snapshot: snapshots::get(c, id, name)?.snapshot })
        })
    }

    /// The same, with the databases that are in it and what they take.
    ///
    /// # Errors
    /// As for [`Host::snapshot`].
    pub fn snapshot_detail(&self, id: &ContainerId, name: &str) -> Result<SnapshotAnswer> {
        let mut answer = self.snapshot(id, name)?;
        answer.snapshot.databases = Some(self.databases_in(id, &answer.snapshot.name)?);
        Ok(answer)
    }

    /// Takes a snapshot of the disk of a container, whatever it is doing. Durable when it returns.
    ///
    /// Cost: one durable write of the journal and one transaction of the pool; nested volumes add one each, and a moment's freeze.
    ///
    /// # Errors
    /// `container_not_found`, `invalid_alias`, `invalid_expiry`, `alias_in_use`, `snapshot_pinned`, `container_snapshot_limit`, `pool_full`,
    /// `operation_in_progress`, `operation_state_conflict`. Nothing is left then.
    pub fn create_snapshot(&self, caller: &Caller, id: &ContainerId, new: NewSnapshot) -> Result<SnapshotAnswer> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        let lock = self.0.locks.take(id.as_str(), "snapshot.create");
        self.take_snapshot(caller, lock, id, new)
    }

    /// The same under a lock that is held; what is wrong with the request is said before that it is held by another.
    pub(crate) fn take_snapshot(&self, caller: &Caller, lock: Result<LockGuard>, id: &ContainerId, new: NewSnapshot) -> Result<SnapshotAnswer> {
        let now = self.0.clock.now();
        let alias = new.alias.as_deref().map(str::parse::<Alias>).transpose()?;
        let expires_at = expiry(new.expiry.as_ref(), now)?;
        super::validate::text("description", new.description.as_deref(), 16_000)?;
        let labels = labels(new.labels)?;
        let lock = lock?;
        let room = self.guard_space().and_then(|()| self.guard_nested(&Volume::Live(id.clone())));
        let (container, name, parent, replaced) = self.0.catalog.read(|c| {
            let r = containers::get(c, id)?;
            room?;
            if matches!(r.status, Status::Creating | Status::Copying | Status::Deleting | Status::Deleted) {
                return Err(Error::new(Code::OperationStateConflict, format!("container {id} is {}: it cannot be snapshotted", r.status)));
            }
            super::copy::whole(&r)?;
            let n = snapshots::count(c, id)?;
            if let Some(max) = self.0.settings.max_snapshots.filter(|max| n >= *max) {
                return Err(Error::new(Code::ContainerSnapshotLimit, format!("container {id} has {n} snapshots and may have {max}: delete one first"))
                    .with_data(json!({ "field": "snapshots", "container_id": id, "server_id": self.0.server.id, "current_count": n, "limit": max })));
            }
            let holder = alias.as_ref().map(|a| snapshots::showing(c, id, a.as_str())).transpose()?.flatten();
            let replaced = match (holder, new.on_alias_conflict) {
                (None, _) => None,
                (Some(_), OnAliasConflict::Error) => return Err(alias_in_use(alias.as_ref())),
                (Some(old), OnAliasConflict::Replace) => {
                    unpinned(&old.snapshot)?;
                    Some(old)
                }
            };
            // What is about to go cannot be grown from.
            let parent = match &replaced {
                Some(old) if r.state.head.as_ref() == Some(&old.snapshot.name) => old.snapshot.parent.clone(),
                _ => r.state.head.clone(),
            };
            Ok((r, free_name(c, id, SnapshotName::canonical(alias.as_ref(), now))?, parent, replaced))
        })?;
        let row = SnapshotRow {
            snapshot: Snapshot { expires_at, parent, description: new.description, labels, ..fresh(name, alias, now) },
            generation: Generation(0),
        };
        let replace = replaced.as_ref().map(|old| old.snapshot.name.clone());
        let databases = self.databases_along(&container)?.is_some();
        let intent = Intent::Snapshot { container: id.clone(), row: Box::new(row), replace, databases };
        let op = self.begin(caller, lock, Durability::Disk, intent, Some(&container.project), |_| Ok(()))?;
        let answer = self.perform(op, |op| self.snapshot_steps(op, replaced.as_ref()));
        // Also when it failed: what it replaced may still have to go, now that the lock is free.
        if expires_at.is_some() || replaced.is_some() {
            self.0.upkeep.expiry();
        }
        answer
    }

    fn snapshot_steps(&self, op: &mut Op, replaced: Option<&SnapshotRow>) -> Result<SnapshotAnswer> {
        let Intent::Snapshot { container: id, mut row, replace, databases } = op.intent.clone() else { return Err(Error::internal("not a snapshot")) };
        let live = Volume::Live(id.clone());
        op.step("snapshot")?;
        {
            // Several volumes are snapshotted one after the other: only a container that stands still has them all at one instant.
            let nested = self.0.store.info(&live)?.is_some_and(|i| i.nested > 0);
            let container = self.0.catalog.read(|c| containers::get(c, &id))?;
            let hold = self.0.freezing.hold_for_snapshot(&container, nested)?;
            let own = || self.0.store.snapshot(&live, &Volume::Snapshot(id.clone(), row.snapshot.name.clone()), &op.id);
            if databases {
                // Side by side: the two share a transaction of the pool.
                let along = || {
                    let to = Volume::SnapshotDatabases(id.clone(), row.snapshot.name.clone());
                    self.0.store.snapshot(&Volume::Databases(container.project.clone()), &to, &op.id)
                };
                let (a, b) = std::thread::scope(|s| match std::thread::Builder::new().spawn_scoped(s, along) {
                    Ok(thread) => (own(), thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the snapshot ended badly")))),
                    Err(_) => (own(), along()),
                });
                a.and(b)?;
            } else {
                own()?;
            }
            row.snapshot.consistency = hold.release();
        }
        let row = self.measured(&id, *row)?;
        // The intent is on the disk and the snapshot too: after a power cut recovery comes to the same row.
        let answer = op.finish(Durability::Process, |tx| self.insert_snapshot(tx, &id, &row, replace.as_ref()))?;
        if let Some(old) = replaced {
            self.drop_snapshot(&id, old)?;
        }
        Ok(answer)
    }

    /// The row of a snapshot that exists, with its generation and its size.
    pub(crate) fn measured(&self, id: &ContainerId, mut row: SnapshotRow) -> Result<SnapshotRow> {
        let volume = Volume::Snapshot(id.clone(), row.snapshot.name.clone());
        let info = self.0.store.info(&volume)?.ok_or_else(|| Error::internal(format!("snapshot {} is not there", row.snapshot.name)))?;
        row.generation = info.created;
        row.snapshot.size = self.0.store.delta(&volume, Some(self.parent_generation(id, row.snapshot.parent.as_ref())?))?;
        Ok(row)
    }

    fn parent_generation(&self, id: &ContainerId, parent: Option<&SnapshotName>) -> Result<Generation> {
        self.0.catalog.read(|c| {
            let parent = parent.map(|p| snapshots::by_name(c, id, p.as_str())).transpose()?.flatten();
            Ok(match parent {
                Some(p) => p.generation,
                None => containers::get(c, id)?.state.origin,
            })
        })
    }

    /// Puts a snapshot into the list, as what the live volume grows from now on; the one it replaces goes out.
    pub(crate) fn insert_snapshot(&self, tx: &mut Tx<'_>, id: &ContainerId, row: &SnapshotRow, replace: Option<&SnapshotName>) -> Result<SnapshotAnswer> {
        if let Some(old) = replace
            && let Some(old) = snapshots::by_name(tx.conn, id, old.as_str())?
        {
            self.remove_from_list(tx, id, &old)?;
        }
        tx.put_snapshot(id, row)?;
        let c = tx.change_container(id, "user", None, |c| {
            c.state.head = Some(row.snapshot.name.clone());
            c.state.since_ms = ms(row.snapshot.created_at);
        })?;
        tx.emit_container("container.snapshot.created", &c, json!({ "snapshot": row.snapshot }))?;
        Ok(SnapshotAnswer { container_id: id.clone(), project_id: c.project, snapshot: row.snapshot.clone() })
    }

    /// Takes a snapshot out of the list, hands its children to its parent, and writes down that its volume must go.
    pub(crate) fn remove_from_list(&self, tx: &mut Tx<'_>, id: &ContainerId, row: &SnapshotRow) -> Result<()> {
        let name = &row.snapshot.name;
        tx.remove_snapshot(id, row)?;
        let c = tx.change_container(id, "user", None, |c| {
            if c.state.head.as_ref() == Some(name) {
                c.state.head.clone_from(&row.snapshot.parent);
            }
            if c.state.undo.as_ref() == Some(name) {
                c.state.undo = None;
            }
        })?;
        let op = OperationId::generate();
        tx.open_operation(&op, &Intent::DeleteSnapshot { container: id.clone(), name: name.clone() }, Some(&c.project))?;
        tx.emit_container("container.snapshot.deleted", &c, json!({ "snapshot": { "name": name, "alias": row.snapshot.alias } }))
    }

    /// Deletes the volume of a snapshot or image that is no longer in a list, and closes the operations that say so.
    pub(crate) fn drop_volume(&self, volume: &Volume, what: &str) -> Result<()> {
        let open = self.0.catalog.read(crate::catalog::operations::open)?;
        self.0.hook.step("volume.delete", "delete")?;
        let mut gone = self.0.store.delete(volume)?;
        if let Volume::Snapshot(c, n) = volume {
            gone.volumes.extend(self.0.store.delete(&Volume::SnapshotDatabases(c.clone(), n.clone()))?.volumes);
        }
        self.0.hook.step("volume.delete", "finish")?;
        self.write(Durability::Process, |tx| {
            tx.add_reclaim(&gone.volumes, what)?;
            for (op, intent) in &open {
                let same = match (intent, volume) {
                    (Intent::DeleteSnapshot { container, name }, Volume::Snapshot(c, n)) => container == c && name == n,
                    (Intent::DeleteImage { image }, Volume::Image(n)) => image.name == *n,
                    _ => false,
                };
                if same {
                    tx.close_operation(op, crate::model::OperationStatus::Succeeded, None)?;
                }
            }
            Ok(())
        })?;
        self.0.upkeep.reclaim();
        Ok(())
    }

    /// Deletes a snapshot: gone for good when this returns; the pool reclaims its space in the background.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `snapshot_pinned`, `operation_in_progress`.
    pub fn delete_snapshot(&self, caller: &Caller, id: &ContainerId, name: &str) -> Result<SnapshotDeleted> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        self.0.catalog.read(|c| containers::get(c, id).and_then(|_| snapshots::get_unambiguous(c, id, name)))?;
        self.delete_the_snapshot(caller, id, |c| snapshots::get_unambiguous(c, id, name))
    }

    /// Deletes a snapshot that has expired, if it is still there and its expiry has not been put off meanwhile. By its name alone: its alias may be
    /// another's by now.
    pub(crate) fn expire_snapshot(&self, caller: &Caller, id: &ContainerId, name: &SnapshotName) -> Result<()> {
        let found = |c: &rusqlite::Connection| {
            let row = snapshots::by_name(c, id, name.as_str())?.filter(|r| r.snapshot.expires_at.is_some_and(|at| at <= self.0.clock.now()));
            row.ok_or_else(|| Error::new(Code::SnapshotNotFound, format!("snapshot {name} of container {id} does not expire any more")))
        };
        self.delete_the_snapshot(caller, id, found).map(|_| ())
    }

    fn delete_the_snapshot(
        &self,
        caller: &Caller,
        id: &ContainerId,
        find: impl FnOnce(&rusqlite::Connection) -> Result<SnapshotRow>,
    ) -> Result<SnapshotDeleted> {
        let _lock = self.0.locks.take(id.as_str(), "snapshot.delete")?;
        self.delete_under_lock(caller, id, find)
    }

    /// The same while the container is locked.
    pub(super) fn delete_under_lock(
        &self,
        caller: &Caller,
        id: &ContainerId,
        find: impl FnOnce(&rusqlite::Connection) -> Result<SnapshotRow>,
    ) -> Result<SnapshotDeleted> {
        self.0.hook.step("snapshot.delete", "intent")?;
        let (row, answer) = self.write(Durability::Disk, |tx| {
            let row = find(tx.conn)?;
            unpinned(&row.snapshot)?;
            tx.claim_key(caller.idempotency.as_ref(), None)?;
            self.remove_from_list(tx, id, &row)?;
            let answer =
                SnapshotDeleted { container_id: id.clone(), project_id: containers::get(tx.conn, id)?.project, snapshot_name: row.snapshot.name.clone() };
            tx.answer_key(caller.idempotency.as_ref(), &answer)?;
            Ok((row, answer))
        })?;
        self.drop_snapshot(id, &row)?;
        Ok(answer)
    }

    /// Lets go a snapshot that has left the list: a fact by then, so that what cannot be deleted now (it is being sent) is no error but left to the upkeep.
    fn drop_snapshot(&self, id: &ContainerId, row: &SnapshotRow) -> Result<()> {
        let name = &row.snapshot.name;
        match self.drop_volume(&Volume::Snapshot(id.clone(), name.clone()), &format!("snapshot {name} of container {id}")) {
            Err(e) if e.code() != Code::Crashed => {
                tracing::warn!(container = %id, snapshot = %name, error = %e, "could not delete its volume yet; trying again");
                self.0.upkeep.expiry();
            }
            other => other?,
        }
        if let Err(e) = self.remeasure_children(id, row) {
            tracing::warn!(container = %id, error = %e, "could not measure the snapshots that grew from a deleted one");
        }
        Ok(())
    }

    /// What a deleted snapshot had added and its children still hold is theirs now.
    fn remeasure_children(&self, id: &ContainerId, gone: &SnapshotRow) -> Result<()> {
        let children: Vec<SnapshotRow> = self.0.catalog.read(|c| snapshots::all(c, id))?;
        for child in children.into_iter().filter(|s| s.snapshot.parent == gone.snapshot.parent && s.generation > gone.generation) {
            let name = child.snapshot.name.clone();
            let row = self.measured(id, child.clone())?;
            if row.snapshot.size != child.snapshot.size {
                self.write(Durability::Process, |tx| tx.set_snapshot_size(id, &name, row.snapshot.size))?;
            }
        }
        Ok(())
    }

    /// Under the operation lock: what is under way counts on the aliases and pins it has seen.
    fn edit(&self, caller: &Caller, id: &ContainerId, name: &str, event: Option<&str>, f: impl FnOnce(&mut Snapshot)) -> Result<SnapshotAnswer> {
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        self.0.catalog.read(|c| containers::get(c, id).and_then(|_| snapshots::get_unambiguous(c, id, name)))?;
        let _lock = self.0.locks.take(id.as_str(), "snapshot.update")?;
        self.change(caller, |tx| {
            let c = containers::get(tx.conn, id)?;
            if c.status == Status::Deleting {
                return Err(super::delete::deleting(id));
            }
            let mut row = snapshots::get_unambiguous(tx.conn, id, name)?;
            f(&mut row.snapshot);
            let shown = row.snapshot.alias.as_ref().map_or_else(|| row.snapshot.name.as_str(), Alias::as_str);
            if snapshots::showing(tx.conn, id, shown)?.is_some_and(|o| o.snapshot.name != row.snapshot.name) {
                return Err(match &row.snapshot.alias {
                    Some(a) => alias_in_use(Some(a)),
                    None => {
                        let m = format!("without its alias the snapshot is called {shown}, which is the alias of another by now: give it another alias");
                        Error::new(Code::AliasInUse, m)
                    }
                });
            }
            tx.put_snapshot(id, &row)?;
            if let Some(event) = event {
                tx.emit_container(event, &c, json!({ "snapshot": row.snapshot }))?;
            }
            Ok(SnapshotAnswer { container_id: id.clone(), project_id: c.project, snapshot: row.snapshot })
        })
    }

    /// Gives a snapshot another alias, or none. Its name stays.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `invalid_alias`, `alias_in_use`, `operation_in_progress`.
    pub fn rename_snapshot(&self, caller: &Caller, id: &ContainerId, name: &str, alias: Option<String>) -> Result<SnapshotAnswer> {
        let alias = alias.map(|a| a.parse::<Alias>()).transpose()?;
        self.edit(caller, id, name, Some("container.snapshot.renamed"), |s| s.alias = alias)
    }

    /// Pins a snapshot, so that it is neither expired nor deleted, or unpins it.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `validation_error`, `operation_in_progress`.
    pub fn pin_snapshot(&self, caller: &Caller, id: &ContainerId, name: &str, reason: Option<String>) -> Result<SnapshotAnswer> {
        super::validate::text("reason", reason.as_deref(), 1000)?;
        let answer = self.edit(caller, id, name, None, |s| s.pinned = reason)?;
        self.0.upkeep.expiry();
        Ok(answer)
    }

    /// Sets when a snapshot is deleted by itself, or that it is not.
    ///
    /// # Errors
    /// `container_not_found`, `snapshot_not_found`, `snapshot_ambiguous`, `invalid_expiry` for a time in the past, `operation_in_progress`.
    pub fn set_snapshot_expiry(&self, caller: &Caller, id: &ContainerId, name: &str, at: Option<Timestamp>) -> Result<SnapshotAnswer> {
        if at.is_some_and(|t| t <= self.0.clock.now()) {
            return Err(Error::new(Code::InvalidExpiry, "expires_at is in the past: give a future time, or delete the snapshot"));
        }
        let answer = self.edit(caller, id, name, None, |s| s.expires_at = at)?;
        self.0.upkeep.expiry();
        Ok(answer)
    }
}

/// Refuses to let a container go that has a pinned snapshot.
pub(crate) fn none_pinned(c: &rusqlite::Connection, id: &ContainerId) -> Result<()> {
    snapshots::pinned(c, id)?.map_or(Ok(()), |s| unpinned(&s.snapshot).map_err(|e| e.context(format!("container {id} cannot be deleted"))))
}

/// Refuses to let a pinned snapshot go.
fn unpinned(s: &Snapshot) -> Result<()> {
    match &s.pinned {
        None => Ok(()),
        Some(why) => Err(Error::new(Code::SnapshotPinned, format!("snapshot {} is pinned ({why}): unpin it first", s.name))),
    }
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
